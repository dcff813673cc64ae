"""The account without a socket: the same answers as over HTTP, without delay, and equal in every run."""

import time
from datetime import timedelta
from typing import Any

import pytest
import stripe

from stand_ins.stripe import Account, InProcess, PaymentStandIn, sequential_ids
from tests.contracts.payment_standin.asking import KEY, SECRET, SUCCESS_CARD, expect_refusal, order, pay, stripe_client
from tests.fakes import Clock


def build_account(clock: Clock) -> Account:
    return Account(api_key=KEY, webhook_secret=SECRET, clock=clock, new_id=sequential_ids())


def client_in_process(account: Account, **options: Any) -> stripe.StripeClient:
    return stripe.StripeClient(KEY, http_client=InProcess(account), **options)


def order_at(clock: Clock) -> dict[str, Any]:
    return order(expires_at=int(clock().timestamp()) + 2000)


def run_payment_lifecycle(client: stripe.StripeClient, account: Account, clock: Clock) -> list[dict[str, Any]]:
    """What is answered and told when a payment is made, captured and refunded."""
    session = client.v1.checkout.sessions.create(order_at(clock), {"idempotency_key": "a"})
    account.pay(session.id, SUCCESS_CARD, address="ada@example.com")
    expand = {"expand": ["payment_intent.latest_charge"]}
    paid = client.v1.checkout.sessions.retrieve(session.id, expand)
    captured = client.v1.payment_intents.capture(paid.payment_intent.id, {"amount_to_capture": 645})
    refund = client.v1.refunds.create({"payment_intent": captured.id, "amount": 45})
    with expect_refusal(400, "payment_intent_unexpected_state"):
        client.v1.payment_intents.cancel(captured.id)
    listed = client.v1.payment_intents.list({"created": {"gte": int(clock().timestamp())}})
    return [it.to_dict() for it in (session, paid, captured, refund, listed)] + account.events


def test_repeated_runs_are_identical() -> None:
    first, second = (
        run_payment_lifecycle(client_in_process(account), account, clock)
        for account, clock in (build_account_and_clock(), build_account_and_clock())
    )

    # The package makes up a key for a call that brings none.
    for event in first + second:
        event.pop("request", None)
    assert first == second


def build_account_and_clock() -> tuple[Account, Clock]:
    clock = Clock()
    return build_account(clock), clock


def test_in_process_answers_equal_http_answers() -> None:
    account, clock = build_account_and_clock()
    stand_in = PaymentStandIn(
        api_key=KEY, webhook_secret=SECRET, webhook_url=None, clock=Clock(), new_id=sequential_ids()
    )
    with stand_in.run_in_thread():
        account.site = stand_in.url

        over_http, in_process = (
            run_payment_lifecycle(stripe_client(stand_in), stand_in, clock),
            run_payment_lifecycle(client_in_process(account), account, clock),
        )

    for event in over_http + in_process:
        event.pop("request", None)
    assert over_http == in_process


def test_http_payment_is_visible_in_process() -> None:
    stand_in = PaymentStandIn(api_key=KEY, webhook_secret=SECRET, webhook_url=None)
    with stand_in.run_in_thread():
        session = stripe_client(stand_in).v1.checkout.sessions.create(order())
        pay(stand_in, session.id)

    assert "complete" == client_in_process(stand_in).v1.checkout.sessions.retrieve(session.id).status


def test_session_and_hold_follow_account_clock() -> None:
    account, clock = build_account_and_clock()
    client = client_in_process(account)
    expiring, lapsing = (client.v1.checkout.sessions.create(order_at(clock)).id for _ in range(2))
    account.pay(lapsing, SUCCESS_CARD)

    clock.move(timedelta(seconds=2000))
    assert "expired" == client.v1.checkout.sessions.retrieve(expiring).status

    clock.move(timedelta(days=7))
    account.sweep()
    assert ["charge.expired", "payment_intent.canceled"] == [event["type"] for event in account.events[-2:]]


def test_injected_fault_hits_once_without_delay() -> None:
    account, clock = build_account_and_clock()
    client = client_in_process(account, max_network_retries=0)
    account.hang_next("checkout.sessions.create")
    account.fail_next("checkout.sessions.create", status=500)
    begun = time.monotonic()

    with pytest.raises(stripe.APIConnectionError):
        client.v1.checkout.sessions.create(order_at(clock))
    with expect_refusal(500):
        client.v1.checkout.sessions.create(order_at(clock))

    assert time.monotonic() - begun < stripe.HTTPClient.INITIAL_DELAY
    assert "open" == client.v1.checkout.sessions.create(order_at(clock)).status


def test_recover_clears_injected_faults() -> None:
    account, clock = build_account_and_clock()
    account.fail_next(status=500)

    account.recover()

    assert "open" == client_in_process(account).v1.checkout.sessions.create(order_at(clock)).status


@pytest.mark.parametrize("acted", [False, True])
def test_injected_fault_hits_replayed_call(acted: bool) -> None:
    account, clock = build_account_and_clock()
    client = client_in_process(account, max_network_retries=0)
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    first = client.v1.checkout.sessions.create(order_at(clock), options)
    account.hang_next("checkout.sessions.create", acted=acted)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.checkout.sessions.create(order_at(clock), options)

    assert first.id == client.v1.checkout.sessions.create(order_at(clock), options).id
