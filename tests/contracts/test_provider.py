"""One exam for payment providers: the fake, and Stripe's adapter over the stand-in that speaks Stripe's wire format,
over HTTP and in one process. What Stripe itself answers is asked in test_stripe_itself.py."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from csms.adapters.stripe import StripePayments
from csms.config import Settings
from csms.errors import BadRequest, PaymentRefused, PaymentUnavailable
from csms.payment_providers import PROVIDERS, open_provider
from csms.ports.payments import Checkout, Order, Payment, PaymentProvider, PaymentStatus
from stand_ins.stripe import Account, InProcess, PaymentStandIn, sequential_ids
from tests.fakes import Clock, FakeProvider

API_KEY: Final = "sk_test_exam"
SECRET: Final = "whsec_exam"
CARD: Final = "4242424242424242"
DECLINED: Final = "4000000000000002"
DRIVER: Final = "ada@example.com"
OPERATIONS: Final = {
    "open_checkout": "checkout.sessions.create",
    "payment": "checkout.sessions.retrieve",
    "expire_checkout": "checkout.sessions.expire",
    "capture": "payment_intents.capture",
    "release": "payment_intents.cancel",
    "refund": "refunds.create",
    "authorisations": "payment_intents.list",
    "email_address": "checkout.sessions.retrieve",
}
AUTHORISED: Final = 1820
PROVIDER_PARAMS: Final = ("fake", "stripe over HTTP", "stripe in process")
"""Who sits the exam; the first word of one that is registered is its name in `csms.payment_providers`."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A provider under exam, and what only its test can do with it."""

    provider: PaymentProvider
    clock: Clock
    pay: Callable[[Checkout], None]
    decline: Callable[[Checkout], None]
    fail_next: Callable[[str, bool], None]
    """Without an answer of use; whether it took effect all the same."""
    build_webhook: Callable[[str], tuple[bytes, str]]
    """A signed webhook about a reservation."""
    captured_amounts: Callable[[], list[int]]
    """The amounts captured so far."""
    refunded_amount: Callable[[], int]
    """What went back so far."""
    held_amount: Callable[[], int]
    """What is authorised and neither captured nor released."""

    def order(self, name: str = "r1", amount: int = AUTHORISED) -> Order:
        return Order(
            reservation_id=name,
            amount=amount,
            currency="EUR",
            description="EV charging at CP1, connector 1",
            success_url=f"https://csms.example/session/{name}?checkout=done",
            cancel_url=f"https://csms.example/session/{name}?checkout=cancelled",
            expires_at=self.clock() + timedelta(minutes=32),
        )

    def open_checkout(self, name: str = "r1") -> Checkout:
        return self.provider.open_checkout(self.order(name), key=f"{name}:open")

    def authorise_payment(self, name: str = "r1") -> Payment:
        """A payment that was made."""
        checkout = self.open_checkout(name)
        self.pay(checkout)
        return self.provider.payment(checkout.checkout_id)

    def capture_payment(self, name: str = "r1", amount: int = 824) -> str:
        """The id of a payment of which this much was taken."""
        paid = self.authorise_payment(name)
        return self.provider.capture(paid.payment_id or "", amount, key=f"{name}:capture").payment_id or ""


@pytest.fixture(params=PROVIDER_PARAMS)
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    clock = Clock()
    match request.param:
        case "fake":
            yield fake_desk(FakeProvider(clock), clock)
        case "stripe over HTTP":
            stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=SECRET, webhook_url=None, clock=clock)
            with stand_in.run_in_thread():
                provider = open_provider("stripe", settings(STRIPE_API_BASE=stand_in.url))
                # The adapter tries twice by itself; an answer that Stripe stored for the key is not tried again.
                yield stripe_desk(stand_in, provider, clock, pay=submit, tries=2)
        case _:
            account = Account(api_key=API_KEY, webhook_secret=SECRET, clock=clock, new_id=sequential_ids())
            provider = StripePayments(api_key=API_KEY, webhook_secret=SECRET, http_client=InProcess(account))
            yield stripe_desk(account, provider, clock, pay=pay_in_process(account), tries=1)


def settings(**values: str) -> Settings:
    """What an installation at Stripe sets."""
    return Settings.load({"TABLE_NAME": "t", "STRIPE_API_KEY": API_KEY, "STRIPE_WEBHOOK_SECRET": SECRET, **values})


def fake_desk(provider: FakeProvider, clock: Clock) -> Desk:
    return Desk(
        provider=provider,
        clock=clock,
        pay=lambda checkout: provider.pay(checkout.checkout_id, email=DRIVER),
        decline=lambda _checkout: None,
        fail_next=lambda operation, acted: provider.fail_next(operation, acted=acted),
        build_webhook=provider.build_webhook,
        captured_amounts=provider.captured_amounts,
        refunded_amount=provider.refunded_amount,
        held_amount=provider.held_amount,
    )


def stripe_desk(
    account: Account, provider: PaymentProvider, clock: Clock, *, pay: Callable[[Checkout, str], None], tries: int
) -> Desk:
    def fail_next(operation: str, acted: bool) -> None:
        for _ in range(1 if acted else tries):
            account.fail_next(OPERATIONS[operation], status=500, acted=acted)

    return Desk(
        provider=provider,
        clock=clock,
        pay=lambda checkout: pay(checkout, CARD),
        decline=lambda checkout: pay(checkout, DECLINED),
        fail_next=fail_next,
        build_webhook=lambda name: account.sign_event(event(metadata={"reservation_id": name})),
        captured_amounts=lambda: [
            intent.amount_received for intent in account.ledger.intents.values() if intent.amount_received
        ],
        refunded_amount=lambda: sum(refund.amount for refund in account.ledger.refunds.values()),
        held_amount=lambda: sum(intent.amount_capturable for intent in account.ledger.intents.values()),
    )


def pay_in_process(account: Account) -> Callable[[Checkout, str], None]:
    """The driver's hand where there is no page."""

    def pay(checkout: Checkout, card: str) -> None:
        account.pay(checkout.checkout_id, card, address=DRIVER)

    return pay


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: it leads to a page of the product, which does not run here."""

    def redirect_request(self, *_: Any) -> None:
        return None


BROWSER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirects)


def submit(checkout: Checkout, card: str) -> None:
    """The checkout page's form, filled in and sent."""
    form = urlencode({"email": DRIVER, "card_number": card}).encode()
    with pytest.raises(urllib.error.HTTPError) as answer:
        BROWSER.open(f"{checkout.url}/pay", form, timeout=5)
    assert (402 if card == DECLINED else 303) == answer.value.code


def event(kind: str = "payment_intent.amount_capturable_updated", **subject: Any) -> dict[str, Any]:
    """An event as Stripe writes it."""
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": {"id": "pi_1", **subject}}}


def retry_once(ask: Callable[[], Payment]) -> Payment:
    """The answer of the first try, or of the second if the provider gave none; it may not take a third."""
    try:
        return ask()
    except PaymentUnavailable:
        return ask()


def test_every_registered_provider_is_examined() -> None:
    assert set(PROVIDERS) <= {name.split()[0] for name in PROVIDER_PARAMS}


# Checkout


def test_same_key_opens_one_checkout(desk):
    the_order = desk.order()

    first = desk.provider.open_checkout(the_order, key="k1")
    second = desk.provider.open_checkout(the_order, key="k1")

    assert first == second
    assert first.url.startswith("http")
    assert first != desk.provider.open_checkout(the_order, key="k2")


def test_reused_key_refuses_another_order(desk):
    desk.provider.open_checkout(desk.order(), key="k3")

    with pytest.raises(PaymentRefused):
        desk.provider.open_checkout(desk.order(amount=99), key="k3")


@pytest.mark.note("F61")
def test_payment_is_authorised_only_after_paying(desk):
    checkout = desk.open_checkout("r-61")
    assert PaymentStatus.OPEN is desk.provider.payment(checkout.checkout_id).status

    desk.decline(checkout)
    assert PaymentStatus.OPEN is desk.provider.payment(checkout.checkout_id).status

    desk.pay(checkout)
    paid = desk.provider.payment(checkout.checkout_id)
    assert (PaymentStatus.AUTHORISED, AUTHORISED, 0) == (paid.status, paid.authorised_amount, paid.captured_amount)
    assert paid.payment_id
    assert AUTHORISED == desk.held_amount()


def test_payment_always_names_its_reservation(desk):
    checkout = desk.open_checkout("r-n")
    assert "r-n" == desk.provider.payment(checkout.checkout_id).reservation_id

    desk.pay(checkout)
    paid = desk.provider.payment(checkout.checkout_id)
    released = desk.provider.release(paid.payment_id, key="r-n:release")

    assert ["r-n", "r-n"] == [paid.reservation_id, released.reservation_id]
    assert (
        "r-m" == desk.provider.expire_checkout(desk.open_checkout("r-m").checkout_id, key="r-m:expire").reservation_id
    )


@pytest.mark.note("F69")
def test_authorisation_carries_capture_deadline(desk):
    before = desk.provider.payment(desk.open_checkout("r-69a").checkout_id)

    paid = desk.authorise_payment("r-69b")

    assert before.capture_before is None
    assert desk.clock() + timedelta(days=7) == paid.capture_before


@pytest.mark.note("F71")
def test_payment_exposes_only_brand_and_last4(desk):
    payment_id = desk.capture_payment("r-71")

    settled = desk.provider.refund(payment_id, 100, key="r-71:refund")

    assert ("visa", "4242") == (settled.card_brand, settled.card_last4)
    assert CARD not in repr(settled)


def test_driver_email_is_known_after_paying(desk):
    checkout = desk.open_checkout("r-mail")
    assert desk.provider.email_address(checkout.checkout_id) is None

    desk.pay(checkout)

    assert DRIVER == desk.provider.email_address(checkout.checkout_id)


def test_unpaid_checkout_expires_and_stays_expired(desk):
    checkout = desk.open_checkout("r-e")
    desk.decline(checkout)

    first = desk.provider.expire_checkout(checkout.checkout_id, key="r-e:expire")

    assert PaymentStatus.EXPIRED is first.status
    assert first == desk.provider.expire_checkout(checkout.checkout_id, key="r-e:expire")
    assert first == desk.provider.expire_checkout(checkout.checkout_id, key="r-e:again")
    assert first == desk.provider.payment(checkout.checkout_id)


@pytest.mark.note("F64")
def test_expiry_loses_to_completed_payment(desk):
    checkout = desk.open_checkout("r-64")
    desk.pay(checkout)

    seen = desk.provider.expire_checkout(checkout.checkout_id, key="r-64:expire")

    assert (PaymentStatus.AUTHORISED, AUTHORISED) == (seen.status, seen.authorised_amount)
    assert seen == desk.provider.payment(checkout.checkout_id)


@pytest.mark.note("F64")
@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_retry_completes_unanswered_expiry(desk, acted):
    checkout = desk.open_checkout("r-64x")
    desk.fail_next("expire_checkout", acted)

    again = retry_once(lambda: desk.provider.expire_checkout(checkout.checkout_id, key="r-64x:expire"))

    assert PaymentStatus.EXPIRED is again.status
    assert PaymentStatus.EXPIRED is desk.provider.payment(checkout.checkout_id).status


# Capture and release


@pytest.mark.note("F67")
@pytest.mark.parametrize("second_key", ["r-c:capture", "r-c:other"])
def test_repeated_capture_takes_money_once(desk, second_key):
    paid = desk.authorise_payment("r-c")

    first = desk.provider.capture(paid.payment_id, 824, key="r-c:capture")
    second = desk.provider.capture(paid.payment_id, 824, key=second_key)

    assert (PaymentStatus.CAPTURED, 824) == (first.status, first.captured_amount)
    assert first == second
    assert ([824], 0) == (desk.captured_amounts(), desk.held_amount())


@pytest.mark.note("F67")
@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_retry_completes_unanswered_capture(desk, acted):
    paid = desk.authorise_payment("r-67")
    desk.fail_next("capture", acted)

    again = retry_once(lambda: desk.provider.capture(paid.payment_id, 824, key="r-67:capture"))

    assert (PaymentStatus.CAPTURED, 824) == (again.status, again.captured_amount)
    assert ([824], 0) == (desk.captured_amounts(), desk.held_amount())


@pytest.mark.note("F65")
def test_capture_above_authorised_amount_is_refused(desk):
    paid = desk.authorise_payment("r-65")

    with pytest.raises(PaymentRefused):
        desk.provider.capture(paid.payment_id, AUTHORISED + 1, key="r-65:capture")
    assert ([], AUTHORISED) == (desk.captured_amounts(), desk.held_amount())

    everything = desk.provider.capture(paid.payment_id, AUTHORISED, key="r-65:again")
    assert AUTHORISED == everything.captured_amount


@pytest.mark.note("F63")
@pytest.mark.parametrize("second_key", ["r-r:release", "r-r:other"])
def test_repeated_release_is_harmless(desk, second_key):
    paid = desk.authorise_payment("r-r")

    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key="r-r:release").status
    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key=second_key).status
    assert ([], 0) == (desk.captured_amounts(), desk.held_amount())


@pytest.mark.note("F63")
@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_retry_completes_unanswered_release(desk, acted):
    paid = desk.authorise_payment("r-63")
    desk.fail_next("release", acted)

    again = retry_once(lambda: desk.provider.release(paid.payment_id, key="r-63:release"))

    assert PaymentStatus.RELEASED is again.status
    assert 0 == desk.held_amount()


def test_released_payment_cannot_be_captured(desk):
    paid = desk.authorise_payment("r-rc")
    desk.provider.release(paid.payment_id, key="r-rc:release")

    with pytest.raises(PaymentRefused):
        desk.provider.capture(paid.payment_id, 824, key="r-rc:capture")

    assert ([], 0) == (desk.captured_amounts(), desk.held_amount())


def test_captured_payment_cannot_be_released(desk):
    paid = desk.authorise_payment("r-cr")
    desk.provider.capture(paid.payment_id, 824, key="r-cr:capture")

    with pytest.raises(PaymentRefused):
        desk.provider.release(paid.payment_id, key="r-cr:release")

    assert [824] == desk.captured_amounts()


# Refund


@pytest.mark.parametrize("second_key", ["r-f:refund", "r-f:other"])
def test_repeated_refund_pays_back_once(desk, second_key):
    payment_id = desk.capture_payment("r-f")

    first = desk.provider.refund(payment_id, 300, key="r-f:refund")
    second = desk.provider.refund(payment_id, 300, key=second_key)

    assert (PaymentStatus.CAPTURED, 824, 300) == (first.status, first.captured_amount, first.refunded_amount)
    assert first == second
    assert 300 == desk.refunded_amount()


def test_refund_amount_is_cumulative_total(desk):
    payment_id = desk.capture_payment("r-fa")

    amounts = [
        desk.provider.refund(payment_id, amount, key=f"r-fa:{amount}").refunded_amount
        for amount in (300, 500, 200, 824)
    ]

    assert [300, 500, 500, 824] == amounts
    assert 824 == desk.refunded_amount()


@pytest.mark.note("F67")
@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_retry_completes_unanswered_refund(desk, acted):
    payment_id = desk.capture_payment("r-fx")
    desk.fail_next("refund", acted)

    again = retry_once(lambda: desk.provider.refund(payment_id, 300, key="r-fx:refund"))

    assert 300 == again.refunded_amount
    assert 300 == desk.refunded_amount()


@pytest.mark.parametrize("amount", [500, 600], ids=["of another amount", "as much again"])
def test_reused_key_refuses_another_refund(desk, amount):
    payment_id = desk.capture_payment("r-fk")
    desk.provider.refund(payment_id, 300, key="r-fk:refund")

    with pytest.raises(PaymentRefused):
        desk.provider.refund(payment_id, amount, key="r-fk:refund")

    assert 300 == desk.refunded_amount()


def test_refund_above_captured_amount_is_refused(desk):
    payment_id = desk.capture_payment("r-fm")

    with pytest.raises(PaymentRefused):
        desk.provider.refund(payment_id, 825, key="r-fm:825")
    assert 0 == desk.refunded_amount()

    desk.provider.refund(payment_id, 824, key="r-fm:824")
    with pytest.raises(PaymentRefused):
        desk.provider.refund(payment_id, 825, key="r-fm:again")
    assert 824 == desk.refunded_amount()


def test_uncaptured_payment_cannot_be_refunded(desk):
    held, released = desk.authorise_payment("r-fh"), desk.authorise_payment("r-fr")
    desk.provider.release(released.payment_id, key="r-fr:release")

    for paid in (held, released):
        with pytest.raises(PaymentRefused):
            desk.provider.refund(paid.payment_id, 100, key=f"{paid.reservation_id}:refund")

    assert (AUTHORISED, 0) == (desk.held_amount(), desk.refunded_amount())


# What is authorised


@pytest.mark.note("F63")
def test_only_unsettled_authorisations_are_listed(desk):
    desk.open_checkout("r-open")
    desk.capture_payment("r-captured")
    released, held, other = (desk.authorise_payment(name) for name in ("r-released", "r-held", "r-other"))
    desk.provider.release(released.payment_id, key="r-released:release")

    found = list(desk.provider.authorisations(desk.clock() - timedelta(hours=1)))

    assert [other, held] == found
    assert ["r-other", "r-held"] == [payment.reservation_id for payment in found]


def test_authorisations_before_cutoff_are_not_listed(desk):
    desk.authorise_payment("r-before")
    desk.clock.move(timedelta(hours=2))
    since = desk.clock()
    at_once = desk.authorise_payment("r-at-once")
    desk.clock.move(timedelta(hours=2))
    later = desk.authorise_payment("r-later")

    assert [later, at_once] == list(desk.provider.authorisations(since))


# What cannot be


@pytest.mark.parametrize(
    "ask",
    [
        lambda provider: provider.payment("cs_unknown"),
        lambda provider: provider.email_address("cs_unknown"),
        lambda provider: provider.expire_checkout("cs_unknown", key="x1"),
        lambda provider: provider.capture("pi_unknown", 1, key="x2"),
        lambda provider: provider.release("pi_unknown", key="x3"),
        lambda provider: provider.refund("pi_unknown", 1, key="x4"),
    ],
)
def test_unknown_payment_objects_are_refused(desk, ask):
    with pytest.raises(PaymentRefused):
        ask(desk.provider)


def prepare_call(desk: Desk, operation: str) -> Callable[[], object]:
    """A call of the operation that can be made at any time, with one key."""
    provider, name = desk.provider, f"r-{operation}"
    if operation == "open_checkout":
        the_order = desk.order(name)
        return lambda: provider.open_checkout(the_order, key=f"{name}:x")
    checkout = desk.open_checkout(name)
    if operation == "expire_checkout":
        return lambda: provider.expire_checkout(checkout.checkout_id, key=f"{name}:x")
    desk.pay(checkout)
    payment_id = provider.payment(checkout.checkout_id).payment_id or ""
    if operation == "refund":
        provider.capture(payment_id, 824, key=f"{name}:capture")
    since: datetime = desk.clock() - timedelta(days=1)
    calls: dict[str, Callable[[], object]] = {
        "payment": lambda: provider.payment(checkout.checkout_id),
        "email_address": lambda: provider.email_address(checkout.checkout_id),
        "capture": lambda: provider.capture(payment_id, 100, key=f"{name}:x"),
        "release": lambda: provider.release(payment_id, key=f"{name}:x"),
        "refund": lambda: provider.refund(payment_id, 100, key=f"{name}:x"),
        "authorisations": lambda: list(provider.authorisations(since)),
    }
    return calls[operation]


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_unavailable_provider_leaves_key_retryable(desk, operation):
    ask = prepare_call(desk, operation)
    desk.fail_next(operation, False)

    with pytest.raises(PaymentUnavailable):
        ask()

    assert ask()


# Webhooks


@pytest.mark.note("F62")
def test_signed_webhook_names_its_reservation(desk):
    body, signature = desk.build_webhook("r1")

    told = desk.provider.read_webhook(body, signature)

    assert "r1" == told.reservation_id
    assert told.event_id
    assert told.kind


@pytest.mark.note("F62")
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
def test_webhook_with_wrong_signature_is_refused(desk, spoil):
    with pytest.raises(BadRequest) as refused:
        desk.provider.read_webhook(*spoil(*desk.build_webhook("r1")))

    assert "InvalidSignature" == refused.value.code


@pytest.mark.note("F62")
def test_webhook_and_eventbridge_yield_same_event(desk):
    body, signature = desk.build_webhook("r1")

    assert desk.provider.read_webhook(body, signature) == desk.provider.read_event(json.loads(body))


@pytest.mark.parametrize("detail", [{}, {"id": 1, "type": 2, "kind": 3}, {"object": "event"}, [], None, "event"])
def test_malformed_event_is_bad_request(desk, detail):
    with pytest.raises(BadRequest):
        desk.provider.read_event(detail)
