"""What a session costs. Money is an integer of minor units; each line is rounded once, half up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from csms.model import Station, Tariff

WH_PER_KWH: Final = Decimal(1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a session costs, line by line, in minor units."""

    energy: int
    session_fee: int

    @property
    def total(self) -> int:
        """The sum of the lines."""
        return self.energy + self.session_fee


def bill(tariff: Tariff, energy_wh: int) -> Bill:
    """The bill for this much energy; no energy, no bill."""
    if energy_wh <= 0:
        return Bill(energy=0, session_fee=0)
    energy = (tariff.energy_price * energy_wh / WH_PER_KWH).quantize(Decimal(1), rounding=ROUND_HALF_UP)
    return Bill(energy=int(energy), session_fee=tariff.session_fee)


def free_of_charge(tariff: Tariff) -> Tariff:
    """The tariff of a session that costs nothing."""
    return replace(tariff, energy_price=Decimal(0), session_fee=0)


def asked_at(station: Station) -> Tariff:
    """The tariff that everybody is asked at a station, which is none where charging is free."""
    return free_of_charge(station.tariff) if station.free else station.tariff


def ceiling(tariff: Tariff) -> int:
    """What is authorised before a session: the bill at the most energy the tariff allows."""
    return bill(tariff, tariff.max_energy_wh).total


def payable(tariff: Tariff, energy_wh: int, *, authorised: int) -> int:
    """What may be captured: never above the authorisation, and nothing at all below the provider's minimum; exactly the
    minimum is captured."""
    total = min(bill(tariff, energy_wh).total, authorised)
    return total if total >= tariff.minimum_amount else 0
