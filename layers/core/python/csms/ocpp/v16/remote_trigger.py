"""OCPP 1.6, Remote Trigger profile: asking a station to send a message that it would otherwise send by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from csms.model import CommandKind, TriggerStatus
from csms.ocpp.dialect import CommandRow
from csms.ocpp.v16.values import Payload


def _encode_trigger_status(command: TriggerStatus) -> Payload:
    """TriggerMessage.req (OCPP 1.6 5.17) for a StatusNotification; without a connector it is for the whole station."""
    named = {"connectorId": command.connector_id} if command.connector_id else {}
    return {"requestedMessage": "StatusNotification", **named}


COMMANDS: Final[Mapping[CommandKind, CommandRow]] = {
    CommandKind.TRIGGER_STATUS: CommandRow(action="TriggerMessage", encode=_encode_trigger_status),
}
