"""What is read: a snapshot, the entities asked for, and an error where the database does not answer."""

from dataclasses import replace
from datetime import timedelta

import pytest

from csms.adapters.dynamodb import Store
from csms.errors import NotFound, StoreUnavailable
from csms.model import (
    Append,
    Claim,
    Drop,
    Lock,
    MeterSample,
    OutboxKind,
    Reading,
    ReadSet,
    Renew,
    Require,
    ReservationState,
    Save,
    Snapshot,
    Turn,
)
from local import database
from tests.contracts.store.entities import (
    AUDIT_ENTRY,
    CALL,
    CONNECTOR,
    IDEMPOTENCY_RECORD,
    LATER,
    NOW,
    OUTBOX_ITEM,
    PRESENCE,
    RESERVATION,
    SOCKET,
    STATION,
    TAG,
    TRANSACTION,
    VERSIONED,
    saved_entity,
    silence,
)

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


def test_samples_follow_clock_of_their_station(store):
    readings = [Reading(at=NOW + timedelta(minutes=n), energy_wh=1000 + n) for n in range(3)]
    samples = [
        MeterSample(transaction_id="7", station_id="cp1", connector_id=1, readings=(one,), expires_at=LATER)
        for one in readings
    ]
    store.commit([Save(TRANSACTION), *(Append(sample) for sample in reversed(samples))])
    store.commit([Append(replace(samples[0], station_id="another"))])

    assert (saved_entity(TRANSACTION), tuple(samples)) == store.transaction_with_samples("7", "cp1")
    assert (None, ()) == store.transaction_with_samples("8", "cp1")


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
        lambda store: store.commit([Claim("cp1", 1, "c1", NOW)]),
        lambda store: store.turn("cp1"),
        lambda store: store.line("cp1", limit=1),
        lambda store: store.take_turn(Turn(station_id="cp1", held_until=NOW, due_at=NOW), NOW),
        lambda store: store.hand_over_turn(Turn(station_id="cp1", holder="me", due_at=NOW), NOW),
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
