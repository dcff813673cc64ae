"""Money is captured, released or refunded once however often it is asked; what is still authorized is listed."""

from datetime import timedelta

import pytest

from csms.errors import PaymentRefused
from csms.ports.payments import PaymentStatus
from tests.contracts.payment_provider.desks import AUTHORIZED, retry_once

# Capture and release


@pytest.mark.note("F67")
@pytest.mark.parametrize("second_key", ["r-c:capture", "r-c:other"])
def test_repeated_capture_takes_money_once(desk, second_key):
    paid = desk.authorize_payment("r-c")

    first = desk.provider.capture(paid.payment_id, 824, key="r-c:capture")
    second = desk.provider.capture(paid.payment_id, 824, key=second_key)

    assert (PaymentStatus.CAPTURED, 824) == (first.status, first.captured_amount)
    assert first == second
    assert ([824], 0) == (desk.captured_amounts(), desk.held_amount())


@pytest.mark.note("F67")
@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_retry_completes_unanswered_capture(desk, acted):
    paid = desk.authorize_payment("r-67")
    desk.fail_next("capture", acted)

    again = retry_once(lambda: desk.provider.capture(paid.payment_id, 824, key="r-67:capture"))

    assert (PaymentStatus.CAPTURED, 824) == (again.status, again.captured_amount)
    assert ([824], 0) == (desk.captured_amounts(), desk.held_amount())


@pytest.mark.note("F65")
def test_capture_above_authorized_amount_is_refused(desk):
    paid = desk.authorize_payment("r-65")

    with pytest.raises(PaymentRefused):
        desk.provider.capture(paid.payment_id, AUTHORIZED + 1, key="r-65:capture")
    assert ([], AUTHORIZED) == (desk.captured_amounts(), desk.held_amount())

    everything = desk.provider.capture(paid.payment_id, AUTHORIZED, key="r-65:again")
    assert AUTHORIZED == everything.captured_amount


@pytest.mark.note("F63")
@pytest.mark.parametrize("second_key", ["r-r:release", "r-r:other"])
def test_repeated_release_is_harmless(desk, second_key):
    paid = desk.authorize_payment("r-r")

    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key="r-r:release").status
    assert PaymentStatus.RELEASED is desk.provider.release(paid.payment_id, key=second_key).status
    assert ([], 0) == (desk.captured_amounts(), desk.held_amount())


@pytest.mark.note("F63")
@pytest.mark.parametrize("acted", [True, False], ids=["after it acted", "before it acted"])
def test_retry_completes_unanswered_release(desk, acted):
    paid = desk.authorize_payment("r-63")
    desk.fail_next("release", acted)

    again = retry_once(lambda: desk.provider.release(paid.payment_id, key="r-63:release"))

    assert PaymentStatus.RELEASED is again.status
    assert 0 == desk.held_amount()


def test_released_payment_cannot_be_captured(desk):
    paid = desk.authorize_payment("r-rc")
    desk.provider.release(paid.payment_id, key="r-rc:release")

    with pytest.raises(PaymentRefused):
        desk.provider.capture(paid.payment_id, 824, key="r-rc:capture")

    assert ([], 0) == (desk.captured_amounts(), desk.held_amount())


def test_captured_payment_cannot_be_released(desk):
    paid = desk.authorize_payment("r-cr")
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
    held, released = desk.authorize_payment("r-fh"), desk.authorize_payment("r-fr")
    desk.provider.release(released.payment_id, key="r-fr:release")

    for paid in (held, released):
        with pytest.raises(PaymentRefused):
            desk.provider.refund(paid.payment_id, 100, key=f"{paid.reservation_id}:refund")

    assert (AUTHORIZED, 0) == (desk.held_amount(), desk.refunded_amount())


# What is authorized


@pytest.mark.note("F63")
def test_only_unsettled_authorizations_are_listed(desk):
    desk.open_checkout("r-open")
    desk.capture_payment("r-captured")
    released, held, other = (desk.authorize_payment(name) for name in ("r-released", "r-held", "r-other"))
    desk.provider.release(released.payment_id, key="r-released:release")

    found = list(desk.provider.authorizations(desk.clock() - timedelta(hours=1)))

    assert [other, held] == found
    assert ["r-other", "r-held"] == [payment.reservation_id for payment in found]


def test_authorizations_before_cutoff_are_not_listed(desk):
    desk.authorize_payment("r-before")
    desk.clock.move(timedelta(hours=2))
    since = desk.clock()
    at_once = desk.authorize_payment("r-at-once")
    desk.clock.move(timedelta(hours=2))
    later = desk.authorize_payment("r-later")

    assert [later, at_once] == list(desk.provider.authorizations(since))
