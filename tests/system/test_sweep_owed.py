"""What does the clock do for what is owed: CALLs to stations, calls to the payment provider? And what would it do?"""

import pytest

from csms.errors import PaymentUnavailable
from csms.model import CommandKind, Money, OutboxKind, ReservationState
from tests.builders import MINUTE, SECOND
from tests.system.sweep_scenes import (
    DAY,
    SCENES,
    TICK,
    SweepSite,
    finish_charging,
    leave_unpaid,
    site,
    sorted_items,
    table,
)

__all__ = ["site", "table"]

# CALLs


def sent_actions(site: SweepSite) -> list[str]:
    return [action for _, _, action, _ in site.frames]


def lose_remote_start(site: SweepSite) -> str:
    """A driver has paid, and the frame of the remote start was not taken."""
    rid = leave_unpaid(site, "cp")
    site.gateway.unreachable = True
    site.pay(rid)
    site.confirm(rid)
    site.gateway.unreachable = False
    return rid


@pytest.mark.note("F43")
def test_unsent_call_is_sent_by_sweep_once(site):
    rid = lose_remote_start(site)

    assert [] == sent_actions(site)
    assert {"OutboundCall": 1} == site.sweep_after(TICK)
    assert {} == site.sweep_after(20 * SECOND)

    assert ["RemoteStartTransaction"] == sent_actions(site)
    assert ReservationState.START_REQUESTED == site.reservation(rid).state


@pytest.mark.note("F25")
def test_unanswered_remote_start_is_no_rejection(site):
    rid = leave_unpaid(site, "cp")
    site.pay(rid)
    site.confirm(rid)

    assert {} == site.sweep_after(30 * SECOND - TICK)
    assert {"OutboundCall": 1} == site.sweep_after(TICK)

    assert [CommandKind.TRIGGER_STATUS] == [call.kind for call in site.snapshot().calls]
    assert ReservationState.START_REQUESTED == site.reservation(rid).state
    assert ["RemoteStartTransaction", "TriggerMessage"] == sent_actions(site)


@pytest.mark.note("F43")
def test_expired_call_is_dropped_unsent(site):
    lose_remote_start(site)

    site.sweep_after(10 * MINUTE + TICK)

    assert () == site.snapshot().calls
    assert [] == sent_actions(site)


# What is owed to the payment provider


def test_owed_capture_is_made_after_lease(site):
    rid = finish_charging(site, "cp")

    assert {} == site.sweep_after(30 * SECOND - TICK)
    assert Money.CAPTURING == site.reservation(rid).money
    assert {"OutboxItem": 1} == site.sweep_after(TICK)

    assert (Money.CAPTURED, 645) == (site.reservation(rid).money, site.reservation(rid).captured_amount)
    assert {} == site.sweep_after(DAY)


@pytest.mark.note("F67")
def test_failing_capture_ends_in_review(site):
    rid = finish_charging(site, "cp")
    attempts, minutes = 0, 0
    while Money.CAPTURING == site.reservation(rid).money:
        site.provider.fail_next("capture", PaymentUnavailable("Down."))
        attempts += site.sweep_after(MINUTE).get("OutboxItem", 0)
        minutes += 1

    owed = site.store.outbox_item(rid, OutboxKind.CAPTURE)
    assert (Money.NEEDS_REVIEW, site.policy.outbox_attempts) == (site.reservation(rid).money, attempts)
    assert (None, "Down.") == (getattr(owed, "due_at", None), getattr(owed, "last_error", None))
    assert 60 < minutes < 180
    assert {} == site.sweep_after(20 * DAY)


# A dry run


@pytest.mark.note("F73")
def test_dry_run_lists_due_and_changes_nothing(site, table):
    for scene in SCENES:
        scene(site, scene.__name__)
    site.clock.move(2 * DAY)
    before, spoken, paid = sorted_items(table), list(site.gateway.sent), list(site.provider.calls)

    report = site.sweep(dry_run=True)

    assert (before, spoken, paid) == (sorted_items(table), site.gateway.sent, site.provider.calls)
    assert ({}, []) == (report.done, report.failed)
    deeds = sorted(line.partition(": would ")[2].split()[0].strip(",") for line in report.planned)
    assert ["capture", "close", "end", "end", "give", "release"] == deeds
    assert {"Reservation": 2, "Connector": 2, "OutboxItem": 1, "OutboundCall": 1} == site.sweep().done
