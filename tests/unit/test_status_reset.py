"""The reset of a status by an operator: which status it drops, which it keeps, and when it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from csms.charging import operations
from csms.charging.operations import reset_status
from csms.errors import IllegalTransition, NotFound
from csms.model import CommandKind, Snapshot, StatusSource
from csms.occupancy import CHARGER_OFFLINE
from csms.ocpp.v16 import core
from tests.builders import (
    MINUTE,
    NOW,
    build_live_status,
    build_persisted_status,
    connector,
    decision_context,
    lock,
    open_transaction,
    snapshot,
)
from tests.unit.occupancy_cases import reasons
from tests.unit.operation_cases import OFFLINE, operator_command, queued_commands
from tests.unit.snapshot_strategies import snapshots


def reset(before: Snapshot, connector_id: int = 1, *, expected: str | None = None) -> Snapshot:
    """The status reset by somebody who sees it as it is, unless it is said what they saw."""
    here = operations.status_state(before, connector_id, decision_context())
    return reset_status(
        before, connector_id, operator_command(here if expected is None else expected), decision_context(serial=9)
    )


@pytest.mark.note("F75")
def test_reset_drops_blocking_live_status() -> None:
    before = snapshot(
        connector(live=build_live_status("Finishing"), persisted=build_persisted_status("Finishing")), connector(2)
    )

    after = reset(before)

    changed_connector = after.connector(1)
    assert (None, "Available", StatusSource.OPERATOR) == (
        changed_connector.live,
        getattr(changed_connector.persisted, "raw", None),
        getattr(changed_connector.persisted, "source", None),
    )
    assert ((), [(CommandKind.TRIGGER_STATUS, 1)]) == (reasons(after), queued_commands(after))
    assert before.connector(2) == after.connector(2)


@pytest.mark.note("F75")
def test_reset_keeps_non_blocking_live_status() -> None:
    before = snapshot(connector(persisted=build_persisted_status("Occupied")))

    assert before.connector(1).live == reset(before).connector(1).live


@pytest.mark.note("F75")
def test_repeated_fault_blocks_again_after_reset() -> None:
    again = {"connectorId": 1, "errorCode": "NoError", "status": "Faulted"}

    after, _ = core.status_notification(
        reset(snapshot(connector(live=build_live_status("Faulted")))), again, decision_context(serial=10)
    )

    assert ("LiveStatus:Faulted",) == reasons(after)


@pytest.mark.note("F75")
def test_offline_station_is_not_asked_on_reset() -> None:
    before = snapshot(connector(live=None, persisted=build_persisted_status("Occupied")), presence=OFFLINE)

    after = reset(before)

    assert ((CHARGER_OFFLINE,), []) == (reasons(after), queued_commands(after))


@pytest.mark.note("F75")
@pytest.mark.parametrize(
    ("changed_connector", "named"),
    [
        (connector(live=build_live_status("Charging"), transaction=open_transaction()), "Transaction 77"),
        (connector(live=build_live_status("Charging"), lock=lock()), "Reservation somebody"),
    ],
    ids=["a transaction", "a reservation"],
)
def test_reset_refused_during_transaction_or_reservation(changed_connector: Any, named: str) -> None:
    with pytest.raises(IllegalTransition, match=named):
        reset(snapshot(changed_connector))


@pytest.mark.note("F72")
def test_expired_lock_does_not_prevent_reset() -> None:
    after = reset(snapshot(connector(live=build_live_status("Finishing"), lock=lock(expires_at=NOW - MINUTE))))

    assert () == reasons(after)


@pytest.mark.note("F10")
def test_whole_station_status_resets_at_connector_0() -> None:
    before = snapshot(connector(1), connector(2), connector(0, live=build_live_status("Unavailable")))

    with pytest.raises(IllegalTransition, match="connector 0"):
        reset(before, 1)
    after = reset(before, 0)

    assert ((), ()) == (reasons(after, 1), reasons(after, 2))
    assert [(CommandKind.TRIGGER_STATUS, 1), (CommandKind.TRIGGER_STATUS, 2)] == queued_commands(after)


def test_unknown_connector_cannot_be_reset() -> None:
    with pytest.raises(NotFound) as refused:
        reset(snapshot(), 3, expected="Unknown")

    assert "UnknownConnector" == refused.value.code


@pytest.mark.note("F75")
@given(snapshots)
def test_reset_frees_connector_or_is_refused(before: Snapshot) -> None:
    try:
        after = reset(before)
    except IllegalTransition:
        blocked = {"OpenTransaction", "ActiveReservation", "LiveStatus:Unavailable", "LiveStatus:Faulted"}
        assert blocked & set(reasons(before))
        return

    assert {CHARGER_OFFLINE} >= set(reasons(after))
    assert before.connector(1).lock == after.connector(1).lock
    assert before.connector(0) == after.connector(0)
