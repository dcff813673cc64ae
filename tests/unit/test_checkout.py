"""A checkout that opens, is refused or comes too late, and the limits of its time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.charging import checkout
from csms.model import FailureCode, OutboxKind, ReservationState
from tests import builders as b
from tests.builders import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SNAPSHOT_BY_STATE,
    apply_decision,
    decision_context,
    get_reservation,
    owed_kinds,
    payment,
    take_connector,
)

S = ReservationState


@pytest.mark.note("F64")
def test_open_checkout_extends_lock_to_expiry() -> None:
    after = checkout.apply_opened_checkout(b.owed_checkout_snapshot(), b.CHECKOUT, decision_context(NOW + SECOND))

    held = get_reservation(after)
    assert (b.CHECKOUT.checkout_id, b.CHECKOUT.url, NOW + 32 * MINUTE) == (
        held.checkout_id,
        held.checkout_url,
        held.expires_at,
    )
    assert NOW + 32 * MINUTE == getattr(after.connector(1).lock, "expires_at", None)
    assert [] == owed_kinds(after)


@pytest.mark.note("F72")
@pytest.mark.parametrize(("timeout", "until"), [(20, 20), (60, 32), (0, 32)], ids=["shorter", "longer", "disabled"])
def test_reservation_timeout_bounds_the_checkout(timeout: int, until: int) -> None:
    now = decision_context(reservation_timeout=timeout * MINUTE)

    after = checkout.apply_opened_checkout(b.owed_checkout_snapshot(), b.CHECKOUT, now)

    assert NOW + until * MINUTE == get_reservation(after).expires_at


@pytest.mark.note("F72")
@pytest.mark.parametrize(("timeout", "until"), [(60, 60), (90, 65), (0, 65)], ids=["shorter", "longer", "disabled"])
def test_reservation_timeout_bounds_the_start(timeout: int, until: int) -> None:
    paid_at = decision_context(NOW + 55 * MINUTE, serial=2, reservation_timeout=timeout * MINUTE)

    held = get_reservation(checkout.apply_payment(b.pending_payment_snapshot(), payment(), paid_at))

    assert (NOW + until * MINUTE, NOW + until * MINUTE) == (held.start_deadline, held.expires_at)


@pytest.mark.note("F72")
@pytest.mark.parametrize(
    ("timeout", "later", "state"),
    [
        (60, HOUR, S.START_REQUESTED),
        (60, HOUR + SECOND, S.CANCELLED),
        (90, HOUR + SECOND, S.START_REQUESTED),
        (0, 5 * HOUR, S.START_REQUESTED),
    ],
    ids=["at its end", "past it", "longer", "disabled"],
)
def test_payment_after_reservation_timeout_is_released(timeout: int, later: timedelta, state: ReservationState) -> None:
    paid_at = decision_context(NOW + later, serial=2, reservation_timeout=timeout * MINUTE)

    after = checkout.apply_payment(b.pending_payment_snapshot(), payment(), paid_at)

    assert state == get_reservation(after).state
    assert ([OutboxKind.RELEASE] if state is S.CANCELLED else []) == owed_kinds(after)


@pytest.mark.note("F64")
def test_checkout_opened_after_cancellation_is_expired() -> None:
    before = b.owed_checkout_snapshot()
    ended = apply_decision(before, checkout.cancel(before, decision_context()))

    after = checkout.apply_opened_checkout(ended, b.CHECKOUT, decision_context())

    assert S.CANCELLED == get_reservation(after).state
    assert "cs_secret" == get_reservation(after).checkout_id
    assert [OutboxKind.EXPIRE_CHECKOUT] == owed_kinds(after)


@pytest.mark.note("F64")
def test_checkout_opened_after_lost_lock_is_expired() -> None:
    after = checkout.apply_opened_checkout(take_connector(b.owed_checkout_snapshot()), b.CHECKOUT, decision_context())

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.CONNECTOR_TAKEN) == (held.state, held.failure_code)
    assert [OutboxKind.EXPIRE_CHECKOUT] == owed_kinds(after)
    assert "somebody" == getattr(after.connector(1).lock, "reservation_id", None)


def test_late_checkout_on_free_connector_is_kept() -> None:
    after = checkout.apply_opened_checkout(b.owed_checkout_snapshot(), b.CHECKOUT, decision_context(NOW + 5 * MINUTE))

    assert S.PENDING_PAYMENT == get_reservation(after).state


def test_failed_checkout_frees_connector_stays_in_outbox() -> None:
    after = checkout.apply_failed_checkout(b.owed_checkout_snapshot(), "no answer", decision_context())

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.CHECKOUT_FAILED) == (held.state, held.failure_code)
    assert after.connector(1).lock is None
    assert [OutboxKind.OPEN_CHECKOUT] == owed_kinds(after)


def test_refused_checkout_leaves_outbox_empty() -> None:
    after = checkout.apply_refused_checkout(b.owed_checkout_snapshot(), "no", decision_context())

    assert S.FAILED == get_reservation(after).state
    assert [] == owed_kinds(after)


@pytest.mark.parametrize("state", sorted(set(S) - {S.PENDING_PAYMENT}))
def test_late_checkout_failure_changes_nothing(state: ReservationState) -> None:
    before = SNAPSHOT_BY_STATE[state]()

    assert before == checkout.apply_failed_checkout(before, "late", decision_context())
