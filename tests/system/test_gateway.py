"""Does the local gateway keep API Gateway's contract? Over real sockets, with unmodified clients."""

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
from aiohttp import web
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayProxyEventV2Model,
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
)
from botocore.config import Config
from botocore.exceptions import ClientError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from local.gateway import AWS, Gateway, Limits, Schedule, run_gateway
from tests.addresses import ADDRESSES, Address

SECRET = "the-way-through-the-edge"
QUICK = Limits(integration_seconds=0.5, http_seconds=0.5, close_seconds=1)
SOON = 5

Event = dict[str, Any]


class Backend:
    """Four small functions. Each records its event; what they answer is an attribute a test may replace."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.on_connect: Callable[[Event], Any] = lambda _: {"statusCode": 200}
        self.on_message: Callable[[Event], Any] = lambda event: {"statusCode": 200, "body": f"echo {event['body']}"}
        self.on_http: Callable[[Event], Any] = lambda _: {"ok": True}
        self.on_task: Callable[[Event], Any] = lambda event: {"seen": event}

    def ws_connect(self, event: Event, _: Any) -> Any:
        self.events.put(event)
        return self.on_connect(event) if event["requestContext"]["eventType"] == "CONNECT" else {"statusCode": 200}

    def ws_message(self, event: Event, _: Any) -> Any:
        self.events.put(event)
        return self.on_message(event)

    def payments(self, event: Event, _: Any) -> Any:
        self.events.put(event)
        return self.on_http(event)

    def maintenance(self, event: Event, _: Any) -> Any:
        self.events.put({"task": event})
        return self.on_task(event)

    def next_event(self, kind: str) -> Event:
        """The next event of that eventType."""
        while True:
            event = self.events.get(timeout=SOON)
            if event.get("requestContext", {}).get("eventType") == kind:
                return event

    @contextmanager
    def serve(self, limits: Limits = AWS, **settings: Any) -> Iterator[str]:
        names = ("ws_connect", "ws_message", "payments", "maintenance")
        handlers = {name: getattr(self, name) for name in names}
        web_folder = settings.pop("web", Path(__file__).parent)
        with run_gateway(
            Gateway(
                handlers, origin_secret=SECRET, web=web_folder, limits=limits, retry_seconds=(0.01, 0.01), **settings
            )
        ) as url:
            yield url


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    with backend.serve() as base:
        yield base


def station(url: str, path: str = "/ocpp/CP001", **options: Any) -> connect:
    return connect(url.replace("http", "ws", 1) + path, **{"compression": None, "proxy": None, **options})


def refusal(url: str, path: str = "/ocpp/CP001", **options: Any) -> int:
    with pytest.raises(InvalidStatus) as refused, station(url, path, **options):
        pytest.fail("was let in")
    return refused.value.response.status_code


def close_code(connection: ClientConnection) -> int | None:
    """The code the gateway closes with, after whatever else it still sends; None if it does not close soon."""
    deadline = time.monotonic() + SOON
    with suppress(ConnectionClosed):
        while time.monotonic() < deadline:
            connection.recv(timeout=SOON)
    return connection.close_code


def ask(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SOON)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def aws_client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="eu-central-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def management(url: str) -> Any:
    return aws_client("apigatewaymanagementapi", f"{url}/ocpp")


def raise_error(_: Event) -> Any:
    raise RuntimeError("as ordered")


def answer_after_close(handler_may_go: threading.Event) -> Callable[[Event], Any]:
    def answer(_: Event) -> Any:
        handler_may_go.wait(SOON)
        return {"statusCode": 200, "body": "late"}

    return answer


# The handshake: CloudFront and $connect


def test_each_address_resolves_as_at_cloudfront(backend, url):
    assert {row: row.answer for row in ADDRESSES} == {row: dial_address(backend, url, row) for row in ADDRESSES}
    assert backend.events.empty()


def dial_address(backend: Backend, url: str, address: Address) -> str | int:
    """The one cp that $connect saw, or the status that was answered without it."""
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers = upgrade | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} if address.upgrade else {}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SOON)
    connection.request("GET", f"{address.path}?{address.query}" if address.query else address.path, headers=headers)
    status = connection.getresponse().status
    if status != 101:
        connection.close()
        return status
    event = backend.next_event("CONNECT")
    connection.close()
    backend.next_event("DISCONNECT")
    assert event["multiValueQueryStringParameters"] == {"cp": [event["queryStringParameters"]["cp"]]}
    return str(event["queryStringParameters"]["cp"])


def test_missing_upgrade_is_426_broken_handshake_400(url):
    handshake = {"Upgrade": "websocket", "Connection": "Upgrade"}

    assert ask(url, "GET", "/ocpp/CP001")[0] == 426
    assert ask(url, "GET", "/ocpp/CP001", **handshake, Sec_WebSocket_Key="short", Sec_WebSocket_Version="13")[0] == 400
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    assert ask(url, "GET", "/ocpp/CP001", **handshake, Sec_WebSocket_Key=key, Sec_WebSocket_Version="7")[0] == 400


def test_connect_event_has_documented_shape(backend, url):
    with station(url, user_agent_header="charger/1.0", additional_headers={"Authorization": "Basic QQ=="}):
        event = backend.next_event("CONNECT")

    context = event["requestContext"]
    assert APIGatewayWebSocketConnectEventModel.model_validate(event)
    assert (context["routeKey"], context["messageDirection"], context["stage"]) == ("$connect", "IN", "ocpp")
    assert context["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "charger/1.0"}
    assert len(context["connectionId"]) == 16
    assert context["connectionId"].endswith("=")
    assert event["headers"]["Authorization"] == "Basic QQ=="
    assert event["multiValueHeaders"]["Authorization"] == ["Basic QQ=="]


def test_edge_sets_origin_header_drops_extensions(backend, url):
    forged = {"X-Origin-Verify": "forged", "X-Forwarded-For": "192.0.2.1"}
    with station(url, compression="deflate", additional_headers=forged) as connection:
        headers = backend.next_event("CONNECT")["multiValueHeaders"]

        assert connection.protocol.extensions == []
    assert values(headers, "x-origin-verify") == [SECRET]
    assert values(headers, "x-forwarded-for") == ["127.0.0.1"]
    assert values(headers, "sec-websocket-extensions") == []


def values(headers: dict[str, list[str]], name: str) -> list[str]:
    """All values of a header, in whatever case it was written."""
    return [value for key, found in headers.items() if key.lower() == name for value in found]


def test_subprotocol_comes_from_connect_answer(backend, url):
    backend.on_connect = lambda _: {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "ocpp1.6"}}
    with station(url, subprotocols=["ocpp2.0.1", "ocpp1.6"]) as connection:
        offered = backend.next_event("CONNECT")["headers"]["Sec-WebSocket-Protocol"]

        assert connection.subprotocol == "ocpp1.6"
    assert [name.strip() for name in offered.split(",")] == ["ocpp2.0.1", "ocpp1.6"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_connect_refusal_is_upgrade_status(backend, url, status):
    backend.on_connect = lambda _: {"statusCode": status}

    assert refusal(url) == status


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "200",
        {},
        {"statusCode": "200"},
        {"statusCode": 101},
        {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "a\r\nSet-Cookie: b"}},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "body": {1, 2}},
    ],
)
def test_invalid_connect_answer_is_502(backend, url, answer):
    backend.on_connect = lambda _: answer

    assert refusal(url) == 502


def test_failed_or_slow_connect_is_502(backend):
    may_go = threading.Event()
    with backend.serve(QUICK) as url:
        for misbehave in (raise_error, lambda _: exit(1), answer_after_close(may_go)):
            backend.on_connect = misbehave

            assert refusal(url) == 502
        may_go.set()


def test_post_before_connect_returns_is_410(backend, url):
    gone: list[str] = []

    def post_too_early(event: Event) -> Any:
        client = management(url)
        try:
            client.post_to_connection(ConnectionId=event["requestContext"]["connectionId"], Data=b"early")
        except client.exceptions.GoneException as error:
            gone.append(error.response["Error"]["Code"])
        return {"statusCode": 200}

    backend.on_connect = post_too_early
    with station(url):
        assert gone == ["GoneException"]


def test_leaving_during_connect_causes_disconnect(backend, url):
    may_go = threading.Event()
    backend.on_connect = answer_after_close(may_go)
    impatient = raw_upgrade(url)
    connected = backend.next_event("CONNECT")
    impatient.close()
    may_go.set()

    ended = backend.next_event("DISCONNECT")["requestContext"]
    assert ended["connectionId"] == connected["requestContext"]["connectionId"]
    assert ended["disconnectStatusCode"] == 1006


def raw_upgrade(url: str) -> http.client.HTTPConnection:
    """A station that has asked for the upgrade and does nothing by itself afterwards."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SOON)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/ocpp/CP001", headers=headers | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    return connection


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


def test_messages_run_in_parallel_by_default(backend, url):
    together = threading.Barrier(3, timeout=SOON)
    backend.on_message = lambda event: {"body": f"{event['body']} {together.wait() >= 0}"}
    with station(url) as connection:
        for text in "abc":
            connection.send(text)

        assert {connection.recv(SOON) for _ in "abc"} == {"a True", "b True", "c True"}


def test_in_order_message_waits_for_previous(backend):
    may_go = threading.Event()

    def slow_first(event: Event) -> Any:
        if event["body"] == "first":
            may_go.wait(SOON)
        return {"body": event["body"]}

    backend.on_message = slow_first
    with backend.serve(in_order=True) as url, station(url) as connection:
        connection.send("first")
        connection.send("second")
        backend.next_event("MESSAGE")
        with pytest.raises(TimeoutError):
            connection.recv(0.2)
        waiting = backend.events.empty()
        may_go.set()

        assert waiting
        assert [connection.recv(SOON), connection.recv(SOON)] == ["first", "second"]


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
        # The gateway closes as soon as it has seen the length; the rest may not get out any more.
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


# @connections


def test_connections_api_posts_describes_and_deletes(backend, url):
    client = management(url)
    with station(url, user_agent_header="charger/1.0") as connection:
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        client.post_to_connection(ConnectionId=connection_id, Data='[2,"ü"]'.encode())
        assert connection.recv(SOON) == '[2,"ü"]'

        found = client.get_connection(ConnectionId=connection_id)
        assert found["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "charger/1.0"}
        assert found["ConnectedAt"] <= found["LastActiveAt"]
        assert datetime.now(UTC) - found["LastActiveAt"] < timedelta(seconds=SOON)

        client.delete_connection(ConnectionId=connection_id)
        assert close_code(connection) == 1000
    ended = backend.next_event("DISCONNECT")["requestContext"]
    assert (ended["disconnectStatusCode"], ended["disconnectReason"]) == (1000, "Connection Closed Normally")

    for call in (client.get_connection, client.delete_connection):
        with pytest.raises(client.exceptions.GoneException):
            call(ConnectionId=connection_id)
    with pytest.raises(client.exceptions.GoneException):
        client.post_to_connection(ConnectionId=connection_id, Data=b"too late")


def test_closing_connection_is_gone_and_dropped(backend):
    with backend.serve(Limits(close_seconds=0.5)) as url:
        client = management(url)
        deaf = raw_upgrade(url)
        assert deaf.getresponse().status == 101
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        client.delete_connection(ConnectionId=connection_id)

        with pytest.raises(client.exceptions.GoneException):
            client.get_connection(ConnectionId=connection_id)
        assert backend.next_event("DISCONNECT")["requestContext"]["disconnectStatusCode"] == 1000
        deaf.close()


def test_post_over_128_kb_is_refused(backend, url):
    client = management(url)
    with station(url) as connection:
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        with pytest.raises(client.exceptions.PayloadTooLargeException):
            client.post_to_connection(ConnectionId=connection_id, Data=b"x" * 131_073)
        client.post_to_connection(ConnectionId=connection_id, Data=b"x" * 131_072)

        assert len(connection.recv(SOON)) == 131_072


def test_wrong_stage_or_unsigned_is_forbidden(backend, url):
    client = aws_client("apigatewaymanagementapi", f"{url}/production")
    with station(url):
        connection_id = backend.next_event("CONNECT")["requestContext"]["connectionId"]
        with pytest.raises(client.exceptions.ForbiddenException):
            client.get_connection(ConnectionId=connection_id)

        assert ask(url, "GET", f"/ocpp/@connections/{quote(connection_id)}")[0] == 403


# The HTTP API


def test_http_request_becomes_payload_format_2(backend, url):
    ask(
        url,
        "GET",
        "/payments/connectors/CP%20001%2Fa/2?x=1&x=a%20b&y=",
        Accept="text/html",
        Cookie="a=1; b=2",
        User_Agent="phone/1.0",
    )

    event = backend.events.get(timeout=SOON)
    http_context = event["requestContext"]["http"]
    assert APIGatewayProxyEventV2Model.model_validate(event)
    assert event["routeKey"] == "GET /payments/connectors/{chargePointId}/{connectorId}"
    assert event["pathParameters"] == {"chargePointId": "CP 001/a", "connectorId": "2"}
    assert event["rawPath"] == http_context["path"] == "/payments/connectors/CP 001/a/2"
    assert event["rawQueryString"] == "x=1&x=a%20b&y="
    assert event["queryStringParameters"] == {"x": "1,a b", "y": ""}
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"]["accept"] == "text/html"
    assert "cookie" not in event["headers"]
    assert (http_context["method"], http_context["userAgent"]) == ("GET", "phone/1.0")
    assert event["requestContext"]["stage"] == "$default"
    assert "body" not in event


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", '{"a":"ä"}'.encode(), ('{"a":"ä"}', False)),
        ("application/json; charset=utf-8", b"{ }\n", ("{ }\n", False)),
        ("text/plain", b"a", ("a", False)),
        ("application/octet-stream", b"\x00\xff", ("AP8=", True)),
        ("application/x-www-form-urlencoded", b"a=b", ("YT1i", True)),
        ("application/json", b"\xff", ("/w==", True)),
    ],
)
def test_non_text_body_arrives_as_base64(backend, url, content_type, body, expected):
    ask(url, "POST", "/payments/webhook", body, Content_Type=content_type)

    event = backend.events.get(timeout=SOON)
    assert (event["body"], event["isBase64Encoded"]) == expected


def test_status_code_answer_is_unpacked(backend, url):
    backend.on_http = lambda _: {
        "statusCode": 409,
        "headers": {"Content-Type": "application/json", "Retry-After": 5},
        "cookies": ["a=1", "b=2"],
        "body": '{"status":"ConnectorBusy"}',
    }
    status, headers, body = ask(url, "POST", "/payments/create", b"{}")

    assert (status, body) == (409, b'{"status":"ConnectorBusy"}')
    assert (headers["Content-Type"], headers["Retry-After"]) == ("application/json", "5")
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]


def test_base64_answer_and_plain_json_are_served(backend, url):
    backend.on_http = lambda _: {"statusCode": 200, "body": "AP8=", "isBase64Encoded": True}
    assert ask(url, "POST", "/payments/create")[2] == b"\x00\xff"

    backend.on_http = lambda _: {"hello": "world"}
    status, headers, body = ask(url, "POST", "/payments/create")
    assert (status, json.loads(body)) == (200, {"hello": "world"})
    assert headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": "many"},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "headers": {"X": "a\r\nSet-Cookie: b"}},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "body": "%", "isBase64Encoded": True},
        {"statusCode": 200, "body": object()},
        raise_error,
    ],
)
def test_failed_or_invalid_function_is_500(backend, url, answer):
    backend.on_http = answer if callable(answer) else lambda _: answer
    status, _, body = ask(url, "POST", "/payments/create", b"{}")

    assert (status, json.loads(body)) == (500, {"message": "Internal Server Error"})


def test_slow_function_is_503(backend):
    may_go = threading.Event()
    backend.on_http = answer_after_close(may_go)
    with backend.serve(QUICK) as url:
        status, _, body = ask(url, "POST", "/payments/create", b"{}")
        may_go.set()

    assert (status, json.loads(body)) == (503, {"message": "Service Unavailable"})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("GET", "/payments/create"), ("HEAD", "/payments/status/r1"), ("DELETE", "/ocpp/CP001")],
)
def test_unknown_route_is_404(backend, url, method, path):
    status, _, body = ask(url, method, path)

    assert status == 404
    assert method == "HEAD" or json.loads(body) == {"message": "Not Found"}
    assert backend.events.empty()


def test_body_over_limit_is_413(backend):
    with backend.serve(Limits(body_bytes=1000)) as url:
        assert ask(url, "POST", "/payments/create", b"x" * 1001)[0] == 413
        assert ask(url, "POST", "/payments/create", b"x" * 1000)[0] == 200


# Pages


def test_pages_are_served_only_from_folder(backend, tmp_path):
    (tmp_path / "secret.txt").write_text("not for you")
    (tmp_path / "web/driver").mkdir(parents=True)
    (tmp_path / "web/driver/start.html").write_text("<h1>Start</h1>")
    (tmp_path / "web/style.css").write_text("body {}")

    async def index(_: web.Request) -> web.Response:
        return web.Response(text="welcome")

    with backend.serve(web=tmp_path / "web", extra={"GET /": index}) as url:
        page = ask(url, "GET", "/cp/CP%20001/1")
        assert (page[0], page[1]["Content-Type"], page[2]) == (200, "text/html", b"<h1>Start</h1>")
        assert ask(url, "GET", "/cp/CP001/1/")[0] == 200
        style = ask(url, "GET", "/assets/style.css")
        assert (style[1]["Cache-Control"], style[2]) == ("no-cache", b"body {}")
        assert ask(url, "GET", "/")[2] == b"welcome"
        for path in ("/session/r1", "/assets/", "/assets/driver", "/assets/../secret.txt", "/assets/%2e%2e/secret.txt"):
            assert ask(url, "GET", path)[0] == 404
        assert ask(url, "GET", "/assets/..%2fsecret.txt")[0] == 404


# Lambda


def test_request_response_returns_the_payload(url):
    answer = aws_client("lambda", url).invoke(FunctionName="maintenance", Payload=b'{"a":[1]}')

    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    assert json.load(answer["Payload"]) == {"seen": {"a": [1]}}


def test_raising_request_response_is_function_error(backend, url):
    backend.on_task = raise_error
    answer = aws_client("lambda", url).invoke(
        FunctionName="arn:aws:lambda:eu-central-1:000000000000:function:maintenance"
    )

    payload = json.load(answer["Payload"])
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert (payload["errorType"], payload["errorMessage"]) == ("RuntimeError", "as ordered")


@pytest.mark.parametrize(("failures", "attempts"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_event_invocation_is_retried_twice(backend, url, failures, attempts):
    runs = threading.Semaphore(0)
    calls: list[Event] = []

    def fail_at_first(event: Event) -> Any:
        calls.append(event)
        runs.release()
        return raise_error(event) if len(calls) <= failures else None

    backend.on_task = fail_at_first
    answer = aws_client("lambda", url).invoke(FunctionName="maintenance", InvocationType="Event", Payload=b'{"n":1}')

    assert answer["StatusCode"] == 202
    assert all(runs.acquire(timeout=SOON) for _ in range(attempts))
    assert not runs.acquire(timeout=0.1)
    assert calls == [{"n": 1}] * attempts


def test_unknown_function_and_bad_payload_are_refused(url):
    client = aws_client("lambda", url)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="absent")
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="maintenance", Payload=b"{")
    with pytest.raises(ClientError, match="Missing Authentication Token"):
        raise_for_status(ask(url, "POST", "/2015-03-31/functions/maintenance/invocations", b"{}"))


def raise_for_status(answer: tuple[int, Any, bytes]) -> None:
    status, headers, body = answer
    assert status == 403
    raise ClientError(
        {"Error": {"Code": headers["x-amzn-ErrorType"], "Message": json.loads(body)["message"]}}, "Invoke"
    )


def test_context_has_powertools_fields(backend):
    from aws_lambda_powertools import Logger

    contexts: queue.Queue[Any] = queue.Queue()

    @Logger(service="test").inject_lambda_context
    def maintenance(event: Event, context: Any) -> None:
        contexts.put(context)

    with run_gateway(Gateway({"maintenance": maintenance}, origin_secret=SECRET, web=Path(__file__).parent)) as url:
        aws_client("lambda", url).invoke(FunctionName="maintenance")

    context = contexts.get(timeout=SOON)
    assert context.function_name == "maintenance"
    assert context.invoked_function_arn.endswith(":function:maintenance")
    assert 50_000 < context.get_remaining_time_in_millis() <= 60_000


def test_schedule_survives_failure_and_stops(caplog):
    runs = threading.Semaphore(0)

    def sweep(event: Event, _: Any) -> None:
        runs.release()
        raise RuntimeError(event["source"])

    with Schedule("maintenance", sweep, seconds=0.02):
        assert all(runs.acquire(timeout=SOON) for _ in range(3))
    while runs.acquire(blocking=False):
        pass

    assert not runs.acquire(timeout=0.1)
    assert "maintenance: scheduled run failed: RuntimeError: aws.scheduler" in caplog.text
