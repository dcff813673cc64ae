"""The Lambda functions as AWS calls them: API Gateway's events in (tests/events), answers out. DynamoDB and the sockets
are moto's, the payment provider is the stand-in; nothing runs at once."""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from importlib import import_module
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import boto3
import pytest
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayProxyEventV2Model,
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
)
from moto import mock_aws
from moto.apigatewaymanagementapi.models import apigatewaymanagementapi_backends

from csms.model import OutboxItem, Presence, Reservation, Save, Tariff, UnknownStation
from csms.ocpp.spoken import DIALECTS
from csms.service import Dependencies, Stations
from infra import routes
from local.invoke import REGION, Context
from stand_ins.stripe import PaymentStandIn
from stand_ins.stripe.records import OTHER_METHODS
from tests.tables import Table, create_unique_table

EVENTS: Final = Path(__file__).parents[1] / "events"
FUNCTIONS: Final = sorted({*routes.WEBSOCKET.values(), "payments", "maintenance"})
API_KEY: Final = "sk_test_functions"
WEBHOOK_SECRET: Final = "whsec_functions"
ORIGIN: Final = "through-the-front-door"
PASSWORD: Final = b"open-sesame"
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50, max_energy_wh=30_000)
SOCKET: Final = "Qx1fGcmZDoECJgQ="
NOBODY: Final = "0" * 32

Json = dict[str, Any]


def sample_event(name: str) -> Json:
    """An event as API Gateway documents it."""
    event: Json = json.loads((EVENTS / f"{name}.json").read_text())
    return event


@dataclass(kw_only=True)
class DeployedFunctions:
    """The functions, imported on one table; `stand_in` is the payment provider they were told of."""

    table: Table
    stand_in: PaymentStandIn
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def invoke(self, function: str, event: Json) -> Json:
        handler = import_module(f"functions.{function}.app").lambda_handler
        answer: Json = handler(
            json.loads(json.dumps(event)), Context(function_name=function, deadline=time.monotonic() + 29)
        )
        return answer

    def connect(self, *, cp: str | None = "CP1", connection_id: str = SOCKET, **headers: str | None) -> Json:
        """The verdict on a $connect; a header that is None was not sent."""
        event = sample_event("ws_connect")
        for name, value in headers.items():
            known = {
                "authorization": "Authorization",
                "protocol": "Sec-WebSocket-Protocol",
                "origin": "x-origin-verify",
            }
            event["headers"].pop(known[name])
            event["headers"] |= {known[name]: value} if value is not None else {}
        event["queryStringParameters"] = {"cp": cp} if cp is not None else None
        event["requestContext"]["connectionId"] = connection_id
        return self.invoke("ws_connect", event)

    def disconnect(self, connection_id: str = SOCKET) -> Json:
        event = sample_event("ws_disconnect")
        event["requestContext"]["connectionId"] = connection_id
        return self.invoke("ws_connect", event)

    def send_frame(self, text: str, *, connection_id: str = SOCKET) -> Json:
        """What API Gateway is given for a frame from the station."""
        event = sample_event("ws_message") | {"body": text}
        event["requestContext"]["connectionId"] = connection_id
        return self.invoke("ws_message", event)

    def call(self, action: str, payload: Json) -> Json:
        """The CALLRESULT's payload."""
        unique_id = str(next(self.numbers))
        kind, answered, result = json.loads(self.send_frame(json.dumps([2, unique_id, action, payload]))["body"])

        assert (3, unique_id) == (kind, answered)
        return dict(result)

    def send_request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Json]:
        """The status and the JSON of an answer; a body that is no text is sent as JSON."""
        event = sample_event("http_v2") | {"rawPath": path, "routeKey": f"{method} {path}"}
        event["requestContext"]["http"] |= {"method": method, "path": path}
        event["headers"] |= {name.replace("_", "-"): value for name, value in headers.items()}
        event["body"] = body if isinstance(body, str) else json.dumps(body)
        return self.parse_answer(event)

    def parse_answer(self, event: Json) -> tuple[int, Json]:
        answer = self.invoke("payments", event)
        headers = {name.lower(): value for name, value in (answer.get("headers") or {}).items()}
        multiple = answer.get("multiValueHeaders") or {}
        assert "application/json" in (headers.get("content-type") or multiple.get("Content-Type", [""])[0])
        return answer["statusCode"], json.loads(answer["body"])

    def create(self, connector_id: int = 1) -> Json:
        status, created = self.send_request(
            "POST", "/payments/create", {"chargePointId": "CP1", "connectorId": connector_id}
        )

        assert (200, "Redirect") == (status, created["status"])
        return created

    def posted_text(self, connection_id: str = SOCKET) -> str:
        """All that was posted to a socket."""
        connections = apigatewaymanagementapi_backends[ACCOUNT_OF_MOTO][REGION].connections
        # moto takes the id as it stands in the address.
        return bytes(connections[quote(connection_id, safe="")].data).decode()

    def bring_online(self) -> "DeployedFunctions":
        """The station connected, and its first connector said Available."""
        assert 200 == self.connect()["statusCode"]
        self.call("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Available"})
        return self

    def pay(self, created: Json) -> None:
        """The checkout page's form, sent; its answer leads to a page that does not run here."""
        with pytest.raises(urllib.error.HTTPError) as answer:
            BROWSER.open(f"{created['checkoutUrl']}/pay", urlencode({"card_number": "4242424242424242"}).encode())
        assert 303 == answer.value.code

    def start_session(self) -> tuple[str, int]:
        """A reservation whose car charges, and its transaction."""
        created = self.create()
        self.pay(created)
        self.send_request("POST", "/payments/confirm", {"reservationId": created["reservationId"]})
        start = {"connectorId": 1, "idTag": self.read_id_tag(), "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
        return created["reservationId"], int(self.call("StartTransaction", start)["transactionId"])

    def read_id_tag(self) -> str:
        """The id tag of the only reservation there is."""
        return str(self.find_only(Reservation).id_tag)

    def find_only(self, kind: type) -> Any:
        (it,) = (entity for entity in self.table.entities() if type(entity) is kind)
        return it


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer to look at."""

    def redirect_request(self, *_: Any) -> None:
        return None


BROWSER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirects)
ACCOUNT_OF_MOTO: Final = "123456789012"


def reload_functions(environment: pytest.MonkeyPatch, **variables: str) -> None:
    """Every function reads the environment when it is next asked for, as a new Lambda environment does."""
    for name, value in variables.items():
        environment.setenv(name, value)
    forget_functions()


def forget_functions() -> None:
    for function in FUNCTIONS:
        sys.modules.pop(f"functions.{function}.app", None)


@pytest.fixture(scope="module")
def deployed_functions() -> Iterator[DeployedFunctions]:
    stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=WEBHOOK_SECRET, webhook_url=None)
    with stand_in.run_in_thread(), mock_aws(), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        table = create_unique_table(boto3.client("dynamodb"))
        reload_functions(
            environment,
            TABLE_NAME=table.name,
            WEBSOCKET_API_URL=f"https://abcdef1234.execute-api.{REGION}.amazonaws.com/ocpp",
            PUBLIC_URL="https://csms.example",
            ORIGIN_SECRET=ORIGIN,
            STRIPE_API_KEY=API_KEY,
            STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
            STRIPE_API_BASE=stand_in.url,
            MAINTENANCE_FUNCTION="maintenance",
            POWERTOOLS_METRICS_DISABLED="true",
        )
        yield DeployedFunctions(table=table, stand_in=stand_in)
        forget_functions()


@pytest.fixture
def cloud(deployed_functions: DeployedFunctions) -> DeployedFunctions:
    """The functions on a table that holds one registered station, which is not connected."""
    for item in deployed_functions.table.items():
        key = {"PK": {"S": item["PK"]}, "SK": {"S": item["SK"]}}
        deployed_functions.table.client.delete_item(TableName=deployed_functions.table.name, Key=key)
    for function in ("ws_connect", "ws_message"):
        import_module(f"functions.{function}.app").stations._connections.clear()
    apigatewaymanagementapi_backends[ACCOUNT_OF_MOTO][REGION].connections.clear()
    register(deployed_functions.table, "CP1")
    return deployed_functions


@pytest.fixture
def broken_cloud(cloud: DeployedFunctions) -> Iterator[DeployedFunctions]:
    """The functions on a table that is gone, the socket having been accepted before."""
    cloud.bring_online()
    with pytest.MonkeyPatch.context() as environment:
        reload_functions(environment, TABLE_NAME="gone")
        yield cloud
    forget_functions()


def register(table: Table, identity: str, password: bytes = PASSWORD) -> None:
    Stations(Dependencies(store=table.store, dialects=DIALECTS)).register(
        identity, password=password, connectors=(1, 2), tariff=TARIFF
    )


def basic_auth_header(user: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(user + b":" + password).decode()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("ws_connect", APIGatewayWebSocketConnectEventModel),
        ("ws_message", APIGatewayWebSocketMessageEventModel),
        ("ws_disconnect", APIGatewayWebSocketDisconnectEventModel),
        ("http_v2", APIGatewayProxyEventV2Model),
    ],
)
def test_event_samples_match_documented_models(name, model):
    assert model.model_validate(sample_event(name))


# $connect and $disconnect


def test_valid_station_connects_with_subprotocol(cloud):
    assert {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "ocpp1.6"}} == cloud.connect()

    assert SOCKET == cloud.find_only(Presence).connection_id


REFUSED = {
    "wrong password": (401, {"authorization": basic_auth_header(b"CP1", b"wrong")}),
    "another's name": (401, {"authorization": basic_auth_header(b"CP2", PASSWORD)}),
    "no credentials": (401, {"authorization": None}),
    "no Basic": (401, {"authorization": "Bearer abc"}),
    "no base64": (401, {"authorization": "Basic ####"}),
    "wrong origin secret": (401, {"origin": "around"}),
    "no origin secret": (401, {"origin": None}),
    "no sub-protocol": (400, {"protocol": None}),
    "no common sub-protocol": (400, {"protocol": "ocpp1.5, soap"}),
    "no station in the address": (404, {"cp": None}),
    "an empty address": (404, {"cp": "/"}),
}


@pytest.mark.note("F17", "F48")
@pytest.mark.parametrize("why", REFUSED)
def test_refused_connect_changes_nothing(cloud, why):
    status, claims = REFUSED[why]
    cloud.bring_online()
    before = cloud.table.entities()

    verdict = cloud.connect(connection_id="other=", **claims)

    assert status == verdict["statusCode"]
    assert "headers" not in verdict
    assert before == cloud.table.entities()


@pytest.mark.note("F49")
def test_unknown_station_returns_404_and_is_listed(cloud):
    before = cloud.table.entities()

    assert 404 == cloud.connect(cp="Unheard-Of")["statusCode"]

    assert "Unheard-Of" == cloud.find_only(UnknownStation).identity
    assert before == [entity for entity in cloud.table.entities() if not isinstance(entity, UnknownStation)]


@pytest.mark.note("F47")
@pytest.mark.parametrize(
    ("identity", "password"),
    [("CP:1", b"a:b:c"), ("CP 1/x%20", b"plain"), ("CP1", b"\xff\xfe:\x00\x80"), ("CP1", b"")],
)
def test_credentials_allow_colons_and_raw_bytes(cloud, identity, password):
    register(cloud.table, identity, password)

    verdict = cloud.connect(cp=identity, authorization=basic_auth_header(identity.encode(), password))
    assert 200 == verdict["statusCode"]

    other = cloud.connect(cp=identity, authorization=basic_auth_header(identity.encode(), password + b"x"))
    assert 401 == other["statusCode"]


@pytest.mark.note("F47")
def test_password_is_not_stored_in_clear(cloud):
    cloud.bring_online()

    assert PASSWORD.decode() not in repr(cloud.table.items())


@pytest.mark.note("F48")
@pytest.mark.parametrize("offered", ["ocpp2.0.1 , ocpp1.6", " ocpp1.6", "soap,ocpp1.6,ocpp1.5", "OCPP1.6"])
def test_first_spoken_subprotocol_is_chosen(cloud, offered):
    assert {"Sec-WebSocket-Protocol": "ocpp1.6"} == cloud.connect(protocol=offered).get("headers")


@pytest.mark.note("F13")
@pytest.mark.parametrize(("address", "user"), [("cp1", b"cp1"), ("cP1", b"Cp1"), ("CP1", b"cp1")])
def test_station_identity_ignores_case(cloud, address, user):
    assert 200 == cloud.connect(cp=address, authorization=basic_auth_header(user, PASSWORD))["statusCode"]


@pytest.mark.note("F16")
def test_late_disconnect_keeps_new_connection(cloud):
    cloud.connect(connection_id="old=")
    cloud.connect(connection_id="new=")

    assert {"statusCode": 200} == cloud.disconnect("old=")
    assert "new=" == cloud.find_only(Presence).connection_id

    assert {"statusCode": 200} == cloud.disconnect("new=")
    assert cloud.find_only(Presence).connection_id is None


def test_unknown_socket_disconnect_is_ignored(cloud):
    assert {"statusCode": 200} == cloud.disconnect("unknown=")


@pytest.mark.note("F14")
def test_connect_returns_503_when_database_fails(broken_cloud):
    assert 503 == broken_cloud.connect()["statusCode"]


# $default


@pytest.mark.note("F60")
def test_call_is_answered_in_response_body(cloud):
    cloud.bring_online()

    answer = cloud.send_frame('[2,"7","Heartbeat",{}]')

    assert 200 == answer["statusCode"]
    assert [3, "7"] == json.loads(answer["body"])[:2]
    assert json.loads(answer["body"])[2]["currentTime"].endswith("Z")


@pytest.mark.note("F39")
@pytest.mark.parametrize(
    "text", ['[3,"1",{}]', '[4,"1","GenericError","",{}]', '[9,"1"]', "no json", "", '{"a":1}', "[]"]
)
def test_non_call_frames_get_no_answer(cloud, text):
    cloud.bring_online()

    assert {"statusCode": 200} == cloud.send_frame(text)


@pytest.mark.note("F38", "F39")
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ([2, "1", "Unheard", {}], "NotImplemented"),
        ([2, "1", "heartbeat", {}], "NotImplemented"),
        ([2, "1", "FirmwareStatusNotification", {"status": "Idle"}], "NotSupported"),
        ([2, "1", "MeterValues", {"connectorId": 1}], "OccurenceConstraintViolation"),
        ([2, "1", "StatusNotification", {"connectorId": [], "errorCode": "NoError", "status": "x"}], None),
        ([2, "1", "Heartbeat", []], "FormationViolation"),
    ],
)
def test_invalid_call_returns_ocpp16_error_code(cloud, frame, code):
    cloud.bring_online()

    kind, unique_id, said, *_ = json.loads(cloud.send_frame(json.dumps(frame))["body"])

    assert (4, "1") == (kind, unique_id)
    assert said == (code or "TypeConstraintViolation")


def test_base64_frame_is_decoded(cloud):
    cloud.bring_online()
    body = base64.b64encode(b'[2,"1","Heartbeat",{}]').decode()

    answer = cloud.invoke("ws_message", sample_event("ws_message") | {"body": body, "isBase64Encoded": True})

    assert 3 == json.loads(answer["body"])[0]


@pytest.mark.note("F40")
@pytest.mark.parametrize("action", ["Heartbeat", "Authorize", "Unheard"])
def test_call_on_unknown_socket_returns_internal_error(cloud, action):
    answer = cloud.send_frame(json.dumps([2, "1", action, {"idTag": "x"}]), connection_id="unknown=")

    assert [4, "1", "InternalError"] == json.loads(answer["body"])[:3]
    assert {"statusCode": 200} == cloud.send_frame('[3,"1",{}]', connection_id="unknown=")


@pytest.mark.note("F40")
@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("Heartbeat", {}),
        ("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Available"}),
        ("StopTransaction", {"transactionId": 1, "meterStop": 1, "timestamp": "2026-11-23T09:00:00Z"}),
    ],
)
def test_database_failure_returns_ocpp_internal_error(broken_cloud, action, payload):
    answer = broken_cloud.send_frame(json.dumps([2, "1", action, payload]))

    kind, unique_id, code, description, details = json.loads(answer["body"])
    assert (200, 4, "1", "InternalError", {}) == (answer["statusCode"], kind, unique_id, code, details)
    assert "gone" not in description
    assert {"statusCode": 200} == broken_cloud.send_frame('[3,"1",{"status":"Accepted"}]')


@pytest.mark.note("F40")
def test_failed_frame_is_logged_and_counted(cloud, capsys):
    line, metrics = capture_logs(
        "ws_message", capsys, lambda: cloud.send_frame('[2,"1","Heartbeat",{}]', connection_id="x=")
    )

    assert ("failed", "ERROR") == (line["message"], line["level"])
    assert ([1.0], [1.0]) == (metrics["Frames"], metrics["FrameFailed"])


@pytest.mark.note("F51")
def test_resent_start_keeps_transaction_across_sockets(cloud):
    cloud.bring_online()
    _, transaction_id = cloud.start_session()
    cloud.connect(connection_id="new=")
    start = {"connectorId": 1, "idTag": cloud.read_id_tag(), "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}

    again = json.loads(
        cloud.send_frame(json.dumps([2, "again", "StartTransaction", start]), connection_id="new=")["body"]
    )

    assert {"transactionId": transaction_id, "idTagInfo": {"status": "Accepted"}} == again[2]


@pytest.mark.note("F42")
def test_resent_call_gets_first_answer(cloud):
    cloud.bring_online()
    start = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
    frame = json.dumps([2, "same", "StartTransaction", start])
    first = cloud.send_frame(frame)
    cloud.connect(connection_id="new=")

    assert first == cloud.send_frame(frame, connection_id="new=")


@pytest.mark.note("F42")
def test_reused_id_with_other_payload_is_new(cloud):
    cloud.bring_online()
    answers = [
        json.loads(cloud.send_frame(json.dumps([2, "1", "StartTransaction", start]))["body"])[2]["transactionId"]
        for start in (
            {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"},
            {"connectorId": 1, "idTag": "CARD", "meterStart": 9, "timestamp": "2026-11-23T10:00:00Z"},
        )
    ]

    assert answers[0] != answers[1]


# The drivers' HTTP API


def test_create_returns_checkout_limit_and_expiry(cloud):
    created = cloud.bring_online().create()

    assert f"https://csms.example/session/{created['reservationId']}" == created["statusUrl"]
    assert created["checkoutUrl"].startswith(cloud.stand_in.url)
    assert ("EUR", 1835) == (created["currency"], created["maxAmount"])
    assert created["expiresAt"].endswith("Z")


@pytest.mark.note("F02")
def test_busy_create_returns_409_with_ordered_reasons(cloud):
    cloud.bring_online().create()
    charging = {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}
    cloud.call("StatusNotification", charging)

    status, busy = cloud.send_request("POST", "/payments/create", {"chargePointId": "cp1", "connectorId": 1})

    assert (409, "ConnectorBusy", "LiveStatus:Occupied") == (status, busy["status"], busy["reason"])
    assert ["LiveStatus:Occupied", "ActiveReservation"] == busy["reasons"]
    assert "in use" in busy["message"]


def test_offline_create_returns_409_charger_offline(cloud):
    status, said = cloud.send_request("POST", "/payments/create", {"chargePointId": "CP1", "connectorId": 1})

    assert (409, "ChargerOffline") == (status, said["status"])


@pytest.mark.note("F10")
@pytest.mark.parametrize(
    ("identity", "connector_id", "code"),
    [("CP9", 1, "UnknownStation"), ("CP1", 0, "UnknownConnector"), ("CP1", 3, "UnknownConnector")],
)
def test_unknown_station_or_connector_returns_404(cloud, identity, connector_id, code):
    cloud.bring_online()
    wish = {"chargePointId": identity, "connectorId": connector_id}

    for method, path, body in (
        ("POST", "/payments/create", wish),
        ("GET", f"/payments/connectors/{identity}/{connector_id}", None),
    ):
        status, said = cloud.send_request(method, path, body)
        assert (404, code) == (status, said["status"])


CREATE_REQUEST = {"chargePointId": "CP1", "connectorId": 1}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"CP1"',
        {},
        {"chargePointId": "CP1"},
        {"connectorId": 1},
        CREATE_REQUEST | {"amount": 1},
        CREATE_REQUEST | {"connectorId": "1"},
        CREATE_REQUEST | {"connectorId": 1.5},
        CREATE_REQUEST | {"connectorId": True},
        CREATE_REQUEST | {"connectorId": None},
        CREATE_REQUEST | {"connectorId": -1},
        CREATE_REQUEST | {"connectorId": 2**31},
        CREATE_REQUEST | {"chargePointId": 1},
        CREATE_REQUEST | {"chargePointId": ""},
        CREATE_REQUEST | {"chargePointId": "x" * 49},
        CREATE_REQUEST | {"resume": "x"},
        json.dumps(CREATE_REQUEST)[:-1] + "}}",
        "[" * 10_000,
        '{"chargePointId":"\\ud800","connectorId":1}',
    ],
)
def test_invalid_create_body_returns_400(cloud, body):
    cloud.bring_online()
    before = cloud.table.entities()

    status, said = cloud.send_request("POST", "/payments/create", body)

    assert (400, "BadRequest") == (status, said["status"])
    assert {"status", "message"} == said.keys()
    assert before == cloud.table.entities()


@pytest.mark.parametrize("reservation_id", ["x", "", NOBODY + "0", NOBODY.upper() + "G", "RESERVATION#1"])
def test_malformed_reservation_id_returns_400(cloud, reservation_id):
    for path in ("/payments/confirm", "/payments/cancel"):
        status, said = cloud.send_request("POST", path, {"reservationId": reservation_id})
        assert (400, "BadRequest") == (status, said["status"])

    status, said = cloud.send_request("GET", f"/payments/status/{quote(reservation_id, safe='') or 'x'}")
    assert (400, "BadRequest") == (status, said["status"])


def test_unknown_reservation_returns_404(cloud):
    for method, path, body in (
        ("POST", "/payments/confirm", {"reservationId": NOBODY}),
        ("POST", "/payments/cancel", {"reservationId": NOBODY}),
        ("GET", f"/payments/status/{NOBODY}", None),
        ("GET", f"/payments/receipt/{NOBODY}", None),
    ):
        status, said = cloud.send_request(method, path, body)
        assert (404, "UnknownReservation") == (status, said["status"])


def test_non_numeric_connector_returns_400(cloud):
    status, said = cloud.send_request("GET", "/payments/connectors/CP1/one")

    assert (400, "BadRequest") == (status, said["status"])


def test_unknown_path_returns_404(cloud):
    assert (404, "NotFound") == (lambda status, said: (status, said["status"]))(
        *cloud.send_request("GET", "/payments/x")
    )


@pytest.mark.note("F61")
def test_confirm_starts_charge_only_after_payment(cloud):
    created = cloud.bring_online().create()
    named = {"reservationId": created["reservationId"]}
    status, waiting = cloud.send_request("POST", "/payments/confirm", named)
    assert (200, "PendingPayment", "none") == (status, waiting["status"], waiting["money"])

    cloud.pay(created)
    status, started = cloud.send_request("POST", "/payments/confirm", named)

    assert (200, "StartRequested", "authorised") == (status, started["status"], started["money"])
    assert '"RemoteStartTransaction",{"connectorId":1,' in cloud.posted_text()
    assert (200, started) == cloud.send_request("GET", f"/payments/status/{created['reservationId']}")


def pay_with_link(cloud: DeployedFunctions, created: Json) -> None:
    cloud.stand_in.pay_otherwise(created["checkoutUrl"].rpartition("/")[2], "link")


def test_confirmed_link_payment_starts_charge(cloud):
    created = cloud.bring_online().create()
    pay_with_link(cloud, created)

    status, started = cloud.send_request("POST", "/payments/confirm", {"reservationId": created["reservationId"]})

    assert (200, "StartRequested", "authorised") == (status, started["status"], started["money"])
    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


@pytest.mark.note("F34")
def test_repeated_confirm_starts_once(cloud):
    created = cloud.bring_online().create()
    cloud.pay(created)

    for _ in range(3):
        cloud.send_request("POST", "/payments/confirm", {"reservationId": created["reservationId"]})

    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


def test_charging_session_cannot_be_cancelled(cloud):
    reservation_id, _ = cloud.bring_online().start_session()

    status, said = cloud.send_request("POST", "/payments/cancel", {"reservationId": reservation_id})

    assert (409, "IllegalTransition") == (status, said["status"])


def test_cancel_before_payment_frees_connector(cloud):
    created = cloud.bring_online().create()
    named = {"reservationId": created["reservationId"]}

    status, cancelled = cloud.send_request("POST", "/payments/cancel", named)

    assert (200, "Cancelled", "none") == (status, cancelled["status"], cancelled["money"])
    assert (200, cancelled) == cloud.send_request("POST", "/payments/cancel", named)
    assert cloud.send_request("GET", "/payments/connectors/CP1/1")[1]["startable"]


@pytest.mark.note("F71")
@pytest.mark.parametrize(("status", "tries"), [(400, 1), (500, 2)])
def test_failed_checkout_returns_502_and_frees_connector(cloud, status, tries):
    cloud.bring_online()
    for _ in range(tries):
        cloud.stand_in.fail_next("checkout.sessions.create", status=status)

    answered, said = cloud.send_request("POST", "/payments/create", CREATE_REQUEST)

    assert (502, "PaymentProviderUnavailable") == (answered, said["status"])
    assert "stand-in" not in said["message"]
    assert cloud.send_request("GET", "/payments/connectors/CP1/1")[1]["startable"]


@pytest.mark.note("F14")
def test_database_failure_returns_503_and_starts_nothing(broken_cloud):
    known = len(broken_cloud.stand_in.ledger.sessions)

    for method, path, body in (
        ("POST", "/payments/create", CREATE_REQUEST),
        ("POST", "/payments/confirm", {"reservationId": NOBODY}),
        ("GET", f"/payments/status/{NOBODY}", None),
        ("GET", f"/payments/receipt/{NOBODY}", None),
        ("GET", "/payments/connectors/CP1/1", None),
    ):
        status, said = broken_cloud.send_request(method, path, body)
        assert (503, "StoreUnavailable") == (status, said["status"])
        assert "gone" not in said["message"]
    assert known == len(broken_cloud.stand_in.ledger.sessions)


def test_unexpected_error_returns_500_without_trace(cloud):
    status, said = cloud.parse_answer(sample_event("http_v2") | {"body": "a", "isBase64Encoded": True})

    assert (500, "InternalError") == (status, said["status"])
    assert {"status", "message"} == said.keys()


@pytest.mark.note("F71")
def test_public_status_hides_tag_and_provider_ids(cloud):
    reservation_id, _ = cloud.bring_online().start_session()
    held = cloud.find_only(Reservation)

    _, told = cloud.send_request("GET", f"/payments/status/{reservation_id}")

    for secret in (held.id_tag, held.payment_id, held.checkout_id, API_KEY):
        assert secret
        assert secret not in json.dumps(told)


# The provider's webhook


def sign(body: str, secret: str = WEBHOOK_SECRET) -> str:
    stamp = int(time.time())
    digest = hmac.new(secret.encode(), f"{stamp}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def build_webhook(reservation_id: str | None) -> str:
    """A webhook's body; spaced as no JSON library would, because the signature is of the bytes."""
    metadata = {"reservation_id": reservation_id} if reservation_id else {}
    subject = {"id": "pi_1", "object": "payment_intent", "metadata": metadata}
    event = {"id": "evt_1", "object": "event", "type": "payment_intent.amount_capturable_updated"}
    return json.dumps(event | {"data": {"object": subject}}, separators=(" , ", "  : "))


@pytest.mark.note("F35", "F62")
@pytest.mark.parametrize("encoded", [False, True], ids=["as text", "as base64"])
def test_webhook_alone_starts_charge_once(cloud, encoded):
    created = cloud.bring_online().create()
    cloud.pay(created)
    body = build_webhook(created["reservationId"])
    event = sample_event("http_v2") | {"rawPath": "/payments/webhook", "routeKey": "POST /payments/webhook"}
    event["requestContext"]["http"]["path"] = "/payments/webhook"
    event["headers"] |= {"stripe-signature": sign(body)}
    event["body"] = base64.b64encode(body.encode()).decode() if encoded else body
    event["isBase64Encoded"] = encoded

    told = {"received": "evt_1", "about": created["reservationId"]}

    assert [(200, told), (200, told | {"again": True})] == [cloud.parse_answer(event), cloud.parse_answer(event)]
    assert "StartRequested" == cloud.find_only(Reservation).state
    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


@pytest.mark.note("F35")
def test_link_payment_webhook_starts_charge(cloud):
    created = cloud.bring_online().create()
    pay_with_link(cloud, created)
    body = build_webhook(created["reservationId"])

    answer = cloud.send_request("POST", "/payments/webhook", body, stripe_signature=sign(body))

    assert (200, {"received": "evt_1", "about": created["reservationId"]}) == answer
    assert ("StartRequested", "authorised") == (cloud.find_only(Reservation).state, cloud.find_only(Reservation).money)
    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


@pytest.mark.note("F35", "F62")
def test_webhook_for_unpaid_checkout_changes_nothing(cloud):
    created = cloud.bring_online().create()
    body = build_webhook(created["reservationId"])

    status, _ = cloud.send_request("POST", "/payments/webhook", body, stripe_signature=sign(body))

    assert 200 == status
    assert "PendingPayment" == cloud.find_only(Reservation).state


@pytest.mark.note("F62")
@pytest.mark.parametrize("secret", ["whsec_other", None])
def test_bad_webhook_signature_returns_400(cloud, secret):
    created = cloud.bring_online().create()
    cloud.pay(created)
    before = cloud.table.entities()
    body = build_webhook(created["reservationId"])
    headers = {"stripe_signature": sign(body, secret)} if secret else {}

    status, said = cloud.send_request("POST", "/payments/webhook", body, **headers)

    assert (400, "InvalidSignature") == (status, said["status"])
    assert before == cloud.table.entities()


@pytest.mark.parametrize("reservation_id", [None, NOBODY, "not-one-of-ours"])
def test_unrelated_webhook_is_acknowledged(cloud, reservation_id):
    body = build_webhook(reservation_id)

    answer = cloud.send_request("POST", "/payments/webhook", body, stripe_signature=sign(body))

    assert (200, {"received": "evt_1", "about": None}) == answer


# Maintenance


def test_maintenance_performs_outbox_item_once(cloud):
    reservation_id, transaction_id = cloud.bring_online().start_session()
    cloud.call(
        "StopTransaction",
        {"transactionId": transaction_id, "meterStop": 13_000, "timestamp": "2026-11-23T10:00:00Z"},
    )
    owed = cloud.find_only(OutboxItem)
    asked = {"perform": {"reservationId": reservation_id, "kind": owed.kind}}

    assert {"became": "done"} == cloud.invoke("maintenance", asked)
    assert {"became": "nothing owed"} == cloud.invoke("maintenance", asked)

    _, told = cloud.send_request("GET", f"/payments/status/{reservation_id}")
    assert ("Completed", "captured", 824) == (told["status"], told["money"], told["capturedAmount"])


@pytest.mark.note("F65")
def test_captured_session_has_receipt_naming_operator(cloud, monkeypatch):
    reload_functions(monkeypatch, OPERATOR_NAME="Example Charging", OPERATOR_VAT_NUMBER="XX 1")
    reservation_id, transaction_id = cloud.bring_online().start_session()
    address = f"/payments/receipt/{reservation_id}"
    stop = {"transactionId": transaction_id, "meterStop": 13_000, "timestamp": "2026-11-23T10:00:00Z"}
    cloud.call("StopTransaction", stop)
    before = cloud.send_request("GET", address)
    cloud.invoke(
        "maintenance", {"perform": {"reservationId": reservation_id, "kind": cloud.find_only(OutboxItem).kind}}
    )

    status, receipt = cloud.send_request("GET", address)

    assert (404, "NoReceiptYet") == (before[0], before[1]["status"])
    assert (200, {"name": "Example Charging", "vatNumber": "XX 1"}, 824, 824, {"brand": "visa", "last4": "4242"}) == (
        status,
        receipt["operator"],
        receipt["total"],
        receipt["capturedAmount"],
        receipt["card"],
    )


@pytest.mark.note("F66")
def test_uncharged_session_has_no_receipt(cloud):
    reservation_id, transaction_id = cloud.bring_online().start_session()
    stop = {"transactionId": transaction_id, "meterStop": 0, "timestamp": "2026-11-23T10:00:00Z"}
    cloud.call("StopTransaction", stop)

    status, said = cloud.send_request("GET", f"/payments/receipt/{reservation_id}")

    assert (404, "NothingCharged") == (status, said["status"])


def test_link_payment_receipt_names_no_card(cloud):
    created = cloud.bring_online().create()
    pay_with_link(cloud, created)
    cloud.send_request("POST", "/payments/confirm", {"reservationId": created["reservationId"]})
    start = {"connectorId": 1, "idTag": cloud.read_id_tag(), "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
    transaction_id = cloud.call("StartTransaction", start)["transactionId"]
    stop = {"transactionId": transaction_id, "meterStop": 13_000, "timestamp": "2026-11-23T10:00:00Z"}
    cloud.call("StopTransaction", stop)
    owed = {"reservationId": created["reservationId"], "kind": cloud.find_only(OutboxItem).kind}

    assert {"became": "done"} == cloud.invoke("maintenance", {"perform": owed})

    status, receipt = cloud.send_request("GET", f"/payments/receipt/{created['reservationId']}")
    assert (200, 824) == (status, receipt["capturedAmount"])
    assert "card" not in receipt


def test_reconciliation_skips_unrelated_payments(cloud):
    created = cloud.bring_online().create()
    pay_with_link(cloud, created)
    cloud.send_request("POST", "/payments/confirm", {"reservationId": created["reservationId"]})
    before = cloud.invoke("maintenance", {"reconcile": True})

    for method in OTHER_METHODS:
        cloud.stand_in.receive(method)
    cloud.stand_in.receive("link", manual=True)

    assert before == cloud.invoke("maintenance", {"reconcile": True})
    assert 1 == before["reservations"]
    assert [] == before["missing"]


def test_mailer_exists_only_with_sender(cloud, monkeypatch):
    assert import_module("functions.maintenance.app").maintenance._dependencies.mailer is None

    reload_functions(monkeypatch, RECEIPT_SENDER="receipts@example.com")
    assert import_module("functions.maintenance.app").maintenance._dependencies.mailer is not None
    forget_functions()


@pytest.mark.note("F73")
def test_sweep_continues_past_poisoned_row(cloud):
    cloud.bring_online().create()
    held = cloud.find_only(Reservation)
    cloud.table.store.commit([Save(replace(held, expires_at=held.created_at - timedelta(minutes=1)))])
    poison = {"type": "Effect", "due_at": "2026-01-01T00:00:00.000000Z", "SK": "EFFECT#x"}
    for shard in range(4):
        cloud.table.put(poison | {"PK": f"RESERVATION#poison{shard}", "due_shard": f"DUE#{shard}"})

    report = cloud.invoke("maintenance", {"version": "0", "detail-type": "Scheduled Event", "detail": {}})

    assert 4 == len(report["failed"])
    assert {"Reservation": 1} == report["done"]
    _, told = cloud.send_request("GET", f"/payments/status/{held.reservation_id}")
    assert ("Cancelled", "PaymentTimeout") == (told["status"], told["failureCode"])
    assert cloud.send_request("GET", "/payments/connectors/CP1/1")[1]["startable"]


# What is logged and counted


def capture_logs(function: str, capsys: pytest.CaptureFixture[str], act: Callable[[], Any]) -> tuple[Json, Json]:
    """The one log line and the one line of metrics of the act's one invocation of the function."""
    lines, app = StringIO(), import_module(f"functions.{function}.app")
    handler = app.logger.registered_handler
    # Not by setStream: it flushes what was there, the output of the test that imported the function, closed by now.
    before, handler.stream = handler.stream, lines
    level = app.logger.log_level
    app.logger.setLevel("INFO")  # Who ran the laptop's stack before wanted to hear less.
    app.metrics.clear_metrics()  # While they are disabled they pile up.
    capsys.readouterr()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("POWERTOOLS_METRICS_DISABLED", "false")
            act()
    finally:
        handler.stream = before
        app.logger.setLevel(level)
    (line,), (metrics,) = lines.getvalue().splitlines(), capsys.readouterr().out.splitlines()
    return json.loads(line), json.loads(metrics)


def test_refused_create_logs_predicates_and_counts(cloud, capsys):
    line, metrics = capture_logs(
        "payments", capsys, lambda: cloud.send_request("POST", "/payments/create", CREATE_REQUEST)
    )

    (decision,) = line["decisions"]
    assert ("cp1", 1, "busy", "ChargerOffline") == tuple(
        decision[name] for name in ("station", "connector", "verdict", "headline")
    )
    assert {"offline": "ChargerOffline"} == {name: said for name, said in decision["predicates"].items() if said}
    assert 5 == len(decision["predicates"])
    assert ([1.0], [1.0]) == (metrics["Decision:busy"], metrics["Headline:ChargerOffline"])


def test_status_triggered_start_logs_decision(cloud, capsys):
    created = cloud.bring_online().create()
    cloud.call("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Finishing"})
    cloud.pay(created)
    cloud.send_request("POST", "/payments/confirm", {"reservationId": created["reservationId"]})

    said = {"connectorId": 1, "errorCode": "NoError", "status": "Preparing"}
    line, metrics = capture_logs("ws_message", capsys, lambda: cloud.call("StatusNotification", said))

    assert ["startable"] == [decision["verdict"] for decision in line["decisions"]]
    assert [1.0] == metrics["Decision:startable"]
    assert [] == [name for name in metrics if name.startswith("Headline:")]


def test_decision_stays_in_its_own_invocation(cloud, capsys):
    cloud.send_request("POST", "/payments/create", CREATE_REQUEST)

    line, metrics = capture_logs("payments", capsys, lambda: cloud.send_request("GET", "/payments/connectors/CP1/1"))

    assert "decisions" not in line
    assert [] == [name for name in metrics if name.startswith("Decision:")]


# The environment


@pytest.mark.parametrize("function", ["ws_connect", "ws_message"])
def test_station_functions_need_no_stripe_settings(deployed_functions, monkeypatch, function):
    for name in [name for name in os.environ if name.startswith("STRIPE_")]:
        monkeypatch.delenv(name)
    sys.modules.pop(f"functions.{function}.app", None)

    assert import_module(f"functions.{function}.app").lambda_handler


def test_empty_sweep_counts_nothing(cloud, capsys):
    app = import_module("functions.maintenance.app")
    app.metrics.clear_metrics()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("POWERTOOLS_METRICS_DISABLED", "false")
        cloud.invoke("maintenance", {"version": "0", "detail-type": "Scheduled Event", "detail": {}})

    assert "Swept" not in capsys.readouterr().out
