"""Is the station there? What connecting, going, coming back and keeping silent change, and what they leave alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from csms.errors import ChargerOffline
from csms.model import Policy
from tests.app.in_process import InProcessApp
from tests.fakes import FakeGateway

HEARTBEAT = timedelta(seconds=300)
LEASE = 3 * HEARTBEAT
SECOND = timedelta(seconds=1)


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


def start_charging(app: InProcessApp) -> int:
    """A car charges at connector 1; the transaction."""
    _, number = app.start_session()
    app.report_status(1, "Charging")
    return number


def live_statuses(app: InProcessApp) -> dict[int, str | None]:
    """What the station says of its connectors, as far as it counts."""
    seen = app.snapshot()
    epoch = app.presence().epoch
    return {n: c.live.raw if c.live is not None and c.live.epoch == epoch else None for n, c in seen.connectors.items()}


# The epoch


@pytest.mark.note("F06")
@pytest.mark.parametrize(
    ("absence", "kept"),
    [(LEASE - SECOND, True), (LEASE, False), (LEASE + timedelta(hours=10), False)],
    ids=["shorter than the lease", "as long as the lease", "overnight"],
)
def test_live_status_survives_absence_within_lease(app: InProcessApp, absence: timedelta, kept: bool) -> None:
    app.bring_online("A")
    app.report_status(1, "Faulted")
    app.disconnect("A")
    app.clock.move(absence)
    app.connect("B")

    assert {1: "Faulted" if kept else None, 2: "Available" if kept else None} == live_statuses(app)


# The absence


def test_absence_lasts_from_last_message(app: InProcessApp) -> None:
    app.bring_online("A")
    assert (None, None) == (app.presence().away_since, app.presence().back_at)
    heard = app.clock.at
    app.clock.move(timedelta(hours=1))

    app.connect("B")

    assert (heard, app.clock.at) == (app.presence().away_since, app.presence().back_at)


def test_silence_over_one_socket_is_absence(app: InProcessApp) -> None:
    app.bring_online("A")
    heard = app.clock.at
    app.clock.move(LEASE)

    app.send_call("Heartbeat", over="A")

    assert (heard, app.clock.at) == (app.presence().away_since, app.presence().back_at)


@pytest.mark.parametrize("here_for", [10, 11])
def test_absences_in_quick_succession_are_one(app: InProcessApp, here_for: int) -> None:
    app.bring_online("A")
    first = app.clock.at
    app.clock.move(timedelta(hours=1))
    app.connect("B")
    second = app.clock.at
    app.clock.move(timedelta(minutes=here_for))

    app.connect("C")

    assert (first if here_for == 10 else second) == app.presence().away_since


# Which connection


@pytest.mark.note("F16")
def test_old_socket_frame_renews_no_lease(app: InProcessApp) -> None:
    app.bring_online("A")
    app.connect("B")
    lease = app.presence().lease_until
    app.clock.move(timedelta(minutes=2))
    app.send_call("Heartbeat", over="A")
    app.report_status(1, "Available", over="A")

    assert ("B", lease) == (app.presence().connection_id, app.presence().lease_until)


@pytest.mark.note("F18")
def test_call_to_gone_socket_marks_offline(app: InProcessApp) -> None:
    app.bring_online("A")
    rid = app.create_reservation()
    app.pay(rid)
    app.gateway.gone.add("A")
    app.confirm(rid)

    assert app.presence().connection_id is None
    with pytest.raises(ChargerOffline):
        app.create(2)


def overtake(app: InProcessApp, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """The station comes back over B while A is asked or spoken to, which turns out to be gone."""
    answer = getattr(FakeGateway, asked)

    def too_late(gateway: FakeGateway, connection_id: str, *rest: Any) -> Any:
        if connection_id == "A":
            gateway.gone.add("A")
            app.connect("B")
        return answer(gateway, connection_id, *rest)

    monkeypatch.setattr(FakeGateway, asked, too_late)


@pytest.mark.note("F18")
def test_probe_of_gone_socket_spares_new_connection(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.bring_online("A")
    overtake(app, monkeypatch, "is_connected")
    with pytest.raises(ChargerOffline):
        app.create()

    assert "B" == app.presence().connection_id
    assert app.is_startable()


@pytest.mark.note("F18")
def test_call_to_gone_socket_spares_new_connection(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.bring_online("A")
    rid = app.create_reservation()
    app.pay(rid)
    overtake(app, monkeypatch, "post")
    app.confirm(rid)

    assert "B" == app.presence().connection_id
    assert app.is_startable(2)


@pytest.mark.note("F18")
def test_unreachable_gateway_refuses_start_keeps_presence(app: InProcessApp) -> None:
    app.bring_online("A")
    app.gateway.unreachable = True
    with pytest.raises(ChargerOffline):
        app.create()
    app.gateway.unreachable = False

    assert "A" == app.presence().connection_id
    assert app.is_startable()


@pytest.mark.note("F18", "F20")
@pytest.mark.parametrize("word", ["Heartbeat", "StatusNotification"])
def test_lost_station_returns_with_next_frame(app: InProcessApp, word: str) -> None:
    app.bring_online("A")
    epoch = app.presence().epoch
    app.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        app.create()
    assert app.presence().connection_id is None
    app.gateway.gone.clear()
    app.clock.move(SECOND)
    if word == "Heartbeat":
        app.send_call("Heartbeat")
    else:
        app.report_status(1, "Available")

    assert ("A", epoch) == (app.presence().connection_id, app.presence().epoch)
    assert app.clock() + LEASE == app.presence().lease_until
    assert app.is_startable()


@pytest.mark.note("F16", "F18")
def test_late_frame_on_old_socket_changes_nothing(app: InProcessApp) -> None:
    app.bring_online("A")
    app.connect("B")
    was = app.presence()
    app.clock.move(2 * LEASE)
    app.send_call("Heartbeat", over="A")
    app.report_status(1, "Available", over="A")

    assert was == app.presence()


@pytest.mark.note("F20", "F32")
def test_station_after_lease_is_asked_again(app: InProcessApp) -> None:
    app.bring_online("A")
    rid = app.create_reservation()
    app.clock.move(LEASE + SECOND)
    app.pay(rid)
    assert "Authorized" == app.confirm(rid)["status"]
    epoch = app.presence().epoch

    app.send_call("Heartbeat")
    app.clock.move(30 * SECOND)
    app.sweep()
    app.answer_call("Rejected")

    assert epoch == app.presence().epoch
    assert "StartRequested" == app.status(rid)["status"]


@pytest.mark.note("F06", "F18")
def test_absence_beyond_lease_begins_new_epoch(app: InProcessApp) -> None:
    app.bring_online("A")
    epoch = app.presence().epoch
    app.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        app.create()
    app.clock.move(LEASE)
    app.send_call("Heartbeat", over="A")

    assert "A" == app.presence().connection_id
    assert epoch != app.presence().epoch
    assert {1: None, 2: None} == live_statuses(app)


@pytest.mark.note("F16", "F20")
@pytest.mark.parametrize("known_before", [False, True], ids=["unexpected", "after the gateway had said so"])
def test_closed_socket_frame_restores_no_presence(app: InProcessApp, known_before: bool) -> None:
    app.bring_online("A")
    if known_before:
        app.gateway.gone.add("A")
        with pytest.raises(ChargerOffline):
            app.create()
    app.disconnect("A")
    app.send_call("Heartbeat", over="A")
    app.report_status(1, "Available", over="A")
    assert app.presence().connection_id is None

    app.connect("B")
    app.send_call("Heartbeat", over="B")
    assert "B" == app.presence().connection_id


# The cut


@pytest.mark.note("F19")
def test_two_hour_cut_changes_only_connection(app: InProcessApp) -> None:
    app.bring_online("A")
    number = start_charging(app)
    app.report_status(2, "Preparing")  # Which is free to start, as charging is not: that one is asked about.
    before, was = app.snapshot(), app.presence()
    app.disconnect("A")
    app.clock.move(20 * SECOND)
    app.connect("B")

    after, now = app.snapshot(), app.presence()
    assert (before.station, before.connectors) == (after.station, after.connectors)
    assert (was.epoch, "B") == (now.epoch, now.connection_id)
    assert {1: "Charging", 2: "Preparing"} == live_statuses(app)
    assert str(number) == getattr(after.connector(1).transaction, "transaction_id", None)
    assert [] == [call for call in after.calls if call.connector_id == 2]


@pytest.mark.note("F19")
def test_charging_continues_after_cut_without_boot(app: InProcessApp) -> None:
    app.bring_online("A")
    number = start_charging(app)
    app.disconnect("A")
    app.clock.move(20 * SECOND)
    app.connect("B")
    sample = {"timestamp": "2026-11-23T09:10:00Z", "sampledValue": [{"value": "4000"}]}

    assert [3, {}] == app.exchange("MeterValues", over="B", connectorId=1, transactionId=number, meterValue=[sample])[
        ::2
    ]
    stopped = app.exchange(
        "StopTransaction", over="B", transactionId=number, meterStop=9000, timestamp="2026-11-23T09:30:00Z"
    )
    app.report_status(1, "Available", over="B")

    assert [3, {}] == stopped[::2]
    assert app.is_startable(1)


@pytest.mark.note("F19")
def test_station_registration_survives_reconnect(app: InProcessApp) -> None:
    app.bring_online("A")
    known = app.snapshot().station
    app.disconnect("A")
    app.connect("B")

    assert known == app.snapshot().station


# The lease


@pytest.mark.note("F20")
def test_lease_is_three_heartbeats_from_connect(app: InProcessApp) -> None:
    app.connect("A")

    assert LEASE == Policy().presence_lease
    assert app.clock() + LEASE == app.presence().lease_until


@pytest.mark.note("F20")
def test_frame_renews_lease_once_a_minute(app: InProcessApp) -> None:
    app.bring_online("A")
    booted = app.presence().lease_until
    app.clock.move(59 * SECOND)
    app.report_status(1, "Available")
    assert booted == app.presence().lease_until

    app.clock.move(SECOND)
    app.report_status(1, "Available")

    assert app.clock() + LEASE == app.presence().lease_until


# What is asked


@pytest.mark.note("F21")
def test_connect_triggers_status_for_each_connector(app: InProcessApp) -> None:
    app.connect("A")
    app.clock.move(30 * SECOND)
    for _ in range(2):
        app.sweep()
        app.answer_call("Accepted")

    asked = [frame[2:] for frame in app.frames]
    assert [["TriggerMessage", {"requestedMessage": "StatusNotification", "connectorId": n}] for n in (1, 2)] == sorted(
        asked[:2], key=str
    )


@pytest.mark.note("F21")
def test_queued_calls_wait_until_connect_returns(app: InProcessApp) -> None:
    app.bring_online("A")
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    app.clock.move(Policy().call_timeout + SECOND)
    sent = len(app.gateway.sent)
    app.connect("B")
    assert sent == len(app.gateway.sent)

    app.sweep()

    assert [("B", 2)] == [
        (over, frame[3]["connectorId"])
        for (over, _), frame in zip(app.gateway.sent[sent:], app.frames[sent:], strict=True)
    ]
