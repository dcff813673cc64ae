"""Stations, browsers and AWS clients of the local gateway."""

import http.client
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.aws import aws_client

SOON = 5


def station(url: str, path: str = "/ocpp/CP001", **options: Any) -> connect:
    return connect(url.replace("http", "ws", 1) + path, **{"compression": None, "proxy": None, **options})


def refusal(url: str, path: str = "/ocpp/CP001", **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refused, station(url, path, **options):
        pytest.fail("was let in")
    return refused.value.response.status_code


def close_code(connection: ClientConnection) -> int | None:
    """The code with which the gateway closes, after any frames before it; None if it does not close soon."""
    deadline = time.monotonic() + SOON
    with suppress(ConnectionClosed):
        while time.monotonic() < deadline:
            connection.recv(timeout=SOON)
    return connection.close_code


def raw_upgrade(url: str) -> http.client.HTTPConnection:
    """A station that has requested the upgrade and does nothing afterwards."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SOON)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/ocpp/CP001", headers=headers | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    return connection


def ask(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SOON)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def management(url: str) -> Any:
    return aws_client("apigatewaymanagementapi", f"{url}/ocpp")
