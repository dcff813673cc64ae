"""Which of two statuses counts: that of the later receipt, unless the later one is history (note F11)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.charging import status
from csms.charging.status import Report
from csms.commands import calls
from csms.model import CallState, Snapshot, TimelineEntry
from csms.ocpp.v16.values import read_state
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context

MILLISECOND = timedelta(milliseconds=1)
FAR = datetime(1970, 1, 1, tzinfo=UTC)


def report(
    before: Snapshot, raw: str, received_at: datetime, *, says: datetime | None = None, now: datetime | None = None
) -> Snapshot:
    """After a report that the gateway received then, and that was processed an hour later unless `now` is given."""
    context = replace(decision_context(now or NOW + HOUR), frame_at=received_at)
    return status.apply_report(before, Report(connector_id=1, raw=raw, state=read_state(raw), charger_at=says), context)


def read_status(snapshot: Snapshot) -> str | None:
    return getattr(snapshot.connector(1).live, "raw", None)


def find_history(snapshot: Snapshot) -> list[str]:
    """Why statuses were kept as history, in the order of processing."""
    entries = (append.record for append in snapshot.records if isinstance(append.record, TimelineEntry))
    return [entry.detail["why"] for entry in entries if entry.kind == "StatusWasHistory"]


@pytest.mark.note("F11")
@pytest.mark.parametrize("order", permutations(range(4)), ids=lambda order: "".join(map(str, order)))
def test_last_received_status_stays(order: tuple[int, ...]) -> None:
    said = ("Preparing", "Charging", "Finishing", "Available")

    snapshot = b.snapshot()
    for number in order:
        snapshot = report(snapshot, said[number], NOW + number * MILLISECOND)

    assert "Available" == read_status(snapshot)
    assert NOW + 3 * MILLISECOND == getattr(snapshot.connector(1).live, "reported_at", None)
    assert len(find_history(snapshot)) == sum(number < max(order[: at + 1]) for at, number in enumerate(order))


@pytest.mark.note("F11")
def test_overtaken_status_is_history_even_if_requested() -> None:
    known = report(b.snapshot(), "Charging", NOW + SECOND)
    asked = calls.ask_status(known, decision_context(serial=9), (1,), after=timedelta(0))
    requested = replace(asked, calls=tuple(replace(call, state=CallState.SENT) for call in asked.calls))

    after = report(requested, "Available", NOW)

    assert "Charging" == read_status(after)
    assert ["overtaken"] == find_history(after)
    assert requested.calls == after.calls


@pytest.mark.note("F11")
@pytest.mark.parametrize(
    ("known_at", "said_at", "news"),
    [
        (NOW - MINUTE, NOW - 2 * MINUTE, False),
        (NOW - MINUTE, NOW - MINUTE, True),
        (NOW - MINUTE, NOW, True),
        (NOW - MINUTE, None, True),
        (None, NOW - HOUR, True),
        (NOW - MINUTE, FAR, True),
        (FAR + SECOND, FAR, True),
        (NOW + 2 * HOUR, NOW + HOUR, True),
    ],
    ids=[
        "earlier",
        "the same",
        "later",
        "no time",
        "no time known",
        "said in 1970",
        "both in 1970",
        "known from the future",
    ],
)
def test_station_time_decides_within_one_millisecond(
    known_at: datetime | None, said_at: datetime | None, news: bool
) -> None:
    known = report(b.snapshot(), "Charging", NOW, says=known_at)

    after = report(known, "Available", NOW, says=said_at)

    assert ("Available" if news else "Charging") == read_status(after)
    assert ([] if news else ["overtaken"]) == find_history(after)


CONNECTED = NOW
"""When the station of the cases below has connected again; its last report over this connection came 5 s later."""


@pytest.mark.note("F11")
@pytest.mark.parametrize(
    ("clock", "says", "received", "news"),
    [
        (timedelta(0), CONNECTED - 10 * MINUTE, CONNECTED + 6 * SECOND, False),
        (-HOUR, CONNECTED - HOUR - 10 * MINUTE, CONNECTED + 6 * SECOND, False),
        (timedelta(0), CONNECTED + 4 * SECOND, CONNECTED + 6 * SECOND, True),
        (timedelta(0), CONNECTED - HOUR, CONNECTED + 15 * MINUTE, True),
        (timedelta(0), FAR, CONNECTED + 6 * SECOND, True),
        (2 * HOUR, CONNECTED + HOUR, CONNECTED + 6 * SECOND, True),
        (timedelta(0), CONNECTED - HOUR, CONNECTED + 6 * SECOND, True),
        (-5 * HOUR, CONNECTED - 6 * HOUR, CONNECTED + 6 * SECOND, True),
    ],
    ids=[
        "made while offline",
        "made while offline, by a clock that is slow",
        "made since the connect",
        "clock set back later",
        "clock in 1970",
        "clock far in the future",
        "made while online, by a clock that was set back",
        "an hour back in another zone",
    ],
)
def test_offline_queue_is_history_after_reconnect(
    clock: timedelta, says: datetime, received: datetime, news: bool
) -> None:
    last = CONNECTED + 5 * SECOND
    away = b.presence(connected_at=CONNECTED, away_since=CONNECTED - 30 * MINUTE, back_at=CONNECTED)
    known = report(b.snapshot(presence=away), "Charging", last, says=last + clock, now=last)

    after = report(known, "Available", received, says=says, now=received)

    assert ("Available" if news else "Charging") == read_status(after)
    assert ([] if news else ["queued"]) == find_history(after)


@pytest.mark.note("F11")
def test_station_never_away_has_no_queue() -> None:
    known = report(b.snapshot(), "Faulted", NOW + SECOND, says=NOW - 5 * HOUR)

    after = report(known, "Available", NOW + 2 * SECOND, says=NOW - 6 * HOUR)

    assert "Available" == read_status(after)


@pytest.mark.note("F11")
def test_queue_before_fresh_status_is_news() -> None:
    earlier = report(b.snapshot(presence=b.presence(connected_at=NOW - HOUR)), "Charging", NOW, says=NOW)
    back = replace(earlier, presence=b.presence(connected_at=NOW + HOUR))

    after = report(back, "Available", NOW + HOUR + SECOND, says=NOW - SECOND, now=NOW + HOUR + SECOND)

    assert "Available" == read_status(after)


@pytest.mark.note("F11")
def test_history_says_when_and_what() -> None:
    known = report(b.snapshot(), "Charging", NOW + SECOND)

    after = report(known, "Available", NOW, says=NOW - SECOND)

    entry = after.records[-1].record
    assert isinstance(entry, TimelineEntry)
    assert {
        "connector": 1,
        "status": "Available",
        "why": "overtaken",
        "received": "2026-03-01T12:00:00.000Z",
        "said": "2026-03-01T11:59:59.000Z",
    } == entry.detail


@pytest.mark.note("F11")
@given(order=st.permutations(range(8)), offsets=st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_no_order_of_processing_changes_the_end(order: list[int], offsets: list[int]) -> None:
    """Each status has a time of receipt and no time of the station; equal times go by the order of processing."""
    times = [NOW + sum(offsets[: n + 1]) * MILLISECOND for n in range(8)]
    names = (
        "Available",
        "Preparing",
        "Charging",
        "SuspendedEV",
        "SuspendedEVSE",
        "Finishing",
        "Unavailable",
        "Faulted",
    )

    snapshot = b.snapshot()
    for number in order:
        snapshot = report(snapshot, names[number], times[number])

    latest = [number for number in order if times[number] == max(times)]
    assert names[latest[-1]] == read_status(snapshot)
