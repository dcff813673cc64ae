"""The functions on a database, made to do all that they do, once; a new route or outside call is made here too."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from csms.model import OutboundCall, OutboxKind, Save, TriggerStatus
from infra import routes
from infra.payment_secrets import PAYMENT_SECRETS
from stand_ins.stripe import PaymentStandIn
from tests.app import Json
from tests.app.handlers import ORIGIN, HandlerApp, sample_event
from tests.builders import basic_auth_header

TABLE = "csms"
KEY = "sk_test_permissions"
WEBHOOK_SECRET = "whsec_permissions"
PASSWORD = "a password of 1"
TARIFF = {"currency": "EUR", "pricePerKwh": "59.5", "sessionFee": 50}
REGISTRATION = {"connectors": [1, 2], "tariff": TARIFF, "password": PASSWORD}
STATION = "/operations/stations/CP1"
IN_THE_PAST = datetime(2026, 1, 1, tzinfo=UTC)

ENVIRONMENT = {
    "TABLE_NAME": TABLE,
    "WEBSOCKET_API_URL": "https://csms.example/ocpp",
    "MAINTENANCE_FUNCTION": "maintenance",
    "TIMER_QUEUE_URL": "https://sqs.example/123456789012/timers",
    "PUBLIC_URL": "https://csms.example",
    "ORIGIN_SECRET": ORIGIN,
    "STRIPE_API_KEY": KEY,
    "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
    "MAX_POWER_KW": "1000000",
    "POWER_TOLERANCE_PERCENT": "1000000000",
    "NO_PROXY": "127.0.0.1",
    "POWERTOOLS_METRICS_DISABLED": "true",
}


@dataclass(kw_only=True)
class Installation(HandlerApp):
    """One station of it, over its second socket, with somebody who takes what is said to sockets and to Lambda."""

    stand_in: PaymentStandIn
    socket: str = "second="
    password: bytes = PASSWORD.encode()
    routes_taken: set[str] = field(default_factory=set)

    def connect(self, over: str | None = None, *, status: int = 200, **headers: Any) -> Json:
        verdict = super().connect(over, **headers)

        assert status == verdict["statusCode"]
        return verdict

    def request(self, route: str, path: str, body: Json | None = None, *, status: int = 200) -> Json:
        """The JSON answer to a request on a route of the table."""
        (row,) = (row for row in routes.HTTP if f"{row.method} {row.path}" == route)
        answered, answer = self.ask(row.method, path, body)
        self.routes_taken.add(route)

        assert status == answered, (route, answer)
        return answer

    def create(self, connector: int = 1) -> Json:
        self.routes_taken.add("POST /payments/create")
        return super().create(connector)

    def confirm(self, reservation_id: str) -> Json:
        self.routes_taken.add("POST /payments/confirm")
        return super().confirm(reservation_id)

    def start_authorized(self, reservation_id: str) -> int:
        """The transaction of the reservation's car, whose driver showed the tag before."""
        tag = self.store.reservation(reservation_id).id_tag
        self.send_call("Authorize", idTag=tag)
        return self.start_transaction(tag)


def exercise_installation(it: Installation) -> None:
    """Everything that each function does, once."""
    register_and_connect(it)
    charge_and_bill(it)
    operate(it)
    review(it)
    set_timers(it)
    sweep(it)
    delete_station(it)


def register_and_connect(it: Installation) -> None:
    it.connect("stranger=", status=404)
    it.request("GET /operations/unknown-stations", "/operations/unknown-stations")
    accept = "POST /operations/unknown-stations/{stationId}/accept"
    it.request(accept, "/operations/unknown-stations/CP1/accept", REGISTRATION)
    it.connect("guess=", status=401, authorization=basic_auth_header(b"CP1", b"a guess"))
    it.request("GET /operations/stations/{stationId}/refused-connections", f"{STATION}/refused-connections")
    it.connect("first=")
    it.connect("second=")
    it.send_call("Heartbeat", over="first=")  # It was displaced, and is closed now.
    it.disconnect("first=")
    it.boot()
    it.send_call("Heartbeat")
    for connector in (1, 2):
        it.report_status(connector, "Available")


def charge_and_bill(it: Installation) -> None:
    it.request("GET /payments/connectors/{chargePointId}/{connectorId}", "/payments/connectors/CP1/1")
    reservation = it.create_paid_reservation(1)
    it.connect("second=")  # The start was sent, and died with the socket.
    it.accept_all()
    it.request("GET /payments/status/{reservationId}", f"/payments/status/{reservation}")
    number = it.start_authorized(reservation)
    it.send_meter_values(number, 2000)
    it.stop_transaction(number, 9000)
    owed = {"reservationId": reservation, "kind": OutboxKind.CAPTURE}
    assert {"became": "done"} == it.invoke("maintenance", {"perform": owed})
    it.request("GET /payments/receipt/{reservationId}", f"/payments/receipt/{reservation}")

    cancelled = it.create_paid_reservation(2)
    there = {"reservationId": cancelled, "connectorId": 2}
    it.request("POST /payments/move", "/payments/move", there)
    it.request("POST /payments/cancel", "/payments/cancel", {"reservationId": cancelled})
    it.accept_all()
    it.request("POST /payments/webhook", "/payments/webhook", {}, status=400)


def operate(it: Installation) -> None:
    order = {"reason": "To see what it takes."}
    it.request("GET /operations/stations", "/operations/stations")
    it.request("GET /operations/stations/{stationId}", STATION)
    it.request("PUT /operations/stations/{stationId}", STATION, REGISTRATION)
    it.request("GET /operations/stations/{stationId}/commands", f"{STATION}/commands")
    it.request("GET /operations/stations/{stationId}/messages", f"{STATION}/messages")
    busy = "/connectors/{connectorId}/occupancy"
    it.request(f"GET /operations/stations/{{stationId}}{busy}", f"{STATION}/connectors/1/occupancy")
    it.request(
        "POST /operations/stations/{stationId}/trigger-status",
        f"{STATION}/trigger-status",
        order | {"expected": "Online"},
    )
    it.accept_all()
    it.report_status(2, "Faulted")
    it.request(
        "POST /operations/stations/{stationId}/connectors/{connectorId}/reset-status",
        f"{STATION}/connectors/2/reset-status",
        order | {"expected": "Faulted"},
    )
    it.accept_all()
    it.report_status(1, "Available")
    number = it.start_authorized(it.create_paid_reservation(1))
    it.accept_all()
    it.request(
        "POST /operations/transactions/{transactionId}/close",
        f"/operations/transactions/{number}/close",
        order | {"expected": "Open"},
    )
    it.accept_all()
    it.stop_transaction(number, 9000)
    it.report_status(2, "Available")
    held = it.create_paid_reservation(2)
    it.request(
        "POST /operations/reservations/{reservationId}/cancel",
        f"/operations/reservations/{held}/cancel",
        order | {"expected": it.store.reservation(held).state},
    )
    it.request(  # The start was sent, and may have happened.
        "POST /operations/payments/{reservationId}/release",
        f"/operations/payments/{held}/release",
        order | {"expected": "authorised"},
    )
    it.accept_all()


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
    it.accept_all()
    heard = it.stand_in.events[-1]
    assert heard["id"] == it.invoke("payments", {"detail": heard})["received"]
    assert {"unknown", "missing"} <= it.invoke("maintenance", {"reconcile": True}).keys()


def set_timers(it: Installation) -> None:
    """Commands wait behind one that the station has not answered, whichever function queues or sends them."""
    waiting = [it.create_paid_reservation(connector) for connector in (1, 2)]
    it.request(
        "POST /operations/stations/{stationId}/trigger-status",
        f"{STATION}/trigger-status",
        {"reason": "To see what it takes.", "expected": "Online"},
    )
    it.accept_all()
    for reservation in waiting:
        it.request("POST /payments/cancel", "/payments/cancel", {"reservationId": reservation})
    it.accept_all()
    (record,) = sample_event("sqs")["Records"]
    assert {"batchItemFailures": []} == it.invoke("maintenance", {"Records": [record]})


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
    it.store.commit([Save(waiting), Save(replace(waiting, call_id="behind it"))])
    assert [] == it.invoke("maintenance", {})["failed"]
    it.disconnect("second=")
    it.store.commit([Save(replace(waiting, call_id="away"))])
    assert [] == it.invoke("maintenance", {})["failed"]
    it.connect("second=")


def delete_station(it: Installation) -> None:
    it.accept_all()
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
