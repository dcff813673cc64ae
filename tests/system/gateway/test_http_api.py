"""Do HTTP requests become payload format 2.0 and function answers HTTP, and are pages served from their folder?"""

import json
import threading

import pytest
from aiohttp import web
from aws_lambda_powertools.utilities.parser.models import APIGatewayProxyEventV2Model

from csms.adapters.cloudfront import read_viewer_address
from local.gateway import Limits
from tests.system.gateway.backend import QUICK, SECRET, answer_after_close, raise_error
from tests.system.gateway.clients import SOON, ask

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


def test_edge_replaces_forged_headers(backend, url):
    forged = {"X_Origin_Verify": "forged", "X_Viewer_Address": "192.0.2.1", "X_Forwarded_For": "192.0.2.1"}
    ask(url, "GET", "/payments/status/r1", **forged)

    headers = backend.events.get(timeout=SOON)["headers"]
    assert SECRET == headers["x-origin-verify"]
    assert "127.0.0.1" == headers["x-viewer-address"] == headers["x-forwarded-for"]
    assert "127.0.0.1" == read_viewer_address(headers, (SECRET,))


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
