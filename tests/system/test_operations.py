"""What an operator does, over real sockets: the whole stack on a laptop, a station that speaks OCPP 1.6, and the
scripts that a person runs beside it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from websockets.exceptions import InvalidStatus

from csms.adapters.dynamodb import Store
from csms.model import Connector, ConnectorState, PersistedStatus, Save, StatusSource, fold
from infra import routes
from local import database, explain, maintain
from local.client import Api, ClientError, connect_station
from local.stack import TABLE, Stack, run_stack
from tests.app import Json
from tests.app.http import HttpApp, wait_until
from tests.app.stack import PASSWORD, REGISTRATION, TOKEN, build_options

NUMBERS: Final = count(1)

OPERATORS: Final = [row for row in routes.HTTP if row.operator]

REASON: Final = "The bay is empty on the camera."


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with run_stack(build_options()) as it:
        yield it


@pytest.fixture
def api(stack: Stack) -> HttpApp:
    return HttpApp(url=stack.url, token=TOKEN)


@pytest.fixture
def app(stack: Stack) -> Iterator[HttpApp]:
    """A station of the test's own, registered and online with both connectors Available."""
    with HttpApp(url=stack.url, token=TOKEN, identity=f"CP-{next(NUMBERS)}", password=PASSWORD) as it:
        it.request_ok("PUT", f"/operations/stations/{it.identity}", REGISTRATION)
        yield it.bring_online()


def command_body(expected: str) -> Json:
    return {"reason": REASON, "expected": expected}


def example_path(route: routes.Route) -> str:
    names = {"stationId": "CP-1", "connectorId": "1", "transactionId": "1", "reservationId": "0" * 32}
    return route.path.format(**names)


@pytest.mark.note("F75")
@pytest.mark.parametrize("token", [None, "", "wrong", f"{TOKEN}x"], ids=["none", "empty", "wrong", "longer"])
@pytest.mark.parametrize("route", OPERATORS, ids=lambda route: f"{route.method} {route.path}")
def test_missing_or_wrong_token_returns_401(stack: Stack, route: routes.Route, token: str | None) -> None:
    answer = Api(url=stack.url, token=token).ask(route.method, example_path(route), {})

    assert (401, {"message": "Unauthorized"}) == (answer.status, answer.body)
    assert "Bearer" == answer.headers["www-authenticate"]


@pytest.mark.note("F49")
def test_accepted_unknown_station_connects_with_password(stack: Stack, api: HttpApp) -> None:
    with pytest.raises(InvalidStatus) as refused, connect_station(stack.ocpp_url, "New-1", PASSWORD):
        pytest.fail("was let in")
    inbox = api.request_ok("GET", "/operations/unknown-stations")["unknownStations"]

    accepted = api.request_ok(
        "POST",
        "/operations/unknown-stations/new-1/accept",
        {"connectors": [1], "tariff": REGISTRATION["tariff"], "timeZone": "Europe/Berlin"},
    )

    assert 404 == refused.value.response.status_code
    assert ["New-1"] == [unknown_station["identity"] for unknown_station in inbox]
    assert ("New-1", "Europe/Berlin") == (accepted["identity"], accepted["timeZone"])
    assert 20 == len(accepted["password"])
    assert [] == api.request_ok("GET", "/operations/unknown-stations")["unknownStations"]
    with connect_station(stack.ocpp_url, "New-1", accepted["password"]) as socket:
        assert "Accepted" == socket.call("BootNotification", chargePointVendor="V", chargePointModel="M")["status"]
    shown = json.dumps(api.request_ok("GET", "/operations/stations/New-1"))
    assert accepted["password"] not in shown
    assert "scrypt" not in shown
    assert 404 == api.ask("POST", "/operations/unknown-stations/New-1/accept", REGISTRATION)[0]


@pytest.mark.note("F75")
def test_occupancy_shows_each_predicate_with_evidence(app: HttpApp) -> None:
    transaction_id = app.start_transaction("CARD")
    app.report_status(1, "Charging")

    answer = app.occupancy()

    assert ["LiveStatus:Occupied", "OpenTransaction"] == answer["reasons"]
    findings = {finding["predicate"]: finding for finding in answer["findings"]}
    assert ["Online", "Charging", str(transaction_id), None, "Charging"] == [f["value"] for f in findings.values()]
    assert findings["open_transaction"]["clears"] is not None
    assert all(finding["ageSeconds"] in range(60) for finding in findings.values() if finding["since"])
    assert ("Charging", "Charging") == (answer["status"]["live"]["raw"], answer["status"]["persisted"]["raw"])
    assert str(transaction_id) == answer["transaction"]["transactionId"]
    assert "StatusChanged" == answer["timeline"][0]["kind"]
    assert {"connector": 1, "status": "Charging", "was": "Available"} == answer["timeline"][0]["detail"]
    assert [] == app.occupancy(2)["reasons"]


@pytest.mark.note("F75")
def test_status_reset_is_audited_and_asks_station(app: HttpApp) -> None:
    identity = app.identity
    app.report_status(1, "Finishing")
    path = f"/operations/stations/{identity}/connectors/1/reset-status"

    status, refused = app.ask("POST", path, command_body("Faulted"))
    app.request_ok("POST", path, command_body("Finishing"))

    assert (409, "StateChanged") == (status, refused["status"])
    assert "Finishing" in refused["message"]
    answer = app.occupancy()
    assert (True, "Available", "operator") == (
        answer["startable"],
        answer["status"]["state"],
        answer["status"]["persisted"]["source"],
    )
    entry = next(entry for entry in answer["timeline"] if entry["kind"] == "StatusReset")
    assert {"connector": 1, "was": "Finishing", "who": "operator@localhost", "why": REASON} == entry["detail"]
    assert {"requestedMessage": "StatusNotification", "connectorId": 1} == app.accept_call("TriggerMessage")


@pytest.mark.note("F75")
def test_orphaned_transaction_closes_once_with_remote_stop(app: HttpApp) -> None:
    transaction_id = app.start_transaction("CARD")
    path = f"/operations/transactions/{transaction_id}/close"

    asked = app.request_ok("POST", path, command_body("Open"))
    same = app.request_ok("POST", path, command_body("Open"))
    commanded = app.accept_call("RemoteStopTransaction")
    wait_until(lambda: app.occupancy()["reasons"] == [], seconds=30)
    again, refused = app.ask("POST", path, command_body("Open"))

    assert ("Open", None) == (asked["state"], asked["reason"])
    assert (asked, True) == (same, asked["closesBy"] is not None)
    assert {"transactionId": transaction_id} == commanded
    assert (409, "StateChanged") == (again, refused["status"])
    assert "TransactionClosed" in [entry["kind"] for entry in app.occupancy()["timeline"]]


@pytest.mark.note("F75")
def test_cancelled_reservation_frees_connector_at_once(app: HttpApp) -> None:
    identity = app.identity
    path = f"/operations/reservations/{app.create_reservation()}/cancel"

    changed, refused = app.ask("POST", path, command_body("Authorized"))
    in_use, _ = app.ask("DELETE", f"/operations/stations/{identity}")
    cancelled = app.request_ok("POST", path, command_body("PendingPayment"))

    assert (409, "StateChanged", 409) == (changed, refused["status"], in_use)
    assert ("Cancelled", "CancelledByOperator") == (cancelled["state"], cancelled["failureCode"])
    assert f"operator@localhost: {REASON}" == cancelled["steps"][-1]["detail"]
    assert app.occupancy()["startable"]


@pytest.mark.note("F75")
def test_closing_transaction_captures_its_bill(app: HttpApp) -> None:
    reservation_id = app.create_reservation()
    app.pay(reservation_id)
    transaction_id = app.start_transaction(app.accept_start(reservation_id))
    app.send_meter_values(transaction_id, 11_000)
    charging, refused = app.ask("POST", f"/operations/reservations/{reservation_id}/cancel", command_body("Charging"))

    app.request_ok("POST", f"/operations/transactions/{transaction_id}/close", command_body("Open"))
    app.accept_call("RemoteStopTransaction")
    app.stop_transaction(transaction_id, 12_000)

    assert (409, "IllegalTransition") == (charging, refused["status"])
    wait_until(lambda: app.status(reservation_id)["money"] == "captured")
    bill = app.status(reservation_id)
    assert ("Completed", 655 + 50, 705) == (bill["status"], bill["amount"], bill["capturedAmount"])
    assert "CloseAsked" in [step["event"] for step in bill["steps"]]
    assert REASON not in json.dumps(bill)


@pytest.mark.note("F13")
def test_station_id_ignores_case_keeps_spelling(app: HttpApp) -> None:
    identity, path = app.identity, f"/operations/stations/{app.identity.lower()}"

    assert identity == app.request_ok("GET", path)["identity"]
    assert identity == app.request_ok("PUT", path, REGISTRATION)["identity"]
    assert identity == app.request_ok("GET", f"{path}/connectors/1/occupancy")["identity"]


def test_stations_are_listed_by_state(app: HttpApp) -> None:
    identity = app.identity

    def listed(state: str) -> bool:
        rows = app.request_ok("GET", f"/operations/stations?limit=100&state={state}")["stations"]
        return identity in [row["identity"] for row in rows]

    assert [True, False, False, False] == [listed(it) for it in ("online", "offline", "busy", "faulted")]
    app.report_status(2, "Faulted")
    assert [True, False, True, True] == [listed(it) for it in ("online", "offline", "busy", "faulted")]


def test_deleted_station_is_disconnected_and_unknown(stack: Stack, app: HttpApp) -> None:
    identity = app.identity

    app.request_ok("DELETE", f"/operations/stations/{identity}")

    with pytest.raises(ClientError, match="closed"):
        app.accept_call("Nothing")
    assert 404 == app.ask("GET", f"/operations/stations/{identity}")[0]
    with pytest.raises(InvalidStatus) as refused, connect_station(stack.ocpp_url, identity, PASSWORD):
        pytest.fail("was let in")
    assert 404 == refused.value.response.status_code


@pytest.mark.note("F75")
def test_trigger_status_asks_online_station_only(stack: Stack, app: HttpApp) -> None:
    identity = app.identity
    path = f"/operations/stations/{identity}/trigger-status"

    app.request_ok("POST", path, command_body("Online"))

    assert 1 == app.accept_call("TriggerMessage")["connectorId"]
    app.disconnect()
    wait_until(lambda: app.request_ok("GET", f"/operations/stations/{identity}")["state"] == "Offline")
    assert [(409, "StateChanged"), (409, "ChargerOffline")] == [
        (status, answer["status"])
        for status, answer in (app.ask("POST", path, command_body(it)) for it in ("Online", "Offline"))
    ]


# The scripts
def test_explain_prints_within_100_columns(
    stack: Stack, app: HttpApp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = app.identity
    app.create_reservation()
    app.report_status(1, "SuspendedEVSE")
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
    unknown, unauthorized, silent, first_run = err.splitlines()
    assert "404: There is no such station." == unknown
    assert "token" in unauthorized
    assert nobody in silent
    assert "make run" in first_run


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """The file with the secret key of the stack."""
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"aws": database.CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}))
    return path


def test_maintain_executes_its_dry_run_plan(
    stack: Stack, app: HttpApp, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station_id = fold(app.identity)
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
        assert 0 == maintain.main(["--url", stack.url, "--credentials-file", str(credentials), *arguments])
        return capsys.readouterr().out

    planned, done, planned_after = printed("--dry-run"), printed(), printed("--dry-run")

    line = f"Connector {station_id} 7: would release its status\n"
    assert (True, True, False) == (line in planned, "1 Connector" in done, line in planned_after)
    assert "StatusReleased" == app.occupancy()["timeline"][0]["kind"]


def test_maintain_without_stack_prints_one_line(credentials: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{database.free_port()}"
    assert 1 == maintain.main(["--url", url, "--credentials-file", str(credentials)])
    out, err = capsys.readouterr()
    assert ("", 1) == (out, len(err.splitlines()))
