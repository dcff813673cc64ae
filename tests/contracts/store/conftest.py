"""One exam for the table: the fake, moto and every DynamoDB engine must give csms.adapters.dynamodb the same answers.

moto sits it single-threaded only, and knows nothing of races.
"""

from collections.abc import Callable

import pytest

from csms.adapters.dynamodb import Store
from tests.fakes import FakeStore
from tests.tables import ENGINES, Table, Tables


@pytest.fixture(params=["fake", "moto", *ENGINES])
def new_table(request: pytest.FixtureRequest, tables: Tables) -> Callable[[], Table | FakeStore]:
    return FakeStore if request.param == "fake" else lambda: tables(request.param)


@pytest.fixture
def table(new_table: Callable[[], Table | FakeStore]) -> Table | FakeStore:
    return new_table()


@pytest.fixture
def store(table: Table | FakeStore) -> Store:
    return table if isinstance(table, FakeStore) else table.store
