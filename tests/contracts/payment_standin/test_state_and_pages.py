"""What the stand-in keeps over a restart, and what its pages show."""

from pathlib import Path

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from stand_ins.stripe.page import format_amount
from tests.contracts.payment_standin.asking import KEY, SECRET, Receiver, browse, intent_id, order, pay, stripe_client


def test_restart_keeps_payments_keys_and_webhooks(tmp_path: Path, receiver: Receiver) -> None:
    def stand_in() -> PaymentStandIn:
        file = tmp_path / "state" / "payments.json"
        return PaymentStandIn(api_key=KEY, webhook_secret=SECRET, webhook_url=receiver.url, state_file=file)

    options: stripe.RequestOptions = {"idempotency_key": "r-1:create"}
    params = order()
    first = stand_in()
    with first.run_in_thread():
        session = stripe_client(first).v1.checkout.sessions.create(params, options)
        first.webhooks.pause()
        pay(first, session.id)
    assert [] == receiver.requests

    second = stand_in()
    with second.run_in_thread():
        client = stripe_client(second)
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
    with third.run_in_thread():
        assert "succeeded" == stripe_client(third).v1.payment_intents.list().data[0].status


def test_page_shows_hold_and_escapes_input(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
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


def test_closed_checkout_page_shows_its_state(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
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
def test_amount_is_formatted_with_currency_exponent(amount: int, currency: str, text: str) -> None:
    assert text == format_amount(amount, currency)
