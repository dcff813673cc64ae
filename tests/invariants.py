"""The invariants of reservations, connectors and money, checked on everything that is stored: what may exist at one
time, and how it may change. Each check raises AssertionError with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from csms.charging import review
from csms.charging.reservation import LOCKING_STATES, MONEY_TRANSITIONS, TRANSITIONS
from csms.model import (
    Connector,
    Money,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Presence,
    Reservation,
    StatusSource,
    Transaction,
    mark_awaited_call,
)
from csms.model import ReservationState as S
from csms.pricing import tariff

T = TypeVar("T")


def transitive_closure(pairs: Iterable[tuple[T, T]]) -> frozenset[tuple[T, T]]:
    """All pairs of a state and a state that can be reached from it, including the state itself."""
    known = set(pairs) | {(end, end) for pair in pairs for end in pair}
    while more := {(a, d) for a, x in known for y, d in known if x == y} - known:
        known |= more
    return frozenset(known)


REACHABLE_STATES: Final = transitive_closure({(before, after) for (before, _), after in TRANSITIONS.items()})
REACHABLE_MONEY: Final = transitive_closure(MONEY_TRANSITIONS)
PAID_STATES: Final = frozenset({S.AUTHORIZED, S.START_REQUESTED, S.CHARGING, S.WAITING_FOR_DISCONNECT})
KIND_BY_MONEY: Final[Mapping[Money, OutboxKind]] = {
    Money.CAPTURING: OutboxKind.CAPTURE,
    Money.RELEASING: OutboxKind.RELEASE,
    Money.REFUNDING: OutboxKind.REFUND,
}
CAPTURED_MONEY: Final = frozenset({Money.CAPTURING, Money.CAPTURED, Money.REFUNDING})
UNCAPTURED_MONEY: Final = frozenset({Money.RELEASING, Money.RELEASED, Money.NEEDS_REVIEW})


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is stored, at one time."""

    now: datetime
    entities: tuple[Any, ...] = ()

    def all(self, kind: type[T]) -> list[T]:
        """All entities of a type."""
        return [entity for entity in self.entities if isinstance(entity, kind)]

    def read_calls(self) -> tuple[OutboundCall, ...]:
        """The CALLs as csms reads them: the one that the station's connection has claimed counts as sent."""
        return mark_awaited_call(next(iter(self.all(Presence)), None), tuple(self.all(OutboundCall)))

    @property
    def reservations(self) -> dict[str, Reservation]:
        """The reservations by their ids."""
        return {held.reservation_id: held for held in self.all(Reservation)}

    @property
    def connectors(self) -> dict[int, Connector]:
        """The connectors by their numbers, without those that were never stored."""
        return {connector.connector_id: connector for connector in self.all(Connector)}


def is_beside_lock(held: Reservation) -> bool:
    """Whether the reservation's start was told so late that another driver had its connector: it has no lock, and an
    end."""
    return held.state is S.CHARGING and held.expires_at is not None


def check_lock_ownership(scene: Scene) -> None:
    """Every lock belongs to a reservation that locks this connector. A reservation may have lost its lock only after
    its expiry."""
    for connector in scene.all(Connector):
        if connector.lock is None:
            continue
        held = scene.reservations[connector.lock.reservation_id]
        said = (held.connector_id, held.state, held.id_tag, held.expires_at)
        lock = connector.lock
        assert held.state in LOCKING_STATES, "a lock ends with its reservation"
        assert said == (connector.connector_id, lock.state, lock.id_tag, lock.expires_at), "the lock says the same"
    for held in scene.all(Reservation):
        if held.state not in LOCKING_STATES or (held.expires_at is not None and scene.now > held.expires_at):
            continue
        if is_beside_lock(held):
            continue
        lock = scene.connectors[held.connector_id].lock
        assert lock is not None, "a reservation that holds has its lock"
        assert held.reservation_id == lock.reservation_id, "never two reservations on a connector"


def check_charging_transactions(scene: Scene) -> None:
    """A reservation in Charging locks its connector without an expiry, and its own transaction runs there."""
    for held in scene.all(Reservation):
        if held.state is not S.CHARGING or is_beside_lock(held):
            continue
        running = scene.connectors[held.connector_id].transaction
        assert running is not None, "whoever charges has a transaction"
        assert (held.transaction_id, held.reservation_id) == (running.transaction_id, running.reservation_id)
        assert held.expires_at is None, "nobody is cut off while charging"


def check_money_matches_state(scene: Scene) -> None:
    """A payment is authorized exactly while its reservation may charge; a capture, release or refund under way is in
    the outbox."""
    owed = {
        (outbox_item.reservation_id, outbox_item.kind)
        for outbox_item in scene.all(OutboxItem)
        if outbox_item.due_at is not None
    }
    for held in scene.all(Reservation):
        free = held.max_amount == 0
        holds = held.state in PAID_STATES or held.late_start is not None
        assert (held.money is Money.AUTHORIZED) == (holds and not free), "no hold is forgotten"
        assert held.money is Money.NONE or not free, "what is free moves no money"
        if held.money in KIND_BY_MONEY:
            assert (held.reservation_id, KIND_BY_MONEY[held.money]) in owed, "money on its way is owed"


def check_bill_matches_tariff(scene: Scene) -> None:
    """The bill is what the reservation's own tariff gives for the stored energy and idle time: capped, and nothing
    below the minimum. What was captured, less refunds, equals it."""
    transactions = {t.transaction_id: t for t in scene.all(Transaction)}
    for held in scene.all(Reservation):
        assert held.energy_wh >= 0
        assert (held.amount or 0) <= (held.authorised_amount or 0), "nobody is billed more than was authorized"
        if held.money is Money.CAPTURED:
            kept = (held.captured_amount or 0) - held.refunded_amount
            assert kept == held.amount or review.SETTLED_BY_HAND in held.flags, "what is kept is what was billed"
            assert kept <= (held.amount or 0), "nobody is overcharged"
        if held.state is not S.COMPLETED or held.transaction_id is None:
            continue
        due = tariff.capturable_amount(
            held.tariff, held.energy_wh, held.idle_seconds, authorized=held.authorised_amount or 0
        )
        waived = review.is_meter_doubted(held) and held.amount == 0 and held.money in UNCAPTURED_MONEY
        assert due == held.amount or waived, "the bill is the tariff's"
        ended = transactions[held.transaction_id]
        reported_wh = held.energy_wh - held.carried_wh
        decided = {review.BILLED_BY_HAND, review.BILLED_AT_LOWEST}.intersection(held.flags)
        lowered = decided and reported_wh <= ended.energy_wh
        assert reported_wh == ended.energy_wh or "Underbilled" in held.flags or lowered, (
            "the bill is for the energy on record"
        )


def check_open_transactions(scene: Scene) -> None:
    """The open transactions are those that run on connectors, except transactions from an offline queue."""
    open_ = {t.transaction_id for t in scene.all(Transaction) if t.stopped_at is None and "Offline" not in t.flags}
    running = [c.transaction for c in scene.all(Connector) if c.transaction is not None]
    assert sorted(open_) == sorted(r.transaction_id for r in running)
    assert all(r.energy_wh >= 0 for r in (*running, *scene.all(Transaction))), "energy is never negative"


def check_remote_start_status(scene: Scene) -> None:
    """An Occupied set by a remote start exists only while its reservation locks the connector."""
    for connector in scene.all(Connector):
        if connector.persisted is None or connector.persisted.source is not StatusSource.REMOTE_START:
            continue
        assert connector.lock is not None, "a made-up Occupied ends with its lock"
        assert scene.reservations[connector.lock.reservation_id].start_accepted_at is not None


INVARIANTS: Final[tuple[Callable[[Scene], None], ...]] = (
    check_lock_ownership,
    check_charging_transactions,
    check_money_matches_state,
    check_bill_matches_tariff,
    check_open_transactions,
    check_remote_start_status,
)


def check_bill_falls(old: Reservation, new: Reservation) -> None:
    """A bill only falls once it is made, and so does what is kept of a capture, which is made once."""
    assert old.amount is None or (new.amount is not None and new.amount <= old.amount), "a bill only falls"
    assert old.captured_amount in {None, new.captured_amount}, "a capture is made once"
    assert old.refunded_amount <= new.refunded_amount, "what was given back is not taken again"


def check_scene(before: Scene, after: Scene) -> None:
    """Check that `after` is valid and may follow `before`."""
    for rid, old in before.reservations.items():
        check_bill_falls(old, after.reservations[rid])
    for law in INVARIANTS:
        law(after)
    for rid, old in before.reservations.items():
        new = after.reservations[rid]
        assert (old.state, new.state) in REACHABLE_STATES, "a reservation never moves backwards"
        assert (old.money, new.money) in REACHABLE_MONEY, "money never moves backwards"
        assert old.start_deadline in {None, new.start_deadline}, "a deadline never moves"
        assert (old.tariff, old.max_amount, old.id_tag) == (new.tariff, new.max_amount, new.id_tag), "a deal is a deal"
        reviewed = old.money is Money.NEEDS_REVIEW and old.captured_amount is None
        decided = {review.BILLED_BY_HAND, review.BILLED_AT_LOWEST}.intersection(new.flags)
        billed = decided and old.captured_amount is None
        lowered = new.capture_amount is not None and new.capture_amount <= (old.capture_amount or 0)
        same_bill = old.capture_amount in {None, new.capture_amount}
        assert same_bill or (reviewed and new.capture_amount == new.amount) or (billed and lowered)
        assert old.authorised_amount in {None, new.authorised_amount}
    stopped = {t.transaction_id: t for t in before.all(Transaction) if t.stopped_at is not None}
    for held in after.all(Reservation):
        if review.is_meter_doubted(held) and review.SETTLED_BY_HAND not in held.flags:
            assert held.money not in CAPTURED_MONEY, "what no charger can have delivered is not captured"
    for new_one in after.all(Transaction):
        assert new_one.transaction_id not in stopped or new_one.stopped_at is not None, "what has ended has ended"
