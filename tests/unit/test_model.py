"""Exactly what a decision changed is written, once, on the condition that it has not changed since it was read."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest

from csms.adapters.dynamodb import KEYS
from csms.charging import checkout
from csms.model import (
    Append,
    Drop,
    OutboxItem,
    OutboxKind,
    Outcome,
    Require,
    ReservationState,
    Save,
    Snapshot,
    Station,
    build_outcome,
    fold,
    format_time,
)
from tests import builders as b
from tests.builders import NOW, SNAPSHOT_BY_STATE, decision_context


def test_unchanged_snapshot_writes_nothing() -> None:
    seen = b.charging_snapshot()

    assert Outcome(reply="so be it") == build_outcome(seen, replace(seen), "so be it")


def test_change_is_saved_with_read_version() -> None:
    before = b.snapshot(b.connector(1, version=4), b.connector(2, version=9))
    changed = replace(before.connector(1), lock=b.lock())

    assert (Save(changed),) == build_outcome(before, before.with_connector(changed)).writes


def test_every_changeable_entity_is_saved() -> None:
    before = replace(
        b.charging_snapshot(), outbox_items=(OutboxItem(reservation_id="r", kind=OutboxKind.RELEASE, version=2),)
    )
    after = replace(
        before,
        station=replace(before.station, firmware="2"),
        presence=b.presence(epoch="next"),
        reservation=replace(b.get_reservation(before), energy_wh=7),
        connectors={1: replace(before.connector(1), live=None), 2: before.connector(2)},
        transactions={"3": replace(before.transactions["3"], reason="Local")},
        calls=tuple(replace(call, due_at=NOW + timedelta(1)) for call in before.calls),
        outbox_items=tuple(replace(outbox_item, attempts=1) for outbox_item in before.outbox_items),
    )

    saved = [write.entity for write in build_outcome(before, after).writes if isinstance(write, Save)]

    assert 1 == len(before.calls)
    assert [
        after.station,
        after.presence,
        after.reservation,
        after.connector(1),
        after.transactions["3"],
        *after.calls,
        *after.outbox_items,
    ] == saved


def test_new_connector_is_saved_with_version_0() -> None:
    before = b.snapshot(b.connector(1))
    new = b.snapshot().connector(2)

    outcome = build_outcome(before, before.with_connector(replace(new, version=0)))

    assert Save(replace(new, version=0)) == outcome.writes[0]


@pytest.mark.note("F73")
@pytest.mark.parametrize(
    ("known", "anchor"), [(5, Save(b.station(version=5))), (0, Require(b.station(version=0)))], ids=["known", "deleted"]
)
def test_new_rows_anchor_to_their_station(known: int, anchor: Save | Require) -> None:
    before = b.snapshot(b.connector(1), station=b.station(version=known))
    new, call = replace(b.connector(2), version=0), replace(b.start_requested_snapshot().calls[0], version=0)
    gone = replace(b.presence(), connection_id=None)

    for after in (before.with_connector(new), replace(before, calls=(call,))):
        assert [anchor] == [w for w in build_outcome(before, after).writes if isinstance(w.entity, Station)]  # type: ignore[union-attr]
        beside = replace(after, presence=gone)
        assert [] == [w for w in build_outcome(before, beside).writes if isinstance(w.entity, Station)]  # type: ignore[union-attr]


def test_removed_items_drop_with_read_version() -> None:
    before = b.start_requested_snapshot()
    (call,) = before.calls
    owing = replace(before, outbox_items=(OutboxItem(reservation_id="r", kind=OutboxKind.CAPTURE, version=2),))

    assert (Drop(call), Drop(owing.outbox_items[0])) == build_outcome(
        owing, replace(owing, calls=(), outbox_items=())
    ).writes


def test_requirement_is_checked_unless_written() -> None:
    before = b.snapshot(b.connector(1), b.connector(0, version=5))
    after = before.with_connector(replace(before.connector(1), lock=b.lock()))
    wanted = (before.station, before.presence, before.connector(0), before.connector(1))

    writes = build_outcome(before, after, requires=wanted).writes

    assert (
        Save(after.connector(1)),
        Require(before.station),
        Require(b.presence()),
        Require(before.connector(0)),
    ) == writes


def test_never_stored_entity_is_required_absent() -> None:
    seen = b.snapshot(presence=None)

    assert (Require(seen.connector(9)),) == build_outcome(seen, seen, requires=(None, seen.connector(9))).writes


def test_records_are_appended_last() -> None:
    before = b.snapshot()
    socket = b.idempotency_record(
        b.snapshot().add_records(b.IdempotencyRecord(station_id="s", digest="d", answer={}, expires_at=NOW))
    )
    after = replace(before, presence=None).add_records(socket, once=True)

    assert (Drop(b.presence()), Append(socket, once=True)) == build_outcome(before, after).writes


@pytest.mark.parametrize("reached", SNAPSHOT_BY_STATE.values(), ids=SNAPSHOT_BY_STATE)
def test_no_decision_writes_one_key_twice(reached: object, monkeypatch: pytest.MonkeyPatch) -> None:
    committed: list[Outcome] = []

    def watched(before: Snapshot, writes: object) -> Snapshot:
        committed.append(Outcome(writes=tuple(writes)))  # type: ignore[arg-type]
        return original(before, committed[-1].writes)

    original = b.apply_writes
    monkeypatch.setattr(b, "apply_writes", watched)
    reached()  # type: ignore[operator]

    assert committed
    for outcome in committed:
        things = [w.record if isinstance(w, Append) else w.entity for w in outcome.writes]  # type: ignore[union-attr]
        keys = [KEYS[type(thing)](thing) for thing in things]
        assert len(keys) == len(set(keys))


def test_calls_and_outbox_items_carry_next_version() -> None:
    before = b.authorized_snapshot()
    free = before.with_connector(replace(before.connector(1), live=b.build_live_status("Available")))

    outcome = build_outcome(free, checkout.apply_payment(free, b.payment(), decision_context(serial=4)))
    made = build_outcome(b.snapshot(), b.owed_checkout_snapshot())

    assert [1] == [call.version for call in outcome.calls]
    assert [2] == [outbox_item.version for outbox_item in made.outbox_items]


@pytest.mark.parametrize(
    ("changes", "inconsistent"),
    [
        ({}, False),
        ({"state": ReservationState.AUTHORIZED}, True),
        ({"expires_at": NOW + timedelta(days=1)}, True),
        ({"connector_id": 2}, True),
        ({"reservation_id": "another"}, False),
    ],
    ids=["as written", "another state", "another end", "another connector", "not its lock"],
)
def test_reservation_unlike_its_lock_is_inconsistent(changes: dict[str, Any], inconsistent: bool) -> None:
    seen = b.pending_payment_snapshot()

    assert inconsistent is replace(seen, reservation=replace(b.get_reservation(seen), **changes)).is_inconsistent


def test_unwritten_connector_is_empty_and_unstored() -> None:
    seen = b.snapshot(b.connector(1))

    assert (0, None, None) == (seen.connector(7).version, seen.connector(7).live, seen.connector(7).lock)
    assert {1} == set(seen.connectors)


def test_station_values_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        b.station().identity = "other"  # type: ignore[misc]


@pytest.mark.note("F13")
@pytest.mark.parametrize(("one", "other"), [("CP-1", "cp-1"), ("ABCXYZ@[`{", "abcxyz@[`{"), ("LADESäULE", "ladesäule")])
def test_identities_compare_without_ascii_case(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.note("F13")
@pytest.mark.parametrize(("one", "other"), [("STRASSE", "straße"), ("ÄÖ", "äö"), ("\u212a", "k"), ("@", "`")])
def test_letters_beyond_ascii_differ(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.note("F60")
def test_times_are_utc_with_milliseconds() -> None:
    assert "2026-03-01T12:00:00.000Z" == format_time(NOW)
