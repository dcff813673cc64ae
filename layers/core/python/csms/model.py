"""The values that the product is about. No rule lives here but what a value is; times are aware UTC, energy is Wh,
money is minor units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeVar

RECORDS_KEPT: Final = timedelta(days=90)
"""How long answers to be replayed, meter samples and timeline entries are kept (note F76)."""


class Protocol(StrEnum):
    """The OCPP-J sub-protocols, as Sec-WebSocket-Protocol spells them."""

    OCPP16 = "ocpp1.6"
    OCPP201 = "ocpp2.0.1"


class ConnectorStatus(StrEnum):
    """The four values the busy rule knows; every raw status of every protocol falls into one."""

    AVAILABLE = "Available"
    OCCUPIED = "Occupied"
    UNAVAILABLE = "Unavailable"
    FAULTED = "Faulted"


class StatusSource(StrEnum):
    """Who wrote a persisted status."""

    CHARGER = "charger"
    REMOTE_START = "remote start"
    MAINTENANCE = "maintenance"
    OPERATOR = "operator"


class ReservationState(StrEnum):
    """Where a reservation stands; the first five hold the connector, the last three do not."""

    PENDING_PAYMENT = "PendingPayment"
    AUTHORIZED = "Authorized"
    START_REQUESTED = "StartRequested"
    CHARGING = "Charging"
    WAITING_FOR_DISCONNECT = "WaitingForDisconnect"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    FAILED = "Failed"


class Money(StrEnum):
    """Where the driver's money stands."""

    NONE = "none"
    AUTHORISED = "authorised"
    CAPTURING = "capturing"
    CAPTURED = "captured"
    RELEASING = "releasing"
    RELEASED = "released"
    NEEDS_REVIEW = "needs_review"


class FailureCode(StrEnum):
    """Why a reservation ended without a bill."""

    CANCELLED_BY_DRIVER = "CancelledByDriver"
    CANCELLED_BY_OPERATOR = "CancelledByOperator"
    CHECKOUT_FAILED = "CheckoutFailed"
    CONNECTOR_TAKEN = "ConnectorTaken"
    PAYMENT_FAILED = "PaymentFailed"
    PAYMENT_TIMEOUT = "PaymentTimeout"
    START_REJECTED = "StartRejected"
    START_TIMEOUT = "StartTimeout"


class EffectKind(StrEnum):
    """What the payment provider may be asked to do; each is an outbox item first."""

    OPEN_CHECKOUT = "open-checkout"
    EXPIRE_CHECKOUT = "expire-checkout"
    CAPTURE = "capture"
    RELEASE = "release"


class Command(StrEnum):
    """What a station may be asked to do, whatever its protocol calls it."""

    REMOTE_START = "RemoteStart"
    REMOTE_STOP = "RemoteStop"
    TRIGGER_STATUS = "TriggerStatus"


class CallState(StrEnum):
    """Where an outbound CALL stands; an answered one is gone."""

    QUEUED = "queued"
    SENT = "sent"


class TagStatus(StrEnum):
    """AuthorizationStatus (OCPP 1.6 7.2)."""

    ACCEPTED = "Accepted"
    BLOCKED = "Blocked"
    EXPIRED = "Expired"
    INVALID = "Invalid"
    CONCURRENT_TX = "ConcurrentTx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that decisions read; a duration of zero disables what it bounds where the name says so."""

    status_freshness: timedelta = timedelta(minutes=30)
    reservation_timeout: timedelta = timedelta(minutes=60)
    status_release: timedelta = timedelta(minutes=240)
    checkout_window: timedelta = timedelta(minutes=30)
    start_window: timedelta = timedelta(minutes=10)
    first_lease: timedelta = timedelta(seconds=90)
    heartbeat: timedelta = timedelta(seconds=300)
    call_lease: timedelta = timedelta(seconds=5)
    call_timeout: timedelta = timedelta(seconds=30)
    effect_lease: timedelta = timedelta(seconds=30)
    effect_attempts: int = 8
    implied_stop_grace: timedelta = timedelta(minutes=5)
    session_limit: timedelta = timedelta(hours=24)
    preparing_is_startable: bool = True
    start_needs_plug: bool = False

    @property
    def presence_lease(self) -> timedelta:
        """How long a silent station counts as online: three heartbeats."""
        return 3 * self.heartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Ids nobody has used yet, made at the edge so that decisions stay pure."""

    reservation_id: str
    id_tag: str
    transaction_id: int
    call_id: str
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the edge brings to every decision: the time, unused ids and the settings."""

    now: datetime
    fresh: Fresh
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What a session costs; rates in minor units, `energy_price` per kWh and possibly fractional, `exponent` as ISO
    4217 has it."""

    currency: str
    exponent: int = 2
    energy_price: Decimal
    session_fee: int = 0
    max_energy_wh: int = 40_000
    minimum_amount: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A registered charge point; `station_id` is its identity case-folded, `identity` the registered spelling."""

    station_id: str
    identity: str
    password_hash: str
    connectors: tuple[int, ...]
    tariff: Tariff
    accepted: bool = True
    free: bool = False
    time_zone: str = "UTC"
    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    firmware: str | None = None
    booted_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """The station's connection; its version moves when the connection or the epoch does, not when the lease is
    renewed."""

    station_id: str
    connection_id: str | None = None
    protocol: Protocol
    epoch: str
    connected_at: datetime
    last_seen_at: datetime
    lease_until: datetime
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStatus:
    """What the station said of a connector in its present epoch."""

    raw: str
    reported_at: datetime
    charger_at: datetime | None = None
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistedStatus:
    """The last status known of a connector, whoever wrote it; from `release_at` on maintenance may make it
    Available."""

    raw: str
    at: datetime
    source: StatusSource
    release_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """The transaction running on a connector, with its latest meter.

    `idle_until` runs once the station called the connector Available though no stop came: then a stop is implied.
    `ends_at` is the hard maximum since it began.
    """

    transaction_id: int
    id_tag: str
    started_at: datetime
    received_at: datetime
    meter_start_wh: int
    energy_wh: int = 0
    power_w: int | None = None
    metered_at: datetime | None = None
    reservation_id: str | None = None
    idle_until: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The one active reservation of a connector; past `expires_at` it blocks nobody."""

    reservation_id: str
    state: ReservationState
    id_tag: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
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
class OutboundCall:
    """A CALL to the station, from decision to answer; sent from `send_at` on, looked after from `due_at`, pointless
    after `expires_at`."""

    station_id: str
    call_id: str
    command: Command
    connector_id: int | None = None
    id_tag: str | None = None
    transaction_id: int | None = None
    reservation_id: str | None = None
    state: CallState = CallState.QUEUED
    send_at: datetime
    due_at: datetime
    expires_at: datetime
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Whose socket a connection id is; never changed after it is written."""

    connection_id: str
    station_id: str
    protocol: Protocol
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """An OCPP transaction; open while `stopped_at` is None."""

    transaction_id: int
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

    transaction_id: int
    station_id: str
    connector_id: int
    readings: tuple[Reading, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The paid hold on a connector, from checkout to settlement, with the tariff frozen into it.

    `carried_wh` is what earlier transactions of it delivered, when its driver started more than once.
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
    start_deadline: datetime | None = None
    start_requested_at: datetime | None = None
    start_accepted_at: datetime | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    ended_at: datetime | None = None
    transaction_id: int | None = None
    carried_wh: int = 0
    energy_wh: int = 0
    amount: int | None = None
    captured_amount: int | None = None
    failure_code: FailureCode | None = None
    version: int = 0

    @property
    def due_at(self) -> datetime | None:
        """When maintenance must look at it: the end of the lock while it can expire, else never."""
        return self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One entry of a reservation's audit trail; `order` tells entries of one moment apart."""

    reservation_id: str
    at: datetime
    order: int = 0
    event: str
    state: ReservationState
    money: Money
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A provider call that is owed; it exists until it was done, and is done again at `due_at` if it still exists."""

    reservation_id: str
    kind: EffectKind
    due_at: datetime | None = None
    attempts: int = 0
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
class Intake:
    """The answer given to a message that must have only one effect, kept to be given again."""

    station_id: str
    digest: str
    answer: dict[str, Any]
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
class Stranger:
    """A station that tried to connect and that nobody registered."""

    station_id: str
    identity: str
    last_seen_at: datetime
    expires_at: datetime


Versioned = Station | Presence | Connector | OutboundCall | Transaction | Reservation | Effect
Record = Connection | MeterSample | Step | IdTag | Intake | TimelineEntry | Stranger


@dataclass(frozen=True, slots=True)
class Save:
    """Store the entity if nobody changed it since it was read."""

    entity: Versioned


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the entity if nobody changed it since it was read."""

    entity: Versioned


@dataclass(frozen=True, slots=True)
class Require:
    """Write nothing unless the entity still is as it was read."""

    entity: Versioned


@dataclass(frozen=True, slots=True)
class Append:
    """Store the record; `once` makes a second one with the same key a conflict."""

    record: Record
    once: bool = False


@dataclass(frozen=True, slots=True)
class Renew:
    """Move the presence's lease on, if the station still has this connection."""

    station_id: str
    connection_id: str
    last_seen_at: datetime
    lease_until: datetime


Write = Save | Drop | Require | Append | Renew


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a decision wants to see beside the station's own items."""

    reservation_id: str | None = None
    transaction_ids: tuple[int, ...] = ()
    id_tag: str | None = None
    digest: str | None = None
    effects: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was read of a station in one consistent Query, and what else the decision at hand asked for.

    A decision makes a changed copy; what differs is what is written (`decided`). `effects` are provider calls owed and
    `records` are facts to append: both are only ever added by decisions.
    """

    station: Station
    presence: Presence | None = None
    connectors: Mapping[int, Connector] = field(default_factory=dict)
    calls: tuple[OutboundCall, ...] = ()
    reservation: Reservation | None = None
    transactions: Mapping[int, Transaction] = field(default_factory=dict)
    tag: IdTag | None = None
    intake: Intake | None = None
    effects: tuple[Effect, ...] = ()
    records: tuple[Append, ...] = ()

    def connector(self, connector_id: int) -> Connector:
        """The connector as stored, or an empty one that was never written."""
        known = self.connectors.get(connector_id)
        return known or Connector(station_id=self.station.station_id, connector_id=connector_id)

    def with_connector(self, connector: Connector) -> Snapshot:
        """The snapshot with this connector in the place of the one it had."""
        return replace(self, connectors={**self.connectors, connector.connector_id: connector})

    def with_transaction(self, transaction: Transaction) -> Snapshot:
        """The snapshot with this transaction in the place of the one it had."""
        return replace(self, transactions={**self.transactions, transaction.transaction_id: transaction})

    def timeline(self, kind: str, moment: Moment, **detail: Any) -> Snapshot:
        """The snapshot with one more line in the station's flight recorder."""
        return self.recording(
            TimelineEntry(
                station_id=self.station.station_id,
                at=moment.now,
                order=len(self.records),
                kind=kind,
                detail={name: value for name, value in detail.items() if value is not None},
                expires_at=moment.now + RECORDS_KEPT,
            )
        )

    def recording(self, *records: Record, once: bool = False) -> Snapshot:
        """The snapshot with these facts to append."""
        return replace(self, records=(*self.records, *(Append(record, once=once) for record in records)))


_Owed = TypeVar("_Owed", Effect, OutboundCall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a decision wants: what to answer and what to store. What to do afterwards is what was stored as owed."""

    reply: Any = None
    writes: tuple[Write, ...] = ()

    @property
    def effects(self) -> tuple[Effect, ...]:
        """The provider calls this outcome owes, as they are stored once it is committed."""
        return tuple(_committed(w.entity) for w in self.writes if isinstance(w, Save) and isinstance(w.entity, Effect))

    @property
    def calls(self) -> tuple[OutboundCall, ...]:
        """The CALLs to the station this outcome queues, as they are stored once it is committed."""
        return tuple(
            _committed(w.entity) for w in self.writes if isinstance(w, Save) and isinstance(w.entity, OutboundCall)
        )


def decided(
    before: Snapshot, after: Snapshot, reply: Any = None, *, requires: tuple[Versioned | None, ...] = ()
) -> Outcome:
    """The outcome that turns one snapshot into the other, on the condition that what is required did not change
    meanwhile."""
    writes: list[Write] = []
    for old, new in _pairs(before, after):
        if new is not None and new != old:
            writes.append(Save(new))
        if old is not None and new is None:
            writes.append(Drop(old))
    saved = {(type(write.entity), _identity(write.entity)) for write in writes if isinstance(write, Save | Drop)}
    writes += [Require(e) for e in requires if e is not None and (type(e), _identity(e)) not in saved]
    return Outcome(reply=reply, writes=(*writes, *after.records))


def _pairs(before: Snapshot, after: Snapshot) -> list[tuple[Versioned | None, Versioned | None]]:
    """Each thing as it was and as it shall be."""
    pairs: list[tuple[Versioned | None, Versioned | None]] = [
        (before.station, after.station),
        (before.presence, after.presence),
        (before.reservation, after.reservation),
    ]
    for old, new in (
        (before.connectors, after.connectors),
        (before.transactions, after.transactions),
        ({call.call_id: call for call in before.calls}, {call.call_id: call for call in after.calls}),
        ({effect.kind: effect for effect in before.effects}, {effect.kind: effect for effect in after.effects}),
    ):
        keys: dict[Any, None] = dict.fromkeys((*old, *new))
        pairs += [(old.get(key), new.get(key)) for key in keys]
    return pairs


def _identity(entity: Versioned) -> Any:
    """What tells two entities of one type apart within a snapshot."""
    match entity:
        case Connector():
            return entity.connector_id
        case OutboundCall():
            return entity.call_id
        case Effect():
            return entity.kind
        case Transaction():
            return entity.transaction_id
        case _:
            return None


def _committed(entity: _Owed) -> _Owed:
    """The entity as it is stored once it was saved."""
    return replace(entity, version=entity.version + 1)


def fold(identity: str) -> str:
    """The form in which station ids and id tags compare: case-insensitive (OCPP 1.6 CiString)."""
    return identity.casefold()


def zulu(at: datetime) -> str:
    """The time as everybody outside is told it: ISO 8601 in UTC, milliseconds, ending in Z (note F60)."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
