"""The states of a reservation and its money: both tables entry by entry, and what happens to the lock and the
payment."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from csms.charging import reservation, start_gate, status
from csms.charging.reservation import Event, advance, advance_money, apply_event, can_advance, give_back
from csms.charging.start_gate import request_start
from csms.errors import IllegalTransition, NotFound
from csms.model import (
    CallState,
    CommandKind,
    FailureCode,
    Money,
    OutboxKind,
    ReservationState,
    Snapshot,
    StatusSource,
)
from tests import builders as b
from tests.builders import HOUR, NOW, SECOND, SNAPSHOT_BY_STATE, decision_context, get_reservation

LEGAL = """
    PendingPayment   CheckoutOpened     PendingPayment
    PendingPayment   CheckoutFailed     Failed
    PendingPayment   PaymentAuthorised  Authorized
    PendingPayment   PaymentFailed      Failed
    PendingPayment   PaymentTimedOut    Cancelled
    PendingPayment   ConnectorTaken     Failed
    PendingPayment   Cancelled          Cancelled
    PendingPayment   NothingToPay       Authorized
    PendingPayment   CancelledByOperator  Cancelled
    Authorized       PaymentFailed      Failed
    Authorized       StartSent          StartRequested
    Authorized       CancelledByOperator  Cancelled
    StartRequested   PaymentFailed      Failed
    StartRequested   StartSent          StartRequested
    StartRequested   CancelledByOperator  Cancelled
    Authorized       StartTimedOut      Failed
    Authorized       Started            Charging
    Authorized       Cancelled          Cancelled
    StartRequested   StartAccepted      StartRequested
    StartRequested   StartRejected      Failed
    StartRequested   StartTimedOut      Failed
    StartRequested   Started            Charging
    StartRequested   Cancelled          Cancelled
    Failed           StartedLate        Charging
    Cancelled        StartedLate        Charging
    Charging         Stopped            Completed
    Charging         StoppedPluggedIn   WaitingForDisconnect
    WaitingForDisconnect  Unplugged     Completed
    WaitingForDisconnect  DisconnectTimedOut  Completed
    WaitingForDisconnect  SettledByOperator   Completed
"""
TABLE = {(s, e): after for s, e, after in (line.split() for line in LEGAL.strip().splitlines())}
MONEY = {
    ("none", "authorised"),
    ("authorised", "capturing"),
    ("authorised", "releasing"),
    ("capturing", "captured"),
    ("capturing", "needs_review"),
    ("releasing", "released"),
    ("releasing", "needs_review"),
    ("captured", "refunding"),
    ("refunding", "captured"),
    ("refunding", "needs_review"),
    ("needs_review", "capturing"),
    ("needs_review", "releasing"),
    ("needs_review", "refunding"),
    ("needs_review", "captured"),
    ("needs_review", "released"),
}


@pytest.mark.note("F34")
@pytest.mark.parametrize(("state", "event"), list(product(ReservationState, Event)))
def test_transition_follows_table_or_is_illegal(state: ReservationState, event: Event) -> None:
    held = get_reservation(SNAPSHOT_BY_STATE[state]())
    expected = TABLE.get((state, event))

    assert (expected is not None) == can_advance(held, event)
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"^{event} is not possible while the reservation is {state}.$"):
            advance(held, event)
        return
    assert replace(held, state=ReservationState(expected)) == advance(held, event)


def test_each_builder_reaches_its_state() -> None:
    assert {state: state for state in ReservationState} == {
        state: get_reservation(reached()).state for state, reached in SNAPSHOT_BY_STATE.items()
    }


@pytest.mark.parametrize(("money", "then"), list(product(Money, Money)))
def test_money_transition_follows_table_or_is_illegal(money: Money, then: Money) -> None:
    held = replace(get_reservation(b.pending_payment_snapshot()), money=money)

    if (money, then) in MONEY:
        assert replace(held, money=then) == advance_money(held, then)
        return
    with pytest.raises(IllegalTransition, match=f"^The reservation's money cannot become {then} while it is {money}.$"):
        advance_money(held, then)


@pytest.mark.parametrize("state", sorted(reservation.LOCKING_STATES))
def test_lock_mirrors_its_reservation(state: ReservationState) -> None:
    seen = SNAPSHOT_BY_STATE[state]()
    held, lock = get_reservation(seen), seen.connector(1).lock

    assert lock is not None
    assert (held.reservation_id, state, held.id_tag, held.expires_at) == (
        lock.reservation_id,
        lock.state,
        lock.id_tag,
        lock.expires_at,
    )


@pytest.mark.parametrize("state", sorted(set(ReservationState) - reservation.LOCKING_STATES))
def test_ended_reservation_has_no_lock_or_expiry(state: ReservationState) -> None:
    seen = SNAPSHOT_BY_STATE[state]()

    assert seen.connector(1).lock is None
    assert (None, NOW) == (get_reservation(seen).expires_at, get_reservation(seen).ended_at)


@pytest.mark.parametrize(("state", "event"), [pair for pair, after in TABLE.items() if pair[0] != "Charging"])
def test_foreign_lock_is_left_untouched(state: str, event: str) -> None:
    seen = SNAPSHOT_BY_STATE[ReservationState(state)]()
    taken = seen.with_connector(replace(seen.connector(1), lock=b.lock()))

    after = apply_event(taken, Event(event), decision_context(serial=9))

    assert taken.connector(1) == after.connector(1)


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("state", "event", "code"),
    [
        (ReservationState.PENDING_PAYMENT, Event.CHECKOUT_FAILED, FailureCode.CHECKOUT_FAILED),
        (ReservationState.PENDING_PAYMENT, Event.PAYMENT_FAILED, FailureCode.PAYMENT_FAILED),
        (ReservationState.PENDING_PAYMENT, Event.PAYMENT_TIMED_OUT, FailureCode.PAYMENT_TIMEOUT),
        (ReservationState.PENDING_PAYMENT, Event.CONNECTOR_TAKEN, FailureCode.CONNECTOR_TAKEN),
        (ReservationState.PENDING_PAYMENT, Event.CANCELLED, FailureCode.CANCELLED_BY_DRIVER),
        (ReservationState.AUTHORIZED, Event.START_TIMED_OUT, FailureCode.START_TIMEOUT),
        (ReservationState.START_REQUESTED, Event.START_REJECTED, FailureCode.START_REJECTED),
        (ReservationState.START_REQUESTED, Event.CANCELLED_BY_OPERATOR, FailureCode.CANCELLED_BY_OPERATOR),
    ],
)
def test_failure_has_code_and_releases_money(state: ReservationState, event: Event, code: FailureCode) -> None:
    before = SNAPSHOT_BY_STATE[state]()

    after = apply_event(before, event, decision_context(serial=9), detail="because")

    held = get_reservation(after)
    unpaid = state is ReservationState.PENDING_PAYMENT
    assert code == held.failure_code
    assert (Money.NONE if unpaid else Money.RELEASING) == held.money
    assert (OutboxKind.EXPIRE_CHECKOUT if unpaid else OutboxKind.RELEASE) == after.outbox_items[-1].kind
    assert [str(event)] == b.audit_events(after)
    assert (held.state, held.money, "because") == (
        after.records[0].record.state,
        after.records[0].record.money,
        after.records[0].record.detail,
    )


@pytest.mark.note("F09")
@pytest.mark.parametrize("event", [Event.START_REJECTED, Event.START_TIMED_OUT, Event.CANCELLED])
def test_server_made_occupied_ends_with_lock(event: Event) -> None:
    before = b.start_requested_snapshot()
    accepted = b.answer_call(before, before.calls[0], "Accepted", decision_context())

    made = accepted.connector(1).persisted
    assert made is not None
    assert ("Occupied", NOW, StatusSource.REMOTE_START) == (made.raw, made.at, made.source)
    assert apply_event(accepted, event, decision_context()).connector(1).persisted is None


@pytest.mark.note("F09")
def test_reported_occupied_survives_cancellation() -> None:
    before = b.start_requested_snapshot()
    said = b.build_persisted_status("Charging")
    before = before.with_connector(replace(before.connector(1), persisted=said))

    assert said == apply_event(before, Event.CANCELLED, decision_context()).connector(1).persisted


@pytest.mark.note("F09")
def test_move_removes_server_made_occupied() -> None:
    before = b.start_requested_snapshot()
    accepted = b.apply_decision(before, b.answer_call(before, before.calls[0], "Accepted", decision_context()))

    moved = start_gate.move_reservation(accepted, 2, decision_context(serial=9))

    assert (None, None) == (moved.connector(1).persisted, moved.connector(2).persisted)


@pytest.mark.note("F63")
@pytest.mark.parametrize(
    ("money", "checkout", "owed"),
    [
        (Money.NONE, None, None),
        (Money.NONE, "cs_secret", OutboxKind.EXPIRE_CHECKOUT),
        (Money.AUTHORIZED, "cs_secret", OutboxKind.RELEASE),
        (Money.CAPTURING, "cs_secret", None),
        (Money.CAPTURED, "cs_secret", None),
        (Money.RELEASING, "cs_secret", None),
        (Money.RELEASED, "cs_secret", None),
        (Money.NEEDS_REVIEW, "cs_secret", None),
    ],
)
def test_release_depends_on_money_state(money: Money, checkout: str | None, owed: OutboxKind | None) -> None:
    before = b.pending_payment_snapshot()
    before = replace(before, reservation=replace(get_reservation(before), money=money, checkout_id=checkout))

    after = give_back(before, decision_context())

    assert ([owed] if owed else []) == [outbox_item.kind for outbox_item in after.outbox_items]
    assert (Money.RELEASING if owed is OutboxKind.RELEASE else money) == get_reservation(after).money


@pytest.mark.note("F31")
@pytest.mark.parametrize(
    ("sent", "left"), [(CallState.QUEUED, 0), (CallState.SENT, 1)], ids=["still queued", "already sent"]
)
def test_unsent_start_is_withdrawn_on_cancel(sent: CallState, left: int) -> None:
    before = b.start_requested_snapshot()
    before = replace(before, calls=tuple(replace(call, state=sent) for call in before.calls))

    assert left == len(apply_event(before, Event.CANCELLED, decision_context()).calls)


def test_outbox_item_is_due_in_30_seconds() -> None:
    after = reservation.add_outbox_item(b.pending_payment_snapshot(), OutboxKind.CAPTURE, decision_context())

    assert NOW + 30 * SECOND == after.outbox_items[-1].due_at


@pytest.mark.note("F27")
def test_start_is_requested_until_fixed_deadline() -> None:
    before = b.authorized_snapshot()
    before = before.with_connector(replace(before.connector(1), live=b.build_live_status("Preparing")))
    deadline = get_reservation(before).start_deadline

    after = request_start(before, decision_context(NOW + SECOND, serial=5))

    (call,) = after.calls
    assert (CommandKind.REMOTE_START, 1, "WTAG1", "reservation-1", deadline) == (
        call.kind,
        call.connector_id,
        call.command.id_token.value,
        call.reservation_id,
        call.expires_at,
    )
    assert ReservationState.START_REQUESTED == get_reservation(after).state
    assert (deadline, deadline) == (get_reservation(after).start_deadline, get_reservation(after).expires_at)
    assert deadline is not None
    assert before != request_start(before, decision_context(deadline))
    assert before == request_start(before, decision_context(deadline + SECOND))
    assert before == request_start(before, decision_context(deadline + SECOND, start_window=HOUR))


@pytest.mark.note("F32")
def test_start_waits_for_plug_where_required() -> None:
    before = b.authorized_snapshot()
    free = before.with_connector(replace(before.connector(1), live=b.build_live_status("Available")))
    plugged = before.with_connector(replace(before.connector(1), live=b.build_live_status("Preparing")))
    earlier = plugged.with_connector(
        replace(plugged.connector(1), live=b.build_live_status("Preparing", epoch="an earlier one"))
    )
    strict = decision_context(serial=5, start_needs_plug=True)

    assert (free, earlier) == (request_start(free, strict), request_start(earlier, strict))
    assert {("Plug",)} == {start_gate.start_blockers(seen, get_reservation(seen), strict) for seen in (free, earlier)}
    assert ReservationState.START_REQUESTED == get_reservation(request_start(plugged, strict)).state


@pytest.mark.note("F32", "F04")
def test_ocpp201_ev_connected_counts_as_plug() -> None:
    before = b.authorized_snapshot()
    occupied = before.with_connector(replace(before.connector(1), live=b.build_live_status("Occupied")))
    plugged = status.apply_charging_state(occupied, 1, "EVConnected")
    strict = decision_context(serial=5, start_needs_plug=True)

    assert occupied == request_start(occupied, strict)
    assert ReservationState.START_REQUESTED == get_reservation(request_start(plugged, strict)).state


def test_start_gate_reports_its_verdict() -> None:
    before = b.authorized_snapshot()
    free = before.with_connector(replace(before.connector(1), live=b.build_live_status("Available")))
    strict = decision_context(serial=5, start_needs_plug=True)
    late = decision_context(NOW + HOUR)

    said = [
        request_start(seen, at).verdicts
        for seen, at in ((before, decision_context()), (free, decision_context()), (free, strict))
    ]
    assert [("busy", "LiveStatus:Unavailable"), ("startable", None), ("waiting", "Plug")] == [
        (verdict["verdict"], verdict["headline"]) for (verdict,) in said
    ]
    assert () == request_start(free, late).verdicts


@pytest.mark.note("F34")
@pytest.mark.parametrize(
    "state", sorted(set(ReservationState) - {ReservationState.AUTHORIZED, ReservationState.START_REQUESTED})
)
def test_other_states_request_no_start(state: ReservationState) -> None:
    before = SNAPSHOT_BY_STATE[state]()

    assert before == request_start(before, decision_context(serial=9))


def test_event_without_reservation_raises_not_found() -> None:
    with pytest.raises(NotFound, match="There is no such reservation"):
        apply_event(b.snapshot(), Event.CANCELLED, decision_context())


def test_audit_trail_orders_simultaneous_entries() -> None:
    after = apply_event(
        reservation.add_audit_entry(b.charging_snapshot(), "First", decision_context()),
        Event.STOPPED,
        decision_context(),
    )

    assert [("First", 0), ("Stopped", 1)] == [(a.record.event, a.record.order) for a in after.records]


def test_decision_leaves_its_argument_unchanged() -> None:
    before: Snapshot = b.charging_snapshot()
    copy = replace(before, connectors=dict(before.connectors))
    apply_event(before, Event.STOPPED, decision_context())

    assert copy == before
