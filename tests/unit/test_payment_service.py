"""Payments as the service sees to them: events heard once, books compared, and money under review in human hands."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from csms.charging import checkout
from csms.charging.operations import OperatorCommand
from csms.errors import BadRequest, Conflict, IllegalTransition, PaymentRefused, PaymentUnavailable
from csms.model import Drop, Money, ReservationState
from csms.ports.payments import Payment
from tests.app.in_process import InProcessApp

REASON = "The driver called."


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register().bring_online()


def operator_command(expected: str) -> OperatorCommand:
    return OperatorCommand(who="eve@example.org", reason=REASON, expected=expected)


def create_payment_under_review(app: InProcessApp) -> str:
    """A session whose capture the provider refused for good."""
    app.provider.fail_next("capture", PaymentRefused("The payment provider refused: card_declined."))
    rid = app.finish_session()
    assert Money.NEEDS_REVIEW is app.reservation(rid).money
    return rid


# Events


@pytest.mark.note("F62")
def test_webhook_event_is_processed_once(app: InProcessApp) -> None:
    created = app.create()
    rid = created["reservationId"]
    notice = app.provider.build_webhook(rid, event_id="evt_1")
    app.pay(rid)
    first = app.drivers.receive_webhook(*notice)
    app.provider.fail_next("payment", PaymentUnavailable("Nobody may be asked again."))

    again = app.drivers.receive_webhook(*notice)

    assert {"received": "evt_1", "about": rid} == first
    assert {"received": "evt_1", "about": rid, "again": True} == again
    assert ReservationState.START_REQUESTED is app.reservation(rid).state


@pytest.mark.note("F62")
def test_failed_event_is_not_remembered(app: InProcessApp) -> None:
    rid = app.create_reservation()
    app.pay(rid)
    notice = app.provider.build_webhook(rid, event_id="evt_1")
    app.provider.fail_next("payment", PaymentUnavailable("No answer."))
    with pytest.raises(PaymentUnavailable):
        app.drivers.receive_webhook(*notice)

    assert "again" not in app.drivers.receive_webhook(*notice)
    assert ReservationState.START_REQUESTED is app.reservation(rid).state


@pytest.mark.note("F62")
@pytest.mark.parametrize("about", [None, "0" * 32], ids=["nothing of ours", "a reservation that never was"])
def test_unrelated_event_is_acknowledged(app: InProcessApp, about: str | None) -> None:
    assert {"received": "evt_1", "about": None} == app.drivers.receive_webhook(
        *app.provider.build_webhook(about, "invoice.paid", event_id="evt_1")
    )


@pytest.mark.note("F35")
def test_event_bus_event_starts_charge(app: InProcessApp) -> None:
    rid = app.create_reservation()
    app.pay(rid)
    body, _ = app.provider.build_webhook(rid, event_id="evt_1")

    app.drivers.receive_event(json.loads(body))

    assert ReservationState.START_REQUESTED is app.reservation(rid).state
    with pytest.raises(BadRequest):
        app.drivers.receive_event({"no": "event"})


# Reconciliation


@pytest.mark.note("F63")
def test_matching_records_reconcile_without_difference(app: InProcessApp) -> None:
    app.create_paid_reservation()

    report = app.maintenance.reconcile()

    assert (1, 1, 0) == (report.authorizations, report.reservations, report.differences)


@pytest.mark.note("F63")
def test_reconciliation_acts_on_missed_payment(app: InProcessApp) -> None:
    rid = app.create_reservation()
    app.pay(rid)

    report = app.maintenance.reconcile()

    assert (1, 0, 0) == (report.authorizations, report.reservations, report.differences)
    assert ReservationState.START_REQUESTED is app.reservation(rid).state


@pytest.mark.note("F63")
def test_hold_without_reservation_is_reported(app: InProcessApp) -> None:
    rid = app.create_paid_reservation()
    app.store.commit([Drop(app.reservation(rid))])

    report = app.maintenance.reconcile()

    assert 1 == len(report.unknown) == report.differences
    assert "which does not exist" in report.unknown[0]


@pytest.mark.note("F63")
def test_hold_of_settled_reservation_is_reported(app: InProcessApp) -> None:
    rid = create_payment_under_review(app)
    payment_id = app.reservation(rid).payment_id or ""
    app.operators.settle_payment(rid, 0, operator_command("needs_review"))

    report = app.maintenance.reconcile()

    assert [f"{payment_id} holds 2430 for reservation {rid}, which is Completed and released"] == report.unknown


@pytest.mark.note("F63")
def test_missing_hold_is_reported_or_ended(app: InProcessApp) -> None:
    rid, second = create_payment_under_review(app), app.create_paid_reservation(2)
    for one in (rid, second):
        app.provider.release(app.reservation(one).payment_id or "", key=f"by hand {one}")

    report = app.maintenance.reconcile()

    assert [f"reservation {rid} is needs_review, and {app.reservation(rid).payment_id} holds nothing"] == report.missing
    assert (ReservationState.FAILED, Money.RELEASED) == (
        app.reservation(second).state,
        app.reservation(second).money,
    )


@pytest.mark.note("F63")
def test_hold_of_unknown_checkout_is_reported(app: InProcessApp) -> None:
    rid = app.create_reservation()
    asked = checkout.build_order(app.reservation(rid), public_url="", window=timedelta(minutes=30))
    app.provider.pay(app.provider.open_checkout(asked, key="somebody else's").checkout_id)

    report = app.maintenance.reconcile()

    assert [True] == [f"reservation {rid}, which is PendingPayment" in line for line in report.unknown]


@pytest.mark.note("F63")
def test_unverifiable_difference_is_still_reported(app: InProcessApp) -> None:
    rid = app.create_reservation()
    app.pay(rid)
    app.provider.fail_next("payment", PaymentUnavailable("No answer."))

    assert [True] == [line.endswith(": No answer.") for line in app.maintenance.reconcile().unknown]


# Money under review


@pytest.mark.note("F63", "F67")
def test_review_list_holds_payment_until_captured(app: InProcessApp) -> None:
    rid = create_payment_under_review(app)
    listed = app.operators.payments(Money.NEEDS_REVIEW, limit=10)["payments"]

    app.operators.retry_payment(rid, operator_command("needs_review"))
    app.clock.move(timedelta(minutes=1))
    app.sweep()

    assert [(rid, "The payment provider refused: card_declined.")] == [
        (one["reservationId"], one["review"]) for one in listed
    ]
    assert (Money.CAPTURED, [645]) == (app.reservation(rid).money, app.provider.captured_amounts())
    assert [] == app.operators.payments(Money.NEEDS_REVIEW, limit=10)["payments"]


@pytest.mark.note("F63")
def test_operator_releases_hold_under_review(app: InProcessApp) -> None:
    rid = create_payment_under_review(app)

    app.operators.release_payment(rid, operator_command("needs_review"))
    app.clock.move(timedelta(minutes=1))
    app.sweep()

    assert (Money.RELEASED, 0) == (app.reservation(rid).money, app.provider.held_amount())


@pytest.mark.note("F75")
def test_payment_action_is_signed_and_conditional(app: InProcessApp) -> None:
    rid = create_payment_under_review(app)
    with pytest.raises(Conflict) as changed:
        app.operators.retry_payment(rid, operator_command("capturing"))

    told = app.operators.settle_payment(rid, 645, operator_command("needs_review"))

    assert "StateChanged" == changed.value.code
    assert ("captured", 645, None) == (told["money"], told["capturedAmount"], told["review"])
    assert [f"eve@example.org: {REASON}"] == [s["detail"] for s in told["steps"] if s["event"] == "PaymentSettled"]
    with pytest.raises(IllegalTransition):
        app.operators.release_payment(rid, operator_command("captured"))


@pytest.mark.note("F63")
def test_failed_capture_attempts_are_audited(app: InProcessApp) -> None:
    rid = complete_session_without_answer(app)

    trail = app.operators.payment(rid)["steps"]

    assert ["capture 1: No answer.", "capture 2: No answer."] == [
        audit_entry["detail"] for audit_entry in trail if audit_entry["event"] == "AttemptFailed"
    ]


def complete_session_without_answer(app: InProcessApp) -> str:
    for _ in range(2):
        app.provider.fail_next("capture", PaymentUnavailable("No answer."))
    rid = app.finish_session()
    app.clock.move(timedelta(minutes=2))
    app.sweep()
    return rid


def end_by_implied_stop(app: InProcessApp, *, metered_wh: int = 10_000) -> tuple[str, int]:
    """A session whose stop never came, so that it was ended and captured after the grace; and its transaction."""
    rid = app.create_paid_reservation()
    number = app.start_transaction(app.reservation(rid).id_tag)
    app.send_meter_values(number, 1000 + metered_wh)
    app.report_status(1, "Available")
    app.clock.move(timedelta(minutes=6))
    app.sweep()
    return rid, number


@pytest.mark.note("F55")
@pytest.mark.parametrize("acted", [False, True], ids=["nothing happened", "only its answer was lost"])
def test_late_lower_stop_is_refunded_once(app: InProcessApp, acted: bool) -> None:
    rid, number = end_by_implied_stop(app)
    app.provider.fail_next("refund", PaymentUnavailable("No answer."), acted=acted)
    stopped_at = app.time()
    app.stop_transaction(number, 5000)
    before = app.reservation(rid)

    app.clock.move(timedelta(minutes=2))
    app.sweep()
    app.stop_transaction(number, 5000, at=stopped_at)
    app.clock.move(timedelta(minutes=2))
    app.sweep()

    after = app.reservation(rid)
    assert (Money.REFUNDING, 288, 645) == (before.money, before.amount, before.captured_amount)
    assert (Money.CAPTURED, 357, 357) == (after.money, after.refunded_amount, app.provider.refunded_amount())


@pytest.mark.note("F55", "F63")
def test_refund_keeps_key_until_retried(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    refund = app.provider.refund

    def watched(payment_id: str, amount: int, *, key: str) -> Payment:
        keys.append(key)
        return refund(payment_id, amount, key=key)

    monkeypatch.setattr(app.provider, "refund", watched)
    rid, number = end_by_implied_stop(app)
    for failure in (PaymentUnavailable("No answer."), PaymentRefused("The payment provider refused: no_funds.")):
        app.provider.fail_next("refund", failure)
    app.stop_transaction(number, 5000)
    app.clock.move(timedelta(minutes=2))
    app.sweep()
    reviewed = app.reservation(rid).money

    app.operators.retry_payment(rid, operator_command("needs_review"))
    app.clock.move(timedelta(minutes=2))
    app.sweep()

    first, again, retried = keys
    assert Money.NEEDS_REVIEW is reviewed
    assert first == again != retried
    assert (Money.CAPTURED, 357) == (app.reservation(rid).money, app.provider.refunded_amount())


@pytest.mark.note("F55", "F67")
@pytest.mark.parametrize("acted", [False, True], ids=["nothing happened", "only its answer was lost"])
def test_bill_lowered_during_capture_is_refunded(app: InProcessApp, acted: bool) -> None:
    app.provider.fail_next("capture", PaymentUnavailable("No answer."), acted=acted)
    rid, number = end_by_implied_stop(app)
    app.stop_transaction(number, 5000)
    between = app.reservation(rid)

    app.clock.move(timedelta(minutes=5))
    app.sweep()

    after = app.reservation(rid)
    assert (Money.CAPTURING, 288, 645) == (between.money, between.amount, between.capture_amount)
    assert (Money.CAPTURED, [645], 357) == (
        after.money,
        app.provider.captured_amounts(),
        app.provider.refunded_amount(),
    )


@pytest.mark.note("F58", "F55")
@pytest.mark.parametrize("meter_stop", [0, 900, 12_000], ids=["zero", "below the start", "more"])
def test_implausible_or_higher_stop_moves_no_money(app: InProcessApp, meter_stop: int) -> None:
    rid, number = end_by_implied_stop(app)

    app.stop_transaction(number, meter_stop)

    assert (Money.CAPTURED, 645, 0) == (
        app.reservation(rid).money,
        app.reservation(rid).amount,
        app.provider.refunded_amount(),
    )
