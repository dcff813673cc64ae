"""What if somebody else was faster between a read and its commit?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms import texts
from csms.charging.due import chase_call
from csms.errors import ChargerOffline, Conflict, ConnectorBusy
from csms.model import DecisionContext, Policy, ReservationState, Save
from tests.app.in_process import InProcessApp
from tests.fakes import SequentialIds
from tests.unit.raced_stores import InterruptedStore, OutrunStore


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


@pytest.mark.note("F26")
def test_start_during_cancel_is_answered_invalid() -> None:
    store = InterruptedStore()
    app = InProcessApp(store=store).register()
    app.bring_online()
    held = store.reservation(app.create_paid_reservation())
    store.meanwhile = lambda: app.cancel(held.reservation_id)

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": app.time()}
    answer = app.exchange("StartTransaction", **start)

    assert (3, "Invalid") == (answer[0], answer[2]["idTagInfo"]["status"])
    assert ReservationState.CANCELLED is store.reservation(held.reservation_id).state


def test_start_survives_lasting_inconsistent_read(app: InProcessApp) -> None:
    app.bring_online()
    held = app.reservation(app.create_paid_reservation())
    app.store.commit([Save(replace(held, expires_at=app.clock.at + timedelta(minutes=1)))])

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": app.time()}

    assert "Accepted" == app.send_call("StartTransaction", **start)["idTagInfo"]["status"]
    assert ReservationState.CHARGING is app.reservation(held.reservation_id).state


@pytest.mark.note("F22")
def test_connector_is_locked_before_checkout(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.bring_online("A")
    held: list[str | None] = []
    opened = app.provider.open_checkout

    def watched(order: Any, *, key: str) -> Any:
        lock = app.connector(1).lock
        held.append(lock.reservation_id if lock is not None else None)
        return opened(order, key=key)

    monkeypatch.setattr(app.provider, "open_checkout", watched)
    rid = app.create_reservation()
    with pytest.raises(ConnectorBusy):
        app.create()

    assert [rid] == held


@pytest.mark.note("F22")
def test_lost_create_race_reports_contended() -> None:
    app = InProcessApp(store=OutrunStore()).register()
    app.bring_online()
    app.take_decisions()

    with pytest.raises(ConnectorBusy) as refused:
        app.create()

    assert (("Contended",), texts.reason_text("Contended")) == (refused.value.reasons, refused.value.message)
    assert [] == app.provider.calls
    assert [] == app.take_decisions()


@pytest.mark.note("F22", "F75")
def test_lost_create_race_reports_present_reason() -> None:
    store = OutrunStore()
    app = InProcessApp(store=store).register()
    app.bring_online()
    app.take_decisions()
    store.happens = lambda: app.report_status(1, "Faulted")

    with pytest.raises(ConnectorBusy) as refused:
        app.create()

    assert ("LiveStatus:Faulted",) == refused.value.reasons
    assert [("busy", "LiveStatus:Faulted")] == app.take_decisions()


@pytest.mark.note("F22")
def test_lost_create_race_reports_offline_station() -> None:
    store = OutrunStore()
    app = InProcessApp(store=store).register()
    app.bring_online()
    store.happens = lambda: app.disconnect("A")

    with pytest.raises(ChargerOffline):
        app.create()


@pytest.mark.note("F73")
def test_postponed_call_conflicts_with_reconnect(app: InProcessApp) -> None:
    app.connect("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    before = app.snapshot()
    call = before.calls[0]
    app.connect("B")

    outcome = chase_call(before, call, DecisionContext(now=app.clock.at, new_ids=SequentialIds()(), policy=Policy()))
    with pytest.raises(Conflict):
        app.store.commit(outcome.writes)
