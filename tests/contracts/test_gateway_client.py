"""Does csms speak to API Gateway and Lambda as an unmodified boto3 must? Against the local gateway, over real sockets;
and the fake gateway gives the same answers."""

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from csms.adapters import apigateway as product
from csms.errors import ConnectionGone, Unreachable
from csms.model import OutboxItem, OutboxKind
from local.database import free_port
from local.gateway import Gateway, run_gateway
from tests.aws import aws_client
from tests.fakes import FakeGateway

SOON = 5


@dataclass(frozen=True, kw_only=True)
class LocalGateway:
    """A running gateway: `connections` are the ids it gave, `invoked` what its maintenance function was asked."""

    url: str
    connections: "queue.Queue[str]"
    invoked: "queue.Queue[Any]"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalGateway]:
    connections: queue.Queue[str] = queue.Queue()
    invoked: queue.Queue[Any] = queue.Queue()

    def ws_connect(event: dict[str, Any], _: Any) -> dict[str, Any]:
        if event["requestContext"]["eventType"] == "CONNECT":
            connections.put(event["requestContext"]["connectionId"])
        return {"statusCode": 200}

    def maintenance(event: dict[str, Any], _: Any) -> dict[str, Any]:
        invoked.put(event)
        return {}

    handlers = {"ws_connect": ws_connect, "ws_message": ws_connect, "maintenance": maintenance}
    with run_gateway(Gateway(handlers, origin_secret="s", web=Path(__file__).parent)) as url:
        yield LocalGateway(url=url, connections=connections, invoked=invoked)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A gateway under exam with one open socket; `heard` is the next frame at its other end, None if it was closed."""

    gateway: Any
    connection_id: str
    hang_up: Callable[[], None]
    heard: Callable[[], str | None]


@pytest.fixture(params=["fake", "boto3"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    if request.param == "fake":
        yield fake_line(FakeGateway())
        return
    local: LocalGateway = request.getfixturevalue("local")
    with connect(f"{local.url.replace('http', 'ws', 1)}/ocpp/CP1", compression=None, proxy=None) as socket:
        yield Line(
            gateway=product.Gateway(aws_client("apigatewaymanagementapi", f"{local.url}/ocpp")),
            connection_id=local.connections.get(timeout=SOON),
            hang_up=socket.close,
            heard=lambda: receive_frame(socket),
        )


def fake_line(gateway: FakeGateway) -> Line:
    return Line(
        gateway=gateway,
        connection_id="abc=",
        hang_up=lambda: gateway.gone.add("abc="),
        heard=lambda: None if "abc=" in gateway.closed else gateway.sent[-1][1],
    )


def receive_frame(socket: ClientConnection) -> str | None:
    try:
        return str(socket.recv(timeout=SOON))
    except ConnectionClosed:
        return None


def test_posted_frame_arrives_unchanged(line):
    frame = '[2,"1","RemoteStartTransaction",{"idTag":"Ünïcödé ⚡"}]'

    line.gateway.post(line.connection_id, frame)

    assert frame == line.heard()


@pytest.mark.note("F18")
def test_connection_is_alive_until_gone(line):
    assert line.gateway.is_connected(line.connection_id)

    line.hang_up()

    assert not line.gateway.is_connected(line.connection_id)


@pytest.mark.note("F18")
def test_post_to_gone_connection_raises(line):
    line.hang_up()

    with pytest.raises(ConnectionGone):
        line.gateway.post(line.connection_id, "[]")


def test_unknown_connection_closes_and_is_gone(line):
    line.hang_up()

    for nobody in ("bm9ib2R5", "abc="):
        line.gateway.close(nobody)
        assert not line.gateway.is_connected(nobody)


def test_closing_connection_twice_is_no_error(line):
    line.gateway.close(line.connection_id)
    assert line.heard() is None

    line.gateway.close(line.connection_id)
    assert not line.gateway.is_connected(line.connection_id)


@pytest.fixture(params=["fake", "nobody there", "another API"])
def unreachable_gateway(request: pytest.FixtureRequest) -> Any:
    if request.param == "fake":
        return FakeGateway(unreachable=True)
    if request.param == "nobody there":
        return product.Gateway(aws_client("apigatewaymanagementapi", f"http://127.0.0.1:{free_port()}/ocpp"))
    return product.Gateway(aws_client("apigatewaymanagementapi", f"{request.getfixturevalue('local').url}/other-stage"))


def test_failing_post_and_close_raise_unreachable(unreachable_gateway):
    with pytest.raises(Unreachable):
        unreachable_gateway.post("abc=", "[]")
    with pytest.raises(Unreachable):
        unreachable_gateway.close("abc=")


@pytest.mark.note("F18")
def test_failing_alive_check_raises_unreachable(unreachable_gateway):
    with pytest.raises(Unreachable):
        unreachable_gateway.is_connected("abc=")


# The maintenance trigger


def test_trigger_invokes_maintenance_for_one_outbox_item(local):
    outbox_item = OutboxItem(reservation_id="r1", kind=OutboxKind.CAPTURE)

    product.MaintenanceTrigger(aws_client("lambda", local.url), "maintenance")(outbox_item)

    assert {"perform": {"reservationId": "r1", "kind": "capture"}} == local.invoked.get(timeout=SOON)


@pytest.mark.parametrize("address", ["nobody there", "no such function"])
def test_failing_trigger_raises_unreachable(local, address):
    url = local.url if address == "no such function" else f"http://127.0.0.1:{free_port()}"

    with pytest.raises(Unreachable):
        product.MaintenanceTrigger(aws_client("lambda", url), "unknown")(
            OutboxItem(reservation_id="r1", kind=OutboxKind.CAPTURE)
        )
