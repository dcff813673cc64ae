"""CALLs to a station: how they are queued. When one is sent is the service's business: one at a time (note F43)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final

from csms.model import CallState, Command, Moment, OutboundCall, Snapshot

MOST_RENEWED: Final = 20
"""Of the CALLs that are no questions, in one commit."""

URGENT: Final = frozenset({Command.REMOTE_START, Command.REMOTE_STOP})
"""Sent by whoever queues them; nobody else sends them before that one had time to."""


def queue(
    snapshot: Snapshot,
    command: Command,
    moment: Moment,
    *,
    until: datetime,
    after: timedelta | None = None,
    **facts: Any,
) -> Snapshot:
    """The snapshot with one more CALL owed to the station: sent at once, or `after` so long, and pointless after
    `until`."""
    send_at = moment.now + (after or timedelta(0))
    used = {call.call_id for call in snapshot.calls}
    call = OutboundCall(
        station_id=snapshot.station.station_id,
        call_id=next(it for n in count() if (it := f"{moment.fresh.call_id[:33]}{n:03d}") not in used),
        command=command,
        send_at=send_at,
        due_at=send_at + (moment.policy.call_lease if command in URGENT else timedelta(0)),
        expires_at=until,
        **facts,
    )
    return replace(snapshot, calls=(*snapshot.calls, call))


def ask_status(snapshot: Snapshot, moment: Moment, connector_ids: tuple[int, ...], *, after: timedelta) -> Snapshot:
    """The snapshot that asks the station how these connectors are, unless it tells by itself before (note F21). A
    question that waits to be asked is asked once, and then; what was asked before may be answered by what was so
    before."""
    at, until = moment.now + after, moment.now + after + moment.policy.start_window
    waiting = {
        call.connector_id: call
        for call in snapshot.calls
        if call.command is Command.TRIGGER_STATUS and call.state is CallState.QUEUED
    }
    late = {call.call_id for n, call in waiting.items() if n in connector_ids and call.send_at > at}
    sooner = tuple(
        replace(call, send_at=at, due_at=at, expires_at=until) if call.call_id in late else call
        for call in snapshot.calls
    )
    snapshot = replace(snapshot, calls=sooner)
    for connector_id in connector_ids:
        if connector_id not in waiting:
            snapshot = queue(
                snapshot, Command.TRIGGER_STATUS, moment, until=until, after=after, connector_id=connector_id
            )
    return snapshot


def told(snapshot: Snapshot, connector_id: int) -> Snapshot:
    """The snapshot that no longer asks, or was promised, what the station has just told; a question that was sent
    waits for its answer, and for nothing else."""
    calls = []
    for call in snapshot.calls:
        if call.command is not Command.TRIGGER_STATUS or call.connector_id != connector_id:
            calls.append(call)
        elif call.state is CallState.SENT:
            calls.append(replace(call, told=True))
    return replace(snapshot, calls=tuple(calls))


def asked(snapshot: Snapshot, connector_id: int) -> bool:
    """Whether the station is to tell, because we asked, how the connector is: what it says then is news."""
    return any(
        call.command is Command.TRIGGER_STATUS
        and call.state is not CallState.QUEUED
        and not call.told
        and call.connector_id in {connector_id, 0}
        for call in snapshot.calls
    )


def reconnected(snapshot: Snapshot, moment: Moment, *, after: timedelta) -> Snapshot:
    """The snapshot whose CALLs belong to the station's new connection: nobody will answer what was sent over another. A
    stop is sent again, a start is decided again (note F25), a status is asked for anew, `after` so long."""
    others = _others(snapshot)
    kept = (
        _asked_anew(call, moment, after) if call.command is Command.TRIGGER_STATUS else _unsent(call, others)
        for call in snapshot.calls
        if call.command is not Command.REMOTE_START or call.state is CallState.QUEUED or call.call_id not in others
    )
    return ready(replace(snapshot, calls=tuple(kept)), moment)


def _others(snapshot: Snapshot) -> frozenset[str]:
    """The CALLs beside the questions that one commit has room for, with a question for every connector; the sweep sees
    to the rest."""
    others = [call for call in snapshot.calls if call.command is not Command.TRIGGER_STATUS]
    return frozenset(call.call_id for call in others[:MOST_RENEWED])


def _unsent(call: OutboundCall, renewed: frozenset[str]) -> OutboundCall:
    return replace(call, state=CallState.QUEUED) if call.call_id in renewed else call


def _asked_anew(call: OutboundCall, moment: Moment, after: timedelta) -> OutboundCall:
    """The question as it was at first, with all its time before it; a promise is left to lapse."""
    if call.state is CallState.PROMISED:
        return call
    at = moment.now + after
    return replace(
        call, state=CallState.QUEUED, told=False, send_at=at, due_at=at, expires_at=at + moment.policy.start_window
    )


def ready(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot of a station that is there again: what waited for it is sent with the next word."""
    others = _others(snapshot)
    calls = (
        replace(call, due_at=min(call.due_at, max(call.send_at, moment.now)))
        if call.state is CallState.QUEUED and (call.command is Command.TRIGGER_STATUS or call.call_id in others)
        else call
        for call in snapshot.calls
    )
    return replace(snapshot, calls=tuple(calls))


def withdrawn(snapshot: Snapshot, reservation_id: str) -> Snapshot:
    """The snapshot without what the reservation still wanted to be sent; what was sent waits for its answer."""
    kept = (c for c in snapshot.calls if c.reservation_id != reservation_id or c.state is CallState.SENT)
    return replace(snapshot, calls=tuple(kept))


def pending(snapshot: Snapshot, command: Command, moment: Moment, **facts: Any) -> bool:
    """Whether such a CALL is queued, or sent and still to be answered."""
    return any(
        call.command is command
        and (call.state is CallState.QUEUED or moment.now < call.due_at)
        and all(getattr(call, name) == value for name, value in facts.items())
        for call in snapshot.calls
    )


def without(snapshot: Snapshot, command: Command, reservation_id: str) -> Snapshot:
    """The snapshot without the reservation's CALLs of this kind."""
    kept = (c for c in snapshot.calls if c.command is not command or c.reservation_id != reservation_id)
    return replace(snapshot, calls=tuple(kept))
