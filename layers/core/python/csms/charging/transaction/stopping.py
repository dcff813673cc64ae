"""The end of a transaction, reported by the station or decided by csms; what does not fit is set aside and confirmed
(note F53)."""

from __future__ import annotations

from dataclasses import replace

from csms import occupancy
from csms.charging import reservation, settlement, status, stop_requests
from csms.charging.reservation import Event
from csms.charging.settlement import IMPLAUSIBLE
from csms.charging.transaction.register import follow_register, is_implausible
from csms.charging.transaction.values import (
    CSMS_STOP_REASONS,
    IMPLIED,
    SUPERSEDED,
    Stop,
    best_energy,
    is_same_transaction,
)
from csms.model import (
    ConnectorStatus,
    DecisionContext,
    OpenTransaction,
    ReadSet,
    Snapshot,
    TagStatus,
    Transaction,
    fold,
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
    running = _find_running(snapshot, transaction)
    metered = running and follow_register(running, request.readings, context)
    sampled = max(metered.energy_wh if metered else 0, best_energy(transaction.meter_start_wh, request.readings))
    told_wh = request.meter_stop_wh - transaction.meter_start_wh if request.meter_stop_wh is not None else -1
    trusted = told_wh >= sampled
    closed = replace(
        transaction,
        stopped_at=request.stopped_at or context.now,
        meter_stop_wh=request.meter_stop_wh,
        energy_wh=told_wh if trusted else sampled,
        reason=request.reason or "Local",
        flags=transaction.flags if trusted else (*transaction.flags, "MeterStopNotTrusted"),
    )
    if transaction.stopped_at is None:
        return _close(snapshot, closed, metered, context, is_unplugged=request.is_unplugged)
    aside = _put_aside(snapshot, "already closed", request, context)
    nothing_said = request.meter_stop_wh == 0 and transaction.energy_wh > 0
    if transaction.reason not in CSMS_STOP_REASONS or not trusted or nothing_said:
        return aside
    flagged = replace(closed, flags=(*closed.flags, f"CorrectedAfter{transaction.reason}"))
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
    closed = replace(
        transaction,
        stopped_at=context.now,
        energy_wh=running.energy_wh,
        reason=reason,
        flags=(*transaction.flags, reason),
    )
    at_wh = closed.meter_start_wh + closed.energy_wh
    noted = stop_requests.note_closed(snapshot, connector_id, closed.transaction_id, at_wh)
    if reason in {IMPLIED, SUPERSEDED}:  # The station says that it is over.
        noted = stop_requests.end_request(noted, connector_id, context)
    return _close(noted, closed, running, context)


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
        and fold(connector.transaction.id_tag) == fold(request.id_token.value)
        and connector.transaction.meter_start_wh <= request.meter_stop_wh
    ]
    return fitting[0] if len(fitting) == 1 else ""


def _find_running(snapshot: Snapshot, transaction: Transaction) -> OpenTransaction | None:
    """The transaction as it runs on its connector; None if it no longer runs."""
    running = snapshot.connector(transaction.connector_id).transaction
    return running if is_same_transaction(running, transaction.transaction_id) else None


def _close(
    snapshot: Snapshot,
    closed: Transaction,
    running: OpenTransaction | None,
    context: DecisionContext,
    *,
    is_unplugged: bool = False,
) -> Snapshot:
    """Close the transaction, free its connector and settle its reservation; `running` is the transaction with its last
    reading."""
    if is_implausible(closed, running, context):
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
    return _settle(freed, closed, context, is_unplugged=is_unplugged)


def _settle(snapshot: Snapshot, closed: Transaction, context: DecisionContext, *, is_unplugged: bool) -> Snapshot:
    """Settle the reservation that charges on the closed transaction, if there is one."""
    held = snapshot.reservation
    if held is None or held.transaction_id != closed.transaction_id or not reservation.can_advance(held, Event.STOPPED):
        return snapshot
    if IMPLAUSIBLE in closed.flags:
        snapshot = settlement.doubt_energy(snapshot, context)
    energy_wh = held.carried_wh + closed.energy_wh
    still_there = not is_unplugged and _is_still_plugged_in(snapshot, closed)
    return settlement.apply_stop(snapshot, energy_wh, context, plugged_in=still_there, detail=closed.reason)


def _is_still_plugged_in(snapshot: Snapshot, closed: Transaction) -> bool:
    """Whether the cable may still be plugged in after the stop: not if csms ended the transaction, nor if the station
    reports the connector Available, as some do before they send the stop."""
    if closed.reason in CSMS_STOP_REASONS:
        return False
    live = occupancy.reported_status(snapshot, closed.connector_id)
    return live is None or occupancy.coarse_status(live.state) is not ConnectorStatus.AVAILABLE


def _put_aside(snapshot: Snapshot, why: str, request: Stop, context: DecisionContext) -> Snapshot:
    """Set the stop aside: record it in the timeline for an operator."""
    return snapshot.add_timeline_entry(
        "StopPutAside",
        context,
        why=why,
        transaction=request.transaction_id,
        meter_stop_wh=request.meter_stop_wh,
        reason=request.reason,
    )
