"""Entities as items of the one table, and the requests that write them: pure functions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import TypeAdapter, ValidationError

from csms.model import (
    Append,
    Connection,
    Connector,
    Drop,
    Effect,
    EffectKind,
    HandledEvent,
    IdTag,
    Intake,
    MeterSample,
    Money,
    OutboundCall,
    Presence,
    Reading,
    Record,
    Renew,
    Require,
    Reservation,
    Save,
    Station,
    Step,
    Stranger,
    TimelineEntry,
    Transaction,
    Versioned,
    Write,
    fold,
)

Item = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An item that is due and cannot be understood: named, so that a human can look at it."""

    key: Key
    why: str


Due = Reservation | Effect | OutboundCall | Connector | Unreadable

DUE_SHARDS: Final = 4
MOST_WRITES: Final = 100
STATIONS: Final = "STATIONS"
LISTED: Final = frozenset(Money) - {Money.NONE, Money.CAPTURED, Money.RELEASED}
"""The money that is under way: somebody has to do something about it yet."""
LONGEST_TAG: Final = 255
"""OCPP's are 20 characters long (2.0.1: 255); a longer one is nobody's, and would be too long for a key."""

KEYS: Final[Mapping[type, Callable[[Any], Key]]] = {
    Station: lambda e: (f"STATION#{e.station_id}", "STATION"),
    Presence: lambda e: (f"STATION#{e.station_id}", "PRESENCE"),
    Connector: lambda e: (f"STATION#{e.station_id}", f"CONNECTOR#{e.connector_id}"),
    OutboundCall: lambda e: (f"STATION#{e.station_id}", f"CALL#{e.call_id}"),
    Connection: lambda e: (f"CONNECTION#{e.connection_id}", "CONNECTION"),
    Transaction: lambda e: (f"TRANSACTION#{e.transaction_id}", "TRANSACTION"),
    MeterSample: lambda e: (
        f"TRANSACTION#{e.transaction_id}",
        f"METER#{e.station_id}#{sortable(e.readings[0].at)}#{_fingerprint(e.readings)}",
    ),
    Reservation: lambda e: (f"RESERVATION#{e.reservation_id}", "RESERVATION"),
    Step: lambda e: (f"RESERVATION#{e.reservation_id}", f"EVENT#{sortable(e.at)}#{e.order:03}#{e.event}"),
    Effect: lambda e: (f"RESERVATION#{e.reservation_id}", f"EFFECT#{e.kind}"),
    HandledEvent: lambda e: (f"WEBHOOK#{e.event_id}", "WEBHOOK"),
    IdTag: lambda e: (f"IDTAG#{fold(e.tag)}", "IDTAG"),
    Intake: lambda e: (f"INTAKE#{e.station_id}#{e.digest}", "INTAKE"),
    TimelineEntry: lambda e: (f"TIMELINE#{e.station_id}", f"{sortable(e.at)}#{e.order:03}#{e.kind}"),
    Stranger: lambda e: ("STRANGERS", e.station_id),
}

TYPES: Final[Mapping[str, type]] = {kind.__name__: kind for kind in KEYS}
SHORT_LIVED: Final = frozenset({Connection, MeterSample, IdTag, Intake, HandledEvent, TimelineEntry, Stranger})
"""What DynamoDB may delete some time after `expires_at`; whoever reads one compares with the clock all the same."""

_ADAPTERS: Final = {kind: TypeAdapter[Any](kind) for kind in KEYS}
_TO_DYNAMODB: Final = TypeSerializer()
_FROM_DYNAMODB: Final = TypeDeserializer()


def table_definition(name: str) -> Item:
    """The table as `create_table` takes it: one source for the stack, the laptop and the tests. TTL attribute:
    `ttl`."""
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
    """The entity as plain DynamoDB attributes: its fields, its key, its type, and what the indexes and TTL need; None
    is left out."""
    kind = type(entity)
    item: Item = {k: v for k, v in _ADAPTERS[kind].dump_python(entity, mode="json").items() if v is not None}
    pk, sk = KEYS[kind](entity)
    item |= {"PK": pk, "SK": sk, "type": kind.__name__}
    due_at: datetime | None = getattr(entity, "due_at", None)
    if due_at is not None:
        item |= {"due_shard": f"DUE#{_shard(pk)}", "due_at": sortable(due_at)}
    if isinstance(entity, Presence):
        item |= {"lease_until": sortable(entity.lease_until)}  # A renewal compares it.
    if kind in SHORT_LIVED:
        expires_at: datetime | None = getattr(entity, "expires_at", None)
        item |= {"ttl": int(expires_at.timestamp())} if expires_at is not None else {}
    return item | _listed(entity, pk)


def money_directory(money: Money) -> str:
    """The directory of the reservations whose money stands so."""
    return f"MONEY#{money}"


def from_item(item: Item) -> Any:
    """The entity an item was made of."""
    return _ADAPTERS[TYPES[item["type"]]].validate_python(item)


def request(table: str, write: Write) -> Item:
    """The TransactWriteItems element for a write."""
    match write:
        case Save(entity):
            put = {"TableName": table, "Item": typed(to_item(replace(entity, version=entity.version + 1)))}
            return {"Put": put | _unchanged(entity)}
        case Drop(entity):
            return {"Delete": {"TableName": table, "Key": keyed(KEYS[type(entity)](entity))} | _unchanged(entity)}
        case Require(entity):
            return {
                "ConditionCheck": {"TableName": table, "Key": keyed(KEYS[type(entity)](entity))} | _unchanged(entity)
            }
        case Append(record, once):
            put = {"TableName": table, "Item": typed(to_item(record))}
            return {"Put": put | ({"ConditionExpression": "attribute_not_exists(PK)"} if once else {})}
        case Renew():
            return {"Update": _renewal(table, write)}


def reservation_keys(reservation_id: str) -> list[Key]:
    """A reservation's own key, and those of all that it may owe."""
    pk = f"RESERVATION#{reservation_id}"
    return [(pk, "RESERVATION"), *((pk, f"EFFECT#{kind}") for kind in EffectKind)]


def readable(item: Item) -> Due:
    """The due entity, or its key and why it is none."""
    try:
        found: Due = from_item(item)
    except (KeyError, TypeError, ValidationError) as failed:  # A list or a map as its type is unhashable.
        return Unreadable((str(item["PK"]), str(item["SK"])), f"{type(failed).__name__}: {item.get('type')}")
    return found


def _unchanged(entity: Versioned) -> Item:
    """The condition that the entity still is as it was read; version 0 was never stored."""
    if entity.version == 0:
        return {"ConditionExpression": "attribute_not_exists(PK)"}
    return {
        "ConditionExpression": "version = :seen",
        "ExpressionAttributeValues": typed({":seen": entity.version}),
    }


def _renewal(table: str, renew: Renew) -> Item:
    return {
        "TableName": table,
        "Key": keyed((f"STATION#{renew.station_id}", "PRESENCE")),
        "UpdateExpression": "SET last_seen_at = :seen, lease_until = :until",
        "ConditionExpression": "connection_id = :mine AND lease_until > :seen",
        "ExpressionAttributeValues": typed(
            {
                ":seen": sortable(renew.last_seen_at),
                ":until": sortable(renew.lease_until),
                ":mine": renew.connection_id,
            }
        ),
    }


def _key_schema(partition: str, sort: str) -> list[Item]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]


def keyed(key: Key) -> Item:
    return typed({"PK": key[0], "SK": key[1]})


def typed(plain: Item) -> Item:
    return {name: _TO_DYNAMODB.serialize(value) for name, value in plain.items()}


def plain(typed: Item) -> Item:
    return {name: _FROM_DYNAMODB.deserialize(value) for name, value in typed.items()}


def sortable(at: datetime) -> str:
    """The time as text of one width, so that its order is the order of time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _listed(entity: Versioned | Record, pk: str) -> Item:
    """What the directory index needs: stations are listed, and reservations as long as their money is under way."""
    match entity:
        case Station():
            return {"directory_shard": f"{STATIONS}#{_shard(pk)}", "directory_key": pk}
        case Reservation(money=money) if money in LISTED:
            key = f"{sortable(entity.created_at)}#{entity.reservation_id}"
            return {"directory_shard": f"{money_directory(money)}#{_shard(pk)}", "directory_key": key}
        case _:
            return {}


def _fingerprint(readings: tuple[Reading, ...]) -> str:
    """The same for equal readings, whichever class of time zone their times have."""
    alike = tuple(replace(reading, at=reading.at.astimezone(UTC).replace(fold=0)) for reading in readings)
    return f"{zlib.crc32(repr(alike).encode()):08x}"


def _shard(pk: str) -> int:
    return zlib.crc32(pk.encode()) % DUE_SHARDS
