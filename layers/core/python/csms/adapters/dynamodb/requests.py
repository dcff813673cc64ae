"""The TransactWriteItems elements that write entities, each with the condition that nobody wrote in between: pure
functions."""

from __future__ import annotations

from dataclasses import replace

from csms.adapters.dynamodb.items import KEYS, build_key, to_item
from csms.adapters.dynamodb.upgrades import Item
from csms.adapters.dynamodb.values import format_sortable_time, serialize, serialize_key
from csms.model import Append, Drop, ForeignItem, Renew, Require, Save, Versioned, Write


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
