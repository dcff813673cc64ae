"""The interface to a payment provider, and the values it exchanges. It contains no rule of csms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a checkout is opened for; `amount`, in minor units, is the hold, not the price."""

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
    """The state of a checkout's payment at the provider."""

    OPEN = "open"
    EXPIRED = "expired"
    AUTHORIZED = "authorised"
    CAPTURED = "captured"
    RELEASED = "released"


NOT_AUTHORIZABLE: Final = frozenset({PaymentStatus.EXPIRED, PaymentStatus.RELEASED})
"""States that can no longer become an authorization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as the provider reports it; amounts in minor units.

    `captured_amount` does not change with a refund. `capture_before` is when the authorization lapses, None if the
    provider does not say (note F69). Only brand and last four digits of the card are ever known here.
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
    """A verified notice that a reservation's payment changed; the payment itself is always fetched."""

    event_id: str
    kind: str
    reservation_id: str | None


class PaymentProvider(Protocol):
    """What a payment provider does for csms. Each call is safe to repeat with the same key; PaymentRefused is final,
    PaymentUnavailable is not."""

    def open_checkout(self, order: Order, *, key: str) -> Checkout:
        """A page that authorizes the order's amount without capturing it."""

    def payment(self, checkout_id: str) -> Payment:
        """The present state of the checkout's payment."""

    def expire_checkout(self, checkout_id: str, *, key: str) -> Payment:
        """Close the checkout; the result is its payment, which may have been made before that."""

    def capture(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Capture this much of the payment, in minor units, and release the rest; the result is the payment after
        that."""

    def release(self, payment_id: str, *, key: str) -> Payment:
        """Release the payment's authorization; the result is the payment after that."""

    def refund(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Refund the payment up to this amount in all, in minor units; what was refunded before counts."""

    def authorizations(self, since: datetime) -> Iterator[Payment]:
        """Every payment made since then that is authorized and neither captured nor released, with its reservation."""

    def email_address(self, checkout_id: str) -> str | None:
        """The mail address that the driver gave at the checkout, None without one; it is fetched when needed and not
        stored."""

    def read_webhook(self, body: bytes, signature: str) -> ProviderEvent:
        """The event in a webhook's raw body; BadRequest if the signature is not the provider's."""

    def read_event(self, detail: Mapping[str, Any]) -> ProviderEvent:
        """The event in a message from a channel that only the provider can write to (EventBridge); BadRequest if it has
        none."""
