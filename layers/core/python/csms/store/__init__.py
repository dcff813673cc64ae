"""The one table: `Store` reads and writes it, `items` says how entities become items and requests."""

from csms.store.items import (
    DUE_SHARDS,
    KEYS,
    LONGEST_TAG,
    MOST_WRITES,
    Due,
    Item,
    Key,
    Unreadable,
    from_item,
    request,
    table_definition,
    to_item,
)
from csms.store.table import Store

__all__ = [
    "DUE_SHARDS",
    "KEYS",
    "LONGEST_TAG",
    "MOST_WRITES",
    "Due",
    "Item",
    "Key",
    "Store",
    "Unreadable",
    "from_item",
    "request",
    "table_definition",
    "to_item",
]
