"""Stripe's errors: which are final and which may be tried again, its time limits, and what is never told of them."""

import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from csms.adapters import stripe as stripe_adapter
from csms.adapters.stripe import StripePayments
from csms.errors import PaymentRefused, PaymentUnavailable
from csms.ports.payments import PaymentStatus
from local.database import free_port
from stand_ins.stripe import InProcess, PaymentStandIn
from tests.contracts.stripe_adapter.adapter_desk import API_KEY, SECRET, Desk


@pytest.fixture
def http_desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """The adapter as it runs in production, in a hurry."""
    monkeypatch.setattr(stripe_adapter, "TIMEOUT_SECONDS", 0.3)
    stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=SECRET, webhook_url=None)
    with stand_in.run_in_thread():
        provider = StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=stand_in.url)
        yield Desk(account=stand_in, provider=provider)


def prepare_call(desk: Desk, operation: str) -> Callable[[], object]:
    """A call that asks Stripe for the operation."""
    provider = desk.provider
    match operation:
        case "checkout.sessions.create":
            return desk.open_checkout
        case "checkout.sessions.retrieve":
            checkout = desk.open_checkout()
            return lambda: provider.payment(checkout.checkout_id)
        case "checkout.sessions.expire":
            checkout = desk.open_checkout()
            return lambda: provider.expire_checkout(checkout.checkout_id, key="x")
        case "payment_intents.list":
            return lambda: list(provider.authorizations(desk.clock()))
        case "refunds.create":
            payment_id = desk.capture_payment()
            return lambda: provider.refund(payment_id, 100, key="x")
    payment_id = desk.authorize_payment().payment_id or ""
    if operation == "payment_intents.capture":
        return lambda: provider.capture(payment_id, 824, key="x")
    return lambda: provider.release(payment_id, key="x")


EVERY_OPERATION: Final = (
    "checkout.sessions.create",
    "checkout.sessions.retrieve",
    "checkout.sessions.expire",
    "payment_intents.list",
    "payment_intents.capture",
    "payment_intents.cancel",
    "refunds.create",
)

# Final or not


@pytest.mark.parametrize("operation", EVERY_OPERATION)
@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "amount_too_large"), (402, "card_declined"), (402, "charge_expired_for_capture"), (404, "resource_missing")],
)
def test_final_error_is_refused_with_code(desk, operation, status, code):
    ask = prepare_call(desk, operation)
    desk.account.fail_next(operation, status=status, code=code)

    with pytest.raises(PaymentRefused) as refused:
        ask()

    assert f"The payment provider refused: {code}." == refused.value.message


@pytest.mark.parametrize("operation", EVERY_OPERATION)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "lock_timeout"),
        (400, "rate_limit"),
        (401, "api_key_expired"),
        (403, "secret_key_required"),
        (409, "idempotency_key_in_use"),
        (409, "lock_timeout"),
        (424, "dependency_failed"),
        (429, "lock_timeout"),
        (429, "rate_limit"),
        (500, "oops"),
        (503, "oops"),
    ],
)
def test_transient_error_is_unavailable_and_retryable(desk, operation, status, code):
    ask = prepare_call(desk, operation)
    desk.account.fail_next(operation, status=status, code=code)

    with pytest.raises(PaymentUnavailable) as failed:
        ask()

    assert f"The payment provider did not answer usefully: {code}." == failed.value.message
    ask()


@pytest.mark.parametrize("operation", EVERY_OPERATION)
def test_missing_answer_is_unavailable_and_retryable(desk, operation):
    ask = prepare_call(desk, operation)
    desk.account.hang_next(operation)

    with pytest.raises(PaymentUnavailable):
        ask()

    ask()


@pytest.mark.note("F67")
@pytest.mark.parametrize("operation", EVERY_OPERATION[2:3] + EVERY_OPERATION[4:])
def test_unanswered_operation_is_not_repeated(desk, operation):
    ask = prepare_call(desk, operation)
    told = len(desk.account.events)
    desk.account.hang_next(operation, acted=True)
    with pytest.raises(PaymentUnavailable):
        ask()
    done = len(desk.account.events)

    ask()

    assert told < done == len(desk.account.events)


@pytest.mark.note("F67")
def test_failed_lookup_leaves_capture_undecided(desk):
    paid = desk.authorize_payment()
    desk.account.fail_next("payment_intents.capture", status=500, acted=True)
    desk.account.hang_next("payment_intents.retrieve")

    with pytest.raises(PaymentUnavailable):
        desk.provider.capture(paid.payment_id or "", 824, key="x")

    assert 824 == desk.provider.capture(paid.payment_id or "", 824, key="x").captured_amount


def test_refused_expiry_of_open_checkout_raises(desk):
    checkout = desk.open_checkout()
    desk.account.fail_next("checkout.sessions.expire", status=400)

    with pytest.raises(PaymentRefused):
        desk.provider.expire_checkout(checkout.checkout_id, key="x")


def test_wrong_address_or_key_is_unavailable(desk):
    nobody = StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=f"http://127.0.0.1:{free_port()}")
    other_account = StripePayments(api_key="sk_test_other", webhook_secret=SECRET, http_client=InProcess(desk.account))

    for provider in (nobody, other_account):
        with pytest.raises(PaymentUnavailable):
            provider.payment("cs_1")


# Time limits, as in production


def test_answer_timeout_raises_unavailable(http_desk):
    checkout = http_desk.open_checkout()
    for _ in range(2):
        http_desk.account.hang_next("checkout.sessions.retrieve")

    with pytest.raises(PaymentUnavailable):
        http_desk.provider.payment(checkout.checkout_id)

    assert PaymentStatus.OPEN is http_desk.provider.payment(checkout.checkout_id).status


@pytest.mark.note("F67")
def test_timed_out_capture_is_made_once(http_desk):
    paid = http_desk.authorize_payment()
    http_desk.account.hang_next("payment_intents.capture", acted=True)

    captured = http_desk.provider.capture(paid.payment_id or "", 824, key="x")

    assert (PaymentStatus.CAPTURED, 824) == (captured.status, captured.captured_amount)
    assert 1 == [event["type"] for event in http_desk.account.events].count("charge.captured")


# What is said about it


@pytest.mark.note("F71")
@pytest.mark.parametrize("operation", EVERY_OPERATION)
@pytest.mark.parametrize("status", [400, 401, 402, 409, 429, 500])
def test_provider_error_text_is_never_exposed(desk, operation, status, caplog):
    caplog.set_level(logging.DEBUG)
    ask = prepare_call(desk, operation)
    desk.account.fail_next(operation, status=status)

    with pytest.raises((PaymentRefused, PaymentUnavailable)) as failed:
        ask()

    said = "".join(traceback.format_exception(failed.value)) + failed.value.code + caplog.text
    assert "was told to answer" not in said
    assert API_KEY not in said
