"""The claim to send a CALL: who sends, what a crash leaves, and how an unanswered CALL frees the way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from csms.errors import Conflict, Unreachable
from csms.model import CallState, Claim, CommandKind, CommandOutcome, CommandRecord, Policy
from csms.service import Drivers, Maintenance, Stations
from tests.app.in_process import InProcessApp
from tests.builders import SECOND

TIMEOUT = Policy().call_timeout


class Crash(BaseException):
    """The process ends."""


@pytest.fixture
def timers() -> list[tuple[str, int, str | None]]:
    return []


@pytest.fixture
def app(timers: list[tuple[str, int, str | None]]) -> InProcessApp:
    app = InProcessApp().register()
    app.bring_online()

    def set_timer(station_id: str, *, seconds: int, call_id: str | None = None) -> None:
        timers.append((station_id, seconds, call_id))

    with_timer = app.dependencies(set_timer=set_timer)
    app.stations, app.drivers, app.maintenance = Stations(with_timer), Drivers(with_timer), Maintenance(with_timer)
    return app


def interrupt_post(app: InProcessApp, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """This happens, once, between a claim and its post."""
    monkeypatch.setattr(type(app.gateway), "post", _once(type(app.gateway).post, happens))


def _once(post: Callable[..., None], happens: Callable[[], object]) -> Callable[..., None]:
    left = [happens]

    def interrupted(gateway: Any, connection_id: str, frame: str) -> None:
        if left:
            left.pop()()
        post(gateway, connection_id, frame)

    return interrupted


@pytest.mark.note("F43", "F44")
def test_answer_before_post_returns_ends_command(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    post = type(app.gateway).post

    def answered_at_once(gateway: Any, connection_id: str, frame: str) -> None:
        post(gateway, connection_id, frame)
        app.answer_call("Accepted")

    monkeypatch.setattr(type(app.gateway), "post", answered_at_once)
    rid = app.create_paid_reservation()

    assert () == app.snapshot().calls
    assert app.reservation(rid).start_accepted_at is not None
    assert 1 == app.count_sent("A", "RemoteStartTransaction")


@pytest.mark.note("F43")
def test_claimed_call_is_not_sent_again(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[CallState, ...]] = []

    def others_act() -> None:
        seen.append(tuple(call.state for call in app.snapshot().calls))
        app.sweep()
        app.report_status(2, "Available")

    interrupt_post(app, monkeypatch, others_act)
    app.create_paid_reservation()

    assert [(CallState.SENT,)] == seen
    assert 1 == app.count_sent("A", "RemoteStartTransaction")


@pytest.mark.note("F25", "F43")
def test_crash_after_claim_repeats_under_new_id(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> None:
        raise Crash

    interrupt_post(app, monkeypatch, crash)
    with pytest.raises(Crash):
        app.create_paid_reservation()
    lost = app.snapshot().calls[0].call_id
    assert [] == app.frames

    app.sweep_after(TIMEOUT)
    app.answer_call("Accepted")
    app.report_status(1, "Available")

    starts = [frame for frame in app.frames if frame[2] == "RemoteStartTransaction"]
    assert 1 == len(starts)
    assert lost != starts[0][1]
    assert [lost] == [call.repeats for call in app.snapshot().calls if call.kind is CommandKind.REMOTE_START]


@pytest.mark.note("F43")
def test_waiting_command_sets_a_timer(app: InProcessApp, timers: list[tuple[str, int, str | None]]) -> None:
    app.create_paid_reservation(1)
    assert [] == timers

    app.create_paid_reservation(2)

    first = app.frames[0][1]
    assert [("cp1", int(TIMEOUT.total_seconds()) + 1, first)] == timers


@pytest.mark.note("F43")
def test_timer_frees_the_way(app: InProcessApp, timers: list[tuple[str, int, str | None]]) -> None:
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    station_id, seconds, call_id = timers[0]

    app.clock.move(timedelta(seconds=seconds))
    app.maintenance.wake(station_id, call_id)

    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames if frame[2] == "RemoteStartTransaction"]
    assert [CommandOutcome.EXPIRED] == [command.result.outcome for command in app.store.commands("cp1", limit=9)]


@pytest.mark.note("F43")
def test_early_timer_is_set_again(app: InProcessApp, timers: list[tuple[str, int, str | None]]) -> None:
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    station_id, _, call_id = timers[0]

    app.clock.move(TIMEOUT - 2 * SECOND)
    app.maintenance.wake(station_id, call_id)

    assert [("cp1", 3, call_id)] == timers[1:]
    assert 1 == app.count_sent("A", "RemoteStartTransaction")


def test_timer_of_answered_command_does_nothing(app: InProcessApp, timers: list[tuple[str, int, str | None]]) -> None:
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    app.answer_call("Accepted")
    app.answer_call("Accepted")
    told = len(app.frames)

    app.clock.move(TIMEOUT + SECOND)
    app.maintenance.wake("cp1", timers[0][2])
    app.maintenance.wake("deleted", timers[0][2])

    assert told == len(app.frames)


@pytest.mark.note("F43")
def test_any_frame_frees_overdue_way(app: InProcessApp) -> None:
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    app.clock.move(TIMEOUT)

    app.report_status(2, "Available")

    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames if frame[2] == "RemoteStartTransaction"]


def test_failed_timer_is_left_to_sweep(app: InProcessApp) -> None:
    def fail(_station_id: str, *, seconds: int, call_id: str | None = None) -> None:
        raise Unreachable(f"No timer of {seconds} s for {call_id}.")

    app.drivers = Drivers(app.dependencies(set_timer=fail))
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    app.sweep_after(TIMEOUT)

    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames if frame[2] == "RemoteStartTransaction"]


@pytest.mark.note("F18", "F43")
def test_call_to_gone_socket_keeps_its_id(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_post(app, monkeypatch, lambda: app.gateway.gone.add("A"))
    app.create_paid_reservation()

    (kept,) = app.snapshot().calls
    assert (None, None) == (app.presence().connection_id, app.presence().awaited_call_id)
    assert CallState.QUEUED is kept.state
    app.gateway.gone.clear()
    app.report_status(2, "Available")
    assert [kept.call_id] == [frame[1] for frame in app.frames if frame[2] == "RemoteStartTransaction"]


@pytest.mark.note("F16", "F43")
def test_reconnect_fences_older_claim(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that was decided on the old connection fails, and the command goes over the new one."""
    commit = app.store.commit
    happened: list[bool] = []

    def commit_after_reconnect(writes: Any) -> None:
        wanted = list(writes)
        if not happened and any(isinstance(write, Claim) for write in wanted):
            happened.append(True)
            app.connect("B")
        commit(wanted)

    monkeypatch.setattr(app.store, "commit", commit_after_reconnect)
    app.create_paid_reservation()

    assert 0 == app.count_sent("A", "RemoteStartTransaction")
    assert 1 == app.count_sent("B", "RemoteStartTransaction")


@pytest.mark.note("F43")
def test_command_queued_during_answer_is_sent(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is decided on a station that was read before the second command was stored."""
    app.create_paid_reservation(1)
    commit = app.store.commit
    left = [lambda: app.create_paid_reservation(2)]

    def commit_after_second_command(writes: Any) -> None:
        wanted = list(writes)
        if left and any(isinstance(getattr(write, "record", None), CommandRecord) for write in wanted):
            left.pop()()
        commit(wanted)

    monkeypatch.setattr(app.store, "commit", commit_after_second_command)
    app.answer_call("Accepted")

    assert [] == left
    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames if frame[2] == "RemoteStartTransaction"]


@pytest.mark.note("F43")
def test_always_beaten_claim_sets_a_timer(
    app: InProcessApp, timers: list[tuple[str, int, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = app.store.commit

    def beat_claims(writes: Any) -> None:
        wanted = list(writes)
        if any(isinstance(write, Claim) for write in wanted):
            raise Conflict("Somebody else was first.")
        commit(wanted)

    monkeypatch.setattr(app.store, "commit", beat_claims)
    app.create_paid_reservation()
    (call,) = app.snapshot().calls
    monkeypatch.undo()

    assert [("cp1", 1, call.call_id)] == timers
    app.maintenance.wake("cp1", call.call_id)
    assert 1 == app.count_sent("A", "RemoteStartTransaction")
