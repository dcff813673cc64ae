"""What only Stripe's adapter can meet: Stripe's statuses and codes, its texts, its time limits, its pages of lists."""

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest
import stripe

from csms.adapters import stripe as stripe_adapter
from csms.adapters.stripe import StripePayments
from csms.errors import BadRequest, PaymentRefused, PaymentUnavailable
from csms.ports.payments import Checkout, Order, Payment, PaymentStatus
from local.database import free_port
from stand_ins.stripe import Account, InProcess, PaymentStandIn, sequential_ids
from stand_ins.stripe.records import OTHER_METHODS, SessionStatus
from stand_ins.stripe.signature import sign
from tests.fakes import Clock

API_KEY: Final = "sk_test_adapter"
SECRET: Final = "whsec_adapter"
CARD: Final = "4242424242424242"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The adapter, the account behind it, and a payment of 18.20 EUR where a test needs one."""

    account: Account
    provider: StripePayments
    clock: Clock = field(default_factory=Clock)

    def open_checkout(self, name: str = "r1") -> Checkout:
        order = Order(
            reservation_id=name,
            amount=1820,
            currency="EUR",
            description="EV charging at CP1, connector 1",
            success_url=f"https://csms.example/session/{name}?checkout=done",
            cancel_url=f"https://csms.example/session/{name}?checkout=cancelled",
            expires_at=self.account.clock() + timedelta(minutes=32),
        )
        return self.provider.open_checkout(order, key=f"{name}:open")

    def authorise_payment(self, name: str = "r1") -> Payment:
        checkout = self.open_checkout(name)
        self.account.pay(checkout.checkout_id, CARD)
        return self.provider.payment(checkout.checkout_id)

    def capture_payment(self, name: str = "r1") -> str:
        paid = self.authorise_payment(name)
        return self.provider.capture(paid.payment_id or "", 824, key=f"{name}:capture").payment_id or ""

    @property
    def stripe(self) -> Any:
        """The package itself, for what the product never asks."""
        return stripe.StripeClient(API_KEY, http_client=InProcess(self.account)).v1


@pytest.fixture
def desk() -> Desk:
    clock = Clock()
    account = Account(api_key=API_KEY, webhook_secret=SECRET, clock=clock, new_id=sequential_ids())
    provider = StripePayments(api_key=API_KEY, webhook_secret=SECRET, http_client=InProcess(account))
    return Desk(account=account, provider=provider, clock=clock)


@pytest.fixture
def http_desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """The adapter as it runs in production, in a hurry."""
    monkeypatch.setattr(stripe_adapter, "TIMEOUT_SECONDS", 0.3)
    stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=SECRET, webhook_url=None)
    with stand_in.run_in_thread():
        provider = StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=stand_in.url)
        yield Desk(account=stand_in, provider=provider)


def prepare_call(desk: Desk, operation: str) -> Callable[[], object]:
    """A call that asks Stripe for the operation."""
    provider = desk.provider
    match operation:
        case "checkout.sessions.create":
            return desk.open_checkout
        case "checkout.sessions.retrieve":
            checkout = desk.open_checkout()
            return lambda: provider.payment(checkout.checkout_id)
        case "checkout.sessions.expire":
            checkout = desk.open_checkout()
            return lambda: provider.expire_checkout(checkout.checkout_id, key="x")
        case "payment_intents.list":
            return lambda: list(provider.authorisations(desk.clock()))
        case "refunds.create":
            payment_id = desk.capture_payment()
            return lambda: provider.refund(payment_id, 100, key="x")
    payment_id = desk.authorise_payment().payment_id or ""
    if operation == "payment_intents.capture":
        return lambda: provider.capture(payment_id, 824, key="x")
    return lambda: provider.release(payment_id, key="x")


EVERY_OPERATION: Final = (
    "checkout.sessions.create",
    "checkout.sessions.retrieve",
    "checkout.sessions.expire",
    "payment_intents.list",
    "payment_intents.capture",
    "payment_intents.cancel",
    "refunds.create",
)


# Final or not


@pytest.mark.parametrize("operation", EVERY_OPERATION)
@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "amount_too_large"), (402, "card_declined"), (402, "charge_expired_for_capture"), (404, "resource_missing")],
)
def test_final_error_is_refused_with_code(desk, operation, status, code):
    ask = prepare_call(desk, operation)
    desk.account.fail_next(operation, status=status, code=code)

    with pytest.raises(PaymentRefused) as refused:
        ask()

    assert f"The payment provider refused: {code}." == refused.value.message


@pytest.mark.parametrize("operation", EVERY_OPERATION)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "lock_timeout"),
        (400, "rate_limit"),
        (401, "api_key_expired"),
        (403, "secret_key_required"),
        (409, "idempotency_key_in_use"),
        (409, "lock_timeout"),
        (424, "dependency_failed"),
        (429, "lock_timeout"),
        (429, "rate_limit"),
        (500, "oops"),
        (503, "oops"),
    ],
)
def test_transient_error_is_unavailable_and_retryable(desk, operation, status, code):
    ask = prepare_call(desk, operation)
    desk.account.fail_next(operation, status=status, code=code)

    with pytest.raises(PaymentUnavailable) as failed:
        ask()

    assert f"The payment provider did not answer usefully: {code}." == failed.value.message
    ask()


@pytest.mark.parametrize("operation", EVERY_OPERATION)
def test_missing_answer_is_unavailable_and_retryable(desk, operation):
    ask = prepare_call(desk, operation)
    desk.account.hang_next(operation)

    with pytest.raises(PaymentUnavailable):
        ask()

    ask()


@pytest.mark.note("F67")
@pytest.mark.parametrize("operation", EVERY_OPERATION[2:3] + EVERY_OPERATION[4:])
def test_unanswered_operation_is_not_repeated(desk, operation):
    ask = prepare_call(desk, operation)
    told = len(desk.account.events)
    desk.account.hang_next(operation, acted=True)
    with pytest.raises(PaymentUnavailable):
        ask()
    done = len(desk.account.events)

    ask()

    assert told < done == len(desk.account.events)


@pytest.mark.note("F67")
def test_failed_lookup_leaves_capture_undecided(desk):
    paid = desk.authorise_payment()
    desk.account.fail_next("payment_intents.capture", status=500, acted=True)
    desk.account.hang_next("payment_intents.retrieve")

    with pytest.raises(PaymentUnavailable):
        desk.provider.capture(paid.payment_id or "", 824, key="x")

    assert 824 == desk.provider.capture(paid.payment_id or "", 824, key="x").captured_amount


def test_refused_expiry_of_open_checkout_raises(desk):
    checkout = desk.open_checkout()
    desk.account.fail_next("checkout.sessions.expire", status=400)

    with pytest.raises(PaymentRefused):
        desk.provider.expire_checkout(checkout.checkout_id, key="x")


def test_wrong_address_or_key_is_unavailable(desk):
    nobody = StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=f"http://127.0.0.1:{free_port()}")
    other_account = StripePayments(api_key="sk_test_other", webhook_secret=SECRET, http_client=InProcess(desk.account))

    for provider in (nobody, other_account):
        with pytest.raises(PaymentUnavailable):
            provider.payment("cs_1")


# Time limits, as in production


def test_answer_timeout_raises_unavailable(http_desk):
    checkout = http_desk.open_checkout()
    for _ in range(2):
        http_desk.account.hang_next("checkout.sessions.retrieve")

    with pytest.raises(PaymentUnavailable):
        http_desk.provider.payment(checkout.checkout_id)

    assert PaymentStatus.OPEN is http_desk.provider.payment(checkout.checkout_id).status


@pytest.mark.note("F67")
def test_timed_out_capture_is_made_once(http_desk):
    paid = http_desk.authorise_payment()
    http_desk.account.hang_next("payment_intents.capture", acted=True)

    captured = http_desk.provider.capture(paid.payment_id or "", 824, key="x")

    assert (PaymentStatus.CAPTURED, 824) == (captured.status, captured.captured_amount)
    assert 1 == [event["type"] for event in http_desk.account.events].count("charge.captured")


# What is said about it


@pytest.mark.note("F71")
@pytest.mark.parametrize("operation", EVERY_OPERATION)
@pytest.mark.parametrize("status", [400, 401, 402, 409, 429, 500])
def test_provider_error_text_is_never_exposed(desk, operation, status, caplog):
    caplog.set_level(logging.DEBUG)
    ask = prepare_call(desk, operation)
    desk.account.fail_next(operation, status=status)

    with pytest.raises((PaymentRefused, PaymentUnavailable)) as failed:
        ask()

    said = "".join(traceback.format_exception(failed.value)) + failed.value.code + caplog.text
    assert "was told to answer" not in said
    assert API_KEY not in said


# Money


class RecordingClient(InProcess):
    """Keeps the forms that were sent."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.forms: list[dict[str, str]] = []

    def request(self, method: str, url: str, headers: Any, post_data: Any = None, **options: Any) -> Any:
        self.forms.append(dict(parse_qsl(post_data or "")))
        return super().request(method, url, headers, post_data, **options)


def test_checkout_requests_manual_card_hold(desk):
    noting = RecordingClient(desk.account)
    provider = StripePayments(api_key=API_KEY, webhook_secret=SECRET, http_client=noting)

    replace(desk, provider=provider).open_checkout("r-p")

    asked = {
        "allowed_payment_method_types[0]": "card",
        "payment_intent_data[capture_method]": "manual",
        "line_items[0][price_data][unit_amount]": "1820",
        "line_items[0][price_data][currency]": "eur",
        "adaptive_pricing[enabled]": "false",
        "metadata[reservation_id]": "r-p",
        "payment_intent_data[metadata][reservation_id]": "r-p",
    }
    assert asked.items() <= noting.forms[0].items()


def test_money_movements_carry_their_idempotency_key(desk):
    payment_id = desk.capture_payment("r-k")
    desk.provider.refund(payment_id, 300, key="r-k:refund")
    released = desk.authorise_payment("r-l")
    desk.provider.release(released.payment_id, key="r-l:release")
    desk.provider.expire_checkout(desk.open_checkout("r-m").checkout_id, key="r-m:expire")

    keys = {event["type"]: event["request"]["idempotency_key"] for event in desk.account.events}
    moves = ("payment_intent.succeeded", "refund.created", "payment_intent.canceled", "checkout.session.expired")
    assert ["r-k:capture", "r-k:refund", "r-l:release", "r-m:expire"] == [keys[move] for move in moves]


@pytest.mark.note("F69")
def test_lapsed_authorisation_counts_as_released(desk):
    paid = desk.authorise_payment()
    desk.clock.move(timedelta(days=7))

    with pytest.raises(PaymentRefused):
        desk.provider.capture(paid.payment_id, 824, key="x")

    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key="y").status


def test_bounced_refund_needs_a_new_key(desk):
    payment_id = desk.capture_payment()
    desk.provider.refund(payment_id, 300, key="first")
    desk.account.bounce(next(iter(desk.account.ledger.refunds)))

    with pytest.raises(PaymentRefused, match="refund_incomplete"):
        desk.provider.refund(payment_id, 300, key="first")

    assert 300 == desk.provider.refund(payment_id, 300, key="second").refunded_amount


def test_manual_refund_counts_toward_total(desk):
    payment_id = desk.capture_payment()
    desk.stripe.refunds.create({"payment_intent": payment_id, "amount": 200})

    assert 300 == desk.provider.refund(payment_id, 300, key="x").refunded_amount
    assert [200, 100] == [refund.amount for refund in desk.account.ledger.refunds.values()]


@pytest.mark.note("F63")
def test_authorisations_span_pages_without_foreign_payments(desk):
    names = [f"r{number}" for number in range(stripe_adapter.PAGE + 2)]
    for name in names:
        desk.account.pay(desk.open_checkout(name).checkout_id, CARD)
    foreign = {"amount": 500, "currency": "eur", "capture_method": "manual", "confirm": True}
    desk.stripe.payment_intents.create(
        foreign | {"payment_method": "pm_card_visa", "allowed_payment_method_types": ["card"]}
    )

    found = desk.provider.authorisations(desk.clock() - timedelta(days=1))

    assert names[::-1] == [payment.reservation_id for payment in found]


def test_prefilled_customer_email_is_returned(desk):
    session = {
        "mode": "payment",
        "line_items": [
            {"quantity": 1, "price_data": {"currency": "eur", "unit_amount": 500, "product_data": {"name": "Charging"}}}
        ],
        "success_url": "https://csms.example",
        "customer_email": "known@example.com",
    }
    checkout_id = desk.stripe.checkout.sessions.create(session).id

    assert "known@example.com" == desk.provider.email_address(checkout_id)


# Payments of other kinds in the same account


class AlteringClient(InProcess):
    """Spoils every PaymentIntent and Checkout Session on its way to the adapter."""

    def __init__(self, account: Account, spoil: Callable[[dict[str, Any]], object]) -> None:
        super().__init__(account)
        self._spoil = spoil

    def request(self, method: str, url: str, headers: Any, post_data: Any = None, **options: Any) -> Any:
        text, status, answered = super().request(method, url, headers, post_data, **options)
        body = json.loads(text)
        for it in body.get("data", [body]):
            self._spoil(it)
        return json.dumps(body), status, answered


def spoilt_provider(desk: Desk, spoil: Callable[[dict[str, Any]], object]) -> StripePayments:
    return StripePayments(api_key=API_KEY, webhook_secret=SECRET, http_client=AlteringClient(desk.account, spoil))


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_other_methods_do_not_stop_reconciliation(desk, method):
    ours = desk.authorise_payment("r-ours")
    desk.account.receive(method)
    desk.account.receive(method, metadata={"order": "17"})
    later = desk.authorise_payment("r-later")

    found = list(desk.provider.authorisations(desk.clock() - timedelta(days=1)))

    assert [later, ours] == found


@pytest.mark.parametrize("method", ["link", "card_present"])
@pytest.mark.parametrize("metadata", [{}, {"order": "17"}])
def test_foreign_hold_is_not_listed(desk, method, metadata):
    desk.account.receive(method, metadata=metadata, manual=True)

    assert [] == list(desk.provider.authorisations(desk.clock() - timedelta(days=1)))


@pytest.mark.parametrize("ours", [True, False], ids=["ours and captured", "held and not ours"])
def test_skipped_payment_is_not_read(desk, ours):
    def spoil(intent: dict[str, Any]) -> None:
        """All that is left of the payment is what it is skipped by."""
        if intent["id"] == skipped:
            for name in intent.keys() - {"id", "object", "status", "metadata"}:
                del intent[name]

    held = desk.authorise_payment("r-held")
    skipped = desk.capture_payment("r-done") if ours else desk.account.receive("card_present", manual=True)

    assert [held] == list(spoilt_provider(desk, spoil).authorisations(desk.clock() - timedelta(days=1)))


def test_link_payment_is_captured_and_refunded(desk):
    checkout = desk.open_checkout("r-link")
    desk.account.pay_otherwise(checkout.checkout_id, "link")

    paid = desk.provider.payment(checkout.checkout_id)

    expected = Payment(
        status=PaymentStatus.AUTHORISED,
        payment_id=paid.payment_id,
        reservation_id="r-link",
        authorised_amount=1820,
    )
    assert expected == paid
    assert [expected] == list(desk.provider.authorisations(desk.clock() - timedelta(days=1)))
    captured = desk.provider.capture(paid.payment_id, 824, key="r-link:capture")
    assert (PaymentStatus.CAPTURED, 824, None) == (captured.status, captured.captured_amount, captured.card_brand)
    assert 300 == desk.provider.refund(paid.payment_id, 300, key="r-link:refund").refunded_amount


def test_link_payment_is_released(desk):
    checkout = desk.open_checkout("r-link")
    desk.account.pay_otherwise(checkout.checkout_id, "link")
    paid = desk.provider.payment(checkout.checkout_id)

    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key="r-link:release").status


def spoil_details(details: Any) -> Callable[[dict[str, Any]], object]:
    """Every charge's details are these; missing altogether for `...`."""

    def spoil(subject: dict[str, Any]) -> None:
        intent = subject.get("payment_intent", subject)
        if details is ...:
            del intent["latest_charge"]["payment_method_details"]
        else:
            intent["latest_charge"]["payment_method_details"] = details

    return spoil


def spoil_charge(charge: Any) -> Callable[[dict[str, Any]], object]:
    """No intent has its charge; not even its name for `...`."""

    def spoil(subject: dict[str, Any]) -> None:
        intent = subject.get("payment_intent", subject)
        if charge is ...:
            del intent["latest_charge"]
        else:
            intent["latest_charge"] = charge

    return spoil


@pytest.mark.note("F69")
@pytest.mark.parametrize(
    "spoil",
    [
        spoil_details(...),
        spoil_details(None),
        spoil_details({}),
        spoil_details({"type": "card"}),
        spoil_details({"type": "card", "card": None}),
        spoil_details({"type": "a_method_of_next_year", "a_method_of_next_year": {}}),
        spoil_charge(...),
        spoil_charge(None),
        spoil_charge("ch_not_expanded"),
    ],
    ids=[
        "no details",
        "null details",
        "empty details",
        "no card",
        "null card",
        "unknown method",
        "no charge",
        "null charge",
        "charge not expanded",
    ],
)
def test_charge_without_card_has_no_details(desk, spoil):
    checkout = desk.open_checkout("r-bare")
    desk.account.pay(checkout.checkout_id, CARD)
    provider = spoilt_provider(desk, spoil)

    payment = provider.payment(checkout.checkout_id)

    bare = {"capture_before": None, "card_brand": None, "card_last4": None}
    assert replace(desk.provider.payment(checkout.checkout_id), **bare) == payment
    assert [payment] == list(provider.authorisations(desk.clock() - timedelta(days=1)))


@pytest.mark.parametrize(
    "metadata",
    [
        ...,
        None,
        {},
        "text",
        [],
        {"reservation_id": None},
        {"reservation_id": 7},
        {"reservation_id": {"id": "r-ours"}},
        {"Reservation_Id": "r-ours"},
    ],
    ids=str,
)
def test_foreign_metadata_names_no_reservation(desk, metadata):
    def spoil(subject: dict[str, Any]) -> None:
        """The subject's metadata, and that of its intent, are these; missing altogether for `...`."""
        for it in (subject, subject.get("payment_intent")):
            if isinstance(it, dict):
                it.pop("metadata")
                it.update({"metadata": metadata} if metadata is not ... else {})

    paid, unpaid = desk.open_checkout("r-paid"), desk.open_checkout("r-unpaid")
    desk.account.pay(paid.checkout_id, CARD)
    provider = spoilt_provider(desk, spoil)

    seen = [provider.payment(checkout.checkout_id) for checkout in (paid, unpaid)]

    assert [(PaymentStatus.AUTHORISED, None), (PaymentStatus.OPEN, None)] == [
        (payment.status, payment.reservation_id) for payment in seen
    ]
    assert [] == list(provider.authorisations(desk.clock() - timedelta(days=1)))


# Events


def event(kind: str = "payment_intent.succeeded", **subject: Any) -> dict[str, Any]:
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": {"id": "pi_1", **subject}}}


@pytest.mark.note("F62")
def test_every_payment_event_names_its_reservation(desk):
    payment_id = desk.capture_payment("r-life")
    desk.provider.refund(payment_id, 300, key="r-life:refund")
    desk.provider.expire_checkout(desk.open_checkout("r-life-2").checkout_id, key="r-life-2:expire")

    told = [desk.provider.read_webhook(*desk.account.sign_event(event)) for event in desk.account.events]

    assert {"r-life", "r-life-2"} == {it.reservation_id for it in told}
    assert len(told) == len({it.event_id for it in told})
    assert {"checkout.session.completed", "checkout.session.expired", "refund.created"} < {it.kind for it in told}


@pytest.mark.parametrize(
    "subject", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"something": "else"}}, {"metadata": "text"}]
)
def test_foreign_event_names_no_reservation(desk, subject):
    told = desk.provider.read_webhook(*desk.account.sign_event(event("customer.tax_id.created", **subject)))

    assert (None, "customer.tax_id.created") == (told.reservation_id, told.kind)


@pytest.mark.note("F62")
def test_old_or_foreign_signature_is_refused(desk):
    for body, signature in (sign(event(), "whsec_other"), sign(event(), SECRET, at=time.time() - 3600)):
        with pytest.raises(BadRequest):
            desk.provider.read_webhook(body, signature)


@pytest.mark.parametrize(
    "detail", [[], {}, event() | {"object": "v2.core.event"}, event() | {"id": 1}, {"event": event()}]
)
def test_signed_non_event_is_bad_request(desk, detail):
    with pytest.raises(BadRequest) as refused:
        desk.provider.read_webhook(*sign(detail, SECRET))

    assert "InvalidEvent" == refused.value.code
    assert json.dumps(detail) not in refused.value.message


def test_stand_in_session_becomes_expired(desk):
    checkout = desk.open_checkout()

    desk.provider.expire_checkout(checkout.checkout_id, key="x")

    assert SessionStatus.EXPIRED is desk.account.ledger.sessions[checkout.checkout_id].status
