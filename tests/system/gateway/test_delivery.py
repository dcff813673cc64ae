"""Do frames reach the function in order by default, and out of order on request?"""

import queue
import threading
from typing import Any

import pytest

from local.gateway import OVERLAPPING, Delivery
from local.gateway.events import now_millis
from tests.system.gateway.backend import Backend, Event
from tests.system.gateway.clients import SOON, station

FRAMES = "abcdefgh"


@pytest.fixture
def may_go(backend: Backend) -> threading.Event:
    """When it is set, the function comes to its end for the frame `first`; it echoes every frame."""
    event = threading.Event()

    def wait_for_first(message: Event) -> Any:
        if message["body"] == "first":
            event.wait(SOON)
        return {"body": message["body"]}

    backend.on_message = wait_for_first
    return event


def test_frames_keep_order_by_default(backend, url, may_go):
    with station(url) as connection:
        for text in ("first", *FRAMES):
            connection.send(text)
        assert backend.next_event("MESSAGE")["body"] == "first"
        with pytest.raises(queue.Empty):
            backend.events.get(timeout=0.2)
        may_go.set()

        assert ["first", *FRAMES] == [connection.recv(SOON) for _ in ("first", *FRAMES)]
    assert list(FRAMES) == [backend.next_event("MESSAGE")["body"] for _ in FRAMES]


def test_slow_frame_delays_no_other_station(url, may_go):
    with station(url) as slow, station(url, "/ocpp/CP002") as other:
        slow.send("first")
        other.send("a")

        assert other.recv(SOON) == "a"
        may_go.set()
        assert slow.recv(SOON) == "first"


def test_disconnect_follows_earlier_frames(backend, url, may_go):
    with station(url) as connection:
        backend.next_event("CONNECT")
        connection.send("first")
        connection.send("a")
        assert backend.next_event("MESSAGE")["body"] == "first"
    with pytest.raises(queue.Empty):
        backend.events.get(timeout=0.2)
    may_go.set()

    assert backend.events.get(timeout=SOON)["body"] == "a"
    assert backend.events.get(timeout=SOON)["requestContext"]["eventType"] == "DISCONNECT"


def test_event_time_is_arrival_time(backend, url, may_go):
    with station(url) as connection:
        connection.send("first")
        connection.send("a")
        # The gateway reads the ping after the frames.
        assert connection.ping().wait(SOON)
        arrived_by = now_millis()
        while now_millis() == arrived_by:
            threading.Event().wait(0.001)
        may_go.set()

        assert connection.recv(SOON) == "first"
        assert connection.recv(SOON) == "a"
    times = [backend.next_event("MESSAGE")["requestContext"]["requestTimeEpoch"] for _ in range(2)]
    assert times == sorted(times)
    assert times[1] <= arrived_by


def test_overlapping_frames_run_in_parallel(backend):
    together = threading.Barrier(3, timeout=SOON)
    backend.on_message = lambda event: {"body": f"{event['body']} {together.wait() >= 0}"}
    with backend.serve(delivery=OVERLAPPING) as url, station(url) as connection:
        for text in "abc":
            connection.send(text)

        assert {connection.recv(SOON) for _ in "abc"} == {"a True", "b True", "c True"}


@pytest.mark.parametrize(("seed", "expected"), [(4, "acbdegfh"), (15, "abecfdgh")])
def test_overlapping_frames_overtake_by_seed(backend, seed, expected):
    # With one thread the answers come in the order in which the function was called.
    delivery = Delivery(overlap=True, seed=seed, hold_seconds=SOON)
    with backend.serve(delivery=delivery, workers=1) as url, station(url) as connection:
        for text in FRAMES:
            connection.send(text)

        assert expected == "".join(connection.recv(SOON).removeprefix("echo ") for _ in FRAMES)


def test_held_frame_goes_without_successor(backend):
    with backend.serve(delivery=OVERLAPPING) as url, station(url) as connection:
        for text in FRAMES:
            connection.send(text)

            assert connection.recv(SOON) == f"echo {text}"
