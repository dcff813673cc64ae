"""The payment providers by name, as in the setting PAYMENT_PROVIDER and in each reservation.

An adapter is imported when it is opened, because most functions have no layer with its provider's client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from csms.config import Settings
from csms.errors import BadRequest
from csms.ports.payments import PaymentProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEntry:
    """One provider: how to open its adapter, and the header with the signature of its webhooks, in lower case."""

    open: Callable[[Settings], PaymentProvider]
    signature_header: str


def _open_stripe(settings: Settings) -> PaymentProvider:
    from csms.adapters.stripe import StripePayments

    return StripePayments(
        api_key=settings.stripe_api_key,
        webhook_secret=settings.stripe_webhook_secret,
        api_base=settings.stripe_api_base,
    )


PROVIDERS: Final[Mapping[str, ProviderEntry]] = MappingProxyType(
    {
        "stripe": ProviderEntry(open=_open_stripe, signature_header="stripe-signature"),
    }
)


def find_provider(name: str) -> ProviderEntry:
    """The provider with this name; BadRequest that names the setting if there is none."""
    found = PROVIDERS.get(name)
    if found is None:
        raise BadRequest(f"Setting PAYMENT_PROVIDER: must be one of {', '.join(PROVIDERS)}")
    return found


def open_provider(name: str, settings: Settings) -> PaymentProvider:
    """The adapter of the provider with this name; BadRequest if there is none."""
    return find_provider(name).open(settings)
