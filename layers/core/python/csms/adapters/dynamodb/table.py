"""The one table, read and written. Requests are built by pure functions (`requests`) and sent by Store.

Each write has the condition that the version is still the one that was read (csms.model.Write); if it is not, Conflict
is raised and nothing is written. An unreadable item raises StoreUnavailable if it was asked for by its key, or decides
whether a connector is free. Anything else that a Query finds and this release does not understand is left alone.

| access pattern | request |
| --- | --- |
| a station and all that is live of it | Query PK = STATION#<id>, strongly consistent |
| what a decision needs besides | BatchGetItem, strongly consistent |
| the station of a connection | GetItem CONNECTION#<id> |
| a reservation and its audit trail | Query PK = RESERVATION#<id>, strongly consistent |
| commit | TransactWriteItems; PutItem or DeleteItem for a single write |
| heartbeat; the claim to send a CALL | UpdateItem |
| join the line of frames that wait | PutItem, UpdateItem |
| the line of frames that wait | Query PK = LINE#<id>, strongly consistent |
| the timeline, the commands, the kept messages of a station, newest first | Query PK = <list>#<id>, backwards |
| what is due | Query on index `due`, one per shard |
| the unknown stations | Query PK = STRANGERS#STEADY, then STRANGERS, page by page |
| the refused connections of a station | GetItem REFUSED#<id> |
| all stations; the payments under way | Query on index `directory`, shard by shard, page by page |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from csms.adapters.dynamodb.items import (
    DUE_SHARDS,
    LONGEST_TAG,
    MONEY_KINDS,
    STATIONS,
    TYPE_NAMES,
    Due,
    Readable,
    build_key,
    money_directory,
    read_due_item,
    read_item,
    reservation_keys,
    skim_item,
    unknown_stations_list,
)
from csms.adapters.dynamodb.requests import (
    build_handing_over,
    build_join,
    build_putting_off,
    build_request,
    build_take,
)
from csms.adapters.dynamodb.upgrades import Item
from csms.adapters.dynamodb.values import Key, deserialize, format_sortable_time, serialize, serialize_key
from csms.errors import Conflict, NotFound, StoreUnavailable
from csms.model import (
    AuditEntry,
    CommandRecord,
    Connection,
    Connector,
    ForeignItem,
    IdempotencyRecord,
    IdTag,
    KeptMessage,
    MeterSample,
    Money,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Presence,
    ReadSet,
    RefusedConnections,
    Reservation,
    Save,
    Snapshot,
    Station,
    TimelineEntry,
    Transaction,
    Turn,
    UnknownStation,
    WaitingFrame,
    Write,
    find_tag,
    find_tag_names,
    mark_awaited_call,
)


class Store:
    """The table, read and written; `client` is a boto3 DynamoDB client."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def snapshot(self, station_id: str) -> Snapshot:
        """The station and all that is live of it, read consistently. Raises NotFound if it is not registered."""
        entities = list(self._query(f"STATION#{station_id}"))
        station = next((e for e in entities if isinstance(e, Station)), None)
        if station is None:
            raise NotFound("There is no such station.", code="UnknownStation")
        presence = next((e for e in entities if isinstance(e, Presence)), None)
        return Snapshot(
            station=station,
            presence=presence,
            connectors={e.connector_id: e for e in entities if isinstance(e, Connector)},
            calls=mark_awaited_call(presence, tuple(e for e in entities if isinstance(e, OutboundCall))),
            turn=next((e for e in entities if isinstance(e, Turn)), None),
            foreign=tuple(e for e in entities if isinstance(e, ForeignItem)),
        )

    def complete(self, snapshot: Snapshot, read_set: ReadSet) -> Snapshot:
        """The snapshot with what the decision needs besides; no request if it needs nothing."""
        keys: list[Key] = [(f"TRANSACTION#{number}", "TRANSACTION") for number in read_set.transaction_ids]
        if read_set.reservation_id is not None:
            named = reservation_keys(read_set.reservation_id)
            keys += named if read_set.with_outbox else named[:1]
        said = read_set.id_tag
        if said is not None:
            keys += [(f"IDTAG#{name}", "IDTAG") for name in find_tag_names(said) if len(name) <= LONGEST_TAG]
        if read_set.digest is not None:
            keys.append((f"INTAKE#{snapshot.station.station_id}#{read_set.digest}", "INTAKE"))
        found = self._batch_get(keys) if keys else []
        if read_set.with_ended_reservation and read_set.reservation_id is None:
            named_ids = {e.reservation_id for e in found if isinstance(e, Transaction) and e.reservation_id is not None}
            found += self._batch_get([key for rid in named_ids for key in reservation_keys(rid)])
        tag = find_tag((e for e in found if isinstance(e, IdTag)), said) if said is not None else None
        tagged_id = tag.reservation_id if tag is not None and read_set.with_tagged_reservation else None
        tagged = None
        if tagged_id is not None and tagged_id != read_set.reservation_id:
            tagged = next(iter(self._batch_get(reservation_keys(tagged_id)[:1])), None)
        return replace(
            snapshot,
            reservation=next((e for e in found if isinstance(e, Reservation)), None),
            tagged_reservation=tagged if isinstance(tagged, Reservation) else None,
            outbox_items=tuple(e for e in found if isinstance(e, OutboxItem)),
            transactions={e.transaction_id: e for e in found if isinstance(e, Transaction)},
            tag=tag,
            idempotency_record=next((e for e in found if isinstance(e, IdempotencyRecord)), None),
        )

    def reservation(self, reservation_id: str) -> Reservation:
        """The reservation, read consistently. Raises NotFound if there is none."""
        found = self._get((f"RESERVATION#{reservation_id}", "RESERVATION"))
        if not isinstance(found, Reservation):
            raise NotFound("There is no such reservation.", code="UnknownReservation")
        return found

    def reservation_with_audit_trail(self, reservation_id: str) -> tuple[Reservation, tuple[AuditEntry, ...]]:
        """The reservation and its audit trail in order of time. Raises NotFound if there is none."""
        entities = list(self._query(f"RESERVATION#{reservation_id}"))
        held = next((e for e in entities if isinstance(e, Reservation)), None)
        if held is None:
            raise NotFound("There is no such reservation.", code="UnknownReservation")
        return held, tuple(e for e in entities if isinstance(e, AuditEntry))

    def transaction(self, transaction_id: str) -> Transaction:
        """The transaction, read consistently. Raises NotFound if there is none."""
        found = self._get((f"TRANSACTION#{transaction_id}", "TRANSACTION"))
        if not isinstance(found, Transaction):
            raise NotFound("There is no such transaction.", code="UnknownTransaction")
        return found

    def transaction_with_samples(
        self, transaction_id: str, station_id: str
    ) -> tuple[Transaction | None, tuple[MeterSample, ...]]:
        """The station's transaction, None if it is not stored, and its meter samples in order of the station's time,
        without those that have expired."""
        entities = list(self._query(f"TRANSACTION#{transaction_id}"))
        found = (e for e in entities if isinstance(e, Transaction) and e.station_id == station_id)
        samples = (e for e in entities if isinstance(e, MeterSample) and e.station_id == station_id)
        return next(found, None), tuple(samples)

    def unknown_station(self, station_id: str) -> UnknownStation:
        """The unknown station that tried to connect, of two entries the one that expires last. Raises NotFound if none
        of this id did."""
        lists = [unknown_stations_list(is_steady=is_steady) for is_steady in (True, False)]
        found = [e for name in lists if isinstance(e := self._get((name, station_id)), UnknownStation)]
        if not found:
            raise NotFound("No such station has tried to connect.", code="NoConnectionAttempt")
        return max(found, key=lambda e: e.expires_at)

    def refused_connections(self, station_id: str) -> RefusedConnections | None:
        """The refused connections in the station's name; None if there were none."""
        found = self._get((f"REFUSED#{station_id}", "REFUSED"))
        return found if isinstance(found, RefusedConnections) else None

    def connection(self, connection_id: str) -> Connection:
        """The connection, with its station. Raises NotFound if it was never accepted."""
        found = self._get((f"CONNECTION#{connection_id}", "CONNECTION"))
        if not isinstance(found, Connection):
            raise NotFound("There is no such connection.", code="UnknownConnection")
        return found

    def has_processed_webhook(self, event_id: str) -> bool:
        """Whether this event of the provider was processed before (note F62)."""
        return self._get((f"WEBHOOK#{event_id}", "WEBHOOK")) is not None

    def outbox_item(self, reservation_id: str, kind: OutboxKind) -> OutboxItem | None:
        """The reservation's outbox item of this kind, if it is still owed."""
        found = self._get((f"RESERVATION#{reservation_id}", f"EFFECT#{kind}"))
        return found if isinstance(found, OutboxItem) else None

    def due_items(self, now: datetime, *, shard: int, page: int) -> Iterator[Due]:
        """The shard's items that are due by now, oldest first, read `page` at a time as they are taken.

        The index may lag, so each is checked again when it is handled.
        """
        return (read_due_item(item) for item in self._query_pages(_due_query(now, shard) | {"Limit": page}))

    def due_money(self, now: datetime, *, shard: int) -> Iterator[Due]:
        """The shard's due items of money alone, oldest first, wherever they stand among the others, read up to 1 MB at
        a time as they are taken."""
        names = {f":type{n}": TYPE_NAMES[kind] for n, kind in enumerate(MONEY_KINDS)}
        query = _due_query(now, shard)
        query["ExpressionAttributeValues"] |= serialize(names)
        query |= {
            "FilterExpression": f"#type IN ({', '.join(names)})",
            "ExpressionAttributeNames": {"#type": "type"},
        }
        return (read_due_item(item) for item in self._query_pages(query))

    def put_off(self, due: Readable, now: datetime, until: datetime) -> None:
        """Make the due item, which cannot be handled now, due later. Raises Conflict if it is not due any more."""
        self._send("update_item", **build_putting_off(self._table, due, now, until))

    def timeline(self, station_id: str, *, limit: int) -> tuple[TimelineEntry, ...]:
        """The station's latest timeline entries, newest first."""
        return tuple(e for e in self._query_newest(f"TIMELINE#{station_id}", limit) if isinstance(e, TimelineEntry))

    def commands(self, station_id: str, *, limit: int) -> tuple[CommandRecord, ...]:
        """The station's commands that are over, newest first."""
        return tuple(self._query_newest(f"COMMANDS#{station_id}", limit))

    def messages(
        self, station_id: str, *, limit: int, after: str | None = None
    ) -> tuple[tuple[KeptMessage, ...], str | None]:
        """A page of the station's kept messages, newest first, and the key of the next page; None after the last. A
        page may have fewer than `limit`, because a Query reads 1 MB at most."""
        values = {":pk": f"MESSAGES#{station_id}"} | ({":after": after} if after is not None else {})
        answer = self._send(
            "query",
            TableName=self._table,
            KeyConditionExpression="PK = :pk" + (" AND SK < :after" if after is not None else ""),
            ExpressionAttributeValues=serialize(values),
            ScanIndexForward=False,
            Limit=limit,
        )
        items = [deserialize(item) for item in answer["Items"]]
        further = str(items[-1]["SK"]) if items and "LastEvaluatedKey" in answer else None
        return tuple(e for item in items if isinstance(e := skim_item(item), KeptMessage)), further

    def unknown_stations(
        self, *, limit: int, after: str | None = None
    ) -> tuple[tuple[UnknownStation, ...], str | None]:
        """A page of the unknown stations, the steady ones first, each part in order of their ids, and the key of the
        next page; None after the last."""
        part, _, start = (after or "0#").partition("#")
        found: list[Any] = []
        for number, is_steady in enumerate((True, False)):
            if number < int(part):
                continue
            page = self._read_keys_after(unknown_stations_list(is_steady=is_steady), start, limit - len(found))
            found += page
            if len(found) >= limit:
                return tuple(e for e in found if isinstance(e, UnknownStation)), f"{number}#{build_key(found[-1])[1]}"
            start = ""
        return tuple(e for e in found if isinstance(e, UnknownStation)), None

    def _read_keys_after(self, pk: str, start: str, limit: int) -> list[Any]:
        """At most `limit` entities of the partition, in order of their sort keys, which come after `start`."""
        found: list[Any] = []
        page: Item = {"ExclusiveStartKey": serialize_key((pk, start))} if start else {}
        while len(found) < limit:
            answer = self._send(
                "query",
                TableName=self._table,
                KeyConditionExpression="PK = :pk",
                ExpressionAttributeValues=serialize({":pk": pk}),
                Limit=limit - len(found),
                **page,
            )
            found += [skim_item(deserialize(item)) for item in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                break
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        return found

    def stations(self, *, limit: int, after: str | None = None) -> tuple[tuple[str, ...], str | None]:
        """A page of the ids of registered stations, shard by shard, and the key of the next page; None after the
        last."""
        keys, further = self._read_directory(STATIONS, limit, after)
        return tuple(key.removeprefix("STATION#") for key in keys), further

    def payments(
        self, money: Money, *, limit: int, after: str | None = None
    ) -> tuple[tuple[Reservation, ...], str | None]:
        """A page of the reservations in this money state, oldest first within each shard, and the key of the next page;
        None after the last. Only money under way is listed (items.LISTED_MONEY)."""
        keys, further = self._read_directory(money_directory(money), limit, after)
        named = [reservation_keys(key.rpartition("#")[2])[0] for key in keys]
        found = {e.reservation_id: e for e in self._batch_get(named) if isinstance(e, Reservation) and e.money is money}
        return tuple(found[rid] for rid in (key.rpartition("#")[2] for key in keys) if rid in found), further

    def _read_directory(self, name: str, limit: int, after: str | None) -> tuple[list[str], str | None]:
        """A page of a directory's keys, and the key of the next page; None after the last."""
        shard, _, start = (after or "0#").partition("#")
        keys: list[str] = []
        for number in range(int(shard), DUE_SHARDS):
            query: Item = {
                "IndexName": "directory",
                "KeyConditionExpression": "directory_shard = :shard AND directory_key > :start",
                "ExpressionAttributeValues": serialize({":shard": f"{name}#{number}", ":start": start or " "}),
                "Limit": limit - len(keys),
            }
            answer = self._send("query", TableName=self._table, **query)
            keys += [deserialize(item)["directory_key"] for item in answer["Items"]]
            if len(keys) >= limit:
                return keys, f"{number}#{keys[-1]}"
            start = ""
        return keys, None

    def _query_newest(self, pk: str, limit: int) -> Iterator[Any]:
        answer = self._send(
            "query",
            TableName=self._table,
            KeyConditionExpression="PK = :pk",
            ExpressionAttributeValues=serialize({":pk": pk}),
            ScanIndexForward=False,
            Limit=limit,
        )
        return (skim_item(deserialize(item)) for item in answer["Items"])

    def join_line(self, frame: WaitingFrame, now: datetime) -> Turn:
        """Put the frame into its station's line, and return the turn, which says whether somebody processes the
        line."""
        self.commit([Save(frame)])
        joined = build_join(self._table, Turn(station_id=frame.station_id, due_at=now))
        return self._read_turn(self._send("update_item", **joined))

    def take_turn(self, turn: Turn, now: datetime) -> Turn:
        """Store that `turn.holder` processes the line until `turn.held_until`. Raises Conflict if somebody else does,
        or if the line has ended."""
        return self._read_turn(self._send("update_item", **build_take(self._table, turn, now)))

    def hand_over_turn(self, turn: Turn, now: datetime) -> None:
        """Store that nobody processes the line now. Raises Conflict if another one has taken it over."""
        self._send("update_item", **build_handing_over(self._table, turn, now))

    def turn(self, station_id: str) -> Turn | None:
        """The station's turn; None if no line is waiting."""
        found = self._get((f"STATION#{station_id}", "TURN"))
        return found if isinstance(found, Turn) else None

    def line(self, station_id: str, *, limit: int) -> tuple[WaitingFrame, ...]:
        """The first frames in the station's line, in the order of receipt, read consistently."""
        answer = self._send(
            "query",
            TableName=self._table,
            KeyConditionExpression="PK = :pk",
            ExpressionAttributeValues=serialize({":pk": f"LINE#{station_id}"}),
            ConsistentRead=True,
            Limit=limit,
        )
        return tuple(e for item in answer["Items"] if isinstance(e := skim_item(deserialize(item)), WaitingFrame))

    @staticmethod
    def _read_turn(answer: Item) -> Turn:
        turn: Turn = read_item(deserialize(answer["Attributes"]))
        return turn

    def commit(self, writes: Iterable[Write]) -> None:
        """Write all of the writes, or none and raise Conflict. No request if there are none."""
        requests = [build_request(self._table, write) for write in writes]
        if len(requests) == 1 and "ConditionCheck" not in requests[0]:
            self._write_one(requests[0])
        elif requests:
            self._send("transact_write_items", TransactItems=requests)

    def _write_one(self, element: Item) -> None:
        """Send a single write, which costs half as much outside a transaction."""
        ((name, arguments),) = element.items()
        operation = {"Put": "put_item", "Delete": "delete_item", "Update": "update_item"}[name]
        if name != "Put":
            self._send(operation, **arguments)
            return
        try:
            self._client.put_item(**arguments, ReturnValuesOnConditionCheckFailure="ALL_OLD")
        except self._client.exceptions.ConditionalCheckFailedException as refused:
            # The SDK repeats a write whose answer was lost, and then finds its own item stored.
            if refused.response.get("Item") != arguments["Item"]:
                raise Conflict("Somebody else changed the same data first. Try again.") from refused
        except (ClientError, BotoCoreError) as failed:
            raise _translate_error(failed) from failed

    def _get(self, key: Key) -> Any:
        item = self._send("get_item", TableName=self._table, Key=serialize_key(key), ConsistentRead=True).get("Item")
        return read_item(deserialize(item)) if item else None

    def _batch_get(self, keys: list[Key]) -> list[Any]:
        wanted: Item = {self._table: {"Keys": [serialize_key(key) for key in keys], "ConsistentRead": True}}
        found: list[Any] = []
        while keys and wanted:
            answer = self._send("batch_get_item", RequestItems=wanted)
            found += [read_item(deserialize(item)) for item in answer["Responses"].get(self._table, ())]
            wanted = answer.get("UnprocessedKeys") or {}
        return found

    def _query(self, pk: str) -> Iterator[Any]:
        query = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": serialize({":pk": pk}),
            "ConsistentRead": True,
        }
        return (skim_item(item) for item in self._query_pages(query))

    def _query_pages(self, query: Item) -> Iterator[Item]:
        """The items of a Query, page after page as they are taken."""
        page: Item = {}
        while True:
            answer = self._send("query", TableName=self._table, **query, **page)
            yield from (deserialize(item) for item in answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            page = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _send(self, operation: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, operation)(**arguments)
        except (ClientError, BotoCoreError) as failed:
            raise _translate_error(failed) from failed


def _due_query(now: datetime, shard: int) -> Item:
    return {
        "IndexName": "due",
        "KeyConditionExpression": "due_shard = :shard AND due_at <= :now",
        "ExpressionAttributeValues": serialize({":shard": f"DUE#{shard}", ":now": format_sortable_time(now)}),
    }


def _translate_error(failed: ClientError | BotoCoreError) -> Exception:
    """Conflict if a condition failed or another transaction was under way, else StoreUnavailable (note F14)."""
    code = failed.response["Error"]["Code"] if isinstance(failed, ClientError) else type(failed).__name__
    if code in {"ConditionalCheckFailedException", "TransactionConflictException"}:
        return Conflict("Somebody else changed the same data first. Try again.")
    reasons = failed.response.get("CancellationReasons", ()) if isinstance(failed, ClientError) else ()
    lost = {"ConditionalCheckFailed", "TransactionConflict"}
    if code == "TransactionCanceledException" and any(reason.get("Code") in lost for reason in reasons):
        return Conflict("Somebody else changed the same data first. Try again.")
    return StoreUnavailable(f"The database answered {code}.")
