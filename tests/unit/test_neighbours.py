"""Two connectors of one station: whatever is said, done or decided about the one leaves the other as it is."""

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
from tests.builders import HOUR, NOW, connector, live, lock, moment, persisted, running

NEIGHBOUR = connector(
    2,
    live=live("Charging"),
    persisted=persisted("Occupied", source=StatusSource.REMOTE_START),
    transaction=running("78", energy_wh=4000, ends_at=NOW + 2 * HOUR),
    lock=lock(ReservationState.CHARGING, expires_at=None),
    plugged="epoch",
    version=4,
)
LATER = NOW + HOUR

Happens = Callable[[Snapshot], Snapshot]


def beside(before: Snapshot) -> Snapshot:
    """The station with somebody charging at connector 2, who is waited for with a CALL and asked for with another."""
    seen = before.with_connector(NEIGHBOUR).with_transaction(b.transaction("78", connector_id=2))
    asked = calls.queue(seen, TriggerStatus(connector_id=2), moment(serial=91), until=LATER)
    return calls.queue(
        asked,
        RemoteStart(connector_id=2, id_token=IdToken(value="WTAG9")),
        moment(serial=92),
        until=LATER,
        reservation_id="somebody",
    )


def about_the_neighbour(seen: Snapshot) -> tuple[Any, ...]:
    """All that is stored of connector 2 and its driver."""
    mine = tuple(call for call in seen.calls if call.connector_id == 2)
    return seen.connector(2), seen.transactions.get(78), mine


def says(action: str, **payload: Any) -> Happens:
    return lambda seen: core.ACTIONS[action].decide(seen, {"connectorId": 1, **payload}, moment(serial=9))[0]


def reports(raw: str) -> Happens:
    return says("StatusNotification", errorCode="NoError", status=raw)


def starts(tag: str) -> Happens:
    return says("StartTransaction", idTag=tag, meterStart=1000, timestamp="2026-03-01T12:00:00Z")


def answers(word: str) -> Happens:
    def happens(seen: Snapshot) -> Snapshot:
        return b.answered(seen, start_of_1(seen), word, moment(serial=9))

    return happens


def asked_of_1(seen: Snapshot) -> list[tuple[CommandKind, CallState]]:
    """What the station is yet to be asked about connector 1, or was."""
    return [(call.kind, call.state) for call in seen.calls if call.connector_id == 1]


def start_of_1(seen: Snapshot) -> OutboundCall:
    return next(call for call in seen.calls if call.kind is CommandKind.REMOTE_START and call.connector_id == 1)


def orders(expected: str) -> OperatorCommand:
    return OperatorCommand(who="eve@example.org", reason="It hangs.", expected=expected)


def on_notice() -> Snapshot:
    """A charge at connector 1 that should have ended an hour from now."""
    seen = b.charging()
    bay = seen.connector(1)
    assert bay.transaction is not None
    return seen.with_connector(replace(bay, transaction=replace(bay.transaction, idle_until=LATER)))


STALE = b.snapshot(connector(persisted=replace(persisted("Faulted"), release_at=LATER)))
SAMPLE = {"timestamp": "2026-03-01T12:10:00Z", "sampledValue": [{"value": "5000"}]}

HAPPENINGS: dict[str, tuple[Snapshot, Happens]] = {
    **{f"it says {raw}": (b.start_requested(), reports(raw)) for raw in sorted(occupancy.COARSE_STATUSES)},
    "it says Available during a charge": (b.charging(), reports("Available")),
    "it is waited for and says Preparing": (b.waiting(), reports("Preparing")),
    "the station boots": (b.charging(), says("BootNotification", chargePointVendor="v", chargePointModel="m")),
    "the car is connected": (b.snapshot(), lambda seen: status.apply_charging_state(seen, 1, "EVConnected")),
    "its driver starts": (b.start_requested(), starts("WTAG1")),
    "a card starts": (b.start_requested(), starts("CARD")),
    "a start supersedes": (b.charging(), starts("CARD")),
    "a start comes too late": (b.cancelled(), starts("WTAG1")),
    "it is metered": (b.charging(), says("MeterValues", transactionId=3, meterValue=[SAMPLE])),
    "it stops": (b.charging(), says("StopTransaction", transactionId=3, meterStop=9000, timestamp="")),
    "its start is accepted": (b.start_requested(), answers("Accepted")),
    "its start is rejected": (b.start_requested(), answers("Rejected")),
    "it is reserved": (b.snapshot(), b.created),
    "its checkout opens": (b.created(), lambda seen: checkout.apply_opened_checkout(seen, b.CHECKOUT, moment())),
    "its payment is seen": (b.paying(), lambda seen: checkout.apply_payment(seen, b.payment(), moment(serial=9))),
    "its checkout ran out": (
        b.paying(),
        lambda seen: checkout.apply_payment(seen, b.payment(PaymentStatus.EXPIRED), moment(serial=9)),
    ),
    "its driver cancels": (b.start_requested(), lambda seen: checkout.cancel(seen, moment(serial=9))),
    "its time runs out": (b.start_requested(), lambda seen: checkout.expire(seen, moment(LATER, serial=9))),
    "its money is settled": (
        b.charging(),
        lambda seen: settlement.apply_stop(seen, 9000, moment(serial=9), plugged_in=False, detail=None),
    ),
    "its lock is lost": (
        b.start_requested(),
        lambda seen: reservation.apply_event(seen, Event.START_TIMED_OUT, moment(serial=9)),
    ),
    "its stop is implied": (on_notice(), lambda seen: transaction.close_overdue(seen, 1, moment(LATER, serial=9))),
    "its status is released": (STALE, lambda seen: status.release_stale_status(seen, 1, moment(LATER, serial=9))),
    "an operator resets it": (
        b.snapshot(connector(live=live("Faulted"))),
        lambda seen: operations.reset_status(seen, 1, orders("Faulted"), moment(serial=9)),
    ),
    "an operator closes its transaction": (
        b.charging(),
        lambda seen: operations.close_transaction(seen, "3", orders("Open"), moment(serial=9)),
    ),
    "an operator cancels its reservation": (
        b.waiting(),
        lambda seen: operations.cancel_reservation(seen, orders("Authorized"), moment(serial=9)),
    ),
}


@pytest.mark.note("F15")
@pytest.mark.parametrize("what", HAPPENINGS)
def test_event_leaves_other_connector_unchanged(what: str) -> None:
    alone, happens = HAPPENINGS[what]
    before = beside(alone)

    after = happens(before)

    assert about_the_neighbour(before) == about_the_neighbour(after)
    assert before != after


@pytest.mark.note("F15")
@pytest.mark.parametrize("what", HAPPENINGS)
def test_event_outcome_ignores_other_connector(what: str) -> None:
    alone, happens = HAPPENINGS[what]

    beside_somebody, by_itself = happens(beside(alone)), happens(alone)

    assert by_itself.connector(1) == beside_somebody.connector(1)
    assert by_itself.reservation == beside_somebody.reservation
    assert asked_of_1(by_itself) == asked_of_1(beside_somebody)


@pytest.mark.note("F15")
def test_sent_call_to_other_connector_remains() -> None:
    before = beside(b.start_requested())
    sent = replace(before, calls=tuple(replace(call, state=CallState.SENT) for call in before.calls))

    after = checkout.cancel(sent, moment(serial=9))

    assert about_the_neighbour(sent) == about_the_neighbour(after)


@pytest.mark.note("F15")
def test_other_connectors_reading_is_not_counted() -> None:
    before = beside(b.charging())

    after = says("MeterValues", transactionId=78, meterValue=[SAMPLE])(before)

    assert before.connectors == after.connectors


@pytest.mark.note("F15")
def test_start_elsewhere_does_not_imply_unplug() -> None:
    before = b.unplugging()
    again = {"connectorId": 2, "idTag": "WTAG1", "meterStart": 0, "timestamp": "2026-03-01T13:10:00Z"}

    after, _ = core.start_transaction(before, again, moment(LATER, serial=9))

    assert (before.reservation, before.connector(1)) == (after.reservation, after.connector(1))


@pytest.mark.note("F15")
def test_each_connector_has_own_busy_reasons() -> None:
    seen = reports("Faulted")(beside(b.snapshot()))

    assert ("LiveStatus:Faulted",) == occupancy.busy_reasons(seen, 1, now=NOW, policy=moment().policy)
    assert ("LiveStatus:Occupied", "OpenTransaction", "ActiveReservation") == occupancy.busy_reasons(
        seen, 2, now=NOW, policy=moment().policy
    )
