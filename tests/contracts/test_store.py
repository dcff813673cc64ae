"""One exam for the table: the fake, moto and every DynamoDB engine must give csms.adapters.dynamodb the same answers.

moto sits it single-threaded only, and knows nothing of races.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csms.adapters.dynamodb import DUE_SHARDS, KEYS, MAX_WRITES, SCHEMA, Store, Unreadable, from_item, to_item
from csms.errors import Conflict, NotFound, StoreUnavailable
from csms.model import (
    Append,
    AuditEntry,
    Connection,
    Connector,
    Drop,
    ForeignItem,
    IdempotencyRecord,
    IdTag,
    IdToken,
    Lock,
    Money,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Presence,
    ProcessedWebhook,
    Protocol,
    ReadSet,
    RemoteStart,
    Renew,
    Require,
    Reservation,
    ReservationState,
    Save,
    Snapshot,
    Station,
    StoredEnum,
    TagStatus,
    Tariff,
    TimelineEntry,
    Transaction,
    UnknownStation,
    Versioned,
    Write,
)
from local import database
from tests.fakes import FakeStore
from tests.tables import ENGINES, Table, Tables

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
TARIFF = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)

STATION = Station(station_id="cp1", identity="CP1", password_hash="scrypt$00$00", connectors=(1, 2), tariff=TARIFF)
PRESENCE = Presence(
    station_id="cp1",
    connection_id="abc=",
    protocol=Protocol.OCPP16,
    epoch="e1",
    connected_at=NOW,
    last_seen_at=NOW,
    lease_until=LATER,
)
CONNECTOR = Connector(station_id="cp1", connector_id=1)
CALL = OutboundCall(
    station_id="cp1",
    call_id="c1",
    command=RemoteStart(connector_id=1, id_token=IdToken(value="WTAG")),
    asked_at=NOW,
    send_at=NOW,
    due_at=NOW,
    expires_at=LATER,
)
RESERVATION = Reservation(
    reservation_id="r1",
    station_id="cp1",
    identity="CP1",
    connector_id=1,
    state=ReservationState.PENDING_PAYMENT,
    id_tag="WTAG",
    tariff=TARIFF,
    max_amount=1820,
    created_at=NOW,
    expires_at=NOW,
)
OUTBOX_ITEM = OutboxItem(reservation_id="r1", kind=OutboxKind.CAPTURE, due_at=NOW)
TRANSACTION = Transaction(
    transaction_id="7",
    station_id="cp1",
    connector_id=1,
    id_tag="WTAG",
    id_tag_status=TagStatus.ACCEPTED,
    started_at=NOW,
    received_at=NOW,
    meter_start_wh=1000,
)
TAG = IdTag(tag="WTag", status=TagStatus.INVALID, reservation_id="r1")
IDEMPOTENCY_RECORD = IdempotencyRecord(station_id="cp1", digest="d1", answer={"transaction_id": 7}, expires_at=LATER)
AUDIT_ENTRY = AuditEntry(
    reservation_id="r1", at=NOW, event="Created", state=ReservationState.PENDING_PAYMENT, money=Money.NONE, detail="one"
)
SOCKET = Connection(connection_id="abc=", station_id="cp1", protocol=Protocol.OCPP16, expires_at=LATER)
VERSIONED: tuple[Versioned, ...] = (STATION, PRESENCE, CONNECTOR, CALL, RESERVATION, OUTBOX_ITEM, TRANSACTION)


@pytest.fixture(params=["fake", "moto", *ENGINES])
def new_table(request: pytest.FixtureRequest, tables: Tables) -> Callable[[], Table | FakeStore]:
    return FakeStore if request.param == "fake" else lambda: tables(request.param)


@pytest.fixture
def table(new_table: Callable[[], Table | FakeStore]) -> Table | FakeStore:
    return new_table()


@pytest.fixture
def store(table: Table | FakeStore) -> Store:
    return table if isinstance(table, FakeStore) else table.store


def saved_entity(entity: Any) -> Any:
    """The entity as it stands in the table after it was saved."""
    return replace(entity, version=entity.version + 1)


def sort_by_key(entities: list[Any]) -> list[Any]:
    return sorted(entities, key=lambda entity: KEYS[type(entity)](entity))


def silence(table: Table | FakeStore) -> None:
    """From here on the table gives no useful answer."""
    if isinstance(table, FakeStore):
        table.unavailable = True
        return
    table.client.delete_table(TableName=table.name)


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
def test_repeated_lone_write_is_recognised(store, table, write):
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


# Reading


def test_snapshot_contains_only_its_station(store):
    other = "cp10"
    mine = (STATION, PRESENCE, CONNECTOR, replace(CONNECTOR, connector_id=0), replace(CONNECTOR, connector_id=12), CALL)
    theirs = (STATION, PRESENCE, CONNECTOR, CALL)
    store.commit([Save(e) for e in mine] + [Save(replace(e, station_id=other)) for e in theirs])

    assert Snapshot(
        station=saved_entity(STATION),
        presence=saved_entity(PRESENCE),
        connectors={number: saved_entity(replace(CONNECTOR, connector_id=number)) for number in (0, 1, 12)},
        calls=(saved_entity(CALL),),
    ) == store.snapshot("cp1")


def test_snapshot_sees_last_commit(store):
    store.commit([Save(STATION), Save(CONNECTOR)])
    connector = saved_entity(CONNECTOR)
    for number in range(20):
        lock = Lock(reservation_id=f"r{number}", state=ReservationState.PENDING_PAYMENT, id_tag="T", expires_at=None)
        store.commit([Save(replace(connector, lock=lock))])

        connector = store.snapshot("cp1").connector(1)
        assert lock == connector.lock


def test_reservation_audit_is_ordered_across_pages(store):
    long = "x" * 100_000
    audit_entries = [replace(AUDIT_ENTRY, at=NOW + timedelta(seconds=number), detail=long) for number in range(12)]
    store.commit(
        [Save(RESERVATION), Save(OUTBOX_ITEM), *(Append(audit_entry) for audit_entry in reversed(audit_entries))]
    )

    assert (saved_entity(RESERVATION), tuple(audit_entries)) == store.reservation_with_audit_trail("r1")


def test_simultaneous_audit_entries_keep_order(store):
    audit_entries = [replace(AUDIT_ENTRY, order=order, event=event) for order, event in enumerate(("Z", "A", "M"))]
    store.commit([Save(RESERVATION), *(Append(audit_entry) for audit_entry in reversed(audit_entries))])

    assert tuple(audit_entries) == store.reservation_with_audit_trail("r1")[1]


def test_read_set_loads_only_requested_entities(store):
    store.commit([Save(e) for e in (*VERSIONED, replace(TRANSACTION, transaction_id="8"))])
    store.commit([Append(TAG), Append(IDEMPOTENCY_RECORD)])
    before = store.snapshot("cp1")

    everything = ReadSet(
        reservation_id="r1", with_outbox=True, transaction_ids=("7", "8", "9"), id_tag="wTAG", digest="d1"
    )
    assert replace(
        before,
        reservation=saved_entity(RESERVATION),
        outbox_items=(saved_entity(OUTBOX_ITEM),),
        transactions={number: saved_entity(replace(TRANSACTION, transaction_id=number)) for number in ("7", "8")},
        tag=TAG,
        idempotency_record=IDEMPOTENCY_RECORD,
    ) == store.complete(before, everything)
    assert replace(before, reservation=saved_entity(RESERVATION)) == store.complete(
        before, ReadSet(reservation_id="r1")
    )
    unknown = ReadSet(reservation_id="r2", with_outbox=True, transaction_ids=(9,), id_tag="other", digest="d2")
    assert before == store.complete(before, unknown)


def test_empty_read_set_sends_no_request(store, table):
    silence(table)

    assert Snapshot(station=STATION) == store.complete(Snapshot(station=STATION), ReadSet())


def test_idempotency_record_belongs_to_its_station(store):
    store.commit([Append(replace(IDEMPOTENCY_RECORD, station_id="cp2"))])

    assert store.complete(Snapshot(station=STATION), ReadSet(digest="d1")).idempotency_record is None


def test_lookup_finds_entity_or_raises_notfound(store):
    with pytest.raises(NotFound) as station:
        store.snapshot("cp1")
    with pytest.raises(NotFound) as connection:
        store.connection("abc=")
    with pytest.raises(NotFound) as reservation:
        store.reservation("r1")
    with pytest.raises(NotFound) as audit_entries:
        store.reservation_with_audit_trail("r1")
    codes = [error.value.code for error in (station, connection, reservation, audit_entries)]
    assert ["UnknownStation", "UnknownConnection", "UnknownReservation", "UnknownReservation"] == codes
    assert store.outbox_item("r1", OutboxKind.CAPTURE) is None

    store.commit([Append(SOCKET), Save(RESERVATION), Save(OUTBOX_ITEM)])

    assert SOCKET == store.connection("abc=")
    assert saved_entity(RESERVATION) == store.reservation("r1")
    assert (saved_entity(RESERVATION), ()) == store.reservation_with_audit_trail("r1")
    assert saved_entity(OUTBOX_ITEM) == store.outbox_item("r1", OutboxKind.CAPTURE)
    assert store.outbox_item("r1", OutboxKind.RELEASE) is None


# What is due


def due(store: Store, now: datetime = NOW) -> list[Any]:
    return sort_by_key([found for shard in range(DUE_SHARDS) for found in store.due_items(now, shard=shard, page=100)])


@pytest.mark.note("F73")
def test_due_query_is_exact_to_microsecond(store):
    tick = timedelta(microseconds=1)
    now = [RESERVATION, OUTBOX_ITEM, CALL]
    later = [
        replace(RESERVATION, reservation_id="r2", expires_at=NOW + tick),
        replace(OUTBOX_ITEM, reservation_id="r2", due_at=NOW + tick),
        replace(CALL, call_id="c2", due_at=NOW + tick),
    ]
    never = [
        replace(RESERVATION, reservation_id="r3", expires_at=None),
        replace(OUTBOX_ITEM, reservation_id="r3", due_at=None),
        STATION,
        TRANSACTION,
    ]
    store.commit([Save(e) for e in (*now, *later, *never)])

    assert [] == due(store, NOW - tick)
    assert sort_by_key([saved_entity(e) for e in now]) == due(store)
    assert sort_by_key([saved_entity(e) for e in (*now, *later)]) == due(store, NOW + tick)


@pytest.mark.note("F73")
def test_finished_work_is_no_longer_due(store):
    store.commit([Save(RESERVATION), Save(OUTBOX_ITEM), Save(CALL)])

    store.commit(
        [
            Save(replace(saved_entity(RESERVATION), expires_at=None)),
            Drop(saved_entity(OUTBOX_ITEM)),
            Drop(saved_entity(CALL)),
        ]
    )
    store.commit([Save(OUTBOX_ITEM)])
    assert [saved_entity(OUTBOX_ITEM)] == due(store)

    store.commit([Save(replace(saved_entity(OUTBOX_ITEM), due_at=None))])
    assert [] == due(store)


def test_postponed_outbox_item_is_due_later(store):
    store.commit([Save(OUTBOX_ITEM)])
    store.commit([Save(replace(saved_entity(OUTBOX_ITEM), due_at=LATER, attempts=1))])

    assert [] == due(store)
    assert [1] == [outbox_item.attempts for outbox_item in due(store, LATER)]


@pytest.mark.note("F73")
@pytest.mark.parametrize("page", [3, 100])
def test_due_shard_pages_oldest_first(store, page):
    many = [
        replace(RESERVATION, reservation_id=f"r{number}", expires_at=NOW - timedelta(minutes=(number * 7) % 60))
        for number in range(60)
    ]
    for start in range(0, 60, 20):
        store.commit([Save(reservation) for reservation in many[start : start + 20]])

    def shard(reservation: Reservation) -> str:
        return str(to_item(reservation)["due_shard"])

    found = [list(store.due_items(NOW, shard=number, page=page)) for number in range(DUE_SHARDS)]

    oldest = sorted(many, key=lambda r: r.expires_at or NOW)
    expected = [[r.reservation_id for r in oldest if shard(r) == f"DUE#{n}"] for n in range(DUE_SHARDS)]
    assert expected == [[r.reservation_id for r in group if isinstance(r, Reservation)] for group in found]
    assert all(len(group) > 3 for group in found)


@pytest.mark.note("F73")
def test_unreadable_due_item_stops_no_other(store, table):
    store.commit([Save(OUTBOX_ITEM)])
    shard = to_item(OUTBOX_ITEM)["due_shard"]
    older = {"due_shard": shard, "due_at": "2026-01-01T00:00:00.000000Z", "SK": "EFFECT#x"}
    table.put(older | {"PK": "RESERVATION#a", "type": "Effect", "kind": "unheard-of"})
    table.put(older | {"PK": "RESERVATION#b", "type": "Unheard"})

    found = [one for number in range(DUE_SHARDS) for one in store.due_items(NOW, shard=number, page=1)]

    keys = {(f"RESERVATION#{name}", "EFFECT#x") for name in "ab"}
    assert keys == {bad.key for bad in found if isinstance(bad, Unreadable)}
    assert [saved_entity(OUTBOX_ITEM)] == [good for good in found if isinstance(good, OutboxItem)]


# What other releases wrote


NOVEL = {"PK": "STATION#cp1", "SK": "NOVEL#1", "type": "ChargingProfile", "schema": 99, "watts": 11_000}


def altered_item(entity: Any, **attributes: Any) -> dict[str, Any]:
    """The saved entity's item as another release wrote it."""
    return to_item(saved_entity(entity)) | {"schema": 99} | attributes


def test_unknown_item_type_is_preserved(store, table):
    store.commit([Save(STATION), Save(CONNECTOR), Save(RESERVATION), Append(AUDIT_ENTRY)])
    before = store.snapshot("cp1"), store.reservation_with_audit_trail("r1")
    others = [NOVEL, NOVEL | {"PK": "RESERVATION#r1"}, NOVEL | {"PK": "TIMELINE#cp1"}, NOVEL | {"PK": "STRANGERS"}]
    for item in others:
        table.put(item)

    seen = store.snapshot("cp1")

    assert (ForeignItem(key=("STATION#cp1", "NOVEL#1")),) == seen.foreign
    assert before == (replace(seen, foreign=()), store.reservation_with_audit_trail("r1"))
    assert ((), ()) == (store.timeline("cp1", limit=9), store.unknown_stations(limit=9))
    store.commit([Save(replace(seen.station, vendor="v")), Save(seen.connector(1))])
    kept = {item["PK"]: item for item in table.items() if item["SK"] == "NOVEL#1"}
    assert {item["PK"]: item for item in others} == kept


@pytest.mark.parametrize(
    "attributes",
    [{"command": "SetChargingProfile"}, {"state": "paused"}, {"send_at": {"seconds": 5}}],
    ids=["unknown command", "unknown state", "another shape"],
)
def test_unreadable_outbound_call_becomes_foreign_item(store, table, attributes):
    store.commit([Save(STATION)])
    table.put(altered_item(CALL, **attributes, due_shard="DUE#0"))

    seen = store.snapshot("cp1")

    assert ((), (ForeignItem(key=KEYS[OutboundCall](CALL), version=1),)) == (seen.calls, seen.foreign)


@pytest.mark.note("F14")
@pytest.mark.parametrize(
    "item",
    [
        altered_item(CONNECTOR, type="Evse"),
        altered_item(CONNECTOR, lock="r1"),
        altered_item(CONNECTOR, lock={"reservation_id": "r1", "state": ["Charging"], "id_tag": "T"}),
        altered_item(PRESENCE, type="Link"),
        altered_item(PRESENCE, lease_until=[]),
        altered_item(STATION, connectors="two"),
    ],
    ids=["connector's type", "lock", "lock's state", "presence's type", "lease", "station"],
)
def test_unreadable_station_item_raises_unavailable(store, table, item):
    store.commit([Save(STATION), Save(PRESENCE), Save(CONNECTOR)])
    table.put(item)

    with pytest.raises(StoreUnavailable, match="cannot be read"):
        store.snapshot("cp1")


@pytest.mark.note("F14")
@pytest.mark.parametrize(
    ("entity", "attributes", "read_set"),
    [
        (TRANSACTION, {"type": "Session"}, ReadSet(transaction_ids=("7",))),
        (TRANSACTION, {"meter_start_wh": "full"}, ReadSet(transaction_ids=("7",))),
        (RESERVATION, {"max_amount": {}}, ReadSet(reservation_id="r1")),
        (OUTBOX_ITEM, {"attempts": "many"}, ReadSet(reservation_id="r1", with_outbox=True)),
    ],
    ids=["transaction's type", "transaction", "reservation", "effect"],
)
def test_unreadable_requested_item_raises_unavailable(store, table, entity, attributes, read_set):
    table.put(altered_item(entity, **attributes))

    with pytest.raises(StoreUnavailable, match="cannot be read"):
        store.complete(Snapshot(station=STATION), read_set)


def test_foreign_items_are_dropped_with_station(store, table):
    store.commit([Save(STATION)])
    table.put(NOVEL)
    table.put(altered_item(CALL, command="SetChargingProfile"))
    seen = store.snapshot("cp1")

    store.commit([Drop(seen.station), *(Drop(item) for item in seen.foreign)])

    assert [] == table.items()


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("version", [None, 1])
def test_changed_foreign_item_is_not_dropped(store, table, version, others):
    table.put(NOVEL | {"version": 2})
    seen = ForeignItem(key=("STATION#cp1", "NOVEL#1"), version=version)

    with pytest.raises(Conflict):
        store.commit([Drop(seen), *[Append(AUDIT_ENTRY)] * others])

    assert [NOVEL | {"version": 2}] == table.items()


def test_unknown_attributes_and_values_survive_rewrite(store, table):
    later = {
        "later": {"bytes": b"\xff", "number": Decimal("1.5"), "set": {"a"}, "none": None},
        "kept": "a name like ours",
    }
    lock = {
        "reservation_id": "r1",
        "state": "Paused",
        "id_tag": "T",
        "expires_at": None,
        "later": 1,
        "type": "of a lock",
    }
    item = altered_item(CONNECTOR, lock=lock, **later)
    table.put(altered_item(STATION, tariff=to_item(STATION)["tariff"] | {"later": 2}))
    table.put(item)
    seen = store.snapshot("cp1")

    store.commit([Save(replace(seen.connector(1), plugged="e1")), Save(replace(seen.station, vendor="v"))])

    written = {i["SK"]: i for i in table.items()}
    assert item | {"plugged": "e1", "version": 2, "schema": SCHEMA} == written["CONNECTOR#1"]
    assert 2 == written["STATION"]["tariff"]["later"]


def test_due_items_with_unknown_values_are_named(store, table):
    table.put(altered_item(RESERVATION, state="Paused"))
    table.put(altered_item(replace(RESERVATION, reservation_id="r2"), money="disputed"))
    table.put(altered_item(OUTBOX_ITEM, kind="notify"))
    table.put(altered_item(CALL, command="SetChargingProfile"))
    table.put(altered_item(replace(RESERVATION, reservation_id="r3"), failure_code="Moved"))

    found = [one for number in range(DUE_SHARDS) for one in store.due_items(NOW, shard=number, page=9)]

    assert 4 == len([one for one in found if isinstance(one, Unreadable)])
    assert ["r3"] == [one.reservation_id for one in found if isinstance(one, Reservation)]


def test_rewrite_keeps_unknown_money_listed(store, table):
    table.put(altered_item(RESERVATION, money="disputed"))

    store.commit([Save(replace(store.reservation("r1"), energy_wh=5))])

    (item,) = table.items()
    assert ("disputed", True) == (item["money"], item["directory_shard"].startswith("MONEY#disputed#"))


# Lists for people


def test_timeline_is_newest_first_and_limited(store):
    entries = [
        TimelineEntry(station_id="cp1", at=NOW, order=0, kind="Z", detail={"n": 1}, expires_at=LATER),
        TimelineEntry(station_id="cp1", at=NOW, order=1, kind="A", detail={}, expires_at=LATER),
        TimelineEntry(station_id="cp1", at=LATER, kind="B", detail={}, expires_at=LATER),
    ]
    store.commit([*(Append(entry) for entry in entries), Append(replace(entries[0], station_id="cp2"))])

    assert tuple(reversed(entries)) == store.timeline("cp1", limit=10)
    assert (entries[2],) == store.timeline("cp1", limit=1)


@pytest.mark.note("F49")
def test_repeated_unknown_station_is_listed_once(store):
    unknown_station = UnknownStation(station_id="x1", identity="X1", last_seen_at=NOW, expires_at=LATER)
    again = replace(unknown_station, last_seen_at=LATER)
    store.commit([Append(unknown_station), Append(replace(unknown_station, station_id="x2"))])
    store.commit([Append(again)])

    assert [again, replace(unknown_station, station_id="x2")] == sort_by_key(list(store.unknown_stations(limit=10)))
    assert 1 == len(store.unknown_stations(limit=1))


@pytest.mark.parametrize("limit", [1, 5, 12, 100])
def test_station_directory_pages_list_each_once(store, limit):
    ids = {f"cp{number}" for number in range(12)}
    store.commit([Save(replace(STATION, station_id=station_id)) for station_id in ids])

    pages: list[tuple[str, ...]] = []
    after: str | None = None
    while not pages or after is not None:
        page, after = store.stations(limit=limit, after=after)
        pages.append(page)

    listed = [station_id for page in pages for station_id in page]
    assert sorted(ids) == sorted(listed)
    assert all(len(page) <= limit for page in pages)


@pytest.mark.parametrize("limit", [1, 5, 100])
def test_unsettled_payments_are_listed_once_paged(store, limit):
    names = [f"r{number}" for number in range(7)]
    held = [replace(RESERVATION, reservation_id=name, money=Money.NEEDS_REVIEW, version=0) for name in names]
    store.commit([Save(one) for one in held])
    store.commit([Save(replace(saved_entity(held[0]), money=Money.CAPTURED))])
    store.commit([Save(replace(saved_entity(held[1]), money=Money.CAPTURING))])

    pages: list[tuple[Reservation, ...]] = []
    after: str | None = None
    while not pages or after is not None:
        page, after = store.payments(Money.NEEDS_REVIEW, limit=limit, after=after)
        pages.append(page)

    assert sorted(names[2:]) == sorted(one.reservation_id for page in pages for one in page)
    assert all(len(page) <= limit for page in pages)
    assert [names[1]] == [one.reservation_id for one in store.payments(Money.CAPTURING, limit=10)[0]]
    assert ((), None) == store.payments(Money.CAPTURED, limit=10)


@pytest.mark.note("F62")
def test_processed_webhook_is_remembered(store):
    event = ProcessedWebhook(event_id="evt_1", at=NOW, expires_at=LATER)
    store.commit([Append(event)])
    store.commit([Append(event)])

    assert (True, False) == (store.has_processed_webhook("evt_1"), store.has_processed_webhook("evt_2"))


@pytest.mark.note("F55")
@pytest.mark.parametrize("named", [None, "r9"], ids=["only the transaction names it", "another one was asked for"])
def test_ended_transaction_finds_its_reservation(store, named):
    over = replace(TRANSACTION, stopped_at=NOW, reservation_id="r1", version=0)
    held = replace(RESERVATION, reservation_id="r1", version=0)
    owed = OutboxItem(reservation_id="r1", kind=OutboxKind.CAPTURE, due_at=NOW)
    store.commit([Save(over), Save(held), Save(owed)])

    seen = store.complete(
        Snapshot(station=STATION),
        ReadSet(transaction_ids=(over.transaction_id,), reservation_id=named, with_ended_reservation=True),
    )

    assert (named is None) == (seen.reservation == saved_entity(held))
    assert (named is None) == (seen.outbox_items == (saved_entity(owed),))


# When the database does not answer


@pytest.mark.note("F14")
@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.snapshot("cp1"),
        lambda store: store.complete(Snapshot(station=STATION), ReadSet(reservation_id="r1")),
        lambda store: store.reservation("r1"),
        lambda store: store.reservation_with_audit_trail("r1"),
        lambda store: store.connection("abc="),
        lambda store: store.outbox_item("r1", OutboxKind.CAPTURE),
        lambda store: list(store.due_items(NOW, shard=0, page=1)),
        lambda store: store.commit([Save(STATION)]),
        lambda store: store.commit([Drop(saved_entity(STATION))]),
        lambda store: store.commit([Require(saved_entity(STATION))]),
        lambda store: store.commit([Renew("cp1", "abc=", NOW, NOW)]),
        lambda store: store.commit([Save(STATION), Append(AUDIT_ENTRY)]),
    ],
)
def test_failing_database_raises_unavailable(store, table, ask):
    silence(table)

    with pytest.raises(StoreUnavailable):
        ask(store)


@pytest.mark.note("F14")
@pytest.mark.parametrize(
    "writes", [[Save(STATION)], [Save(STATION), Append(AUDIT_ENTRY)]], ids=["alone", "in a transaction"]
)
def test_unreachable_database_raises_unavailable(writes):
    store = Store(database.client(f"http://127.0.0.1:{database.free_port()}", attempts=1), "csms")

    with pytest.raises(StoreUnavailable, match="EndpointConnectionError"):
        store.snapshot("cp1")
    with pytest.raises(StoreUnavailable, match="EndpointConnectionError"):
        store.commit(writes)
