"""The stand-in's Checkout Sessions: what Stripe accepts, refuses and expires."""

import time

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from stand_ins.stripe.account import Request
from stand_ins.stripe.objects import API_VERSION
from tests.contracts.payment_standin.asking import KEY, ON_STRIPE_TOO, SECRET, expect_refusal, order, stripe_client


@ON_STRIPE_TOO
def test_new_session_is_open_without_intent(client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    assert ("open", "unpaid", None) == (session.status, session.payment_status, session.payment_intent)
    assert (1820, "eur", "r-1") == (session.amount_total, session.currency, session.client_reference_id)
    assert {"rid": "r-1"} == session.metadata.to_dict()
    assert session.url is not None


@ON_STRIPE_TOO
@pytest.mark.parametrize("seconds", [29 * 60, 25 * 3600])
def test_session_lifetime_outside_limits_is_refused(client: stripe.StripeClient, seconds: int) -> None:
    with expect_refusal(400):
        client.v1.checkout.sessions.create(order(expires_at=int(time.time()) + seconds))


@ON_STRIPE_TOO
def test_amount_below_currency_minimum_is_refused(client: stripe.StripeClient) -> None:
    price = {"currency": "eur", "unit_amount": 49, "product_data": {"name": "Charging"}}

    with expect_refusal(400, "amount_too_small"):
        client.v1.checkout.sessions.create(order(line_items=[{"price_data": price, "quantity": 1}]))


@ON_STRIPE_TOO
def test_unknown_parameter_is_refused_by_name(client: stripe.StripeClient) -> None:
    payment = {"capture_method": "manual", "color": "green"}

    with expect_refusal(400, "parameter_unknown") as caught:
        client.v1.checkout.sessions.create(order(payment_intent_data=payment))

    assert "payment_intent_data[color]" == caught.value.param


def test_removed_parameter_is_refused(client: stripe.StripeClient) -> None:
    with expect_refusal(400, "payment_method_types_no_longer_supported") as caught:
        client.v1.checkout.sessions.create(order(payment_method_types=["card"]))

    assert "payment_method_types" == caught.value.param


@ON_STRIPE_TOO
def test_missing_parameter_is_refused_by_name(client: stripe.StripeClient) -> None:
    price = {"currency": "eur", "unit_amount": 1820}

    with expect_refusal(400, "parameter_missing") as caught:
        client.v1.checkout.sessions.create(order(line_items=[{"price_data": price, "quantity": 1}]))

    assert "line_items[0][price_data][product_data]" in caught.value.user_message


@ON_STRIPE_TOO
def test_invalid_url_is_refused(client: stripe.StripeClient) -> None:
    with expect_refusal(400, "url_invalid"):
        client.v1.checkout.sessions.create(order(success_url="javascript:alert(1)"))


@ON_STRIPE_TOO
def test_open_session_expires_once(client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    expired = client.v1.checkout.sessions.expire(session.id)

    assert ("expired", "unpaid", None) == (expired.status, expired.payment_status, expired.url)
    with expect_refusal(400) as caught:
        client.v1.checkout.sessions.expire(session.id)
    assert 'Only Checkout Sessions with a status in ["open"] can be expired' in caught.value.user_message


@ON_STRIPE_TOO
def test_unknown_object_returns_404(client: stripe.StripeClient) -> None:
    with expect_refusal(404, "resource_missing"):
        client.v1.checkout.sessions.retrieve("cs_test_none")
    with expect_refusal(404, "resource_missing"):
        client.v1.payment_intents.capture("pi_none")


@ON_STRIPE_TOO
def test_unexpandable_field_is_refused(client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    with expect_refusal(400):
        client.v1.checkout.sessions.retrieve(session.id, {"expand": ["metadata"]})


def test_wrong_api_key_returns_401(stand_in: PaymentStandIn) -> None:
    with pytest.raises(stripe.AuthenticationError):
        stripe_client(stand_in, "sk_test_wrong").v1.checkout.sessions.create(order())


def test_live_api_key_is_rejected() -> None:
    with pytest.raises(ValueError, match="test keys"):
        PaymentStandIn(api_key="sk_live_1", webhook_secret=SECRET, webhook_url=None)


def test_unknown_path_returns_404(stand_in: PaymentStandIn) -> None:
    with expect_refusal(404):
        stripe_client(stand_in).v1.customers.create({"name": "Ada"})


def test_stand_in_has_package_api_version() -> None:
    assert stripe.api_version == API_VERSION


def listing(version: str | None = None) -> Request:
    """A valid call, of that version."""
    headers = {"Authorization": f"Bearer {KEY}"} | ({"Stripe-Version": version} if version is not None else {})
    return Request(method="GET", path="/v1/payment_intents", headers=headers)


@pytest.mark.parametrize("version", ["2026-09-30.endive", "2026-10-28.preview", "1999-01-01", ""])
def test_other_api_version_is_refused(stand_in: PaymentStandIn, version: str) -> None:
    reply = stand_in.answer(listing(version=version))

    assert (400, "invalid_request_error") == (reply.status, reply.body["error"]["type"])
    assert f"Invalid Stripe API version: {version}" == reply.body["error"]["message"]


def test_missing_api_version_is_accepted(stand_in: PaymentStandIn) -> None:
    assert 200 == stand_in.answer(listing()).status


def test_other_version_client_opens_no_session(stand_in: PaymentStandIn) -> None:
    with expect_refusal(400) as caught:
        stripe_client(stand_in, stripe_version="2026-09-30.endive").v1.checkout.sessions.create(order())

    assert "Invalid Stripe API version: 2026-09-30.endive" == caught.value.user_message
    assert {} == stand_in.ledger.sessions
