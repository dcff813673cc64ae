"""Do frames become events and answers frames, and are too large or invalid ones closed as by API Gateway?"""

import json
import threading
from contextlib import suppress
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import APIGatewayWebSocketMessageEventModel
from websockets.exceptions import ConnectionClosed

from local.gateway import AWS
from tests.system.gateway.backend import QUICK, Event, answer_after_close, raise_error
from tests.system.gateway.clients import SOON, close_code, station

# Messages


def test_message_event_is_documented_and_answered(backend, url):
    with station(url) as connection:
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        connection.send('[2,"ä","Heartbeat",{}]')

        assert connection.recv(SOON) == 'echo [2,"ä","Heartbeat",{}]'
        event = backend.next_event("MESSAGE")
    assert APIGatewayWebSocketMessageEventModel.model_validate(event)
    assert event["requestContext"]["connectionId"] == connection_id
    assert event["requestContext"]["routeKey"] == "$default"
    assert "headers" not in event


@pytest.mark.parametrize("answer", [None, {"statusCode": 200}, {"statusCode": 200, "body": None}, {"body": ""}])
def test_answer_without_body_sends_nothing(backend, url, answer):
    backend.on_message = lambda event: answer if event["body"] == "silent" else {"body": "next"}
    with station(url) as connection:
        connection.send("silent")
        backend.next_event("MESSAGE")
        connection.send("loud")

        assert connection.recv(SOON) == "next"


@pytest.mark.parametrize(
    "answer",
    [["junk"], {"body": {"not": "text"}}, {"body": "x" * (128 * 1024 + 1)}, {"body": object()}, raise_error, "late"],
    ids=["list", "object body", "body too long", "not JSON", "raises", "too late"],
)
def test_failed_message_gets_gateway_error_frame(backend, answer):
    may_go = threading.Event()

    def misbehave(event: Event) -> Any:
        if event["body"] == "well":
            return {"body": "fine"}
        if answer == "late":
            return answer_after_close(may_go)(event)
        return answer(event) if callable(answer) else answer

    backend.on_message = misbehave
    with backend.serve(QUICK) as url, station(url) as connection:
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        connection.send("badly")
        frame = json.loads(connection.recv(SOON))
        may_go.set()
        connection.send("well")

        assert frame.pop("requestId").endswith("=")
        assert frame == {"message": "Internal server error", "connectionId": connection_id}
        assert connection.recv(SOON) == "fine"


def test_message_just_before_close_is_delivered(backend, url):
    with station(url) as connection:
        connection.protocol.send_text(b"last words")
        connection.protocol.send_close(1000)
        connection.socket.sendall(b"".join(connection.protocol.data_to_send()))

        assert backend.next_event("MESSAGE")["body"] == "last words"
    assert backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] == 1000


# Sizes


def test_default_limits_are_aws_limits():
    sizes = (AWS.frame_bytes, AWS.message_bytes, AWS.body_bytes)
    times = (AWS.idle_seconds, AWS.life_seconds, AWS.integration_seconds)

    assert sizes == (32_768, 131_072, 10_485_760)
    assert times == (600, 7200, 29)


def test_largest_frame_and_fragmented_message_pass(backend, url):
    backend.on_message = lambda event: {"body": str(len(event["body"]))}
    with station(url) as connection:
        connection.send("x" * 32_768)
        assert connection.recv(SOON) == "32768"

        connection.send(["y" * 25_000] * 4)
        assert connection.recv(SOON) == "100000"


@pytest.mark.parametrize(
    "message",
    ["x" * 32_769, "x" * 40_000, "x" * 200_000, "x" * 9_000_000, ["x" * 30_000] * 5, ["x" * 10, "x" * 40_000]],
    ids=["one byte too many", "40 KB", "200 KB", "9 MB", "fragments of 150 KB", "a long fragment"],
)
def test_oversized_message_is_closed_with_1009(backend, url, message):
    with station(url) as connection:
        # The gateway closes as soon as it has the frame's length, so sending the rest may fail.
        with suppress(ConnectionClosed):
            connection.send(message)

        assert close_code(connection) == 1009
    assert backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] == 1009

    with station(url) as another:
        another.send("still there?")
        assert another.recv(SOON) == "echo still there?"


def test_binary_frame_is_closed_with_1003(backend, url):
    with station(url) as connection:
        connection.send(b"\x00\x01")

        assert close_code(connection) == 1003
    assert backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] == 1003


def test_invalid_utf8_is_closed_with_1007(url):
    with station(url) as connection:
        connection.send(b"\xff\xfe", text=True)

        assert close_code(connection) == 1007


def test_invalid_frame_is_closed_with_1002(backend, url):
    with station(url) as connection:
        connection.socket.sendall(b"\x07no frame starts like this")

        assert close_code(connection) == 1002
    assert backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] == 1002
    with station(url):
        assert backend.next_event("CONNECT")
