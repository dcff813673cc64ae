"""Available during a transaction begins the grace of an implied stop: when it counts, and what cancels it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from csms.model import Snapshot
from csms.ocpp.v16.core import ACTIONS
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context
from tests.unit.ocpp16_calls import boot, report_status


def idle_until(after: Snapshot) -> datetime | None:
    running = after.connector(1).transaction
    assert running is not None
    return running.idle_until


@pytest.mark.note("F55")
def test_available_starts_grace_other_status_cancels() -> None:
    noticed = report_status(b.charging_snapshot(), "Available", decision_context(NOW + MINUTE))

    assert NOW + 6 * MINUTE == idle_until(noticed)
    assert NOW + 6 * MINUTE == idle_until(report_status(noticed, "Available", decision_context(NOW + 3 * MINUTE)))
    assert idle_until(report_status(noticed, "Charging", decision_context(NOW + 2 * MINUTE))) is None


@pytest.mark.note("F55", "F72")
def test_zero_grace_implies_no_stop() -> None:
    assert (
        idle_until(report_status(b.charging_snapshot(), "Available", decision_context(implied_stop_grace=0 * MINUTE)))
        is None
    )


@pytest.mark.note("F56")
def test_stale_or_replayed_available_closes_nothing() -> None:
    before = b.charging_snapshot()
    rebooted = replace(before, station=b.station(booted_at=NOW + SECOND))

    assert idle_until(report_status(before, "Available", timestamp="2026-03-01T11:59:59Z")) is None
    assert idle_until(report_status(rebooted, "Available", decision_context(NOW + MINUTE))) is None


@pytest.mark.note("F55", "F56")
@pytest.mark.parametrize(
    ("said", "implied"),
    [
        (["Charging"], True),
        (["SuspendedEV", "Finishing"], True),
        (["Charging", "Faulted"], True),
        (["Unavailable"], False),
        (["Faulted", "Available"], False),
    ],
    ids=["charging", "full", "charging, then out of order", "as it starts up", "twice as it starts up"],
)
def test_available_counts_after_post_boot_activity(said: list[str], implied: bool) -> None:
    running, _ = boot(b.charging_snapshot(), decision_context(NOW + SECOND, serial=7))
    for minutes, raw in enumerate(said, start=1):
        running = report_status(running, raw, decision_context(NOW + minutes * MINUTE))

    left = report_status(running, "Available", decision_context(NOW + HOUR))

    assert implied == (NOW + HOUR + 5 * MINUTE == idle_until(left))
    assert implied == (idle_until(left) is not None)


@pytest.mark.note("F55", "F56")
def test_post_boot_activity_survives_reconnect() -> None:
    booted, _ = boot(b.charging_snapshot(), decision_context(NOW + SECOND, serial=7))
    went_on = report_status(booted, "Charging", decision_context(NOW + MINUTE))
    back = replace(went_on, presence=b.presence(epoch="the next"))

    assert NOW + HOUR + 5 * MINUTE == idle_until(report_status(back, "Available", decision_context(NOW + HOUR)))


@pytest.mark.note("F56")
def test_late_pre_boot_reports_are_no_activity() -> None:
    booted, _ = boot(b.charging_snapshot(), decision_context(NOW + 20 * MINUTE, serial=7))
    sample = {"timestamp": "2026-03-01T12:15:00Z", "sampledValue": [{"value": "1500"}]}
    values = {"connectorId": 1, "transactionId": 3, "meterValue": [sample]}
    metered, _ = ACTIONS["MeterValues"].decide(booted, values, decision_context(NOW + 21 * MINUTE, serial=8))
    told = report_status(booted, "Charging", decision_context(NOW + 21 * MINUTE), timestamp="2026-03-01T12:15:00Z")

    for seen in (metered, told):
        assert idle_until(report_status(seen, "Available", decision_context(NOW + HOUR))) is None


@pytest.mark.note("F56")
def test_status_before_boot_is_no_activity() -> None:
    charged = report_status(b.charging_snapshot(), "Charging")
    booted, _ = boot(charged, decision_context(NOW + SECOND, serial=7))

    assert idle_until(report_status(booted, "Available", decision_context(NOW + HOUR))) is None
