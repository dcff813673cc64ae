"""What the operators' service keeps true: registering, deleting, and actions in the middle of what others do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from csms.adapters.dynamodb import MAX_WRITES
from csms.charging.operations import OperatorCommand
from csms.errors import BadRequest, Conflict, IllegalTransition, NotFound
from csms.model import Connector, OutboundCall, Presence, Station, Write
from csms.ocpp.spoken import DIALECTS
from csms.service import Dependencies, Operators, Registration
from csms.stations import credentials
from tests.fakes import FakeStore
from tests.unit.test_service import TARIFF, InterruptedStore, World

WHO = "eve@example.org"
WANTED = Registration(identity="CP9", connectors=(1, 2), tariff=TARIFF)


@pytest.fixture
def world() -> World:
    return World()


def operators(world: World, store: FakeStore | None = None) -> Operators:
    """The operators' side of the world; it has no payment provider, as in its function."""
    dependencies = Dependencies(
        store=store or world.store,
        dialects=DIALECTS,
        gateway=world.gateway,  # type: ignore[arg-type]
        now=world.clock,
        observe=lambda what, facts: world.observed.append((what, facts)),
    )
    return Operators(dependencies)


def read_password(world: World, station_id: str) -> str:
    return world.store.snapshot(station_id).station.password_hash


def test_generated_password_is_returned_once(world: World) -> None:
    reply = operators(world).register(WANTED, who=WHO)
    again = operators(world).register(WANTED, who=WHO)

    assert credentials.verify_password(reply["password"].encode(), read_password(world, "cp9"))
    assert "password" not in again
    assert ("UTC", False) == (reply["timeZone"], reply["free"])


def test_given_password_is_kept_and_hidden(world: World) -> None:
    reply = [operators(world).register(replace(WANTED, password=word), who=WHO) for word in (b"the first one", None)]
    first = read_password(world, "cp9")
    reply.append(operators(world).register(replace(WANTED, password=b"the second one"), who=WHO))

    assert credentials.verify_password(b"the first one", first)
    assert credentials.verify_password(b"the second one", read_password(world, "cp9"))
    assert [False] * 3 == ["password" in answer for answer in reply]


@pytest.mark.note("F13")
def test_reregistration_keeps_spelling_and_boot_facts(world: World) -> None:
    world.bring_online()

    changed = operators(world).register(
        replace(WANTED, identity="cp1", connectors=(1,), time_zone="Europe/Berlin"), who=WHO
    )

    assert ("CP1", "v", "Europe/Berlin") == (changed["identity"], changed["vendor"], changed["timeZone"])
    assert [1] == [row["connectorId"] for row in changed["connectors"]]


@pytest.mark.note("F13")
@pytest.mark.parametrize("spelled", ["CP1", "cp1", "cP1"])
def test_every_entry_point_ignores_identity_case(world: World, spelled: str) -> None:
    world.bring_online()
    hand, signed = operators(world), OperatorCommand(who=WHO, reason="To see.", expected="Online")
    begun = world.drivers.create(spelled, 1)
    assert begun == world.drivers.create(spelled, 1, resume=begun["reservationId"])

    reply = {
        world.drivers.connector(spelled, 1)["chargePointId"],
        world.drivers.cancel(begun["reservationId"])["chargePointId"],
        hand.station(spelled)["identity"],
        hand.occupancy(spelled, 1)["identity"],
        hand.reset_status(spelled, 2, replace(signed, expected="Available"))["identity"],
        hand.trigger_status(spelled, signed)["identity"],
    }
    hand.delete(spelled, who=WHO)

    assert {"CP1"} == reply
    assert [] == hand.stations(limit=10)["stations"]


@pytest.mark.note("F10")
def test_connector_0_is_rejected_and_hidden(world: World) -> None:
    world.bring_online()
    world.report_status(0, "Available")
    with pytest.raises(BadRequest):
        operators(world).register(replace(WANTED, connectors=(0, 1)), who=WHO)
    for look in (world.drivers.connector, operators(world).occupancy):
        with pytest.raises(NotFound) as refused:
            look("CP1", 0)
        assert "UnknownConnector" == refused.value.code

    assert [1, 2] == [row["connectorId"] for row in operators(world).station("CP1")["connectors"]]


@pytest.mark.parametrize(
    "wanted",
    [
        replace(WANTED, connectors=()),
        replace(WANTED, connectors=(0, 1)),
        replace(WANTED, connectors=(1, 1)),
        replace(WANTED, time_zone="Europe/Atlantis"),
        replace(WANTED, time_zone="../etc/passwd"),
        replace(WANTED, time_zone=""),
        replace(WANTED, tariff=replace(TARIFF, idle_price=Decimal(10))),
    ],
    ids=["no connector", "connector 0", "one twice", "no such zone", "a path", "empty", "idle fee without maximum"],
)
def test_invalid_registration_is_rejected(world: World, wanted: Registration) -> None:
    with pytest.raises(BadRequest):
        operators(world).register(wanted, who=WHO)
    with pytest.raises(NotFound):
        operators(world).station("CP9")


@pytest.mark.note("F13", "F49")
def test_registered_station_leaves_unknown_list(world: World) -> None:
    for identity in ("CP8", "CP9"):
        with pytest.raises(NotFound):
            world.stations.connect(identity, authorization=None, offered=(), connection_id="B")
    assert ["CP8", "CP9"] == sorted(row["identity"] for row in operators(world).unknown_stations()["unknownStations"])

    operators(world).register(WANTED, who=WHO)
    accepted = operators(world).accept(replace(WANTED, identity="Cp8"), who=WHO)

    assert "CP8" == accepted["identity"]
    assert [] == operators(world).unknown_stations()["unknownStations"]
    for identity in ("CP8", "CP7"):
        with pytest.raises(NotFound):
            operators(world).accept(replace(WANTED, identity=identity), who=WHO)


def test_old_unknown_station_is_forgotten(world: World) -> None:
    with pytest.raises(NotFound):
        world.stations.connect("CP9", authorization=None, offered=(), connection_id="B")
    world.clock.move(timedelta(days=30))

    assert [] == operators(world).unknown_stations()["unknownStations"]
    with pytest.raises(NotFound):
        operators(world).accept(WANTED, who=WHO)


def test_deleted_station_leaves_nothing_live(world: World) -> None:
    world.bring_online()

    operators(world).delete("cp1", who=WHO)
    world.stations.disconnect("A")

    assert ["A"] == world.gateway.closed
    with pytest.raises(NotFound):
        world.store.snapshot("cp1")
    assert {"stations": [], "next": None} == operators(world).stations(limit=10)


@pytest.mark.note("F63", "F67")
def test_deleted_station_outbox_is_still_performed(world: World) -> None:
    world.bring_online()
    reservation_id = world.create_paid_reservation()
    tag = world.store.reservation(reservation_id).id_tag
    begun = world.send_call(
        "StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:00Z"
    )[2]["transactionId"]
    for _ in range(2):
        world.provider.fail_next("capture")
    world.send_call("StopTransaction", transactionId=begun, meterStop=10_000, timestamp="2026-11-23T09:30:00Z")
    assert [] == world.provider.captured_amounts()

    operators(world).delete("CP1", who=WHO)
    for _ in range(3):
        world.clock.move(timedelta(hours=1))
        world.maintenance.sweep()

    assert [595 + 50] == world.provider.captured_amounts()
    assert ("captured", 0) == (world.drivers.status(reservation_id)["money"], world.provider.held_amount())


@pytest.mark.note("F75")
def test_occupancy_look_logs_verdict_not_decision(
    world: World,
) -> None:
    world.bring_online()
    world.report_status(1, "Faulted")
    world.observed.clear()

    answer = operators(world).occupancy("CP1", 1)

    ((what, verdict),) = world.observed
    assert ("occupancy", answer["reason"]) == (what, verdict["headline"])


@pytest.mark.note("F75")
def test_occupancy_answer_shows_last_50_entries(world: World) -> None:
    world.bring_online()
    for number in range(60):
        world.clock.move(timedelta(minutes=1))
        world.report_status(1, f"Status{number}")

    timeline = operators(world).occupancy("CP1", 1)["timeline"]

    assert [f"Status{number}" for number in range(59, 9, -1)] == [entry["detail"]["status"] for entry in timeline]


@pytest.mark.note("F75")
def test_registration_and_deletion_are_in_timeline(world: World) -> None:
    operators(world).register(WANTED, who=WHO)
    operators(world).delete("CP9", who="adam@example.org")

    noted = [(e.kind, e.detail["who"]) for e in world.store.timeline("cp9", limit=10)]

    assert [("Deleted", "adam@example.org"), ("Registered", WHO)] == sorted(noted)


@pytest.mark.note("F75")
def test_action_after_lost_race_returns_conflict(world: World) -> None:
    world.bring_online()
    world.report_status(1, "Faulted")

    class Interrupted(FakeStore):
        """The station speaks between this one's load and its first commit."""

        spoken = False

        def commit(self, writes: Iterable[Write]) -> None:
            if not self.spoken:
                self.spoken = True
                world.report_status(1, "Charging")
            world.store.commit(writes)

    interrupted = Interrupted()
    interrupted._current_items = world.store._current_items  # type: ignore[method-assign]

    with pytest.raises(Conflict) as refused:
        operators(world, interrupted).reset_status(
            "CP1", 1, OperatorCommand(who=WHO, reason="Idle.", expected="Faulted")
        )

    assert ("StateChanged", True) == (refused.value.code, " is Charging now" in refused.value.message)
    assert "Charging" == world.store.snapshot("cp1").connector(1).live.raw  # type: ignore[union-attr]


def test_station_list_filters_by_state(world: World) -> None:
    world.bring_online()
    world.report_status(2, "Faulted")
    operators(world).register(WANTED, who=WHO)

    def listed(state: str | None) -> list[str]:
        return sorted(row["identity"] for row in operators(world).stations(limit=10, state=state)["stations"])

    assert [["CP1", "CP9"], ["CP1"], ["CP9"], ["CP1"], ["CP1"]] == [
        listed(state) for state in (None, "online", "offline", "busy", "faulted")
    ]


def test_list_skips_station_deleted_meanwhile(world: World) -> None:
    operators(world).register(WANTED, who=WHO)
    stale = world.store.stations(limit=10)
    world.store.stations = lambda **_: stale  # type: ignore[method-assign]
    operators(world).delete("CP9", who=WHO)

    assert ["CP1"] == [row["identity"] for row in operators(world).stations(limit=10)["stations"]]


def start_transaction(world: World, connector_id: int) -> None:
    start = {"connectorId": connector_id, "idTag": "CARD", "meterStart": 0, "timestamp": world.clock.at.isoformat()}
    world.send_call("StartTransaction", **start)


# A connector that said nothing has no row that a deletion could find; nobody registered the last one.
@pytest.mark.note("F73")
@pytest.mark.parametrize("connector_id", [1, 7])
def test_start_and_deletion_race_has_one_winner(connector_id: int) -> None:
    deleted_first, begun_first = InterruptedStore(), InterruptedStore()
    one, other = World(store=deleted_first), World(store=begun_first)
    for world in (one, other):
        world.connect("A")

    deleted_first.meanwhile = lambda: operators(one).delete("CP1", who=WHO)
    with pytest.raises(NotFound):
        start_transaction(one, connector_id)
    begun_first.meanwhile = lambda: start_transaction(other, connector_id)
    with pytest.raises(IllegalTransition):
        operators(other).delete("CP1", who=WHO)

    assert [] == [e for e in one.store.entities() if isinstance(e, Station | Presence | Connector | OutboundCall)]
    assert other.store.snapshot("cp1").connector(connector_id).transaction is not None


def test_station_of_64_connectors_can_be_deleted(world: World) -> None:
    operators(world).register(replace(WANTED, identity="CP1", connectors=tuple(range(1, 65))), who=WHO)
    world.connect("A")
    for connector_id in range(65):
        world.report_status(connector_id, "Faulted")
    world.clock.move(timedelta(days=1))
    world.connect("B")
    before = world.store.snapshot("cp1")
    assert MAX_WRITES < len(before.calls) + len(before.connectors)

    operators(world).delete("CP1", who=WHO)

    assert [] == [e for e in world.store.entities() if isinstance(e, Station | Presence | Connector | OutboundCall)]
    assert 1 == [e.kind for e in world.store.timeline("cp1", limit=10)].count("Deleted")
    assert "B" == world.gateway.closed[-1]


def triggered_connectors(world: World) -> list[int]:
    """The connectors whose status the station is asked for, now or in its turn."""
    return [call.connector_id or 0 for call in world.store.snapshot("cp1").calls]


@pytest.mark.note("F21")
def test_added_connector_status_is_requested(
    world: World,
) -> None:
    world.bring_online()
    world.report_status(5, "Available")
    before = len(world.gateway.frames)

    operators(world).register(replace(WANTED, identity="CP1", connectors=(1, 2, 3, 4, 5)), who=WHO)

    assert [3, 4] == sorted(triggered_connectors(world))
    world.answer_call("Accepted")
    world.answer_call("Accepted")
    asked = [(frame[2], frame[3]["connectorId"]) for frame in world.gateway.frames[before:]]
    assert [("TriggerMessage", 3), ("TriggerMessage", 4)] == asked


@pytest.mark.note("F21")
def test_no_status_request_when_unchanged_or_offline(world: World) -> None:
    world.bring_online()
    operators(world).register(replace(WANTED, identity="CP1", connectors=(2, 1)), who=WHO)
    assert [] == triggered_connectors(world)

    world.stations.disconnect("A")
    operators(world).register(replace(WANTED, identity="CP1", connectors=(1, 2, 3)), who=WHO)

    assert [] == triggered_connectors(world)
