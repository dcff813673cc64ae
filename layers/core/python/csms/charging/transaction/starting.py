"""The start of a transaction: its reservation, its connector, and what ends because of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from csms import occupancy
from csms.charging import energy, late_start, reservation, settlement, start_gate, status, stop_requests, web_tags
from csms.charging.reservation import Event
from csms.charging.transaction.register import begin_evidence
from csms.charging.transaction.stopping import end
from csms.charging.transaction.tags import count_unknown, find_owner, is_own_tag, tag_status
from csms.charging.transaction.values import SUPERSEDED, Start, Started, digest, is_same_transaction
from csms.model import (
    RECORD_RETENTION,
    Connector,
    ConnectorStatus,
    DecisionContext,
    IdempotencyRecord,
    OpenTransaction,
    Quirk,
    ReadSet,
    Reservation,
    ReservationState,
    Snapshot,
    Station,
    TagStatus,
    Transaction,
    fold,
)
from csms.pricing import tariff

OFFLINE_AFTER: Final = timedelta(minutes=10)
"""A start reported later than this comes from the station's offline queue, unless the connector is reported in use."""

RESENT_WITHIN: Final = timedelta(minutes=10)
"""How long a message without a clock may be sent again after its transaction has ended."""


def find_start_read_set(snapshot: Snapshot, request: Start) -> ReadSet:
    """What a start reads: the reservation of its connector or its tag, the transaction that runs there, and the stored
    answer to the same start."""
    connector = snapshot.connector(request.connector_id)
    tagged = find_owner(snapshot, request.id_token)
    lock = connector.lock if connector.transaction is not None or tagged is None else tagged.lock
    return ReadSet(
        reservation_id=lock.reservation_id if lock is not None else None,
        transaction_ids=(connector.transaction.transaction_id,) if connector.transaction is not None else (),
        id_tag=request.id_token.value,
        digest=digest(request),
        with_tagged_reservation=True,
    )


def start(snapshot: Snapshot, request: Start, context: DecisionContext) -> tuple[Snapshot, Started]:
    """Store the transaction, and answer with its id and the status of the tag; the same start again gets the same
    answer.

    A transaction whose tag is not accepted must stop: one of a web tag is asked to at once, because its driver has not
    paid (note F30); any other has the time that a CALL has to stop by itself (OCPP 1.6 StopTransactionOnInvalidId). One
    that its driver paid for, that happened in time and is reported late, is billed.
    """
    known_answer = _find_answer(snapshot, request, context)
    if known_answer is not None:
        return snapshot, known_answer
    unheard = _find_unheard(snapshot, request, context)
    if unheard is not None:
        return _start_late(unheard, request, context)
    here = _move_to_plugged_connector(snapshot, request, context)
    lock = here.connector(request.connector_id).lock
    own = is_own_tag(here, request.connector_id, request.id_token, context.now)
    said = TagStatus.ACCEPTED if own else tag_status(here.tag, context.now)
    begun = _build_transaction(
        here, request, context, said, reservation_id=lock.reservation_id if own and lock is not None else None
    )
    answer = Started(transaction_id=begun.transaction_id, id_tag_status=begun.id_tag_status)
    known = count_unknown(_record_start(here, request, begun, context), request.id_token, context)
    if not own and _is_from_offline_queue(here, request, context):
        return known.with_transaction(replace(begun, flags=("Offline",))), answer
    cleared = _supersede(known, request.connector_id, context, keep_reservation=own)
    cleared = stop_requests.end_request(cleared, request.connector_id, context)
    if not own:
        cleared = settlement.settle_on_unplug(cleared, request.connector_id, context)
    occupied = cleared.with_transaction(begun).with_connector(
        replace(cleared.connector(request.connector_id), transaction=_build_open_transaction(begun, context))
    )
    if own:
        return web_tags.learn_form(_start_charging(occupied, begun, context), request.id_token, context), answer
    if here.tag is not None and here.tag.reservation_id is not None:
        return stop_requests.request_stop(occupied, begun.transaction_id, context), answer
    if begun.id_tag_status is not TagStatus.ACCEPTED and not _starts_by_itself(here.station):
        patience = context.policy.call_timeout
        return stop_requests.request_stop(occupied, begun.transaction_id, context, after=patience), answer
    return occupied, answer


def _find_unheard(snapshot: Snapshot, request: Start, context: DecisionContext) -> Snapshot | None:
    """The snapshot with the ended reservation whose start is reported late, while its money is held for that; None if
    the start is no such one."""
    tag = snapshot.tag
    for held in (snapshot.reservation, snapshot.tagged_reservation):
        if held is None or tag is None or tag.reservation_id != held.reservation_id:
            continue
        seen = replace(snapshot, reservation=held)
        is_over = held.expires_at is not None and context.now > held.expires_at
        if is_over and reservation.can_advance(held, Event.START_TIMED_OUT):
            seen = reservation.apply_event(seen, Event.START_TIMED_OUT, context)
        ended = reservation.require_reservation(seen)
        said = request.started_at if status.is_believable(request.started_at, context) else None
        is_ours = (
            ended.station_id == snapshot.station.station_id and request.connector_id in snapshot.station.connectors
        )
        if is_ours and ended.late_start is not None and late_start.is_in_time(ended, said, context):
            return seen
    return None


def _start_late(snapshot: Snapshot, request: Start, context: DecisionContext) -> tuple[Snapshot, Started]:
    """Let the ended reservation charge after all, because its start happened in time. It takes the lock again if the
    connector is free. One that was canceled since is asked to stop."""
    ended, here = reservation.require_reservation(snapshot), snapshot.connector(request.connector_id)
    wanted = ended.state is ReservationState.FAILED
    said = TagStatus.ACCEPTED if wanted else TagStatus.INVALID
    begun = _build_transaction(snapshot, request, context, said, reservation_id=ended.reservation_id)
    others = occupancy.is_lock_active(here.lock, context.now)
    runs_here = not _is_taken_since(here, begun, context)
    # Without the lock nothing but its stop ends it, so it needs a latest end.
    limit = _find_latest_end(ended, context) if others or not runs_here else None
    known = reservation.apply_event(
        _record_start(snapshot, request, begun, context),
        Event.STARTED_LATE,
        context,
        connector_id=request.connector_id,
        transaction_id=begun.transaction_id,
        started_at=begun.started_at,
        expires_at=limit,
        ended_at=None,
        failure_code=None,
        late_start=None,
    )
    answer = Started(transaction_id=begun.transaction_id, id_tag_status=begun.id_tag_status)
    if not runs_here:
        return known.with_transaction(replace(begun, flags=("Offline",))), answer
    cleared = _supersede(known, request.connector_id, context, keep_reservation=True)
    cleared = stop_requests.end_request(cleared, request.connector_id, context)
    there = cleared.connector(request.connector_id)
    if not others:
        there = replace(reservation.unlock(there), lock=reservation.build_lock(reservation.require_reservation(known)))
    running = _build_open_transaction(begun, context)
    if occupancy.is_reported_available(cleared, request.connector_id) and context.policy.implied_stop_grace:
        running = replace(running, idle_until=context.now + context.policy.implied_stop_grace)
    occupied = cleared.with_transaction(begun).with_connector(replace(there, transaction=running))
    charging = web_tags.learn_form(_set_limits(occupied, begun), request.id_token, context)
    return charging if wanted else stop_requests.request_stop(charging, begun.transaction_id, context), answer


def _find_latest_end(held: Reservation, context: DecisionContext) -> datetime:
    """When a session must be settled whose stop may never be heard."""
    latest = held.settle_by or context.now + settlement.DEFAULT_AUTHORIZATION_LIFE / 2
    limit = context.policy.session_limit
    return min(latest, context.now + limit) if limit else latest


def _is_taken_since(here: Connector, begun: Transaction, context: DecisionContext) -> bool:
    """Whether somebody else has used the connector since that start, so that its transaction is over."""
    lock, running = here.lock, here.transaction
    if running is not None and (running.reservation_id is not None or running.started_at >= begun.started_at):
        return True
    return lock is not None and occupancy.is_lock_active(lock, context.now) and lock.state in settlement.OCCUPYING


def _starts_by_itself(station: Station) -> bool:
    """Whether the station charges whatever csms says of a tag, and its owner wants that."""
    return station.has_quirk(Quirk.STARTS_BY_ITSELF)


def _find_answer(snapshot: Snapshot, request: Start, context: DecisionContext) -> Started | None:
    """The answer that the same start had before; None if this is another one.

    Without a clock a start is the same as the transaction that runs there with its tag and meter, and one that has
    ended answers only its own message, for as long as that may be sent again: stations count their messages from 1
    again after a boot.
    """
    stored, running = snapshot.idempotency_record, snapshot.connector(request.connector_id).transaction
    if not request.is_clockless or request.message_id is None:
        return None if stored is None else _replay_answer(stored)
    if stored is not None:
        answer = _replay_answer(stored)
        runs = is_same_transaction(running, answer.transaction_id)
        if runs or context.now < stored.expires_at - RECORD_RETENTION + RESENT_WITHIN:
            return answer
    if running is None or running.meter_start_wh != request.meter_start_wh:
        return None
    begun = snapshot.transactions.get(running.transaction_id)
    if begun is None or fold(running.id_tag) != fold(request.id_token.value):
        return None
    return Started(transaction_id=begun.transaction_id, id_tag_status=begun.id_tag_status)


def _replay_answer(idempotency_record: IdempotencyRecord) -> Started:
    answer: Mapping[str, Any] = idempotency_record.answer
    said = TagStatus.from_stored(answer["id_tag_status"])
    status = said if said.is_known else TagStatus.INVALID
    return Started(transaction_id=str(answer["transaction_id"]), id_tag_status=status)


def _record_start(snapshot: Snapshot, request: Start, begun: Transaction, context: DecisionContext) -> Snapshot:
    """Store the answer, so that the same start again changes nothing, and add a timeline entry."""
    idempotency_record = IdempotencyRecord(
        station_id=begun.station_id,
        digest=digest(request),
        answer={"transaction_id": begun.transaction_id, "id_tag_status": begun.id_tag_status},
        expires_at=context.now + RECORD_RETENTION,
    )
    return snapshot.add_records(idempotency_record, once=snapshot.idempotency_record is None).add_timeline_entry(
        "TransactionStarted",
        context,
        connector=begun.connector_id,
        transaction=begun.transaction_id,
        tag=begun.id_tag_status,
        reservation=begun.reservation_id,
    )


def _build_transaction(
    snapshot: Snapshot, request: Start, context: DecisionContext, said: TagStatus, *, reservation_id: str | None
) -> Transaction:
    """The transaction that begins with the start, whose tag is answered with the status `said`."""
    return Transaction(
        transaction_id=request.transaction_id or context.new_ids.transaction_id,
        station_id=snapshot.station.station_id,
        connector_id=request.connector_id,
        id_tag=request.id_token.value,
        id_tag_status=said,
        started_at=request.started_at or context.now,
        received_at=context.now,
        meter_start_wh=request.meter_start_wh,
        reservation_id=reservation_id,
    )


def _build_open_transaction(begun: Transaction, context: DecisionContext) -> OpenTransaction:
    limit = context.policy.session_limit
    return OpenTransaction(
        transaction_id=begun.transaction_id,
        id_tag=begun.id_tag,
        started_at=begun.started_at,
        received_at=begun.received_at,
        meter_start_wh=begun.meter_start_wh,
        reservation_id=begun.reservation_id,
        ends_at=context.now + limit if limit else None,
    )


def _move_to_plugged_connector(snapshot: Snapshot, request: Start, context: DecisionContext) -> Snapshot:
    """Move the reservation to the connector where its driver plugged in, if that one is free (note F33)."""
    tagged = find_owner(snapshot, request.id_token)
    held = snapshot.reservation
    if tagged is None or held is None or tagged.connector_id == request.connector_id:
        return snapshot
    if not is_own_tag(snapshot, held.connector_id, request.id_token, context.now):
        return snapshot
    if not reservation.can_advance(held, Event.STARTED):
        return snapshot
    return start_gate.move_reservation(snapshot, request.connector_id, context)


def _is_from_offline_queue(snapshot: Snapshot, request: Start, context: DecisionContext) -> bool:
    """Whether the start is from the station's offline queue and its connector is no longer in use (note F59)."""
    if not status.is_believable(request.started_at, context) or request.started_at is None:
        return False
    live = occupancy.reported_status(snapshot, request.connector_id)
    in_use = live is not None and occupancy.coarse_status(live.state) is ConnectorStatus.OCCUPIED
    return context.now - request.started_at > OFFLINE_AFTER and not in_use


def _supersede(snapshot: Snapshot, connector_id: int, context: DecisionContext, *, keep_reservation: bool) -> Snapshot:
    """Close the connector's old transaction, because a connector has one at a time (note F57). With `keep_reservation`
    its reservation is not settled, and charges on the new transaction."""
    ended = end(
        replace(snapshot, reservation=None) if keep_reservation else snapshot, connector_id, SUPERSEDED, context
    )
    return replace(ended, reservation=snapshot.reservation) if keep_reservation else ended


def _energy_before(old: Transaction, begun: Transaction) -> int:
    """The energy in Wh that the old transaction delivered before the new one began, so that none is counted twice: all
    of it if the register begins again, else at most what the register has risen."""
    risen = begun.meter_start_wh - old.meter_start_wh
    return old.energy_wh if risen < 0 or begun.meter_start_wh == 0 else min(old.energy_wh, risen)


def _continue_evidence(
    running: OpenTransaction, old: Transaction, begun: Transaction, context: DecisionContext
) -> OpenTransaction:
    """The new transaction; where its start repeats a register value from before, the time since the old one began
    counts for what its readings show."""
    told_before = old.meter_start_wh <= begun.meter_start_wh < old.meter_start_wh + old.energy_wh
    if not told_before or begun.meter_start_wh == 0:
        return running
    return replace(running, evidence=energy.dump(begin_evidence(running, old, context)))


def _start_charging(snapshot: Snapshot, begun: Transaction, context: DecisionContext) -> Snapshot:
    """Let the reservation charge on the new transaction; from here on its lock does not expire."""
    held = snapshot.reservation
    if held is not None and held.state is ReservationState.CHARGING:
        old = snapshot.transactions.get(held.transaction_id or "")
        again = replace(held, transaction_id=begun.transaction_id)
        relinked = reservation.add_audit_entry(replace(snapshot, reservation=again), "Restarted", context)
        return _set_limits(_carry_energy(relinked, old, begun, context) if old is not None else relinked, begun)
    started = reservation.apply_event(
        snapshot,
        Event.STARTED,
        context,
        transaction_id=begun.transaction_id,
        started_at=context.now,
        expires_at=None,
    )
    return _set_limits(started, begun)


def _carry_energy(snapshot: Snapshot, old: Transaction, begun: Transaction, context: DecisionContext) -> Snapshot:
    """Carry the energy of the reservation's old transaction, with what is in doubt of it, over to the new one."""
    held, connector = reservation.require_reservation(snapshot), snapshot.connector(begun.connector_id)
    before_wh = _energy_before(old, begun)
    carried = replace(snapshot, reservation=replace(held, carried_wh=held.carried_wh + before_wh))
    if connector.transaction is not None:
        again = _continue_evidence(connector.transaction, old, begun, context)
        carried = carried.with_connector(replace(connector, transaction=again))
    if settlement.IMPLAUSIBLE not in old.flags:
        return carried
    return settlement.doubt_energy(carried, min(before_wh, old.unsupported_wh), context, why="before the restart")


def _set_limits(snapshot: Snapshot, begun: Transaction) -> Snapshot:
    """Set the running transaction's energy ceiling and latest end by its reservation (notes F65, F69)."""
    held, connector = snapshot.reservation, snapshot.connector(begun.connector_id)
    running = connector.transaction
    if held is None or running is None:
        return snapshot
    ends = [at for at in (running.ends_at, held.settle_by) if at is not None]
    most = tariff.energy_ceiling(held.tariff, held.authorised_amount) - held.carried_wh
    bounded = replace(running, stop_at_wh=max(0, most), ends_at=min(ends, default=None))
    return snapshot.with_connector(replace(connector, transaction=bounded))
