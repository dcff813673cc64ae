"""What a provider refuses, and what may be asked again with the same key after it did not answer."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from csms.errors import PaymentRefused, PaymentUnavailable
from tests.contracts.payment_provider.desks import OPERATIONS, Desk


@pytest.mark.parametrize(
    "ask",
    [
        lambda provider: provider.payment("cs_unknown"),
        lambda provider: provider.email_address("cs_unknown"),
        lambda provider: provider.expire_checkout("cs_unknown", key="x1"),
        lambda provider: provider.capture("pi_unknown", 1, key="x2"),
        lambda provider: provider.release("pi_unknown", key="x3"),
        lambda provider: provider.refund("pi_unknown", 1, key="x4"),
    ],
)
def test_unknown_payment_objects_are_refused(desk, ask):
    with pytest.raises(PaymentRefused):
        ask(desk.provider)


def prepare_call(desk: Desk, operation: str) -> Callable[[], object]:
    """A call of the operation that can be made at any time, with one key."""
    provider, name = desk.provider, f"r-{operation}"
    if operation == "open_checkout":
        the_order = desk.order(name)
        return lambda: provider.open_checkout(the_order, key=f"{name}:x")
    checkout = desk.open_checkout(name)
    if operation == "expire_checkout":
        return lambda: provider.expire_checkout(checkout.checkout_id, key=f"{name}:x")
    desk.pay(checkout)
    payment_id = provider.payment(checkout.checkout_id).payment_id or ""
    if operation == "refund":
        provider.capture(payment_id, 824, key=f"{name}:capture")
    since: datetime = desk.clock() - timedelta(days=1)
    calls: dict[str, Callable[[], object]] = {
        "payment": lambda: provider.payment(checkout.checkout_id),
        "email_address": lambda: provider.email_address(checkout.checkout_id),
        "capture": lambda: provider.capture(payment_id, 100, key=f"{name}:x"),
        "release": lambda: provider.release(payment_id, key=f"{name}:x"),
        "refund": lambda: provider.refund(payment_id, 100, key=f"{name}:x"),
        "authorizations": lambda: list(provider.authorizations(since)),
    }
    return calls[operation]


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_unavailable_provider_leaves_key_retryable(desk, operation):
    ask = prepare_call(desk, operation)
    desk.fail_next(operation, False)

    with pytest.raises(PaymentUnavailable):
        ask()

    assert ask()
