"""The stand-in's ordered faults, before or after a call takes effect."""

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from tests.contracts.payment_standin.asking import expect_refusal, stripe_client


@pytest.mark.parametrize(
    ("status", "code"), [(402, "card_declined"), (409, "idempotency_key_in_use"), (429, "rate_limit"), (500, None)]
)
def test_failure_before_acting_can_be_retried(
    stand_in: PaymentStandIn, held_payment: str, status: int, code: str | None
) -> None:
    client = stripe_client(stand_in, max_network_retries=0)
    options: stripe.RequestOptions = {"idempotency_key": "r-1:capture"}
    stand_in.fail_next("payment_intents.capture", status=status)

    with expect_refusal(status, code):
        client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645}, options)

    assert "requires_capture" == client.v1.payment_intents.retrieve(held_payment).status
    assert 645 == client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645}, options).amount_received


def test_failure_after_acting_keeps_failing(
    stand_in: PaymentStandIn, client: stripe.StripeClient, held_payment: str
) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:capture"}
    stand_in.fail_next("payment_intents.capture", status=500, acted=True)

    for _ in range(2):
        with expect_refusal(500):
            client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645}, options)

    assert 645 == client.v1.payment_intents.retrieve(held_payment).amount_received


@pytest.mark.parametrize("acted", [False, True])
def test_hanging_call_is_answered_on_retry(
    stand_in: PaymentStandIn, client: stripe.StripeClient, held_payment: str, acted: bool
) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:capture"}
    impatient = stripe_client(stand_in, max_network_retries=0, http_client=stripe.RequestsClient(timeout=0.3))
    stand_in.hang_next("payment_intents.capture", acted=acted)

    with pytest.raises(stripe.APIConnectionError):
        impatient.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645}, options)

    assert (645 if acted else 0) == client.v1.payment_intents.retrieve(held_payment).amount_received
    again = client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645}, options)
    assert 645 == again.amount_received
    assert acted == ("Idempotent-Replayed" in again.last_response.headers)
