"""The start gate: when a paid reservation may start, at which connector, and when its remote start is sent again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from csms import occupancy
from csms.charging.reservation import (
    Event,
    add_audit_entry,
    apply_event,
    build_lock,
    can_advance,
    require_reservation,
    unlock,
)
from csms.commands import calls
from csms.model import CommandKind, DecisionContext, IdToken, Quirk, RemoteStart, Reservation, Snapshot
from csms.model import ReservationState as S

AWAITING_START: Final = frozenset({S.AUTHORIZED, S.START_REQUESTED})

PLUG: Final = ("Plug",)
"""What a paid reservation waits for when only the plug is missing."""

RESERVED: Final = "ActiveReservation"


def request_start(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Queue a remote start for the paid reservation, if its deadline has not passed and the busy rule allows it now."""
    r = require_reservation(snapshot)
    if r.start_deadline is None or context.now > r.start_deadline or not can_advance(r, Event.START_SENT):
        return snapshot
    judged = _add_start_verdict(snapshot, r, context)
    if start_blockers(snapshot, r, context):
        return judged
    first = r.start_command_id if r.state is S.START_REQUESTED else None
    asked = calls.queue(
        apply_event(judged, Event.START_SENT, context, start_requested_at=context.now),
        RemoteStart(connector_id=r.connector_id, id_token=IdToken(value=r.id_tag)),
        context,
        until=r.start_deadline,
        reservation_id=r.reservation_id,
        repeats=first,
        asked_by=calls.DRIVER,
    )
    return replace(
        asked, reservation=replace(require_reservation(asked), start_command_id=first or asked.calls[-1].call_id)
    )


def start_blockers(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> tuple[str, ...]:
    """What a paid reservation still waits for: the busy reasons of its connector, or the plug where START_NEEDS_PLUG is
    set or the make needs it; empty if it may start."""
    reasons = occupancy.busy_reasons(
        snapshot, held.connector_id, now=context.now, policy=context.policy, ignoring=held.reservation_id
    )
    needs_plug = context.policy.start_needs_plug or snapshot.station.has_quirk(Quirk.START_NEEDS_PLUG)
    if not reasons and needs_plug and not occupancy.is_plugged_in(snapshot, held.connector_id):
        return PLUG
    return reasons


def start_waiting(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Request the start of a paid reservation that waits on this connector (note F32). A plug at another connector
    moves nobody: it may be a stranger's (note F33)."""
    held = snapshot.reservation
    if held is None or held.state not in AWAITING_START or held.connector_id != connector_id:
        return snapshot
    return retry_start(snapshot, held, context)


def find_plugged_elsewhere(
    snapshot: Snapshot, held: Reservation, context: DecisionContext
) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The other connectors at which a car is plugged in, with the reasons why they cannot be started: where the driver
    may have plugged in by mistake. None once a start was requested, or with a car at the reservation's own connector;
    nor those that are busy with anything but a reservation."""
    if held.state is not S.AUTHORIZED or occupancy.is_plugged_in(snapshot, held.connector_id):
        return ()
    plugged = (
        (number, occupancy.busy_reasons(snapshot, number, now=context.now, policy=context.policy))
        for number in snapshot.station.connectors
        if number != held.connector_id and occupancy.is_plugged_in(snapshot, number)
    )
    return tuple((number, reasons) for number, reasons in plugged if set(reasons) <= {RESERVED})


def retry_start(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> Snapshot:
    """Request the start of the waiting reservation if the start gate allows it, unless a start is under way: accepted
    since the last boot, requested a moment ago, or still unanswered."""
    booted, accepted = snapshot.station.booted_at, held.start_accepted_at
    granted = accepted is not None and (booted is None or booted <= accepted)
    if (
        granted
        or _has_just_requested_start(snapshot, held, context)
        or calls.is_pending(snapshot, CommandKind.REMOTE_START, context, reservation_id=held.reservation_id)
    ):
        return snapshot
    return request_start(calls.discard(snapshot, CommandKind.REMOTE_START, held.reservation_id, context), context)


def move_reservation(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Move the paid reservation to another connector of its station, because its driver said so, by a tap or by the
    reservation's own tag; nothing changes if that connector is in use or locked (note F33), or if the reservation's
    own lock has expired."""
    r = require_reservation(snapshot)
    there = snapshot.connector(connector_id)
    taken = there.transaction is not None or occupancy.is_lock_active(there.lock, context.now)
    over = not occupancy.is_lock_active(snapshot.connector(r.connector_id).lock, context.now)
    if taken or over or connector_id not in snapshot.station.connectors:
        return snapshot
    moved = replace(r, connector_id=connector_id)
    left = snapshot.with_connector(unlock(snapshot.connector(r.connector_id)))
    held = left.with_connector(replace(unlock(left.connector(connector_id)), lock=build_lock(moved)))
    return add_audit_entry(
        replace(held, reservation=moved), "Moved", context, detail=f"{r.connector_id} to {connector_id}"
    )


def find_awaiting_connectors(snapshot: Snapshot) -> tuple[int, ...]:
    """The connectors where a paid reservation waits to start: a report of the whole station may free them."""
    return tuple(
        c.connector_id for c in snapshot.connectors.values() if c.lock is not None and c.lock.state in AWAITING_START
    )


def find_clear_time(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> datetime | None:
    """When everything that blocks the reservation will have ended by itself; None if something does not, or nothing
    blocks it."""
    findings = occupancy.explain(
        snapshot, held.connector_id, now=context.now, policy=context.policy, ignoring=held.reservation_id
    )
    ends = [finding.until for finding in findings if finding.reason is not None]
    return max((at for at in ends if at is not None), default=None) if None not in ends else None


def _add_start_verdict(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> Snapshot:
    """Add the verdict of the start gate: that of the busy rule, or waiting if only the plug is missing."""
    verdict = occupancy.verdict(
        snapshot, held.connector_id, now=context.now, policy=context.policy, ignoring=held.reservation_id
    )
    if start_blockers(snapshot, held, context) == PLUG:
        verdict |= {"verdict": "waiting", "headline": PLUG[0]}
    return snapshot.add_verdict(verdict)


def _has_just_requested_start(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> bool:
    """Whether a start was requested within the last call timeout, over this connection and since the last boot. A
    station that rejects each start and reports a status would otherwise be asked with each report."""
    presence, booted, asked = snapshot.presence, snapshot.station.booted_at, held.start_requested_at
    if presence is None or asked is None or context.now >= asked + context.policy.call_timeout:
        return False
    return presence.connected_at <= asked and (booted is None or booted <= asked)
