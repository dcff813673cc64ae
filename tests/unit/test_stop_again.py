"""A station that does not agree to stop a transaction is asked again (notes F30, F43)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from csms.charging import stop_requests
from csms.charging.operations import OperatorCommand
from csms.model import CommandKind, StopRequest, TagStatus, format_time
from tests import builders as b
from tests.app.in_process import InProcessApp
from tests.builders import HOUR, MINUTE, SECOND

REFUSALS = ("Rejected", "NotImplemented", None)


@pytest.fixture
def app() -> InProcessApp:
    """A station at which a stranger charges after the reservation was cancelled."""
    app = InProcessApp().register()
    app.bring_online()
    rid = app.create_paid_reservation()
    tag = app.accept_start(rid)
    app.cancel(rid)
    app.start_transaction(tag)
    return app


def answer(app: InProcessApp, how: str | None) -> None:
    """The station answers the last command so, or not at all until its time is over."""
    if how is None:
        app.sweep_after(timedelta(seconds=30))
        return
    frame = app.frames[-1]
    text = f'[4,"{frame[1]}","{how}","",{{}}]' if how == "NotImplemented" else f'[3,"{frame[1]}",{{"status":"{how}"}}]'
    app.stations.receive(app.socket, text)


def stop_times(app: InProcessApp, how: str | None) -> list[int]:
    """When the station was asked to stop, in seconds since the first time, if it always answers so."""
    began, times = app.clock.at, [0]
    answer(app, how)
    while app.clock.at - began < timedelta(hours=1):
        asked = app.count_sent(app.socket, "RemoteStopTransaction")
        app.sweep_after(5 * SECOND)
        if app.count_sent(app.socket, "RemoteStopTransaction") > asked:
            times.append(int((app.clock.at - began).total_seconds()))
            answer(app, how)
    return times


@pytest.mark.note("F30", "F43")
@pytest.mark.parametrize("how", REFUSALS, ids=str)
def test_refused_stop_is_asked_again(app: InProcessApp, how: str | None) -> None:
    assert 1 == app.count_sent(app.socket, "RemoteStopTransaction")

    times = stop_times(app, how)

    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert (4 if how is None else 7) <= len(times) <= 11
    assert (30 if how is None else 2) <= pauses[0] <= 65
    assert pauses == sorted(pauses)
    assert times[-1] <= 15 * 60
    assert "StopNotObeyed" in {entry.kind for entry in app.store.timeline("cp1", limit=50)}


@pytest.mark.note("F30")
def test_each_repeat_has_a_new_id(app: InProcessApp) -> None:
    stop_times(app, "Rejected")

    stops = [frame for frame in app.frames if frame[2] == "RemoteStopTransaction"]
    assert len(stops) == len({frame[1] for frame in stops})
    assert 1 == len({frame[3]["transactionId"] for frame in stops})


@pytest.mark.note("F30")
def test_agreed_stop_is_not_asked_again(app: InProcessApp) -> None:
    answer(app, "Accepted")
    app.sweep_after(20 * MINUTE)

    assert 1 == app.count_sent(app.socket, "RemoteStopTransaction")
    assert [] == [call for call in app.snapshot().calls if call.kind is CommandKind.REMOTE_STOP]


@pytest.mark.note("F30")
def test_real_stop_ends_the_asking(app: InProcessApp) -> None:
    answer(app, "Rejected")
    (waiting,) = [call for call in app.snapshot().calls if call.kind is CommandKind.REMOTE_STOP]

    app.stop_transaction(int(waiting.transaction_id or 0), 2000)
    app.sweep_after(20 * MINUTE)

    assert 1 == app.count_sent(app.socket, "RemoteStopTransaction")


@pytest.mark.note("F30", "F43")
def test_refusal_after_real_stop_ends_the_asking(app: InProcessApp) -> None:
    (sent,) = [call for call in app.snapshot().calls if call.kind is CommandKind.REMOTE_STOP]

    app.stop_transaction(int(sent.transaction_id or 0), 2000)
    app.answer_call("Rejected", call_id=sent.call_id)
    app.sweep_after(20 * MINUTE)

    assert 1 == app.count_sent(app.socket, "RemoteStopTransaction")
    assert "StopNotObeyed" not in {entry.kind for entry in app.store.timeline("cp1", limit=50)}


# What the operator sees


def request(app: InProcessApp) -> StopRequest:
    """The connector's request to stop."""
    found = app.connector().stop_request

    assert found is not None
    return found


def row(app: InProcessApp, state: str = "refusing") -> Any:
    """The first connector of the station in the list of stations in this state; None if it is not in the list."""
    found = app.operators.stations(limit=5, state=state)["stations"]
    return found[0]["connectors"][0] if found else None


def timeline(app: InProcessApp, kind: str) -> list[dict[str, Any]]:
    """The details of the timeline's entries of this kind."""
    return [dict(entry.detail) for entry in app.store.timeline("cp1", limit=200) if entry.kind == kind]


def pass_minutes(app: InProcessApp, minutes: int, *, meter: int, step: int, how: str = "Accepted") -> list[int]:
    """The station meters `step` Wh more each minute, and answers each RemoteStop so; the minutes with one."""
    number, times = int(request(app).transaction_id), []
    for minute in range(1, minutes + 1):
        asked = app.count_sent(app.socket, "RemoteStopTransaction")
        app.sweep_after(MINUTE)
        app.send_meter_values(number, meter + minute * step)
        if app.count_sent(app.socket, "RemoteStopTransaction") > asked:
            times.append(minute)
            answer(app, how)
    return times


@pytest.mark.note("F30")
@pytest.mark.parametrize("how", REFUSALS, ids=str)
def test_refusing_station_stands_before_operator(app: InProcessApp, how: str | None) -> None:
    since = app.now()
    app.send_meter_values(int(request(app).transaction_id), 3500)
    assert row(app) is None

    stop_times(app, how)

    shown = app.operators.occupancy("CP1", 1)["stopRequest"]
    assert (2500, format_time(since)) == (row(app)["unpaidWh"], row(app)["stopRefusedSince"])
    assert (2500, True) == (shown["unpaidWh"], shown["refusedAt"] is not None)
    assert [{"connector": 1, "transaction": shown["transactionId"], "unpaid_wh": 2500}] == timeline(
        app, "StopNotObeyed"
    )
    assert [2500] == [facts["unpaidWh"] for what, facts in app.observed if what == "stopNotObeyed"]


@pytest.mark.note("F30")
def test_unpaid_energy_rises_until_real_stop(app: InProcessApp) -> None:
    stop_times(app, "Rejected")
    number = int(request(app).transaction_id)

    app.send_meter_values(number, 6000)
    during = row(app)["unpaidWh"]
    app.stop_transaction(number, 9000)

    assert 5000 == during
    assert (None, None) == (row(app), app.connector().stop_request)
    assert [{"connector": 1, "transaction": str(number), "unpaid_wh": 8000}] == timeline(app, "StopObeyed")
    assert 1 == sum(what == "stopNotObeyed" for what, _ in app.observed)


@pytest.mark.note("F30")
@pytest.mark.parametrize("how", ["Accepted", "Rejected"])
def test_transaction_that_goes_on_is_asked_again(app: InProcessApp, how: str) -> None:
    answer(app, how)

    times = pass_minutes(app, 70, meter=1000, step=100, how=how)

    pauses = [later - earlier for earlier, later in pairwise([0, *times])]
    assert 6 <= len(times) <= 9
    assert pauses[0] == 1
    assert pauses[-1] >= 15
    assert 7000 == row(app)["unpaidWh"]
    assert 1 == len(timeline(app, "StopNotObeyed"))


@pytest.mark.note("F30")
def test_agreeing_station_stands_before_operator_after_patience(app: InProcessApp) -> None:
    answer(app, "Accepted")

    pass_minutes(app, 14, meter=1000, step=100)
    before = row(app)
    pass_minutes(app, 1, meter=2400, step=100)

    assert before is None
    assert 1500 == row(app)["unpaidWh"]


@pytest.mark.note("F30")
def test_transaction_without_new_energy_is_over(app: InProcessApp) -> None:
    answer(app, "Accepted")

    assert [] == pass_minutes(app, 30, meter=1000, step=0)
    assert row(app) is None


@pytest.mark.note("F30")
def test_charging_status_shows_that_it_goes_on(app: InProcessApp) -> None:
    answer(app, "Accepted")
    for _ in range(2):
        app.clock.move(10 * MINUTE)
        app.send_call("Heartbeat")

    app.report_status(1, "Charging")

    assert 2 == app.count_sent(app.socket, "RemoteStopTransaction")
    assert 0 == row(app)["unpaidWh"]


@pytest.mark.note("F30", "F55")
def test_available_ends_request_only_with_transaction(app: InProcessApp) -> None:
    answer(app, "Rejected")

    app.report_status(1, "Available")
    before = app.connector().stop_request
    app.sweep_after(6 * MINUTE)

    assert before is not None
    assert (None, True) == (app.connector().transaction, request(app).dormant)
    assert row(app) is None


@pytest.mark.note("F30", "F55")
def test_metered_transaction_after_implied_stop_is_stopped(app: InProcessApp) -> None:
    number = int(request(app).transaction_id)
    answer(app, "Accepted")
    app.send_meter_values(number, 3000)
    app.report_status(1, "Available")
    app.sweep_after(6 * MINUTE)
    asked = app.count_sent(app.socket, "RemoteStopTransaction")

    app.send_meter_values(number, 3000)
    unchanged = app.count_sent(app.socket, "RemoteStopTransaction")
    app.sweep_after(MINUTE)
    app.send_meter_values(number, 3200)

    assert (asked, asked + 1) == (unchanged, app.count_sent(app.socket, "RemoteStopTransaction"))
    assert 200 == request(app).unpaid_wh


@pytest.mark.note("F30", "F55")
def test_implied_stop_is_forgotten_at_next_available(app: InProcessApp) -> None:
    app.report_status(1, "Available")
    app.sweep_after(6 * MINUTE)

    app.report_status(1, "Available")

    assert app.connector().stop_request is None


@pytest.mark.note("F30", "F75")
def test_operators_stop_begins_new_round(app: InProcessApp) -> None:
    stop_times(app, "Rejected")
    app.send_call("Heartbeat")
    command = OperatorCommand(who="ada", reason="because", expected="Open")
    app.operators.close_transaction(request(app).transaction_id, command)
    asked = app.count_sent(app.socket, "RemoteStopTransaction")

    answer(app, "Rejected")
    app.sweep_after(MINUTE)

    assert asked + 1 == app.count_sent(app.socket, "RemoteStopTransaction")


@pytest.mark.note("F30")
@pytest.mark.parametrize(
    ("tag", "running", "from_wh"),
    [
        (TagStatus.INVALID, {"energy_wh": 500}, 1000),
        (TagStatus.ACCEPTED, {"energy_wh": 500}, 1500),
        (TagStatus.ACCEPTED, {"energy_wh": 9800, "stop_at_wh": 10_000, "reservation_id": "r"}, 11_000),
        (TagStatus.ACCEPTED, {"energy_wh": 10_300, "stop_at_wh": 10_000, "reservation_id": "r"}, 11_300),
    ],
    ids=["nobody pays", "a card that may charge", "below what the hold pays", "above it"],
)
def test_unpaid_energy_begins_where_payment_ends(tag: TagStatus, running: dict[str, Any], from_wh: int) -> None:
    before = b.snapshot(b.connector(transaction=b.open_transaction(**running))).with_transaction(
        b.transaction(id_tag_status=tag)
    )

    asked = stop_requests.request_stop(before, "77", b.decision_context()).connector(1).stop_request

    assert asked is not None
    assert from_wh == asked.from_wh


# Transactions that csms has closed


@pytest.fixture
def overdue() -> InProcessApp:
    """A paid session that csms closed at its latest end, with 5 kWh; the station did not answer the RemoteStop yet."""
    app = InProcessApp().register()
    app.bring_online()
    _, number = app.start_session()
    app.send_meter_values(number, 6000)
    while app.connector().transaction is not None:
        app.send_call("Heartbeat")
        app.sweep_after(HOUR)
    return app


@pytest.mark.note("F30", "F77")
def test_overdue_transaction_that_goes_on_is_stopped(overdue: InProcessApp) -> None:
    answer(overdue, "Accepted")

    times = pass_minutes(overdue, 20, meter=6000, step=50)

    assert times[:2] == [1, 2]
    assert 1000 == row(overdue)["unpaidWh"]


@pytest.mark.note("F30", "F77")
@pytest.mark.parametrize("ends", ["stop", "available", "another start"])
def test_request_ends_with_its_transaction(overdue: InProcessApp, ends: str) -> None:
    number = int(request(overdue).transaction_id)
    stop_times(overdue, "Rejected")
    assert row(overdue) is not None

    match ends:
        case "stop":
            overdue.stop_transaction(number, 6000)
        case "available":
            overdue.report_status(1, "Available")
        case _:
            overdue.start_transaction("CARD", meter=7000)

    assert row(overdue) is None
    assert 1 == len(timeline(overdue, "StopObeyed"))
    asked = overdue.connector().stop_request
    assert asked is None or str(number) != asked.transaction_id


@pytest.mark.note("F30", "F77")
def test_foreign_and_impossible_readings_cost_nothing(overdue: InProcessApp) -> None:
    overdue.policy = replace(overdue.policy, max_power_w=22_000)
    overdue.__post_init__()
    number = int(request(overdue).transaction_id)
    overdue.clock.move(MINUTE)

    overdue.send_meter_values(number + 1, 6100)
    overdue.send_meter_values(number, 900_000)

    assert 0 == request(overdue).unpaid_wh
    overdue.send_meter_values(number, 6200)
    assert 200 == request(overdue).unpaid_wh


@pytest.mark.note("F30", "F77")
def test_absent_station_is_not_called_refusing(overdue: InProcessApp) -> None:
    number = int(request(overdue).transaction_id)
    overdue.disconnect()
    for _ in range(40):
        overdue.sweep_after(MINUTE)
    away = row(overdue)

    overdue.connect("B")
    overdue.socket = "B"
    overdue.send_meter_values(number, 6500)

    assert (None, None) == (away, row(overdue))
    assert 1 == overdue.count_sent("B", "RemoteStopTransaction")
    assert 500 == request(overdue).unpaid_wh
