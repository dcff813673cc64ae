"""The account without a socket: the same answers as over HTTP, at once, and the same in every run."""

import time
from datetime import timedelta
from typing import Any

import pytest
import stripe

from stand_ins.stripe import Account, InProcess, PaymentStandIn, numbered
from tests.contracts.payment_standin.asking import KEY, SECRET, SUCCESS_CARD, client_of, order, pay, refused
from tests.fakes import Clock


def account_of(clock: Clock) -> Account:
    return Account(api_key=KEY, webhook_secret=SECRET, clock=clock, new_id=numbered())


def client_in_process(account: Account, **options: Any) -> stripe.StripeClient:
    return stripe.StripeClient(KEY, http_client=InProcess(account), **options)


def order_at(clock: Clock) -> dict[str, Any]:
    return order(expires_at=int(clock().timestamp()) + 2000)


def life(client: stripe.StripeClient, account: Account, clock: Clock) -> list[dict[str, Any]]:
    """What is answered and told when a payment is made, captured and refunded."""
    session = client.v1.checkout.sessions.create(order_at(clock), {"idempotency_key": "a"})
    account.pay(session.id, SUCCESS_CARD, address="ada@example.com")
    expand = {"expand": ["payment_intent.latest_charge"]}
    paid = client.v1.checkout.sessions.retrieve(session.id, expand)
    captured = client.v1.payment_intents.capture(paid.payment_intent.id, {"amount_to_capture": 645})
    refund = client.v1.refunds.create({"payment_intent": captured.id, "amount": 45})
    with refused(400, "payment_intent_unexpected_state"):
        client.v1.payment_intents.cancel(captured.id)
    listed = client.v1.payment_intents.list({"created": {"gte": int(clock().timestamp())}})
    return [it.to_dict() for it in (session, paid, captured, refund, listed)] + account.events


def test_repeated_runs_are_identical() -> None:
    first, second = (life(client_in_process(account), account, clock) for account, clock in (new(), new()))

    # The package makes up a key for a call that brings none.
    for event in first + second:
        event.pop("request", None)
    assert first == second


def new() -> tuple[Account, Clock]:
    clock = Clock()
    return account_of(clock), clock


def test_in_process_answers_equal_http_answers() -> None:
    account, clock = new()
    stand_in = PaymentStandIn(api_key=KEY, webhook_secret=SECRET, webhook_url=None, clock=Clock(), new_id=numbered())
    with stand_in.running():
        account.site = stand_in.url

        over_http, in_process = (
            life(client_of(stand_in), stand_in, clock),
            life(client_in_process(account), account, clock),
        )

    for event in over_http + in_process:
        event.pop("request", None)
    assert over_http == in_process


def test_http_payment_is_visible_in_process() -> None:
    stand_in = PaymentStandIn(api_key=KEY, webhook_secret=SECRET, webhook_url=None)
    with stand_in.running():
        session = client_of(stand_in).v1.checkout.sessions.create(order())
        pay(stand_in, session.id)

    assert "complete" == client_in_process(stand_in).v1.checkout.sessions.retrieve(session.id).status


def test_session_and_hold_follow_account_clock() -> None:
    account, clock = new()
    client = client_in_process(account)
    expiring, lapsing = (client.v1.checkout.sessions.create(order_at(clock)).id for _ in range(2))
    account.pay(lapsing, SUCCESS_CARD)

    clock.move(timedelta(seconds=2000))
    assert "expired" == client.v1.checkout.sessions.retrieve(expiring).status

    clock.move(timedelta(days=7))
    account.sweep()
    assert ["charge.expired", "payment_intent.canceled"] == [event["type"] for event in account.events[-2:]]


def test_injected_fault_hits_once_without_delay() -> None:
    account, clock = new()
    client = client_in_process(account, max_network_retries=0)
    account.hang_next("checkout.sessions.create")
    account.fail_next("checkout.sessions.create", status=500)
    begun = time.monotonic()

    with pytest.raises(stripe.APIConnectionError):
        client.v1.checkout.sessions.create(order_at(clock))
    with refused(500):
        client.v1.checkout.sessions.create(order_at(clock))

    assert time.monotonic() - begun < stripe.HTTPClient.INITIAL_DELAY
    assert "open" == client.v1.checkout.sessions.create(order_at(clock)).status


def test_recover_clears_injected_faults() -> None:
    account, clock = new()
    account.fail_next(status=500)

    account.recover()

    assert "open" == client_in_process(account).v1.checkout.sessions.create(order_at(clock)).status


@pytest.mark.parametrize("acted", [False, True])
def test_injected_fault_hits_replayed_call(acted: bool) -> None:
    account, clock = new()
    client = client_in_process(account, max_network_retries=0)
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    first = client.v1.checkout.sessions.create(order_at(clock), options)
    account.hang_next("checkout.sessions.create", acted=acted)

    with pytest.raises(stripe.APIConnectionError):
        client.v1.checkout.sessions.create(order_at(clock), options)

    assert first.id == client.v1.checkout.sessions.create(order_at(clock), options).id
