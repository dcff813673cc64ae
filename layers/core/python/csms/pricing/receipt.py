"""The receipt of a session: the energy, the cost line by line, the VAT in it, and what the card paid.

It is pure code, with the receipt as JSON for the page and as text for the mail. It has only the driver's own data, and
of the card only brand and last four digits (note F71).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from csms.errors import NotFound
from csms.model import Money, Reservation, ReservationState, Tariff, format_time
from csms.pricing import tariff

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who issues the receipt (settings)."""

    name: str = ""
    address: str = ""
    vat_number: str = ""
    contact: str = ""


class LineKind(StrEnum):
    """What a line is for; LIMIT and ADJUSTMENT may be negative."""

    ENERGY = "Energy"
    SESSION_FEE = "SessionFee"
    IDLE_FEE = "IdleFee"
    LIMIT = "Limit"
    ADJUSTMENT = "Adjustment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line; the amount is in minor units and includes VAT."""

    kind: LineKind
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The receipt of a paid session; amounts in minor units. The lines add up to the total, which is what stays paid:
    the captured amount less what was and what still will be refunded."""

    issuer: Issuer
    session: Reservation
    lines: tuple[Line, ...]
    captured: int
    refunded: int
    to_refund: int

    @property
    def number(self) -> str:
        """The receipt's number, derived from the session so that it never changes."""
        ended = self.session.ended_at or self.session.created_at
        return f"{ended:%Y%m%d}-{self.session.reservation_id[:10].upper()}"

    @property
    def total(self) -> int:
        """The sum of the lines."""
        return sum(line.amount for line in self.lines)

    @property
    def vat(self) -> int:
        """The VAT in the total, rounded once."""
        return tariff.included_vat(self.total, self.session.tariff.vat_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail to send."""

    subject: str
    text: str


def missing_reason(session: Reservation) -> NotFound | None:
    """Why a session has no receipt; None if it has one."""
    if session.captured_amount is not None and session.money is not Money.RELEASED:
        return None
    ended = session.ended_at is not None and session.state is not ReservationState.PENDING_PAYMENT
    if ended and session.money in {Money.NONE, Money.RELEASING, Money.RELEASED}:
        return NotFound("Nothing was charged for this session.", code="NothingCharged")
    return NotFound("There is no receipt yet: the session is not paid.", code="NoReceiptYet")


def bill(session: Reservation) -> tariff.Bill:
    """The bill of a session that is over, as settled or corrected."""
    authorized = session.authorised_amount or 0
    return tariff.capturable_bill(session.tariff, session.energy_wh, session.idle_seconds, authorized=authorized)


def build_receipt(session: Reservation, issuer: Issuer) -> Receipt:
    """The receipt of a session; NotFound with the reason as its code if it has none."""
    none = missing_reason(session)
    if none is not None:
        raise none
    captured = session.captured_amount or 0
    charged = captured - session.refunded_amount
    # While the refund after a correction is owed, the total is the lowered bill; otherwise it is what was paid.
    total = charged if session.money is Money.CAPTURED else min(charged, session.amount or 0)
    return Receipt(
        issuer=issuer,
        session=session,
        lines=tuple(_lines(bill(session), total)),
        captured=captured,
        refunded=session.refunded_amount,
        to_refund=charged - total,
    )


def _lines(settled: tariff.Bill, total: int) -> Iterator[Line]:
    """The bill's lines that are not zero, and the adjustment that makes them add up to the total."""
    amounts = {
        LineKind.ENERGY: settled.energy,
        LineKind.SESSION_FEE: settled.session_fee,
        LineKind.IDLE_FEE: settled.idle,
        LineKind.LIMIT: settled.cut,
        LineKind.ADJUSTMENT: total - settled.total,
    }
    return (Line(kind=kind, amount=amount) for kind, amount in amounts.items() if amount)


# As JSON


def to_json(receipt: Receipt) -> Json:
    """The receipt for the page, which shows times in the time zone named in it."""
    session, price, issuer = receipt.session, receipt.session.tariff, receipt.issuer
    operator = {
        "name": issuer.name,
        "address": issuer.address,
        "vatNumber": issuer.vat_number,
        "contact": issuer.contact,
    }
    facts = {
        "number": receipt.number,
        "reservationId": session.reservation_id,
        "issuedAt": _format_optional_time(session.captured_at),
        "operator": {name: value for name, value in operator.items() if value},
        "chargePointId": session.identity,
        "connectorId": session.connector_id,
        "startedAt": _format_optional_time(session.started_at),
        "stoppedAt": _format_optional_time(session.stopped_at),
        "endedAt": _format_optional_time(session.ended_at),
        "timeZone": price.time_zone,
        "currency": price.currency,
        "exponent": price.exponent,
        "energyWh": session.energy_wh,
        "lines": [{"kind": line.kind, "amount": line.amount} | _line_details(line, session) for line in receipt.lines],
        "total": receipt.total,
        "vat": _vat(receipt),
        "authorizedAmount": session.authorised_amount,
        "capturedAmount": receipt.captured,
        "refundedAmount": receipt.refunded or None,
        "amountToRefund": receipt.to_refund or None,
        "card": _card(session),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _line_details(line: Line, session: Reservation) -> Json:
    """What the line's amount is computed from; rates are decimal strings because they may have a fraction."""
    price = session.tariff
    match line.kind:
        case LineKind.ENERGY:
            return {"energyWh": session.energy_wh, "pricePerKwh": f"{price.energy_price:f}"}
        case LineKind.IDLE_FEE:
            return {
                "idleSeconds": session.idle_seconds,
                "graceMinutes": price.idle_grace_minutes,
                "pricePerMinute": f"{price.idle_price:f}",
                "maximum": price.idle_maximum,
            }
        case _:
            return {}


def _vat(receipt: Receipt) -> Json | None:
    percent = receipt.session.tariff.vat_percent
    return {"percent": f"{percent:f}", "amount": receipt.vat, "net": receipt.total - receipt.vat} if percent else None


def _card(session: Reservation) -> Json | None:
    card = {"brand": session.card_brand, "last4": session.card_last4}
    return {name: value for name, value in card.items() if value is not None} or None


def _format_optional_time(at: datetime | None) -> str | None:
    return None if at is None else format_time(at)


# As a mail


def to_mail(receipt: Receipt, *, public_url: str) -> Mail:
    """The receipt as a mail."""
    corrected = " (corrected)" if receipt.refunded or receipt.to_refund else ""
    link = f"To print it: {public_url}/receipt/{receipt.session.reservation_id}"
    parts = (_format_header(receipt), _format_session(receipt), _format_account(receipt), link)
    text = "\n\n".join("\n".join(part) if not isinstance(part, str) else part for part in parts)
    return Mail(subject=f"Receipt {receipt.number}{corrected}", text=f"{text}\n")


def _format_header(receipt: Receipt) -> tuple[str, ...]:
    issuer = receipt.issuer
    vat_number = f"VAT number {issuer.vat_number}" if issuer.vat_number else ""
    return tuple(filter(None, (f"Receipt {receipt.number}", issuer.name, issuer.address, vat_number, issuer.contact)))


def _format_session(receipt: Receipt) -> tuple[str, ...]:
    session = receipt.session
    zone = session.tariff.time_zone
    times = {"Started": session.started_at, "Charging ended": session.stopped_at, "Paid": session.captured_at}
    return (
        f"Station {session.identity}, connector {session.connector_id}",
        *(f"{name} {_format_local_time(at, zone)}" for name, at in times.items() if at is not None),
        f"Times are those of {zone}.",
    )


def _format_account(receipt: Receipt) -> tuple[str, ...]:
    price = receipt.session.tariff
    rows = [(_format_line(line, receipt.session), line.amount) for line in receipt.lines]
    rows.append(("Total", receipt.total))
    if price.vat_percent:
        rows += [
            (f"of which {_format_number(price.vat_percent)} % VAT", receipt.vat),
            ("net", receipt.total - receipt.vat),
        ]
    rows.append((f"Charged to your card{_format_card(receipt.session)}", receipt.captured))
    if receipt.refunded:
        rows.append(("Refunded", -receipt.refunded))
    if receipt.to_refund:
        rows.append(("On its way back to your card", -receipt.to_refund))
    return tuple(f"{name}: {_format_amount(amount, price)}" for name, amount in rows)


def _format_line(line: Line, session: Reservation) -> str:
    price = session.tariff
    match line.kind:
        case LineKind.ENERGY:
            energy = _format_number(Decimal(session.energy_wh) / 1000)
            return f"Energy, {energy} kWh at {_format_amount(price.energy_price, price)} per kWh"
        case LineKind.SESSION_FEE:
            return "Session fee"
        case LineKind.IDLE_FEE:
            idle, grace = session.idle_seconds // 60, price.idle_grace_minutes
            free = f", the first {grace} min free" if grace else ""
            most = f", at most {_format_amount(price.idle_maximum, price)}" if line.amount == price.idle_maximum else ""
            return f"Idle fee, {idle} min{free}, {_format_amount(price.idle_price, price)} per min{most}"
        case LineKind.LIMIT:
            return f"Not charged, beyond the {_format_amount(session.authorised_amount or 0, price)} held"
        case LineKind.ADJUSTMENT:
            return "Adjusted by the operator"


def _format_card(session: Reservation) -> str:
    """The card's brand and last four digits in parentheses; empty if they are not known."""
    brand = (session.card_brand or "card").replace("_", " ").title()
    return f" ({brand} ending in {session.card_last4})" if session.card_last4 else ""


def _format_amount(amount: int | Decimal, price: Tariff) -> str:
    """An amount with all the digits of its currency, and more if a rate has more."""
    value = Decimal(amount).scaleb(-price.exponent)
    digits = max(price.exponent, -int(value.normalize().as_tuple().exponent))
    return f"{price.currency} {value:,.{digits}f}"


def _format_number(number: Decimal) -> str:
    """A number without trailing zeros."""
    return f"{number.normalize():f}"


def _format_local_time(at: datetime, zone: str) -> str:
    local = at.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%B %Y, %H:%M %Z}"
