"""Payments of other kinds and of others in the same account: none stops a list or is taken for ours."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms.adapters.stripe import StripePayments
from csms.ports.payments import Payment, PaymentStatus
from stand_ins.stripe import Account, InProcess
from stand_ins.stripe.records import OTHER_METHODS
from tests.contracts.stripe_adapter.adapter_desk import API_KEY, CARD, SECRET, Desk


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
    ours = desk.authorize_payment("r-ours")
    desk.account.receive(method)
    desk.account.receive(method, metadata={"order": "17"})
    later = desk.authorize_payment("r-later")

    found = list(desk.provider.authorizations(desk.clock() - timedelta(days=1)))

    assert [later, ours] == found


@pytest.mark.parametrize("method", ["link", "card_present"])
@pytest.mark.parametrize("metadata", [{}, {"order": "17"}])
def test_foreign_hold_is_not_listed(desk, method, metadata):
    desk.account.receive(method, metadata=metadata, manual=True)

    assert [] == list(desk.provider.authorizations(desk.clock() - timedelta(days=1)))


@pytest.mark.parametrize("ours", [True, False], ids=["ours and captured", "held and not ours"])
def test_skipped_payment_is_not_read(desk, ours):
    def spoil(intent: dict[str, Any]) -> None:
        """All that is left of the payment is what it is skipped by."""
        if intent["id"] == skipped:
            for name in intent.keys() - {"id", "object", "status", "metadata"}:
                del intent[name]

    held = desk.authorize_payment("r-held")
    skipped = desk.capture_payment("r-done") if ours else desk.account.receive("card_present", manual=True)

    assert [held] == list(spoilt_provider(desk, spoil).authorizations(desk.clock() - timedelta(days=1)))


def test_link_payment_is_captured_and_refunded(desk):
    checkout = desk.open_checkout("r-link")
    desk.account.pay_otherwise(checkout.checkout_id, "link")

    paid = desk.provider.payment(checkout.checkout_id)

    expected = Payment(
        status=PaymentStatus.AUTHORIZED,
        payment_id=paid.payment_id,
        reservation_id="r-link",
        authorised_amount=1820,
    )
    assert expected == paid
    assert [expected] == list(desk.provider.authorizations(desk.clock() - timedelta(days=1)))
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
    assert [payment] == list(provider.authorizations(desk.clock() - timedelta(days=1)))


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

    assert [(PaymentStatus.AUTHORIZED, None), (PaymentStatus.OPEN, None)] == [
        (payment.status, payment.reservation_id) for payment in seen
    ]
    assert [] == list(provider.authorizations(desk.clock() - timedelta(days=1)))
