"""What other releases wrote is kept, and stands in nobody's way."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from csms.adapters.dynamodb import DUE_SHARDS, KEYS, SCHEMA, Unreadable, to_item
from csms.errors import Conflict, StoreUnavailable
from csms.model import Append, Drop, ForeignItem, IdTag, OutboundCall, ReadSet, Reservation, Save, Snapshot, TagStatus
from tests.contracts.store.entities import (
    AUDIT_ENTRY,
    CALL,
    CONNECTOR,
    NOW,
    OUTBOX_ITEM,
    PRESENCE,
    RESERVATION,
    STATION,
    TRANSACTION,
    saved_entity,
)

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
    assert ((), ((), None)) == (store.timeline("cp1", limit=9), store.unknown_stations(limit=9))
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


@pytest.mark.note("F28")
def test_web_tag_under_whole_is_found(store, table):
    tag = IdTag(tag="WANRVHVONRYN5TW7YHJM", status=TagStatus.INVALID, reservation_id="r1")
    table.put(to_item(tag) | {"PK": "IDTAG#wanrvhvonryn5tw7yhjm"})

    seen = store.complete(Snapshot(station=STATION), ReadSet(id_tag="WANRVHVONRYN5TW7YHJM_17000000"))

    assert tag == seen.tag
