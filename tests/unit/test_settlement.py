"""What becomes of the money: idle time, the bill, what is owed, and what a human may do about it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from csms import occupancy
from csms.charging import checkout, settlement, transaction
from csms.errors import IllegalTransition
from csms.model import Money, OutboxKind, Policy, ReservationState, Snapshot
from csms.model import ReservationState as S
from csms.ocpp.v16 import core
from csms.ports.payments import Payment, PaymentStatus
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, REACHED, SECOND, moment, payment, reservation_in


def kinds(seen: Snapshot) -> list[OutboxKind]:
    return [effect.kind for effect in seen.outbox_items]


def stop(before: Snapshot, energy_wh: int, at: datetime = NOW, *, plugged_in: bool = False) -> Snapshot:
    return settlement.apply_stop(before, energy_wh, moment(at), plugged_in=plugged_in, detail="Local")


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
    ids=["f65 exactly the bill", "f65 the ceiling", "f65 capped at the authorisation", "f66 no energy"],
)
def test_settled_amount_is_captured_or_released(energy_wh: int, amount: int, money: Money, owed: OutboxKind) -> None:
    after = stop(b.charging(), energy_wh, at=NOW + SECOND)

    held = reservation_in(after)
    assert (ReservationState.COMPLETED, money, amount, energy_wh) == (
        held.state,
        held.money,
        held.amount,
        held.energy_wh,
    )
    assert [owed] == [effect.kind for effect in after.outbox_items[-1:]]
    assert (NOW + SECOND, NOW + SECOND, None) == (held.stopped_at, held.ended_at, held.failure_code)
    assert after.connector(1).lock is None


@pytest.mark.note("F66")
@pytest.mark.parametrize(
    ("minimum", "owed"), [(110, OutboxKind.CAPTURE), (111, OutboxKind.RELEASE)], ids=["exactly it", "below it"]
)
def test_exact_minimum_is_captured_less_released(minimum: int, owed: OutboxKind) -> None:
    before = b.charging()
    tariff = replace(b.TARIFF, minimum_amount=minimum)
    before = replace(before, reservation=replace(reservation_in(before), tariff=tariff))

    assert owed == stop(before, 1000).outbox_items[-1].kind


def test_capture_and_release_clear_the_outbox() -> None:
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=645)
    taken_ = settlement.record_capture(b.completed(), word, moment())
    given = settlement.record_release(b.failed(), moment())

    assert (Money.CAPTURED, 645, []) == (
        reservation_in(taken_).money,
        reservation_in(taken_).captured_amount,
        kinds(taken_),
    )
    assert (Money.RELEASED, []) == (reservation_in(given).money, kinds(given))
    assert (["Captured"], ["Released"]) == (b.steps(taken_), b.steps(given))


@pytest.mark.note("F67")
@pytest.mark.parametrize("reached", REACHED.values(), ids=REACHED)
def test_no_capture_or_release_happens_twice(reached: Callable[[], Snapshot]) -> None:
    before = reached()
    owed = reservation_in(before).money

    if owed is not Money.CAPTURING:
        with pytest.raises(IllegalTransition):
            settlement.record_capture(before, payment(PaymentStatus.CAPTURED), moment())
    if owed is not Money.RELEASING:
        with pytest.raises(IllegalTransition):
            settlement.record_release(before, moment())


# What is owed


@pytest.mark.note("F67")
def test_failed_capture_retries_then_needs_review() -> None:
    seen, waits = b.completed(), []
    for _ in range(7):
        seen = settlement.put_off(seen, OutboxKind.CAPTURE, "no answer", moment(), final=False)
        waits.append(seen.outbox_items[-1].due_at - NOW if seen.outbox_items[-1].due_at else None)

    after = settlement.put_off(seen, OutboxKind.CAPTURE, "no answer", moment(), final=False)

    assert [minutes * MINUTE for minutes in (1, 2, 4, 8, 16, 32, 60)] == waits
    assert (Money.CAPTURING, Money.NEEDS_REVIEW) == (reservation_in(seen).money, reservation_in(after).money)
    assert (None, 8, "no answer") == (
        after.outbox_items[-1].due_at,
        after.outbox_items[-1].attempts,
        after.outbox_items[-1].last_error,
    )
    assert ["AttemptFailed", "NeedsReview"] == b.steps(after)[-2:]
    assert 8 == b.steps(after).count("AttemptFailed"), "each attempt is on record"


@pytest.mark.note("F67")
@pytest.mark.parametrize(
    ("reached", "kind"), [(b.completed, OutboxKind.CAPTURE), (b.failed, OutboxKind.RELEASE)], ids=["capture", "release"]
)
def test_refused_capture_or_release_needs_review(reached: Callable[[], Snapshot], kind: OutboxKind) -> None:
    after = settlement.put_off(reached(), kind, "no", moment(), final=True)

    assert Money.NEEDS_REVIEW == reservation_in(after).money
    assert (None, 1) == (after.outbox_items[-1].due_at, after.outbox_items[-1].attempts)
    assert ("NeedsReview", "no") == (after.records[-1].record.event, after.records[-1].record.detail)


@pytest.mark.note("F64")
def test_failed_checkout_expiry_retries_forever() -> None:
    seen = b.cancelled()
    for _ in range(20):
        seen = settlement.put_off(seen, OutboxKind.EXPIRE_CHECKOUT, "no answer", moment(), final=False)

    assert [(NOW + HOUR, 20)] == [(effect.due_at, effect.attempts) for effect in seen.outbox_items]


def test_refused_checkout_expiry_is_given_up() -> None:
    after = settlement.put_off(b.cancelled(), OutboxKind.EXPIRE_CHECKOUT, "already expired", moment(), final=True)

    assert ([], Money.NONE) == (kinds(after), reservation_in(after).money)
    assert ["AttemptFailed", "GaveUp"] == b.steps(after)


# Idle time


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("statuses", "minutes"),
    [
        ([("SuspendedEV", 0), ("Available", 30)], 30),
        ([("SuspendedEVSE", 0), ("Available", 30)], 0),
        ([("Finishing", 0), ("Available", 30)], 0),
        ([("SuspendedEV", 0), ("Finishing", 5), ("Available", 30)], 30),
        ([("SuspendedEV", 0), ("SuspendedEV", 20), ("Available", 30)], 30),
        ([("SuspendedEV", 0), ("Charging", 10), ("SuspendedEV", 20), ("Available", 30)], 20),
        ([("SuspendedEV", 0), ("SuspendedEVSE", 10), ("Available", 30)], 10),
        ([("SuspendedEV", 0), ("Faulted", 10), ("Available", 30)], 10),
    ],
    ids=[
        "from full to gone",
        "the site's own pause",
        "finished but never full",
        "finishing is still there",
        "said twice",
        "two spells",
        "the site's pause in between",
        "a fault ends it",
    ],
)
def test_idle_time_starts_with_suspended_ev(statuses: list[tuple[str, int]], minutes: int) -> None:
    seen = b.charging(site=b.idle_site())
    for raw, after in statuses:
        seen = b.told(seen, raw, NOW + after * MINUTE)

    held = reservation_in(seen)
    assert (minutes * 60, None) == (held.idle_seconds, held.idle_since)


@pytest.mark.note("F68")
def test_idle_counts_from_receipt_to_reported_end() -> None:
    full = {"connectorId": 1, "errorCode": "NoError", "status": "SuspendedEV", "timestamp": NOW.isoformat()}
    begun = b.stored(b.charging(site=b.idle_site()), _status(b.charging(site=b.idle_site()), full, NOW + 20 * MINUTE))
    gone = full | {"status": "Available", "timestamp": (NOW + 30 * MINUTE).isoformat()}

    after = _status(begun, gone, NOW + HOUR)

    assert 10 * 60 == reservation_in(after).idle_seconds


def _status(before: Snapshot, payload: dict[str, Any], at: datetime) -> Snapshot:
    return core.status_notification(before, payload, moment(at, serial=9))[0]


@pytest.mark.note("F68")
def test_full_car_settles_when_unplugged() -> None:
    waiting = b.unplugging()
    held = reservation_in(waiting)

    gone = b.told(waiting, "Available", NOW + 30 * MINUTE)
    settled = reservation_in(gone)

    assert (S.WAITING_FOR_DISCONNECT, Money.AUTHORISED, None, NOW) == (
        held.state,
        held.money,
        held.amount,
        held.stopped_at,
    )
    assert ("ActiveReservation",) == occupancy.busy_reasons(
        b.told(waiting, "Preparing", NOW), 1, now=NOW, policy=Policy()
    )
    assert (S.COMPLETED, Money.CAPTURING, 645 + 200, NOW) == (
        settled.state,
        settled.money,
        settled.amount,
        settled.stopped_at,
    )
    assert gone.connector(1).lock is None


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("reason", "live", "state"),
    [
        ("Local", "Charging", S.WAITING_FOR_DISCONNECT),
        ("EVDisconnected", "Charging", S.COMPLETED),
        ("Local", "Available", S.COMPLETED),
        ("Local", "Finishing", S.WAITING_FOR_DISCONNECT),
    ],
    ids=["still plugged in", "stopped by unplugging", "Available came before the stop", "finishing"],
)
def test_only_plugged_in_car_is_waited_for(reason: str, live: str, state: ReservationState) -> None:
    before = b.told(b.charging(site=b.idle_site()), live)
    request = {"transactionId": 3, "meterStop": 11_000, "timestamp": NOW.isoformat(), "reason": reason}

    after, _ = core.stop_transaction(before, request, moment(serial=9))

    assert state == reservation_in(after).state


def test_site_without_idle_fee_settles_at_stop() -> None:
    assert S.COMPLETED == reservation_in(stop(b.charging(), 5000, plugged_in=True)).state


@pytest.mark.note("F77", "F69")
@pytest.mark.parametrize(
    ("lapses_in", "hours"), [(7 * 24, 12), (8, 4)], ids=["the hard maximum", "before the authorisation lapses"]
)
def test_disconnect_wait_has_hard_maximum(lapses_in: int, hours: int) -> None:
    before = b.charging(site=b.idle_site(), capture_before=NOW + lapses_in * HOUR)
    waiting = b.stored(before, stop(b.told(before, "SuspendedEV"), 10_000, plugged_in=True))
    last = NOW + hours * HOUR

    after = checkout.expire(waiting, moment(last + SECOND))

    assert last == reservation_in(waiting).expires_at
    assert waiting == checkout.expire(waiting, moment(last))
    assert (S.COMPLETED, 645 + 600) == (reservation_in(after).state, reservation_in(after).amount)
    assert "DisconnectTimedOut" in b.steps(after)
    assert after.connector(1).lock is None


@pytest.mark.note("F69", "F77")
def test_overlong_charge_is_not_waited_for() -> None:
    before = b.charging(site=b.idle_site(), capture_before=NOW + 8 * HOUR)
    late = moment(NOW + 5 * HOUR, serial=9)

    waiting = settlement.apply_stop(before, 10_000, late, plugged_in=True, detail="Local")

    assert NOW + 4 * HOUR == reservation_in(before).settle_by
    assert NOW + 5 * HOUR == reservation_in(waiting).expires_at


@pytest.mark.note("F77")
def test_disconnect_limit_is_a_setting() -> None:
    before = b.charging(site=b.idle_site())
    short = moment(disconnect_limit=2 * HOUR)

    waiting = settlement.apply_stop(before, 10_000, short, plugged_in=True, detail="Local")

    assert NOW + 2 * HOUR == reservation_in(waiting).expires_at


@pytest.mark.note("F68")
def test_silent_station_idle_ends_when_last_heard() -> None:
    silent = b.presence(last_seen_at=NOW + 25 * MINUTE, lease_until=NOW + 40 * MINUTE)
    waiting = replace(b.unplugging(), presence=silent)

    after = checkout.expire(waiting, moment(NOW + 13 * HOUR))

    assert 25 * 60 == reservation_in(after).idle_seconds


def test_foreign_start_ends_disconnect_wait() -> None:
    request = {"connectorId": 1, "idTag": "CARD", "meterStart": 11_000, "timestamp": (NOW + HOUR).isoformat()}

    after, _ = core.start_transaction(b.unplugging(), request, moment(NOW + HOUR, serial=9))

    assert (S.COMPLETED, 3600) == (reservation_in(after).state, reservation_in(after).idle_seconds)
    assert after.connector(1).lock is None


# The authorisation's own life


@pytest.mark.note("F69")
@pytest.mark.parametrize(
    ("hours", "settles"), [(7 * 24, 7 * 24 - 6), (8, 4), (None, 4 * 24 - 6)], ids=["a week", "short", "nobody says"]
)
def test_session_settles_before_authorization_lapses(hours: int | None, settles: int) -> None:
    word = payment(capture_before=None if hours is None else NOW + hours * HOUR)

    assert NOW + settles * HOUR == settlement.settle_deadline(word, moment())


@pytest.mark.note("F69")
def test_charge_ends_before_authorization_lapses() -> None:
    charging = b.charging(capture_before=NOW + 10 * HOUR)
    running = charging.connector(1).transaction

    assert running is not None
    assert NOW + 5 * HOUR == running.ends_at


# Correction and refund


def implied(energy_wh: int = 10_000) -> Snapshot:
    """A session that we ended ourselves at this energy, and that is being captured."""
    charging = b.charging()
    values = {"timestamp": NOW.isoformat(), "sampledValue": [{"value": str(1000 + energy_wh)}]}
    payload = {"connectorId": 1, "transactionId": 3, "meterValue": [values]}
    metered = b.stored(charging, core.meter_values(charging, payload, moment(serial=5))[0])
    return b.stored(metered, transaction.end(metered, 1, transaction.IMPLIED, moment(serial=6)))


def captured(before: Snapshot, amount: int, **settings: Any) -> Snapshot:
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=amount)
    return b.stored(before, settlement.record_capture(before, word, moment(serial=7, **settings)))


@pytest.mark.note("F55")
def test_late_lower_stop_refunds_difference() -> None:
    after = settlement.correct_bill(captured(implied(), 645), 4_000, moment())

    held = reservation_in(after)
    assert (Money.REFUNDING, 288, 645, 645, 4_000) == (
        held.money,
        held.amount,
        held.capture_amount,
        held.captured_amount,
        held.energy_wh,
    )
    assert [OutboxKind.REFUND] == kinds(after)
    assert ("Corrected",) == held.flags


@pytest.mark.note("F55")
def test_bill_lowered_during_capture_refunds_afterwards() -> None:
    lowered = b.stored(implied(), settlement.correct_bill(implied(), 4_000, moment()))

    after = captured(lowered, 645)

    assert (Money.CAPTURING, 288, 645) == (
        reservation_in(lowered).money,
        reservation_in(lowered).amount,
        reservation_in(lowered).capture_amount,
    )
    assert (Money.REFUNDING, [OutboxKind.REFUND]) == (reservation_in(after).money, kinds(after))


@pytest.mark.note("F55")
def test_late_higher_stop_is_only_flagged() -> None:
    after = settlement.correct_bill(captured(implied(), 645), 12_000, moment())

    held = reservation_in(after)
    assert (Money.CAPTURED, 645, 10_000, ("Underbilled",)) == (held.money, held.amount, held.energy_wh, held.flags)


@pytest.mark.note("F66", "F55")
def test_late_stop_of_nothing_refunds_all() -> None:
    after = settlement.correct_bill(captured(implied(), 645), 0, moment())

    assert (Money.REFUNDING, 0) == (reservation_in(after).money, reservation_in(after).amount)


def test_refund_is_recorded_and_leaves_outbox() -> None:
    owing = b.stored(implied(), settlement.correct_bill(captured(implied(), 645), 4_000, moment()))
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=645, refunded_amount=357)

    after = settlement.record_refund(owing, word, moment())

    held = reservation_in(after)
    assert (Money.CAPTURED, 645, 357, []) == (held.money, held.captured_amount, held.refunded_amount, kinds(after))


def test_capture_queues_receipt_mail_if_enabled() -> None:
    assert [] == kinds(captured(implied(), 645))
    assert [OutboxKind.EMAIL_RECEIPT] == kinds(captured(implied(), 645, email_receipts=True))


# What a human may do


def reviewed(kind: OutboxKind = OutboxKind.CAPTURE) -> Snapshot:
    before = b.completed() if kind is OutboxKind.CAPTURE else b.failed()
    return b.stored(before, settlement.put_off(before, kind, "no", moment(), final=True))


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("kind", "money"), [(OutboxKind.CAPTURE, Money.CAPTURING), (OutboxKind.RELEASE, Money.RELEASING)]
)
def test_retry_by_operator_restores_all_attempts(kind: OutboxKind, money: Money) -> None:
    after = b.stored(reviewed(kind), settlement.retry_payment(reviewed(kind), moment()))
    for _ in range(7):
        after = settlement.put_off(after, kind, "no answer", moment(), final=False)

    assert (money, 8, True) == (
        reservation_in(after).money,
        after.outbox_items[-1].attempts,
        after.outbox_items[-1].due_at is not None,
    )
    assert (
        Money.NEEDS_REVIEW == reservation_in(settlement.put_off(after, kind, "no answer", moment(), final=False)).money
    )


@pytest.mark.note("F63")
@pytest.mark.parametrize("kind", [OutboxKind.CAPTURE, OutboxKind.RELEASE])
def test_money_under_review_can_be_released(kind: OutboxKind) -> None:
    after = b.stored(reviewed(kind), settlement.release_payment(reviewed(kind), moment()))

    assert (Money.RELEASING, [OutboxKind.RELEASE]) == (reservation_in(after).money, kinds(after))


@pytest.mark.note("F63")
@pytest.mark.parametrize(("amount", "money"), [(600, Money.CAPTURED), (0, Money.RELEASED)])
def test_operator_settlement_at_provider_ends_review(amount: int, money: Money) -> None:
    after = settlement.settle_by_hand(reviewed(), amount, moment())

    assert (money, amount or None, []) == (
        reservation_in(after).money,
        reservation_in(after).captured_amount,
        kinds(after),
    )


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    "act",
    [
        settlement.retry_payment,
        settlement.release_payment,
        lambda before, at: settlement.settle_by_hand(before, 100, at),
    ],
    ids=["try again", "let go", "settle by hand"],
)
@pytest.mark.parametrize("state", S)
def test_only_money_under_review_accepts_actions(state: ReservationState, act: Any) -> None:
    with pytest.raises(IllegalTransition, match="needs no review"):
        act(REACHED[state](), moment())


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("before", "bill"),
    [(lambda: reviewed(), 645), (lambda: reviewed(OutboxKind.RELEASE), 0)],
    ids=["billed", "nothing to bill"],
)
def test_manual_settlement_cannot_exceed_bill(before: Callable[[], Snapshot], bill: int) -> None:
    settlement.settle_by_hand(before(), bill, moment())

    with pytest.raises(IllegalTransition, match="refund what was captured"):
        settlement.settle_by_hand(before(), bill + 1, moment())


@pytest.mark.note("F55", "F63")
def test_manual_refund_counts_as_refunded() -> None:
    paid_up = captured(implied(), 645)
    refunding = b.stored(paid_up, settlement.correct_bill(paid_up, 2_000, moment()))
    stuck = b.stored(refunding, settlement.put_off(refunding, OutboxKind.REFUND, "no", moment(), final=True))

    after = reservation_in(settlement.settle_by_hand(stuck, 169, moment()))

    assert (Money.CAPTURED, 645, 476, 169) == (after.money, after.captured_amount, after.refunded_amount, after.amount)


@pytest.mark.note("F63")
def test_late_capture_answer_ends_review() -> None:
    after = settlement.record_capture(reviewed(), payment(PaymentStatus.CAPTURED, captured_amount=645), moment())

    assert (Money.CAPTURED, None, []) == (reservation_in(after).money, reservation_in(after).review, kinds(after))


@pytest.mark.note("F63")
def test_captured_money_cannot_be_released() -> None:
    owing = b.stored(implied(), settlement.correct_bill(captured(implied(), 645), 4_000, moment()))
    refused = b.stored(owing, settlement.put_off(owing, OutboxKind.REFUND, "no", moment(), final=True))

    with pytest.raises(IllegalTransition, match="The payment was captured"):
        settlement.release_payment(refused, moment())


def test_capture_below_bill_owes_no_refund() -> None:
    after = captured(implied(), 600)

    assert (Money.CAPTURED, []) == (reservation_in(after).money, kinds(after))


@pytest.mark.note("F64")
def test_unclosable_checkout_ends_its_reservation() -> None:
    before = b.paying()
    closing = b.stored(before, checkout.expire(before, moment(NOW + 33 * MINUTE)))

    after = settlement.put_off(
        closing, OutboxKind.EXPIRE_CHECKOUT, "resource_missing", moment(NOW + 34 * MINUTE), final=True
    )

    assert (S.CANCELLED, []) == (reservation_in(after).state, kinds(after))
