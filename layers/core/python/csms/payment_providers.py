"""The payment providers that can be chosen, by the name that `PAYMENT_PROVIDER` and each reservation say.

An adapter brings its provider's client along, which most functions have no layer for: it is imported when it is opened.
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
    """One provider: how it is opened, and the header that its webhooks are signed in, in lower case."""

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
    """The provider of that name; BadRequest that names the setting if there is none."""
    found = PROVIDERS.get(name)
    if found is None:
        raise BadRequest(f"Setting PAYMENT_PROVIDER: must be one of {', '.join(PROVIDERS)}")
    return found


def open_provider(name: str, settings: Settings) -> PaymentProvider:
    """The adapter of the provider of that name; BadRequest if there is none."""
    return find_provider(name).open(settings)
