"""One exam for payment providers: the fake, and Stripe's adapter over the stand-in that speaks Stripe's wire format."""

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from csms import stripe_payments
from csms.errors import BadRequest, PaymentRefused, PaymentUnavailable
from csms.provider import Checkout, Order, Payment, PaymentProvider, PaymentStatus
from csms.stripe_payments import StripePayments
from local.database import free_port
from local.payments import PaymentStandIn
from local.payments.records import Intent, SessionStatus
from tests.fakes import FakeProvider

API_KEY: Final = "sk_test_exam"
SECRET: Final = "whsec_exam"
CARD: Final = "4242424242424242"
OPERATIONS: Final = {
    "open_checkout": "checkout.sessions.create",
    "payment": "checkout.sessions.retrieve",
    "expire_checkout": "checkout.sessions.expire",
    "capture": "payment_intents.capture",
    "release": "payment_intents.cancel",
}
AUTHORISED: Final = 1820


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A provider under exam, and what only its test can do with it."""

    provider: PaymentProvider
    pay: Callable[[Checkout], None]
    decline: Callable[[Checkout], None]
    fail_next: Callable[[str, bool], None]
    """Without an answer of use; whether it took effect all the same."""
    notice: Callable[[str], tuple[bytes, str]]
    """A signed webhook about a reservation."""
    taken: Callable[[], list[int]]
    """The amounts captured so far."""
    held: Callable[[], int]
    """What is authorised and neither captured nor released."""

    def authorised(self, name: str = "r1") -> Payment:
        """A payment that was made."""
        checkout = self.provider.open_checkout(order(name), key=f"{name}:open")
        self.pay(checkout)
        return self.provider.payment(checkout.checkout_id)


def order(name: str = "r1", amount: int = AUTHORISED) -> Order:
    return Order(
        reservation_id=name,
        amount=amount,
        currency="EUR",
        description="EV charging at CP1, connector 1",
        success_url=f"https://csms.example/session/{name}?checkout=done",
        cancel_url=f"https://csms.example/session/{name}?checkout=cancelled",
        expires_at=datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=32),
    )


@pytest.fixture
def stand_in() -> Iterator[PaymentStandIn]:
    it = PaymentStandIn(api_key=API_KEY, webhook_secret=SECRET, webhook_url=None)
    with it.running():
        yield it


@pytest.fixture(params=["fake", "stripe"])
def desk(request: pytest.FixtureRequest) -> Desk:
    if request.param == "fake":
        return fake_desk(FakeProvider())
    return stripe_desk(request.getfixturevalue("stand_in"))


def fake_desk(provider: FakeProvider) -> Desk:
    return Desk(
        provider=provider,
        pay=lambda checkout: provider.pay(checkout.checkout_id),
        decline=lambda _checkout: None,
        fail_next=lambda operation, acted: provider.fail_next(operation, acted=acted),
        notice=provider.notice,
        taken=provider.captured,
        held=provider.held,
    )


def stripe_desk(stand_in: PaymentStandIn) -> Desk:
    def fail_next(operation: str, acted: bool) -> None:
        # The adapter tries twice by itself; an answer that Stripe stored for the key is not tried again.
        for _ in range(1 if acted else 2):
            stand_in.fail_next(OPERATIONS[operation], status=500, acted=acted)

    def intents() -> list[Intent]:
        return list(stand_in.ledger.intents.values())

    return Desk(
        provider=StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=stand_in.url),
        pay=lambda checkout: submit(checkout, CARD, expected=303),
        decline=lambda checkout: submit(checkout, "4000000000000002", expected=402),
        fail_next=fail_next,
        notice=lambda name: signed({"reservation_id": name}),
        taken=lambda: [intent.amount_received for intent in intents() if intent.amount_received],
        held=lambda: sum(intent.amount_capturable for intent in intents()),
    )


class StayHere(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: it leads to a page of the product, which does not run here."""

    def redirect_request(self, *_: Any) -> None:
        return None


BROWSER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), StayHere)


def submit(checkout: Checkout, card: str, *, expected: int) -> None:
    """The checkout page's form, filled in and sent."""
    with pytest.raises(urllib.error.HTTPError) as answer:
        BROWSER.open(f"{checkout.url}/pay", urlencode({"card_number": card}).encode(), timeout=5)
    assert expected == answer.value.code


def signed(metadata: dict[str, str], *, secret: str = SECRET, at: float | None = None) -> tuple[bytes, str]:
    """A Stripe event as its webhook sends it (docs.stripe.com/webhooks, "Verify manually")."""
    subject = {"id": "pi_1", "object": "payment_intent", "metadata": metadata}
    event = {"id": "evt_1", "object": "event", "type": "payment_intent.amount_capturable_updated"}
    body = json.dumps(event | {"data": {"object": subject}}).encode()
    stamp = int(at or time.time())
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return body, f"t={stamp},v1={digest}"


def in_two_tries(ask: Callable[[], Payment]) -> Payment:
    """The answer of the first try, or of the second if the provider gave none; it may not take a third."""
    try:
        return ask()
    except PaymentUnavailable:
        return ask()


# Checkout


def test_a_checkout_opened_twice_with_one_key_is_one_checkout(desk):
    the_order = order()

    first = desk.provider.open_checkout(the_order, key="k1")
    second = desk.provider.open_checkout(the_order, key="k1")

    assert first == second
    assert first.url.startswith("http")
    assert first != desk.provider.open_checkout(the_order, key="k2")


def test_a_key_used_for_another_order_opens_nothing(desk):
    desk.provider.open_checkout(order(), key="k3")

    with pytest.raises((PaymentRefused, PaymentUnavailable)):
        desk.provider.open_checkout(order(amount=99), key="k3")


def test_f61_a_payment_is_authorised_after_paying_and_not_before(desk):
    checkout = desk.provider.open_checkout(order("r-61"), key="r-61:open")
    assert PaymentStatus.OPEN is desk.provider.payment(checkout.checkout_id).status

    desk.decline(checkout)
    assert PaymentStatus.OPEN is desk.provider.payment(checkout.checkout_id).status

    desk.pay(checkout)
    paid = desk.provider.payment(checkout.checkout_id)
    assert (PaymentStatus.AUTHORISED, AUTHORISED, 0) == (paid.status, paid.authorised_amount, paid.captured_amount)
    assert paid.payment_id
    assert AUTHORISED == desk.held()


def test_a_checkout_that_expired_was_not_paid_and_stays_expired(desk):
    checkout = desk.provider.open_checkout(order("r-e"), key="r-e:open")

    assert PaymentStatus.EXPIRED is desk.provider.expire_checkout(checkout.checkout_id, key="r-e:expire").status
    assert PaymentStatus.EXPIRED is desk.provider.expire_checkout(checkout.checkout_id, key="r-e:expire").status
    assert PaymentStatus.EXPIRED is desk.provider.expire_checkout(checkout.checkout_id, key="r-e:again").status
    assert PaymentStatus.EXPIRED is desk.provider.payment(checkout.checkout_id).status


def test_f64_expiring_loses_to_a_payment_that_was_completed(desk):
    checkout = desk.provider.open_checkout(order("r-64"), key="r-64:open")
    desk.pay(checkout)

    seen = desk.provider.expire_checkout(checkout.checkout_id, key="r-64:expire")

    assert (PaymentStatus.AUTHORISED, AUTHORISED) == (seen.status, seen.authorised_amount)
    assert seen == desk.provider.payment(checkout.checkout_id)


# Capture and release


@pytest.mark.parametrize("second_key", ["r-c:capture", "r-c:other"])
def test_f67_what_is_captured_twice_is_captured_once(desk, second_key):
    paid = desk.authorised("r-c")

    first = desk.provider.capture(paid.payment_id, 824, key="r-c:capture")
    second = desk.provider.capture(paid.payment_id, 824, key=second_key)

    assert (PaymentStatus.CAPTURED, 824) == (first.status, first.captured_amount)
    assert first == second
    assert ([824], 0) == (desk.taken(), desk.held())


@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_f67_a_capture_without_an_answer_is_found_or_made_by_the_next_try(desk, acted):
    paid = desk.authorised("r-67")
    desk.fail_next("capture", acted)

    again = in_two_tries(lambda: desk.provider.capture(paid.payment_id, 824, key="r-67:capture"))

    assert (PaymentStatus.CAPTURED, 824) == (again.status, again.captured_amount)
    assert ([824], 0) == (desk.taken(), desk.held())


def test_f65_more_than_was_authorised_is_not_captured(desk):
    paid = desk.authorised("r-65")

    with pytest.raises(PaymentRefused):
        desk.provider.capture(paid.payment_id, AUTHORISED + 1, key="r-65:capture")
    assert ([], AUTHORISED) == (desk.taken(), desk.held())

    everything = desk.provider.capture(paid.payment_id, AUTHORISED, key="r-65:again")
    assert AUTHORISED == everything.captured_amount


@pytest.mark.parametrize("second_key", ["r-r:release", "r-r:other"])
def test_f63_what_is_released_twice_is_released_once(desk, second_key):
    paid = desk.authorised("r-r")

    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key="r-r:release").status
    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key=second_key).status
    assert ([], 0) == (desk.taken(), desk.held())


@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_f63_a_release_without_an_answer_is_found_or_made_by_the_next_try(desk, acted):
    paid = desk.authorised("r-63")
    desk.fail_next("release", acted)

    again = in_two_tries(lambda: desk.provider.release(paid.payment_id, key="r-63:release"))

    assert PaymentStatus.RELEASED is again.status
    assert 0 == desk.held()


def test_what_was_released_cannot_be_captured(desk):
    paid = desk.authorised("r-rc")
    desk.provider.release(paid.payment_id, key="r-rc:release")

    with pytest.raises(PaymentRefused):
        desk.provider.capture(paid.payment_id, 824, key="r-rc:capture")

    assert ([], 0) == (desk.taken(), desk.held())


def test_what_was_captured_cannot_be_released(desk):
    paid = desk.authorised("r-cr")
    desk.provider.capture(paid.payment_id, 824, key="r-cr:capture")

    with pytest.raises(PaymentRefused):
        desk.provider.release(paid.payment_id, key="r-cr:release")

    assert [824] == desk.taken()


# What cannot be


@pytest.mark.parametrize(
    "ask",
    [
        lambda provider: provider.payment("cs_unknown"),
        lambda provider: provider.expire_checkout("cs_unknown", key="x1"),
        lambda provider: provider.capture("pi_unknown", 1, key="x2"),
        lambda provider: provider.release("pi_unknown", key="x3"),
    ],
)
def test_what_the_provider_does_not_know_is_refused_for_good(desk, ask):
    with pytest.raises(PaymentRefused):
        ask(desk.provider)


@pytest.mark.parametrize("operation", ["open_checkout", "payment", "expire_checkout", "capture", "release"])
def test_a_provider_that_answers_nothing_of_use_is_unavailable_and_the_same_key_works_later(desk, operation):
    name = f"r-u-{operation}"
    checkout = desk.provider.open_checkout(order(name), key=f"{name}:open")
    if operation in {"capture", "release"}:
        desk.pay(checkout)
    payment_id = desk.provider.payment(checkout.checkout_id).payment_id
    the_order = order(f"{name}-2")
    calls: dict[str, Callable[[], object]] = {
        "open_checkout": lambda: desk.provider.open_checkout(the_order, key=f"{name}:x"),
        "payment": lambda: desk.provider.payment(checkout.checkout_id),
        "expire_checkout": lambda: desk.provider.expire_checkout(checkout.checkout_id, key=f"{name}:x"),
        "capture": lambda: desk.provider.capture(payment_id, 100, key=f"{name}:x"),
        "release": lambda: desk.provider.release(payment_id, key=f"{name}:x"),
    }
    desk.fail_next(operation, False)

    with pytest.raises(PaymentUnavailable):
        calls[operation]()

    assert calls[operation]()


# Webhooks


def test_f62_an_event_that_the_provider_signed_names_its_reservation(desk):
    body, signature = desk.notice("r1")

    event = desk.provider.event(body, signature)

    assert "r1" == event.reservation_id
    assert event.event_id
    assert event.kind


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body, _: (body, ""),
        lambda body, _: (body, "t=1,v1=00"),
        lambda body, signature: (body, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        lambda body, signature: (body.replace(b"r1", b"r2"), signature),
        lambda body, signature: (body + b" ", signature),
        lambda _, signature: (b"", signature),
        lambda _, signature: (b"\xff\xfe", signature),
    ],
)
def test_f62_an_event_whose_signature_does_not_fit_every_byte_is_refused(desk, spoil):
    with pytest.raises(BadRequest):
        desk.provider.event(*spoil(*desk.notice("r1")))


# What only Stripe can do wrong


@pytest.fixture
def stripe(stand_in: PaymentStandIn) -> StripePayments:
    return StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=stand_in.url)


def test_f62_a_signature_that_is_old_or_of_another_secret_is_refused(stripe):
    for body, signature in (signed({}, secret="whsec_other"), signed({}, at=time.time() - 3600)):
        with pytest.raises(BadRequest):
            stripe.event(body, signature)


@pytest.mark.parametrize("metadata", [{}, {"something": "else"}])
def test_an_event_about_nothing_of_ours_names_no_reservation(stripe, metadata):
    assert stripe.event(*signed(metadata)).reservation_id is None


def test_an_answer_that_does_not_come_is_unavailable(stand_in, monkeypatch):
    monkeypatch.setattr(stripe_payments, "TIMEOUT_SECONDS", 0.2)
    hurried = StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=stand_in.url)
    checkout = hurried.open_checkout(order("r-t"), key="r-t:open")
    for _ in range(2):
        stand_in.hang_next("checkout.sessions.retrieve")

    with pytest.raises(PaymentUnavailable):
        hurried.payment(checkout.checkout_id)

    assert PaymentStatus.OPEN is hurried.payment(checkout.checkout_id).status


def test_f67_a_capture_whose_answer_never_came_is_found_and_not_made_again(stand_in, monkeypatch):
    monkeypatch.setattr(stripe_payments, "TIMEOUT_SECONDS", 0.2)
    desk = replace(
        stripe_desk(stand_in),
        provider=StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=stand_in.url),
    )
    paid = desk.authorised("r-hang")
    stand_in.hang_next("payment_intents.capture", acted=True)

    captured = desk.provider.capture(paid.payment_id or "", 824, key="r-hang:capture")

    assert (PaymentStatus.CAPTURED, 824) == (captured.status, captured.captured_amount)
    assert ([824], 0) == (desk.taken(), desk.held())


def test_nobody_at_the_address_and_a_wrong_key_are_unavailable_because_both_can_be_put_right(stand_in):
    nobody = StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=f"http://127.0.0.1:{free_port()}")
    stranger = StripePayments(api_key="sk_test_other", webhook_secret=SECRET, api_base=stand_in.url)

    for provider in (nobody, stranger):
        with pytest.raises(PaymentUnavailable):
            provider.payment("cs_1")


@pytest.mark.parametrize("status", [400, 402, 429, 500])
def test_f71_no_text_of_the_providers_error_is_passed_on(stripe, stand_in, status):
    for _ in range(2):
        stand_in.fail_next("payment_intents.capture", status=status)

    with pytest.raises((PaymentRefused, PaymentUnavailable)) as refused:
        stripe.capture("pi_secret_of_a_customer", 1, key=f"f71-{status}")

    said = str(refused.value) + refused.value.message + refused.value.code
    assert "pi_secret" not in said
    assert "stand-in" not in said
    assert API_KEY not in said


def test_the_stand_in_really_expired_what_the_exam_expired(stripe, stand_in):
    checkout = stripe.open_checkout(order("r-last"), key="r-last:open")

    stripe.expire_checkout(checkout.checkout_id, key="r-last:expire")

    assert SessionStatus.EXPIRED is stand_in.ledger.sessions[checkout.checkout_id].status
