"""The request units that DynamoDB bills, computed from the sizes of the items ("Read and write capacity", developer
guide). Pure arithmetic, so that it can be compared with an engine's own answers.

Items are in DynamoDB's typed form ({"S": "..."}); their content does not matter here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

READ_BYTES: Final = 4096
WRITE_BYTES: Final = 1024
STORAGE_OVERHEAD_BYTES: Final = 100
TRANSACTION: Final = 2
"""A transaction bills both its phases, prepare and commit; a ConditionCheck is billed as a write, too (measured on live
DynamoDB: https://martinhicks.dev/articles/what-a-conditional-dynamodb-transaction-costs)."""

Item = Mapping[str, Any]
Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A secondary index: its key attributes, and whether it holds whole items or only keys."""

    keys: Keys
    whole: bool

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Index:
        """The index in CreateTable's arguments."""
        keys = tuple(row["AttributeName"] for row in definition["KeySchema"])
        return cls(keys=keys, whole=definition["Projection"]["ProjectionType"] == "ALL")

    def entry(self, item: Item | None, table_keys: Keys) -> Item | None:
        """What the index stores of an item, or None if the item lacks the index's keys."""
        if item is None or any(key not in item for key in self.keys):
            return None
        return item if self.whole else {name: item[name] for name in (*table_keys, *self.keys)}


def size(item: Item) -> int:
    """The bytes of an item: names and values."""
    return sum(len(name.encode()) + value_size(value) for name, value in item.items())


def stored_size(item: Item | None) -> int:
    """The bytes of an item that are billed as storage."""
    return size(item) + STORAGE_OVERHEAD_BYTES if item is not None else 0


def value_size(value: Mapping[str, Any]) -> int:
    """The bytes of a typed value."""
    ((kind, plain),) = value.items()
    match kind:
        case "S":
            return len(plain.encode())
        case "N":
            return number_size(plain)
        case "B":
            return len(plain)
        case "BOOL" | "NULL":
            return 1
        case "L":
            return 3 + sum(1 + value_size(element) for element in plain)
        case "M":
            return 3 + sum(1 + len(name.encode()) + value_size(element) for name, element in plain.items())
        case "SS":
            return sum(len(element.encode()) for element in plain)
        case "NS":
            return sum(number_size(element) for element in plain)
    raise ValueError(f"not a type of DynamoDB: {kind}")


def number_size(digits: str) -> int:
    """The bytes of a number: one for two significant digits, plus one. DynamoDB documents it only approximately."""
    significant = digits.lstrip("-").partition("E")[0].replace(".", "").strip("0")
    return ceil(len(significant) / 2) + 1 + digits.startswith("-")


def get_units(item: Item | None, *, consistent: bool = True) -> float:
    """The read units of a GetItem, or of one key of a BatchGetItem. A missing item costs as much as a small one."""
    return _round_read_units(size(item) if item is not None else 0, consistent=consistent)


def query_units(items: Iterable[Item], *, consistent: bool) -> float:
    """The read units of a Query: the sizes of all items that it examined are summed before rounding."""
    return _round_read_units(sum(size(item) for item in items), consistent=consistent)


def write_units(before: Item | None, after: Item | None, *, transaction: bool = False) -> float:
    """The write units of one item in the table: by its larger image, doubled in a transaction."""
    largest = max(size(image) if image is not None else 0 for image in (before, after))
    return _round_write_units(largest) * (TRANSACTION if transaction else 1)


def index_units(before: Item | None, after: Item | None, index: Index, table_keys: Keys) -> float:
    """The write units of one item in an index: two entries (delete and insert) if its key changed, one if only other
    attributes changed, none if the entry stays equal. Indexes are updated asynchronously, so a transaction does not
    double them."""
    old, new = index.entry(before, table_keys), index.entry(after, table_keys)
    if old == new:
        return 0.0
    if old is not None and new is not None and any(old[key] != new[key] for key in index.keys):
        return _round_write_units(size(old)) + _round_write_units(size(new))
    return _round_write_units(max(size(entry) for entry in (old, new) if entry is not None))


def _round_read_units(total: int, *, consistent: bool) -> float:
    return max(1, ceil(total / READ_BYTES)) * (1.0 if consistent else 0.5)


def _round_write_units(total: int) -> float:
    return float(max(1, ceil(total / WRITE_BYTES)))
