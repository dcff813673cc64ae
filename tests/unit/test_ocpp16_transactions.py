"""OCPP 1.6: how readings, starts and stops are read, what they load, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest

from csms.model import DecisionContext, MeterSample, Reading, ReservationState, Snapshot
from csms.ocpp.v16.core import ACTIONS
from tests import builders as b
from tests.builders import NOW, decision_context, get_reservation
from tests.unit.ocpp16_calls import handle_call

S = ReservationState


def sampled_value(value: str, **more: str) -> dict[str, str]:
    return {"value": value, **more}


def send_meter_values(*samples: dict[str, str], before: Snapshot | None = None, **more: Any) -> tuple[Reading, ...]:
    """The readings kept of one MeterValue."""
    entry = {"timestamp": "2026-03-01T12:00:00Z", "sampledValue": list(samples)} | more
    after, answer = handle_call(
        before or b.charging_snapshot(), "MeterValues", connectorId=1, transactionId=3, meterValue=[entry]
    )
    assert {} == answer
    (sample,) = [a.record for a in after.records if isinstance(a.record, MeterSample)]
    return sample.readings


# MeterValues


def test_reading_has_time_energy_and_power() -> None:
    readings = send_meter_values(
        sampled_value("1500", measurand="Energy.Active.Import.Register", unit="Wh"),
        sampled_value("7.4", measurand="Power.Active.Import", unit="kW"),
        sampled_value("230", measurand="Voltage", phase="L1-N"),
    )

    assert (Reading(at=NOW, energy_wh=1500, power_w=7400),) == readings


@pytest.mark.note("F58")
@pytest.mark.parametrize(
    ("samples", "energy"),
    [
        ([sampled_value("1500")], 1500),
        ([sampled_value(" 1500.9 ")], 1500),
        ([sampled_value("1,5", unit="kWh")], 1500),
        ([sampled_value("1.5", unit="kWh")], 1500),
        ([sampled_value("1E3")], 1000),
        (
            [sampled_value("500", phase="L1"), sampled_value("400", phase="L2"), sampled_value("600.5", phase="L3")],
            1500,
        ),
        ([sampled_value("0.5", phase="L1", unit="kWh"), sampled_value("1000", phase="L2", unit="Wh")], 1500),
        ([sampled_value("9", phase="L1"), sampled_value("1500")], 1500),
        ([sampled_value("1400", context="Transaction.Begin"), sampled_value("1500", context="Sample.Periodic")], 1500),
        ([sampled_value("7", measurand="Energy.Reactive.Import.Register")], None),
        ([sampled_value("OCMF|{}", format="SignedData")], None),
        ([sampled_value("NaN")], None),
        ([sampled_value("Infinity")], None),
        ([sampled_value("")], None),
        ([sampled_value("1.234,5")], None),
        ([sampled_value("1E999999999")], None),
        ([sampled_value("-1E999999", unit="kWh")], None),
        ([sampled_value("1000000000000")], None),
    ],
)
def test_energy_register_is_read_in_wh(samples: list[dict[str, str]], energy: int | None) -> None:
    assert [energy] == [reading.energy_wh for reading in send_meter_values(*samples)]


def test_unreadable_reading_time_means_now() -> None:
    assert [NOW] == [reading.at for reading in send_meter_values(sampled_value("7"), timestamp="yesterday")]


# StartTransaction, StopTransaction


def start(before: Snapshot, at: DecisionContext | None = None, **more: Any) -> tuple[Snapshot, dict[str, Any]]:
    payload = {"connectorId": 1, "idTag": "WTAG1", "meterStart": 1000, "timestamp": "2026-03-01T12:00:00Z"} | more
    return handle_call(before, "StartTransaction", at, **payload)


def stop(before: Snapshot, at: DecisionContext | None = None, **more: Any) -> tuple[Snapshot, dict[str, Any]]:
    payload = {"transactionId": 3, "meterStop": 11_000, "timestamp": "2026-03-01T13:00:00Z"} | more
    return handle_call(before, "StopTransaction", at, **payload)


@pytest.mark.note("F26")
def test_requested_start_is_accepted_with_transaction_id() -> None:
    after, answer = start(b.start_requested_snapshot(), decision_context(serial=3))

    assert {"transactionId": 3, "idTagInfo": {"status": "Accepted"}} == answer
    assert S.CHARGING == get_reservation(after).state


@pytest.mark.note("F52")
@pytest.mark.parametrize("meter_start", [0, -5, 2**53])
def test_unknown_tag_start_is_stored_as_invalid(meter_start: int) -> None:
    after, answer = start(b.snapshot(), decision_context(serial=9), idTag="", meterStart=meter_start)

    assert {"transactionId": 9, "idTagInfo": {"status": "Invalid"}} == answer
    assert meter_start == after.transactions["9"].meter_start_wh


@pytest.mark.note("F30", "F51")
def test_start_loads_reservation_transaction_and_tag() -> None:
    payload = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}

    read_set = ACTIONS["StartTransaction"].find_read_set(b.charging_snapshot(), payload)

    assert ("reservation-1", ("3",), "CARD") == (read_set.reservation_id, read_set.transaction_ids, read_set.id_tag)
    assert 32 == len(read_set.digest or "")


@pytest.mark.note("F33")
def test_start_elsewhere_loads_its_own_reservation() -> None:
    payload = {"connectorId": 2, "idTag": "wtag1", "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}

    assert (
        "reservation-1"
        == ACTIONS["StartTransaction"].find_read_set(b.start_requested_snapshot(), payload).reservation_id
    )


@pytest.mark.note("F33", "F57")
def test_foreign_start_loads_superseded_reservation() -> None:
    before = b.charging_snapshot().with_connector(b.connector(2, lock=b.lock(S.AUTHORIZED)))
    payload = {"connectorId": 1, "idTag": "WSOMEBODY", "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}

    assert "reservation-1" == ACTIONS["StartTransaction"].find_read_set(before, payload).reservation_id


@pytest.mark.parametrize(("tag", "answer"), [({}, {}), ({"idTag": "WTAG1"}, {"idTagInfo": {"status": "Accepted"}})])
def test_stop_settles_and_returns_tag_status(tag: dict[str, str], answer: dict[str, Any]) -> None:
    after, told = stop(b.charging_snapshot(), **tag)

    assert answer == told
    assert (S.COMPLETED, 10_000, 645) == (
        get_reservation(after).state,
        get_reservation(after).energy_wh,
        get_reservation(after).amount,
    )


@pytest.mark.note("F53", "F41")
@pytest.mark.parametrize("named", [4711, 0, -1])
def test_unknown_transaction_stop_is_confirmed(named: int) -> None:
    _, answer = stop(b.snapshot(), transactionId=named, idTag="NOBODY", reason="PowerLoss")

    assert {"idTagInfo": {"status": "Invalid"}} == answer


@pytest.mark.note("F58")
def test_stop_readings_are_read_like_others() -> None:
    entry = {"timestamp": "2026-03-01T13:00:00Z", "sampledValue": [sampled_value("6,0", unit="kWh")]}

    after, _ = stop(b.charging_snapshot(), meterStop=0, transactionData=[entry])

    assert 5000 == after.transactions["3"].energy_wh


@pytest.mark.note("F53")
def test_stop_loads_its_reservation_and_transaction() -> None:
    payload = {"transactionId": 3, "meterStop": 7, "timestamp": "", "idTag": "CARD"}

    mine = ACTIONS["StopTransaction"].find_read_set(b.charging_snapshot(), payload)
    alien = ACTIONS["StopTransaction"].find_read_set(b.charging_snapshot(), payload | {"transactionId": 4})
    none = ACTIONS["StopTransaction"].find_read_set(b.charging_snapshot(), payload | {"transactionId": -1})

    assert ("reservation-1", ("3",), "CARD") == (mine.reservation_id, mine.transaction_ids, mine.id_tag)
    assert (None, ("4",)) == (alien.reservation_id, alien.transaction_ids)
    assert (None, ()) == (none.reservation_id, none.transaction_ids)
