"""The cost of one message: round trips, capacity units, bytes and CPU, through the real handlers over a real engine.

`python -m bench.messages` takes half a minute. Trust the counts and units; of the milliseconds trust the ratios.
Everything is the product's own but the payment provider, which is tests/fakes/. A process of its own answers for API
Gateway and Lambda, so its CPU is not included.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "layers/core/python"))

import boto3

from bench.sweep import Tap
from csms.adapters.apigateway import Gateway
from csms.adapters.cloudfront import ORIGIN_HEADER
from csms.adapters.dynamodb import Store, table_definition
from csms.config import Settings
from csms.model import Append, Connection, IdTag, Presence, Protocol, Save, Station, TagStatus, Tariff
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Drivers
from local import database
from local.gateway import events
from local.invoke import Context
from tests.fakes import FakeProvider

ROOT: Final = Path(__file__).parents[1]
CORE: Final = ROOT / "layers/core/python"
SESSIONS: Final = 25
WARM_UP: Final = 3
NAME: Final = "bench"
SOCKET: Final = "abcdefghijklmno="
SAMPLES: Final = [
    {"value": f"{230 + n}.5", "context": "Sample.Periodic", "measurand": "Voltage", "phase": "L1", "unit": "V"}
    for n in range(9)
]

Invoke = Callable[[], dict[str, Any]]


class AwsStub(BaseHTTPRequestHandler):
    """API Gateway's @connections and Lambda's Invoke API, which accept everything."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer that the socket exists."""
        self._answer(200)

    def do_POST(self) -> None:
        """Accept the frame or the event."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(202 if "/functions/" in self.path else 200)

    def handle(self) -> None:
        """Serve requests until the client disconnects in any way."""
        with suppress(ConnectionResetError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


def _serve(port: Pipe[int, int]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), AwsStub)
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def run_aws_stub() -> Iterator[str]:
    """Start the process that answers for API Gateway and Lambda, and yield its address."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}"
    finally:
        process.terminate()
        process.join()


@dataclass(slots=True)
class Meter:
    """The cost of each kind of message, one entry per message."""

    tap: Tap
    other_calls: int = 0
    costs: dict[str, list[tuple[float, ...]]] = field(default_factory=lambda: defaultdict(list))

    def measure(self, name: str, invoke: Invoke) -> dict[str, Any]:
        """Invoke the handler, record the cost under the name, and return the answer."""
        self.tap.reset()
        self.other_calls, started = 0, time.process_time()
        answer = invoke()
        milliseconds = (time.process_time() - started) * 1e3
        tap = self.tap
        traffic = tap.bytes_sent + tap.bytes_received
        cost = (tap.requests, self.other_calls, tap.read_units, tap.write_units, traffic, milliseconds)
        self.costs[name].append(cost)
        assert answer["statusCode"] == 200, (name, answer)
        return answer

    def count_other_call(self, **_: Any) -> None:
        """Count one call to another service than the database."""
        self.other_calls += 1

    def rows(self) -> Iterator[str]:
        """A line for each kind: the medians, and also the least CPU, because other load on the machine can only add to
        it."""
        yield f"{'':<22}{'database':>9}{'other':>7}{'read':>7}{'write':>7}{'':>9}{'CPU ms':>8}{'':>8}"
        yield f"{'message':<22}{'calls':>9}{'calls':>7}{'units':>7}{'units':>7}{'bytes':>9}{'median':>8}{'least':>8}"
        for name, costs in self.costs.items():
            calls, other, read, written, traffic, cpu = map(statistics.median, zip(*costs[WARM_UP:], strict=True))
            least = min(cost[-1] for cost in costs)
            yield f"{name:<22}{calls:>9g}{other:>7g}{read:>7g}{written:>7g}{traffic:>9.0f}{cpu:>8.1f}{least:>8.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The handlers, called as Lambda calls them."""

    meter: Meter
    provider: FakeProvider
    charger: Callable[..., dict[str, Any]]
    driver: Callable[..., dict[str, Any]]

    def send_call(self, action: str, *, name: str | None = None, **payload: Any) -> dict[str, Any]:
        """Send a CALL as the charger and return the answer; its cost is recorded under the name, or else the action."""
        answer = self._send_frame(name or action, [2, "0" * 36, action, payload])
        return dict(json.loads(answer["body"])[2])

    def accept_call(self, call_id: str) -> None:
        """Answer our CALL with Accepted as the charger."""
        self._send_frame("(its answer to us)", [3, call_id, {"status": "Accepted"}])

    def send_request(self, name: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request as the driver's page and return the answer."""
        http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "bench"}
        event = {
            "version": "2.0",
            "routeKey": f"{method} {path}",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"content-type": "application/json", ORIGIN_HEADER: os.environ["ORIGIN_SECRET"]},
            "requestContext": {"http": http, "requestId": events.new_id(), "stage": "$default"},
            "isBase64Encoded": False,
        } | ({"body": json.dumps(body)} if body is not None else {})
        answer = self.meter.measure(name, lambda: self.driver(event, context()))
        return dict(json.loads(answer["body"]))

    def _send_frame(self, name: str, frame: list[Any]) -> dict[str, Any]:
        peer = events.Peer(
            connection_id=SOCKET, connected_at=0, source_ip="127.0.0.1", user_agent="", domain_name="bench"
        )
        event = events.message(peer, json.dumps(frame), arrived_at=events.now_millis())
        return self.meter.measure(name, lambda: self.charger(event, context()))


def context() -> Context:
    """The context argument that Lambda passes."""
    return Context(function_name="bench", deadline=time.monotonic() + 30)


def run_session(product: Product, store: Store, number: int) -> None:
    """Run one paid charge from the page to the bill, in the order of the messages, with each kind of message at least
    once."""
    now = datetime.now(UTC)
    at, meter = now.isoformat(), 1000 * number

    def status(raw: str, when: str) -> None:
        name, stamp = f"Status, {when}", datetime.now(UTC).isoformat()
        product.send_call(
            "StatusNotification", name=name, connectorId=1, errorCode="NoError", status=raw, timestamp=stamp
        )

    product.send_call("Heartbeat")
    status("Available", "free")
    product.send_request("GET connector", "GET", f"/payments/connectors/{NAME}/1")
    created = product.send_request("POST create", "POST", "/payments/create", {"chargePointId": NAME, "connectorId": 1})
    rid = created["reservationId"]
    held = store.reservation(rid)
    product.provider.pay(held.checkout_id or "")
    product.send_request("POST confirm", "POST", "/payments/confirm", {"reservationId": rid})
    product.accept_call(store.snapshot(NAME).calls[0].call_id)
    product.send_call("Authorize", idTag=held.id_tag)
    begun = product.send_call("StartTransaction", connectorId=1, idTag=held.id_tag, meterStart=meter, timestamp=at)
    for minute in range(3):
        stamp = (now + timedelta(minutes=minute)).isoformat()
        register = {"value": str(meter + 300 * minute), "unit": "Wh"}
        values = [{"timestamp": stamp, "sampledValue": [register, *SAMPLES]}]
        product.send_call("MeterValues", connectorId=1, transactionId=begun["transactionId"], meterValue=values)
        product.send_request("GET status", "GET", f"/payments/status/{rid}")
    status("Finishing", "charging")
    product.send_call("StopTransaction", transactionId=begun["transactionId"], meterStop=meter + 900, timestamp=at)


def measure_messages() -> Iterator[str]:
    """The table of messages."""
    with database.start() as engine, run_aws_stub() as aws:
        os.environ |= environment(**engine.environment(), AWS_ENDPOINT_URL_LAMBDA=aws, WEBSOCKET_API_URL=f"{aws}/ocpp")
        meter = Meter(tap=Tap())
        boto3.setup_default_session()
        # Clients inherit the event handlers of the session that creates them.
        meter.tap.listen(boto3.DEFAULT_SESSION.events)
        for service in ("lambda", "apigatewaymanagementapi"):
            boto3.DEFAULT_SESSION.events.register(f"before-send.{service}", meter.count_other_call)
        client = database.client(engine.endpoint)
        database.create_table(client, table_definition(os.environ["TABLE_NAME"]))
        store = Store(client, os.environ["TABLE_NAME"])
        seed(store)
        provider = FakeProvider()
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            charger, driver = (import_module(f"functions.{name}.app") for name in ("ws_message", "payments"))
            driver.drivers = Drivers(build_dependencies(provider))
            product = Product(
                meter=meter, provider=provider, charger=charger.lambda_handler, driver=driver.lambda_handler
            )
            for number in range(SESSIONS):
                run_session(product, store, number)
        yield str(engine.engine)
        yield from meter.rows()


def build_dependencies(provider: FakeProvider) -> Dependencies:
    """The dependencies of functions/payments, with the given provider."""
    settings = Settings.load(os.environ)
    return Dependencies(
        store=Store(boto3.client("dynamodb"), settings.table_name),
        dialects=DIALECTS,
        gateway=Gateway(boto3.client("apigatewaymanagementapi", endpoint_url=settings.websocket_api_url)),
        provider=provider,
        policy=settings.policy,
        public_url=settings.public_url,
    )


def seed(store: Store) -> None:
    """Register a station with two connectors, and connect it."""
    now = datetime.now(UTC)
    lasting = now + timedelta(hours=1)
    tariff = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)
    known = Station(station_id=NAME, identity=NAME, password_hash="", connectors=(1, 2), tariff=tariff)
    online = Presence(
        station_id=NAME,
        connection_id=SOCKET,
        protocol=Protocol.OCPP16,
        epoch="00000000",
        connected_at=now,
        last_seen_at=now,
        lease_until=lasting,
    )
    socket = Connection(connection_id=SOCKET, station_id=NAME, protocol=Protocol.OCPP16, expires_at=lasting)
    store.commit([Save(known), Save(online), Append(socket), Append(IdTag(tag="CARD", status=TagStatus.ACCEPTED))])


def environment(**more: str) -> dict[str, str]:
    """The environment of the functions."""
    return {
        "TABLE_NAME": "csms",
        "MAX_POWER_KW": "1000000",  # A whole session takes milliseconds here.
        "POWER_TOLERANCE_PERCENT": "1000000000",
        "PUBLIC_URL": "https://csms.example",
        "ORIGIN_SECRET": "bench",
        "MAINTENANCE_FUNCTION": "maintenance",
        "WEBSOCKET_API_URL": "https://csms.example/ocpp",
        "STRIPE_API_KEY": "sk_test_bench",
        "STRIPE_WEBHOOK_SECRET": "whsec_bench",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{CORE}",
        **database.CREDENTIALS,
        **more,
    }


def main() -> None:
    for line in measure_messages():
        print(line)


if __name__ == "__main__":
    main()
