"""The stand-in's idempotency keys: the first answer is the answer to every later use."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from tests.contracts.payment_standin.asking import Clock, expect_refusal, order, pay, refusal, stripe_client


def test_same_key_replays_first_answer(client: stripe.StripeClient) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    params = order()

    first = client.v1.checkout.sessions.create(params, options)
    again = client.v1.checkout.sessions.create(params, options)

    assert first.id == again.id
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert "true" == again.last_response.headers["Idempotent-Replayed"]


def test_reused_key_raises_idempotency_error(client: stripe.StripeClient, held_payment: str) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:settle"}
    client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 645}, options)

    with pytest.raises(stripe.IdempotencyError):
        client.v1.payment_intents.capture(held_payment, {"amount_to_capture": 646}, options)
    with pytest.raises(stripe.IdempotencyError):
        client.v1.payment_intents.cancel(held_payment, {}, options)


def test_refused_call_is_replayed(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())
    pay(stand_in, session.id)
    options: stripe.RequestOptions = {"idempotency_key": "r-1:expire"}

    with expect_refusal(400) as first:
        client.v1.checkout.sessions.expire(session.id, options=options)
    with expect_refusal(400) as again:
        client.v1.checkout.sessions.expire(session.id, options=options)

    assert "Idempotent-Replayed" not in first.value.headers
    assert "true" == again.value.headers["Idempotent-Replayed"]


def test_unexecuted_call_does_not_consume_key(client: stripe.StripeClient) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    with expect_refusal(400, "parameter_unknown"):
        client.v1.checkout.sessions.create(order(color="green"), options)

    assert "open" == client.v1.checkout.sessions.create(order(), options).status


def test_key_expires_after_one_day(client: stripe.StripeClient, clock: Clock) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    first = client.v1.checkout.sessions.create(order(), options)
    clock.ahead = timedelta(days=1, seconds=1)

    later = order(expires_at=int(clock().timestamp()) + 2000)
    assert first.id != client.v1.checkout.sessions.create(later, options).id


def test_key_in_use_returns_409(stand_in: PaymentStandIn, held_payment: str) -> None:
    stand_in.latency = 0.3
    without_retry = stripe_client(stand_in, max_network_retries=0)

    def capture(_: int) -> str | None:
        return refusal(
            lambda: without_retry.v1.payment_intents.capture(held_payment, {}, {"idempotency_key": "r-1:capture"})
        )

    with ThreadPoolExecutor(4) as pool:
        answers = Counter(pool.map(capture, range(4)))

    assert {None: 1, "409 idempotency_key_in_use": 3} == answers


@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_parallel_captures_with_key_capture_once(
    stand_in: PaymentStandIn, client: stripe.StripeClient, held_payment: str, latency: float
) -> None:
    stand_in.latency = latency

    def capture(_: int) -> tuple[int, bool]:
        intent = client.v1.payment_intents.capture(
            held_payment, {"amount_to_capture": 645}, {"idempotency_key": "r-1:capture", "max_network_retries": 5}
        )
        return intent.amount_received, "Idempotent-Replayed" in intent.last_response.headers

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(capture, range(16)))

    assert [(645, False)] + [(645, True)] * 15 == sorted(answers)
    assert 1 == sum(event["type"] == "payment_intent.succeeded" for event in stand_in.events)


def test_parallel_captures_without_key_capture_once(stand_in: PaymentStandIn, held_payment: str) -> None:
    def capture(_: int) -> str | None:
        # The package makes up a key for each call by itself.
        return refusal(
            lambda: stripe_client(stand_in).v1.payment_intents.capture(held_payment, {"amount_to_capture": 645})
        )

    with ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(capture, range(16)))

    assert {None: 1, "400 payment_intent_unexpected_state": 15} == answers
