"""Which status words are startable, in OCPP 1.6 and 2.0.1, and which are busy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from csms import occupancy
from csms.charging import status
from csms.model import ConnectorStatus, Policy, Snapshot
from csms.occupancy import coarse_status, public_status
from csms.ocpp.v16 import core
from csms.ocpp.v16.values import read_state
from tests import builders as b
from tests.builders import NOW, build_live_status, build_persisted_status, connector, lock, open_transaction, snapshot
from tests.unit.occupancy_cases import POLICY, reasons, silent_connector


@pytest.mark.note("F03")
def test_preparing_connector_is_startable() -> None:
    assert () == reasons(snapshot(connector(live=build_live_status("Preparing"))))
    assert () == reasons(snapshot(silent_connector(persisted=build_persisted_status("Preparing"))))
    assert "Available" == public_status(
        snapshot(connector(live=build_live_status("Preparing"))), 1, now=NOW, policy=POLICY
    )


@pytest.mark.note("F03")
def test_preparing_startability_is_a_setting() -> None:
    strict = Policy(preparing_is_startable=False)

    assert ("LiveStatus:Occupied",) == reasons(snapshot(connector(live=build_live_status("Preparing"))), policy=strict)
    assert ("PersistedStatus:Occupied",) == reasons(
        snapshot(silent_connector(persisted=build_persisted_status("Preparing"))), policy=strict
    )


@pytest.mark.note("F05")
def test_ocpp16_status_words_map_to_coarse() -> None:
    table = {
        "Available": "Available",
        "Preparing": "Occupied",
        "Charging": "Occupied",
        "SuspendedEV": "Occupied",
        "SuspendedEVSE": "Occupied",
        "Finishing": "Occupied",
        "Reserved": "Occupied",
        "Unavailable": "Unavailable",
        "Faulted": "Faulted",
    }

    assert table == {raw: coarse_status(read_state(raw)) for raw in table}


@pytest.mark.note("F05")
def test_ocpp201_status_words_map_to_coarse() -> None:
    table = {
        "Available": "Available",
        "Occupied": "Occupied",
        "Reserved": "Occupied",
        "Unavailable": "Unavailable",
        "Faulted": "Faulted",
    }

    assert table == {raw: coarse_status(read_state(raw)) for raw in table}


@pytest.mark.note("F12")
@pytest.mark.parametrize("raw", ["Discombobulated", "available", "", "Ünbekannt"])
def test_unknown_status_is_kept_and_busy(raw: str) -> None:
    said = {"connectorId": 1, "errorCode": "NoError", "status": raw}

    after, _ = core.status_notification(snapshot(), said, b.decision_context())

    assert raw == getattr(after.connector(1).live, "raw", None)
    assert ("LiveStatus:Occupied",) == reasons(after)
    assert ("PersistedStatus:Occupied",) == reasons(snapshot(silent_connector(persisted=build_persisted_status(raw))))


def test_connector_without_any_status_is_free() -> None:
    assert () == reasons(snapshot(connector(1)), 2)
    assert ConnectorStatus.OCCUPIED == coarse_status(read_state(""))


def occupied_in_201(charging_state: str, **changes: Any) -> Snapshot:
    """A 2.0.1 station's Occupied, and what its TransactionEvent said of the car."""
    return status.apply_charging_state(
        snapshot(connector(live=build_live_status("Occupied"), **changes)), 1, charging_state
    )


@pytest.mark.note("F04")
def test_occupied_with_evconnected_is_startable() -> None:
    connected = occupied_in_201("EVConnected")

    assert () == reasons(connected)
    assert ("LiveStatus:Occupied",) == reasons(connected, policy=Policy(preparing_is_startable=False))
    assert occupancy.is_plugged_in(connected, 1)


OCCUPIED_IN_201 = {
    "no evidence": (snapshot(connector(live=build_live_status("Occupied"))), ("LiveStatus:Occupied",)),
    "it charges": (occupied_in_201("Charging"), ("LiveStatus:Occupied",)),
    "it charges by now": (
        status.apply_charging_state(occupied_in_201("EVConnected"), 1, "Charging"),
        ("LiveStatus:Occupied",),
    ),
    "evidence of an earlier epoch": (
        replace(occupied_in_201("EVConnected"), presence=b.presence(epoch="later")).with_connector(
            replace(occupied_in_201("EVConnected").connector(1), live=build_live_status("Occupied", epoch="later"))
        ),
        ("LiveStatus:Occupied",),
    ),
    "a transaction": (
        occupied_in_201("EVConnected", transaction=open_transaction()),
        ("LiveStatus:Occupied", "OpenTransaction"),
    ),
    "somebody else's reservation": (occupied_in_201("EVConnected", lock=lock()), ("ActiveReservation",)),
}


@pytest.mark.note("F04")
@pytest.mark.parametrize("raw", ["Unavailable", "Faulted", "Reserved"])
def test_evconnected_does_not_free_other_statuses(raw: str) -> None:
    connected = status.apply_charging_state(snapshot(connector(live=build_live_status(raw))), 1, "EVConnected")

    assert (f"LiveStatus:{coarse_status(read_state(raw))}",) == reasons(connected)


@pytest.mark.note("F04")
@pytest.mark.parametrize(("seen", "expected"), OCCUPIED_IN_201.values(), ids=OCCUPIED_IN_201)
def test_occupied_in_other_cases_is_busy(seen: Snapshot, expected: tuple[str, ...]) -> None:
    assert expected == reasons(seen)
