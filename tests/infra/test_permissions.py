"""Each function may do what it does, and nothing else: the table of permissions against what the functions need while
they do all that they do, and against the policies of the synthesized stack.

That nothing is missing holds wherever the laptop runs, in every system test: it refuses what the table does not allow.
"""

import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import boto3
import pytest

from bench.messages import run_aws_stub
from csms.adapters.dynamodb import Store, table_definition
from csms.config import secret_reference
from csms.model import CallState, OutboundCall, OutboxKind, Save, TriggerStatus
from infra import routes
from infra.payment_secrets import PAYMENT_SECRETS
from infra.permissions import PERMISSIONS
from local import database, functions, story
from local.gateway import events
from local.invoke import Context, Handler
from stand_ins.stripe import PaymentStandIn

Json = dict[str, Any]
Permission = tuple[str, str, str]  # function, resource, action

TABLE = "csms"
KEY = "sk_test_permissions"
WEBHOOK_SECRET = "whsec_permissions"
EDGE = "through-the-front-door"
PASSWORD = "a password of 1"
TARIFF = {"currency": "EUR", "pricePerKwh": "59.5", "sessionFee": 50}
REGISTRATION = {"connectors": [1, 2], "tariff": TARIFF, "password": PASSWORD}
CLAIMS = {"sub": "7e1f", "email": "eve@example.org"}
STATION = "/operations/stations/CP1"
IN_THE_PAST = datetime(2026, 1, 1, tzinfo=UTC)

ENVIRONMENT = {
    "TABLE_NAME": TABLE,
    "WEBSOCKET_API_URL": "https://csms.example/ocpp",
    "MAINTENANCE_FUNCTION": "maintenance",
    "PUBLIC_URL": "https://csms.example",
    "ORIGIN_SECRET": EDGE,
    "STRIPE_API_KEY": KEY,
    "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
    "MAX_POWER_KW": "1000000",
    "NO_PROXY": "127.0.0.1",
    "POWERTOOLS_METRICS_DISABLED": "true",
}

# Permissions that no code of ours uses: Lambda itself writes logs and traces, and files events that failed.
OF_LAMBDA_ITSELF = re.compile(r"(logs|xray|sqs):")


@dataclass(kw_only=True)
class Installation:
    """The functions on a database, with somebody who takes what is said to sockets and to Lambda."""

    handlers: Mapping[str, Handler]
    store: Store
    stand_in: PaymentStandIn
    asked: int = 0
    routes_taken: set[str] = field(default_factory=set)

    def invoke(self, function: str, event: Json) -> Json:
        answer = self.handlers[function](event, Context(function_name=function, deadline=time.monotonic() + 30))
        assert answer is not None
        return answer

    def request(self, route: str, path: str, body: Json | None = None, *, status: int = 200) -> Json:
        """The JSON answer to a request on a route of the table."""
        (row,) = (row for row in routes.HTTP if f"{row.method} {row.path}" == route)
        context = {"http": {"method": row.method, "path": path}, "requestId": "request", "stage": "$default"}
        event = {
            "version": "2.0",
            "routeKey": route,
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"content-type": "application/json"},
            "requestContext": context | ({"authorizer": {"jwt": {"claims": CLAIMS}}} if row.operator else {}),
            "isBase64Encoded": False,
            "body": json.dumps(body) if body is not None else None,
        }
        answer = self.invoke(row.function, event)
        self.routes_taken.add(route)

        assert status == answer["statusCode"], (route, answer)
        return dict(json.loads(answer["body"]))

    def connect(self, identity: str, socket: str, *, status: int = 200) -> None:
        credentials = b64encode(f"{identity}:{PASSWORD}".encode()).decode()
        headers = {
            "Authorization": f"Basic {credentials}",
            "Sec-WebSocket-Protocol": "ocpp1.6",
            "x-origin-verify": EDGE,
        }
        event = events.connect(peer(socket), headers=headers.items(), query={"cp": identity})

        assert status == self.invoke("ws_connect", event)["statusCode"]

    def disconnect(self, socket: str) -> None:
        self.invoke("ws_connect", events.disconnect(peer(socket), code=1000, reason=""))

    def call(self, socket: str, action: str, **payload: Any) -> Json:
        """The payload of the answer to the station's CALL."""
        self.asked += 1
        answer = self.invoke(
            "ws_message", events.message(peer(socket), json.dumps([2, str(self.asked), action, payload]))
        )
        kind, _, result = json.loads(answer["body"])

        assert 3 == kind, answer
        return dict(result)

    def accept_all(self, socket: str, identity: str) -> None:
        """The station accepts whatever it was asked."""
        while sent := [call for call in self.store.snapshot(identity).calls if call.state is CallState.SENT]:
            self.invoke(
                "ws_message", events.message(peer(socket), json.dumps([3, sent[0].call_id, {"status": "Accepted"}]))
            )

    def create_paid_reservation(self, connector: int) -> str:
        """A reservation that was created and paid for, and is confirmed."""
        wish = {"chargePointId": "CP1", "connectorId": connector}
        created = self.request("POST /payments/create", "/payments/create", wish)
        story.pay(created["checkoutUrl"])
        named = {"reservationId": created["reservationId"]}
        self.request("POST /payments/confirm", "/payments/confirm", named)
        return str(created["reservationId"])

    def start_session(self, socket: str, reservation_id: str, connector: int) -> int:
        """The transaction of the reservation's car."""
        tag = self.store.reservation(reservation_id).id_tag
        self.call(socket, "Authorize", idTag=tag)
        at = datetime.now(UTC).isoformat()
        begun = self.call(socket, "StartTransaction", connectorId=connector, idTag=tag, meterStart=1000, timestamp=at)
        return int(begun["transactionId"])


def peer(socket: str) -> events.Peer:
    return events.Peer(connection_id=socket, connected_at=0, source_ip="192.0.2.7", user_agent="", domain_name="local")


def exercise_installation(it: Installation) -> None:
    """Everything that each function does, once."""
    register_and_connect(it)
    charge_and_bill(it)
    operate(it)
    review(it)
    sweep(it)
    delete_station(it)


def register_and_connect(it: Installation) -> None:
    it.connect("CP1", "stranger=", status=404)
    it.request("GET /operations/strangers", "/operations/strangers")
    accept = "POST /operations/strangers/{stationId}/accept"
    it.request(accept, "/operations/strangers/CP1/accept", REGISTRATION)
    it.connect("CP1", "first=")
    it.connect("CP1", "second=")
    it.disconnect("first=")
    boot = {"chargePointVendor": "v", "chargePointModel": "m"}
    it.call("second=", "BootNotification", **boot)
    it.call("second=", "Heartbeat")
    for connector in (1, 2):
        it.call("second=", "StatusNotification", connectorId=connector, errorCode="NoError", status="Available")


def charge_and_bill(it: Installation) -> None:
    it.request("GET /payments/connectors/{chargePointId}/{connectorId}", "/payments/connectors/CP1/1")
    reservation = it.create_paid_reservation(1)
    it.connect("CP1", "second=")  # The start was sent, and died with the socket.
    it.accept_all("second=", "cp1")
    it.request("GET /payments/status/{reservationId}", f"/payments/status/{reservation}")
    number = it.start_session("second=", reservation, 1)
    sample = [{"value": "2000", "unit": "Wh"}]
    at = datetime.now(UTC).isoformat()
    it.call(
        "second=",
        "MeterValues",
        connectorId=1,
        transactionId=number,
        meterValue=[{"timestamp": at, "sampledValue": sample}],
    )
    it.call("second=", "StopTransaction", transactionId=number, meterStop=9000, timestamp=at)
    owed = {"reservationId": reservation, "kind": OutboxKind.CAPTURE}
    assert {"became": "done"} == it.invoke("maintenance", {"perform": owed})
    it.request("GET /payments/receipt/{reservationId}", f"/payments/receipt/{reservation}")

    cancelled = it.create_paid_reservation(2)
    it.request("POST /payments/cancel", "/payments/cancel", {"reservationId": cancelled})
    it.accept_all("second=", "cp1")
    it.request("POST /payments/webhook", "/payments/webhook", {}, status=400)


def operate(it: Installation) -> None:
    order = {"reason": "To see what it takes."}
    it.request("GET /operations/stations", "/operations/stations")
    it.request("GET /operations/stations/{stationId}", STATION)
    it.request("PUT /operations/stations/{stationId}", STATION, REGISTRATION)
    it.request("GET /operations/stations/{stationId}/commands", f"{STATION}/commands")
    busy = "/connectors/{connectorId}/occupancy"
    it.request(f"GET /operations/stations/{{stationId}}{busy}", f"{STATION}/connectors/1/occupancy")
    it.request(
        "POST /operations/stations/{stationId}/trigger-status",
        f"{STATION}/trigger-status",
        order | {"expected": "Online"},
    )
    it.accept_all("second=", "cp1")
    it.call("second=", "StatusNotification", connectorId=2, errorCode="NoError", status="Faulted")
    it.request(
        "POST /operations/stations/{stationId}/connectors/{connectorId}/reset-status",
        f"{STATION}/connectors/2/reset-status",
        order | {"expected": "Faulted"},
    )
    it.accept_all("second=", "cp1")
    it.call("second=", "StatusNotification", connectorId=1, errorCode="NoError", status="Available")
    number = it.start_session("second=", it.create_paid_reservation(1), 1)
    it.accept_all("second=", "cp1")
    it.request(
        "POST /operations/transactions/{transactionId}/close",
        f"/operations/transactions/{number}/close",
        order | {"expected": "Open"},
    )
    it.accept_all("second=", "cp1")
    it.call("second=", "StatusNotification", connectorId=2, errorCode="NoError", status="Available")
    held = it.create_paid_reservation(2)
    it.request(
        "POST /operations/reservations/{reservationId}/cancel",
        f"/operations/reservations/{held}/cancel",
        order | {"expected": it.store.reservation(held).state},
    )
    it.accept_all("second=", "cp1")


def review(it: Installation) -> None:
    """What an operator does about payments; that they all are settled is only seen once they were looked at."""
    settled = it.create_paid_reservation(2)
    order = {"reason": "To see what it takes.", "expected": "needs_review"}
    payment = f"/operations/payments/{settled}"
    it.request("GET /operations/payments", "/operations/payments")
    it.request("GET /operations/payments/{reservationId}", payment)
    it.request("POST /operations/payments/{reservationId}/retry", f"{payment}/retry", order, status=409)
    it.request("POST /operations/payments/{reservationId}/bill", f"{payment}/bill", order | {"energyWh": 0}, status=409)
    it.request("POST /operations/payments/{reservationId}/release", f"{payment}/release", order, status=409)
    it.request(
        "POST /operations/payments/{reservationId}/settle",
        f"{payment}/settle",
        order | {"capturedAmount": 0},
        status=409,
    )
    it.request(
        "POST /operations/reservations/{reservationId}/settle",
        f"/operations/reservations/{settled}/settle",
        order,
        status=409,
    )
    it.request("POST /payments/cancel", "/payments/cancel", {"reservationId": settled})
    it.accept_all("second=", "cp1")
    heard = it.stand_in.events[-1]
    assert heard["id"] == it.invoke("payments", {"detail": heard})["received"]
    assert {"unknown", "missing"} <= it.invoke("maintenance", {"reconcile": True}).keys()


def sweep(it: Installation) -> None:
    waiting = OutboundCall(
        station_id="cp1",
        call_id="waiting",
        command=TriggerStatus(connector_id=1),
        asked_at=IN_THE_PAST,
        send_at=IN_THE_PAST,
        due_at=IN_THE_PAST,
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )
    it.store.commit([Save(waiting)])
    assert [] == it.invoke("maintenance", {})["failed"]
    it.disconnect("second=")
    it.store.commit([Save(replace(waiting, call_id="away"))])
    assert [] == it.invoke("maintenance", {})["failed"]
    it.connect("CP1", "second=")


def delete_station(it: Installation) -> None:
    it.accept_all("second=", "cp1")
    it.request("DELETE /operations/stations/{stationId}", STATION)


class Vault(BaseHTTPRequestHandler):
    """Secrets Manager, where every secret has Stripe's keys, and something in each other field."""

    def do_POST(self) -> None:
        """The secret."""
        self.rfile.read(int(self.headers["Content-Length"]))
        known = {field: "known" for row in PAYMENT_SECRETS for field in row.fields.values()}
        known |= {"api_key": KEY, "webhook_secret": WEBHOOK_SECRET}
        secret = json.dumps({"SecretString": json.dumps(known)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(secret)))
        self.end_headers()
        self.wfile.write(secret)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is written."""


@contextmanager
def vault() -> Iterator[str]:
    """The address of the vault."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vault)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stand_in() -> PaymentStandIn:
    return PaymentStandIn(api_key=KEY, webhook_secret=WEBHOOK_SECRET, webhook_url=None)


@pytest.fixture(scope="module")
def exercised_installation() -> Iterator[tuple[Installation, set[Permission]]]:
    """The installation after all that, and what each function needed for it; nothing was refused."""
    used: set[Permission] = set()

    def note(function: str, permission: functions.Permission) -> bool:
        used.add((function, *permission))
        return True

    provider = stand_in()
    with ExitStack() as parts:
        engine = parts.enter_context(database.start())
        aws = parts.enter_context(run_aws_stub())
        payments = parts.enter_context(provider.run_in_thread())
        client = database.client(engine.endpoint)
        database.create_table(client, table_definition(TABLE))
        environment = ENVIRONMENT | {
            **engine.environment(),
            "WEBSOCKET_API_URL": f"{aws}/ocpp",
            "AWS_ENDPOINT_URL_LAMBDA": aws,
            "AWS_ENDPOINT_URL_SESV2": aws,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": parts.enter_context(vault()),
            **{
                setting: secret_reference(f"csms/{row.provider}", field)
                for row in PAYMENT_SECRETS
                for setting, field in row.fields.items()
            },
            "RECEIPT_SENDER": "receipts@example.com",
            "STRIPE_API_BASE": payments,
        }
        handlers = parts.enter_context(functions.load_functions(environment, note))
        installation = Installation(handlers=handlers, store=Store(client, TABLE), stand_in=provider)
        exercise_installation(installation)
        yield installation, used


def allowed_permissions() -> set[Permission]:
    return {
        (function, resource, action)
        for function, permissions in PERMISSIONS.items()
        for resource, actions in permissions.items()
        for action in actions
    }


def listing(permissions: set[Permission]) -> str:
    """A line for each, which says what to add to infra/permissions.py or to take from it."""
    return "\n".join(f"{function}: {resource}: {action}" for function, resource, action in sorted(permissions))


def granted_permissions(synthesized: Any) -> set[Permission]:
    """What the template's policies allow each function, in the words of the table."""
    roles = {row["Role"]["Fn::GetAtt"][0]: name for name, row in synthesized.functions().items()}
    found = set()
    for policy in synthesized.resources("AWS::IAM::Policy").values():
        for function in (roles[role["Ref"]] for role in policy["Roles"] if role["Ref"] in roles):
            for statement in policy["PolicyDocument"]["Statement"]:
                found |= {
                    (function, resource, action)
                    for action in as_list(statement["Action"])
                    if not OF_LAMBDA_ITSELF.match(action)
                    for resource in (resource_name(synthesized, it) for it in as_list(statement["Resource"]))
                }
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def resource_name(synthesized: Any, arn: Any) -> str:
    """The name that the table of permissions has for a resource of the template; the ARN itself if it has none."""
    text = "".join(it if isinstance(it, str) else json.dumps(it) for it in arn.get("Fn::Join", ["", [arn]])[1])
    (table,) = synthesized.resources("AWS::DynamoDB::Table")
    apis = synthesized.resources("AWS::ApiGatewayV2::Api")
    (sockets,) = (key for key, row in apis.items() if row["ProtocolType"] == "WEBSOCKET")
    stage = r'(?:ocpp|{"Ref": "\w+"})'
    places = {
        rf'{{"Fn::GetAtt": \["{table}", "Arn"\]}}(/index/\w+)?': r"table\1",
        **{rf'{{"Ref": "{row.title}Secret\w+"}}': row.resource for row in PAYMENT_SECRETS},
        r"arn:.*:ses:.*:identity/\*": "mail",
        rf'arn:.*:execute-api:.*:{{"Ref": "{sockets}"}}/{stage}/(\w+)/@connections/\*': r"sockets/\1",
    }
    for name, key in synthesized.function_ids.items():
        places[rf'{{"Fn::GetAtt": \["{key}", "Arn"\]}}'] = f"function/{name}"
    for pattern, name in places.items():
        if match := re.fullmatch(pattern, text):
            return match.expand(name)
    return text


def test_every_http_route_is_exercised(exercised_installation):
    installation, _ = exercised_installation

    assert {f"{row.method} {row.path}" for row in routes.HTTP} == installation.routes_taken


def test_no_function_has_unused_permissions(exercised_installation):
    _, used = exercised_installation

    assert "" == listing(allowed_permissions() - used)


def test_no_function_exceeds_its_permissions(exercised_installation):
    _, used = exercised_installation

    assert "" == listing(used - allowed_permissions())


def test_stack_policies_equal_the_permission_table(everything):
    stack = granted_permissions(everything)

    assert "" == listing(allowed_permissions() - stack)
    assert "" == listing(stack - allowed_permissions())


def test_no_mail_permission_without_receipt_sender(synthesized):
    assert {it for it in allowed_permissions() if it[1] != "mail"} == granted_permissions(synthesized)


def test_laptop_refuses_and_logs_missing_permission(monkeypatch, caplog):
    monkeypatch.setattr(functions, "PERMISSIONS", {**PERMISSIONS, "ws_connect": {"table": ("dynamodb:Query",)}})
    with database.start() as engine:
        client = database.client(engine.endpoint)
        database.create_table(client, table_definition(TABLE))
        with functions.load_functions(ENVIRONMENT | engine.environment()) as handlers:
            it = Installation(handlers=handlers, store=Store(client, TABLE), stand_in=stand_in())
            it.connect("CP1", "one=", status=503)

    assert "ws_connect is not authorized to perform dynamodb:PutItem on table" in caplog.text


@pytest.mark.parametrize(
    ("service", "operation", "params", "expected"),
    [
        ("dynamodb", "GetItem", {}, {("table", "dynamodb:GetItem")}),
        ("dynamodb", "Query", {"IndexName": "due"}, {("table/index/due", "dynamodb:Query")}),
        (
            "dynamodb",
            "TransactWriteItems",
            {"TransactItems": [{"Put": {}}, {"ConditionCheck": {}}, {"Put": {}}]},
            {("table", "dynamodb:PutItem"), ("table", "dynamodb:ConditionCheckItem")},
        ),
        ("apigatewaymanagementapi", "GetConnection", {}, {("sockets/GET", "execute-api:ManageConnections")}),
        ("lambda", "Invoke", {"FunctionName": "maintenance"}, {("function/maintenance", "lambda:InvokeFunction")}),
        (
            "secretsmanager",
            "GetSecretValue",
            {"SecretId": "csms/stripe"},
            {("secret/stripe", "secretsmanager:GetSecretValue")},
        ),
        ("sesv2", "SendEmail", {}, {("mail", "ses:SendEmail")}),
        ("sqs", "SendMessage", {}, {("sqs", "sqs:SendMessage")}),
    ],
)
def test_aws_calls_map_to_iam_actions(service, operation, params, expected):
    client = boto3.client(service, region_name="eu-central-1", aws_access_key_id="none", aws_secret_access_key="none")

    assert expected == functions.needed_permissions(client.meta.service_model.operation_model(operation), params)
