"""Commands to a station, independent of the OCPP version, and their results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from csms.model.values import IdToken, StoredEnum


class CommandKind(StoredEnum):
    """What a station can be asked to do."""

    REMOTE_START = "RemoteStart"
    REMOTE_STOP = "RemoteStop"
    TRIGGER_STATUS = "TriggerStatus"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStart:
    """Start a transaction on the connector with this token."""

    kind: Literal[CommandKind.REMOTE_START] = CommandKind.REMOTE_START
    connector_id: int
    id_token: IdToken


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStop:
    """Stop the transaction."""

    kind: Literal[CommandKind.REMOTE_STOP] = CommandKind.REMOTE_STOP
    transaction_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerStatus:
    """Report the status of the connector; connector 0 is the whole station."""

    kind: Literal[CommandKind.TRIGGER_STATUS] = CommandKind.TRIGGER_STATUS
    connector_id: int


Command = RemoteStart | RemoteStop | TriggerStatus


class CommandOutcome(StoredEnum):
    """How a command ended."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    ERROR = "error"
    UNCLEAR = "unclear"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What the station answered to a command, or that it did not answer.

    `status` is the answer's status as the station spells it, if it has one; `error_code` is that of a CALLERROR or of
    an unreadable answer; `payload` is the answer as JSON text. EXPIRED means not answered in time, UNCLEAR answered
    with neither yes nor no: neither proves anything (note F25).
    """

    outcome: CommandOutcome
    status: str | None = None
    error_code: str | None = None
    payload: str = "{}"
    at: datetime | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the station accepted the command."""
        return self.outcome is CommandOutcome.ACCEPTED

    @property
    def values(self) -> dict[str, Any]:
        """The answer's payload."""
        known: dict[str, Any] = json.loads(self.payload)
        return known

    @property
    def summary(self) -> str:
        """The answer in one word, for an audit trail."""
        return self.status or self.error_code or self.outcome
