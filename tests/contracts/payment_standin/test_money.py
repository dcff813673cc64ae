"""The stand-in's holds: captured, cancelled, lapsed, refunded, listed."""

import time
from datetime import timedelta
from typing import Any

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from stand_ins.stripe.records import OTHER_METHODS, StripeError
from tests.contracts.payment_standin.asking import (
    DECLINED_CARD,
    ON_STRIPE_TOO,
    Clock,
    Receiver,
    expect_refusal,
    intent_id,
    order,
    pay,
)


def test_partial_capture_releases_the_rest(client: stripe.StripeClient, held_payment: str) -> None:
    captured = client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645, "expand": ["latest_charge"]})

    assert ("succeeded", 0, 645) == (captured.status, captured.amount_capturable, captured.amount_received)
    charge = captured.latest_charge
    assert isinstance(charge, stripe.Charge)
    # Since 2025-03-31.basil the released rest is not a refund.
    assert (True, 645, 0, False) == (charge.captured, charge.amount_captured, charge.amount_refunded, charge.refunded)
    with expect_refusal(400, "payment_intent_unexpected_state") as caught:
        client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645})
    assert (held_payment, "succeeded") == (
        caught.value.error.payment_intent.id,
        caught.value.error.payment_intent.status,
    )


def test_capture_without_amount_takes_whole_hold(client: stripe.StripeClient, held_payment: str) -> None:
    assert 1820 == client.v1.payment_intents.capture(held_payment).amount_received


@pytest.mark.parametrize(("amount", "code"), [(1821, "amount_too_large"), (49, "amount_too_small")])
def test_capture_outside_limits_is_refused(
    client: stripe.StripeClient, held_payment: str, amount: int, code: str
) -> None:
    with expect_refusal(400, code):
        client.v1.payment_intents.capture(held_payment, {"amount_to_capture": amount})

    assert "requires_capture" == client.v1.payment_intents.retrieve(held_payment).status


@pytest.mark.parametrize("amount", ["0", "-1", "6.45", "", "six"])
def test_invalid_capture_amount_is_refused(client: stripe.StripeClient, held_payment: str, amount: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.payment_intents.capture(held_payment, {"amount_to_capture": amount})  # type: ignore[typeddict-item]

    assert "amount_to_capture" == caught.value.param
    assert "requires_capture" == client.v1.payment_intents.retrieve(held_payment).status


def test_cancelled_hold_cannot_be_captured(client: stripe.StripeClient, held_payment: str) -> None:
    canceled = client.v1.payment_intents.cancel(held_payment, {"cancellation_reason": "requested_by_customer"})

    assert ("canceled", 0, 0) == (canceled.status, canceled.amount_capturable, canceled.amount_received)
    assert "requested_by_customer" == canceled.cancellation_reason
    with expect_refusal(400, "payment_intent_unexpected_state") as caught:
        client.v1.payment_intents.capture(held_payment)
    assert "canceled" == caught.value.error.payment_intent.status
    with expect_refusal(400, "payment_intent_unexpected_state"):
        client.v1.payment_intents.cancel(held_payment)


def test_captured_payment_cannot_be_cancelled(client: stripe.StripeClient, held_payment: str) -> None:
    client.v1.payment_intents.capture(held_payment)

    with expect_refusal(400, "payment_intent_unexpected_state") as caught:
        client.v1.payment_intents.cancel(held_payment)

    assert "succeeded" == caught.value.error.payment_intent.status


def test_open_session_intent_cannot_be_cancelled(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())
    pay(stand_in, session.id, DECLINED_CARD)

    with expect_refusal(400):
        client.v1.payment_intents.cancel(intent_id(client, session.id))


def test_hold_lapses_after_capture_window(client: stripe.StripeClient, held_payment: str, clock: Clock) -> None:
    clock.ahead = timedelta(days=7, seconds=1)

    with expect_refusal(400, "payment_intent_unexpected_state"):
        client.v1.payment_intents.capture(held_payment)

    lapsed = client.v1.payment_intents.retrieve(held_payment)
    assert ("canceled", "expired", 0) == (lapsed.status, lapsed.cancellation_reason, lapsed.amount_capturable)


def test_refunds_never_exceed_captured_amount(client: stripe.StripeClient, held_payment: str) -> None:
    client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645})
    with expect_refusal(400):
        client.v1.refunds.create({"payment_intent": held_payment, "amount": 646})

    first = client.v1.refunds.create({"payment_intent": held_payment, "amount": 600, "expand": ["charge"]})
    assert ("succeeded", 600, False) == (first.status, first.amount, first.charge.refunded)
    with expect_refusal(400):
        client.v1.refunds.create({"payment_intent": held_payment, "amount": 46})
    rest = client.v1.refunds.create({"payment_intent": held_payment, "expand": ["charge"]})

    assert (45, 645, True) == (rest.amount, rest.charge.amount_refunded, rest.charge.refunded)
    with expect_refusal(400, "charge_already_refunded"):
        client.v1.refunds.create({"payment_intent": held_payment})


def test_hold_cannot_be_refunded(client: stripe.StripeClient, held_payment: str) -> None:
    with expect_refusal(400):
        client.v1.refunds.create({"payment_intent": held_payment})


def test_intents_are_paged_newest_first(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    made = []
    for _ in range(5):
        session = client.v1.checkout.sessions.create(order())
        pay(stand_in, session.id)
        made.append(intent_id(client, session.id))

    first = client.v1.payment_intents.list({"limit": 2, "expand": ["data.latest_charge"]})

    assert (made[:2:-1], True) == ([intent.id for intent in first.data], first.has_more)
    assert isinstance(first.data[0].latest_charge, stripe.Charge)
    assert made[::-1] == [intent.id for intent in first.auto_paging_iter()]
    assert [] == client.v1.payment_intents.list({"created": {"gt": int(time.time()) + 5}}).data


# Payments by other methods than cards


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_other_method_has_no_card_details(stand_in: PaymentStandIn, client: stripe.StripeClient, method: str) -> None:
    taken = stand_in.receive(method)

    intent = client.v1.payment_intents.retrieve(taken, {"expand": ["latest_charge"]})

    assert ("succeeded", 500, [method]) == (intent.status, intent.amount_received, intent.payment_method_types)
    details = intent.latest_charge.payment_method_details.to_dict()
    assert ({"type", method}, method) == (details.keys(), details["type"])


@pytest.mark.parametrize("method", ["link", "card_present"])
def test_other_method_can_be_held(stand_in: PaymentStandIn, client: stripe.StripeClient, method: str) -> None:
    held = stand_in.receive(method, manual=True)

    assert "requires_capture" == client.v1.payment_intents.retrieve(held).status


def test_direct_debit_cannot_be_held(stand_in: PaymentStandIn) -> None:
    with pytest.raises(StripeError):
        stand_in.receive("sepa_debit", manual=True)

    assert {} == stand_in.ledger.intents


def test_session_can_be_paid_with_link(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    stand_in.pay_otherwise(session.id, "link")

    expand = {"expand": ["payment_intent.latest_charge"]}
    held_payment = client.v1.checkout.sessions.retrieve(session.id, expand)
    assert ("complete", "requires_capture") == (held_payment.status, held_payment.payment_intent.status)
    assert "link" == held_payment.payment_intent.latest_charge.payment_method_details.type


# Intents without a session, as the tests that ask Stripe itself make them: a session needs a payer at its page.


def intent_order(**changes: Any) -> dict[str, Any]:
    return {
        "amount": 1820,
        "currency": "eur",
        "capture_method": "manual",
        "confirm": True,
        "payment_method": "pm_card_visa",
        "allowed_payment_method_types": ["card"],
        "metadata": {"rid": "r-1"},
    } | changes


@ON_STRIPE_TOO
def test_confirmed_intent_holds_amount_until_cancelled(
    client: stripe.StripeClient,
) -> None:
    intent = client.v1.payment_intents.create(intent_order(expand=["latest_charge"]))

    assert ("requires_capture", 1820, 0) == (intent.status, intent.amount_capturable, intent.amount_received)
    card = intent.latest_charge.payment_method_details.card
    assert ("visa", "4242") == (card.brand, card.last4)
    assert card.capture_before > intent.created
    assert "canceled" == client.v1.payment_intents.cancel(intent.id).status


@ON_STRIPE_TOO
@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"payment_method": "pm_card_visa_chargeDeclined"}, 402, "card_declined"),
        ({"payment_method": "pm_none"}, 400, "resource_missing"),
        ({"amount": 49}, 400, "amount_too_small"),
        ({"payment_method_types": ["card"]}, 400, "payment_method_types_no_longer_supported"),
    ],
)
def test_unpayable_intent_is_refused(
    client: stripe.StripeClient, changes: dict[str, Any], status: int, code: str
) -> None:
    with expect_refusal(status, code):
        client.v1.payment_intents.create(intent_order(**changes))


def test_bounced_refund_fails_and_is_repeatable(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver, held_payment: str
) -> None:
    client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645})
    refund = client.v1.refunds.create({"payment_intent": held_payment})

    stand_in.bounce(refund.id)

    intent = client.v1.payment_intents.retrieve(held_payment, {"expand": ["latest_charge"]})
    assert (0, False) == (intent.latest_charge.amount_refunded, intent.latest_charge.refunded)
    assert 645 == client.v1.refunds.create({"payment_intent": held_payment}).amount
    stand_in.webhooks.wait_until_quiet()
    assert "refund.failed" in receiver.types
