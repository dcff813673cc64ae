"""What a payment provider must be able to do, and the words it is asked and answered in. No rule of ours lives here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a checkout is opened for; `amount` in minor units is a hold, not a price."""

    reservation_id: str
    amount: int
    currency: str
    description: str
    success_url: str
    cancel_url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A page on which the driver can pay."""

    checkout_id: str
    url: str


class PaymentStatus(StrEnum):
    """How a checkout's payment stands at the provider."""

    OPEN = "open"
    EXPIRED = "expired"
    AUTHORISED = "authorised"
    CAPTURED = "captured"
    RELEASED = "released"


NOT_AUTHORISABLE: Final = frozenset({PaymentStatus.EXPIRED, PaymentStatus.RELEASED})
"""What can no longer become an authorisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """The provider's own word on a payment; amounts in minor units.

    `captured_amount` stays when some of it is refunded. `capture_before` is when the authorisation lapses, None where
    the provider does not say (note F69); of the card only brand and last four digits are ever known here.
    """

    status: PaymentStatus
    payment_id: str | None = None
    reservation_id: str | None = None
    authorised_amount: int = 0
    captured_amount: int = 0
    refunded_amount: int = 0
    capture_before: datetime | None = None
    card_brand: str | None = None
    card_last4: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEvent:
    """A verified notice that something happened to a reservation's payment; what happened is asked for, not
    believed."""

    event_id: str
    kind: str
    reservation_id: str | None


class PaymentProvider(Protocol):
    """What a payment provider does for us. Each call is safe to repeat with the same key; PaymentRefused is final,
    PaymentUnavailable is not."""

    def open_checkout(self, order: Order, *, key: str) -> Checkout:
        """A page that authorises the order's amount without capturing it."""

    def payment(self, checkout_id: str) -> Payment:
        """How the checkout's payment stands now."""

    def expire_checkout(self, checkout_id: str, *, key: str) -> Payment:
        """The payment after the checkout was closed; it may have been paid before that."""

    def capture(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """The payment after this much of it was captured and the rest let go."""

    def release(self, payment_id: str, *, key: str) -> Payment:
        """The payment after its authorisation was let go."""

    def refund(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """The payment after this much of what was captured went back in all; found so, nothing more is refunded."""

    def authorisations(self, since: datetime) -> Iterator[Payment]:
        """Every payment made since then that is authorised and neither captured nor released, each with its
        reservation."""

    def email_address(self, checkout_id: str) -> str | None:
        """The mail address the driver gave on the checkout's page; it is asked for when it is needed, and not kept."""

    def read_webhook(self, body: bytes, signature: str) -> ProviderEvent:
        """The event in a webhook's raw body; BadRequest if the signature is not the provider's."""

    def read_event(self, detail: Mapping[str, Any]) -> ProviderEvent:
        """The event in a message that came over a channel which only the provider can write to (EventBridge);
        BadRequest for what is none."""
