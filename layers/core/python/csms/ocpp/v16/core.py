"""OCPP 1.6, Core profile: what a station's CALLs mean, what it is answered, and how our commands are said.

One small function per action behind the ACTIONS table. A row says what it needs to see, then turns snapshot and payload
into the next snapshot and the CALLRESULT's payload. Payloads have passed the schema, with what leniency kept in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from csms.charging import status, transaction
from csms.charging.status import Report
from csms.charging.transaction import Start, Stop
from csms.model import (
    CommandKind,
    IdToken,
    Moment,
    Needs,
    RemoteStart,
    RemoteStop,
    Snapshot,
    zulu,
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


def authorize(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """Authorize (OCPP 1.6 4.1): a web tag is accepted only here and only while its reservation may charge (note
    F29)."""
    return snapshot, write_tag_status(transaction.authorise(snapshot, read_token(payload["idTag"]), moment))


def boot_notification(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """BootNotification (OCPP 1.6 4.2): every station that is registered is accepted."""
    hardware = Hardware(
        vendor=payload["chargePointVendor"],
        model=payload["chargePointModel"],
        serial_number=payload.get("chargePointSerialNumber"),
        firmware=payload.get("firmwareVersion"),
    )
    return presence.boot(snapshot, hardware, moment), {
        "status": "Accepted",
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
    readings = read_meter(payload["meterValue"], moment)
    named = read_transaction_id(payload.get("transactionId"))
    return transaction.meter(snapshot, payload["connectorId"], named, readings, moment), {}


def start_transaction(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """StartTransaction (OCPP 1.6 4.8): always a real transaction id, whatever the tag (note F52)."""
    after, answer = transaction.start(snapshot, _start(payload), moment)
    return after, {"transactionId": int(answer.transaction_id), **write_tag_status(answer.id_tag_status)}


def status_notification(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """StatusNotification (OCPP 1.6 4.9)."""
    return status.told(snapshot, _report(payload), moment), {}


def stop_transaction(snapshot: Snapshot, payload: Payload, moment: Moment) -> tuple[Snapshot, Payload]:
    """StopTransaction (OCPP 1.6 4.10): cannot be refused; the tag is answered as it stands, and does not matter (note
    F53)."""
    after = transaction.stop(snapshot, _stop(payload, moment), moment)
    if payload.get("idTag") is None:
        return after, {}
    return after, write_tag_status(transaction.authorise(snapshot, read_token(payload["idTag"]), moment))


def _start_needs(snapshot: Snapshot, payload: Payload) -> Needs:
    return transaction.start_needs(snapshot, _start(payload))


def _stop_needs(snapshot: Snapshot, payload: Payload) -> Needs:
    return transaction.stop_needs(snapshot, _stop(payload))


ACTIONS: Final[Mapping[str, Action]] = {
    "Authorize": Action(decide=authorize, needs=lambda _s, p: Needs(id_tag=p["idTag"])),
    "BootNotification": Action(decide=boot_notification),
    "DataTransfer": Action(decide=data_transfer),
    "Heartbeat": Action(decide=heartbeat, answer_alive=heartbeat_answer),
    "MeterValues": Action(decide=meter_values),
    "StartTransaction": Action(decide=start_transaction, needs=_start_needs),
    "StatusNotification": Action(decide=status_notification, needs=lambda s, p: status.needs(s, _report(p))),
    "StopTransaction": Action(decide=stop_transaction, needs=_stop_needs),
}


def _remote_start(command: RemoteStart) -> Payload:
    """RemoteStartTransaction.req (OCPP 1.6 5.11); it always names the connector, or the station would choose one."""
    return {"connectorId": command.connector_id, "idTag": write_token(command.id_token)}


def _remote_stop(command: RemoteStop) -> Payload:
    """RemoteStopTransaction.req (OCPP 1.6 5.12)."""
    return {"transactionId": int(command.transaction_id)}


COMMANDS: Final[Mapping[CommandKind, CommandRow]] = {
    CommandKind.REMOTE_START: CommandRow(action="RemoteStartTransaction", encode=_remote_start),
    CommandKind.REMOTE_STOP: CommandRow(action="RemoteStopTransaction", encode=_remote_stop),
}


def _start(payload: Payload) -> Start:
    return Start(
        connector_id=payload["connectorId"],
        id_token=read_token(payload["idTag"]),
        meter_start_wh=payload["meterStart"],
        started_at=parse_time(payload["timestamp"]),
    )


def _stop(payload: Payload, moment: Moment | None = None) -> Stop:
    """What the station asks; its readings are of use only when there is a moment to date those without a time by."""
    number, reason = payload["transactionId"], payload.get("reason")
    return Stop(
        transaction_id=str(number),
        is_unnamed=read_transaction_id(number) is None,
        id_token=_token(payload.get("idTag")),
        meter_stop_wh=payload["meterStop"],
        stopped_at=parse_time(payload["timestamp"]),
        reason=reason,
        is_unplugged=reason == UNPLUGGED,
        readings=read_meter(payload.get("transactionData") or (), moment) if moment is not None else (),
    )


def _token(id_tag: str | None) -> IdToken | None:
    return None if id_tag is None else read_token(id_tag)


def _report(payload: Payload) -> Report:
    return Report(
        connector_id=payload["connectorId"],
        raw=payload["status"],
        state=read_state(payload["status"]),
        charger_at=parse_time(payload.get("timestamp")),
    )
