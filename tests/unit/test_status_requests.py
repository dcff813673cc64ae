"""When does a station that boots or connects owe us a StatusNotification, and of which connectors?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from csms.charging import status
from csms.model import CallState, CommandKind, Snapshot
from csms.ocpp.v16 import DIALECT
from tests import builders as b
from tests.builders import NOW, SECOND, decision_context
from tests.unit.ocpp16_calls import boot, report_status


@pytest.mark.note("F21")
def test_boot_requests_each_status_once() -> None:
    booted, _ = boot(b.snapshot(), decision_context(serial=5))
    again, _ = boot(booted, decision_context(serial=6))
    told = report_status(booted, "Available")

    assert [(CommandKind.TRIGGER_STATUS, 1), (CommandKind.TRIGGER_STATUS, 2)] == [
        (call.kind, call.connector_id) for call in booted.calls
    ]
    assert {(NOW + 10 * SECOND, NOW + 10 * SECOND)} == {(call.send_at, call.due_at) for call in booted.calls}
    assert 2 == len({call.call_id for call in booted.calls})
    assert booted.calls == again.calls
    assert [2] == [call.connector_id for call in told.calls]


@pytest.mark.note("F21")
def test_sent_status_request_still_awaits_answer() -> None:
    booted, _ = boot(b.snapshot(), decision_context(serial=5))
    sent = replace(booted, calls=tuple(replace(call, state=CallState.SENT) for call in booted.calls))

    told = report_status(sent, "Available").calls

    assert [CallState.SENT] * 2 == [call.state for call in told]
    assert [(1, True), (2, False)] == [(call.connector_id, call.told) for call in told]


PLUGGED_IN = b.snapshot(b.connector(1, live=b.build_live_status("Preparing")), b.connector(2))


@pytest.mark.note("F19", "F21", "F32")
@pytest.mark.parametrize(
    ("before", "settings", "asked"),
    [
        (b.snapshot(), {}, []),
        (b.authorized_snapshot(), {}, [1]),
        (b.start_requested_snapshot(), {}, [1]),
        (b.report_status(b.waiting_for_disconnect_snapshot(), "Preparing"), {}, [1]),
        (b.pending_payment_snapshot(), {}, []),
        (b.snapshot(b.connector(1), b.connector(2, live=None)), {}, [2]),
        (b.snapshot(presence=b.presence(epoch="next")), {}, [1, 2]),
        (b.snapshot(b.connector(1, live=b.build_live_status("Charging")), b.connector(2)), {}, [1]),
        (b.snapshot(b.connector(1, live=b.build_live_status("Faulted")), b.connector(2)), {}, [1]),
        (PLUGGED_IN, {}, []),
        (PLUGGED_IN, {"preparing_is_startable": False}, [1]),
        (b.snapshot(b.connector(0, live=b.build_live_status("Unavailable")), b.connector(1), b.connector(2)), {}, [0]),
        (b.snapshot(b.connector(0, live=b.build_live_status("Charging")), b.connector(1), b.connector(2)), {}, []),
        (
            b.snapshot(
                b.connector(0, live=b.build_live_status("Faulted", epoch="last")), b.connector(1), b.connector(2)
            ),
            {},
            [],
        ),
    ],
    ids=[
        "all free",
        "somebody waits",
        "a start may have got lost",
        "a car is to leave",
        "somebody pays",
        "one silent",
        "another epoch",
        "in use",
        "out of order",
        "plugged in",
        "plugged in is busy",
        "all of it is out of order",
        "a whole in use masks nothing",
        "it was in another epoch",
    ],
)
def test_reconnect_requests_only_uncertain_statuses(
    before: Snapshot, settings: dict[str, Any], asked: list[int]
) -> None:
    after = status.ask_after_connect(before, decision_context(**settings))

    new = after.calls[len(before.calls) :]
    assert [(CommandKind.TRIGGER_STATUS, number) for number in asked] == [
        (call.kind, call.connector_id) for call in new
    ]
    assert {NOW + 10 * SECOND} >= {call.send_at for call in new}


@pytest.mark.note("F10", "F21")
def test_whole_station_trigger_names_no_connector() -> None:
    before = b.snapshot(b.connector(0, live=b.build_live_status("Unavailable")), b.connector(1), b.connector(2))
    (whole,) = status.ask_after_connect(before, decision_context()).calls

    assert ("TriggerMessage", {"requestedMessage": "StatusNotification"}) == DIALECT.encode_command(whole.command)
