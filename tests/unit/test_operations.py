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
from tests.builders import HOUR, MINUTE, NOW, connector, live, lock, moment, persisted, running, snapshot
from tests.unit.test_explain import snapshots

WHO = "eve@example.org"
WHY = "The bay is empty."
OFFLINE = b.presence(connection_id=None)
CANCELLABLE = {ReservationState.PENDING_PAYMENT, ReservationState.AUTHORIZED, ReservationState.START_REQUESTED}


def order(expected: str) -> OperatorCommand:
    return OperatorCommand(who=WHO, reason=WHY, expected=expected)


def reset(before: Snapshot, connector_id: int = 1, *, expected: str | None = None) -> Snapshot:
    """The status reset by somebody who sees it as it is, unless it is said what they saw."""
    here = operations.status_state(before, connector_id, moment())
    return reset_status(before, connector_id, order(here if expected is None else expected), moment(serial=9))


def reasons(seen: Snapshot, connector_id: int = 1) -> tuple[str, ...]:
    return busy_reasons(seen, connector_id, now=NOW, policy=Policy())


def orphaned(**changes: Any) -> Snapshot:
    """A transaction of a driver with a card, whose stop does not come."""
    bay = connector(transaction=running(energy_wh=5000))
    return replace(snapshot(bay, connector(2)).with_transaction(b.transaction()), **changes)


def audit(after: Snapshot) -> list[AuditEntry]:
    return [append.record for append in after.records if isinstance(append.record, AuditEntry)]


def timeline(after: Snapshot, kind: str) -> dict[str, Any]:
    """The detail of the one new entry of this kind."""
    entries = [append.record for append in after.records if isinstance(append.record, TimelineEntry)]
    (detail,) = (entry.detail for entry in entries if entry.kind == kind)
    return detail


def asked(after: Snapshot) -> list[tuple[CommandKind, int | None]]:
    return [(call.kind, call.connector_id) for call in after.calls]


# Every action


REVIEWED = b.stored(
    b.completed(), settlement.put_off(b.completed(), OutboxKind.CAPTURE, "The card is gone.", moment(), final=True)
)
"""A charge whose capture was given up, and is in front of a human."""

ACTIONS: dict[str, tuple[Snapshot, str, Callable[[Snapshot, OperatorCommand], Snapshot]]] = {
    "StatusReset": (
        snapshot(connector(live=live("Faulted"))),
        "Faulted",
        lambda before, by: reset_status(before, 1, by, moment(serial=9)),
    ),
    "TransactionClosed": (orphaned(), "Open", lambda before, by: close_transaction(before, "77", by, moment(serial=9))),
    "ReservationCancelled": (
        b.paying(),
        "PendingPayment",
        lambda before, by: cancel_reservation(before, by, moment(serial=9)),
    ),
    "ReservationSettled": (
        b.unplugging(),
        "WaitingForDisconnect",
        lambda before, by: settle_reservation(before, by, moment(serial=9)),
    ),
    "PaymentRetried": (REVIEWED, "needs_review", lambda before, by: retry_payment(before, by, moment(serial=9))),
    "PaymentReleased": (REVIEWED, "needs_review", lambda before, by: release_payment(before, by, moment(serial=9))),
    "PaymentSettled": (REVIEWED, "needs_review", lambda before, by: settle_payment(before, 645, by, moment(serial=9))),
    "StatusAsked": (snapshot(), "Online", lambda before, by: trigger_status(before, by, moment(serial=9))),
}
each_action = pytest.mark.parametrize("kind", ACTIONS)


@pytest.mark.note("F75")
@each_action
def test_action_records_operator_and_reason_in_timeline(kind: str) -> None:
    before, state, act = ACTIONS[kind]

    detail = timeline(act(before, order(state)), kind)

    assert (WHO, WHY) == (detail["who"], detail["why"])


@pytest.mark.note("F75")
@pytest.mark.parametrize("kind", [kind for kind, (before, _, _) in ACTIONS.items() if before.reservation is not None])
def test_reservation_action_is_signed_in_audit(kind: str) -> None:
    before, state, act = ACTIONS[kind]

    after = act(before, order(state))

    assert [f"{WHO}: {WHY}"] == [step.detail for step in audit(after) if step.detail is not None]


@pytest.mark.note("F75")
@each_action
def test_action_with_stale_expectation_is_refused(kind: str) -> None:
    before, state, act = ACTIONS[kind]

    with pytest.raises(Conflict) as refused:
        act(before, order("SomethingElse"))

    assert "StateChanged" == refused.value.code
    assert f" is {state} now" in refused.value.message


# A status


@pytest.mark.note("F75")
def test_reset_drops_blocking_live_status() -> None:
    before = snapshot(connector(live=live("Finishing"), persisted=persisted("Finishing")), connector(2))

    after = reset(before)

    bay = after.connector(1)
    assert (None, "Available", StatusSource.OPERATOR) == (
        bay.live,
        getattr(bay.persisted, "raw", None),
        getattr(bay.persisted, "source", None),
    )
    assert ((), [(CommandKind.TRIGGER_STATUS, 1)]) == (reasons(after), asked(after))
    assert before.connector(2) == after.connector(2)


@pytest.mark.note("F75")
def test_reset_keeps_non_blocking_live_status() -> None:
    before = snapshot(connector(persisted=persisted("Occupied")))

    assert before.connector(1).live == reset(before).connector(1).live


@pytest.mark.note("F75")
def test_repeated_fault_blocks_again_after_reset() -> None:
    again = {"connectorId": 1, "errorCode": "NoError", "status": "Faulted"}

    after, _ = core.status_notification(reset(snapshot(connector(live=live("Faulted")))), again, moment(serial=10))

    assert ("LiveStatus:Faulted",) == reasons(after)


@pytest.mark.note("F75")
def test_offline_station_is_not_asked_on_reset() -> None:
    before = snapshot(connector(live=None, persisted=persisted("Occupied")), presence=OFFLINE)

    after = reset(before)

    assert ((CHARGER_OFFLINE,), []) == (reasons(after), asked(after))


@pytest.mark.note("F75")
@pytest.mark.parametrize(
    ("bay", "named"),
    [
        (connector(live=live("Charging"), transaction=running()), "Transaction 77"),
        (connector(live=live("Charging"), lock=lock()), "Reservation somebody"),
    ],
    ids=["a transaction", "a reservation"],
)
def test_reset_refused_during_transaction_or_reservation(bay: Any, named: str) -> None:
    with pytest.raises(IllegalTransition, match=named):
        reset(snapshot(bay))


@pytest.mark.note("F72")
def test_expired_lock_does_not_prevent_reset() -> None:
    after = reset(snapshot(connector(live=live("Finishing"), lock=lock(expires_at=NOW - MINUTE))))

    assert () == reasons(after)


@pytest.mark.note("F10")
def test_whole_station_status_resets_at_connector_0() -> None:
    before = snapshot(connector(1), connector(2), connector(0, live=live("Unavailable")))

    with pytest.raises(IllegalTransition, match="connector 0"):
        reset(before, 1)
    after = reset(before, 0)

    assert ((), ()) == (reasons(after, 1), reasons(after, 2))
    assert [(CommandKind.TRIGGER_STATUS, 1), (CommandKind.TRIGGER_STATUS, 2)] == asked(after)


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
    before = orphaned()

    after = close_transaction(before, "77", order("Open"), moment(NOW + HOUR, serial=9))

    closed = after.transactions["77"]
    assert (NOW + HOUR, 5000, "ClosedByOperator") == (closed.stopped_at, closed.energy_wh, closed.reason)
    assert ((), "77") == (reasons(after), after.calls[0].transaction_id)
    assert [(CommandKind.REMOTE_STOP, None)] == asked(after)
    assert before.connector(2) == after.connector(2)


@pytest.mark.note("F75")
def test_offline_station_gets_no_stop_command() -> None:
    assert [] == asked(close_transaction(orphaned(presence=OFFLINE), "77", order("Open"), moment(serial=9)))


@pytest.mark.note("F75")
def test_closing_transaction_settles_and_signs_audit() -> None:
    before = b.charging()
    bay = before.connector(1)
    assert bay.transaction is not None
    before = before.with_connector(replace(bay, transaction=replace(bay.transaction, energy_wh=10_000)))

    after = close_transaction(before, "3", order("Open"), moment(serial=9))

    held = b.reservation_in(after)
    assert (ReservationState.COMPLETED, Money.CAPTURING, 595 + 50) == (held.state, held.money, held.amount)
    assert [OutboxKind.CAPTURE] == [effect.kind for effect in after.outbox_items]
    assert [f"{WHO}: {WHY}"] == [step.detail for step in audit(after) if step.event == "ClosedByOperator"]


@pytest.mark.note("F66")
def test_closing_without_energy_releases_hold() -> None:
    after = close_transaction(b.charging(), "3", order("Open"), moment(serial=9))

    assert Money.RELEASING == b.reservation_in(after).money
    assert [OutboxKind.RELEASE] == [effect.kind for effect in after.outbox_items]


@pytest.mark.note("F59")
def test_closing_offline_transaction_spares_running_one() -> None:
    queued = b.transaction("78", flags=("Offline",))
    before = orphaned().with_transaction(queued)

    after = close_transaction(before, "78", order("Open"), moment(serial=9))

    assert ("ClosedByOperator", ("Offline", "ClosedByOperator")) == (
        after.transactions["78"].reason,
        after.transactions["78"].flags,
    )
    assert (before.connector(1), before.transactions["77"]) == (after.connector(1), after.transactions["77"])


@pytest.mark.note("F55")
def test_late_stop_corrects_record_not_bill() -> None:
    closed = b.stored(b.charging(), close_transaction(b.charging(), "3", order("Open"), moment(serial=9)))
    request = {"transactionId": 3, "meterStop": 9000, "timestamp": "2026-03-01T13:00:00Z"}

    after, _ = core.stop_transaction(closed, request, moment(serial=10))

    assert (8000, "Local") == (after.transactions["3"].energy_wh, after.transactions["3"].reason)
    assert replace(b.reservation_in(closed), flags=("Underbilled",)) == b.reservation_in(after)


@pytest.mark.note("F75")
@pytest.mark.parametrize(
    ("before", "expected", "error", "code"),
    [
        (orphaned(), "Open", NotFound, "UnknownTransaction"),
        (orphaned().with_transaction(b.transaction("78", station_id="cp-2")), "Open", NotFound, "UnknownTransaction"),
        (orphaned().with_transaction(b.transaction("78", stopped_at=NOW)), "Open", Conflict, "StateChanged"),
        (
            orphaned().with_transaction(b.transaction("78", stopped_at=NOW)),
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
        close_transaction(before, "78", order(expected), moment())

    assert code == refused.value.code


# A reservation


@pytest.mark.note("F75")
@pytest.mark.parametrize("state", ReservationState)
def test_reservation_can_be_cancelled_until_charging(state: ReservationState) -> None:
    before = b.REACHED[state]()
    if state not in CANCELLABLE:
        with pytest.raises(IllegalTransition):
            cancel_reservation(before, order(state), moment(serial=9))
        return

    after = cancel_reservation(before, order(state), moment(serial=9))

    held = b.reservation_in(after)
    assert (ReservationState.CANCELLED, FailureCode.CANCELLED_BY_OPERATOR) == (held.state, held.failure_code)
    assert after.connector(1).lock is None
    assert [f"{WHO}: {WHY}"] == [step.detail for step in audit(after)]
    assert state == timeline(after, "ReservationCancelled")["was"]


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("before", "money", "owed"),
    [
        (b.created(), Money.NONE, [OutboxKind.OPEN_CHECKOUT]),
        (b.paying(), Money.NONE, [OutboxKind.EXPIRE_CHECKOUT]),
        (b.waiting(), Money.RELEASING, [OutboxKind.RELEASE]),
        (b.start_requested(), Money.RELEASING, [OutboxKind.RELEASE]),
    ],
    ids=["not opened", "paying", "waiting", "start requested"],
)
def test_cancelled_reservation_releases_its_hold(before: Snapshot, money: Money, owed: list[OutboxKind]) -> None:
    after = cancel_reservation(before, order(b.reservation_in(before).state), moment(serial=9))

    assert (money, owed) == (b.reservation_in(after).money, [effect.kind for effect in after.outbox_items])


def test_missing_reservation_cannot_be_cancelled() -> None:
    with pytest.raises(NotFound) as refused:
        cancel_reservation(snapshot(), order("PendingPayment"), moment())

    assert "UnknownReservation" == refused.value.code


# A question, and the end of a station


@pytest.mark.note("F21", "F75")
def test_promised_status_may_be_requested_again() -> None:
    once = trigger_status(snapshot(), order("Online"), moment())
    promised = replace(once, calls=tuple(replace(call, state=CallState.PROMISED) for call in once.calls))

    assert [*asked(once), *asked(once)] == asked(trigger_status(promised, order("Online"), moment(serial=2)))


@pytest.mark.note("F21", "F75")
def test_operator_trigger_requests_each_status_once() -> None:
    once = trigger_status(snapshot(), order("Online"), moment())

    assert [(CommandKind.TRIGGER_STATUS, 1), (CommandKind.TRIGGER_STATUS, 2)] == asked(once)
    assert asked(once) == asked(trigger_status(once, order("Online"), moment(serial=2)))
    assert {NOW} == {call.send_at for call in once.calls}


def test_offline_station_cannot_be_triggered() -> None:
    with pytest.raises(ChargerOffline):
        trigger_status(snapshot(presence=OFFLINE), order("Offline"), moment())


@pytest.mark.parametrize("bay", [connector(2, transaction=running()), connector(2, lock=lock())], ids=["runs", "held"])
def test_station_in_use_cannot_be_deleted(bay: Any) -> None:
    with pytest.raises(IllegalTransition, match="connector 2"):
        operations.refuse_removal(snapshot(connector(1), bay), moment())

    operations.refuse_removal(snapshot(connector(1), connector(2, lock=lock(expires_at=NOW - MINUTE))), moment())
