"""What the service keeps true over several messages: presence, the outbound slot, cancelled starts, resuming."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from csms import texts
from csms.adapters.dynamodb import to_item
from csms.charging.due import chase_call
from csms.errors import BadRequest, ChargerOffline, Conflict, ConnectorBusy, NotFound, Unauthorised
from csms.model import (
    Append,
    CallState,
    CommandKind,
    Connection,
    Effect,
    HandledEvent,
    IdTag,
    Intake,
    MeterSample,
    Moment,
    Needs,
    OutboundCall,
    Policy,
    Presence,
    Protocol,
    RemoteStop,
    Reservation,
    ReservationState,
    Save,
    Snapshot,
    Stranger,
    TagStatus,
    Tariff,
    TimelineEntry,
    Write,
)
from csms.ocpp.spoken import SPOKEN
from csms.service import Drivers, Maintenance, Stations, Work
from csms.service.unit_of_work import ATTEMPTS
from tests.builders import ANY_POWER_W
from tests.fakes import Clock, FakeGateway, FakeMailer, FakeProvider, FakeStore, FreshIds

TARIFF = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)
LEASE = Policy().presence_lease


def basic(identity: str, password: bytes) -> str:
    return "Basic " + base64.b64encode(identity.encode() + b":" + password).decode()


@dataclass
class World:
    """A station CP1 with two connectors, and everything around it in memory."""

    clock: Clock = field(default_factory=Clock)
    store: FakeStore = field(default_factory=FakeStore)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    provider: FakeProvider = field(default_factory=FakeProvider)
    mailer: FakeMailer = field(default_factory=FakeMailer)
    serial: int = 0
    observed: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        work = Work(
            store=self.store,
            dialects=SPOKEN,
            gateway=self.gateway,  # type: ignore[arg-type]
            provider=self.provider,
            mailer=self.mailer,  # type: ignore[arg-type]
            policy=Policy(email_receipts=True, max_power_w=ANY_POWER_W),
            public_url="https://charge.example",
            now=self.clock,
            fresh=FreshIds(),
            observe=lambda what, facts: self.observed.append((what, facts)),
        )
        self.stations, self.drivers, self.maintenance = Stations(work), Drivers(work), Maintenance(work)
        self.stations.register("CP1", password=b"correct horse", connectors=(1, 2), tariff=TARIFF)

    def connect(self, connection_id: str, password: bytes = b"correct horse") -> Protocol:
        return self.stations.connect(
            "CP1", authorization=basic("CP1", password), offered=("ocpp1.6",), connection_id=connection_id
        )

    def says(self, action: str, *, over: str = "A", **payload: Any) -> Any:
        """What the station is answered."""
        self.serial += 1
        answer = self.stations.receive(over, json.dumps([2, f"m{self.serial}", action, payload]))
        assert answer is not None
        return json.loads(answer)

    def status(self, connector: int, status: str, *, over: str = "A") -> None:
        self.says("StatusNotification", over=over, connectorId=connector, errorCode="NoError", status=status)

    def online(self, connection_id: str = "A") -> None:
        """The station connected, booted and told that both connectors are free."""
        self.connect(connection_id)
        self.says("BootNotification", over=connection_id, chargePointVendor="v", chargePointModel="m")
        for connector in (1, 2):
            self.status(connector, "Available", over=connection_id)

    def paid(self, connector: int = 1, *, email: str | None = "driver@example.com") -> str:
        """A reservation that was paid for and confirmed."""
        created = self.drivers.create("CP1", connector)
        self.provider.pay(self.store.reservation(created["reservationId"]).checkout_id or "", email=email)
        self.drivers.confirm(created["reservationId"])
        return str(created["reservationId"])

    def charged(self, *, email: str | None = "driver@example.com") -> str:
        """A session of 10 kWh that is over."""
        self.online()
        rid = self.paid(email=email)
        tag = self.store.reservation(rid).id_tag
        start = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": "2026-11-23T09:00:10Z"}
        number = self.says("StartTransaction", **start)[2]["transactionId"]
        self.says("StopTransaction", transactionId=number, meterStop=10_000, timestamp="2026-11-23T09:30:00Z")
        return rid

    def answers(self, status: str, *, over: str = "A") -> None:
        """The station answers the CALL it was sent last."""
        assert self.stations.receive(over, json.dumps([3, self.gateway.frames[-1][1], {"status": status}])) is None

    def presence(self) -> Presence:
        found = self.store.snapshot("cp1").presence
        assert found is not None
        return found

    def decisions(self) -> list[tuple[str, str | None]]:
        """The verdict and the headline of each decision since they were last asked for."""
        told = [(facts["verdict"], facts["headline"]) for what, facts in self.observed if what == "decision"]
        self.observed.clear()
        return told

    def startable(self, connector: int = 1) -> bool:
        return bool(self.drivers.connector("CP1", connector)["startable"])


@pytest.fixture
def world() -> World:
    return World()


class Interrupted(FakeStore):
    """A table in which something happens, once, after a station was read and before its reservation is."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None

    def complete(self, snapshot: Snapshot, needs: Needs) -> Snapshot:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        return super().complete(snapshot, needs)


def test_f26_a_start_between_whose_reads_the_driver_cancelled_is_answered_as_one_after_it() -> None:
    store = Interrupted()
    world = World(store=store)
    world.online()
    held = store.reservation(world.paid())
    store.meanwhile = lambda: world.drivers.cancel(held.reservation_id)

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": world.clock.at.isoformat()}
    answer = world.says("StartTransaction", **start)

    assert (3, "Invalid") == (answer[0], answer[2]["idTagInfo"]["status"])
    assert ReservationState.CANCELLED is store.reservation(held.reservation_id).state


def test_what_differs_however_often_it_is_read_holds_up_nobody(world: World) -> None:
    world.online()
    held = world.store.reservation(world.paid())
    world.store.commit([Save(replace(held, expires_at=world.clock.at + timedelta(minutes=1)))])

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": world.clock.at.isoformat()}

    assert "Accepted" == world.says("StartTransaction", **start)[2]["idTagInfo"]["status"]
    assert ReservationState.CHARGING is world.store.reservation(held.reservation_id).state


def test_f16_an_old_sockets_disconnect_after_the_new_connect_leaves_the_station_online(world: World) -> None:
    world.online("A")
    world.connect("B")
    world.stations.disconnect("A")

    assert "B" == world.presence().connection_id
    assert world.startable()


def test_f16_the_present_sockets_disconnect_takes_the_station_offline(world: World) -> None:
    world.online("A")
    world.stations.disconnect("A")

    assert "Offline" == world.drivers.connector("CP1", 1)["status"]


@pytest.mark.parametrize("password", [b"wrong", b""])
def test_f17_a_socket_that_fails_authentication_displaces_nobody(world: World, password: bytes) -> None:
    world.online("A")
    before = world.store.entities()
    with pytest.raises(Unauthorised):
        world.connect("B", password)

    assert before == world.store.entities()
    assert [] == world.gateway.closed


def test_f17_one_that_proved_itself_does_and_the_old_socket_is_closed(world: World) -> None:
    world.online("A")
    world.connect("B")

    assert ["A"] == world.gateway.closed


def test_nothing_is_said_to_a_station_that_has_just_gone(world: World) -> None:
    world.connect("A")
    world.clock.move(timedelta(minutes=1))
    waiting = world.store.snapshot("cp1").calls
    world.stations.disconnect("A")

    assert {"TriggerStatus"} == {str(call.kind) for call in waiting if call.send_at <= world.clock()}
    assert [] == world.gateway.sent


def test_f18_a_socket_that_turns_out_to_be_gone_makes_the_station_offline_before_money_is_asked_for(
    world: World,
) -> None:
    world.online("A")
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)

    assert world.presence().connection_id is None
    assert [] == [e for e in world.store.entities() if isinstance(e, Reservation | Effect)]


def test_f18_gone_says_nothing_of_a_newer_connection(world: World) -> None:
    world.online("A")
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.connect("B")
    world.gateway.gone.add("A")
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.drivers.confirm(rid)

    assert "B" == world.presence().connection_id
    assert "B" == world.gateway.sent[-1][0]


def test_f19_after_the_two_hour_cut_nothing_has_to_be_told_again(world: World) -> None:
    world.online("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    world.connect("B")

    assert world.startable()
    assert "Available" == world.drivers.connector("CP1", 1)["status"]


def test_f20_a_lost_disconnect_leaves_the_station_online_for_its_lease_and_no_longer(world: World) -> None:
    world.online("A")
    world.clock.move(LEASE - timedelta(seconds=1))
    assert world.startable()
    world.clock.move(timedelta(seconds=1))

    assert not world.startable()


def test_f20_every_heartbeat_renews_the_lease(world: World) -> None:
    world.online("A")
    for _ in range(10):
        world.clock.move(timedelta(seconds=300))
        world.says("Heartbeat")

    assert world.startable()


def test_f21_a_station_that_came_back_without_a_word_is_asked_by_the_sweep(world: World) -> None:
    world.online("A")
    world.stations.disconnect("A")
    world.clock.move(LEASE + timedelta(hours=1))
    world.connect("B")
    world.clock.move(timedelta(seconds=30))
    world.maintenance.sweep()
    world.answers("Accepted", over="B")

    asked = [(f[2], f[3]["connectorId"]) for f in world.gateway.frames]
    assert [("TriggerMessage", 1), ("TriggerMessage", 2)] == sorted(asked)


def test_f21_nothing_is_sent_into_a_socket_whose_connect_has_not_returned(world: World) -> None:
    world.connect("A")

    assert [] == world.gateway.sent


def test_f22_nobody_asks_the_provider_before_the_connector_is_held(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.online("A")
    held: list[str | None] = []
    opened = world.provider.open_checkout

    def watched(order: Any, *, key: str) -> Any:
        lock = world.store.snapshot("cp1").connector(1).lock
        held.append(lock.reservation_id if lock is not None else None)
        return opened(order, key=key)

    monkeypatch.setattr(world.provider, "open_checkout", watched)
    rid = world.drivers.create("CP1", 1)["reservationId"]
    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1)

    assert [rid] == held


class Outrun(FakeStore):
    """A table in which others are faster than every reservation, and, before the fourth attempt, something happens."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.happens: Callable[[], object] = lambda: None

    def commit(self, writes: Iterable[Write]) -> None:
        wanted = list(writes)
        if any(isinstance(write, Save) and isinstance(write.entity, Reservation) for write in wanted):
            self.lost += 1
            if self.lost == ATTEMPTS:
                self.happens()
            raise Conflict("Somebody else was first.")
        super().commit(wanted)


def test_f22_whoever_keeps_losing_the_race_for_a_free_connector_is_told_just_that() -> None:
    world = World(store=Outrun())
    world.online()
    world.decisions()

    with pytest.raises(ConnectorBusy) as refused:
        world.drivers.create("CP1", 1)

    assert (("Contended",), texts.reason("Contended")) == (refused.value.reasons, refused.value.message)
    assert [] == world.provider.calls
    assert [] == world.decisions()


def test_f22_f75_whoever_lost_the_race_is_told_what_keeps_the_connector_now_and_that_is_a_decision() -> None:
    store = Outrun()
    world = World(store=store)
    world.online()
    world.decisions()
    store.happens = lambda: world.status(1, "Faulted")

    with pytest.raises(ConnectorBusy) as refused:
        world.drivers.create("CP1", 1)

    assert ("LiveStatus:Faulted",) == refused.value.reasons
    assert [("busy", "LiveStatus:Faulted")] == world.decisions()


def test_f22_whoever_lost_the_race_at_a_station_that_is_offline_by_then_is_told_so() -> None:
    store = Outrun()
    world = World(store=store)
    world.online()
    store.happens = lambda: world.stations.disconnect("A")

    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)


def test_f25_a_remote_start_that_nobody_answers_proves_nothing_and_the_car_may_still_start(world: World) -> None:
    world.online()
    rid = world.paid()
    held = world.store.reservation(rid)
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()
    assert [CommandKind.TRIGGER_STATUS] == [call.kind for call in world.store.snapshot("cp1").calls]
    assert held == world.store.reservation(rid)

    world.clock.move(Policy().start_window - Policy().call_timeout)
    late = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": "2026-11-23T09:10:00Z"}
    assert "Accepted" == world.says("Authorize", idTag=held.id_tag)[2]["idTagInfo"]["status"]
    started = world.says("StartTransaction", **late)

    assert "Accepted" == started[2]["idTagInfo"]["status"]
    assert "Charging" == world.drivers.status(rid)["status"]


def test_f31_a_cancellation_after_the_start_was_requested_is_remembered_and_stops_what_still_starts(
    world: World,
) -> None:
    world.online()
    rid = world.paid()
    tag = world.store.reservation(rid).id_tag
    assert "Cancelled" == world.drivers.cancel(rid)["status"]
    world.answers("Accepted")
    started = world.says("StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z")

    assert "Invalid" == started[2]["idTagInfo"]["status"]
    assert ["RemoteStopTransaction", {"transactionId": started[2]["transactionId"]}] == world.gateway.frames[-1][2:]
    followed = world.drivers.status(rid)
    assert ("Cancelled", "released") == (followed["status"], followed["money"])
    assert [] == world.provider.captured()


def test_f32_a_reservation_that_waited_out_an_absence_starts_when_the_station_is_back(world: World) -> None:
    world.online()
    created = world.drivers.create("CP1", 1)
    rid = created["reservationId"]
    world.stations.disconnect("A")
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    waiting = world.drivers.confirm(rid)
    assert ("Authorized", "ChargerOffline") == (waiting["status"], waiting["waitingFor"][0]["code"])

    world.connect("B")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    assert "TriggerMessage" == world.gateway.frames[-1][2]
    world.answers("Accepted", over="B")
    world.status(1, "Available", over="B")

    assert "StartRequested" == world.drivers.status(rid)["status"]
    assert "RemoteStartTransaction" == world.gateway.frames[-1][2]


def comes_back_and_is_asked(world: World) -> str:
    """The reservation of a driver who paid while the station was away; it is back, and asked for its status."""
    world.online()
    rid: str = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.stations.disconnect("A")
    assert "Authorized" == world.drivers.confirm(rid)["status"]
    world.connect("B")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    assert "TriggerMessage" == world.gateway.frames[-1][2]
    return rid


@pytest.mark.parametrize(
    "refusal", ['[3,"{}",{{"status":"Rejected"}}]', '[4,"{}","NotImplemented","",{{}}]'], ids=["rejected", "not known"]
)
def test_f32_a_station_that_tells_no_status_when_it_is_asked_is_started_by_what_is_known(
    world: World, refusal: str
) -> None:
    rid = comes_back_and_is_asked(world)

    world.stations.receive("B", refusal.format(world.gateway.frames[-1][1]))

    assert "StartRequested" == world.drivers.status(rid)["status"]
    assert "RemoteStartTransaction" == world.gateway.frames[-1][2]


@pytest.mark.parametrize("answers", [False, True], ids=["no answer", "a promise that is not kept"])
def test_f32_a_station_that_never_tells_its_status_is_started_by_what_is_known_once_it_had_its_time(
    world: World, answers: bool
) -> None:
    rid = comes_back_and_is_asked(world)
    if answers:
        world.clock.move(timedelta(seconds=10))
        world.answers("Accepted", over="B")
    world.clock.move(Policy().call_timeout - timedelta(seconds=1))
    world.maintenance.sweep()
    assert "Authorized" == world.drivers.status(rid)["status"]

    world.clock.move(timedelta(seconds=1))
    world.maintenance.sweep()

    assert "StartRequested" == world.drivers.status(rid)["status"]
    assert "RemoteStartTransaction" == world.gateway.frames[-1][2]
    assert ["RemoteStart"] == [call.kind for call in world.store.snapshot("cp1").calls]


def test_f32_a_status_that_was_promised_is_waited_for_and_then_decides(world: World) -> None:
    rid = comes_back_and_is_asked(world)
    world.answers("Accepted", over="B")
    world.status(1, "Faulted", over="B")
    assert () == world.store.snapshot("cp1").calls
    world.clock.move(timedelta(minutes=2))
    world.maintenance.sweep()

    assert "Authorized" == world.drivers.status(rid)["status"]


def test_f32_f43_a_promise_holds_up_no_other_call(world: World) -> None:
    world.online()
    waiting = [world.drivers.create("CP1", bay)["reservationId"] for bay in (1, 2)]
    world.stations.disconnect("A")
    for rid in waiting:
        world.provider.pay(world.store.reservation(rid).checkout_id or "")
        world.drivers.confirm(rid)
    world.connect("B")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    world.answers("Accepted", over="B")

    asked = [frame[3]["connectorId"] for frame in world.gateway.frames if frame[2] == "TriggerMessage"]
    assert [1, 2] == sorted(asked)


def test_f32_f43_a_start_that_was_queued_behind_a_question_goes_out_with_the_promise(world: World) -> None:
    comes_back_and_is_asked(world)
    world.paid(2)
    assert "TriggerMessage" == world.gateway.frames[-1][2]

    world.answers("Accepted", over="B")

    assert ("RemoteStartTransaction", 2) == (world.gateway.frames[-1][2], world.gateway.frames[-1][3]["connectorId"])


def test_f32_a_start_that_got_lost_in_the_cut_is_sent_again_when_the_station_tells_no_status(world: World) -> None:
    world.online()
    rid = world.paid()
    world.stations.disconnect("A")
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()
    assert CommandKind.REMOTE_START not in {call.kind for call in world.store.snapshot("cp1").calls}
    world.connect("B")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    assert "TriggerMessage" == world.gateway.frames[-1][2]

    world.answers("Rejected", over="B")

    tag = world.store.reservation(rid).id_tag
    assert ["RemoteStartTransaction", {"connectorId": 1, "idTag": tag}] == world.gateway.frames[-1][2:]


def test_f21_a_promise_of_a_status_that_is_not_kept_is_forgotten(world: World) -> None:
    world.connect("A")
    for _ in (1, 2):
        world.clock.move(timedelta(seconds=20))
        world.maintenance.sweep()
        world.answers("Accepted")
    assert [CallState.PROMISED] * 2 == [call.state for call in world.store.snapshot("cp1").calls]

    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()

    assert () == world.store.snapshot("cp1").calls


def test_f21_a_promise_may_be_kept_before_it_is_heard_of(world: World) -> None:
    world.connect("A")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    world.clock.move(timedelta(seconds=1))
    ((_, asked, _, what),) = world.gateway.frames
    world.status(what["connectorId"], "Available")
    world.stations.receive("A", json.dumps([3, asked, {"status": "Accepted"}]))

    assert [3 - what["connectorId"]] == [call.connector_id for call in world.store.snapshot("cp1").calls]


def goes_and_comes_back(world: World, over: str, *, away: float = 2) -> None:
    """The station's socket closed, and it connected over another."""
    world.stations.disconnect(world.presence().connection_id or "")
    world.clock.move(timedelta(seconds=away))
    world.connect(over)


def sent_over(world: World, connection_id: str, action: str) -> int:
    return sum(over == connection_id and json.loads(frame)[2] == action for over, frame in world.gateway.sent)


def test_f32_a_remote_start_that_died_with_its_socket_is_sent_again_when_the_station_tells_its_status(
    world: World,
) -> None:
    world.online()
    rid = world.paid()
    goes_and_comes_back(world, "B")
    world.status(1, "Preparing", over="B")

    assert ("StartRequested", 1) == (
        world.drivers.status(rid)["status"],
        sent_over(world, "B", "RemoteStartTransaction"),
    )


@pytest.mark.parametrize("says", ["a status", "nothing"])
def test_f25_f32_a_remote_start_that_nobody_answered_is_decided_again(world: World, says: str) -> None:
    world.online()
    world.paid()
    world.clock.move(Policy().call_timeout + timedelta(seconds=1))
    if says == "a status":
        world.status(1, "Preparing")
    else:
        for _ in (1, 2):
            world.maintenance.sweep()
            world.clock.move(Policy().call_timeout + timedelta(seconds=1))

    assert 2 == sent_over(world, "A", "RemoteStartTransaction")
    assert 1 == len([c for c in world.store.snapshot("cp1").calls if c.kind is CommandKind.REMOTE_START])


def test_f24_f32_what_the_station_granted_before_a_boot_it_is_asked_again(world: World) -> None:
    world.online()
    world.paid()
    world.answers("Accepted")
    world.status(1, "Available")
    assert 1 == sent_over(world, "A", "RemoteStartTransaction")
    goes_and_comes_back(world, "B")
    world.says("BootNotification", over="B", chargePointVendor="v", chargePointModel="m")
    world.status(1, "Preparing", over="B")

    assert 1 == sent_over(world, "B", "RemoteStartTransaction")


def test_f25_a_refusal_of_a_start_that_was_asked_for_twice_proves_nothing(world: World) -> None:
    world.online()
    rid = world.paid()
    goes_and_comes_back(world, "B")
    world.status(1, "Preparing", over="B")
    world.answers("Rejected", over="B")
    assert "StartRequested" == world.drivers.status(rid)["status"]

    tag = world.store.reservation(rid).id_tag
    start = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": "2026-11-23T09:00:10Z"}
    world.says("StartTransaction", over="B", **start)

    assert "Charging" == world.drivers.status(rid)["status"]


def test_f30_a_remote_stop_that_died_with_its_socket_is_sent_over_the_next(world: World) -> None:
    world.online()
    rid = world.paid()
    world.answers("Accepted")
    world.drivers.cancel(rid)
    tag = world.store.reservation(rid).id_tag
    start = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": "2026-11-23T09:00:10Z"}
    world.says("StartTransaction", **start)
    assert 1 == sent_over(world, "A", "RemoteStopTransaction")

    goes_and_comes_back(world, "B")
    world.says("Heartbeat", over="B")
    world.maintenance.sweep()

    assert 1 == sent_over(world, "B", "RemoteStopTransaction")


def test_f32_who_waits_for_what_wears_off_is_thought_of_when_it_has(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.status(1, "Finishing")
    goes_and_comes_back(world, "B", away=27 * 60)
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    assert ["PersistedStatus:Occupied"] == [one["code"] for one in world.drivers.confirm(rid)["waitingFor"]]
    for _ in range(8):
        world.clock.move(timedelta(minutes=1))
        world.says("Heartbeat", over="B")
        world.maintenance.sweep()
        if world.gateway.frames[-1][2] == "TriggerMessage":
            world.answers("Rejected", over="B")

    assert "StartRequested" == world.drivers.status(rid)["status"]


@pytest.mark.parametrize("asked", ["and no answer came", "and it was not sent"])
def test_f21_a_reconnect_asks_again_whatever_was_asked_before(world: World, asked: str) -> None:
    world.online()
    world.status(1, "Charging")
    goes_and_comes_back(world, "B")
    if asked == "and no answer came":
        world.clock.move(timedelta(seconds=11))
        world.maintenance.sweep()
        assert 1 == sent_over(world, "B", "TriggerMessage")
    goes_and_comes_back(world, "C", away=9 * 60 + 50)
    world.clock.move(timedelta(seconds=30))
    world.maintenance.sweep()

    assert 1 == sent_over(world, "C", "TriggerMessage")


def test_f21_what_was_told_over_the_old_socket_is_no_answer_to_what_is_asked_over_the_new(world: World) -> None:
    world.connect("A")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    asked = world.gateway.frames[-1][3]["connectorId"]
    world.status(asked, "Available")
    assert [True] == [c.told for c in world.store.snapshot("cp1").calls if c.connector_id == asked]

    world.connect("B")

    assert [False] == [c.told for c in world.store.snapshot("cp1").calls if c.connector_id == asked]


def test_f21_a_station_with_as_many_connectors_as_there_may_be_reconnects_in_one_commit(world: World) -> None:
    world.stations.register("CP1", password=b"correct horse", connectors=tuple(range(1, 65)), tariff=TARIFF)
    for over in ("A", "B", "C"):
        world.connect(over)
        world.clock.move(timedelta(seconds=11))
        world.maintenance.sweep()
        world.answers("Accepted", over=over)
        world.clock.move(timedelta(seconds=11))

    asked = [call.connector_id for call in world.store.snapshot("cp1").calls if call.state is not CallState.PROMISED]
    assert "C" == world.presence().connection_id
    assert len(asked) == len(set(asked))
    assert set(range(1, 65)) == {call.connector_id for call in world.store.snapshot("cp1").calls}


def test_f32_a_station_that_refuses_to_tell_is_not_asked_for_what_should_be_over_already(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    card = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
    world.says("StartTransaction", **card)
    world.status(1, "Available")
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.drivers.confirm(rid)
    world.clock.move(Policy().implied_stop_grace + timedelta(seconds=2))
    goes_and_comes_back(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.says("Heartbeat", over="B")
    world.status(2, "Available", over="B")
    for _ in range(9):
        if sent_over(world, "B", "TriggerMessage"):
            world.answers("Rejected", over="B")

    assert 2 >= sent_over(world, "B", "TriggerMessage")


def test_f21_a_question_that_was_told_before_a_stop_does_not_stand_for_one_after_it(world: World) -> None:
    world.online()
    start = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
    number = world.says("StartTransaction", **start)[2]["transactionId"]
    world.status(1, "Charging")
    goes_and_comes_back(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.maintenance.sweep()
    world.status(1, "Charging", over="B")
    stop = {"transactionId": number, "meterStop": 5000, "timestamp": "2026-11-23T09:00:12Z"}
    world.says("StopTransaction", over="B", **stop)
    world.answers("Accepted", over="B")

    waiting = [(c.connector_id, c.state) for c in world.store.snapshot("cp1").calls]
    assert [(1, CallState.QUEUED)] == waiting


def test_f11_f21_only_the_first_word_after_a_question_is_its_answer(world: World) -> None:
    world.online()
    clock = {"connectorId": 1, "errorCode": "NoError"}
    world.says("StatusNotification", status="Charging", timestamp="2026-11-23T09:00:00Z", **clock)
    goes_and_comes_back(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.maintenance.sweep()
    newer = {"status": "Charging", "timestamp": "2026-11-23T09:00:12Z"} | clock
    world.says("StatusNotification", over="B", **newer)
    world.says("StatusNotification", over="B", **{**newer, "status": "Available", "timestamp": "2026-11-23T09:00:05Z"})

    assert not world.startable(1)


def test_f32_what_is_asked_of_two_bays_in_one_word_is_asked_of_both(world: World) -> None:
    world.online()
    waiting = [world.drivers.create("CP1", bay)["reservationId"] for bay in (1, 2)]
    world.gateway.gone.add("A")
    world.status(2, "Faulted")
    world.status(2, "Available")
    world.clock.move(LEASE + timedelta(seconds=1))
    for rid in waiting:
        world.provider.pay(world.store.reservation(rid).checkout_id or "")
        world.drivers.confirm(rid)
    world.gateway.gone.clear()
    world.status(1, "Available")

    calls = {(c.kind, c.connector_id) for c in world.store.snapshot("cp1").calls}
    assert {(CommandKind.REMOTE_START, 1), (CommandKind.TRIGGER_STATUS, 2)} == calls


def test_f73_a_call_is_not_put_off_while_its_station_is_coming_back(world: World) -> None:
    world.connect("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    before = world.store.snapshot("cp1")
    call = before.calls[0]
    world.connect("B")

    outcome = chase_call(before, call, Moment(now=world.clock.at, fresh=FreshIds()(), policy=Policy()))
    with pytest.raises(Conflict):
        world.store.commit(outcome.writes)


def test_f25_a_start_that_may_have_been_handed_over_repeats_when_it_is_sent_again(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.gateway.unreachable = True
    world.drivers.confirm(rid)
    world.gateway.unreachable = False
    world.clock.move(timedelta(seconds=6))
    world.maintenance.sweep()
    world.answers("Rejected")

    assert "StartRequested" == world.drivers.status(rid)["status"]


def test_f21_a_crowded_station_reconnects_whatever_waits_for_it(world: World) -> None:
    world.stations.register("CP1", password=b"correct horse", connectors=tuple(range(1, 65)), tariff=TARIFF)
    world.connect("A")
    at, until = world.clock.at, world.clock.at + timedelta(minutes=10)
    stops = [
        OutboundCall(
            station_id="cp1",
            call_id=f"stop-{number}",
            command=RemoteStop(transaction_id=str(number)),
            asked_at=at,
            send_at=at,
            due_at=until,
            expires_at=until,
        )
        for number in range(1, 65)
    ]
    world.store.commit([Save(stop) for stop in stops])
    world.connect("B")

    assert "B" == world.presence().connection_id


def test_f11_f21_a_status_that_we_asked_for_is_news_whatever_the_stations_clock_says(world: World) -> None:
    world.online()
    clock = {"connectorId": 1, "errorCode": "NoError"}
    world.says("StatusNotification", status="Charging", timestamp="2026-11-23T09:00:00Z", **clock)
    set_back = {"status": "Available", "timestamp": "2026-11-23T08:00:00Z"} | clock
    world.says("StatusNotification", **set_back)
    assert not world.startable(1)

    goes_and_comes_back(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.maintenance.sweep()
    world.answers("Accepted", over="B")
    world.says("StatusNotification", over="B", **set_back)

    assert world.startable(1)


def test_f73_calls_to_stations_that_are_away_are_due_when_they_are_back_and_not_before(world: World) -> None:
    world.connect("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    assert 2 == world.maintenance.sweep().done["OutboundCall"]

    world.clock.move(timedelta(minutes=5))
    assert {} == world.maintenance.sweep().done

    world.connect("B")
    world.clock.move(timedelta(seconds=10))
    world.says("Heartbeat", over="B")
    world.maintenance.sweep()
    assert 1 == sent_over(world, "B", "TriggerMessage")


def test_f73_a_call_that_never_found_its_station_is_forgotten_in_the_end(world: World) -> None:
    world.connect("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    world.clock.move(timedelta(minutes=11))
    world.maintenance.sweep()

    assert () == world.store.snapshot("cp1").calls


def test_f34_confirming_what_is_past_its_payment_asks_nobody_and_tells_how_it_stands(world: World) -> None:
    world.online()
    paid = world.paid()
    world.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    free = world.drivers.create("CP1", 2, id_tag="FRIEND")["reservationId"]
    world.provider.fail_next("payment")

    assert ["StartRequested"] * 2 == [world.drivers.confirm(rid)["status"] for rid in (paid, free)]


def test_f35_the_redirect_alone_starts_the_charge_once_the_provider_says_that_it_is_paid(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    lying = world.drivers.confirm(rid)
    assert ("PendingPayment", "none", []) == (lying["status"], lying["money"], world.gateway.frames)

    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    paid = world.drivers.confirm(rid)

    assert ("StartRequested", "authorised") == (paid["status"], paid["money"])
    assert ["RemoteStartTransaction"] == [frame[2] for frame in world.gateway.frames]


def test_f35_a_driver_who_paid_at_an_offline_station_starts_by_confirming_again_when_it_is_back(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.stations.disconnect("A")
    assert "Authorized" == world.drivers.confirm(rid)["status"]

    world.connect("B")

    assert "StartRequested" == world.drivers.confirm(rid)["status"]


@pytest.mark.parametrize("another", [None, "0" * 32], ids=["that began nothing", "that began something else"])
def test_f36_the_browser_that_began_resumes_its_own_checkout_and_another_one_does_not(
    world: World, another: str | None
) -> None:
    world.online()
    first = world.drivers.create("CP1", 1)
    world.provider.fail_next("open_checkout")  # Nobody asks for another one.
    resumed = world.drivers.create("cp1", 1, resume=first["reservationId"])
    with pytest.raises(ConnectorBusy) as refused:
        world.drivers.create("CP1", 1, resume=another)

    assert first == resumed
    assert ("ActiveReservation",) == refused.value.reasons
    assert "temporarily reserved" in refused.value.message


def test_f36_what_was_begun_elsewhere_or_is_over_is_not_resumed(world: World) -> None:
    world.online()
    first = world.drivers.create("CP1", 1)
    other = world.drivers.create("CP1", 2, resume=first["reservationId"])
    world.drivers.cancel(first["reservationId"])
    again = world.drivers.create("CP1", 1, resume=first["reservationId"])

    assert 3 == len({first["reservationId"], other["reservationId"], again["reservationId"]})


def test_f36_a_checkout_is_resumed_to_the_last_moment_of_its_hold(world: World) -> None:
    world.online()
    first = world.drivers.create("CP1", 1)
    until = world.store.reservation(first["reservationId"]).expires_at
    assert until is not None
    world.clock.move(until - world.clock())
    world.says("Heartbeat")
    assert first == world.drivers.create("CP1", 1, resume=first["reservationId"])

    world.clock.move(timedelta(microseconds=1))

    assert first["reservationId"] != world.drivers.create("CP1", 1, resume=first["reservationId"])["reservationId"]


def test_f36_what_is_paid_is_not_paid_again(world: World) -> None:
    world.online()
    rid = world.paid()

    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1, resume=rid)


def test_f37_a_free_session_has_the_lock_and_the_status_page_and_moves_no_money(world: World) -> None:
    world.online()
    world.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    begun = world.drivers.create("CP1", 1, id_tag="friend")
    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1, id_tag="FRIEND")
    followed = world.drivers.status(begun["reservationId"])

    page = f"https://charge.example/session/{begun['reservationId']}"
    assert ("NothingToPay", page) == (begun["status"], begun["statusUrl"])
    assert ("StartRequested", "none", 0) == (followed["status"], followed["money"], followed["maxAmount"])


def test_f37_a_free_station_asks_nobody_for_money(world: World) -> None:
    world.online()
    station = world.store.snapshot("cp1").station
    world.store.commit([Save(replace(station, free=True))])
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.answers("Accepted")
    tag = world.store.reservation(rid).id_tag
    started = world.says("StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z")
    number = started[2]["transactionId"]
    world.says("StopTransaction", transactionId=number, meterStop=9000, timestamp="2026-11-23T09:30:00Z")
    followed = world.drivers.status(rid)

    assert ("Completed", "none", 9000, 0) == tuple(followed[k] for k in ("status", "money", "energyWh", "amount"))
    assert [] == [e for e in world.store.entities() if isinstance(e, Effect)]


def test_f64_a_driver_who_paid_after_the_reservation_ended_is_told_and_gets_the_hold_back_at_once(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    checkout = world.store.reservation(rid).checkout_id or ""
    world.provider.fail_next("expire_checkout")
    world.drivers.cancel(rid)
    world.provider.pay(checkout)
    told = world.drivers.confirm(rid)

    assert ("Cancelled", "released") == (told["status"], told["money"])
    assert "PaymentCameTooLate" in [step["event"] for step in told["steps"]]
    assert 0 == world.provider.held()


def test_a_receipt_is_mailed_once_to_who_paid_and_its_address_is_kept_nowhere(world: World) -> None:
    rid = world.charged()
    world.clock.move(timedelta(hours=1))
    world.maintenance.sweep()

    ((address, mail),) = world.mailer.sent
    assert "driver@example.com" == address
    assert f"https://charge.example/receipt/{rid}" in mail.text
    assert "Total: EUR 6.45" in mail.text
    assert "ReceiptSent" in [step["event"] for step in world.drivers.status(rid)["steps"]]
    assert "driver@example.com" not in repr(world.store.entities()) + json.dumps(world.drivers.receipt(rid))


def test_a_mail_that_was_not_taken_is_tried_again_and_the_money_is_none_the_worse(world: World) -> None:
    world.mailer.unreachable = True
    rid = world.charged()
    assert "captured" == world.drivers.status(rid)["money"]

    world.mailer.unreachable = False
    world.clock.move(timedelta(hours=1))
    world.maintenance.sweep()

    assert 1 == len(world.mailer.sent)


def test_a_driver_who_gave_no_address_gets_no_mail_and_has_the_page(world: World) -> None:
    rid = world.charged(email=None)

    assert ([], 645) == (world.mailer.sent, world.drivers.receipt(rid)["total"])
    assert [] == [e for e in world.store.entities() if isinstance(e, Effect)]


def test_f68_the_page_of_a_station_that_fell_silent_counts_idle_time_until_it_was_last_heard(world: World) -> None:
    world.online()
    station = world.store.snapshot("cp1").station
    idle = replace(TARIFF, idle_price=Decimal(10), idle_maximum=600)
    world.store.commit([Save(replace(station, tariff=idle))])
    rid = world.paid()
    tag = world.store.reservation(rid).id_tag
    at = world.clock().isoformat()
    number = world.says("StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp=at)[2]["transactionId"]
    world.status(1, "SuspendedEV")
    world.says("StopTransaction", transactionId=number, meterStop=10_000, timestamp=at)
    world.clock.move(timedelta(minutes=10))
    world.says("Heartbeat")
    while_online = world.drivers.status(rid)
    world.clock.move(timedelta(hours=2))
    later = world.drivers.status(rid)

    assert ("WaitingForDisconnect", 100) == (while_online["status"], while_online["idle"]["fee"])
    assert while_online["idle"] == later["idle"]


# What is told of each decision


def test_what_create_decided_is_told_whether_it_is_yes_or_no(world: World) -> None:
    world.online()
    world.drivers.create("CP1", 1)
    assert [("startable", None)] == world.decisions()
    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1)

    assert [("busy", "ActiveReservation")] == world.decisions()


def test_a_socket_that_is_gone_is_told_as_the_decision_that_it_makes(world: World) -> None:
    world.online()
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)

    assert [("busy", "ChargerOffline")] == world.decisions()


def test_what_does_not_exist_is_no_decision(world: World) -> None:
    world.online()
    with pytest.raises(NotFound):
        world.drivers.create("CP1", 3)

    assert [] == world.decisions()


def test_a_decision_that_lost_its_race_is_not_told_and_the_one_that_was_committed_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.online()
    commit, lost = world.store.commit, [Conflict("Somebody else was first.")]

    def contested(writes: Iterable[Write]) -> None:
        if lost:
            raise lost.pop()
        commit(writes)

    monkeypatch.setattr(world.store, "commit", contested)
    world.observed.clear()
    world.drivers.create("CP1", 1)

    assert ["conflict", "decision"] == [what for what, _ in world.observed]


def test_what_confirm_decided_is_told_once_there_is_something_to_decide(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.decisions()
    world.drivers.confirm(rid)
    assert [] == world.decisions()

    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.status(1, "Faulted")
    world.drivers.confirm(rid)
    assert [("busy", "LiveStatus:Faulted")] == world.decisions()

    world.status(1, "Preparing")
    assert [("startable", None)] == world.decisions()

    world.drivers.confirm(rid)
    world.status(1, "Charging")
    assert [] == world.decisions()


def test_what_a_webhook_decided_is_told_like_what_confirm_did(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.decisions()
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.drivers.webhook(*world.provider.notice(rid))

    assert [("startable", None)] == world.decisions()


def test_a_payment_that_finds_its_connector_taken_tells_by_what(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.clock.move(timedelta(minutes=33))
    world.says("Heartbeat")
    world.drivers.create("CP1", 1)
    world.decisions()
    world.drivers.confirm(rid)

    assert [("busy", "ActiveReservation")] == world.decisions()


def test_a_free_start_is_two_decisions_who_gets_the_connector_and_whether_it_starts(world: World) -> None:
    world.online()
    world.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    world.drivers.create("CP1", 1, id_tag="FRIEND")

    assert [("startable", None)] * 2 == world.decisions()


def test_looking_is_no_decision(world: World) -> None:
    world.online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.decisions()
    world.drivers.connector("CP1", 1)
    world.drivers.status(rid)
    world.status(2, "Charging")

    assert [] == world.decisions()


def test_f43_a_station_is_sent_one_call_at_a_time_and_its_own_are_answered_meanwhile(world: World) -> None:
    world.online()
    world.paid(1)
    world.paid(2)
    assert ["RemoteStartTransaction"] == [frame[2] for frame in world.gateway.frames]
    assert "currentTime" in world.says("Heartbeat")[2]
    world.answers("Accepted")

    assert [1, 2] == [frame[3]["connectorId"] for frame in world.gateway.frames]


def test_f43_a_call_that_nobody_answers_gives_its_turn_to_the_next(world: World) -> None:
    world.online()
    world.paid(1)
    world.paid(2)
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()

    assert [1, 2] == [frame[3]["connectorId"] for frame in world.gateway.frames]


def test_f44_an_answer_that_comes_after_our_time_out_harms_nobody(world: World) -> None:
    world.online()
    rid = world.paid(1)
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()
    world.answers("Rejected")

    assert "StartRequested" == world.drivers.status(rid)["status"]


def test_f48_the_first_offer_that_is_spoken_here_is_taken_and_none_is_refused(world: World) -> None:
    offers = ("ocpp9.9", " OCPP1.6 ")
    chosen = world.stations.connect(
        "CP1", authorization=basic("CP1", b"correct horse"), offered=offers, connection_id="A"
    )
    with pytest.raises(BadRequest):
        world.stations.connect("CP1", authorization=basic("CP1", b"correct horse"), offered=("",), connection_id="B")

    assert Protocol.OCPP16 is chosen
    assert "A" == world.presence().connection_id


def test_f49_an_unknown_station_is_listed_for_the_operator_and_nothing_else_is_known_of_it(world: World) -> None:
    before = world.store.entities()
    with pytest.raises(NotFound):
        world.stations.connect("New-1", authorization=basic("New-1", b"x"), offered=("ocpp1.6",), connection_id="A")

    (stranger,) = [e for e in world.store.entities() if e not in before]
    assert isinstance(stranger, Stranger)
    assert "New-1" == stranger.identity


KEPT = {
    Connection: timedelta(hours=3),
    HandledEvent: timedelta(days=30),
    IdTag: timedelta(days=30),
    Intake: timedelta(days=90),
    MeterSample: timedelta(days=90),
    Stranger: timedelta(days=30),
    TimelineEntry: timedelta(days=90),
}
"""How long what accumulates is kept."""


@pytest.mark.parametrize("kind", KEPT)
def test_f76_what_accumulates_is_deleted_some_day(world: World, kind: type) -> None:
    with pytest.raises(NotFound):
        world.stations.connect("New-1", authorization=None, offered=(), connection_id="Z")
    world.online()
    rid = world.paid()
    world.drivers.webhook(*world.provider.notice(rid))
    tag = world.store.reservation(rid).id_tag
    started = world.says("StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z")
    number = started[2]["transactionId"]
    sample = {"timestamp": "2026-11-23T09:10:00Z", "sampledValue": [{"value": "100"}]}
    world.says("MeterValues", connectorId=1, transactionId=number, meterValue=[sample])

    kept = [to_item(e)["ttl"] for e in world.store.entities() if isinstance(e, kind)]

    assert {int((world.clock() + KEPT[kind]).timestamp())} == set(kept)


def test_f76_nothing_else_that_is_stored_is_forgotten_by_the_clock(world: World) -> None:
    world.online()
    world.paid()

    assert [] == [e for e in world.store.entities() if type(e) not in KEPT and "ttl" in to_item(e)]


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("StartTransaction", {"connectorId": 1, "idTag": "NOBODY", "meterStart": 0}),
        ("StartTransaction", {"connectorId": 9, "idTag": "NOBODY", "meterStart": -5}),
        ("StopTransaction", {"transactionId": 4711, "meterStop": 0}),
        ("StopTransaction", {"transactionId": -1, "meterStop": 0, "idTag": "NOBODY"}),
    ],
    ids=["unknown tag", "unknown connector", "unknown transaction", "no transaction at all"],
)
def test_f41_a_transaction_message_is_answered_whatever_is_wrong_with_it_or_it_would_be_sent_for_ever(
    world: World, action: str, payload: dict[str, Any]
) -> None:
    world.online()

    answers = [world.says(action, **payload, timestamp=world.clock.at.isoformat())[0] for _ in range(2)]

    assert [3, 3] == answers
