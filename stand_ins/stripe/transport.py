"""The account behind the `stripe` package without a socket: its documented seam, a subclassed HTTPClient.

    account = Account(api_key="sk_test_x", webhook_secret="whsec_x", clock=Clock(), new_id=numbered())
    provider = StripePayments(api_key="sk_test_x", webhook_secret="whsec_x", http_client=InProcess(account))

    checkout = provider.open_checkout(order, key="r1:open")
    account.pay(checkout.checkout_id, "4242424242424242", address="driver@example.com")
    account.hang_next("payment_intents.capture", acted=True)     # it captures, and nobody hears of it
    account.fail_next("refunds.create", status=429)              # nothing happens
    account.clock.move(timedelta(days=7))                        # the authorization lapses
    account.sweep()
    for event in account.events:
        provider.event(*account.signed(event))

Every call is one call: nothing is tried again, nothing sleeps, and with a clock of its own and numbered ids a run is
the same each time.
"""

import json
from collections.abc import Mapping
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import stripe
from stand_ins.stripe.account import Account, Request


class InProcess(stripe.HTTPClient):
    """Hands each of StripeClient's requests to the account, one at a time."""

    name = "in-process"

    def __init__(self, account: Account) -> None:
        super().__init__()
        self._account = account
        self._lock = Lock()

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        """The account's answer; APIConnectionError, as of a time limit, where the account was told to give none."""
        parts = urlsplit(url)
        text = parts.query if method.upper() == "GET" else post_data or ""
        asked = Request(method=method.upper(), path=parts.path, headers=headers or {}, text=text)
        with self._lock:
            reply = self._account.answer(asked)
        if reply is None:
            raise stripe.APIConnectionError("No answer came.", should_retry=True)
        return json.dumps(reply.body), reply.status, reply.headers

    def close(self) -> None:
        """There is nothing to close."""
