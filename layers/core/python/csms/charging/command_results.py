"""What changes when a station answers a command, or when its answer does not come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from csms.charging import reservation, status, stop_requests, web_tags
from csms.charging.reservation import Event
from csms.commands import calls
from csms.model import (
    CallState,
    CommandKind,
    CommandOutcome,
    CommandResult,
    ConnectorState,
    DecisionContext,
    IdToken,
    OutboundCall,
    ReadSet,
    RemoteStart,
    Snapshot,
    StatusSource,
)

MOST_DETAIL: Final = 200
"""How many characters of an unclear answer the reservation's audit keeps; the command's record has all of it."""


def find_read_set(snapshot: Snapshot, call: OutboundCall) -> ReadSet:
    """What the end of a command reads: its reservation, or the one that waits for the requested status."""
    if call.kind is CommandKind.TRIGGER_STATUS and call.reservation_id is None:
        return status.find_status_read_set(snapshot, call)
    decides = call.kind in {CommandKind.REMOTE_START, CommandKind.TRIGGER_STATUS}
    return ReadSet(reservation_id=call.reservation_id if decides else None)


def apply_result(snapshot: Snapshot, call: OutboundCall, result: CommandResult, context: DecisionContext) -> Snapshot:
    """Apply the station's answer to a command: end the CALL and decide about the reservation that waits for it.

    An accepted RemoteStart is not a start (note F24); a rejected one ends its reservation, unless it repeats one that
    the station may have accepted, or a tag in another form may be accepted; an unclear answer is like none (note F25).
    None of them changes a reservation that has started or ended (note F26). If the station refuses to report a status,
    the reservation is decided on without it; if it accepts, the status is awaited.
    """
    if call.kind is CommandKind.TRIGGER_STATUS:
        snapshot = _take_sign(snapshot, call, context)
        if result.is_accepted:
            return status.await_report(snapshot, call, result, context)
        return status.decide_without_report(
            calls.finish(snapshot, call, result, context), call.connector_id or 0, context
        )
    done = calls.finish(snapshot, call, result, context)
    if call.kind is CommandKind.REMOTE_STOP and not result.is_accepted:
        return stop_requests.ask_again(done, call, context)
    held = done.reservation
    if call.kind is not CommandKind.REMOTE_START or held is None:
        return done
    if result.outcome is CommandOutcome.UNCLEAR:
        noted = reservation.add_audit_entry(done, "StartUnclear", context, detail=result.payload[:MOST_DETAIL])
        return status.ask_after_unanswered_start(noted, call, context, after=context.policy.call_timeout)
    event = Event.START_ACCEPTED if result.is_accepted else Event.START_REJECTED
    if not reservation.can_advance(held, event):
        noted = reservation.add_audit_entry(done, event, context, detail=f"{result.summary}, too late to matter")
        if event is Event.START_ACCEPTED:
            return _learn_from_late_answer(noted, call, context)
        refused = event is Event.START_REJECTED and call.repeats is None and held.start_accepted_at is None
        return reservation.end_hold(noted, context) if refused else noted
    if event is Event.START_REJECTED and call.repeats is not None:
        noted = reservation.add_audit_entry(
            done, event, context, detail=f"{result.summary}, perhaps because it was granted before"
        )
        return calls.ask_status(noted, context, (held.connector_id,), after=context.policy.call_timeout)
    if event is Event.START_REJECTED:
        again = web_tags.ask_in_widest_form(done, result, context)
        return again or reservation.apply_event(done, event, context, detail=result.summary)
    accepted = reservation.apply_event(done, event, context, start_accepted_at=context.now)
    connector = accepted.connector(held.connector_id)
    if connector.lock is None or connector.lock.reservation_id != held.reservation_id:
        return accepted  # Another reservation has the lock by now: this Occupied would count for it (note F09).
    occupied = status.build_persisted_status(ConnectorState.OCCUPIED, StatusSource.REMOTE_START, context)
    return accepted.with_connector(replace(connector, persisted=occupied))


def _learn_from_late_answer(snapshot: Snapshot, call: OutboundCall, context: DecisionContext) -> Snapshot:
    """Learn from a start that came before the answer which accepts it (note F26)."""
    held = snapshot.reservation
    running = snapshot.connector(held.connector_id).transaction if held is not None else None
    if held is None or held.refused_tag is None or running is None or held.reservation_id != running.reservation_id:
        return snapshot
    if not isinstance(call.command, RemoteStart) or call.command.id_token.value != held.id_tag:
        return snapshot
    accepted = replace(snapshot, reservation=replace(held, start_accepted_at=context.now))
    return web_tags.learn_form(accepted, IdToken(value=running.id_tag), context)


def give_up(snapshot: Snapshot, call: OutboundCall, context: DecisionContext) -> Snapshot:
    """End a command that was not answered in time or is pointless by now, which proves nothing (note F25). A
    reservation that waits for the requested status is decided on without it."""
    after = calls.expire(_forget_unsent_start(snapshot, call), call, context)
    if call.kind is CommandKind.REMOTE_STOP:
        return stop_requests.ask_again(after, call, context)
    if call.kind is CommandKind.TRIGGER_STATUS:
        after = status.decide_without_report(after, call.connector_id or 0, context)
    if call.kind is CommandKind.REMOTE_START and call.state is CallState.SENT:
        after = status.ask_after_unanswered_start(after, call, context, after=timedelta(0))
    return after


def _take_sign(snapshot: Snapshot, call: OutboundCall, context: DecisionContext) -> Snapshot:
    """Give back the money that was held until the station gave a sign, unless it was away meanwhile."""
    held = snapshot.reservation
    if held is None or held.reservation_id != call.reservation_id or held.late_start is None:
        return snapshot
    return snapshot if held.late_start.is_away else reservation.renew_hold(snapshot, context, heard=True)


def _forget_unsent_start(snapshot: Snapshot, call: OutboundCall) -> Snapshot:
    """Note that the reservation's start was never sent, so that nothing is held for it."""
    held = snapshot.reservation
    if held is None or call.state is not CallState.QUEUED or call.repeats is not None:
        return snapshot
    if held.start_command_id != call.call_id:
        return snapshot
    return replace(snapshot, reservation=replace(held, start_command_id=None))
