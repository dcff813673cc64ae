"""Entities as items of the one table, and back: pure functions.

Item formats change between releases. During a deployment and after a rollback, an older release reads what a newer one
wrote. So each item carries the number of its format (`SCHEMA`), `upgrade` brings older items to the present format, and
what this release does not know is left alone (`read_item`) and written back unchanged (`to_item`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from csms.adapters.dynamodb.upgrades import UPGRADES, Item
from csms.adapters.dynamodb.values import Key, format_sortable_time
from csms.errors import StoreUnavailable
from csms.model import (
    AuditEntry,
    CommandRecord,
    Connection,
    Connector,
    ForeignItem,
    ForwardCompatible,
    IdempotencyRecord,
    IdTag,
    InboxSlot,
    KeptMessage,
    MeterSample,
    Money,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Presence,
    ProcessedWebhook,
    Reading,
    Record,
    RefusedConnections,
    Reservation,
    Station,
    StoredEnum,
    TimelineEntry,
    Transaction,
    Turn,
    UnknownStation,
    Versioned,
    WaitingFrame,
    fold,
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The key of a due item that this release cannot read, and why, so that a person can look at it."""

    key: Key
    why: str


Readable = Reservation | OutboxItem | OutboundCall | Connector | Turn
Due = Readable | Unreadable

SCHEMA: Final = 2
"""The number of the format that this release writes; an item without a number has format 1."""

DUE_SHARDS: Final = 4
MAX_WRITES: Final = 100
STATIONS: Final = "STATIONS"
LISTED_MONEY: Final = frozenset(Money) - {Money.NONE, Money.CAPTURED, Money.RELEASED}
"""The money states that the directory index lists: those in which something is still to be done. Reservations with a
money state that this release does not know are listed too."""
LONGEST_TAG: Final = 255
"""A longer tag belongs to no one, because OCPP allows 20 characters (2.0.1: 255), and it would not fit into a key."""


def unknown_stations_list(*, is_steady: bool) -> str:
    """The partition of the unknown stations, steady or not; the latter's is the one that earlier releases read."""
    return "STRANGERS#STEADY" if is_steady else "STRANGERS"


KEYS: Final[Mapping[type, Callable[[Any], Key]]] = {
    Station: lambda e: (f"STATION#{e.station_id}", "STATION"),
    Presence: lambda e: (f"STATION#{e.station_id}", "PRESENCE"),
    Connector: lambda e: (f"STATION#{e.station_id}", f"CONNECTOR#{e.connector_id}"),
    OutboundCall: lambda e: (f"STATION#{e.station_id}", f"CALL#{e.call_id}"),
    Turn: lambda e: (f"STATION#{e.station_id}", "TURN"),
    WaitingFrame: lambda e: (f"LINE#{e.station_id}", f"{format_sortable_time(e.received_at)}#{e.frame_id}"),
    Connection: lambda e: (f"CONNECTION#{e.connection_id}", "CONNECTION"),
    Transaction: lambda e: (f"TRANSACTION#{e.transaction_id}", "TRANSACTION"),
    MeterSample: lambda e: (
        f"TRANSACTION#{e.transaction_id}",
        f"METER#{e.station_id}#{format_sortable_time(e.readings[0].at)}#{_fingerprint(e.readings)}",
    ),
    Reservation: lambda e: (f"RESERVATION#{e.reservation_id}", "RESERVATION"),
    AuditEntry: lambda e: (
        f"RESERVATION#{e.reservation_id}",
        f"EVENT#{format_sortable_time(e.at)}#{e.order:03}#{e.event}",
    ),
    OutboxItem: lambda e: (f"RESERVATION#{e.reservation_id}", f"EFFECT#{e.kind}"),
    ProcessedWebhook: lambda e: (f"WEBHOOK#{e.event_id}", "WEBHOOK"),
    IdTag: lambda e: (f"IDTAG#{fold(e.name or e.tag)}", "IDTAG"),
    CommandRecord: lambda e: (f"COMMANDS#{e.station_id}", f"{format_sortable_time(e.asked_at)}#{e.call_id}"),
    IdempotencyRecord: lambda e: (f"INTAKE#{e.station_id}#{e.digest}", "INTAKE"),
    KeptMessage: lambda e: (f"MESSAGES#{e.station_id}", f"{format_sortable_time(e.at)}#{e.kind}"),
    TimelineEntry: lambda e: (f"TIMELINE#{e.station_id}", f"{format_sortable_time(e.at)}#{e.order:03}#{e.kind}"),
    UnknownStation: lambda e: (unknown_stations_list(is_steady=e.is_steady), e.station_id),
    InboxSlot: lambda e: (f"INBOX#{format_sortable_time(e.minute)}", f"{e.kind}#{e.number:03}"),
    RefusedConnections: lambda e: (f"REFUSED#{e.station_id}", "REFUSED"),
}

TYPE_NAMES: Final[Mapping[type, str]] = {kind: kind.__name__ for kind in KEYS} | {
    AuditEntry: "Step",
    IdempotencyRecord: "Intake",
    OutboxItem: "Effect",
    ProcessedWebhook: "HandledEvent",
    UnknownStation: "Stranger",
}
"""The attribute `type` of each entity's item; five types keep the names that earlier releases stored."""

TYPES: Final[Mapping[str, type]] = {name: kind for kind, name in TYPE_NAMES.items()}
SPARSE: Final = frozenset({"refused_tag"})
"""Attributes of nested values that are not stored while they are None: a connector's item is about as large as what one
unit writes."""

MONEY_KINDS: Final = (Reservation, OutboxItem, Connector)
"""The due items on which money waits: a sweep handles them before any other. A connector is one because the end of its
transaction settles a session."""

SHORT_LIVED: Final = frozenset(
    {
        CommandRecord,
        Connection,
        MeterSample,
        IdTag,
        IdempotencyRecord,
        InboxSlot,
        KeptMessage,
        ProcessedWebhook,
        RefusedConnections,
        TimelineEntry,
        UnknownStation,
        WaitingFrame,
    }
)
"""Items that DynamoDB deletes at some time after `expires_at`; readers compare `expires_at` with the clock
themselves."""

DERIVED_ATTRIBUTES: Final = frozenset(
    {"PK", "SK", "type", "schema", "ttl", "due_shard", "due_at", "directory_shard", "directory_key"}
)
"""Attributes that `to_item` computes anew each time, besides an entity's own."""

_BLOCKING_KEYS: Final = re.compile(r"STATION|PRESENCE|CONNECTOR#\d+|RESERVATION")
"""Sort keys of the items that decide whether a connector is free. An unreadable one must not count as absent (note
F14)."""

_UNREADABLE_ERRORS: Final = (KeyError, TypeError, ValueError)
"""The errors of an item that cannot be read; a type that is a list or a map is unhashable."""

_ADAPTERS: Final = {kind: TypeAdapter[Any](kind) for kind in KEYS}


def table_definition(name: str) -> Item:
    """The table's definition, in the form of `create_table`: one source for the stack, local runs and tests. Its TTL
    attribute is `ttl`."""
    strings = ("PK", "SK", "due_shard", "due_at", "directory_shard", "directory_key")
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": a, "AttributeType": "S"} for a in strings],
        "KeySchema": _key_schema("PK", "SK"),
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "due",
                "KeySchema": _key_schema("due_shard", "due_at"),
                "Projection": {"ProjectionType": "ALL"},
            },
            {
                "IndexName": "directory",
                "KeySchema": _key_schema("directory_shard", "directory_key"),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            },
        ],
    }


def to_item(entity: Versioned | Record) -> Item:
    """The entity as plain DynamoDB attributes: its fields without those that are None, the attributes kept for other
    releases, its key, type and format, and the attributes for the indexes and TTL."""
    kind = type(entity)
    dumped = _ADAPTERS[kind].dump_python(entity, mode="json", exclude=_EXCLUSIONS[kind])
    item: Item = _merge_kept(entity, {k: v for k, v in dumped.items() if v is not None})
    pk, sk = KEYS[kind](entity)
    item |= {"PK": pk, "SK": sk, "type": TYPE_NAMES[kind], "schema": SCHEMA}
    due_at: datetime | None = getattr(entity, "due_at", None)
    if due_at is not None:
        item |= {"due_shard": f"DUE#{_shard(pk)}", "due_at": format_sortable_time(due_at)}
    # Two leases are compared by conditions, and so are in sortable form.
    if isinstance(entity, Presence):
        item |= {"lease_until": format_sortable_time(entity.lease_until)}
    if isinstance(entity, Turn) and entity.held_until is not None:
        item |= {"held_until": format_sortable_time(entity.held_until)}
    if kind in SHORT_LIVED:
        expires_at: datetime | None = getattr(entity, "expires_at", None)
        item |= {"ttl": int(expires_at.timestamp())} if expires_at is not None else {}
    return item | _directory_attributes(entity, pk)


def money_directory(money: Money) -> str:
    """The directory of the reservations in this money state."""
    return f"MONEY#{money}"


def upgrade(item: Item, upgrades: Mapping[int, Callable[[Item], Item]] = UPGRADES) -> Item:
    """The item in the newest format; an item of a newer release stays as it is."""
    for number in range(int(item.get("schema", 1)), max(upgrades) + 1):
        item = upgrades[number](item)
    return item


def from_item(item: Item) -> Any:
    """The entity of an item. Raises KeyError, TypeError or ValueError if this release cannot read it."""
    present = upgrade(item)
    kind = TYPES[present["type"]]
    own = {name: value for name, value in present.items() if name not in _DERIVED_NAMES[kind]}
    try:  # Most items have no unknown values, so the slower preparation is seldom needed.
        return _ADAPTERS[kind].validate_python(own)
    except ValidationError:
        return _ADAPTERS[kind].validate_python(_prepare(kind, own))


def read_item(item: Item) -> Any:
    """The entity of an item that was asked for by its key. Raises StoreUnavailable if this release cannot read it,
    because the item must not count as absent (note F14)."""
    try:
        return from_item(item)
    except _UNREADABLE_ERRORS as failed:
        why = f"{item.get('PK')} {item.get('SK')} cannot be read: {type(failed).__name__}"
        raise StoreUnavailable(f"The item {why}.") from failed


def skim_item(item: Item) -> Any:
    """The entity of an item that a Query found, or ForeignItem for an unreadable one and for a CALL in an unknown
    state. Raises StoreUnavailable for an unreadable item that decides whether a connector is free."""
    try:
        found = from_item(item)
    except _UNREADABLE_ERRORS:
        if _BLOCKING_KEYS.fullmatch(str(item["SK"])):
            return read_item(item)
        return _build_foreign_item(item)
    return _build_foreign_item(item) if isinstance(found, OutboundCall) and not _is_understood(found) else found


def reservation_keys(reservation_id: str) -> list[Key]:
    """The keys of a reservation and of all its possible outbox items."""
    pk = f"RESERVATION#{reservation_id}"
    return [(pk, "RESERVATION"), *((pk, f"EFFECT#{kind}") for kind in OutboxKind)]


def build_key(entity: Versioned | Record | ForeignItem) -> Key:
    """The key of the entity's item."""
    return entity.key if isinstance(entity, ForeignItem) else KEYS[type(entity)](entity)


def read_due_item(item: Item) -> Due:
    """The due entity, or Unreadable if this release cannot read it or does not know its state."""
    key = str(item["PK"]), str(item["SK"])
    try:
        found: Due = from_item(item)
    except _UNREADABLE_ERRORS as failed:
        return Unreadable(key, f"{type(failed).__name__}: {item.get('type')}")
    return found if _is_understood(found) else Unreadable(key, f"UnknownWord: {item.get('type')}")


def _is_understood(due: Due) -> bool:
    """Whether this release knows the states and kinds that say what is to be done with the entity."""
    match due:
        case OutboxItem():
            return due.kind.is_known
        case OutboundCall():
            return due.state.is_known
        case Reservation():
            return due.state.is_known and due.money.is_known
        case _:
            return True


def _build_foreign_item(item: Item) -> ForeignItem:
    version = item.get("version")
    return ForeignItem(key=(str(item["PK"]), str(item["SK"])), version=None if version is None else int(version))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """The attributes of a dataclass, which of them are enums and dataclasses, and whether it keeps unknown
    attributes."""

    names: frozenset[str]
    enums: Mapping[str, type[StoredEnum]]
    values: Mapping[str, type]
    keeps: bool


def _build_shape(kind: Any) -> _Shape:
    known = get_type_hints(kind)
    hints = {f.name: known[f.name] for f in fields(kind)}
    parts = [
        (name, part)
        for name, hint in hints.items()
        if get_origin(hint) is not tuple
        for part in (hint, *get_args(hint))
        if isinstance(part, type)
    ]
    dataclasses: dict[str, list[type]] = {}
    for name, part in parts:
        if is_dataclass(part):
            dataclasses.setdefault(name, []).append(part)
    return _Shape(
        names=frozenset(hints) - {"kept"},
        enums={name: part for name, part in parts if issubclass(part, StoredEnum)},
        values={name: found[0] for name, found in dataclasses.items() if len(found) == 1},
        keeps=issubclass(kind, ForwardCompatible),
    )


def _build_shapes(kinds: Iterable[type]) -> dict[type, _Shape]:
    """The shapes of these dataclasses and of those nested in them."""
    shapes = {kind: _build_shape(kind) for kind in kinds}
    inner = {kind for shape in shapes.values() for kind in shape.values.values()} - set(shapes)
    return shapes | _build_shapes(inner) if inner else shapes


def _build_exclusions(kind: type) -> Item:
    """The kept attributes, which pydantic must not dump, because it would change or reject them."""
    shape = _SHAPES[kind]
    inside = {name: tree for name, value in shape.values.items() if (tree := _build_exclusions(value))}
    return inside | ({"kept": True} if shape.keeps else {})


_SHAPES: Final = _build_shapes(KEYS)
_DERIVED_NAMES: Final = {kind: DERIVED_ATTRIBUTES - _SHAPES[kind].names for kind in KEYS}
_EXCLUSIONS: Final = {kind: _build_exclusions(kind) for kind in KEYS}


def _prepare(kind: type, stored: Any) -> Any:
    """The stored value in a form that pydantic accepts: enum values of any release, and unknown attributes collected in
    `kept`."""
    if not isinstance(stored, Mapping):
        return stored
    shape = _SHAPES[kind]
    value = {name: stored[name] for name in shape.names & stored.keys()}
    for name, word in shape.enums.items():
        if isinstance(value.get(name), str):
            value[name] = word.from_stored(value[name])
    for name, inner in shape.values.items():
        if name in value:
            value[name] = _prepare(inner, value[name])
    if shape.keeps:
        value["kept"] = {name: stored[name] for name in stored.keys() - shape.names}
    return value


def _merge_kept(entity: Any, dumped: Item) -> Item:
    """The dumped dataclass with its kept attributes, and those of the dataclasses nested in it."""
    for name in _SHAPES[type(entity)].values:
        value = getattr(entity, name)
        if value is not None:
            inner = {k: v for k, v in dumped[name].items() if v is not None or k not in SPARSE}
            dumped[name] = _merge_kept(value, inner)
    return {**getattr(entity, "kept", {}), **dumped}


def _key_schema(partition: str, sort: str) -> list[Item]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]


def _directory_attributes(entity: Versioned | Record, pk: str) -> Item:
    """The attributes for the directory index, which lists all stations, and the reservations with money under way."""
    match entity:
        case Station():
            return {"directory_shard": f"{STATIONS}#{_shard(pk)}", "directory_key": pk}
        case Reservation(money=money) if money in LISTED_MONEY or not money.is_known:
            key = f"{format_sortable_time(entity.created_at)}#{entity.reservation_id}"
            return {"directory_shard": f"{money_directory(money)}#{_shard(pk)}", "directory_key": key}
        case _:
            return {}


def _fingerprint(readings: tuple[Reading, ...]) -> str:
    """A checksum that is the same for equal readings, whatever the class of their time zones."""
    alike = tuple(replace(reading, at=reading.at.astimezone(UTC).replace(fold=0)) for reading in readings)
    return f"{zlib.crc32(repr(alike).encode()):08x}"


def _shard(pk: str) -> int:
    return zlib.crc32(pk.encode()) % DUE_SHARDS
