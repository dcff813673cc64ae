"""Is the station there? What connecting, going, coming back and keeping silent change, and what they leave alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from csms.errors import ChargerOffline
from csms.model import Policy
from tests.fakes import FakeGateway
from tests.unit.test_service import World

HEARTBEAT = timedelta(seconds=300)
LEASE = 3 * HEARTBEAT
SECOND = timedelta(seconds=1)


@pytest.fixture
def world() -> World:
    return World()


def start_charging(world: World) -> int:
    """A car charges at connector 1; the transaction."""
    rid = world.create_paid_reservation()
    world.answer_call("Accepted")
    tag = world.store.reservation(rid).id_tag
    started = world.send_call(
        "StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z"
    )
    world.report_status(1, "Charging")
    return int(started[2]["transactionId"])


def live_statuses(world: World) -> dict[int, str | None]:
    """What the station says of its connectors, as far as it counts."""
    seen = world.store.snapshot("cp1")
    epoch = world.presence().epoch
    return {n: c.live.raw if c.live is not None and c.live.epoch == epoch else None for n, c in seen.connectors.items()}


# The epoch


@pytest.mark.note("F06")
@pytest.mark.parametrize(
    ("absence", "kept"),
    [(LEASE - SECOND, True), (LEASE, False), (LEASE + timedelta(hours=10), False)],
    ids=["shorter than the lease", "as long as the lease", "overnight"],
)
def test_live_status_survives_absence_within_lease(world: World, absence: timedelta, kept: bool) -> None:
    world.bring_online("A")
    world.report_status(1, "Faulted")
    world.stations.disconnect("A")
    world.clock.move(absence)
    world.connect("B")

    assert {1: "Faulted" if kept else None, 2: "Available" if kept else None} == live_statuses(world)


# Which connection


@pytest.mark.note("F16")
def test_old_socket_frame_renews_no_lease(world: World) -> None:
    world.bring_online("A")
    world.connect("B")
    lease = world.presence().lease_until
    world.clock.move(timedelta(minutes=2))
    world.send_call("Heartbeat", over="A")
    world.report_status(1, "Available", over="A")

    assert ("B", lease) == (world.presence().connection_id, world.presence().lease_until)


@pytest.mark.note("F18")
def test_call_to_gone_socket_marks_offline(world: World) -> None:
    world.bring_online("A")
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.gateway.gone.add("A")
    world.drivers.confirm(rid)

    assert world.presence().connection_id is None
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 2)


def overtake(world: World, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """The station comes back over B while A is asked or spoken to, which turns out to be gone."""
    answer = getattr(FakeGateway, asked)

    def too_late(gateway: FakeGateway, connection_id: str, *rest: Any) -> Any:
        if connection_id == "A":
            gateway.gone.add("A")
            world.connect("B")
        return answer(gateway, connection_id, *rest)

    monkeypatch.setattr(FakeGateway, asked, too_late)


@pytest.mark.note("F18")
def test_probe_of_gone_socket_spares_new_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bring_online("A")
    overtake(world, monkeypatch, "is_connected")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)

    assert "B" == world.presence().connection_id
    assert world.is_startable()


@pytest.mark.note("F18")
def test_call_to_gone_socket_spares_new_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bring_online("A")
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    overtake(world, monkeypatch, "post")
    world.drivers.confirm(rid)

    assert "B" == world.presence().connection_id
    assert world.is_startable(2)


@pytest.mark.note("F18")
def test_unreachable_gateway_refuses_start_keeps_presence(world: World) -> None:
    world.bring_online("A")
    world.gateway.unreachable = True
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)
    world.gateway.unreachable = False

    assert "A" == world.presence().connection_id
    assert world.is_startable()


@pytest.mark.note("F18", "F20")
@pytest.mark.parametrize("word", ["Heartbeat", "StatusNotification"])
def test_lost_station_returns_with_next_frame(world: World, word: str) -> None:
    world.bring_online("A")
    epoch = world.presence().epoch
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)
    assert world.presence().connection_id is None
    world.gateway.gone.clear()
    world.clock.move(SECOND)
    if word == "Heartbeat":
        world.send_call("Heartbeat")
    else:
        world.report_status(1, "Available")

    assert ("A", epoch) == (world.presence().connection_id, world.presence().epoch)
    assert world.clock() + LEASE == world.presence().lease_until
    assert world.is_startable()


@pytest.mark.note("F16", "F18")
def test_late_frame_on_old_socket_changes_nothing(world: World) -> None:
    world.bring_online("A")
    world.connect("B")
    was = world.presence()
    world.clock.move(2 * LEASE)
    world.send_call("Heartbeat", over="A")
    world.report_status(1, "Available", over="A")

    assert was == world.presence()


@pytest.mark.note("F20", "F32")
def test_station_after_lease_is_asked_again(world: World) -> None:
    world.bring_online("A")
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.clock.move(LEASE + SECOND)
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    assert "Authorized" == world.drivers.confirm(rid)["status"]
    epoch = world.presence().epoch

    world.send_call("Heartbeat")
    world.clock.move(30 * SECOND)
    world.maintenance.sweep()
    world.answer_call("Rejected")

    assert epoch == world.presence().epoch
    assert "StartRequested" == world.drivers.status(rid)["status"]


@pytest.mark.note("F06", "F18")
def test_absence_beyond_lease_begins_new_epoch(world: World) -> None:
    world.bring_online("A")
    epoch = world.presence().epoch
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)
    world.clock.move(LEASE)
    world.send_call("Heartbeat", over="A")

    assert "A" == world.presence().connection_id
    assert epoch != world.presence().epoch
    assert {1: None, 2: None} == live_statuses(world)


@pytest.mark.note("F16", "F20")
@pytest.mark.parametrize("known_before", [False, True], ids=["unexpected", "after the gateway had said so"])
def test_closed_socket_frame_restores_no_presence(world: World, known_before: bool) -> None:
    world.bring_online("A")
    if known_before:
        world.gateway.gone.add("A")
        with pytest.raises(ChargerOffline):
            world.drivers.create("CP1", 1)
    world.stations.disconnect("A")
    world.send_call("Heartbeat", over="A")
    world.report_status(1, "Available", over="A")
    assert world.presence().connection_id is None

    world.connect("B")
    world.send_call("Heartbeat", over="B")
    assert "B" == world.presence().connection_id


# The cut


@pytest.mark.note("F19")
def test_two_hour_cut_changes_only_connection(world: World) -> None:
    world.bring_online("A")
    number = start_charging(world)
    world.report_status(2, "Preparing")  # Which is free to start, as charging is not: that one is asked about.
    before, was = world.store.snapshot("cp1"), world.presence()
    world.stations.disconnect("A")
    world.clock.move(20 * SECOND)
    world.connect("B")

    after, now = world.store.snapshot("cp1"), world.presence()
    assert (before.station, before.connectors) == (after.station, after.connectors)
    assert (was.epoch, "B") == (now.epoch, now.connection_id)
    assert {1: "Charging", 2: "Preparing"} == live_statuses(world)
    assert str(number) == getattr(after.connector(1).transaction, "transaction_id", None)
    assert [] == [call for call in after.calls if call.connector_id == 2]


@pytest.mark.note("F19")
def test_charging_continues_after_cut_without_boot(world: World) -> None:
    world.bring_online("A")
    number = start_charging(world)
    world.stations.disconnect("A")
    world.clock.move(20 * SECOND)
    world.connect("B")
    sample = {"timestamp": "2026-11-23T09:10:00Z", "sampledValue": [{"value": "4000"}]}

    assert [3, {}] == world.send_call(
        "MeterValues", over="B", connectorId=1, transactionId=number, meterValue=[sample]
    )[::2]
    stopped = world.send_call(
        "StopTransaction", over="B", transactionId=number, meterStop=9000, timestamp="2026-11-23T09:30:00Z"
    )
    world.report_status(1, "Available", over="B")

    assert [3, {}] == stopped[::2]
    assert world.is_startable(1)


@pytest.mark.note("F19")
def test_station_registration_survives_reconnect(world: World) -> None:
    world.bring_online("A")
    known = world.store.snapshot("cp1").station
    world.stations.disconnect("A")
    world.connect("B")

    assert known == world.store.snapshot("cp1").station


# The lease


@pytest.mark.note("F20")
def test_lease_is_three_heartbeats_from_connect(world: World) -> None:
    world.connect("A")

    assert LEASE == Policy().presence_lease
    assert world.clock() + LEASE == world.presence().lease_until


@pytest.mark.note("F20")
def test_frame_renews_lease_once_a_minute(world: World) -> None:
    world.bring_online("A")
    booted = world.presence().lease_until
    world.clock.move(59 * SECOND)
    world.report_status(1, "Available")
    assert booted == world.presence().lease_until

    world.clock.move(SECOND)
    world.report_status(1, "Available")

    assert world.clock() + LEASE == world.presence().lease_until


# What is asked


@pytest.mark.note("F21")
def test_connect_triggers_status_for_each_connector(world: World) -> None:
    world.connect("A")
    world.clock.move(30 * SECOND)
    for _ in range(2):
        world.maintenance.sweep()
        world.answer_call("Accepted")

    asked = [frame[2:] for frame in world.gateway.frames]
    assert [["TriggerMessage", {"requestedMessage": "StatusNotification", "connectorId": n}] for n in (1, 2)] == sorted(
        asked[:2], key=str
    )


@pytest.mark.note("F21")
def test_queued_calls_wait_until_connect_returns(world: World) -> None:
    world.bring_online("A")
    world.create_paid_reservation(1)
    world.create_paid_reservation(2)
    world.clock.move(Policy().call_timeout + SECOND)
    sent = len(world.gateway.sent)
    world.connect("B")
    assert sent == len(world.gateway.sent)

    world.maintenance.sweep()

    assert [("B", 2)] == [
        (over, frame[3]["connectorId"])
        for (over, _), frame in zip(world.gateway.sent[sent:], world.gateway.frames[sent:], strict=True)
    ]
