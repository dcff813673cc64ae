"""The operator's hand, decided: what it may do, what it leaves alone, and what it leaves behind in writing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from csms.charging import operations, settlement
from csms.charging.operations import (
    OperatorCommand,
    cancel_reservation,
    close_transaction,
    release_payment,
    reset_status,
    retry_payment,
    settle_payment,
    settle_reservation,
    trigger_status,
)
from csms.errors import ChargerOffline, Conflict, CsmsError, IllegalTransition, NotFound
from csms.model import (
    AuditEntry,
    CallState,
    CommandKind,
    FailureCode,
    Money,
    OutboxKind,
    Policy,
    ReservationState,
    Snapshot,
    StatusSource,
    TimelineEntry,
)
from csms.occupancy import CHARGER_OFFLINE, busy_reasons
from csms.ocpp.v16 import core
from tests import builders as b
from tests.builders import (
    HOUR,
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
from tests.unit.test_explain import snapshots

WHO = "eve@example.org"
REASON = "The bay is empty."
OFFLINE = b.presence(connection_id=None)
CANCELLABLE = {ReservationState.PENDING_PAYMENT, ReservationState.AUTHORIZED, ReservationState.START_REQUESTED}


def operator_command(expected: str) -> OperatorCommand:
    return OperatorCommand(who=WHO, reason=REASON, expected=expected)


def reset(before: Snapshot, connector_id: int = 1, *, expected: str | None = None) -> Snapshot:
    """The status reset by somebody who sees it as it is, unless it is said what they saw."""
    here = operations.status_state(before, connector_id, decision_context())
    return reset_status(
        before, connector_id, operator_command(here if expected is None else expected), decision_context(serial=9)
    )


def reasons(seen: Snapshot, connector_id: int = 1) -> tuple[str, ...]:
    return busy_reasons(seen, connector_id, now=NOW, policy=Policy())


def orphaned_transaction_snapshot(**changes: Any) -> Snapshot:
    """A transaction of a driver with a card, whose stop does not come."""
    changed_connector = connector(transaction=open_transaction(energy_wh=5000))
    return replace(snapshot(changed_connector, connector(2)).with_transaction(b.transaction()), **changes)


def audit_entries(after: Snapshot) -> list[AuditEntry]:
    return [append.record for append in after.records if isinstance(append.record, AuditEntry)]


def timeline_detail(after: Snapshot, kind: str) -> dict[str, Any]:
    """The detail of the one new entry of this kind."""
    entries = [append.record for append in after.records if isinstance(append.record, TimelineEntry)]
    (detail,) = (entry.detail for entry in entries if entry.kind == kind)
    return detail


def queued_commands(after: Snapshot) -> list[tuple[CommandKind, int | None]]:
    return [(call.kind, call.connector_id) for call in after.calls]


# Every action


REVIEWED = b.apply_decision(
    b.completed_snapshot(),
    settlement.put_off(b.completed_snapshot(), OutboxKind.CAPTURE, "The card is gone.", decision_context(), final=True),
)
"""A charge whose capture was given up, and is in front of a human."""

ACTIONS: dict[str, tuple[Snapshot, str, Callable[[Snapshot, OperatorCommand], Snapshot]]] = {
    "StatusReset": (
        snapshot(connector(live=build_live_status("Faulted"))),
        "Faulted",
        lambda before, by: reset_status(before, 1, by, decision_context(serial=9)),
    ),
    "TransactionClosed": (
        orphaned_transaction_snapshot(),
        "Open",
        lambda before, by: close_transaction(before, "77", by, decision_context(serial=9)),
    ),
    "ReservationCancelled": (
        b.pending_payment_snapshot(),
        "PendingPayment",
        lambda before, by: cancel_reservation(before, by, decision_context(serial=9)),
    ),
    "ReservationSettled": (
        b.waiting_for_disconnect_snapshot(),
        "WaitingForDisconnect",
        lambda before, by: settle_reservation(before, by, decision_context(serial=9)),
    ),
    "PaymentRetried": (
        REVIEWED,
        "needs_review",
        lambda before, by: retry_payment(before, by, decision_context(serial=9)),
    ),
    "PaymentReleased": (
        REVIEWED,
        "needs_review",
        lambda before, by: release_payment(before, by, decision_context(serial=9)),
    ),
    "PaymentSettled": (
        REVIEWED,
        "needs_review",
        lambda before, by: settle_payment(before, 645, by, decision_context(serial=9)),
    ),
    "StatusAsked": (snapshot(), "Online", lambda before, by: trigger_status(before, by, decision_context(serial=9))),
}
each_action = pytest.mark.parametrize("kind", ACTIONS)


@pytest.mark.note("F75")
@each_action
def test_action_records_operator_and_reason_in_timeline(kind: str) -> None:
    before, state, act = ACTIONS[kind]

    detail = timeline_detail(act(before, operator_command(state)), kind)

    assert (WHO, REASON) == (detail["who"], detail["why"])


@pytest.mark.note("F75")
@pytest.mark.parametrize("kind", [kind for kind, (before, _, _) in ACTIONS.items() if before.reservation is not None])
def test_reservation_action_is_signed_in_audit(kind: str) -> None:
    before, state, act = ACTIONS[kind]

    after = act(before, operator_command(state))

    assert [f"{WHO}: {REASON}"] == [
        audit_entry.detail for audit_entry in audit_entries(after) if audit_entry.detail is not None
    ]


@pytest.mark.note("F75")
@each_action
def test_action_with_stale_expectation_is_refused(kind: str) -> None:
    before, state, act = ACTIONS[kind]

    with pytest.raises(Conflict) as refused:
        act(before, operator_command("SomethingElse"))

    assert "StateChanged" == refused.value.code
    assert f" is {state} now" in refused.value.message


# A status


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


# A transaction


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


# A reservation


@pytest.mark.note("F75")
@pytest.mark.parametrize("state", ReservationState)
def test_reservation_can_be_cancelled_until_charging(state: ReservationState) -> None:
    before = b.SNAPSHOT_BY_STATE[state]()
    if state not in CANCELLABLE:
        with pytest.raises(IllegalTransition):
            cancel_reservation(before, operator_command(state), decision_context(serial=9))
        return

    after = cancel_reservation(before, operator_command(state), decision_context(serial=9))

    held = b.get_reservation(after)
    assert (ReservationState.CANCELLED, FailureCode.CANCELLED_BY_OPERATOR) == (held.state, held.failure_code)
    assert after.connector(1).lock is None
    assert [f"{WHO}: {REASON}"] == [audit_entry.detail for audit_entry in audit_entries(after)]
    assert state == timeline_detail(after, "ReservationCancelled")["was"]


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("before", "money", "owed"),
    [
        (b.owed_checkout_snapshot(), Money.NONE, [OutboxKind.OPEN_CHECKOUT]),
        (b.pending_payment_snapshot(), Money.NONE, [OutboxKind.EXPIRE_CHECKOUT]),
        (b.authorized_snapshot(), Money.RELEASING, [OutboxKind.RELEASE]),
        (b.start_requested_snapshot(), Money.RELEASING, [OutboxKind.RELEASE]),
    ],
    ids=["not opened", "paying", "waiting", "start requested"],
)
def test_cancelled_reservation_releases_its_hold(before: Snapshot, money: Money, owed: list[OutboxKind]) -> None:
    after = cancel_reservation(before, operator_command(b.get_reservation(before).state), decision_context(serial=9))

    assert (money, owed) == (b.get_reservation(after).money, [outbox_item.kind for outbox_item in after.outbox_items])


def test_missing_reservation_cannot_be_cancelled() -> None:
    with pytest.raises(NotFound) as refused:
        cancel_reservation(snapshot(), operator_command("PendingPayment"), decision_context())

    assert "UnknownReservation" == refused.value.code


# A question, and the end of a station


@pytest.mark.note("F21", "F75")
def test_promised_status_may_be_requested_again() -> None:
    once = trigger_status(snapshot(), operator_command("Online"), decision_context())
    promised = replace(once, calls=tuple(replace(call, state=CallState.PROMISED) for call in once.calls))

    assert [*queued_commands(once), *queued_commands(once)] == queued_commands(
        trigger_status(promised, operator_command("Online"), decision_context(serial=2))
    )


@pytest.mark.note("F21", "F75")
def test_operator_trigger_requests_each_status_once() -> None:
    once = trigger_status(snapshot(), operator_command("Online"), decision_context())

    assert [(CommandKind.TRIGGER_STATUS, 1), (CommandKind.TRIGGER_STATUS, 2)] == queued_commands(once)
    assert queued_commands(once) == queued_commands(
        trigger_status(once, operator_command("Online"), decision_context(serial=2))
    )
    assert {NOW} == {call.send_at for call in once.calls}


def test_offline_station_cannot_be_triggered() -> None:
    with pytest.raises(ChargerOffline):
        trigger_status(snapshot(presence=OFFLINE), operator_command("Offline"), decision_context())


@pytest.mark.parametrize(
    "changed_connector", [connector(2, transaction=open_transaction()), connector(2, lock=lock())], ids=["runs", "held"]
)
def test_station_in_use_cannot_be_deleted(changed_connector: Any) -> None:
    with pytest.raises(IllegalTransition, match="connector 2"):
        operations.refuse_removal(snapshot(connector(1), changed_connector), decision_context())

    operations.refuse_removal(
        snapshot(connector(1), connector(2, lock=lock(expires_at=NOW - MINUTE))), decision_context()
    )
