"""Which CALL to a station is sent next, and until when one counts as pending."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from csms.commands import calls
from csms.model import CallState, CommandKind, Snapshot, TriggerStatus
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context


def queue_request(before: Snapshot, connector_id: int, after: timedelta = timedelta(0), at: datetime = NOW) -> Snapshot:
    """The snapshot with one more status request, to be sent `after` this time and within an hour."""
    command = TriggerStatus(connector_id=connector_id)
    return calls.queue(before, command, decision_context(at), until=NOW + HOUR, after=after)


def choose_connector(seen: Snapshot, now: datetime) -> int | None:
    """The connector of the CALL to send now, None if there is none."""
    chosen = calls.choose_next(seen, now)
    return chosen.connector_id if chosen is not None else None


@pytest.mark.note("F43")
def test_oldest_call_is_sent_first() -> None:
    seen = queue_request(queue_request(b.snapshot(), 1, 20 * SECOND), 2, 10 * SECOND)

    assert 2 == choose_connector(seen, NOW + MINUTE)


@pytest.mark.note("F43")
@pytest.mark.parametrize(
    ("now", "chosen"),
    [(NOW, None), (NOW + 9 * SECOND, None), (NOW + 10 * SECOND, 1), (NOW + HOUR - SECOND, 1), (NOW + HOUR, None)],
    ids=["at once", "a second early", "at its time", "just useful", "pointless"],
)
def test_call_is_sent_only_in_time(now: datetime, chosen: int | None) -> None:
    assert chosen == choose_connector(queue_request(b.snapshot(), 1, 10 * SECOND), now)


@pytest.mark.note("F43")
@pytest.mark.parametrize(
    ("state", "now", "pending"),
    [
        (CallState.QUEUED, NOW + MINUTE, True),
        (CallState.SENT, NOW + 29 * SECOND, True),
        (CallState.SENT, NOW + 30 * SECOND, False),
    ],
    ids=["queued", "sent", "overdue"],
)
def test_sent_call_is_pending_until_due(state: CallState, now: datetime, pending: bool) -> None:
    seen = queue_request(b.snapshot(), 1)
    (call,) = seen.calls
    waiting = replace(seen, calls=(replace(call, state=state, due_at=NOW + 30 * SECOND),))

    assert pending is calls.is_pending(waiting, CommandKind.TRIGGER_STATUS, decision_context(now))
