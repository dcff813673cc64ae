"""The receipt of a session: what was delivered, what it cost line by line, with VAT, and what was captured for it.

Values in, values out: as JSON for the page, as text for the mail. It says nothing that is not the driver's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from csms import tariff
from csms.model import Reservation, zulu

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who issues the receipt (settings)."""

    name: str = ""
    address: str = ""
    vat_number: str = ""
    contact: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A session that was paid; amounts in minor units, VAT included in each line."""

    issuer: Issuer
    session: Reservation
    bill: tariff.Bill

    @property
    def number(self) -> str:
        """The receipt's number, which follows from the session and never changes."""
        ended = self.session.ended_at or self.session.created_at
        return f"{ended:%Y%m%d}-{self.session.reservation_id[:10].upper()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail as it is sent."""

    subject: str
    text: str


def of(session: Reservation, issuer: Issuer) -> Receipt:
    """The receipt of a session."""
    bill = tariff.bill(session.tariff, session.energy_wh, session.idle_seconds)
    return Receipt(issuer=issuer, session=session, bill=bill)


def shown(it: Receipt) -> Json:
    """The receipt for the page."""
    session = it.session
    return {
        "number": it.number,
        "reservationId": session.reservation_id,
        "chargePointId": session.identity,
        "connectorId": session.connector_id,
        "startedAt": zulu(session.started_at) if session.started_at else None,
        "energyWh": session.energy_wh,
        "capturedAmount": session.captured_amount,
    }


def mail(it: Receipt, *, public_url: str) -> Mail:
    """The receipt as a mail."""
    page = f"{public_url}/receipt/{it.session.reservation_id}"
    return Mail(subject=f"Receipt {it.number}", text=f"Receipt {it.number}\n\n{page}\n")
