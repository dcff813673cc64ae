"""The payer's side of the stand-in: cards, authentication, races with the expiry, the mail address."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import stripe

from stand_ins.stripe import PaymentStandIn
from tests.contracts.payment_standin.asking import (
    CHALLENGED_CARD,
    DECLINED_CARD,
    POOR_CARD,
    SUCCESS_CARD,
    Clock,
    Receiver,
    browse,
    expect_refusal,
    intent_id,
    order,
    pay,
    refusal,
)


@pytest.mark.note("F61")
def test_manual_capture_session_completes_unpaid(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
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


def test_automatic_capture_session_completes_paid(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
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
def test_declined_card_leaves_session_payable(
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


def test_mistyped_card_makes_no_attempt(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order())

    assert 402 == pay(stand_in, session.id, "4242 4242 4242 4241").status
    assert 402 == pay(stand_in, session.id, "").status
    assert client.v1.checkout.sessions.retrieve(session.id).payment_intent is None


@pytest.mark.parametrize(("outcome", "status"), [("pass", "requires_capture"), ("fail", "requires_payment_method")])
def test_challenged_card_needs_authentication(
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


def test_authentication_after_expiry_authorizes_nothing(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
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


def test_expiry_loses_to_completed_payment(
    stand_in: PaymentStandIn, client: stripe.StripeClient, held_payment: str
) -> None:
    session = next(iter(stand_in.ledger.sessions))

    with expect_refusal(400):
        client.v1.checkout.sessions.expire(session)

    assert "complete" == client.v1.checkout.sessions.retrieve(session).status
    assert "requires_capture" == client.v1.payment_intents.retrieve(held_payment).status


def test_payment_racing_expiry_ends_one_way(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    def expire(session_id: str) -> str | None:
        return refusal(lambda: client.v1.checkout.sessions.expire(session_id))

    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            session = client.v1.checkout.sessions.create(order())
            paying, expiring = pool.submit(pay, stand_in, session.id), pool.submit(expire, session.id)

            expected = ("expired", 410) if expiring.result() is None else ("complete", 303)
            ended = client.v1.checkout.sessions.retrieve(session.id)
            assert expected == (ended.status, paying.result().status)


def test_unpaid_session_expires_on_time(
    stand_in: PaymentStandIn, client: stripe.StripeClient, receiver: Receiver, clock: Clock
) -> None:
    session = client.v1.checkout.sessions.create(order())
    clock.ahead = timedelta(seconds=2001)

    page = pay(stand_in, session.id)

    assert (410, "expired") == (page.status, client.v1.checkout.sessions.retrieve(session.id).status)
    assert [] == client.v1.payment_intents.list().data
    stand_in.webhooks.wait_until_quiet()
    assert ["checkout.session.expired"] == receiver.types


@pytest.mark.parametrize(
    ("form", "details"),
    [
        ({"email": " ada@example.com "}, {"email": "ada@example.com"}),
        ({}, None),
    ],
    ids=["an address", "a form without the field"],
)
def test_session_keeps_email_from_page(
    stand_in: PaymentStandIn, client: stripe.StripeClient, form: dict[str, str], details: dict[str, str] | None
) -> None:
    session = client.v1.checkout.sessions.create(order())
    assert session.customer_details is None

    browse(f"{stand_in.url}/checkout/{session.id}/pay", form | {"card_number": CHALLENGED_CARD})
    browse(f"{stand_in.url}/checkout/{session.id}/authenticate", {"outcome": "pass"})

    done = client.v1.checkout.sessions.retrieve(session.id)
    assert "complete" == done.status
    assert details == (done.customer_details and done.customer_details.to_dict())


@pytest.mark.parametrize("typed", ["", "ada", "ada@example", "a@b.c d"])
def test_mistyped_email_makes_no_attempt(stand_in: PaymentStandIn, client: stripe.StripeClient, typed: str) -> None:
    session = client.v1.checkout.sessions.create(order())

    page = browse(f"{stand_in.url}/checkout/{session.id}/pay", {"email": typed, "card_number": SUCCESS_CARD})

    assert 402 == page.status
    assert "Invalid email address" in page.text
    assert client.v1.checkout.sessions.retrieve(session.id).payment_intent is None


def test_known_email_is_prefilled_on_page(stand_in: PaymentStandIn, client: stripe.StripeClient) -> None:
    session = client.v1.checkout.sessions.create(order(customer_email="ada@example.com"))

    assert 'value="ada@example.com"' in browse(session.url or "").text
