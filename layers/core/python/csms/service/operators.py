"""What an operator does: list stations, see why a connector is busy, register and delete stations, and resolve what is
stuck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from csms import occupancy, views
from csms.charging import operations
from csms.charging.operations import OperatorCommand
from csms.charging.reservation import require_connector
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


class Operators:
    """The operators' part of the service; `who` is the operator's name for the audit trail."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._flow = Flow(dependencies)

    def stations(self, *, limit: int, after: str | None = None, state: str | None = None) -> Json:
        """A page of stations, and the key of the next page. With `state`, only the page's stations in that state, so
        that a page may have few or none; the last page is the one without a next."""
        ids, following = self._dependencies.store.stations(limit=limit, after=after)
        context = self._dependencies.build_context()
        shown = [views.station(snapshot, context) for snapshot in self._load_snapshots(ids)]
        return {"stations": [row for row in shown if state is None or state in row["states"]], "next": following}

    def station(self, identity: str) -> Json:
        """All that is known of a station except its password, and how many connections in its name were refused. Raises
        NotFound if it is not registered."""
        snapshot, context = self._load_station(identity), self._dependencies.build_context()
        refused = self._dependencies.store.refused_connections(snapshot.station.station_id)
        counts = views.refused_connection_counts(refused, context.now)
        return views.station_details(snapshot, context) | {"refusedConnections": counts}

    def register(self, registration: Registration, *, who: str) -> Json:
        """Register the station, or change its registration. A password that was generated for it is returned here
        once."""
        stored = registry.register(self._flow, registration, who=who)
        shown, password = (
            views.station_details(stored.after, self._dependencies.build_context()),
            stored.registered.password,
        )
        return shown if password is None else shown | {"password": password}

    def delete(self, identity: str, *, who: str) -> None:
        """Delete the station. Raises IllegalTransition while it is in use."""
        registry.delete(self._flow, identity, who=who)

    def unknown_stations(self, *, limit: int, after: str | None = None) -> Json:
        """A page of the unknown stations that tried to connect lately, those first that offered an OCPP sub-protocol
        and came back, and the key of the next page. A page may have few or none; the last page is the one without a
        next."""
        now = self._dependencies.now()
        found, following = self._dependencies.store.unknown_stations(limit=limit, after=after)
        rows = [views.unknown_station(one) for one in found if one.expires_at > now]
        return {"unknownStations": rows, "next": following}

    def refused_connections(self, identity: str) -> Json:
        """The connections in the station's name that were refused lately: how often for each reason, and the latest."""
        station_id = self._load_station(identity).station.station_id
        refused = self._dependencies.store.refused_connections(station_id)
        return views.refused_connections(refused, self._dependencies.now())

    def accept(self, registration: Registration, *, who: str) -> Json:
        """Register an unknown station, with its identity spelled as it was when it tried to connect. Raises NotFound if
        it is not among the unknown stations."""
        unknown_station = self._dependencies.store.unknown_station(fold(registration.identity))
        if unknown_station.expires_at <= self._dependencies.now():
            raise NotFound("No such station has tried to connect lately.", code="NoConnectionAttempt")
        return self.register(replace(registration, identity=unknown_station.identity), who=who)

    def occupancy(self, identity: str, connector_id: int) -> Json:
        """Why a connector is busy or startable: every predicate with its evidence, the live and the persisted status,
        the reservation that locks it, and the station's latest timeline."""
        snapshot = self._load_station(identity)
        require_connector(snapshot, connector_id)
        snapshot, audit_entries = self._add_reservation(snapshot, connector_id)
        context = self._dependencies.build_context()
        verdict = occupancy.verdict(snapshot, connector_id, now=context.now, policy=context.policy)
        self._dependencies.observe("occupancy", verdict)
        timeline = self._dependencies.store.timeline(snapshot.station.station_id, limit=TIMELINE_LIMIT)
        return views.occupancy_explanation(snapshot, connector_id, audit_entries, timeline, context)

    def commands(self, identity: str, *, limit: int) -> Json:
        """The commands to the station, newest first: those that wait, and those that are over with their results."""
        snapshot = self._load_station(identity)
        waiting = [views.command(call) for call in snapshot.calls]
        ended = self._dependencies.store.commands(snapshot.station.station_id, limit=limit)
        rows = [*waiting, *(views.command(record) for record in ended)]
        return {"commands": sorted(rows, key=lambda row: row["askedAt"], reverse=True)}

    def messages(self, identity: str, *, limit: int, after: str | None = None) -> Json:
        """A page of the station's messages that were kept, newest first, and the key of the next page: irregular ones,
        and those in quarantine. A page may have few or none; the last page is the one without a next."""
        station_id = self._load_station(identity).station.station_id
        kept, following = self._dependencies.store.messages(station_id, limit=limit, after=after)
        now = self._dependencies.now()
        return {"messages": [views.kept_message(one) for one in kept if one.expires_at > now], "next": following}

    def reset_status(self, identity: str, connector_id: int, command: OperatorCommand) -> Json:
        """Reset a connector's status (operations.reset_status), and return the station."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            return build_outcome(before, operations.reset_status(before, connector_id, command, context))

        return self._change_station(identity, decide)

    def close_transaction(self, transaction_id: str, command: OperatorCommand) -> Json:
        """Close the transaction (operations.close_transaction), and return it. While that waits for the station's stop
        a timer is set; without it, or if it is lost, a sweep closes the transaction."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            after = operations.close_transaction(before, transaction_id, command, context)
            return build_outcome(before, after, after.transactions[transaction_id])

        station_id = self._dependencies.store.transaction(transaction_id).station_id
        committed = self._flow.commit(
            station_id, decide, lambda before: operations.find_closing_read_set(before, transaction_id)
        )
        closing = operations.find_close(committed.after, transaction_id)
        if closing is not None and closing != operations.find_close(committed.before, transaction_id):
            asked = next(c for c in committed.after.calls if c.transaction_id == transaction_id)
            self._flow.dispatch.set_timer(asked, operations.CLOSE_PATIENCE)
        return views.transaction(committed.outcome.reply, closing)

    def cancel_reservation(self, reservation_id: str, command: OperatorCommand) -> Json:
        """Cancel the reservation (operations.cancel_reservation), and return it."""
        held, audit_entries = self._change_reservation(
            reservation_id, lambda s, m: operations.cancel_reservation(s, command, m)
        )
        return views.reservation_with_audit_trail(held, audit_entries, self._dependencies.now())

    def settle_reservation(self, reservation_id: str, command: OperatorCommand) -> Json:
        """Bill the reservation without waiting for the unplug (operations.settle_reservation), and return it."""
        held, audit_entries = self._change_reservation(
            reservation_id, lambda s, m: operations.settle_reservation(s, command, m)
        )
        return views.reservation_with_audit_trail(held, audit_entries, self._dependencies.now())

    def payments(self, money: Money, *, limit: int, after: str | None = None) -> Json:
        """A page of the payments in this state, and the key of the next page."""
        held, following = self._dependencies.store.payments(money, limit=limit, after=after)
        return {"payments": [views.payment(one) for one in held], "next": following}

    def payment(self, reservation_id: str) -> Json:
        """A payment with its audit trail, and with what its last transaction's meter has shown."""
        store = self._dependencies.store
        held, audit_entries = store.reservation_with_audit_trail(reservation_id)
        shown = views.payment_with_audit_trail(held, audit_entries)
        if held.transaction_id is None:
            return shown
        return shown | views.meter(*store.transaction_with_samples(held.transaction_id, held.station_id))

    def retry_payment(self, reservation_id: str, command: OperatorCommand) -> Json:
        """Try the payment again (operations.retry_payment), and return it."""
        return views.payment_with_audit_trail(
            *self._change_reservation(reservation_id, lambda s, m: operations.retry_payment(s, command, m))
        )

    def bill_payment(self, reservation_id: str, energy_wh: int, command: OperatorCommand) -> Json:
        """Capture the bill for this much energy in Wh (operations.bill_payment), and return the payment."""
        return views.payment_with_audit_trail(
            *self._change_reservation(reservation_id, lambda s, m: operations.bill_payment(s, energy_wh, command, m))
        )

    def release_payment(self, reservation_id: str, command: OperatorCommand) -> Json:
        """Release the payment's hold (operations.release_payment), and return the payment."""
        return views.payment_with_audit_trail(
            *self._change_reservation(reservation_id, lambda s, m: operations.release_payment(s, command, m))
        )

    def settle_payment(self, reservation_id: str, captured_amount: int, command: OperatorCommand) -> Json:
        """Mark the payment as settled by hand (operations.settle_payment), and return it; `captured_amount` is in minor
        units."""
        return views.payment_with_audit_trail(
            *self._change_reservation(
                reservation_id, lambda s, m: operations.settle_payment(s, captured_amount, command, m)
            )
        )

    def trigger_status(self, identity: str, command: OperatorCommand) -> Json:
        """Request the status of each of the station's connectors (operations.trigger_status), and return the
        station."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            return build_outcome(before, operations.trigger_status(before, command, context))

        return self._change_station(identity, decide)

    def _change_station(self, identity: str, decide: Decide) -> Json:
        """Commit the decision, and return the station after it."""
        after = self._flow.commit(self._dependencies.find_station_id(identity), decide).after
        return views.station_details(after, self._dependencies.build_context())

    def _change_reservation(self, reservation_id: str, move: Move) -> tuple[Reservation, tuple[AuditEntry, ...]]:
        """Change the reservation, and return it with its audit trail. Raises NotFound if there is none."""
        held, audit_entries = self._dependencies.store.reservation_with_audit_trail(reservation_id)
        changed = self._flow.outbox.change(held, move)
        after = self._flow.finish(changed)
        return after, (*audit_entries, *changed.audit_entries)

    def _load_station(self, identity: str) -> Snapshot:
        """The station's snapshot. Raises NotFound if it is not registered."""
        return self._dependencies.store.snapshot(self._dependencies.find_station_id(identity))

    def _load_snapshots(self, station_ids: tuple[str, ...]) -> Iterator[Snapshot]:
        """The snapshots of those stations that still exist; the directory index may lag."""
        for station_id in station_ids:
            try:
                yield self._dependencies.store.snapshot(station_id)
            except NotFound:
                continue

    def _add_reservation(self, snapshot: Snapshot, connector_id: int) -> tuple[Snapshot, tuple[AuditEntry, ...]]:
        """The snapshot with the reservation whose lock is on the connector, and its audit trail."""
        lock = snapshot.connector(connector_id).lock
        if lock is None:
            return snapshot, ()
        held, audit_entries = self._dependencies.store.reservation_with_audit_trail(lock.reservation_id)
        return replace(snapshot, reservation=held), audit_entries
