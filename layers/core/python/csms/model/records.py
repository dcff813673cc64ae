"""What is stored and only appended: the records of what has happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from csms.model.commands import Command, CommandResult
from csms.model.values import (
    Money,
    ReservationState,
    TagStatus,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """A command that is over: who asked for it, why, and its result. `told_at` is when the requested status was
    received."""

    station_id: str
    call_id: str
    command: Command
    reservation_id: str | None = None
    asked_by: str
    reason: str | None = None
    repeats: str | None = None
    asked_at: datetime
    result: CommandResult
    told_at: datetime | None = None
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The station of a connection id; never changed once written."""

    connection_id: str
    station_id: str
    protocol: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A meter reading; the energy register in Wh and the power in W, None if the station did not send it."""

    at: datetime
    energy_wh: int | None = None
    power_w: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSample:
    """The readings of one message; the same message sent twice is stored once."""

    transaction_id: str
    station_id: str
    connector_id: int
    readings: tuple[Reading, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry of a reservation's audit trail; `order` orders entries of the same time."""

    reservation_id: str
    at: datetime
    order: int = 0
    event: str
    state: ReservationState
    money: Money
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTag:
    """An RFID tag, or the web tag of a reservation, which alone authorizes nothing; with `free` the session costs
    nothing. `name` is what it is stored under; None is the whole tag."""

    tag: str
    name: str | None = None
    status: TagStatus
    free: bool = False
    reservation_id: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRecord:
    """The stored answer to a message that must take effect only once, given again when the message is repeated."""

    station_id: str
    digest: str
    answer: dict[str, Any]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedWebhook:
    """A provider's event that was applied, stored so that it is not applied again (note F62)."""

    event_id: str
    at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One line of a station's timeline; `order` orders lines of the same time."""

    station_id: str
    at: datetime
    order: int = 0
    kind: str
    detail: dict[str, Any]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMessage:
    """A station's message as it was received, without tags and passwords: one that was taken although it is irregular,
    or one in quarantine, which was confirmed and not taken. `kind` is the digest by which the same is not kept twice a
    day; `reasons` say what is irregular; `is_cut` says that the text was longer."""

    station_id: str
    at: datetime
    kind: str
    action: str
    message_id: str
    is_quarantined: bool
    reasons: tuple[str, ...]
    text: str
    is_cut: bool = False
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownStation:
    """A station that tried to connect and is not registered: as it came last, `times` since `first_seen_at` (None if an
    older release stored it). A steady one offered an OCPP sub-protocol and came back; `reasons` are the codes of what
    kept it out."""

    station_id: str
    identity: str
    is_steady: bool = False
    first_seen_at: datetime | None = None
    last_seen_at: datetime
    times: int = 1
    subprotocols: tuple[str, ...] = ()
    path: str | None = None
    address: str | None = None
    user_agent: str | None = None
    reasons: tuple[str, ...] = ()
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxSlot:
    """One of the writes to the list of unknown stations that a minute allows, taken once; `owner` is the process
    that has it, without which the same item would count as a write of one's own that was repeated."""

    minute: datetime
    kind: str
    number: int
    owner: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedConnection:
    """A connection attempt in a station's name that was refused; `reason` is the code of the refusal."""

    at: datetime
    reason: str
    subprotocols: tuple[str, ...] = ()
    path: str | None = None
    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalCount:
    """How often connections in a station's name were refused for this reason."""

    reason: str
    times: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedConnections:
    """The refused connections in the name of one registered station: how many, and the latest that were noted, newest
    first."""

    station_id: str
    counts: tuple[RefusalCount, ...]
    latest: tuple[RefusedConnection, ...]
    expires_at: datetime


Record = (
    Connection
    | CommandRecord
    | MeterSample
    | AuditEntry
    | IdTag
    | IdempotencyRecord
    | InboxSlot
    | KeptMessage
    | ProcessedWebhook
    | RefusedConnections
    | TimelineEntry
    | UnknownStation
)
