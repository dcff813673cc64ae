"""What maintenance does when a timer goes off that was set for a CALL, or for an operator's close."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from csms.charging.operations import OperatorCommand
from csms.model import CallState, Policy
from csms.service import Operators
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


# An operator's close


COMMAND = OperatorCommand(who="ada", reason="because", expected="Open")


@pytest.fixture
def charging() -> tuple[InProcessApp, str, list[Any]]:
    """A paid session that has metered 5 kWh, its transaction, and the timers that operators set."""
    app = InProcessApp().register().bring_online()
    _, number = app.start_session()
    app.send_meter_values(number, 6000)
    timers: list[Any] = []
    app.operators = Operators(
        app.dependencies(
            provider=None,
            set_timer=lambda station_id, *, seconds, call_id=None: timers.append((station_id, seconds, call_id)),
        )
    )
    return app, str(number), timers


@pytest.mark.note("F75")
def test_close_is_final_when_timer_fires(charging: tuple[InProcessApp, str, list[Any]]) -> None:
    app, number, timers = charging

    told = app.operators.close_transaction(number, COMMAND)
    app.pass_time(seconds=timers[0][1])
    app.maintenance.wake(timers[0][0], timers[0][2])

    assert [("cp1", 11)] == [timer[:2] for timer in timers]
    assert ("Open", True) == (told["state"], told["closesBy"] is not None)
    assert ("ClosedByOperator", 5000) == (app.transaction(number).reason, app.transaction(number).energy_wh)
    assert 1 == app.count_sent(app.socket, "RemoteStopTransaction")


@pytest.mark.note("F75")
@pytest.mark.parametrize("how", ["stop", "sweep"])
def test_close_needs_no_timer(charging: tuple[InProcessApp, str, list[Any]], how: str) -> None:
    app, number, timers = charging
    app.operators.close_transaction(number, COMMAND)

    if how == "stop":
        app.stop_transaction(number, 6500)
    else:
        app.sweep_after(timedelta(seconds=10))
    app.maintenance.wake(timers[0][0], timers[0][2])

    expected = ("Local", 5500) if how == "stop" else ("ClosedByOperator", 5000)
    assert expected == (app.transaction(number).reason, app.transaction(number).energy_wh)


@pytest.mark.note("F75")
def test_second_close_gets_same_answer(charging: tuple[InProcessApp, str, list[Any]]) -> None:
    app, number, timers = charging

    told = app.operators.close_transaction(number, COMMAND)
    app.pass_time(seconds=5)
    again = app.operators.close_transaction(number, COMMAND)

    assert told == again
    assert 1 == len(timers)
    assert told["closesBy"] == app.operators.occupancy("CP1", 1)["transaction"]["closesBy"]


@pytest.mark.note("F75")
def test_early_timer_leaves_close_waiting(charging: tuple[InProcessApp, str, list[Any]]) -> None:
    app, number, timers = charging
    app.operators.close_transaction(number, COMMAND)

    app.maintenance.wake(timers[0][0], timers[0][2])

    assert app.transaction(number).stopped_at is None
