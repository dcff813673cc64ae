"""What a session costs. Money is an integer of minor units, and each line is rounded once, half up (note F70). The
amounts that are shown, authorized and captured each come from one function."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Final
from zoneinfo import ZoneInfo

from csms.model import Station, Tariff
from csms.pricing.currency import EXPONENTS

WH_PER_KWH: Final = 1000
MINUTE: Final = 60
DAY: Final = 24 * 60 * MINUTE
IDLE_HORIZON: Final = timedelta(days=7)
"""How far `idle_fee_start` looks ahead; no authorization lasts longer."""
_TIME_OF_DAY: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a session costs, line by line, in minor units with VAT; `cut`, zero or negative, is what the lines exceed
    the authorization by."""

    energy: int = 0
    session_fee: int = 0
    idle: int = 0
    cut: int = 0
    vat_percent: Decimal = Decimal(0)

    @property
    def total(self) -> int:
        """The sum of the lines."""
        return self.energy + self.session_fee + self.idle + self.cut

    @property
    def vat(self) -> int:
        """The VAT in the total, rounded once."""
        return included_vat(self.total, self.vat_percent)

    @property
    def net(self) -> int:
        """The total without its VAT."""
        return self.total - self.vat


def bill(tariff: Tariff, energy_wh: int, idle_seconds: int = 0) -> Bill:
    """The bill for this energy in Wh and this chargeable idle time in seconds, over all its spells; empty without
    energy.

    Idle time counts in whole minutes. The grace is subtracted once, from chargeable time: with 20 minutes of grace and
    a free window from 22:00 to 06:00, a car that is full at 21:50 is charged from 06:10 on.
    """
    if energy_wh <= 0:
        return Bill(vat_percent=tariff.vat_percent)
    idle_minutes = max(0, idle_seconds // MINUTE - tariff.idle_grace_minutes)
    return Bill(
        energy=_round_half_up(Fraction(tariff.energy_price) * energy_wh / WH_PER_KWH),
        session_fee=tariff.session_fee,
        idle=min(_round_half_up(Fraction(tariff.idle_price) * idle_minutes), tariff.idle_maximum),
        vat_percent=tariff.vat_percent,
    )


def limit_bill(asked: Bill, authorized: int) -> Bill:
    """The bill limited to the authorization, in minor units (note F65)."""
    return replace(asked, cut=min(0, authorized - asked.total))


def capturable_bill(tariff: Tariff, energy_wh: int, idle_seconds: int = 0, *, authorized: int) -> Bill:
    """The bill that may be captured: limited to the authorization (note F65), and empty below the minimum energy or the
    provider's minimum amount; exactly the minimum is captured (note F66)."""
    nothing = Bill(vat_percent=tariff.vat_percent)
    if energy_wh < tariff.minimum_energy_wh:
        return nothing
    capturable = limit_bill(bill(tariff, energy_wh, idle_seconds), authorized)
    return capturable if capturable.total >= max(1, tariff.minimum_amount) else nothing


def capturable_amount(tariff: Tariff, energy_wh: int, idle_seconds: int = 0, *, authorized: int) -> int:
    """The total of the capturable bill, in minor units."""
    return capturable_bill(tariff, energy_wh, idle_seconds, authorized=authorized).total


def included_vat(amount: int, percent: Decimal) -> int:
    """The VAT that an amount in minor units includes."""
    rate = Fraction(percent)
    return _round_half_up(amount * rate / (100 + rate))


def free_tariff(tariff: Tariff) -> Tariff:
    """The tariff with prices of zero."""
    return replace(tariff, energy_price=Decimal(0), session_fee=0, idle_price=Decimal(0))


def station_tariff(station: Station) -> Tariff:
    """The tariff of new sessions at a station, in its time zone; free if the station is free."""
    asked = replace(station.tariff, time_zone=station.time_zone)
    return free_tariff(asked) if station.free else asked


# The amount to authorize, and the energy that it pays for.


def hold_amount(tariff: Tariff) -> int:
    """The amount in minor units to authorize before a session: the bill at the most energy and idle time that the
    tariff allows."""
    most = bill(tariff, tariff.max_energy_wh).total + _idle_ceiling(tariff)
    return most if tariff.max_amount is None else min(most, tariff.max_amount)


def energy_ceiling(tariff: Tariff, authorized: int | None) -> int:
    """The most energy in Wh that may be delivered: what the tariff allows, and what the authorization pays for beside
    the highest idle fee. Without an authorization there is nothing to pay, and only the tariff limits it."""
    if authorized is None:
        return tariff.max_energy_wh
    room = authorized - tariff.session_fee - _idle_ceiling(tariff)
    if room < 0:
        return 0
    if tariff.energy_price <= 0:
        return tariff.max_energy_wh
    # The energy line is at most the room as long as its unrounded amount is less than half a unit above it.
    too_much = (room + Fraction(1, 2)) * WH_PER_KWH / Fraction(tariff.energy_price)
    return min(tariff.max_energy_wh, ceil(too_much) - 1)


def _idle_ceiling(tariff: Tariff) -> int:
    return tariff.idle_maximum if has_idle_fee(tariff) else 0


# Idle time (note F68).


def has_idle_fee(tariff: Tariff) -> bool:
    """Whether idle time costs anything."""
    return tariff.idle_price > 0 and tariff.idle_maximum > 0


def idle_seconds(tariff: Tariff, since: datetime, until: datetime) -> int:
    """The chargeable seconds between two times: those outside the free window on the wall clock of the site. The grace
    is not subtracted.

    Where the clock is set back, an hour that occurs twice is free or not both times. Both ends are rounded down to a
    whole second, so that a time costs the same however it is split.
    """
    first, last = floor(since.timestamp()), floor(until.timestamp())
    if last <= first:
        return 0
    if tariff.idle_free_from is None or tariff.idle_free_until is None:
        return last - first
    opens, closes = _second_of_day(tariff.idle_free_from), _second_of_day(tariff.idle_free_until)
    length = (closes - opens) % DAY
    free = 0
    for start, end in _wall_clock_stretches(ZoneInfo(tariff.time_zone), first, last):
        free += _count_free_seconds(end - opens, length) - _count_free_seconds(start - opens, length)
    return last - first - free


def idle_fee_start(tariff: Tariff, since: datetime, seconds_before: int) -> datetime | None:
    """When the fee begins in a spell that runs since `since`, after this many chargeable seconds of earlier spells: the
    last time at which the spell adds nothing to the bill. None if that is not within a week."""
    if not has_idle_fee(tariff):
        return None
    grace_left = max(0, tariff.idle_grace_minutes * MINUTE - seconds_before)
    start = since.astimezone(UTC)

    def count_charged_seconds(seconds: int) -> int:
        return idle_seconds(tariff, start, start + timedelta(seconds=seconds))

    ahead = range(int(IDLE_HORIZON.total_seconds()) + 1)
    first = bisect_right(ahead, grace_left, key=count_charged_seconds)
    return start + timedelta(seconds=first - 1) if first < len(ahead) else None


def _wall_clock_stretches(zone: ZoneInfo, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The time from first to last on the wall clock of the site, in seconds: stretches of at most a day without a
    change of the clock."""
    while first < last:
        offset, end = _offset(zone, first), min(first + DAY, last)
        if _offset(zone, end) != offset:
            end = _find_clock_change(zone, first, end)
        yield first + offset, end + offset
        first = end


def _find_clock_change(zone: ZoneInfo, first: int, last: int) -> int:
    """The second at which the clock changes; no time zone changes its clock twice a day."""
    before = _offset(zone, first)
    return first + bisect_left(range(first, last), True, key=lambda at: _offset(zone, at) != before)


def _offset(zone: ZoneInfo, at: int) -> int:
    ahead = datetime.fromtimestamp(at, zone).utcoffset()
    return int(ahead.total_seconds()) if ahead is not None else 0


def _count_free_seconds(seconds: int, length: int) -> int:
    """The free seconds in this time, if it begins with the free window, which opens again every day."""
    days, rest = divmod(seconds, DAY)
    return days * length + min(rest, length)


def _second_of_day(time: str) -> int:
    hours, minutes = time.split(":")
    return (int(hours) * 60 + int(minutes)) * MINUTE


# Which tariffs are valid.


def find_problem(of: Tariff) -> str | None:
    """Why the tariff is not valid, in one sentence; None if it is."""
    return next(_problems(of), None)


def _problems(of: Tariff) -> Iterator[str]:
    numbers = (of.energy_price, of.session_fee, of.idle_price, of.idle_grace_minutes, of.idle_maximum, of.vat_percent)
    limits = (of.minimum_energy_wh, of.minimum_amount, of.max_amount or 0)
    if not all(Decimal(number).is_finite() and number >= 0 for number in (*numbers, *limits)):
        yield "Prices, fees, limits and vatPercent of a tariff must be numbers from 0."
        return
    yield from _money_problems(of)
    yield from _window_problems(of)
    yield from _limit_problems(of)


def _money_problems(of: Tariff) -> Iterator[str]:
    exponent = EXPONENTS.get(of.currency)
    if exponent is None:
        yield f'currency must be one that can be charged, for example "EUR", not "{of.currency}".'
    elif of.exponent != exponent:
        yield f"exponent must be {exponent} for {of.currency}, or left out."
    if of.vat_percent >= 100:
        yield "vatPercent must be below 100."
    if of.idle_price > 0 and of.idle_maximum == 0:
        yield "idleMaximum must be above 0 if idlePricePerMinute is."


def _window_problems(of: Tariff) -> Iterator[str]:
    ends = [end for end in (of.idle_free_from, of.idle_free_until) if end is not None]
    if len(ends) == 1:
        yield "idleFreeFrom and idleFreeUntil must be given together."
    if not all(_TIME_OF_DAY.fullmatch(end) for end in ends):
        yield 'idleFreeFrom and idleFreeUntil must be times such as "22:00" and "06:00".'
    if len(ends) == 2 and ends[0] == ends[1]:
        yield "idleFreeFrom and idleFreeUntil must be different times."


def _limit_problems(of: Tariff) -> Iterator[str]:
    if of.max_energy_wh < max(1, of.minimum_energy_wh):
        yield "maxEnergyWh must be at least 1, and at least minimumEnergyWh."
    if of.max_amount is not None and energy_ceiling(of, of.max_amount) < max(1, of.minimum_energy_wh):
        yield "maxAmount must pay for sessionFee, idleMaximum and at least minimumEnergyWh."
    if 0 < hold_amount(of) < of.minimum_amount:
        yield "minimumAmount must be at most what a session can cost."


def _round_half_up(amount: Fraction) -> int:
    return floor(amount + Fraction(1, 2))
