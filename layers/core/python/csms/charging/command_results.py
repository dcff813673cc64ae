"""What becomes of a command that the station answered, or whose answer did not come."""

from __future__ import annotations

from dataclasses import replace

from csms.charging import reservation, status
from csms.charging.reservation import Event
from csms.commands import calls
from csms.model import (
    CallState,
    CommandKind,
    CommandResult,
    ConnectorState,
    Moment,
    Needs,
    OutboundCall,
    Snapshot,
    StatusSource,
)


def find_needs(snapshot: Snapshot, call: OutboundCall) -> Needs:
    """What the end of a command has to see: its own reservation, or the one that waits where a status was asked
    for."""
    if call.kind is CommandKind.TRIGGER_STATUS:
        return status.awaited(snapshot, call)
    return Needs(reservation_id=call.reservation_id if call.kind is CommandKind.REMOTE_START else None)


def apply_result(snapshot: Snapshot, call: OutboundCall, result: CommandResult, moment: Moment) -> Snapshot:
    """The snapshot after the station answered a command: the CALL is over, and who waits for it is judged.

    A RemoteStart that was accepted is not a start (note F24); one that was not ends its reservation, unless it repeats
    one that may be under way. Neither moves a reservation backwards that has already started or ended (note F26). A
    station that will not tell a status is not waited for, one that will is given time.
    """
    if call.kind is CommandKind.TRIGGER_STATUS:
        if result.is_accepted:
            return status.promised(snapshot, call, result, moment)
        return status.untold(calls.finish(snapshot, call, result, moment), call.connector_id or 0, moment)
    done = calls.finish(snapshot, call, result, moment)
    held = done.reservation
    if call.kind is not CommandKind.REMOTE_START or held is None:
        return done
    event = Event.START_ACCEPTED if result.is_accepted else Event.START_REJECTED
    if not reservation.allows(held, event):
        return reservation.noted(done, event, moment, detail=f"{result.word}, too late to matter")
    if event is Event.START_REJECTED and call.repeats is not None:
        noted = reservation.noted(done, event, moment, detail=f"{result.word}, perhaps because it was granted before")
        return calls.ask_status(noted, moment, (held.connector_id,), after=moment.policy.call_timeout)
    if event is Event.START_REJECTED:
        return reservation.happened(done, event, moment, detail=result.word)
    accepted = reservation.happened(done, event, moment, start_accepted_at=moment.now)
    connector = accepted.connector(held.connector_id)
    if connector.lock is None or connector.lock.reservation_id != held.reservation_id:
        return accepted  # Somebody else holds the connector by now: what the server made up would be theirs (note F09).
    occupied = status.persisted(ConnectorState.OCCUPIED, StatusSource.REMOTE_START, moment)
    return accepted.with_connector(replace(connector, persisted=occupied))


def give_up(snapshot: Snapshot, call: OutboundCall, moment: Moment) -> Snapshot:
    """The snapshot after a command was not answered in time, or is pointless by now, which proves nothing (note F25). A
    status that was asked for in vain keeps nobody waiting."""
    after = calls.expire(snapshot, call, moment)
    if call.kind is CommandKind.TRIGGER_STATUS:
        after = status.untold(after, call.connector_id or 0, moment)
    if call.kind is CommandKind.REMOTE_START and call.state is CallState.SENT:
        after = status.unanswered(after, call, moment)
    return after
