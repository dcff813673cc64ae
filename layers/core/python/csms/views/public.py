"""Public answers: about a connector, about a reservation for anybody who has its id, and about prices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from csms import occupancy, texts
from csms.charging import review
from csms.model import (
    AuditEntry,
    DecisionContext,
    OpenTransaction,
    Reservation,
    ReservationState,
    Snapshot,
    Tariff,
    format_time,
)
from csms.pricing import receipt, tariff

Json = dict[str, Any]


def redirect(held: Reservation, *, public_url: str) -> Json:
    """Where the driver pays, for a reservation whose checkout is open."""
    return {
        "status": "Redirect",
        "reservationId": held.reservation_id,
        "checkoutUrl": held.checkout_url,
        "statusUrl": f"{public_url}/session/{held.reservation_id}",
        "currency": held.tariff.currency,
        "maxAmount": held.max_amount,
        "expiresAt": format_optional_time(held.expires_at),
    }


def free_session(held: Reservation, *, public_url: str) -> Json:
    """Where the driver follows a reservation that needs no payment."""
    return {
        "status": "NothingToPay",
        "reservationId": held.reservation_id,
        "statusUrl": f"{public_url}/session/{held.reservation_id}",
    }


def reservation(
    held: Reservation,
    audit_entries: Iterable[AuditEntry] = (),
    running: OpenTransaction | None = None,
    waiting_for: Iterable[str] = (),
    plugged_elsewhere: Iterable[tuple[int, tuple[str, ...]]] = (),
    language: str = texts.ENGLISH,
    *,
    now: datetime,
) -> Json:
    """A reservation as it stands. `running` gives the energy while it charges, `waiting_for` the reasons why it does
    not start yet, `plugged_elsewhere` the other connectors with a car and the reasons why they cannot be started;
    running idle time counts until `now`."""
    energy_wh = held.carried_wh + running.energy_wh if running is not None else held.energy_wh
    bill = _bill(held, energy_wh, now)
    doubted = review.is_meter_doubted(held) or (running is not None and running.doubted)
    paying = held.state is ReservationState.PENDING_PAYMENT
    shown = {
        "status": held.state,
        "failureCode": held.failure_code,
        "money": held.money,
        "reservationId": held.reservation_id,
        "chargePointId": held.identity,
        "connectorId": held.connector_id,
        "currency": held.tariff.currency,
        "exponent": held.tariff.exponent,
        "maxAmount": held.max_amount,
        "createdAt": format_optional_time(held.created_at),
        "expiresAt": format_optional_time(held.expires_at),
        "authorizedAt": format_optional_time(held.authorised_at),
        "startDeadline": format_optional_time(held.start_deadline),
        "startedAt": format_optional_time(held.started_at),
        "stoppedAt": format_optional_time(held.stopped_at),
        "endedAt": format_optional_time(held.ended_at),
        "heldUntil": format_optional_time(held.late_start.until) if held.late_start is not None else None,
        "energyWh": energy_wh,
        "powerW": running.power_w if running is not None else None,
        "idle": _idle_time(held, bill, now),
        "amount": held.amount if held.amount is not None else bill.total,
        "cut": None if doubted else bill.cut or None,
        "meterDoubted": doubted or None,
        "capturedAmount": held.captured_amount,
        "refundedAmount": held.refunded_amount or None,
        "receiptUrl": f"/receipt/{held.reservation_id}" if receipt.missing_reason(held) is None else None,
        "checkoutUrl": held.checkout_url if paying else None,
        "waitingFor": [{"code": code, "message": texts.reason_text(code, language)} for code in waiting_for] or None,
        "pluggedElsewhere": [{"connectorId": number, "startable": not reasons} for number, reasons in plugged_elsewhere]
        or None,
        "tariff": price(held.tariff),
        "steps": [
            {"at": format_optional_time(s.at), "event": s.event, "state": s.state, "money": s.money}
            for s in audit_entries
        ],
    }
    return {name: value for name, value in shown.items() if value is not None}


def _bill(held: Reservation, energy_wh: int, now: datetime) -> tariff.Bill:
    """The bill, or what it would be now. An amount below the minimum is shown too, because it may still grow."""
    if held.amount is not None:
        return receipt.bill(held)
    so_far = tariff.bill(held.tariff, energy_wh, _idle_seconds(held, now))
    return so_far if held.authorised_amount is None else tariff.limit_bill(so_far, held.authorised_amount)


def _idle_time(held: Reservation, bill: tariff.Bill, now: datetime) -> Json | None:
    """Idle time in seconds and its fee, if the tariff has an idle fee; while it runs, also since when, and when the fee
    begins."""
    if not tariff.has_idle_fee(held.tariff) or (held.idle_since is None and not held.idle_seconds):
        return None
    shown: Json = {"seconds": _idle_seconds(held, now), "fee": bill.idle}
    if held.idle_since is not None:
        begins = tariff.idle_fee_start(held.tariff, held.idle_since, held.idle_seconds)
        shown |= {"since": format_optional_time(held.idle_since), "feeBeginsAt": format_optional_time(begins)}
    return {name: value for name, value in shown.items() if value is not None}


def _idle_seconds(held: Reservation, now: datetime) -> int:
    """The chargeable seconds of all spells, the running one counted until now."""
    running = 0 if held.idle_since is None else tariff.idle_seconds(held.tariff, held.idle_since, now)
    return held.idle_seconds + running


def connector(snapshot: Snapshot, connector_id: int, context: DecisionContext, language: str = texts.ENGLISH) -> Json:
    """What a driver sees of a connector before starting: its status, whether it can be started, the reasons why not,
    and the price."""
    reasons = occupancy.busy_reasons(snapshot, connector_id, now=context.now, policy=context.policy)
    told = occupancy.driver_reasons(snapshot, connector_id, reasons, context.policy)
    shown = {
        "chargePointId": snapshot.station.identity,
        "connectorId": connector_id,
        "status": occupancy.public_status(snapshot, connector_id, now=context.now, policy=context.policy),
        "startable": not reasons,
        "reason": reasons[0] if reasons else None,
        "reasons": list(reasons),
        "message": texts.reason_text(told[0], language) if told else None,
        "tariff": price(tariff.station_tariff(snapshot.station)),
    }
    return {name: value for name, value in shown.items() if value is not None}


def price(of: Tariff) -> Json:
    """A tariff: amounts in minor units; rates as decimal strings, because they may have a fraction; times of day of the
    station's time zone. `maxAmount` is the hold, and `maxEnergyWh` the energy that it pays for."""
    hold = tariff.hold_amount(of)
    shown = {
        "currency": of.currency,
        "exponent": of.exponent,
        "pricePerKwh": f"{of.energy_price:f}",
        "sessionFee": of.session_fee,
        "idlePricePerMinute": f"{of.idle_price:f}",
        "idleGraceMinutes": of.idle_grace_minutes,
        "idleMaximum": of.idle_maximum,
        "idleFreeFrom": of.idle_free_from,
        "idleFreeUntil": of.idle_free_until,
        "vatPercent": f"{of.vat_percent:f}",
        "maxEnergyWh": tariff.energy_ceiling(of, hold),
        "maxAmount": hold,
        "minimumEnergyWh": of.minimum_energy_wh,
    }
    return {name: value for name, value in shown.items() if value is not None}


def format_optional_time(at: datetime | None) -> str | None:
    """The time as text, or None."""
    return None if at is None else format_time(at)
