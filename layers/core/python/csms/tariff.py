"""What a session costs. Money is an integer of minor units; each line is rounded once, half up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from csms.model import Station, Tariff

WH_PER_KWH: Final = Decimal(1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a session costs, line by line, in minor units, VAT included in each."""

    energy: int = 0
    session_fee: int = 0
    idle: int = 0

    @property
    def total(self) -> int:
        """The sum of the lines."""
        return self.energy + self.session_fee + self.idle


def bill(tariff: Tariff, energy_wh: int, idle_seconds: int = 0) -> Bill:
    """The bill for this much energy and this much chargeable idle time; no energy, no bill."""
    if energy_wh <= 0:
        return Bill()
    idle_minutes = max(0, idle_seconds // 60 - tariff.idle_grace_minutes)
    return Bill(
        energy=_rounded(tariff.energy_price * energy_wh / WH_PER_KWH),
        session_fee=tariff.session_fee,
        idle=min(_rounded(tariff.idle_price * idle_minutes), tariff.idle_maximum),
    )


def bills_idle(tariff: Tariff) -> bool:
    """Whether idle time costs anything."""
    return tariff.idle_price > 0 and tariff.idle_maximum > 0


def idle_seconds(tariff: Tariff, since: datetime, until: datetime) -> int:
    """The seconds of this time that count as idle, in the site's own time zone (note F68); grace is not taken off."""
    return max(0, int((until - since).total_seconds()))


def free_of_charge(tariff: Tariff) -> Tariff:
    """The tariff of a session that costs nothing."""
    return replace(tariff, energy_price=Decimal(0), session_fee=0, idle_price=Decimal(0))


def asked_at(station: Station) -> Tariff:
    """The tariff that everybody is asked at a station, in its time zone; none where charging is free."""
    asked = replace(station.tariff, time_zone=station.time_zone)
    return free_of_charge(asked) if station.free else asked


def ceiling(tariff: Tariff) -> int:
    """What is authorised before a session: the bill at the most energy and idle time that the tariff allows."""
    most = bill(tariff, tariff.max_energy_wh).total + (tariff.idle_maximum if bills_idle(tariff) else 0)
    return most if tariff.max_amount is None else min(most, tariff.max_amount)


def energy_ceiling(tariff: Tariff, authorised: int | None) -> int:
    """The most energy in Wh that may be delivered: what the tariff allows and what was authorised pays for."""
    return tariff.max_energy_wh


def payable(tariff: Tariff, energy_wh: int, idle_seconds: int = 0, *, authorised: int) -> int:
    """What may be captured: never above the authorisation, and nothing at all below the minimum energy or the
    provider's minimum amount; exactly the minimum is captured."""
    if energy_wh < tariff.minimum_energy_wh:
        return 0
    total = min(bill(tariff, energy_wh, idle_seconds).total, authorised)
    return total if total >= tariff.minimum_amount else 0


def _rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))
