"""Which of several connections of one station survives, if they are opened at the same time?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module

import pytest

from csms.errors import ChargerOffline, ConnectionSuperseded, NotFound, Unauthorized
from csms.model import Connection, Snapshot, TimelineEntry
from csms.stations.presence import is_displaced
from tests.app.handlers import capture_logs
from tests.app.in_process import InProcessApp
from tests.builders import basic_auth_header
from tests.unit.deployed_functions import PASSWORD, DeployedFunctions, cloud, deployed_functions
from tests.unit.raced_stores import InterruptedStore

__all__ = ["cloud", "deployed_functions"]

SECOND = timedelta(seconds=1)


@pytest.fixture
def store() -> InterruptedStore:
    return InterruptedStore()


@pytest.fixture
def app(store: InterruptedStore) -> InProcessApp:
    return InProcessApp(store=store).register()


def connection(app: InProcessApp, connection_id: str) -> Connection:
    found: Connection = app.store.connection(connection_id)
    return found


def lose(app: InProcessApp, connection_id: str) -> None:
    """API Gateway said for a moment that it does not know the connection."""
    app.gateway.gone.add(connection_id)
    with pytest.raises(ChargerOffline):
        app.create()
    app.gateway.gone.clear()

    assert app.presence().connection_id is None


@pytest.mark.note("F17")
@pytest.mark.parametrize("present", [None, "A"], ids=["never connected", "connected"])
@pytest.mark.parametrize("passed", [timedelta(), SECOND, -SECOND], ids=["at once", "later", "by a slow clock"])
def test_loser_of_commit_is_refused(
    app: InProcessApp, store: InterruptedStore, present: str | None, passed: timedelta
) -> None:
    if present is not None:
        app.bring_online(present)

    def be_first() -> None:
        app.clock.move(passed)
        app.connect("first")

    store.meanwhile = be_first
    with pytest.raises(ConnectionSuperseded):
        app.connect("late")

    assert "first" == app.presence().connection_id
    assert [present] * (present is not None) == app.gateway.closed
    with pytest.raises(NotFound):
        app.store.connection("late")


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda app: app.boot(over="A"),
        lambda app: app.report_status(1, "Preparing", over="A"),
        lambda app: app.disconnect("A"),
    ],
    ids=["boot", "status", "disconnect"],
)
def test_other_conflict_is_tried_again(
    app: InProcessApp, store: InterruptedStore, meanwhile: Callable[[InProcessApp], object]
) -> None:
    app.bring_online("A")
    store.meanwhile = lambda: meanwhile(app)

    assert "ocpp1.6" == app.connect("B")

    assert "B" == app.presence().connection_id


def test_restored_connection_supersedes_no_newer_one(app: InProcessApp, store: InterruptedStore) -> None:
    app.bring_online("A")
    lose(app, "A")
    store.meanwhile = lambda: app.report_status(1, "Available", over="A")

    app.connect("B")

    assert "B" == app.presence().connection_id
    assert "FoundConnected" in {e.kind for e in app.store.entities() if isinstance(e, TimelineEntry)}


@pytest.mark.note("F17")
def test_wrong_password_is_refused_as_such(app: InProcessApp, store: InterruptedStore) -> None:
    store.meanwhile = lambda: app.connect("first")

    with pytest.raises(Unauthorized):
        app.connect("late", b"wrong")


@pytest.mark.parametrize("passed", [timedelta(), SECOND, -SECOND])
def test_older_connection_is_displaced(app: InProcessApp, passed: timedelta) -> None:
    app.connect("A")
    app.clock.move(passed)
    app.connect("B")

    assert is_displaced(app.presence(), connection(app, "A"))
    assert not is_displaced(app.presence(), connection(app, "B"))

    app.disconnect("B")
    assert is_displaced(app.presence(), connection(app, "A"))


def test_lost_connection_is_not_displaced(app: InProcessApp) -> None:
    app.connect("A")
    app.disconnect("A")

    assert not is_displaced(app.presence(), connection(app, "A"))
    assert not is_displaced(None, connection(app, "A"))


def test_newest_connection_is_never_displaced(app: InProcessApp) -> None:
    app.connect("A")
    app.connect("B")
    lose(app, "B")
    app.report_status(1, "Available", over="A")

    assert "A" == app.presence().connection_id
    assert not is_displaced(app.presence(), connection(app, "B"))


@pytest.mark.note("F17")
def test_superseded_connect_returns_503_and_counts(
    cloud: DeployedFunctions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stations = import_module("functions.ws_connect.app").stations
    store, answers = stations._dependencies.store, []

    def be_first(station_id: str) -> Snapshot:
        monkeypatch.undo()
        loaded: Snapshot = store.snapshot(station_id)
        header = basic_auth_header("CP1", PASSWORD)
        stations.connect("CP1", authorization=header, offered=("ocpp1.6",), connection_id="first=")
        return loaded

    monkeypatch.setattr(store, "snapshot", be_first)
    line, metrics = capture_logs("ws_connect", capsys, lambda: answers.append(cloud.connect("late=")))

    assert [503] == [answer["statusCode"] for answer in answers]
    assert ("refused", "ConnectionSuperseded", 503) == (line["message"], line["code"], line["statusCode"])
    assert [1] == metrics["ConnectionRefused"]
