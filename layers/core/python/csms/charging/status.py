"""The status reports of a station and what follows from them: the live and the persisted status, an implied stop, and
the start of a reservation that waited."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from csms import occupancy
from csms.charging import settlement, start_gate, stop_requests
from csms.charging.late_start import CLOCK_TOLERANCE
from csms.charging.start_gate import AWAITING_START
from csms.commands import calls
from csms.model import (
    LONGEST_WORD,
    CallState,
    CommandKind,
    CommandResult,
    Connector,
    ConnectorState,
    ConnectorStatus,
    DecisionContext,
    LiveStatus,
    OutboundCall,
    PersistedStatus,
    ReadSet,
    ReservationState,
    Snapshot,
    StatusSource,
    cut_text,
    format_time,
)

TIMED_OUT: Final = frozenset({ConnectorState.FINISHING, ConnectorState.SUSPENDED_BY_STATION})
"""What a station reports when it stops waiting for the start of a car that is plugged in."""

CLOCKS_EXIST_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)
SELF_REPORT: Final = timedelta(seconds=10)
"""How long a station that connected or booted has to report its statuses by itself before they are requested."""

JUST_AFTER: Final = timedelta(seconds=1)
"""Deadlines are inclusive: request the status one second later."""
AWAITING_REPORT: Final = AWAITING_START | {ReservationState.WAITING_FOR_DISCONNECT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A station's report of one connector: the raw status and its meaning. `charger_at` is the station's own time, None
    if it could not be read."""

    connector_id: int
    raw: str
    state: ConnectorState
    charger_at: datetime | None


def find_read_set(snapshot: Snapshot, report: Report) -> ReadSet:
    """The reservation that the report may start, bill or end: that of its connector."""
    lock = snapshot.connector(report.connector_id).lock
    if lock is not None and lock.state in settlement.OCCUPYING and report.state in settlement.STILL_PLUGGED_IN:
        return ReadSet()  # This report neither begins nor ends idle time, and the car is still plugged in.
    if lock is not None and lock.state in AWAITING_START | settlement.OCCUPYING:
        return ReadSet(reservation_id=lock.reservation_id)
    return ReadSet()


def apply_report(snapshot: Snapshot, report: Report, context: DecisionContext) -> Snapshot:
    """Record the reported status and act on it. Statuses count in the order of receipt: one that was received before
    the last one of this epoch, or comes out of the station's offline queue, is history, which the timeline keeps and
    which changes nothing (note F11)."""
    report = replace(report, raw=cut_text(report.raw, LONGEST_WORD))
    before = snapshot.connector(report.connector_id)
    epoch = snapshot.presence.epoch if snapshot.presence is not None else ""
    last = occupancy.reported_status(snapshot, report.connector_id)
    was_plugged = last is not None and (last.state is ConnectorState.PLUGGED or last.unstarted)
    live = LiveStatus(
        raw=report.raw,
        state=report.state,
        reported_at=context.received_at,
        charger_at=report.charger_at,
        epoch=epoch,
        unstarted=was_plugged and report.state in TIMED_OUT and before.transaction is None,
    )
    why = None if last is None else find_history_reason(snapshot, report, last, context)
    if why is not None:
        said = format_time(report.charger_at) if report.charger_at is not None else None
        return snapshot.add_timeline_entry(
            "StatusWasHistory",
            context,
            connector=report.connector_id,
            status=report.raw,
            why=why,
            received=format_time(context.received_at),
            said=said,
        )
    known = replace(
        before, live=live, persisted=build_persisted_status(report.state, StatusSource.CHARGER, context, raw=report.raw)
    )
    after = calls.resolve_status_requests(
        snapshot.with_connector(_imply_stop(snapshot, known, report, context)), report.connector_id, context
    )
    after = stop_requests.note_state(after, report.connector_id, report.state, context)
    if before.live is None or before.live.raw != report.raw:
        was = before.live.raw if before.live is not None else None
        after = after.add_timeline_entry(
            "StatusChanged", context, connector=report.connector_id, status=report.raw, was=was
        )
    if report.connector_id == 0:
        return calls.ask_status(after, context, start_gate.find_awaiting_connectors(after), after=timedelta(0))
    return start_gate.start_waiting(_apply_idle_time(after, report, context), report.connector_id, context)


def apply_charging_state(snapshot: Snapshot, connector_id: int, state: str) -> Snapshot:
    """Record the chargingState of a TransactionEvent (OCPP 2.0.1 3.11): EVConnected means that a status Occupied
    of the present epoch is a car that is plugged in and does not charge; any other value ends that (note F04)."""
    epoch = snapshot.presence.epoch if snapshot.presence is not None else None
    plugged = epoch if state == "EVConnected" else None
    return snapshot.with_connector(replace(snapshot.connector(connector_id), plugged=plugged))


def ask_after_connect(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Request the statuses that a connect leaves unknown: of connectors that were not reported free in this epoch,
    because that report may be lost, and of those where a reservation waits to start or to be billed (notes F21, F32,
    F68)."""
    unknown = tuple(
        connector_id
        for connector_id in snapshot.station.connectors
        if not occupancy.is_reported_free(snapshot, connector_id, context.policy)
        or ((lock := snapshot.connector(connector_id).lock) is not None and lock.state in AWAITING_REPORT)
    )
    whole = (0,) if occupancy.is_masked(snapshot) else ()
    return calls.ask_status(snapshot, context, whole + unknown, after=SELF_REPORT)


def ask_when_freed(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Request the status of a connector whose transaction has ended, unless the station reports it first. Nothing is
    requested if the connector is reported free and no paid reservation waits there."""
    lock = snapshot.connector(connector_id).lock
    waits = lock is not None and lock.state is ReservationState.AUTHORIZED
    if occupancy.is_reported_free(snapshot, connector_id, context.policy) and not waits:
        return snapshot
    return calls.ask_status(snapshot, context, (connector_id,), after=SELF_REPORT)


def find_status_read_set(snapshot: Snapshot, call: OutboundCall) -> ReadSet:
    """What the end of a status request reads: the reservation that waits to start on its connector; for a start that
    was not sent its own reservation, and nothing for other CALLs."""
    if call.kind is CommandKind.REMOTE_START and call.state is CallState.QUEUED:
        return ReadSet(reservation_id=call.reservation_id)
    if call.kind is not CommandKind.TRIGGER_STATUS or call.connector_id is None:
        return ReadSet()
    lock = snapshot.connector(call.connector_id).lock
    return ReadSet(reservation_id=lock.reservation_id if lock is not None and lock.state in AWAITING_START else None)


def await_report(snapshot: Snapshot, call: OutboundCall, result: CommandResult, context: DecisionContext) -> Snapshot:
    """Wait for the status that the station accepted to report, for as long as for an answer; end the CALL if the status
    came before the answer."""
    if call.told:
        return calls.finish(snapshot, call, result, context, told_at=context.now)
    answered = replace(result, at=context.now)
    owed = replace(call, state=CallState.PROMISED, result=answered, due_at=context.now + context.policy.call_timeout)
    return replace(snapshot, calls=(*(c for c in snapshot.calls if c.call_id != call.call_id), owed))


def decide_without_report(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Decide with the known status about a reservation that waits on the connector, because the requested report did
    not come: after a reconnect none need ever come (note F32). If everything that blocks it ends before its deadline,
    request the status again then."""
    held = snapshot.reservation
    if held is None or held.connector_id != connector_id or held.state not in AWAITING_START:
        return snapshot
    judged = start_gate.retry_start(snapshot, held, context)
    clear = start_gate.find_clear_time(snapshot, held, context)
    if held.start_deadline is None or clear is None or not context.now <= clear < held.start_deadline:
        return judged
    return calls.ask_status(judged, context, (connector_id,), after=clear - context.now + JUST_AFTER)


def ask_after_unanswered_start(
    snapshot: Snapshot, call: OutboundCall, context: DecisionContext, *, after: timedelta
) -> Snapshot:
    """Request the connector's status `after` a RemoteStart was not answered, or not clearly: the status decides whether
    to send it again (note F25)."""
    lock = snapshot.connector(call.connector_id or 0).lock
    if lock is None or lock.reservation_id != call.reservation_id or lock.state not in AWAITING_START:
        return snapshot
    return calls.ask_status(snapshot, context, (call.connector_id or 0,), after=after)


def build_persisted_status(
    state: ConnectorState, source: StatusSource, context: DecisionContext, *, raw: str | None = None
) -> PersistedStatus:
    """The status that outlives the connection. One that is not Available is released after STATUS_RELEASE_MINUTES (zero
    disables). `raw` is the station's status, if the station reported it."""
    kept, coarse = context.policy.status_release, occupancy.coarse_status(state)
    release_at = context.now + kept if kept and coarse is not ConnectorStatus.AVAILABLE else None
    return PersistedStatus(raw=raw or coarse, state=state, at=context.now, source=source, release_at=release_at)


def release_stale_status(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Set a stale persisted status to Available; nothing changes before its time, or while a transaction or a
    reservation occupies the connector (note F74)."""
    connector = snapshot.connector(connector_id)
    stale = connector.persisted
    if connector.transaction is not None or connector.lock is not None or stale is None:
        return snapshot
    if stale.release_at is None or context.now < stale.release_at:
        return snapshot
    free = build_persisted_status(ConnectorState.AVAILABLE, StatusSource.MAINTENANCE, context)
    return snapshot.with_connector(replace(connector, persisted=free)).add_timeline_entry(
        "StatusReleased", context, connector=connector_id, was=stale.raw
    )


def find_history_reason(snapshot: Snapshot, report: Report, last: LiveStatus, context: DecisionContext) -> str | None:
    """Why the report is no news beside the last one: "overtaken" if it was received before it, at the same millisecond
    if the station says so, or "queued" if it comes out of the offline queue. None if it is news."""
    if context.received_at < last.reported_at:
        return "overtaken"
    same_instant = context.received_at == last.reported_at
    if same_instant and is_older(report.charger_at, last.charger_at, context):
        return "overtaken"
    wanted = calls.is_status_requested(snapshot, report.connector_id)
    return "queued" if not wanted and _is_from_offline_queue(snapshot, report, last, context) else None


def _is_from_offline_queue(snapshot: Snapshot, report: Report, last: LiveStatus, context: DecisionContext) -> bool:
    """Whether the report was made while the station was away, by a clock that has not been set since.

    The last report over this connection tells how far the station's clock is off. Soon after a connect an earlier time
    comes out of the offline queue, if that is from the absence; any other is that of a clock that was set back (DST,
    NTP), which proves nothing.
    """
    presence, said, known = snapshot.presence, report.charger_at, last.charger_at
    if presence is None or presence.away_since is None or said is None or known is None:
        return False
    if not is_older(said, known, context):
        return False
    connected_at = presence.connected_at
    proven = last.reported_at >= connected_at
    soon = context.received_at - connected_at <= settlement.QUEUE_FLUSH
    made_at = said + (last.reported_at - known)
    return proven and soon and presence.away_since - CLOCK_TOLERANCE <= made_at < connected_at


def is_older(new: datetime | None, known: datetime | None, context: DecisionContext) -> bool:
    """Whether the new time is before the known one and both can be believed (note F11).

    The earlier time of a clock that was fast and has been corrected does not count as older.
    """
    if new is None or known is None or new <= context.now < known:
        return False
    return is_believable(new, context) and is_believable(known, context) and new < known


def is_believable(at: datetime | None, context: DecisionContext) -> bool:
    """Whether a charger's clock can be right: after the start of 2020, and at most five minutes in the future."""
    return at is not None and CLOCKS_EXIST_SINCE < at <= context.now + CLOCK_TOLERANCE


def _imply_stop(snapshot: Snapshot, connector: Connector, report: Report, context: DecisionContext) -> Connector:
    """Start the grace after which a stop is implied, when the station reports Available during a transaction.

    Within the grace the real stop still counts (note F55). It does not start for an Available from before the
    transaction, nor after a boot until the station has reported the connector in use again (note F56); any other status
    ends it.
    """
    running = connector.transaction
    if running is None:
        return connector
    said = occupancy.coarse_status(report.state)
    if said is ConnectorStatus.OCCUPIED:
        at = _report_time(report, context)
        return replace(connector, transaction=replace(running, idle_until=None, occupied_at=at))
    if said is not ConnectorStatus.AVAILABLE:
        return replace(connector, transaction=replace(running, idle_until=None))
    booted = snapshot.station.booted_at
    grace = context.policy.implied_stop_grace
    known = (running.received_at, running.occupied_at)
    replayed = booted is not None and all(at is None or at < booted for at in known)
    if (
        not grace
        or replayed
        or running.idle_until is not None
        or is_older(report.charger_at, running.started_at, context)
    ):
        return connector
    return replace(connector, transaction=replace(running, idle_until=context.now + grace))


def _apply_idle_time(snapshot: Snapshot, report: Report, context: DecisionContext) -> Snapshot:
    """Update the reservation's idle time by the status, and settle it once the car has left (note F68)."""
    after = settlement.update_idle_time(snapshot, report.connector_id, report.state, context)
    if occupancy.coarse_status(report.state) is not ConnectorStatus.AVAILABLE:
        return after
    return settlement.settle_on_unplug(after, report.connector_id, context)


def _report_time(report: Report, context: DecisionContext) -> datetime:
    """When the station made the report: its own time if that can be believed and is not ahead of ours, otherwise
    now."""
    said = report.charger_at
    return said if said is not None and is_believable(said, context) and said < context.now else context.now
