"""The DynamoDB table in memory, with the same conditions on every write."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from threading import Lock
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from csms.adapters.dynamodb import (
    MAX_WRITES,
    MONEY_KINDS,
    Due,
    Item,
    Key,
    Readable,
    Store,
    build_key,
    from_item,
    read_due_item,
    read_item,
    skim_item,
    to_item,
)
from csms.adapters.dynamodb.values import format_sortable_time
from csms.errors import Conflict, StoreUnavailable
from csms.model import (
    Append,
    Claim,
    CommandRecord,
    Drop,
    KeptMessage,
    Renew,
    Require,
    Save,
    TimelineEntry,
    Turn,
    WaitingFrame,
    Write,
)


class FakeStore(Store):
    """The table in memory: Store's own methods over a dictionary of items, which are converted to DynamoDB's types and
    back.

    With `unavailable` every request fails, as with a table that does not answer.
    """

    def __init__(self) -> None:
        self.unavailable = False
        self._items: dict[Key, Item] = {}
        self._lock = Lock()

    def entities(self) -> list[Any]:
        """All stored entities, in the order of their keys."""
        return [from_item(item) for _, item in sorted(self._current_items().items())]

    def items(self) -> list[Item]:
        """All items as plain values, in the order of their keys."""
        return [item for _, item in sorted(self._current_items().items())]

    def commit(self, writes: Iterable[Write]) -> None:
        """Commit all of the writes. Raises Conflict, and commits none, if a condition fails."""
        wanted = list(writes)
        if not wanted:
            return
        self._require_available()
        keys = [_write_key(write) for write in wanted]
        if len(set(keys)) < len(keys) or len(wanted) > MAX_WRITES:
            raise StoreUnavailable("The database answered ValidationException.")
        with self._lock:
            changed = dict(self._items)
            for key, write in zip(keys, wanted, strict=True):
                self._apply(changed, key, write, alone=len(wanted) == 1)
            self._items = changed

    def put(self, item: Item) -> None:
        """Store an item that no entity made, such as one of another release."""
        with self._lock:
            self._items = self._items | {(item["PK"], item["SK"]): _round_trip(item)}

    def due_items(self, now: datetime, *, shard: int, page: int) -> Iterator[Due]:  # noqa: ARG002 - it has no pages
        """What is due in the shard, oldest first, without pages."""
        self._require_available()
        mine = [item for item in self._current_items().values() if item.get("due_shard") == f"DUE#{shard}"]
        waiting = [item for item in mine if datetime.fromisoformat(item["due_at"]) <= now]
        for item in sorted(waiting, key=lambda item: str(item["due_at"])):
            yield read_due_item(item)

    def due_money(self, now: datetime, *, shard: int) -> Iterator[Due]:
        """The shard's due items of money alone, oldest first."""
        found = self.due_items(now, shard=shard, page=1)
        return (due for due in found if isinstance(due, MONEY_KINDS))

    def put_off(self, due: Readable, now: datetime, until: datetime) -> None:
        """Make the due item due later. Raises Conflict if it is not due any more."""
        self._require_available()
        key = build_key(due)
        with self._lock:
            item = self._items.get(key)
            if item is None or str(item.get("due_at", "~")) > format_sortable_time(now):
                raise Conflict("It is not due any more.")
            self._items = self._items | {key: item | {"due_at": format_sortable_time(until)}}

    def timeline(self, station_id: str, *, limit: int) -> tuple[TimelineEntry, ...]:
        """The station's latest timeline entries, newest first."""
        newest = reversed(list(self._query(f"TIMELINE#{station_id}")))
        return tuple(entry for entry in newest if isinstance(entry, TimelineEntry))[:limit]

    def commands(self, station_id: str, *, limit: int) -> tuple[CommandRecord, ...]:
        """The station's completed commands, newest first."""
        newest = reversed(list(self._query(f"COMMANDS#{station_id}")))
        return tuple(record for record in newest if isinstance(record, CommandRecord))[:limit]

    def messages(
        self, station_id: str, *, limit: int, after: str | None = None
    ) -> tuple[tuple[KeptMessage, ...], str | None]:
        """A page of the station's kept messages, newest first, and the key of the next page; None after the last."""
        found = [e for e in self._query(f"MESSAGES#{station_id}") if isinstance(e, KeptMessage)]
        older = [e for e in reversed(found) if after is None or build_key(e)[1] < after]
        return tuple(older[:limit]), build_key(older[limit - 1])[1] if len(older) > limit else None

    def _read_keys_after(self, pk: str, start: str, limit: int) -> list[Any]:
        """At most `limit` entities of the partition, in order of their sort keys, which come after `start`."""
        return list(islice((e for e in self._query(pk) if build_key(e)[1] > start), limit))

    def _read_directory(self, name: str, limit: int, after: str | None) -> tuple[list[str], str | None]:
        """A page of a directory's keys, and where the next one begins; None after the last."""
        self._require_available()
        rows = [
            i for i in self._current_items().values() if str(i.get("directory_shard", "")).rpartition("#")[0] == name
        ]
        rows.sort(key=lambda item: (item["directory_shard"], item["directory_key"]))
        keys = [str(item["directory_key"]) for item in rows]
        start = keys.index(after) + 1 if after is not None else 0
        page = keys[start : start + limit]
        return page, page[-1] if len(page) == limit else None

    def join_line(self, frame: WaitingFrame, now: datetime) -> Turn:
        """Put the frame into its station's line, and return the turn."""
        self.commit([Save(frame)])
        return self._change_turn(
            frame.station_id, lambda old: old or Turn(station_id=frame.station_id, due_at=now), lambda _: True
        )

    def take_turn(self, turn: Turn, now: datetime) -> Turn:
        """Store that `turn.holder` processes the line. Raises Conflict if somebody else does, or if it has ended."""
        return self._change_turn(turn.station_id, lambda _: turn, lambda old: old is not None and not old.is_held(now))

    def hand_over_turn(self, turn: Turn, now: datetime) -> None:
        """Store that nobody processes the line now. Raises Conflict if another one has taken it over."""
        free = replace(turn, holder=None, held_until=None, due_at=now)
        self._change_turn(turn.station_id, lambda _: free, lambda old: old is not None and old.holder == turn.holder)

    def line(self, station_id: str, *, limit: int) -> tuple[WaitingFrame, ...]:
        """The first frames in the station's line, in the order of receipt."""
        return tuple(islice((e for e in self._query(f"LINE#{station_id}") if isinstance(e, WaitingFrame)), limit))

    def _change_turn(
        self, station_id: str, change: Callable[[Turn | None], Turn], allow: Callable[[Turn | None], bool]
    ) -> Turn:
        """Store the changed turn, with one more in its version."""
        self._require_available()
        with self._lock:
            key = (f"STATION#{station_id}", "TURN")
            old: Turn | None = read_item(self._items[key]) if key in self._items else None
            if not allow(old):
                raise Conflict("Somebody else changed it first.")
            new = replace(change(old), version=(old.version if old is not None else 0) + 1)
            self._items = self._items | {key: _round_trip(to_item(new))}
            return new

    def _apply(self, items: dict[Key, Item], key: Key, write: Write, *, alone: bool) -> None:
        standing = items.get(key)
        match write:
            case Save(entity):
                wanted = _round_trip(to_item(replace(entity, version=entity.version + 1)))
                if not (alone and standing == wanted):
                    _require_version(standing, entity.version)
                items[key] = wanted
            case Drop(entity):
                _require_version(standing, entity.version)
                items.pop(key, None)
            case Require(entity):
                _require_version(standing, entity.version)
            case Append(record, once):
                wanted = _round_trip(to_item(record))
                if once and standing is not None and not (alone and standing == wanted):
                    raise Conflict("Somebody else changed it first.")
                items[key] = wanted
            case Renew():
                mine = standing is not None and standing.get("connection_id") == write.connection_id
                if (
                    standing is None
                    or not mine
                    or datetime.fromisoformat(standing["lease_until"]) <= write.last_seen_at
                ):
                    raise Conflict("Somebody else changed it first.")
                items[key] = standing | {
                    "last_seen_at": write.last_seen_at.isoformat(),
                    "lease_until": write.lease_until.isoformat(),
                }
            case Claim():
                _require_version(standing, write.version)
                items[key] = (standing or {}) | {
                    "awaited_call_id": write.call_id,
                    "awaited_until": write.until.isoformat(),
                    "version": write.version + 1,
                }

    def _get(self, key: Key) -> Any:
        self._require_available()
        item = self._current_items().get(key)
        return read_item(item) if item else None

    def _batch_get(self, keys: list[Key]) -> list[Any]:
        return [found for key in keys if (found := self._get(key)) is not None]

    def _query(self, pk: str) -> Iterator[Any]:
        self._require_available()
        yield from (skim_item(item) for key, item in sorted(self._current_items().items()) if key[0] == pk)

    def _current_items(self) -> dict[Key, Item]:
        """The present items; a commit replaces the dictionary."""
        with self._lock:
            return self._items

    def _require_available(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("The database answered nothing.")


def _write_key(write: Write) -> Key:
    match write:
        case Renew() | Claim():
            return f"STATION#{write.station_id}", "PRESENCE"
        case Append(record):
            return build_key(record)
        case Save(entity) | Drop(entity) | Require(entity):
            return build_key(entity)


def _require_version(standing: Item | None, version: int | None) -> None:
    """Raise Conflict unless the item has this version. Version 0 means that it does not exist, None that it exists
    without a version."""
    if version is None and standing is not None and "version" not in standing:
        return
    known = int(standing["version"]) if standing is not None and "version" in standing else 0
    if known != version or (version == 0 and standing is not None):
        raise Conflict("Somebody else changed it first.")


def _round_trip(item: Item) -> Item:
    there, back = TypeSerializer(), TypeDeserializer()
    return {name: back.deserialize(there.serialize(value)) for name, value in item.items()}
