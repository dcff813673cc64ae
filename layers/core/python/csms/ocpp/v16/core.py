"""OCPP 1.6, Core profile: what a station's CALLs mean, how they are answered, and how commands are written.

One small function per action, listed in the ACTIONS table. A row says what must be loaded, and its function turns
snapshot and payload into the next snapshot and the CALLRESULT's payload. Payloads have passed the schema, contain
what leniency kept, and may lack what values.py names as expendable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from csms.charging import status, transaction
from csms.charging.status import Report
from csms.charging.transaction import Start, Stop
from csms.model import (
    CommandKind,
    DecisionContext,
    IdToken,
    ReadSet,
    RemoteStart,
    RemoteStop,
    Snapshot,
    TagStatus,
    format_time,
)
from csms.ocpp.dialect import Action, CommandRow
from csms.ocpp.v16.values import (
    UNPLUGGED,
    Payload,
    parse_time,
    read_meter,
    read_state,
    read_token,
    read_transaction_id,
    write_tag_status,
    write_token,
)
from csms.stations import presence
from csms.stations.presence import Hardware


def authorize(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    """Authorize (OCPP 1.6 4.1): a web tag is accepted only at its station and only while its reservation may charge
    (note F29)."""
    id_token = read_token(payload["idTag"])
    counted = transaction.count_unknown(snapshot, id_token, context)
    return counted, write_tag_status(transaction.authorize(snapshot, id_token, context))


def boot_notification(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    """BootNotification (OCPP 1.6 4.2): every registered station is accepted."""
    hardware = Hardware(
        vendor=payload["chargePointVendor"],
        model=payload["chargePointModel"],
        serial_number=payload.get("chargePointSerialNumber"),
        firmware=payload.get("firmwareVersion"),
    )
    booted = presence.boot(snapshot, hardware, context)
    return booted, {
        "status": "Accepted",
        "currentTime": format_time(context.now),
        "interval": int(presence.heartbeat(booted.station, context.policy).total_seconds()),
    }


def data_transfer(snapshot: Snapshot, _payload: Payload, _moment: DecisionContext) -> tuple[Snapshot, Payload]:
    """DataTransfer (OCPP 1.6 4.3): answered with UnknownVendorId, because no vendor's extension is supported."""
    return snapshot, {"status": "UnknownVendorId"}


def heartbeat_answer(context: DecisionContext) -> Payload:
    """Heartbeat.conf (OCPP 1.6 4.6): the present time."""
    return {"currentTime": format_time(context.now)}


MESSAGE_ID: Final = "csms:messageId"
"""The member of a start's payload that holds the unique id of its CALL."""


def heartbeat(snapshot: Snapshot, _payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    """Heartbeat (OCPP 1.6 4.6): answered with the present time; the service renews the lease, as with every CALL."""
    return snapshot, heartbeat_answer(context)


def meter_values(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    """MeterValues (OCPP 1.6 4.7): records the readings of a transaction; they never make a live status (note F07)."""
    readings = read_meter(payload.get("meterValue", ()), context)
    named = read_transaction_id(payload.get("transactionId"))
    return transaction.record_readings(snapshot, payload["connectorId"], named, readings, context), {}


def start_transaction(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    """StartTransaction (OCPP 1.6 4.8): always answered with a real transaction id, whatever the tag (note F52)."""
    after, answer = transaction.start(snapshot, _read_start(payload), context)
    return after, {"transactionId": int(answer.transaction_id), **write_tag_status(answer.id_tag_status)}


def status_notification(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    """StatusNotification (OCPP 1.6 4.9): sets the live status of a connector or of the whole station."""
    return status.apply_report(snapshot, _read_report(payload), context), {}


def stop_transaction(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    """StopTransaction (OCPP 1.6 4.10): always closes its transaction; the tag's state is answered and has no effect
    (note F53)."""
    after = transaction.stop(snapshot, _read_stop(payload, context), context)
    if payload.get("idTag") is None:
        return after, {}
    return after, write_tag_status(transaction.authorize(snapshot, read_token(payload["idTag"]), context))


def _find_start_read_set(snapshot: Snapshot, payload: Payload) -> ReadSet:
    return transaction.find_start_read_set(snapshot, _read_start(payload))


def _find_stop_read_set(snapshot: Snapshot, payload: Payload) -> ReadSet:
    return transaction.find_stop_read_set(snapshot, _read_stop(payload))


def confirm_with_nothing(_context: DecisionContext) -> Payload:
    """The answer in quarantine to a message whose CALLRESULT has no required member. A StopTransaction.conf names no
    idTagInfo either, because stations store it in their authorization cache."""
    return {}


def confirm_start(context: DecisionContext) -> Payload:
    """StartTransaction.conf in quarantine: a real transaction id, and the tag Invalid (note F52)."""
    return {"transactionId": int(context.new_ids.transaction_id), **write_tag_status(TagStatus.INVALID)}


def attribute_connector(snapshot: Snapshot, payload: Payload) -> Payload | None:
    """The payload with its connector: the only one of the station, if it names none; None if there are several."""
    return _add_connector(payload, snapshot.station.connectors)


def attribute_readings(snapshot: Snapshot, payload: Payload) -> Payload | None:
    """MeterValues with its connector: that of the running transaction that it names, or the only one of the station, if
    it names none; None if that is not clear."""
    named = read_transaction_id(payload.get("transactionId"))
    running = [n for n, c in snapshot.connectors.items() if c.transaction and c.transaction.transaction_id == named]
    return _add_connector(payload, running or snapshot.station.connectors)


def _add_connector(payload: Payload, candidates: Sequence[int]) -> Payload | None:
    if "connectorId" in payload:
        return payload
    return {**payload, "connectorId": candidates[0]} if len(candidates) == 1 else None


ACTIONS: Final[Mapping[str, Action]] = {
    "Authorize": Action(decide=authorize, find_read_set=lambda _s, p: ReadSet(id_tag=p["idTag"])),
    "BootNotification": Action(decide=boot_notification),
    "DataTransfer": Action(decide=data_transfer),
    "Heartbeat": Action(decide=heartbeat, answer_alive=heartbeat_answer),
    "MeterValues": Action(
        decide=meter_values, fixed_answer={}, quarantine=confirm_with_nothing, attribute=attribute_readings
    ),
    "StartTransaction": Action(
        decide=start_transaction,
        find_read_set=_find_start_read_set,
        identify=lambda payload, unique_id: payload | {MESSAGE_ID: unique_id},
        quarantine=confirm_start,
        attribute=attribute_connector,
    ),
    "StatusNotification": Action(
        decide=status_notification,
        find_read_set=lambda s, p: status.find_read_set(s, _read_report(p)),
        fixed_answer={},
        quarantine=confirm_with_nothing,
        attribute=attribute_connector,
    ),
    "StopTransaction": Action(
        decide=stop_transaction, find_read_set=_find_stop_read_set, quarantine=confirm_with_nothing
    ),
}


def _encode_remote_start(command: RemoteStart) -> Payload:
    """RemoteStartTransaction.req (OCPP 1.6 5.11); it always names the connector, because the station would choose one
    otherwise."""
    return {"connectorId": command.connector_id, "idTag": write_token(command.id_token)}


def _encode_remote_stop(command: RemoteStop) -> Payload:
    """RemoteStopTransaction.req (OCPP 1.6 5.12)."""
    return {"transactionId": int(command.transaction_id)}


COMMANDS: Final[Mapping[CommandKind, CommandRow]] = {
    CommandKind.REMOTE_START: CommandRow(action="RemoteStartTransaction", encode=_encode_remote_start),
    CommandKind.REMOTE_STOP: CommandRow(action="RemoteStopTransaction", encode=_encode_remote_stop),
}


def _read_start(payload: Payload) -> Start:
    return Start(
        connector_id=payload["connectorId"],
        id_token=read_token(payload["idTag"]),
        meter_start_wh=payload.get("meterStart", 0),
        started_at=parse_time(payload.get("timestamp")),
        message_id=payload.get(MESSAGE_ID),
    )


def _read_stop(payload: Payload, context: DecisionContext | None = None) -> Stop:
    """The station's request. Readings are read only with a context, whose time is used for those without one."""
    number, reason = payload.get("transactionId"), payload.get("reason")
    return Stop(
        transaction_id="" if number is None else str(number),
        is_unnamed=read_transaction_id(number) is None,
        id_token=_read_optional_token(payload.get("idTag")),
        meter_stop_wh=payload.get("meterStop"),
        stopped_at=parse_time(payload.get("timestamp")),
        reason=reason,
        is_unplugged=reason == UNPLUGGED,
        readings=read_meter(payload.get("transactionData") or (), context) if context is not None else (),
    )


def _read_optional_token(id_tag: str | None) -> IdToken | None:
    return None if id_tag is None else read_token(id_tag)


def _read_report(payload: Payload) -> Report:
    return Report(
        connector_id=payload["connectorId"],
        raw=payload["status"],
        state=read_state(payload["status"]),
        charger_at=parse_time(payload.get("timestamp")),
    )
