"""Properties of the bill for any tariff, energy and idle time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from csms.model import Tariff
from csms.pricing.currency import EXPONENTS
from csms.pricing.tariff import (
    bill,
    capturable_amount,
    capturable_bill,
    energy_ceiling,
    find_problem,
    has_idle_fee,
    hold_amount,
    idle_fee_start,
    idle_seconds,
    included_vat,
)

ZONES = ["Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe", "UTC"]
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin, forward
    datetime(2026, 10, 25, 1, tzinfo=UTC),  # Berlin, back
    datetime(2018, 11, 4, 3, tzinfo=UTC),  # Sao Paulo, forward at midnight
    datetime(2019, 2, 17, 2, tzinfo=UTC),  # Sao Paulo, back at midnight
    datetime(2011, 12, 30, 10, tzinfo=UTC),  # Apia, which left a day out
    datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe, back by half an hour
]
MINUTE = timedelta(minutes=1)
HALF = Fraction(1, 2)

TIMES_OF_DAY = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
WINDOWS = st.one_of(st.just((None, None)), st.tuples(TIMES_OF_DAY, TIMES_OF_DAY).filter(lambda it: it[0] != it[1]))
TARIFFS = st.builds(
    lambda window, money, **rest: Tariff(
        currency=money, exponent=EXPONENTS[money], idle_free_from=window[0], idle_free_until=window[1], **rest
    ),
    window=WINDOWS,
    money=st.sampled_from(["EUR", "JPY", "BHD"]),
    energy_price=st.decimals(0, 100_000, allow_nan=False, places=3),
    session_fee=st.integers(0, 100_000),
    idle_price=st.one_of(st.just(Decimal(0)), st.decimals(0, 1000, allow_nan=False, places=3)),
    idle_grace_minutes=st.integers(0, 120),
    idle_maximum=st.integers(0, 10_000),
    time_zone=st.sampled_from(ZONES),
    vat_percent=st.decimals(0, Decimal("99.9"), allow_nan=False, places=1),
    max_energy_wh=st.integers(1, 1_000_000),
    max_amount=st.one_of(st.none(), st.integers(1, 200_000)),
    minimum_energy_wh=st.integers(0, 2000),
    minimum_amount=st.integers(0, 1000),
)
ENERGIES = st.integers(-(2**64), 2**64)
IDLE_TIMES = st.integers(0, 10**6)
AMOUNTS = st.integers(0, 10**7)
INSTANTS = st.one_of(
    st.builds(lambda change, minutes: change + minutes * MINUTE, st.sampled_from(CHANGES), st.integers(-1500, 1500)),
    st.builds(lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + minutes * MINUTE, st.integers(0, 365 * 24 * 60)),
)
SPANS = st.timedeltas(timedelta(0), timedelta(days=3))


# The bill.


@given(tariff=TARIFFS, one=ENERGIES, other=ENERGIES, idle=IDLE_TIMES)
def test_more_energy_never_costs_less(tariff: Tariff, one: int, other: int, idle: int) -> None:
    less, more = sorted((one, other))

    assert bill(tariff, less, idle).total <= bill(tariff, more, idle).total


@pytest.mark.note("F68")
@given(tariff=TARIFFS, energy_wh=ENERGIES, one=IDLE_TIMES, other=IDLE_TIMES)
def test_idle_fee_is_monotonic_and_capped(tariff: Tariff, energy_wh: int, one: int, other: int) -> None:
    less, more = sorted((one, other))

    assert 0 <= bill(tariff, energy_wh, less).idle <= bill(tariff, energy_wh, more).idle <= tariff.idle_maximum


@pytest.mark.note("F70")
@given(tariff=TARIFFS, energy_wh=ENERGIES, idle=IDLE_TIMES)
def test_total_sums_lines_rounded_once(tariff: Tariff, energy_wh: int, idle: int) -> None:
    made = bill(tariff, energy_wh, idle)

    energy = Fraction(tariff.energy_price) * max(energy_wh, 0) / 1000
    minutes = max(0, idle // 60 - tariff.idle_grace_minutes) if energy_wh > 0 else 0
    assert made.energy + made.session_fee + made.idle == made.total
    assert (tariff.session_fee if energy_wh > 0 else 0) == made.session_fee
    assert -HALF < made.energy - energy <= HALF
    assert made.idle == tariff.idle_maximum or -HALF < made.idle - Fraction(tariff.idle_price) * minutes <= HALF


@pytest.mark.note("F70")
@given(amount=AMOUNTS, percent=st.decimals(0, Decimal("99.99"), allow_nan=False, places=2))
def test_vat_matches_rate_rounded_once(amount: int, percent: Decimal) -> None:
    vat = included_vat(amount, percent)

    exact = Fraction(amount) - Fraction(amount) / (1 + Fraction(percent) / 100)
    assert 0 <= vat <= amount
    assert -HALF < vat - exact <= HALF


# What is authorized, and what it pays for.


@pytest.mark.note("F65")
@given(tariff=TARIFFS, share=st.floats(0, 1), idle=IDLE_TIMES)
def test_session_within_maximum_energy_fits_authorization(tariff: Tariff, share: float, idle: int) -> None:
    assume(tariff.max_amount is None)

    assert bill(tariff, int(share * tariff.max_energy_wh), idle).total <= hold_amount(tariff)


@pytest.mark.note("F65")
@given(tariff=TARIFFS, authorized=AMOUNTS, idle=IDLE_TIMES)
@example(tariff=Tariff(currency="EUR", energy_price=Decimal("59.5")), authorized=60, idle=0)
def test_energy_ceiling_is_exactly_affordable(tariff: Tariff, authorized: int, idle: int) -> None:
    most = energy_ceiling(tariff, authorized)

    idle_maximum = tariff.idle_maximum if has_idle_fee(tariff) else 0
    assert 0 <= most <= tariff.max_energy_wh
    assert bill(tariff, most, idle).total <= authorized
    assert most == tariff.max_energy_wh or bill(tariff, most + 1).total + idle_maximum > authorized


@pytest.mark.note("F65")
@given(tariff=TARIFFS, one=AMOUNTS, other=AMOUNTS)
def test_more_authorized_never_means_less_energy(tariff: Tariff, one: int, other: int) -> None:
    less, more = sorted((one, other))

    assert energy_ceiling(tariff, less) <= energy_ceiling(tariff, more) <= energy_ceiling(tariff, None)


@pytest.mark.note("F65")
@given(tariff=TARIFFS)
def test_authorized_amount_covers_all_energy_unless_limited(tariff: Tariff) -> None:
    limited = tariff.max_amount is not None and hold_amount(tariff) == tariff.max_amount

    assert limited or energy_ceiling(tariff, hold_amount(tariff)) == tariff.max_energy_wh


# What is captured.


@pytest.mark.note("F65", "F66")
@given(tariff=TARIFFS, energy_wh=ENERGIES, idle=IDLE_TIMES, authorized=AMOUNTS)
def test_payable_is_zero_or_within_limits(tariff: Tariff, energy_wh: int, idle: int, authorized: int) -> None:
    amount = capturable_amount(tariff, energy_wh, idle, authorized=authorized)

    assert amount == 0 or tariff.minimum_amount <= amount <= authorized
    assert amount == 0 or energy_wh >= tariff.minimum_energy_wh
    assert amount <= bill(tariff, energy_wh, idle).total


@pytest.mark.note("F65")
@given(tariff=TARIFFS, energy_wh=st.integers(0, 10**6), idle=IDLE_TIMES, authorized=AMOUNTS)
def test_receipt_lines_sum_to_captured_amount(tariff: Tariff, energy_wh: int, idle: int, authorized: int) -> None:
    made = capturable_bill(tariff, energy_wh, idle, authorized=authorized)

    assert capturable_amount(tariff, energy_wh, idle, authorized=authorized) == made.total
    assert made.energy + made.session_fee + made.idle + made.cut == made.total == made.net + made.vat
    assert made.cut == min(0, authorized - bill(tariff, energy_wh, idle).total) or made.total == 0
    assert made.total > 0 or (0, 0, 0, 0) == (made.energy, made.session_fee, made.idle, made.cut)


# Idle time.


def is_shown_free(tariff: Tariff, at: datetime) -> bool:
    """Whether the clock on the wall shows a free time: told by its hands alone."""
    opens, closes = tariff.idle_free_from, tariff.idle_free_until
    if opens is None or closes is None:
        return False
    hands = f"{at.astimezone(ZoneInfo(tariff.time_zone)):%H:%M}"
    return opens <= hands < closes if opens < closes else hands >= opens or hands < closes


@pytest.mark.note("F68")
@given(tariff=TARIFFS, since=INSTANTS, minutes=st.integers(0, 3 * 24 * 60))
def test_idle_time_follows_wall_clock_window(tariff: Tariff, since: datetime, minutes: int) -> None:
    counted = sum(not is_shown_free(tariff, since + minute * MINUTE) for minute in range(minutes))

    assert 60 * counted == idle_seconds(tariff, since, since + minutes * MINUTE)


@pytest.mark.note("F68")
@given(tariff=TARIFFS, since=INSTANTS, before=SPANS, after=SPANS)
def test_split_idle_time_adds_up(tariff: Tariff, since: datetime, before: timedelta, after: timedelta) -> None:
    split, until = since + before, since + before + after

    whole = idle_seconds(tariff, since, until)
    assert whole == idle_seconds(tariff, since, split) + idle_seconds(tariff, split, until)
    assert 0 <= whole <= (until - since).total_seconds() + 1
    assert 0 == idle_seconds(tariff, until, since) or until == since


@pytest.mark.note("F68")
@given(tariff=TARIFFS, since=INSTANTS, offset=SPANS, earlier=st.integers(0, 2 * 120 * 60))
def test_idle_fee_begins_exactly_after_grace(tariff: Tariff, since: datetime, offset: timedelta, earlier: int) -> None:
    since += offset
    begins = idle_fee_start(tariff, since, earlier)

    def idle(until: datetime) -> int:
        return bill(tariff, 1, earlier + idle_seconds(tariff, since, until)).idle

    if begins is None:
        assert not has_idle_fee(tariff) or idle(since + timedelta(days=7)) == bill(tariff, 1, earlier).idle
        return
    counted = max(tariff.idle_grace_minutes * 60, earlier)
    assert since <= begins
    assert bill(tariff, 1, earlier).idle == idle(begins)
    assert counted == earlier + idle_seconds(tariff, since, begins)
    assert counted + 1 == earlier + idle_seconds(tariff, since, begins + timedelta(seconds=1))


@pytest.mark.note("F68")
@given(tariff=TARIFFS, since=INSTANTS, share=st.floats(0, 1))
def test_first_idle_minute_costs_its_price(tariff: Tariff, since: datetime, share: float) -> None:
    earlier = int(share * tariff.idle_grace_minutes * 60)
    begins = idle_fee_start(tariff, since, earlier)
    a_minute_later = idle_fee_start(replace(tariff, idle_grace_minutes=tariff.idle_grace_minutes + 1), since, earlier)
    assume(begins is not None and a_minute_later is not None)

    price = int(tariff.idle_price.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    assert 60 == idle_seconds(tariff, begins, a_minute_later)
    assert 0 == bill(tariff, 1, earlier + idle_seconds(tariff, since, begins)).idle
    assert (
        min(price, tariff.idle_maximum) == bill(tariff, 1, earlier + idle_seconds(tariff, since, a_minute_later)).idle
    )


# What a tariff may be.


@pytest.mark.note("F66")
@given(tariff=TARIFFS)
def test_valid_tariff_allows_a_payable_session(tariff: Tariff) -> None:
    assume(find_problem(tariff) is None)
    authorized = hold_amount(tariff)
    most = energy_ceiling(tariff, authorized or None)

    assert most >= max(1, tariff.minimum_energy_wh)
    assert authorized == 0 or capturable_amount(tariff, most, 10**9, authorized=authorized) > 0
