"""How do the CALLs to a station wait for each other, for their answers and for the station?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from csms.model import CommandKind, Policy
from tests.app.in_process import InProcessApp

LEASE = Policy().presence_lease


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


@pytest.mark.note("F32")
def test_one_message_queues_calls_for_both_connectors(app: InProcessApp) -> None:
    app.bring_online()
    waiting = [app.create_reservation(connector_id) for connector_id in (1, 2)]
    app.gateway.gone.add("A")
    app.report_status(2, "Faulted")
    app.report_status(2, "Available")
    app.clock.move(LEASE + timedelta(seconds=1))
    for rid in waiting:
        app.pay(rid)
        app.confirm(rid)
    app.gateway.gone.clear()
    app.report_status(1, "Available")

    calls = {(c.kind, c.connector_id) for c in app.snapshot().calls}
    assert {(CommandKind.REMOTE_START, 1), (CommandKind.TRIGGER_STATUS, 2)} == calls


@pytest.mark.note("F73")
def test_absent_station_calls_wait_for_reconnect(app: InProcessApp) -> None:
    app.connect("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    assert 2 == app.sweep().done["OutboundCall"]

    app.clock.move(timedelta(minutes=5))
    assert {} == app.sweep().done

    app.connect("B")
    app.clock.move(timedelta(seconds=10))
    app.send_call("Heartbeat", over="B")
    app.sweep()
    assert 1 == app.count_sent("B", "TriggerMessage")


@pytest.mark.note("F73")
def test_undeliverable_call_expires(app: InProcessApp) -> None:
    app.connect("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    app.clock.move(timedelta(minutes=11))
    app.sweep()

    assert () == app.snapshot().calls


@pytest.mark.note("F43")
def test_outbound_calls_go_one_at_a_time(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    assert ["RemoteStartTransaction"] == [frame[2] for frame in app.frames]
    assert "currentTime" in app.send_call("Heartbeat")
    app.answer_call("Accepted")

    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames]


@pytest.mark.note("F43")
def test_timed_out_call_frees_the_slot(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    app.clock.move(Policy().call_timeout)
    app.sweep()

    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames]


@pytest.mark.note("F44")
def test_late_call_result_changes_nothing(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation(1)
    app.clock.move(Policy().call_timeout)
    app.sweep()
    app.answer_call("Rejected")

    assert "StartRequested" == app.status(rid)["status"]


@pytest.mark.note("F41")
@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("StartTransaction", {"connectorId": 1, "idTag": "NOBODY", "meterStart": 0}),
        ("StartTransaction", {"connectorId": 9, "idTag": "NOBODY", "meterStart": -5}),
        ("StopTransaction", {"transactionId": 4711, "meterStop": 0}),
        ("StopTransaction", {"transactionId": -1, "meterStop": 0, "idTag": "NOBODY"}),
    ],
    ids=["unknown tag", "unknown connector", "unknown transaction", "no transaction at all"],
)
def test_faulty_transaction_message_gets_call_result(app: InProcessApp, action: str, payload: dict[str, Any]) -> None:
    app.bring_online()

    answers = [app.exchange(action, **payload, timestamp=app.time())[0] for _ in range(2)]

    assert [3, 3] == answers
