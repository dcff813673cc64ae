"""The one table: how entities become items, and the few requests that read and write them.

Requests are built by pure functions and sent by Store. Each write carries the version that was read (csms.model.Write);
a write that lost the race raises Conflict and has written nothing.

| access pattern | request |
| --- | --- |
| a station and all that is live of it | Query PK = STATION#<id>, strongly consistent |
| what a decision needs besides | BatchGetItem, strongly consistent |
| whose connection is this | GetItem CONNECTION#<id> |
| a reservation and its audit trail | Query PK = RESERVATION#<id>, strongly consistent |
| commit | TransactWriteItems; PutItem or DeleteItem when it is a lone write |
| heartbeat | UpdateItem |
| what is due | Query on index `due`, one per shard |
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import TypeAdapter, ValidationError

from csms.errors import Conflict, NotFound, StoreUnavailable
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
    Needs,
    OutboundCall,
    Presence,
    Record,
    Renew,
    Require,
    Reservation,
    Save,
    Snapshot,
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
        f"METER#{e.station_id}#{_sortable(e.readings[0].at)}#{zlib.crc32(repr(e.readings).encode()):08x}",
    ),
    Reservation: lambda e: (f"RESERVATION#{e.reservation_id}", "RESERVATION"),
    Step: lambda e: (f"RESERVATION#{e.reservation_id}", f"EVENT#{_sortable(e.at)}#{e.order:03}#{e.event}"),
    Effect: lambda e: (f"RESERVATION#{e.reservation_id}", f"EFFECT#{e.kind}"),
    HandledEvent: lambda e: (f"WEBHOOK#{e.event_id}", "WEBHOOK"),
    IdTag: lambda e: (f"IDTAG#{fold(e.tag)}", "IDTAG"),
    Intake: lambda e: (f"INTAKE#{e.station_id}#{e.digest}", "INTAKE"),
    TimelineEntry: lambda e: (f"TIMELINE#{e.station_id}", f"{_sortable(e.at)}#{e.order:03}#{e.kind}"),
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
        item |= {"due_shard": f"DUE#{_shard(pk)}", "due_at": _sortable(due_at)}
    if kind in SHORT_LIVED:
        expires_at: datetime | None = getattr(entity, "expires_at", None)
        item |= {"ttl": int(expires_at.timestamp())} if expires_at is not None else {}
    if kind is Station:
        item |= {"directory_shard": f"STATIONS#{_shard(pk)}", "directory_key": pk}
    return item


def from_item(item: Item) -> Any:
    """The entity an item was made of."""
    return _ADAPTERS[TYPES[item["type"]]].validate_python(item)


def request(table: str, write: Write) -> Item:
    """The TransactWriteItems element for a write."""
    match write:
        case Save(entity):
            put = {"TableName": table, "Item": _typed(to_item(replace(entity, version=entity.version + 1)))}
            return {"Put": put | _unchanged(entity)}
        case Drop(entity):
            return {"Delete": {"TableName": table, "Key": _key(KEYS[type(entity)](entity))} | _unchanged(entity)}
        case Require(entity):
            return {
                "ConditionCheck": {"TableName": table, "Key": _key(KEYS[type(entity)](entity))} | _unchanged(entity)
            }
        case Append(record, once):
            put = {"TableName": table, "Item": _typed(to_item(record))}
            return {"Put": put | ({"ConditionExpression": "attribute_not_exists(PK)"} if once else {})}
        case Renew():
            return {"Update": _renewal(table, write)}


class Store:
    """The table, read and written; `client` is a boto3 DynamoDB client."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def snapshot(self, station_id: str) -> Snapshot:
        """The station and all that is live of it, consistent; NotFound if nobody registered it."""
        entities = list(self._query(f"STATION#{station_id}"))
        station = next((e for e in entities if isinstance(e, Station)), None)
        if station is None:
            raise NotFound("There is no such station.", code="UnknownStation")
        return Snapshot(
            station=station,
            presence=next((e for e in entities if isinstance(e, Presence)), None),
            connectors={e.connector_id: e for e in entities if isinstance(e, Connector)},
            calls=tuple(e for e in entities if isinstance(e, OutboundCall)),
        )

    def complete(self, snapshot: Snapshot, needs: Needs) -> Snapshot:
        """The snapshot with what the decision needs besides; no request if it needs nothing."""
        keys: list[Key] = [(f"TRANSACTION#{number}", "TRANSACTION") for number in needs.transaction_ids]
        if needs.reservation_id is not None:
            named = _reservation_keys(needs.reservation_id)
            keys += named if needs.effects else named[:1]
        if needs.id_tag is not None and len(needs.id_tag) <= LONGEST_TAG:
            keys.append((f"IDTAG#{fold(needs.id_tag)}", "IDTAG"))
        if needs.digest is not None:
            keys.append((f"INTAKE#{snapshot.station.station_id}#{needs.digest}", "INTAKE"))
        found = self._batch(keys) if keys else []
        if needs.settled and needs.reservation_id is None:
            ended = (e.reservation_id for e in found if isinstance(e, Transaction) and e.stopped_at is not None)
            found += self._batch([key for rid in ended if rid is not None for key in _reservation_keys(rid)])
        return replace(
            snapshot,
            reservation=next((e for e in found if isinstance(e, Reservation)), None),
            effects=tuple(e for e in found if isinstance(e, Effect)),
            transactions={e.transaction_id: e for e in found if isinstance(e, Transaction)},
            tag=next((e for e in found if isinstance(e, IdTag)), None),
            intake=next((e for e in found if isinstance(e, Intake)), None),
        )

    def reservation(self, reservation_id: str) -> Reservation:
        """The reservation, consistent; NotFound if there is none."""
        found = self._get((f"RESERVATION#{reservation_id}", "RESERVATION"))
        if not isinstance(found, Reservation):
            raise NotFound("There is no such reservation.", code="UnknownReservation")
        return found

    def reservation_with_steps(self, reservation_id: str) -> tuple[Reservation, tuple[Step, ...]]:
        """The reservation and its audit trail in order; NotFound if there is none."""
        entities = list(self._query(f"RESERVATION#{reservation_id}"))
        held = next((e for e in entities if isinstance(e, Reservation)), None)
        if held is None:
            raise NotFound("There is no such reservation.", code="UnknownReservation")
        return held, tuple(e for e in entities if isinstance(e, Step))

    def transaction(self, transaction_id: int) -> Transaction:
        """The transaction, consistent; NotFound if there is none."""
        found = self._get((f"TRANSACTION#{transaction_id}", "TRANSACTION"))
        if not isinstance(found, Transaction):
            raise NotFound("There is no such transaction.", code="UnknownTransaction")
        return found

    def stranger(self, station_id: str) -> Stranger:
        """The station that tried to connect and that nobody registered; NotFound if none of that name did."""
        found = self._get(("STRANGERS", station_id))
        if not isinstance(found, Stranger):
            raise NotFound("No such station has tried to connect.", code="UnknownStranger")
        return found

    def connection(self, connection_id: str) -> Connection:
        """Whose socket this is; NotFound if it was never accepted."""
        found = self._get((f"CONNECTION#{connection_id}", "CONNECTION"))
        if not isinstance(found, Connection):
            raise NotFound("There is no such connection.", code="UnknownConnection")
        return found

    def effect(self, reservation_id: str, kind: EffectKind) -> Effect | None:
        """The provider call if it is still owed."""
        found = self._get((f"RESERVATION#{reservation_id}", f"EFFECT#{kind}"))
        return found if isinstance(found, Effect) else None

    def due(self, now: datetime, *, limit: int) -> Iterator[Due]:
        """What is due by now, oldest first within each shard, at most `limit` a shard; what cannot be understood counts
        for nothing.

        The index may lag, so each is checked again when it is acted on.
        """
        for shard in range(DUE_SHARDS):
            left = limit
            for item in self._pages(
                {
                    "IndexName": "due",
                    "KeyConditionExpression": "due_shard = :shard AND due_at <= :now",
                    "ExpressionAttributeValues": _typed({":shard": f"DUE#{shard}", ":now": _sortable(now)}),
                    "Limit": limit,
                }
            ):
                found = _readable(item)
                left -= not isinstance(found, Unreadable)
                yield found
                if not left:
                    break

    def timeline(self, station_id: str, *, limit: int) -> tuple[TimelineEntry, ...]:
        """The station's latest timeline entries, newest first."""
        return tuple(self._newest(f"TIMELINE#{station_id}", limit))

    def strangers(self, *, limit: int) -> tuple[Stranger, ...]:
        """Stations that tried to connect and that nobody registered."""
        return tuple(self._newest("STRANGERS", limit))

    def stations(self, *, limit: int, after: str | None = None) -> tuple[tuple[str, ...], str | None]:
        """The ids of registered stations, shard by shard, and where the next page begins; None after the last."""
        shard, _, start = (after or "0#").partition("#")
        ids: list[str] = []
        for number in range(int(shard), DUE_SHARDS):
            query: Item = {
                "IndexName": "directory",
                "KeyConditionExpression": "directory_shard = :shard AND directory_key > :start",
                "ExpressionAttributeValues": _typed({":shard": f"STATIONS#{number}", ":start": start or " "}),
                "Limit": limit - len(ids),
            }
            answer = self._send("query", TableName=self._table, **query)
            ids += [_plain(item)["directory_key"].removeprefix("STATION#") for item in answer["Items"]]
            if len(ids) >= limit:
                return tuple(ids), f"{number}#STATION#{ids[-1]}"
            start = ""
        return tuple(ids), None

    def _newest(self, pk: str, limit: int) -> Iterator[Any]:
        answer = self._send(
            "query",
            TableName=self._table,
            KeyConditionExpression="PK = :pk",
            ExpressionAttributeValues=_typed({":pk": pk}),
            ScanIndexForward=False,
            Limit=limit,
        )
        return (from_item(_plain(item)) for item in answer["Items"])

    def commit(self, writes: Iterable[Write]) -> None:
        """All of the writes, or Conflict and none of them; no request if there are none."""
        requests = [request(self._table, write) for write in writes]
        if len(requests) == 1 and "ConditionCheck" not in requests[0]:
            self._write_one(requests[0])
        elif requests:
            self._send("transact_write_items", TransactItems=requests)

    def _write_one(self, element: Item) -> None:
        """A lone write, at half the price of a transaction."""
        ((name, arguments),) = element.items()
        operation = {"Put": "put_item", "Delete": "delete_item", "Update": "update_item"}[name]
        if name != "Put":
            self._send(operation, **arguments)
            return
        try:
            self._client.put_item(**arguments, ReturnValuesOnConditionCheckFailure="ALL_OLD")
        except self._client.exceptions.ConditionalCheckFailedException as refused:
            # The SDK repeats a write whose answer was lost: what stands there is then our own.
            if refused.response.get("Item") != arguments["Item"]:
                raise Conflict("Somebody else changed it first.") from refused
        except (ClientError, BotoCoreError) as failed:
            raise _translated(failed) from failed

    def _get(self, key: Key) -> Any:
        item = self._send("get_item", TableName=self._table, Key=_key(key), ConsistentRead=True).get("Item")
        return from_item(_plain(item)) if item else None

    def _batch(self, keys: list[Key]) -> list[Any]:
        wanted: Item = {self._table: {"Keys": [_key(key) for key in keys], "ConsistentRead": True}}
        found: list[Any] = []
        while keys and wanted:
            answer = self._send("batch_get_item", RequestItems=wanted)
            found += [from_item(_plain(item)) for item in answer["Responses"].get(self._table, ())]
            wanted = answer.get("UnprocessedKeys") or {}
        return found

    def _query(self, pk: str) -> Iterator[Any]:
        query = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": _typed({":pk": pk}),
            "ConsistentRead": True,
        }
        return (from_item(item) for item in self._pages(query))

    def _pages(self, query: Item) -> Iterator[Item]:
        """The items of a Query, page after page as they are taken."""
        page: Item = {}
        while True:
            answer = self._send("query", TableName=self._table, **query, **page)
            yield from (_plain(item) for item in answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _send(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(**arguments)
        except (ClientError, BotoCoreError) as failed:
            raise _translated(failed) from failed


def _reservation_keys(reservation_id: str) -> list[Key]:
    """A reservation's own key, and those of all that it may owe."""
    pk = f"RESERVATION#{reservation_id}"
    return [(pk, "RESERVATION"), *((pk, f"EFFECT#{kind}") for kind in EffectKind)]


def _readable(item: Item) -> Due:
    """The due entity, or its key and why it is none."""
    try:
        found: Due = from_item(item)
    except (KeyError, TypeError, ValidationError) as failed:  # A list or a map as its type is unhashable.
        return Unreadable((str(item["PK"]), str(item["SK"])), f"{type(failed).__name__}: {item.get('type')}")
    return found


def _translated(failed: ClientError | BotoCoreError) -> Exception:
    """Conflict for a lost race, StoreUnavailable for everything else; never silence (note F14)."""
    code = failed.response["Error"]["Code"] if isinstance(failed, ClientError) else type(failed).__name__
    if code in {"ConditionalCheckFailedException", "TransactionConflictException"}:
        return Conflict("Somebody else changed it first.")
    reasons = failed.response.get("CancellationReasons", ()) if isinstance(failed, ClientError) else ()
    lost = {"ConditionalCheckFailed", "TransactionConflict"}
    if code == "TransactionCanceledException" and any(reason.get("Code") in lost for reason in reasons):
        return Conflict("Somebody else changed it first.")
    return StoreUnavailable(f"The database answered {code}.")


def _unchanged(entity: Versioned) -> Item:
    """The condition that the entity still is as it was read; version 0 was never stored."""
    if entity.version == 0:
        return {"ConditionExpression": "attribute_not_exists(PK)"}
    return {
        "ConditionExpression": "version = :seen",
        "ExpressionAttributeValues": _typed({":seen": entity.version}),
    }


def _renewal(table: str, renew: Renew) -> Item:
    return {
        "TableName": table,
        "Key": _key((f"STATION#{renew.station_id}", "PRESENCE")),
        "UpdateExpression": "SET last_seen_at = :seen, lease_until = :until",
        "ConditionExpression": "connection_id = :mine",
        "ExpressionAttributeValues": _typed(
            {
                ":seen": _sortable(renew.last_seen_at),
                ":until": _sortable(renew.lease_until),
                ":mine": renew.connection_id,
            }
        ),
    }


def _key_schema(partition: str, sort: str) -> list[Item]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]


def _key(key: Key) -> Item:
    return _typed({"PK": key[0], "SK": key[1]})


def _typed(plain: Item) -> Item:
    return {name: _TO_DYNAMODB.serialize(value) for name, value in plain.items()}


def _plain(typed: Item) -> Item:
    return {name: _FROM_DYNAMODB.deserialize(value) for name, value in typed.items()}


def _sortable(at: datetime) -> str:
    """The time as text of one width, so that its order is the order of time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _shard(pk: str) -> int:
    return zlib.crc32(pk.encode()) % DUE_SHARDS
