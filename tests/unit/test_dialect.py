"""The service knows no OCPP version: a made-up one goes the whole way beside 1.6, and each command keeps its result."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self

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
from csms.service import Dependencies, Stations
from tests import fake_dialect
from tests.app.in_process import InProcessApp
from tests.builders import ANY_POWER_W, MINUTE

S = ReservationState


class DialectApp(InProcessApp):
    """A station that offers the made-up version first, and speaks it."""

    def bring_online(self) -> Self:
        self.connect(offered=(fake_dialect.PROTOCOL,))
        self.exchange("Hello", maker="Acme", kind="Nine")
        for outlet in (1, 2):
            self.exchange("Report", outlet=f"outlet-{outlet}", word="idle")
        return self

    def command_records(self) -> list[CommandRecord]:
        return [e for e in self.store.entities() if isinstance(e, CommandRecord)]


def build_app(*dialects: Any) -> DialectApp:
    """A station at an installation that speaks these versions, or 1.6 and the made-up one."""
    spoken = Dialects.from_loaded(*dialects or (v16.DIALECT, fake_dialect.DIALECT))
    return DialectApp(
        dialects=spoken, policy=Policy(max_power_w=ANY_POWER_W, power_tolerance_percent=ANY_POWER_W)
    ).register()


def lose_paid_start(app: DialectApp) -> str:
    """A paid reservation, whose remote start was not taken."""
    rid = app.create_reservation()
    app.pay(rid)
    app.gateway.unreachable = True
    app.confirm(rid)
    return rid


@pytest.fixture
def app() -> DialectApp:
    return build_app()


@pytest.mark.note("F48")
def test_first_spoken_offer_is_taken(app: DialectApp) -> None:
    assert fake_dialect.PROTOCOL == app.connect(offered=("ocpp2.1", fake_dialect.PROTOCOL, "ocpp1.6"))
    assert "OCPP1.6" == app.connect("B", offered=("OCPP1.6 ", fake_dialect.PROTOCOL))


def test_second_dialect_charges_and_is_paid(app: DialectApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    action, asked = app.frames[-1][2:]
    app.answer_call({"number": 3})
    accepted_at = app.reservation(rid).start_accepted_at

    session = {"id": "tx/äöü-1", "outlet": "outlet-1"}
    begun = app.exchange("Session", **session, step="begins", register=1000, card=asked["card"])
    app.clock.move(20 * MINUTE)
    app.exchange("Session", **session, step="goes on", register=9000)
    shown = app.status(rid)
    app.exchange("Session", **session, step="ends", register=11_000)

    held = app.reservation(rid)
    assert ("Begin", "outlet-1", "Central") == (action, asked["outlet"], asked["card"]["sort"])
    assert accepted_at is not None
    assert {"welcome": True} == begun[2]
    assert 8000 == shown["energyWh"]
    assert (S.COMPLETED, Money.CAPTURED, 645) == (held.state, held.money, held.captured_amount)
    assert "tx/äöü-1" == held.transaction_id
    assert app.is_startable(1)


@pytest.mark.note("F05")
def test_dialect_status_words_map_to_states(app: DialectApp) -> None:
    app.bring_online()

    app.exchange("Report", outlet="outlet-1", word="busy")
    app.exchange("Report", outlet="outlet-2", word="cabled")

    live = {n: c.live for n, c in app.snapshot().connectors.items()}
    assert (ConnectorState.CHARGING, "busy") == (getattr(live[1], "state", None), getattr(live[1], "raw", None))
    assert ConnectorState.PLUGGED is getattr(live[2], "state", None)
    assert [False, True] == [app.is_startable(n) for n in (1, 2)]


@pytest.mark.note("F63")
def test_refused_start_fails_and_releases_hold(app: DialectApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()

    app.answer_call({"because": "tired"})
    app.answer_call({"because": "tired"})

    held = app.reservation(rid)
    assert (S.FAILED, Money.RELEASED) == (held.state, held.money)
    record, _ = app.command_records()
    assert (CommandKind.REMOTE_START, CommandOutcome.REFUSED, "tired") == (
        record.command.kind,
        record.result.outcome,
        record.result.status,
    )


@pytest.mark.note("F38")
def test_error_codes_are_spelled_by_dialect(app: DialectApp) -> None:
    app.bring_online()

    assert "NeverHeardOf" == app.exchange("Goodbye")[2]
    assert "NotSupported" == app.exchange("Tell", outlet="outlet-1")[2]


def test_transaction_stops_over_another_dialect(app: DialectApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    card = app.frames[-1][3]["card"]
    app.exchange("Session", id="77", outlet="outlet-1", step="begins", register=0, card=card)
    app.connect("A2")

    stop = {"transactionId": 77, "meterStop": 5000, "timestamp": app.time()}
    answer = app.exchange("StopTransaction", over="A2", **stop)

    assert [3, {}] == answer[::2]
    assert Money.CAPTURED is app.reservation(rid).money


# Commands with results


@pytest.mark.note("F75")
def test_command_result_keeps_operator_and_reason(app: DialectApp) -> None:
    app.bring_online()
    app.operators.trigger_status("CP1", OperatorCommand(who="ada", reason="It hangs.", expected="Online"))

    app.answer_call({"position": 4})
    app.exchange("Report", outlet="outlet-1", word="idle")

    (record,) = [r for r in app.command_records() if r.command.kind is CommandKind.TRIGGER_STATUS]
    assert ("ada", "It hangs.") == (record.asked_by, record.reason)
    assert (CommandOutcome.ACCEPTED, {"position": 4}) == (record.result.outcome, record.result.values)
    assert record.told_at == app.clock.at


@pytest.mark.note("F44")
def test_operator_lists_waiting_and_ended_commands(app: DialectApp) -> None:
    app.bring_online()
    app.operators.trigger_status("CP1", OperatorCommand(who="ada", reason="It hangs.", expected="Online"))
    app.stations.receive("A", json.dumps([4, app.frames[-1][1], "InternalError", "", {}]))

    shown = app.operators.commands("CP1", limit=10)["commands"]

    waiting = [row for row in shown if row["result"] is None]
    (ended,) = [row for row in shown if row["result"] is not None]
    assert ["TriggerStatus"] == [row["command"] for row in waiting]
    assert ("ada", "error", "InternalError") == (
        ended["askedBy"],
        ended["result"]["outcome"],
        ended["result"]["errorCode"],
    )


@pytest.mark.note("F43")
def test_unanswered_command_is_recorded_as_expired(app: DialectApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    first = app.frames[-1][1]
    app.clock.move(timedelta(seconds=31))

    app.sweep()

    (record,) = app.command_records()
    assert (CommandOutcome.EXPIRED, first, rid) == (record.result.outcome, record.call_id, record.reservation_id)


def test_possibly_sent_command_repeats_with_new_id(app: DialectApp) -> None:
    app.bring_online()
    rid = lose_paid_start(app)
    (waits,) = [c for c in app.snapshot().calls if c.kind is CommandKind.REMOTE_START]
    first = app.reservation(rid).start_command_id
    app.gateway.unreachable = False
    app.clock.move(timedelta(seconds=10))

    app.sweep()

    sent = app.frames[-1]
    assert first is not None
    assert (first, "Begin") == (waits.repeats, sent[2])
    assert {first} < {first, waits.call_id} == {first, sent[1]}


@pytest.mark.parametrize("by_the_first", [True, False])
def test_answer_to_either_id_ends_command(app: DialectApp, by_the_first: bool) -> None:
    app.bring_online()
    rid = lose_paid_start(app)
    app.gateway.unreachable = False
    (waits,) = [c for c in app.snapshot().calls if c.kind is CommandKind.REMOTE_START]

    app.answer_call({}, call_id=waits.repeats if by_the_first else waits.call_id)

    assert app.reservation(rid).start_accepted_at is not None
    assert [] == [c for c in app.snapshot().calls if c.kind is CommandKind.REMOTE_START]


def test_unsupported_operator_command_is_refused(app: DialectApp) -> None:
    mute = replace(fake_dialect.DIALECT, commands={})
    mute_app = build_app(mute)
    mute_app.connect(offered=(fake_dialect.PROTOCOL,))
    before = mute_app.store.entities()

    with pytest.raises(InvalidCommand, match=r"TriggerStatus is not supported over ocpp9\.9"):
        mute_app.operators.trigger_status("CP1", OperatorCommand(who="ada", reason="It hangs.", expected="Online"))

    assert issubclass(InvalidCommand, BadRequest)
    assert before == mute_app.store.entities()


@pytest.mark.note("F63")
def test_unsupported_start_fails_and_releases_hold() -> None:
    mute = replace(fake_dialect.DIALECT, commands={})
    app = build_app(mute)
    app.bring_online()

    rid = app.create_paid_reservation()

    held = app.reservation(rid)
    assert (S.FAILED, Money.RELEASED) == (held.state, held.money)
    (record,) = [r for r in app.command_records() if r.command.kind is CommandKind.REMOTE_START]
    assert (CommandOutcome.ERROR, "UnsupportedCommand") == (record.result.outcome, record.result.error_code)


def test_unspoken_version_call_returns_not_supported(app: DialectApp) -> None:
    app.bring_online()
    other = Stations(Dependencies(store=app.store, dialects=Dialects.from_loaded(v16.DIALECT), now=app.clock))

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
def test_resent_start_keeps_station_assigned_id(app: DialectApp) -> None:
    app.bring_online()
    app.create_paid_reservation()
    card = app.frames[-1][3]["card"]

    for _ in range(2):
        app.exchange("Session", id="own-1", outlet="outlet-1", step="begins", register=0, card=card)

    (kept,) = [e for e in app.store.entities() if isinstance(e, Transaction)]
    running = app.connector(1).transaction
    assert isinstance(running, OpenTransaction)
    assert ("own-1", "own-1") == (kept.transaction_id, running.transaction_id)


def test_repeated_start_records_first_as_expired(app: DialectApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    first = app.frames[-1][1]
    app.clock.move(timedelta(seconds=40))

    app.exchange("Report", outlet="outlet-1", word="cabled")

    again = app.frames[-1]
    (record,) = app.command_records()
    (waits,) = [c for c in app.snapshot().calls if c.kind is CommandKind.REMOTE_START]
    assert (first, CommandOutcome.EXPIRED) == (record.call_id, record.result.outcome)
    assert ("Begin", waits.call_id, first) == (again[2], again[1], waits.repeats)
    assert first == app.reservation(rid).start_command_id
