"""What csms knows of an OCPP version: the actions it handles, how commands are written, and how answers to them are
read.

States, tokens, transaction ids, connector numbers and commands are converted here to values of no particular version.
The service is given a mapping from sub-protocol to dialect, and a version is imported only when a station uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import orjson

from csms.errors import BadRequest
from csms.model import (
    LONGEST_WORD,
    Command,
    CommandKind,
    CommandOutcome,
    CommandResult,
    DecisionContext,
    ReadSet,
    Snapshot,
    cut_text,
)
from csms.ocpp import framing, schemas
from csms.ocpp.framing import Call, CallError, CallResult, ErrorCode, Framing, Ignored, Malformed, Message
from csms.ocpp.kept_messages import Quarantined
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
    "Quarantined",
    "Taken",
    "UnsupportedCommand",
]

Payload = dict[str, Any]
Decision = Callable[[Snapshot, Payload, DecisionContext], tuple[Snapshot, Payload]]

LONGEST_ANSWER: Final = 500
"""The most characters that are stored of a station's answer to a command."""

AGREED: Final = frozenset({"Accepted"})
"""The status values of answers that count as accepted."""

DECLINED: Final = frozenset({"Rejected", "NotImplemented", "NotSupported"})
"""The status values of answers that count as refused; any other word, in any other case, is unclear."""


class InvalidCommand(BadRequest):
    """The command does not fit the schema of the station's OCPP version."""


class UnsupportedCommand(InvalidCommand):
    """The station's OCPP version has no such command, or csms does not support it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """How a station's CALL is handled: what to load for it and how to decide it. An action that only renews the lease
    has `answer_alive`, which answers it without a decision. `fixed_answer` is the answer that does not depend on the
    decision, so that it can be given before.

    An action with `quarantine` is never refused for its form (note F41): that is the answer to a message that cannot be
    attributed. `identify` adds the CALL's unique id to its payload, where the decision needs it. `attribute` fills in
    what a payload lacks and the snapshot shows; None if that is not clear.
    """

    decide: Decision
    find_read_set: Callable[[Snapshot, Payload], ReadSet] = lambda _snapshot, _payload: ReadSet()
    answer_alive: Callable[[DecisionContext], Payload] | None = None
    fixed_answer: Payload | None = None
    quarantine: Callable[[DecisionContext], Payload] | None = None
    identify: Callable[[Payload, str], Payload] = lambda payload, _unique_id: payload
    attribute: Callable[[Snapshot, Payload], Payload | None] = lambda _snapshot, payload: payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A CALL that is handled: its action, its payload after repairs, and the flags of what was tolerated."""

    action: Action
    payload: Payload
    flags: tuple[str, ...] = ()

    def attribute(self, snapshot: Snapshot) -> Taken | Quarantined:
        """The CALL with what the snapshot adds to it, or in quarantine if it cannot be attributed."""
        payload = self.action.attribute(snapshot, self.payload)
        if payload is not None:
            return replace(self, payload=payload)
        return _quarantine(self.action, "It cannot be attributed.", *self.flags) or self


def _quarantine(action: Action, *reasons: str) -> Quarantined | None:
    """The CALL in quarantine; None if the action's messages may be refused."""
    if action.quarantine is None:
        return None
    return Quarantined(reasons=reasons, build_answer=action.quarantine, fixed_answer=action.fixed_answer)


def read_status(payload: Payload) -> CommandResult:
    """The result in an answer: accepted, refused or unclear by its `status`; an answer without `status` counts as
    accepted."""
    status = payload.get("status")
    if status is None or status in AGREED:
        outcome = CommandOutcome.ACCEPTED
    else:
        outcome = CommandOutcome.REFUSED if status in DECLINED else CommandOutcome.UNCLEAR
    return CommandResult(outcome=outcome, status=None if status is None else str(status), payload=write_json(payload))


def write_json(payload: Payload) -> str:
    """The payload as the text that a result keeps."""
    return orjson.dumps(payload).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRow:
    """How a version writes a command and reads the answer to it."""

    action: str
    encode: Callable[[Any], Payload]
    read: Callable[[Payload], CommandResult] = read_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One OCPP version as the service sees it."""

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

    def accept(self, call: Call | Malformed) -> Taken | Quarantined | CallError:
        """A station's CALL after repairs, in quarantine, or the CALLERROR to answer with."""
        if isinstance(call, Malformed):
            broken = self.actions.get(call.action or "")
            return (broken and _quarantine(broken, call.description)) or call.to_call_error()
        if not schemas.is_known_action(self.schemas, call.action):
            return refuse(
                call.unique_id,
                ErrorCode.NOT_IMPLEMENTED,
                f"The action {call.action} does not exist in this OCPP version.",
            )
        action = self.actions.get(call.action)
        if action is None:
            return refuse(call.unique_id, ErrorCode.NOT_SUPPORTED, f"The action {call.action} is not supported.")
        accepted = schemas.accept(self.schemas, call.action, call.payload)
        if isinstance(accepted, Violation):
            why = f"{accepted.path}: {accepted.message}"
            return _quarantine(action, why, *call.flags) or refuse(call.unique_id, accepted.code, why)
        return Taken(
            action=action,
            payload=action.identify(accepted.payload, call.unique_id),
            flags=(*call.flags, *accepted.flags),
        )

    def answer(self, call: Call | Malformed, payload: Payload) -> CallResult:
        """The CALLRESULT to a CALL. Raises InvalidMessage if the schema does not allow it."""
        schemas.check(self.schemas, call.action or "", payload, response=True)
        return CallResult(unique_id=call.unique_id, payload=payload)

    def encode_command(self, command: Command) -> tuple[str, Payload]:
        """The action and payload of a command. Raises UnsupportedCommand or InvalidCommand if this version cannot
        express it."""
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
        """The result of a command: what the station answered, or the code of its CALLERROR. One that the
        schema does not allow is neither yes nor no: UNCLEAR, with what came and the code of what is wrong with it."""
        return _cut_result(self._read_answer(command, message))

    def _read_answer(self, command: Command, message: CallResult | CallError) -> CommandResult:
        if isinstance(message, CallError):
            return CommandResult(outcome=CommandOutcome.ERROR, error_code=str(message.code))
        row = self.commands[command.kind]
        accepted = schemas.accept(self.schemas, row.action, message.payload, response=True)
        if isinstance(accepted, Violation):
            said = message.payload.get("status")
            return CommandResult(
                outcome=CommandOutcome.UNCLEAR,
                status=said if isinstance(said, str) else None,
                error_code=str(accepted.code),
                payload=write_json(message.payload),
            )
        return row.read(accepted.payload)


def _cut_result(result: CommandResult) -> CommandResult:
    """The result with texts that are no longer than is stored; a longer answer is kept as the beginning of its text."""
    payload = result.payload
    if len(payload) > LONGEST_ANSWER:
        payload = write_json({"truncated": cut_text(payload, LONGEST_ANSWER)})
    return replace(
        result,
        status=result.status and cut_text(result.status, LONGEST_WORD),
        error_code=result.error_code and cut_text(result.error_code, LONGEST_WORD),
        payload=payload,
    )


def refuse_unsupported_version(text: str | bytes) -> str | None:
    """The answer to a frame whose OCPP version is not supported here, or None if it is no CALL. It is needed while two
    releases run and the other one accepted the connection."""
    message = framing.decode(text, Framing())
    if not isinstance(message, Call):
        return None
    refusal = refuse(message.unique_id, ErrorCode.NOT_SUPPORTED, "This OCPP version is not supported here at present.")
    return framing.encode(refusal, Framing())


def refuse(unique_id: str, code: ErrorCode, description: str) -> CallError:
    """The CALLERROR to a CALL; its description is cut to 255 characters."""
    return CallError(unique_id=unique_id, code=code, description=description[:255], details={})


@dataclass(frozen=True, slots=True)
class Dialects(Mapping[str, Dialect]):
    """The supported versions by sub-protocol, in order of preference; each is imported when it is first used."""

    loaders: Mapping[str, Callable[[], Dialect]]
    _loaded: dict[str, Dialect] = field(default_factory=dict)

    @classmethod
    def from_loaded(cls, *dialects: Dialect) -> Dialects:
        """The mapping of versions that are already imported."""
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
