"""Lists, exact and in pages: what is due, and what people look at."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from csms.adapters.dynamodb import DUE_SHARDS, Store, Unreadable, to_item
from csms.errors import Conflict
from csms.model import (
    Append,
    Drop,
    IdTag,
    InboxSlot,
    KeptMessage,
    Money,
    OutboxItem,
    OutboxKind,
    ProcessedWebhook,
    ReadSet,
    RefusalCount,
    RefusedConnection,
    RefusedConnections,
    Reservation,
    Save,
    Snapshot,
    TagStatus,
    TimelineEntry,
    UnknownStation,
)
from tests.contracts.store.entities import (
    CALL,
    LATER,
    NOW,
    OUTBOX_ITEM,
    RESERVATION,
    STATION,
    TRANSACTION,
    saved_entity,
    sort_by_key,
)

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


@pytest.mark.parametrize("limit", [1, 2, 5, 20])
def test_message_pages_go_newest_first(store, limit):
    messages = [
        KeptMessage(
            station_id="cp1",
            at=NOW + timedelta(seconds=number // 2),
            kind=f"{number:08x}",
            action="MeterValues",
            message_id="m1",
            is_quarantined=number % 2 == 0,
            reasons=("meterValue/0: unusable", "x: unknown member"),
            text='[2,"m1","MeterValues",{"idTag":"***"}]',
            is_cut=number == 0,
            expires_at=LATER,
        )
        for number in range(5)
    ]
    store.commit([*(Append(message) for message in messages), Append(replace(messages[0], station_id="cp2"))])

    found: list[KeptMessage] = []
    after: str | None = None
    while not found or after is not None:
        page, after = store.messages("cp1", limit=limit, after=after)
        assert len(page) <= limit
        found += page

    assert list(reversed(messages)) == found


def test_pages_of_long_messages_are_complete(store):
    """A Query reads 1 MB at most."""
    message = KeptMessage(
        station_id="cp1",
        at=NOW,
        kind="0",
        action="MeterValues",
        message_id="m1",
        is_quarantined=False,
        reasons=(),
        text="x" * 65_536,
        expires_at=LATER,
    )
    for number in range(20):
        store.commit([Append(replace(message, kind=f"{number:08x}"))])

    found, after = store.messages("cp1", limit=20)
    while after is not None:
        page, after = store.messages("cp1", limit=20, after=after)
        found += page

    assert 20 == len(found)


@pytest.mark.note("F49")
def test_repeated_unknown_station_is_listed_once(store):
    unknown_station = UnknownStation(station_id="x1", identity="X1", last_seen_at=NOW, expires_at=LATER)
    again = replace(unknown_station, last_seen_at=LATER)
    store.commit([Append(unknown_station), Append(replace(unknown_station, station_id="x2"))])
    store.commit([Append(again)])

    assert ((again, replace(unknown_station, station_id="x2")), None) == store.unknown_stations(limit=10)


@pytest.mark.note("F49")
@pytest.mark.parametrize("limit", [1, 3, 4, 5, 7, 8, 100])
def test_steady_unknown_stations_are_paged_first(store, limit):
    unknown_station = UnknownStation(station_id="", identity="X", last_seen_at=NOW, expires_at=LATER)
    names = [(name, True) for name in ("b", "d#1", "z")] + [(name, False) for name in ("a", "c", "e", "é")]
    for name, is_steady in reversed(names):
        store.commit([Append(replace(unknown_station, station_id=name, is_steady=is_steady))])

    pages: list[tuple[UnknownStation, ...]] = []
    after: str | None = None
    while not pages or after is not None:
        page, after = store.unknown_stations(limit=limit, after=after)
        pages.append(page)

    assert names == [(one.station_id, one.is_steady) for page in pages for one in page]
    assert all(len(page) <= limit for page in pages)
    assert len(pages) <= len(names) // limit + 1


@pytest.mark.note("F49")
def test_unknown_station_is_found_in_either_list(store):
    passing = UnknownStation(station_id="x1", identity="X1", last_seen_at=NOW, expires_at=LATER)
    steady = replace(passing, is_steady=True)
    store.commit([Append(passing), Append(replace(steady, expires_at=NOW))])
    assert passing == store.unknown_station("x1")

    store.commit([Append(steady), Append(replace(passing, expires_at=NOW))])
    assert steady == store.unknown_station("x1")


@pytest.mark.note("F17")
def test_refused_connections_are_one_item(store):
    assert store.refused_connections("cp1") is None
    count = RefusalCount(reason="Unauthorized", times=1, first_at=NOW, last_at=NOW)
    attempt = RefusedConnection(at=NOW, reason="Unauthorized", subprotocols=("ocpp1.6",), address="192.0.2.1")
    refused = RefusedConnections(station_id="cp1", counts=(count,), latest=(attempt,), expires_at=LATER)
    store.commit([Append(refused)])
    store.commit([Append(replace(refused, latest=(attempt, attempt)))])

    assert replace(refused, latest=(attempt, attempt)) == store.refused_connections("cp1")


@pytest.mark.note("F49")
def test_inbox_slot_is_taken_once(store):
    slot = InboxSlot(minute=NOW, kind="new", number=1, owner="a", expires_at=LATER)
    store.commit([Append(slot, once=True)])
    store.commit([Append(replace(slot, number=2), once=True)])

    with pytest.raises(Conflict):
        store.commit([Append(replace(slot, owner="b"), once=True)])


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
@pytest.mark.parametrize("stopped_at", [NOW, None], ids=["stopped", "on no connector"])
@pytest.mark.parametrize("named", [None, "r9"], ids=["only the transaction names it", "another one was asked for"])
def test_transaction_finds_its_reservation(store, named, stopped_at):
    over = replace(TRANSACTION, stopped_at=stopped_at, reservation_id="r1", version=0)
    held = replace(RESERVATION, reservation_id="r1", version=0)
    owed = OutboxItem(reservation_id="r1", kind=OutboxKind.CAPTURE, due_at=NOW)
    store.commit([Save(over), Save(held), Save(owed)])

    seen = store.complete(
        Snapshot(station=STATION),
        ReadSet(transaction_ids=(over.transaction_id,), reservation_id=named, with_ended_reservation=True),
    )

    assert (named is None) == (seen.reservation == saved_entity(held))
    assert (named is None) == (seen.outbox_items == (saved_entity(owed),))


@pytest.mark.note("F30")
@pytest.mark.parametrize("locked", [None, "r9", "r1"], ids=["no lock", "another's lock", "its own lock"])
def test_web_tag_finds_its_reservation(store, locked):
    held = replace(RESERVATION, reservation_id="r1", version=0)
    tag = IdTag(tag="WTAG", status=TagStatus.INVALID, reservation_id="r1")
    store.commit([Save(held), Append(tag)])

    seen = store.complete(
        Snapshot(station=STATION), ReadSet(id_tag="wtag", reservation_id=locked, with_tagged_reservation=True)
    )
    plain = store.complete(Snapshot(station=STATION), ReadSet(id_tag="wtag", reservation_id=locked))

    assert (saved_entity(held) if locked != "r1" else None) == seen.tagged_reservation
    assert (saved_entity(held) if locked == "r1" else None) == seen.reservation
    assert plain.tagged_reservation is None


CUT = "wanrvhvonryn5tw7"


@pytest.mark.note("F28")
@pytest.mark.parametrize("said", ["{}", " {}_17000000\0", "{:.16}"])
def test_web_tag_is_found_as_said(store, said):
    tag = IdTag(tag="WANRVHVONRYN5TW7YHJM", name=CUT, status=TagStatus.INVALID, reservation_id="r1")
    store.commit([Append(tag, once=True)])

    seen = store.complete(Snapshot(station=STATION), ReadSet(id_tag=said.format(tag.tag)))
    other = store.complete(Snapshot(station=STATION), ReadSet(id_tag=tag.tag[:15]))

    assert (tag, None) == (seen.tag, other.tag)


@pytest.mark.note("F28")
def test_web_tags_with_same_cut_conflict(store):
    tag = IdTag(tag="WANRVHVONRYN5TW7YHJM", name=CUT, status=TagStatus.INVALID, reservation_id="r1")
    store.commit([Append(tag, once=True)])

    with pytest.raises(Conflict):
        store.commit([Append(replace(tag, tag="wanrvhvonryn5tw7XXXX", reservation_id="r2"), once=True)])
