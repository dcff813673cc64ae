"""What a decision reads and what it wants written: a snapshot in, an outcome out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from csms.model.entities import (
    Connector,
    ForeignItem,
    OutboundCall,
    OutboxItem,
    Presence,
    Reservation,
    Station,
    Transaction,
    Turn,
    Versioned,
)
from csms.model.records import (
    IdempotencyRecord,
    IdTag,
    Record,
    TimelineEntry,
)
from csms.model.values import RECORD_RETENTION, CallState, DecisionContext, ForwardCompatible


@dataclass(frozen=True, slots=True)
class Save:
    """Store the entity if it has not changed since it was read."""

    entity: Versioned


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete the entity if it has not changed since it was read."""

    entity: Versioned | ForeignItem


@dataclass(frozen=True, slots=True)
class Require:
    """Write nothing unless the entity is still as it was read."""

    entity: Versioned


@dataclass(frozen=True, slots=True)
class Append:
    """Store the record; with `once`, a second record with the same key is a conflict."""

    record: Record
    once: bool = False


@dataclass(frozen=True, slots=True)
class Renew:
    """Extend the presence's lease, if the station still has this connection and its lease has not ended."""

    station_id: str
    connection_id: str
    last_seen_at: datetime
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim the right to send this CALL over the station's connection, if the presence is still as it was read: of all
    who try at the same time, one succeeds. `version` is the presence's."""

    station_id: str
    version: int
    call_id: str
    until: datetime


Write = Save | Drop | Require | Append | Renew | Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSet:
    """What a decision reads beside the station's own items. `with_outbox` adds the reservation's outbox items;
    `with_ended_reservation` adds the reservation, with its outbox items, of a transaction that no connector runs;
    `with_tagged_reservation` adds the reservation of the web tag if it is another one."""

    reservation_id: str | None = None
    transaction_ids: tuple[str, ...] = ()
    id_tag: str | None = None
    digest: str | None = None
    with_outbox: bool = False
    with_ended_reservation: bool = False
    with_tagged_reservation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that is live of one station, read in one consistent Query, and what else the decision asked for.

    A decision makes a changed copy; `build_outcome` writes the difference. Decisions only add to `records`, which are
    facts to append, and to `verdicts`, the results of the busy rule that the decision used: verdicts are logged and not
    stored, and are ignored in comparisons. `foreign` are the station's items that this release does not know.
    `tagged_reservation` is that of the web tag, where `reservation` is another one or none.
    """

    station: Station
    presence: Presence | None = None
    connectors: Mapping[int, Connector] = field(default_factory=dict)
    calls: tuple[OutboundCall, ...] = ()
    reservation: Reservation | None = None
    tagged_reservation: Reservation | None = None
    transactions: Mapping[str, Transaction] = field(default_factory=dict)
    tag: IdTag | None = None
    idempotency_record: IdempotencyRecord | None = None
    foreign: tuple[ForeignItem, ...] = ()
    outbox_items: tuple[OutboxItem, ...] = ()
    turn: Turn | None = None
    records: tuple[Append, ...] = ()
    verdicts: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)

    @property
    def is_inconsistent(self) -> bool:
        """Whether the reservation was read after a change that the station was read before: its lock, which is always
        written with it, differs from it."""
        r = self.reservation
        if r is None:
            return False
        locks = (
            (n, c.lock) for n, c in self.connectors.items() if c.lock and c.lock.reservation_id == r.reservation_id
        )
        said = (r.connector_id, r.state, r.expires_at)
        return any(said != (number, lock.state, lock.expires_at) for number, lock in locks)

    def connector(self, connector_id: int) -> Connector:
        """The connector as stored, or an empty one that was never written."""
        known = self.connectors.get(connector_id)
        return known or Connector(station_id=self.station.station_id, connector_id=connector_id)

    def with_connector(self, connector: Connector) -> Snapshot:
        """Add the connector, or replace the one with its number."""
        return replace(self, connectors={**self.connectors, connector.connector_id: connector})

    def with_transaction(self, transaction: Transaction) -> Snapshot:
        """Add the transaction, or replace the one with its id."""
        return replace(self, transactions={**self.transactions, transaction.transaction_id: transaction})

    def add_timeline_entry(self, kind: str, context: DecisionContext, **detail: Any) -> Snapshot:
        """Add a line to the station's timeline."""
        return self.add_records(
            TimelineEntry(
                station_id=self.station.station_id,
                at=context.now,
                order=len(self.records),
                kind=kind,
                detail={name: value for name, value in detail.items() if value is not None},
                expires_at=context.now + RECORD_RETENTION,
            )
        )

    def add_verdict(self, verdict: Mapping[str, Any]) -> Snapshot:
        """Add a verdict that the decision used."""
        return replace(self, verdicts=(*self.verdicts, verdict))

    def add_records(self, *records: Record, once: bool = False) -> Snapshot:
        """Add records to append; `once` as in `Append`."""
        return replace(self, records=(*self.records, *(Append(record, once=once) for record in records)))


def mark_awaited_call(presence: Presence | None, calls: tuple[OutboundCall, ...]) -> tuple[OutboundCall, ...]:
    """The CALLs as they were read, with the one that the connection has claimed as SENT: the claim alone is stored when
    a CALL is sent."""
    if presence is None or presence.awaited_call_id is None:
        return calls
    return tuple(
        replace(call, state=CallState.SENT, due_at=presence.awaited_until or call.due_at)
        if call.call_id == presence.awaited_call_id and call.state is CallState.QUEUED
        else call
        for call in calls
    )


_Owed = TypeVar("_Owed", OutboxItem, OutboundCall)
_Rewritten = TypeVar("_Rewritten", bound=ForwardCompatible)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a decision wants: the reply, the writes, the verdicts to log after the commit, and the snapshot after it.
    What is owed to the outside is among the writes."""

    reply: Any = None
    writes: tuple[Write, ...] = ()
    verdicts: tuple[Mapping[str, Any], ...] = ()
    after: Snapshot | None = field(default=None, compare=False)

    @property
    def outbox_items(self) -> tuple[OutboxItem, ...]:
        """The outbox items that this outcome owes, as they are stored after the commit."""
        return tuple(
            _bump_version(w.entity) for w in self.writes if isinstance(w, Save) and isinstance(w.entity, OutboxItem)
        )

    @property
    def presence(self) -> Presence | None:
        """The presence as this outcome stores it; None if it stores none."""
        saved = (w.entity for w in self.writes if isinstance(w, Save) and isinstance(w.entity, Presence))
        return next((replace(presence, version=presence.version + 1) for presence in saved), None)

    @property
    def calls(self) -> tuple[OutboundCall, ...]:
        """The CALLs to the station that this outcome queues, as they are stored after the commit."""
        return tuple(
            _bump_version(w.entity) for w in self.writes if isinstance(w, Save) and isinstance(w.entity, OutboundCall)
        )


def build_outcome(
    before: Snapshot, after: Snapshot, reply: Any = None, *, requires: tuple[Versioned | None, ...] = ()
) -> Outcome:
    """The outcome that changes one snapshot into the other, on the condition that the required entities did not change
    and the station was not deleted meanwhile."""
    writes: list[Write] = []
    for old, new in _pair_entities(before, after):
        if new is not None and new != old:
            writes.append(Save(new if old is None else _carry_over(old, new)))
        if old is not None and new is None:
            writes.append(Drop(old))
    writes += _guard_station(before.station, writes)
    saved = {(type(e), _identity(e)) for e in _entities(writes)}
    writes += [Require(e) for e in requires if e is not None and (type(e), _identity(e)) not in saved]
    return Outcome(reply=reply, writes=(*writes, *after.records), verdicts=after.verdicts, after=after)


def _guard_station(station: Station, writes: list[Write]) -> tuple[Write, ...]:
    """The write of the station that is needed when only new items are written to it: without an item that both commits
    have read, the station could be deleted at the same time."""
    own = [e for e in _entities(writes) if isinstance(e, Station | Presence | Connector | OutboundCall)]
    if not own or any(isinstance(e, Station) or e.version > 0 for e in own):
        return ()
    return (Save(station) if station.version > 0 else Require(station),)


def _carry_over(old: Versioned, new: Versioned) -> Versioned:
    """The new entity with the unknown attributes of the old one, because some decisions build an entity anew instead of
    changing it. In a connector, a lock, a transaction and a stop request keep theirs while they are the same one; a
    status that is reported again is a new one."""
    if isinstance(old, Connector) and isinstance(new, Connector):
        was, lock, ran, running = old.lock, new.lock, old.transaction, new.transaction
        asked, asks = old.stop_request, new.stop_request
        if was is not None and was.kept and lock is not None and was.reservation_id == lock.reservation_id:
            new = replace(new, lock=_copy_kept(was, lock))
        if ran is not None and ran.kept and running is not None and ran.transaction_id == running.transaction_id:
            new = replace(new, transaction=_copy_kept(ran, running))
        if asked is not None and asked.kept and asks is not None and asked.transaction_id == asks.transaction_id:
            new = replace(new, stop_request=_copy_kept(asked, asks))
    return _copy_kept(old, new)


def _copy_kept(old: _Rewritten, new: _Rewritten) -> _Rewritten:
    return replace(new, kept=old.kept) if old.kept and not new.kept else new


def _entities(writes: list[Write]) -> list[Versioned | ForeignItem]:
    """The entities that are saved, dropped or required."""
    return [write.entity for write in writes if isinstance(write, Save | Drop | Require)]


def _pair_entities(before: Snapshot, after: Snapshot) -> list[tuple[Versioned | None, Versioned | None]]:
    """Each entity as it was and as it is to be; None where it is missing."""
    pairs: list[tuple[Versioned | None, Versioned | None]] = [
        (before.station, after.station),
        (before.presence, after.presence),
        (_find_earlier_reservation(before, after), after.reservation),
    ]
    for old, new in (
        (before.connectors, after.connectors),
        (before.transactions, after.transactions),
        ({call.call_id: call for call in before.calls}, {call.call_id: call for call in after.calls}),
        (
            {outbox_item.kind: outbox_item for outbox_item in before.outbox_items},
            {outbox_item.kind: outbox_item for outbox_item in after.outbox_items},
        ),
    ):
        keys: dict[Any, None] = dict.fromkeys((*old, *new))
        pairs += [(old.get(key), new.get(key)) for key in keys]
    return pairs


def _find_earlier_reservation(before: Snapshot, after: Snapshot) -> Reservation | None:
    """The reservation that the decision was about, as it was read: it may be that of the tag."""
    decided, tagged = after.reservation, before.tagged_reservation
    is_tagged = decided is not None and tagged is not None and decided.reservation_id == tagged.reservation_id
    return tagged if is_tagged else before.reservation


def _identity(entity: Versioned | ForeignItem) -> Any:
    """The key that distinguishes entities of one type within a snapshot."""
    match entity:
        case Connector():
            return entity.connector_id
        case OutboundCall():
            return entity.call_id
        case OutboxItem():
            return entity.kind
        case Transaction():
            return entity.transaction_id
        case _:
            return None


def _bump_version(entity: _Owed) -> _Owed:
    """The entity with the version that it has once it was saved."""
    return replace(entity, version=entity.version + 1)
