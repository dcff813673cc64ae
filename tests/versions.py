"""The wire format of every OCPP version by its sub-protocol, for tests that run with each of them."""

from collections.abc import Mapping
from typing import Any, Final

from csms.model import Protocol
from csms.ocpp import framing, schemas, v201
from csms.ocpp.framing import ErrorCode, Framing, Ignored, Malformed, Message
from csms.ocpp.schemas import Accepted, SchemaSet, Violation
from csms.ocpp.v16 import values as v16

FRAMINGS: Final[Mapping[Protocol, Framing]] = {Protocol.OCPP16: v16.FRAMING, Protocol.OCPP201: v201.FRAMING}
SCHEMAS: Final[Mapping[Protocol, SchemaSet]] = {Protocol.OCPP16: v16.SCHEMAS, Protocol.OCPP201: v201.SCHEMAS}
ACTIONS: Final = {protocol: known.actions for protocol, known in SCHEMAS.items()}


def decode(text: str | bytes, protocol: Protocol = Protocol.OCPP16) -> Message | Ignored | Malformed:
    return framing.decode(text, FRAMINGS[protocol])


def encode(message: Message, protocol: Protocol = Protocol.OCPP16) -> str:
    return framing.encode(message, FRAMINGS[protocol])


def spelling(code: ErrorCode, protocol: Protocol) -> str:
    return FRAMINGS[protocol].spell(code)


def is_known(protocol: Protocol, action: str) -> bool:
    return schemas.is_known_action(SCHEMAS[protocol], action)


def accept(protocol: Protocol, action: str, payload: dict[str, Any], *, response: bool = False) -> Accepted | Violation:
    return schemas.accept(SCHEMAS[protocol], action, payload, response=response)


def check(protocol: Protocol, action: str, payload: dict[str, Any], *, response: bool) -> None:
    schemas.check(SCHEMAS[protocol], action, payload, response=response)
