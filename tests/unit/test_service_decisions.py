"""Which decisions on a connector are reported, and which looks are none?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from csms.errors import ChargerOffline, Conflict, ConnectorBusy, NotFound
from csms.model import Append, IdTag, TagStatus, Write
from tests.app.in_process import InProcessApp


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


def test_create_reports_its_decision(app: InProcessApp) -> None:
    app.bring_online()
    app.create()
    assert [("startable", None)] == app.take_decisions()
    with pytest.raises(ConnectorBusy):
        app.create()

    assert [("busy", "ActiveReservation")] == app.take_decisions()


def test_gone_socket_reports_charger_offline(app: InProcessApp) -> None:
    app.bring_online()
    app.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        app.create()

    assert [("busy", "ChargerOffline")] == app.take_decisions()


def test_unknown_connector_is_no_decision(app: InProcessApp) -> None:
    app.bring_online()
    with pytest.raises(NotFound):
        app.create(3)

    assert [] == app.take_decisions()


def test_only_committed_decision_is_reported(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.bring_online()
    commit, lost = app.store.commit, [Conflict("Somebody else was first.")]

    def contested(writes: Iterable[Write]) -> None:
        if lost:
            raise lost.pop()
        commit(writes)

    monkeypatch.setattr(app.store, "commit", contested)
    app.observed.clear()
    app.create()

    assert ["conflict", "decision"] == [what for what, _ in app.observed]


def test_confirm_reports_decision_once_paid(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.take_decisions()
    app.confirm(rid)
    assert [] == app.take_decisions()

    app.pay(rid)
    app.report_status(1, "Faulted")
    app.confirm(rid)
    assert [("busy", "LiveStatus:Faulted")] == app.take_decisions()

    app.report_status(1, "Preparing")
    assert [("startable", None)] == app.take_decisions()

    app.confirm(rid)
    app.report_status(1, "Charging")
    assert [] == app.take_decisions()


def test_webhook_reports_its_decision(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.take_decisions()
    app.pay(rid)
    app.drivers.receive_webhook(*app.provider.build_webhook(rid))

    assert [("startable", None)] == app.take_decisions()


def test_late_payment_reports_busy_connector(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.pay(rid)
    app.clock.move(timedelta(minutes=33))
    app.send_call("Heartbeat")
    app.create()
    app.take_decisions()
    app.confirm(rid)

    assert [("busy", "ActiveReservation")] == app.take_decisions()


def test_free_start_reports_two_decisions(app: InProcessApp) -> None:
    app.bring_online()
    app.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    app.create(1, id_tag="FRIEND")

    assert [("startable", None)] * 2 == app.take_decisions()


def test_queries_report_no_decision(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.take_decisions()
    app.view_connector(1)
    app.status(rid)
    app.report_status(2, "Charging")

    assert [] == app.take_decisions()
