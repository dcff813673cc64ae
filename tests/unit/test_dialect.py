"""The service knows no OCPP version: a made-up one goes the whole way beside 1.6, and each command keeps its result."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms.charging.operations import OperatorCommand
from csms.errors import BadRequest
from csms.model import (
    CommandKind,
    CommandOutcome,
    CommandRecord,
    ConnectorState,
    Money,
    OpenTransaction,
    Policy,
    ReservationState,
    Transaction,
)
from csms.ocpp import v16
from csms.ocpp.dialect import Dialects, InvalidCommand
from csms.service import Dependencies, Drivers, Maintenance, Operators, Stations
from tests import fake_dialect
from tests.builders import ANY_POWER_W, MINUTE
from tests.fakes import Clock, FakeGateway, FakeProvider, FakeStore, SequentialIds
from tests.unit.test_service import TARIFF, basic_auth_header

PASSWORD = b"correct horse"
S = ReservationState


class World:
    """A station that offers the made-up version first, and everything around it in memory."""

    def __init__(self, *dialects: Any) -> None:
        self.clock, self.store, self.gateway, self.provider = Clock(), FakeStore(), FakeGateway(), FakeProvider()
        self.observed: list[tuple[str, Any]] = []
        dependencies = Dependencies(
            store=self.store,
            gateway=self.gateway,  # type: ignore[arg-type]
            provider=self.provider,
            dialects=Dialects.from_loaded(*dialects or (v16.DIALECT, fake_dialect.DIALECT)),
            policy=Policy(max_power_w=ANY_POWER_W),
            now=self.clock,
            new_ids=SequentialIds(),
            observe=lambda what, facts: self.observed.append((what, facts)),
        )
        self.stations, self.drivers, self.maintenance = (
            Stations(dependencies),
            Drivers(dependencies),
            Maintenance(dependencies),
        )
        self.operators = Operators(dependencies)
        self.stations.register("CP1", password=PASSWORD, connectors=(1, 2), tariff=TARIFF)
        self.serial = 0

    def connect(self, *offered: str, over: str = "A") -> str:
        return self.stations.connect(
            "CP1", authorization=basic_auth_header("CP1", PASSWORD), offered=offered, connection_id=over
        )

    def send_call(self, action: str, **payload: Any) -> Any:
        self.serial += 1
        return json.loads(self.stations.receive("A", json.dumps([2, f"m{self.serial}", action, payload])) or "null")

    def bring_online(self) -> None:
        self.connect(fake_dialect.PROTOCOL)
        self.send_call("Hello", maker="Acme", kind="Nine")
        for outlet in (1, 2):
            self.send_call("Report", outlet=f"outlet-{outlet}", word="idle")

    def create_paid_reservation(self, *, unreachable: bool = False) -> str:
        rid = str(self.drivers.create("CP1", 1)["reservationId"])
        self.gateway.unreachable = unreachable
        self.provider.pay(self.store.reservation(rid).checkout_id or "")
        self.drivers.confirm(rid)
        return rid

    def answer_call(self, payload: dict[str, Any], *, call_id: str | None = None) -> None:
        frame = [3, call_id or self.gateway.frames[-1][1], payload]
        assert self.stations.receive("A", json.dumps(frame)) is None

    def command_records(self) -> list[CommandRecord]:
        return [e for e in self.store.entities() if isinstance(e, CommandRecord)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.note("F48")
def test_first_spoken_offer_is_taken(world: World) -> None:
    assert fake_dialect.PROTOCOL == world.connect("ocpp2.1", fake_dialect.PROTOCOL, "ocpp1.6")
    assert "ocpp1.6" == world.connect("OCPP1.6 ", fake_dialect.PROTOCOL, over="B")


def test_second_dialect_charges_and_is_paid(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    action, asked = world.gateway.frames[-1][2:]
    world.answer_call({"number": 3})
    accepted_at = world.store.reservation(rid).start_accepted_at

    session = {"id": "tx/äöü-1", "outlet": "outlet-1"}
    begun = world.send_call("Session", **session, step="begins", register=1000, card=asked["card"])
    world.clock.move(20 * MINUTE)
    world.send_call("Session", **session, step="goes on", register=9000)
    shown = world.drivers.status(rid)
    world.send_call("Session", **session, step="ends", register=11_000)

    held = world.store.reservation(rid)
    assert ("Begin", "outlet-1", "Central") == (action, asked["outlet"], asked["card"]["sort"])
    assert accepted_at is not None
    assert {"welcome": True} == begun[2]
    assert 8000 == shown["energyWh"]
    assert (S.COMPLETED, Money.CAPTURED, 645) == (held.state, held.money, held.captured_amount)
    assert "tx/äöü-1" == held.transaction_id
    assert world.drivers.connector("CP1", 1)["startable"]


@pytest.mark.note("F05")
def test_dialect_status_words_map_to_states(world: World) -> None:
    world.bring_online()

    world.send_call("Report", outlet="outlet-1", word="busy")
    world.send_call("Report", outlet="outlet-2", word="cabled")

    live = {n: c.live for n, c in world.store.snapshot("cp1").connectors.items()}
    assert (ConnectorState.CHARGING, "busy") == (getattr(live[1], "state", None), getattr(live[1], "raw", None))
    assert ConnectorState.PLUGGED is getattr(live[2], "state", None)
    assert [False, True] == [world.drivers.connector("CP1", n)["startable"] for n in (1, 2)]


@pytest.mark.note("F63")
def test_refused_start_fails_and_releases_hold(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()

    world.answer_call({"because": "tired"})

    held = world.store.reservation(rid)
    assert (S.FAILED, Money.RELEASED) == (held.state, held.money)
    (record,) = world.command_records()
    assert (CommandKind.REMOTE_START, CommandOutcome.REFUSED, "tired") == (
        record.command.kind,
        record.result.outcome,
        record.result.status,
    )


@pytest.mark.note("F38")
def test_error_codes_are_spelled_by_dialect(world: World) -> None:
    world.bring_online()

    assert "NeverHeardOf" == world.send_call("Goodbye")[2]
    assert "NotSupported" == world.send_call("Tell", outlet="outlet-1")[2]


def test_transaction_stops_over_another_dialect(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    card = world.gateway.frames[-1][3]["card"]
    world.send_call("Session", id="77", outlet="outlet-1", step="begins", register=0, card=card)
    world.connect("ocpp1.6", over="A2")

    stop = {"transactionId": 77, "meterStop": 5000, "timestamp": world.clock.at.isoformat()}
    answer = world.stations.receive("A2", json.dumps([2, "s1", "StopTransaction", stop]))

    assert [3, "s1", {}] == json.loads(answer or "null")
    assert Money.CAPTURED is world.store.reservation(rid).money


# Commands with results


@pytest.mark.note("F75")
def test_command_result_keeps_operator_and_reason(world: World) -> None:
    world.bring_online()
    world.operators.trigger_status("CP1", OperatorCommand(who="ada", reason="It hangs.", expected="Online"))

    world.answer_call({"position": 4})
    world.send_call("Report", outlet="outlet-1", word="idle")

    (record,) = [r for r in world.command_records() if r.command.kind is CommandKind.TRIGGER_STATUS]
    assert ("ada", "It hangs.") == (record.asked_by, record.reason)
    assert (CommandOutcome.ACCEPTED, {"position": 4}) == (record.result.outcome, record.result.values)
    assert record.told_at == world.clock.at


@pytest.mark.note("F44")
def test_operator_lists_waiting_and_ended_commands(world: World) -> None:
    world.bring_online()
    world.operators.trigger_status("CP1", OperatorCommand(who="ada", reason="It hangs.", expected="Online"))
    world.stations.receive("A", json.dumps([4, world.gateway.frames[-1][1], "InternalError", "", {}]))

    shown = world.operators.commands("CP1", limit=10)["commands"]

    waiting = [row for row in shown if row["result"] is None]
    (ended,) = [row for row in shown if row["result"] is not None]
    assert ["TriggerStatus"] == [row["command"] for row in waiting]
    assert ("ada", "error", "InternalError") == (
        ended["askedBy"],
        ended["result"]["outcome"],
        ended["result"]["errorCode"],
    )


@pytest.mark.note("F43")
def test_unanswered_command_is_recorded_as_expired(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    first = world.gateway.frames[-1][1]
    world.clock.move(timedelta(seconds=31))

    world.maintenance.sweep()

    (record,) = world.command_records()
    assert (CommandOutcome.EXPIRED, first, rid) == (record.result.outcome, record.call_id, record.reservation_id)


def test_possibly_sent_command_repeats_with_new_id(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation(unreachable=True)
    (waits,) = [c for c in world.store.snapshot("cp1").calls if c.kind is CommandKind.REMOTE_START]
    first = world.store.reservation(rid).start_command_id
    world.gateway.unreachable = False
    world.clock.move(timedelta(seconds=10))

    world.maintenance.sweep()

    sent = world.gateway.frames[-1]
    assert first is not None
    assert (first, "Begin") == (waits.repeats, sent[2])
    assert {first} < {first, waits.call_id} == {first, sent[1]}


@pytest.mark.parametrize("by_the_first", [True, False])
def test_answer_to_either_id_ends_command(world: World, by_the_first: bool) -> None:
    world.bring_online()
    rid = world.create_paid_reservation(unreachable=True)
    world.gateway.unreachable = False
    (waits,) = [c for c in world.store.snapshot("cp1").calls if c.kind is CommandKind.REMOTE_START]

    world.answer_call({}, call_id=waits.repeats if by_the_first else waits.call_id)

    assert world.store.reservation(rid).start_accepted_at is not None
    assert [] == [c for c in world.store.snapshot("cp1").calls if c.kind is CommandKind.REMOTE_START]


def test_unsupported_operator_command_is_refused(world: World) -> None:
    mute = replace(fake_dialect.DIALECT, commands={})
    mute_world = World(mute)
    mute_world.connect(fake_dialect.PROTOCOL)
    before = mute_world.store.entities()

    with pytest.raises(InvalidCommand, match=r"TriggerStatus is not supported over ocpp9\.9"):
        mute_world.operators.trigger_status("CP1", OperatorCommand(who="ada", reason="It hangs.", expected="Online"))

    assert issubclass(InvalidCommand, BadRequest)
    assert before == mute_world.store.entities()


@pytest.mark.note("F63")
def test_unsupported_start_fails_and_releases_hold() -> None:
    mute = replace(fake_dialect.DIALECT, commands={})
    world = World(mute)
    world.bring_online()

    rid = world.create_paid_reservation()

    held = world.store.reservation(rid)
    assert (S.FAILED, Money.RELEASED) == (held.state, held.money)
    (record,) = [r for r in world.command_records() if r.command.kind is CommandKind.REMOTE_START]
    assert (CommandOutcome.ERROR, "UnsupportedCommand") == (record.result.outcome, record.result.error_code)


def test_unspoken_version_call_returns_not_supported(world: World) -> None:
    world.bring_online()
    other = Stations(Dependencies(store=world.store, dialects=Dialects.from_loaded(v16.DIALECT), now=world.clock))

    answer = json.loads(other.receive("A", '[2,"x","Hello",{}]') or "null")

    assert [4, "x", "NotSupported"] == answer[:3]
    assert other.receive("A", '[3,"x",{}]') is None


def test_dialect_is_imported_on_first_use() -> None:
    loaded: list[str] = []

    def load() -> Any:
        loaded.append("fake")
        return fake_dialect.DIALECT

    dialects = Dialects({"ocpp1.6": lambda: v16.DIALECT, fake_dialect.PROTOCOL: load})

    assert v16.DIALECT is dialects["ocpp1.6"]
    assert ["ocpp1.6", fake_dialect.PROTOCOL] == list(dialects)
    assert [] == loaded
    assert [fake_dialect.DIALECT] * 2 == [dialects[fake_dialect.PROTOCOL] for _ in range(2)]
    assert ["fake"] == loaded


@pytest.mark.note("F51")
def test_resent_start_keeps_station_assigned_id(world: World) -> None:
    world.bring_online()
    world.create_paid_reservation()
    card = world.gateway.frames[-1][3]["card"]

    for _ in range(2):
        world.send_call("Session", id="own-1", outlet="outlet-1", step="begins", register=0, card=card)

    (kept,) = [e for e in world.store.entities() if isinstance(e, Transaction)]
    running = world.store.snapshot("cp1").connector(1).transaction
    assert isinstance(running, OpenTransaction)
    assert ("own-1", "own-1") == (kept.transaction_id, running.transaction_id)


def test_repeated_start_records_first_as_expired(world: World) -> None:
    world.bring_online()
    rid = world.create_paid_reservation()
    first = world.gateway.frames[-1][1]
    world.clock.move(timedelta(seconds=40))

    world.send_call("Report", outlet="outlet-1", word="cabled")

    again = world.gateway.frames[-1]
    (record,) = world.command_records()
    (waits,) = [c for c in world.store.snapshot("cp1").calls if c.kind is CommandKind.REMOTE_START]
    assert (first, CommandOutcome.EXPIRED) == (record.call_id, record.result.outcome)
    assert ("Begin", waits.call_id, first) == (again[2], again[1], waits.repeats)
    assert first == world.store.reservation(rid).start_command_id
