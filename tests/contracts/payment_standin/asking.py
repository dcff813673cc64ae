"""Clients of the stand-in for its tests: the unmodified `stripe` package, a browser that follows no redirect, and a
webhook endpoint that stores all requests.

With STRIPE_API_KEY=sk_test_… in the environment, tests that need neither a payer nor a webhook also run against Stripe
itself: `make test-stripe` runs only those.
"""

import http.client
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn

KEY = "sk_test_stand_in"
SECRET = "whsec_stand_in"
SUCCESS_CARD = "4242424242424242"
DECLINED_CARD = "4000000000000002"
POOR_CARD = "4000000000009995"
CHALLENGED_CARD = "4000002500003155"
STRIPE_KEY = os.environ.get("STRIPE_API_KEY", "")
STRIPE_ITSELF = [pytest.param("stripe", marks=pytest.mark.stripe_itself)] if STRIPE_KEY.startswith("sk_test_") else []
ON_STRIPE_TOO = pytest.mark.parametrize("client", ["stand-in", *STRIPE_ITSELF], indirect=True)


@dataclass
class Clock:
    """Real time plus what a test adds to it."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Receiver:
    """A webhook endpoint: keeps every request, answers the next of `answers` (200 when there is none)."""

    answers: list[int] = field(default_factory=list)
    requests: list[tuple[bytes, str]] = field(default_factory=list)
    url: str = ""

    @property
    def events(self) -> list[stripe.Event]:
        return [stripe.Webhook.construct_event(payload, signature, SECRET) for payload, signature in self.requests]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


def stripe_client(stand_in: PaymentStandIn, key: str = KEY, **options: Any) -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": stand_in.url}, **options)


def order(**changes: Any) -> dict[str, Any]:
    price = {"currency": "eur", "unit_amount": 1820, "product_data": {"name": "Charging at A-1, connector 1"}}
    return {
        "mode": "payment",
        "line_items": [{"price_data": price, "quantity": 1}],
        "payment_intent_data": {"capture_method": "manual", "metadata": {"rid": "r-1"}},
        "metadata": {"rid": "r-1"},
        "client_reference_id": "r-1",
        "success_url": "https://csms.example/session/r-1?checkout=done&cs={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://csms.example/session/r-1?checkout=cancelled",
        "expires_at": int(time.time()) + 2000,
    } | changes


@dataclass(frozen=True)
class Page:
    status: int
    location: str | None
    text: str


def browse(url: str, form: dict[str, str] | None = None) -> Page:
    """What a browser gets before it follows anything."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
    connection.request("GET" if form is None else "POST", parts.path, urlencode(form or {}), headers)
    response = connection.getresponse()
    page = Page(status=response.status, location=response.getheader("Location"), text=response.read().decode())
    connection.close()
    return page


def pay(stand_in: PaymentStandIn, session_id: str, card: str = SUCCESS_CARD) -> Page:
    return browse(f"{stand_in.url}/checkout/{session_id}/pay", {"card_number": card})


def intent_id(client: stripe.StripeClient, session_id: str) -> str:
    found = client.v1.checkout.sessions.retrieve(session_id).payment_intent
    assert isinstance(found, str)
    return found


@contextmanager
def expect_refusal(status: int, code: str | None = None) -> Iterator[pytest.ExceptionInfo[stripe.StripeError]]:
    with pytest.raises(stripe.StripeError) as caught:
        yield caught

    assert status == caught.value.http_status
    assert code == caught.value.json_body["error"].get("code")


def refusal(call: Callable[[], object]) -> str | None:
    """Status and code of the error call ends in; None when it ends well."""
    try:
        call()
    except stripe.StripeError as error:
        return f"{error.http_status} {error.json_body['error'].get('code')}"
    return None
