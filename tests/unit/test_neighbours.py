"""Two connectors of one station: whatever is reported, done or decided about one leaves the other unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from csms import occupancy
from csms.charging import checkout, operations, reservation, settlement, status, transaction
from csms.charging.operations import OperatorCommand
from csms.charging.reservation import Event
from csms.commands import calls
from csms.model import (
    CallState,
    CommandKind,
    IdToken,
    OutboundCall,
    RemoteStart,
    ReservationState,
    Snapshot,
    StatusSource,
    TriggerStatus,
)
from csms.ocpp.v16 import core
from csms.ports.payments import PaymentStatus
from tests import builders as b
from tests.builders import (
    HOUR,
    NOW,
    build_live_status,
    build_persisted_status,
    connector,
    decision_context,
    lock,
    open_transaction,
)

NEIGHBOUR = connector(
    2,
    live=build_live_status("Charging"),
    persisted=build_persisted_status("Occupied", source=StatusSource.REMOTE_START),
    transaction=open_transaction("78", energy_wh=4000, ends_at=NOW + 2 * HOUR),
    lock=lock(ReservationState.CHARGING, expires_at=None),
    plugged="epoch",
    version=4,
)
LATER = NOW + HOUR

Transition = Callable[[Snapshot], Snapshot]


def add_neighbour(before: Snapshot) -> Snapshot:
    """The station with somebody charging at connector 2, who is waited for with a CALL and asked for with another."""
    seen = before.with_connector(NEIGHBOUR).with_transaction(b.transaction("78", connector_id=2))
    asked = calls.queue(seen, TriggerStatus(connector_id=2), decision_context(serial=91), until=LATER)
    return calls.queue(
        asked,
        RemoteStart(connector_id=2, id_token=IdToken(value="WTAG9")),
        decision_context(serial=92),
        until=LATER,
        reservation_id="somebody",
    )


def neighbour_state(seen: Snapshot) -> tuple[Any, ...]:
    """All that is stored of connector 2 and its driver."""
    mine = tuple(call for call in seen.calls if call.connector_id == 2)
    return seen.connector(2), seen.transactions.get(78), mine


def send_call(action: str, **payload: Any) -> Transition:
    return lambda seen: core.ACTIONS[action].decide(seen, {"connectorId": 1, **payload}, decision_context(serial=9))[0]


def report_status(raw: str) -> Transition:
    return send_call("StatusNotification", errorCode="NoError", status=raw)


def start_transaction(tag: str) -> Transition:
    return send_call("StartTransaction", idTag=tag, meterStart=1000, timestamp="2026-03-01T12:00:00Z")


def answer_remote_start(word: str) -> Transition:
    def happens(seen: Snapshot) -> Snapshot:
        return b.answer_call(seen, remote_start_to_connector_1(seen), word, decision_context(serial=9))

    return happens


def calls_to_connector_1(seen: Snapshot) -> list[tuple[CommandKind, CallState]]:
    """What the station is yet to be asked about connector 1, or was."""
    return [(call.kind, call.state) for call in seen.calls if call.connector_id == 1]


def remote_start_to_connector_1(seen: Snapshot) -> OutboundCall:
    return next(call for call in seen.calls if call.kind is CommandKind.REMOTE_START and call.connector_id == 1)


def operator_command(expected: str) -> OperatorCommand:
    return OperatorCommand(who="eve@example.org", reason="It hangs.", expected=expected)


def implied_stop_snapshot() -> Snapshot:
    """A charge at connector 1 that should have ended an hour from now."""
    seen = b.charging_snapshot()
    charging_connector = seen.connector(1)
    assert charging_connector.transaction is not None
    return seen.with_connector(
        replace(charging_connector, transaction=replace(charging_connector.transaction, idle_until=LATER))
    )


STALE = b.snapshot(connector(persisted=replace(build_persisted_status("Faulted"), release_at=LATER)))
CLOSING = b.apply_decision(
    b.charging_snapshot(),
    operations.close_transaction(b.charging_snapshot(), "3", operator_command("Open"), decision_context(serial=9)),
)
SAMPLE = {"timestamp": "2026-03-01T12:10:00Z", "sampledValue": [{"value": "5000"}]}

TRANSITIONS: dict[str, tuple[Snapshot, Transition]] = {
    **{
        f"it says {raw}": (b.start_requested_snapshot(), report_status(raw))
        for raw in sorted(occupancy.COARSE_STATUSES)
    },
    "it says Available during a charge": (b.charging_snapshot(), report_status("Available")),
    "it is waited for and says Preparing": (b.authorized_snapshot(), report_status("Preparing")),
    "the station boots": (
        b.charging_snapshot(),
        send_call("BootNotification", chargePointVendor="v", chargePointModel="m"),
    ),
    "the car is connected": (b.snapshot(), lambda seen: status.apply_charging_state(seen, 1, "EVConnected")),
    "its driver starts": (b.start_requested_snapshot(), start_transaction("WTAG1")),
    "a card starts": (b.start_requested_snapshot(), start_transaction("CARD")),
    "a start supersedes": (b.charging_snapshot(), start_transaction("CARD")),
    "a start comes too late": (b.cancelled_snapshot(), start_transaction("WTAG1")),
    "it is metered": (b.charging_snapshot(), send_call("MeterValues", transactionId=3, meterValue=[SAMPLE])),
    "it stops": (b.charging_snapshot(), send_call("StopTransaction", transactionId=3, meterStop=9000, timestamp="")),
    "its start is accepted": (b.start_requested_snapshot(), answer_remote_start("Accepted")),
    "its start is rejected": (b.start_requested_snapshot(), answer_remote_start("Rejected")),
    "it is reserved": (b.snapshot(), b.owed_checkout_snapshot),
    "its checkout opens": (
        b.owed_checkout_snapshot(),
        lambda seen: checkout.apply_opened_checkout(seen, b.CHECKOUT, decision_context()),
    ),
    "its payment is seen": (
        b.pending_payment_snapshot(),
        lambda seen: checkout.apply_payment(seen, b.payment(), decision_context(serial=9)),
    ),
    "its checkout ran out": (
        b.pending_payment_snapshot(),
        lambda seen: checkout.apply_payment(seen, b.payment(PaymentStatus.EXPIRED), decision_context(serial=9)),
    ),
    "its driver cancels": (
        b.start_requested_snapshot(),
        lambda seen: checkout.cancel(seen, decision_context(serial=9)),
    ),
    "its time runs out": (
        b.start_requested_snapshot(),
        lambda seen: checkout.expire(seen, decision_context(LATER, serial=9)),
    ),
    "its money is settled": (
        b.charging_snapshot(),
        lambda seen: settlement.apply_stop(seen, 9000, decision_context(serial=9), plugged_in=False, detail=None),
    ),
    "its lock is lost": (
        b.start_requested_snapshot(),
        lambda seen: reservation.apply_event(seen, Event.START_TIMED_OUT, decision_context(serial=9)),
    ),
    "its stop is implied": (
        implied_stop_snapshot(),
        lambda seen: transaction.close_overdue(seen, 1, decision_context(LATER, serial=9)),
    ),
    "its status is released": (
        STALE,
        lambda seen: status.release_stale_status(seen, 1, decision_context(LATER, serial=9)),
    ),
    "an operator resets it": (
        b.snapshot(connector(live=build_live_status("Faulted"))),
        lambda seen: operations.reset_status(seen, 1, operator_command("Faulted"), decision_context(serial=9)),
    ),
    "an operator closes its transaction": (
        b.charging_snapshot(),
        lambda seen: operations.close_transaction(seen, "3", operator_command("Open"), decision_context(serial=9)),
    ),
    "an operator's close of its transaction is final": (
        CLOSING,
        lambda seen: transaction.close_overdue(seen, 1, decision_context(LATER, serial=10)),
    ),
    "an operator cancels its reservation": (
        b.authorized_snapshot(),
        lambda seen: operations.cancel_reservation(seen, operator_command("Authorized"), decision_context(serial=9)),
    ),
}


@pytest.mark.note("F15")
@pytest.mark.parametrize("what", TRANSITIONS)
def test_event_leaves_other_connector_unchanged(what: str) -> None:
    alone, happens = TRANSITIONS[what]
    before = add_neighbour(alone)

    after = happens(before)

    assert neighbour_state(before) == neighbour_state(after)
    assert before != after


@pytest.mark.note("F15")
@pytest.mark.parametrize("what", TRANSITIONS)
def test_event_outcome_ignores_other_connector(what: str) -> None:
    alone, happens = TRANSITIONS[what]

    beside_somebody, by_itself = happens(add_neighbour(alone)), happens(alone)

    assert by_itself.connector(1) == beside_somebody.connector(1)
    assert by_itself.reservation == beside_somebody.reservation
    assert calls_to_connector_1(by_itself) == calls_to_connector_1(beside_somebody)


@pytest.mark.note("F15")
def test_sent_call_to_other_connector_remains() -> None:
    before = add_neighbour(b.start_requested_snapshot())
    sent = replace(before, calls=tuple(replace(call, state=CallState.SENT) for call in before.calls))

    after = checkout.cancel(sent, decision_context(serial=9))

    assert neighbour_state(sent) == neighbour_state(after)


@pytest.mark.note("F15")
def test_other_connectors_reading_is_not_counted() -> None:
    before = add_neighbour(b.charging_snapshot())

    after = send_call("MeterValues", transactionId=78, meterValue=[SAMPLE])(before)

    assert before.connectors == after.connectors


@pytest.mark.note("F15")
def test_start_elsewhere_does_not_imply_unplug() -> None:
    before = b.waiting_for_disconnect_snapshot()
    again = {"connectorId": 2, "idTag": "WTAG1", "meterStart": 0, "timestamp": "2026-03-01T13:10:00Z"}

    after, _ = core.start_transaction(before, again, decision_context(LATER, serial=9))

    assert (before.reservation, before.connector(1)) == (after.reservation, after.connector(1))


@pytest.mark.note("F15")
def test_each_connector_has_own_busy_reasons() -> None:
    seen = report_status("Faulted")(add_neighbour(b.snapshot()))

    assert ("LiveStatus:Faulted",) == occupancy.busy_reasons(seen, 1, now=NOW, policy=decision_context().policy)
    assert ("LiveStatus:Occupied", "OpenTransaction", "ActiveReservation") == occupancy.busy_reasons(
        seen, 2, now=NOW, policy=decision_context().policy
    )
