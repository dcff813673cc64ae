"""OCPP 1.6: what a station's message may lack or spell differently and still be taken (notes F41 and F45)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.model import MeterSample, Protocol, Snapshot
from csms.ocpp.framing import ErrorCode
from csms.ocpp.schemas import Accepted, Violation
from tests import builders as b
from tests.builders import NOW
from tests.unit.ocpp16_calls import handle_call
from tests.versions import accept

TIME = "2026-03-01T12:00:00Z"
ENTRY = {"timestamp": TIME, "sampledValue": [{"value": "3000"}, {"value": "50", "measurand": "Voltage"}]}
VALID: dict[str, dict[str, Any]] = {
    "Authorize": {"idTag": "WEB1"},
    "BootNotification": {
        "chargePointVendor": "ACME",
        "chargePointModel": "One",
        "firmwareVersion": "1.0",
        "iccid": "8949",
    },
    "MeterValues": {"connectorId": 1, "transactionId": 3, "meterValue": [ENTRY, copy.deepcopy(ENTRY)]},
    "StartTransaction": {"connectorId": 1, "idTag": "WEB1", "meterStart": 1000, "timestamp": TIME, "reservationId": 4},
    "StatusNotification": {
        "connectorId": 1,
        "errorCode": "NoError",
        "status": "Available",
        "timestamp": TIME,
        "info": "i",
        "vendorErrorCode": "e",
    },
    "StopTransaction": {
        "transactionId": 3,
        "idTag": "WEB1",
        "meterStop": 9000,
        "timestamp": TIME,
        "reason": "Local",
        "transactionData": [ENTRY],
    },
}
GONE = object()


def spoil(payload: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The payload with another value at a path; GONE removes the member or element."""
    spoilt = copy.deepcopy(payload)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    node: Any = spoilt
    for key in parents:
        node = node[key]
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return spoilt


def tolerate(action: str, path: str, value: Any) -> Accepted:
    accepted = accept(Protocol.OCPP16, action, spoil(VALID[action], path, value))
    assert isinstance(accepted, Accepted), accepted
    return accepted


def readings(snapshot: Snapshot) -> list[int | None]:
    return [r.energy_wh for a in snapshot.records if isinstance(a.record, MeterSample) for r in a.record.readings]


@pytest.mark.note("F45")
@pytest.mark.parametrize(
    ("action", "path", "value", "text"),
    [
        ("Authorize", "idTag", 17, "17"),
        ("BootNotification", "firmwareVersion", 1.04, "1.04"),
        ("BootNotification", "chargePointModel", 22, "22"),
        ("BootNotification", "chargePointVendor", 0, "0"),
        ("BootNotification", "iccid", 89490200001234567890 // 10, "8949020000123456789"),
        ("MeterValues", "meterValue/0/sampledValue/0/value", 604.213, "604.213"),
        ("StartTransaction", "timestamp", 1772366400, "1772366400"),
        ("StatusNotification", "vendorErrorCode", 0, "0"),
        ("StatusNotification", "info", 7, "7"),
        ("StopTransaction", "transactionData/0/sampledValue/0/value", 3000, "3000"),
    ],
)
def test_number_is_read_as_text(action: str, path: str, value: float, text: str) -> None:
    expected = Accepted(spoil(VALID[action], path, text), (f"{path}: read as text",))

    assert expected == tolerate(action, path, value)


@pytest.mark.note("F41", "F45")
@pytest.mark.parametrize(
    ("action", "member"),
    [
        ("StartTransaction", "connectorId"),
        ("StartTransaction", "meterStart"),
        ("StartTransaction", "timestamp"),
        ("StatusNotification", "connectorId"),
        ("StatusNotification", "errorCode"),
        ("StopTransaction", "meterStop"),
        ("StopTransaction", "timestamp"),
        ("StopTransaction", "transactionId"),
        ("MeterValues", "connectorId"),
        ("MeterValues", "meterValue"),
    ],
)
@pytest.mark.parametrize("value", [GONE, None, True, []], ids=["missing", "null", "boolean", "list"])
def test_unimportant_member_may_be_missing(action: str, member: str, value: Any) -> None:
    accepted = tolerate(action, member, value)

    assert spoil(VALID[action], member, GONE) == accepted.payload
    assert f"{member}: missing" == accepted.flags[-1]


@pytest.mark.note("F45")
@pytest.mark.parametrize(
    ("action", "member"),
    [
        ("MeterValues", "transactionId"),
        ("StartTransaction", "reservationId"),
        ("StatusNotification", "info"),
        ("StatusNotification", "timestamp"),
        ("StopTransaction", "reason"),
        ("StopTransaction", "idTag"),
        ("StopTransaction", "transactionData"),
        ("BootNotification", "iccid"),
    ],
)
def test_unusable_optional_member_is_dropped(action: str, member: str) -> None:
    assert Accepted(spoil(VALID[action], member, GONE), (f"{member}: unusable",)) == tolerate(action, member, False)


@pytest.mark.note("F45")
def test_number_for_listed_value_is_unusable() -> None:
    assert ("reason: unusable",) == tolerate("StopTransaction", "reason", 7).flags


@pytest.mark.note("F41")
@pytest.mark.parametrize(
    ("action", "member"),
    [
        ("Authorize", "idTag"),
        ("BootNotification", "chargePointModel"),
        ("StartTransaction", "idTag"),
        ("StatusNotification", "status"),
    ],
)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (GONE, ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION),
        (None, ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION),
        ([], ErrorCode.TYPE_CONSTRAINT_VIOLATION),
    ],
    ids=["missing", "null", "list"],
)
def test_missing_essential_member_is_violation(action: str, member: str, value: Any, code: ErrorCode) -> None:
    violation = accept(Protocol.OCPP16, action, spoil(VALID[action], member, value))

    assert isinstance(violation, Violation)
    assert (code, member) == (violation.code, violation.path)


@pytest.mark.note("F45", "F58")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("meterValue/0", None),
        ("meterValue/0", "text"),
        ("meterValue/0/sampledValue", []),
        ("meterValue/0/sampledValue", None),
        ("meterValue/0/sampledValue", GONE),
    ],
)
def test_unusable_meter_value_is_dropped_alone(path: str, value: Any) -> None:
    assert spoil(VALID["MeterValues"], "meterValue/0", GONE) == tolerate("MeterValues", path, value).payload


@pytest.mark.note("F45", "F58")
@pytest.mark.parametrize(("path", "value"), [("", None), ("/value", GONE), ("/value", None), ("/value", []), ("", 7)])
def test_unusable_sample_is_dropped_alone(path: str, value: Any) -> None:
    for action, place in (("MeterValues", "meterValue"), ("StopTransaction", "transactionData")):
        sample = f"{place}/0/sampledValue/0"

        assert spoil(VALID[action], sample, GONE) == tolerate(action, sample + path, value).payload


@pytest.mark.note("F45", "F58")
def test_several_unusable_readings_are_dropped() -> None:
    bad = {"timestamp": TIME, "sampledValue": []}
    payload = {"connectorId": 1, "meterValue": [bad, ENTRY, None, {"timestamp": TIME}, ENTRY, bad]}

    accepted = accept(Protocol.OCPP16, "MeterValues", payload)

    assert isinstance(accepted, Accepted)
    assert {"connectorId": 1, "meterValue": [ENTRY, ENTRY]} == accepted.payload


@pytest.mark.note("F45", "F58")
def test_object_is_read_as_list_of_one() -> None:
    payload = {"connectorId": 1, "meterValue": {"timestamp": TIME, "sampledValue": {"value": 4000}}}
    stop = VALID["StopTransaction"] | {"transactionData": ENTRY}

    after, answer = handle_call(b.charging_snapshot(), "MeterValues", **payload)

    assert {} == answer
    assert [4000] == readings(after)
    assert Accepted(VALID["StopTransaction"], ("transactionData: read as a list of one",)) == accept(
        Protocol.OCPP16, "StopTransaction", stop
    )


@pytest.mark.note("F41")
@pytest.mark.parametrize("meter_value", [[], None, [None], [{"timestamp": TIME, "sampledValue": [{}]}]])
def test_readings_of_nothing_are_confirmed(meter_value: Any) -> None:
    after, answer = handle_call(b.charging_snapshot(), "MeterValues", connectorId=1, meterValue=meter_value)

    assert {} == answer
    assert b.charging_snapshot().connectors == after.connectors


@pytest.mark.note("F41", "F58")
@pytest.mark.parametrize("entry", [{}, {"timestamp": None}, {"timestamp": True}], ids=["missing", "null", "boolean"])
def test_reading_without_time_counts_at_receipt(entry: dict[str, Any]) -> None:
    sent = [{**entry, "sampledValue": [{"value": "3000"}]}]

    after, _ = handle_call(b.charging_snapshot(), "MeterValues", connectorId=1, meterValue=sent)

    assert 2000 == getattr(after.connector(1).transaction, "energy_wh", None)


@pytest.mark.note("F41", "F58")
def test_start_without_register_is_accepted() -> None:
    """It counts from 0 until the readings show another register."""
    sent = {"connectorId": 1, "idTag": "WTAG1", "timestamp": TIME}

    after, answer = handle_call(b.start_requested_snapshot(), "StartTransaction", **sent)

    assert "Accepted" == answer["idTagInfo"]["status"]
    assert 0 == getattr(after.connector(1).transaction, "meter_start_wh", None)


@pytest.mark.note("F41")
@pytest.mark.parametrize("sent", [{}, {"meterStop": None, "timestamp": None}], ids=["missing", "null"])
def test_stop_without_meter_and_time_closes(sent: dict[str, Any]) -> None:
    after, _ = handle_call(b.charging_snapshot(), "StopTransaction", transactionId=3, **sent)

    assert (None, NOW) == (after.transactions["3"].meter_stop_wh, after.transactions["3"].stopped_at)


@pytest.mark.note("F41")
@pytest.mark.parametrize("meter", [9000.333, "9000.333", "9000,5"])
def test_fraction_of_watt_hour_is_rounded_down(meter: Any) -> None:
    after, _ = handle_call(b.charging_snapshot(), "StopTransaction", transactionId=3, meterStop=meter, timestamp=TIME)

    assert 9000 == after.transactions["3"].meter_stop_wh


@pytest.mark.note("F58")
@pytest.mark.parametrize(
    ("unit", "energy"),
    [*((u, 3500) for u in ("kWh", "KWh", "KWH", "Kwh", "kwh")), *((u, 3) for u in ("Wh", "WH", "wh"))],
)
def test_energy_unit_is_read_in_any_case(unit: str, energy: int) -> None:
    sample = {"value": "3.5", "unit": unit}
    meter_value = [{"timestamp": TIME, "sampledValue": [sample]}]

    after, _ = handle_call(b.charging_snapshot(), "MeterValues", connectorId=1, meterValue=meter_value)

    assert [energy] == readings(after)


SPOILS: dict[str, list[tuple[str, Any]]] = {
    "Authorize": [("idTag", 5), ("vendor", 1)],
    "BootNotification": [
        *[(member, 1.04) for member in VALID["BootNotification"]],
        *[(member, value) for member in ("firmwareVersion", "iccid") for value in (None, True, {}, [])],
    ],
    "MeterValues": [
        *[("connectorId", value) for value in ("1", 1.0, "1,0", 1.7)],
        *[("transactionId", value) for value in ("3", 3.0, None, {}, [])],
        *[("meterValue/0", value) for value in (None, [], "x")],
        *[("meterValue/0/timestamp", value) for value in (GONE, None, 1772366400)],
        *[("meterValue/1/sampledValue", value) for value in (GONE, None, [], {"value": 3})],
        *[("meterValue/0/sampledValue/0/value", value) for value in (GONE, None, 7, 1.5, {})],
        *[("meterValue/1/sampledValue/1/measurand", value) for value in (None, 7, {})],
    ],
    "StartTransaction": [
        *[("meterStart", value) for value in ("1000", 1000.5, "1000,5")],
        *[("timestamp", value) for value in (GONE, None, 1772366400, 1.5, {})],
        *[("reservationId", value) for value in (None, "x", True, 4.5)],
        ("idTag", 5),
    ],
    "StatusNotification": [
        *[("errorCode", value) for value in (GONE, None, 7, {})],
        *[("info", value) for value in (None, 7, {}, [])],
        *[("vendorErrorCode", value) for value in (None, 0, {})],
        *[("timestamp", value) for value in (None, 1772366400, {})],
    ],
    "StopTransaction": [
        *[("meterStop", value) for value in (GONE, None, "9000", 9000.333, "9000,5", "x")],
        *[("timestamp", value) for value in (GONE, None, 1772366400, {})],
        *[("transactionData", value) for value in (None, {}, "x", ENTRY)],
        *[(member, value) for member in ("idTag", "reason") for value in (None, {}, [], 7)],
    ],
}


@pytest.mark.note("F41", "F45")
@settings(deadline=None)
@given(action=st.sampled_from(sorted(VALID)), data=st.data())
def test_spoilt_values_leave_others_unchanged(action: str, data: st.DataObject) -> None:
    spoils = data.draw(st.lists(st.sampled_from(SPOILS[action]), min_size=1, max_size=3, unique_by=lambda s: s[0]))
    tops = {path.partition("/")[0] for path, _ in spoils}
    payload = copy.deepcopy(VALID[action])
    # Deeper places first, and later elements first, so that each place still exists.
    for path, value in sorted(spoils, key=lambda s: (s[0].count("/"), s[0]), reverse=True):
        payload = spoil(payload, path, value)

    accepted = accept(Protocol.OCPP16, action, payload)

    assert isinstance(accepted, Accepted)
    assert accepted.flags
    for member, value in VALID[action].items():
        if member not in tops:
            assert value == accepted.payload[member]
    if action == "MeterValues":
        kept = {path.split("/")[1] for path, _ in spoils if path.startswith("meterValue/")}
        entries = accepted.payload.get("meterValue", [])
        assert all(entry in entries for i, entry in enumerate(VALID[action]["meterValue"]) if str(i) not in kept)


@pytest.mark.note("F45")
@pytest.mark.parametrize("action", sorted(VALID))
def test_valid_message_has_no_flags(action: str) -> None:
    accepted = accept(Protocol.OCPP16, action, VALID[action])

    assert Accepted(VALID[action]) == accepted
    assert isinstance(accepted, Accepted)
    assert accepted.payload is VALID[action]
