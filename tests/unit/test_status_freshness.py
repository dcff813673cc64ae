"""How long a status counts: a live one for its epoch, a persisted one for a while, and only where nothing is live."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms.adapters.dynamodb import from_item, to_item
from csms.model import PersistedStatus, Policy, ReservationState, StatusSource
from csms.occupancy import explain
from csms.ocpp.v16 import core
from csms.ocpp.v16.values import read_state
from tests import builders as b
from tests.builders import (
    HOUR,
    MINUTE,
    NOW,
    build_live_status,
    build_persisted_status,
    connector,
    lock,
    open_transaction,
    snapshot,
)
from tests.unit.occupancy_cases import MICROSECOND, reasons, silent_connector


@pytest.mark.note("F06")
def test_live_status_counts_regardless_of_age() -> None:
    ten_hours_ago = build_live_status("Available", reported_at=NOW - 10 * HOUR)

    assert () == reasons(snapshot(connector(live=ten_hours_ago, persisted=build_persisted_status("Occupied"))))
    assert ("LiveStatus:Faulted",) == reasons(
        snapshot(connector(live=build_live_status("Faulted", reported_at=NOW - 10 * HOUR)))
    )


@pytest.mark.note("F06")
def test_earlier_epoch_live_status_is_ignored() -> None:
    before_the_reboot = build_live_status("Faulted", epoch="an earlier one")

    assert () == reasons(snapshot(connector(live=before_the_reboot)))
    assert ("PersistedStatus:Occupied",) == reasons(
        snapshot(
            connector(live=replace(before_the_reboot, raw="Available"), persisted=build_persisted_status("Occupied"))
        )
    )
    assert ("ChargerOffline",) == reasons(snapshot(connector(live=build_live_status("Faulted")), presence=None))


@pytest.mark.note("F07")
@pytest.mark.parametrize("named", [{}, {"transactionId": 77}], ids=["of no transaction", "of one"])
@pytest.mark.parametrize(
    "changed_connector", [{}, {"transaction": open_transaction()}], ids=["nothing runs", "it runs"]
)
def test_meter_values_create_no_live_status(changed_connector: dict[str, Any], named: dict[str, int]) -> None:
    before = snapshot(silent_connector(persisted=build_persisted_status("Occupied"), **changed_connector))
    values = {"connectorId": 1, "meterValue": [{"timestamp": "", "sampledValue": [{"value": "7"}]}], **named}

    after, _ = core.meter_values(before, values, b.decision_context())

    assert after.connector(1).live is None
    assert reasons(before) == reasons(after)
    assert "PersistedStatus:Occupied" in reasons(after)


@pytest.mark.note("F08")
@pytest.mark.parametrize(
    ("age", "blocks"),
    [(timedelta(0), True), (30 * MINUTE, True), (30 * MINUTE + MICROSECOND, False), (-MINUTE, True)],
    ids=["now", "to the minute", "a moment too old", "from a clock ahead of ours"],
)
def test_persisted_status_blocks_for_30_minutes(age: timedelta, blocks: bool) -> None:
    assert blocks == bool(reasons(snapshot(silent_connector(persisted=build_persisted_status("Occupied", NOW - age)))))


@pytest.mark.note("F08")
def test_persisted_status_without_time_is_stale() -> None:
    item = to_item(
        silent_connector(
            persisted=PersistedStatus(raw="Occupied", state=read_state("Occupied"), source=StatusSource.CHARGER)
        )
    )
    assert item["persisted"].pop("at") is None
    seen = snapshot(from_item(item))
    (said,) = [f for f in explain(seen, 1, now=NOW, policy=Policy()) if f.predicate == "persisted_not_startable"]

    assert () == reasons(seen)
    assert ("Occupied", None, None) == (said.value, said.since, said.until)


@pytest.mark.note("F08")
def test_persisted_status_blocks_only_without_live() -> None:
    assert () == reasons(
        snapshot(connector(live=build_live_status("Available"), persisted=build_persisted_status("Faulted")))
    )
    assert ("LiveStatus:Faulted",) == reasons(
        snapshot(connector(live=build_live_status("Faulted"), persisted=build_persisted_status("Unavailable")))
    )
    assert ("LiveStatus:Unavailable",) == reasons(
        snapshot(
            connector(0, live=build_live_status("Unavailable")),
            silent_connector(persisted=build_persisted_status("Faulted")),
        )
    )
    assert () == reasons(snapshot(silent_connector(persisted=build_persisted_status("Available"))))
    assert () == reasons(snapshot(silent_connector()))


@pytest.mark.note("F08")
def test_persisted_status_window_is_a_setting() -> None:
    seen = snapshot(silent_connector(persisted=build_persisted_status("Occupied", NOW - 2 * MINUTE)))

    assert ("PersistedStatus:Occupied",) == reasons(seen, policy=Policy(status_freshness=2 * MINUTE))
    assert () == reasons(seen, policy=Policy(status_freshness=MINUTE))
    assert () == reasons(
        snapshot(silent_connector(persisted=build_persisted_status("Occupied"))),
        policy=Policy(status_freshness=0 * MINUTE),
    )


@pytest.mark.note("F09")
def test_remote_start_occupied_expires_with_lock() -> None:
    server_made = build_persisted_status("Occupied", source=StatusSource.REMOTE_START)
    held = lock(ReservationState.START_REQUESTED, expires_at=NOW + 5 * MINUTE)
    seen = snapshot(silent_connector(persisted=server_made, lock=held))

    assert ("ActiveReservation", "PersistedStatus:Occupied") == reasons(seen)
    assert () == reasons(seen, now=NOW + 6 * MINUTE)


@pytest.mark.note("F09")
def test_new_lock_clears_leftover_remote_occupied() -> None:
    server_made = build_persisted_status("Occupied", source=StatusSource.REMOTE_START)
    left = snapshot(silent_connector(persisted=server_made, lock=lock(expires_at=NOW - MINUTE)))

    after = b.owed_checkout_snapshot(left)

    assert after.connector(1).persisted is None
    assert () == reasons(after, ignoring="reservation-1")
