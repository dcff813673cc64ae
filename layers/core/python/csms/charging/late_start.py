"""A start that may have happened unheard: how long the money of an ended reservation is held for it, and whether a
start that is reported late happened in time (note F30)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from csms import occupancy
from csms.model import CallState, DecisionContext, LateStart, Money, Presence, Reservation, ReservationState, Snapshot

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far the clock of a station may be off."""

CONFIRMATION: Final = timedelta(minutes=1)
"""How long to wait for a sign of a station that seems to be here, before looking again."""

SILENCE: Final = timedelta(minutes=2)
"""What a station may be late with its Heartbeat before it counts as away; its last message is noted to the minute."""


def find_hold(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> LateStart | None:
    """How long to hold the money of a reservation that ends now without a transaction: until the station has reported
    what it did until then. None if the money can be given back at once: nothing is held, no start can have happened, or
    the station was here all the time and was heard since the last moment at which it could start."""
    if held.money is not Money.AUTHORIZED or not context.policy.late_start or not _may_have_started(snapshot, held):
        return None
    ends = [at for at in (held.start_deadline, context.now) if at is not None]
    return _build_hold(held, _find_end(snapshot.presence, held, min(ends), context), context)


def renew_hold(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> LateStart | None:
    """How much longer to hold the money, at the end of the time that it was held for; None if it is given back now."""
    hold, presence = held.late_start, snapshot.presence
    if hold is None or presence is None:
        return None
    end = _find_end(presence, held, held.ended_at or context.now, context)
    gone_since = held.authorised_at or held.created_at
    if end is None and hold.is_away and (presence.back_at is None or presence.back_at < gone_since):
        # It is heard again over the same connection, and nobody has noted since when.
        end = LateStart(until=context.now + context.policy.late_start)
    return _build_hold(held, end, context)


def is_in_time(held: Reservation, started_at: datetime | None, context: DecisionContext) -> bool:
    """Whether a start at this time by the station's clock, None if that cannot be believed, happened while the
    reservation allowed it: up to the start deadline (inclusive, note F27), or up to a cancellation before that."""
    if started_at is None:
        return False
    ends = [at for at in (held.start_deadline, held.ended_at) if at is not None]
    began = held.authorised_at or held.created_at
    return began - CLOCK_TOLERANCE <= started_at <= min(ends, default=context.now)


def _may_have_started(snapshot: Snapshot, held: Reservation) -> bool:
    """Whether the station may have been asked to start: it accepted, or its answer is not known."""
    if held.start_accepted_at is not None:
        return True
    if held.state is not ReservationState.START_REQUESTED or held.start_command_id is None:
        return False
    unsent = (
        call
        for call in snapshot.calls
        if call.call_id == held.start_command_id and call.state is CallState.QUEUED and call.repeats is None
    )
    return next(unsent, None) is None


def _find_end(
    presence: Presence | None, held: Reservation, heard_by: datetime, context: DecisionContext
) -> LateStart | None:
    """Until when the station has to report what it did before `heard_by`. None if it was here since it could be asked
    to start and was heard afterwards, or has never been here. While it is away or not heard, this is looked at
    again."""
    if presence is None:
        return None
    if is_away(presence, context):
        return LateStart(until=context.now + _find_pause(held, context), is_away=True)
    if presence.back_at is not None and presence.back_at >= (held.authorised_at or held.created_at):
        until = presence.back_at + context.policy.late_start
        if until > context.now:
            return LateStart(until=until)
    return LateStart(until=context.now + CONFIRMATION) if presence.last_seen_at < heard_by else None


def _find_pause(held: Reservation, context: DecisionContext) -> timedelta:
    """How long until a station that is away is looked for again: rarely, if it has been away for long."""
    since = context.now - (held.ended_at or context.now)
    return max(context.policy.late_start, since / 4)


def is_away(presence: Presence, context: DecisionContext) -> bool:
    """Whether the station is away, or as silent as if it were."""
    silent = context.now - presence.last_seen_at > context.policy.heartbeat + SILENCE
    return silent or not occupancy.is_online(presence, context.now)


def _build_hold(held: Reservation, end: LateStart | None, context: DecisionContext) -> LateStart | None:
    """The hold, no longer than the authorization can still be settled (note F69)."""
    if end is None or held.settle_by is None:
        return end
    if context.now >= held.settle_by:
        return None
    return LateStart(until=min(end.until, held.settle_by), is_away=end.is_away)
