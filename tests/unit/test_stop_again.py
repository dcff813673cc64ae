"""A station that does not agree to stop a transaction is asked again (notes F30, F43)."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from csms.model import CommandKind
from tests.app.in_process import InProcessApp
from tests.builders import MINUTE, SECOND

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
    assert 4 <= len(times) <= 7
    assert 30 <= pauses[0] <= 65
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
