"""What does the clock do for what is owed: CALLs to stations, calls to the payment provider? And what would it do?"""

import pytest

from csms.errors import PaymentUnavailable
from csms.model import CommandKind, Money, OutboxKind, ReservationState
from tests.builders import MINUTE, SECOND
from tests.system.test_sweep import (
    DAY,
    TICK,
    Site,
    by_key,
    charging,
    finished,
    site,
    stale,
    table,
    unanswered,
    unpaid,
    waiting,
)

__all__ = ["site", "table"]

# CALLs


def sent(site: Site) -> list[str]:
    return [action for _, _, action, _ in site.gateway.frames]


def unheard(site: Site) -> str:
    """A driver has paid, and the frame of the remote start was not taken."""
    rid = unpaid(site, "cp")
    site.gateway.unreachable = True
    site.pays(rid)
    site.gateway.unreachable = False
    return rid


@pytest.mark.note("F43")
def test_unsent_call_is_sent_by_sweep_once(site):
    rid = unheard(site)

    assert {} == site.swept(5 * SECOND - TICK)
    assert [] == sent(site)
    assert {"OutboundCall": 1} == site.swept(TICK)
    assert {} == site.swept(20 * SECOND)

    assert ["RemoteStartTransaction"] == sent(site)
    assert ReservationState.START_REQUESTED == site.reservation(rid).state


@pytest.mark.note("F25")
def test_unanswered_remote_start_is_no_rejection(site):
    rid = unpaid(site, "cp")
    site.pays(rid)

    assert {} == site.swept(30 * SECOND - TICK)
    assert {"OutboundCall": 1} == site.swept(TICK)

    assert [CommandKind.TRIGGER_STATUS] == [call.kind for call in site.store.snapshot("cp").calls]
    assert ReservationState.START_REQUESTED == site.reservation(rid).state
    assert ["RemoteStartTransaction", "TriggerMessage"] == sent(site)


@pytest.mark.note("F43")
def test_expired_call_is_dropped_unsent(site):
    unheard(site)

    site.swept(10 * MINUTE + TICK)

    assert () == site.store.snapshot("cp").calls
    assert [] == sent(site)


# What is owed to the payment provider


def test_owed_capture_is_made_after_lease(site):
    rid = finished(site, "cp")

    assert {} == site.swept(30 * SECOND - TICK)
    assert Money.CAPTURING == site.reservation(rid).money
    assert {"Effect": 1} == site.swept(TICK)

    assert (Money.CAPTURED, 645) == (site.reservation(rid).money, site.reservation(rid).captured_amount)
    assert {} == site.swept(DAY)


@pytest.mark.note("F67")
def test_failing_capture_ends_in_review(site):
    rid = finished(site, "cp")
    attempts, minutes = 0, 0
    while Money.CAPTURING == site.reservation(rid).money:
        site.provider.fail_next("capture", PaymentUnavailable("Down."))
        attempts += site.swept(MINUTE).get("Effect", 0)
        minutes += 1

    owed = site.store.effect(rid, OutboxKind.CAPTURE)
    assert (Money.NEEDS_REVIEW, site.policy.effect_attempts) == (site.reservation(rid).money, attempts)
    assert (None, "Down.") == (getattr(owed, "due_at", None), getattr(owed, "last_error", None))
    assert 60 < minutes < 180
    assert {} == site.swept(20 * DAY)


# A dry run


@pytest.mark.note("F73")
def test_dry_run_lists_due_and_changes_nothing(site, table):
    for scene in (unpaid, waiting, charging, finished, stale, unanswered):
        scene(site, scene.__name__)
    site.clock.move(2 * DAY)
    before, spoken, paid = by_key(table), list(site.gateway.sent), list(site.provider.calls)

    report = site.sweep(dry_run=True)

    assert (before, spoken, paid) == (by_key(table), site.gateway.sent, site.provider.calls)
    assert ({}, []) == (report.done, report.failed)
    deeds = sorted(line.partition(": would ")[2].split()[0].strip(",") for line in report.planned)
    assert ["capture", "close", "end", "end", "give", "release"] == deeds
    assert {"Reservation": 2, "Connector": 2, "Effect": 1, "OutboundCall": 1} == site.sweep().done
