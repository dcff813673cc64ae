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


def charging(world: World) -> int:
    """A car charges at connector 1; the transaction."""
    rid = world.paid()
    world.answers("Accepted")
    tag = world.store.reservation(rid).id_tag
    started = world.says("StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z")
    world.status(1, "Charging")
    return int(started[2]["transactionId"])


def live(world: World) -> dict[int, str | None]:
    """What the station says of its connectors, as far as it counts."""
    seen = world.store.snapshot("cp1")
    epoch = world.presence().epoch
    return {n: c.live.raw if c.live is not None and c.live.epoch == epoch else None for n, c in seen.connectors.items()}


# The epoch


@pytest.mark.parametrize(
    ("absence", "kept"),
    [(LEASE - SECOND, True), (LEASE, False), (LEASE + timedelta(hours=10), False)],
    ids=["shorter than the lease", "as long as the lease", "overnight"],
)
def test_f06_a_live_status_outlives_the_connection_and_not_the_lease(
    world: World, absence: timedelta, kept: bool
) -> None:
    world.online("A")
    world.status(1, "Faulted")
    world.stations.disconnect("A")
    world.clock.move(absence)
    world.connect("B")

    assert {1: "Faulted" if kept else None, 2: "Available" if kept else None} == live(world)


# Which connection


def test_f16_what_an_old_socket_still_says_keeps_nobody_online(world: World) -> None:
    world.online("A")
    world.connect("B")
    lease = world.presence().lease_until
    world.clock.move(timedelta(minutes=2))
    world.says("Heartbeat", over="A")
    world.status(1, "Available", over="A")

    assert ("B", lease) == (world.presence().connection_id, world.presence().lease_until)


def test_f18_a_call_that_finds_its_socket_gone_makes_the_station_offline_at_once(world: World) -> None:
    world.online("A")
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


def test_f18_a_probe_that_finds_the_old_socket_gone_leaves_the_new_one_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.online("A")
    overtake(world, monkeypatch, "alive")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)

    assert "B" == world.presence().connection_id
    assert world.startable()


def test_f18_a_call_that_finds_the_old_socket_gone_leaves_the_new_one_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.online("A")
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    overtake(world, monkeypatch, "post")
    world.drivers.confirm(rid)

    assert "B" == world.presence().connection_id
    assert world.startable(2)


def test_f18_a_gateway_that_cannot_be_asked_refuses_this_start_and_takes_nobody_for_lost(world: World) -> None:
    world.online("A")
    world.gateway.unreachable = True
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)
    world.gateway.unreachable = False

    assert "A" == world.presence().connection_id
    assert world.startable()


@pytest.mark.parametrize("word", ["Heartbeat", "StatusNotification"])
def test_f18_f20_whoever_was_taken_for_lost_is_there_again_with_its_next_word(world: World, word: str) -> None:
    world.online("A")
    epoch = world.presence().epoch
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)
    assert world.presence().connection_id is None
    world.gateway.gone.clear()
    world.clock.move(SECOND)
    if word == "Heartbeat":
        world.says("Heartbeat")
    else:
        world.status(1, "Available")

    assert ("A", epoch) == (world.presence().connection_id, world.presence().epoch)
    assert world.clock() + LEASE == world.presence().lease_until
    assert world.startable()


def test_f16_f18_a_late_word_over_an_old_socket_displaces_nobody(world: World) -> None:
    world.online("A")
    world.connect("B")
    was = world.presence()
    world.clock.move(2 * LEASE)
    world.says("Heartbeat", over="A")
    world.status(1, "Available", over="A")

    assert was == world.presence()


def test_f20_f32_a_station_whose_lease_was_over_is_asked_when_it_speaks_again(world: World) -> None:
    world.online("A")
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.clock.move(LEASE + SECOND)
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    assert "Authorized" == world.drivers.confirm(rid)["status"]
    epoch = world.presence().epoch

    world.says("Heartbeat")
    world.clock.move(30 * SECOND)
    world.maintenance.sweep()
    world.answers("Rejected")

    assert epoch == world.presence().epoch
    assert "StartRequested" == world.drivers.status(rid)["status"]


def test_f06_f18_who_was_lost_for_longer_than_its_lease_begins_a_new_epoch(world: World) -> None:
    world.online("A")
    epoch = world.presence().epoch
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)
    world.clock.move(LEASE)
    world.says("Heartbeat", over="A")

    assert "A" == world.presence().connection_id
    assert epoch != world.presence().epoch
    assert {1: None, 2: None} == live(world)


@pytest.mark.parametrize("known_before", [False, True], ids=["unexpected", "after the gateway had said so"])
def test_f16_f20_the_last_words_of_a_socket_that_was_closed_make_nobody_present(
    world: World, known_before: bool
) -> None:
    world.online("A")
    if known_before:
        world.gateway.gone.add("A")
        with pytest.raises(ChargerOffline):
            world.drivers.create("CP1", 1)
    world.stations.disconnect("A")
    world.says("Heartbeat", over="A")
    world.status(1, "Available", over="A")
    assert world.presence().connection_id is None

    world.connect("B")
    world.says("Heartbeat", over="B")
    assert "B" == world.presence().connection_id


# The cut


def test_f19_the_two_hour_cut_changes_nothing_but_the_connection(world: World) -> None:
    world.online("A")
    number = charging(world)
    world.status(2, "Preparing")  # Which is free to start, as charging is not: that one is asked about.
    before, was = world.store.snapshot("cp1"), world.presence()
    world.stations.disconnect("A")
    world.clock.move(20 * SECOND)
    world.connect("B")

    after, now = world.store.snapshot("cp1"), world.presence()
    assert (before.station, before.connectors) == (after.station, after.connectors)
    assert (was.epoch, "B") == (now.epoch, now.connection_id)
    assert {1: "Charging", 2: "Preparing"} == live(world)
    assert str(number) == getattr(after.connector(1).transaction, "transaction_id", None)
    assert [] == [call for call in after.calls if call.connector_id == 2]


def test_f19_after_the_cut_the_station_goes_on_without_a_boot(world: World) -> None:
    world.online("A")
    number = charging(world)
    world.stations.disconnect("A")
    world.clock.move(20 * SECOND)
    world.connect("B")
    sample = {"timestamp": "2026-11-23T09:10:00Z", "sampledValue": [{"value": "4000"}]}

    assert [3, {}] == world.says("MeterValues", over="B", connectorId=1, transactionId=number, meterValue=[sample])[::2]
    stopped = world.says(
        "StopTransaction", over="B", transactionId=number, meterStop=9000, timestamp="2026-11-23T09:30:00Z"
    )
    world.status(1, "Available", over="B")

    assert [3, {}] == stopped[::2]
    assert world.startable(1)


def test_f19_registration_hangs_on_no_connection(world: World) -> None:
    world.online("A")
    known = world.store.snapshot("cp1").station
    world.stations.disconnect("A")
    world.connect("B")

    assert known == world.store.snapshot("cp1").station


# The lease


def test_f20_the_lease_is_three_heartbeats_from_connecting_on(world: World) -> None:
    world.connect("A")

    assert LEASE == Policy().presence_lease
    assert world.clock() + LEASE == world.presence().lease_until


def test_f20_any_frame_renews_the_lease_at_most_once_a_minute(world: World) -> None:
    world.online("A")
    booted = world.presence().lease_until
    world.clock.move(59 * SECOND)
    world.status(1, "Available")
    assert booted == world.presence().lease_until

    world.clock.move(SECOND)
    world.status(1, "Available")

    assert world.clock() + LEASE == world.presence().lease_until


# What is asked


def test_f21_it_is_the_status_that_is_asked_for_connector_by_connector(world: World) -> None:
    world.connect("A")
    world.clock.move(30 * SECOND)
    for _ in range(2):
        world.maintenance.sweep()
        world.answers("Accepted")

    asked = [frame[2:] for frame in world.gateway.frames]
    assert [["TriggerMessage", {"requestedMessage": "StatusNotification", "connectorId": n}] for n in (1, 2)] == sorted(
        asked[:2], key=str
    )


def test_f21_what_is_waiting_to_be_sent_waits_until_the_connect_has_returned(world: World) -> None:
    world.online("A")
    world.paid(1)
    world.paid(2)
    world.clock.move(Policy().call_timeout + SECOND)
    sent = len(world.gateway.sent)
    world.connect("B")
    assert sent == len(world.gateway.sent)

    world.maintenance.sweep()

    assert [("B", 2)] == [
        (over, frame[3]["connectorId"])
        for (over, _), frame in zip(world.gateway.sent[sent:], world.gateway.frames[sent:], strict=True)
    ]
