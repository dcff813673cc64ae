"""A payment under review: what an operator, or a late answer of the provider, does about it."""

from collections.abc import Callable
from typing import Any

import pytest

from csms.charging import review, settlement
from csms.errors import IllegalTransition
from csms.model import Money, OutboxKind, ReservationState, Snapshot
from csms.model import ReservationState as S
from csms.ports.payments import PaymentStatus
from tests import builders as b
from tests.builders import SNAPSHOT_BY_STATE, decision_context, get_reservation, owed_kinds, payment
from tests.unit.settlement_cases import apply_capture, implied_stop_snapshot


def payment_under_review_snapshot(kind: OutboxKind = OutboxKind.CAPTURE) -> Snapshot:
    before = b.completed_snapshot() if kind is OutboxKind.CAPTURE else b.failed_snapshot()
    return b.apply_decision(before, settlement.put_off(before, kind, "no", decision_context(), final=True))


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("kind", "money"), [(OutboxKind.CAPTURE, Money.CAPTURING), (OutboxKind.RELEASE, Money.RELEASING)]
)
def test_retry_by_operator_restores_all_attempts(kind: OutboxKind, money: Money) -> None:
    after = b.apply_decision(
        payment_under_review_snapshot(kind),
        review.retry_payment(payment_under_review_snapshot(kind), decision_context()),
    )
    for _ in range(7):
        after = settlement.put_off(after, kind, "no answer", decision_context(), final=False)

    assert (money, 8, True) == (
        get_reservation(after).money,
        after.outbox_items[-1].attempts,
        after.outbox_items[-1].due_at is not None,
    )
    assert (
        Money.NEEDS_REVIEW
        == get_reservation(settlement.put_off(after, kind, "no answer", decision_context(), final=False)).money
    )


@pytest.mark.note("F63")
@pytest.mark.parametrize("kind", [OutboxKind.CAPTURE, OutboxKind.RELEASE])
def test_money_under_review_can_be_released(kind: OutboxKind) -> None:
    after = b.apply_decision(
        payment_under_review_snapshot(kind),
        review.release_payment(payment_under_review_snapshot(kind), decision_context()),
    )

    assert (Money.RELEASING, [OutboxKind.RELEASE]) == (get_reservation(after).money, owed_kinds(after))


@pytest.mark.note("F63")
@pytest.mark.parametrize(("amount", "money"), [(600, Money.CAPTURED), (0, Money.RELEASED)])
def test_operator_settlement_at_provider_ends_review(amount: int, money: Money) -> None:
    after = review.settle_by_hand(payment_under_review_snapshot(), amount, decision_context())

    assert (money, amount or None, []) == (
        get_reservation(after).money,
        get_reservation(after).captured_amount,
        owed_kinds(after),
    )


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    "act",
    [
        review.retry_payment,
        review.release_payment,
        lambda before, at: review.settle_by_hand(before, 100, at),
    ],
    ids=["try again", "let go", "settle by hand"],
)
@pytest.mark.parametrize("state", S)
def test_only_money_under_review_accepts_actions(state: ReservationState, act: Any) -> None:
    with pytest.raises(IllegalTransition, match="needs no review"):
        act(SNAPSHOT_BY_STATE[state](), decision_context())


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("before", "bill"),
    [(lambda: payment_under_review_snapshot(), 645), (lambda: payment_under_review_snapshot(OutboxKind.RELEASE), 0)],
    ids=["billed", "nothing to bill"],
)
def test_manual_settlement_cannot_exceed_bill(before: Callable[[], Snapshot], bill: int) -> None:
    review.settle_by_hand(before(), bill, decision_context())

    with pytest.raises(IllegalTransition, match="refund what was captured"):
        review.settle_by_hand(before(), bill + 1, decision_context())


@pytest.mark.note("F55", "F63")
def test_manual_refund_counts_as_refunded() -> None:
    paid_up = apply_capture(implied_stop_snapshot(), 645)
    refunding = b.apply_decision(paid_up, settlement.correct_bill(paid_up, 2_000, decision_context()))
    stuck = b.apply_decision(
        refunding, settlement.put_off(refunding, OutboxKind.REFUND, "no", decision_context(), final=True)
    )

    after = get_reservation(review.settle_by_hand(stuck, 169, decision_context()))

    assert (Money.CAPTURED, 645, 476, 169) == (after.money, after.captured_amount, after.refunded_amount, after.amount)


@pytest.mark.note("F63")
def test_late_capture_answer_ends_review() -> None:
    after = settlement.record_capture(
        payment_under_review_snapshot(), payment(PaymentStatus.CAPTURED, captured_amount=645), decision_context()
    )

    assert (Money.CAPTURED, None, []) == (
        get_reservation(after).money,
        get_reservation(after).review,
        owed_kinds(after),
    )


@pytest.mark.note("F63")
def test_captured_money_cannot_be_released() -> None:
    owing = b.apply_decision(
        implied_stop_snapshot(),
        settlement.correct_bill(apply_capture(implied_stop_snapshot(), 645), 4_000, decision_context()),
    )
    refused = b.apply_decision(
        owing, settlement.put_off(owing, OutboxKind.REFUND, "no", decision_context(), final=True)
    )

    with pytest.raises(IllegalTransition, match="The payment was captured"):
        review.release_payment(refused, decision_context())


@pytest.mark.note("F55", "F63")
def test_correction_after_capture_keeps_captured_bill() -> None:
    paid_up = apply_capture(implied_stop_snapshot(), 645)
    refunding = b.apply_decision(paid_up, settlement.correct_bill(paid_up, 4_000, decision_context()))
    refused = b.apply_decision(
        refunding, settlement.put_off(refunding, OutboxKind.REFUND, "no", decision_context(), final=True)
    )

    after = get_reservation(settlement.correct_bill(refused, 2_000, decision_context()))

    assert (Money.NEEDS_REVIEW, 169, 645) == (after.money, after.amount, after.capture_amount)
