"""Whether the bill is captured or the hold released, when that is tried again, and until when it must be done."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from csms.charging import checkout, settlement
from csms.errors import IllegalTransition
from csms.model import Money, OutboxKind, ReservationState, Snapshot
from csms.model import ReservationState as S
from csms.ports.payments import Payment, PaymentStatus
from tests import builders as b
from tests.builders import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SNAPSHOT_BY_STATE,
    decision_context,
    get_reservation,
    owed_kinds,
    payment,
)
from tests.unit.settlement_cases import stop

# The bill


@pytest.mark.note("F65", "F66")
@pytest.mark.parametrize(
    ("energy_wh", "amount", "money", "owed"),
    [
        (10_000, 645, Money.CAPTURING, OutboxKind.CAPTURE),
        (30_000, 1835, Money.CAPTURING, OutboxKind.CAPTURE),
        (90_000, 1835, Money.CAPTURING, OutboxKind.CAPTURE),
        (0, 0, Money.RELEASING, OutboxKind.RELEASE),
    ],
    ids=["f65 exactly the bill", "f65 the ceiling", "f65 capped at the authorization", "f66 no energy"],
)
def test_settled_amount_is_captured_or_released(energy_wh: int, amount: int, money: Money, owed: OutboxKind) -> None:
    after = stop(b.charging_snapshot(), energy_wh, at=NOW + SECOND)

    held = get_reservation(after)
    assert (ReservationState.COMPLETED, money, amount, energy_wh) == (
        held.state,
        held.money,
        held.amount,
        held.energy_wh,
    )
    assert [owed] == [outbox_item.kind for outbox_item in after.outbox_items[-1:]]
    assert (NOW + SECOND, NOW + SECOND, None) == (held.stopped_at, held.ended_at, held.failure_code)
    assert after.connector(1).lock is None


@pytest.mark.note("F66")
@pytest.mark.parametrize(
    ("minimum", "owed"), [(110, OutboxKind.CAPTURE), (111, OutboxKind.RELEASE)], ids=["exactly it", "below it"]
)
def test_exact_minimum_is_captured_less_released(minimum: int, owed: OutboxKind) -> None:
    before = b.charging_snapshot()
    tariff = replace(b.TARIFF, minimum_amount=minimum)
    before = replace(before, reservation=replace(get_reservation(before), tariff=tariff))

    assert owed == stop(before, 1000).outbox_items[-1].kind


def test_capture_and_release_clear_the_outbox() -> None:
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=645)
    taken_ = settlement.record_capture(b.completed_snapshot(), word, decision_context())
    given = settlement.record_release(b.failed_snapshot(), decision_context())

    assert (Money.CAPTURED, 645, []) == (
        get_reservation(taken_).money,
        get_reservation(taken_).captured_amount,
        owed_kinds(taken_),
    )
    assert (Money.RELEASED, []) == (get_reservation(given).money, owed_kinds(given))
    assert (["Captured"], ["Released"]) == (b.audit_events(taken_), b.audit_events(given))


@pytest.mark.note("F67")
@pytest.mark.parametrize("reached", SNAPSHOT_BY_STATE.values(), ids=SNAPSHOT_BY_STATE)
def test_no_capture_or_release_happens_twice(reached: Callable[[], Snapshot]) -> None:
    before = reached()
    owed = get_reservation(before).money

    if owed is not Money.CAPTURING:
        with pytest.raises(IllegalTransition):
            settlement.record_capture(before, payment(PaymentStatus.CAPTURED), decision_context())
    if owed is not Money.RELEASING:
        with pytest.raises(IllegalTransition):
            settlement.record_release(before, decision_context())


# What is owed


@pytest.mark.note("F67")
def test_failed_capture_retries_then_needs_review() -> None:
    seen, waits = b.completed_snapshot(), []
    for _ in range(7):
        seen = settlement.put_off(seen, OutboxKind.CAPTURE, "no answer", decision_context(), final=False)
        waits.append(seen.outbox_items[-1].due_at - NOW if seen.outbox_items[-1].due_at else None)

    after = settlement.put_off(seen, OutboxKind.CAPTURE, "no answer", decision_context(), final=False)

    assert [minutes * MINUTE for minutes in (1, 2, 4, 8, 16, 32, 60)] == waits
    assert (Money.CAPTURING, Money.NEEDS_REVIEW) == (get_reservation(seen).money, get_reservation(after).money)
    assert (None, 8, "no answer") == (
        after.outbox_items[-1].due_at,
        after.outbox_items[-1].attempts,
        after.outbox_items[-1].last_error,
    )
    assert ["AttemptFailed", "NeedsReview"] == b.audit_events(after)[-2:]
    assert 8 == b.audit_events(after).count("AttemptFailed"), "each attempt is on record"


@pytest.mark.note("F67")
@pytest.mark.parametrize(
    ("reached", "kind"),
    [(b.completed_snapshot, OutboxKind.CAPTURE), (b.failed_snapshot, OutboxKind.RELEASE)],
    ids=["capture", "release"],
)
def test_refused_capture_or_release_needs_review(reached: Callable[[], Snapshot], kind: OutboxKind) -> None:
    after = settlement.put_off(reached(), kind, "no", decision_context(), final=True)

    assert Money.NEEDS_REVIEW == get_reservation(after).money
    assert (None, 1) == (after.outbox_items[-1].due_at, after.outbox_items[-1].attempts)
    assert ("NeedsReview", "no") == (after.records[-1].record.event, after.records[-1].record.detail)


@pytest.mark.note("F64")
def test_failed_checkout_expiry_retries_forever() -> None:
    seen = b.cancelled_snapshot()
    for _ in range(20):
        seen = settlement.put_off(seen, OutboxKind.EXPIRE_CHECKOUT, "no answer", decision_context(), final=False)

    assert [(NOW + HOUR, 20)] == [(outbox_item.due_at, outbox_item.attempts) for outbox_item in seen.outbox_items]


def test_refused_checkout_expiry_is_given_up() -> None:
    after = settlement.put_off(
        b.cancelled_snapshot(), OutboxKind.EXPIRE_CHECKOUT, "already expired", decision_context(), final=True
    )

    assert ([], Money.NONE) == (owed_kinds(after), get_reservation(after).money)
    assert ["AttemptFailed", "GaveUp"] == b.audit_events(after)


@pytest.mark.note("F64")
def test_unclosable_checkout_ends_its_reservation() -> None:
    before = b.pending_payment_snapshot()
    closing = b.apply_decision(before, checkout.expire(before, decision_context(NOW + 33 * MINUTE)))

    after = settlement.put_off(
        closing, OutboxKind.EXPIRE_CHECKOUT, "resource_missing", decision_context(NOW + 34 * MINUTE), final=True
    )

    assert (S.CANCELLED, []) == (get_reservation(after).state, owed_kinds(after))


# Before the authorization lapses


@pytest.mark.note("F69")
@pytest.mark.parametrize(
    ("hours", "settles"), [(7 * 24, 7 * 24 - 6), (8, 4), (None, 4 * 24 - 6)], ids=["a week", "short", "nobody says"]
)
def test_session_settles_before_authorization_lapses(hours: int | None, settles: int) -> None:
    word = payment(capture_before=None if hours is None else NOW + hours * HOUR)

    assert NOW + settles * HOUR == settlement.settle_deadline(word, decision_context())


@pytest.mark.note("F69")
def test_charge_ends_before_authorization_lapses() -> None:
    charging = b.charging_snapshot(capture_before=NOW + 10 * HOUR)
    running = charging.connector(1).transaction

    assert running is not None
    assert NOW + 5 * HOUR == running.ends_at
