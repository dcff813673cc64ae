"""Does a sweep cost what is due, whatever is stored? On a real engine that tells what it looked at and what DynamoDB
would bill; `python -m bench.sweep` asks the same of a hundred thousand items."""

from datetime import datetime

import pytest

from bench.sweep import DUE, NOW, Cost, Tap, cost, create_filled_table, due_entities, stored_entities
from csms.adapters.dynamodb import DUE_SHARDS, to_item
from local import database
from local.database import Database
from tests.conftest import Engines

SMALL = 1_000
LARGE = 20_000


@pytest.fixture(scope="module")
def engine(engines: Engines) -> Database:
    return engines("dynoxide")


@pytest.fixture(scope="module")
def costs(engine: Database) -> dict[int, Cost]:
    """What a sweep costs with so many items stored."""
    return {
        size: cost(database.client(engine.endpoint), create_filled_table(engine.endpoint, size))
        for size in (SMALL, LARGE)
    }


@pytest.mark.note("F73")
def test_sweep_scans_only_due_items(costs):
    assert {SMALL: (DUE, DUE), LARGE: (DUE, DUE)} == {size: (it.found, it.scanned) for size, it in costs.items()}


@pytest.mark.note("F73")
def test_sweep_capacity_ignores_stored_items(costs):
    small, large = costs[SMALL], costs[LARGE]

    assert (DUE_SHARDS, small.read_units) == (large.requests, large.read_units)
    assert 0 < large.read_units <= 10


def test_stored_items_cover_kinds_and_due_times():
    items = [to_item(entity) for entity in stored_entities(SMALL)]
    later = [datetime.fromisoformat(item["due_at"]) for item in items if "due_at" in item]
    now = [datetime.fromisoformat(to_item(entity)["due_at"]) for entity in due_entities()]

    assert 10 <= len({item["type"] for item in items})
    assert 20 <= len(later)
    assert (True, True) == (all(at > NOW for at in later), all(at <= NOW for at in now))


def test_scan_would_read_every_item(engine):
    name = create_filled_table(engine.endpoint, SMALL + 1)
    client = database.client(engine.endpoint)
    tap = Tap.attach(client)

    for _ in client.get_paginator("scan").paginate(TableName=name):
        pass

    assert SMALL + 1 == tap.scanned
    assert 20 < tap.read_units
