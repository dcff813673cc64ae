"""What is stored: the versioned entities, and the records that are only ever appended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from csms.model.commands import Command, CommandKind, CommandResult
from csms.model.values import (
    CallState,
    ConnectorState,
    FailureCode,
    ForwardCompatible,
    Money,
    OutboxKind,
    ReservationState,
    StatusSource,
    TagStatus,
    Tariff,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Station(ForwardCompatible):
    """A registered charge point; `station_id` is its identity case-folded, `identity` the registered spelling."""

    station_id: str
    identity: str
    password_hash: str
    connectors: tuple[int, ...]
    tariff: Tariff
    free: bool = False
    time_zone: str = "UTC"
    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    firmware: str | None = None
    booted_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence(ForwardCompatible):
    """The station's connection; its version moves when the connection or the epoch does, not when the lease is renewed.
    `closed_id` is the last connection that is known to be closed."""

    station_id: str
    connection_id: str | None = None
    closed_id: str | None = None
    protocol: str
    epoch: str
    connected_at: datetime
    last_seen_at: datetime
    lease_until: datetime
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStatus(ForwardCompatible):
    """What the station said of a connector in its present epoch: its own word, and what that means."""

    raw: str
    state: ConnectorState
    reported_at: datetime
    charger_at: datetime | None = None
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistedStatus(ForwardCompatible):
    """The last status known of a connector, whoever wrote it; from `release_at` on maintenance may make it Available.
    One that does not say since when is stale."""

    raw: str
    state: ConnectorState
    at: datetime | None = None
    source: StatusSource
    release_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction(ForwardCompatible):
    """The transaction running on a connector, with its latest meter.

    `idle_until` runs once the station called the connector Available though no stop came: then a stop is implied.
    `occupied_at` is when the station last called it in use while it ran.
    `ends_at` is the hard maximum since it began; from `stop_at_wh` on the station is told to stop (note F65).
    `peak_at`, on the station's clock, and `peak_heard_at`, on ours, are when the register last was at its highest;
    `jumped` says that it once rose faster than a charger can deliver.
    """

    transaction_id: str
    id_tag: str
    started_at: datetime
    received_at: datetime
    meter_start_wh: int
    energy_wh: int = 0
    power_w: int | None = None
    metered_at: datetime | None = None
    reservation_id: str | None = None
    idle_until: datetime | None = None
    occupied_at: datetime | None = None
    ends_at: datetime | None = None
    stop_at_wh: int | None = None
    peak_at: datetime | None = None
    peak_heard_at: datetime | None = None
    jumped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock(ForwardCompatible):
    """The one active reservation of a connector; past `expires_at` it blocks nobody."""

    reservation_id: str
    state: ReservationState
    id_tag: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector(ForwardCompatible):
    """All that decides whether a connector is busy; connector 0 is the station as a whole and never a bay.

    `plugged` names the epoch in which an OCPP 2.0.1 station said that a car is connected and nothing charges.
    """

    station_id: str
    connector_id: int
    live: LiveStatus | None = None
    persisted: PersistedStatus | None = None
    transaction: OpenTransaction | None = None
    lock: Lock | None = None
    plugged: str | None = None
    version: int = 0

    @property
    def due_at(self) -> datetime | None:
        """When maintenance must look at it: a transaction that should have ended, or a status that nothing holds up."""
        if self.transaction is not None:
            ends = (self.transaction.idle_until, self.transaction.ends_at)
            return min((at for at in ends if at is not None), default=None)
        if self.lock is not None or self.persisted is None:
            return None
        return self.persisted.release_at


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundCall(ForwardCompatible):
    """A command on its way to the station: who asked for it and why, which reservation waits for it, and the CALL that
    carries it, from decision to answer.

    It is sent from `send_at` on, looked after from `due_at`, and pointless after `expires_at`. `repeats` names the
    first CALL of a command that may have been granted already, unheard; `told` says that what was asked for has come
    before the answer. `result` is the answer of one whose promise is still to be kept.
    """

    station_id: str
    call_id: str
    command: Command
    reservation_id: str | None = None
    asked_by: str = "csms"
    reason: str | None = None
    state: CallState = CallState.QUEUED
    repeats: str | None = None
    told: bool = False
    result: CommandResult | None = None
    asked_at: datetime
    send_at: datetime
    due_at: datetime
    expires_at: datetime
    version: int = 0

    @property
    def kind(self) -> CommandKind:
        """What the station is asked to do."""
        return self.command.kind

    @property
    def connector_id(self) -> int | None:
        """The connector that the command names, None where it names none."""
        return getattr(self.command, "connector_id", None)

    @property
    def transaction_id(self) -> str | None:
        """The transaction that the command names, None where it names none."""
        return getattr(self.command, "transaction_id", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """A command that is over, kept with who asked for it, why, and what came of it; `told_at` is when what the station
    agreed to do was seen."""

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
    """Whose socket a connection id is; never changed after it is written."""

    connection_id: str
    station_id: str
    protocol: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction(ForwardCompatible):
    """An OCPP transaction; open while `stopped_at` is None."""

    transaction_id: str
    station_id: str
    connector_id: int
    id_tag: str
    id_tag_status: TagStatus
    started_at: datetime
    received_at: datetime
    meter_start_wh: int
    stopped_at: datetime | None = None
    meter_stop_wh: int | None = None
    energy_wh: int = 0
    reason: str | None = None
    reservation_id: str | None = None
    flags: tuple[str, ...] = ()
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a meter said at one time; the register in Wh, None where it was not among the values."""

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
class Reservation(ForwardCompatible):
    """The paid hold on a connector, from checkout to settlement, with the tariff frozen into it.

    `carried_wh` is what earlier transactions of it delivered, when its driver started more than once. Idle time is
    `idle_seconds` of closed spells, free time left out, and the spell that runs since `idle_since`. `amount` is the
    bill, which a correction may lower; `capture_amount` is what it was when it was settled and never changes, so that
    what was captured too much is `captured_amount - amount`, and `refunded_amount` of it went back. The authorisation
    must be used before `capture_before`, so the session settles by `settle_by`, whatever the station does (note F69).
    A checkout whose time ran out may be closing: until `close_by` the provider is asked how it ended (note F64).
    `review` is why a human must look at its money. `start_command_id` is the first CALL that asked for its start.
    `provider` has its payment, whatever provider is chosen later; reservations from before that was written down are
    Stripe's.
    """

    reservation_id: str
    station_id: str
    identity: str
    connector_id: int
    state: ReservationState
    money: Money = Money.NONE
    id_tag: str
    tariff: Tariff
    max_amount: int
    created_at: datetime
    expires_at: datetime | None = None
    checkout_id: str | None = None
    checkout_url: str | None = None
    payment_id: str | None = None
    authorised_amount: int | None = None
    authorised_at: datetime | None = None
    capture_before: datetime | None = None
    settle_by: datetime | None = None
    close_by: datetime | None = None
    card_brand: str | None = None
    card_last4: str | None = None
    start_deadline: datetime | None = None
    start_requested_at: datetime | None = None
    start_accepted_at: datetime | None = None
    start_command_id: str | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    ended_at: datetime | None = None
    transaction_id: str | None = None
    carried_wh: int = 0
    energy_wh: int = 0
    idle_since: datetime | None = None
    idle_seconds: int = 0
    amount: int | None = None
    capture_amount: int | None = None
    captured_amount: int | None = None
    captured_at: datetime | None = None
    refunded_amount: int = 0
    failure_code: FailureCode | None = None
    review: str | None = None
    flags: tuple[str, ...] = ()
    provider: str = "stripe"
    version: int = 0

    @property
    def due_at(self) -> datetime | None:
        """When maintenance must look at it: when its checkout must have closed, else at the end of the lock; never,
        when it has neither."""
        return self.close_by or self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry of a reservation's audit trail; `order` tells entries of one moment apart."""

    reservation_id: str
    at: datetime
    order: int = 0
    event: str
    state: ReservationState
    money: Money
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem(ForwardCompatible):
    """A provider call that is owed; it exists until it was done, and is done again at `due_at` if it still exists.

    Without `due_at` it was given up. `attempts` counts all of them, `spent` those before a human said to try again.
    """

    reservation_id: str
    kind: OutboxKind
    due_at: datetime | None = None
    attempts: int = 0
    spent: int = 0
    last_error: str | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdTag:
    """An RFID tag, or the web tag of a reservation (which alone never authorises anything); `free` pays for nothing."""

    tag: str
    status: TagStatus
    free: bool = False
    reservation_id: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRecord:
    """The answer given to a message that must have only one effect, kept to be given again."""

    station_id: str
    digest: str
    answer: dict[str, Any]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedWebhook:
    """A provider's event that was acted on, kept so that it is not acted on again (note F62)."""

    event_id: str
    at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One line of the station's flight recorder; `order` tells lines of one moment apart."""

    station_id: str
    at: datetime
    order: int = 0
    kind: str
    detail: dict[str, Any]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownStation:
    """A station that tried to connect and that nobody registered."""

    station_id: str
    identity: str
    last_seen_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignItem:
    """An item among a station's own that this release does not understand and leaves as it is; it is only ever dropped,
    together with its station. Without `version` it has none."""

    key: tuple[str, str]
    version: int | None = None


Versioned = Station | Presence | Connector | OutboundCall | Transaction | Reservation | OutboxItem
Record = (
    Connection
    | CommandRecord
    | MeterSample
    | AuditEntry
    | IdTag
    | IdempotencyRecord
    | ProcessedWebhook
    | TimelineEntry
    | UnknownStation
)
