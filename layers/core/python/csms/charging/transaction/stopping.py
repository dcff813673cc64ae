"""The end of a transaction, reported by the station or decided by csms; what does not fit is set aside and confirmed
(note F53)."""

from __future__ import annotations

from dataclasses import replace

from csms import occupancy
from csms.charging import energy, reservation, settlement, status, stop_requests
from csms.charging.energy import Evidence, Judgement
from csms.charging.reservation import Event
from csms.charging.settlement import IMPLAUSIBLE
from csms.charging.transaction.register import judge, load_evidence, read_stop
from csms.charging.transaction.tags import is_tag_of
from csms.charging.transaction.values import CSMS_STOP_REASONS, IMPLIED, SUPERSEDED, Stop, is_same_transaction
from csms.model import (
    LONGEST_WORD,
    Connector,
    DecisionContext,
    IdToken,
    OpenTransaction,
    ReadSet,
    Reservation,
    ReservationState,
    Snapshot,
    TagStatus,
    Transaction,
    cut_text,
    fold,
    trim_tag,
)


def find_stop_read_set(snapshot: Snapshot, request: Stop) -> ReadSet:
    """What a stop reads: its transaction, and the reservation that charges on it."""
    named = _find_transaction_id(snapshot, request)
    running = next(
        (c.transaction for c in snapshot.connectors.values() if is_same_transaction(c.transaction, named)), None
    )
    return ReadSet(
        reservation_id=running.reservation_id if running is not None else None,
        transaction_ids=(named,) if named else (),
        id_tag=request.id_token.value if request.id_token is not None else None,
        with_ended_reservation=True,
    )


def stop(snapshot: Snapshot, request: Stop, context: DecisionContext) -> Snapshot:
    """Close the transaction, settle its reservation and free its connector.

    A stop of an unknown or closed transaction is set aside; it corrects the record if it was csms that closed it.
    """
    named = _find_transaction_id(snapshot, request)
    snapshot = stop_requests.end_stopped(snapshot, named, request.meter_stop_wh, context)
    transaction = snapshot.transactions.get(named)
    if transaction is None or transaction.station_id != snapshot.station.station_id:
        return _put_aside(snapshot, "unknown", request, context)
    known = load_evidence(_find_running(snapshot, transaction) or transaction, context)
    station, stopped_at = snapshot.station, request.stopped_at or context.now
    evidence = read_stop(known, request.readings, request.meter_stop_wh, stopped_at, station, context)
    judged = judge(evidence, stopped_at, station, context)
    trusted = _agrees(evidence, request.meter_stop_wh)
    closed = replace(
        _record_energy(transaction, judged),
        stopped_at=stopped_at,
        meter_stop_wh=request.meter_stop_wh,
        reason=cut_text(request.reason or "Local", LONGEST_WORD),
        flags=transaction.flags if trusted else (*transaction.flags, "MeterStopNotTrusted"),
    )
    if transaction.stopped_at is None:
        return _close(snapshot, closed, judged, context, is_unplugged=request.is_unplugged)
    aside = _settle_superseded(_put_aside(snapshot, "already closed", request, context), closed, judged, context)
    if transaction.reason not in CSMS_STOP_REASONS or not trusted or judged.doubt is not None:
        return aside
    flagged = replace(closed, flags=(*closed.flags, f"CorrectedAfter{transaction.reason}"), evidence="")
    after, held = aside.with_transaction(flagged), aside.reservation
    if held is None or held.transaction_id != closed.transaction_id:
        return after
    return settlement.correct_bill(after, held.carried_wh + closed.energy_wh, context)


def end(snapshot: Snapshot, connector_id: int, reason: str, context: DecisionContext) -> Snapshot:
    """Close the connector's transaction without a stop from the station, with the best meter value; nothing changes if
    none runs."""
    running = snapshot.connector(connector_id).transaction
    if running is None:
        return snapshot
    transaction = snapshot.transactions.get(running.transaction_id) or _rebuild(snapshot, connector_id, running)
    judged = judge(load_evidence(running, context), context.now, snapshot.station, context)
    closed = replace(
        _record_energy(transaction, judged),
        stopped_at=context.now,
        reason=reason,
        flags=(*transaction.flags, reason),
        evidence=running.evidence,
    )
    at_wh = closed.meter_start_wh + closed.energy_wh
    noted = stop_requests.note_closed(snapshot, connector_id, closed.transaction_id, at_wh)
    if reason in {IMPLIED, SUPERSEDED}:  # The station says that it is over.
        noted = stop_requests.end_request(noted, connector_id, context)
    if reason == IMPLIED:
        noted = stop_requests.watch(noted, connector_id, closed.transaction_id, at_wh, context)
    return _close(noted, closed, judged, context)


def _record_energy(transaction: Transaction, judged: Judgement) -> Transaction:
    """The transaction with its energy: what can be billed, or, in doubt, the most that can have been delivered."""
    if judged.doubt is None:
        return replace(transaction, energy_wh=judged.lowest_wh, unsupported_wh=0)
    return replace(transaction, energy_wh=judged.highest_wh, unsupported_wh=judged.highest_wh - judged.lowest_wh)


def _agrees(evidence: Evidence, meter_stop_wh: int | None) -> bool:
    """Whether the register value of the stop is the one that the best explanation accepted last."""
    last_wh = evidence.explanations[0].register_wh
    return meter_stop_wh is not None and abs(last_wh - meter_stop_wh) <= energy.JITTER_WH


def _rebuild(snapshot: Snapshot, connector_id: int, running: OpenTransaction) -> Transaction:
    """The record of a transaction whose own item was lost, made from the connector's, so that it can be closed."""
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


def _find_transaction_id(snapshot: Snapshot, request: Stop) -> str:
    """The transaction that a stop means: the one it names, or, without a usable id, the only open one that its tag and
    meter fit (note F54); empty if there is none."""
    if not request.is_unnamed:
        return request.transaction_id
    if request.id_token is None or request.meter_stop_wh is None:
        return ""
    fitting = [
        connector.transaction.transaction_id
        for connector in snapshot.connectors.values()
        if connector.transaction is not None
        and _has_tag(connector, connector.transaction, request.id_token)
        and connector.transaction.meter_start_wh <= request.meter_stop_wh
    ]
    return fitting[0] if len(fitting) == 1 else ""


def _has_tag(connector: Connector, running: OpenTransaction, id_token: IdToken) -> bool:
    """Whether the transaction runs with the tag; a web tag in any form that stations make of it."""
    lock = connector.lock
    if lock is not None and lock.reservation_id == running.reservation_id and is_tag_of(lock, id_token):
        return True
    return fold(trim_tag(running.id_tag)) == fold(trim_tag(id_token.value))


def _find_running(snapshot: Snapshot, transaction: Transaction) -> OpenTransaction | None:
    """The transaction as it runs on its connector; None if it no longer runs."""
    running = snapshot.connector(transaction.connector_id).transaction
    return running if is_same_transaction(running, transaction.transaction_id) else None


def _close(
    snapshot: Snapshot,
    closed: Transaction,
    judged: Judgement,
    context: DecisionContext,
    *,
    is_unplugged: bool = False,
) -> Snapshot:
    """Close the transaction, free its connector and settle its reservation by what was judged of its energy."""
    if judged.doubt is not None:
        closed = replace(closed, flags=(*closed.flags, IMPLAUSIBLE))
    freed = snapshot.with_transaction(closed).add_timeline_entry(
        "TransactionStopped",
        context,
        connector=closed.connector_id,
        transaction=closed.transaction_id,
        energy_wh=closed.energy_wh,
        reason=closed.reason,
    )
    connector = freed.connector(closed.connector_id)
    if is_same_transaction(connector.transaction, closed.transaction_id):
        freed = freed.with_connector(replace(connector, transaction=None))
        if closed.reason != SUPERSEDED:
            freed = status.ask_when_freed(freed, closed.connector_id, context)
    return _settle(freed, closed, judged, context, is_unplugged=is_unplugged)


def _settle(
    snapshot: Snapshot, closed: Transaction, judged: Judgement, context: DecisionContext, *, is_unplugged: bool
) -> Snapshot:
    """Settle the reservation that charges on the closed transaction, if there is one."""
    held = snapshot.reservation
    if held is None or held.transaction_id != closed.transaction_id or not reservation.can_advance(held, Event.STOPPED):
        return snapshot
    energy_wh = held.carried_wh + closed.energy_wh
    if judged.doubt is not None:
        snapshot = settlement.doubt_energy(snapshot, closed.unsupported_wh, context, why=judged.doubt)
    still_there = not is_unplugged and _is_still_plugged_in(snapshot, closed, held)
    return settlement.apply_stop(snapshot, energy_wh, context, plugged_in=still_there, detail=closed.reason)


def _settle_superseded(
    snapshot: Snapshot, closed: Transaction, judged: Judgement, context: DecisionContext
) -> Snapshot:
    """Settle a reservation that charged on a connector of another driver, and whose transaction csms closed when that
    driver started."""
    held = snapshot.reservation
    if held is None or held.transaction_id != closed.transaction_id or held.state is not ReservationState.CHARGING:
        return snapshot
    return _settle(snapshot, closed, judged, context, is_unplugged=True)


def _is_still_plugged_in(snapshot: Snapshot, closed: Transaction, held: Reservation) -> bool:
    """Whether the cable may still be plugged in after the stop: not if csms ended the transaction or the connector is
    another driver's by now, nor if the station reports the connector Available, as some do before they send the
    stop."""
    lock = snapshot.connector(closed.connector_id).lock
    if closed.reason in CSMS_STOP_REASONS or lock is None or lock.reservation_id != held.reservation_id:
        return False
    return not occupancy.is_reported_available(snapshot, closed.connector_id)


def _put_aside(snapshot: Snapshot, why: str, request: Stop, context: DecisionContext) -> Snapshot:
    """Set the stop aside: record it in the timeline for an operator."""
    return snapshot.add_timeline_entry(
        "StopPutAside",
        context,
        why=why,
        transaction=request.transaction_id,
        meter_stop_wh=request.meter_stop_wh,
        reason=request.reason and cut_text(request.reason, LONGEST_WORD),
    )
