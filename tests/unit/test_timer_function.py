"""functions/maintenance with the messages of timers, as Lambda passes them on from SQS."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest

from csms.model import CallState, OutboundCall
from csms.service import Maintenance
from tests.app.handlers import capture_lines, sample_event
from tests.unit.deployed_functions import DeployedFunctions, broken_cloud, cloud, deployed_functions

__all__ = ["broken_cloud", "cloud", "deployed_functions"]

MINUTE = timedelta(minutes=1)


def build_event(*bodies: Any) -> dict[str, Any]:
    """The event of messages with these bodies; a body that is no text is sent as JSON."""
    (record,) = sample_event("sqs")["Records"]
    texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
    return {"Records": [record | {"messageId": f"m{n}", "body": text} for n, text in enumerate(texts, 1)]}


def timer(call_id: str, station_id: str = "cp1") -> dict[str, Any]:
    return {"wake": {"stationId": station_id, "callId": call_id}}


def fail_messages(*message_ids: str) -> dict[str, Any]:
    """The answer that has these messages delivered again."""
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in message_ids]}


def calls_by_state(cloud: DeployedFunctions) -> dict[CallState, OutboundCall]:
    """The station's CALLs, of which each has another state."""
    return {call.state: call for call in cloud.store.snapshot("cp1").calls}


@pytest.fixture
def overdue(cloud: DeployedFunctions, monkeypatch: pytest.MonkeyPatch) -> DeployedFunctions:
    """A station that has not answered a CALL, behind which another one waits; for maintenance a minute has passed."""
    cloud.bring_online()
    for connector in (1, 2):
        cloud.create_paid_reservation(connector)
    app = import_module("functions.maintenance.app")
    later = replace(app.maintenance._dependencies, now=lambda: datetime.now(UTC) + MINUTE)
    monkeypatch.setattr(app, "maintenance", Maintenance(later))
    return cloud


def test_timer_gives_up_overdue_call(overdue):
    calls = calls_by_state(overdue)
    first, second = calls[CallState.SENT], calls[CallState.QUEUED]

    answer = overdue.invoke("maintenance", build_event(timer(first.call_id)))

    assert fail_messages() == answer
    assert second.call_id == calls_by_state(overdue)[CallState.SENT].call_id
    assert overdue.posted_text().count("RemoteStartTransaction") == 2


def test_timers_of_nothing_succeed(overdue):
    answer = overdue.invoke(
        "maintenance", build_event(timer("nobody", station_id="gone"), {"wake": {"stationId": "cp1"}})
    )

    assert fail_messages() == answer
    assert overdue.posted_text().count("RemoteStartTransaction") == 1


def test_timer_of_answered_call_succeeds(overdue):
    first = calls_by_state(overdue)[CallState.SENT]
    overdue.accept_all()

    assert fail_messages() == overdue.invoke("maintenance", build_event(timer(first.call_id)))
    assert overdue.posted_text().count("RemoteStartTransaction") == 2


@pytest.mark.parametrize("body", ["", "{", "[]", {"wake": {}}, {"wake": None}, {"perform": {}}])
def test_unreadable_message_is_returned_alone(overdue, body):
    first = calls_by_state(overdue)[CallState.SENT]

    answer = overdue.invoke("maintenance", build_event(body, timer(first.call_id), body))

    assert fail_messages("m1", "m3") == answer
    assert first.call_id != calls_by_state(overdue)[CallState.SENT].call_id


def test_failed_timer_is_logged_and_counted(broken_cloud, capsys):
    event = build_event(timer("x"), timer("y"))

    lines, (metrics,) = capture_lines("maintenance", capsys, lambda: broken_cloud.invoke("maintenance", event))

    assert [1.0, 1.0] == metrics["TimerFailures"]
    assert [("failed", "ERROR", "m1"), ("failed", "ERROR", "m2")] == [
        (line["message"], line["level"], line["messageId"]) for line in lines[:-1]
    ]
    assert ("woken", 2, ["m1", "m2"]) == tuple(lines[-1][name] for name in ("message", "timers", "failed"))


def test_woken_line_counts_timers(cloud, capsys):
    (line,), metrics = capture_lines(
        "maintenance", capsys, lambda: cloud.invoke("maintenance", build_event(timer("x")))
    )

    assert ("woken", 1, []) == tuple(line[name] for name in ("message", "timers", "failed"))
    assert [] == metrics
