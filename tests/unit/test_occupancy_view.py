"""What an operator is told of a connector: each predicate with its evidence, both statuses, and what happened there."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from csms import views
from csms.model import Snapshot, TimelineEntry
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, audit_entry, decision_context


def full_snapshot() -> Snapshot:
    """A car charges for a reservation at connector 1, whose live status is of the present epoch and whose persisted one
    is ten minutes older; the station as a whole was Unavailable before it booted."""
    charging = b.charging_snapshot(NOW - HOUR)
    changed_connector = charging.connector(1)
    assert changed_connector.transaction is not None
    running = replace(
        changed_connector.transaction, energy_wh=4000, power_w=7000, metered_at=NOW - MINUTE, idle_until=NOW + MINUTE
    )
    busy = replace(
        changed_connector,
        live=b.build_live_status("Charging", reported_at=NOW - 50 * MINUTE, charger_at=NOW - 49 * MINUTE),
        persisted=b.build_persisted_status("Preparing", NOW - HOUR),
        transaction=running,
    )
    whole = b.connector(0, live=b.build_live_status("Unavailable", reported_at=NOW - 2 * HOUR, epoch="the one before"))
    return charging.with_connector(busy).with_connector(whole)


@pytest.mark.note("F75")
def test_each_predicate_has_value_source_age() -> None:
    answer = views.occupancy_explanation(full_snapshot(), 1, (), (), decision_context())

    view = {row["predicate"]: row for row in answer["findings"]}
    assert ["offline", "live_not_startable", "open_transaction", "active_reservation", "persisted_not_startable"] == [
        *view
    ]
    assert {
        "predicate": "live_not_startable",
        "reason": "LiveStatus:Occupied",
        "value": "Charging",
        "source": "station, connector 1",
        "since": "2026-03-01T11:10:00.000Z",
        "ageSeconds": 3000,
        "clears": "Clears when the station reports of the connector that it is Available;"
        " an operator can reset connector 1.",
        "clearsBy": None,
    } == view["live_not_startable"]
    assert ("3", "reservation reservation-1", 3600, "2026-03-01T12:01:00.000Z") == tuple(
        view["open_transaction"][name] for name in ("value", "source", "ageSeconds", "clearsBy")
    )
    assert ("Charging", "reservation reservation-1", 3600, None) == tuple(
        view["active_reservation"][name] for name in ("value", "source", "ageSeconds", "clearsBy")
    )
    assert (None, "Preparing", "charger", 3600, None) == tuple(
        view["persisted_not_startable"][name] for name in ("reason", "value", "source", "ageSeconds", "clears")
    )
    assert ("Online", "WebSocket, ocpp1.6", None) == tuple(view["offline"][n] for n in ("value", "source", "reason"))


@pytest.mark.note("F75")
def test_live_and_persisted_status_are_both_shown() -> None:
    status = views.occupancy_explanation(full_snapshot(), 1, (), (), decision_context())["status"]

    assert ("Charging", "Occupied", 3000, "2026-03-01T11:11:00.000Z", True) == tuple(
        status["live"][name] for name in ("raw", "status", "ageSeconds", "chargerAt", "counts")
    )
    assert ("Preparing", "Occupied", 3600, "charger") == tuple(
        status["persisted"][name] for name in ("raw", "status", "ageSeconds", "source")
    )
    assert ("Unavailable", 7200, False) == tuple(status["station"][name] for name in ("raw", "ageSeconds", "counts"))
    assert "Charging" == status["state"]


@pytest.mark.note("F75")
def test_explanation_includes_transaction_reservation_timeline() -> None:
    seen = full_snapshot()
    noted = (
        seen.add_timeline_entry("StatusChanged", decision_context(), connector=1, energy_wh=Decimal(7))
        .records[-1]
        .record
    )
    assert isinstance(noted, TimelineEntry)

    answer = views.occupancy_explanation(seen, 1, [audit_entry(event="Created")], [noted], decision_context())

    assert ("3", "Open", "reservation-1", 4000, 7000, "2026-03-01T12:01:00.000Z", "2026-03-02T11:00:00.000Z") == tuple(
        answer["transaction"][name]
        for name in ("transactionId", "state", "reservationId", "energyWh", "powerW", "stopImpliedAt", "endsAt")
    )
    assert ("reservation-1", "Charging", True, ["Created"]) == (
        answer["reservation"]["reservationId"],
        answer["reservation"]["state"],
        answer["reservation"]["locksConnector"],
        [entry["event"] for entry in answer["reservation"]["steps"]],
    )
    assert [
        {"at": "2026-03-01T12:00:00.000Z", "kind": "StatusChanged", "detail": {"connector": 1, "energyWh": 7}}
    ] == answer["timeline"]
    assert ("LiveStatus:Occupied", ["LiveStatus:Occupied", "OpenTransaction", "ActiveReservation"]) == (
        answer["reason"],
        answer["reasons"],
    )
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.note("F75")
def test_explanation_omits_absent_parts() -> None:
    bare = b.snapshot(b.connector(live=None), presence=None)

    answer = views.occupancy_explanation(bare, 1, (), (), decision_context())

    assert (None, None, []) == (answer["transaction"], answer["reservation"], answer["timeline"])
    assert {"state": "Unknown", "live": None, "persisted": None, "station": None} == answer["status"]
    assert (["ChargerOffline"], {"state": "Offline"}) == (answer["reasons"], answer["presence"])
