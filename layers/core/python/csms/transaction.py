"""Transactions: start, meter, stop, in words that every OCPP version shares. Each decision turns a snapshot into the
next one.

A transaction message is never refused for a business reason: what fits nothing is stored, put aside and confirmed
(notes F41, F53).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from csms import occupancy, reservation
from csms.model import (
    Command,
    Connector,
    IdTag,
    Intake,
    MeterSample,
    Moment,
    OpenTransaction,
    OutboundCall,
    Reading,
    ReservationState,
    Snapshot,
    TagStatus,
    TimelineEntry,
    Transaction,
    fold,
)
from csms.reservation import Event

KEPT: Final = timedelta(days=90)
"""How long answers to be replayed, meter samples and timeline entries are kept."""

AUTHORISING: Final = frozenset(
    {
        ReservationState.AUTHORIZED,
        ReservationState.START_REQUESTED,
        ReservationState.CHARGING,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A transaction begins; `started_at` is the charger's clock, None when that could not be read."""

    connector_id: int
    id_tag: str
    meter_start_wh: int
    started_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A transaction ended; `meter_stop_wh` is None when the charger did not say."""

    transaction_id: int
    meter_stop_wh: int | None
    stopped_at: datetime | None
    reason: str | None
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What the station is told of its new transaction."""

    transaction_id: int
    id_tag_status: TagStatus


def digest(start: Start) -> str:
    """The name of a start, equal for the same start sent again (note F51): connector, tag, time and meter."""
    parts = (start.connector_id, fold(start.id_tag), start.started_at, start.meter_start_wh)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def authorise(snapshot: Snapshot, id_tag: str, moment: Moment) -> TagStatus:
    """What the tag may do at this station now: a web tag only while its own reservation holds a connector here, other
    tags as registered."""
    for connector in snapshot.connectors.values():
        if _own(connector, id_tag, moment.now):
            return TagStatus.ACCEPTED
    return _registered(snapshot.tag, moment.now)


def start(snapshot: Snapshot, request: Start, moment: Moment) -> tuple[Snapshot, Started]:
    """The snapshot with one more transaction, and its id and the tag's status; the same start again gets the same
    answer."""
    if snapshot.intake is not None:
        return snapshot, _replayed(snapshot.intake)
    own = _own(snapshot.connector(request.connector_id), request.id_tag, moment.now)
    status = TagStatus.ACCEPTED if own else _registered(snapshot.tag, moment.now)
    cleared = _superseded(snapshot, request.connector_id, moment, keep_reservation=own)
    lock = cleared.connector(request.connector_id).lock
    begun = Transaction(
        transaction_id=moment.fresh.transaction_id,
        station_id=cleared.station.station_id,
        connector_id=request.connector_id,
        id_tag=request.id_tag,
        id_tag_status=status,
        started_at=request.started_at or moment.now,
        received_at=moment.now,
        meter_start_wh=request.meter_start_wh,
        reservation_id=lock.reservation_id if own and lock is not None else None,
    )
    occupied = cleared.with_transaction(begun).with_connector(
        replace(cleared.connector(request.connector_id), transaction=_opened(begun))
    )
    answer = Started(transaction_id=begun.transaction_id, id_tag_status=status)
    known = occupied.recording(
        Intake(
            station_id=begun.station_id,
            digest=digest(request),
            answer={"transaction_id": answer.transaction_id, "id_tag_status": answer.id_tag_status},
            expires_at=moment.now + KEPT,
        ),
        once=True,
    )
    if own:
        return _charging(known, begun, moment), answer
    if snapshot.tag is not None and snapshot.tag.reservation_id is not None:
        return _stopped_remotely(known, begun, moment), answer
    return known, answer


def meter(
    snapshot: Snapshot, connector_id: int, transaction_id: int | None, readings: tuple[Reading, ...], moment: Moment
) -> Snapshot:
    """The snapshot with the readings kept and the running transaction's energy moved on, which never falls."""
    connector = snapshot.connector(connector_id)
    running = connector.transaction
    named = transaction_id if transaction_id and transaction_id > 0 else running and running.transaction_id
    if not named or not readings:
        return snapshot
    kept = snapshot.recording(
        MeterSample(
            transaction_id=named,
            station_id=snapshot.station.station_id,
            connector_id=connector_id,
            readings=readings,
            expires_at=moment.now + KEPT,
        )
    )
    if running is None or running.transaction_id != named:
        return kept
    metered = replace(
        running,
        energy_wh=max(running.energy_wh, best_energy(running.meter_start_wh, readings)),
        power_w=next((r.power_w for r in reversed(readings) if r.power_w is not None), running.power_w),
        metered_at=moment.now,
    )
    return kept.with_connector(replace(connector, transaction=metered))


def stop(snapshot: Snapshot, request: Stop, moment: Moment) -> Snapshot:
    """The snapshot with the transaction closed, its reservation settled and its connector free; what is unknown or
    closed is put aside."""
    transaction = snapshot.transactions.get(request.transaction_id)
    if transaction is None or transaction.stopped_at is not None:
        return _put_aside(snapshot, "unknown" if transaction is None else "already closed", request, moment)
    connector = snapshot.connector(transaction.connector_id)
    running = connector.transaction if _runs(connector, transaction) else None
    sampled = max(
        running.energy_wh if running is not None else 0, best_energy(transaction.meter_start_wh, request.readings)
    )
    stopped_wh = request.meter_stop_wh - transaction.meter_start_wh if request.meter_stop_wh is not None else None
    trusted = stopped_wh is not None and stopped_wh >= sampled
    closed = replace(
        transaction,
        stopped_at=request.stopped_at or moment.now,
        meter_stop_wh=request.meter_stop_wh,
        energy_wh=stopped_wh if trusted and stopped_wh is not None else sampled,
        reason=request.reason or "Local",
        flags=transaction.flags if trusted else (*transaction.flags, "MeterStopNotTrusted"),
    )
    freed = snapshot.with_transaction(closed)
    if running is not None:
        freed = freed.with_connector(replace(connector, transaction=None))
    return _settled(freed, closed, moment)


def best_energy(meter_start_wh: int, readings: Iterable[Reading]) -> int:
    """The most energy that the readings prove since the start, in Wh; never negative."""
    return max(0, *(r.energy_wh - meter_start_wh for r in readings if r.energy_wh is not None), 0)


def _own(connector: Connector, id_tag: str, now: datetime) -> bool:
    """Whether the tag is that of the reservation which holds the connector and may charge on it."""
    lock = connector.lock
    return (
        lock is not None
        and fold(lock.id_tag) == fold(id_tag)
        and lock.state in AUTHORISING
        and occupancy.holding(lock, now)
    )


def _registered(tag: IdTag | None, now: datetime) -> TagStatus:
    """The status of a registered tag; a web tag alone authorises nothing, whoever learnt it."""
    if tag is None or tag.reservation_id is not None:
        return TagStatus.INVALID
    if tag.expires_at is not None and tag.expires_at <= now:
        return TagStatus.EXPIRED
    return tag.status


def _replayed(intake: Intake) -> Started:
    answer: Mapping[str, Any] = intake.answer
    return Started(transaction_id=int(answer["transaction_id"]), id_tag_status=TagStatus(answer["id_tag_status"]))


def _opened(transaction: Transaction) -> OpenTransaction:
    return OpenTransaction(
        transaction_id=transaction.transaction_id,
        id_tag=transaction.id_tag,
        started_at=transaction.started_at,
        meter_start_wh=transaction.meter_start_wh,
        reservation_id=transaction.reservation_id,
    )


def _runs(connector: Connector, transaction: Transaction) -> bool:
    running = connector.transaction
    return running is not None and running.transaction_id == transaction.transaction_id


def _superseded(snapshot: Snapshot, connector_id: int, moment: Moment, *, keep_reservation: bool) -> Snapshot:
    """The snapshot with the connector's old transaction closed, because a connector carries one at a time (note
    F57)."""
    connector = snapshot.connector(connector_id)
    running = connector.transaction
    if running is None:
        return snapshot
    cleared = snapshot.with_connector(replace(connector, transaction=None))
    old = snapshot.transactions.get(running.transaction_id)
    if old is None or old.stopped_at is not None:
        return cleared
    closed = replace(
        old, stopped_at=moment.now, energy_wh=running.energy_wh, reason="Superseded", flags=(*old.flags, "Superseded")
    )
    cleared = cleared.with_transaction(closed)
    return cleared if keep_reservation else _settled(cleared, closed, moment)


def _settled(snapshot: Snapshot, closed: Transaction, moment: Moment) -> Snapshot:
    """The snapshot with the closed transaction's reservation settled, if it has one that is charging on it."""
    held = snapshot.reservation
    if held is None or held.transaction_id != closed.transaction_id or not reservation.allows(held, Event.STOPPED):
        return snapshot
    return reservation.settle(snapshot, closed.energy_wh, moment, detail=closed.reason)


def _charging(snapshot: Snapshot, begun: Transaction, moment: Moment) -> Snapshot:
    """The snapshot whose reservation charges on the new transaction; from here on its lock does not expire."""
    held = snapshot.reservation
    if held is not None and held.state is ReservationState.CHARGING:
        relinked = replace(snapshot, reservation=replace(held, transaction_id=begun.transaction_id))
        return reservation.noted(relinked, "Restarted", moment)
    return reservation.happened(
        snapshot,
        Event.STARTED,
        moment,
        transaction_id=begun.transaction_id,
        started_at=moment.now,
        expires_at=None,
    )


def _stopped_remotely(snapshot: Snapshot, begun: Transaction, moment: Moment) -> Snapshot:
    """The snapshot that asks the station to stop what nobody pays for: a start after timeout or cancellation (note
    F30)."""
    call = OutboundCall(
        station_id=begun.station_id,
        call_id=moment.fresh.call_id,
        command=Command.REMOTE_STOP,
        transaction_id=begun.transaction_id,
        due_at=moment.now + moment.policy.call_lease,
        expires_at=moment.now + moment.policy.start_window,
    )
    return replace(snapshot, calls=(*snapshot.calls, call))


def _put_aside(snapshot: Snapshot, why: str, request: Stop, moment: Moment) -> Snapshot:
    """The snapshot with the message kept for a human to see."""
    return snapshot.recording(
        TimelineEntry(
            station_id=snapshot.station.station_id,
            at=moment.now,
            kind="StopPutAside",
            detail={
                "why": why,
                "transaction_id": request.transaction_id,
                "meter_stop_wh": request.meter_stop_wh,
                "reason": request.reason,
            },
            expires_at=moment.now + KEPT,
        )
    )
