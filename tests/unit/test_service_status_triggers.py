"""When is a station asked for its statuses, and which status is the answer?"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from csms.model import CallState, Policy
from tests.app.in_process import InProcessApp
from tests.fakes import START

LEASE = Policy().presence_lease


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


@pytest.mark.note("F21")
def test_sweep_asks_silent_station_for_status(app: InProcessApp) -> None:
    app.bring_online("A")
    app.disconnect("A")
    app.clock.move(LEASE + timedelta(hours=1))
    app.connect("B")
    app.clock.move(timedelta(seconds=30))
    app.sweep()
    app.answer_call("Accepted", over="B")

    asked = [(f[2], f[3]["connectorId"]) for f in app.frames]
    assert [("TriggerMessage", 1), ("TriggerMessage", 2)] == sorted(asked)


@pytest.mark.note("F32", "F43")
def test_promised_status_delays_no_other_call(app: InProcessApp) -> None:
    app.bring_online()
    waiting = [app.create_reservation(connector_id) for connector_id in (1, 2)]
    app.disconnect("A")
    for rid in waiting:
        app.pay(rid)
        app.confirm(rid)
    app.connect("B")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    app.answer_call("Accepted", over="B")

    asked = [frame[3]["connectorId"] for frame in app.frames if frame[2] == "TriggerMessage"]
    assert [1, 2] == sorted(asked)


@pytest.mark.note("F21")
def test_unkept_status_promise_expires(app: InProcessApp) -> None:
    app.connect("A")
    for _ in (1, 2):
        app.clock.move(timedelta(seconds=20))
        app.sweep()
        app.answer_call("Accepted")
    assert [CallState.PROMISED] * 2 == [call.state for call in app.snapshot().calls]

    app.clock.move(Policy().call_timeout)
    app.sweep()

    assert () == app.snapshot().calls


@pytest.mark.note("F21")
def test_status_may_precede_trigger_answer(app: InProcessApp) -> None:
    app.connect("A")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    app.clock.move(timedelta(seconds=1))
    ((_, asked, _, what),) = app.frames
    app.report_status(what["connectorId"], "Available")
    app.stations.receive("A", json.dumps([3, asked, {"status": "Accepted"}]))

    assert [3 - what["connectorId"]] == [call.connector_id for call in app.snapshot().calls]


@pytest.mark.note("F21")
@pytest.mark.parametrize("asked", ["and no answer came", "and it was not sent"])
def test_reconnect_asks_for_status_again(app: InProcessApp, asked: str) -> None:
    app.bring_online()
    app.report_status(1, "Charging")
    app.reconnect("B")
    if asked == "and no answer came":
        app.clock.move(timedelta(seconds=11))
        app.sweep()
        assert 1 == app.count_sent("B", "TriggerMessage")
    app.reconnect("C", away=9 * 60 + 50)
    app.clock.move(timedelta(seconds=30))
    app.sweep()

    assert 1 == app.count_sent("C", "TriggerMessage")


@pytest.mark.note("F21")
def test_old_socket_status_answers_no_new_trigger(app: InProcessApp) -> None:
    app.connect("A")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    asked = app.frames[-1][3]["connectorId"]
    app.report_status(asked, "Available")
    assert [True] == [c.told for c in app.snapshot().calls if c.connector_id == asked]

    app.connect("B")

    assert [False] == [c.told for c in app.snapshot().calls if c.connector_id == asked]


@pytest.mark.note("F32")
def test_refusing_station_is_triggered_at_most_twice(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.start_transaction("CARD")
    app.report_status(1, "Available")
    app.pay(rid)
    app.confirm(rid)
    app.clock.move(Policy().implied_stop_grace + timedelta(seconds=2))
    app.reconnect("B")
    app.clock.move(timedelta(seconds=11))
    app.send_call("Heartbeat", over="B")
    app.report_status(2, "Available", over="B")
    for _ in range(9):
        if app.count_sent("B", "TriggerMessage"):
            app.answer_call("Rejected", over="B")

    assert 2 >= app.count_sent("B", "TriggerMessage")


@pytest.mark.note("F21")
def test_stop_requests_a_fresh_status(app: InProcessApp) -> None:
    app.bring_online()
    number = app.start_transaction("CARD")
    app.report_status(1, "Charging")
    app.reconnect("B")
    app.clock.move(timedelta(seconds=11))
    app.sweep()
    app.report_status(1, "Charging", over="B")
    app.stop_transaction(number, 5000, at="2026-11-23T09:00:12Z", over="B")
    app.answer_call("Accepted", over="B")

    waiting = [(c.connector_id, c.state) for c in app.snapshot().calls]
    assert [(1, CallState.QUEUED)] == waiting


@pytest.mark.note("F11", "F21")
def test_only_first_status_answers_a_trigger(app: InProcessApp) -> None:
    app.bring_online()
    app.report_status(1, "Charging", at=START)
    app.reconnect("B")
    app.clock.move(timedelta(seconds=11))
    app.sweep()
    app.report_status(1, "Charging", over="B", at=START + timedelta(seconds=12))
    app.report_status(1, "Available", over="B", at=START + timedelta(seconds=5))

    assert not app.is_startable(1)


@pytest.mark.note("F11", "F21")
def test_requested_status_counts_despite_old_clock(app: InProcessApp) -> None:
    app.bring_online()
    app.report_status(1, "Charging", at=START)
    app.report_status(1, "Available", at=START - timedelta(hours=1))
    assert not app.is_startable(1)

    app.reconnect("B")
    app.clock.move(timedelta(seconds=11))
    app.sweep()
    app.answer_call("Accepted", over="B")
    app.report_status(1, "Available", over="B", at=START - timedelta(hours=1))

    assert app.is_startable(1)
