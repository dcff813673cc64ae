"""OCPP 1.6: which actions are served; what boots, heartbeats, data transfers and tags are answered."""

from __future__ import annotations

from datetime import datetime

import pytest

from csms.model import Snapshot
from csms.ocpp.v16.core import ACTIONS
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context
from tests.unit.ocpp16_calls import boot, handle_call


def test_core_profile_actions_are_served() -> None:
    assert {
        "Authorize",
        "BootNotification",
        "DataTransfer",
        "Heartbeat",
        "MeterValues",
        "StartTransaction",
        "StatusNotification",
        "StopTransaction",
    } == set(ACTIONS)


@pytest.mark.note("F60")
def test_boot_is_answered_and_remembered() -> None:
    after, answer = boot(
        b.snapshot(), decision_context(NOW + SECOND), firmwareVersion="1.2", chargePointSerialNumber="S1"
    )

    assert {"status": "Accepted", "currentTime": "2026-03-01T12:00:01.000Z", "interval": 300} == answer
    assert ("ACME", "One", "S1", "1.2", NOW + SECOND) == (
        after.station.vendor,
        after.station.model,
        after.station.serial_number,
        after.station.firmware,
        after.station.booted_at,
    )


@pytest.mark.note("F06")
def test_boot_begins_epoch_and_renews_lease() -> None:
    after, _ = boot(b.snapshot(), decision_context(NOW + HOUR, serial=5))

    assert after.presence is not None
    assert ("epoch-5", NOW + HOUR, NOW + HOUR + 15 * MINUTE) == (
        after.presence.epoch,
        after.presence.last_seen_at,
        after.presence.lease_until,
    )


def test_boot_over_closed_connection_creates_no_presence() -> None:
    after, _ = boot(b.snapshot(presence=None), decision_context())

    assert after.presence is None


@pytest.mark.note("F60")
def test_heartbeat_returns_time_and_changes_nothing() -> None:
    before = b.snapshot()

    assert (before, {"currentTime": "2026-03-01T12:00:00.000Z"}) == handle_call(before, "Heartbeat")


def test_data_transfer_returns_unknown_vendor_id() -> None:
    before = b.snapshot()

    assert (before, {"status": "UnknownVendorId"}) == handle_call(before, "DataTransfer", vendorId="ACME", data="x")


@pytest.mark.note("F29")
@pytest.mark.parametrize(("tag", "expected"), [("WTAG1", "Accepted"), ("wtag1", "Accepted"), ("WTAG2", "Invalid")])
def test_authorize_accepts_live_reservation_tag(tag: str, expected: str) -> None:
    before = b.start_requested_snapshot()

    assert (before, {"idTagInfo": {"status": expected}}) == handle_call(before, "Authorize", idTag=tag)


@pytest.mark.note("F28", "F29")
@pytest.mark.parametrize(
    ("before", "at"),
    [
        (b.pending_payment_snapshot(), NOW),
        (b.start_requested_snapshot(), NOW + 11 * MINUTE),
        (b.cancelled_snapshot(), NOW),
        (b.completed_snapshot(), NOW),
        (b.snapshot(tag=b.start_requested_snapshot().tag), NOW),
    ],
    ids=["not paid yet", "too late", "cancelled", "over", "at another station"],
)
def test_authorize_rejects_tag_outside_reservation(before: Snapshot, at: datetime) -> None:
    assert (before, {"idTagInfo": {"status": "Invalid"}}) == handle_call(
        before, "Authorize", decision_context(at), idTag="WTAG1"
    )


def test_authorize_loads_the_tag() -> None:
    assert "CARD" == ACTIONS["Authorize"].find_read_set(b.snapshot(), {"idTag": "CARD"}).id_tag
