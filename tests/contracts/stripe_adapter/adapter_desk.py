"""Stripe's adapter with the stand-in's account behind it, in one process."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import stripe

from csms.adapters.stripe import StripePayments
from csms.ports.payments import Checkout, Order, Payment
from stand_ins.stripe import Account, InProcess
from tests.fakes import Clock

API_KEY: Final = "sk_test_adapter"
SECRET: Final = "whsec_adapter"
CARD: Final = "4242424242424242"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The adapter, the account behind it, and a payment of 18.20 EUR where a test needs one."""

    account: Account
    provider: StripePayments
    clock: Clock = field(default_factory=Clock)

    def open_checkout(self, name: str = "r1") -> Checkout:
        order = Order(
            reservation_id=name,
            amount=1820,
            currency="EUR",
            description="EV charging at CP1, connector 1",
            success_url=f"https://csms.example/session/{name}?checkout=done",
            cancel_url=f"https://csms.example/session/{name}?checkout=cancelled",
            expires_at=self.account.clock() + timedelta(minutes=32),
        )
        return self.provider.open_checkout(order, key=f"{name}:open")

    def authorize_payment(self, name: str = "r1") -> Payment:
        checkout = self.open_checkout(name)
        self.account.pay(checkout.checkout_id, CARD)
        return self.provider.payment(checkout.checkout_id)

    def capture_payment(self, name: str = "r1") -> str:
        paid = self.authorize_payment(name)
        return self.provider.capture(paid.payment_id or "", 824, key=f"{name}:capture").payment_id or ""

    @property
    def stripe(self) -> Any:
        """The package itself, for what the product never asks."""
        return stripe.StripeClient(API_KEY, http_client=InProcess(self.account)).v1
