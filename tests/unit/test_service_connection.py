"""Which socket is the station's, and how long does it count as online? Asked of the services."""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.errors import BadRequest, ChargerOffline, NotFound, Unauthorized
from csms.model import (
    CallState,
    InboxSlot,
    OutboundCall,
    OutboxItem,
    Policy,
    RefusedConnections,
    RemoteStop,
    Reservation,
    Save,
    UnknownStation,
)
from tests.app.in_process import InProcessApp
from tests.builders import basic_auth_header


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


LEASE = Policy().presence_lease


@pytest.mark.note("F16")
def test_old_socket_disconnect_keeps_station_online(app: InProcessApp) -> None:
    app.bring_online("A")
    app.connect("B")
    app.disconnect("A")

    assert "B" == app.presence().connection_id
    assert app.is_startable()


@pytest.mark.note("F16")
def test_current_socket_disconnect_takes_station_offline(app: InProcessApp) -> None:
    app.bring_online("A")
    app.disconnect("A")

    assert "Offline" == app.view_connector(1)["status"]


@pytest.mark.note("F17")
@pytest.mark.parametrize("password", [b"wrong", b""])
def test_failed_authentication_displaces_no_socket(app: InProcessApp, password: bytes) -> None:
    app.bring_online("A")
    before = app.store.entities()
    with pytest.raises(Unauthorized):
        app.connect("B", password)

    kept = [e for e in app.store.entities() if not isinstance(e, RefusedConnections)]
    assert before == [e for e in kept if getattr(e, "kind", "") != "ConnectionRefused"]
    assert [] == app.gateway.closed


@pytest.mark.note("F17")
def test_authenticated_connect_closes_old_socket(app: InProcessApp) -> None:
    app.bring_online("A")
    app.connect("B")

    assert ["A"] == app.gateway.closed


def test_disconnected_station_is_sent_nothing(app: InProcessApp) -> None:
    app.connect("A")
    app.clock.move(timedelta(minutes=1))
    waiting = app.snapshot().calls
    app.disconnect("A")

    assert {"TriggerStatus"} == {str(call.kind) for call in waiting if call.send_at <= app.clock()}
    assert [] == app.gateway.sent


@pytest.mark.note("F18")
def test_gone_socket_means_offline_before_checkout(app: InProcessApp) -> None:
    app.bring_online("A")
    app.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        app.create()

    assert app.presence().connection_id is None
    assert [] == [e for e in app.store.entities() if isinstance(e, Reservation | OutboxItem)]


@pytest.mark.note("F18")
def test_new_connection_survives_gone_old_socket(app: InProcessApp) -> None:
    app.bring_online("A")
    rid = app.create_reservation()
    app.connect("B")
    app.gateway.gone.add("A")
    app.pay(rid)
    app.confirm(rid)

    assert "B" == app.presence().connection_id
    assert "B" == app.gateway.sent[-1][0]


@pytest.mark.note("F19")
def test_reconnect_needs_no_boot_or_status(app: InProcessApp) -> None:
    app.bring_online("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    app.connect("B")

    assert app.is_startable()
    assert "Available" == app.view_connector(1)["status"]


@pytest.mark.note("F20")
def test_lost_disconnect_ends_with_lease(app: InProcessApp) -> None:
    app.bring_online("A")
    app.clock.move(LEASE - timedelta(seconds=1))
    assert app.is_startable()
    app.clock.move(timedelta(seconds=1))

    assert not app.is_startable()


@pytest.mark.note("F20")
def test_heartbeat_renews_presence_lease(app: InProcessApp) -> None:
    app.bring_online("A")
    for _ in range(10):
        app.clock.move(timedelta(seconds=300))
        app.send_call("Heartbeat")

    assert app.is_startable()


@pytest.mark.note("F21")
def test_connect_itself_sends_nothing(app: InProcessApp) -> None:
    app.connect("A")

    assert [] == app.gateway.sent


@pytest.mark.note("F21")
def test_station_with_64_connectors_reconnects(app: InProcessApp) -> None:
    app.register(connectors=tuple(range(1, 65)))
    for over in ("A", "B", "C"):
        app.connect(over)
        app.clock.move(timedelta(seconds=11))
        app.sweep()
        app.answer_call("Accepted", over=over)
        app.clock.move(timedelta(seconds=11))

    asked = [call.connector_id for call in app.snapshot().calls if call.state is not CallState.PROMISED]
    assert "C" == app.presence().connection_id
    assert len(asked) == len(set(asked))
    assert set(range(1, 65)) == {call.connector_id for call in app.snapshot().calls}


@pytest.mark.note("F21")
def test_station_with_full_queue_reconnects(app: InProcessApp) -> None:
    app.register(connectors=tuple(range(1, 65)))
    app.connect("A")
    at, until = app.clock.at, app.clock.at + timedelta(minutes=10)
    stops = [
        OutboundCall(
            station_id="cp1",
            call_id=f"stop-{number}",
            command=RemoteStop(transaction_id=str(number)),
            asked_at=at,
            send_at=at,
            due_at=until,
            expires_at=until,
        )
        for number in range(1, 65)
    ]
    app.store.commit([Save(stop) for stop in stops])
    app.connect("B")

    assert "B" == app.presence().connection_id


@pytest.mark.note("F48")
def test_subprotocol_is_first_known_or_refused(app: InProcessApp) -> None:
    offers = ("ocpp9.9", " OCPP1.6 ")
    chosen = app.stations.connect(
        "CP1", authorization=basic_auth_header("CP1", b"correct horse"), offered=offers, connection_id="A"
    )
    with pytest.raises(BadRequest):
        app.stations.connect(
            "CP1", authorization=basic_auth_header("CP1", b"correct horse"), offered=("",), connection_id="B"
        )

    assert "OCPP1.6" == chosen
    assert "A" == app.presence().connection_id


@pytest.mark.note("F49")
def test_unknown_station_is_only_listed(app: InProcessApp) -> None:
    before = app.store.entities()
    with pytest.raises(NotFound):
        app.stations.connect(
            "New-1", authorization=basic_auth_header("New-1", b"x"), offered=("ocpp1.6",), connection_id="A"
        )

    slot, unknown_station = [e for e in app.store.entities() if e not in before]
    assert isinstance(slot, InboxSlot)
    assert isinstance(unknown_station, UnknownStation)
    assert "New-1" == unknown_station.identity
