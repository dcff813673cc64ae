"""What a station says of its connectors, and what follows from it: the live and the persisted status, a stop that is
implied, a start that was waiting for the plug."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from csms import occupancy
from csms.charging import reservation, settlement
from csms.commands import calls
from csms.model import (
    CallState,
    CommandKind,
    CommandResult,
    Connector,
    ConnectorState,
    ConnectorStatus,
    LiveStatus,
    Lock,
    Moment,
    Needs,
    OutboundCall,
    PersistedStatus,
    Reservation,
    ReservationState,
    Snapshot,
    StatusSource,
)

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
CLOCKS_EXIST_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)
SELF_REPORT: Final = timedelta(seconds=10)
"""How long a station that has connected or booted is given to tell its statuses by itself."""

JUST_AFTER: Final = timedelta(seconds=1)
"""What wears off blocks to its last moment."""

AWAITING: Final = frozenset({ReservationState.AUTHORIZED, ReservationState.START_REQUESTED})
WAITING: Final = AWAITING | {ReservationState.WAITING_FOR_DISCONNECT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the station said of one connector: its own word and what that means; `charger_at` is its own clock, None
    when that could not be read."""

    connector_id: int
    raw: str
    state: ConnectorState
    charger_at: datetime | None


def needs(snapshot: Snapshot, report: Report) -> Needs:
    """The reservation that the report may start, bill or end: the connector's own, or the one that waits at another
    bay."""
    lock = snapshot.connector(report.connector_id).lock
    if lock is not None and lock.state in settlement.OCCUPYING and report.state in settlement.STILL_THERE:
        return Needs()  # It neither begins nor ends idle time, and the car is where it was.
    if lock is not None and lock.state in AWAITING | settlement.OCCUPYING:
        return Needs(reservation_id=lock.reservation_id)
    waiting = _waiting_elsewhere(snapshot, report.connector_id) if report.state is ConnectorState.PLUGGED else []
    return Needs(reservation_id=waiting[-1].reservation_id if waiting else None)


def told(snapshot: Snapshot, report: Report, moment: Moment) -> Snapshot:
    """The snapshot that knows the report; one older than what is known of this epoch is not news (note F11), unless we
    asked for it."""
    before = snapshot.connector(report.connector_id)
    epoch = snapshot.presence.epoch if snapshot.presence is not None else ""
    live = LiveStatus(
        raw=report.raw, state=report.state, reported_at=moment.now, charger_at=report.charger_at, epoch=epoch
    )
    last = occupancy.said(snapshot, report.connector_id)
    wanted = calls.asked(snapshot, report.connector_id)
    if last is not None and not wanted and older(report.charger_at, last.charger_at, moment):
        return snapshot
    known = replace(before, live=live, persisted=persisted(report.state, StatusSource.CHARGER, moment, raw=report.raw))
    after = calls.told(
        snapshot.with_connector(_stop_implied(snapshot, known, report, moment)), report.connector_id, moment
    )
    if before.live is None or before.live.raw != report.raw:
        was = before.live.raw if before.live is not None else None
        after = after.timeline("StatusChanged", moment, connector=report.connector_id, status=report.raw, was=was)
    if report.connector_id == 0:
        return calls.ask_status(after, moment, _awaiting(after), after=timedelta(0))
    return _started(_occupied(after, report, moment), report, moment)


def charging_state(snapshot: Snapshot, connector_id: int, state: str) -> Snapshot:
    """The snapshot that knows the chargingState of a TransactionEvent (OCPP 2.0.1 3.11): EVConnected proves that an
    Occupied of this epoch is a cable only, anything else takes the proof back (note F04)."""
    epoch = snapshot.presence.epoch if snapshot.presence is not None else None
    plugged = epoch if state == "EVConnected" else None
    return snapshot.with_connector(replace(snapshot.connector(connector_id), plugged=plugged))


def asked_after_connect(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot of a station that has just connected and is asked what we need to know: of connectors that are not
    known to be free in this epoch, for what freed them may have been said to nobody, and of those where somebody waits
    to start or to be billed (notes F21, F32, F68)."""
    unknown = tuple(
        connector_id
        for connector_id in snapshot.station.connectors
        if not occupancy.said_free(snapshot, connector_id, moment.policy)
        or ((lock := snapshot.connector(connector_id).lock) is not None and lock.state in WAITING)
    )
    whole = (0,) if occupancy.masked(snapshot) else ()
    return calls.ask_status(snapshot, moment, whole + unknown, after=SELF_REPORT)


def asked_when_freed(snapshot: Snapshot, connector_id: int, moment: Moment) -> Snapshot:
    """The snapshot in which the station is asked how a connector is on which nothing runs any more, unless it tells by
    itself: a status that is lost is not told again, and who waits there to start may have been judged before."""
    lock = snapshot.connector(connector_id).lock
    waits = lock is not None and lock.state is ReservationState.AUTHORIZED
    if occupancy.said_free(snapshot, connector_id, moment.policy) and not waits:
        return snapshot
    return calls.ask_status(snapshot, moment, (connector_id,), after=SELF_REPORT)


def awaited(snapshot: Snapshot, call: OutboundCall) -> Needs:
    """The reservation that waits to start where this CALL asks for a status; nothing for any other CALL."""
    if call.kind is not CommandKind.TRIGGER_STATUS or call.connector_id is None:
        return Needs()
    lock = snapshot.connector(call.connector_id).lock
    return Needs(reservation_id=lock.reservation_id if lock is not None and lock.state in AWAITING else None)


def promised(snapshot: Snapshot, call: OutboundCall, result: CommandResult, moment: Moment) -> Snapshot:
    """The snapshot after the station agreed to tell a status, for which we wait no longer than for an answer, if it has
    not overtaken this one."""
    if call.told:
        return calls.finish(snapshot, call, result, moment, told_at=moment.now)
    answered = replace(result, at=moment.now)
    owed = replace(call, state=CallState.PROMISED, result=answered, due_at=moment.now + moment.policy.call_timeout)
    return replace(snapshot, calls=(*(c for c in snapshot.calls if c.call_id != call.call_id), owed))


def untold(snapshot: Snapshot, connector_id: int, moment: Moment) -> Snapshot:
    """The snapshot after the station was asked how a connector is and did not say: who waits there is judged by what is
    known, for after a reconnect no status need ever come (note F32)."""
    held = snapshot.reservation
    if held is None or held.connector_id != connector_id or held.state not in AWAITING:
        return snapshot
    judged = _asked_to_start(snapshot, held, moment)
    clear = _clear_at(snapshot, held, moment)
    if held.start_deadline is None or clear is None or not moment.now <= clear < held.start_deadline:
        return judged
    return calls.ask_status(judged, moment, (connector_id,), after=clear - moment.now + JUST_AFTER)


def unanswered(snapshot: Snapshot, call: OutboundCall, moment: Moment) -> Snapshot:
    """The snapshot after the station did not answer a RemoteStart in time: how the connector is says whether to ask
    again (note F25)."""
    lock = snapshot.connector(call.connector_id or 0).lock
    if lock is None or lock.reservation_id != call.reservation_id or lock.state not in AWAITING:
        return snapshot
    return calls.ask_status(snapshot, moment, (call.connector_id or 0,), after=timedelta(0))


def persisted(
    state: ConnectorState, source: StatusSource, moment: Moment, *, raw: str | None = None
) -> PersistedStatus:
    """The status as it outlives the connection; one that is not Available is released after a while (setting, zero
    disables). `raw` is the station's word, where it was the station that said it."""
    kept, coarse = moment.policy.status_release, occupancy.coarse(state)
    release_at = moment.now + kept if kept and coarse is not ConnectorStatus.AVAILABLE else None
    return PersistedStatus(raw=raw or coarse, state=state, at=moment.now, source=source, release_at=release_at)


def released(snapshot: Snapshot, connector_id: int, moment: Moment) -> Snapshot:
    """The snapshot whose stale persisted status is Available again; unchanged while a transaction or a reservation
    holds the connector, or before its time (note F74)."""
    connector = snapshot.connector(connector_id)
    stale = connector.persisted
    if connector.transaction is not None or connector.lock is not None or stale is None:
        return snapshot
    if stale.release_at is None or moment.now < stale.release_at:
        return snapshot
    free = persisted(ConnectorState.AVAILABLE, StatusSource.MAINTENANCE, moment)
    return snapshot.with_connector(replace(connector, persisted=free)).timeline(
        "StatusReleased", moment, connector=connector_id, was=stale.raw
    )


def older(new: datetime | None, known: datetime | None, moment: Moment) -> bool:
    """Whether the new time is before the known one, where both clocks can be believed (note F11).

    A clock that was fast and has been set right since says an earlier time, and is no older for that.
    """
    if new is None or known is None or new <= moment.now < known:
        return False
    return believable(new, moment) and believable(known, moment) and new < known


def believable(at: datetime | None, moment: Moment) -> bool:
    """Whether a charger's clock can be right: not from before there were such chargers, and not from the future."""
    return at is not None and CLOCKS_EXIST_SINCE < at <= moment.now + CLOCK_TOLERANCE


def _stop_implied(snapshot: Snapshot, connector: Connector, report: Report, moment: Moment) -> Connector:
    """The connector whose transaction is on notice when the station calls it Available without having stopped it.

    The notice is a grace, in which the real stop still wins (note F55). It is not given for an Available from before
    the transaction, nor to a station that has booted since and has not called the connector in use again (note F56);
    any other status takes it back.
    """
    running = connector.transaction
    if running is None:
        return connector
    said = occupancy.coarse(report.state)
    if said is ConnectorStatus.OCCUPIED:
        at = _said_at(report, moment)
        return replace(connector, transaction=replace(running, idle_until=None, occupied_at=at))
    if said is not ConnectorStatus.AVAILABLE:
        return replace(connector, transaction=replace(running, idle_until=None))
    booted = snapshot.station.booted_at
    grace = moment.policy.implied_stop_grace
    known = (running.received_at, running.occupied_at)
    replayed = booted is not None and all(at is None or at < booted for at in known)
    if not grace or replayed or running.idle_until is not None or older(report.charger_at, running.started_at, moment):
        return connector
    return replace(connector, transaction=replace(running, idle_until=moment.now + grace))


def _occupied(snapshot: Snapshot, report: Report, moment: Moment) -> Snapshot:
    """The snapshot whose reservation's idle time follows the status, and which is settled once the car is gone (note
    F68)."""
    at = _said_at(report, moment)
    after = settlement.idled(snapshot, report.connector_id, report.state, at, moment)
    if occupancy.coarse(report.state) is not ConnectorStatus.AVAILABLE:
        return after
    return settlement.unplugged(after, report.connector_id, at, moment)


def _started(snapshot: Snapshot, report: Report, moment: Moment) -> Snapshot:
    """The snapshot in which a paid reservation that was waiting starts, here or moved here from another bay (notes F32,
    F33)."""
    held = snapshot.reservation
    if held is None or held.state not in AWAITING:
        return snapshot
    if held.connector_id != report.connector_id and len(_waiting_elsewhere(snapshot, report.connector_id, moment)) == 1:
        snapshot = reservation.move(snapshot, report.connector_id, moment)
    held = snapshot.reservation
    if held is None or held.connector_id != report.connector_id:
        return snapshot
    return _asked_to_start(snapshot, held, moment)


def _said_at(report: Report, moment: Moment) -> datetime:
    """When the station said it, by its own clock where that can be believed and is not ahead of ours."""
    said = report.charger_at
    return said if said is not None and believable(said, moment) and said < moment.now else moment.now


def _clear_at(snapshot: Snapshot, held: Reservation, moment: Moment) -> datetime | None:
    """When all that keeps the reservation waiting will have worn off by itself; None if something does not, or if
    nothing does."""
    findings = occupancy.explain(
        snapshot, held.connector_id, now=moment.now, policy=moment.policy, ignoring=held.reservation_id
    )
    ends = [finding.until for finding in findings if finding.reason is not None]
    return max((at for at in ends if at is not None), default=None) if None not in ends else None


def _asked_to_start(snapshot: Snapshot, held: Reservation, moment: Moment) -> Snapshot:
    """The snapshot whose waiting reservation is asked to start if the gate lets it, and if it has not been asked: with
    an answer still to come, or one that a boot has not made the station forget."""
    booted, accepted = snapshot.station.booted_at, held.start_accepted_at
    granted = accepted is not None and (booted is None or booted <= accepted)
    if (
        granted
        or _just_asked(snapshot, held, moment)
        or calls.pending(snapshot, CommandKind.REMOTE_START, moment, reservation_id=held.reservation_id)
    ):
        return snapshot
    return reservation.request_start(
        calls.without(snapshot, CommandKind.REMOTE_START, held.reservation_id, moment), moment
    )


def _awaiting(snapshot: Snapshot) -> tuple[int, ...]:
    """The connectors where somebody who paid is waiting: what is said of the whole station may be their moment."""
    return tuple(
        c.connector_id for c in snapshot.connectors.values() if c.lock is not None and c.lock.state in AWAITING
    )


def _just_asked(snapshot: Snapshot, held: Reservation, moment: Moment) -> bool:
    """Whether the station was asked to start a moment ago, over this connection and since its last boot: one that says
    no with a status would else be asked again with each."""
    presence, booted, asked = snapshot.presence, snapshot.station.booted_at, held.start_requested_at
    if presence is None or asked is None or moment.now >= asked + moment.policy.call_timeout:
        return False
    return presence.connected_at <= asked and (booted is None or booted <= asked)


def _waiting_elsewhere(snapshot: Snapshot, connector_id: int, moment: Moment | None = None) -> list[Lock]:
    """The locks of paid reservations that wait for their plug at other connectors, the longest to last last; with a
    moment, only those that hold then."""
    waiting = [
        c.lock
        for c in snapshot.connectors.values()
        if c.connector_id != connector_id and c.lock is not None and c.lock.state is ReservationState.AUTHORIZED
    ]
    held = (lock for lock in waiting if moment is None or occupancy.holding(lock, moment.now))
    return sorted(held, key=lambda lock: lock.expires_at.timestamp() if lock.expires_at is not None else 0)
