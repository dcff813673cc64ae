"""What the product knows of an OCPP version: its CALLs, how our commands are said in it, how its answers are read.

Everything on this side of the dialect is in no version's words: states, tokens, transaction ids, connector numbers and
commands are normalised where they enter. The service is given a mapping from sub-protocol to dialect and knows nothing
else of any version; a version that no station here speaks is never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import orjson

from csms.errors import BadRequest
from csms.model import Command, CommandKind, CommandOutcome, CommandResult, DecisionContext, ReadSet, Snapshot
from csms.ocpp import framing, schemas
from csms.ocpp.framing import Call, CallError, CallResult, ErrorCode, Framing, Ignored, Malformed, Message
from csms.ocpp.schemas import InvalidMessage, SchemaSet, Violation

__all__ = [
    "Action",
    "Call",
    "CallError",
    "CallResult",
    "CommandRow",
    "Dialect",
    "Dialects",
    "Ignored",
    "InvalidCommand",
    "Malformed",
    "Payload",
    "UnsupportedCommand",
]

Payload = dict[str, Any]
Decision = Callable[[Snapshot, Payload, DecisionContext], tuple[Snapshot, Payload]]

AGREED: Final = frozenset({"Accepted"})
"""Status words of an answer that agrees."""


class InvalidCommand(BadRequest):
    """What was asked of a station does not fit its version's schema."""


class UnsupportedCommand(InvalidCommand):
    """The station's version has no such command, or it is not supported here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is done on a station's CALL: what to load for it, and what to decide. One that only says that the station is
    there is answered without a decision, by `answer_alive`."""

    decide: Decision
    find_read_set: Callable[[Snapshot, Payload], ReadSet] = lambda _snapshot, _payload: ReadSet()
    answer_alive: Callable[[DecisionContext], Payload] | None = None


def read_status(payload: Payload) -> CommandResult:
    """The result in an answer: its status word says whether the station agreed; an answer without one is an answer all
    the same, and agrees."""
    status = payload.get("status")
    agrees = status is None or status in AGREED
    outcome = CommandOutcome.ACCEPTED if agrees else CommandOutcome.REFUSED
    return CommandResult(outcome=outcome, status=None if status is None else str(status), payload=write_json(payload))


def write_json(payload: Payload) -> str:
    """The payload as a result keeps it."""
    return orjson.dumps(payload).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRow:
    """How a version says a command and reads its answer."""

    action: str
    encode: Callable[[Any], Payload]
    read: Callable[[Payload], CommandResult] = read_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One OCPP version, as the service sees it."""

    protocol: str
    framing: Framing
    schemas: SchemaSet
    actions: Mapping[str, Action]
    commands: Mapping[CommandKind, CommandRow]

    def decode(self, text: str | bytes) -> Message | Ignored | Malformed:
        """The message in a frame (framing.decode)."""
        return framing.decode(text, self.framing)

    def encode(self, message: Message) -> str:
        """The frame of a message (framing.encode)."""
        return framing.encode(message, self.framing)

    def accept(self, call: Call) -> tuple[Action, Payload, tuple[str, ...]] | CallError:
        """The action of a station's CALL, its payload to work with and what was tolerated in it; or the CALLERROR to
        answer with."""
        if not schemas.is_known_action(self.schemas, call.action):
            return refuse(call.unique_id, ErrorCode.NOT_IMPLEMENTED, f"There is no {call.action}.")
        action = self.actions.get(call.action)
        if action is None:
            return refuse(call.unique_id, ErrorCode.NOT_SUPPORTED, f"{call.action} is not supported.")
        accepted = schemas.accept(self.schemas, call.action, call.payload)
        if isinstance(accepted, Violation):
            return refuse(call.unique_id, accepted.code, f"{accepted.path}: {accepted.message}")
        return action, accepted.payload, (*call.flags, *accepted.flags)

    def answer(self, call: Call, payload: Payload) -> CallResult:
        """The CALLRESULT to a CALL; InvalidMessage if the schema does not allow it."""
        schemas.check(self.schemas, call.action, payload, response=True)
        return CallResult(unique_id=call.unique_id, payload=payload)

    def encode_command(self, command: Command) -> tuple[str, Payload]:
        """The action and payload of a command; UnsupportedCommand or InvalidCommand if this version cannot say it."""
        row = self.commands.get(command.kind)
        if row is None:
            raise UnsupportedCommand(f"{command.kind} is not supported over {self.protocol}.")
        payload = row.encode(command)
        try:
            schemas.check(self.schemas, row.action, payload, response=False)
        except InvalidMessage as invalid:
            raise InvalidCommand(f"{command.kind}: {invalid.message}") from None
        return row.action, payload

    def read_answer(self, command: Command, message: CallResult | CallError) -> CommandResult:
        """What came of a command: the station's answer, or the code of its CALLERROR or of what is wrong with the
        answer."""
        if isinstance(message, CallError):
            return CommandResult(outcome=CommandOutcome.ERROR, error_code=str(message.code))
        row = self.commands[command.kind]
        accepted = schemas.accept(self.schemas, row.action, message.payload, response=True)
        if isinstance(accepted, Violation):
            return CommandResult(outcome=CommandOutcome.ERROR, error_code=str(accepted.code))
        return row.read(accepted.payload)


def refuse_unsupported_version(text: str | bytes) -> str | None:
    """The frame to answer a frame with whose version is not spoken here, or None for what wants no answer. It happens
    while two releases run side by side: the other one let the station in."""
    message = framing.decode(text, Framing())
    if not isinstance(message, Call):
        return None
    refusal = refuse(message.unique_id, ErrorCode.NOT_SUPPORTED, "This version is not spoken here now.")
    return framing.encode(refusal, Framing())


def refuse(unique_id: str, code: ErrorCode, description: str) -> CallError:
    """The CALLERROR to a CALL; a description has 255 characters at most."""
    return CallError(unique_id=unique_id, code=code, description=description[:255], details={})


@dataclass(frozen=True, slots=True)
class Dialects(Mapping[str, Dialect]):
    """The versions that are spoken here, by sub-protocol, in the order of preference; each is imported when a
    connection first speaks it."""

    loaders: Mapping[str, Callable[[], Dialect]]
    _loaded: dict[str, Dialect] = field(default_factory=dict)

    @classmethod
    def from_loaded(cls, *dialects: Dialect) -> Dialects:
        """Versions that are imported already."""
        return cls(MappingProxyType({it.protocol: lambda it=it: it for it in dialects}))  # type: ignore[misc]

    def __getitem__(self, protocol: str) -> Dialect:
        known = self._loaded.get(protocol)
        if known is None:
            known = self._loaded[protocol] = self.loaders[protocol]()
        return known

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaders)

    def __len__(self) -> int:
        return len(self.loaders)
