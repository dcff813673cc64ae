"""What goes in comes out, and a commit is refused whole when one of its conditions does not hold."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csms.adapters.dynamodb import KEYS, MAX_WRITES, from_item, to_item
from csms.errors import Conflict, StoreUnavailable
from csms.model import Append, AuditEntry, Drop, Renew, Require, Save, Station, StoredEnum, Versioned, Write
from tests.contracts.store.entities import (
    AUDIT_ENTRY,
    CONNECTOR,
    IDEMPOTENCY_RECORD,
    LATER,
    NOW,
    OUTBOX_ITEM,
    PRESENCE,
    RESERVATION,
    SOCKET,
    STATION,
    TRANSACTION,
    VERSIONED,
    saved_entity,
    silence,
    sort_by_key,
)
from tests.fakes import FakeStore
from tests.tables import ENGINES

# What goes in comes out

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
WHOLE = st.integers(-(10**12), 10**12)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner),
    max_leaves=5,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: WHOLE,
    str: WORDS,
    NoneType: st.none(),
    Decimal: st.decimals(0, 10**6, places=6),
    date: st.dates(date(2000, 1, 1), date(2100, 1, 1)),
    datetime: st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    dict[str, Any]: st.dictionaries(WORDS, JSON, max_size=3),
    Mapping[str, Any]: st.dictionaries(WORDS.map("later_{}".format), WORDS | WHOLE.map(Decimal), max_size=2),
}


def any_value(kind: Any, least: int = 0) -> st.SearchStrategy[Any]:
    """Anything that the type allows; an entity is as before it was first saved, and a sample has a reading."""
    if kind in PLAIN:
        return PLAIN[kind]
    if get_origin(kind) is UnionType:
        return st.one_of(*map(any_value, get_args(kind)))
    if get_origin(kind) is tuple:
        return st.lists(any_value(get_args(kind)[0]), min_size=least, max_size=3).map(tuple)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if is_dataclass(kind):
        hints = {f.name: get_type_hints(kind)[f.name] for f in fields(kind)}
        parts = {name: any_value(hint, least=name == "readings") for name, hint in hints.items()}
        return st.builds(kind, **parts | ({"version": st.just(0)} if "version" in hints else {}))
    assert issubclass(kind, StoredEnum)
    return st.sampled_from(kind) | WORDS.map(kind.from_stored)


ANYTHING = st.one_of(*map(any_value, KEYS))


@given(entity=ANYTHING)
def test_every_entity_survives_item_round_trip(entity):
    item = to_item(entity)

    assert entity == from_item(item)
    assert item == to_item(from_item(item))
    assert None not in item.values()


@given(entities=st.lists(ANYTHING, min_size=5, max_size=20, unique_by=lambda e: KEYS[type(e)](e)))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_committed_entities_are_stored_unchanged(new_table, entities):
    table = new_table()
    store = table if isinstance(table, FakeStore) else table.store

    store.commit([Save(e) if isinstance(e, Versioned) else Append(e) for e in entities])

    expected = [saved_entity(e) if isinstance(e, Versioned) else e for e in entities]
    assert sort_by_key(expected) == sort_by_key(table.entities())


@pytest.mark.parametrize("entity", VERSIONED, ids=lambda entity: type(entity).__name__)
def test_each_commit_increments_version(store, table, entity):
    store.commit([Save(entity)])
    store.commit([Save(saved_entity(entity))])

    assert [2] == [found.version for found in table.entities()]


# Conditions


@dataclass(frozen=True, slots=True)
class Spoiler:
    """A write that must be refused by a table with SAVED in it."""

    why: str
    write: Write

    def __str__(self) -> str:
        return self.why


SAVED: tuple[Write, ...] = (Save(STATION), Save(PRESENCE), Save(CONNECTOR), Append(AUDIT_ENTRY))
SPOILERS = (
    Spoiler("saved before", Save(STATION)),
    Spoiler("changed by somebody else", Save(replace(CONNECTOR, version=2))),
    Spoiler("removed by somebody else", Save(replace(TRANSACTION, version=1))),
    Spoiler("required but changed", Require(replace(CONNECTOR, version=2))),
    Spoiler("required but absent", Require(replace(TRANSACTION, version=1))),
    Spoiler("required not to exist", Require(STATION)),
    Spoiler("dropped but changed", Drop(replace(CONNECTOR, version=2))),
    Spoiler("dropped but absent", Drop(replace(TRANSACTION, version=1))),
    Spoiler("appended before", Append(replace(AUDIT_ENTRY, detail="other"), once=True)),
    Spoiler("renewed by an older connection", Renew("cp1", "old=", NOW, LATER)),
    Spoiler("renewed where nobody is", Renew("cp2", "abc=", NOW, LATER)),
    Spoiler("renewed when the lease was over", Renew("cp1", "abc=", LATER, LATER + timedelta(minutes=5))),
)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("spoiler", SPOILERS, ids=str)
def test_refused_write_rolls_back_transaction(store, table, spoiler, place):
    store.commit(SAVED)
    before = sort_by_key(table.entities())
    harmless: list[Write] = [Save(RESERVATION), Append(SOCKET)]

    with pytest.raises(Conflict):
        store.commit([*harmless[:place], spoiler.write, *harmless[place:]])

    assert before == sort_by_key(table.entities())


@pytest.mark.parametrize("spoiler", SPOILERS, ids=str)
def test_lone_refused_write_conflicts(store, table, spoiler):
    store.commit(SAVED)
    store.commit([Save(replace(saved_entity(STATION), vendor="somebody else"))])
    before = sort_by_key(table.entities())

    with pytest.raises(Conflict):
        store.commit([spoiler.write])

    assert before == sort_by_key(table.entities())


def test_condition_check_passes_without_writing(store, table):
    store.commit([Save(STATION)])

    store.commit([Require(saved_entity(STATION)), Save(CONNECTOR)])
    store.commit([Require(saved_entity(STATION))])

    assert sort_by_key([saved_entity(STATION), saved_entity(CONNECTOR)]) == sort_by_key(table.entities())


def test_dropped_entity_can_be_recreated(store, table):
    store.commit([Save(OUTBOX_ITEM), Save(RESERVATION)])

    store.commit([Drop(saved_entity(OUTBOX_ITEM))])
    assert [saved_entity(RESERVATION)] == table.entities()

    store.commit([Save(OUTBOX_ITEM), Drop(saved_entity(RESERVATION))])
    assert [saved_entity(OUTBOX_ITEM)] == table.entities()


def test_record_appended_twice_is_stored_once(store, table):
    store.commit([Append(AUDIT_ENTRY)])
    store.commit([Append(AUDIT_ENTRY), Append(SOCKET)])

    assert sort_by_key([AUDIT_ENTRY, SOCKET]) == sort_by_key(table.entities())


def test_append_once_keeps_first_record(store, table):
    store.commit([Append(IDEMPOTENCY_RECORD, once=True)])

    with pytest.raises(Conflict):
        store.commit([Append(replace(IDEMPOTENCY_RECORD, answer={"transaction_id": 8}), once=True)])

    assert [IDEMPOTENCY_RECORD] == table.entities()


@pytest.mark.parametrize(
    "write", [Save(STATION), Append(IDEMPOTENCY_RECORD, once=True)], ids=["saved", "appended once"]
)
def test_repeated_lone_write_is_recognized(store, table, write):
    store.commit([write])
    before = table.entities()

    store.commit([write])

    assert before == table.entities()


def test_lease_renewal_keeps_version(store, table):
    store.commit([Save(PRESENCE)])

    store.commit([Renew("cp1", "abc=", LATER - timedelta(seconds=1), LATER + timedelta(seconds=1))])
    renewed = replace(
        saved_entity(PRESENCE), last_seen_at=LATER - timedelta(seconds=1), lease_until=LATER + timedelta(seconds=1)
    )
    assert [renewed] == table.entities()

    store.commit([Save(replace(renewed, connection_id=None))])
    with pytest.raises(Conflict):
        store.commit([Renew("cp1", "abc=", NOW, NOW)])
    assert [replace(renewed, connection_id=None, version=2)] == table.entities()


def test_empty_commit_sends_no_request(store, table):
    silence(table)

    store.commit([])


def test_oversized_transaction_is_refused_whole(store, table):
    many = [Append(replace(AUDIT_ENTRY, order=number)) for number in range(MAX_WRITES + 1)]

    with pytest.raises(StoreUnavailable):
        store.commit(many)
    assert [] == table.entities()

    store.commit(many[:MAX_WRITES])
    assert MAX_WRITES == len(table.entities())


def test_duplicate_key_in_commit_is_refused(store, table):
    with pytest.raises(StoreUnavailable):
        store.commit([Save(STATION), Save(replace(STATION, vendor="v")), Append(AUDIT_ENTRY)])

    assert [] == table.entities()


@pytest.mark.parametrize("new_table", ["fake", *ENGINES], indirect=True)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a transaction"])
def test_one_parallel_commit_per_version_wins(store, table, alone):
    store.commit([Save(STATION)])
    together = threading.Barrier(8)

    def try_it(number: int) -> bool:
        mine = Save(replace(saved_entity(STATION), vendor=f"v{number}"))
        together.wait()
        try:
            store.commit([mine] if alone else [mine, Append(replace(AUDIT_ENTRY, order=number))])
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(try_it, range(8)))

    assert 1 == won.count(True)
    assert f"v{won.index(True)}" == next(e.vendor for e in table.entities() if isinstance(e, Station))
    assert ([] if alone else [won.index(True)]) == [e.order for e in table.entities() if isinstance(e, AuditEntry)]
