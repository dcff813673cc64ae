"""The driver's side: create, checkout, payment, cancel, expiry, and what is owed to the provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms import occupancy
from csms.charging import checkout
from csms.errors import ChargerOffline, ConnectorBusy, IllegalTransition, NotFound
from csms.model import (
    Append,
    CommandKind,
    Connector,
    FailureCode,
    IdTag,
    Money,
    OutboxKind,
    Policy,
    Require,
    ReservationState,
    Save,
    Snapshot,
    StatusSource,
    TagStatus,
)
from csms.ports.payments import NOT_AUTHORISABLE, PaymentStatus
from tests import builders as b
from tests.builders import (
    AUTHORISED,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SNAPSHOT_BY_STATE,
    apply_decision,
    decision_context,
    get_reservation,
    payment,
)

S = ReservationState


def owed_kinds(seen: Snapshot) -> list[OutboxKind]:
    """What is owed to the provider."""
    return [outbox_item.kind for outbox_item in seen.outbox_items]


def take_connector(seen: Snapshot) -> Snapshot:
    """Somebody else holds the connector by now."""
    return seen.with_connector(replace(seen.connector(1), lock=b.lock()))


def take_and_free_connector(seen: Snapshot) -> Snapshot:
    """Somebody else held the connector and is gone."""
    return seen.with_connector(replace(seen.connector(1), lock=b.lock(expires_at=NOW - HOUR)))


# Create


def test_create_locks_connector_and_queues_checkout() -> None:
    outcome = checkout.create(b.snapshot(), 1, decision_context())

    held = outcome.reply
    assert (S.PENDING_PAYMENT, Money.NONE, 1, "CP-1", "cp-1") == (
        held.state,
        held.money,
        held.connector_id,
        held.identity,
        held.station_id,
    )
    assert (AUTHORISED, b.TARIFF, NOW, NOW + 90 * SECOND) == (
        held.max_amount,
        held.tariff,
        held.created_at,
        held.expires_at,
    )
    assert [(OutboxKind.OPEN_CHECKOUT, NOW + 30 * SECOND)] == [(e.kind, e.due_at) for e in outcome.outbox_items]
    assert ["Created"] == [
        w.record.event for w in outcome.writes if isinstance(w, Append) and hasattr(w.record, "event")
    ]


def test_create_records_the_chosen_provider() -> None:
    held = checkout.create(b.snapshot(), 1, decision_context(payment_provider="another")).reply

    assert "another" == held.provider


@pytest.mark.note("F22")
def test_create_requires_unchanged_busy_rule_inputs() -> None:
    seen = b.snapshot(b.connector(1, version=7), b.connector(0, live=None, version=5))

    writes = checkout.create(seen, 1, decision_context()).writes

    assert {("Station", 1), ("Presence", 1), ("Connector", 5)} == {
        (type(w.entity).__name__, w.entity.version) for w in writes if isinstance(w, Require)
    }
    assert [7] == [w.entity.version for w in writes if isinstance(w, Save) and isinstance(w.entity, Connector)]


@pytest.mark.note("F28")
def test_web_tag_alone_authorises_nothing() -> None:
    writes = checkout.create(b.snapshot(), 1, decision_context()).writes

    (tag,) = [w for w in writes if isinstance(w, Append) and isinstance(w.record, IdTag)]
    assert isinstance(tag.record, IdTag)
    assert (True, "WTAG1", TagStatus.INVALID, "reservation-1") == (
        tag.once,
        tag.record.tag,
        tag.record.status,
        tag.record.reservation_id,
    )
    assert NOW + timedelta(days=30) == tag.record.expires_at


@pytest.mark.note("F10")
@pytest.mark.parametrize("connector_id", [0, 3, -1])
def test_create_on_unregistered_connector_is_not_found(connector_id: int) -> None:
    with pytest.raises(NotFound) as refused:
        checkout.create(b.snapshot(), connector_id, decision_context())

    assert "UnknownConnector" == refused.value.code


@pytest.mark.note("F02")
def test_busy_create_names_all_reasons() -> None:
    with pytest.raises(ConnectorBusy, match="currently in use") as refused:
        checkout.create(b.snapshot(b.connector(transaction=b.open_transaction(), lock=b.lock())), 1, decision_context())

    assert ("OpenTransaction", "ActiveReservation") == refused.value.reasons


def test_offline_create_is_refused_before_busy() -> None:
    with pytest.raises(ChargerOffline, match="offline"):
        checkout.create(b.snapshot(b.connector(lock=b.lock()), presence=None), 1, decision_context())


@pytest.mark.note("F23")
def test_crashed_create_unlocks_after_first_lease() -> None:
    left = b.owed_checkout_snapshot()

    with pytest.raises(ConnectorBusy):
        checkout.create(left, 1, decision_context(NOW + 90 * SECOND, serial=2))
    after = b.apply_writes(left, checkout.create(left, 1, decision_context(NOW + 91 * SECOND, serial=2)).writes)

    assert "reservation-2" == getattr(after.connector(1).lock, "reservation_id", None)


def test_checkout_order_is_stable_per_reservation() -> None:
    held = get_reservation(b.pending_payment_snapshot())

    order = checkout.build_order(held, public_url="https://example.org", window=30 * MINUTE)

    assert order == checkout.build_order(
        get_reservation(b.owed_checkout_snapshot()), public_url="https://example.org", window=30 * MINUTE
    )
    assert (AUTHORISED, "EUR", "EV charging at CP-1, connector 1") == (order.amount, order.currency, order.description)
    assert "https://example.org/session/reservation-1?checkout=done" == order.success_url
    assert "https://example.org/session/reservation-1?checkout=cancelled" == order.cancel_url
    assert NOW + 32 * MINUTE == order.expires_at


@pytest.mark.note("F37")
@pytest.mark.parametrize(
    ("station_is_free", "tag", "free"),
    [
        (False, None, False),
        (True, None, True),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED, free=True), True),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED, free=True, expires_at=NOW), True),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED, free=True, expires_at=NOW - SECOND), False),
        (False, IdTag(tag="CARD", status=TagStatus.BLOCKED, free=True), False),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED), False),
    ],
    ids=["paid", "free station", "free tag", "to the moment", "no longer", "blocked", "a tag that pays"],
)
def test_free_session_locks_without_checkout(station_is_free: bool, tag: IdTag | None, free: bool) -> None:
    before = b.snapshot(station=b.station(free=station_is_free), tag=tag)

    after = b.apply_writes(before, checkout.create(before, 1, decision_context()).writes)

    held = get_reservation(after)
    assert (S.START_REQUESTED if free else S.PENDING_PAYMENT, Money.NONE) == (held.state, held.money)
    assert (0 if free else AUTHORISED, [] if free else [OutboxKind.OPEN_CHECKOUT]) == (
        held.max_amount,
        owed_kinds(after),
    )
    assert (held.reservation_id, held.state) == (
        getattr(after.connector(1).lock, "reservation_id", None),
        getattr(after.connector(1).lock, "state", None),
    )
    ends = NOW + (10 * MINUTE if free else 90 * SECOND)
    assert (ends, ends) == (held.expires_at, getattr(after.connector(1).lock, "expires_at", None))


# Checkout


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


# Payment


@pytest.mark.note("F34", "F62")
@pytest.mark.parametrize("state", S)
@pytest.mark.parametrize("status", PaymentStatus)
def test_provider_status_never_moves_reservation_backwards(state: ReservationState, status: PaymentStatus) -> None:
    moves = {
        (S.PENDING_PAYMENT, PaymentStatus.AUTHORISED): S.START_REQUESTED,
        (S.PENDING_PAYMENT, PaymentStatus.EXPIRED): S.CANCELLED,
        (S.PENDING_PAYMENT, PaymentStatus.RELEASED): S.CANCELLED,
        **{(s, word): S.FAILED for s in (S.AUTHORIZED, S.START_REQUESTED) for word in NOT_AUTHORISABLE},
        **{(S.CHARGING, word): S.CHARGING for word in NOT_AUTHORISABLE},
    }
    before = SNAPSHOT_BY_STATE[state]()

    after = checkout.apply_payment(before, payment(status), decision_context(serial=9))

    late = (state, status) == (S.CANCELLED, PaymentStatus.AUTHORISED)
    assert moves.get((state, status), state) == get_reservation(after).state
    assert (before == after) == ((state, status) not in moves and not late)


@pytest.mark.note("F63")
@pytest.mark.parametrize("reached", [b.authorized_snapshot, b.start_requested_snapshot])
@pytest.mark.parametrize("word", sorted(NOT_AUTHORISABLE))
def test_lost_authorisation_before_charging_fails_reservation(
    reached: Callable[[], Snapshot], word: PaymentStatus
) -> None:
    after = checkout.apply_payment(reached(), payment(word), decision_context(serial=9))

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.PAYMENT_FAILED, Money.RELEASING) == (held.state, held.failure_code, held.money)
    assert [OutboxKind.RELEASE] == owed_kinds(after)
    assert after.connector(1).lock is None


@pytest.mark.note("F30")
def test_lost_authorisation_while_charging_stops_once() -> None:
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
def test_authorised_payment_requests_start() -> None:
    after = checkout.apply_payment(b.pending_payment_snapshot(), payment(), decision_context(NOW + SECOND, serial=2))

    held = get_reservation(after)
    assert (S.START_REQUESTED, Money.AUTHORISED, "pi_secret", AUTHORISED) == (
        held.state,
        held.money,
        held.payment_id,
        held.authorised_amount,
    )
    assert ["PaymentAuthorised", "StartSent"] == b.audit_events(after)
    assert [("RemoteStart", 1)] == [(call.kind, call.connector_id) for call in after.calls]


@pytest.mark.note("F27")
def test_start_deadline_is_fixed_at_authorisation() -> None:
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


# Cancel and expiry


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
    [(PaymentStatus.EXPIRED, S.CANCELLED), (PaymentStatus.AUTHORISED, S.START_REQUESTED)],
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
