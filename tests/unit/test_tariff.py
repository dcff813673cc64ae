"""What a session costs, to the minor unit."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from csms.model import Tariff
from csms.tariff import Bill, bill, ceiling, payable
from tests.builders import TARIFF


@pytest.mark.parametrize(
    ("energy_wh", "energy"),
    [(1, 0), (8, 0), (9, 1), (1000, 60), (2000, 119), (13_000, 774), (30_000, 1785)],
    ids=["0.06", "0.476", "0.5355", "59.5 is half up", "119.0", "773.5 is half up", "1785.0"],
)
def test_f70_energy_is_rounded_half_up_once(energy_wh: int, energy: int) -> None:
    assert Bill(energy=energy, session_fee=50) == bill(TARIFF, energy_wh)


def test_f70_half_of_an_even_number_goes_up_too() -> None:
    assert 3 == bill(replace(TARIFF, energy_price=Decimal("2.5")), 1000).energy
    assert 4 == bill(replace(TARIFF, energy_price=Decimal("3.5")), 1000).energy


@pytest.mark.parametrize(
    ("tariff", "total"),
    [
        (Tariff(currency="JPY", exponent=0, energy_price=Decimal("88.5"), session_fee=100), 985),
        (Tariff(currency="EUR", exponent=2, energy_price=Decimal("59"), session_fee=50), 640),
        (Tariff(currency="BHD", exponent=3, energy_price=Decimal("29.25"), session_fee=250), 543),
    ],
    ids=["JPY", "EUR", "BHD"],
)
def test_f70_an_amount_counts_minor_units_whatever_the_exponent(tariff: Tariff, total: int) -> None:
    assert total == bill(tariff, 10_000).total


@pytest.mark.parametrize("energy_wh", [0, -1])
def test_no_energy_costs_nothing_not_even_the_fee(energy_wh: int) -> None:
    assert 0 == bill(TARIFF, energy_wh).total


def test_the_ceiling_is_the_bill_at_the_most_energy() -> None:
    assert 1835 == ceiling(TARIFF)


@pytest.mark.parametrize(
    ("energy_wh", "authorised", "amount"),
    [
        (10_000, 1835, 645),
        (31_000, 1835, 1835),
        (10_000, 600, 600),
        (0, 1835, 0),
        (10_000, 0, 0),
    ],
    ids=["the bill", "capped", "capped by less", "nothing used", "nothing authorised"],
)
def test_f65_what_is_payable_is_the_bill_but_never_more_than_was_authorised(
    energy_wh: int, authorised: int, amount: int
) -> None:
    assert amount == payable(TARIFF, energy_wh, authorised=authorised)


@pytest.mark.parametrize(("minimum", "amount"), [(109, 110), (110, 110), (111, 0)])
def test_f66_exactly_the_minimum_is_payable_and_less_is_not(minimum: int, amount: int) -> None:
    assert amount == payable(replace(TARIFF, minimum_amount=minimum), 1000, authorised=1835)
