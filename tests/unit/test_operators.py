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
from csms.service import Operators, Registration, Traits
from csms.stations import credentials
from tests.app.in_process import TARIFF, InProcessApp
from tests.fakes import FakeStore
from tests.unit.raced_stores import InterruptedStore

WHO = "eve@example.org"
WANTED = Registration(identity="CP9", connectors=(1, 2), tariff=TARIFF)


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


def read_password(app: InProcessApp, station_id: str) -> str:
    return app.store.snapshot(station_id).station.password_hash


def test_generated_password_is_returned_once(app: InProcessApp) -> None:
    reply = app.operators.register(WANTED, who=WHO)
    again = app.operators.register(WANTED, who=WHO)

    assert credentials.verify_password(reply["password"].encode(), read_password(app, "cp9"))
    assert "password" not in again
    assert ("UTC", False) == (reply["timeZone"], reply["free"])


def test_given_password_is_kept_and_hidden(app: InProcessApp) -> None:
    reply = [app.operators.register(replace(WANTED, password=word), who=WHO) for word in (b"the first one", None)]
    first = read_password(app, "cp9")
    reply.append(app.operators.register(replace(WANTED, password=b"the second one"), who=WHO))

    assert credentials.verify_password(b"the first one", first)
    assert credentials.verify_password(b"the second one", read_password(app, "cp9"))
    assert [False] * 3 == ["password" in answer for answer in reply]


@pytest.mark.note("F13")
def test_reregistration_keeps_spelling_and_boot_facts(app: InProcessApp) -> None:
    app.bring_online()

    changed = app.operators.register(
        replace(WANTED, identity="cp1", connectors=(1,), time_zone="Europe/Berlin"), who=WHO
    )

    assert ("CP1", "v", "Europe/Berlin") == (changed["identity"], changed["vendor"], changed["timeZone"])
    assert [1] == [row["connectorId"] for row in changed["connectors"]]


@pytest.mark.note("F13")
@pytest.mark.parametrize("spelled", ["CP1", "cp1", "cP1"])
def test_every_entry_point_ignores_identity_case(app: InProcessApp, spelled: str) -> None:
    app.bring_online()
    hand, signed = app.operators, OperatorCommand(who=WHO, reason="To see.", expected="Online")
    begun = app.drivers.create(spelled, 1)
    assert begun == app.drivers.create(spelled, 1, resume=begun["reservationId"])

    reply = {
        app.drivers.connector(spelled, 1)["chargePointId"],
        app.cancel(begun["reservationId"])["chargePointId"],
        hand.station(spelled)["identity"],
        hand.occupancy(spelled, 1)["identity"],
        hand.reset_status(spelled, 2, replace(signed, expected="Available"))["identity"],
        hand.trigger_status(spelled, signed)["identity"],
    }
    hand.delete(spelled, who=WHO)

    assert {"CP1"} == reply
    assert [] == hand.stations(limit=10)["stations"]


@pytest.mark.note("F10")
def test_connector_0_is_rejected_and_hidden(app: InProcessApp) -> None:
    app.bring_online()
    app.report_status(0, "Available")
    with pytest.raises(BadRequest):
        app.operators.register(replace(WANTED, connectors=(0, 1)), who=WHO)
    for look in (app.drivers.connector, app.operators.occupancy):
        with pytest.raises(NotFound) as refused:
            look("CP1", 0)
        assert "UnknownConnector" == refused.value.code

    assert [1, 2] == [row["connectorId"] for row in app.operators.station("CP1")["connectors"]]


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
        replace(WANTED, traits=Traits(max_power_w=0)),
        replace(WANTED, traits=Traits(max_power_w=10**9 + 1)),
    ],
    ids=[
        "no connector",
        "connector 0",
        "one twice",
        "no such zone",
        "a path",
        "empty",
        "idle fee without maximum",
        "no power",
        "more than a gigawatt",
    ],
)
def test_invalid_registration_is_rejected(app: InProcessApp, wanted: Registration) -> None:
    with pytest.raises(BadRequest):
        app.operators.register(wanted, who=WHO)
    with pytest.raises(NotFound):
        app.operators.station("CP9")


@pytest.mark.parametrize("most_w", [1, 10**9])
def test_registration_without_traits_keeps_max_power(app: InProcessApp, most_w: int) -> None:
    told = [app.operators.register(replace(WANTED, traits=Traits(max_power_w=most_w)), who=WHO)]
    told.append(app.operators.register(WANTED, who=WHO))

    assert [most_w, most_w] == [answer["maxPowerW"] for answer in told]


@pytest.mark.note("F13", "F49")
def test_registered_station_leaves_unknown_list(app: InProcessApp) -> None:
    for identity in ("CP8", "CP9"):
        with pytest.raises(NotFound):
            app.stations.connect(identity, authorization=None, offered=(), connection_id="B")
    assert ["CP8", "CP9"] == sorted(
        row["identity"] for row in app.operators.unknown_stations(limit=100)["unknownStations"]
    )

    app.operators.register(WANTED, who=WHO)
    accepted = app.operators.accept(replace(WANTED, identity="Cp8"), who=WHO)

    assert "CP8" == accepted["identity"]
    assert [] == app.operators.unknown_stations(limit=100)["unknownStations"]
    for identity in ("CP8", "CP7"):
        with pytest.raises(NotFound):
            app.operators.accept(replace(WANTED, identity=identity), who=WHO)


def test_old_unknown_station_is_forgotten(app: InProcessApp) -> None:
    with pytest.raises(NotFound):
        app.stations.connect("CP9", authorization=None, offered=(), connection_id="B")
    app.clock.move(timedelta(days=30))

    assert [] == app.operators.unknown_stations(limit=100)["unknownStations"]
    with pytest.raises(NotFound):
        app.operators.accept(WANTED, who=WHO)


def test_deleted_station_leaves_nothing_live(app: InProcessApp) -> None:
    app.bring_online()

    app.operators.delete("cp1", who=WHO)
    app.disconnect("A")

    assert ["A"] == app.gateway.closed
    with pytest.raises(NotFound):
        app.snapshot()
    assert {"stations": [], "next": None} == app.operators.stations(limit=10)


@pytest.mark.note("F63", "F67")
def test_deleted_station_outbox_is_still_performed(app: InProcessApp) -> None:
    app.bring_online()
    reservation_id, begun = app.start_session()
    for _ in range(2):
        app.provider.fail_next("capture")
    app.stop_transaction(begun, 11_000, at="2026-11-23T09:30:00Z")
    assert [] == app.provider.captured_amounts()

    app.operators.delete("CP1", who=WHO)
    for _ in range(3):
        app.clock.move(timedelta(hours=1))
        app.sweep()

    assert [595 + 50] == app.provider.captured_amounts()
    assert ("captured", 0) == (app.status(reservation_id)["money"], app.provider.held_amount())


@pytest.mark.note("F75")
def test_occupancy_look_logs_verdict_not_decision(
    app: InProcessApp,
) -> None:
    app.bring_online()
    app.report_status(1, "Faulted")
    app.observed.clear()

    answer = app.operators.occupancy("CP1", 1)

    ((what, verdict),) = app.observed
    assert ("occupancy", answer["reason"]) == (what, verdict["headline"])


@pytest.mark.note("F75")
def test_occupancy_answer_shows_last_50_entries(app: InProcessApp) -> None:
    app.bring_online()
    for number in range(60):
        app.clock.move(timedelta(minutes=1))
        app.report_status(1, f"Status{number}")

    timeline = app.operators.occupancy("CP1", 1)["timeline"]

    assert [f"Status{number}" for number in range(59, 9, -1)] == [entry["detail"]["status"] for entry in timeline]


@pytest.mark.note("F75")
def test_registration_and_deletion_are_in_timeline(app: InProcessApp) -> None:
    app.operators.register(WANTED, who=WHO)
    app.operators.delete("CP9", who="adam@example.org")

    noted = [(e.kind, e.detail["who"]) for e in app.store.timeline("cp9", limit=10)]

    assert [("Deleted", "adam@example.org"), ("Registered", WHO)] == sorted(noted)


@pytest.mark.note("F75")
def test_action_after_lost_race_returns_conflict(app: InProcessApp) -> None:
    app.bring_online()
    app.report_status(1, "Faulted")

    class Interrupted(FakeStore):
        """The station speaks between this one's load and its first commit."""

        spoken = False

        def commit(self, writes: Iterable[Write]) -> None:
            if not self.spoken:
                self.spoken = True
                app.report_status(1, "Charging")
            app.store.commit(writes)

    interrupted = Interrupted()
    interrupted._current_items = app.store._current_items  # type: ignore[method-assign]

    with pytest.raises(Conflict) as refused:
        Operators(app.dependencies(store=interrupted, provider=None)).reset_status(
            "CP1", 1, OperatorCommand(who=WHO, reason="Idle.", expected="Faulted")
        )

    assert ("StateChanged", True) == (refused.value.code, " is Charging now" in refused.value.message)
    assert "Charging" == app.connector(1).live.raw  # type: ignore[union-attr]


def test_station_list_filters_by_state(app: InProcessApp) -> None:
    app.bring_online()
    app.report_status(2, "Faulted")
    app.operators.register(WANTED, who=WHO)

    def listed(state: str | None) -> list[str]:
        return sorted(row["identity"] for row in app.operators.stations(limit=10, state=state)["stations"])

    assert [["CP1", "CP9"], ["CP1"], ["CP9"], ["CP1"], ["CP1"]] == [
        listed(state) for state in (None, "online", "offline", "busy", "faulted")
    ]


def test_list_skips_station_deleted_meanwhile(app: InProcessApp) -> None:
    app.operators.register(WANTED, who=WHO)
    stale = app.store.stations(limit=10)
    app.store.stations = lambda **_: stale  # type: ignore[method-assign]
    app.operators.delete("CP9", who=WHO)

    assert ["CP1"] == [row["identity"] for row in app.operators.stations(limit=10)["stations"]]


# A connector that said nothing has no row that a deletion could find; nobody registered the last one.
@pytest.mark.note("F73")
@pytest.mark.parametrize("connector_id", [1, 7])
def test_start_and_deletion_race_has_one_winner(connector_id: int) -> None:
    deleted_first, begun_first = InterruptedStore(), InterruptedStore()
    one, other = InProcessApp(store=deleted_first).register(), InProcessApp(store=begun_first).register()
    for app in (one, other):
        app.connect("A")

    deleted_first.meanwhile = lambda: one.operators.delete("CP1", who=WHO)
    with pytest.raises(NotFound):
        one.start_transaction(connector=connector_id)
    begun_first.meanwhile = lambda: other.start_transaction(connector=connector_id)
    with pytest.raises(IllegalTransition):
        other.operators.delete("CP1", who=WHO)

    assert [] == [e for e in one.store.entities() if isinstance(e, Station | Presence | Connector | OutboundCall)]
    assert other.store.snapshot("cp1").connector(connector_id).transaction is not None


def test_station_of_64_connectors_can_be_deleted(app: InProcessApp) -> None:
    app.operators.register(replace(WANTED, identity="CP1", connectors=tuple(range(1, 65))), who=WHO)
    app.connect("A")
    for connector_id in range(65):
        app.report_status(connector_id, "Faulted")
    app.clock.move(timedelta(days=1))
    app.connect("B")
    before = app.snapshot()
    assert MAX_WRITES < len(before.calls) + len(before.connectors)

    app.operators.delete("CP1", who=WHO)

    assert [] == [e for e in app.store.entities() if isinstance(e, Station | Presence | Connector | OutboundCall)]
    assert 1 == [e.kind for e in app.store.timeline("cp1", limit=10)].count("Deleted")
    assert "B" == app.gateway.closed[-1]


def triggered_connectors(app: InProcessApp) -> list[int]:
    """The connectors whose status the station is asked for, now or in its turn."""
    return [call.connector_id or 0 for call in app.snapshot().calls]


@pytest.mark.note("F21")
def test_added_connector_status_is_requested(
    app: InProcessApp,
) -> None:
    app.bring_online()
    app.report_status(5, "Available")
    before = len(app.frames)

    app.operators.register(replace(WANTED, identity="CP1", connectors=(1, 2, 3, 4, 5)), who=WHO)

    assert [3, 4] == sorted(triggered_connectors(app))
    app.answer_call("Accepted")
    app.answer_call("Accepted")
    asked = [(frame[2], frame[3]["connectorId"]) for frame in app.frames[before:]]
    assert [("TriggerMessage", 3), ("TriggerMessage", 4)] == asked


@pytest.mark.note("F21")
def test_no_status_request_when_unchanged_or_offline(app: InProcessApp) -> None:
    app.bring_online()
    app.operators.register(replace(WANTED, identity="CP1", connectors=(2, 1)), who=WHO)
    assert [] == triggered_connectors(app)

    app.disconnect("A")
    app.operators.register(replace(WANTED, identity="CP1", connectors=(1, 2, 3)), who=WHO)

    assert [] == triggered_connectors(app)
