"""What a session costs. Money is an integer of minor units; each line is rounded once, half up (note F70). One function
each makes what is shown, what is authorised and what is captured."""

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
"""How far ahead `idle_begins` looks; no authorisation lives longer."""
_TIME_OF_DAY: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a session costs, line by line, in minor units, VAT included in each; `cut`, never above zero, is what it
    would have cost beyond what was authorised."""

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
    """The bill for this much energy and, over all its spells, this much chargeable idle time; no energy, no bill.

    Idle time counts in whole minutes. The grace is taken off once, and from chargeable time: after 20 minutes of grace
    a car that is full at 21:50, before a free window from 22:00 to 06:00, is charged from 06:10 on.
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


def limit_bill(asked: Bill, authorised: int) -> Bill:
    """The bill cut to the authorisation (note F65)."""
    return replace(asked, cut=min(0, authorised - asked.total))


def capturable_bill(tariff: Tariff, energy_wh: int, idle_seconds: int = 0, *, authorised: int) -> Bill:
    """The bill as it may be captured: cut to the authorisation (note F65), and nothing at all below the minimum energy
    or the provider's minimum amount; exactly the minimum is captured (note F66)."""
    nothing = Bill(vat_percent=tariff.vat_percent)
    if energy_wh < tariff.minimum_energy_wh:
        return nothing
    capturable = limit_bill(bill(tariff, energy_wh, idle_seconds), authorised)
    return capturable if capturable.total >= max(1, tariff.minimum_amount) else nothing


def capturable_amount(tariff: Tariff, energy_wh: int, idle_seconds: int = 0, *, authorised: int) -> int:
    """What may be captured: the total of the settled bill."""
    return capturable_bill(tariff, energy_wh, idle_seconds, authorised=authorised).total


def included_vat(amount: int, percent: Decimal) -> int:
    """The VAT that an amount includes."""
    rate = Fraction(percent)
    return _round_half_up(amount * rate / (100 + rate))


def free_tariff(tariff: Tariff) -> Tariff:
    """The tariff of a session that costs nothing."""
    return replace(tariff, energy_price=Decimal(0), session_fee=0, idle_price=Decimal(0))


def station_tariff(station: Station) -> Tariff:
    """The tariff that everybody is asked at a station, in its time zone; none where charging is free."""
    asked = replace(station.tariff, time_zone=station.time_zone)
    return free_tariff(asked) if station.free else asked


# What is authorised, and what it pays for.


def hold_amount(tariff: Tariff) -> int:
    """What is authorised before a session: the bill at the most energy and idle time that the tariff allows."""
    most = bill(tariff, tariff.max_energy_wh).total + _idle_ceiling(tariff)
    return most if tariff.max_amount is None else min(most, tariff.max_amount)


def energy_ceiling(tariff: Tariff, authorised: int | None) -> int:
    """The most energy in Wh that may be delivered: what the tariff allows, and what the authorisation pays for when the
    car then idles as long as it costs more. Without authorisation there is nothing to pay."""
    if authorised is None:
        return tariff.max_energy_wh
    room = authorised - tariff.session_fee - _idle_ceiling(tariff)
    if room < 0:
        return 0
    if tariff.energy_price <= 0:
        return tariff.max_energy_wh
    # The energy line is at most the room while, before it is rounded, it is less than half a unit above.
    too_much = (room + Fraction(1, 2)) * WH_PER_KWH / Fraction(tariff.energy_price)
    return min(tariff.max_energy_wh, ceil(too_much) - 1)


def _idle_ceiling(tariff: Tariff) -> int:
    return tariff.idle_maximum if has_idle_fee(tariff) else 0


# Idle time (note F68).


def has_idle_fee(tariff: Tariff) -> bool:
    """Whether idle time costs anything."""
    return tariff.idle_price > 0 and tariff.idle_maximum > 0


def idle_seconds(tariff: Tariff, since: datetime, until: datetime) -> int:
    """The seconds of this time at which the wall clock of the site is outside the free window; grace is not taken off.

    Where the clock is set back, an hour that shows twice is free or not both times. Both ends count from their whole
    second, so that a time costs the same however it is split.
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
    """When the fee starts to run in a spell that runs since then, after so many chargeable seconds of earlier spells;
    None if it does not within a week. It is the last moment at which the bill has nothing of this spell."""
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
    """The time from first to last as the site's wall clock shows it, in seconds: stretches of a day at most, in none of
    which the clock is changed."""
    while first < last:
        offset, end = _offset(zone, first), min(first + DAY, last)
        if _offset(zone, end) != offset:
            end = _find_clock_change(zone, first, end)
        yield first + offset, end + offset
        first = end


def _find_clock_change(zone: ZoneInfo, first: int, last: int) -> int:
    """The second at which the clock is changed; nowhere on Earth does that happen twice a day."""
    before = _offset(zone, first)
    return first + bisect_left(range(first, last), True, key=lambda at: _offset(zone, at) != before)


def _offset(zone: ZoneInfo, at: int) -> int:
    ahead = datetime.fromtimestamp(at, zone).utcoffset()
    return int(ahead.total_seconds()) if ahead is not None else 0


def _count_free_seconds(seconds: int, length: int) -> int:
    """How much of this time is free, when the free window opens at its start and every day after."""
    days, rest = divmod(seconds, DAY)
    return days * length + min(rest, length)


def _second_of_day(time: str) -> int:
    hours, minutes = time.split(":")
    return (int(hours) * 60 + int(minutes)) * MINUTE


# What a tariff may be.


def find_problem(of: Tariff) -> str | None:
    """Why there can be no such tariff, in one sentence; None if there can."""
    return next(_problems(of), None)


def _problems(of: Tariff) -> Iterator[str]:
    numbers = (of.energy_price, of.session_fee, of.idle_price, of.idle_grace_minutes, of.idle_maximum, of.vat_percent)
    limits = (of.minimum_energy_wh, of.minimum_amount, of.max_amount or 0)
    if not all(Decimal(number).is_finite() and number >= 0 for number in (*numbers, *limits)):
        yield "Prices, fees, limits and the VAT of a tariff are numbers from 0 on."
        return
    yield from _money_problems(of)
    yield from _window_problems(of)
    yield from _limit_problems(of)


def _money_problems(of: Tariff) -> Iterator[str]:
    exponent = EXPONENTS.get(of.currency)
    if exponent is None:
        yield f"Nothing can be charged in the currency {of.currency}."
    elif of.exponent != exponent:
        yield f"The exponent of {of.currency} is {exponent}."
    if of.vat_percent >= 100:
        yield "The VAT is below 100 per cent."
    if of.idle_price > 0 and of.idle_maximum == 0:
        yield "A price of idle time needs a maximum."


def _window_problems(of: Tariff) -> Iterator[str]:
    ends = [end for end in (of.idle_free_from, of.idle_free_until) if end is not None]
    if len(ends) == 1:
        yield "The time in which idling is free has a beginning and an end."
    if not all(_TIME_OF_DAY.fullmatch(end) for end in ends):
        yield 'The time in which idling is free is told as "22:00" and "06:00".'
    if len(ends) == 2 and ends[0] == ends[1]:
        yield "The time in which idling is free ends at another time of day than it begins."


def _limit_problems(of: Tariff) -> Iterator[str]:
    if of.max_energy_wh < max(1, of.minimum_energy_wh):
        yield "The maximum energy is not below the minimum energy, and not zero."
    if of.max_amount is not None and energy_ceiling(of, of.max_amount) < max(1, of.minimum_energy_wh):
        yield "The maximum amount pays for the session fee, the maximum of the idle time, and the minimum energy."
    if 0 < hold_amount(of) < of.minimum_amount:
        yield "The most that a session can cost is not below the minimum amount."


def _round_half_up(amount: Fraction) -> int:
    return floor(amount + Fraction(1, 2))
