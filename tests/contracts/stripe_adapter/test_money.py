"""What Stripe is asked to hold, move and close, and how its lists are read."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from csms.adapters import stripe as stripe_adapter
from csms.adapters.stripe import StripePayments
from csms.errors import PaymentRefused
from csms.ports.payments import PaymentStatus
from stand_ins.stripe import Account, InProcess
from stand_ins.stripe.records import SessionStatus
from tests.contracts.stripe_adapter.adapter_desk import API_KEY, CARD, SECRET


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
    released = desk.authorize_payment("r-l")
    desk.provider.release(released.payment_id, key="r-l:release")
    desk.provider.expire_checkout(desk.open_checkout("r-m").checkout_id, key="r-m:expire")

    keys = {event["type"]: event["request"]["idempotency_key"] for event in desk.account.events}
    moves = ("payment_intent.succeeded", "refund.created", "payment_intent.canceled", "checkout.session.expired")
    assert ["r-k:capture", "r-k:refund", "r-l:release", "r-m:expire"] == [keys[move] for move in moves]


@pytest.mark.note("F69")
def test_lapsed_authorization_counts_as_released(desk):
    paid = desk.authorize_payment()
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
def test_authorizations_span_pages_without_foreign_payments(desk):
    names = [f"r{number}" for number in range(stripe_adapter.PAGE + 2)]
    for name in names:
        desk.account.pay(desk.open_checkout(name).checkout_id, CARD)
    foreign = {"amount": 500, "currency": "eur", "capture_method": "manual", "confirm": True}
    desk.stripe.payment_intents.create(
        foreign | {"payment_method": "pm_card_visa", "allowed_payment_method_types": ["card"]}
    )

    found = desk.provider.authorizations(desk.clock() - timedelta(days=1))

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


def test_stand_in_session_becomes_expired(desk):
    checkout = desk.open_checkout()

    desk.provider.expire_checkout(checkout.checkout_id, key="x")

    assert SessionStatus.EXPIRED is desk.account.ledger.sessions[checkout.checkout_id].status
