"""What the service keeps true over several messages: presence, the outbound slot, cancelled starts, resuming."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from csms.errors import BadRequest, ChargerOffline, ConnectorBusy, NotFound, Unauthorised
from csms.model import (
    Append,
    Connection,
    Effect,
    IdTag,
    Intake,
    MeterSample,
    Policy,
    Presence,
    Protocol,
    Reservation,
    Save,
    Stranger,
    TagStatus,
    Tariff,
    TimelineEntry,
)
from csms.service import Drivers, Maintenance, Stations, Work
from csms.store import to_item
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

    def __post_init__(self) -> None:
        work = Work(
            store=self.store,
            gateway=self.gateway,  # type: ignore[arg-type]
            provider=self.provider,
            mailer=self.mailer,  # type: ignore[arg-type]
            policy=Policy(email_receipts=True),
            public_url="https://charge.example",
            now=self.clock,
            fresh=FreshIds(),
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

    def startable(self, connector: int = 1) -> bool:
        return bool(self.drivers.connector("CP1", connector)["startable"])


@pytest.fixture
def world() -> World:
    return World()


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
    assert "released" == world.drivers.status(rid)["money"]
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


def test_f36_the_browser_that_began_resumes_its_own_checkout_and_another_one_does_not(world: World) -> None:
    world.online()
    first = world.drivers.create("CP1", 1)
    resumed = world.drivers.create("cp1", 1, resume=first["reservationId"])
    with pytest.raises(ConnectorBusy) as refused:
        world.drivers.create("CP1", 1, resume="0" * 32)

    assert first == resumed
    assert ("ActiveReservation",) == refused.value.reasons


def test_f36_what_was_begun_elsewhere_or_is_over_is_not_resumed(world: World) -> None:
    world.online()
    first = world.drivers.create("CP1", 1)
    other = world.drivers.create("CP1", 2, resume=first["reservationId"])
    world.drivers.cancel(first["reservationId"])
    again = world.drivers.create("CP1", 1, resume=first["reservationId"])

    assert 3 == len({first["reservationId"], other["reservationId"], again["reservationId"]})


def test_f37_a_free_session_has_the_lock_and_the_status_page_and_moves_no_money(world: World) -> None:
    world.online()
    world.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    begun = world.drivers.create("CP1", 1, id_tag="friend")
    with pytest.raises(ConnectorBusy):
        world.drivers.create("CP1", 1, id_tag="FRIEND")
    followed = world.drivers.status(begun["reservationId"])

    assert "NothingToPay" == begun["status"]
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


@pytest.mark.parametrize("kind", [Connection, MeterSample, Intake, TimelineEntry, Stranger, IdTag])
def test_f76_what_accumulates_is_deleted_some_day(world: World, kind: type) -> None:
    with pytest.raises(NotFound):
        world.stations.connect("New-1", authorization=None, offered=(), connection_id="Z")
    world.online()
    rid = world.paid()
    tag = world.store.reservation(rid).id_tag
    started = world.says("StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z")
    number = started[2]["transactionId"]
    sample = {"timestamp": "2026-11-23T09:10:00Z", "sampledValue": [{"value": "100"}]}
    world.says("MeterValues", connectorId=1, transactionId=number, meterValue=[sample])

    kept = [to_item(e) for e in world.store.entities() if isinstance(e, kind)]
    assert kept
    assert all(item["ttl"] > world.clock().timestamp() for item in kept)
