"""Connectors that nobody registered, and other things that a station could fill its item collection with."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms.adapters.dynamodb import MAX_WRITES
from csms.charging import stop_requests
from csms.commands import calls
from csms.errors import Conflict
from csms.model import (
    CommandKind,
    CommandOutcome,
    Connector,
    ConnectorState,
    LiveStatus,
    Lock,
    OpenTransaction,
    RemoteStop,
    ReservationState,
    Save,
    Snapshot,
    TimelineEntry,
    TriggerStatus,
)
from csms.ocpp.dialect import LONGEST_ANSWER
from csms.ocpp.framing import CallResult
from csms.ocpp.v16 import DIALECT
from csms.stations.bounds import (
    FORGOTTEN,
    MOST_FORGOTTEN_AT_ONCE,
    MOST_UNREGISTERED,
    find_unregistered,
)
from csms.views import operator
from tests.app import CONNECTORS
from tests.app.in_process import InProcessApp

FIRST = max(CONNECTORS) + 1
FULL = range(FIRST, FIRST + MOST_UNREGISTERED)


@pytest.fixture
def app() -> InProcessApp:
    app = InProcessApp().register()
    app.bring_online()
    return app


def report(app: InProcessApp, number: int, status: str = "Available") -> Any:
    return app.exchange("StatusNotification", connectorId=number, errorCode="NoError", status=status)


def start(app: InProcessApp, number: int) -> Any:
    return app.exchange("StartTransaction", connectorId=number, idTag="NOBODY", meterStart=7, timestamp=app.time())


def fill(app: InProcessApp) -> None:
    for number in FULL:
        report(app, number)


def kept(app: InProcessApp) -> list[int]:
    return [c.connector_id for c in find_unregistered(app.snapshot())]


def test_ninth_unregistered_connector_is_answered_and_forgotten(app: InProcessApp) -> None:
    fill(app)

    answers = [report(app, number) for number in (FULL.stop, FULL.stop + 1, 1_500)]

    assert [3, 3, 3] == [answer[0] for answer in answers]
    assert list(FULL) == kept(app)
    assert 3 == app.snapshot().station.forgotten_connectors


def test_forgotten_connectors_are_told_once(app: InProcessApp) -> None:
    fill(app)

    for number in range(FULL.stop, FULL.stop + 20):
        app.pass_time(seconds=1)
        report(app, number)

    entries = [e for e in app.store.entities() if isinstance(e, TimelineEntry)]
    assert 1 == len([e for e in entries if e.kind == FORGOTTEN])
    assert not [e for e in entries if e.kind == "StatusChanged" and e.detail["connector"] >= FULL.stop]


def test_transaction_takes_place_of_idle_connector(app: InProcessApp) -> None:
    fill(app)

    start(app, 77)

    assert [*FULL[:-1], 77] == kept(app)


def test_connectors_in_use_outlast_a_flood(app: InProcessApp) -> None:
    for number in FULL:
        start(app, number)

    for number in range(FULL.stop, FULL.stop + 30):
        report(app, number)
        start(app, number)

    assert list(FULL) == kept(app)


def test_transaction_on_forgotten_connector_is_stopped(app: InProcessApp) -> None:
    for number in FULL:
        start(app, number)

    begun = start(app, FULL.stop)[2]["transactionId"]
    readings = app.exchange(
        "MeterValues",
        connectorId=FULL.stop,
        transactionId=begun,
        meterValue=[{"timestamp": app.time(), "sampledValue": [{"value": "500"}]}],
    )
    stopped = app.exchange("StopTransaction", transactionId=begun, meterStop=1_007, timestamp=app.time())

    assert [3, 3] == [readings[0], stopped[0]]
    assert 1_007 == app.transaction(begun).meter_stop_wh
    assert 1_000 == app.transaction(begun).energy_wh


def test_connector_with_reservation_is_kept(app: InProcessApp) -> None:
    lock = Lock(reservation_id="r", state=ReservationState.AUTHORIZED, id_tag="T")
    locked = [*range(FIRST, FIRST + MOST_UNREGISTERED + 1), 20_000]
    for number in locked:
        app.store.commit([Save(Connector(station_id="cp1", connector_id=number, lock=lock))])

    report(app, 1)

    assert locked == kept(app)


@pytest.mark.parametrize("number", [-1, 10_000, 2**31])
def test_impossible_number_is_not_kept(app: InProcessApp, number: int) -> None:
    assert 3 == report(app, number)[0]
    assert [] == kept(app)


def test_station_of_older_release_shrinks(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveStatus(raw="Available", state=ConnectorState.AVAILABLE, reported_at=app.now(), epoch="old")
    for number in range(FIRST, FIRST + 1_500):
        app.store.commit([Save(Connector(station_id="cp1", connector_id=number, live=live))])
    sizes: list[int] = []
    commit = app.store.commit
    monkeypatch.setattr(app.store, "commit", lambda writes: (sizes.append(len(list(writes))), commit(writes))[1])

    frames = 0
    while len(kept(app)) > MOST_UNREGISTERED:
        assert 3 == report(app, 1, ("Charging", "Available")[frames % 2])[0]
        frames += 1

    assert -(-(1_500 - MOST_UNREGISTERED) // MOST_FORGOTTEN_AT_ONCE) == frames
    assert max(sizes) < MAX_WRITES
    assert list(FULL) == kept(app)
    assert 1_500 - MOST_UNREGISTERED == app.snapshot().station.forgotten_connectors


def test_operator_sees_unregistered_connectors(app: InProcessApp) -> None:
    fill(app)
    report(app, FULL.stop)

    seen = operator.station_details(app.snapshot(), app.dependencies().build_context())

    assert {"connectorId": FIRST, "raw": "Available", "transactionId": None} == seen["unregisteredConnectors"][0]
    assert MOST_UNREGISTERED == len(seen["unregisteredConnectors"])
    assert 1 == seen["forgottenConnectors"]


def test_stored_texts_are_cut_visibly(app: InProcessApp) -> None:
    app.exchange("BootNotification", chargePointVendor="v" * 500, chargePointModel="m" * 500)
    report(app, 1, "s" * 500)
    app.exchange("StartTransaction", connectorId=2, idTag="t" * 500, meterStart=0, timestamp=app.time())

    station, live, running = app.snapshot().station, app.connector(1).live, app.connector(2).transaction
    assert "v" * 127 + "…" == station.vendor
    assert "m" * 127 + "…" == station.model
    assert live is not None
    assert "s" * 63 + "…" == live.raw
    assert running is not None
    assert "t" * 254 + "…" == running.id_tag


def test_answers_to_commands_are_cut() -> None:
    said = CallResult(unique_id="1", payload={"status": "Accepted", "more": "x" * 9_000})

    result = DIALECT.read_answer(TriggerStatus(connector_id=1), said)

    assert len(result.payload) <= 2 * LONGEST_ANSWER
    assert result.values["truncated"].endswith("…")
    assert CommandOutcome.EXPIRED is not result.outcome


def crowd(app: InProcessApp, most: int) -> Snapshot:
    context, crowded = app.dependencies().build_context(), replace(app.snapshot(), calls=())
    while len(crowded.calls) < most + len(CONNECTORS):
        crowded = calls.queue(
            crowded, RemoteStop(transaction_id=str(len(crowded.calls))), context, until=app.now() + timedelta(hours=1)
        )
    return crowded


def test_status_is_not_requested_of_crowded_station(app: InProcessApp) -> None:
    crowded, context = crowd(app, calls.MOST_CALLS), app.dependencies().build_context()

    assert crowded == calls.ask_status(crowded, context, CONNECTORS, after=timedelta(0))
    with pytest.raises(Conflict) as refused:
        calls.ask_status(crowded, context, CONNECTORS, after=timedelta(0), asked_by="ann", reason="look")

    assert "TooManyCommands" == refused.value.code


def test_paid_session_is_stopped_at_crowded_station(app: InProcessApp) -> None:
    crowded, context = crowd(app, calls.MOST_STOPS), app.dependencies().build_context()
    running = OpenTransaction(
        transaction_id="9001", id_tag="T", started_at=app.now(), received_at=app.now(), meter_start_wh=0
    )
    unpaid = crowded.with_connector(replace(crowded.connector(1), transaction=running))
    paid = crowded.with_connector(replace(crowded.connector(1), transaction=replace(running, reservation_id="r")))

    assert len(crowded.calls) == len(stop_requests.request_stop(unpaid, "9001", context).calls)
    after = stop_requests.request_stop(paid, "9001", context)
    assert (CommandKind.REMOTE_STOP, "9001") == (after.calls[-1].kind, after.calls[-1].transaction_id)
