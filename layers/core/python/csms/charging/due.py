"""What a sweep decides about each due item, and its description for a dry run.

`describe` reads a decision's outcome and decides nothing itself, so that a dry run reports what the sweep would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from csms.charging import command_results, status, transaction
from csms.commands import calls
from csms.model import (
    CallState,
    CommandKind,
    Connector,
    DecisionContext,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Outcome,
    ReadSet,
    Reservation,
    ReservationState,
    Snapshot,
    build_outcome,
    format_time,
)

OUTBOX_DESCRIPTIONS: Final[Mapping[OutboxKind, str]] = {
    OutboxKind.OPEN_CHECKOUT: "end its reservation as Failed and close the checkout",
    OutboxKind.EXPIRE_CHECKOUT: "close the checkout",
    OutboxKind.CAPTURE: "capture the bill",
    OutboxKind.RELEASE: "release the hold",
    OutboxKind.REFUND: "refund what was captured too much",
    OutboxKind.EMAIL_RECEIPT: "mail the receipt",
}
"""What performing each kind of outbox item does; its result is known only afterwards."""

UNCHANGED: Final = "leave it as it is"


def chase_call(before: Snapshot, call: OutboundCall, context: DecisionContext) -> Outcome:
    """Give up a CALL that was not answered in time or is pointless by now. A queued CALL is sent after the commit, or,
    while the station is away, left until it connects."""
    known = next((c for c in before.calls if c.call_id == call.call_id), None)
    if known is None:
        return build_outcome(before, before)
    if is_over(known, context):
        return build_outcome(before, command_results.give_up(before, known, context))
    away = before.presence is None or before.presence.connection_id is None
    if not away or known.state is not CallState.QUEUED:
        return build_outcome(before, before)
    others = (c for c in before.calls if c.call_id != call.call_id)
    waits = replace(known, due_at=known.expires_at)
    return build_outcome(before, replace(before, calls=(*others, waits)), requires=(before.presence,))


def tidy_connector(before: Snapshot, connector_id: int, context: DecisionContext) -> Outcome:
    """Close the connector's transaction if its time is over, and release its stale persisted status."""
    return build_outcome(
        before,
        status.release_stale_status(transaction.close_overdue(before, connector_id, context), connector_id, context),
    )


def find_reservation_read_set(item: Reservation) -> ReadSet:
    """What the end of a reservation's time reads: it, what it owes, and the transaction that it charges on."""
    charges = item.state is ReservationState.CHARGING and item.transaction_id is not None
    transaction_ids = (item.transaction_id or "",) if charges else ()
    return ReadSet(reservation_id=item.reservation_id, transaction_ids=transaction_ids, with_outbox=True)


def find_connector_read_set(snapshot: Snapshot, connector_id: int) -> ReadSet:
    """What tidying a connector reads: the transaction that runs there, and its reservation."""
    running = snapshot.connector(connector_id).transaction
    if running is None:
        return ReadSet()
    return ReadSet(reservation_id=running.reservation_id, transaction_ids=(running.transaction_id,))


def is_over(call: OutboundCall, context: DecisionContext) -> bool:
    """Whether nothing more is expected of the CALL: it is pointless by now, or its answer or status is overdue."""
    if context.now >= call.expires_at:
        return True
    return call.state is not CallState.QUEUED and context.now >= call.due_at


def is_awaited(after: Snapshot, call: OutboundCall) -> bool:
    """Whether the CALL was sent and its answer may still come."""
    return any(known.call_id == call.call_id and known.state is CallState.SENT for known in after.calls)


def describe(
    item: Reservation | OutboundCall | Connector, before: Snapshot, outcome: Outcome, context: DecisionContext
) -> str:
    """What the outcome of a sweep's decision does to the item, in a few words."""
    after = outcome.after or before
    match item:
        case Reservation():
            return _describe_reservation(before, after)
        case OutboundCall():
            return _describe_call(item, before, outcome, context)
        case Connector():
            return _describe_connector(before, after, item.connector_id)


def describe_outbox_item(outbox_item: OutboxItem) -> str:
    """What performing the outbox item does, and which attempt it is."""
    return f"{OUTBOX_DESCRIPTIONS[outbox_item.kind]}, attempt {outbox_item.attempts + 1}"


def _describe_reservation(before: Snapshot, after: Snapshot) -> str:
    held, ended = before.reservation, after.reservation
    if held is None or ended is None or ended == held:
        return UNCHANGED
    since = f"{held.state} since its time ran out at {_format_time_or_never(held.due_at)}"
    if ended.state is held.state:
        return f"close its checkout before it ends, {since}"
    return f"end as {', '.join(filter(None, (ended.state, ended.failure_code)))}, {since}"


def _describe_call(item: OutboundCall, before: Snapshot, outcome: Outcome, context: DecisionContext) -> str:
    after = outcome.after or before
    known = {call.call_id: call for call in after.calls}
    if item.call_id not in {call.call_id for call in before.calls}:
        return UNCHANGED
    state = next(call.state for call in before.calls if call.call_id == item.call_id)
    if item.call_id not in known:
        asked = any(call.kind is CommandKind.TRIGGER_STATUS for call in outcome.calls)
        return f"give up {item.kind}, {state}{', and request the status of the connector' if asked else ''}"
    if before.presence is None or before.presence.connection_id is None:
        return f"keep {item.kind} until the station is back"
    chosen = calls.choose_next(after, context.now)
    if chosen is not None and chosen.call_id == item.call_id:
        return f"send {item.kind}"
    return f"leave {item.kind}, {state}"


def _describe_connector(before: Snapshot, after: Snapshot, connector_id: int) -> str:
    was, is_now = before.connector(connector_id), after.connector(connector_id)
    if was.transaction is not None and is_now.transaction is None:
        stops = any(c.kind is CommandKind.REMOTE_STOP for c in after.calls if c not in before.calls)
        return f"close its transaction{' and ask the station to stop it' if stops else ''}"
    return UNCHANGED if was == is_now else "release its status"


def _format_time_or_never(at: datetime | None) -> str:
    return "never" if at is None else format_time(at)
