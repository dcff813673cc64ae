"""Each way a reservation can end, for docs/reference.md: the cause, what the driver pays and sees, and what happens to
the hold. The states and codes are the code's own tables; tests/unit/test_endings.py compares each row with what the
decisions do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from csms.charging.reservation import FAILURES, LOCKING_STATES, TRANSITIONS, Event
from csms.charging.settlement import LONGEST_PAUSE
from csms.model import Policy, ReservationState

TEXTS: Final = Path(__file__).parents[1] / "web" / "driver" / "texts.js"


class Hold(StrEnum):
    """What happens to the hold of a reservation."""

    NOTHING_YET = "there was none; an open checkout is expired"
    RELEASED = "released"
    HELD = "released; held first while a station that was away may have started and not told (`LATE_START_MINUTES`)"
    CAPTURED = (
        "the bill is captured and the rest released; all of it is released when nothing is payable; it needs review"
        " when the meter's values leave the energy in doubt"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What causes an event, its latest time, and what happens to the hold, by the state in which the event occurs."""

    when: str
    holds: tuple[Hold, ...]


PAID_OR_NOT: Final = (Hold.NOTHING_YET, Hold.RELEASED)
UNHEARD_OR_NOT: Final = (Hold.NOTHING_YET, Hold.HELD)

ENDINGS: Final[Mapping[Event, Ending]] = {
    Event.CHECKOUT_FAILED: Ending(
        when="the payment provider opens no checkout; at once, or 90 seconds after a crash", holds=(Hold.NOTHING_YET,)
    ),
    Event.PAYMENT_FAILED: Ending(
        when="the bank or the provider takes the authorization back before the start", holds=PAID_OR_NOT
    ),
    Event.PAYMENT_TIMED_OUT: Ending(
        when="nobody pays within `CHECKOUT_MINUTES` + 2 minutes; if the provider does not confirm it, at"
        " `RESERVATION_TIMEOUT_MINUTES`",
        holds=(Hold.NOTHING_YET,),
    ),
    Event.CONNECTOR_TAKEN: Ending(
        when="the checkout opens, or the payment completes, after the lock went to somebody else", holds=PAID_OR_NOT
    ),
    Event.CANCELLED: Ending(when="the driver cancels before the charge starts", holds=UNHEARD_OR_NOT),
    Event.CANCELLED_BY_OPERATOR: Ending(when="an operator cancels before the charge starts", holds=UNHEARD_OR_NOT),
    Event.START_REJECTED: Ending(when="the station rejects the remote start", holds=(Hold.RELEASED,)),
    Event.START_TIMED_OUT: Ending(when="no start within `START_WINDOW_MINUTES`", holds=(Hold.HELD,)),
    Event.STOPPED: Ending(
        when="the station stops; or csms ends the session: `IMPLIED_STOP_GRACE_MINUTES` after the station reported"
        " Available, at `SESSION_LIMIT_MINUTES`, or `SETTLE_MARGIN_MINUTES` before the authorization lapses",
        holds=(Hold.CAPTURED,),
    ),
    Event.UNPLUGGED: Ending(when="where idle time is billed: the car leaves", holds=(Hold.CAPTURED,)),
    Event.DISCONNECT_TIMED_OUT: Ending(
        when="where idle time is billed: nobody unplugs within `DISCONNECT_LIMIT_MINUTES`, or before the"
        " authorization lapses",
        holds=(Hold.CAPTURED,),
    ),
    Event.SETTLED_BY_OPERATOR: Ending(
        when="an operator bills it without waiting for the cable", holds=(Hold.CAPTURED,)
    ),
}


def sources(event: Event) -> tuple[ReservationState, ...]:
    """The states in which the event ends a reservation."""
    return tuple(state for (state, what), after in TRANSITIONS.items() if what is event and after not in LOCKING_STATES)


def rows() -> Iterator[tuple[str, ...]]:
    """The table's cells, row by row."""
    seen = load_english_texts()
    for event, ending in ENDINGS.items():
        state = TRANSITIONS[sources(event)[0], event]
        code = FAILURES.get(event)
        said = _billed_headline(seen, state) if code is None else f"“{seen[f'failure.{code}']}”"
        named = f"`{state}`" if code is None else f"`{state}`, `{code}`"
        charged = "the bill, at most what was authorized" if Hold.CAPTURED in ending.holds else "nothing"
        yield f"{ending.when}", named, charged, said, "; or ".join(ending.holds)


def _billed_headline(seen: dict[str, str], state: ReservationState) -> str:
    """The page's headlines for a session that was billed, and for one that was not because nothing was payable."""
    return f"“{seen[f'headline.{state}']}”; “{seen['headline.NoCharge']}” when nothing is payable"


def load_english_texts() -> dict[str, str]:
    """The English texts of the drivers' pages, by key."""
    return dict(re.findall(r'^  "([\w.]+)": "(.*)",$', TEXTS.read_text(), re.MULTILINE))


def retry_period(policy: Policy) -> timedelta:
    """How long an outbox item is retried before its payment needs review, if the provider never answers."""
    pauses = (policy.outbox_lease * 2**attempt for attempt in range(1, policy.outbox_attempts))
    return policy.outbox_lease + sum((min(pause, LONGEST_PAUSE) for pause in pauses), timedelta(0))
