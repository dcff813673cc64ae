"""What does the clock do with a charge whose end nobody told?"""

from dataclasses import replace

import pytest

from csms.model import Money, ReservationState
from tests.builders import HOUR, MINUTE, NOW, SECOND
from tests.system.sweep_scenes import DAY, TICK, SweepSite, boot, site, site_with_settings, start_charging, table

__all__ = ["site", "table"]


@pytest.mark.note("F55")
def test_implied_stop_bills_best_meter_after_grace(site):
    rid = start_charging(site, "cp")
    running = site.reservation(rid).transaction_id or ""
    site.clock.move(10 * MINUTE)
    site.report_status(1, "Available")

    assert {} == site.sweep_after(5 * MINUTE - TICK)
    assert {"Connector": 1} == site.sweep_after(TICK)

    held = site.reservation(rid)
    assert (ReservationState.COMPLETED, Money.CAPTURED, 10_000) == (held.state, held.money, held.energy_wh)
    assert [("capture", 645)] == [(what, amount) for what, _, amount in site.provider.calls if what == "capture"]
    assert ("ImpliedStop", 10_000) == (
        site.transaction(running).reason,
        site.transaction(running).energy_wh,
    )
    assert (None, None) == (site.connector().transaction, site.connector().lock)
    assert {} == site.sweep_after(DAY)


@pytest.mark.note("F55")
def test_real_stop_within_grace_wins(site):
    rid = start_charging(site, "cp")
    running = site.reservation(rid).transaction_id or ""
    site.report_status(1, "Available")
    site.clock.move(4 * MINUTE)
    site.stop_transaction(running, 12_000)

    assert {"OutboxItem": 1} == site.sweep_after(MINUTE)

    assert ("Local", ()) == (site.transaction(running).reason, site.transaction(running).flags)
    assert 11_000 == site.reservation(rid).energy_wh
    assert ["capture"] == [what for what, _, _ in site.provider.calls if what == "capture"]


@pytest.mark.note("F55")
def test_late_real_stop_raises_no_bill(site):
    rid = start_charging(site, "cp")
    running = site.reservation(rid).transaction_id or ""
    site.report_status(1, "Available")
    site.sweep_after(5 * MINUTE)
    billed = site.reservation(rid)

    site.stop_transaction(running, 12_000)

    assert {} == site.sweep_after(DAY)
    assert 11_000 == site.transaction(running).energy_wh
    flagged = replace(billed, flags=("Underbilled",), version=billed.version + 1)
    assert flagged == site.reservation(rid)


@pytest.mark.note("F55")
def test_resumed_charging_cancels_implied_stop(site):
    rid = start_charging(site, "cp")
    site.report_status(1, "Available")
    site.clock.move(4 * MINUTE)
    site.report_status(1, "Charging")

    assert {} == site.sweep_after(HOUR)
    assert ReservationState.CHARGING == site.reservation(rid).state


def report_available_before_start(site: SweepSite) -> None:
    site.report_status(1, "Available", at=NOW - SECOND)


def replay_available_after_boot(site: SweepSite) -> None:
    site.clock.move(MINUTE)
    boot(site)
    site.report_status(1, "Available")


@pytest.mark.note("F56")
@pytest.mark.parametrize("replayed", [report_available_before_start, replay_available_after_boot])
def test_old_or_replayed_available_closes_nothing(site, replayed):
    rid = start_charging(site, "cp")
    replayed(site)

    site.sweep_after(2 * HOUR)

    assert ReservationState.CHARGING == site.reservation(rid).state
    assert site.connector().transaction is not None


@pytest.mark.note("F72")
@pytest.mark.parametrize("minutes", ["0", "-5"])
def test_zero_grace_disables_implied_stop(table, minutes):
    site = site_with_settings(table, IMPLIED_STOP_GRACE_MINUTES=minutes)
    rid = start_charging(site, "cp")
    site.report_status(1, "Available")

    assert {} == site.sweep_after(12 * HOUR)
    assert ReservationState.CHARGING == site.reservation(rid).state


@pytest.mark.note("F77")
def test_overdue_charge_is_billed_and_stopped(site):
    rid = start_charging(site, "cp")
    running = site.reservation(rid).transaction_id or ""
    spoken = len(site.frames)

    assert {} == site.sweep_after(DAY - TICK)
    assert {"Connector": 1} == site.sweep_after(TICK)

    held = site.reservation(rid)
    assert (ReservationState.COMPLETED, Money.CAPTURED, 10_000) == (held.state, held.money, held.energy_wh)
    assert ("Overdue", ("Overdue",)) == (site.transaction(running).reason, site.transaction(running).flags)
    told = [(action, payload) for _, _, action, payload in site.frames[spoken:]]
    assert [("RemoteStopTransaction", {"transactionId": int(running)})] == told
    assert site.connector().transaction is None


@pytest.mark.note("F72")
@pytest.mark.parametrize("minutes", ["0", "-5"])
def test_zero_session_limit_disables_maximum(table, minutes):
    site = site_with_settings(table, SESSION_LIMIT_MINUTES=minutes)
    rid = start_charging(site, "cp")

    assert {} == site.sweep_after(20 * DAY)
    assert ReservationState.CHARGING == site.reservation(rid).state
