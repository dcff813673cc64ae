"""Invalid input is refused with the documented error, over real sockets, and all other clients are still served."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from csms.adapters.dynamodb import Store
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Stations
from local import database, story
from local.client import Api, connect_station
from local.stack import TABLE, Stack, run_stack

STATION = "BAD-1"
PASSWORD = "correct horse battery"
RIGHT = f"{STATION}:{PASSWORD}"
BOOT = {"chargePointVendor": "v", "chargePointModel": "m"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The product with one more station than it has demo chargers."""
    with run_stack(story.options(None, lambda _identity, _event: None)) as stack:
        table = Store(database.client(stack.database.endpoint), TABLE)
        Stations(Dependencies(store=table, dialects=DIALECTS)).register(
            STATION, password=PASSWORD.encode(), connectors=(1, 2), tariff=story.TARIFF
        )
        yield stack


def dial(stack: Stack, identity: str = STATION, user: str = RIGHT, protocol: str | None = "ocpp1.6") -> Any:
    """A charger's socket."""
    return connect(
        f"{stack.ocpp_url}/{identity}",
        subprotocols=[protocol] if protocol else None,  # type: ignore[list-item]
        additional_headers={"Authorization": "Basic " + base64.b64encode(user.encode()).decode()},
        compression=None,
        max_size=None,
    )


def ask(socket: ClientConnection, frame: str) -> Any:
    socket.send(frame)
    return json.loads(socket.recv(timeout=10))


@pytest.mark.note("F47", "F48", "F49")
@pytest.mark.parametrize(
    ("wrong", "status"),
    {
        "an unknown station": ({"identity": "NOBODY", "user": f"NOBODY:{PASSWORD}"}, 404),
        "a wrong password": ({"user": f"{STATION}:wrong"}, 401),
        "another's name": ({"user": f"NOBODY:{PASSWORD}"}, 401),
        "no sub-protocol": ({"protocol": None}, 400),
        "a sub-protocol nobody speaks": ({"protocol": "ocpp9.9"}, 400),
        "no identity": ({"identity": ""}, 404),
        "an identity that is too long": ({"identity": "C" * 49}, 400),
        "an identity longer than any address": ({"identity": "C" * 3000}, 400),
        "a control character": ({"identity": "CP%1B%5B2J"}, 400),
        "another direction of text": ({"identity": "%E2%80%AECP"}, 400),
    }.values(),
)
def test_bad_handshake_is_refused_with_status(stack: Stack, wrong: dict[str, Any], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(stack, **wrong)

    assert status == refused.value.response.status_code


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    ("frame", "code"),
    {
        "an unknown action": ('[2,"1","MakeCoffee",{}]', "NotImplemented"),
        "a known action that is not served": ('[2,"1","GetConfiguration",{}]', "NotSupported"),
        "a wrong type": (
            '[2,"1","Authorize",{"idTag":[]}]',
            "TypeC",
        ),
        "a missing member": ('[2,"1","BootNotification",{"chargePointVendor":"v"}]', "OccurenceConstraintViolation"),
        "a frame that is too short": ('[2,"1"]', "FormationViolation"),
    }.values(),
)
def test_bad_call_gets_ocpp16_error_code(stack: Stack, frame: str, code: str) -> None:
    with dial(stack) as socket:
        answer = ask(socket, frame)

        assert (4, "1") == tuple(answer[:2])
        assert answer[2].startswith(code)
        assert "currentTime" in ask(socket, '[2,"2","Heartbeat",{}]')[2]


NO_MESSAGES = ["", "{", "[]", "null", "[9,1]", '[3,"nobody asked",{}]', '[4,"nobody",1]', "[" * 900]


@pytest.mark.note("F39")
@pytest.mark.parametrize("frame", NO_MESSAGES)
def test_non_ocpp_frame_is_ignored(stack: Stack, frame: str) -> None:
    with dial(stack) as socket:
        socket.send(frame)

        assert "2" == ask(socket, '[2,"2","Heartbeat",{}]')[1]


@pytest.mark.note("F45")
def test_unknown_member_is_tolerated(stack: Stack) -> None:
    with dial(stack) as socket:
        assert "Accepted" == ask(socket, json.dumps([2, "1", "BootNotification", BOOT | {"color": "red"}]))[2]["status"]


@pytest.mark.note("F46")
def test_frame_of_200_kb_closes_its_connection(stack: Stack) -> None:
    with dial(stack) as socket:
        socket.send(json.dumps([2, "1", "DataTransfer", {"vendorId": "v", "data": "x" * 200_000}]))
        with pytest.raises(ConnectionClosed) as cut:
            socket.recv(timeout=10)
    with dial(stack) as socket:
        assert "currentTime" in ask(socket, '[2,"2","Heartbeat",{}]')[2]

    assert cut.value.rcvd is not None
    assert 1009 == cut.value.rcvd.code


@pytest.mark.parametrize(
    ("body", "status", "code"),
    {
        "malformed JSON": (b'{"chargePointId', 400, "BadRequest"),
        "an unknown field": (b'{"chargePointId":"BAD-1","connectorId":1,"color":"red"}', 400, "BadRequest"),
        "a wrong type": (b'{"chargePointId":"BAD-1","connectorId":"1"}', 400, "BadRequest"),
        "nothing": (b"", 400, "BadRequest"),
        "not UTF-8": (b"\xff\xfe", 400, "BadRequest"),
        "an unknown station": (b'{"chargePointId":"NOBODY","connectorId":1}', 404, "UnknownStation"),
        "connector 0": (b'{"chargePointId":"BAD-1","connectorId":0}', 404, "UnknownConnector"),
        "no such connector": (b'{"chargePointId":"BAD-1","connectorId":9}', 404, "UnknownConnector"),
        "a negative connector": (b'{"chargePointId":"BAD-1","connectorId":-1}', 400, "BadRequest"),
    }.values(),
)
def test_bad_create_gets_status_and_message(stack: Stack, body: bytes, status: int, code: str) -> None:
    answer = story.request("POST", f"{stack.url}/payments/create", body, "application/json")

    assert (status, code) == (answer.status, answer.body["status"])
    assert {"status", "message"} == answer.body.keys()
    assert answer.body["message"]


@pytest.mark.parametrize("reservation_id", ["nope", "0" * 32, "../connectors"])
def test_unknown_reservation_is_400_or_404(stack: Stack, reservation_id: str) -> None:
    answer = story.request("GET", f"{stack.url}/payments/status/{reservation_id}")

    assert answer.status in {400, 404}
    assert answer.status == 404 or answer.body["status"] == "BadRequest"


@pytest.mark.note("F62")
@pytest.mark.parametrize("signature", ["t=1,v1=\u00e9", "\u00ff"])
def test_signature_beyond_ascii_returns_400(stack: Stack, signature: str) -> None:
    answer = Api(url=stack.url).ask("POST", "/payments/webhook", b"{}", stripe_signature=signature)

    assert (400, "InvalidSignature") == (answer.status, answer.body["status"])


@pytest.mark.parametrize("length", [49, 3000])
def test_over_long_identity_returns_400(stack: Stack, length: int) -> None:
    shown = Api(url=stack.url).ask("GET", f"/payments/connectors/{'C' * length}/1")
    created = story.post(f"{stack.url}/payments/create", {"chargePointId": "C" * length, "connectorId": 1})

    assert {(400, "BadRequest")} == {(it.status, it.body["status"]) for it in (shown, created)}


@pytest.mark.note("F47", "F48")
@pytest.mark.parametrize("identity", ['"#?\\`^{}[]|<>', "stra\u00dfe-1", "%2F", "\U0001f50c e\u0301"])
def test_possible_identity_is_served_everywhere(stack: Stack, identity: str) -> None:
    table = Store(database.client(stack.database.endpoint), TABLE)
    Stations(Dependencies(store=table, dialects=DIALECTS)).register(
        identity, password=PASSWORD.encode(), connectors=(1,), tariff=story.TARIFF
    )

    with connect_station(stack.ocpp_url, identity, PASSWORD, protocols=["OCPP1.6"]) as socket:
        socket.call("BootNotification", **BOOT)
        shown = Api(url=stack.url).ask("GET", f"/payments/connectors/{quote(identity, safe='')}/1")

        assert "OCPP1.6" == socket.connection.subprotocol
        assert (200, identity) == (shown.status, shown.body["chargePointId"])


@pytest.mark.note("F62")
def test_unsigned_webhook_returns_400(stack: Stack) -> None:
    answer = story.request(
        "POST", f"{stack.url}/payments/webhook", b'{"type":"checkout.session.completed"}', "application/json"
    )

    assert (400, "InvalidSignature") == (answer.status, answer.body["status"])


def test_disconnected_station_refuses_create(stack: Stack) -> None:
    with dial(stack) as socket:
        ask(socket, json.dumps([2, "1", "BootNotification", BOOT]))
    connector = f"{stack.url}/payments/connectors/{STATION}/1"
    story.wait_until("the station to be gone", connector, lambda body: body["status"] == "Offline")

    answer = story.post(f"{stack.url}/payments/create", {"chargePointId": STATION, "connectorId": 1})

    assert (409, "ChargerOffline") == (answer.status, answer.body["status"])
