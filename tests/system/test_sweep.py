"""What does the clock do, and what does it leave alone?"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from csms.adapters.dynamodb import Store
from csms.errors import ConnectorBusy
from csms.model import FailureCode, Money, OutboxItem, OutboxKind, ReservationState, StatusSource
from csms.ports.payments import PaymentStatus
from csms.service import Maintenance
from csms.service.flow import Flow
from tests.builders import HOUR, MINUTE, NOW, SECOND
from tests.system.sweep_scenes import (
    DAY,
    TICK,
    SweepSite,
    interrupt_before,
    leave_checkout_unopened,
    leave_stale_status,
    leave_unpaid,
    pay_for_unavailable_connector,
    plug_in,
    report_again,
    request_start,
    reserve,
    site,
    site_with_settings,
    sorted_items,
    start_charging,
    table,
)

__all__ = ["site", "table"]

# Reservations: each state by its own deadline, and all within the reservation timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a reservation ends by itself when its time is over, and what its driver's money does."""

    scene: Callable[[SweepSite, str], str]
    after: timedelta
    state: ReservationState
    code: FailureCode
    money: Money
    payment: PaymentStatus

    def __str__(self) -> str:
        return self.scene.__name__


ENDINGS = (
    Ending(
        scene=leave_unpaid,
        after=32 * MINUTE,
        state=ReservationState.CANCELLED,
        code=FailureCode.PAYMENT_TIMEOUT,
        money=Money.NONE,
        payment=PaymentStatus.EXPIRED,
    ),
    Ending(
        scene=pay_for_unavailable_connector,
        after=10 * MINUTE,
        state=ReservationState.FAILED,
        code=FailureCode.START_TIMEOUT,
        money=Money.RELEASED,
        payment=PaymentStatus.RELEASED,
    ),
    Ending(
        scene=request_start,
        after=10 * MINUTE,
        state=ReservationState.FAILED,
        code=FailureCode.START_TIMEOUT,
        money=Money.RELEASED,
        payment=PaymentStatus.RELEASED,
    ),
)


@pytest.mark.note("F27", "F63")
@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_reservation_ends_only_past_its_deadline(site, ending):
    rid = ending.scene(site, "cp")
    before = site.reservation(rid)

    site.sweep_after(ending.after)
    assert before == site.reservation(rid)

    site.clock.move(TICK)
    site.at("cp").send_call("Heartbeat")  # The station is here: it has nothing else to report.
    site.sweep_after(timedelta(0))
    held = site.reservation(rid)
    assert (ending.state, ending.code, ending.money) == (held.state, held.failure_code, held.money)
    assert ending.payment == site.payment_status(rid)
    assert site.connector().lock is None
    assert {} == site.sweep_after(HOUR)


def test_sweep_leaves_undue_items_unchanged(site, table):
    for scene in (leave_unpaid, request_start, start_charging, leave_stale_status):
        scene(site, scene.__name__)
    before = sorted_items(table)

    assert {} == site.sweep_after(4 * MINUTE)

    assert before == sorted_items(table)


def test_old_charging_reservation_is_never_ended(table):
    site = site_with_settings(table, SESSION_LIMIT_MINUTES="0")
    rid = start_charging(site, "cp")

    assert {} == site.sweep_after(20 * DAY)

    assert ReservationState.CHARGING == site.reservation(rid).state


@pytest.mark.note("F72")
@pytest.mark.parametrize(("timeout", "minutes"), [("60", 60), ("20", 20), ("0", 65), ("-1", 65)])
def test_reservation_timeout_limits_waiting_unless_disabled(table, timeout, minutes):
    site = site_with_settings(table, RESERVATION_TIMEOUT_MINUTES=timeout, CHECKOUT_MINUTES="58")
    rid = leave_unpaid(site, "cp")
    site.report_status(1, "Unavailable")
    if minutes > 20:
        site.clock.move(55 * MINUTE)
        site.pay(rid)
        site.confirm(rid)
    left = NOW + minutes * MINUTE - site.clock()

    site.sweep_after(left)
    assert site.reservation(rid).failure_code is None

    site.sweep_after(TICK)
    assert site.reservation(rid).failure_code is not None


def test_unopened_checkout_is_closed_within_a_minute(site):
    rid = leave_checkout_unopened(site, "cp")

    assert {"OutboxItem": 1} == site.sweep_after(30 * SECOND)

    assert FailureCode.CHECKOUT_FAILED == site.reservation(rid).failure_code
    assert PaymentStatus.EXPIRED == site.payment_status(rid)
    assert "PendingPayment" == site.status(site.create_reservation())["status"]


def test_checkout_opened_during_sweep_is_kept(site, table):
    rid = leave_checkout_unopened(site, "cp")
    late = site.reservation(rid)
    site.clock.move(30 * SECOND)

    owed = OutboxItem(reservation_id=rid, kind=OutboxKind.OPEN_CHECKOUT)
    with interrupt_before("GetItem", lambda: Flow(site.dependencies()).outbox.attempt(late, owed)) as client:
        Maintenance(site.dependencies(store=Store(client(table), table.name))).sweep()

    assert (ReservationState.PENDING_PAYMENT, None) == (site.reservation(rid).state, site.reservation(rid).failure_code)
    assert PaymentStatus.OPEN == site.payment_status(rid)


# Correctness never waits for a sweep


@pytest.mark.note("F72")
def test_expired_lock_frees_connector_without_sweep(site):
    first = leave_unpaid(site, "cp")
    site.clock.move(32 * MINUTE)
    with pytest.raises(ConnectorBusy):
        site.create_reservation()

    site.clock.move(TICK)
    second = site.create_reservation()

    assert {"Reservation": 1} == site.sweep_after(MINUTE)
    assert ReservationState.CANCELLED == site.reservation(first).state
    assert ReservationState.PENDING_PAYMENT == site.reservation(second).state
    assert second == getattr(site.connector().lock, "reservation_id", None)


# Stale statuses: released only where nothing else is known, and that is looked at in the same write


@pytest.mark.note("F74", "F72")
def test_stale_status_is_released_on_time(site):
    leave_stale_status(site, "cp")

    assert {} == site.sweep_after(240 * MINUTE - TICK)
    assert {"Connector": 1} == site.sweep_after(TICK)

    released = site.connector().persisted
    assert released is not None
    assert ("Available", StatusSource.MAINTENANCE, site.clock()) == (released.raw, released.source, released.at)
    assert [{"connector": 1, "was": "Faulted"}] == [
        entry.detail for entry in site.store.timeline("cp", limit=50) if entry.kind == "StatusReleased"
    ]
    assert {} == site.sweep_after(DAY)


@pytest.mark.note("F74")
def test_transaction_or_reservation_keeps_stale_status(table):
    site = site_with_settings(
        table, RESERVATION_TIMEOUT_MINUTES="0", SESSION_LIMIT_MINUTES="0", START_WINDOW_MINUTES="1000"
    )
    pay_for_unavailable_connector(site, "reserved")
    charging = site.at("charging").register_online()
    charging.start_transaction()
    charging.report_status(1, "Unavailable")

    assert "Connector" not in site.sweep_after(250 * MINUTE)

    raws = [getattr(site.at(name).connector().persisted, "raw", None) for name in ("reserved", "charging")]
    assert ["Unavailable", "Unavailable"] == raws


@pytest.mark.note("F74")
@pytest.mark.parametrize("happens", [plug_in, reserve, report_again])
def test_change_during_sweep_keeps_the_status(site, table, happens):
    leave_stale_status(site, "cp")
    site.clock.move(240 * MINUTE)

    with interrupt_before("TransactWriteItems", lambda: happens(site)) as client:
        report = Maintenance(site.dependencies(store=Store(client(table), table.name))).sweep()

    assert ([], {"Connector": 1}) == (report.failed, report.done)
    persisted = site.connector().persisted
    assert persisted is not None
    assert StatusSource.MAINTENANCE != persisted.source
    assert "StatusReleased" not in {entry.kind for entry in site.store.timeline("cp", limit=50)}


@pytest.mark.note("F72")
@pytest.mark.parametrize("minutes", ["0", "-5"])
def test_status_release_zero_disables_release(table, minutes):
    site = site_with_settings(table, STATUS_RELEASE_MINUTES=minutes)
    leave_stale_status(site, "cp")

    assert {} == site.sweep_after(20 * DAY)

    assert "Faulted" == getattr(site.connector().persisted, "raw", None)
