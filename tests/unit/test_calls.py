"""Which CALL to a station is sent next, and until when one counts as pending."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from csms.commands import calls
from csms.model import CallState, CommandKind, RemoteStop, Snapshot, TriggerStatus
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


@pytest.mark.note("F43")
def test_every_repeat_names_first_call() -> None:
    (call,) = queue_request(b.snapshot(), 1).calls

    again = calls.requeue(replace(call, call_id="second", repeats="first"), "third")

    assert ("third", "first") == (again.call_id, again.repeats)


@pytest.mark.note("F43")
def test_sent_call_is_renewed_before_queued() -> None:
    """More CALLs wait than one commit renews, and the last of them was sent."""
    seen = b.snapshot()
    for number in range(calls.MAX_RENEWED_CALLS + 1):
        stop = RemoteStop(transaction_id=str(number))
        seen = calls.queue(seen, stop, decision_context(serial=number), until=NOW + HOUR)
    *others, last = seen.calls
    seen = replace(seen, calls=(*others, replace(last, state=CallState.SENT)))

    after = calls.renew_after_reconnect(seen, decision_context(serial=50), after=10 * SECOND)

    assert [(CallState.QUEUED, last.call_id)] == [(call.state, call.repeats) for call in after.calls if call.repeats]


@pytest.mark.note("F43")
@pytest.mark.parametrize(
    ("send_at", "due_at", "expected"),
    [
        (NOW - MINUTE, NOW + MINUTE, NOW),
        (NOW - MINUTE, NOW - SECOND, NOW - SECOND),
        (NOW + 10 * SECOND, NOW + MINUTE, NOW + 10 * SECOND),
    ],
    ids=["put off", "overdue", "to be sent later"],
)
def test_reconnect_makes_queued_calls_due(send_at: datetime, due_at: datetime, expected: datetime) -> None:
    seen = queue_request(b.snapshot(), 1)
    (call,) = seen.calls

    after = calls.make_queued_calls_due(
        replace(seen, calls=(replace(call, send_at=send_at, due_at=due_at),)), decision_context()
    )

    assert [expected] == [call.due_at for call in after.calls]
