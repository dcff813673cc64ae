"""What every operator's command records and refuses; how one cancels, asks for a status, and removes a station."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

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
from csms.errors import ChargerOffline, Conflict, IllegalTransition, NotFound
from csms.model import CallState, CommandKind, FailureCode, Money, OutboxKind, ReservationState, Snapshot, TimelineEntry
from tests import builders as b
from tests.builders import MINUTE, NOW, build_live_status, connector, decision_context, lock, open_transaction, snapshot
from tests.unit.operation_cases import (
    OFFLINE,
    REASON,
    WHO,
    audit_entries,
    operator_command,
    orphaned_transaction_snapshot,
    queued_commands,
)

CANCELLABLE = {ReservationState.PENDING_PAYMENT, ReservationState.AUTHORIZED, ReservationState.START_REQUESTED}


def timeline_detail(after: Snapshot, kind: str) -> dict[str, Any]:
    """The detail of the one new entry of this kind."""
    entries = [append.record for append in after.records if isinstance(append.record, TimelineEntry)]
    (detail,) = (entry.detail for entry in entries if entry.kind == kind)
    return detail


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
    "CloseAsked": (
        orphaned_transaction_snapshot(),
        "Open",
        lambda before, by: close_transaction(before, "77", by, decision_context(serial=9)),
    ),
    "TransactionClosed": (
        orphaned_transaction_snapshot(presence=OFFLINE),
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


# Asking for a status, and removing a station


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
