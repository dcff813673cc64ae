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
    DecisionContext,
    IdempotencyRecord,
    IdTag,
    MeterSample,
    OutboundCall,
    OutboxItem,
    Policy,
    Presence,
    ProcessedWebhook,
    Protocol,
    ReadSet,
    RemoteStop,
    Reservation,
    ReservationState,
    Save,
    Snapshot,
    TagStatus,
    Tariff,
    TimelineEntry,
    UnknownStation,
    Write,
)
from csms.ocpp.spoken import DIALECTS
from csms.service import Dependencies, Drivers, Maintenance, Stations
from csms.service.unit_of_work import ATTEMPTS
from tests.builders import ANY_POWER_W
from tests.fakes import Clock, FakeGateway, FakeMailer, FakeProvider, FakeStore, SequentialIds

TARIFF = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)
LEASE = Policy().presence_lease


def basic_auth_header(identity: str, password: bytes) -> str:
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
        dependencies = Dependencies(
            store=self.store,
            dialects=DIALECTS,
            gateway=self.gateway,  # type: ignore[arg-type]
            provider=self.provider,
            mailer=self.mailer,  # type: ignore[arg-type]
            policy=Policy(email_receipts=True, max_power_w=ANY_POWER_W),
            public_url="https://charge.example",
            now=self.clock,
            new_ids=SequentialIds(),
            observe=lambda what, facts: self.observed.append((what, facts)),
        )
        self.stations, self.drivers, self.maintenance = (
            Stations(dependencies),
            Drivers(dependencies),
            Maintenance(dependencies),
        )
        self.stations.register("CP1", password=b"correct horse", connectors=(1, 2), tariff=TARIFF)

    def connect(self, connection_id: str, password: bytes = b"correct horse") -> Protocol:
        return self.stations.connect(
            "CP1", authorization=basic_auth_header("CP1", password), offered=("ocpp1.6",), connection_id=connection_id
        )

    def send_call(self, action: str, *, over: str = "A", **payload: Any) -> Any:
        """What the station is answered."""
        self.serial += 1
        answer = self.stations.receive(over, json.dumps([2, f"m{self.serial}", action, payload]))
        assert answer is not None
        return json.loads(answer)

    def report_status(self, connector: int, status: str, *, over: str = "A") -> None:
        self.send_call("StatusNotification", over=over, connectorId=connector, errorCode="NoError", status=status)

    def bring_online(self, connection_id: str = "A") -> None:
        """The station connected, booted and told that both connectors are free."""
        self.connect(connection_id)
        self.send_call("BootNotification", over=connection_id, chargePointVendor="v", chargePointModel="m")
        for connector in (1, 2):
            self.report_status(connector, "Available", over=connection_id)

    def create_paid_reservation(self, connector: int = 1, *, email: str | None = "driver@example.com") -> str:
        """A reservation that was paid for and confirmed."""
        created = self.drivers.create("CP1", connector)
        self.provider.pay(self.store.reservation(created["reservationId"]).checkout_id or "", email=email)
        self.drivers.confirm(created["reservationId"])
        return str(created["reservationId"])

    def complete_session(self, *, email: str | None = "driver@example.com") -> str:
        """A session of 10 kWh that is over."""
        self.bring_online()
        rid = self.create_paid_reservation(email=email)
        tag = self.store.reservation(rid).id_tag
        start = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": "2026-11-23T09:00:10Z"}
        number = self.send_call("StartTransaction", **start)[2]["transactionId"]
        self.send_call("StopTransaction", transactionId=number, meterStop=10_000, timestamp="2026-11-23T09:30:00Z")
        return rid

    def answer_call(self, status: str, *, over: str = "A") -> None:
        """The station answers the CALL it was sent last."""
        assert self.stations.receive(over, json.dumps([3, self.gateway.frames[-1][1], {"status": status}])) is None

    def presence(self) -> Presence:
        found = self.store.snapshot("cp1").presence
        assert found is not None
        return found

    def take_decisions(self) -> list[tuple[str, str | None]]:
        """The verdict and the headline of each decision since they were last asked for."""
        told = [(facts["verdict"], facts["headline"]) for what, facts in self.observed if what == "decision"]
        self.observed.clear()
        return told

    def is_startable(self, connector: int = 1) -> bool:
        return bool(self.drivers.connector("CP1", connector)["startable"])


@pytest.fixture
def world() -> World:
    return World()


class InterruptedStore(FakeStore):
    """A table in which something happens, once, after a station was read and before its reservation is."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None

    def complete(self, snapshot: Snapshot, read_set: ReadSet) -> Snapshot:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        return super().complete(snapshot, read_set)


@pytest.mark.note("F26")
def test_start_during_cancel_is_answered_invalid() -> None:
    store = InterruptedStore()
    world = World(store=store)
    world.bring_online()
    held = store.reservation(world.create_paid_reservation())
    store.meanwhile = lambda: world.drivers.cancel(held.reservation_id)

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": world.clock.at.isoformat()}
    answer = world.send_call("StartTransaction", **start)

    assert (3, "Invalid") == (answer[0], answer[2]["idTagInfo"]["status"])
    assert ReservationState.CANCELLED is store.reservation(held.reservation_id).state


def test_start_survives_lasting_inconsistent_read(world: World) -> None:
    world.bring_online()
    held = world.store.reservation(world.create_paid_reservation())
    world.store.commit([Save(replace(held, expires_at=world.clock.at + timedelta(minutes=1)))])

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": world.clock.at.isoformat()}

    assert "Accepted" == world.send_call("StartTransaction", **start)[2]["idTagInfo"]["status"]
    assert ReservationState.CHARGING is world.store.reservation(held.reservation_id).state


@pytest.mark.note("F16")
def test_old_socket_disconnect_keeps_station_online(world: World) -> None:
    world.bring_online("A")
    world.connect("B")
    world.stations.disconnect("A")

    assert "B" == world.presence().connection_id
    assert world.is_startable()


@pytest.mark.note("F16")
def test_current_socket_disconnect_takes_station_offline(world: World) -> None:
    world.bring_online("A")
    world.stations.disconnect("A")

    assert "Offline" == world.drivers.connector("CP1", 1)["status"]


@pytest.mark.note("F17")
@pytest.mark.parametrize("password", [b"wrong", b""])
def test_failed_authentication_displaces_no_socket(world: World, password: bytes) -> None:
    world.bring_online("A")
    before = world.store.entities()
    with pytest.raises(Unauthorised):
        world.connect("B", password)

    assert before == world.store.entities()
    assert [] == world.gateway.closed


@pytest.mark.note("F17")
def test_authenticated_connect_closes_old_socket(world: World) -> None:
    world.bring_online("A")
    world.connect("B")

    assert ["A"] == world.gateway.closed


def test_disconnected_station_is_sent_nothing(world: World) -> None:
    world.connect("A")
    world.clock.move(timedelta(minutes=1))
    waiting = world.store.snapshot("cp1").calls
    world.stations.disconnect("A")

    assert {"TriggerStatus"} == {str(call.kind) for call in waiting if call.send_at <= world.clock()}
    assert [] == world.gateway.sent


@pytest.mark.note("F18")
def test_gone_socket_means_offline_before_checkout(
    world: World,
) -> None:
    world.bring_online("A")
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)

    assert world.presence().connection_id is None
    assert [] == [e for e in world.store.entities() if isinstance(e, Reservation | OutboxItem)]


@pytest.mark.note("F18")
def test_new_connection_survives_gone_old_socket(world: World) -> None:
    world.bring_online("A")
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.connect("B")
    world.gateway.gone.add("A")
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.drivers.confirm(rid)

    assert "B" == world.presence().connection_id
    assert "B" == world.gateway.sent[-1][0]


@pytest.mark.note("F19")
def test_reconnect_needs_no_boot_or_status(world: World) -> None:
    world.bring_online("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    world.connect("B")

    assert world.is_startable()
    assert "Available" == world.drivers.connector("CP1", 1)["status"]


@pytest.mark.note("F20")
def test_lost_disconnect_ends_with_lease(world: World) -> None:
    world.bring_online("A")
    world.clock.move(LEASE - timedelta(seconds=1))
    assert world.is_startable()
    world.clock.move(timedelta(seconds=1))

    assert not world.is_startable()


@pytest.mark.note("F20")
def test_heartbeat_renews_presence_lease(world: World) -> None:
    world.bring_online("A")
    for _ in range(10):
        world.clock.move(timedelta(seconds=300))
        world.send_call("Heartbeat")

    assert world.is_startable()


@pytest.mark.note("F21")
def test_sweep_asks_silent_station_for_status(world: World) -> None:
    world.bring_online("A")
    world.stations.disconnect("A")
    world.clock.move(LEASE + timedelta(hours=1))
    world.connect("B")
    world.clock.move(timedelta(seconds=30))
    world.maintenance.sweep()
    world.answer_call("Accepted", over="B")

    asked = [(f[2], f[3]["connectorId"]) for f in world.gateway.frames]
    assert [("TriggerMessage", 1), ("TriggerMessage", 2)] == sorted(asked)


@pytest.mark.note("F21")
def test_connect_itself_sends_nothing(world: World) -> None:
    world.connect("A")

    assert [] == world.gateway.sent


@pytest.mark.note("F22")
def test_connector_is_locked_before_checkout(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bring_online("A")
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


class OutrunStore(FakeStore):
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


@pytest.mark.note("F22")
def test_lost_create_race_reports_contended() -> None:
    world = World(store=OutrunStore())
    world.bring_online()
    world.take_decisions()

    with pytest.raises(ConnectorBusy) as refused:
        world.drivers.create("CP1", 1)

    assert (("Contended",), texts.reason_text("Contended")) == (refused.value.reasons, refused.value.message)
    assert [] == world.provider.calls
    assert [] == world.take_decisions()


@pytest.mark.note("F22", "F75")
def test_lost_create_race_reports_present_reason() -> None:
    store = OutrunStore()
    world = World(store=store)
    world.bring_online()
    world.take_decisions()
    store.happens = lambda: world.report_status(1, "Faulted")

    with pytest.raises(ConnectorBusy) as refused:
        world.drivers.create("CP1", 1)

    assert ("LiveStatus:Faulted",) == refused.value.reasons
    assert [("busy", "LiveStatus:Faulted")] == world.take_decisions()


@pytest.mark.note("F22")
def test_lost_create_race_reports_offline_station() -> None:
    store = OutrunStore()
    world = World(store=store)
    world.bring_online()
    store.happens = lambda: world.stations.disconnect("A")

    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)


@pytest.mark.note("F25", "F29")
def test_unanswered_remote_start_may_still_start(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    held = world.store.reservation(rid)
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()
    assert [CommandKind.TRIGGER_STATUS] == [call.kind for call in world.store.snapshot("cp1").calls]
    assert held == world.store.reservation(rid)

    world.clock.move(Policy().start_window - Policy().call_timeout)
    late = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": "2026-11-23T09:10:00Z"}
    assert "Accepted" == world.send_call("Authorize", idTag=held.id_tag)[2]["idTagInfo"]["status"]
    started = world.send_call("StartTransaction", **late)

    assert "Accepted" == started[2]["idTagInfo"]["status"]
    assert "Charging" == world.drivers.status(rid)["status"]


@pytest.mark.note("F31", "F30")
def test_start_after_cancel_is_stopped_remotely(
    world: World,
) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    tag = world.store.reservation(rid).id_tag
    assert "Cancelled" == world.drivers.cancel(rid)["status"]
    world.answer_call("Accepted")
    started = world.send_call(
        "StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z"
    )

    assert "Invalid" == started[2]["idTagInfo"]["status"]
    assert ["RemoteStopTransaction", {"transactionId": started[2]["transactionId"]}] == world.gateway.frames[-1][2:]
    followed = world.drivers.status(rid)
    assert ("Cancelled", "released") == (followed["status"], followed["money"])
    assert [] == world.provider.captured_amounts()


@pytest.mark.note("F32")
def test_paid_reservation_starts_on_status_after_reconnect(world: World) -> None:
    world.bring_online()
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
    world.answer_call("Accepted", over="B")
    world.report_status(1, "Available", over="B")

    assert "StartRequested" == world.drivers.status(rid)["status"]
    assert "RemoteStartTransaction" == world.gateway.frames[-1][2]


def reconnect_and_trigger_status(world: World) -> str:
    """The reservation of a driver who paid while the station was away; it is back, and asked for its status."""
    world.bring_online()
    rid: str = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.stations.disconnect("A")
    assert "Authorized" == world.drivers.confirm(rid)["status"]
    world.connect("B")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    assert "TriggerMessage" == world.gateway.frames[-1][2]
    return rid


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    "refusal", ['[3,"{}",{{"status":"Rejected"}}]', '[4,"{}","NotImplemented","",{{}}]'], ids=["rejected", "not known"]
)
def test_refused_trigger_starts_from_known_status(world: World, refusal: str) -> None:
    rid = reconnect_and_trigger_status(world)

    world.stations.receive("B", refusal.format(world.gateway.frames[-1][1]))

    assert "StartRequested" == world.drivers.status(rid)["status"]
    assert "RemoteStartTransaction" == world.gateway.frames[-1][2]


@pytest.mark.note("F32")
@pytest.mark.parametrize("answers", [False, True], ids=["no answer", "a promise that is not kept"])
def test_missing_status_starts_after_call_timeout(world: World, answers: bool) -> None:
    rid = reconnect_and_trigger_status(world)
    if answers:
        world.clock.move(timedelta(seconds=10))
        world.answer_call("Accepted", over="B")
    world.clock.move(Policy().call_timeout - timedelta(seconds=1))
    world.maintenance.sweep()
    assert "Authorized" == world.drivers.status(rid)["status"]

    world.clock.move(timedelta(seconds=1))
    world.maintenance.sweep()

    assert "StartRequested" == world.drivers.status(rid)["status"]
    assert "RemoteStartTransaction" == world.gateway.frames[-1][2]
    assert ["RemoteStart"] == [call.kind for call in world.store.snapshot("cp1").calls]


@pytest.mark.note("F32")
def test_promised_faulted_status_prevents_start(world: World) -> None:
    rid = reconnect_and_trigger_status(world)
    world.answer_call("Accepted", over="B")
    world.report_status(1, "Faulted", over="B")
    assert () == world.store.snapshot("cp1").calls
    world.clock.move(timedelta(minutes=2))
    world.maintenance.sweep()

    assert "Authorized" == world.drivers.status(rid)["status"]


@pytest.mark.note("F32", "F43")
def test_promised_status_delays_no_other_call(world: World) -> None:
    world.bring_online()
    waiting = [world.drivers.create("CP1", connector_id)["reservationId"] for connector_id in (1, 2)]
    world.stations.disconnect("A")
    for rid in waiting:
        world.provider.pay(world.store.reservation(rid).checkout_id or "")
        world.drivers.confirm(rid)
    world.connect("B")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    world.answer_call("Accepted", over="B")

    asked = [frame[3]["connectorId"] for frame in world.gateway.frames if frame[2] == "TriggerMessage"]
    assert [1, 2] == sorted(asked)


@pytest.mark.note("F32", "F43")
def test_accepted_trigger_releases_queued_start(world: World) -> None:
    reconnect_and_trigger_status(world)
    world.create_paid_reservation(2)
    assert "TriggerMessage" == world.gateway.frames[-1][2]

    world.answer_call("Accepted", over="B")

    assert ("RemoteStartTransaction", 2) == (world.gateway.frames[-1][2], world.gateway.frames[-1][3]["connectorId"])


@pytest.mark.note("F32")
def test_lost_start_is_resent_after_refused_trigger(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    world.stations.disconnect("A")
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()
    assert CommandKind.REMOTE_START not in {call.kind for call in world.store.snapshot("cp1").calls}
    world.connect("B")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    assert "TriggerMessage" == world.gateway.frames[-1][2]

    world.answer_call("Rejected", over="B")

    tag = world.store.reservation(rid).id_tag
    assert ["RemoteStartTransaction", {"connectorId": 1, "idTag": tag}] == world.gateway.frames[-1][2:]


@pytest.mark.note("F21")
def test_unkept_status_promise_expires(world: World) -> None:
    world.connect("A")
    for _ in (1, 2):
        world.clock.move(timedelta(seconds=20))
        world.maintenance.sweep()
        world.answer_call("Accepted")
    assert [CallState.PROMISED] * 2 == [call.state for call in world.store.snapshot("cp1").calls]

    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()

    assert () == world.store.snapshot("cp1").calls


@pytest.mark.note("F21")
def test_status_may_precede_trigger_answer(world: World) -> None:
    world.connect("A")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    world.clock.move(timedelta(seconds=1))
    ((_, asked, _, what),) = world.gateway.frames
    world.report_status(what["connectorId"], "Available")
    world.stations.receive("A", json.dumps([3, asked, {"status": "Accepted"}]))

    assert [3 - what["connectorId"]] == [call.connector_id for call in world.store.snapshot("cp1").calls]


def reconnect(world: World, over: str, *, away: float = 2) -> None:
    """The station's socket closed, and it connected over another."""
    world.stations.disconnect(world.presence().connection_id or "")
    world.clock.move(timedelta(seconds=away))
    world.connect(over)


def count_sent(world: World, connection_id: str, action: str) -> int:
    return sum(over == connection_id and json.loads(frame)[2] == action for over, frame in world.gateway.sent)


@pytest.mark.note("F32")
def test_lost_start_is_resent_on_new_status(
    world: World,
) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    reconnect(world, "B")
    world.report_status(1, "Preparing", over="B")

    assert ("StartRequested", 1) == (
        world.drivers.status(rid)["status"],
        count_sent(world, "B", "RemoteStartTransaction"),
    )


@pytest.mark.note("F25", "F32")
@pytest.mark.parametrize("says", ["a status", "nothing"])
def test_unanswered_remote_start_is_sent_again(world: World, says: str) -> None:
    world.bring_online()
    world.create_paid_reservation()
    world.clock.move(Policy().call_timeout + timedelta(seconds=1))
    if says == "a status":
        world.report_status(1, "Preparing")
    else:
        for _ in (1, 2):
            world.maintenance.sweep()
            world.clock.move(Policy().call_timeout + timedelta(seconds=1))

    assert 2 == count_sent(world, "A", "RemoteStartTransaction")
    assert 1 == len([c for c in world.store.snapshot("cp1").calls if c.kind is CommandKind.REMOTE_START])


@pytest.mark.note("F24", "F32")
def test_accepted_start_is_resent_after_boot(world: World) -> None:
    world.bring_online()
    world.create_paid_reservation()
    world.answer_call("Accepted")
    world.report_status(1, "Available")
    assert 1 == count_sent(world, "A", "RemoteStartTransaction")
    reconnect(world, "B")
    world.send_call("BootNotification", over="B", chargePointVendor="v", chargePointModel="m")
    world.report_status(1, "Preparing", over="B")

    assert 1 == count_sent(world, "B", "RemoteStartTransaction")


@pytest.mark.note("F25")
def test_refused_repeated_start_keeps_reservation(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    reconnect(world, "B")
    world.report_status(1, "Preparing", over="B")
    world.answer_call("Rejected", over="B")
    assert "StartRequested" == world.drivers.status(rid)["status"]

    tag = world.store.reservation(rid).id_tag
    start = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": "2026-11-23T09:00:10Z"}
    world.send_call("StartTransaction", over="B", **start)

    assert "Charging" == world.drivers.status(rid)["status"]


@pytest.mark.note("F30")
def test_remote_stop_is_resent_over_new_socket(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    world.answer_call("Accepted")
    world.drivers.cancel(rid)
    tag = world.store.reservation(rid).id_tag
    start = {"connectorId": 1, "idTag": tag, "meterStart": 0, "timestamp": "2026-11-23T09:00:10Z"}
    world.send_call("StartTransaction", **start)
    assert 1 == count_sent(world, "A", "RemoteStopTransaction")

    reconnect(world, "B")
    world.send_call("Heartbeat", over="B")
    world.maintenance.sweep()

    assert 1 == count_sent(world, "B", "RemoteStopTransaction")


@pytest.mark.note("F32", "F08")
def test_wait_ends_when_persisted_status_expires(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.report_status(1, "Finishing")
    reconnect(world, "B", away=27 * 60)
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    assert ["PersistedStatus:Occupied"] == [one["code"] for one in world.drivers.confirm(rid)["waitingFor"]]
    for _ in range(8):
        world.clock.move(timedelta(minutes=1))
        world.send_call("Heartbeat", over="B")
        world.maintenance.sweep()
        if world.gateway.frames[-1][2] == "TriggerMessage":
            world.answer_call("Rejected", over="B")

    assert "StartRequested" == world.drivers.status(rid)["status"]


@pytest.mark.note("F21")
@pytest.mark.parametrize("asked", ["and no answer came", "and it was not sent"])
def test_reconnect_asks_for_status_again(world: World, asked: str) -> None:
    world.bring_online()
    world.report_status(1, "Charging")
    reconnect(world, "B")
    if asked == "and no answer came":
        world.clock.move(timedelta(seconds=11))
        world.maintenance.sweep()
        assert 1 == count_sent(world, "B", "TriggerMessage")
    reconnect(world, "C", away=9 * 60 + 50)
    world.clock.move(timedelta(seconds=30))
    world.maintenance.sweep()

    assert 1 == count_sent(world, "C", "TriggerMessage")


@pytest.mark.note("F21")
def test_old_socket_status_answers_no_new_trigger(world: World) -> None:
    world.connect("A")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    asked = world.gateway.frames[-1][3]["connectorId"]
    world.report_status(asked, "Available")
    assert [True] == [c.told for c in world.store.snapshot("cp1").calls if c.connector_id == asked]

    world.connect("B")

    assert [False] == [c.told for c in world.store.snapshot("cp1").calls if c.connector_id == asked]


@pytest.mark.note("F21")
def test_station_with_64_connectors_reconnects(world: World) -> None:
    world.stations.register("CP1", password=b"correct horse", connectors=tuple(range(1, 65)), tariff=TARIFF)
    for over in ("A", "B", "C"):
        world.connect(over)
        world.clock.move(timedelta(seconds=11))
        world.maintenance.sweep()
        world.answer_call("Accepted", over=over)
        world.clock.move(timedelta(seconds=11))

    asked = [call.connector_id for call in world.store.snapshot("cp1").calls if call.state is not CallState.PROMISED]
    assert "C" == world.presence().connection_id
    assert len(asked) == len(set(asked))
    assert set(range(1, 65)) == {call.connector_id for call in world.store.snapshot("cp1").calls}


@pytest.mark.note("F32")
def test_refusing_station_is_triggered_at_most_twice(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    card = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
    world.send_call("StartTransaction", **card)
    world.report_status(1, "Available")
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.drivers.confirm(rid)
    world.clock.move(Policy().implied_stop_grace + timedelta(seconds=2))
    reconnect(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.send_call("Heartbeat", over="B")
    world.report_status(2, "Available", over="B")
    for _ in range(9):
        if count_sent(world, "B", "TriggerMessage"):
            world.answer_call("Rejected", over="B")

    assert 2 >= count_sent(world, "B", "TriggerMessage")


@pytest.mark.note("F21")
def test_stop_requests_a_fresh_status(world: World) -> None:
    world.bring_online()
    start = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
    number = world.send_call("StartTransaction", **start)[2]["transactionId"]
    world.report_status(1, "Charging")
    reconnect(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.maintenance.sweep()
    world.report_status(1, "Charging", over="B")
    stop = {"transactionId": number, "meterStop": 5000, "timestamp": "2026-11-23T09:00:12Z"}
    world.send_call("StopTransaction", over="B", **stop)
    world.answer_call("Accepted", over="B")

    waiting = [(c.connector_id, c.state) for c in world.store.snapshot("cp1").calls]
    assert [(1, CallState.QUEUED)] == waiting


@pytest.mark.note("F11", "F21")
def test_only_first_status_answers_a_trigger(world: World) -> None:
    world.bring_online()
    clock = {"connectorId": 1, "errorCode": "NoError"}
    world.send_call("StatusNotification", status="Charging", timestamp="2026-11-23T09:00:00Z", **clock)
    reconnect(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.maintenance.sweep()
    newer = {"status": "Charging", "timestamp": "2026-11-23T09:00:12Z"} | clock
    world.send_call("StatusNotification", over="B", **newer)
    world.send_call(
        "StatusNotification", over="B", **{**newer, "status": "Available", "timestamp": "2026-11-23T09:00:05Z"}
    )

    assert not world.is_startable(1)


@pytest.mark.note("F32")
def test_one_message_queues_calls_for_both_connectors(world: World) -> None:
    world.bring_online()
    waiting = [world.drivers.create("CP1", connector_id)["reservationId"] for connector_id in (1, 2)]
    world.gateway.gone.add("A")
    world.report_status(2, "Faulted")
    world.report_status(2, "Available")
    world.clock.move(LEASE + timedelta(seconds=1))
    for rid in waiting:
        world.provider.pay(world.store.reservation(rid).checkout_id or "")
        world.drivers.confirm(rid)
    world.gateway.gone.clear()
    world.report_status(1, "Available")

    calls = {(c.kind, c.connector_id) for c in world.store.snapshot("cp1").calls}
    assert {(CommandKind.REMOTE_START, 1), (CommandKind.TRIGGER_STATUS, 2)} == calls


@pytest.mark.note("F73")
def test_postponed_call_conflicts_with_reconnect(world: World) -> None:
    world.connect("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    before = world.store.snapshot("cp1")
    call = before.calls[0]
    world.connect("B")

    outcome = chase_call(before, call, DecisionContext(now=world.clock.at, new_ids=SequentialIds()(), policy=Policy()))
    with pytest.raises(Conflict):
        world.store.commit(outcome.writes)


@pytest.mark.note("F25")
def test_refusal_after_failed_send_keeps_reservation(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.gateway.unreachable = True
    world.drivers.confirm(rid)
    world.gateway.unreachable = False
    world.clock.move(timedelta(seconds=6))
    world.maintenance.sweep()
    world.answer_call("Rejected")

    assert "StartRequested" == world.drivers.status(rid)["status"]


@pytest.mark.note("F21")
def test_station_with_full_queue_reconnects(world: World) -> None:
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


@pytest.mark.note("F11", "F21")
def test_requested_status_counts_despite_old_clock(world: World) -> None:
    world.bring_online()
    clock = {"connectorId": 1, "errorCode": "NoError"}
    world.send_call("StatusNotification", status="Charging", timestamp="2026-11-23T09:00:00Z", **clock)
    set_back = {"status": "Available", "timestamp": "2026-11-23T08:00:00Z"} | clock
    world.send_call("StatusNotification", **set_back)
    assert not world.is_startable(1)

    reconnect(world, "B")
    world.clock.move(timedelta(seconds=11))
    world.maintenance.sweep()
    world.answer_call("Accepted", over="B")
    world.send_call("StatusNotification", over="B", **set_back)

    assert world.is_startable(1)


@pytest.mark.note("F73")
def test_absent_station_calls_wait_for_reconnect(world: World) -> None:
    world.connect("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    assert 2 == world.maintenance.sweep().done["OutboundCall"]

    world.clock.move(timedelta(minutes=5))
    assert {} == world.maintenance.sweep().done

    world.connect("B")
    world.clock.move(timedelta(seconds=10))
    world.send_call("Heartbeat", over="B")
    world.maintenance.sweep()
    assert 1 == count_sent(world, "B", "TriggerMessage")


@pytest.mark.note("F73")
def test_undeliverable_call_expires(world: World) -> None:
    world.connect("A")
    world.stations.disconnect("A")
    world.clock.move(timedelta(seconds=20))
    world.maintenance.sweep()
    world.clock.move(timedelta(minutes=11))
    world.maintenance.sweep()

    assert () == world.store.snapshot("cp1").calls


@pytest.mark.note("F34")
def test_confirm_after_payment_asks_no_provider(world: World) -> None:
    world.bring_online()
    paid = world.create_paid_reservation()
    world.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    free = world.drivers.create("CP1", 2, id_tag="FRIEND")["reservationId"]
    world.provider.fail_next("payment")

    assert ["StartRequested"] * 2 == [world.drivers.confirm(rid)["status"] for rid in (paid, free)]


@pytest.mark.note("F35")
def test_verified_redirect_alone_starts_the_charge(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    lying = world.drivers.confirm(rid)
    assert ("PendingPayment", "none", []) == (lying["status"], lying["money"], world.gateway.frames)

    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    paid = world.drivers.confirm(rid)

    assert ("StartRequested", "authorised") == (paid["status"], paid["money"])
    assert ["RemoteStartTransaction"] == [frame[2] for frame in world.gateway.frames]


@pytest.mark.note("F35")
def test_second_confirm_starts_after_reconnect(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.stations.disconnect("A")
    assert "Authorized" == world.drivers.confirm(rid)["status"]

    world.connect("B")

    assert "StartRequested" == world.drivers.confirm(rid)["status"]


@pytest.mark.note("F36")
@pytest.mark.parametrize("another", [None, "0" * 32], ids=["that began nothing", "that began something else"])
def test_only_own_browser_resumes_checkout(world: World, another: str | None) -> None:
    world.bring_online()
    first = world.drivers.create("CP1", 1)
    world.provider.fail_next("open_checkout")  # Nobody asks for another one.
    resumed = world.drivers.create("cp1", 1, resume=first["reservationId"])
    with pytest.raises(ConnectorBusy) as refused:
        world.drivers.create("CP1", 1, resume=another)

    assert first == resumed
    assert ("ActiveReservation",) == refused.value.reasons
    assert "temporarily reserved" in refused.value.message


@pytest.mark.note("F36")
def test_other_or_ended_checkout_is_not_resumed(world: World) -> None:
    world.bring_online()
    first = world.drivers.create("CP1", 1)
    other = world.drivers.create("CP1", 2, resume=first["reservationId"])
    world.drivers.cancel(first["reservationId"])
    again = world.drivers.create("CP1", 1, resume=first["reservationId"])

    assert 3 == len({first["reservationId"], other["reservationId"], again["reservationId"]})


@pytest.mark.note("F36")
def test_checkout_resumes_until_expiry(world: World) -> None:
    world.bring_online()
    first = world.drivers.create("CP1", 1)
    until = world.store.reservation(first["reservationId"]).expires_at
    assert until is not None
    world.clock.move(until - world.clock())
    world.send_call("Heartbeat")
    assert first == world.drivers.create("CP1", 1, resume=first["reservationId"])

    world.clock.move(timedelta(microseconds=1))

    assert first["reservationId"] != world.drivers.create("CP1", 1, resume=first["reservationId"])["reservationId"]


@pytest.mark.note("F36")
def test_paid_checkout_is_not_resumed(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()

    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1, resume=rid)


@pytest.mark.note("F37")
def test_free_session_has_lock_and_status_page(world: World) -> None:
    world.bring_online()
    world.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    begun = world.drivers.create("CP1", 1, id_tag="friend")
    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1, id_tag="FRIEND")
    followed = world.drivers.status(begun["reservationId"])

    page = f"https://charge.example/session/{begun['reservationId']}"
    assert ("NothingToPay", page) == (begun["status"], begun["statusUrl"])
    assert ("StartRequested", "none", 0) == (followed["status"], followed["money"], followed["maxAmount"])


@pytest.mark.note("F37")
def test_free_station_session_owes_nothing(world: World) -> None:
    world.bring_online()
    station = world.store.snapshot("cp1").station
    world.store.commit([Save(replace(station, free=True))])
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.answer_call("Accepted")
    tag = world.store.reservation(rid).id_tag
    started = world.send_call(
        "StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z"
    )
    number = started[2]["transactionId"]
    world.send_call("StopTransaction", transactionId=number, meterStop=9000, timestamp="2026-11-23T09:30:00Z")
    followed = world.drivers.status(rid)

    assert ("Completed", "none", 9000, 0) == tuple(followed[k] for k in ("status", "money", "energyWh", "amount"))
    assert [] == [e for e in world.store.entities() if isinstance(e, OutboxItem)]


@pytest.mark.note("F64")
def test_late_payment_is_released_at_once(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    checkout = world.store.reservation(rid).checkout_id or ""
    world.provider.fail_next("expire_checkout")
    world.drivers.cancel(rid)
    world.provider.pay(checkout)
    told = world.drivers.confirm(rid)

    assert ("Cancelled", "released") == (told["status"], told["money"])
    assert "PaymentCameTooLate" in [audit_entry["event"] for audit_entry in told["steps"]]
    assert 0 == world.provider.held_amount()


def test_receipt_is_mailed_once_without_storing_address(world: World) -> None:
    rid = world.complete_session()
    world.clock.move(timedelta(hours=1))
    world.maintenance.sweep()

    ((address, mail),) = world.mailer.sent
    assert "driver@example.com" == address
    assert f"https://charge.example/receipt/{rid}" in mail.text
    assert "Total: EUR 6.45" in mail.text
    assert "ReceiptSent" in [audit_entry["event"] for audit_entry in world.drivers.status(rid)["steps"]]
    assert "driver@example.com" not in repr(world.store.entities()) + json.dumps(world.drivers.receipt(rid))


def test_failed_receipt_mail_is_retried(world: World) -> None:
    world.mailer.unreachable = True
    rid = world.complete_session()
    assert "captured" == world.drivers.status(rid)["money"]

    world.mailer.unreachable = False
    world.clock.move(timedelta(hours=1))
    world.maintenance.sweep()

    assert 1 == len(world.mailer.sent)


def test_driver_without_address_gets_no_mail(world: World) -> None:
    rid = world.complete_session(email=None)

    assert ([], 645) == (world.mailer.sent, world.drivers.receipt(rid)["total"])
    assert [] == [e for e in world.store.entities() if isinstance(e, OutboxItem)]


@pytest.mark.note("F68")
def test_idle_fee_stops_when_station_falls_silent(world: World) -> None:
    world.bring_online()
    station = world.store.snapshot("cp1").station
    idle = replace(TARIFF, idle_price=Decimal(10), idle_maximum=600)
    world.store.commit([Save(replace(station, tariff=idle))])
    rid = world.create_paid_reservation()
    tag = world.store.reservation(rid).id_tag
    at = world.clock().isoformat()
    number = world.send_call("StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp=at)[2][
        "transactionId"
    ]
    world.report_status(1, "SuspendedEV")
    world.send_call("StopTransaction", transactionId=number, meterStop=10_000, timestamp=at)
    world.clock.move(timedelta(minutes=10))
    world.send_call("Heartbeat")
    while_online = world.drivers.status(rid)
    world.clock.move(timedelta(hours=2))
    later = world.drivers.status(rid)

    assert ("WaitingForDisconnect", 100) == (while_online["status"], while_online["idle"]["fee"])
    assert while_online["idle"] == later["idle"]


# What is told of each decision


def test_create_reports_its_decision(world: World) -> None:
    world.bring_online()
    world.drivers.create("CP1", 1)
    assert [("startable", None)] == world.take_decisions()
    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1)

    assert [("busy", "ActiveReservation")] == world.take_decisions()


def test_gone_socket_reports_charger_offline(world: World) -> None:
    world.bring_online()
    world.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        world.drivers.create("CP1", 1)

    assert [("busy", "ChargerOffline")] == world.take_decisions()


def test_unknown_connector_is_no_decision(world: World) -> None:
    world.bring_online()
    with pytest.raises(NotFound):
        world.drivers.create("CP1", 3)

    assert [] == world.take_decisions()


def test_only_committed_decision_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bring_online()
    commit, lost = world.store.commit, [Conflict("Somebody else was first.")]

    def contested(writes: Iterable[Write]) -> None:
        if lost:
            raise lost.pop()
        commit(writes)

    monkeypatch.setattr(world.store, "commit", contested)
    world.observed.clear()
    world.drivers.create("CP1", 1)

    assert ["conflict", "decision"] == [what for what, _ in world.observed]


def test_confirm_reports_decision_once_paid(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.take_decisions()
    world.drivers.confirm(rid)
    assert [] == world.take_decisions()

    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.report_status(1, "Faulted")
    world.drivers.confirm(rid)
    assert [("busy", "LiveStatus:Faulted")] == world.take_decisions()

    world.report_status(1, "Preparing")
    assert [("startable", None)] == world.take_decisions()

    world.drivers.confirm(rid)
    world.report_status(1, "Charging")
    assert [] == world.take_decisions()


def test_webhook_reports_its_decision(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.take_decisions()
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.drivers.receive_webhook(*world.provider.build_webhook(rid))

    assert [("startable", None)] == world.take_decisions()


def test_late_payment_reports_busy_connector(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.provider.pay(world.store.reservation(rid).checkout_id or "")
    world.clock.move(timedelta(minutes=33))
    world.send_call("Heartbeat")
    world.drivers.create("CP1", 1)
    world.take_decisions()
    world.drivers.confirm(rid)

    assert [("busy", "ActiveReservation")] == world.take_decisions()


def test_free_start_reports_two_decisions(world: World) -> None:
    world.bring_online()
    world.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    world.drivers.create("CP1", 1, id_tag="FRIEND")

    assert [("startable", None)] * 2 == world.take_decisions()


def test_queries_report_no_decision(world: World) -> None:
    world.bring_online()
    rid = world.drivers.create("CP1", 1)["reservationId"]
    world.take_decisions()
    world.drivers.connector("CP1", 1)
    world.drivers.status(rid)
    world.report_status(2, "Charging")

    assert [] == world.take_decisions()


@pytest.mark.note("F43")
def test_outbound_calls_go_one_at_a_time(world: World) -> None:
    world.bring_online()
    world.create_paid_reservation(1)
    world.create_paid_reservation(2)
    assert ["RemoteStartTransaction"] == [frame[2] for frame in world.gateway.frames]
    assert "currentTime" in world.send_call("Heartbeat")[2]
    world.answer_call("Accepted")

    assert [1, 2] == [frame[3]["connectorId"] for frame in world.gateway.frames]


@pytest.mark.note("F43")
def test_timed_out_call_frees_the_slot(world: World) -> None:
    world.bring_online()
    world.create_paid_reservation(1)
    world.create_paid_reservation(2)
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()

    assert [1, 2] == [frame[3]["connectorId"] for frame in world.gateway.frames]


@pytest.mark.note("F44")
def test_late_call_result_changes_nothing(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation(1)
    world.clock.move(Policy().call_timeout)
    world.maintenance.sweep()
    world.answer_call("Rejected")

    assert "StartRequested" == world.drivers.status(rid)["status"]


@pytest.mark.note("F48")
def test_subprotocol_is_first_known_or_refused(world: World) -> None:
    offers = ("ocpp9.9", " OCPP1.6 ")
    chosen = world.stations.connect(
        "CP1", authorization=basic_auth_header("CP1", b"correct horse"), offered=offers, connection_id="A"
    )
    with pytest.raises(BadRequest):
        world.stations.connect(
            "CP1", authorization=basic_auth_header("CP1", b"correct horse"), offered=("",), connection_id="B"
        )

    assert Protocol.OCPP16 is chosen
    assert "A" == world.presence().connection_id


@pytest.mark.note("F49")
def test_unknown_station_is_only_listed(world: World) -> None:
    before = world.store.entities()
    with pytest.raises(NotFound):
        world.stations.connect(
            "New-1", authorization=basic_auth_header("New-1", b"x"), offered=("ocpp1.6",), connection_id="A"
        )

    (unknown_station,) = [e for e in world.store.entities() if e not in before]
    assert isinstance(unknown_station, UnknownStation)
    assert "New-1" == unknown_station.identity


KEPT = {
    Connection: timedelta(hours=3),
    ProcessedWebhook: timedelta(days=30),
    IdTag: timedelta(days=30),
    IdempotencyRecord: timedelta(days=90),
    MeterSample: timedelta(days=90),
    UnknownStation: timedelta(days=30),
    TimelineEntry: timedelta(days=90),
}
"""How long what accumulates is kept."""


@pytest.mark.note("F76")
@pytest.mark.parametrize("kind", KEPT)
def test_accumulating_item_has_ttl(world: World, kind: type) -> None:
    with pytest.raises(NotFound):
        world.stations.connect("New-1", authorization=None, offered=(), connection_id="Z")
    world.bring_online()
    rid = world.create_paid_reservation()
    world.drivers.receive_webhook(*world.provider.build_webhook(rid))
    tag = world.store.reservation(rid).id_tag
    started = world.send_call(
        "StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z"
    )
    number = started[2]["transactionId"]
    sample = {"timestamp": "2026-11-23T09:10:00Z", "sampledValue": [{"value": "100"}]}
    world.send_call("MeterValues", connectorId=1, transactionId=number, meterValue=[sample])

    kept = [to_item(e)["ttl"] for e in world.store.entities() if isinstance(e, kind)]

    assert {int((world.clock() + KEPT[kind]).timestamp())} == set(kept)


@pytest.mark.note("F76")
def test_other_items_have_no_ttl(world: World) -> None:
    world.bring_online()
    world.create_paid_reservation()

    assert [] == [e for e in world.store.entities() if type(e) not in KEPT and "ttl" in to_item(e)]


@pytest.mark.note("F41")
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
def test_faulty_transaction_message_gets_call_result(world: World, action: str, payload: dict[str, Any]) -> None:
    world.bring_online()

    answers = [world.send_call(action, **payload, timestamp=world.clock.at.isoformat())[0] for _ in range(2)]

    assert [3, 3] == answers
