"""What an operator does: see every station and why a connector is busy, register and delete, and free what is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from csms import occupancy, views
from csms.charging import operations
from csms.charging.operations import OperatorCommand
from csms.errors import NotFound
from csms.model import AuditEntry, DecisionContext, Money, Outcome, Reservation, Snapshot, build_outcome, fold
from csms.service import registry
from csms.service.dependencies import Dependencies
from csms.service.flow import Flow
from csms.service.outbox import Move
from csms.service.unit_of_work import Decide
from csms.stations.registration import Registration
from csms.views import Json

TIMELINE_LIMIT: Final = 50
UNKNOWN_STATIONS_LIMIT: Final = 100


class Operators:
    """The operators' side of the service; `who` is the name that an action is signed with."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._flow = Flow(dependencies)

    def stations(self, *, limit: int, after: str | None = None, state: str | None = None) -> Json:
        """A page of stations, only those in this state if one is named, and where the next page begins; a filtered page
        may hold few and is the last only when there is no next."""
        ids, following = self._dependencies.store.stations(limit=limit, after=after)
        context = self._dependencies.build_context()
        shown = [views.station(snapshot, context) for snapshot in self._load_snapshots(ids)]
        return {"stations": [row for row in shown if state is None or state in row["states"]], "next": following}

    def station(self, identity: str) -> Json:
        """All that is known of a station but its password; NotFound if nobody registered it."""
        return views.station_details(
            self._dependencies.store.snapshot(fold(identity)), self._dependencies.build_context()
        )

    def register(self, registration: Registration, *, who: str) -> Json:
        """The station as it is known now; a password that was made for it is told here and never again."""
        stored = registry.register(self._flow, registration, who=who)
        shown, password = (
            views.station_details(stored.after, self._dependencies.build_context()),
            stored.registered.password,
        )
        return shown if password is None else shown | {"password": password}

    def delete(self, identity: str, *, who: str) -> None:
        """The station is not known any more; IllegalTransition while it is in use."""
        registry.delete(self._flow, identity, who=who)

    def unknown_stations(self) -> Json:
        """The inbox: who tried to connect and is not registered."""
        now = self._dependencies.now()
        knocked = self._dependencies.store.unknown_stations(limit=UNKNOWN_STATIONS_LIMIT)
        shown = [views.unknown_station(one) for one in knocked if one.expires_at > now]
        return {"unknownStations": shown, "strangers": shown}  # Until 0.4.0 under the name of 0.2.0, too.

    def accept(self, registration: Registration, *, who: str) -> Json:
        """The stranger as a registered station, in the spelling that it knocked with; NotFound if it is not in the
        inbox."""
        unknown_station = self._dependencies.store.unknown_station(fold(registration.identity))
        if unknown_station.expires_at <= self._dependencies.now():
            raise NotFound("No such station has tried to connect lately.", code="NoConnectionAttempt")
        return self.register(replace(registration, identity=unknown_station.identity), who=who)

    def occupancy(self, identity: str, connector_id: int) -> Json:
        """Why a connector is busy or not: every predicate with its evidence, live beside persisted status, who holds
        it, and what happened at the station lately."""
        snapshot = self._dependencies.store.snapshot(fold(identity))
        if connector_id not in snapshot.station.connectors:
            raise NotFound(f"{snapshot.station.identity} has no connector {connector_id}.", code="UnknownConnector")
        snapshot, audit_entries = self._add_reservation(snapshot, connector_id)
        context = self._dependencies.build_context()
        verdict = occupancy.verdict(snapshot, connector_id, now=context.now, policy=context.policy)
        self._dependencies.observe("occupancy", verdict)
        timeline = self._dependencies.store.timeline(snapshot.station.station_id, limit=TIMELINE_LIMIT)
        return views.occupancy_explanation(snapshot, connector_id, audit_entries, timeline, context)

    def commands(self, identity: str, *, limit: int) -> Json:
        """What the station was asked to do, newest first: what still waits, and what is over with its result."""
        snapshot = self._dependencies.store.snapshot(fold(identity))
        waiting = [views.command(call) for call in snapshot.calls]
        ended = self._dependencies.store.commands(snapshot.station.station_id, limit=limit)
        rows = [*waiting, *(views.command(record) for record in ended)]
        return {"commands": sorted(rows, key=lambda row: row["askedAt"], reverse=True)}

    def reset_status(self, identity: str, connector_id: int, command: OperatorCommand) -> Json:
        """The station after a connector's status was reset (operations.reset_status)."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            return build_outcome(before, operations.reset_status(before, connector_id, command, context))

        return self._change_station(identity, decide)

    def close_transaction(self, transaction_id: str, command: OperatorCommand) -> Json:
        """The transaction after it was closed (operations.close_transaction)."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            after = operations.close_transaction(before, transaction_id, command, context)
            return build_outcome(before, after, after.transactions[transaction_id])

        station_id = self._dependencies.store.transaction(transaction_id).station_id
        committed = self._flow.commit(
            station_id, decide, lambda before: operations.find_closing_read_set(before, transaction_id)
        )
        return views.transaction(committed.outcome.reply)

    def cancel_reservation(self, reservation_id: str, command: OperatorCommand) -> Json:
        """The reservation after it was cancelled (operations.cancel_reservation)."""
        held, audit_entries = self._change_reservation(
            reservation_id, lambda s, m: operations.cancel_reservation(s, command, m)
        )
        return views.reservation_with_audit_trail(held, audit_entries, self._dependencies.now())

    def settle_reservation(self, reservation_id: str, command: OperatorCommand) -> Json:
        """The reservation after it was billed without waiting for the cable (operations.settle_reservation)."""
        held, audit_entries = self._change_reservation(
            reservation_id, lambda s, m: operations.settle_reservation(s, command, m)
        )
        return views.reservation_with_audit_trail(held, audit_entries, self._dependencies.now())

    def payments(self, money: Money, *, limit: int, after: str | None = None) -> Json:
        """A page of the payments that stand so, and where the next page begins."""
        held, following = self._dependencies.store.payments(money, limit=limit, after=after)
        return {"payments": [views.payment(one) for one in held], "next": following}

    def payment(self, reservation_id: str) -> Json:
        """A payment with every attempt at moving it."""
        return views.payment_with_audit_trail(*self._dependencies.store.reservation_with_audit_trail(reservation_id))

    def retry_payment(self, reservation_id: str, command: OperatorCommand) -> Json:
        """The payment after it was tried again (operations.retry_payment)."""
        return views.payment_with_audit_trail(
            *self._change_reservation(reservation_id, lambda s, m: operations.retry_payment(s, command, m))
        )

    def bill_payment(self, reservation_id: str, energy_wh: int, command: OperatorCommand) -> Json:
        """The payment after the bill for this much energy was captured (operations.bill_payment)."""
        return views.payment_with_audit_trail(
            *self._change_reservation(reservation_id, lambda s, m: operations.bill_payment(s, energy_wh, command, m))
        )

    def release_payment(self, reservation_id: str, command: OperatorCommand) -> Json:
        """The payment after its hold was to be released (operations.release_payment)."""
        return views.payment_with_audit_trail(
            *self._change_reservation(reservation_id, lambda s, m: operations.release_payment(s, command, m))
        )

    def settle_payment(self, reservation_id: str, captured_amount: int, command: OperatorCommand) -> Json:
        """The payment after it was marked as settled (operations.settle_payment)."""
        return views.payment_with_audit_trail(
            *self._change_reservation(
                reservation_id, lambda s, m: operations.settle_payment(s, captured_amount, command, m)
            )
        )

    def trigger_status(self, identity: str, command: OperatorCommand) -> Json:
        """The station after it was asked how it is (operations.trigger_status)."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            return build_outcome(before, operations.trigger_status(before, command, context))

        return self._change_station(identity, decide)

    def _change_station(self, identity: str, decide: Decide) -> Json:
        """The station as the decision left it."""
        after = self._flow.commit(fold(identity), decide).after
        return views.station_details(after, self._dependencies.build_context())

    def _change_reservation(self, reservation_id: str, move: Move) -> tuple[Reservation, tuple[AuditEntry, ...]]:
        """The reservation as the move left it, with its audit trail; NotFound if there is none."""
        held, audit_entries = self._dependencies.store.reservation_with_audit_trail(reservation_id)
        changed = self._flow.outbox.change(held, move)
        after = self._flow.finish(changed)
        return after, (*audit_entries, *changed.audit_entries)

    def _load_snapshots(self, station_ids: tuple[str, ...]) -> Iterator[Snapshot]:
        """The stations that are still there; the directory may lag."""
        for station_id in station_ids:
            try:
                yield self._dependencies.store.snapshot(station_id)
            except NotFound:
                continue

    def _add_reservation(self, snapshot: Snapshot, connector_id: int) -> tuple[Snapshot, tuple[AuditEntry, ...]]:
        """The snapshot with the reservation whose lock stands on the connector, and its audit trail."""
        lock = snapshot.connector(connector_id).lock
        if lock is None:
            return snapshot, ()
        held, audit_entries = self._dependencies.store.reservation_with_audit_trail(lock.reservation_id)
        return replace(snapshot, reservation=held), audit_entries
