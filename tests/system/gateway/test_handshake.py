"""Does a connection begin as at CloudFront and API Gateway: addresses, headers, $connect and its refusals?"""

import http.client
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from aws_lambda_powertools.utilities.parser.models import APIGatewayWebSocketConnectEventModel

from tests.addresses import ADDRESSES, Address
from tests.system.gateway.backend import QUICK, SECRET, Backend, Event, answer_after_close, raise_error
from tests.system.gateway.clients import SOON, ask, management, raw_upgrade, refusal, station


def test_each_address_resolves_as_at_cloudfront(backend, url):
    assert {row: row.answer for row in ADDRESSES} == {row: dial_address(backend, url, row) for row in ADDRESSES}
    assert backend.events.empty()


def dial_address(backend: Backend, url: str, address: Address) -> str | int:
    """The single cp that $connect received, or the status that was answered without it."""
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
    forged = {"X-Origin-Verify": "forged", "X-Forwarded-For": "192.0.2.1", "X-Viewer-Address": "192.0.2.1"}
    with station(url, compression="deflate", additional_headers=forged) as connection:
        headers = backend.next_event("CONNECT")["multiValueHeaders"]

        assert connection.protocol.extensions == []
    assert values(headers, "x-origin-verify") == [SECRET]
    assert values(headers, "x-forwarded-for") == ["127.0.0.1"]
    assert values(headers, "x-viewer-address") == ["127.0.0.1"]
    assert values(headers, "sec-websocket-extensions") == []


def values(headers: dict[str, list[str]], name: str) -> list[str]:
    """All values of a header, whatever the case of its name."""
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


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("post_to_connection", {"Data": b"early"}), ("get_connection", {}), ("delete_connection", {})],
)
def test_request_before_connect_returns_is_410(backend, url, operation, arguments):
    gone: list[str] = []

    def ask_too_early(event: Event) -> Any:
        client = management(url)
        try:
            getattr(client, operation)(ConnectionId=event["requestContext"]["connectionId"], **arguments)
        except client.exceptions.GoneException as error:
            gone.append(error.response["Error"]["Code"])
        return {"statusCode": 200}

    backend.on_connect = ask_too_early
    with station(url) as connection:
        connection.send("still open")

        assert connection.recv(SOON) == "echo still open"
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
