"""Payments as the service sees to them: events heard once, books compared, and money under review in human hands."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from csms.charging import checkout
from csms.charging.operations import OperatorCommand
from csms.errors import BadRequest, Conflict, IllegalTransition, PaymentRefused, PaymentUnavailable
from csms.model import Drop, Money, Reservation, ReservationState
from csms.ocpp.spoken import DIALECTS
from csms.service import Dependencies, Operators
from tests.unit.test_service import World

REASON = "The driver called."


@pytest.fixture
def world() -> World:
    it = World()
    it.bring_online()
    return it


def operator_command(expected: str) -> OperatorCommand:
    return OperatorCommand(who="eve@example.org", reason=REASON, expected=expected)


def read_reservation(world: World, rid: str) -> Reservation:
    return world.store.reservation(rid)


def complete_session(world: World, energy_wh: int = 10_000) -> str:
    """A session that was paid, charged and stopped."""
    rid = world.create_paid_reservation()
    start = {"connectorId": 1, "idTag": read_reservation(world, rid).id_tag, "meterStart": 1000}
    number = world.send_call("StartTransaction", **start, timestamp=world.clock.at.isoformat())[2]["transactionId"]
    stop = {"transactionId": number, "meterStop": 1000 + energy_wh}
    world.send_call("StopTransaction", **stop, timestamp=world.clock.at.isoformat())
    return rid


def create_payment_under_review(world: World) -> str:
    """A session whose capture the provider refused for good."""
    world.provider.fail_next("capture", PaymentRefused("The payment provider refused: card_declined."))
    rid = complete_session(world)
    assert Money.NEEDS_REVIEW is read_reservation(world, rid).money
    return rid


def operators(world: World) -> Operators:
    """The operators' side, which has no payment provider: what is owed is left to whoever is asked."""
    asked: list[Any] = []
    dependencies = Dependencies(
        store=world.store,
        dialects=DIALECTS,
        gateway=world.gateway,  # type: ignore[arg-type]
        trigger_maintenance=asked.append,
        now=world.clock,
    )
    return Operators(dependencies)


# Events


@pytest.mark.note("F62")
def test_webhook_event_is_processed_once(world: World) -> None:
    created = world.drivers.create("CP1", 1)
    rid = created["reservationId"]
    notice = world.provider.build_webhook(rid, event_id="evt_1")
    world.provider.pay(read_reservation(world, rid).checkout_id or "")
    first = world.drivers.receive_webhook(*notice)
    world.provider.fail_next("payment", PaymentUnavailable("Nobody may be asked again."))

    again = world.drivers.receive_webhook(*notice)

    assert {"received": "evt_1", "about": rid} == first
    assert {"received": "evt_1", "about": rid, "again": True} == again
    assert ReservationState.START_REQUESTED is read_reservation(world, rid).state


@pytest.mark.note("F62")
def test_failed_event_is_not_remembered(world: World) -> None:
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(read_reservation(world, rid).checkout_id or "")
    notice = world.provider.build_webhook(rid, event_id="evt_1")
    world.provider.fail_next("payment", PaymentUnavailable("No answer."))
    with pytest.raises(PaymentUnavailable):
        world.drivers.receive_webhook(*notice)

    assert "again" not in world.drivers.receive_webhook(*notice)
    assert ReservationState.START_REQUESTED is read_reservation(world, rid).state


@pytest.mark.note("F62")
@pytest.mark.parametrize("about", [None, "0" * 32], ids=["nothing of ours", "a reservation that never was"])
def test_unrelated_event_is_acknowledged(world: World, about: str | None) -> None:
    assert {"received": "evt_1", "about": None} == world.drivers.receive_webhook(
        *world.provider.build_webhook(about, "invoice.paid", event_id="evt_1")
    )


@pytest.mark.note("F35")
def test_event_bus_event_starts_charge(world: World) -> None:
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(read_reservation(world, rid).checkout_id or "")
    body, _ = world.provider.build_webhook(rid, event_id="evt_1")

    world.drivers.receive_event(json.loads(body))

    assert ReservationState.START_REQUESTED is read_reservation(world, rid).state
    with pytest.raises(BadRequest):
        world.drivers.receive_event({"no": "event"})


# Reconciliation


@pytest.mark.note("F63")
def test_matching_records_reconcile_without_difference(world: World) -> None:
    world.create_paid_reservation()

    report = world.maintenance.reconcile()

    assert (1, 1, 0) == (report.authorisations, report.reservations, report.differences)


@pytest.mark.note("F63")
def test_reconciliation_acts_on_missed_payment(world: World) -> None:
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(read_reservation(world, rid).checkout_id or "")

    report = world.maintenance.reconcile()

    assert (1, 0, 0) == (report.authorisations, report.reservations, report.differences)
    assert ReservationState.START_REQUESTED is read_reservation(world, rid).state


@pytest.mark.note("F63")
def test_hold_without_reservation_is_reported(world: World) -> None:
    rid = world.create_paid_reservation()
    world.store.commit([Drop(read_reservation(world, rid))])

    report = world.maintenance.reconcile()

    assert 1 == len(report.unknown) == report.differences
    assert "which does not exist" in report.unknown[0]


@pytest.mark.note("F63")
def test_hold_of_settled_reservation_is_reported(world: World) -> None:
    rid = create_payment_under_review(world)
    payment_id = read_reservation(world, rid).payment_id or ""
    operators(world).settle_payment(rid, 0, operator_command("needs_review"))

    report = world.maintenance.reconcile()

    assert [f"{payment_id} holds 2430 for reservation {rid}, which is Completed and released"] == report.unknown


@pytest.mark.note("F63")
def test_missing_hold_is_reported_or_ended(world: World) -> None:
    rid, second = create_payment_under_review(world), world.create_paid_reservation(2)
    for one in (rid, second):
        world.provider.release(read_reservation(world, one).payment_id or "", key=f"by hand {one}")

    report = world.maintenance.reconcile()

    assert [
        f"reservation {rid} is needs_review, and {read_reservation(world, rid).payment_id} holds nothing"
    ] == report.missing
    assert (ReservationState.FAILED, Money.RELEASED) == (
        read_reservation(world, second).state,
        read_reservation(world, second).money,
    )


@pytest.mark.note("F63")
def test_hold_of_unknown_checkout_is_reported(world: World) -> None:
    rid = world.drivers.create("CP1", 1)["reservationId"]
    asked = checkout.build_order(read_reservation(world, rid), public_url="", window=timedelta(minutes=30))
    world.provider.pay(world.provider.open_checkout(asked, key="somebody else's").checkout_id)

    report = world.maintenance.reconcile()

    assert [True] == [f"reservation {rid}, which is PendingPayment" in line for line in report.unknown]


@pytest.mark.note("F63")
def test_unverifiable_difference_is_still_reported(world: World) -> None:
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(read_reservation(world, rid).checkout_id or "")
    world.provider.fail_next("payment", PaymentUnavailable("No answer."))

    assert [True] == [line.endswith(": No answer.") for line in world.maintenance.reconcile().unknown]


# Money under review


@pytest.mark.note("F63", "F67")
def test_review_list_holds_payment_until_captured(world: World) -> None:
    rid = create_payment_under_review(world)
    listed = operators(world).payments(Money.NEEDS_REVIEW, limit=10)["payments"]

    operators(world).retry_payment(rid, operator_command("needs_review"))
    world.clock.move(timedelta(minutes=1))
    world.maintenance.sweep()

    assert [(rid, "The payment provider refused: card_declined.")] == [
        (one["reservationId"], one["review"]) for one in listed
    ]
    assert (Money.CAPTURED, [645]) == (read_reservation(world, rid).money, world.provider.captured_amounts())
    assert [] == operators(world).payments(Money.NEEDS_REVIEW, limit=10)["payments"]


@pytest.mark.note("F63")
def test_operator_releases_hold_under_review(world: World) -> None:
    rid = create_payment_under_review(world)

    operators(world).release_payment(rid, operator_command("needs_review"))
    world.clock.move(timedelta(minutes=1))
    world.maintenance.sweep()

    assert (Money.RELEASED, 0) == (read_reservation(world, rid).money, world.provider.held_amount())


@pytest.mark.note("F75")
def test_payment_action_is_signed_and_conditional(world: World) -> None:
    rid = create_payment_under_review(world)
    with pytest.raises(Conflict) as changed:
        operators(world).retry_payment(rid, operator_command("capturing"))

    told = operators(world).settle_payment(rid, 645, operator_command("needs_review"))

    assert "StateChanged" == changed.value.code
    assert ("captured", 645, None) == (told["money"], told["capturedAmount"], told["review"])
    assert [f"eve@example.org: {REASON}"] == [s["detail"] for s in told["steps"] if s["event"] == "PaymentSettled"]
    with pytest.raises(IllegalTransition):
        operators(world).release_payment(rid, operator_command("captured"))


@pytest.mark.note("F63")
def test_failed_capture_attempts_are_audited(world: World) -> None:
    rid = complete_session_without_answer(world)

    trail = operators(world).payment(rid)["steps"]

    assert ["capture 1: No answer.", "capture 2: No answer."] == [
        audit_entry["detail"] for audit_entry in trail if audit_entry["event"] == "AttemptFailed"
    ]


def complete_session_without_answer(world: World) -> str:
    for _ in range(2):
        world.provider.fail_next("capture", PaymentUnavailable("No answer."))
    rid = complete_session(world)
    world.clock.move(timedelta(minutes=2))
    world.maintenance.sweep()
    return rid


def end_by_implied_stop(world: World, *, metered_wh: int = 10_000) -> tuple[str, int]:
    """A session whose stop never came, so that it was ended and captured after the grace; and its transaction."""
    rid = world.create_paid_reservation()
    now = world.clock.at.isoformat()
    start = {"connectorId": 1, "idTag": read_reservation(world, rid).id_tag, "meterStart": 1000, "timestamp": now}
    number = world.send_call("StartTransaction", **start)[2]["transactionId"]
    value = {"timestamp": now, "sampledValue": [{"value": str(1000 + metered_wh)}]}
    world.send_call("MeterValues", connectorId=1, transactionId=number, meterValue=[value])
    world.report_status(1, "Available")
    world.clock.move(timedelta(minutes=6))
    world.maintenance.sweep()
    return rid, number


@pytest.mark.note("F55")
@pytest.mark.parametrize("acted", [False, True], ids=["nothing happened", "only its answer was lost"])
def test_late_lower_stop_is_refunded_once(world: World, acted: bool) -> None:
    rid, number = end_by_implied_stop(world)
    world.provider.fail_next("refund", PaymentUnavailable("No answer."), acted=acted)
    stop = {"transactionId": number, "meterStop": 5000, "timestamp": world.clock.at.isoformat()}
    world.send_call("StopTransaction", **stop)
    before = read_reservation(world, rid)

    world.clock.move(timedelta(minutes=2))
    world.maintenance.sweep()
    world.send_call("StopTransaction", **stop)
    world.clock.move(timedelta(minutes=2))
    world.maintenance.sweep()

    after = read_reservation(world, rid)
    assert (Money.REFUNDING, 288, 645) == (before.money, before.amount, before.captured_amount)
    assert (Money.CAPTURED, 357, 357) == (after.money, after.refunded_amount, world.provider.refunded_amount())


@pytest.mark.note("F55", "F67")
@pytest.mark.parametrize("acted", [False, True], ids=["nothing happened", "only its answer was lost"])
def test_bill_lowered_during_capture_is_refunded(world: World, acted: bool) -> None:
    world.provider.fail_next("capture", PaymentUnavailable("No answer."), acted=acted)
    rid, number = end_by_implied_stop(world)
    world.send_call("StopTransaction", transactionId=number, meterStop=5000, timestamp=world.clock.at.isoformat())
    between = read_reservation(world, rid)

    world.clock.move(timedelta(minutes=5))
    world.maintenance.sweep()

    after = read_reservation(world, rid)
    assert (Money.CAPTURING, 288, 645) == (between.money, between.amount, between.capture_amount)
    assert (Money.CAPTURED, [645], 357) == (
        after.money,
        world.provider.captured_amounts(),
        world.provider.refunded_amount(),
    )


@pytest.mark.note("F58", "F55")
@pytest.mark.parametrize("meter_stop", [0, 900, 12_000], ids=["zero", "below the start", "more"])
def test_implausible_or_higher_stop_moves_no_money(world: World, meter_stop: int) -> None:
    rid, number = end_by_implied_stop(world)

    world.send_call("StopTransaction", transactionId=number, meterStop=meter_stop, timestamp=world.clock.at.isoformat())

    assert (Money.CAPTURED, 645, 0) == (
        read_reservation(world, rid).money,
        read_reservation(world, rid).amount,
        world.provider.refunded_amount(),
    )
