"""functions/operations as Lambda runs it: events of payload format 2.0 in, answers out; DynamoDB is moto's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import boto3
import pytest
from moto import mock_aws

from csms.model import Append, Save, UnknownStation
from csms.ocpp import kept_messages
from csms.ocpp.kept_messages import ReceivedMessage
from infra import routes
from local.invoke import REGION
from tests import builders as b
from tests.app import Json
from tests.app.handlers import CLAIMS, NEXT_ORIGIN, ORIGIN, HandlerApp, capture_logs
from tests.tables import Table, create_unique_table

TARIFF: Final = {"currency": "EUR", "pricePerKwh": "59.5", "sessionFee": 50}
REGISTRATION: Final = {"connectors": [1, 2], "tariff": TARIFF}
COMMAND_BODY: Final = {"reason": "Idle on the camera.", "expected": "Unknown"}
SETTLED = COMMAND_BODY | {"capturedAmount": 100}
BILLED = COMMAND_BODY | {"energyWh": 8300}
RESET: Final = "/operations/stations/CP-1/connectors/1/reset-status"


@pytest.fixture(scope="module")
def deployed_function() -> Iterator[tuple[HandlerApp, Table]]:
    """The function, imported once on a table of its own; nobody answers for the socket or for maintenance."""
    with mock_aws(), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        table = create_unique_table(boto3.client("dynamodb"))
        environment.setenv("TABLE_NAME", table.name)
        environment.setenv("WEBSOCKET_API_URL", f"https://api.execute-api.{REGION}.amazonaws.com/ocpp")
        environment.setenv("MAINTENANCE_FUNCTION", "maintenance")
        environment.setenv("ORIGIN_SECRET", ORIGIN)
        environment.setenv("NEXT_ORIGIN_SECRET", NEXT_ORIGIN)
        environment.setenv("POWERTOOLS_METRICS_DISABLED", "true")
        sys.modules.pop("functions.operations.app", None)
        yield HandlerApp(store=table.store), table
        sys.modules.pop("functions.operations.app", None)


@pytest.fixture
def function(deployed_function: tuple[HandlerApp, Table]) -> HandlerApp:
    """The function on an empty table."""
    it, table = deployed_function
    for item in table.items():
        key = {"PK": {"S": item["PK"]}, "SK": {"S": item["SK"]}}
        table.client.delete_item(TableName=table.name, Key=key)
    return it


def error_code(answer: tuple[int, Json]) -> tuple[int, str]:
    status, body = answer

    assert {"status", "message"} <= body.keys()
    return status, body["status"]


def test_every_operator_route_is_served(function: HandlerApp) -> None:
    names = {"stationId": "nobody", "connectorId": "1", "transactionId": "1", "reservationId": "0" * 32}
    bodies = {"PUT": REGISTRATION, "POST": COMMAND_BODY}
    inbox = "/operations/unknown-stations"
    lists = {"/operations/stations", "/operations/payments", inbox}
    payment = "/operations/payments/{reservationId}"
    own_bodies = {f"{payment}/settle": SETTLED, f"{payment}/bill": BILLED}
    rows = [row for row in routes.HTTP if row.function == "operations" and row.method != "PUT"]

    told = {
        row.path: error_code(
            function.ask(row.method, row.path.format(**names), own_bodies.get(row.path, bodies.get(row.method)))
        )
        for row in rows
        if row.path not in lists | {f"{inbox}/{{stationId}}/accept"}
    }

    assert {(404, "UnknownStation"), (404, "UnknownTransaction"), (404, "UnknownReservation")} == set(told.values())
    accept = function.ask("POST", "/operations/unknown-stations/nobody/accept", REGISTRATION)
    assert (404, "NoConnectionAttempt") == error_code(accept)
    assert {"stations": [], "next": None} == function.request_ok("GET", "/operations/stations")
    assert {"unknownStations": [], "next": None} == function.request_ok("GET", inbox)
    assert {"payments": [], "next": None} == function.request_ok("GET", "/operations/payments")


@pytest.mark.note("F75")
@pytest.mark.parametrize("claims", [None, {}, {"sub": ""}], ids=["no authorizer", "no claims", "no name"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_missing_token_claims_return_401(function: HandlerApp, method: str, claims: Any) -> None:
    answer = function.ask(method, "/operations/stations/CP-1", REGISTRATION, claims=claims)

    assert (401, "Unauthorized") == error_code(answer)


@pytest.mark.note("F75")
def test_operator_name_is_email_or_subject(function: HandlerApp) -> None:
    function.request_ok("PUT", "/operations/stations/CP-1", REGISTRATION)
    function.ask("POST", RESET, COMMAND_BODY, claims=CLAIMS)
    function.ask("POST", RESET, COMMAND_BODY | {"expected": "Available"}, claims={"sub": "7e1f"})

    timeline = function.request_ok("GET", "/operations/stations/CP-1/connectors/1/occupancy")["timeline"]

    assert ["7e1f", "eve@example.org"] == [e["detail"]["who"] for e in timeline if e["kind"] == "StatusReset"]


@pytest.mark.note("F75")
def test_operator_action_is_counted_and_logged(function: HandlerApp, capsys: pytest.CaptureFixture[str]) -> None:
    function.request_ok("PUT", "/operations/stations/CP-1", REGISTRATION)

    line, metrics = capture_logs("operations", capsys, lambda: function.request_ok("POST", RESET, COMMAND_BODY))

    assert {"action": "ResetStatus", "who": "eve@example.org"} == line["operation"]
    assert [1.0] == metrics["ResetStatus"]


def test_registered_station_answer_hides_password(function: HandlerApp) -> None:
    wanted = REGISTRATION | {"password": "correct horse", "timeZone": "Europe/Berlin", "free": True}

    told = function.request_ok("PUT", "/operations/stations/CP-1", wanted)

    shown = json.dumps([told, function.request_ok("GET", "/operations/stations/cp-1")])
    assert [] == [secret for secret in ("scrypt", "password", "correct horse") if secret in shown]
    assert ("59.5", 50, True) == (told["tariff"]["pricePerKwh"], told["tariff"]["minimumAmount"], told["free"])


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "nonsense",
        [],
        REGISTRATION | {"surprise": 1},
        REGISTRATION | {"connectors": []},
        REGISTRATION | {"connectors": ["1"]},
        REGISTRATION | {"connectors": [0]},
        REGISTRATION | {"password": "short"},
        REGISTRATION | {"timeZone": "Europe/Atlantis"},
        REGISTRATION | {"free": "yes"},
        *(REGISTRATION | {"maxPowerW": power} for power in (0, -1, 10**9 + 1, "22000", 22_000.5, True)),
        *(
            REGISTRATION | {"quirks": names}
            for names in (["no such quirk"], ["hexadecimal_tag", ""], "hexadecimal_tag", [1])
        ),
        REGISTRATION | {"tariff": TARIFF | {"pricePerKwh": 59.5}},
        REGISTRATION | {"tariff": TARIFF | {"pricePerKwh": "-1"}},
        REGISTRATION | {"tariff": TARIFF | {"currency": "Euro"}},
        REGISTRATION | {"tariff": TARIFF | {"sessionFee": -1}},
        REGISTRATION | {"tariff": TARIFF | {"currency": "XAU"}},
        REGISTRATION | {"tariff": TARIFF | {"exponent": 3}},
        REGISTRATION | {"tariff": TARIFF | {"idlePricePerMinute": "10"}},
        REGISTRATION | {"tariff": TARIFF | {"idlePricePerMinute": 10, "idleMaximum": 1000}},
        REGISTRATION | {"tariff": TARIFF | {"idleGraceMinutes": -1}},
        REGISTRATION | {"tariff": TARIFF | {"idleFreeFrom": "22:00"}},
        REGISTRATION | {"tariff": TARIFF | {"idleFreeFrom": "22:00", "idleFreeUntil": "25:00"}},
        REGISTRATION | {"tariff": TARIFF | {"idleFreeFrom": "22:00", "idleFreeUntil": "22:00"}},
        REGISTRATION | {"tariff": TARIFF | {"vatPercent": "100"}},
        REGISTRATION | {"tariff": TARIFF | {"maxAmount": 49}},
        REGISTRATION | {"tariff": TARIFF | {"minimumEnergyWh": 40_001}},
    ],
    ids=str,
)
def test_invalid_registration_returns_400(function: HandlerApp, wrong: Any) -> None:
    assert (400, "BadRequest") == error_code(function.ask("PUT", "/operations/stations/CP-1", wrong))
    assert 404 == function.ask("GET", "/operations/stations/CP-1")[0]


def test_quirks_are_set_and_given_back(function: HandlerApp) -> None:
    bodies = [REGISTRATION | {"quirks": names} for names in (["tag_up_to_16", "hexadecimal_tag"], [], None)]

    told = [function.request_ok("PUT", "/operations/stations/CP-1", body) for body in (*bodies, REGISTRATION)]

    assert [["hexadecimal_tag", "tag_up_to_16"], [], None, None] == [answer["quirks"] for answer in told]


def test_max_power_is_registered_until_left_out(function: HandlerApp) -> None:
    bodies = (REGISTRATION | {"maxPowerW": 22_000}, REGISTRATION)

    told = [function.request_ok("PUT", "/operations/stations/CP-1", body)["maxPowerW"] for body in bodies]

    assert [22_000, None] == told


@pytest.mark.note("F68")
def test_full_tariff_is_registered_and_returned(function: HandlerApp) -> None:
    tariff = TARIFF | {
        "idlePricePerMinute": "12.5",
        "idleGraceMinutes": 20,
        "idleMaximum": 1000,
        "idleFreeFrom": "22:00",
        "idleFreeUntil": "06:00",
        "vatPercent": "19",
        "maxEnergyWh": 30_000,
        "maxAmount": 2000,
        "minimumEnergyWh": 500,
        "minimumAmount": 100,
    }

    told = function.request_ok("PUT", "/operations/stations/CP-1", REGISTRATION | {"tariff": tariff})["tariff"]

    assert tariff | {"exponent": 2} == told
    assert told == function.request_ok("PUT", "/operations/stations/CP-1", REGISTRATION | {"tariff": told})["tariff"]


@pytest.mark.note("F70")
@pytest.mark.parametrize(("currency", "exponent"), [("JPY", 0), ("EUR", 2), ("BHD", 3)])
def test_exponent_follows_the_currency(function: HandlerApp, currency: str, exponent: int) -> None:
    tariff = TARIFF | {"currency": currency}

    told = function.request_ok("PUT", "/operations/stations/CP-1", REGISTRATION | {"tariff": tariff})

    assert exponent == told["tariff"]["exponent"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (REGISTRATION | {"tariff": TARIFF | {"pricePerKwh": 59.5}}, "tariff.pricePerKwh: must be a price in minor "),
        (
            REGISTRATION | {"tariff": TARIFF | {"currency": "Euro"}},
            "tariff.currency: must be an ISO 4217 currency code, ",
        ),
        (REGISTRATION | {"tariff": TARIFF | {"sessionFee": -1}}, "tariff.sessionFee: must be an integer of minor "),
        (REGISTRATION | {"tariff": {"currency": "EUR"}}, "tariff.pricePerKwh: Field required"),
        (REGISTRATION | {"tariff": 1}, "tariff: Input should be an object"),
        (REGISTRATION | {"tariff": TARIFF | {"surprise": 1}}, "tariff.surprise: Extra inputs are not permitted"),
        (REGISTRATION | {"connectors": ["1"]}, "connectors: must be an array of 1 to 64 connector numbers "),
        (REGISTRATION | {"password": "short"}, "password: String should have at least 8 characters"),
        ("nonsense", "body: Invalid JSON: expected "),
    ],
    ids=str,
)
def test_invalid_body_field_is_explained(function: HandlerApp, wrong: Any, message: str) -> None:
    _, told = function.ask("PUT", "/operations/stations/CP-1", wrong)

    assert told["message"].startswith(message), told


def test_invalid_tariff_is_explained(function: HandlerApp) -> None:
    wrong = REGISTRATION | {"tariff": TARIFF | {"idlePricePerMinute": "10"}}

    _, told = function.ask("PUT", "/operations/stations/CP-1", wrong)

    assert {"status": "BadRequest", "message": "idleMaximum must be above 0 if idlePricePerMinute is."} == told


@pytest.mark.note("F75")
@pytest.mark.parametrize(
    "wrong",
    [{}, {"expected": "Unknown"}, {"reason": "Idle."}, COMMAND_BODY | {"reason": "  "}, COMMAND_BODY | {"force": True}],
    ids=["nothing", "no reason", "no state", "an empty reason", "more"],
)
def test_action_requires_reason_and_expected_state(function: HandlerApp, wrong: Json) -> None:
    function.request_ok("PUT", "/operations/stations/CP-1", REGISTRATION)

    assert (400, "BadRequest") == error_code(function.ask("POST", RESET, wrong))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/operations/stations?limit=0"),
        ("GET", "/operations/stations?limit=many"),
        ("GET", "/operations/stations?state=sleepy"),
        ("GET", "/operations/stations?after=nonsense"),
        ("GET", "/operations/stations?what=1"),
        ("GET", "/operations/stations/CP-1/connectors/one/occupancy"),
        ("POST", "/operations/transactions/-1/close"),
        ("POST", "/operations/reservations/short/cancel"),
    ],
)
def test_invalid_request_returns_400(function: HandlerApp, method: str, target: str) -> None:
    assert (400, "BadRequest") == error_code(function.ask(method, target, COMMAND_BODY if method == "POST" else None))


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("PUT", "/operations/stations/" + "C" * 49, "stationId"),
        ("GET", "/operations/stations/" + "C" * 49, "stationId"),
        ("PUT", "/operations/stations/CP\u202e1", "stationId"),
        ("PUT", "/operations/stations/CP1\n", "stationId"),
        ("GET", "/operations/stations/CP-1/connectors/one/occupancy", "connectorId"),
        ("POST", "/operations/transactions/-1/close", "transactionId"),
        ("POST", "/operations/payments/short/retry", "reservationId"),
    ],
)
def test_wrong_path_parameter_is_named(function: HandlerApp, method: str, target: str, name: str) -> None:
    body = {"POST": COMMAND_BODY, "PUT": REGISTRATION}.get(method)

    _, told = function.ask(method, target, body)

    assert ("BadRequest", name) == (told["status"], told["message"].partition(":")[0])


@pytest.mark.parametrize("identity", ["CP#1", 'a"b', "back\\slash", "straße-1", "e\u0301", "🔌", "%2F"])
def test_every_station_route_takes_every_identity(function: HandlerApp, identity: str) -> None:
    function.request_ok("PUT", f"/operations/stations/{identity}", REGISTRATION)

    for route in ("", "/commands", "/messages", "/refused-connections", "/connectors/1/occupancy"):
        assert 200 == function.ask("GET", f"/operations/stations/{identity}{route}")[0]
    assert identity == function.request_ok("DELETE", f"/operations/stations/{identity}")["identity"]


@pytest.mark.note("F75")
def test_changed_state_returns_409(function: HandlerApp) -> None:
    function.request_ok("PUT", "/operations/stations/CP-1", REGISTRATION)

    status, answer = function.ask("POST", RESET, COMMAND_BODY | {"expected": "Faulted"})

    assert (409, "StateChanged") == (status, answer["status"])
    assert " is Unknown now" in answer["message"]


@pytest.mark.note("F75")
def test_deleting_station_in_use_returns_409(function: HandlerApp) -> None:
    function.store.commit([Save(replace(b.station(), version=0))])
    function.store.commit([Save(b.connector(transaction=b.open_transaction(), version=0))])

    assert (409, "IllegalTransition") == error_code(function.ask("DELETE", "/operations/stations/CP-1"))
    assert 200 == function.ask("GET", "/operations/stations/CP-1")[0]


def test_station_list_pages_are_complete(function: HandlerApp) -> None:
    wanted = {f"CP-{number}" for number in range(5)}
    for identity in wanted:
        function.request_ok("PUT", f"/operations/stations/{identity}", REGISTRATION)

    listed: list[str] = []
    page: Json = {"next": ""}
    while page["next"] is not None:
        after = f"&after={page['next'].replace('#', '%23')}" if page["next"] else ""
        page = function.request_ok("GET", f"/operations/stations?limit=2{after}")
        listed += [row["identity"] for row in page["stations"]]

    assert sorted(wanted) == sorted(listed)


def test_unexpected_error_returns_500_without_trace(function: HandlerApp, monkeypatch: pytest.MonkeyPatch) -> None:
    operators = sys.modules["functions.operations.app"].operators

    def fails() -> None:
        raise RuntimeError("a secret of the house")

    monkeypatch.setattr(operators, "unknown_stations", fails)

    status, answer = function.ask("GET", "/operations/unknown-stations")

    assert (500, "InternalError") == (status, answer["status"])
    assert "secret" not in json.dumps(answer)


@pytest.mark.parametrize("origin", ["around", "störung", ""])
@pytest.mark.parametrize("route", [route for route in routes.HTTP if route.operator], ids=lambda it: it.path)
def test_request_around_cloudfront_is_403(function: HandlerApp, route: routes.Route, origin: str) -> None:
    asked: list[str] = []
    client = sys.modules["functions.operations.app"].operators._dependencies.store._client
    client.meta.events.register("before-send.dynamodb", lambda **_: asked.append("asked"), unique_id="around")
    try:
        answer = function.ask(route.method, route.path, {}, x_origin_verify=origin)
    finally:
        client.meta.events.unregister("before-send.dynamodb", unique_id="around")

    assert (403, "Forbidden") == error_code(answer)
    assert [] == asked


def test_next_origin_secret_is_accepted(function: HandlerApp) -> None:
    assert 200 == function.ask("GET", "/operations/stations", x_origin_verify=NEXT_ORIGIN)[0]


def test_unknown_path_returns_404(function: HandlerApp) -> None:
    assert (404, "NotFound") == error_code(function.ask("GET", "/operations/nothing"))


# Unknown stations


@pytest.mark.note("F49")
def test_unknown_stations_are_listed_in_pages(function: HandlerApp) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    for number in range(3):
        row = UnknownStation(
            station_id=f"x{number}", identity=f"X{number}", last_seen_at=datetime.now(UTC), expires_at=later
        )
        function.store.commit([Append(replace(row, is_steady=number == 2))])

    first = function.request_ok("GET", "/operations/unknown-stations?limit=2")
    rest = function.request_ok("GET", f"/operations/unknown-stations?limit=2&after={quote(first['next'])}")

    assert [["X2", "X0"], ["X1"]] == [[row["identity"] for row in page["unknownStations"]] for page in (first, rest)]
    assert [True, False] == [row["steady"] for row in first["unknownStations"]]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "after=x", "before=x"])
def test_unknown_page_of_unknown_stations_is_refused(function: HandlerApp, query: str) -> None:
    assert (400, "BadRequest") == error_code(function.ask("GET", f"/operations/unknown-stations?{query}"))


# Messages of a station


def test_kept_messages_are_listed_in_pages(function: HandlerApp) -> None:
    seen = b.snapshot()
    message = ReceivedMessage(
        station_id="cp-1", action="StatusNotification", message_id="m1", text='{"idTag":"SECRET"}', received_at=b.NOW
    )
    for number in range(3):
        record = kept_messages.build_kept_message(
            message, ["status: unknown value"], datetime.now(UTC), kind=f"{number:08x}", is_quarantined=False
        )
        function.store.commit([Append(record)])
    function.store.commit([Save(replace(seen.station, version=0))])

    first = function.request_ok("GET", "/operations/stations/CP-1/messages?limit=2")
    rest = function.request_ok("GET", f"/operations/stations/CP-1/messages?limit=2&after={quote(first['next'])}")

    assert [2, 1] == [len(page["messages"]) for page in (first, rest)]
    row = first["messages"][0]
    assert ("Irregular", '{"idTag":"***"}', False) == (row["state"], row["text"], row["truncated"])


@pytest.mark.parametrize("query", ["limit=0", "limit=21", "after=now", "before=x"])
def test_wrong_message_page_returns_400(function: HandlerApp, query: str) -> None:
    assert (400, "BadRequest") == error_code(function.ask("GET", f"/operations/stations/CP-1/messages?{query}"))
