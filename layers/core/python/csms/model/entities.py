"""What is stored and changed: the versioned entities, and the values inside them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from csms.model.commands import Command, CommandKind, CommandResult
from csms.model.quirks import Quirk
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
class KeptToday(ForwardCompatible):
    """The kinds of messages that were kept on a day (KeptMessage)."""

    day: date
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownTags(ForwardCompatible):
    """About how many tags of a day were nobody's: guesses, or cards of other sites."""

    day: date
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Station(ForwardCompatible):
    """A registered charge point; `station_id` is its identity case-folded, `identity` the registered spelling.

    `max_power_w` is the most power of one connector, in W; None is `Policy.max_power_w`. `quirks` are those that the
    operator set, None if they are as suggested; `suggested_quirks` are those that its last boot suggested, and
    `learnt_quirks` those that it showed by its answers. All may hold words of another release. `kept_today` bounds how
    many of its messages are kept. `forgotten_connectors` counts what it reported of connectors that nobody registered
    and that are not kept.
    """

    station_id: str
    identity: str
    password_hash: str
    connectors: tuple[int, ...]
    tariff: Tariff
    free: bool = False
    time_zone: str = "UTC"
    max_power_w: int | None = None
    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    firmware: str | None = None
    booted_at: datetime | None = None
    quirks: tuple[str, ...] | None = None
    suggested_quirks: tuple[str, ...] = ()
    learnt_quirks: tuple[str, ...] = ()
    learnt_at: datetime | None = None
    kept_today: KeptToday | None = None
    forgotten_connectors: int = 0
    unknown_tags: UnknownTags | None = None
    version: int = 0

    @property
    def known_quirks(self) -> tuple[str, ...]:
        """The quirks that the station's make suggests, and those that its answers have shown."""
        return tuple(dict.fromkeys((*self.suggested_quirks, *self.learnt_quirks)))

    @property
    def effective_quirks(self) -> tuple[str, ...]:
        """The quirks that count: those that the operator set, else the known ones."""
        return self.known_quirks if self.quirks is None else self.quirks

    def has_quirk(self, quirk: Quirk) -> bool:
        """Whether the station's make does this, as far as is known."""
        return quirk in self.effective_quirks


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence(ForwardCompatible):
    """The station's connection. `version` changes with the connection, the epoch or the claim, not when the lease is
    renewed; `closed_id` is the last connection that is known to be closed. The station was last away from its last
    message at `away_since` to `back_at`.

    `awaited_call_id` is the claim to the one unanswered CALL of this connection (OCPP-J 1.6 4.1.1): it is written
    before the CALL is sent, and `awaited_until` is when the answer is overdue. It has no meaning once there is no such
    CALL any more.
    """

    station_id: str
    connection_id: str | None = None
    closed_id: str | None = None
    protocol: str
    epoch: str
    connected_at: datetime
    last_seen_at: datetime
    lease_until: datetime
    away_since: datetime | None = None
    back_at: datetime | None = None
    awaited_call_id: str | None = None
    awaited_until: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(ForwardCompatible):
    """The line of frames that wait to be processed one after the other, because many of one station came at once; it
    exists only while there are any.

    `holder` processes them, and `held_until` is its lease. `version` counts those who joined the line too, so that a
    holder which has found the line empty cannot end it while another frame joins. From `due_at` on maintenance takes
    over what a holder left behind.
    """

    station_id: str
    holder: str | None = None
    held_until: datetime | None = None
    due_at: datetime
    version: int = 0

    def is_held(self, now: datetime) -> bool:
        """Whether somebody processes the line."""
        return self.held_until is not None and now < self.held_until


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFrame(ForwardCompatible):
    """A station's frame in the line, in the order of receipt. With `answered` its answer was given already, and is not
    sent again."""

    station_id: str
    frame_id: str
    connection_id: str
    protocol: str
    received_at: datetime
    text: str
    answered: bool = False
    expires_at: datetime
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStatus(ForwardCompatible):
    """What the station reported of a connector in its present epoch: the raw status and its meaning. `unstarted` is set
    for a car that was plugged in and not started until the station stopped waiting for that."""

    raw: str
    state: ConnectorState
    reported_at: datetime
    charger_at: datetime | None = None
    epoch: str
    unstarted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistedStatus(ForwardCompatible):
    """The last known status of a connector, from any source. From `release_at` on maintenance may set it to Available;
    one without `at` is stale."""

    raw: str
    state: ConnectorState
    at: datetime | None = None
    source: StatusSource
    release_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorClose(ForwardCompatible):
    """An operator's close of a transaction, who asked for it and why; the station's own stop counts until `due_at`."""

    who: str
    reason: str
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction(ForwardCompatible):
    """The transaction running on a connector, with its latest meter values; energy in Wh, power in W.

    `idle_until` is when a stop is implied, set once the station reports the connector Available without a stop.
    `occupied_at` is when the station last reported the connector in use during the transaction. `ends_at` is the latest
    end; at `stop_at_wh` the station is asked to stop (note F65). `evidence` is what the meter has shown so far, as
    `csms.charging.energy` stores it, and `doubted` is set while that leaves the energy in doubt. `closing`
    is set while an operator's close waits for the station's stop.
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
    evidence: str = ""
    doubted: bool = False
    closing: OperatorClose | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest(ForwardCompatible):
    """A transaction that the station was asked to stop and has not stopped, whether it still runs in our books or csms
    has closed it.

    `from_wh` is the register's value from which on nobody pays, `unpaid_wh` what was delivered since. From `refused_at`
    on the operator sees it. A `dormant` one asks nothing until the transaction, which seemed over, is metered again.
    """

    transaction_id: str
    asked_at: datetime
    last_asked_at: datetime
    from_wh: int
    unpaid_wh: int = 0
    refused_at: datetime | None = None
    dormant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock(ForwardCompatible):
    """The one active reservation of a connector; after `expires_at` it no longer makes the connector busy.
    `refused_tag` is its first tag, if the station refused that."""

    reservation_id: str
    state: ReservationState
    id_tag: str
    refused_tag: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector(ForwardCompatible):
    """Everything that decides whether a connector is busy; connector 0 is the whole station and cannot be reserved.

    `plugged` is the epoch in which an OCPP 2.0.1 station reported that a car is connected and nothing charges.
    `stop_request` is the transaction that the station was asked to stop and goes on with.
    """

    station_id: str
    connector_id: int
    live: LiveStatus | None = None
    persisted: PersistedStatus | None = None
    transaction: OpenTransaction | None = None
    lock: Lock | None = None
    plugged: str | None = None
    stop_request: StopRequest | None = None
    version: int = 0

    @property
    def due_at(self) -> datetime | None:
        """When maintenance must handle the connector: to close a transaction that is over, or to release a persisted
        status while there is no transaction and no lock; None for never."""
        if self.transaction is not None:
            running = self.transaction
            close_at = running.closing.due_at if running.closing is not None else None
            return min((at for at in (running.idle_until, running.ends_at, close_at) if at is not None), default=None)
        if self.lock is not None or self.persisted is None:
            return None
        return self.persisted.release_at


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundCall(ForwardCompatible):
    """A command to the station, from the decision to the answer: who asked for it and why, the reservation that waits
    for it, and the CALL that carries it.

    It may be sent from `send_at`, is due for maintenance at `due_at`, and is pointless after `expires_at`. `repeats` is
    the first CALL of a command that the station may have accepted already, with its answer lost. `told` is set when the
    requested status has come before the answer. `result` is the answer of a PROMISED call, whose status is still to
    come.
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
        """The kind of the command."""
        return self.command.kind

    @property
    def connector_id(self) -> int | None:
        """The connector that the command names; None if it names none."""
        return getattr(self.command, "connector_id", None)

    @property
    def transaction_id(self) -> str | None:
        """The transaction that the command names; None if it names none."""
        return getattr(self.command, "transaction_id", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction(ForwardCompatible):
    """An OCPP transaction, energy in Wh; open while `stopped_at` is None. `unsupported_wh` of its energy is not
    supported by its meter values; `evidence` is what the meter had shown when csms ended it.
    """

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
    unsupported_wh: int = 0
    evidence: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LateStart(ForwardCompatible):
    """Until when the money of an ended reservation is held, because a start may have happened that the station has not
    reported yet; `is_away` says whether the station was away when that was decided."""

    until: datetime
    is_away: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation(ForwardCompatible):
    """A driver's session on a connector, from checkout to the settled bill, with the tariff frozen into it; amounts in
    minor units, energy in Wh.

    `carried_wh` is what earlier transactions delivered, when the driver started more than once. Where the meter is
    doubted, `energy_wh` is the most that can have been delivered, and its values do not support `unsupported_wh` of it;
    at `decide_by` the rest is billed unless a person has decided. `idle_seconds` is the
    chargeable idle time of closed spells; `idle_since` is the start of the running one. `amount` is the bill, which a
    correction may lower; `capture_amount` is the bill as settled, so `captured_amount - amount` is to be refunded, and
    `refunded_amount` of it was. `capture_before` is when the authorization lapses, and `settle_by` when the session is
    settled at the latest (note F69). Until `close_by` the provider is asked how a timed-out checkout ended (note F64).
    `review` is why an operator must decide about the money. `start_command_id` is the first CALL that requested the
    start, None again if it was never sent. `late_start` is set while an ended reservation still holds its money.
    `refused_tag` is its first tag, if the station refused a start with that and was asked with `id_tag` then.
    `provider` is the provider of its payment, whatever new reservations use; reservations stored without it are
    Stripe's.
    """

    reservation_id: str
    station_id: str
    identity: str
    connector_id: int
    state: ReservationState
    money: Money = Money.NONE
    id_tag: str
    refused_tag: str | None = None
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
    late_start: LateStart | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    ended_at: datetime | None = None
    transaction_id: str | None = None
    carried_wh: int = 0
    energy_wh: int = 0
    unsupported_wh: int = 0
    decide_by: datetime | None = None
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
        """When maintenance must handle the reservation: at `close_by`, `decide_by` or the end of `late_start` if set,
        otherwise when the lock expires; None for never."""
        hold = self.late_start
        return self.close_by or self.decide_by or (self.expires_at if hold is None else hold.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem(ForwardCompatible):
    """A provider call or receipt that is owed; it is deleted when it is done, and attempted again at `due_at` until
    then.

    Without `due_at` it was given up. `attempts` counts all attempts, `spent` those before an operator's last retry.
    """

    reservation_id: str
    kind: OutboxKind
    due_at: datetime | None = None
    attempts: int = 0
    spent: int = 0
    last_error: str | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignItem:
    """An item of a station that this release does not know. It is left alone, and deleted only with its station;
    `version` is None if the item has none."""

    key: tuple[str, str]
    version: int | None = None


Versioned = Station | Presence | Connector | OutboundCall | Transaction | Reservation | OutboxItem | Turn | WaitingFrame
