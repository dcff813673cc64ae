"""The TransactWriteItems elements that write entities, each with the condition that nobody wrote in between: pure
functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from csms.adapters.dynamodb.items import KEYS, Readable, build_key, to_item
from csms.adapters.dynamodb.upgrades import Item
from csms.adapters.dynamodb.values import format_sortable_time, serialize, serialize_key
from csms.model import Append, Claim, Drop, ForeignItem, Renew, Require, Save, Turn, Versioned, Write


def build_request(table: str, write: Write) -> Item:
    """The TransactWriteItems element for a write."""
    match write:
        case Save(entity):
            put = {"TableName": table, "Item": serialize(to_item(replace(entity, version=entity.version + 1)))}
            return {"Put": put | _build_condition(entity)}
        case Drop(entity):
            return {"Delete": {"TableName": table, "Key": serialize_key(build_key(entity))} | _build_condition(entity)}
        case Require(entity):
            return {
                "ConditionCheck": {"TableName": table, "Key": serialize_key(KEYS[type(entity)](entity))}
                | _build_condition(entity)
            }
        case Append(record, once):
            put = {"TableName": table, "Item": serialize(to_item(record))}
            return {"Put": put | ({"ConditionExpression": "attribute_not_exists(PK)"} if once else {})}
        case Renew():
            return {"Update": _build_renewal(table, write)}
        case Claim():
            return {"Update": _build_claim(table, write)}


def build_join(table: str, turn: Turn) -> Item:
    """The UpdateItem that adds one to those who joined the station's line, and makes the line if there is none, as
    `turn` says."""
    new = to_item(turn)
    names = sorted(new.keys() - {"PK", "SK", "version"})
    return _build_turn_update(
        table,
        turn.station_id,
        f"SET {', '.join(f'#{n} = if_not_exists(#{n}, :{n})' for n in names)} ADD version :one",
        {":one": 1} | {f":{n}": new[n] for n in names},
        names,
    )


def build_take(table: str, turn: Turn, now: datetime) -> Item:
    """The UpdateItem with which `turn.holder` becomes the holder, unless the turn is held by another one or gone."""
    new = to_item(turn)
    return _build_turn_update(
        table,
        turn.station_id,
        "SET holder = :holder, held_until = :until, due_at = :due ADD version :one",
        {":one": 1, ":holder": turn.holder, ":until": new["held_until"], ":due": new["due_at"]}
        | {":now": format_sortable_time(now)},
        condition="attribute_exists(PK) AND (attribute_not_exists(held_until) OR held_until <= :now)",
    )


def build_handing_over(table: str, turn: Turn, now: datetime) -> Item:
    """The UpdateItem with which the holder gives up a turn whose line is not empty, so that anybody may take it."""
    return _build_turn_update(
        table,
        turn.station_id,
        "REMOVE holder, held_until SET due_at = :now ADD version :one",
        {":one": 1, ":now": format_sortable_time(now), ":me": turn.holder},
        condition="holder = :me",
    )


def build_putting_off(table: str, due: Readable, now: datetime, until: datetime) -> Item:
    """The UpdateItem that makes the due item due later, unless it is not due any more. Nothing else of it changes, its
    version neither: whoever changes the item decides anew when it is due."""
    return {
        "TableName": table,
        "Key": serialize_key(build_key(due)),
        "UpdateExpression": "SET due_at = :until",
        "ConditionExpression": "due_at <= :now",
        "ExpressionAttributeValues": serialize(
            {":until": format_sortable_time(until), ":now": format_sortable_time(now)}
        ),
    }


def _build_turn_update(
    table: str, station_id: str, update: str, values: Item, names: Iterable[str] = (), *, condition: str = ""
) -> Item:
    return {
        "TableName": table,
        "Key": serialize_key((f"STATION#{station_id}", "TURN")),
        "UpdateExpression": update,
        "ExpressionAttributeValues": serialize(values),
        "ReturnValues": "ALL_NEW",
        **({"ExpressionAttributeNames": {f"#{name}": name for name in names}} if names else {}),
        **({"ConditionExpression": condition} if condition else {}),
    }


def _build_condition(entity: Versioned | ForeignItem) -> Item:
    """The condition that the entity is still stored as it was read; version 0 means that it was never stored."""
    if entity.version is None:
        return {"ConditionExpression": "attribute_exists(PK) AND attribute_not_exists(version)"}
    if entity.version == 0:
        return {"ConditionExpression": "attribute_not_exists(PK)"}
    return {
        "ConditionExpression": "version = :seen",
        "ExpressionAttributeValues": serialize({":seen": entity.version}),
    }


def _build_claim(table: str, claim: Claim) -> Item:
    return {
        "TableName": table,
        "Key": serialize_key((f"STATION#{claim.station_id}", "PRESENCE")),
        "UpdateExpression": "SET awaited_call_id = :call, awaited_until = :until, version = :next",
        "ConditionExpression": "version = :seen",
        "ExpressionAttributeValues": serialize(
            {
                ":call": claim.call_id,
                ":until": claim.until.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                ":seen": claim.version,
                ":next": claim.version + 1,
            }
        ),
    }


def _build_renewal(table: str, renew: Renew) -> Item:
    return {
        "TableName": table,
        "Key": serialize_key((f"STATION#{renew.station_id}", "PRESENCE")),
        "UpdateExpression": "SET last_seen_at = :seen, lease_until = :until",
        "ConditionExpression": "connection_id = :mine AND lease_until > :seen",
        "ExpressionAttributeValues": serialize(
            {
                ":seen": format_sortable_time(renew.last_seen_at),
                ":until": format_sortable_time(renew.lease_until),
                ":mine": renew.connection_id,
            }
        ),
    }
