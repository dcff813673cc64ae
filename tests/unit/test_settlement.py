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
from tests.builders import HOUR, MINUTE, NOW, SECOND, SNAPSHOT_BY_STATE, decision_context, get_reservation, payment


def owed_kinds(seen: Snapshot) -> list[OutboxKind]:
    return [outbox_item.kind for outbox_item in seen.outbox_items]


def stop(before: Snapshot, energy_wh: int, at: datetime = NOW, *, plugged_in: bool = False) -> Snapshot:
    return settlement.apply_stop(before, energy_wh, decision_context(at), plugged_in=plugged_in, detail="Local")


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
    seen = b.charging_snapshot(site=b.idle_billing_snapshot())
    for raw, after in statuses:
        seen = b.report_status(seen, raw, NOW + after * MINUTE)

    held = get_reservation(seen)
    assert (minutes * 60, None) == (held.idle_seconds, held.idle_since)


@pytest.mark.note("F68")
def test_idle_counts_from_receipt_to_reported_end() -> None:
    full = {"connectorId": 1, "errorCode": "NoError", "status": "SuspendedEV", "timestamp": NOW.isoformat()}
    begun = b.apply_decision(
        b.charging_snapshot(site=b.idle_billing_snapshot()),
        _report_status(b.charging_snapshot(site=b.idle_billing_snapshot()), full, NOW + 20 * MINUTE),
    )
    gone = full | {"status": "Available", "timestamp": (NOW + 30 * MINUTE).isoformat()}

    after = _report_status(begun, gone, NOW + HOUR)

    assert 10 * 60 == get_reservation(after).idle_seconds


def _report_status(before: Snapshot, payload: dict[str, Any], at: datetime) -> Snapshot:
    return core.status_notification(before, payload, decision_context(at, serial=9))[0]


@pytest.mark.note("F68")
def test_full_car_settles_when_unplugged() -> None:
    waiting = b.waiting_for_disconnect_snapshot()
    held = get_reservation(waiting)

    gone = b.report_status(waiting, "Available", NOW + 30 * MINUTE)
    settled = get_reservation(gone)

    assert (S.WAITING_FOR_DISCONNECT, Money.AUTHORISED, None, NOW) == (
        held.state,
        held.money,
        held.amount,
        held.stopped_at,
    )
    assert ("ActiveReservation",) == occupancy.busy_reasons(
        b.report_status(waiting, "Preparing", NOW), 1, now=NOW, policy=Policy()
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
    before = b.report_status(b.charging_snapshot(site=b.idle_billing_snapshot()), live)
    request = {"transactionId": 3, "meterStop": 11_000, "timestamp": NOW.isoformat(), "reason": reason}

    after, _ = core.stop_transaction(before, request, decision_context(serial=9))

    assert state == get_reservation(after).state


def test_site_without_idle_fee_settles_at_stop() -> None:
    assert S.COMPLETED == get_reservation(stop(b.charging_snapshot(), 5000, plugged_in=True)).state


@pytest.mark.note("F77", "F69")
@pytest.mark.parametrize(
    ("lapses_in", "hours"), [(7 * 24, 12), (8, 4)], ids=["the hard maximum", "before the authorisation lapses"]
)
def test_disconnect_wait_has_hard_maximum(lapses_in: int, hours: int) -> None:
    before = b.charging_snapshot(site=b.idle_billing_snapshot(), capture_before=NOW + lapses_in * HOUR)
    waiting = b.apply_decision(before, stop(b.report_status(before, "SuspendedEV"), 10_000, plugged_in=True))
    last = NOW + hours * HOUR

    after = checkout.expire(waiting, decision_context(last + SECOND))

    assert last == get_reservation(waiting).expires_at
    assert waiting == checkout.expire(waiting, decision_context(last))
    assert (S.COMPLETED, 645 + 600) == (get_reservation(after).state, get_reservation(after).amount)
    assert "DisconnectTimedOut" in b.audit_events(after)
    assert after.connector(1).lock is None


@pytest.mark.note("F69", "F77")
def test_overlong_charge_is_not_waited_for() -> None:
    before = b.charging_snapshot(site=b.idle_billing_snapshot(), capture_before=NOW + 8 * HOUR)
    late = decision_context(NOW + 5 * HOUR, serial=9)

    waiting = settlement.apply_stop(before, 10_000, late, plugged_in=True, detail="Local")

    assert NOW + 4 * HOUR == get_reservation(before).settle_by
    assert NOW + 5 * HOUR == get_reservation(waiting).expires_at


@pytest.mark.note("F77")
def test_disconnect_limit_is_a_setting() -> None:
    before = b.charging_snapshot(site=b.idle_billing_snapshot())
    short = decision_context(disconnect_limit=2 * HOUR)

    waiting = settlement.apply_stop(before, 10_000, short, plugged_in=True, detail="Local")

    assert NOW + 2 * HOUR == get_reservation(waiting).expires_at


@pytest.mark.note("F68")
def test_silent_station_idle_ends_when_last_heard() -> None:
    silent = b.presence(last_seen_at=NOW + 25 * MINUTE, lease_until=NOW + 40 * MINUTE)
    waiting = replace(b.waiting_for_disconnect_snapshot(), presence=silent)

    after = checkout.expire(waiting, decision_context(NOW + 13 * HOUR))

    assert 25 * 60 == get_reservation(after).idle_seconds


def test_foreign_start_ends_disconnect_wait() -> None:
    request = {"connectorId": 1, "idTag": "CARD", "meterStart": 11_000, "timestamp": (NOW + HOUR).isoformat()}

    after, _ = core.start_transaction(
        b.waiting_for_disconnect_snapshot(), request, decision_context(NOW + HOUR, serial=9)
    )

    assert (S.COMPLETED, 3600) == (get_reservation(after).state, get_reservation(after).idle_seconds)
    assert after.connector(1).lock is None


# The authorisation's own life


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


# Correction and refund


def implied_stop_snapshot(energy_wh: int = 10_000) -> Snapshot:
    """A session that we ended ourselves at this energy, and that is being captured."""
    charging = b.charging_snapshot()
    values = {"timestamp": NOW.isoformat(), "sampledValue": [{"value": str(1000 + energy_wh)}]}
    payload = {"connectorId": 1, "transactionId": 3, "meterValue": [values]}
    metered = b.apply_decision(charging, core.meter_values(charging, payload, decision_context(serial=5))[0])
    return b.apply_decision(metered, transaction.end(metered, 1, transaction.IMPLIED, decision_context(serial=6)))


def apply_capture(before: Snapshot, amount: int, **settings: Any) -> Snapshot:
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=amount)
    return b.apply_decision(before, settlement.record_capture(before, word, decision_context(serial=7, **settings)))


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


def test_capture_queues_receipt_mail_if_enabled() -> None:
    assert [] == owed_kinds(apply_capture(implied_stop_snapshot(), 645))
    assert [OutboxKind.EMAIL_RECEIPT] == owed_kinds(apply_capture(implied_stop_snapshot(), 645, email_receipts=True))


# What a human may do


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
        settlement.retry_payment(payment_under_review_snapshot(kind), decision_context()),
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
        settlement.release_payment(payment_under_review_snapshot(kind), decision_context()),
    )

    assert (Money.RELEASING, [OutboxKind.RELEASE]) == (get_reservation(after).money, owed_kinds(after))


@pytest.mark.note("F63")
@pytest.mark.parametrize(("amount", "money"), [(600, Money.CAPTURED), (0, Money.RELEASED)])
def test_operator_settlement_at_provider_ends_review(amount: int, money: Money) -> None:
    after = settlement.settle_by_hand(payment_under_review_snapshot(), amount, decision_context())

    assert (money, amount or None, []) == (
        get_reservation(after).money,
        get_reservation(after).captured_amount,
        owed_kinds(after),
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
        act(SNAPSHOT_BY_STATE[state](), decision_context())


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("before", "bill"),
    [(lambda: payment_under_review_snapshot(), 645), (lambda: payment_under_review_snapshot(OutboxKind.RELEASE), 0)],
    ids=["billed", "nothing to bill"],
)
def test_manual_settlement_cannot_exceed_bill(before: Callable[[], Snapshot], bill: int) -> None:
    settlement.settle_by_hand(before(), bill, decision_context())

    with pytest.raises(IllegalTransition, match="refund what was captured"):
        settlement.settle_by_hand(before(), bill + 1, decision_context())


@pytest.mark.note("F55", "F63")
def test_manual_refund_counts_as_refunded() -> None:
    paid_up = apply_capture(implied_stop_snapshot(), 645)
    refunding = b.apply_decision(paid_up, settlement.correct_bill(paid_up, 2_000, decision_context()))
    stuck = b.apply_decision(
        refunding, settlement.put_off(refunding, OutboxKind.REFUND, "no", decision_context(), final=True)
    )

    after = get_reservation(settlement.settle_by_hand(stuck, 169, decision_context()))

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
        settlement.release_payment(refused, decision_context())


def test_capture_below_bill_owes_no_refund() -> None:
    after = apply_capture(implied_stop_snapshot(), 600)

    assert (Money.CAPTURED, []) == (get_reservation(after).money, owed_kinds(after))


@pytest.mark.note("F64")
def test_unclosable_checkout_ends_its_reservation() -> None:
    before = b.pending_payment_snapshot()
    closing = b.apply_decision(before, checkout.expire(before, decision_context(NOW + 33 * MINUTE)))

    after = settlement.put_off(
        closing, OutboxKind.EXPIRE_CHECKOUT, "resource_missing", decision_context(NOW + 34 * MINUTE), final=True
    )

    assert (S.CANCELLED, []) == (get_reservation(after).state, owed_kinds(after))
