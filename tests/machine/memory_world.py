"""Everything that is stored, in memory, for machines that run the decisions without the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, TypeVar

from csms.adapters.dynamodb import KEYS, Key
from csms.model import (
    Append,
    Connector,
    Drop,
    IdempotencyRecord,
    IdTag,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Outcome,
    Policy,
    Presence,
    ReadSet,
    Reservation,
    Save,
    Snapshot,
    Station,
    Transaction,
    Write,
    build_outcome,
    find_tag,
    mark_awaited_call,
)
from csms.model import ReservationState as S
from tests import builders as b
from tests.invariants import PAID_STATES, REACHABLE_MONEY, REACHABLE_STATES

T = TypeVar("T")


@dataclass(slots=True)
class MemoryWorld:
    """Everything that is stored, and the time. A commit checks the versions that were read, and the invariants of
    changes."""

    now: datetime = b.NOW
    entities: dict[Key, Any] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=lambda: count(1))

    def decision_context(self) -> Any:
        """A decision context with the present time and new ids."""
        return b.decision_context(self.now, serial=next(self.serials), **self.settings)

    @property
    def policy(self) -> Policy:
        """The settings as one value."""
        return Policy(**{"max_power_w": b.ANY_POWER_W, "power_tolerance_percent": b.ANY_POWER_W} | self.settings)

    def all(self, kind: type[T]) -> list[T]:
        """All entities of a type, oldest first."""
        return [thing for thing in self.entities.values() if isinstance(thing, kind)]

    def snapshot(self, read_set: Callable[[Snapshot], ReadSet] = lambda _: ReadSet()) -> Snapshot:
        """The snapshot that the service would load."""
        (station,) = self.all(Station)
        presence = next(iter(self.all(Presence)), None)
        seen = Snapshot(
            station=station,
            presence=presence,
            connectors={c.connector_id: c for c in self.all(Connector)},
            calls=mark_awaited_call(presence, tuple(self.all(OutboundCall))),
        )
        wanted = read_set(seen)
        rid = wanted.reservation_id
        if rid is None and wanted.with_ended_reservation:
            ended = [t for t in self.all(Transaction) if t.transaction_id in wanted.transaction_ids]
            rid = next((t.reservation_id for t in ended if t.reservation_id is not None), None)
        found_tag = find_tag(self.all(IdTag), wanted.id_tag) if wanted.id_tag is not None else None
        tagged_id = found_tag.reservation_id if found_tag is not None and wanted.with_tagged_reservation else None
        tagged = self.entities.get((f"RESERVATION#{tagged_id}", "RESERVATION")) if tagged_id != rid else None
        return replace(
            seen,
            reservation=self.entities.get((f"RESERVATION#{rid}", "RESERVATION")),
            tagged_reservation=tagged,
            outbox_items=tuple(
                e
                for e in self.all(OutboxItem)
                if (wanted.with_outbox or wanted.with_ended_reservation) and e.reservation_id == rid
            ),
            transactions={
                t.transaction_id: t for t in self.all(Transaction) if t.transaction_id in wanted.transaction_ids
            },
            tag=found_tag,
            idempotency_record=next((i for i in self.all(IdempotencyRecord) if i.digest == wanted.digest), None),
        )

    def commit(self, writes: tuple[Write, ...]) -> None:
        """Commit all writes, each to a different key and to the version that is stored."""
        keys = [KEYS[type(thing)](thing) for thing in map(_written_entity, writes)]
        assert len(keys) == len(set(keys)), "two writes to one key cannot be committed"
        for write, key in zip(writes, keys, strict=True):
            stored, thing = self.entities.get(key), _written_entity(write)
            if isinstance(write, Append):
                assert not (write.once and stored), f"{key} exists"
                self.entities[key] = thing
                continue
            assert (stored.version if stored else 0) == thing.version, f"{key} was read at another version"
            if isinstance(write, Save):
                self._check_write(stored, thing)
                self.entities[key] = replace(thing, version=thing.version + 1)
            elif isinstance(write, Drop):
                del self.entities[key]
        self.now += timedelta(milliseconds=1)

    def carry_out(
        self, decide: Callable[[Snapshot, Any], Outcome], read_set: Callable[[Snapshot], ReadSet] = lambda _: ReadSet()
    ) -> Any:
        """Run a decision, commit it, and return its reply."""
        outcome = decide(self.snapshot(read_set), self.decision_context())
        self.commit(outcome.writes)
        return outcome.reply

    def change(self, rid: str, move: Callable[[Snapshot, Any], Snapshot], kind: OutboxKind | None = None) -> None:
        """Change the reservation; with `kind` only while that outbox item is owed, as the service does."""

        def decide(before: Snapshot, context: Any) -> Outcome:
            owed = kind is None or any(outbox_item.kind is kind for outbox_item in before.outbox_items)
            return build_outcome(before, move(before, context) if owed else before)

        self.carry_out(decide, lambda _: ReadSet(reservation_id=rid, with_outbox=True))

    def _check_write(self, old: Any, new: Any) -> None:
        if isinstance(new, Reservation) and old is not None:
            assert old.state == new.state or (old.state, new.state) in REACHABLE_STATES, (
                "a reservation never moves backwards"
            )
            assert old.money == new.money or (old.money, new.money) in REACHABLE_MONEY, "money never moves backwards"
            assert old.start_deadline in {None, new.start_deadline}, "a deadline never moves"
            assert old.tariff == new.tariff, "a tariff is frozen"
            begins = new.state is S.CHARGING and old.state is not S.CHARGING
            began_at = self.now if old.late_start is None else new.started_at
            assert not begins or began_at <= new.start_deadline, "nobody starts after the deadline"
        if isinstance(new, Reservation) and new.state in PAID_STATES:
            assert new.reservation_id in self.paid or new.max_amount == 0, "nobody charges unpaid"
        if isinstance(new, Connector) and new.transaction:
            assert new.transaction.energy_wh >= 0, "energy is never negative"


def _written_entity(write: Write) -> Any:
    return write.record if isinstance(write, Append) else write.entity  # type: ignore[union-attr]
