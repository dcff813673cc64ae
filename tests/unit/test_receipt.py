"""The receipt as JSON and as a mail, and which sessions have one."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from csms.charging import settlement
from csms.errors import NotFound
from csms.model import Money, OutboxKind, Reservation, ReservationState, Tariff
from csms.ports.payments import Payment, PaymentStatus
from csms.pricing import receipt
from csms.pricing.receipt import Issuer
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SNAPSHOT_BY_STATE, decision_context, get_reservation

ISSUER = Issuer(
    name="Example Charging", address="1 Example Street\n12345 Town", vat_number="XX 1", contact="help@example.com"
)
URL = "https://example.org"


def captured_reservation(
    tariff: Tariff = b.TARIFF, *, energy_wh: int = 10_000, idle_seconds: int = 0, **changes: Any
) -> Reservation:
    """A session that took this much and was captured; changes are made before it is."""
    before = b.charging_snapshot(NOW)
    held = replace(
        get_reservation(before),
        reservation_id="0123456789abcdef0123456789abcdef",
        tariff=tariff,
        idle_seconds=idle_seconds,
        card_brand="visa",
        card_last4="4242",
        **changes,
    )
    ended = settlement.settle(
        replace(before, reservation=held),
        settlement.Event.STOPPED,
        decision_context(NOW + HOUR),
        energy_wh=energy_wh,
        until=NOW + HOUR,
    )
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=get_reservation(ended).capture_amount or 0)
    return get_reservation(settlement.record_capture(ended, word, decision_context(NOW + HOUR + MINUTE)))


def receipt_fields(held: Reservation) -> dict[str, Any]:
    return receipt.to_json(receipt.build_receipt(held, ISSUER))


def receipt_text(held: Reservation) -> str:
    return receipt.to_mail(receipt.build_receipt(held, ISSUER), public_url=URL).text


def receipt_amounts(held: Reservation) -> dict[str, int]:
    return {line["kind"]: line["amount"] for line in receipt_fields(held)["lines"]}


def test_receipt_json_holds_every_field() -> None:
    tariff = replace(b.IDLING, vat_percent=Decimal("19.0"), time_zone="Europe/Berlin")

    told = receipt_fields(captured_reservation(tariff, idle_seconds=30 * 60))

    assert {
        "number": "20260301-0123456789",
        "reservationId": "0123456789abcdef0123456789abcdef",
        "issuedAt": "2026-03-01T13:01:00.000Z",
        "operator": {
            "name": "Example Charging",
            "address": "1 Example Street\n12345 Town",
            "vatNumber": "XX 1",
            "contact": "help@example.com",
        },
        "chargePointId": "CP-1",
        "connectorId": 1,
        "startedAt": "2026-03-01T12:00:00.000Z",
        "stoppedAt": "2026-03-01T13:00:00.000Z",
        "endedAt": "2026-03-01T13:00:00.000Z",
        "timeZone": "Europe/Berlin",
        "currency": "EUR",
        "exponent": 2,
        "energyWh": 10_000,
        "lines": [
            {"kind": "Energy", "amount": 595, "energyWh": 10_000, "pricePerKwh": "59.5"},
            {"kind": "SessionFee", "amount": 50},
            {
                "kind": "IdleFee",
                "amount": 200,
                "idleSeconds": 1800,
                "graceMinutes": 10,
                "pricePerMinute": "10",
                "maximum": 600,
            },
        ],
        "total": 845,
        "vat": {"percent": "19.0", "amount": 135, "net": 710},
        "authorizedAmount": 1835,
        "capturedAmount": 845,
        "card": {"brand": "visa", "last4": "4242"},
    } == told
    assert told == json.loads(json.dumps(told))


def test_mail_shows_receipt_in_station_time() -> None:
    tariff = replace(b.IDLING, vat_percent=Decimal("19.0"), time_zone="Europe/Berlin")

    mail = receipt.to_mail(
        receipt.build_receipt(captured_reservation(tariff, idle_seconds=30 * 60), ISSUER), public_url=URL
    )

    assert "Receipt 20260301-0123456789" == mail.subject
    assert (
        """\
Receipt 20260301-0123456789
Example Charging
1 Example Street
12345 Town
VAT number XX 1
help@example.com

Station CP-1, connector 1
Started 1 March 2026, 13:00 CET
Charging ended 1 March 2026, 14:00 CET
Paid 1 March 2026, 14:01 CET
Times are those of Europe/Berlin.

Energy, 10 kWh at EUR 0.595 per kWh: EUR 5.95
Session fee: EUR 0.50
Idle fee, 30 min, the first 10 min free, EUR 0.10 per min: EUR 2.00
Total: EUR 8.45
of which 19 % VAT: EUR 1.35
net: EUR 7.10
Charged to your card (Visa ending in 4242): EUR 8.45

To print it: https://example.org/receipt/0123456789abcdef0123456789abcdef
"""
        == mail.text
    )


@pytest.mark.note("F70")
def test_zero_decimal_currency_shows_whole_units() -> None:
    yen = replace(
        b.TARIFF, currency="JPY", exponent=0, energy_price=Decimal("95.5"), session_fee=200, vat_percent=Decimal(10)
    )
    held = captured_reservation(yen, energy_wh=12_345, authorised_amount=5000)

    assert "Energy, 12.345 kWh at JPY 95.5 per kWh: JPY 1,179\n" in receipt_text(held)
    assert "Total: JPY 1,379\nof which 10 % VAT: JPY 125\nnet: JPY 1,254\n" in receipt_text(held)


def test_receipt_without_vat_omits_vat() -> None:
    assert "vat" not in receipt_fields(captured_reservation())
    assert "VAT" not in receipt_text(captured_reservation()).replace("VAT number", "")


def test_unset_issuer_leaves_no_empty_lines() -> None:
    bare = receipt.build_receipt(captured_reservation(), Issuer())

    assert {} == receipt.to_json(bare)["operator"]
    assert receipt.to_mail(bare, public_url=URL).text.startswith("Receipt 20260301-0123456789\n\nStation CP-1")


@pytest.mark.note("F65")
def test_amount_above_hold_is_limit_line() -> None:
    held = captured_reservation(energy_wh=29_000, authorised_amount=1700)

    assert {"Energy": 1726, "SessionFee": 50, "Limit": -76} == receipt_amounts(held)
    assert "Not charged, beyond the EUR 17.00 held: EUR -0.76\nTotal: EUR 17.00\n" in receipt_text(held)


@pytest.mark.note("F68")
def test_capped_idle_fee_shows_its_maximum() -> None:
    held = captured_reservation(b.IDLING, idle_seconds=5 * 3600, authorised_amount=b.IDLE_AUTHORIZED)

    assert "at most EUR 6.00: EUR 6.00" in receipt_text(held)


def corrected_session(energy_wh: int) -> Any:
    """A captured session whose station told later that it took less."""
    ended = replace(b.charging_snapshot(), reservation=captured_reservation())
    return settlement.correct_bill(ended, energy_wh, decision_context())


@pytest.mark.note("F55")
def test_lowered_bill_shows_pending_then_paid_refund() -> None:
    owing = corrected_session(4_000)
    back = Payment(status=PaymentStatus.CAPTURED, captured_amount=645, refunded_amount=357)
    refunded = settlement.record_refund(owing, back, decision_context())

    before, after = receipt_fields(get_reservation(owing)), receipt_fields(get_reservation(refunded))

    assert (288, 645, None, 357) == tuple(
        before.get(name) for name in ("total", "capturedAmount", "refundedAmount", "amountToRefund")
    )
    assert (288, 645, 357, None) == tuple(
        after.get(name) for name in ("total", "capturedAmount", "refundedAmount", "amountToRefund")
    )
    assert before["number"] == after["number"]
    assert {"Energy": 238, "SessionFee": 50} == receipt_amounts(get_reservation(refunded))


@pytest.mark.note("F55")
def test_second_mail_corrects_the_first() -> None:
    mail = receipt.to_mail(receipt.build_receipt(get_reservation(corrected_session(4_000)), ISSUER), public_url=URL)

    assert "Receipt 20260301-0123456789 (corrected)" == mail.subject
    assert "On its way back to your card: EUR -3.57\n" in mail.text


def test_receipt_corrected_to_zero_has_no_lines() -> None:
    held = get_reservation(corrected_session(0))

    assert (0, [], 645, 645) == tuple(
        receipt_fields(held).get(name) for name in ("total", "lines", "capturedAmount", "amountToRefund")
    )


def test_operator_settlement_shows_as_adjustment() -> None:
    held = replace(captured_reservation(), captured_amount=600)

    assert {"Energy": 595, "SessionFee": 50, "Adjustment": -45} == receipt_amounts(held)
    assert "Adjusted by the operator: EUR -0.45\nTotal: EUR 6.00\n" in receipt_text(held)


@pytest.mark.parametrize("state", ReservationState)
def test_uncaptured_session_has_no_receipt(state: ReservationState) -> None:
    over = state in {ReservationState.CANCELLED, ReservationState.FAILED}

    with pytest.raises(NotFound) as refused:
        receipt.build_receipt(get_reservation(SNAPSHOT_BY_STATE[state]()), ISSUER)

    assert ("NothingCharged" if over else "NoReceiptYet") == refused.value.code


@pytest.mark.note("F66")
@pytest.mark.parametrize("money", [Money.RELEASING, Money.RELEASED])
def test_session_below_minimum_has_no_receipt(money: Money) -> None:
    held = replace(get_reservation(b.completed_snapshot(meter_stop=1000)), money=money)

    with pytest.raises(NotFound) as refused:
        receipt.build_receipt(held, ISSUER)

    assert "NothingCharged" == refused.value.code


def test_full_refund_by_operator_has_no_receipt() -> None:
    with pytest.raises(NotFound) as refused:
        receipt.build_receipt(replace(captured_reservation(), money=Money.RELEASED), ISSUER)

    assert "NothingCharged" == refused.value.code


@pytest.mark.note("F37")
def test_free_session_has_no_receipt() -> None:
    free = replace(get_reservation(b.completed_snapshot()), money=Money.NONE, amount=0)

    with pytest.raises(NotFound) as refused:
        receipt.build_receipt(free, ISSUER)

    assert "NothingCharged" == refused.value.code


@pytest.mark.note("F71")
def test_receipt_leaks_no_tag_or_provider_id() -> None:
    told = json.dumps(receipt_fields(captured_reservation())) + receipt_text(captured_reservation())

    assert [] == [secret for secret in ("WTAG", "CARD", "pi_secret", "cs_secret") if secret in told]
    assert {"brand", "last4"} == set(receipt_fields(captured_reservation())["card"])


def test_mail_without_address_is_noted_unsent() -> None:
    owing = b.apply_decision(
        b.completed_snapshot(),
        settlement.record_capture(
            b.completed_snapshot(),
            Payment(status=PaymentStatus.CAPTURED, captured_amount=645),
            decision_context(email_receipts=True),
        ),
    )

    after = settlement.record_receipt(owing, decision_context(), sent=False)

    assert OutboxKind.EMAIL_RECEIPT in {outbox_item.kind for outbox_item in owing.outbox_items}
    assert (["ReceiptNotSent"], ()) == (b.audit_events(after), after.outbox_items)
