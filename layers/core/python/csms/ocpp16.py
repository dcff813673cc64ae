"""OCPP 1.6, Core profile: what a station's CALLs mean, what it is answered, and how our commands are spelled.

One small function per action behind the ACTIONS table. A route says what it needs to see, then turns snapshot and
payload into the next snapshot and the CALLRESULT's payload. Payloads have passed the schema, with what leniency kept in
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from csms import calls, reservation, status, transaction
from csms.model import (
    Command,
    Moment,
    Needs,
    OutboundCall,
    Reading,
    Snapshot,
    StatusSource,
    TagStatus,
    zulu,
)
from csms.reservation import Event
from csms.status import Report
from csms.transaction import Start, Stop

Payload = dict[str, Any]
Decision = Callable[[Snapshot, Payload, Moment], tuple[Snapshot, Payload]]

ENERGY: Final = "Energy.Active.Import.Register"
POWER: Final = "Power.Active.Import"
MOST: Final = Decimal(10) ** 12
"""No meter reads as much; a number like 1E999999 is a mistake, and too long to work with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done on a CALL: what to load for it, and what to decide."""

    decide: Decision
    needs: Callable[[Snapshot, Payload], Needs] = lambda _snapshot, _payload: Needs()


def authorize(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """Authorize (OCPP 1.6 4.1): a web tag is accepted only here and only while its reservation may charge (note
    F29)."""
    return snapshot, _tag_info(transaction.authorise(snapshot, payload["idTag"], moment))


def boot_notification(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """BootNotification (OCPP 1.6 4.2): a new epoch begins, so that what was live before is no longer."""
    station = replace(
        snapshot.station,
        vendor=payload["chargePointVendor"],
        model=payload["chargePointModel"],
        serial_number=payload.get("chargePointSerialNumber"),
        firmware=payload.get("firmwareVersion"),
        booted_at=moment.now,
    )
    presence = snapshot.presence and replace(
        snapshot.presence,
        epoch=moment.fresh.epoch,
        last_seen_at=moment.now,
        lease_until=moment.now + moment.policy.presence_lease,
    )
    booted = replace(snapshot, station=station, presence=presence).timeline(
        "Booted", moment, vendor=station.vendor, model=station.model, firmware=station.firmware
    )
    return calls.ask_status(booted, moment, station.connectors, after=status.SELF_REPORT), {
        "status": "Accepted" if station.accepted else "Pending",
        "currentTime": zulu(moment.now),
        "interval": int(moment.policy.heartbeat.total_seconds()),
    }


def data_transfer(snapshot: Snapshot, _payload: Payload, _moment: Moment) -> tuple[Snapshot, Payload]:
    """DataTransfer (OCPP 1.6 4.3): no vendor's extension is known here, which is an answer and not an error."""
    return snapshot, {"status": "UnknownVendorId"}


def heartbeat_answer(moment: Moment) -> Payload:
    """Heartbeat.conf (OCPP 1.6 4.6): the time."""
    return {"currentTime": zulu(moment.now)}


def heartbeat(snapshot: Snapshot, _payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """Heartbeat (OCPP 1.6 4.6): that it renews the lease is the service's business, as with every frame."""
    return snapshot, heartbeat_answer(moment)


def meter_values(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """MeterValues (OCPP 1.6 4.7): readings of a transaction; they never make a live status (note F07)."""
    readings = _readings(payload["meterValue"], moment)
    return transaction.meter(snapshot, payload["connectorId"], payload.get("transactionId"), readings, moment), {}


def start_transaction(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """StartTransaction (OCPP 1.6 4.8): always a real transaction id, whatever the tag (note F52)."""
    after, answer = transaction.start(snapshot, _start(payload), moment)
    return after, {"transactionId": answer.transaction_id, **_tag_info(answer.id_tag_status)}


def status_notification(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """StatusNotification (OCPP 1.6 4.9)."""
    return status.told(snapshot, _report(payload), moment), {}


def stop_transaction(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """StopTransaction (OCPP 1.6 4.10): cannot be refused; the tag is answered as it stands, and does not matter (note
    F53)."""
    after = transaction.stop(snapshot, _stop(payload, moment), moment)
    if payload.get("idTag") is None:
        return after, {}
    return after, _tag_info(transaction.authorise(snapshot, payload["idTag"], moment))


def _start_needs(snapshot: Snapshot, payload: Payload) -> Needs:
    return transaction.start_needs(snapshot, _start(payload))


def _stop_needs(snapshot: Snapshot, payload: Payload) -> Needs:
    return transaction.stop_needs(snapshot, _stop(payload))


ACTIONS: Final[Mapping[str, Action]] = {
    "Authorize": Action(decide=authorize, needs=lambda _s, p: Needs(id_tag=p["idTag"])),
    "BootNotification": Action(decide=boot_notification),
    "DataTransfer": Action(decide=data_transfer),
    "Heartbeat": Action(decide=heartbeat),
    "MeterValues": Action(decide=meter_values),
    "StartTransaction": Action(decide=start_transaction, needs=_start_needs),
    "StatusNotification": Action(decide=status_notification, needs=lambda s, p: status.needs(s, _report(p))),
    "StopTransaction": Action(decide=stop_transaction, needs=_stop_needs),
}


def spelled(call: OutboundCall) -> tuple[str, Payload]:
    """The 1.6 action and payload for a command; a start always names the connector, or the station would choose one."""
    match call.command:
        case Command.REMOTE_START:
            return "RemoteStartTransaction", {"connectorId": call.connector_id, "idTag": call.id_tag}
        case Command.REMOTE_STOP:
            return "RemoteStopTransaction", {"transactionId": call.transaction_id}
        case Command.TRIGGER_STATUS:
            named = {"connectorId": call.connector_id} if call.connector_id else {}  # None means the whole station.
            return "TriggerMessage", {"requestedMessage": "StatusNotification", **named}


def answer_needs(snapshot: Snapshot, call: OutboundCall) -> Needs:
    """What the answer to a command has to see: its own reservation, or the one that waits where a status was asked
    for."""
    if call.command is Command.TRIGGER_STATUS:
        return status.awaited(snapshot, call)
    return Needs(reservation_id=call.reservation_id)


def answered(snapshot: Snapshot, call: OutboundCall, answer: str, moment: Moment) -> Snapshot:
    """The snapshot after the station answered a command with this status (or with a CALLERROR's code): the CALL is
    over.

    A RemoteStart that was Accepted is not a start (note F24); one that was not ends its reservation, unless it repeats
    one that may be under way. Neither moves a reservation backwards that has already started or ended (note F26). A
    station that will not tell a status is not waited for, one that will is given time.
    """
    done = replace(snapshot, calls=tuple(c for c in snapshot.calls if c.call_id != call.call_id))
    if call.command is Command.TRIGGER_STATUS and call.connector_id is not None:
        if answer == "Accepted":
            return status.promised(done, call, moment)
        return status.untold(done, call.connector_id, moment)
    held = done.reservation
    if call.command is not Command.REMOTE_START or held is None:
        return done
    event = Event.START_ACCEPTED if answer == "Accepted" else Event.START_REJECTED
    if not reservation.allows(held, event):
        return reservation.noted(done, event, moment, detail=f"{answer}, too late to matter")
    if event is Event.START_REJECTED and call.repeats:
        noted = reservation.noted(done, event, moment, detail=f"{answer}, perhaps because it was granted before")
        return calls.ask_status(noted, moment, (held.connector_id,), after=moment.policy.call_timeout)
    if event is Event.START_REJECTED:
        return reservation.happened(done, event, moment, detail=answer)
    accepted = reservation.happened(done, event, moment, start_accepted_at=moment.now)
    connector = accepted.connector(held.connector_id)
    if connector.lock is None or connector.lock.reservation_id != held.reservation_id:
        return accepted  # Somebody else holds the connector by now: what the server made up would be theirs (note F09).
    occupied = status.persisted("Occupied", StatusSource.REMOTE_START, moment)
    return accepted.with_connector(replace(connector, persisted=occupied))


def parse_time(text: str | None) -> datetime | None:
    """The time a station wrote, in UTC: no zone means UTC, any offset, any number of fraction digits; None if it cannot
    be read (note F60)."""
    try:
        at = datetime.fromisoformat((text or "").strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):  # The year 1 east of Greenwich has no UTC.
        return None


def _start(payload: Payload) -> Start:
    return Start(
        connector_id=payload["connectorId"],
        id_tag=payload["idTag"],
        meter_start_wh=payload["meterStart"],
        started_at=parse_time(payload["timestamp"]),
    )


def _stop(payload: Payload, moment: Moment | None = None) -> Stop:
    """What the station asks; its readings are of use only when there is a moment to date those without a time by."""
    return Stop(
        transaction_id=payload["transactionId"],
        id_tag=payload.get("idTag"),
        meter_stop_wh=payload["meterStop"],
        stopped_at=parse_time(payload["timestamp"]),
        reason=payload.get("reason"),
        readings=_readings(payload.get("transactionData") or (), moment) if moment is not None else (),
    )


def _report(payload: Payload) -> Report:
    return Report(
        connector_id=payload["connectorId"], raw=payload["status"], charger_at=parse_time(payload.get("timestamp"))
    )


def _tag_info(status: TagStatus) -> Payload:
    return {"idTagInfo": {"status": str(status)}}


def _readings(meter_values: Iterable[Payload], moment: Moment) -> tuple[Reading, ...]:
    """The readings in MeterValue elements (OCPP 1.6 7.30), each with its energy register in Wh and its power in W."""
    return tuple(
        Reading(
            at=parse_time(entry.get("timestamp")) or moment.now,
            energy_wh=_quantity(entry["sampledValue"], ENERGY),
            power_w=_quantity(entry["sampledValue"], POWER),
        )
        for entry in meter_values
    )


def _quantity(samples: Iterable[Payload], measurand: str) -> int | None:
    """The measurand in its base unit (Wh or W): the value of the whole, or the sum of its phases; kilo units are
    converted (note F58)."""
    found = [
        (sample.get("phase"), value * (1000 if str(sample.get("unit", "")).startswith("k") else 1))
        for sample in samples
        if sample.get("measurand", ENERGY) == measurand and (value := _decimal(sample["value"])) is not None
    ]
    whole = [value for phase, value in found if phase is None]
    if whole:
        return int(whole[-1])
    return int(sum(value for _, value in found)) if found else None


def _decimal(text: Any) -> Decimal | None:
    """The number in a sampled value, with a point or a comma; None for what is no number, such as signed data, or
    no quantity."""
    try:
        value = Decimal(str(text).strip().replace(",", "."))
    except InvalidOperation:
        return None
    return value if value.is_finite() and -MOST < value < MOST else None
