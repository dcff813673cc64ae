"""The line of a station's frames: who joins it, who processes it, and what becomes of it if the holder dies."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from csms.charging import transaction
from csms.errors import Conflict, StoreUnavailable
from csms.model import Connector, DecisionContext, MeterSample, Save, Snapshot, Transaction, Turn, WaitingFrame, Write
from csms.service import Maintenance
from csms.service.line import BATCH, HOLD
from tests.app.in_process import InProcessApp
from tests.builders import SECOND
from tests.fakes import FakeStore

MILLISECOND = timedelta(milliseconds=1)
STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}


class CrowdedStore(FakeStore):
    """A table in which every commit of a connector loses against others, `losses` times."""

    losses = 0

    def commit(self, writes: Iterable[Write]) -> None:
        wanted = list(writes)
        if self.losses and any(isinstance(write, Save) and isinstance(write.entity, Connector) for write in wanted):
            self.losses -= 1
            raise Conflict("Somebody else was first.")
        super().commit(wanted)


@pytest.fixture
def store() -> CrowdedStore:
    return CrowdedStore()


@pytest.fixture
def app(store: CrowdedStore) -> InProcessApp:
    app = InProcessApp(store=store).register()
    app.bring_online()
    app.gateway.sent.clear()
    return app


def receive(app: InProcessApp, frame_id: str, action: str, after: timedelta = timedelta(0), **payload: Any) -> Any:
    """The answer at once, None if there is none."""
    text = json.dumps([2, frame_id, action, payload])
    answer = app.stations.receive(app.socket, text, received_at=app.clock.at + after)
    return None if answer is None else json.loads(answer)


def start(app: InProcessApp, frame_id: str = "start", *, meter: int = 0) -> Any:
    return receive(
        app, frame_id, "StartTransaction", connectorId=2, idTag="NOBODY", meterStart=meter, timestamp=app.time()
    )


def hold_turn(app: InProcessApp) -> None:
    """Somebody else processes the line."""
    until = app.clock.at + HOLD
    app.store.commit([Save(Turn(station_id="cp1", holder="another", held_until=until, due_at=until))])


def find(app: InProcessApp, kind: type) -> list[Any]:
    return [entity for entity in app.store.entities() if isinstance(entity, kind)]


@pytest.mark.note("F40", "F41")
def test_beaten_frame_is_served_in_line(app: InProcessApp, store: CrowdedStore) -> None:
    store.losses = 2

    assert [3, "start"] == start(app)[:2]
    assert 1 == len(find(app, Transaction))
    assert [] == find(app, WaitingFrame) + find(app, Turn)
    assert [] == app.frames


def test_once_beaten_frame_joins_no_line(app: InProcessApp, store: CrowdedStore) -> None:
    store.losses = 1

    assert [3, "start"] == start(app)[:2]
    assert [] == [facts for what, facts in app.observed if what == "line"]


@pytest.mark.note("F41")
def test_fixed_answer_comes_while_others_hold_turn(app: InProcessApp) -> None:
    hold_turn(app)

    assert [3, "s", {}] == receive(app, "s", "StatusNotification", **STATUS)
    assert [True] == [frame.answered for frame in find(app, WaitingFrame)]
    assert "Available" == getattr(app.connector(1).live, "raw", None)


@pytest.mark.note("F41")
def test_holder_sends_answers_of_others(app: InProcessApp) -> None:
    hold_turn(app)
    assert start(app) is None
    app.clock.move(HOLD)

    assert [3, "s", {}] == receive(app, "s", "StatusNotification", **STATUS)
    app.sweep()

    assert [[3, "start"]] == [frame[:2] for frame in app.frames if frame[0] == 3]
    assert 1 == len(find(app, Transaction))
    assert "Charging" == getattr(app.connector(1).live, "raw", None)
    assert [] == find(app, WaitingFrame) + find(app, Turn)


def test_line_goes_in_order_of_receipt(app: InProcessApp) -> None:
    hold_turn(app)
    for number, status in ((3, "Finishing"), (1, "Charging"), (2, "SuspendedEV")):
        receive(app, f"s{number}", "StatusNotification", number * MILLISECOND, **{**STATUS, "status": status})
    app.clock.move(HOLD)
    app.maintenance.wake("cp1", None)

    changes = [entry.detail["status"] for entry in app.store.timeline("cp1", limit=3) if entry.kind == "StatusChanged"]
    assert ["Finishing", "SuspendedEV", "Charging"] == changes


@pytest.mark.note("F41")
def test_dead_holder_leaves_line_to_sweep(app: InProcessApp) -> None:
    hold_turn(app)
    start(app)
    app.sweep_after(HOLD - SECOND)
    assert [] == find(app, Transaction)

    assert 1 == app.sweep_after(SECOND)["Turn"]
    assert 1 == len(find(app, Transaction))
    assert [[3, "start"]] == [frame[:2] for frame in app.frames if frame[0] == 3]


@pytest.mark.note("F41")
def test_frame_joining_at_the_end_is_served(
    app: InProcessApp, store: CrowdedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the holder's last look and the end of the line."""
    store.losses, read = 2, store.line
    late = [lambda: start(app, "late")]

    def read_before_late_frame(station_id: str, *, limit: int) -> tuple[WaitingFrame, ...]:
        found = read(station_id, limit=limit)
        if not found and late:
            assert late.pop()() is None
        return found

    monkeypatch.setattr(store, "line", read_before_late_frame)

    assert [3, "start"] == start(app)[:2]
    assert [[3, "late"]] == [frame[:2] for frame in app.frames if frame[0] == 3]
    assert [] == find(app, WaitingFrame) + find(app, Turn)


def test_dry_run_leaves_line(app: InProcessApp) -> None:
    hold_turn(app)
    start(app)
    app.clock.move(HOLD)

    assert ["Turn cp1: would process the frames that wait in line"] == app.sweep(dry_run=True).planned
    assert 1 == len(find(app, WaitingFrame))


def test_holder_out_of_time_hands_over(app: InProcessApp, store: CrowdedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[tuple[str, int, str | None]] = []
    slow = InProcessApp(store=store, clock=app.clock, gateway=app.gateway)
    dependencies = slow.dependencies(
        set_timer=lambda sid, *, seconds, call_id=None: timers.append((sid, seconds, call_id))
    )
    hold_turn(app)
    for number in range(2 * BATCH):
        receive(app, f"m{number}", "MeterValues", number * MILLISECOND, **readings(app, number))
    app.clock.move(HOLD)
    read = store.line

    def read_slowly(station_id: str, *, limit: int) -> tuple[WaitingFrame, ...]:
        found = read(station_id, limit=limit)
        app.clock.move(HOLD)
        return found

    monkeypatch.setattr(store, "line", read_slowly)
    Maintenance(dependencies).wake("cp1", None)

    assert [("cp1", 0, None)] == timers
    assert BATCH == len(find(app, WaitingFrame))
    assert [(None, None)] == [(turn.holder, turn.held_until) for turn in find(app, Turn)]


def readings(app: InProcessApp, number: int) -> dict[str, Any]:
    at = (app.clock.at + timedelta(seconds=number)).isoformat()
    return {
        "connectorId": 1,
        "transactionId": 77,
        "meterValue": [{"timestamp": at, "sampledValue": [{"value": str(number)}]}],
    }


def test_readings_share_commits(app: InProcessApp, store: CrowdedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_turn(app)
    for number in range(BATCH):
        receive(app, f"m{number}", "MeterValues", number * MILLISECOND, **readings(app, number))
    receive(app, "again", "MeterValues", BATCH * MILLISECOND, **readings(app, 0))
    app.clock.move(HOLD)
    commits: list[int] = []
    commit = store.commit
    monkeypatch.setattr(store, "commit", lambda writes: (commits.append(len(list(writes))), commit(writes))[1])

    app.maintenance.wake("cp1", None)

    assert BATCH == len(find(app, MeterSample))
    assert 3 == len(commits)


def test_failing_frame_does_not_hold_up_line(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_turn(app)
    start(app, "poison", meter=666)
    start(app, "good")
    app.clock.move(HOLD)
    start_transaction = transaction.start

    def fail(before: Snapshot, request: Any, context: DecisionContext) -> Any:
        if request.meter_start_wh == 666:
            raise ZeroDivisionError
        return start_transaction(before, request, context)

    monkeypatch.setattr(transaction, "start", fail)

    app.maintenance.wake("cp1", None)

    assert {("poison", 4), ("good", 3)} == {(frame[1], frame[0]) for frame in app.frames if frame[0] != 2}
    assert ["frameFailed"] == [what for what, _ in app.observed if what == "frameFailed"]
    assert [] == find(app, WaitingFrame) + find(app, Turn)


def test_unavailable_table_leaves_frame_in_line(
    app: InProcessApp, store: CrowdedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.losses = 2

    def fail(_station_id: str, *, limit: int) -> tuple[WaitingFrame, ...]:
        raise StoreUnavailable(f"No {limit} frames.")

    monkeypatch.setattr(store, "line", fail)
    assert start(app) is None
    monkeypatch.undo()

    assert 1 == app.sweep_after(HOLD)["Turn"]
    assert [[3, "start"]] == [frame[:2] for frame in app.frames if frame[0] == 3]


@pytest.mark.note("F44")
def test_answer_to_command_goes_in_line(app: InProcessApp) -> None:
    rid = app.create_paid_reservation()
    hold_turn(app)
    app.answer_call("Accepted")
    assert app.reservation(rid).start_accepted_at is None
    app.clock.move(HOLD)
    app.maintenance.wake("cp1", None)

    assert app.reservation(rid).start_accepted_at is not None


def test_driver_waits_for_end_of_line(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_turn(app)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        app.clock.move(HOLD)

    monkeypatch.setattr("csms.service.unit_of_work.time.sleep", sleep)

    assert app.create()["status"] == "Redirect"
    assert 1 == len(slept)


def test_line_of_other_station_holds_up_nobody(app: InProcessApp) -> None:
    hold_turn(app)
    other = app.at("CP2").register()
    other.bring_online()

    assert {} == other.send_call("StatusNotification", **STATUS)
    assert "Charging" == getattr(other.connector(1).live, "raw", None)


def test_turn_is_held_until_lease_ends(app: InProcessApp) -> None:
    now: datetime = app.clock.at
    turn = Turn(station_id="cp1", holder="h", held_until=now, due_at=now)

    assert turn.is_held(now - MILLISECOND)
    assert not turn.is_held(now)
    assert not Turn(station_id="cp1", due_at=now).is_held(now)
