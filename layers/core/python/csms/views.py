"""What the public is told: JSON-ready dictionaries of reservations and connectors. No id tag, no provider id, no error
text of a provider (note F71)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from csms import occupancy, tariff
from csms.model import Moment, OpenTransaction, Reservation, ReservationState, Snapshot, Step, Tariff, zulu

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
        "expiresAt": utc(held.expires_at),
    }


def follow(held: Reservation, *, public_url: str) -> Json:
    """Where the driver follows a reservation that needs no payment."""
    return {
        "status": "NothingToPay",
        "reservationId": held.reservation_id,
        "statusUrl": f"{public_url}/session/{held.reservation_id}",
    }


def reservation(
    held: Reservation,
    steps: Iterable[Step] = (),
    running: OpenTransaction | None = None,
    waiting_for: Iterable[str] = (),
) -> Json:
    """How a reservation stands; `running` gives the energy while it charges, `waiting_for` why it does not
    start yet."""
    energy_wh = running.energy_wh if running is not None else held.energy_wh
    amount = held.amount if held.amount is not None else tariff.bill(held.tariff, energy_wh).total
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
        "createdAt": utc(held.created_at),
        "expiresAt": utc(held.expires_at),
        "authorizedAt": utc(held.authorised_at),
        "startDeadline": utc(held.start_deadline),
        "startedAt": utc(held.started_at),
        "stoppedAt": utc(held.stopped_at),
        "energyWh": energy_wh,
        "powerW": running.power_w if running is not None else None,
        "amount": amount,
        "capturedAmount": held.captured_amount,
        "checkoutUrl": held.checkout_url if paying else None,
        "waitingFor": [{"code": code, "message": occupancy.text(code)} for code in waiting_for] or None,
        "tariff": price(held.tariff),
        "steps": [{"at": utc(s.at), "event": s.event, "state": s.state, "money": s.money} for s in steps],
    }
    return {name: value for name, value in shown.items() if value is not None}


def connector(snapshot: Snapshot, connector_id: int, moment: Moment) -> Json:
    """What a driver sees of a connector before starting: its status, whether it can be started, why not, and the
    price."""
    reasons = occupancy.busy_reasons(snapshot, connector_id, now=moment.now, policy=moment.policy)
    shown = {
        "chargePointId": snapshot.station.identity,
        "connectorId": connector_id,
        "status": occupancy.shown_status(snapshot, connector_id, now=moment.now, policy=moment.policy),
        "startable": not reasons,
        "reason": reasons[0] if reasons else None,
        "reasons": list(reasons),
        "message": occupancy.text(reasons[0]) if reasons else None,
        "tariff": price(snapshot.station.tariff),
    }
    return {name: value for name, value in shown.items() if value is not None}


def price(of: Tariff) -> Json:
    """A tariff; amounts in minor units, the price of a kWh as a decimal string because it may have a fraction."""
    return {
        "currency": of.currency,
        "exponent": of.exponent,
        "pricePerKwh": f"{of.energy_price:f}",
        "sessionFee": of.session_fee,
        "maxEnergyWh": of.max_energy_wh,
        "maxAmount": tariff.ceiling(of),
    }


def utc(at: datetime | None) -> str | None:
    """The time as text, or None for none."""
    return None if at is None else zulu(at)
