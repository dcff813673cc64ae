"""The one table: `Store` reads and writes it, `items` says how entities become items and requests."""

from csms.adapters.dynamodb.items import (
    DUE_SHARDS,
    KEYS,
    LONGEST_TAG,
    MOST_WRITES,
    SCHEMA,
    Due,
    Key,
    Unreadable,
    from_item,
    key_of,
    read_item,
    readable,
    request,
    skim_item,
    table_definition,
    to_item,
    upgrade,
)
from csms.adapters.dynamodb.table import Store
from csms.adapters.dynamodb.upgrades import UPGRADES, Item

__all__ = [
    "DUE_SHARDS",
    "KEYS",
    "LONGEST_TAG",
    "MOST_WRITES",
    "SCHEMA",
    "UPGRADES",
    "Due",
    "Item",
    "Key",
    "Store",
    "Unreadable",
    "from_item",
    "key_of",
    "read_item",
    "readable",
    "request",
    "skim_item",
    "table_definition",
    "to_item",
    "upgrade",
]
