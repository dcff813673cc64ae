"""The DynamoDB table: `Store` reads and writes it, `items` converts entities to items, and `requests` to writes."""

from csms.adapters.dynamodb.items import (
    DUE_SHARDS,
    KEYS,
    LONGEST_TAG,
    MAX_WRITES,
    MONEY_KINDS,
    SCHEMA,
    TYPE_NAMES,
    Due,
    Readable,
    Unreadable,
    build_key,
    from_item,
    read_due_item,
    read_item,
    skim_item,
    table_definition,
    to_item,
    upgrade,
)
from csms.adapters.dynamodb.requests import build_request
from csms.adapters.dynamodb.table import Store
from csms.adapters.dynamodb.upgrades import UPGRADES, Item
from csms.adapters.dynamodb.values import Key

__all__ = [
    "DUE_SHARDS",
    "KEYS",
    "LONGEST_TAG",
    "MAX_WRITES",
    "MONEY_KINDS",
    "SCHEMA",
    "TYPE_NAMES",
    "UPGRADES",
    "Due",
    "Item",
    "Key",
    "Readable",
    "Store",
    "Unreadable",
    "build_key",
    "build_request",
    "from_item",
    "read_due_item",
    "read_item",
    "skim_item",
    "table_definition",
    "to_item",
    "upgrade",
]
