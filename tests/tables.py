"""A fresh table on an engine, for one test."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from csms.adapters.dynamodb import Item, Store, from_item, table_definition
from local import database

REFEREE: Final = "DYNAMODB_LOCAL_JAR"
"""The variable with the path of the jar of DynamoDB Local, AWS's own engine, which is tested too if it is installed."""

ENGINES: Final = ("dynoxide", "ministack", *(("dynamodb-local",) if os.environ.get(REFEREE) else ()))


def skip_without_dynoxide() -> None:
    """Skip the test on a platform for which dynoxide has no binary; ministack is tested there."""
    if not database.DYNOXIDE.exists():
        pytest.skip("dynoxide has no binary for this platform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table for one test. `client` is a boto3 DynamoDB client, `endpoint` the engine's address for other processes
    (empty for moto, which exists only in this one)."""

    client: Any
    name: str
    endpoint: str = ""

    @property
    def store(self) -> Store:
        """The store on this table."""
        return Store(self.client, self.name)

    def put(self, item: Item) -> None:
        """Store an item that no entity made, such as one of another release."""
        typed = {name: TypeSerializer().serialize(value) for name, value in item.items()}
        self.client.put_item(TableName=self.name, Item=typed)

    def items(self) -> list[Item]:
        """All items as plain values, in no order."""
        pages = self.client.get_paginator("scan").paginate(TableName=self.name, ConsistentRead=True)
        plain = TypeDeserializer().deserialize
        return [{name: plain(value) for name, value in item.items()} for page in pages for item in page["Items"]]

    def entities(self) -> list[Any]:
        """All stored entities."""
        return [from_item(item) for item in self.items()]


Tables = Callable[[str], Table]
"""Creates a fresh table by the name of an engine: "moto", or one that local.database starts."""


def create_unique_table(client: Any, endpoint: str = "") -> Table:
    """Create a table with a unique name."""
    name = f"csms-{token_hex(6)}"
    database.create_table(client, table_definition(name))
    return Table(client=client, name=name, endpoint=endpoint)
