"""A transaction closed by an operator: what is billed, what is asked of the station, and what may not be closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csms.charging.operations import close_transaction
from csms.charging.transaction import close_overdue
from csms.errors import Conflict, CsmsError, IllegalTransition, NotFound
from csms.model import CommandKind, Money, OperatorClose, OutboxKind, ReservationState, Snapshot
from csms.ocpp.v16 import core
from tests import builders as b
from tests.builders import HOUR, NOW, SECOND, decision_context
from tests.unit.operation_cases import (
    OFFLINE,
    REASON,
    WHO,
    audit_entries,
    operator_command,
    orphaned_transaction_snapshot,
    queued_commands,
    timeline_kinds,
)


def close_offline(before: Snapshot, transaction_id: str = "3") -> Snapshot:
    """The snapshot after an operator closed the transaction of a station that is offline."""
    return close_transaction(
        replace(before, presence=OFFLINE), transaction_id, operator_command("Open"), decision_context(serial=9)
    )


def ask_to_close(before: Snapshot) -> Snapshot:
    """The snapshot after an operator closed transaction 3 of a station that is online."""
    return b.apply_decision(
        before, close_transaction(before, "3", operator_command("Open"), decision_context(serial=9))
    )


def metered_snapshot(energy_wh: int = 10_000) -> Snapshot:
    """A paid session that has metered so much."""
    before = b.charging_snapshot()
    connector = before.connector(1)
    assert connector.transaction is not None
    return before.with_connector(replace(connector, transaction=replace(connector.transaction, energy_wh=energy_wh)))


# A station that is offline


@pytest.mark.note("F75")
def test_orphaned_transaction_is_closed_at_once() -> None:
    before = orphaned_transaction_snapshot(presence=OFFLINE)

    after = close_transaction(before, "77", operator_command("Open"), decision_context(NOW + HOUR, serial=9))

    closed = after.transactions["77"]
    assert (NOW + HOUR, 5000, "ClosedByOperator") == (closed.stopped_at, closed.energy_wh, closed.reason)
    assert after.connector(1).transaction is None
    assert [] == queued_commands(after)
    assert before.connector(2) == after.connector(2)


@pytest.mark.note("F75")
def test_closing_transaction_settles_and_signs_audit() -> None:
    after = close_offline(metered_snapshot())

    held = b.get_reservation(after)
    assert (ReservationState.COMPLETED, Money.CAPTURING, 595 + 50) == (held.state, held.money, held.amount)
    assert [OutboxKind.CAPTURE] == [outbox_item.kind for outbox_item in after.outbox_items]
    assert [f"{WHO}: {REASON}"] == [
        audit_entry.detail for audit_entry in audit_entries(after) if audit_entry.event == "ClosedByOperator"
    ]


@pytest.mark.note("F66")
def test_closing_without_energy_releases_hold() -> None:
    after = close_offline(b.charging_snapshot())

    assert Money.RELEASING == b.get_reservation(after).money
    assert [OutboxKind.RELEASE] == [outbox_item.kind for outbox_item in after.outbox_items]


# A station that is online


@pytest.mark.note("F75")
def test_online_station_is_asked_before_billing() -> None:
    before = metered_snapshot()

    after = close_transaction(before, "3", operator_command("Open"), decision_context(serial=9))

    running = after.connector(1).transaction
    assert running is not None
    assert OperatorClose(who=WHO, reason=REASON, due_at=NOW + 10 * SECOND) == running.closing
    assert NOW + 10 * SECOND == after.connector(1).due_at
    assert (ReservationState.CHARGING, Money.AUTHORIZED) == (
        b.get_reservation(after).state,
        b.get_reservation(after).money,
    )
    assert [(CommandKind.REMOTE_STOP, None)] == queued_commands(after)[-1:]
    assert (WHO, REASON) == (after.calls[-1].asked_by, after.calls[-1].reason)
    assert [f"{WHO}: {REASON}"] == [entry.detail for entry in audit_entries(after) if entry.event == "CloseAsked"]


@pytest.mark.note("F75")
def test_real_stop_in_time_is_billed() -> None:
    asked = ask_to_close(metered_snapshot())
    request = {"transactionId": 3, "meterStop": 12_000, "timestamp": "2026-03-01T12:00:05Z"}

    after, _ = core.stop_transaction(asked, request, decision_context(NOW + 5 * SECOND, serial=10))

    closed = after.transactions["3"]
    assert (11_000, "Local", ()) == (closed.energy_wh, closed.reason, closed.flags)
    assert 655 + 50 == b.get_reservation(after).amount
    assert after.connector(1).transaction is None


@pytest.mark.note("F75")
@pytest.mark.parametrize(("seconds", "closed"), [(9, False), (10, True), (3600, True)])
def test_close_without_stop_is_final_after_patience(seconds: int, closed: bool) -> None:
    asked = ask_to_close(metered_snapshot())

    after = close_overdue(asked, 1, decision_context(NOW + seconds * SECOND, serial=10))

    assert ("ClosedByOperator" if closed else None) == after.transactions["3"].reason
    assert (595 + 50 if closed else None) == b.get_reservation(after).amount
    assert ([f"{WHO}: {REASON}"] if closed else []) == [
        entry.detail for entry in audit_entries(after) if entry.event == "ClosedByOperator"
    ]
    assert ("TransactionClosed" in timeline_kinds(after)) == closed


@pytest.mark.note("F75")
def test_second_close_changes_nothing() -> None:
    asked = ask_to_close(metered_snapshot())
    late = decision_context(NOW + 9 * SECOND, serial=10)

    again = close_transaction(asked, "3", operator_command("Open"), late)

    assert asked == again


# What fits no running transaction


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
    closed = b.apply_decision(b.charging_snapshot(), close_offline(b.charging_snapshot()))
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
