"""A checkout: opened once, paid or expired, and what the provider then says of the payment."""

from datetime import timedelta

import pytest

from csms.errors import PaymentRefused
from csms.payment_providers import PROVIDERS
from csms.ports.payments import PaymentStatus
from tests.contracts.payment_provider.desks import AUTHORIZED, CARD, DRIVER, PROVIDER_PARAMS, retry_once


def test_every_registered_provider_is_examined() -> None:
    assert set(PROVIDERS) <= {name.split()[0] for name in PROVIDER_PARAMS}


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
def test_payment_is_authorized_only_after_paying(desk):
    checkout = desk.open_checkout("r-61")
    assert PaymentStatus.OPEN is desk.provider.payment(checkout.checkout_id).status

    desk.decline(checkout)
    assert PaymentStatus.OPEN is desk.provider.payment(checkout.checkout_id).status

    desk.pay(checkout)
    paid = desk.provider.payment(checkout.checkout_id)
    assert (PaymentStatus.AUTHORIZED, AUTHORIZED, 0) == (paid.status, paid.authorised_amount, paid.captured_amount)
    assert paid.payment_id
    assert AUTHORIZED == desk.held_amount()


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
def test_authorization_carries_capture_deadline(desk):
    before = desk.provider.payment(desk.open_checkout("r-69a").checkout_id)

    paid = desk.authorize_payment("r-69b")

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

    assert (PaymentStatus.AUTHORIZED, AUTHORIZED) == (seen.status, seen.authorised_amount)
    assert seen == desk.provider.payment(checkout.checkout_id)


@pytest.mark.note("F64")
@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_retry_completes_unanswered_expiry(desk, acted):
    checkout = desk.open_checkout("r-64x")
    desk.fail_next("expire_checkout", acted)

    again = retry_once(lambda: desk.provider.expire_checkout(checkout.checkout_id, key="r-64x:expire"))

    assert PaymentStatus.EXPIRED is again.status
    assert PaymentStatus.EXPIRED is desk.provider.payment(checkout.checkout_id).status
