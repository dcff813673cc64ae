"""Commands to a station: how they are queued, and what is recorded when one is over. The service sends them, one at a
time (note F43)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Final

from csms.errors import Conflict
from csms.model import (
    RECORD_RETENTION,
    CallState,
    Command,
    CommandKind,
    CommandOutcome,
    CommandRecord,
    CommandResult,
    DecisionContext,
    OutboundCall,
    RemoteStop,
    Snapshot,
    TriggerStatus,
)

CSMS: Final = "csms"
"""`asked_by` of a command that neither a driver nor an operator asked for."""

DRIVER: Final = "driver"

MOST_CALLS: Final = 32
"""How many CALLs of a station may wait, besides one for each of its connectors, before no further status is
requested."""

MOST_STOPS: Final = 64
"""How many CALLs of a station may wait, counted in the same way, before it is no longer asked to stop a transaction for
which nobody pays; its next reading asks again (csms.charging.stop_requests)."""

MAX_RENEWED_CALLS: Final = 20
"""The most CALLs that one commit renews, status requests not counted."""


def queue(
    snapshot: Snapshot,
    command: Command,
    context: DecisionContext,
    *,
    until: datetime,
    after: timedelta | None = None,
    reservation_id: str | None = None,
    repeats: str | None = None,
    asked_by: str = CSMS,
    reason: str | None = None,
) -> Snapshot:
    """Queue a command to the station: to be sent at once or after the time `after`, and pointless after `until`.
    `reservation_id` is the reservation that waits for it, `repeats` the first CALL of a command that may have been
    accepted already, `asked_by` and `reason` say who asked and why.

    If too many CALLs wait already, a command that nobody's money depends on is not queued. Raises Conflict
    ("TooManyCommands") if an operator asked for it.
    """
    if _is_too_many(snapshot, command):
        if asked_by not in {CSMS, DRIVER}:
            raise Conflict("Too many commands wait for this station. Try again later.", code="TooManyCommands")
        return snapshot
    send_at = context.now + (after or timedelta(0))
    call = OutboundCall(
        station_id=snapshot.station.station_id,
        call_id=_unused_id(snapshot, context),
        command=command,
        reservation_id=reservation_id,
        repeats=repeats,
        asked_by=asked_by,
        reason=reason,
        asked_at=context.now,
        send_at=send_at,
        due_at=send_at,
        expires_at=until,
    )
    return replace(snapshot, calls=(*snapshot.calls, call))


def _is_too_many(snapshot: Snapshot, command: Command) -> bool:
    """Whether the command is refused because too many wait: a start never is, nor the stop of a session that is
    paid."""
    waiting = len(snapshot.calls) - len(snapshot.station.connectors)
    match command:
        case TriggerStatus():
            return waiting >= MOST_CALLS
        case RemoteStop(transaction_id=transaction_id):
            running = (c.transaction for c in snapshot.connectors.values() if c.transaction is not None)
            is_paid = any(r.transaction_id == transaction_id and r.reservation_id is not None for r in running)
            return waiting >= MOST_STOPS and not is_paid
        case _:
            return False


def find(snapshot: Snapshot, call_id: str) -> OutboundCall | None:
    """The CALL that an answer with this id is for: the one with the id, or the repeat of a command that was sent under
    it. A repeated status request needs its own answer, because the old one may report an old status."""
    exact = next((call for call in snapshot.calls if call.call_id == call_id), None)
    if exact is not None:
        return exact
    again = (call for call in snapshot.calls if call.repeats == call_id)
    return next((call for call in again if call.kind is not CommandKind.TRIGGER_STATUS), None)


def finish(
    snapshot: Snapshot,
    call: OutboundCall,
    result: CommandResult,
    context: DecisionContext,
    *,
    told_at: datetime | None = None,
) -> Snapshot:
    """Remove the CALL, whose command is over, and record who asked for it, why, and its result. A status request of
    csms that the station accepted leaves no record."""
    gone = replace(snapshot, calls=tuple(other for other in snapshot.calls if other.call_id != call.call_id))
    if call.asked_by == CSMS and call.kind is CommandKind.TRIGGER_STATUS and result.is_accepted:
        return gone
    return gone.add_records(
        CommandRecord(
            station_id=call.station_id,
            call_id=call.call_id,
            command=call.command,
            reservation_id=call.reservation_id,
            asked_by=call.asked_by,
            reason=call.reason,
            repeats=call.repeats,
            asked_at=call.asked_at,
            result=replace(result, at=result.at or context.now),
            told_at=told_at,
            expires_at=context.now + RECORD_RETENTION,
        )
    )


def expire(snapshot: Snapshot, call: OutboundCall, context: DecisionContext) -> Snapshot:
    """Remove the CALL, because no answer is expected any more. Its result is EXPIRED, or ACCEPTED if the station
    accepted it and then did not report the status."""
    return finish(snapshot, call, call.result or CommandResult(outcome=CommandOutcome.EXPIRED), context)


def requeue(call: OutboundCall, call_id: str) -> OutboundCall:
    """The CALL to be sent again, under a new id and naming the first one (OCPP-J 1.6 4.1.4)."""
    return replace(call, call_id=call_id, repeats=call.repeats or call.call_id, state=CallState.QUEUED, version=0)


def repeat(
    snapshot: Snapshot, call: OutboundCall, context: DecisionContext, *, after: timedelta, until: datetime
) -> Snapshot:
    """Queue the command of a CALL that is over again, as asked for by whom and when it was."""
    at = context.now + after
    again = requeue(call, _unused_id(snapshot, context))
    again = replace(again, told=False, result=None, send_at=at, due_at=at, expires_at=until)
    return replace(snapshot, calls=(*snapshot.calls, again))


def withdraw_stops(snapshot: Snapshot, transaction_id: str) -> Snapshot:
    """Remove the queued commands to stop this transaction, which has stopped."""
    kept = (
        call
        for call in snapshot.calls
        if call.kind is not CommandKind.REMOTE_STOP
        or call.transaction_id != transaction_id
        or call.state is not CallState.QUEUED
    )
    return replace(snapshot, calls=tuple(kept))


def _unused_id(snapshot: Snapshot, context: DecisionContext) -> str:
    used = {call.call_id for call in snapshot.calls}
    return next(it for n in count() if (it := f"{context.new_ids.call_id[:33]}{n:03d}") not in used)


def ask_status(
    snapshot: Snapshot,
    context: DecisionContext,
    connector_ids: tuple[int, ...],
    *,
    after: timedelta,
    asked_by: str = CSMS,
    reason: str | None = None,
) -> Snapshot:
    """Request the status of these connectors `after` this time, unless the station reports it before (note F21). A
    request that is still queued is sent earlier if needed, and not repeated; one that was sent is repeated, because its
    answer may report an old status, and so is one that a reservation waits for, because its end decides about that one
    alone."""
    at, until = context.now + after, context.now + after + context.policy.start_window
    waiting = {
        call.connector_id: call
        for call in snapshot.calls
        if call.kind is CommandKind.TRIGGER_STATUS and call.state is CallState.QUEUED and call.reservation_id is None
    }
    for connector_id in connector_ids:
        call = waiting.get(connector_id)
        if call is None:
            continue
        renewed = replace(call, send_at=at, due_at=at, expires_at=until) if call.send_at > at else call
        if asked_by != CSMS:
            renewed = replace(renewed, asked_by=asked_by, reason=reason)
        snapshot = replace(snapshot, calls=tuple(renewed if other is call else other for other in snapshot.calls))
    for connector_id in connector_ids:
        if connector_id not in waiting:
            asks = TriggerStatus(connector_id=connector_id)
            snapshot = queue(snapshot, asks, context, until=until, after=after, asked_by=asked_by, reason=reason)
    return snapshot


def resolve_status_requests(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Record that the station reported the connector's status: a queued or accepted request is over, and a sent one
    only waits for its answer."""
    for call in snapshot.calls:
        if call.kind is not CommandKind.TRIGGER_STATUS or call.connector_id != connector_id:
            continue
        if call.state is CallState.SENT:
            knows = (replace(other, told=True) if other is call else other for other in snapshot.calls)
            snapshot = replace(snapshot, calls=tuple(knows))
        else:
            answer = call.result or CommandResult(outcome=CommandOutcome.ACCEPTED)
            snapshot = finish(snapshot, call, answer, context, told_at=context.now)
    return snapshot


def is_status_requested(snapshot: Snapshot, connector_id: int) -> bool:
    """Whether a status request for the connector or the whole station was sent and no status has come since, so that
    the next report counts as new."""
    return any(
        call.kind is CommandKind.TRIGGER_STATUS
        and call.state is not CallState.QUEUED
        and not call.told
        and call.connector_id in {connector_id, 0}
        for call in snapshot.calls
    )


def renew_after_reconnect(snapshot: Snapshot, context: DecisionContext, *, after: timedelta) -> Snapshot:
    """Renew the CALLs for the station's new connection, because what was sent over another is not answered: send a stop
    again, end a start so that it is decided again (note F25), and request a status again `after` this time."""
    others = _select_renewable_ids(snapshot)
    for call in snapshot.calls:
        if call.kind is CommandKind.TRIGGER_STATUS:
            renewed = _renew_status_request(call, snapshot, context, after)
        elif call.kind is CommandKind.REMOTE_START and call.state is not CallState.QUEUED and call.call_id in others:
            snapshot = expire(snapshot, call, context)
            continue
        elif call.state is not CallState.QUEUED and call.call_id in others:
            renewed = requeue(call, _unused_id(snapshot, context))
        else:
            continue
        snapshot = replace(snapshot, calls=tuple(renewed if other is call else other for other in snapshot.calls))
    return make_queued_calls_due(snapshot, context)


def _select_renewable_ids(snapshot: Snapshot) -> frozenset[str]:
    """The CALLs that one commit has room for beside a status request for every connector; the sweep handles the
    others."""
    others = [call for call in snapshot.calls if call.kind is not CommandKind.TRIGGER_STATUS]
    others.sort(key=lambda call: call.state is not CallState.SENT)
    return frozenset(call.call_id for call in others[:MAX_RENEWED_CALLS])


def _renew_status_request(
    call: OutboundCall, snapshot: Snapshot, context: DecisionContext, after: timedelta
) -> OutboundCall:
    """The status request with its full time again; an accepted one is left to expire."""
    if call.state is CallState.PROMISED:
        return call
    at = context.now + after
    waiting = call if call.state is CallState.QUEUED else requeue(call, _unused_id(snapshot, context))
    return replace(waiting, told=False, send_at=at, due_at=at, expires_at=at + context.policy.start_window)


def make_queued_calls_due(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Make the queued CALLs due, because the station is connected again: they are sent after its next message."""
    others = _select_renewable_ids(snapshot)
    calls = (
        replace(call, due_at=min(call.due_at, max(call.send_at, context.now)))
        if call.state is CallState.QUEUED and (call.kind is CommandKind.TRIGGER_STATUS or call.call_id in others)
        else call
        for call in snapshot.calls
    )
    return replace(snapshot, calls=tuple(calls))


def withdraw(snapshot: Snapshot, reservation_id: str) -> Snapshot:
    """Remove the reservation's CALLs, except one that was sent and waits for its answer."""
    kept = (c for c in snapshot.calls if c.reservation_id != reservation_id or c.state is CallState.SENT)
    return replace(snapshot, calls=tuple(kept))


def is_pending(snapshot: Snapshot, kind: CommandKind, context: DecisionContext, **facts: str) -> bool:
    """Whether such a command is queued, or sent and not yet overdue."""
    return any(
        call.kind is kind
        and (call.state is CallState.QUEUED or context.now < call.due_at)
        and all(getattr(call, name) == value for name, value in facts.items())
        for call in snapshot.calls
    )


def hasten(snapshot: Snapshot, kind: CommandKind, context: DecisionContext, **facts: str) -> Snapshot:
    """Send such a command that waits for a later time now."""
    calls = (
        replace(call, send_at=context.now, due_at=context.now)
        if call.kind is kind
        and call.state is CallState.QUEUED
        and call.send_at > context.now
        and all(getattr(call, name) == value for name, value in facts.items())
        else call
        for call in snapshot.calls
    )
    return replace(snapshot, calls=tuple(calls))


def discard(snapshot: Snapshot, kind: CommandKind, reservation_id: str, context: DecisionContext) -> Snapshot:
    """Remove the reservation's commands of this kind, and record of a sent one that no answer came."""
    for call in snapshot.calls:
        if call.kind is not kind or call.reservation_id != reservation_id:
            continue
        if call.state is CallState.SENT:
            snapshot = expire(snapshot, call, context)
        else:
            snapshot = replace(snapshot, calls=tuple(other for other in snapshot.calls if other is not call))
    return snapshot


def find_unanswered(snapshot: Snapshot) -> OutboundCall | None:
    """The CALL that was sent and whose answer is awaited: no other is sent meanwhile (OCPP-J 1.6 4.1.1)."""
    return next((call for call in snapshot.calls if call.state is CallState.SENT), None)


def choose_next(snapshot: Snapshot, now: datetime) -> OutboundCall | None:
    """The CALL to send now, None while another one waits for its answer: of those whose time has come the oldest."""
    if find_unanswered(snapshot) is not None:
        return None
    return min(_select_waiting(snapshot, now), key=lambda call: call.send_at, default=None)


def is_any_waiting(snapshot: Snapshot, by: datetime, *, besides: OutboundCall | None = None) -> bool:
    """Whether a queued CALL, `besides` not counted, is to be sent by this time."""
    return any(besides is None or call.call_id != besides.call_id for call in _select_waiting(snapshot, by))


def _select_waiting(snapshot: Snapshot, by: datetime) -> list[OutboundCall]:
    return [call for call in snapshot.calls if call.state is CallState.QUEUED and call.send_at <= by < call.expires_at]


def return_unsent(snapshot: Snapshot, call_id: str) -> Snapshot:
    """Queue the CALL again under the same id, because it certainly did not reach the station, and give up its claim."""
    presence = snapshot.presence
    if presence is None or presence.awaited_call_id != call_id:
        return snapshot
    calls = (
        replace(call, state=CallState.QUEUED, due_at=call.send_at) if call.call_id == call_id else call
        for call in snapshot.calls
    )
    free = replace(presence, awaited_call_id=None, awaited_until=None)
    return replace(snapshot, presence=free, calls=tuple(calls))
