"""The payment stand-in, asked through the unmodified `stripe` package over HTTP what Stripe promises.

With STRIPE_API_KEY=sk_test_… in the environment the tests that need neither a payer nor a webhook ask Stripe itself.
"""

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import pytest
import stripe

from local.payments import PaymentStandIn
from local.payments.objects import API_VERSION
from local.payments.page import format_amount

KEY = "sk_test_stand_in"
SECRET = "whsec_stand_in"
SUCCESS_CARD = "4242424242424242"
DECLINED_CARD = "4000000000000002"
POOR_CARD = "4000000000009995"
CHALLENGED_CARD = "4000002500003155"
STRIPE_KEY = os.environ.get("STRIPE_API_KEY", "")
PROVIDERS = ["stand-in", "stripe"] if STRIPE_KEY.startswith("sk_test_") else ["stand-in"]
ON_STRIPE_TOO = pytest.mark.parametrize("client", PROVIDERS, indirect=True)


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
    with it.running():
        yield it


@pytest.fixture
def client(request: pytest.FixtureRequest) -> stripe.StripeClient:
    if getattr(request, "param", "stand-in") == "stripe":
        return stripe.StripeClient(STRIPE_KEY)
    return client_of(request.getfixturevalue("stand_in"))


def client_of(stand_in: PaymentStandIn, key: str = KEY, **options: Any) -> stripe.StripeClient:
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


@pytest.fixture
def paid(stand_in: PaymentStandIn, client: stripe.StripeClient) -> str:
    """The id of an intent whose hold of 18.20 EUR stands."""
    session = client.v1.checkout.sessions.create(order())
    pay(stand_in, session.id)
    return intent_id(client, session.id)


def intent_id(client: stripe.StripeClient, session_id: str) -> str:
    found = client.v1.checkout.sessions.retrieve(session_id).payment_intent
    assert isinstance(found, str)
    return found


@contextmanager
def refused(status: int, code: str | None = None) -> Iterator[pytest.ExceptionInfo[stripe.StripeError]]:
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


# Checkout sessions


@ON_STRIPE_TOO
def test_a_new_session_is_open_unpaid_and_has_no_payment_intent_yet(client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    assert ("open", "unpaid", None) == (session.status, session.payment_status, session.payment_intent)
    assert (1820, "eur", "r-1") == (session.amount_total, session.currency, session.client_reference_id)
    assert {"rid": "r-1"} == session.metadata.to_dict()
    assert session.url is not None


@ON_STRIPE_TOO
@pytest.mark.parametrize("seconds", [29 * 60, 25 * 3600])
def test_a_session_lives_at_least_30_minutes_and_at_most_24_hours(client: stripe.StripeClient, seconds: int) -> None:
    with refused(400):
        client.v1.checkout.sessions.create(order(expires_at=int(time.time()) + seconds))


@ON_STRIPE_TOO
def test_an_amount_below_the_minimum_of_its_currency_is_refused(client: stripe.StripeClient) -> None:
    price = {"currency": "eur", "unit_amount": 49, "product_data": {"name": "Charging"}}

    with refused(400, "amount_too_small"):
        client.v1.checkout.sessions.create(order(line_items=[{"price_data": price, "quantity": 1}]))


@ON_STRIPE_TOO
def test_an_unknown_parameter_is_refused_by_name(client: stripe.StripeClient) -> None:
    payment = {"capture_method": "manual", "colour": "green"}

    with refused(400, "parameter_unknown") as caught:
        client.v1.checkout.sessions.create(order(payment_intent_data=payment))

    assert "payment_intent_data[colour]" == caught.value.param


@ON_STRIPE_TOO
def test_a_missing_parameter_is_refused_by_name(client: stripe.StripeClient) -> None:
    price = {"currency": "eur", "unit_amount": 1820}

    with refused(400, "parameter_missing") as caught:
        client.v1.checkout.sessions.create(order(line_items=[{"price_data": price, "quantity": 1}]))

    assert "line_items[0][price_data][product_data]" in caught.value.user_message


@ON_STRIPE_TOO
def test_an_address_that_is_none_is_refused(client: stripe.StripeClient) -> None:
    with refused(400, "url_invalid"):
        client.v1.checkout.sessions.create(order(success_url="javascript:alert(1)"))


@ON_STRIPE_TOO
def test_an_open_session_expires_once(client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    expired = client.v1.checkout.sessions.expire(session.id)

    assert ("expired", "unpaid", None) == (expired.status, expired.payment_status, expired.url)
    with refused(400) as caught:
        client.v1.checkout.sessions.expire(session.id)
    assert 'Only Checkout Sessions with a status in ["open"] can be expired' in caught.value.user_message


@ON_STRIPE_TOO
def test_what_does_not_exist_is_404(client: stripe.StripeClient) -> None:
    with refused(404, "resource_missing"):
        client.v1.checkout.sessions.retrieve("cs_test_none")
    with refused(404, "resource_missing"):
        client.v1.payment_intents.capture("pi_none")


@ON_STRIPE_TOO
def test_what_cannot_be_expanded_is_refused(client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    with refused(400):
        client.v1.checkout.sessions.retrieve(session.id, {"expand": ["metadata"]})


def test_a_wrong_key_is_401(stand_in: PaymentStandIn) -> None:
    with pytest.raises(stripe.AuthenticationError):
        client_of(stand_in, "sk_test_wrong").v1.checkout.sessions.create(order())


def test_a_live_key_is_not_taken() -> None:
    with pytest.raises(ValueError, match="test keys"):
        PaymentStandIn(api_key="sk_live_1", webhook_secret=SECRET, webhook_url=None)


def test_an_unknown_path_is_404_with_an_error_of_stripes_shape(stand_in: PaymentStandIn) -> None:
    with refused(404):
        client_of(stand_in).v1.customers.create({"name": "Ada"})


def test_the_stand_in_speaks_the_version_the_package_is_pinned_to() -> None:
    assert stripe.api_version == API_VERSION


# Paying


def test_a_completed_manual_capture_session_says_unpaid(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    page = pay(stand_in, session.id)

    expand = {"expand": ["payment_intent.latest_charge"]}
    done = client.v1.checkout.sessions.retrieve(session.id, expand)
    assert (303, f"https://csms.example/session/r-1?checkout=done&cs={session.id}") == (page.status, page.location)
    assert ("complete", "unpaid", None) == (done.status, done.payment_status, done.url)
    intent = done.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert ("requires_capture", 1820, 0) == (intent.status, intent.amount_capturable, intent.amount_received)
    assert {"rid": "r-1"} == intent.metadata.to_dict()
    charge = intent.latest_charge
    assert isinstance(charge, stripe.Charge)
    card = charge.payment_method_details.card
    assert (False, 0, "visa", "4242") == (charge.captured, charge.amount_captured, card.brand, card.last4)
    assert 7 * 24 * 3600 == card.capture_before - charge.created


def test_an_automatic_capture_session_says_paid(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order(payment_intent_data={"capture_method": "automatic"}))

    pay(stand_in, session.id)

    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    assert ("paid", "succeeded") == (done.payment_status, done.payment_intent.status)


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (DECLINED_CARD, "generic_decline"),
        (POOR_CARD, "insufficient_funds"),
        ("4111 1111 1111 1111", "test_mode_live_card"),
    ],
)
def test_a_declined_card_leaves_the_session_open_and_payable(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver, card: str, reason: str
) -> None:
    session = client.v1.checkout.sessions.create(order())

    page = pay(stand_in, session.id, card)

    assert (402, "open") == (page.status, client.v1.checkout.sessions.retrieve(session.id).status)
    intent = client.v1.payment_intents.retrieve(intent_id(client, session.id))
    assert ("requires_payment_method", reason) == (intent.status, intent.last_payment_error.decline_code)
    stand_in.webhooks.wait_until_quiet()
    assert {"payment_intent.created", "charge.failed", "payment_intent.payment_failed"} == set(receiver.types)

    assert 303 == pay(stand_in, session.id).status
    again = client.v1.payment_intents.retrieve(intent.id)
    assert ("requires_capture", None) == (again.status, again.last_payment_error)


def test_a_mistyped_card_is_no_attempt(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    assert 402 == pay(stand_in, session.id, "4242 4242 4242 4241").status
    assert 402 == pay(stand_in, session.id, "").status
    assert client.v1.checkout.sessions.retrieve(session.id).payment_intent is None


@pytest.mark.parametrize(("outcome", "status"), [("pass", "requires_capture"), ("fail", "requires_payment_method")])
def test_a_challenged_card_is_authorised_only_after_authentication(
    stand_in: PaymentStandIn, client: stripe.StripeClient, outcome: str, status: str
) -> None:
    session = client.v1.checkout.sessions.create(order())

    page = pay(stand_in, session.id, CHALLENGED_CARD)

    assert (303, f"/checkout/{session.id}/authenticate") == (page.status, page.location)
    intent = intent_id(client, session.id)
    assert "requires_action" == client.v1.payment_intents.retrieve(intent).status
    assert "Your bank asks" in browse(f"{stand_in.url}{page.location}").text
    answer = browse(f"{stand_in.url}{page.location}", {"outcome": outcome})
    assert (303 if outcome == "pass" else 402) == answer.status
    assert status == client.v1.payment_intents.retrieve(intent).status


def test_an_authentication_after_the_session_expired_authorises_nothing(
    stand_in: PaymentStandIn, client: stripe.StripeClient
) -> None:
    session = client.v1.checkout.sessions.create(order())
    page = pay(stand_in, session.id, CHALLENGED_CARD)
    client.v1.checkout.sessions.expire(session.id)

    answer = browse(f"{stand_in.url}{page.location}", {"outcome": "pass"})

    assert 410 == answer.status
    assert "canceled" == client.v1.payment_intents.retrieve(intent_id(client, session.id)).status


def test_paying_twice_makes_one_payment(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda _: pay(stand_in, session.id), range(8)))

    assert {303} == {page.status for page in pages}
    assert 1 == len(client.v1.payment_intents.list().data)


def test_expire_loses_to_a_completed_payment(stand_in: PaymentStandIn, client: stripe.StripeClient, paid: str) -> None:
    session = next(iter(stand_in.ledger.sessions))

    with refused(400):
        client.v1.checkout.sessions.expire(session)

    assert "complete" == client.v1.checkout.sessions.retrieve(session).status
    assert "requires_capture" == client.v1.payment_intents.retrieve(paid).status


def test_a_session_paid_and_expired_at_once_ends_one_way_only(
    stand_in: PaymentStandIn, client: stripe.StripeClient
) -> None:
    def expire(session_id: str) -> str | None:
        return refusal(lambda: client.v1.checkout.sessions.expire(session_id))

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            session = client.v1.checkout.sessions.create(order())
            paying, expiring = pool.submit(pay, stand_in, session.id), pool.submit(expire, session.id)

            expected = ("expired", 410) if expiring.result() is None else ("complete", 303)
            ended = client.v1.checkout.sessions.retrieve(session.id)
            assert expected == (ended.status, paying.result().status)


def test_a_session_expires_by_the_clock(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver, clock: Clock
) -> None:
    session = client.v1.checkout.sessions.create(order())
    clock.ahead = timedelta(seconds=2001)

    page = pay(stand_in, session.id)

    assert (410, "expired") == (page.status, client.v1.checkout.sessions.retrieve(session.id).status)
    assert [] == client.v1.payment_intents.list().data
    stand_in.webhooks.wait_until_quiet()
    assert ["checkout.session.expired"] == receiver.types


# Money


def test_a_partial_capture_takes_its_amount_once_and_releases_the_rest(client: stripe.StripeClient, paid: str) -> None:
    captured = client.v1.payment_intents.capture(paid, {"amount_to_capture": 645, "expand": ["latest_charge"]})

    assert ("succeeded", 0, 645) == (captured.status, captured.amount_capturable, captured.amount_received)
    charge = captured.latest_charge
    assert isinstance(charge, stripe.Charge)
    # Since 2025-03-31.basil the released rest is not a refund.
    assert (True, 645, 0, False) == (charge.captured, charge.amount_captured, charge.amount_refunded, charge.refunded)
    with refused(400, "payment_intent_unexpected_state") as caught:
        client.v1.payment_intents.capture(paid, {"amount_to_capture": 645})
    assert (paid, "succeeded") == (caught.value.error.payment_intent.id, caught.value.error.payment_intent.status)


def test_a_capture_without_an_amount_takes_the_whole_hold(client: stripe.StripeClient, paid: str) -> None:
    assert 1820 == client.v1.payment_intents.capture(paid).amount_received


@pytest.mark.parametrize(("amount", "code"), [(1821, "amount_too_large"), (49, "amount_too_small")])
def test_a_capture_of_a_wrong_amount_takes_nothing(
    client: stripe.StripeClient, paid: str, amount: int, code: str
) -> None:
    with refused(400, code):
        client.v1.payment_intents.capture(paid, {"amount_to_capture": amount})

    assert "requires_capture" == client.v1.payment_intents.retrieve(paid).status


@pytest.mark.parametrize("amount", ["0", "-1", "6.45", "", "six"])
def test_a_capture_of_no_amount_at_all_is_refused(client: stripe.StripeClient, paid: str, amount: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.payment_intents.capture(paid, {"amount_to_capture": amount})  # type: ignore[typeddict-item]

    assert "amount_to_capture" == caught.value.param
    assert "requires_capture" == client.v1.payment_intents.retrieve(paid).status


def test_a_cancelled_hold_is_released_and_cannot_be_captured(client: stripe.StripeClient, paid: str) -> None:
    canceled = client.v1.payment_intents.cancel(paid, {"cancellation_reason": "requested_by_customer"})

    assert ("canceled", 0, 0) == (canceled.status, canceled.amount_capturable, canceled.amount_received)
    assert "requested_by_customer" == canceled.cancellation_reason
    with refused(400, "payment_intent_unexpected_state") as caught:
        client.v1.payment_intents.capture(paid)
    assert "canceled" == caught.value.error.payment_intent.status
    with refused(400, "payment_intent_unexpected_state"):
        client.v1.payment_intents.cancel(paid)


def test_captured_money_cannot_be_cancelled(client: stripe.StripeClient, paid: str) -> None:
    client.v1.payment_intents.capture(paid)

    with refused(400, "payment_intent_unexpected_state") as caught:
        client.v1.payment_intents.cancel(paid)

    assert "succeeded" == caught.value.error.payment_intent.status


def test_the_intent_of_an_open_session_cannot_be_cancelled(
    stand_in: PaymentStandIn, client: stripe.StripeClient
) -> None:
    session = client.v1.checkout.sessions.create(order())
    pay(stand_in, session.id, DECLINED_CARD)

    with refused(400):
        client.v1.payment_intents.cancel(intent_id(client, session.id))


def test_a_hold_lapses_when_its_capture_window_ends(client: stripe.StripeClient, paid: str, clock: Clock) -> None:
    clock.ahead = timedelta(days=7, seconds=1)

    with refused(400, "payment_intent_unexpected_state"):
        client.v1.payment_intents.capture(paid)

    lapsed = client.v1.payment_intents.retrieve(paid)
    assert ("canceled", "expired", 0) == (lapsed.status, lapsed.cancellation_reason, lapsed.amount_capturable)


def test_refunds_never_exceed_what_was_captured(client: stripe.StripeClient, paid: str) -> None:
    client.v1.payment_intents.capture(paid, {"amount_to_capture": 645})
    with refused(400):
        client.v1.refunds.create({"payment_intent": paid, "amount": 646})

    first = client.v1.refunds.create({"payment_intent": paid, "amount": 600, "expand": ["charge"]})
    assert ("succeeded", 600, False) == (first.status, first.amount, first.charge.refunded)
    with refused(400):
        client.v1.refunds.create({"payment_intent": paid, "amount": 46})
    rest = client.v1.refunds.create({"payment_intent": paid, "expand": ["charge"]})

    assert (45, 645, True) == (rest.amount, rest.charge.amount_refunded, rest.charge.refunded)
    with refused(400, "charge_already_refunded"):
        client.v1.refunds.create({"payment_intent": paid})


def test_a_hold_cannot_be_refunded(client: stripe.StripeClient, paid: str) -> None:
    with refused(400):
        client.v1.refunds.create({"payment_intent": paid})


def test_intents_are_listed_newest_first_and_page_by_page(
    stand_in: PaymentStandIn, client: stripe.StripeClient
) -> None:
    made = []
    for _ in range(5):
        session = client.v1.checkout.sessions.create(order())
        pay(stand_in, session.id)
        made.append(intent_id(client, session.id))

    first = client.v1.payment_intents.list({"limit": 2, "expand": ["data.latest_charge"]})

    assert (made[:2:-1], True) == ([intent.id for intent in first.data], first.has_more)
    assert isinstance(first.data[0].latest_charge, stripe.Charge)
    assert made[::-1] == [intent.id for intent in first.auto_paging_iter()]
    assert [] == client.v1.payment_intents.list({"created": {"gt": int(time.time()) + 5}}).data


# Idempotency


def test_the_same_key_and_parameters_get_the_first_answer_again(client: stripe.StripeClient) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    params = order()

    first = client.v1.checkout.sessions.create(params, options)
    again = client.v1.checkout.sessions.create(params, options)

    assert first.id == again.id
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert "true" == again.last_response.headers["Idempotent-Replayed"]


def test_the_same_key_for_something_else_is_an_idempotency_error(client: stripe.StripeClient, paid: str) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:settle"}
    client.v1.payment_intents.capture(paid, {"amount_to_capture": 645}, options)

    with pytest.raises(stripe.IdempotencyError):
        client.v1.payment_intents.capture(paid, {"amount_to_capture": 646}, options)
    with pytest.raises(stripe.IdempotencyError):
        client.v1.payment_intents.cancel(paid, {}, options)


def test_a_refusal_is_replayed_too(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())
    pay(stand_in, session.id)
    options: stripe.RequestOptions = {"idempotency_key": "r-1:expire"}

    with refused(400) as first:
        client.v1.checkout.sessions.expire(session.id, options=options)
    with refused(400) as again:
        client.v1.checkout.sessions.expire(session.id, options=options)

    assert "Idempotent-Replayed" not in first.value.headers
    assert "true" == again.value.headers["Idempotent-Replayed"]


def test_a_call_that_was_never_executed_does_not_use_up_its_key(client: stripe.StripeClient) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    with refused(400, "parameter_unknown"):
        client.v1.checkout.sessions.create(order(colour="green"), options)

    assert "open" == client.v1.checkout.sessions.create(order(), options).status


def test_a_key_is_free_again_after_a_day(client: stripe.StripeClient, clock: Clock) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    first = client.v1.checkout.sessions.create(order(), options)
    clock.ahead = timedelta(days=1, seconds=1)

    later = order(expires_at=int(clock().timestamp()) + 2000)
    assert first.id != client.v1.checkout.sessions.create(later, options).id


def test_a_key_in_use_is_409(stand_in: PaymentStandIn, paid: str) -> None:
    stand_in.latency = 0.3
    without_retry = client_of(stand_in, max_network_retries=0)

    def capture(_: int) -> str | None:
        return refusal(lambda: without_retry.v1.payment_intents.capture(paid, {}, {"idempotency_key": "r-1:capture"}))

    with ThreadPoolExecutor(4) as pool:
        answers = Counter(pool.map(capture, range(4)))

    assert {None: 1, "409 idempotency_key_in_use": 3} == answers


@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_sixteen_captures_under_one_key_are_one_capture(
    stand_in: PaymentStandIn, client: stripe.StripeClient, paid: str, latency: float
) -> None:
    stand_in.latency = latency

    def capture(_: int) -> tuple[int, bool]:
        intent = client.v1.payment_intents.capture(
            paid, {"amount_to_capture": 645}, {"idempotency_key": "r-1:capture", "max_network_retries": 5}
        )
        return intent.amount_received, "Idempotent-Replayed" in intent.last_response.headers

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(capture, range(16)))

    assert [(645, False)] + [(645, True)] * 15 == sorted(answers)
    assert 1 == sum(event["type"] == "payment_intent.succeeded" for event in stand_in.events)


def test_sixteen_captures_without_a_key_are_one_capture(stand_in: PaymentStandIn, paid: str) -> None:
    def capture(_: int) -> str | None:
        # The package makes up a key for each call by itself.
        return refusal(lambda: client_of(stand_in).v1.payment_intents.capture(paid, {"amount_to_capture": 645}))

    with ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(capture, range(16)))

    assert {None: 1, "400 payment_intent_unexpected_state": 15} == answers


# Calls that go wrong


@pytest.mark.parametrize(
    ("status", "code"), [(402, "card_declined"), (409, "idempotency_key_in_use"), (429, "rate_limit"), (500, None)]
)
def test_a_call_that_fails_before_it_acted_can_be_tried_again(
    stand_in: PaymentStandIn, paid: str, status: int, code: str | None
) -> None:
    client = client_of(stand_in, max_network_retries=0)
    options: stripe.RequestOptions = {"idempotency_key": "r-1:capture"}
    stand_in.fail_next("payment_intents.capture", status=status)

    with refused(status, code):
        client.v1.payment_intents.capture(paid, {"amount_to_capture": 645}, options)

    assert "requires_capture" == client.v1.payment_intents.retrieve(paid).status
    assert 645 == client.v1.payment_intents.capture(paid, {"amount_to_capture": 645}, options).amount_received


def test_a_call_that_fails_after_it_acted_keeps_failing_and_has_acted(
    stand_in: PaymentStandIn, client: stripe.StripeClient, paid: str
) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:capture"}
    stand_in.fail_next("payment_intents.capture", status=500, acted=True)

    for _ in range(2):
        with refused(500):
            client.v1.payment_intents.capture(paid, {"amount_to_capture": 645}, options)

    assert 645 == client.v1.payment_intents.retrieve(paid).amount_received


@pytest.mark.parametrize("acted", [False, True])
def test_a_call_that_hangs_is_answered_when_it_is_made_again(
    stand_in: PaymentStandIn, client: stripe.StripeClient, paid: str, acted: bool
) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "r-1:capture"}
    impatient = client_of(stand_in, max_network_retries=0, http_client=stripe.RequestsClient(timeout=0.3))
    stand_in.hang_next("payment_intents.capture", acted=acted)

    with pytest.raises(stripe.APIConnectionError):
        impatient.v1.payment_intents.capture(paid, {"amount_to_capture": 645}, options)

    assert (645 if acted else 0) == client.v1.payment_intents.retrieve(paid).amount_received
    again = client.v1.payment_intents.capture(paid, {"amount_to_capture": 645}, options)
    assert 645 == again.amount_received
    assert acted == ("Idempotent-Replayed" in again.last_response.headers)


# Webhooks


def test_every_step_of_a_payment_is_told_with_a_valid_signature(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver, paid: str
) -> None:
    client.v1.payment_intents.capture(paid, {"amount_to_capture": 645}, {"idempotency_key": "r-1:capture"})
    client.v1.refunds.create({"payment_intent": paid})
    stand_in.webhooks.wait_until_quiet()

    told = {event.type: event for event in receiver.events}
    assert {
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.amount_capturable_updated",
        "checkout.session.completed",
        "charge.captured",
        "payment_intent.succeeded",
        "refund.created",
        "charge.refunded",
    } == set(told)
    assert len(told) == len({event.id for event in told.values()})
    assert "unpaid" == told["checkout.session.completed"].data.object["payment_status"]
    assert 1820 == told["payment_intent.amount_capturable_updated"].data.object["amount_capturable"]
    assert "r-1:capture" == told["payment_intent.succeeded"].request.idempotency_key
    assert {API_VERSION} == {event.api_version for event in told.values()}


def test_a_signature_holds_for_its_own_bytes_and_secret_only(
    stand_in: PaymentStandIn, receiver: Receiver, paid: str
) -> None:
    stand_in.webhooks.wait_until_quiet()
    payload, signature = receiver.requests[0]

    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload + b" ", signature, SECRET)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload, signature, "whsec_other")
    assert payload != json.dumps(json.loads(payload)).encode(), "a receiver that re-serialises has to notice"


def test_an_event_is_sent_again_until_it_is_taken(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.answers = [500, 302]
    client.v1.checkout.sessions.expire(client.v1.checkout.sessions.create(order()).id)

    stand_in.webhooks.wait_until_quiet()

    assert [500, 302, 200] == [attempt.status for attempt in stand_in.webhooks.attempts]
    assert 1 == len({event.id for event in receiver.events})


def test_an_event_that_is_never_taken_is_given_up(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    receiver.answers = [500] * 10
    client.v1.checkout.sessions.expire(client.v1.checkout.sessions.create(order()).id)

    stand_in.webhooks.wait_until_quiet()

    assert 3 == len(receiver.requests)


def test_events_can_be_held_back_and_come_in_another_order(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    stand_in.webhooks.hold()
    pay(stand_in, client.v1.checkout.sessions.create(order()).id)
    stand_in.webhooks.wait_until_quiet()
    assert [] == receiver.requests

    stand_in.webhooks.release(reverse=True)

    assert [event["id"] for event in stand_in.events[::-1]] == [event.id for event in receiver.events]


def test_events_can_be_lost_or_come_twice(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver
) -> None:
    stand_in.webhooks.drop_next("checkout.session.completed")
    stand_in.webhooks.duplicate_next("payment_intent.amount_capturable_updated")

    pay(stand_in, client.v1.checkout.sessions.create(order()).id)
    stand_in.webhooks.wait_until_quiet()

    assert 0 == receiver.types.count("checkout.session.completed")
    assert 2 == receiver.types.count("payment_intent.amount_capturable_updated")
    lost = next(event for event in stand_in.events if event["type"] == "checkout.session.completed")
    stand_in.webhooks.resend(lost)
    stand_in.webhooks.wait_until_quiet()
    assert "checkout.session.completed" == receiver.types[-1]


# State and pages


def test_a_restart_keeps_payments_keys_and_undelivered_events(tmp_path: Path, receiver: Receiver) -> None:
    def stand_in() -> PaymentStandIn:
        file = tmp_path / "state" / "payments.json"
        return PaymentStandIn(api_key=KEY, webhook_secret=SECRET, webhook_url=receiver.url, state_file=file)

    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    params = order()
    first = stand_in()
    with first.running():
        session = client_of(first).v1.checkout.sessions.create(params, options)
        first.webhooks.hold()
        pay(first, session.id)
    assert [] == receiver.requests

    second = stand_in()
    with second.running():
        client = client_of(second)
        second.webhooks.wait_until_quiet()
        assert "checkout.session.completed" in receiver.types
        assert session.id == client.v1.checkout.sessions.create(params, options).id
        assert (
            645
            == client.v1.payment_intents.capture(
                intent_id(client, session.id), {"amount_to_capture": 645}
            ).amount_received
        )

    third = stand_in()
    with third.running():
        assert "succeeded" == client_of(third).v1.payment_intents.list().data[0].status


def test_the_page_shows_the_hold_and_escapes_what_it_is_given(
    stand_in: PaymentStandIn, client: stripe.StripeClient
) -> None:
    price = {"currency": "eur", "unit_amount": 1820, "product_data": {"name": "<script>alert(1)</script> & $more"}}
    session = client.v1.checkout.sessions.create(order(line_items=[{"price_data": price, "quantity": 1}]))

    page = browse(session.url or "")

    assert 200 == page.status
    assert "€18.20" in page.text
    assert "You pay only what you use" in page.text
    assert "No real card, no real money" in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $more" in page.text
    assert "<script>alert(1)" not in page.text
    assert 'href="https://csms.example/session/r-1?checkout=cancelled"' in page.text


def test_a_closed_checkout_says_so(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    expired, complete = (client.v1.checkout.sessions.create(order()).id for _ in range(2))
    client.v1.checkout.sessions.expire(expired)
    pay(stand_in, complete)

    pages = [browse(f"{stand_in.url}/checkout/{session}") for session in (expired, complete, "cs_test_none")]

    assert [410, 200, 404] == [page.status for page in pages]
    for words, page in zip(("Checkout expired", "Payment complete", "Unknown checkout"), pages, strict=True):
        assert words in page.text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(1820, "eur", "€18.20"), (1820, "jpy", "JPY 1,820"), (1820, "bhd", "BHD 1.820"), (5, "usd", "$0.05")],
)
def test_an_amount_is_written_with_the_exponent_of_its_currency(amount: int, currency: str, text: str) -> None:
    assert text == format_amount(amount, currency)
