"""Transactions that a station is asked to stop, until it has stopped them: they are asked again while they go on, and
put before the operator with the energy that nobody pays (notes F30, F77)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from csms import occupancy
from csms.charging import energy
from csms.commands import calls
from csms.model import (
    CommandKind,
    Connector,
    ConnectorState,
    ConnectorStatus,
    DecisionContext,
    OpenTransaction,
    OutboundCall,
    RemoteStop,
    Snapshot,
    Station,
    StopRequest,
    TagStatus,
)

FIRST_PAUSE: Final = timedelta(seconds=2)
"""How soon a station that refused to stop a transaction is asked again for the first time."""

STOPPING_TIME: Final = timedelta(seconds=30)
"""How long a station that agreed may take until it stops the transaction."""

MILLISECOND: Final = timedelta(milliseconds=1)

PATIENCE: Final = timedelta(minutes=15)
"""How long a station may take to stop a transaction before the operator sees it."""


def request_stop(
    snapshot: Snapshot,
    transaction_id: str,
    context: DecisionContext,
    *,
    after: timedelta = timedelta(0),
    asked_by: str = calls.CSMS,
    reason: str | None = None,
) -> Snapshot:
    """Ask the station to stop the transaction `after` this time, unless it stops before: an unpaid one (note F30), one
    that reached a limit, or one that an operator closes."""
    at = context.now + after
    until = at + context.policy.start_window
    command = RemoteStop(transaction_id=transaction_id)
    queued = calls.queue(snapshot, command, context, until=until, after=after, asked_by=asked_by, reason=reason)
    connector = _find_connector(queued, transaction_id)
    if connector is None:
        return queued
    known, running = connector.stop_request, connector.transaction
    if known is not None and known.transaction_id == transaction_id:
        return queued.with_connector(replace(connector, stop_request=replace(known, last_asked_at=at)))
    if running is None:
        return queued
    begun = StopRequest(
        transaction_id=transaction_id, asked_at=at, last_asked_at=at, from_wh=_find_unpaid_from(queued, running)
    )
    return queued.with_connector(replace(connector, stop_request=begun))


def ask_again(snapshot: Snapshot, call: OutboundCall, context: DecisionContext) -> Snapshot:
    """Ask the station again to stop the transaction, because it did not agree: after as long as it has been asked
    already, so at growing intervals. After PATIENCE the operator sees it; without a connection nobody knows whether it
    goes on, and the next reading decides. Nothing happens if it has stopped."""
    connector = _find_connector(snapshot, call.transaction_id or "")
    request = connector.stop_request if connector is not None else None
    if connector is None or request is None or request.transaction_id != call.transaction_id:
        return snapshot  # It has stopped meanwhile.
    began = request.asked_at if call.asked_by == calls.CSMS else call.asked_at
    since = context.now - began
    after = max(FIRST_PAUSE, since)
    if since + after <= PATIENCE:
        asked = replace(connector, stop_request=replace(request, last_asked_at=context.now + after))
        return calls.repeat(
            snapshot.with_connector(asked), call, context, after=after, until=began + PATIENCE + STOPPING_TIME
        )
    if snapshot.presence is None or snapshot.presence.connection_id is None:
        return snapshot
    return _put_before_operator(snapshot, connector, request, context)


def note_register(
    snapshot: Snapshot, connector_id: int, transaction_id: str, register_wh: int, context: DecisionContext
) -> Snapshot:
    """Count the energy that nobody pays, if the station was asked to stop this transaction; while it rises the
    transaction goes on."""
    request = snapshot.connector(connector_id).stop_request
    if request is None or request.transaction_id != transaction_id:
        return snapshot
    unpaid_wh = _measure_unpaid(request, register_wh, snapshot.station, context)
    if unpaid_wh <= request.unpaid_wh:
        return snapshot
    metered = replace(request, unpaid_wh=unpaid_wh)
    return _insist(
        snapshot.with_connector(replace(snapshot.connector(connector_id), stop_request=metered)), connector_id, context
    )


def note_state(snapshot: Snapshot, connector_id: int, state: ConnectorState, context: DecisionContext) -> Snapshot:
    """What the connector's state tells of a transaction that the station was asked to stop: it goes on while the
    connector is charging, and one that csms has closed is over once the connector is available."""
    connector = snapshot.connector(connector_id)
    if connector.stop_request is None:
        return snapshot
    if state is ConnectorState.CHARGING:
        return _insist(snapshot, connector_id, context)
    running = connector.transaction
    goes_on = running is not None and running.transaction_id == connector.stop_request.transaction_id
    if goes_on or occupancy.coarse_status(state) is not ConnectorStatus.AVAILABLE:
        return snapshot
    return end_request(snapshot, connector_id, context)


def note_closed(snapshot: Snapshot, connector_id: int, transaction_id: str, register_wh: int) -> Snapshot:
    """Nobody pays for what the transaction delivers from now on, because csms has closed it at this register value."""
    connector = snapshot.connector(connector_id)
    request = connector.stop_request
    if request is None or request.transaction_id != transaction_id:
        return snapshot
    closed = replace(request, from_wh=min(request.from_wh, register_wh))
    return snapshot.with_connector(replace(connector, stop_request=closed))


def watch(
    snapshot: Snapshot, connector_id: int, transaction_id: str, register_wh: int, context: DecisionContext
) -> Snapshot:
    """Be ready to ask the station to stop a transaction that csms closes at this register value because it seems over,
    should it go on all the same."""
    watched = StopRequest(
        transaction_id=transaction_id,
        asked_at=context.now,
        last_asked_at=context.now,
        from_wh=register_wh,
        dormant=True,
    )
    return snapshot.with_connector(replace(snapshot.connector(connector_id), stop_request=watched))


def end_stopped(snapshot: Snapshot, transaction_id: str, register_wh: int | None, context: DecisionContext) -> Snapshot:
    """End the request, because the station has stopped the transaction at this register value."""
    connector = _find_connector(snapshot, transaction_id)
    if connector is None or connector.stop_request is None or connector.stop_request.transaction_id != transaction_id:
        return calls.withdraw_stops(snapshot, transaction_id)
    request = connector.stop_request
    if register_wh is not None:
        unpaid_wh = max(request.unpaid_wh, _measure_unpaid(request, register_wh, snapshot.station, context))
        metered = replace(connector, stop_request=replace(request, unpaid_wh=unpaid_wh))
        snapshot = snapshot.with_connector(metered)
    return end_request(snapshot, connector.connector_id, context)


def end_request(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """End the connector's request to stop, if there is one, because its transaction is over; the timeline says what one
    that the operator saw has cost."""
    connector = snapshot.connector(connector_id)
    request = connector.stop_request
    if request is None:
        return snapshot
    over = calls.withdraw_stops(snapshot, request.transaction_id).with_connector(replace(connector, stop_request=None))
    if request.refused_at is None:
        return over
    return over.add_timeline_entry(
        "StopObeyed",
        context,
        connector=connector_id,
        transaction=request.transaction_id,
        unpaid_wh=request.unpaid_wh,
    )


def _insist(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Act on the sign that the transaction goes on: ask the station again, if it was not asked for as long as it has
    been asked already, and put it before the operator after PATIENCE."""
    connector = snapshot.connector(connector_id)
    request = connector.stop_request
    if request is None:
        return snapshot
    if request.dormant:
        awake = replace(request, dormant=False, asked_at=context.now)
        woken = snapshot.with_connector(replace(connector, stop_request=awake))
        return request_stop(woken, request.transaction_id, context)
    back_at = snapshot.presence.back_at if snapshot.presence is not None else None
    if context.now - max(request.asked_at, back_at or request.asked_at) >= PATIENCE:
        snapshot = _put_before_operator(snapshot, connector, request, context)
    pause = max(STOPPING_TIME, request.last_asked_at - request.asked_at)
    named = request.transaction_id
    if context.now - request.last_asked_at < pause or calls.is_pending(
        snapshot, CommandKind.REMOTE_STOP, context, transaction_id=named
    ):
        return snapshot
    return request_stop(snapshot, named, context)


def _put_before_operator(
    snapshot: Snapshot, connector: Connector, request: StopRequest, context: DecisionContext
) -> Snapshot:
    """Let the operator see that the station does not stop the transaction, and what that gives away."""
    if request.refused_at is not None:
        return snapshot
    seen = replace(connector, stop_request=replace(request, refused_at=context.now))
    return snapshot.with_connector(seen).add_timeline_entry(
        "StopNotObeyed",
        context,
        connector=connector.connector_id,
        transaction=request.transaction_id,
        unpaid_wh=request.unpaid_wh,
    )


def _find_connector(snapshot: Snapshot, transaction_id: str) -> Connector | None:
    """The connector where the transaction runs, or where the station goes on with it."""
    return next(
        (
            connector
            for connector in snapshot.connectors.values()
            if transaction_id
            in {getattr(one, "transaction_id", None) for one in (connector.transaction, connector.stop_request)}
        ),
        None,
    )


def _find_unpaid_from(snapshot: Snapshot, running: OpenTransaction) -> int:
    """The register's value from which on nobody pays: the start, if the tag was not accepted, otherwise what the hold
    pays for, or what was metered so far."""
    known = snapshot.transactions.get(running.transaction_id)
    accepted = known is not None and known.id_tag_status is TagStatus.ACCEPTED
    if running.reservation_id is None and not accepted:
        return running.meter_start_wh
    return running.meter_start_wh + max(running.energy_wh, running.stop_at_wh or 0)


def _measure_unpaid(request: StopRequest, register_wh: int, station: Station, context: DecisionContext) -> int:
    """The energy in Wh that nobody pays, at this value of the register; as before if no charger delivers so much."""
    unpaid_wh = register_wh - request.from_wh
    since = request.asked_at - context.policy.call_timeout  # A start that is not accepted is asked so much later.
    power_w = station.max_power_w or context.policy.max_power_w
    most_wh = energy.deliverable_wh((context.now - since) // MILLISECOND, power_w)
    return unpaid_wh if unpaid_wh <= most_wh else request.unpaid_wh
