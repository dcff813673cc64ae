"""An invented OCPP version: other action names and status words, text ids made by the station, and answers without a
status. It shows that the service depends on no version, because it is added by this module and the product's own seam
only."""

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from csms.charging import status, transaction
from csms.charging.status import Report
from csms.charging.transaction import Start, Stop
from csms.model import (
    CommandKind,
    CommandOutcome,
    CommandResult,
    ConnectorState,
    DecisionContext,
    IdToken,
    Reading,
    ReadSet,
    RemoteStart,
    RemoteStop,
    Snapshot,
    TriggerStatus,
    format_time,
)
from csms.ocpp.dialect import Action, CommandRow, Dialect, Payload, write_json
from csms.ocpp.framing import ErrorCode, Framing
from csms.ocpp.schemas import SchemaSet
from csms.stations import presence
from csms.stations.presence import Hardware

PROTOCOL: Final = "ocpp9.9"
STATES: Final = {"idle": ConnectorState.AVAILABLE, "cabled": ConnectorState.PLUGGED, "busy": ConnectorState.CHARGING}
REQUESTS: Final[dict[str, dict[str, str]]] = {
    "Hello": {"maker": "string", "kind": "string"},
    "Report": {"outlet": "string", "word": "string"},
    "Session": {"id": "string", "outlet": "string", "step": "string", "register": "integer", "card": "object"},
    "Begin": {"outlet": "string", "card": "object"},
    "End": {"id": "string"},
    "Tell": {"outlet": "string"},
}


def _schemas() -> SchemaSet:
    folder = Path(mkdtemp(prefix="fake-dialect-"))
    for action, members in REQUESTS.items():
        required = [name for name in members if name != "card"]
        request = {"type": "object", "properties": {n: {"type": t} for n, t in members.items()}, "required": required}
        (folder / f"{action}.ask.json").write_text(json.dumps(request | {"additionalProperties": False}), "utf-8")
        (folder / f"{action}.say.json").write_text(json.dumps({"type": "object"}), "utf-8")
    return SchemaSet(
        actions=frozenset(REQUESTS), folder=str(folder), request_name="{}.ask.json", response_name="{}.say.json"
    )


def _connector(payload: Payload) -> int:
    return int(payload["outlet"].removeprefix("outlet-"))


def _token(payload: Payload) -> IdToken:
    return IdToken(value=payload["card"]["text"], type=payload["card"]["sort"])


def say_hello(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    hardware = Hardware(vendor=payload["maker"], model=payload["kind"])
    return presence.boot(snapshot, hardware, context), {"clock": format_time(context.now)}


def report(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    return status.apply_report(snapshot, _report(payload), context), {}


def _report(payload: Payload) -> Report:
    word = payload["word"]
    state = STATES.get(word, ConnectorState.UNKNOWN)
    return Report(connector_id=_connector(payload), raw=word, state=state, charger_at=None)


def go_on(snapshot: Snapshot, payload: Payload, context: DecisionContext) -> tuple[Snapshot, Payload]:
    match payload["step"]:
        case "begins":
            after, answer = transaction.start(snapshot, _start(payload), context)
            return after, {"welcome": answer.id_tag_status == "Accepted"}
        case "goes on":
            reading = Reading(at=context.now, energy_wh=payload["register"])
            return transaction.record_readings(snapshot, _connector(payload), payload["id"], (reading,), context), {}
        case _:
            return transaction.stop(snapshot, _stop(payload), context), {}


def _read_set(snapshot: Snapshot, payload: Payload) -> ReadSet:
    match payload["step"]:
        case "begins":
            return transaction.find_start_read_set(snapshot, _start(payload))
        case "goes on":
            return ReadSet()
        case _:
            return transaction.find_stop_read_set(snapshot, _stop(payload))


def _start(payload: Payload) -> Start:
    return Start(
        connector_id=_connector(payload),
        id_token=_token(payload),
        meter_start_wh=payload["register"],
        started_at=None,
        transaction_id=payload["id"],
    )


def _stop(payload: Payload) -> Stop:
    return Stop(
        transaction_id=payload["id"],
        meter_stop_wh=payload["register"],
        stopped_at=None,
        reason="Local",
        is_unplugged=True,
    )


def _encode_start(command: RemoteStart) -> Payload:
    card = {"text": command.id_token.value, "sort": command.id_token.type or "Central"}
    return {"outlet": f"outlet-{command.connector_id}", "card": card}


def _encode_stop(command: RemoteStop) -> Payload:
    return {"id": command.transaction_id}


def _encode_trigger(command: TriggerStatus) -> Payload:
    return {"outlet": f"outlet-{command.connector_id}"}


def _read_begin(payload: dict[str, Any]) -> CommandResult:
    """The command was accepted unless the answer gives a reason: there is no status."""
    outcome = CommandOutcome.REFUSED if "because" in payload else CommandOutcome.ACCEPTED
    return CommandResult(outcome=outcome, status=payload.get("because"), payload=write_json(payload))


DIALECT: Final = Dialect(
    protocol=PROTOCOL,
    framing=Framing(spelling={ErrorCode.NOT_IMPLEMENTED: "NeverHeardOf"}),
    schemas=_schemas(),
    actions={
        "Hello": Action(decide=say_hello),
        "Report": Action(decide=report, find_read_set=lambda s, p: status.find_read_set(s, _report(p))),
        "Session": Action(decide=go_on, find_read_set=_read_set),
    },
    commands={
        CommandKind.REMOTE_START: CommandRow(action="Begin", encode=_encode_start, read=_read_begin),
        CommandKind.REMOTE_STOP: CommandRow(action="End", encode=_encode_stop),
        CommandKind.TRIGGER_STATUS: CommandRow(action="Tell", encode=_encode_trigger),
    },
)
