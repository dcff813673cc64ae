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

from csms import calls, occupancy, reservation, settlement, status, tariff
from csms.model import (
    RECORDS_KEPT,
    Command,
    Connector,
    ConnectorStatus,
    IdTag,
    Intake,
    MeterSample,
    Moment,
    Needs,
    OpenTransaction,
    Reading,
    ReservationState,
    Snapshot,
    TagStatus,
    Transaction,
    fold,
)
from csms.reservation import Event

OFFLINE_AFTER: Final = timedelta(minutes=10)
"""A start told later than this comes from the station's offline queue, unless the station says that it still
charges."""

IMPLIED: Final = "ImpliedStop"
OVERDUE: Final = "Overdue"
SUPERSEDED: Final = "Superseded"
OPERATOR: Final = "ClosedByOperator"
OURS: Final = frozenset({IMPLIED, OVERDUE, SUPERSEDED, OPERATOR})
"""Ends that the station did not tell: its own stop still corrects the record."""

UNPLUGGED: Final = frozenset({"EVDisconnected"})
"""Reasons of a stop that say that the cable is out (OCPP 1.6 7.36)."""

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
    id_tag: str | None = None
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


def start_needs(snapshot: Snapshot, request: Start) -> Needs:
    """What a start has to see: whose connector it is, or whose tag, what runs there, and whether it was told before."""
    connector = snapshot.connector(request.connector_id)
    tagged = _tagged(snapshot, request.id_tag)
    lock = connector.lock if connector.transaction is not None or tagged is None else tagged.lock
    return Needs(
        reservation_id=lock.reservation_id if lock is not None else None,
        transaction_ids=(connector.transaction.transaction_id,) if connector.transaction is not None else (),
        id_tag=request.id_tag,
        digest=digest(request),
    )


def start(snapshot: Snapshot, request: Start, moment: Moment) -> tuple[Snapshot, Started]:
    """The snapshot with one more transaction, and its id and the tag's status; the same start again gets the same
    answer."""
    if snapshot.intake is not None:
        return snapshot, _replayed(snapshot.intake)
    here = _rescued(snapshot, request, moment)
    lock = here.connector(request.connector_id).lock
    own = _own(here.connector(request.connector_id), request.id_tag, moment.now)
    begun = Transaction(
        transaction_id=moment.fresh.transaction_id,
        station_id=here.station.station_id,
        connector_id=request.connector_id,
        id_tag=request.id_tag,
        id_tag_status=TagStatus.ACCEPTED if own else _registered(here.tag, moment.now),
        started_at=request.started_at or moment.now,
        received_at=moment.now,
        meter_start_wh=request.meter_start_wh,
        reservation_id=lock.reservation_id if own and lock is not None else None,
    )
    answer = Started(transaction_id=begun.transaction_id, id_tag_status=begun.id_tag_status)
    known = _noted(here, request, begun, moment)
    if not own and _over_long_ago(here, request, moment):
        return known.with_transaction(replace(begun, flags=("Offline",))), answer
    cleared = _superseded(known, request.connector_id, moment, keep_reservation=own)
    if not own:
        cleared = settlement.unplugged(cleared, request.connector_id, moment.now, moment)
    occupied = cleared.with_transaction(begun).with_connector(
        replace(cleared.connector(request.connector_id), transaction=_opened(begun, moment))
    )
    if own:
        return _charging(occupied, begun, moment), answer
    if here.tag is not None and here.tag.reservation_id is not None:
        return _stop_asked(occupied, begun.transaction_id, moment), answer
    return occupied, answer


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
            expires_at=moment.now + RECORDS_KEPT,
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
    known = kept.with_connector(replace(connector, transaction=metered))
    if not _at_its_ceiling(running, metered, moment):
        return known
    if calls.pending(known, Command.REMOTE_STOP, transaction_id=named):
        return known
    return _stop_asked(known, named, moment)


def stop_needs(snapshot: Snapshot, request: Stop) -> Needs:
    """What a stop has to see: the transaction it means, and the reservation charging on it."""
    named = _meant(snapshot, request)
    running = next((c.transaction for c in snapshot.connectors.values() if _is(c.transaction, named)), None)
    return Needs(
        reservation_id=running.reservation_id if running is not None else None,
        transaction_ids=(named,) if named > 0 else (),
        id_tag=request.id_tag,
        settled=True,
    )


def stop(snapshot: Snapshot, request: Stop, moment: Moment) -> Snapshot:
    """The snapshot with the transaction closed, its reservation settled and its connector free; what is unknown or
    closed is put aside, and corrects the record if it was not the station that closed it."""
    transaction = snapshot.transactions.get(_meant(snapshot, request))
    if transaction is None or transaction.station_id != snapshot.station.station_id:
        return _put_aside(snapshot, "unknown", request, moment)
    running = snapshot.connector(transaction.connector_id).transaction
    sampled = running.energy_wh if running is not None and _is(running, transaction.transaction_id) else 0
    sampled = max(sampled, best_energy(transaction.meter_start_wh, request.readings))
    told_wh = request.meter_stop_wh - transaction.meter_start_wh if request.meter_stop_wh is not None else -1
    trusted = told_wh >= sampled
    closed = replace(
        transaction,
        stopped_at=request.stopped_at or moment.now,
        meter_stop_wh=request.meter_stop_wh,
        energy_wh=told_wh if trusted else sampled,
        reason=request.reason or "Local",
        flags=transaction.flags if trusted else (*transaction.flags, "MeterStopNotTrusted"),
    )
    if transaction.stopped_at is None:
        return _closed(snapshot, closed, moment)
    aside = _put_aside(snapshot, "already closed", request, moment)
    nothing_said = request.meter_stop_wh == 0 and transaction.energy_wh > 0
    if transaction.reason not in OURS or not trusted or nothing_said:
        return aside
    flagged = replace(closed, flags=(*closed.flags, f"CorrectedAfter{transaction.reason}"))
    after, held = aside.with_transaction(flagged), aside.reservation
    if held is None or held.transaction_id != closed.transaction_id:
        return after
    return settlement.corrected(after, held.carried_wh + closed.energy_wh, moment)


def end(snapshot: Snapshot, connector_id: int, reason: str, moment: Moment) -> Snapshot:
    """The snapshot whose connector's transaction was closed by us, with the best meter there is; unchanged if none
    runs."""
    running = snapshot.connector(connector_id).transaction
    if running is None:
        return snapshot
    transaction = snapshot.transactions.get(running.transaction_id) or _rebuilt(snapshot, connector_id, running)
    closed = replace(
        transaction,
        stopped_at=moment.now,
        energy_wh=running.energy_wh,
        reason=reason,
        flags=(*transaction.flags, reason),
    )
    return _closed(snapshot, closed, moment)


def overdue(snapshot: Snapshot, connector_id: int, moment: Moment) -> Snapshot:
    """The snapshot whose connector's transaction was closed because its time is over: a stop was implied and the real
    one did not come (note F55), or it reached the hard maximum and is stopped remotely too (note F77)."""
    running = snapshot.connector(connector_id).transaction
    if running is None:
        return snapshot
    if running.ends_at is not None and running.ends_at <= moment.now:
        ended = end(snapshot, connector_id, OVERDUE, moment)
        return _stop_asked(ended, running.transaction_id, moment)
    if running.idle_until is not None and running.idle_until <= moment.now:
        return end(snapshot, connector_id, IMPLIED, moment)
    return snapshot


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


def _noted(snapshot: Snapshot, request: Start, begun: Transaction, moment: Moment) -> Snapshot:
    """The snapshot that remembers the answer, so that the same start again has no other effect."""
    intake = Intake(
        station_id=begun.station_id,
        digest=digest(request),
        answer={"transaction_id": begun.transaction_id, "id_tag_status": begun.id_tag_status},
        expires_at=moment.now + RECORDS_KEPT,
    )
    return snapshot.recording(intake, once=True).timeline(
        "TransactionStarted",
        moment,
        connector=begun.connector_id,
        transaction=begun.transaction_id,
        tag=begun.id_tag_status,
        reservation=begun.reservation_id,
    )


def _opened(begun: Transaction, moment: Moment) -> OpenTransaction:
    limit = moment.policy.session_limit
    return OpenTransaction(
        transaction_id=begun.transaction_id,
        id_tag=begun.id_tag,
        started_at=begun.started_at,
        received_at=begun.received_at,
        meter_start_wh=begun.meter_start_wh,
        reservation_id=begun.reservation_id,
        ends_at=moment.now + limit if limit else None,
    )


def _rebuilt(snapshot: Snapshot, connector_id: int, running: OpenTransaction) -> Transaction:
    """The record of a transaction whose own item was lost, from what the connector knows of it: it must be closable."""
    return Transaction(
        transaction_id=running.transaction_id,
        station_id=snapshot.station.station_id,
        connector_id=connector_id,
        id_tag=running.id_tag,
        id_tag_status=TagStatus.ACCEPTED if running.reservation_id is not None else TagStatus.INVALID,
        started_at=running.started_at,
        received_at=running.received_at,
        meter_start_wh=running.meter_start_wh,
        reservation_id=running.reservation_id,
        flags=("Rebuilt",),
    )


def _is(running: OpenTransaction | None, transaction_id: int) -> bool:
    return running is not None and running.transaction_id == transaction_id


def _tagged(snapshot: Snapshot, id_tag: str) -> Connector | None:
    """The connector whose reservation has this tag."""
    mine = (c for c in snapshot.connectors.values() if c.lock is not None and fold(c.lock.id_tag) == fold(id_tag))
    return next(mine, None)


def _rescued(snapshot: Snapshot, request: Start, moment: Moment) -> Snapshot:
    """The snapshot whose reservation holds the bay where its driver really plugged in, if that one is free (note
    F33)."""
    tagged = _tagged(snapshot, request.id_tag)
    held = snapshot.reservation
    if tagged is None or held is None or tagged.connector_id == request.connector_id:
        return snapshot
    if held.connector_id != tagged.connector_id or not _own(tagged, request.id_tag, moment.now):
        return snapshot
    if not reservation.allows(held, Event.STARTED):
        return snapshot
    return reservation.move(snapshot, request.connector_id, moment)


def _over_long_ago(snapshot: Snapshot, request: Start, moment: Moment) -> bool:
    """Whether the start is from the station's offline queue and its connector is not in use any more (note F59)."""
    if not status.believable(request.started_at, moment) or request.started_at is None:
        return False
    live = snapshot.connector(request.connector_id).live
    current = live is not None and snapshot.presence is not None and live.epoch == snapshot.presence.epoch
    in_use = current and live is not None and occupancy.coarse(live.raw) is ConnectorStatus.OCCUPIED
    return moment.now - request.started_at > OFFLINE_AFTER and not in_use


def _meant(snapshot: Snapshot, request: Stop) -> int:
    """The transaction a stop means: the one it names, or, when it names none that can be, the only one open that its
    tag and meter fit (note F54); 0 for none."""
    if request.transaction_id > 0 or request.id_tag is None or request.meter_stop_wh is None:
        return request.transaction_id
    fitting = [
        connector.transaction.transaction_id
        for connector in snapshot.connectors.values()
        if connector.transaction is not None
        and fold(connector.transaction.id_tag) == fold(request.id_tag)
        and connector.transaction.meter_start_wh <= request.meter_stop_wh
    ]
    return fitting[0] if len(fitting) == 1 else 0


def _superseded(snapshot: Snapshot, connector_id: int, moment: Moment, *, keep_reservation: bool) -> Snapshot:
    """The snapshot with the connector's old transaction closed, because a connector carries one at a time (note F57);
    the reservation that started again is kept, and charges on with the new one."""
    ended = end(replace(snapshot, reservation=None) if keep_reservation else snapshot, connector_id, SUPERSEDED, moment)
    return replace(ended, reservation=snapshot.reservation) if keep_reservation else ended


def _closed(snapshot: Snapshot, closed: Transaction, moment: Moment) -> Snapshot:
    """The snapshot with the transaction closed, its connector free of it and its reservation settled."""
    freed = snapshot.with_transaction(closed).timeline(
        "TransactionStopped",
        moment,
        connector=closed.connector_id,
        transaction=closed.transaction_id,
        energy_wh=closed.energy_wh,
        reason=closed.reason,
    )
    connector = freed.connector(closed.connector_id)
    if _is(connector.transaction, closed.transaction_id):
        freed = freed.with_connector(replace(connector, transaction=None))
    return _settled(freed, closed, moment)


def _settled(snapshot: Snapshot, closed: Transaction, moment: Moment) -> Snapshot:
    """The snapshot with the closed transaction's reservation settled, if it has one that is charging on it."""
    held = snapshot.reservation
    if held is None or held.transaction_id != closed.transaction_id or not reservation.allows(held, Event.STOPPED):
        return snapshot
    energy_wh = held.carried_wh + closed.energy_wh
    still_there = _still_plugged_in(snapshot, closed)
    return settlement.stopped(snapshot, energy_wh, moment, plugged_in=still_there, detail=closed.reason)


def _still_plugged_in(snapshot: Snapshot, closed: Transaction) -> bool:
    """Whether the cable may still be in after the stop: not after one that says otherwise or that we made ourselves,
    nor where the station calls the connector Available already, as some do before they send the stop."""
    if closed.reason in OURS or closed.reason in UNPLUGGED:
        return False
    live = snapshot.connector(closed.connector_id).live
    current = live is not None and snapshot.presence is not None and live.epoch == snapshot.presence.epoch
    return not (current and live is not None and occupancy.coarse(live.raw) is ConnectorStatus.AVAILABLE)


def _at_its_ceiling(before: OpenTransaction, now: OpenTransaction, moment: Moment) -> bool:
    """Whether the transaction has to stop lest it delivers more than is paid for: the next reading will add about as
    much as this one did, or at least the margin (setting)."""
    if now.stop_at_wh is None:
        return False
    step = max(now.energy_wh - before.energy_wh, moment.policy.stop_margin_wh)
    return now.energy_wh + step >= now.stop_at_wh


def _before(old: Transaction | None, begun: Transaction) -> int:
    """What the old transaction delivered until the meter where the new one begins; a start told twice counts nothing
    twice."""
    return 0 if old is None else max(0, min(old.energy_wh, begun.meter_start_wh - old.meter_start_wh))


def _charging(snapshot: Snapshot, begun: Transaction, moment: Moment) -> Snapshot:
    """The snapshot whose reservation charges on the new transaction; from here on its lock does not expire."""
    held = snapshot.reservation
    if held is not None and held.state is ReservationState.CHARGING:
        carried = held.carried_wh + _before(snapshot.transactions.get(held.transaction_id or 0), begun)
        again = replace(held, transaction_id=begun.transaction_id, carried_wh=carried)
        relinked = replace(snapshot, reservation=again)
        return _bounded(reservation.noted(relinked, "Restarted", moment), begun)
    started = reservation.happened(
        snapshot,
        Event.STARTED,
        moment,
        transaction_id=begun.transaction_id,
        started_at=moment.now,
        expires_at=None,
    )
    return _bounded(started, begun)


def _bounded(snapshot: Snapshot, begun: Transaction) -> Snapshot:
    """The snapshot whose running transaction knows how much its reservation pays for and when that must be settled
    (notes F65, F69)."""
    held, connector = snapshot.reservation, snapshot.connector(begun.connector_id)
    running = connector.transaction
    if held is None or running is None:
        return snapshot
    ends = [at for at in (running.ends_at, held.settle_by) if at is not None]
    most = tariff.energy_ceiling(held.tariff, held.authorised_amount) - held.carried_wh
    bounded = replace(running, stop_at_wh=max(0, most), ends_at=min(ends, default=None))
    return snapshot.with_connector(replace(connector, transaction=bounded))


def _stop_asked(snapshot: Snapshot, transaction_id: int, moment: Moment) -> Snapshot:
    """The snapshot that asks the station to stop: a start that nobody pays for (note F30), or one that never ends."""
    until = moment.now + moment.policy.start_window
    return calls.queue(snapshot, Command.REMOTE_STOP, moment, until=until, transaction_id=transaction_id)


def _put_aside(snapshot: Snapshot, why: str, request: Stop, moment: Moment) -> Snapshot:
    """The snapshot with the message kept for a human to see."""
    return snapshot.timeline(
        "StopPutAside",
        moment,
        why=why,
        transaction=request.transaction_id,
        meter_stop_wh=request.meter_stop_wh,
        reason=request.reason,
    )
