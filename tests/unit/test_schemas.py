"""Payloads and the protocol's schemas: lenient inbound, strict outbound."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from csms.model import Protocol
from csms.ocpp.framing import ErrorCode
from csms.ocpp.schemas import Accepted, InvalidMessage, Violation
from tests.versions import ACTIONS, accept, check, is_known

START = {"connectorId": 1, "idTag": "WEB1", "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}
STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
SAMPLE = {"value": "1.5", "unit": "kWh"}
METER = {"connectorId": 1, "meterValue": [{"timestamp": "2026-03-01T12:00:00Z", "sampledValue": [SAMPLE]}]}


def start(**changes: Any) -> Accepted | Violation:
    return accept(Protocol.OCPP16, "StartTransaction", START | changes)


@pytest.mark.parametrize(
    ("protocol", "folder", "request_suffix"), [(Protocol.OCPP16, "v16", ""), (Protocol.OCPP201, "v201", "Request")]
)
def test_known_actions_match_package_schemas(protocol: Protocol, folder: str, request_suffix: str) -> None:
    package = find_spec("ocpp")
    assert package is not None
    assert package.submodule_search_locations is not None
    names = {file.stem for file in Path(package.submodule_search_locations[0], folder, "schemas").glob("*.json")}

    assert {a + request_suffix for a in ACTIONS[protocol]} | {a + "Response" for a in ACTIONS[protocol]} == names


@pytest.mark.parametrize("protocol", Protocol)
def test_every_schema_compiles_and_refuses(protocol: Protocol) -> None:
    for action in ACTIONS[protocol]:
        for response in (False, True):
            with pytest.raises(InvalidMessage, match=action):
                check(protocol, action, [], response=response)  # type: ignore[arg-type]


@pytest.mark.note("F39", "F38")
@pytest.mark.parametrize(
    "action", ["heartbeat", "Heartbeat\0", "../v201/schemas/HeartbeatRequest", "", "HeartbeatResponse"]
)
def test_unlisted_action_name_is_not_implemented(action: str) -> None:
    assert not is_known(Protocol.OCPP16, action)
    assert Violation(ErrorCode.NOT_IMPLEMENTED, "", "unknown action") == accept(Protocol.OCPP16, action, {})
    with pytest.raises(InvalidMessage):
        check(Protocol.OCPP16, action, {}, response=False)


@pytest.mark.parametrize(
    ("action", "payload"), [("Heartbeat", {}), ("StartTransaction", START), ("MeterValues", METER)]
)
def test_valid_payload_is_returned_unchanged(action: str, payload: dict[str, Any]) -> None:
    accepted = accept(Protocol.OCPP16, action, payload)

    assert Accepted(payload, ()) == accepted
    assert isinstance(accepted, Accepted)
    assert accepted.payload is payload


@pytest.mark.note("F45")
def test_unknown_member_is_kept_and_flagged() -> None:
    assert Accepted(START | {"vendor": {"a": None}}, ("vendor: unknown member",)) == start(vendor={"a": None})


@pytest.mark.note("F45")
def test_unknown_member_of_empty_schema_is_kept() -> None:
    assert Accepted({"a": 1}, ("a: unknown member",)) == accept(
        Protocol.OCPP16, "LogStatusNotification", {"a": 1}, response=True
    )


@pytest.mark.note("F45")
def test_overlong_string_is_kept_and_flagged() -> None:
    assert Accepted(START | {"idTag": "x" * 21}, ("idTag: longer than 20 characters",)) == start(idTag="x" * 21)


@pytest.mark.note("F45")
def test_unknown_enum_value_is_kept_and_flagged() -> None:
    payload = STATUS | {"status": "Parked"}

    assert Accepted(payload, ("status: unknown value",)) == accept(Protocol.OCPP16, "StatusNotification", payload)


@pytest.mark.note("F45")
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("17", 17),
        (" 17 ", 17),
        ("+17", 17),
        ("-17", -17),
        ("17.0", 17),
        ("17,0", 17),
        (17.0, 17),
        ("1,5", 1),
        ("17.5", 17),
        (9000.333, 9000),
        ("9000.333", 9000),
        ("9000,5", 9000),
        ("-0.5", -1),
        (-0.5, -1),
    ],
)
def test_integer_like_value_is_converted_and_flagged(text: str | float, number: int) -> None:
    accepted = start(meterStart=text)

    assert Accepted(START | {"meterStart": number}, (f"meterStart: read as {number}",)) == accepted
    assert isinstance(accepted, Accepted)
    assert type(accepted.payload["meterStart"]) is int


@pytest.mark.note("F45")
@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1e3", "1_000", "0x11", "NaN", "Infinity", "1.000.000", "١٧", "9" * 19),
        *(1e300, float("inf"), float("nan"), True, [], {}),
    ],
)
def test_non_integer_violates_type_constraint(text: Any) -> None:
    """A cancellation without its number means nothing."""
    violation = accept(Protocol.OCPP16, "CancelReservation", {"reservationId": text})

    assert (
        Violation(ErrorCode.TYPE_CONSTRAINT_VIOLATION, "reservationId", 'the value is not of type "integer"')
        == violation
    )


@pytest.mark.note("F45", "F58")
@pytest.mark.parametrize("text", ["1,5", "1.5"])
def test_decimal_comma_is_read_as_point(text: str) -> None:
    payload = {"timestamp": "2026-03-01T12:00:00Z", "sampledValue": [{"value": text}]}
    clean = {"timestamp": "2026-03-01T12:00:00Z", "sampledValue": [{"value": 1.5}]}

    assert Accepted(
        {"evseId": 1, "meterValue": [clean]}, ("meterValue/0/sampledValue/0/value: read as 1.5",)
    ) == accept(Protocol.OCPP201, "MeterValues", {"evseId": 1, "meterValue": [payload]})


@pytest.mark.note("F45")
def test_optional_null_is_dropped_and_flagged() -> None:
    assert Accepted(START, ("reservationId: null",)) == start(reservationId=None)


@pytest.mark.note("F45")
def test_required_null_is_a_missing_value() -> None:
    assert Violation(ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION, "idTag", "is required") == start(idTag=None)


@pytest.mark.note("F45")
def test_several_flaws_are_repaired_in_copy() -> None:
    untouched, sloppy = {"timestamp": "t", "sampledValue": [SAMPLE]}, {"value": "2", "unit": None, "phase": "L9"}
    payload = {"connectorId": "1", "meterValue": [untouched, {"timestamp": "t", "sampledValue": [SAMPLE, sloppy]}]}
    before = repr(payload)

    accepted = accept(Protocol.OCPP16, "MeterValues", payload)

    assert isinstance(accepted, Accepted)
    assert before == repr(payload)
    assert {"value": "2", "phase": "L9"} == accepted.payload["meterValue"][1]["sampledValue"][1]
    assert 1 == accepted.payload["connectorId"]
    assert accepted.payload["meterValue"][0] is untouched
    assert {
        "connectorId: read as 1",
        "meterValue/1/sampledValue/1/unit: null",
        "meterValue/1/sampledValue/1/phase: unknown value",
    } == set(accepted.flags)


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    ("action", "payload", "code", "path"),
    [
        ("StatusNotification", {"connectorId": 1}, ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION, "status"),
        ("StatusNotification", STATUS | {"status": 7}, ErrorCode.TYPE_CONSTRAINT_VIOLATION, "status"),
        ("StatusNotification", [], ErrorCode.FORMAT_VIOLATION, ""),
    ],
)
def test_invalid_payload_has_matching_error_code(action: str, payload: Any, code: ErrorCode, path: str) -> None:
    violation = accept(Protocol.OCPP16, action, payload)

    assert isinstance(violation, Violation)
    assert (code, path) == (violation.code, violation.path)


@pytest.mark.note("F38")
@pytest.mark.parametrize("limit", [4.11, "4,11"])
def test_wrong_precision_violates_property_constraint(limit: Any) -> None:
    period = {"startPeriod": 0, "limit": limit}
    schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [period]}

    violation = accept(
        Protocol.OCPP16, "GetCompositeSchedule", {"status": "Accepted", "chargingSchedule": schedule}, response=True
    )

    assert isinstance(violation, Violation)
    assert ErrorCode.PROPERTY_CONSTRAINT_VIOLATION is violation.code
    assert "chargingSchedule/chargingSchedulePeriod/0/limit" == violation.path


def test_violation_quotes_no_station_data() -> None:
    violation = accept(Protocol.OCPP16, "CancelReservation", {"reservationId": "secret"})

    assert isinstance(violation, Violation)
    assert "secret" not in violation.message


def test_response_has_its_own_schema() -> None:
    assert Accepted({"status": "Accepted"}, ()) == accept(
        Protocol.OCPP16, "RemoteStartTransaction", {"status": "Accepted"}, response=True
    )
    assert isinstance(accept(Protocol.OCPP16, "RemoteStartTransaction", {"status": "Accepted"}), Violation)


def test_too_deep_payload_is_a_violation() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}

    violation = start(vendor=deep)

    assert isinstance(violation, Violation)
    assert ErrorCode.FORMAT_VIOLATION is violation.code


@pytest.mark.note("F45")
@pytest.mark.parametrize(
    "changes",
    [{"vendor": 1}, {"idTag": "x" * 21}, {"meterStart": "0"}, {"meterStart": 0.0}, {"reservationId": None}],
)
def test_inbound_flaw_is_refused_outbound(changes: dict[str, Any]) -> None:
    check(Protocol.OCPP16, "StartTransaction", START, response=False)

    with pytest.raises(InvalidMessage, match=f"StartTransaction: .*{next(iter(changes))}"):
        check(Protocol.OCPP16, "StartTransaction", START | changes, response=False)


@pytest.mark.note("F45")
def test_unknown_enum_value_is_refused_outbound() -> None:
    with pytest.raises(InvalidMessage, match="StatusNotification: status"):
        check(Protocol.OCPP16, "StatusNotification", STATUS | {"status": "Parked"}, response=False)


def test_ocpp_package_modules_stay_unimported() -> None:
    script = (
        "import sys; from csms.ocpp import schemas; from csms.ocpp.v16.values import SCHEMAS;"
        "schemas.check(SCHEMAS, 'Heartbeat', {}, response=False);"
        "print([name for name in sys.modules if name.split('.')[0] in {'ocpp', 'jsonschema'}])"
    )

    shown = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)

    assert b"[]\n" == shown.stdout, shown.stderr
