"""The account behind the `stripe` package without a socket: its documented seam, a subclassed HTTPClient.

    account = Account(api_key="sk_test_x", webhook_secret="whsec_x", clock=Clock(), new_id=sequential_ids())
    provider = StripePayments(api_key="sk_test_x", webhook_secret="whsec_x", http_client=InProcess(account))

    checkout = provider.open_checkout(order, key="r1:open")
    account.pay(checkout.checkout_id, "4242424242424242", address="driver@example.com")
    account.hang_next("payment_intents.capture", acted=True)     # it captures, but no answer comes
    account.fail_next("refunds.create", status=429)              # nothing happens
    account.clock.move(timedelta(days=7))                        # the authorization lapses
    account.sweep()
    for event in account.events:
        provider.read_webhook(*account.sign_event(event))

Nothing is retried and nothing sleeps. With a clock of its own and sequential ids, every run is the same.
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
        """The account's answer. Raises APIConnectionError, as after a timeout, if a fault was ordered that gives
        none."""
        parts = urlsplit(url)
        text = parts.query if method.upper() == "GET" else post_data or ""
        asked = Request(method=method.upper(), path=parts.path, headers=headers or {}, text=text)
        with self._lock:
            reply = self._account.answer(asked)
        if reply is None:
            raise stripe.APIConnectionError("No answer came.", should_retry=True)
        return json.dumps(reply.body), reply.status, reply.headers

    def close(self) -> None:
        """Nothing to close."""
