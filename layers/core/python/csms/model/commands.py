"""Commands to a station, whatever its version calls them: each with a typed payload, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from csms.model.values import IdToken, StoredEnum


class CommandKind(StoredEnum):
    """What a station may be asked to do."""

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
    """Tell the status of the connector; 0 asks for the station as a whole."""

    kind: Literal[CommandKind.TRIGGER_STATUS] = CommandKind.TRIGGER_STATUS
    connector_id: int


Command = RemoteStart | RemoteStop | TriggerStatus


class CommandOutcome(StoredEnum):
    """What became of a command."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    ERROR = "error"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What the station answered to a command, or that it did not.

    `status` is the station's own word where its answer has one, `error_code` that of a CALLERROR or of an answer that
    cannot be read, and `payload` the answer itself as JSON text. EXPIRED was not answered in time, which proves nothing
    (note F25).
    """

    outcome: CommandOutcome
    status: str | None = None
    error_code: str | None = None
    payload: str = "{}"
    at: datetime | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the station agreed to do it."""
        return self.outcome is CommandOutcome.ACCEPTED

    @property
    def values(self) -> dict[str, Any]:
        """The answer's members."""
        known: dict[str, Any] = json.loads(self.payload)
        return known

    @property
    def summary(self) -> str:
        """The answer in one word, for an audit trail."""
        return self.status or self.error_code or self.outcome
