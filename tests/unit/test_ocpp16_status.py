"""OCPP 1.6: what is kept of a StatusNotification, and when a stale status is released."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from csms.charging import status
from csms.model import StatusSource, TimelineEntry
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context
from tests.unit.ocpp16_calls import report_status


@pytest.mark.note("F11")
def test_status_is_live_and_persisted() -> None:
    after = report_status(
        b.snapshot(), "SuspendedEV", decision_context(NOW + SECOND), timestamp="2026-03-01T13:00:02+01:00"
    )

    assert (
        b.build_live_status("SuspendedEV", reported_at=NOW + SECOND, charger_at=NOW + 2 * SECOND)
        == after.connector(1).live
    )
    said = after.connector(1).persisted
    assert said is not None
    assert ("SuspendedEV", NOW + SECOND, StatusSource.CHARGER, NOW + SECOND + 4 * HOUR) == (
        said.raw,
        said.at,
        said.source,
        said.release_at,
    )
    assert b.snapshot().connector(2) == after.connector(2)


@pytest.mark.note("F10")
def test_connector_0_status_is_kept_apart() -> None:
    after = report_status(b.snapshot(), "Faulted", connectorId=0)

    assert "Faulted" == getattr(after.connector(0).live, "raw", None)
    assert b.snapshot().connector(1) == after.connector(1)


@pytest.mark.note("F11")
def test_older_status_replaces_earlier_epoch_status() -> None:
    before = b.snapshot(b.connector(live=b.build_live_status("Charging", charger_at=NOW, epoch="an earlier one")))

    after = report_status(before, "Available", timestamp=(NOW - HOUR).isoformat())

    assert "Available" == getattr(after.connector(1).live, "raw", None)


def test_only_changed_status_enters_timeline() -> None:
    changed = report_status(b.snapshot(), "Faulted")
    same = report_status(b.snapshot(), "Available")

    assert [{"connector": 1, "status": "Faulted", "was": "Available"}] == [
        a.record.detail for a in changed.records if isinstance(a.record, TimelineEntry)
    ]
    assert () == same.records


@pytest.mark.note("F74")
def test_stale_status_is_released_when_unheld() -> None:
    stale = report_status(b.snapshot(), "Faulted")
    later = decision_context(NOW + 4 * HOUR)

    free = status.release_stale_status(stale, 1, later)

    assert ("Available", StatusSource.MAINTENANCE) == (
        getattr(free.connector(1).persisted, "raw", None),
        getattr(free.connector(1).persisted, "source", None),
    )
    assert stale == status.release_stale_status(stale, 1, decision_context(NOW + 4 * HOUR - SECOND))
    for held in ({"lock": b.lock()}, {"transaction": b.open_transaction()}, {"persisted": None}):
        kept = stale.with_connector(replace(stale.connector(1), **held))
        assert kept == status.release_stale_status(kept, 1, later)


@pytest.mark.note("F74")
@pytest.mark.parametrize(
    ("raw", "held", "due"),
    [
        ("Faulted", {}, True),
        ("Available", {}, False),
        ("Faulted", {"lock": b.lock()}, False),
        ("Faulted", {"transaction": b.open_transaction()}, False),
    ],
    ids=["stale some day", "free", "reserved", "in use"],
)
def test_only_releasable_status_has_due_time(raw: str, held: dict[str, Any], due: bool) -> None:
    seen = report_status(b.snapshot(), raw).connector(1)

    assert (NOW + 4 * HOUR if due else None) == replace(seen, **held).due_at


@pytest.mark.note("F74")
def test_status_release_is_in_timeline() -> None:
    stale = report_status(b.snapshot(), "Faulted")

    after = status.release_stale_status(replace(stale, records=()), 1, decision_context(NOW + 4 * HOUR))

    assert [("StatusReleased", {"connector": 1, "was": "Faulted"})] == [
        (a.record.kind, a.record.detail) for a in after.records if isinstance(a.record, TimelineEntry)
    ]
    assert after.connector(1).due_at is None


@pytest.mark.note("F72")
def test_status_release_is_configurable_or_off() -> None:
    kept = report_status(b.snapshot(), "Faulted", decision_context(status_release=0 * MINUTE))

    assert kept == status.release_stale_status(kept, 1, decision_context(NOW + 1000 * HOUR))
    for hours, settings in ((4, {}), (2, {"status_release": 2 * HOUR})):
        said = report_status(b.snapshot(), "Faulted", decision_context(**settings))
        assert NOW + hours * HOUR == getattr(said.connector(1).persisted, "release_at", None)
