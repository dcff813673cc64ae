"""The scheduled work: end what has timed out and perform what is owed. No decision is wrong because a sweep is late
(note F72)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from itertools import chain, islice
from typing import Final

from csms.adapters.dynamodb import DUE_SHARDS, MONEY_KINDS, Due, Readable, Unreadable
from csms.charging import checkout, due, status
from csms.errors import BadRequest, Conflict, NotFound, StoreUnavailable
from csms.model import (
    Connector,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    ReadSet,
    Reservation,
    Snapshot,
    Station,
    Turn,
    build_outcome,
)
from csms.service.dependencies import Dependencies
from csms.service.flow import Flow
from csms.service.frames import Frames
from csms.service.outbox import build_placeholder_station
from csms.service.reconciliation import Reconciliation, reconcile
from csms.service.unit_of_work import Decide

MAX_FAILURES: Final = 250
"""Failures in one shard after which a sweep leaves its rest to the next one, so that a sweep always ends."""

STATION_SHARE: Final = 20
"""The most CALLs and lines of one station that a sweep handles."""

MOST_READ: Final = 20
"""How many times its limit a sweep reads in one shard, where stations have used up their share."""

FAILURE_PAUSE: Final = timedelta(minutes=10)
"""How long an item that cannot be handled is put off."""


@dataclass(slots=True, kw_only=True)
class SweepReport:
    """What one sweep did: `done` counts items by type, `failed` names those that failed; `put_off` of them are due
    again later, the others at once. `over_share` counts by station what was left because the station has used up its
    share, and `is_complete` is false if the time was up before the rest was handled. `planned` is filled by a dry run
    only."""

    done: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    put_off: int = 0
    over_share: dict[str, int] = field(default_factory=dict)
    is_complete: bool = True
    planned: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        """Count one more item of this type as done."""
        self.done[what] = self.done.get(what, 0) + 1


class Result(Enum):
    """What became of a due item in a sweep."""

    DONE = auto()
    WAITS = auto()
    CONTENDED = auto()
    FAILED = auto()


@dataclass(slots=True, kw_only=True)
class _DueShard:
    """The due items of one shard, and how many more may be done and may fail in this sweep."""

    items: Iterator[Due]
    left: int
    patience: int = MAX_FAILURES

    def take_item(self) -> Due | None:
        """The next item, or None when there are no more or a limit is reached."""
        return next(self.items, None) if self.left > 0 and self.patience > 0 else None

    def count(self, result: Result) -> None:
        """Count an attempt. Neither a failure nor an item that waits uses up `left`, so they do not keep others from
        being done."""
        self.left -= result is Result.DONE
        self.patience -= result in {Result.CONTENDED, Result.FAILED}


class Maintenance:
    """The scheduled part of the service; its dependencies include a payment provider."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._flow = Flow(dependencies)
        self._frames = Frames(dependencies, self._flow)

    def sweep(
        self, *, limit: int = 100, dry_run: bool = False, is_time_up: Callable[[], bool] = lambda: False
    ) -> SweepReport:
        """Handle what is due, at most `limit` items of each shard, until the time is up. An item that fails is
        reported, put off and stops no other (note F73).

        Money's items come first, whatever is due before them; those of a station whose data others keep changing come
        last. Of the rest each station has its share. The shards take turns, so that slow items in one do not delay the
        others.
        """
        report, now = SweepReport(), self._dependencies.now()
        heads = [self._read_head(now, shard, limit) for shard in range(DUE_SHARDS)]
        money = [_DueShard(items=head.money, left=limit) for head in heads]
        rest = [_DueShard(items=head.rest, left=limit) for head in heads]
        share, contended, late = _Share(report), set[str](), list[Due]()
        last = [_DueShard(items=iter(late), left=limit * DUE_SHARDS)]
        for shards in (money, rest, last):
            turns = deque(shards)
            while turns:
                if is_time_up():
                    report.is_complete = False
                    return report
                shard = turns.popleft()
                item = shard.take_item()
                if item is None:
                    continue
                turns.append(shard)
                if shards is money and _find_owner(item) in contended:
                    late.append(item)
                elif shards is not rest or share.take(item):
                    result = self._preview(item, report) if dry_run else self._try_handle(item, report, now)
                    shard.count(result)
                    if result is Result.CONTENDED:
                        contended.add(_find_owner(item))
        return report

    def _read_head(self, now: datetime, shard: int, limit: int) -> _Head:
        """The shard's due items, those of money apart. Where all fit into the first page, it is the only request."""
        store = self._dependencies.store
        items = store.due_items(now, shard=shard, page=limit)
        page = list(islice(items, limit))
        all_money = store.due_money(now, shard=shard) if len(page) == limit else iter(page)
        further = islice(items, MOST_READ * limit)
        return _Head(
            money=(item for item in all_money if isinstance(item, MONEY_KINDS)),
            rest=(item for item in chain(page, further) if not isinstance(item, MONEY_KINDS)),
        )

    def reconcile(self) -> Reconciliation:
        """Compare the provider's open authorizations with the reservations that hold money (service.reconciliation)."""
        return reconcile(self._flow)

    def perform(self, reservation_id: str, kind: OutboxKind) -> str:
        """Perform one outbox item, if it is still owed. Returns "done", "put off" or "nothing owed"."""
        outbox_item = self._dependencies.store.outbox_item(reservation_id, kind)
        if outbox_item is None:
            return "nothing owed"
        self._flow.finish(self._flow.outbox.perform(outbox_item))
        return "put off" if self._dependencies.store.outbox_item(reservation_id, kind) is not None else "done"

    def wake(self, station_id: str, call_id: str | None) -> None:
        """Do what a timer was set for: give up the unanswered CALL and send the next one, and close the transactions
        whose time is over, or process the line of a station. Nothing happens if that was done meanwhile."""
        if call_id is None:
            self._frames.serve_line(station_id)
            return
        try:
            snapshot = self._dependencies.store.snapshot(station_id)
        except NotFound:
            return
        now = self._dependencies.now()
        for connector in snapshot.connectors.values():
            if connector.due_at is not None and connector.due_at <= now:
                self._handle(connector)
        self._flow.send_next(snapshot)

    def _preview(self, item: Due, report: SweepReport) -> Result:
        """Add to the report what a sweep would do with the item; return what would become of it."""
        try:
            report.planned.append(f"{_format_name(item)}: {self._describe(item)}")
        except Exception as failed:  # The sweep would fail in the same way.
            report.planned.append(f"{_format_name(item)}: would fail: {type(failed).__name__}: {failed}")
            return Result.FAILED
        return Result.FAILED if isinstance(item, Unreadable) else Result.DONE

    def _describe(self, item: Due) -> str:
        """What a sweep would do with the item now."""
        match item:
            case Unreadable():
                return f"cannot be read: {item.why}"
            case OutboxItem():
                return f"would {due.describe_outbox_item(item)}"
            case Turn():
                return "would process the frames that wait in line"
            case _:
                plan = _build_plan(item)
                seen = self._flow.units.preview(plan.station_id, plan.decide, plan.find_read_set, absent=plan.absent)
                return f"would {due.describe(item, seen.before, seen.outcome, self._dependencies.build_context())}"

    def _try_handle(self, item: Due, report: SweepReport, now: datetime) -> Result:
        """Handle the item and add the result to the report; return what became of it. One that fails is put off, unless
        that is the database's or a competitor's doing, which the next sweep need not meet again."""
        try:
            is_done = self._handle(item)
        except Exception as failed:  # Whatever this item raises, the others are due too.
            report.failed.append(f"{_format_name(item)}: {type(failed).__name__}: {failed}")
            if isinstance(item, Unreadable):
                return Result.WAITS  # It may be another release's, which is to find it as it left it.
            if isinstance(failed, Conflict):
                return Result.CONTENDED
            if not isinstance(failed, StoreUnavailable):
                report.put_off += self._put_off(item, now)
            return Result.FAILED
        if is_done:
            report.count(type(item).__name__)
        return Result.DONE if is_done else Result.WAITS

    def _put_off(self, item: Readable, now: datetime) -> bool:
        """Make the item due later; return whether it still was due."""
        try:
            self._dependencies.store.put_off(item, now, now + FAILURE_PAUSE)
        except Conflict:
            return False
        return True

    def _handle(self, item: Due) -> bool:
        """Handle the item; return False if there is nothing to do yet, because a CALL waits for its answer."""
        match item:
            case Unreadable():
                raise BadRequest(item.why)
            case OutboxItem():
                self._perform(item)
            case Turn():
                self._frames.serve_line(item.station_id)
            case _:
                plan = _build_plan(item)
                seen = self._flow.commit(plan.station_id, plan.decide, plan.find_read_set, absent=plan.absent)
                return not (isinstance(item, OutboundCall) and due.is_awaited(seen.after, item))
        return True

    def _perform(self, outbox_item: OutboxItem) -> None:
        """Perform the outbox item. The driver of an owed checkout has left: end the reservation first, so that the
        checkout is closed as soon as its id is known."""
        if outbox_item.kind is OutboxKind.OPEN_CHECKOUT:
            held = self._dependencies.store.reservation(outbox_item.reservation_id)
            self._flow.change(
                held,
                lambda s, m: checkout.apply_failed_checkout(s, "The checkout was not opened in time.", m),
                kind=outbox_item.kind,
            )
        self._flow.finish(self._flow.outbox.perform(outbox_item))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """The due items of one shard: those of money, and the rest."""

    money: Iterator[Due]
    rest: Iterator[Due]


class _Share:
    """Each station's share of a sweep."""

    def __init__(self, report: SweepReport) -> None:
        self._report = report
        self._taken: Counter[str] = Counter()

    def take(self, item: Due) -> bool:
        """Whether the item's station has any of its share left, of which the item takes one; if not, count what is
        left undone."""
        if isinstance(item, Unreadable):
            return True  # It costs no request.
        station_id = _find_owner(item)
        if self._taken[station_id] >= STATION_SHARE:
            self._report.over_share[station_id] = self._report.over_share.get(station_id, 0) + 1
            return False
        self._taken[station_id] += 1
        return True


def _find_owner(item: Due) -> str:
    """The station whose share the item takes; for one that cannot be read the partition that it is in."""
    if isinstance(item, Unreadable):
        return item.key[0]
    return item.reservation_id if isinstance(item, OutboxItem) else item.station_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The decision that a sweep takes about a due item, for committing it or for a dry run."""

    station_id: str
    decide: Decide
    find_read_set: Callable[[Snapshot], ReadSet]
    absent: Station | None = None


def _build_plan(item: Reservation | OutboundCall | Connector) -> Plan:
    """The decision that is due for the item."""
    match item:
        case Reservation():
            return Plan(
                station_id=item.station_id,
                decide=lambda before, context: build_outcome(before, checkout.expire(before, context)),
                find_read_set=lambda _: due.find_reservation_read_set(item),
                absent=build_placeholder_station(item),
            )
        case OutboundCall():
            return Plan(
                station_id=item.station_id,
                decide=lambda before, context: due.chase_call(before, item, context),
                find_read_set=lambda before: status.find_status_read_set(before, item),
            )
        case Connector():
            number = item.connector_id
            return Plan(
                station_id=item.station_id,
                decide=lambda before, context: due.tidy_connector(before, number, context),
                find_read_set=lambda before: due.find_connector_read_set(before, number),
            )


def _format_name(item: Due) -> str:
    match item:
        case Reservation():
            return f"Reservation {item.reservation_id}"
        case OutboxItem():
            return f"OutboxItem {item.reservation_id} {item.kind}"
        case OutboundCall():
            return f"Call {item.station_id} {item.kind} {item.call_id}"
        case Connector():
            return f"Connector {item.station_id} {item.connector_id}"
        case Turn():
            return f"Turn {item.station_id}"
        case Unreadable():
            return f"Item {' '.join(item.key)}"
