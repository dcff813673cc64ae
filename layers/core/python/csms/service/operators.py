"""What an operator does: see every station and why a connector is busy, register and delete, and free what is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from csms import occupancy, views
from csms.charging import operations
from csms.charging.operations import Order
from csms.errors import NotFound
from csms.model import Moment, Money, Outcome, Reservation, Snapshot, Step, decided, fold
from csms.service import registry
from csms.service.flow import Flow
from csms.service.outbox import Move
from csms.service.unit_of_work import Decide
from csms.service.work import Work
from csms.stations.registration import Registration
from csms.views import Json

TIMELINE_SHOWN: Final = 50
STRANGERS_SHOWN: Final = 100


class Operators:
    """The operators' side of the service; `who` is the name that an action is signed with."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._flow = Flow(work)

    def stations(self, *, limit: int, after: str | None = None, state: str | None = None) -> Json:
        """A page of stations, only those in this state if one is named, and where the next page begins; a filtered page
        may hold few and is the last only when there is no next."""
        ids, following = self._work.store.stations(limit=limit, after=after)
        moment = self._work.moment()
        shown = [views.station(snapshot, moment) for snapshot in self._snapshots(ids)]
        return {"stations": [row for row in shown if state is None or state in row["states"]], "next": following}

    def station(self, identity: str) -> Json:
        """All that is known of a station but its password; NotFound if nobody registered it."""
        return views.station_in_full(self._work.store.snapshot(fold(identity)), self._work.moment())

    def register(self, registration: Registration, *, who: str) -> Json:
        """The station as it is known now; a password that was made for it is told here and never again."""
        stored = registry.register(self._flow, registration, who=who)
        shown, password = views.station_in_full(stored.after, self._work.moment()), stored.registered.password
        return shown if password is None else shown | {"password": password}

    def delete(self, identity: str, *, who: str) -> None:
        """The station is not known any more; IllegalTransition while it is in use."""
        registry.delete(self._flow, identity, who=who)

    def strangers(self) -> Json:
        """The inbox: who tried to connect and is not registered."""
        now = self._work.now()
        knocked = self._work.store.strangers(limit=STRANGERS_SHOWN)
        return {"strangers": [views.stranger(one) for one in knocked if one.expires_at > now]}

    def accept(self, registration: Registration, *, who: str) -> Json:
        """The stranger as a registered station, in the spelling that it knocked with; NotFound if it is not in the
        inbox."""
        stranger = self._work.store.stranger(fold(registration.identity))
        if stranger.expires_at <= self._work.now():
            raise NotFound("No such station has tried to connect lately.", code="UnknownStranger")
        return self.register(replace(registration, identity=stranger.identity), who=who)

    def occupancy(self, identity: str, connector_id: int) -> Json:
        """Why a connector is busy or not: every predicate with its evidence, live beside persisted status, who holds
        it, and what happened at the station lately."""
        snapshot = self._work.store.snapshot(fold(identity))
        if connector_id not in snapshot.station.connectors:
            raise NotFound(f"{snapshot.station.identity} has no connector {connector_id}.", code="UnknownConnector")
        snapshot, steps = self._with_reservation(snapshot, connector_id)
        moment = self._work.moment()
        verdict = occupancy.verdict(snapshot, connector_id, now=moment.now, policy=moment.policy)
        self._work.observe("occupancy", verdict)
        timeline = self._work.store.timeline(snapshot.station.station_id, limit=TIMELINE_SHOWN)
        return views.occupancy_explained(snapshot, connector_id, steps, timeline, moment)

    def commands(self, identity: str, *, limit: int) -> Json:
        """What the station was asked to do, newest first: what still waits, and what is over with its result."""
        snapshot = self._work.store.snapshot(fold(identity))
        waiting = [views.command(call) for call in snapshot.calls]
        ended = self._work.store.commands(snapshot.station.station_id, limit=limit)
        rows = [*waiting, *(views.command(record) for record in ended)]
        return {"commands": sorted(rows, key=lambda row: row["askedAt"], reverse=True)}

    def reset_status(self, identity: str, connector_id: int, order: Order) -> Json:
        """The station after a connector's status was reset (operations.reset_status)."""

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            return decided(before, operations.reset_status(before, connector_id, order, moment))

        return self._station_after(identity, decide)

    def close_transaction(self, transaction_id: str, order: Order) -> Json:
        """The transaction after it was closed (operations.close_transaction)."""

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            after = operations.close_transaction(before, transaction_id, order, moment)
            return decided(before, after, after.transactions[transaction_id])

        station_id = self._work.store.transaction(transaction_id).station_id
        committed = self._flow.commit(
            station_id, decide, lambda before: operations.closing_needs(before, transaction_id)
        )
        return views.transaction(committed.outcome.reply)

    def cancel_reservation(self, reservation_id: str, order: Order) -> Json:
        """The reservation after it was cancelled (operations.cancel_reservation)."""
        held, steps = self._change(reservation_id, lambda s, m: operations.cancel_reservation(s, order, m))
        return views.reservation_audited(held, steps, self._work.now())

    def settle_reservation(self, reservation_id: str, order: Order) -> Json:
        """The reservation after it was billed without waiting for the cable (operations.settle_reservation)."""
        held, steps = self._change(reservation_id, lambda s, m: operations.settle_reservation(s, order, m))
        return views.reservation_audited(held, steps, self._work.now())

    def payments(self, money: Money, *, limit: int, after: str | None = None) -> Json:
        """A page of the payments that stand so, and where the next page begins."""
        held, following = self._work.store.payments(money, limit=limit, after=after)
        return {"payments": [views.payment(one) for one in held], "next": following}

    def payment(self, reservation_id: str) -> Json:
        """A payment with every attempt at moving it."""
        return views.payment_audited(*self._work.store.reservation_with_steps(reservation_id))

    def retry_payment(self, reservation_id: str, order: Order) -> Json:
        """The payment after it was tried again (operations.retry_payment)."""
        return views.payment_audited(*self._change(reservation_id, lambda s, m: operations.retry_payment(s, order, m)))

    def bill_payment(self, reservation_id: str, energy_wh: int, order: Order) -> Json:
        """The payment after the bill for this much energy was captured (operations.bill_payment)."""
        return views.payment_audited(
            *self._change(reservation_id, lambda s, m: operations.bill_payment(s, energy_wh, order, m))
        )

    def release_payment(self, reservation_id: str, order: Order) -> Json:
        """The payment after its hold was to be released (operations.release_payment)."""
        return views.payment_audited(
            *self._change(reservation_id, lambda s, m: operations.release_payment(s, order, m))
        )

    def settle_payment(self, reservation_id: str, captured_amount: int, order: Order) -> Json:
        """The payment after it was marked as settled (operations.settle_payment)."""
        return views.payment_audited(
            *self._change(reservation_id, lambda s, m: operations.settle_payment(s, captured_amount, order, m))
        )

    def trigger_status(self, identity: str, order: Order) -> Json:
        """The station after it was asked how it is (operations.trigger_status)."""

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            return decided(before, operations.trigger_status(before, order, moment))

        return self._station_after(identity, decide)

    def _station_after(self, identity: str, decide: Decide) -> Json:
        """The station as the decision left it."""
        after = self._flow.commit(fold(identity), decide).after
        return views.station_in_full(after, self._work.moment())

    def _change(self, reservation_id: str, move: Move) -> tuple[Reservation, tuple[Step, ...]]:
        """The reservation as the move left it, with its audit trail; NotFound if there is none."""
        held, steps = self._work.store.reservation_with_steps(reservation_id)
        changed = self._flow.outbox.change(held, move)
        after = self._flow.finish(changed)
        return after, (*steps, *changed.steps)

    def _snapshots(self, station_ids: tuple[str, ...]) -> Iterator[Snapshot]:
        """The stations that are still there; the directory may lag."""
        for station_id in station_ids:
            try:
                yield self._work.store.snapshot(station_id)
            except NotFound:
                continue

    def _with_reservation(self, snapshot: Snapshot, connector_id: int) -> tuple[Snapshot, tuple[Step, ...]]:
        """The snapshot with the reservation whose lock stands on the connector, and its audit trail."""
        lock = snapshot.connector(connector_id).lock
        if lock is None:
            return snapshot, ()
        held, steps = self._work.store.reservation_with_steps(lock.reservation_id)
        return replace(snapshot, reservation=held), steps
