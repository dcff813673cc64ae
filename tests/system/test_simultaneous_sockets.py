"""Does exactly one socket of a station remain, if it opens many at once through the real local gateway (note F17)?"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import Final

import pytest
from websockets.exceptions import InvalidStatus

from local.client import ClientError, Socket, connect_station
from local.stack import Stack, run_stack
from tests.app.http import HttpApp, wait_until
from tests.app.stack import PASSWORD, REGISTRATION, TOKEN, build_options

SOCKETS: Final = 50


@pytest.fixture
def stack() -> Iterator[Stack]:
    with run_stack(build_options()) as it:
        yield it


def register(stack: Stack, identity: str) -> HttpApp:
    it = HttpApp(url=stack.url, token=TOKEN, identity=identity, password=PASSWORD)
    it.request_ok("PUT", f"/operations/stations/{identity}", REGISTRATION)
    return it


def is_open(socket: Socket) -> bool:
    """Whether the socket still answers a Heartbeat, or closes instead."""
    try:
        socket.call("Heartbeat")
    except ClientError:
        return False
    return True


@pytest.mark.note("F17")
def test_one_of_50_sockets_stays_open(stack: Stack) -> None:
    storming = register(stack, "CP-1")
    start = Barrier(SOCKETS + 1)

    def open_socket(number: int) -> Socket | int:
        start.wait()
        try:
            return sockets.enter_context(connect_station(stack.ocpp_url, storming.identity, PASSWORD))
        except InvalidStatus as refused:
            return refused.response.status_code

    with register(stack, "CP-2") as other, ExitStack() as sockets, ThreadPoolExecutor(SOCKETS) as pool:
        other.connect()
        storm = [pool.submit(open_socket, number) for number in range(SOCKETS)]
        start.wait()
        answers = [other.send_call("Heartbeat")]
        while not all(it.done() for it in storm):
            answers.append(other.send_call("Heartbeat"))
        opened = [it.result() for it in storm]
        left = [it for it in opened if isinstance(it, Socket)]
        wait_until(lambda: 1 >= sum(is_open(it) for it in left))

        assert [{"currentTime"}] * len(answers) == [set(answer) for answer in answers]
        assert {503} >= {it for it in opened if isinstance(it, int)}
        assert 1 == sum(is_open(it) for it in left)
        assert "Offline" != storming.view_connector()["status"]
