"""Laws of the bill, for any tariff and any energy."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from csms.model import Tariff
from csms.tariff import bill, ceiling, payable

TARIFFS = st.builds(
    Tariff,
    currency=st.sampled_from(["EUR", "JPY", "BHD"]),
    exponent=st.sampled_from([0, 2, 3]),
    energy_price=st.decimals(0, 100_000, allow_nan=False, places=3),
    session_fee=st.integers(0, 100_000),
    max_energy_wh=st.integers(1, 1_000_000),
    minimum_amount=st.integers(1, 1000),
)
ENERGIES = st.integers(-(2**64), 2**64)


@given(tariff=TARIFFS, one=ENERGIES, other=ENERGIES)
def test_more_energy_never_costs_less(tariff: Tariff, one: int, other: int) -> None:
    less, more = sorted((one, other))

    assert bill(tariff, less).total <= bill(tariff, more).total


@given(tariff=TARIFFS, share=st.floats(0, 1))
def test_f65_a_session_within_the_energy_that_was_authorised_costs_at_most_what_was(
    tariff: Tariff, share: float
) -> None:
    assert bill(tariff, int(share * tariff.max_energy_wh)).total <= ceiling(tariff)


@given(tariff=TARIFFS, energy_wh=ENERGIES)
def test_f70_the_total_is_the_sum_of_its_lines_and_each_is_rounded_by_at_most_a_half(
    tariff: Tariff, energy_wh: int
) -> None:
    made = bill(tariff, energy_wh)

    exact = tariff.energy_price * max(energy_wh, 0) / 1000
    assert made.energy + made.session_fee == made.total
    assert (tariff.session_fee if energy_wh > 0 else 0) == made.session_fee
    assert -Decimal("0.5") < made.energy - exact <= Decimal("0.5")


@given(tariff=TARIFFS, energy_wh=ENERGIES, authorised=st.integers(0, 10**7))
def test_f65_f66_what_is_payable_is_nothing_or_between_the_minimum_and_what_was_authorised(
    tariff: Tariff, energy_wh: int, authorised: int
) -> None:
    amount = payable(tariff, energy_wh, authorised=authorised)

    assert amount == 0 or tariff.minimum_amount <= amount <= authorised
    assert amount <= bill(tariff, energy_wh).total
