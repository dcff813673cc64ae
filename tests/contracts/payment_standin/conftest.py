"""The stand-in over HTTP, with a clock that can be moved and a webhook endpoint that listens."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from tests.contracts.payment_standin.asking import (
    KEY,
    SECRET,
    STRIPE_KEY,
    Clock,
    Receiver,
    intent_id,
    order,
    pay,
    stripe_client,
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    it = Receiver()

    class Handler(BaseHTTPRequestHandler):
        timeout: ClassVar[float] = 5.0

        def do_POST(self) -> None:
            payload = self.rfile.read(int(self.headers["Content-Length"]))
            it.requests.append((payload, self.headers["Stripe-Signature"]))
            self.send_response(it.answers.pop(0) if it.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it.url = f"http://127.0.0.1:{server.server_port}/payments/webhook"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield it
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand_in(receiver: Receiver, clock: Clock) -> Iterator[PaymentStandIn]:
    it = PaymentStandIn(
        api_key=KEY, webhook_secret=SECRET, webhook_url=receiver.url, clock=clock, webhook_backoff=(0.01, 0.01)
    )
    with it.run_in_thread():
        yield it


@pytest.fixture
def client(request: pytest.FixtureRequest) -> stripe.StripeClient:
    if getattr(request, "param", "stand-in") == "stripe":
        return stripe.StripeClient(STRIPE_KEY)
    return stripe_client(request.getfixturevalue("stand_in"))


@pytest.fixture
def held_payment(stand_in: PaymentStandIn, client: stripe.StripeClient) -> str:
    """The id of an intent whose hold of 18.20 EUR stands."""
    session = client.v1.checkout.sessions.create(order())
    pay(stand_in, session.id)
    return intent_id(client, session.id)
