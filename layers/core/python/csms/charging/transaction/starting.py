"""A transaction begins: whose it is, where it really is, and what ends because of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from csms import occupancy
from csms.charging import reservation, settlement, status
from csms.charging.reservation import Event
from csms.charging.transaction.stopping import end
from csms.charging.transaction.tags import own_tag, registered
from csms.charging.transaction.words import SUPERSEDED, Start, Started, digest, stop_asked
from csms.model import (
    RECORDS_KEPT,
    Connector,
    ConnectorStatus,
    IdToken,
    Intake,
    Moment,
    Needs,
    OpenTransaction,
    ReservationState,
    Snapshot,
    TagStatus,
    Transaction,
    fold,
)
from csms.pricing import tariff

OFFLINE_AFTER: Final = timedelta(minutes=10)
"""A start told later than this comes from the station's offline queue, unless the station says that it still
charges."""


def start_needs(snapshot: Snapshot, request: Start) -> Needs:
    """What a start has to see: whose connector it is, or whose tag, what runs there, and whether it was told before."""
    connector = snapshot.connector(request.connector_id)
    tagged = _tagged(snapshot, request.id_token)
    lock = connector.lock if connector.transaction is not None or tagged is None else tagged.lock
    return Needs(
        reservation_id=lock.reservation_id if lock is not None else None,
        transaction_ids=(connector.transaction.transaction_id,) if connector.transaction is not None else (),
        id_tag=request.id_token.value,
        digest=digest(request),
    )


def start(snapshot: Snapshot, request: Start, moment: Moment) -> tuple[Snapshot, Started]:
    """The snapshot with one more transaction, and its id and the tag's status; the same start again gets the same
    answer."""
    if snapshot.intake is not None:
        return snapshot, _replayed(snapshot.intake)
    here = _rescued(snapshot, request, moment)
    lock = here.connector(request.connector_id).lock
    own = own_tag(here.connector(request.connector_id), request.id_token, moment.now)
    begun = Transaction(
        transaction_id=request.transaction_id or moment.fresh.transaction_id,
        station_id=here.station.station_id,
        connector_id=request.connector_id,
        id_tag=request.id_token.value,
        id_tag_status=TagStatus.ACCEPTED if own else registered(here.tag, moment.now),
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
        return stop_asked(occupied, begun.transaction_id, moment), answer
    return occupied, answer


def _replayed(intake: Intake) -> Started:
    answer: Mapping[str, Any] = intake.answer
    said = TagStatus.stored(answer["id_tag_status"])
    status = said if said.is_known else TagStatus.INVALID
    return Started(transaction_id=str(answer["transaction_id"]), id_tag_status=status)


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


def _tagged(snapshot: Snapshot, id_token: IdToken) -> Connector | None:
    """The connector whose reservation has this tag."""
    mine = (
        c for c in snapshot.connectors.values() if c.lock is not None and fold(c.lock.id_tag) == fold(id_token.value)
    )
    return next(mine, None)


def _rescued(snapshot: Snapshot, request: Start, moment: Moment) -> Snapshot:
    """The snapshot whose reservation holds the bay where its driver really plugged in, if that one is free (note
    F33)."""
    tagged = _tagged(snapshot, request.id_token)
    held = snapshot.reservation
    if tagged is None or held is None or tagged.connector_id == request.connector_id:
        return snapshot
    if held.connector_id != tagged.connector_id or not own_tag(tagged, request.id_token, moment.now):
        return snapshot
    if not reservation.allows(held, Event.STARTED):
        return snapshot
    return reservation.move(snapshot, request.connector_id, moment)


def _over_long_ago(snapshot: Snapshot, request: Start, moment: Moment) -> bool:
    """Whether the start is from the station's offline queue and its connector is not in use any more (note F59)."""
    if not status.believable(request.started_at, moment) or request.started_at is None:
        return False
    live = occupancy.said(snapshot, request.connector_id)
    in_use = live is not None and occupancy.coarse(live.state) is ConnectorStatus.OCCUPIED
    return moment.now - request.started_at > OFFLINE_AFTER and not in_use


def _superseded(snapshot: Snapshot, connector_id: int, moment: Moment, *, keep_reservation: bool) -> Snapshot:
    """The snapshot with the connector's old transaction closed, because a connector carries one at a time (note F57);
    the reservation that started again is kept, and charges on with the new one."""
    ended = end(replace(snapshot, reservation=None) if keep_reservation else snapshot, connector_id, SUPERSEDED, moment)
    return replace(ended, reservation=snapshot.reservation) if keep_reservation else ended


def _before(old: Transaction | None, begun: Transaction) -> int:
    """What the old transaction delivered until the meter where the new one begins; a start told twice counts nothing
    twice."""
    return 0 if old is None else max(0, min(old.energy_wh, begun.meter_start_wh - old.meter_start_wh))


def _charging(snapshot: Snapshot, begun: Transaction, moment: Moment) -> Snapshot:
    """The snapshot whose reservation charges on the new transaction; from here on its lock does not expire."""
    held = snapshot.reservation
    if held is not None and held.state is ReservationState.CHARGING:
        old = snapshot.transactions.get(held.transaction_id or "")
        again = replace(held, transaction_id=begun.transaction_id, carried_wh=held.carried_wh + _before(old, begun))
        relinked = reservation.noted(replace(snapshot, reservation=again), "Restarted", moment)
        doubtful = old is not None and settlement.IMPLAUSIBLE in old.flags
        return _bounded(settlement.doubt_energy(relinked, moment) if doubtful else relinked, begun)
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
