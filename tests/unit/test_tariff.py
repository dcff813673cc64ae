"""What a session costs, to the minor unit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from csms.model import Tariff
from csms.pricing import tariff as t
from csms.pricing.currency import EXPONENTS
from csms.pricing.tariff import (
    Bill,
    bill,
    capturable_amount,
    capturable_bill,
    energy_ceiling,
    find_problem,
    hold_amount,
    idle_fee_start,
    idle_seconds,
    included_vat,
)
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, TARIFF

IDLE: Final = replace(TARIFF, idle_price=Decimal("12.5"), idle_grace_minutes=20, idle_maximum=1000)
NIGHT: Final = replace(IDLE, idle_free_from="22:00", idle_free_until="06:00", time_zone="Europe/Berlin")
YEN: Final = Tariff(currency="JPY", exponent=0, energy_price=Decimal("88.5"), session_fee=100)
DINAR: Final = Tariff(currency="BHD", exponent=3, energy_price=Decimal("29.25"), session_fee=250, minimum_amount=200)


def local_time(text: str, zone: str = "Europe/Berlin", *, fold: int = 0) -> datetime:
    """The moment at which the clock in the zone shows this; of two, the second with `fold`."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


# The lines.


@pytest.mark.note("F70")
@pytest.mark.parametrize(
    ("energy_wh", "energy"),
    [(1, 0), (8, 0), (9, 1), (1000, 60), (2000, 119), (13_000, 774), (30_000, 1785)],
    ids=["0.06", "0.476", "0.5355", "59.5 is half up", "119.0", "773.5 is half up", "1785.0"],
)
def test_energy_cost_rounds_half_up_once(energy_wh: int, energy: int) -> None:
    assert Bill(energy=energy, session_fee=50) == bill(TARIFF, energy_wh)


@pytest.mark.note("F70")
def test_even_half_rounds_up_too() -> None:
    assert 3 == bill(replace(TARIFF, energy_price=Decimal("2.5")), 1000).energy
    assert 4 == bill(replace(TARIFF, energy_price=Decimal("3.5")), 1000).energy


@pytest.mark.note("F70")
def test_each_line_rounds_separately() -> None:
    made = bill(replace(IDLE, energy_price=Decimal("0.5"), idle_price=Decimal("0.5")), 1000, 21 * 60)

    assert Bill(energy=1, session_fee=50, idle=1) == made


@pytest.mark.note("F70")
@pytest.mark.parametrize(
    ("tariff", "total"),
    [(YEN, 985), (Tariff(currency="EUR", energy_price=Decimal("59"), session_fee=50), 640), (DINAR, 543)],
    ids=["JPY", "EUR", "BHD"],
)
def test_total_counts_minor_units_per_currency(tariff: Tariff, total: int) -> None:
    assert total == bill(tariff, 10_000).total


@pytest.mark.parametrize("energy_wh", [0, -1])
def test_zero_energy_costs_nothing(energy_wh: int) -> None:
    assert 0 == bill(IDLE, energy_wh, 24 * 3600).total


@pytest.mark.note("F70")
@pytest.mark.parametrize(
    ("percent", "amount", "vat"),
    [("19", 1190, 190), ("19", 645, 103), ("8.1", 985, 74), ("0", 1190, 0), ("100", 1, 1), ("20", 0, 0)],
    ids=["190.0", "102.98", "73.80", "no VAT", "half up", "nothing"],
)
def test_included_vat_rounds_half_up_once(percent: str, amount: int, vat: int) -> None:
    assert vat == included_vat(amount, Decimal(percent))


def test_bill_shows_vat_and_net() -> None:
    made = bill(replace(TARIFF, vat_percent=Decimal(19)), 10_000)

    assert (645, 103, 542) == (made.total, made.vat, made.net)


# Idle time.


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("seconds", "idle"),
    [(0, 0), (20 * 60, 0), (21 * 60 - 1, 0), (21 * 60, 13), (22 * 60, 25), (100 * 60, 1000), (101 * 60, 1000)],
    ids=["none", "the grace", "no whole minute", "12.5 is half up", "25.0", "1000.0", "the maximum"],
)
def test_idle_fee_has_grace_and_maximum(seconds: int, idle: int) -> None:
    assert idle == bill(IDLE, 1000, seconds).idle


@pytest.mark.note("F68")
def test_idle_is_free_without_price_or_maximum() -> None:
    for tariff in (TARIFF, replace(IDLE, idle_maximum=0), replace(IDLE, idle_price=Decimal(0))):
        assert not t.has_idle_fee(tariff)
        assert 0 == bill(tariff, 1000, 10**6).idle
        assert idle_fee_start(tariff, NOW, 0) is None
    assert t.has_idle_fee(IDLE)


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("since", "until", "chargeable"),
    [
        (local_time("2026-03-02T21:50"), local_time("2026-03-03T06:10"), 20 * MINUTE),
        (local_time("2026-03-02T22:00"), local_time("2026-03-03T06:00"), 0 * HOUR),
        (local_time("2026-03-02T21:59:59"), local_time("2026-03-03T06:00:01"), 2 * SECOND),
        (local_time("2026-03-02T23:00"), local_time("2026-03-03T01:00"), 0 * HOUR),
        (local_time("2026-03-02T08:00"), local_time("2026-03-05T08:00"), 48 * HOUR),
        (local_time("2026-03-02T08:00"), local_time("2026-03-02T08:00"), 0 * HOUR),
        (local_time("2026-03-02T09:00"), local_time("2026-03-02T08:00"), 0 * HOUR),
        (local_time("2026-03-28T21:00"), local_time("2026-03-29T07:00"), 2 * HOUR),
        (local_time("2026-10-24T21:00"), local_time("2026-10-25T07:00"), 2 * HOUR),
    ],
    ids=[
        "around a night", "exactly a night", "a second on each side", "in the night", "three days", "no time",
        "the wrong way round", "the night of 7 hours", "the night of 9 hours",
    ],
)  # fmt: skip
def test_free_window_spans_midnight_and_dst(since: datetime, until: datetime, chargeable: timedelta) -> None:
    assert chargeable == timedelta(seconds=idle_seconds(NIGHT, since, until))


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("zone", "day", "free"),
    [
        ("Europe/Berlin", "2026-03-28", HOUR),
        ("Europe/Berlin", "2026-03-29", HOUR / 2),
        ("Europe/Berlin", "2026-10-25", HOUR * 3 / 2),
        ("Asia/Kolkata", "2026-03-29", HOUR),
        ("Pacific/Apia", "2026-10-25", HOUR),
    ],
    ids=["any day", "02:00 is 03:00", "03:00 is 02:00", "half hours", "no clock is changed"],
)
def test_free_window_follows_local_wall_clock(zone: str, day: str, free: timedelta) -> None:
    tariff = replace(IDLE, idle_free_from="01:30", idle_free_until="02:30", time_zone=zone)
    since, until = local_time(f"{day}T00:00", zone), local_time(f"{day}T12:00", zone)

    assert until - since - free == timedelta(seconds=idle_seconds(tariff, since, until))


@pytest.mark.note("F68")
def test_midnight_clock_change_is_followed() -> None:
    tariff = replace(NIGHT, time_zone="America/Sao_Paulo")
    since, until = local_time("2018-11-03T21:00", tariff.time_zone), local_time("2018-11-04T07:00", tariff.time_zone)

    assert timedelta(hours=9) == until - since
    assert 2 * 3600 == idle_seconds(tariff, since, until)


@pytest.mark.note("F68")
def test_all_idle_counts_without_free_window() -> None:
    assert 24 * 3600 == idle_seconds(IDLE, NOW, NOW + 24 * HOUR)


@pytest.mark.note("F68")
@pytest.mark.parametrize(
    ("tariff", "since", "before", "begins"),
    [
        (IDLE, NOW, 0, NOW + 20 * MINUTE),
        (IDLE, NOW, 5 * 60, NOW + 15 * MINUTE),
        (IDLE, NOW, 20 * 60, NOW),
        (IDLE, NOW, 3600, NOW),
        (NIGHT, local_time("2026-03-02T21:50"), 0, local_time("2026-03-03T06:10")),
        (NIGHT, local_time("2026-03-02T21:40"), 0, local_time("2026-03-03T06:00")),
        (NIGHT, local_time("2026-03-02T21:30"), 0, local_time("2026-03-02T21:50")),
        (NIGHT, local_time("2026-03-02T23:00"), 3600, local_time("2026-03-03T06:00")),
        (NIGHT, local_time("2026-03-28T21:50"), 0, local_time("2026-03-29T06:10")),
        (NIGHT, local_time("2026-10-24T21:50"), 0, local_time("2026-10-25T06:10")),
        (replace(IDLE, idle_grace_minutes=7 * 24 * 60 + 1), NOW, 0, None),
        (replace(NIGHT, idle_free_from="06:00", idle_free_until="05:59"), local_time("2026-03-02T12:00"), 0, None),
    ],
    ids=[
        "after the grace", "after the rest of the grace", "at once", "at once, again", "L21: the grace waits",
        "at the end of the night", "before the night", "in the night of a later spell", "the night of 7 hours",
        "the night of 9 hours", "not within a week", "the grace lasts too long",
    ],
)  # fmt: skip
def test_idle_fee_begins_after_grace_and_window(
    tariff: Tariff, since: datetime, before: int, begins: datetime | None
) -> None:
    assert begins == idle_fee_start(tariff, since, before)


# What is authorized, and what it pays for.


@pytest.mark.note("F65")
def test_ceiling_is_the_largest_possible_bill() -> None:
    assert 1835 == hold_amount(TARIFF)
    assert 2835 == hold_amount(IDLE)
    assert 2000 == hold_amount(replace(IDLE, max_amount=2000))
    assert 2835 == hold_amount(replace(IDLE, max_amount=2836))


@pytest.mark.note("F65")
def test_free_tariff_authorizes_nothing() -> None:
    assert 0 == hold_amount(t.free_tariff(IDLE))
    assert 0 == hold_amount(t.station_tariff(b.station(tariff=IDLE, free=True)))
    assert IDLE.max_energy_wh == energy_ceiling(t.free_tariff(IDLE), None)


@pytest.mark.note("F68")
def test_station_time_zone_overrides_tariff_zone() -> None:
    asked = t.station_tariff(b.station(tariff=replace(NIGHT, time_zone="UTC"), time_zone="Asia/Kolkata"))

    assert replace(NIGHT, time_zone="Asia/Kolkata") == asked


@pytest.mark.note("F65")
@pytest.mark.parametrize(
    ("tariff", "authorized", "most"),
    [
        (TARIFF, 1835, 30_000),
        (TARIFF, 5000, 30_000),
        (TARIFF, 1834, 29_991),
        (TARIFF, 50, 8),
        (TARIFF, 49, 0),
        (IDLE, 2835, 30_000),
        (IDLE, 2000, 15_974),
        (replace(TARIFF, energy_price=Decimal(0)), 50, 30_000),
        (replace(TARIFF, energy_price=Decimal(0)), 49, 0),
        (TARIFF, None, 30_000),
        (replace(TARIFF, energy_price=Decimal(50)), 150, 2009),
    ],
    ids=[
        "all of it", "more than all of it", "one unit less", "only the fee", "not the fee", "idle time kept back",
        "less, idle time kept back", "energy is free", "energy is free, the fee is not", "nothing to pay",
        "2010 Wh would round up to one unit more",
    ],
)  # fmt: skip
def test_energy_ceiling_follows_authorized_amount(tariff: Tariff, authorized: int | None, most: int) -> None:
    assert most == energy_ceiling(tariff, authorized)


# What is captured.


@pytest.mark.note("F65")
@pytest.mark.parametrize(
    ("energy_wh", "authorized", "amount"),
    [
        (10_000, 1835, 645),
        (31_000, 1835, 1835),
        (10_000, 600, 600),
        (0, 1835, 0),
        (10_000, 0, 0),
    ],
    ids=["the bill", "capped", "capped by less", "nothing used", "nothing authorized"],
)
def test_payable_amount_is_capped_at_authorization(energy_wh: int, authorized: int, amount: int) -> None:
    assert amount == capturable_amount(TARIFF, energy_wh, authorized=authorized)


@pytest.mark.note("F65")
def test_uncovered_amount_is_a_separate_line() -> None:
    made = capturable_bill(IDLE, 10_000, 22 * 60, authorized=600)

    assert Bill(energy=595, session_fee=50, idle=25, cut=-70) == made
    assert 600 == made.total


@pytest.mark.note("F66")
@pytest.mark.parametrize(("minimum", "amount"), [(109, 110), (110, 110), (111, 0)])
def test_exact_minimum_amount_is_payable(minimum: int, amount: int) -> None:
    assert amount == capturable_amount(replace(TARIFF, minimum_amount=minimum), 1000, authorized=1835)


@pytest.mark.note("F66")
@pytest.mark.parametrize(("energy_wh", "amount"), [(999, 0), (1000, 110), (1001, 110)])
def test_exact_minimum_energy_is_payable(energy_wh: int, amount: int) -> None:
    assert amount == capturable_amount(replace(TARIFF, minimum_energy_wh=1000), energy_wh, authorized=1835)


@pytest.mark.note("F66", "F70")
@pytest.mark.parametrize(("tariff", "minimum"), [(YEN, 985), (DINAR, 543)], ids=["JPY", "BHD"])
def test_minimum_is_exact_in_each_currency(tariff: Tariff, minimum: int) -> None:
    assert minimum == capturable_amount(replace(tariff, minimum_amount=minimum), 10_000, authorized=10_000)
    assert 0 == capturable_amount(replace(tariff, minimum_amount=minimum + 1), 10_000, authorized=10_000)


@pytest.mark.note("F66")
def test_unpayable_bill_has_no_lines() -> None:
    assert Bill() == capturable_bill(replace(TARIFF, minimum_energy_wh=1000), 999, authorized=1835)
    assert Bill() == capturable_bill(replace(TARIFF, minimum_amount=111), 1000, authorized=1835)
    assert Bill() == capturable_bill(replace(TARIFF, minimum_amount=0), 1000, authorized=0)


# What a tariff may be.


@pytest.mark.parametrize(
    "tariff",
    [
        TARIFF, IDLE, NIGHT, YEN, DINAR, t.free_tariff(NIGHT),
        replace(TARIFF, vat_percent=Decimal("99.9"), minimum_energy_wh=30_000, minimum_amount=1835),
        replace(IDLE, max_amount=1060, minimum_energy_wh=100),
        replace(NIGHT, idle_free_from="23:59", idle_free_until="00:00"),
    ],
)  # fmt: skip
def test_valid_tariff_has_no_problem(tariff: Tariff) -> None:
    assert find_problem(tariff) is None


@pytest.mark.parametrize(
    ("tariff", "changes", "word"),
    [
        (TARIFF, {"energy_price": Decimal(-1)}, "numbers from 0"),
        (TARIFF, {"idle_price": Decimal("NaN")}, "numbers from 0"),
        (TARIFF, {"energy_price": Decimal("Infinity")}, "numbers from 0"),
        (TARIFF, {"vat_percent": Decimal(-1)}, "numbers from 0"),
        (TARIFF, {"minimum_energy_wh": -1}, "numbers from 0"),
        (TARIFF, {"max_amount": -1}, "numbers from 0"),
        (TARIFF, {"currency": "EURO"}, 'not "EURO"'),
        (TARIFF, {"currency": "XAU"}, 'not "XAU"'),
        (TARIFF, {"currency": "ISK", "exponent": 0}, 'not "ISK"'),
        (TARIFF, {"currency": "JPY"}, "exponent must be 0 for JPY"),
        (TARIFF, {"currency": "BHD"}, "exponent must be 3 for BHD"),
        (TARIFF, {"exponent": 0}, "exponent must be 2 for EUR"),
        (TARIFF, {"vat_percent": Decimal(100)}, "vatPercent must be below 100"),
        (IDLE, {"idle_maximum": 0}, "idleMaximum must be"),
        (IDLE, {"idle_free_from": "22:00"}, "given together"),
        (IDLE, {"idle_free_until": "22:00"}, "given together"),
        (NIGHT, {"idle_free_until": "24:00"}, "must be times such as"),
        (NIGHT, {"idle_free_until": "6:00"}, "must be times such as"),
        (NIGHT, {"idle_free_until": "06:60"}, "must be times such as"),
        (NIGHT, {"idle_free_from": "22:00\n"}, "must be times such as"),
        (NIGHT, {"idle_free_from": "0٦:0٠"}, "must be times such as"),
        (NIGHT, {"idle_free_until": "22:00"}, "different times"),
        (TARIFF, {"max_energy_wh": 0}, "maxEnergyWh must be"),
        (TARIFF, {"minimum_energy_wh": 30_001}, "maxEnergyWh must be"),
        (IDLE, {"max_amount": 1049}, "maxAmount must pay"),
        (IDLE, {"max_amount": 1055, "minimum_energy_wh": 100}, "maxAmount must pay"),
        (TARIFF, {"minimum_amount": 1836}, "minimumAmount must be"),
        (TARIFF, {"max_amount": 100, "minimum_amount": 101}, "minimumAmount must be"),
    ],
)  # fmt: skip
def test_invalid_tariff_names_its_problem(tariff: Tariff, changes: dict[str, Any], word: str) -> None:
    said = find_problem(replace(tariff, **changes))

    assert said is not None
    assert word in said


@pytest.mark.note("F70")
def test_currency_has_its_own_exponent() -> None:
    assert (0, 2, 3) == (EXPONENTS["JPY"], EXPONENTS["EUR"], EXPONENTS["BHD"])
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in EXPONENTS)
    assert {"ISK", "MGA", "UGX", "XAU", "XXX"}.isdisjoint(EXPONENTS)
