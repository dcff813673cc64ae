"""A station with items of a newer release goes on working with this one, as after a rollback or in the minute of a
deployment: what is unknown is kept, and nothing is started, settled or freed because of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from csms.adapters.dynamodb import Item, Store
from csms.charging.operations import OperatorCommand
from csms.errors import ConnectorBusy, IllegalTransition, StoreUnavailable
from csms.model import Drop, ForeignItem, Money, ReservationState
from tests.fakes import FakeStore
from tests.releases.write import IDENTITY, TARIFF, ReleaseSite
from tests.tables import Table, Tables

Rows = Table | FakeStore
STATION: Final = f"STATION#{IDENTITY.lower()}"
DUE: Final = {"due_at": "2026-01-01T00:00:00.000000Z", "due_shard": "DUE#1"}
NOVEL: Final[Item] = {"PK": STATION, "SK": "NOVEL#1", "type": "ChargingProfile", "schema": 99, "version": 4, **DUE}
CALL: Final[Item] = {
    "PK": STATION,
    "SK": "CALL#later",
    "type": "OutboundCall",
    "schema": 99,
    "version": 1,
    "station_id": IDENTITY.lower(),
    "call_id": "later",
    "command": "SetChargingProfile",
    "state": "sent",
    "send_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-01-01T00:00:00Z",
    **DUE,
}


@pytest.fixture(params=["fake", "moto", "dynoxide"])
def rows(request: pytest.FixtureRequest, tables: Tables) -> Rows:
    return FakeStore() if request.param == "fake" else tables(request.param)


@pytest.fixture
def site(rows: Rows) -> ReleaseSite:
    """A station that is registered and connected, beside what a newer release put there."""
    it = ReleaseSite(store=rows if isinstance(rows, FakeStore) else rows.store).register(tariff=TARIFF)
    rows.put(NOVEL)
    rows.put(CALL)
    return it.bring_online()


def alter(rows: Rows, sort_key: str, change: Callable[[Item], Item]) -> None:
    """The item under this sort key as a newer release left it."""
    (item,) = [item for item in rows.items() if item["SK"] == sort_key]
    rows.put(change(item) | {"schema": 99})


def is_kept(rows: Rows, *items: Item) -> bool:
    """Whether the items are there as they were put."""
    found = {(item["PK"], item["SK"]): item for item in rows.items()}
    return all(found.get((item["PK"], item["SK"])) == item for item in items)


def test_station_with_unknown_items_charges(site: ReleaseSite, rows: Rows) -> None:
    rid = site.finish_session(1)

    site.sweep()

    after = site.reservation(rid)
    assert (ReservationState.COMPLETED, Money.CAPTURED) == (after.state, after.money)
    assert is_kept(rows, NOVEL, CALL)


@pytest.mark.note("F73")
def test_sweep_reports_unknown_items_and_continues(site: ReleaseSite, rows: Rows) -> None:
    rid = site.create_reservation()
    site.pass_time(hours=2)

    report = site.sweep()

    failed = " ".join(report.failed)
    assert 2 == len(report.failed)
    assert ("NOVEL#1" in failed, "CALL#later" in failed) == (True, True)
    assert {"Reservation"} <= report.done.keys()
    assert ReservationState.CANCELLED is site.reservation(rid).state
    assert is_kept(rows, NOVEL, CALL)


def test_foreign_call_blocks_no_other_call(site: ReleaseSite) -> None:
    rid = site.create_paid_reservation(1)

    assert "RemoteStartTransaction" == site.frames[-1][2]
    site.answer_call("Accepted", call_id="later")
    assert ReservationState.START_REQUESTED is site.reservation(rid).state


def test_unknown_stored_words_fail_no_message(site: ReleaseSite, rows: Rows) -> None:
    alter(rows, "PRESENCE", lambda item: item | {"protocol": "ocpp2.1"})
    alter(rows, "CONNECTOR#1", lambda item: item | {"persisted": item["persisted"] | {"source": "roaming partner"}})

    for action, payload in (
        ("StatusNotification", {"connectorId": 2, "errorCode": "NoError", "status": "Faulted"}),
        ("StartTransaction", {"connectorId": 2, "idTag": "T", "meterStart": 1, "timestamp": site.pass_time(seconds=1)}),
        (
            "MeterValues",
            {"connectorId": 2, "meterValue": [{"timestamp": "2026-11-28T09:00:00Z", "sampledValue": [{"value": "5"}]}]},
        ),
        ("Heartbeat", {}),
    ):
        assert isinstance(site.send_call(action, **payload), dict), action

    items = {item["SK"]: item for item in rows.items()}
    assert "ocpp2.1" == items["PRESENCE"]["protocol"]
    assert "roaming partner" == items["CONNECTOR#1"]["persisted"]["source"]


def create_newer_lock(site: ReleaseSite, rows: Rows) -> str:
    """A paid reservation on connector 1, moved on by a newer release to a state of its own."""
    rid = site.create_paid_reservation(1)
    alter(rows, "RESERVATION", lambda item: item | {"state": "Paused"})
    alter(rows, "CONNECTOR#1", lambda item: item | {"lock": item["lock"] | {"state": "Paused", "expires_at": None}})
    return rid


def test_unknown_lock_state_blocks_connector(site: ReleaseSite, rows: Rows) -> None:
    create_newer_lock(site, rows)

    with pytest.raises(ConnectorBusy) as busy:
        site.create()

    assert ("ActiveReservation",) == busy.value.reasons


def test_unknown_lock_state_starts_or_settles_nothing(site: ReleaseSite, rows: Rows) -> None:
    rid = create_newer_lock(site, rows)
    tag, frames = site.reservation(rid).id_tag, len(site.frames)
    start = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": site.pass_time(seconds=5)}

    site.report_status(1, "Preparing")
    begun = site.send_call("StartTransaction", **start)
    site.stop_transaction(begun["transactionId"], 5000, at=site.pass_time(minutes=20))
    site.confirm(rid)
    with pytest.raises(IllegalTransition):
        site.cancel(rid)
    site.pass_time(hours=3)
    site.sweep()

    assert "Accepted" != begun["idTagInfo"]["status"]
    assert "RemoteStartTransaction" not in [frame[2] for frame in site.frames[frames:]]
    after, lock = site.reservation(rid), site.connector(1).lock
    assert ("Paused", Money.AUTHORIZED, None) == (after.state, after.money, after.transaction_id)
    assert lock is not None
    assert "Paused" == lock.state
    assert [] == site.provider.captured_amounts()


@pytest.mark.note("F14")
@pytest.mark.parametrize(
    ("sort_key", "change"),
    [
        ("CONNECTOR#1", lambda item: item | {"lock": {"reservation": "r"}}),
        ("CONNECTOR#1", lambda item: item | {"type": "Evse"}),
        ("PRESENCE", lambda item: item | {"lease_until": {"at": 5}}),
    ],
    ids=["lock", "connector's type", "presence"],
)
def test_unreadable_item_never_means_free(
    site: ReleaseSite, rows: Rows, sort_key: str, change: Callable[[Item], Item]
) -> None:
    alter(rows, sort_key, change)

    with pytest.raises(StoreUnavailable):
        site.create()


def test_deletion_succeeds_beside_unknown_items(site: ReleaseSite) -> None:
    store: Store = site.store
    known = store.snapshot(IDENTITY.lower()).foreign

    site.operators.delete(IDENTITY, who="eve")

    assert {("NOVEL#1", 4), ("CALL#later", 1)} == {(item.key[1], item.version) for item in known}


def test_leftover_unknown_items_can_be_dropped(site: ReleaseSite, rows: Rows) -> None:
    site.operators.delete(IDENTITY, who="eve")
    site.register(connectors=(1,), tariff=TARIFF)

    left = site.snapshot().foreign
    site.store.commit([Drop(item) for item in left])

    assert all(isinstance(item, ForeignItem) for item in left)
    assert ["STATION"] == [item["SK"] for item in rows.items() if item["PK"] == STATION]


def test_operator_cannot_free_unknown_state(site: ReleaseSite, rows: Rows) -> None:
    rid = create_newer_lock(site, rows)
    operators = site.operators
    command = OperatorCommand(who="eve", reason="To see.", expected="Paused")

    with pytest.raises(IllegalTransition):
        operators.delete(IDENTITY, who="eve")
    with pytest.raises(IllegalTransition):
        operators.cancel_reservation(rid, command)
