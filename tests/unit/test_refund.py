"""A bill that is corrected after its capture: what is refunded, what is only flagged, and the mail that follows."""

import pytest

from csms.charging import settlement
from csms.model import Money, OutboxKind
from csms.ports.payments import Payment, PaymentStatus
from tests import builders as b
from tests.builders import decision_context, get_reservation, owed_kinds
from tests.unit.settlement_cases import apply_capture, implied_stop_snapshot


@pytest.mark.note("F55")
def test_late_lower_stop_refunds_difference() -> None:
    after = settlement.correct_bill(apply_capture(implied_stop_snapshot(), 645), 4_000, decision_context())

    held = get_reservation(after)
    assert (Money.REFUNDING, 288, 645, 645, 4_000) == (
        held.money,
        held.amount,
        held.capture_amount,
        held.captured_amount,
        held.energy_wh,
    )
    assert [OutboxKind.REFUND] == owed_kinds(after)
    assert ("Corrected",) == held.flags


@pytest.mark.note("F55")
def test_bill_lowered_during_capture_refunds_afterwards() -> None:
    lowered = b.apply_decision(
        implied_stop_snapshot(), settlement.correct_bill(implied_stop_snapshot(), 4_000, decision_context())
    )

    after = apply_capture(lowered, 645)

    assert (Money.CAPTURING, 288, 645) == (
        get_reservation(lowered).money,
        get_reservation(lowered).amount,
        get_reservation(lowered).capture_amount,
    )
    assert (Money.REFUNDING, [OutboxKind.REFUND]) == (get_reservation(after).money, owed_kinds(after))


@pytest.mark.note("F55")
def test_late_higher_stop_is_only_flagged() -> None:
    after = settlement.correct_bill(apply_capture(implied_stop_snapshot(), 645), 12_000, decision_context())

    held = get_reservation(after)
    assert (Money.CAPTURED, 645, 10_000, ("Underbilled",)) == (held.money, held.amount, held.energy_wh, held.flags)


@pytest.mark.note("F66", "F55")
def test_late_stop_of_nothing_refunds_all() -> None:
    after = settlement.correct_bill(apply_capture(implied_stop_snapshot(), 645), 0, decision_context())

    assert (Money.REFUNDING, 0) == (get_reservation(after).money, get_reservation(after).amount)


def test_refund_is_recorded_and_leaves_outbox() -> None:
    owing = b.apply_decision(
        implied_stop_snapshot(),
        settlement.correct_bill(apply_capture(implied_stop_snapshot(), 645), 4_000, decision_context()),
    )
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=645, refunded_amount=357)

    after = settlement.record_refund(owing, word, decision_context())

    held = get_reservation(after)
    assert (Money.CAPTURED, 645, 357, []) == (held.money, held.captured_amount, held.refunded_amount, owed_kinds(after))


def test_refunded_difference_is_not_owed_again() -> None:
    """A second correction to the same bill, 288, of which everything beyond was refunded."""
    owing = b.apply_decision(
        implied_stop_snapshot(),
        settlement.correct_bill(apply_capture(implied_stop_snapshot(), 645), 4_000, decision_context()),
    )
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=645, refunded_amount=357)
    refunded = b.apply_decision(owing, settlement.record_refund(owing, word, decision_context()))

    after = settlement.correct_bill(refunded, 4_001, decision_context())

    assert (Money.CAPTURED, 288, []) == (get_reservation(after).money, get_reservation(after).amount, owed_kinds(after))


def test_capture_queues_receipt_mail_if_enabled() -> None:
    assert [] == owed_kinds(apply_capture(implied_stop_snapshot(), 645))
    assert [OutboxKind.EMAIL_RECEIPT] == owed_kinds(apply_capture(implied_stop_snapshot(), 645, email_receipts=True))


def test_capture_below_bill_owes_no_refund() -> None:
    after = apply_capture(implied_stop_snapshot(), 600)

    assert (Money.CAPTURED, []) == (get_reservation(after).money, owed_kinds(after))
