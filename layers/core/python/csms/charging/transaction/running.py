"""A running transaction: its meter values, its ceiling, and the ends that the station did not report."""

from __future__ import annotations

from dataclasses import replace

from csms.charging import reservation, stop_requests
from csms.charging.transaction.register import follow_register
from csms.charging.transaction.stopping import end
from csms.charging.transaction.values import IMPLIED, OPERATOR, OVERDUE
from csms.commands import calls
from csms.model import (
    RECORD_RETENTION,
    CommandKind,
    DecisionContext,
    MeterSample,
    OpenTransaction,
    OperatorClose,
    Reading,
    Snapshot,
)


def record_readings(
    snapshot: Snapshot,
    connector_id: int,
    transaction_id: str | None,
    readings: tuple[Reading, ...],
    context: DecisionContext,
) -> Snapshot:
    """Store the readings, update the running transaction's energy, and ask the station to stop it at the ceiling."""
    connector = snapshot.connector(connector_id)
    running = connector.transaction
    named = transaction_id or (running and running.transaction_id)
    if not named or not readings:
        return snapshot
    kept = snapshot.add_records(
        MeterSample(
            transaction_id=named,
            station_id=snapshot.station.station_id,
            connector_id=connector_id,
            readings=readings,
            expires_at=context.now + RECORD_RETENTION,
        )
    )
    if running is None or running.transaction_id != named:
        highest_wh = max((r.energy_wh for r in readings if r.energy_wh is not None), default=0)
        return stop_requests.note_register(kept, connector_id, named, highest_wh, context)
    followed, possible_wh = follow_register(running, readings, snapshot.station, context)
    metered = replace(
        followed,
        power_w=next((r.power_w for r in reversed(readings) if r.power_w is not None), running.power_w),
        metered_at=context.now,
    )
    known = kept.with_connector(replace(connector, transaction=metered))
    known = stop_requests.note_register(known, connector_id, named, metered.meter_start_wh + metered.energy_wh, context)
    if not _is_at_ceiling(running, metered, possible_wh, context):
        return known
    if calls.is_pending(known, CommandKind.REMOTE_STOP, context, transaction_id=named):
        return calls.hasten(known, CommandKind.REMOTE_STOP, context, transaction_id=named)
    return stop_requests.request_stop(known, named, context)


def close_overdue(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Close the connector's transaction if its time is over: an operator closes it and the station's stop did not come
    in time, a stop was implied and the real one did not come (note F55), or it reached its latest end, and the station
    is asked to stop it (note F77)."""
    running = snapshot.connector(connector_id).transaction
    if running is None:
        return snapshot
    if running.closing is not None and running.closing.due_at <= context.now:
        return close_for_operator(snapshot, connector_id, running.closing, context)
    if running.ends_at is not None and running.ends_at <= context.now:
        asked = stop_requests.request_stop(snapshot, running.transaction_id, context)
        return end(asked, connector_id, OVERDUE, context)
    if running.idle_until is not None and running.idle_until <= context.now:
        return end(snapshot, connector_id, IMPLIED, context)
    return snapshot


def close_for_operator(
    snapshot: Snapshot, connector_id: int, closing: OperatorClose, context: DecisionContext
) -> Snapshot:
    """Close the connector's transaction with its best meter value, and record which operator closed it and why."""
    running = snapshot.connector(connector_id).transaction
    if running is None:
        return snapshot
    after = end(snapshot, connector_id, OPERATOR, context).add_timeline_entry(
        "TransactionClosed",
        context,
        connector=connector_id,
        transaction=running.transaction_id,
        who=closing.who,
        why=closing.reason,
    )
    if after.reservation is None or after.reservation == snapshot.reservation:
        return after
    return reservation.add_audit_entry(after, OPERATOR, context, detail=f"{closing.who}: {closing.reason}")


def _is_at_ceiling(before: OpenTransaction, now: OpenTransaction, possible_wh: int, context: DecisionContext) -> bool:
    """Whether the transaction must stop now to stay below its ceiling: the next reading may add as much as this one
    did, or at least STOP_MARGIN_WH. In doubt the most that can have been delivered counts."""
    if now.stop_at_wh is None:
        return False
    step = max(now.energy_wh - before.energy_wh, context.policy.stop_margin_wh)
    return max(now.energy_wh, possible_wh) + step >= now.stop_at_wh
