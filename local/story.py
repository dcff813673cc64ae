"""One charge from plug to bill, with a real station and a driver's requests. `demo` prints it, and the tests assert
it."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from secrets import token_urlsafe
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import stripe

from csms.model import Tariff
from local.stack import Options, Secrets, Site, Stack

PATIENCE_S: Final = 20.0
POLL_S: Final = 0.1
STATION: Final = "DEMO-1"
SPEED: Final = 900.0  # 13 kWh take two and a half seconds.
CARD: Final = "4242 4242 4242 4242"
MAIL: Final = "driver@example.com"

# 13,000 Wh at 59.5 ct are exactly 773.5 ct, so the bill shows how half a cent is rounded.
ENERGY_WH: Final = 13_000
TENTHS_OF_A_CENT_PER_KWH: Final = 595
SESSION_FEE: Final = 50
TARIFF: Final = Tariff(
    currency="EUR",
    energy_price=Decimal(TENTHS_OF_A_CENT_PER_KWH) / 10,
    session_fee=SESSION_FEE,
    max_energy_wh=30_000,
)

Say = Callable[[str], None]
Json = dict[str, Any]


class StoryError(Exception):
    """The charge did not go as expected. The message says in one line where it differed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the charge ended, according to the payment provider; amounts in cents."""

    expected: int
    captured: int
    still_held: int
    free_again: bool
    status: Json
    receipt: Json

    @property
    def is_good(self) -> bool:
        return self.expected == self.captured and self.still_held == 0 and self.free_again


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered; body is {} if it was not JSON."""

    status: int
    body: Json
    location: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Returns redirects as answers instead of following them."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


def options(data: Path | None, on_event: Callable[[str, str], None], *, engine: str | None = None) -> Options:
    """A stack on free ports with the station of the story and secrets of its own.

    The payment provider is always the stand-in, because Stripe's own page needs a person to fill it in.
    """
    return Options(
        sites=(Site(identity=STATION, password=token_urlsafe(15), energy_wh=ENERGY_WH, tariff=TARIFF),),
        secrets=Secrets(origin=token_urlsafe(24), webhook=f"whsec_{token_urlsafe(24)}", aws=token_urlsafe(24)),
        data=data,
        engine=engine,
        speed=SPEED,
        meter_interval_s=1.0,
        sweep=timedelta(seconds=5),
        on_event=on_event,
    )


def expected_amount(energy_wh: int) -> int:
    """The bill in cents, calculated independently of the product: half a cent is rounded up."""
    return (TENTHS_OF_A_CENT_PER_KWH * energy_wh + 5_000) // 10_000 + SESSION_FEE


def run_story(stack: Stack, say: Say, *, patience: float = PATIENCE_S) -> Ending:
    """Run the charge on connector 1 of the stack's station. Raises StoryError if it does not go as expected."""
    connector = f"{stack.url}/payments/connectors/{STATION}/1"
    say("The driver opens the page on the sticker.")
    free = wait_until("the connector to be free", connector, is_startable, patience=patience)
    say(f"Connector 1 is {free['status']}: {format_price(free['tariff'])}.")

    wish = {"chargePointId": STATION, "connectorId": 1}
    created = require_answer(200, "Redirect", post(f"{stack.url}/payments/create", wish, patience=patience))
    say(f"Start: reservation {created['reservationId']}, {format_euros(created['maxAmount'])} will be held at most.")

    busy = require_answer(409, "ConnectorBusy", post(f"{stack.url}/payments/create", wish, patience=patience))
    say(f"A second driver tries the same connector: 409 {busy['status']}, {busy['reason']}.")

    pay(created["checkoutUrl"])
    say(f"The driver pays on the checkout page with card {CARD}.")

    status = follow(f"{stack.url}/payments/status/{created['reservationId']}", say, patience=patience)
    expected = expected_amount(ENERGY_WH)
    intent = payment_intent(stack, created["checkoutUrl"])
    say(f"The payment provider captured {format_euros(intent.amount_received)}; expected {format_euros(expected)}.")
    say(f"Still held: {format_euros(intent.amount_capturable)} of {format_euros(intent.amount)}.")

    receipt = request("GET", f"{stack.url}/payments/receipt/{created['reservationId']}").body
    say(f"Receipt {receipt['number']}: {receipt['energyWh'] / 1000:.3f} kWh, {format_euros(receipt['total'])}.")

    after = wait_until("the connector to be free again", connector, is_startable, patience=patience)
    say(f"Connector 1 is {after['status']} again.")
    return Ending(
        expected=expected,
        captured=intent.amount_received,
        still_held=intent.amount_capturable,
        free_again=bool(after["startable"]),
        status=status,
        receipt=receipt,
    )


def follow(url: str, say: Say, *, patience: float = PATIENCE_S) -> Json:
    """The last status of a session, once it is completed and captured; each new state and each kWh is reported to
    `say`."""
    reported = ""
    for body in poll("the session to be completed and captured", url, patience):
        line = f"Status {body['status']}, money {body['money']}"
        if body["energyWh"]:
            line += f", {body['energyWh'] / 1000:.3f} kWh, {format_euros(body['amount'])}"
        if line != reported:
            say(f"{line}.")
            reported = line
        if body["status"] in {"Cancelled", "Failed"}:
            raise StoryError(f"The session ended as {body['status']}: {body.get('failureCode', 'no reason given')}.")
        if (body["status"], body["money"]) == ("Completed", "captured"):
            return body
    raise StoryError("The session was never completed and captured.")


def is_startable(connector: Json) -> bool:
    return bool(connector.get("startable"))


def pay(checkout_url: str) -> None:
    """Fill in and submit the form of the checkout page, as a browser does."""
    page = request("GET", checkout_url)
    if page.status != 200:
        raise StoryError(f"The checkout page answered {page.status}.")
    paid = request("POST", f"{checkout_url}/pay", urlencode({"card_number": CARD, "email": MAIL}).encode())
    if paid.status != 303:
        raise StoryError(f"The checkout page answered {paid.status} to the payment.")


def payment_intent(stack: Stack, checkout_url: str) -> stripe.PaymentIntent:
    """The checkout's payment, as the payment provider has it."""
    addresses: Any = {"base_addresses": {"api": stack.payments_url}} if stack.payments_url else {}
    client = stripe.StripeClient(stack.stripe_key, **addresses).v1
    session_id = urlsplit(checkout_url).path.rsplit("/", 1)[-1]
    session = client.checkout.sessions.retrieve(session_id, {"expand": ["payment_intent"]})
    if not isinstance(session.payment_intent, stripe.PaymentIntent):
        raise StoryError(f"The checkout has no payment: it is {session.status}.")
    return session.payment_intent


def wait_until(what: str, url: str, condition: Callable[[Json], bool], *, patience: float = PATIENCE_S) -> Json:
    """The first answer that meets the condition. Raises StoryError after `patience` seconds."""
    for body in poll(what, url, patience):
        if condition(body):
            return body
    raise StoryError(f"Nothing answered while waiting for {what}.")


def poll(what: str, url: str, patience: float = PATIENCE_S) -> Iterator[Json]:
    """The answers of `url`, read again and again. Raises StoryError after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        answer = request("GET", url, patience=patience)
        if answer.status != 200:
            raise StoryError(f"While waiting for {what}: {answer.status} {answer.body}.")
        yield answer.body
        if time.monotonic() > end:
            raise StoryError(f"Waited {patience:.0f} s for {what}; the last answer was {answer.body}.")
        time.sleep(POLL_S)


def require_answer(status: int, code: str, answer: Answer) -> Json:
    if (answer.status, answer.body.get("status")) != (status, code):
        raise StoryError(f"Expected {status} {code}, and got {answer.status} {answer.body}.")
    return answer.body


def post(url: str, body: Json, *, patience: float = PATIENCE_S) -> Answer:
    return request("POST", url, json.dumps(body).encode(), "application/json", patience=patience)


def request(
    method: str,
    url: str,
    data: bytes | None = None,
    content_type: str = "application/x-www-form-urlencoded",
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    patience: float = PATIENCE_S,
) -> Answer:
    """The answer of a server, whatever its status. Redirects are not followed, and no proxy is used."""
    sent = {**headers, "Content-Type": content_type} if data is not None else dict(headers)
    wanted = urllib.request.Request(url, data=data, headers=sent, method=method)  # noqa: S310 - our own addresses
    try:
        with OPENER.open(wanted, timeout=patience) as response:
            return _answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return _answer(refused.code, refused.headers, refused.read())


def format_euros(cents: int) -> str:
    return f"€{cents / 100:.2f}"


def format_price(tariff: Json) -> str:
    return f"{tariff['pricePerKwh']} ct per kWh and {format_euros(tariff['sessionFee'])} per session"


def _answer(status: int, headers: Any, content: bytes) -> Answer:
    is_json = headers.get_content_type() == "application/json"
    return Answer(status=status, body=json.loads(content) if is_json else {}, location=headers.get("Location", ""))
