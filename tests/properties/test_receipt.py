"""The receipt adds up for any tariff, energy, idle time and result of the payment."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.model import Money, Tariff
from csms.pricing import receipt, tariff
from csms.pricing.currency import EXPONENTS
from csms.pricing.receipt import Issuer
from tests import builders as b
from tests.builders import get_reservation


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    currency = draw(st.sampled_from(["EUR", "JPY", "BHD"]))
    return Tariff(
        currency=currency,
        exponent=EXPONENTS[currency],
        energy_price=draw(st.decimals(0, 500, places=2)),
        session_fee=draw(st.integers(0, 1000)),
        idle_price=draw(st.decimals(0, 50, places=1)),
        idle_grace_minutes=draw(st.integers(0, 60)),
        idle_maximum=draw(st.integers(0, 3000)),
        vat_percent=draw(st.decimals(0, 99, places=1)),
        minimum_energy_wh=draw(st.integers(0, 500)),
        minimum_amount=draw(st.integers(0, 100)),
    )


@pytest.mark.note("F65")
@given(
    of=tariffs(),
    energy_wh=st.integers(0, 80_000),
    idle_seconds=st.integers(0, 100_000),
    authorized=st.integers(1, 20_000),
    data=st.data(),
)
def test_receipt_lines_sum_to_paid_amount(
    of: Tariff, energy_wh: int, idle_seconds: int, authorized: int, data: st.DataObject
) -> None:
    amount = tariff.capturable_amount(of, energy_wh, idle_seconds, authorized=authorized)
    captured = data.draw(st.sampled_from([amount, authorized, data.draw(st.integers(1, authorized))]))
    money = data.draw(st.sampled_from([Money.CAPTURED, Money.REFUNDING, Money.NEEDS_REVIEW]))
    refunded = data.draw(st.integers(0, max(0, captured - amount)))
    held = replace(
        get_reservation(b.completed_snapshot()),
        tariff=of,
        energy_wh=energy_wh,
        idle_seconds=idle_seconds,
        authorised_amount=authorized,
        money=money,
        amount=amount,
        captured_amount=captured,
        refunded_amount=refunded,
    )

    it = receipt.build_receipt(held, Issuer())
    fields = receipt.to_json(it)

    assert captured - refunded == it.total + it.to_refund
    assert sum(line["amount"] for line in fields["lines"]) == fields["total"] >= 0
    if captured == amount:
        assert amount == it.total
        assert "Adjustment" not in {line["kind"] for line in fields["lines"]}
    if of.vat_percent:
        assert fields["total"] == fields["vat"]["net"] + fields["vat"]["amount"]
        assert abs(Decimal(fields["vat"]["net"]) * of.vat_percent / 100 - fields["vat"]["amount"]) <= 1
    assert receipt.to_mail(it, public_url="").text.count("\n\n") >= 2
