"""What the provider says of a payment, and what becomes of the reservation: started, waiting, moved on or released."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from csms.charging import checkout
from csms.model import CommandKind, FailureCode, Money, OutboxKind, ReservationState, Snapshot, StatusSource
from csms.ports.payments import NOT_AUTHORIZABLE, PaymentStatus
from tests import builders as b
from tests.builders import (
    AUTHORIZED,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SNAPSHOT_BY_STATE,
    decision_context,
    get_reservation,
    owed_kinds,
    payment,
    take_connector,
)

S = ReservationState


def take_and_free_connector(seen: Snapshot) -> Snapshot:
    """Somebody else held the connector and is gone."""
    return seen.with_connector(replace(seen.connector(1), lock=b.lock(expires_at=NOW - HOUR)))


@pytest.mark.note("F34", "F62")
@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("status", PaymentStatus)
def test_provider_status_never_moves_reservation_backwards(state: ReservationState, status: PaymentStatus) -> None:
    moves = {
        (S.PENDING_PAYMENT, PaymentStatus.AUTHORIZED): S.START_REQUESTED,
        (S.PENDING_PAYMENT, PaymentStatus.EXPIRED): S.CANCELLED,
        (S.PENDING_PAYMENT, PaymentStatus.RELEASED): S.CANCELLED,
        **{(s, word): S.FAILED for s in (S.AUTHORIZED, S.START_REQUESTED) for word in NOT_AUTHORIZABLE},
        **{(S.CHARGING, word): S.CHARGING for word in NOT_AUTHORIZABLE},
    }
    before = SNAPSHOT_BY_STATE[state]()

    after = checkout.apply_payment(before, payment(status), decision_context(serial=9))

    late = (state, status) == (S.CANCELLED, PaymentStatus.AUTHORIZED)
    assert moves.get((state, status), state) == get_reservation(after).state
    assert (before == after) == ((state, status) not in moves and not late)


@pytest.mark.note("F63")
@pytest.mark.parametrize("reached", [b.authorized_snapshot, b.start_requested_snapshot])
@pytest.mark.parametrize("word", sorted(NOT_AUTHORIZABLE))
def test_lost_authorization_before_charging_fails_reservation(
    reached: Callable[[], Snapshot], word: PaymentStatus
) -> None:
    after = checkout.apply_payment(reached(), payment(word), decision_context(serial=9))

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.PAYMENT_FAILED, Money.RELEASING) == (held.state, held.failure_code, held.money)
    assert [OutboxKind.RELEASE] == owed_kinds(after)
    assert after.connector(1).lock is None


@pytest.mark.note("F30")
def test_lost_authorization_while_charging_stops_once() -> None:
    after = b.apply_decision(
        b.charging_snapshot(),
        checkout.apply_payment(b.charging_snapshot(), payment(PaymentStatus.RELEASED), decision_context()),
    )

    assert [(CommandKind.REMOTE_STOP, "3")] == [
        (call.kind, call.transaction_id) for call in after.calls if call.kind is CommandKind.REMOTE_STOP
    ]
    assert ("AuthorisationLost",) == get_reservation(after).flags
    assert after == checkout.apply_payment(after, payment(PaymentStatus.RELEASED), decision_context(serial=9))


@pytest.mark.note("F61")
def test_authorized_payment_requests_start() -> None:
    after = checkout.apply_payment(b.pending_payment_snapshot(), payment(), decision_context(NOW + SECOND, serial=2))

    held = get_reservation(after)
    assert (S.START_REQUESTED, Money.AUTHORIZED, "pi_secret", AUTHORIZED) == (
        held.state,
        held.money,
        held.payment_id,
        held.authorised_amount,
    )
    assert ["PaymentAuthorised", "StartSent"] == b.audit_events(after)
    assert [("RemoteStart", 1)] == [(call.kind, call.connector_id) for call in after.calls]


@pytest.mark.note("F27")
def test_start_deadline_is_fixed_at_authorization() -> None:
    paid = checkout.apply_payment(
        b.pending_payment_snapshot(), payment(), decision_context(NOW + SECOND, start_window=5 * MINUTE)
    )

    again = checkout.apply_payment(paid, payment(), decision_context(NOW + MINUTE, start_window=HOUR))

    deadline = NOW + SECOND + 5 * MINUTE
    assert deadline == get_reservation(paid).start_deadline
    assert paid == checkout.expire(paid, decision_context(deadline, start_window=MINUTE))
    assert paid != checkout.expire(paid, decision_context(deadline + SECOND, start_window=HOUR))
    assert get_reservation(paid).expires_at == get_reservation(paid).start_deadline
    assert paid == again


@pytest.mark.note("F27")
def test_waiting_driver_keeps_start_deadline() -> None:
    before = b.authorized_snapshot()
    free = before.with_connector(replace(before.connector(1), live=b.build_live_status("Available")))

    again = checkout.apply_payment(before, payment(), decision_context(NOW + MINUTE, serial=3, start_window=HOUR))
    started = checkout.apply_payment(free, payment(), decision_context(NOW + MINUTE, serial=3, start_window=HOUR))

    assert before == again
    assert S.START_REQUESTED == get_reservation(started).state
    assert get_reservation(before).start_deadline == get_reservation(started).start_deadline
    assert [get_reservation(before).start_deadline] == [call.expires_at for call in started.calls]


@pytest.mark.note("F35")
def test_paid_driver_starts_when_connector_frees() -> None:
    before = b.authorized_snapshot()
    free = before.with_connector(replace(before.connector(1), live=b.build_live_status("Preparing")))

    assert S.AUTHORIZED == get_reservation(checkout.apply_payment(before, payment(), decision_context(serial=3))).state
    assert (
        S.START_REQUESTED == get_reservation(checkout.apply_payment(free, payment(), decision_context(serial=3))).state
    )


@pytest.mark.note("F64")
def test_late_payment_relocks_free_connector() -> None:
    for before in (b.pending_payment_snapshot(), take_and_free_connector(b.pending_payment_snapshot())):
        after = checkout.apply_payment(before, payment(), decision_context(NOW + 40 * MINUTE, serial=2))

        assert S.START_REQUESTED == get_reservation(after).state
        assert "reservation-1" == getattr(after.connector(1).lock, "reservation_id", None)


@pytest.mark.note("F09")
def test_late_payment_clears_leftover_remote_occupied() -> None:
    server_made = b.build_persisted_status("Occupied", source=StatusSource.REMOTE_START)
    left = take_and_free_connector(b.pending_payment_snapshot())
    left = left.with_connector(replace(left.connector(1), live=None, persisted=server_made))

    after = checkout.apply_payment(left, payment(), decision_context(serial=2))

    assert (S.START_REQUESTED, None) == (get_reservation(after).state, after.connector(1).persisted)


@pytest.mark.note("F64")
def test_payment_for_taken_connector_is_released() -> None:
    after = checkout.apply_payment(take_connector(b.pending_payment_snapshot()), payment(), decision_context(serial=2))

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.CONNECTOR_TAKEN, Money.RELEASING) == (held.state, held.failure_code, held.money)
    assert [OutboxKind.RELEASE] == owed_kinds(after)
    assert "somebody" == getattr(after.connector(1).lock, "reservation_id", None)
    assert () == after.calls


@pytest.mark.note("F64")
def test_payment_after_cancellation_is_released() -> None:
    after = checkout.apply_payment(b.cancelled_snapshot(), payment(), decision_context(serial=3))

    held = get_reservation(after)
    assert (S.CANCELLED, Money.RELEASING, "pi_secret") == (held.state, held.money, held.payment_id)
    assert OutboxKind.RELEASE == after.outbox_items[-1].kind
    assert ["PaymentCameTooLate"] == b.audit_events(after)


@pytest.mark.note("F64")
def test_checkout_paid_before_expiry_is_released() -> None:
    after = checkout.apply_expired_checkout(b.cancelled_snapshot(), payment(), decision_context(serial=3))

    assert Money.RELEASING == get_reservation(after).money
    assert [OutboxKind.RELEASE] == owed_kinds(after)


def test_unpaid_expired_checkout_needs_nothing_more() -> None:
    after = checkout.apply_expired_checkout(
        b.cancelled_snapshot(), payment(PaymentStatus.EXPIRED), decision_context(serial=3)
    )

    assert (Money.NONE, []) == (get_reservation(after).money, owed_kinds(after))
