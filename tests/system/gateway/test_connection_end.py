"""When does the local gateway end a connection, and what does $disconnect say?"""

import socket
import threading
import time
from contextlib import ExitStack, suppress

from aws_lambda_powertools.utilities.parser.models import APIGatewayWebSocketDisconnectEventModel
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from local.gateway import Limits
from tests.system.gateway.clients import SOON, close_code, station

# Time


def test_idle_connection_closes_despite_pings(backend):
    with backend.serve(Limits(idle_seconds=0.5)) as url, station(url) as connection:
        started = time.monotonic()
        pinger = threading.Thread(target=ping_until_closed, args=[connection])
        pinger.start()

        assert close_code(connection) == 1001
        assert 0.4 < time.monotonic() - started < 1.5
        pinger.join()
    ended = backend.next_event("DISCONNECT")["requestContext"]
    assert (ended["disconnectStatusCode"], ended["disconnectReason"]) == (1001, "Going away")


def ping_until_closed(connection: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            connection.ping()
            threading.Event().wait(0.05)


def test_ping_is_answered(url):
    with station(url) as connection:
        assert connection.ping().wait(SOON)


def test_messages_keep_connection_until_life_limit(backend):
    with backend.serve(Limits(idle_seconds=0.4, life_seconds=1.2)) as url, station(url) as connection:
        started = time.monotonic()
        with suppress(ConnectionClosed):
            while True:
                connection.send("alive")
                connection.recv(SOON)
                threading.Event().wait(0.1)

        assert connection.close_code == 1001
        assert 1.1 < time.monotonic() - started < 2.5


# The end of a connection


def test_disconnect_event_has_documented_shape(backend, url):
    with station(url) as connection:
        connected = backend.next_event("CONNECT")["requestContext"]
        connection.close(1000, "")

    event = backend.next_event("DISCONNECT")
    context = event["requestContext"]
    assert APIGatewayWebSocketDisconnectEventModel.model_validate(event)
    assert (context["connectionId"], context["connectedAt"]) == (connected["connectionId"], connected["connectedAt"])
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (1000, "Connection Closed Normally")


def test_broken_connection_is_reported_as_1006(backend, url):
    with station(url) as connection:
        connection.socket.shutdown(socket.SHUT_RDWR)

        assert backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] == 1006


def test_lost_disconnects_are_not_delivered(backend):
    with backend.serve(lose_disconnects=True) as url:
        with station(url):
            backend.next_event("CONNECT")
        with station(url):
            backend.next_event("CONNECT")

    assert backend.events.empty()


def test_shutdown_closes_connections_with_1001(backend):
    with ExitStack() as opened:
        with backend.serve() as url:
            connections = [opened.enter_context(station(url)) for _ in range(3)]

        assert [close_code(connection) for connection in connections] == [1001] * 3
    assert [backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] for _ in range(3)] == [1001] * 3
