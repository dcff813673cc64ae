"""Items have a format number: older formats are upgraded step by step, and of newer ones the known part is read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from csms.adapters.dynamodb import KEYS, SCHEMA, UPGRADES, Item, from_item, read_item, to_item, upgrade
from csms.adapters.dynamodb.values import deserialize, serialize
from csms.errors import StoreUnavailable
from csms.model import (
    Connector,
    Lock,
    MeterSample,
    OpenTransaction,
    Reading,
    ReservationState,
    Save,
    Snapshot,
    build_outcome,
)
from csms.ocpp.v16 import values as v16
from tests import builders as b
from tests.builders import NOW

NEXT_UPGRADES: dict[int, Any] = {
    **UPGRADES,
    2: lambda item: item | {"transaction_id": str(item["transaction_id"])} if "transaction_id" in item else item,
    3: lambda item: item | {"type": "Session"} if item["type"] == "Transaction" else item,
}
"""The steps of a made-up later release."""


def transaction_item(**attributes: Any) -> Item:
    return {"PK": "TRANSACTION#7", "SK": "TRANSACTION", "type": "Transaction", "transaction_id": 7} | attributes


# Numbers and steps


def test_upgrade_steps_are_complete() -> None:
    assert list(range(1, SCHEMA)) == sorted(UPGRADES)


def test_written_items_carry_current_schema() -> None:
    assert SCHEMA == to_item(b.connector(1))["schema"]


@pytest.mark.parametrize("number", [{}, {"schema": 1}, {"schema": Decimal(2)}], ids=["none", "1", "2"])
def test_older_item_is_upgraded_stepwise(number: dict[str, Any]) -> None:
    upgraded = upgrade(transaction_item(**number), NEXT_UPGRADES)

    assert ("7", "Session") == (upgraded["transaction_id"], upgraded["type"])


def test_only_missing_upgrade_steps_run() -> None:
    assert (7, "Session") == tuple(
        upgrade(transaction_item(schema=3), NEXT_UPGRADES)[k] for k in ("transaction_id", "type")
    )


def test_newer_item_is_left_unchanged() -> None:
    item = transaction_item(schema=99)

    assert item == upgrade(item, NEXT_UPGRADES)


def test_reading_applies_upgrade_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(item: Item) -> Item:
        return {("plugged" if name == "cable" else name): value for name, value in item.items()}

    monkeypatch.setitem(UPGRADES, 1, step)  # type: ignore[arg-type]
    item = to_item(b.connector(1)) | {"cable": "e1"}

    assert "e1" == from_item({n: v for n, v in item.items() if n != "schema"}).plugged
    assert None is from_item(item | {"schema": 2}).plugged


@pytest.mark.parametrize("number", ["two", [], 0, -1, {}])
def test_invalid_schema_number_raises_store_unavailable(number: Any) -> None:
    with pytest.raises(StoreUnavailable):
        read_item(to_item(b.connector(1)) | {"schema": number})


# Unknown attributes


KEPT = {"later": 1}


def kept_connector() -> Connector:
    """A connector with unknown attributes at every level."""
    seen = b.charging_snapshot().connector(1)
    item = to_item(seen) | KEPT
    for name in ("lock", "transaction", "live"):
        item[name] = item[name] | {"later": name}
    found: Connector = from_item(item)
    return found


def test_unknown_attributes_do_not_affect_decisions() -> None:
    seen = kept_connector()
    plain: Connector = from_item({name: value for name, value in to_item(seen).items() if name != "later"})
    before = b.snapshot(seen)

    assert plain == seen
    assert hash(plain.lock) == hash(seen.lock)
    assert "later" not in repr(seen)
    assert () == build_outcome(before, before.with_connector(plain)).writes


def save_connector(before: Snapshot, after: Snapshot) -> Connector:
    (write,) = build_outcome(before, after).writes
    assert isinstance(write, Save)
    assert isinstance(write.entity, Connector)
    return write.entity


def rebuild(value: Any, **changes: Any) -> Any:
    """The value made anew by who knows nothing of what is kept in it."""
    return replace(value, kept={}, **changes)


def test_rebuilt_connector_keeps_unknown_attributes() -> None:
    seen = kept_connector()
    assert isinstance(seen.lock, Lock)
    assert isinstance(seen.transaction, OpenTransaction)
    lock = rebuild(seen.lock, state=ReservationState.WAITING_FOR_DISCONNECT)
    anew = rebuild(seen, lock=lock, transaction=rebuild(seen.transaction, energy_wh=9))

    item = to_item(save_connector(b.snapshot(seen), b.snapshot(seen).with_connector(anew)))

    assert (1, "lock", "transaction", "live") == (
        item["later"],
        item["lock"]["later"],
        item["transaction"]["later"],
        item["live"]["later"],
    )


def test_new_lock_and_transaction_drop_unknowns() -> None:
    seen = kept_connector()
    lock, running = rebuild(seen.lock, reservation_id="x"), rebuild(seen.transaction, transaction_id="99")

    item = to_item(
        save_connector(b.snapshot(seen), b.snapshot(seen).with_connector(replace(seen, lock=lock, transaction=running)))
    )

    assert (1, False, False) == (item["later"], "later" in item["lock"], "later" in item["transaction"])


def test_index_attributes_are_recomputed() -> None:
    item = to_item(b.connector(1)) | {"due_shard": "DUE#0", "due_at": "2026", "directory_shard": "x", "ttl": 5}

    assert to_item(b.connector(1)) == to_item(from_item(item))


# Keys of meter samples

READINGS = st.lists(
    st.builds(
        Reading,
        at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        energy_wh=st.none() | st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


def sample(readings: tuple[Reading, ...]) -> MeterSample:
    return MeterSample(transaction_id="7", station_id="cp1", connector_id=1, readings=readings, expires_at=NOW)


@given(readings=READINGS, hours=st.integers(-12, 12))
def test_meter_sample_key_ignores_time_zone(readings: tuple[Reading, ...], hours: int) -> None:
    there = timezone(timedelta(hours=hours))
    elsewhere = tuple(replace(reading, at=reading.at.astimezone(there)) for reading in readings)
    again = from_item(to_item(sample(readings)))

    assert type(again.readings[0].at.tzinfo) is not type(UTC)
    assert KEYS[MeterSample](sample(readings)) == KEYS[MeterSample](sample(elsewhere)) == KEYS[MeterSample](again)


def test_meter_sample_key_matches_earlier_releases() -> None:
    readings = (Reading(at=NOW, energy_wh=5), Reading(at=NOW, power_w=7))

    assert ("TRANSACTION#7", "METER#cp1#2026-03-01T12:00:00.000000Z#c100a1d1") == KEYS[MeterSample](sample(readings))


OLD: dict[str, Item] = {
    "connector": {
        "type": "Connector",
        "live": {"raw": "Faulted", "epoch": "e"},
        "persisted": {"raw": "Parked", "source": "charger"},
        "transaction": {"transaction_id": Decimal(7), "energy_wh": 5},
    },
    "transaction": {"type": "Transaction", "transaction_id": Decimal(7)},
    "sample": {"type": "MeterSample", "transaction_id": 7},
    "reservation": {"type": "Reservation", "reservation_id": "r1", "state": "StartRequested", "transaction_id": None},
    "start": {"type": "OutboundCall", "call_id": "c1", "command": "RemoteStart", "connector_id": 2, "id_tag": "W1"},
    "stop": {"type": "OutboundCall", "call_id": "c1", "command": "RemoteStop", "transaction_id": 7, "repeats": True},
    "status": {"type": "OutboundCall", "call_id": "c1", "command": "TriggerStatus", "connector_id": 0},
}
NEW: dict[str, Item] = {
    "connector": {
        "live": {"raw": "Faulted", "epoch": "e", "state": "faulted"},
        "persisted": {"raw": "Parked", "source": "charger", "state": "unknown"},
        "transaction": {"transaction_id": "7", "energy_wh": 5},
    },
    "transaction": {"transaction_id": "7"},
    "sample": {"transaction_id": "7"},
    "reservation": {"start_command_id": "start of r1", "transaction_id": None},
    "start": {
        "command": {"kind": "RemoteStart", "connector_id": 2, "id_token": {"value": "W1", "type": None}},
        "asked_at": "now",
    },
    "stop": {"command": {"kind": "RemoteStop", "transaction_id": "7"}, "asked_at": "now", "repeats": "c1"},
    "status": {"command": {"kind": "TriggerStatus", "connector_id": 0}, "asked_at": "now"},
}


@pytest.mark.parametrize("name", OLD)
def test_format_1_items_are_upgraded(name: str) -> None:
    old = OLD[name] | ({"send_at": "now"} if OLD[name]["type"] == "OutboundCall" else {})

    once = upgrade(old)

    assert NEW[name] == {attribute: once[attribute] for attribute in NEW[name]}
    assert once == upgrade(once), "what has its new form is left alone"


@pytest.mark.parametrize("raw", v16.STATES)
def test_format_1_statuses_keep_ocpp16_meaning(raw: str) -> None:
    live = {"raw": raw, "epoch": "e"}

    assert v16.read_state(raw) == upgrade({"type": "Connector", "live": live})["live"]["state"]


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.text()
    | st.integers(-(10**37), 10**37)
    | st.decimals(-1000, 1000, places=3)
    | st.binary(min_size=1)
    | st.sets(st.text(min_size=1), min_size=1),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN))
def test_attributes_are_typed_like_boto3(attributes: Item) -> None:
    expected = {name: TypeSerializer().serialize(value) for name, value in attributes.items()}

    assert expected == serialize(attributes)
    assert {name: TypeDeserializer().deserialize(value) for name, value in expected.items()} == deserialize(expected)


@pytest.mark.parametrize("value", [10**38, -(10**40), 1.5, object()])
def test_unstorable_values_fail_like_boto3(value: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever it is, ours is the same
        TypeSerializer().serialize(value)
    with pytest.raises(type(theirs.value)):
        serialize({"a": value})
