"""What maintenance does when a timer goes off that was set for a CALL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.model import CallState, Policy
from tests.app.in_process import InProcessApp

OVERDUE = Policy().call_timeout + timedelta(seconds=1)


@pytest.fixture
def app() -> InProcessApp:
    """A station that has not answered a CALL, behind which another one waits."""
    app = InProcessApp().register().bring_online()
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    return app


def sent_connectors(app: InProcessApp) -> list[int]:
    """The connectors of the CALLs that the station was sent."""
    return [frame[3]["connectorId"] for frame in app.frames]


def unanswered_id(app: InProcessApp) -> str:
    """The id of the CALL that the station has not answered."""
    (call,) = (call for call in app.snapshot().calls if call.state is CallState.SENT)
    return call.call_id


@pytest.mark.note("F43")
def test_timer_gives_up_call_and_sends_next(app: InProcessApp) -> None:
    first = unanswered_id(app)
    app.clock.move(OVERDUE)

    app.maintenance.wake("cp1", first)

    assert [1, 2] == sent_connectors(app)
    assert first not in {call.call_id for call in app.snapshot().calls}


@pytest.mark.note("F43")
def test_early_timer_leaves_call_waiting(app: InProcessApp) -> None:
    first = unanswered_id(app)

    app.maintenance.wake("cp1", first)

    assert [1] == sent_connectors(app)
    assert first == unanswered_id(app)


def test_timer_of_answered_call_does_nothing(app: InProcessApp) -> None:
    first = unanswered_id(app)
    app.answer_call("Accepted")

    app.maintenance.wake("cp1", first)

    assert [1, 2] == sent_connectors(app)
    assert first != unanswered_id(app)


def test_timer_of_deleted_station_does_nothing(app: InProcessApp) -> None:
    app.maintenance.wake("gone", unanswered_id(app))

    assert [1] == sent_connectors(app)
