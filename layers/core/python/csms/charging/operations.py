"""The actions of operators: reset a status, close a transaction, cancel or settle a reservation, decide about a payment
under review, request a station's statuses.

Each action names the operator, the reason and the state they saw. If the state is another one by now, nothing changes
and Conflict ("StateChanged") names it. Otherwise the timeline, and a reservation's audit trail, record operator and
reason. Money moves only by the reservation's own rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from csms import occupancy
from csms.charging import reservation, review, settlement, status, stop_requests, transaction
from csms.charging.reservation import Event
from csms.commands import calls
from csms.errors import ChargerOffline, Conflict, IllegalTransition, NotFound
from csms.model import (
    Connector,
    ConnectorState,
    DecisionContext,
    OperatorClose,
    ReadSet,
    Snapshot,
    StatusSource,
    Transaction,
)

ONLINE: Final = "Online"
OFFLINE: Final = "Offline"
OPEN: Final = "Open"
STOPPED: Final = "Stopped"
UNKNOWN: Final = "Unknown"

CLOSE_PATIENCE: Final = timedelta(seconds=10)
"""How long a station that is online may take to stop a transaction that an operator closes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCommand:
    """Who acts, why, and the state they saw, as this module names it."""

    who: str
    reason: str
    expected: str


def presence_state(snapshot: Snapshot, context: DecisionContext) -> str:
    """The state that `trigger_status` expects: Online or Offline."""
    return ONLINE if occupancy.is_online(snapshot.presence, context.now) else OFFLINE


def status_state(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> str:
    """The state that `reset_status` expects: the raw live status that counts, else the persisted one, else Unknown."""
    view = occupancy.build_view(snapshot, connector_id, now=context.now, policy=context.policy)
    known = occupancy.live_status(view) or view.connector.persisted
    return UNKNOWN if known is None else known.raw


def transaction_state(of: Transaction) -> str:
    """The state that `close_transaction` expects: Open or Stopped."""
    return OPEN if of.stopped_at is None else STOPPED


def reset_status(snapshot: Snapshot, connector_id: int, command: OperatorCommand, context: DecisionContext) -> Snapshot:
    """Set the connector's persisted status to Available; connector 0 is the whole station.

    A live status is dropped only if it makes the connector busy, and the station is asked to report it again.
    IllegalTransition while a transaction or a reservation occupies the connector, or if the blocking status is that of
    the whole station.
    """
    if connector_id != 0:
        reservation.require_connector(snapshot, connector_id)
    before = status_state(snapshot, connector_id, context)
    _expect(command, before, f"connector {connector_id}")
    view = occupancy.build_view(snapshot, connector_id, now=context.now, policy=context.policy)
    connector = view.connector
    _refuse_in_use(connector, context)
    live_blocks = occupancy.live_not_startable(view) is not None
    if live_blocks and occupancy.live_status(view) is not connector.live:
        raise IllegalTransition(f"The whole station reports {before}: reset connector 0 instead.")
    free = status.build_persisted_status(ConnectorState.AVAILABLE, StatusSource.OPERATOR, context)
    after = snapshot.with_connector(replace(connector, persisted=free, live=None if live_blocks else connector.live))
    noted = after.add_timeline_entry(
        "StatusReset", context, connector=connector_id, was=before, who=command.who, why=command.reason
    )
    return _ask_status(noted, (connector_id,) if connector_id else snapshot.station.connectors, command, context)


def close_transaction(
    snapshot: Snapshot, transaction_id: str, command: OperatorCommand, context: DecisionContext
) -> Snapshot:
    """Close the transaction and settle its reservation by its own rules.

    A station that is online is asked to stop it, and has CLOSE_PATIENCE to report its meter: then maintenance closes
    the transaction with the best meter value. Who asks meanwhile changes nothing. With an offline station it is closed
    at once. IllegalTransition if it has stopped already.
    """
    closing = _require_transaction(snapshot, transaction_id)
    _expect(command, transaction_state(closing), f"transaction {transaction_id}")
    if closing.stopped_at is not None:
        raise IllegalTransition(f"Transaction {transaction_id} is {STOPPED} already.")
    running = snapshot.connector(closing.connector_id).transaction
    close = OperatorClose(who=command.who, reason=command.reason, due_at=context.now + CLOSE_PATIENCE)
    if running is None or running.transaction_id != transaction_id:
        return _close_queued_transaction(snapshot, closing, command, context)
    if presence_state(snapshot, context) == OFFLINE:
        return transaction.close_for_operator(snapshot, closing.connector_id, close, context)
    if running.closing is not None:
        return snapshot
    connector = snapshot.connector(closing.connector_id)
    waiting = snapshot.with_connector(replace(connector, transaction=replace(running, closing=close)))
    noted = waiting.add_timeline_entry(
        "CloseAsked",
        context,
        connector=closing.connector_id,
        transaction=transaction_id,
        who=command.who,
        why=command.reason,
    )
    held = noted.reservation
    if held is not None and held.transaction_id == transaction_id:
        noted = reservation.add_audit_entry(noted, "CloseAsked", context, detail=_format_signature(command))
    return stop_requests.request_stop(noted, transaction_id, context, asked_by=command.who, reason=command.reason)


def find_close(snapshot: Snapshot, transaction_id: str) -> OperatorClose | None:
    """The operator's close of this transaction that waits for the station's stop; None if there is none."""
    here = (c.transaction for c in snapshot.connectors.values())
    return next((r.closing for r in here if r is not None and r.transaction_id == transaction_id), None)


def _close_queued_transaction(
    snapshot: Snapshot, closing: Transaction, command: OperatorCommand, context: DecisionContext
) -> Snapshot:
    """Close a transaction from the station's offline queue, which occupies no connector (note F59), and ask an online
    station to stop it."""
    closed = replace(
        closing,
        stopped_at=context.now,
        reason=transaction.OPERATOR,
        flags=(*closing.flags, transaction.OPERATOR),
    )
    after = snapshot.with_transaction(closed).add_timeline_entry(
        "TransactionClosed",
        context,
        connector=closing.connector_id,
        transaction=closing.transaction_id,
        who=command.who,
        why=command.reason,
    )
    if presence_state(snapshot, context) == OFFLINE:
        return after
    return stop_requests.request_stop(
        after, closing.transaction_id, context, asked_by=command.who, reason=command.reason
    )


def cancel_reservation(snapshot: Snapshot, command: OperatorCommand, context: DecisionContext) -> Snapshot:
    """Cancel the reservation and give back what it took from the driver; IllegalTransition once it charges or has
    ended."""
    held = reservation.require_reservation(snapshot)
    _expect(command, held.state, f"reservation {held.reservation_id}")
    if not reservation.can_advance(held, Event.CANCELLED_BY_OPERATOR):
        raise IllegalTransition(f"A reservation that is {held.state} cannot be canceled.")
    after = reservation.apply_event(snapshot, Event.CANCELLED_BY_OPERATOR, context, detail=_format_signature(command))
    return _record_in_timeline(after, "ReservationCancelled", command, context, was=held.state)


def settle_reservation(snapshot: Snapshot, command: OperatorCommand, context: DecisionContext) -> Snapshot:
    """Bill the reservation, which only waits for the unplug, as of now, and free its connector; IllegalTransition for
    any other."""
    held = reservation.require_reservation(snapshot)
    _expect(command, held.state, f"reservation {held.reservation_id}")
    event = Event.SETTLED_BY_OPERATOR
    if not reservation.can_advance(held, event):
        raise IllegalTransition(
            f"A reservation that is {held.state} cannot be settled: it must be WaitingForDisconnect."
        )
    seen = occupancy.last_seen(snapshot.presence, context.now)
    after = settlement.settle(
        snapshot, event, context, energy_wh=held.energy_wh, until=seen, detail=_format_signature(command)
    )
    return _record_in_timeline(after, "ReservationSettled", command, context, was=held.state)


def retry_payment(snapshot: Snapshot, command: OperatorCommand, context: DecisionContext) -> Snapshot:
    """Retry the payment under review; IllegalTransition if the money needs no review."""
    return _apply_review_action(snapshot, command, context, "PaymentRetried", review.retry_payment)


def bill_payment(snapshot: Snapshot, energy_wh: int, command: OperatorCommand, context: DecisionContext) -> Snapshot:
    """Capture the payment under review for this much energy in Wh, which the operator found to be right."""

    def bill(before: Snapshot, now: DecisionContext) -> Snapshot:
        return review.bill_energy(before, energy_wh, now)

    return _apply_review_action(snapshot, command, context, "PaymentBilled", bill)


def release_payment(snapshot: Snapshot, command: OperatorCommand, context: DecisionContext) -> Snapshot:
    """Release the hold of the payment under review instead of capturing it."""
    return _apply_review_action(snapshot, command, context, "PaymentReleased", review.release_payment)


def settle_payment(
    snapshot: Snapshot, captured_amount: int, command: OperatorCommand, context: DecisionContext
) -> Snapshot:
    """End the review of a payment that was settled at the provider: `captured_amount`, in minor units, was captured
    there and not refunded; 0 means that all of it was released."""

    def settle(before: Snapshot, now: DecisionContext) -> Snapshot:
        return review.settle_by_hand(before, captured_amount, now)

    return _apply_review_action(snapshot, command, context, "PaymentSettled", settle)


def _apply_review_action(
    snapshot: Snapshot,
    command: OperatorCommand,
    context: DecisionContext,
    kind: str,
    act: Callable[[Snapshot, DecisionContext], Snapshot],
) -> Snapshot:
    """Apply an operator's action on money under review, and record it in the audit trail and the timeline."""
    held = reservation.require_reservation(snapshot)
    _expect(command, held.money, f"the money of reservation {held.reservation_id}")
    acted = reservation.add_audit_entry(act(snapshot, context), kind, context, detail=_format_signature(command))
    return _record_in_timeline(acted, kind, command, context, was=held.money)


def _record_in_timeline(
    after: Snapshot, kind: str, command: OperatorCommand, context: DecisionContext, *, was: str
) -> Snapshot:
    """Record an action on the reservation in the station's timeline: the operator, the reason and the state before."""
    held = reservation.require_reservation(after)
    return after.add_timeline_entry(
        kind,
        context,
        connector=held.connector_id,
        reservation=held.reservation_id,
        was=was,
        who=command.who,
        why=command.reason,
    )


def trigger_status(snapshot: Snapshot, command: OperatorCommand, context: DecisionContext) -> Snapshot:
    """Request the status of each connector; ChargerOffline if the station is offline."""
    state = presence_state(snapshot, context)
    _expect(command, state, snapshot.station.identity)
    if state == OFFLINE:
        raise ChargerOffline(f"{snapshot.station.identity} is offline: its status is requested when it connects.")
    noted = snapshot.add_timeline_entry("StatusAsked", context, who=command.who, why=command.reason)
    return _ask_status(noted, snapshot.station.connectors, command, context)


def find_closing_read_set(snapshot: Snapshot, transaction_id: str) -> ReadSet:
    """What closing a transaction reads: the transaction, and the reservation that charges on it."""
    here = (c.transaction for c in snapshot.connectors.values())
    running = next((r for r in here if r is not None and r.transaction_id == transaction_id), None)
    return ReadSet(
        reservation_id=running.reservation_id if running is not None else None,
        transaction_ids=(transaction_id,),
        with_outbox=True,
    )


def refuse_removal(snapshot: Snapshot, context: DecisionContext) -> None:
    """Raise IllegalTransition while a transaction or a reservation occupies a connector of the station."""
    for connector in snapshot.connectors.values():
        _refuse_in_use(connector, context)


def _expect(command: OperatorCommand, present: str, what: str) -> None:
    """Raise Conflict if the state is not the one that the operator saw."""
    if command.expected != present:
        raise Conflict(f"The state of {what} is {present} now, not {command.expected}.", code="StateChanged")


def _refuse_in_use(connector: Connector, context: DecisionContext) -> None:
    """Raise IllegalTransition while a transaction or a reservation occupies the connector."""
    number, running, lock = connector.connector_id, connector.transaction, connector.lock
    if running is not None:
        raise IllegalTransition(f"Transaction {running.transaction_id} runs on connector {number}: close it first.")
    if lock is not None and occupancy.is_lock_active(lock, context.now):
        raise IllegalTransition(f"Reservation {lock.reservation_id} holds connector {number}: cancel it first.")


def _ask_status(
    snapshot: Snapshot, connector_ids: tuple[int, ...], command: OperatorCommand, context: DecisionContext
) -> Snapshot:
    """Request the status of these connectors at once, if the station is online."""
    if presence_state(snapshot, context) == OFFLINE:
        return snapshot
    return calls.ask_status(
        snapshot, context, connector_ids, after=timedelta(0), asked_by=command.who, reason=command.reason
    )


def _require_transaction(snapshot: Snapshot, transaction_id: str) -> Transaction:
    known = snapshot.transactions.get(transaction_id)
    if known is None or known.station_id != snapshot.station.station_id:
        raise NotFound("There is no such transaction.", code="UnknownTransaction")
    return known


def _format_signature(command: OperatorCommand) -> str:
    return f"{command.who}: {command.reason}"
