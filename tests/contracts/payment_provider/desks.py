"""The payment providers that sit one exam: the fake, and Stripe's adapter over the stand-in that speaks Stripe's wire
format, over HTTP and in one process. What Stripe itself answers is asked in test_stripe_itself.py."""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from csms.adapters.stripe import StripePayments
from csms.config import Settings
from csms.errors import PaymentUnavailable
from csms.payment_providers import open_provider
from csms.ports.payments import Checkout, Order, Payment, PaymentProvider
from stand_ins.stripe import Account, InProcess, PaymentStandIn, sequential_ids
from tests.contracts.stripe_events import event
from tests.fakes import Clock, FakeProvider

API_KEY: Final = "sk_test_exam"
SECRET: Final = "whsec_exam"
CARD: Final = "4242424242424242"
DECLINED: Final = "4000000000000002"
DRIVER: Final = "ada@example.com"
OPERATIONS: Final = {
    "open_checkout": "checkout.sessions.create",
    "payment": "checkout.sessions.retrieve",
    "expire_checkout": "checkout.sessions.expire",
    "capture": "payment_intents.capture",
    "release": "payment_intents.cancel",
    "refund": "refunds.create",
    "authorizations": "payment_intents.list",
    "email_address": "checkout.sessions.retrieve",
}
AUTHORIZED: Final = 1820
PROVIDER_PARAMS: Final = ("fake", "stripe over HTTP", "stripe in process")
"""Who sits the exam; the first word of one that is registered is its name in `csms.payment_providers`."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A provider under exam, and what only its test can do with it."""

    provider: PaymentProvider
    clock: Clock
    pay: Callable[[Checkout], None]
    decline: Callable[[Checkout], None]
    fail_next: Callable[[str, bool], None]
    """Without an answer of use; whether it took effect all the same."""
    build_webhook: Callable[[str], tuple[bytes, str]]
    """A signed webhook about a reservation."""
    captured_amounts: Callable[[], list[int]]
    """The amounts captured so far."""
    refunded_amount: Callable[[], int]
    """What went back so far."""
    held_amount: Callable[[], int]
    """What is authorized and neither captured nor released."""

    def order(self, name: str = "r1", amount: int = AUTHORIZED) -> Order:
        return Order(
            reservation_id=name,
            amount=amount,
            currency="EUR",
            description="EV charging at CP1, connector 1",
            success_url=f"https://csms.example/session/{name}?checkout=done",
            cancel_url=f"https://csms.example/session/{name}?checkout=cancelled",
            expires_at=self.clock() + timedelta(minutes=32),
        )

    def open_checkout(self, name: str = "r1") -> Checkout:
        return self.provider.open_checkout(self.order(name), key=f"{name}:open")

    def authorize_payment(self, name: str = "r1") -> Payment:
        """A payment that was made."""
        checkout = self.open_checkout(name)
        self.pay(checkout)
        return self.provider.payment(checkout.checkout_id)

    def capture_payment(self, name: str = "r1", amount: int = 824) -> str:
        """The id of a payment of which this much was taken."""
        paid = self.authorize_payment(name)
        return self.provider.capture(paid.payment_id or "", amount, key=f"{name}:capture").payment_id or ""


@contextmanager
def open_desk(name: str) -> Iterator[Desk]:
    """The desk of one of PROVIDER_PARAMS."""
    clock = Clock()
    match name:
        case "fake":
            yield fake_desk(FakeProvider(clock), clock)
        case "stripe over HTTP":
            stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=SECRET, webhook_url=None, clock=clock)
            with stand_in.run_in_thread():
                provider = open_provider("stripe", settings(STRIPE_API_BASE=stand_in.url))
                # The adapter tries twice by itself; an answer that Stripe stored for the key is not tried again.
                yield stripe_desk(stand_in, provider, clock, pay=submit, tries=2)
        case _:
            account = Account(api_key=API_KEY, webhook_secret=SECRET, clock=clock, new_id=sequential_ids())
            provider = StripePayments(api_key=API_KEY, webhook_secret=SECRET, http_client=InProcess(account))
            yield stripe_desk(account, provider, clock, pay=pay_in_process(account), tries=1)


def settings(**values: str) -> Settings:
    """What an installation at Stripe sets."""
    return Settings.load({"TABLE_NAME": "t", "STRIPE_API_KEY": API_KEY, "STRIPE_WEBHOOK_SECRET": SECRET, **values})


def fake_desk(provider: FakeProvider, clock: Clock) -> Desk:
    return Desk(
        provider=provider,
        clock=clock,
        pay=lambda checkout: provider.pay(checkout.checkout_id, email=DRIVER),
        decline=lambda _checkout: None,
        fail_next=lambda operation, acted: provider.fail_next(operation, acted=acted),
        build_webhook=provider.build_webhook,
        captured_amounts=provider.captured_amounts,
        refunded_amount=provider.refunded_amount,
        held_amount=provider.held_amount,
    )


def stripe_desk(
    account: Account, provider: PaymentProvider, clock: Clock, *, pay: Callable[[Checkout, str], None], tries: int
) -> Desk:
    def fail_next(operation: str, acted: bool) -> None:
        for _ in range(1 if acted else tries):
            account.fail_next(OPERATIONS[operation], status=500, acted=acted)

    return Desk(
        provider=provider,
        clock=clock,
        pay=lambda checkout: pay(checkout, CARD),
        decline=lambda checkout: pay(checkout, DECLINED),
        fail_next=fail_next,
        build_webhook=lambda name: account.sign_event(
            event("payment_intent.amount_capturable_updated", metadata={"reservation_id": name})
        ),
        captured_amounts=lambda: [
            intent.amount_received for intent in account.ledger.intents.values() if intent.amount_received
        ],
        refunded_amount=lambda: sum(refund.amount for refund in account.ledger.refunds.values()),
        held_amount=lambda: sum(intent.amount_capturable for intent in account.ledger.intents.values()),
    )


def pay_in_process(account: Account) -> Callable[[Checkout, str], None]:
    """The driver's hand where there is no page."""

    def pay(checkout: Checkout, card: str) -> None:
        account.pay(checkout.checkout_id, card, address=DRIVER)

    return pay


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: it leads to a page of the product, which does not run here."""

    def redirect_request(self, *_: Any) -> None:
        return None


BROWSER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirects)


def submit(checkout: Checkout, card: str) -> None:
    """The checkout page's form, filled in and sent."""
    form = urlencode({"email": DRIVER, "card_number": card}).encode()
    with pytest.raises(urllib.error.HTTPError) as answer:
        BROWSER.open(f"{checkout.url}/pay", form, timeout=5)
    assert (402 if card == DECLINED else 303) == answer.value.code


def retry_once(ask: Callable[[], Payment]) -> Payment:
    """The answer of the first try, or of the second if the provider gave none; it may not take a third."""
    try:
        return ask()
    except PaymentUnavailable:
        return ask()
