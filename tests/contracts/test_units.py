"""Are the computed request units those that a DynamoDB engine reports? Simple rules are checked by hand, and every rule
that the count uses is compared with the engine."""

import pytest

from bench import units
from bench.units import Index, index_units, query_units, write_units
from csms.adapters.dynamodb import table_definition
from tests.tables import Tables

TABLE_KEYS = ("PK", "SK")
INDEXES = [Index.from_definition(index) for index in table_definition("table")["GlobalSecondaryIndexes"]]
DUE, DIRECTORY = INDEXES


def item(size: int = 100, **more: str) -> units.Item:
    """An item of exactly so many bytes, and what is due or listed with it."""
    attributes = {"PK": "A", "SK": "B"} | more
    there = sum(len(name) + len(value) for name, value in attributes.items())
    return {name: {"S": value} for name, value in (attributes | {"v": "x" * (size - there - 1)}).items()}


def due_attributes(at: str = "1") -> dict[str, str]:
    return {"due_shard": "DUE#0", "due_at": at}


LISTED = {"directory_shard": "STATIONS#0", "directory_key": "A"}


def test_item_size_counts_names_and_values():
    value = {"M": {"raw": {"S": "é"}, "at": {"L": [{"N": "12345"}, {"BOOL": True}, {"NULL": True}]}}}

    # raw: 1 + 3 + 2; at: 1 + 2 + (3 + (1 + 4) + (1 + 1) + (1 + 1)); the map around them 3; its name 4.
    assert 4 + 3 + 6 + 15 == units.size({"live": value})


@pytest.mark.parametrize(
    ("digits", "size"), [("0", 1), ("7", 2), ("12", 2), ("123", 3), ("-123", 4), ("100", 2), ("59.5", 3), ("1E+3", 2)]
)
def test_number_size_follows_significant_digits(digits, size):
    assert size == units.number_size(digits)


def test_reads_round_up_per_query_and_item():
    three_kilobytes = item(3000)

    assert 1 == query_units([], consistent=True)
    assert 0.5 == query_units([], consistent=False)
    assert 4 == query_units([three_kilobytes] * 5, consistent=True)
    assert 5 == sum(units.get_units(three_kilobytes) for _ in range(5))
    assert 1 == units.get_units(None)


WRITES = {
    "a new item of one kilobyte": (None, item(1024), False, 1),
    "a byte more": (None, item(1025), False, 2),
    "one that shrinks": (item(2100), item(), False, 3),
    "one that is deleted": (item(2100), None, False, 3),
    "one in a transaction": (None, item(1025), True, 4),
    "a condition in a transaction": (item(), item(), True, 2),
    "one that comes into an index": (item(), item(**due_attributes()), False, 2),
    "one that stays as it is": (item(**due_attributes()), item(**due_attributes()), False, 1),
    "one that changes beside the index's key": (item(**due_attributes()), item(101, **due_attributes()), False, 2),
    "one whose key in the index changes": (item(**due_attributes()), item(**due_attributes("2")), False, 3),
    "one that leaves the index": (item(2000, **due_attributes()), item(2000), False, 4),
    "one that changes beside the keys that an index holds": (item(**LISTED), item(200, **LISTED), False, 1),
    "one in an index and in a transaction": (None, item(**due_attributes()), True, 3),
    "one that moves in an index in a transaction": (item(**due_attributes()), item(**due_attributes("2")), True, 4),
}


@pytest.mark.parametrize(("before", "after", "transaction", "expected"), WRITES.values(), ids=WRITES)
def test_computed_write_units_match_engine(tables: Tables, before, after, transaction, expected):
    table = tables("dynoxide")
    if before is not None:
        table.client.put_item(TableName=table.name, Item=before)
    key = {name: (after or before)[name] for name in TABLE_KEYS}
    if transaction and before == after:
        there = {"ConditionExpression": "attribute_exists(PK)"}
        element = {"ConditionCheck": {"TableName": table.name, "Key": key, **there}}
    elif after is None:
        element = {"Delete": {"TableName": table.name, "Key": key}}
    else:
        element = {"Put": {"TableName": table.name, "Item": after}}

    if transaction:
        answer = table.client.transact_write_items(TransactItems=[element], ReturnConsumedCapacity="TOTAL")
        answered = answer["ConsumedCapacity"][0]["CapacityUnits"]
    else:
        ((name, arguments),) = element.items()
        send = {"Put": table.client.put_item, "Delete": table.client.delete_item}[name]
        answered = send(**arguments, ReturnConsumedCapacity="TOTAL")["ConsumedCapacity"]["CapacityUnits"]
    computed = write_units(before, after, transaction=transaction)
    computed += sum(index_units(before, after, index, TABLE_KEYS) for index in INDEXES)

    assert (expected, expected) == (computed, answered)
