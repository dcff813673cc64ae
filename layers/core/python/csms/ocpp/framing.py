"""OCPP-J framing: text to messages and back. It knows no action, no version and no socket.

Specifications: OCPP-J 1.6 section 4 with the errata of 2025-04; OCPP 2.0.1 part 4 section 4. Each version's package
gives what differs between versions as a value (`Framing`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import orjson

from csms.ocpp import mending

CALL: Final = 2
CALLRESULT: Final = 3
CALLERROR: Final = 4

SPECIFIED_ID_LENGTH: Final = 36  # In both versions; longer ids are in use, so they are accepted, echoed and flagged.
LONGEST_ID: Final = 128  # A longer id would not fit into a database key in every script.
MAX_DEPTH: Final = 30  # Levels of nesting: schemas have ten, the database takes 32, orjson reads 1024 and writes 254.
UNREADABLE_ID: Final = "-1"  # 2.0.1 part 4, section 4.2.3; 1.6 has no rule.


class ErrorCode(StrEnum):
    """The CALLERROR codes by their names in 2.0.1; other versions may spell them otherwise."""

    NOT_IMPLEMENTED = "NotImplemented"  # The action is unknown.
    NOT_SUPPORTED = "NotSupported"  # The action is known and not supported.
    INTERNAL_ERROR = "InternalError"
    PROTOCOL_ERROR = "ProtocolError"
    SECURITY_ERROR = "SecurityError"
    FORMAT_VIOLATION = "FormatViolation"
    PROPERTY_CONSTRAINT_VIOLATION = "PropertyConstraintViolation"
    OCCURRENCE_CONSTRAINT_VIOLATION = "OccurrenceConstraintViolation"
    TYPE_CONSTRAINT_VIOLATION = "TypeConstraintViolation"
    GENERIC_ERROR = "GenericError"
    MESSAGE_TYPE_NOT_SUPPORTED = "MessageTypeNotSupported"
    RPC_FRAMEWORK_ERROR = "RpcFrameworkError"


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """What differs between versions of OCPP-J: the spelling of error codes, and whether a frame without a readable id
    is answered."""

    spelling: Mapping[ErrorCode, str] = field(default_factory=lambda: MappingProxyType({}))
    is_unreadable_answered: bool = False

    def spell(self, code: ErrorCode) -> str:
        """The spelling of the code in this version."""
        return self.spelling.get(code, code.value)


_CANONICAL: Final = {
    "FormationViolation": ErrorCode.FORMAT_VIOLATION,
    "OccurenceConstraintViolation": ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION,
} | {code.value: code for code in ErrorCode}


_TOO_DEEP: Final = object()  # Replaces an element of a frame that is nested too deeply.

# The type of a frame that cannot be parsed, and its id in double or single quotes.
_BEGINNING: Final = (
    r"[\ufeff\0 \t\n\r]*+\[[ \t\n\r]*+([234])[ \t\n\r]*+,"
    r"""(?:[ \t\n\r]*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|'([^'"\\]*+)')[ \t\n\r]*+(?=[,\]]|\Z))?"""
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `mends` says what was mended in its text; it is no part of what the request says."""

    unique_id: str
    action: str
    payload: dict[str, Any]
    mends: tuple[str, ...] = field(default=(), compare=False)

    @property
    def flags(self) -> tuple[str, ...]:
        """What is irregular about the frame and was tolerated."""
        is_long = len(self.unique_id) > SPECIFIED_ID_LENGTH
        return (*self.mends, "uniqueId: longer than 36 characters") if is_long else self.mends


@dataclass(frozen=True, slots=True)
class CallResult:
    """The answer to the CALL with the same id; it does not name its action."""

    unique_id: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallError:
    """The error answer to the CALL with the same id.

    `code` is an ErrorCode, which `encode` spells as the version does, or a text, which it leaves as it is. `decode`
    keeps the station's text; `parse_error_code` reads it.
    """

    unique_id: str
    code: str
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ignored:
    """A frame that is logged and not answered."""

    reason: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A broken CALL, which is answered by a CALLERROR with these values; `action` is its action, if it has one."""

    unique_id: str
    code: ErrorCode
    description: str
    action: str | None = None

    def to_call_error(self) -> CallError:
        """The CALLERROR to answer with; its description is cut to 255 characters."""
        return CallError(unique_id=self.unique_id, code=self.code, description=self.description[:255])


Message = Call | CallResult | CallError


def decode(text: str | bytes, framing: Framing) -> Message | Ignored | Malformed:
    """The message in a frame. It never raises, whatever the text or bytes, and `encode` accepts every message it
    returns.

    Ignored are messages of unknown type (J 1.6 section 4.1.3), and frames without a readable id, unless the version
    answers those under the id "-1" (2.0.1). A broken CALLRESULT is ignored and never answered, because its id is one of
    ours and the station may have a CALL of its own under the same id. A CALLERROR ends our CALL whatever else is wrong
    with it. A null payload is read as {}. A text that is no strict JSON is mended where one mend is obvious
    (csms.ocpp.mending); otherwise a CALL whose id stands at its beginning is malformed.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError as error:
        return _reject_unreadable(f"not UTF-8: {error}", framing)
    try:
        frame = _parse_frame(text)
    except orjson.JSONDecodeError as error:
        return _decode_mended(text, framing) or _decode_beginning(text, f"not JSON: {error}", framing)
    return _decode_frame(frame, framing)


def encode(message: Message, framing: Framing) -> str:
    """The frame of a message, as compact JSON; the version only determines the spelling of error codes."""
    match message:
        case Call(unique_id, action, payload):
            frame: list[Any] = [CALL, unique_id, action, payload]
        case CallResult(unique_id, payload):
            frame = [CALLRESULT, unique_id, payload]
        case CallError(unique_id, code, description, details):
            spelt = framing.spell(code) if isinstance(code, ErrorCode) else code
            frame = [CALLERROR, unique_id, spelt, description, details]
    return orjson.dumps(frame).decode()


def parse_error_code(text: str) -> ErrorCode:
    """The code that a station's text means, in any version's spelling; GenericError if it is unknown."""
    return _CANONICAL.get(text, ErrorCode.GENERIC_ERROR)


def _parse_frame(text: str) -> Any:
    frame = orjson.loads(text)
    if isinstance(frame, list) and text.count("[") + text.count("{") > MAX_DEPTH:
        return [element if _is_shallow(element, MAX_DEPTH) else _TOO_DEEP for element in frame]
    return frame


def _decode_frame(frame: Any, framing: Framing) -> Message | Ignored | Malformed:
    match frame:
        case [2, str(unique_id), *rest] if 0 < len(unique_id) <= LONGEST_ID:
            return _parse_call(unique_id, rest)
        case [3, str(unique_id), dict() | None as payload] if 0 < len(unique_id) <= LONGEST_ID:
            return CallResult(unique_id, payload or {})
        case [4, str(unique_id), *rest] if 0 < len(unique_id) <= LONGEST_ID:
            return _parse_call_error(unique_id, rest)
        case [2, *_]:
            return _reject_unreadable("a CALL without a readable id", framing)
        case [3, *_]:
            return Ignored("a CALLRESULT that is not [3, id, object]")
        case [4, *_]:
            return Ignored("a CALLERROR without a readable id")
        case [_, *_]:
            return Ignored("unknown message type")
    return _reject_unreadable("not an array with a message type", framing)


def _decode_mended(text: str, framing: Framing) -> Message | Ignored | Malformed | None:
    """The message in a text that is no strict JSON; None if no mend makes it so."""
    for mended in mending.find_mends(text):
        try:
            frame = _parse_frame(mended.text)
        except orjson.JSONDecodeError:
            continue
        message = _decode_frame(frame, framing)
        return replace(message, mends=mended.flags) if isinstance(message, Call) else message
    return None


def _decode_beginning(text: str, reason: str, framing: Framing) -> CallError | Ignored | Malformed:
    """What the beginning says of a text that cannot be parsed: which CALL it is, or which of ours it ends."""
    match _read_beginning(text):
        case "2", str(unique_id) if 0 < len(unique_id) <= LONGEST_ID:
            return Malformed(unique_id, ErrorCode.FORMAT_VIOLATION, reason)
        case "4", str(unique_id) if 0 < len(unique_id) <= LONGEST_ID:
            return _parse_call_error(unique_id, [])
        case "3" | "4", _:
            return Ignored(reason)
    return _reject_unreadable(reason, framing)


def _read_beginning(text: str) -> tuple[str | None, str | None]:
    """The message type and the id that a text begins with, as far as they can be read."""
    beginning = re.match(_BEGINNING, text)
    if beginning is None:
        return None, None
    quoted = beginning[2] if beginning[3] is None else beginning[3]
    try:
        return beginning[1], None if quoted is None else orjson.loads(f'"{quoted}"')
    except orjson.JSONDecodeError:
        return beginning[1], None


def _is_shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(child, levels - 1) for child in children)


def _reject_unreadable(reason: str, framing: Framing) -> Ignored | Malformed:
    if not framing.is_unreadable_answered:
        return Ignored(reason)
    return Malformed(UNREADABLE_ID, ErrorCode.RPC_FRAMEWORK_ERROR, reason)


def _parse_call(unique_id: str, rest: list[Any]) -> Call | Malformed:
    match rest:
        case [str(action), dict() | None as payload]:
            return Call(unique_id, action, payload or {})
        case [str(action), _]:
            why = "the payload is not an object, or nests too deeply"
            return Malformed(unique_id, ErrorCode.FORMAT_VIOLATION, why, action)
        case [_, _]:
            return Malformed(unique_id, ErrorCode.RPC_FRAMEWORK_ERROR, "the action is not a string")
    return Malformed(unique_id, ErrorCode.RPC_FRAMEWORK_ERROR, "a CALL has four elements")


def _parse_call_error(unique_id: str, rest: list[Any]) -> CallError:
    code, description, details, *_ = (*rest, None, None, None)
    return CallError(
        unique_id,
        code if isinstance(code, str) else ErrorCode.GENERIC_ERROR.value,
        description if isinstance(description, str) else "",
        details if isinstance(details, dict) else {},
    )


def internal_error(text: str | bytes) -> str | None:
    """The InternalError to answer a frame with when handling it failed, or None if the frame was no CALL."""
    message = decode(text, Framing())
    if not isinstance(message, Call):
        return None
    return encode(
        CallError(message.unique_id, ErrorCode.INTERNAL_ERROR, "The message could not be handled."), Framing()
    )
