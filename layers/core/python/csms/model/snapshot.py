"""What a decision reads and what it wants written: snapshot in, outcome out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from csms.model.entities import (
    Connector,
    ForeignItem,
    IdempotencyRecord,
    IdTag,
    OutboundCall,
    OutboxItem,
    Presence,
    Record,
    Reservation,
    Station,
    TimelineEntry,
    Transaction,
    Versioned,
)
from csms.model.values import RECORD_RETENTION, DecisionContext, ForwardCompatible


@dataclass(frozen=True, slots=True)
class Save:
    """Store the entity if nobody changed it since it was read."""

    entity: Versioned


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the entity if nobody changed it since it was read."""

    entity: Versioned | ForeignItem


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
    """Move the presence's lease on, if the station still has this connection and its lease still runs."""

    station_id: str
    connection_id: str
    last_seen_at: datetime
    lease_until: datetime


Write = Save | Drop | Require | Append | Renew


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSet:
    """What a decision wants to see beside the station's own items; with `settled`, also the reservation of a
    transaction that turns out to be over, and what it owes."""

    reservation_id: str | None = None
    transaction_ids: tuple[str, ...] = ()
    id_tag: str | None = None
    digest: str | None = None
    with_outbox: bool = False
    with_ended_reservation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was read of a station in one consistent Query, and what else the decision at hand asked for.

    A decision makes a changed copy; what differs is what is written (`decided`). `effects` are provider calls owed and
    `records` are facts to append: both are only ever added by decisions. So are `verdicts`, the busy rule's words that
    the decision rests on: they are told and not stored, and two snapshots that differ in nothing else are equal.
    `foreign` are the station's items that this release does not understand: no decision sees what is in them.
    """

    station: Station
    presence: Presence | None = None
    connectors: Mapping[int, Connector] = field(default_factory=dict)
    calls: tuple[OutboundCall, ...] = ()
    reservation: Reservation | None = None
    transactions: Mapping[str, Transaction] = field(default_factory=dict)
    tag: IdTag | None = None
    idempotency_record: IdempotencyRecord | None = None
    foreign: tuple[ForeignItem, ...] = ()
    outbox_items: tuple[OutboxItem, ...] = ()
    records: tuple[Append, ...] = ()
    verdicts: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)

    @property
    def is_inconsistent(self) -> bool:
        """Whether the reservation was read after a change that the station was read before: its lock, which is always
        written with it, says something else."""
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
        """The snapshot with this connector in the place of the one it had."""
        return replace(self, connectors={**self.connectors, connector.connector_id: connector})

    def with_transaction(self, transaction: Transaction) -> Snapshot:
        """The snapshot with this transaction in the place of the one it had."""
        return replace(self, transactions={**self.transactions, transaction.transaction_id: transaction})

    def add_timeline_entry(self, kind: str, context: DecisionContext, **detail: Any) -> Snapshot:
        """The snapshot with one more line in the station's flight recorder."""
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
        """The snapshot whose decision rests on this verdict, too."""
        return replace(self, verdicts=(*self.verdicts, verdict))

    def add_records(self, *records: Record, once: bool = False) -> Snapshot:
        """The snapshot with these facts to append."""
        return replace(self, records=(*self.records, *(Append(record, once=once) for record in records)))


_Owed = TypeVar("_Owed", OutboxItem, OutboundCall)
_Rewritten = TypeVar("_Rewritten", bound=ForwardCompatible)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a decision wants: what to answer, what to store, the verdicts to tell of once that is stored, and the
    snapshot as it is then. What to do afterwards is what was stored as owed."""

    reply: Any = None
    writes: tuple[Write, ...] = ()
    verdicts: tuple[Mapping[str, Any], ...] = ()
    after: Snapshot | None = field(default=None, compare=False)

    @property
    def outbox_items(self) -> tuple[OutboxItem, ...]:
        """The provider calls this outcome owes, as they are stored once it is committed."""
        return tuple(
            _bump_version(w.entity) for w in self.writes if isinstance(w, Save) and isinstance(w.entity, OutboxItem)
        )

    @property
    def calls(self) -> tuple[OutboundCall, ...]:
        """The CALLs to the station this outcome queues, as they are stored once it is committed."""
        return tuple(
            _bump_version(w.entity) for w in self.writes if isinstance(w, Save) and isinstance(w.entity, OutboundCall)
        )


def build_outcome(
    before: Snapshot, after: Snapshot, reply: Any = None, *, requires: tuple[Versioned | None, ...] = ()
) -> Outcome:
    """The outcome that turns one snapshot into the other, on the condition that what is required did not change
    meanwhile and that the station was not deleted."""
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
    """What keeps a station from being deleted while the first of something is written to it, and the first of something
    from being written to a station that is deleted: the station itself, where nothing else is written that both have
    read."""
    own = [e for e in _entities(writes) if isinstance(e, Station | Presence | Connector | OutboundCall)]
    if not own or any(isinstance(e, Station) or e.version > 0 for e in own):
        return ()
    return (Save(station) if station.version > 0 else Require(station),)


def _carry_over(old: Versioned, new: Versioned) -> Versioned:
    """The new entity with what was kept of the old one, since some decisions build an entity anew instead of changing
    it. Inside a connector a lock and a transaction are carried on while they are the same one; a status that was told
    anew is another one."""
    if isinstance(old, Connector) and isinstance(new, Connector):
        was, lock, ran, running = old.lock, new.lock, old.transaction, new.transaction
        if was is not None and was.kept and lock is not None and was.reservation_id == lock.reservation_id:
            new = replace(new, lock=_copy_kept(was, lock))
        if ran is not None and ran.kept and running is not None and ran.transaction_id == running.transaction_id:
            new = replace(new, transaction=_copy_kept(ran, running))
    return _copy_kept(old, new)


def _copy_kept(old: _Rewritten, new: _Rewritten) -> _Rewritten:
    return replace(new, kept=old.kept) if old.kept and not new.kept else new


def _entities(writes: list[Write]) -> list[Versioned | ForeignItem]:
    """What is saved, dropped or required."""
    return [write.entity for write in writes if isinstance(write, Save | Drop | Require)]


def _pair_entities(before: Snapshot, after: Snapshot) -> list[tuple[Versioned | None, Versioned | None]]:
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
        (
            {outbox_item.kind: outbox_item for outbox_item in before.outbox_items},
            {outbox_item.kind: outbox_item for outbox_item in after.outbox_items},
        ),
    ):
        keys: dict[Any, None] = dict.fromkeys((*old, *new))
        pairs += [(old.get(key), new.get(key)) for key in keys]
    return pairs


def _identity(entity: Versioned | ForeignItem) -> Any:
    """What tells two entities of one type apart within a snapshot."""
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
    """The entity as it is stored once it was saved."""
    return replace(entity, version=entity.version + 1)
