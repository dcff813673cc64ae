"""What the product relies on, tested on Stripe itself: `STRIPE_API_KEY=sk_test_… make test-stripe`. Without a test key
only the stand-in is tested, which shows that this module works.

A Checkout Session cannot be paid through the API, only on Stripe's own page. So sessions are opened, looked up and
expired here; capture, release, refund and the list are tested on PaymentIntents that the test creates as the page would
(manual capture, a test card, confirmed at once). That a paid session has such a PaymentIntent can only be seen by hand:
pay once with `STRIPE_API_KEY=sk_test_… make run`. Each test settles what it holds, and no key is used in two runs.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import pytest
import stripe

from csms.adapters.stripe import StripePayments
from csms.errors import PaymentRefused
from csms.ports.payments import Order, Payment, PaymentStatus
from stand_ins.stripe import Account, InProcess
from tests.contracts.payment_standin.asking import KEY, SECRET, STRIPE_ITSELF, STRIPE_KEY

HELD = 1820


class Desk:
    """The adapter, and the package itself for what the product never asks."""

    def __init__(self, key: str, **options: Any) -> None:
        self.provider = StripePayments(api_key=key, webhook_secret=SECRET, **options)
        self.stripe = stripe.StripeClient(key, **options).v1
        self.run = token_hex(8)
        self.made: list[str] = []

    def key(self, name: str) -> str:
        return f"{self.run}:{name}"

    def order(self) -> Order:
        return Order(
            reservation_id=self.run,
            amount=HELD,
            currency="EUR",
            description="EV charging at CP1, connector 1",
            success_url="https://csms.example/session/r1?checkout=done",
            cancel_url="https://csms.example/session/r1?checkout=cancelled",
            expires_at=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=32),
        )

    def hold_payment(self, **changes: Any) -> str:
        """The id of a PaymentIntent as a paid session of ours has one."""
        intent = self.stripe.payment_intents.create(
            {
                "amount": HELD,
                "currency": "eur",
                "capture_method": "manual",
                "confirm": True,
                "payment_method": "pm_card_visa",
                "allowed_payment_method_types": ["card"],
                "metadata": {"reservation_id": self.run},
                **changes,
            }
        )
        self.made.append(intent.id)
        return intent.id

    def release_holds(self) -> None:
        """Nothing stays held."""
        for payment_id in self.made:
            if "requires_capture" == self.stripe.payment_intents.retrieve(payment_id).status:
                self.stripe.payment_intents.cancel(payment_id)


@pytest.fixture(params=["stand-in", *STRIPE_ITSELF])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "stripe":
        it = Desk(STRIPE_KEY)
    else:
        it = Desk(KEY, http_client=InProcess(Account(api_key=KEY, webhook_secret=SECRET)))
    yield it
    it.release_holds()


def test_checkout_opens_once_per_key_unpaid(desk):
    order = desk.order()

    first = desk.provider.open_checkout(order, key=desk.key("open"))
    second = desk.provider.open_checkout(order, key=desk.key("open"))

    assert first == second
    assert first.url.startswith("https://")
    assert Payment(status=PaymentStatus.OPEN, reservation_id=desk.run) == desk.provider.payment(first.checkout_id)
    assert desk.provider.email_address(first.checkout_id) is None


@pytest.mark.note("F64")
def test_checkout_expires_once_and_stays_expired(desk):
    checkout = desk.provider.open_checkout(desk.order(), key=desk.key("open"))
    expired = Payment(status=PaymentStatus.EXPIRED, reservation_id=desk.run)

    assert expired == desk.provider.expire_checkout(checkout.checkout_id, key=desk.key("expire"))
    assert expired == desk.provider.expire_checkout(checkout.checkout_id, key=desk.key("again"))
    assert expired == desk.provider.payment(checkout.checkout_id)


def test_reused_key_refuses_another_order(desk):
    order = desk.order()
    desk.provider.open_checkout(order, key=desk.key("open"))

    with pytest.raises(PaymentRefused):
        desk.provider.open_checkout(replace(order, amount=99), key=desk.key("open"))


@pytest.mark.note("F63")
def test_authorizations_list_own_holds_with_card(desk):
    other = desk.hold_payment(metadata={})
    payment_id = desk.hold_payment()

    found = list(desk.provider.authorizations(datetime.now(UTC) - timedelta(minutes=5)))

    listed = {payment.payment_id: payment for payment in found}
    assert other not in listed
    payment = listed[payment_id]
    assert (PaymentStatus.AUTHORIZED, HELD, desk.run) == (
        payment.status,
        payment.authorised_amount,
        payment.reservation_id,
    )
    assert ("visa", "4242") == (payment.card_brand, payment.card_last4)
    assert payment.capture_before > datetime.now(UTC) + timedelta(days=1)


@pytest.mark.note("F67")
@pytest.mark.parametrize("second_key", ["capture", "other"])
def test_repeated_capture_takes_money_once(desk, second_key):
    payment_id = desk.hold_payment()

    first = desk.provider.capture(payment_id, 824, key=desk.key("capture"))
    second = desk.provider.capture(payment_id, 824, key=desk.key(second_key))

    assert (PaymentStatus.CAPTURED, 824, 0) == (first.status, first.captured_amount, first.refunded_amount)
    assert (second.status, second.captured_amount) == (first.status, first.captured_amount)
    with pytest.raises(PaymentRefused):
        desk.provider.release(payment_id, key=desk.key("release"))


@pytest.mark.note("F65")
def test_capture_above_authorized_amount_is_refused(desk):
    payment_id = desk.hold_payment()

    with pytest.raises(PaymentRefused):
        desk.provider.capture(payment_id, HELD + 1, key=desk.key("too-much"))

    assert HELD == desk.provider.capture(payment_id, HELD, key=desk.key("all")).captured_amount


@pytest.mark.note("F63")
def test_release_is_repeatable_and_prevents_capture(desk):
    payment_id = desk.hold_payment()

    for name in ("release", "release", "other"):
        assert PaymentStatus.RELEASED is desk.provider.release(payment_id, key=desk.key(name)).status
    with pytest.raises(PaymentRefused):
        desk.provider.capture(payment_id, 824, key=desk.key("capture"))


def test_refund_is_cumulative_up_to_captured_amount(desk):
    payment_id = desk.hold_payment()
    desk.provider.capture(payment_id, 824, key=desk.key("capture"))

    asked = (("first", 300), ("first", 300), ("other", 300), ("more", 500))
    amounts = [desk.provider.refund(payment_id, amount, key=desk.key(name)).refunded_amount for name, amount in asked]

    assert [300, 300, 300, 500] == amounts
    with pytest.raises(PaymentRefused):
        desk.provider.refund(payment_id, 825, key=desk.key("too-much"))


def test_unknown_stripe_objects_are_refused(desk):
    for ask in (
        lambda: desk.provider.payment("cs_test_none"),
        lambda: desk.provider.capture("pi_none", 100, key=desk.key("capture")),
        lambda: desk.provider.refund("pi_none", 100, key=desk.key("refund")),
    ):
        with pytest.raises(PaymentRefused, match="resource_missing"):
            ask()
