"""What an operator does, over real sockets: the whole stack on a laptop, a station that speaks OCPP 1.6, and the
scripts that a person runs beside it."""

import base64
import http.client
import json
import queue
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pytest
from aws_lambda_powertools.utilities.parser.models import APIGatewayProxyEventV2Model
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from csms.adapters.dynamodb import Store
from csms.model import Connector, ConnectorState, PersistedStatus, Save, StatusSource, fold, format_time
from infra import routes
from local import database, explain, maintain, operator_token, story
from local.gateway import Gateway
from local.gateway import run_gateway as gateway_running
from local.stack import TABLE, Options, Secrets, Stack, run_stack

SOON: Final = 10.0
SPEED: Final = 2000.0
"""A whole charge takes a moment here, and no bill for it is held back."""
TOKEN: Final = "the-operators-token"
PASSWORD: Final = "a password of 1"
TARIFF: Final = {"currency": "EUR", "pricePerKwh": "59.5", "sessionFee": 50, "maxEnergyWh": 30_000}
REGISTRATION: Final = {"connectors": [1, 2], "tariff": TARIFF, "password": PASSWORD}
NUMBERS: Final = count(1)
OPERATORS: Final = [row for row in routes.HTTP if row.operator]
REASON: Final = "The bay is empty on the camera."

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP API of the stack, asked by an operator with this token."""

    url: str
    token: str | None = TOKEN

    def ask(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
        status, _, answer = self.ask_raw(method, path, body)
        return status, answer

    def ask_raw(self, method: str, path: str, body: Json | None = None) -> tuple[int, Any, Json]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=SOON)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        text = json.dumps(body) if body is not None else None
        connection.request(method, path, text, headers | {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.status, response.headers, json.loads(response.read())
        connection.close()
        return answer

    def request_ok(self, method: str, path: str, body: Json | None = None) -> Json:
        status, answer = self.ask(method, path, body)

        assert 200 == status, answer
        return answer

    def occupancy(self, station: str, connector: int = 1) -> Json:
        return self.request_ok("GET", f"/operations/stations/{station}/connectors/{connector}/occupancy")


@dataclass(slots=True)
class Charger:
    """A station's end of its socket; it accepts whatever it is asked, and keeps it for the test to look at."""

    connection: ClientConnection
    received_calls: "queue.SimpleQueue[tuple[str, Json]]" = field(default_factory=queue.SimpleQueue)
    calls: int = 0

    def call(self, action: str, **payload: Any) -> Json:
        """What the back end answers."""
        self.calls += 1
        self.connection.send(json.dumps([2, str(self.calls), action, payload]))
        while True:
            frame = self._frame()
            if frame[0] == 3 and frame[1] == str(self.calls):
                answer: Json = frame[2]
                return answer

    def receive_call(self, action: str) -> Json:
        """The payload of the next request of this action."""
        while True:
            while self.received_calls.empty():
                self._frame()
            name, payload = self.received_calls.get()
            if name == action:
                return payload

    def report_status(self, status: str, connector: int = 1) -> None:
        self.call("StatusNotification", connectorId=connector, errorCode="NoError", status=status)

    def start_transaction(self, tag: str, connector: int = 1) -> int:
        begun = self.call(
            "StartTransaction",
            connectorId=connector,
            idTag=tag,
            meterStart=1000,
            timestamp=format_time(datetime.now(UTC)),
        )
        return int(begun["transactionId"])

    def _frame(self) -> list[Any]:
        frame: list[Any] = json.loads(self.connection.recv(SOON))
        if frame[0] == 2:
            self.received_calls.put((frame[2], frame[3]))
            self.connection.send(json.dumps([3, frame[1], {"status": "Accepted"}]))
        return frame


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if not database.DYNOXIDE.exists():
        pytest.skip("dynoxide has no binary for this platform")
    secrets = Secrets(origin="the-edge", webhook="whsec_local", operator=TOKEN)
    never = timedelta(hours=1)  # The sweep is only by hand.
    with run_stack(Options(sites=(), secrets=secrets, engine="dynoxide", sweep=never, speed=SPEED)) as it:
        yield it


@pytest.fixture
def api(stack: Stack) -> Api:
    return Api(stack.url)


@contextmanager
def connect_station(stack: Stack, identity: str, password: str = PASSWORD) -> Iterator[Charger]:
    """The station's socket, open until the block ends."""
    credentials = base64.b64encode(f"{identity}:{password}".encode()).decode()
    with connect(
        f"{stack.ocpp_url}/{quote(identity)}",
        additional_headers={"Authorization": f"Basic {credentials}"},
        subprotocols=["ocpp1.6"],  # type: ignore[list-item]
        compression=None,
        proxy=None,
    ) as connection:
        yield Charger(connection)


@pytest.fixture
def charger(stack: Stack, api: Api) -> Iterator[tuple[str, Charger]]:
    """A station of the test's own, registered and online with both connectors Available."""
    identity = f"CP-{next(NUMBERS)}"
    api.request_ok("PUT", f"/operations/stations/{identity}", REGISTRATION)
    with connect_station(stack, identity) as socket:
        socket.call("BootNotification", chargePointVendor="V", chargePointModel="M")
        for connector in (1, 2):
            socket.report_status("Available", connector)
        yield identity, socket


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def command_body(expected: str) -> Json:
    return {"reason": REASON, "expected": expected}


def example_path(route: routes.Route) -> str:
    names = {"stationId": "CP-1", "connectorId": "1", "transactionId": "1", "reservationId": "0" * 32}
    return route.path.format(**names)


@pytest.mark.note("F75")
@pytest.mark.parametrize("token", [None, "", "wrong", f"{TOKEN}x"], ids=["none", "empty", "wrong", "longer"])
@pytest.mark.parametrize("route", OPERATORS, ids=lambda route: f"{route.method} {route.path}")
def test_missing_or_wrong_token_returns_401(stack: Stack, route: routes.Route, token: str | None) -> None:
    status, headers, answer = Api(stack.url, token).ask_raw(route.method, example_path(route), {})

    assert (401, {"message": "Unauthorized"}) == (status, answer)
    assert "Bearer" == headers["WWW-Authenticate"]


def test_only_operator_event_has_jwt_claims() -> None:
    events: list[Json] = []

    def seen(event: Json, _: Any) -> Json:
        events.append(event)
        return {"statusCode": 200, "body": "{}"}

    handlers = {"operations": seen, "payments": seen}
    with gateway_running(Gateway(handlers, origin_secret="s", operator_token=TOKEN, web=Path(__file__).parent)) as url:
        Api(url).request_ok("GET", "/operations/strangers")
        Api(url).request_ok("GET", "/payments/status/x")

    operator, driver = events
    assert APIGatewayProxyEventV2Model.model_validate(operator)
    assert {"sub", "email"} <= operator["requestContext"]["authorizer"]["jwt"]["claims"].keys()
    assert "authorizer" not in driver["requestContext"]


def test_gateway_without_token_refuses_operators() -> None:
    with gateway_running(Gateway({}, origin_secret="s", web=Path(__file__).parent)) as url:
        assert 401 == Api(url, "").ask("GET", "/operations/strangers")[0]


@pytest.mark.note("F49")
def test_accepted_unknown_station_connects_with_password(stack: Stack, api: Api) -> None:
    with pytest.raises(InvalidStatus) as refused, connect_station(stack, "New-1"):
        pytest.fail("was let in")
    inbox = api.request_ok("GET", "/operations/strangers")["strangers"]

    accepted = api.request_ok(
        "POST", "/operations/strangers/new-1/accept", {"connectors": [1], "tariff": TARIFF, "timeZone": "Europe/Berlin"}
    )

    assert 404 == refused.value.response.status_code
    assert ["New-1"] == [unknown_station["identity"] for unknown_station in inbox]
    assert ("New-1", "Europe/Berlin") == (accepted["identity"], accepted["timeZone"])
    assert 20 == len(accepted["password"])
    assert [] == api.request_ok("GET", "/operations/strangers")["strangers"]
    with connect_station(stack, "New-1", accepted["password"]) as socket:
        assert "Accepted" == socket.call("BootNotification", chargePointVendor="V", chargePointModel="M")["status"]
    shown = json.dumps(api.request_ok("GET", "/operations/stations/New-1"))
    assert accepted["password"] not in shown
    assert "scrypt" not in shown
    assert 404 == api.ask("POST", "/operations/strangers/New-1/accept", REGISTRATION)[0]


@pytest.mark.note("F75")
def test_occupancy_shows_each_predicate_with_evidence(api: Api, charger: tuple[str, Charger]) -> None:
    identity, socket = charger
    transaction_id = socket.start_transaction("CARD")
    socket.report_status("Charging")

    answer = api.occupancy(identity)

    assert ["LiveStatus:Occupied", "OpenTransaction"] == answer["reasons"]
    findings = {finding["predicate"]: finding for finding in answer["findings"]}
    assert ["Online", "Charging", str(transaction_id), None, "Charging"] == [f["value"] for f in findings.values()]
    assert findings["open_transaction"]["clears"] is not None
    assert all(finding["ageSeconds"] in range(60) for finding in findings.values() if finding["since"])
    assert ("Charging", "Charging") == (answer["status"]["live"]["raw"], answer["status"]["persisted"]["raw"])
    assert str(transaction_id) == answer["transaction"]["transactionId"]
    assert "StatusChanged" == answer["timeline"][0]["kind"]
    assert {"connector": 1, "status": "Charging", "was": "Available"} == answer["timeline"][0]["detail"]
    assert [] == api.occupancy(identity, 2)["reasons"]


@pytest.mark.note("F75")
def test_status_reset_is_audited_and_asks_station(api: Api, charger: tuple[str, Charger]) -> None:
    identity, socket = charger
    socket.report_status("Finishing")
    path = f"/operations/stations/{identity}/connectors/1/reset-status"

    status, refused = api.ask("POST", path, command_body("Faulted"))
    api.request_ok("POST", path, command_body("Finishing"))

    assert (409, "StateChanged") == (status, refused["status"])
    assert "Finishing" in refused["message"]
    answer = api.occupancy(identity)
    assert (True, "Available", "operator") == (
        answer["startable"],
        answer["status"]["state"],
        answer["status"]["persisted"]["source"],
    )
    entry = next(entry for entry in answer["timeline"] if entry["kind"] == "StatusReset")
    assert {"connector": 1, "was": "Finishing", "who": "operator@localhost", "why": REASON} == entry["detail"]
    assert {"requestedMessage": "StatusNotification", "connectorId": 1} == socket.receive_call("TriggerMessage")


@pytest.mark.note("F75")
def test_orphaned_transaction_closes_once_with_remote_stop(api: Api, charger: tuple[str, Charger]) -> None:
    identity, socket = charger
    transaction_id = socket.start_transaction("CARD")
    path = f"/operations/transactions/{transaction_id}/close"

    closed = api.request_ok("POST", path, command_body("Open"))
    again, refused = api.ask("POST", path, command_body("Open"))

    assert ("Stopped", "ClosedByOperator") == (closed["state"], closed["reason"])
    assert [] == api.occupancy(identity)["reasons"]
    assert {"transactionId": transaction_id} == socket.receive_call("RemoteStopTransaction")
    assert (409, "StateChanged") == (again, refused["status"])


@pytest.mark.note("F75")
def test_cancelled_reservation_frees_connector_at_once(api: Api, charger: tuple[str, Charger]) -> None:
    identity, _ = charger
    created = api.request_ok("POST", "/payments/create", {"chargePointId": identity, "connectorId": 1})
    path = f"/operations/reservations/{created['reservationId']}/cancel"

    changed, refused = api.ask("POST", path, command_body("Authorized"))
    in_use, _ = api.ask("DELETE", f"/operations/stations/{identity}")
    cancelled = api.request_ok("POST", path, command_body("PendingPayment"))

    assert (409, "StateChanged", 409) == (changed, refused["status"], in_use)
    assert ("Cancelled", "CancelledByOperator") == (cancelled["state"], cancelled["failureCode"])
    assert f"operator@localhost: {REASON}" == cancelled["steps"][-1]["detail"]
    assert api.occupancy(identity)["startable"]


@pytest.mark.note("F75")
def test_closing_transaction_captures_its_bill(api: Api, charger: tuple[str, Charger]) -> None:
    identity, socket = charger
    created = api.request_ok("POST", "/payments/create", {"chargePointId": identity, "connectorId": 1})
    reservation_id = created["reservationId"]
    story.pay(created["checkoutUrl"])
    transaction_id = socket.start_transaction(socket.receive_call("RemoteStartTransaction")["idTag"])
    register = [{"timestamp": format_time(datetime.now(UTC)), "sampledValue": [{"value": "11000"}]}]
    socket.call("MeterValues", connectorId=1, transactionId=transaction_id, meterValue=register)
    charging, refused = api.ask("POST", f"/operations/reservations/{reservation_id}/cancel", command_body("Charging"))

    api.request_ok("POST", f"/operations/transactions/{transaction_id}/close", command_body("Open"))

    assert (409, "IllegalTransition") == (charging, refused["status"])
    status = f"/payments/status/{reservation_id}"
    wait_until(lambda: api.request_ok("GET", status)["money"] == "captured")
    bill = api.request_ok("GET", status)
    assert ("Completed", 595 + 50, 645) == (bill["status"], bill["amount"], bill["capturedAmount"])
    assert "ClosedByOperator" in [step["event"] for step in bill["steps"]]
    assert REASON not in json.dumps(bill)


@pytest.mark.note("F13")
def test_station_id_ignores_case_keeps_spelling(api: Api, charger: tuple[str, Charger]) -> None:
    identity, _ = charger

    assert identity == api.request_ok("GET", f"/operations/stations/{identity.lower()}")["identity"]
    assert identity == api.request_ok("PUT", f"/operations/stations/{identity.lower()}", REGISTRATION)["identity"]
    assert identity == api.occupancy(identity.lower())["identity"]


def test_stations_are_listed_by_state(api: Api, charger: tuple[str, Charger]) -> None:
    identity, socket = charger

    def listed(state: str) -> bool:
        rows = api.request_ok("GET", f"/operations/stations?limit=100&state={state}")["stations"]
        return identity in [row["identity"] for row in rows]

    assert [True, False, False, False] == [listed(it) for it in ("online", "offline", "busy", "faulted")]
    socket.report_status("Faulted", 2)
    assert [True, False, True, True] == [listed(it) for it in ("online", "offline", "busy", "faulted")]


def test_deleted_station_is_disconnected_and_unknown(stack: Stack, api: Api, charger: tuple[str, Charger]) -> None:
    identity, socket = charger

    api.request_ok("DELETE", f"/operations/stations/{identity}")

    with pytest.raises(ConnectionClosed):
        socket.receive_call("Nothing")
    assert 404 == api.ask("GET", f"/operations/stations/{identity}")[0]
    with pytest.raises(InvalidStatus) as refused, connect_station(stack, identity):
        pytest.fail("was let in")
    assert 404 == refused.value.response.status_code


@pytest.mark.note("F75")
def test_trigger_status_asks_online_station_only(stack: Stack, api: Api, charger: tuple[str, Charger]) -> None:
    identity, socket = charger
    path = f"/operations/stations/{identity}/trigger-status"

    api.request_ok("POST", path, command_body("Online"))

    assert 1 == socket.receive_call("TriggerMessage")["connectorId"]
    socket.connection.close()
    wait_until(lambda: api.request_ok("GET", f"/operations/stations/{identity}")["state"] == "Offline")
    assert [(409, "StateChanged"), (409, "ChargerOffline")] == [
        (status, answer["status"])
        for status, answer in (api.ask("POST", path, command_body(it)) for it in ("Online", "Offline"))
    ]


# The scripts


def test_explain_prints_within_100_columns(
    stack: Stack,
    api: Api,
    charger: tuple[str, Charger],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    identity, socket = charger
    api.request_ok("POST", "/payments/create", {"chargePointId": identity, "connectorId": 1})
    socket.report_status("SuspendedEVSE")
    (tmp_path / "token").write_text(TOKEN)
    arguments = ["--url", stack.url, "--token-file", str(tmp_path / "token")]

    assert 0 == explain.main([identity, "1", *arguments])

    printed = capsys.readouterr().out
    assert printed.startswith(f"{identity}, connector 1, is busy: LiveStatus:Occupied, ActiveReservation.")
    assert "  Clears when its driver or an operator cancels it, or by itself after " in printed
    assert "SuspendedEVSE" in printed
    assert TOKEN not in printed
    assert max(len(line) for line in printed.splitlines()) <= explain.WIDTH


def test_explain_failure_is_one_line(stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, wrong = tmp_path / "token", tmp_path / "wrong"
    kept.write_text(TOKEN)
    wrong.write_text("wrong")
    nobody = f"http://127.0.0.1:{database.free_port()}"

    ends = [
        explain.main([station, "1", "--url", url, "--token-file", str(file)])
        for station, url, file in (
            ("nobody", stack.url, kept),
            ("nobody", stack.url, wrong),
            ("nobody", nobody, kept),
            ("nobody", stack.url, tmp_path / "none"),
        )
    ]

    out, err = capsys.readouterr()
    assert ([1, 1, 1, 1], "") == (ends, out)
    unknown, unauthorised, silent, first_run = err.splitlines()
    assert "404: There is no such station." == unknown
    assert "token" in unauthorised
    assert nobody in silent
    assert "make run" in first_run


def test_maintain_executes_its_dry_run_plan(
    stack: Stack, api: Api, charger: tuple[str, Charger], capsys: pytest.CaptureFixture[str]
) -> None:
    identity, station_id = charger[0], fold(charger[0])
    long_ago = datetime.now(UTC) - timedelta(hours=5)
    stale = PersistedStatus(
        raw="Occupied",
        state=ConnectorState.OCCUPIED,
        at=long_ago,
        source=StatusSource.CHARGER,
        release_at=long_ago + timedelta(hours=4),
    )
    store = Store(database.client(stack.database.endpoint), TABLE)
    store.commit([Save(Connector(station_id=station_id, connector_id=7, persisted=stale))])

    def printed(*arguments: str) -> str:
        assert 0 == maintain.main(["--url", stack.url, *arguments])
        return capsys.readouterr().out

    planned, done, planned_after = printed("--dry-run"), printed(), printed("--dry-run")

    line = f"Connector {station_id} 7: would release its status\n"
    assert (True, True, False) == (line in planned, "1 Connector" in done, line in planned_after)
    assert "StatusReleased" == api.occupancy(identity)["timeline"][0]["kind"]


def test_maintain_without_stack_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == maintain.main(["--url", f"http://127.0.0.1:{database.free_port()}"])
    out, err = capsys.readouterr()
    assert ("", 1) == (out, len(err.splitlines()))


def test_operator_token_is_private_and_stable(tmp_path: Path) -> None:
    path = tmp_path / "operator-token"

    made = operator_token.ensure_token(path)

    assert made == operator_token.ensure_token(path) == operator_token.read_token(path)
    assert 24 <= len(made)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
