"""A transaction closed by an operator: what is billed, what is asked of the station, and what may not be closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csms.charging.operations import close_transaction
from csms.errors import Conflict, CsmsError, IllegalTransition, NotFound
from csms.model import CommandKind, Money, OutboxKind, ReservationState, Snapshot
from csms.ocpp.v16 import core
from tests import builders as b
from tests.builders import HOUR, NOW, decision_context
from tests.unit.occupancy_cases import reasons
from tests.unit.operation_cases import (
    OFFLINE,
    REASON,
    WHO,
    audit_entries,
    operator_command,
    orphaned_transaction_snapshot,
    queued_commands,
)


@pytest.mark.note("F75")
def test_orphaned_transaction_is_closed_and_stopped() -> None:
    before = orphaned_transaction_snapshot()

    after = close_transaction(before, "77", operator_command("Open"), decision_context(NOW + HOUR, serial=9))

    closed = after.transactions["77"]
    assert (NOW + HOUR, 5000, "ClosedByOperator") == (closed.stopped_at, closed.energy_wh, closed.reason)
    assert ((), "77") == (reasons(after), after.calls[0].transaction_id)
    assert [(CommandKind.REMOTE_STOP, None)] == queued_commands(after)
    assert before.connector(2) == after.connector(2)


@pytest.mark.note("F75")
def test_offline_station_gets_no_stop_command() -> None:
    assert [] == queued_commands(
        close_transaction(
            orphaned_transaction_snapshot(presence=OFFLINE), "77", operator_command("Open"), decision_context(serial=9)
        )
    )


@pytest.mark.note("F75")
def test_closing_transaction_settles_and_signs_audit() -> None:
    before = b.charging_snapshot()
    changed_connector = before.connector(1)
    assert changed_connector.transaction is not None
    before = before.with_connector(
        replace(changed_connector, transaction=replace(changed_connector.transaction, energy_wh=10_000))
    )

    after = close_transaction(before, "3", operator_command("Open"), decision_context(serial=9))

    held = b.get_reservation(after)
    assert (ReservationState.COMPLETED, Money.CAPTURING, 595 + 50) == (held.state, held.money, held.amount)
    assert [OutboxKind.CAPTURE] == [outbox_item.kind for outbox_item in after.outbox_items]
    assert [f"{WHO}: {REASON}"] == [
        audit_entry.detail for audit_entry in audit_entries(after) if audit_entry.event == "ClosedByOperator"
    ]


@pytest.mark.note("F66")
def test_closing_without_energy_releases_hold() -> None:
    after = close_transaction(b.charging_snapshot(), "3", operator_command("Open"), decision_context(serial=9))

    assert Money.RELEASING == b.get_reservation(after).money
    assert [OutboxKind.RELEASE] == [outbox_item.kind for outbox_item in after.outbox_items]


@pytest.mark.note("F59")
def test_closing_offline_transaction_spares_running_one() -> None:
    queued = b.transaction("78", flags=("Offline",))
    before = orphaned_transaction_snapshot().with_transaction(queued)

    after = close_transaction(before, "78", operator_command("Open"), decision_context(serial=9))

    assert ("ClosedByOperator", ("Offline", "ClosedByOperator")) == (
        after.transactions["78"].reason,
        after.transactions["78"].flags,
    )
    assert (before.connector(1), before.transactions["77"]) == (after.connector(1), after.transactions["77"])


@pytest.mark.note("F55")
def test_late_stop_corrects_record_not_bill() -> None:
    closed = b.apply_decision(
        b.charging_snapshot(),
        close_transaction(b.charging_snapshot(), "3", operator_command("Open"), decision_context(serial=9)),
    )
    request = {"transactionId": 3, "meterStop": 9000, "timestamp": "2026-03-01T13:00:00Z"}

    after, _ = core.stop_transaction(closed, request, decision_context(serial=10))

    assert (8000, "Local") == (after.transactions["3"].energy_wh, after.transactions["3"].reason)
    assert replace(b.get_reservation(closed), flags=("Underbilled",)) == b.get_reservation(after)


@pytest.mark.note("F75")
@pytest.mark.parametrize(
    ("before", "expected", "error", "code"),
    [
        (orphaned_transaction_snapshot(), "Open", NotFound, "UnknownTransaction"),
        (
            orphaned_transaction_snapshot().with_transaction(b.transaction("78", station_id="cp-2")),
            "Open",
            NotFound,
            "UnknownTransaction",
        ),
        (
            orphaned_transaction_snapshot().with_transaction(b.transaction("78", stopped_at=NOW)),
            "Open",
            Conflict,
            "StateChanged",
        ),
        (
            orphaned_transaction_snapshot().with_transaction(b.transaction("78", stopped_at=NOW)),
            "Stopped",
            IllegalTransition,
            "IllegalTransition",
        ),
    ],
    ids=["unknown", "of another station", "stopped meanwhile", "stopped"],
)
def test_only_own_open_transaction_can_be_closed(
    before: Snapshot, expected: str, error: type[CsmsError], code: str
) -> None:
    with pytest.raises(error) as refused:
        close_transaction(before, "78", operator_command(expected), decision_context())

    assert code == refused.value.code
