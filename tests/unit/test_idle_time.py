"""Idle time: what counts as it, what it costs, and how long a plugged-in car is waited for."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from csms import occupancy
from csms.charging import checkout, settlement
from csms.model import Money, Policy, ReservationState, Snapshot
from csms.model import ReservationState as S
from csms.ocpp.v16 import core
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context, get_reservation
from tests.unit.settlement_cases import stop


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("statuses", "minutes"),
    [
        ([("SuspendedEV", 0), ("Available", 30)], 30),
        ([("SuspendedEVSE", 0), ("Available", 30)], 0),
        ([("Finishing", 0), ("Available", 30)], 0),
        ([("SuspendedEV", 0), ("Finishing", 5), ("Available", 30)], 30),
        ([("SuspendedEV", 0), ("SuspendedEV", 20), ("Available", 30)], 30),
        ([("SuspendedEV", 0), ("Charging", 10), ("SuspendedEV", 20), ("Available", 30)], 20),
        ([("SuspendedEV", 0), ("SuspendedEVSE", 10), ("Available", 30)], 10),
        ([("SuspendedEV", 0), ("Faulted", 10), ("Available", 30)], 10),
    ],
    ids=[
        "from full to gone",
        "the site's own pause",
        "finished but never full",
        "finishing is still there",
        "said twice",
        "two spells",
        "the site's pause in between",
        "a fault ends it",
    ],
)
def test_idle_time_starts_with_suspended_ev(statuses: list[tuple[str, int]], minutes: int) -> None:
    seen = b.charging_snapshot(site=b.idle_billing_snapshot())
    for raw, after in statuses:
        seen = b.report_status(seen, raw, NOW + after * MINUTE)

    held = get_reservation(seen)
    assert (minutes * 60, None) == (held.idle_seconds, held.idle_since)


@pytest.mark.note("F11", "F68")
@pytest.mark.parametrize("clock", [timedelta(0), -5 * HOUR, 2 * HOUR, -25 * MINUTE], ids=str)
def test_idle_counts_from_receipt_to_receipt(clock: timedelta) -> None:
    begun = _report_idle_station("SuspendedEV", NOW + 20 * MINUTE, clock)
    held = get_reservation(begun)

    after = _report_status(begun, _status("Available", NOW + HOUR + clock), NOW + HOUR)

    assert NOW + 20 * MINUTE == held.idle_since
    assert 40 * 60 == get_reservation(after).idle_seconds


@pytest.mark.note("F11", "F68")
def test_idle_counts_from_gateway_not_handler() -> None:
    begun = core.status_notification(
        b.charging_snapshot(site=b.idle_billing_snapshot()),
        _status("SuspendedEV", NOW),
        replace(decision_context(NOW + 5 * SECOND, serial=9), frame_at=NOW + SECOND),
    )[0]

    after = core.status_notification(
        begun,
        _status("Available", NOW),
        replace(decision_context(NOW + 9 * MINUTE, serial=10), frame_at=NOW + 8 * MINUTE + SECOND),
    )[0]

    assert 8 * 60 == get_reservation(after).idle_seconds


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("full_at", "gone_at", "minutes"),
    [(0, 61, 10), (0, 70, 10), (0, 71, 71), (62, 65, 3)],
    ids=["soon after it is back", "ten minutes after", "later", "full after it is back"],
)
def test_unplug_told_late_costs_no_absence(full_at: int, gone_at: int, minutes: int) -> None:
    begun = _report_idle_station("SuspendedEV", NOW + full_at * MINUTE)
    away = b.presence(away_since=NOW + 10 * MINUTE, back_at=NOW + HOUR)

    after = _report_status(
        replace(begun, presence=away), _status("Available", NOW + 20 * MINUTE), NOW + gone_at * MINUTE
    )

    assert minutes * 60 == get_reservation(after).idle_seconds


@pytest.mark.note("F68")
def test_stop_told_late_costs_no_absence() -> None:
    begun = _report_idle_station("SuspendedEV", NOW)
    away = replace(begun, presence=b.presence(away_since=NOW + 10 * MINUTE, back_at=NOW + HOUR))

    late = decision_context(NOW + HOUR + MINUTE, serial=9)
    after = settlement.apply_stop(away, 10_000, late, plugged_in=False, detail="EVDisconnected")

    assert 10 * 60 == get_reservation(after).idle_seconds


def _report_idle_station(raw: str, at: datetime, clock: timedelta = timedelta(0)) -> Snapshot:
    """A charging session of a site that bills idle time, after this status; the station's clock is so far off."""
    before = b.charging_snapshot(site=b.idle_billing_snapshot())
    return b.apply_decision(before, _report_status(before, _status(raw, at + clock), at))


def _status(raw: str, told: datetime) -> dict[str, Any]:
    return {"connectorId": 1, "errorCode": "NoError", "status": raw, "timestamp": told.isoformat()}


def _report_status(before: Snapshot, payload: dict[str, Any], at: datetime) -> Snapshot:
    return core.status_notification(before, payload, decision_context(at, serial=9))[0]


@pytest.mark.note("F68")
def test_full_car_settles_when_unplugged() -> None:
    waiting = b.waiting_for_disconnect_snapshot()
    held = get_reservation(waiting)

    gone = b.report_status(waiting, "Available", NOW + 30 * MINUTE)
    settled = get_reservation(gone)

    assert (S.WAITING_FOR_DISCONNECT, Money.AUTHORIZED, None, NOW) == (
        held.state,
        held.money,
        held.amount,
        held.stopped_at,
    )
    assert ("ActiveReservation",) == occupancy.busy_reasons(
        b.report_status(waiting, "Preparing", NOW), 1, now=NOW, policy=Policy()
    )
    assert (S.COMPLETED, Money.CAPTURING, 645 + 200, NOW) == (
        settled.state,
        settled.money,
        settled.amount,
        settled.stopped_at,
    )
    assert gone.connector(1).lock is None


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("reason", "live", "state"),
    [
        ("Local", "Charging", S.WAITING_FOR_DISCONNECT),
        ("EVDisconnected", "Charging", S.COMPLETED),
        ("Local", "Available", S.COMPLETED),
        ("Local", "Finishing", S.WAITING_FOR_DISCONNECT),
    ],
    ids=["still plugged in", "stopped by unplugging", "Available came before the stop", "finishing"],
)
def test_only_plugged_in_car_is_waited_for(reason: str, live: str, state: ReservationState) -> None:
    before = b.report_status(b.charging_snapshot(site=b.idle_billing_snapshot()), live)
    request = {"transactionId": 3, "meterStop": 11_000, "timestamp": NOW.isoformat(), "reason": reason}

    after, _ = core.stop_transaction(before, request, decision_context(serial=9))

    assert state == get_reservation(after).state


def test_site_without_idle_fee_settles_at_stop() -> None:
    assert S.COMPLETED == get_reservation(stop(b.charging_snapshot(), 5000, plugged_in=True)).state


@pytest.mark.note("F77", "F69")
@pytest.mark.parametrize(
    ("lapses_in", "hours"), [(7 * 24, 12), (8, 4)], ids=["the hard maximum", "before the authorization lapses"]
)
def test_disconnect_wait_has_hard_maximum(lapses_in: int, hours: int) -> None:
    before = b.charging_snapshot(site=b.idle_billing_snapshot(), capture_before=NOW + lapses_in * HOUR)
    waiting = b.apply_decision(before, stop(b.report_status(before, "SuspendedEV"), 10_000, plugged_in=True))
    last = NOW + hours * HOUR

    after = checkout.expire(waiting, decision_context(last + SECOND))

    assert last == get_reservation(waiting).expires_at
    assert waiting == checkout.expire(waiting, decision_context(last))
    assert (S.COMPLETED, 645 + 600) == (get_reservation(after).state, get_reservation(after).amount)
    assert "DisconnectTimedOut" in b.audit_events(after)
    assert after.connector(1).lock is None


@pytest.mark.note("F69", "F77")
def test_overlong_charge_is_not_waited_for() -> None:
    before = b.charging_snapshot(site=b.idle_billing_snapshot(), capture_before=NOW + 8 * HOUR)
    late = decision_context(NOW + 5 * HOUR, serial=9)

    waiting = settlement.apply_stop(before, 10_000, late, plugged_in=True, detail="Local")

    assert NOW + 4 * HOUR == get_reservation(before).settle_by
    assert NOW + 5 * HOUR == get_reservation(waiting).expires_at


@pytest.mark.note("F77")
def test_disconnect_limit_is_a_setting() -> None:
    before = b.charging_snapshot(site=b.idle_billing_snapshot())
    short = decision_context(disconnect_limit=2 * HOUR)

    waiting = settlement.apply_stop(before, 10_000, short, plugged_in=True, detail="Local")

    assert NOW + 2 * HOUR == get_reservation(waiting).expires_at


@pytest.mark.note("F68")
def test_silent_station_idle_ends_when_last_heard() -> None:
    silent = b.presence(last_seen_at=NOW + 25 * MINUTE, lease_until=NOW + 40 * MINUTE)
    waiting = replace(b.waiting_for_disconnect_snapshot(), presence=silent)

    after = checkout.expire(waiting, decision_context(NOW + 13 * HOUR))

    assert 25 * 60 == get_reservation(after).idle_seconds


def test_foreign_start_ends_disconnect_wait() -> None:
    request = {"connectorId": 1, "idTag": "CARD", "meterStart": 11_000, "timestamp": (NOW + HOUR).isoformat()}

    after, _ = core.start_transaction(
        b.waiting_for_disconnect_snapshot(), request, decision_context(NOW + HOUR, serial=9)
    )

    assert (S.COMPLETED, 3600) == (get_reservation(after).state, get_reservation(after).idle_seconds)
    assert after.connector(1).lock is None


@pytest.mark.note("F68")
def test_foreign_start_told_late_costs_no_absence() -> None:
    away = b.presence(away_since=NOW + 10 * MINUTE, back_at=NOW + HOUR)
    waiting = replace(b.waiting_for_disconnect_snapshot(), presence=away)
    at = NOW + HOUR + MINUTE
    request = {"connectorId": 1, "idTag": "CARD", "meterStart": 11_000, "timestamp": at.isoformat()}

    after, _ = core.start_transaction(waiting, request, decision_context(at, serial=9))

    assert 10 * 60 == get_reservation(after).idle_seconds
