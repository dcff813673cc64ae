"""How a reservation ends before it charges: cancelled by its driver, or over its deadline."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms import occupancy
from csms.charging import checkout
from csms.errors import IllegalTransition, NotFound
from csms.model import FailureCode, Money, OutboxKind, Policy, ReservationState, Snapshot
from csms.ports.payments import PaymentStatus
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

S = ReservationState


@pytest.mark.parametrize("state", [S.PENDING_PAYMENT, S.AUTHORIZED, S.START_REQUESTED])
def test_uncharging_reservation_can_be_cancelled(state: ReservationState) -> None:
    after = checkout.cancel(SNAPSHOT_BY_STATE[state](), decision_context())

    held = get_reservation(after)
    assert (S.CANCELLED, FailureCode.CANCELLED_BY_DRIVER) == (held.state, held.failure_code)
    assert after.connector(1).lock is None


@pytest.mark.parametrize("state", [S.CHARGING, S.WAITING_FOR_DISCONNECT, S.COMPLETED, S.FAILED])
def test_charging_or_ended_reservation_cannot_be_cancelled(state: ReservationState) -> None:
    with pytest.raises(IllegalTransition):
        checkout.cancel(SNAPSHOT_BY_STATE[state](), decision_context())


def test_repeated_cancel_changes_nothing() -> None:
    before = b.cancelled_snapshot()

    assert before == checkout.cancel(before, decision_context())


@pytest.mark.note("F27", "F72")
@pytest.mark.parametrize(
    ("reached", "state", "code"),
    [
        (b.owed_checkout_snapshot, S.CANCELLED, FailureCode.PAYMENT_TIMEOUT),
        (b.authorized_snapshot, S.FAILED, FailureCode.START_TIMEOUT),
        (b.start_requested_snapshot, S.FAILED, FailureCode.START_TIMEOUT),
    ],
)
def test_reservation_deadline_is_inclusive(reached: Any, state: ReservationState, code: FailureCode) -> None:
    before = reached()
    last = get_reservation(before).expires_at

    after = checkout.expire(before, decision_context(last + timedelta(microseconds=1)))

    assert before == checkout.expire(before, decision_context(last))
    assert (state, code) == (get_reservation(after).state, get_reservation(after).failure_code)
    assert after.connector(1).lock is None


def closing_checkout_snapshot() -> Snapshot:
    """The checkout's time is over, and the provider has not said yet how it ended."""
    return b.apply_decision(
        b.pending_payment_snapshot(), checkout.expire(b.pending_payment_snapshot(), decision_context(NOW + 33 * MINUTE))
    )


@pytest.mark.note("F64")
def test_timed_out_checkout_expires_before_reservation() -> None:
    after = closing_checkout_snapshot()

    held = get_reservation(after)
    assert (S.PENDING_PAYMENT, NOW + HOUR) == (held.state, held.due_at)
    assert [OutboxKind.EXPIRE_CHECKOUT] == owed_kinds(after)
    assert "ActiveReservation" not in occupancy.busy_reasons(after, 1, now=NOW + 33 * MINUTE, policy=Policy())
    assert after == checkout.expire(after, decision_context(NOW + HOUR))


@pytest.mark.note("F64")
@pytest.mark.parametrize(
    ("word", "state"),
    [(PaymentStatus.EXPIRED, S.CANCELLED), (PaymentStatus.AUTHORIZED, S.START_REQUESTED)],
    ids=["unpaid", "paid in the last moment"],
)
def test_expired_checkout_ends_reservation_unless_paid(word: PaymentStatus, state: ReservationState) -> None:
    after = checkout.apply_expired_checkout(
        closing_checkout_snapshot(), payment(word), decision_context(NOW + 34 * MINUTE, serial=9)
    )

    assert (state, []) == (get_reservation(after).state, owed_kinds(after))
    assert (state is S.START_REQUESTED) == (after.connector(1).lock is not None)


@pytest.mark.note("F64")
def test_payment_after_lock_taken_is_released() -> None:
    before = closing_checkout_snapshot()
    taken = before.with_connector(replace(before.connector(1), lock=b.lock()))

    after = checkout.apply_expired_checkout(taken, payment(), decision_context(NOW + 34 * MINUTE, serial=9))

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.CONNECTOR_TAKEN, Money.RELEASING) == (held.state, held.failure_code, held.money)
    assert [OutboxKind.RELEASE] == owed_kinds(after)
    assert taken.connector(1) == after.connector(1)


@pytest.mark.note("F64")
def test_reservation_timeout_ends_wait_for_provider() -> None:
    after = checkout.expire(closing_checkout_snapshot(), decision_context(NOW + HOUR + SECOND))

    assert (S.CANCELLED, FailureCode.PAYMENT_TIMEOUT) == (
        get_reservation(after).state,
        get_reservation(after).failure_code,
    )
    assert [OutboxKind.EXPIRE_CHECKOUT] == owed_kinds(after)


@pytest.mark.parametrize("state", [S.CHARGING, S.COMPLETED, S.CANCELLED, S.FAILED])
def test_charging_or_ended_reservation_never_expires(state: ReservationState) -> None:
    before = SNAPSHOT_BY_STATE[state]()

    assert before == checkout.expire(before, decision_context(NOW + 1000 * HOUR))


@pytest.mark.parametrize("decision", [checkout.cancel, checkout.expire])
def test_missing_reservation_raises_not_found(decision: Any) -> None:
    with pytest.raises(NotFound) as refused:
        decision(b.snapshot(), decision_context())

    assert "UnknownReservation" == refused.value.code
