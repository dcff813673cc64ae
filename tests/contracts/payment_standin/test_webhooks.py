"""The stand-in's webhooks: signed, retried until accepted, and lost, repeated or reordered on request."""

import json

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from stand_ins.stripe.objects import API_VERSION
from tests.contracts.payment_standin.asking import SECRET, Receiver, order, pay


def test_each_payment_step_sends_signed_webhook(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver, held_payment: str
) -> None:
    client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645}, {"idempotency_key": "r-1:capture"})
    client.v1.refunds.create({"payment_intent": held_payment})
    stand_in.webhooks.wait_until_quiet()

    told = {event.type: event for event in receiver.events}
    assert {
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.amount_capturable_updated",
        "checkout.session.completed",
        "charge.captured",
        "payment_intent.succeeded",
        "refund.created",
        "charge.refunded",
    } == set(told)
    assert len(told) == len({event.id for event in told.values()})
    assert "unpaid" == told["checkout.session.completed"].data.object["payment_status"]
    assert 1820 == told["payment_intent.amount_capturable_updated"].data.object["amount_capturable"]
    assert "r-1:capture" == told["payment_intent.succeeded"].request.idempotency_key
    assert {API_VERSION} == {event.api_version for event in told.values()}


def test_signature_covers_bytes_and_secret(stand_in: PaymentStandIn, receiver: Receiver, held_payment: str) -> None:
    stand_in.webhooks.wait_until_quiet()
    payload, signature = receiver.requests[0]

    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload + b" ", signature, SECRET)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload, signature, "whsec_other")
    assert payload != json.dumps(json.loads(payload)).encode(), "a receiver that re-serialises has to notice"


def test_refused_webhook_is_resent_until_accepted(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.answers = [500, 302]
    client.v1.checkout.sessions.expire(client.v1.checkout.sessions.create(order()).id)

    stand_in.webhooks.wait_until_quiet()

    assert [500, 302, 200] == [attempt.status for attempt in stand_in.webhooks.attempts]
    assert 1 == len({event.id for event in receiver.events})


def test_webhook_is_abandoned_after_three_attempts(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.answers = [500] * 10
    client.v1.checkout.sessions.expire(client.v1.checkout.sessions.create(order()).id)

    stand_in.webhooks.wait_until_quiet()

    assert 3 == len(receiver.requests)


def test_delayed_webhooks_can_arrive_reversed(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    stand_in.webhooks.pause()
    pay(stand_in, client.v1.checkout.sessions.create(order()).id)
    stand_in.webhooks.wait_until_quiet()
    assert [] == receiver.requests

    stand_in.webhooks.resume(reverse=True)

    assert [event["id"] for event in stand_in.events[::-1]] == [event.id for event in receiver.events]


def test_webhooks_can_be_lost_or_duplicated(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    stand_in.webhooks.drop_next("checkout.session.completed")
    stand_in.webhooks.duplicate_next("payment_intent.amount_capturable_updated")

    pay(stand_in, client.v1.checkout.sessions.create(order()).id)
    stand_in.webhooks.wait_until_quiet()

    assert 0 == receiver.types.count("checkout.session.completed")
    assert 2 == receiver.types.count("payment_intent.amount_capturable_updated")
    lost = next(event for event in stand_in.events if event["type"] == "checkout.session.completed")
    stand_in.webhooks.resend(lost)
    stand_in.webhooks.wait_until_quiet()
    assert "checkout.session.completed" == receiver.types[-1]
