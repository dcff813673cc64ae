"""What a StatusNotification does for a driver who has paid and waits: start, ask again, move to another connector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from csms import occupancy, texts, views
from csms.charging import checkout, start_gate, status
from csms.errors import CsmsError
from csms.model import (
    CommandKind,
    ConnectorState,
    Policy,
    Quirk,
    ReadSet,
    ReservationState,
    Snapshot,
    StatusSource,
)
from csms.ocpp.v16.core import ACTIONS
from tests import builders as b
from tests.builders import MINUTE, NOW, SECOND, answer_call, decision_context, get_reservation
from tests.unit.ocpp16_calls import report_status

S = ReservationState


@pytest.mark.note("F32")
def test_plugging_in_after_payment_requests_start() -> None:
    after = report_status(b.authorized_snapshot(), "Preparing", decision_context(NOW + MINUTE, serial=5))

    assert S.START_REQUESTED == get_reservation(after).state
    assert [(CommandKind.REMOTE_START, 1)] == [(call.kind, call.connector_id) for call in after.calls]


@pytest.mark.note("F32")
@pytest.mark.parametrize("raw", ["Finishing", "Faulted", "Unavailable"])
def test_paid_driver_waits_while_connector_busy(raw: str) -> None:
    after = report_status(b.authorized_snapshot(), raw, decision_context(NOW + MINUTE))

    assert S.AUTHORIZED == get_reservation(after).state
    assert () == after.calls


@pytest.mark.note("F32")
def test_status_does_not_repeat_pending_start() -> None:
    pending = b.start_requested_snapshot()
    accepted = b.apply_decision(pending, answer_call(pending, pending.calls[0], "Accepted", decision_context()))

    assert pending.calls == report_status(pending, "Preparing", decision_context(serial=5)).calls
    assert () == report_status(accepted, "Preparing", decision_context(serial=5)).calls


@pytest.mark.note("F32")
def test_lost_start_call_is_requested_again() -> None:
    lost = replace(b.start_requested_snapshot(), calls=())

    after = report_status(lost, "Preparing", decision_context(NOW + MINUTE, serial=5))

    assert [CommandKind.REMOTE_START] == [call.kind for call in after.calls]
    assert S.START_REQUESTED == get_reservation(after).state


@pytest.mark.note("F32")
def test_refused_start_is_not_repeated_at_once() -> None:
    requested = b.start_requested_snapshot()
    (start,) = requested.calls
    refused = answer_call(requested, replace(start, repeats=True), "Rejected", decision_context(NOW + SECOND, serial=4))

    at_once = report_status(refused, "Preparing", decision_context(NOW + 2 * SECOND, serial=5))
    later = report_status(refused, "Preparing", decision_context(NOW + 30 * SECOND, serial=6))

    assert [(CommandKind.TRIGGER_STATUS, NOW + 31 * SECOND)] == [(call.kind, call.send_at) for call in refused.calls]
    assert [] == [call for call in at_once.calls if call.kind is CommandKind.REMOTE_START]
    assert [CommandKind.REMOTE_START] == [call.kind for call in later.calls]


@pytest.mark.note("F33")
def test_plug_elsewhere_moves_nobody() -> None:
    before = b.authorized_snapshot()

    after = report_status(before, "Preparing", decision_context(serial=5), connectorId=2)

    assert before.reservation == after.reservation
    assert before.connector(1) == after.connector(1)
    assert after.connector(2).lock is None


@pytest.mark.note("F33")
def test_report_loads_no_reservation_of_another_connector() -> None:
    payload = {"connectorId": 2, "errorCode": "NoError", "status": "Preparing"}

    assert ReadSet() == ACTIONS["StatusNotification"].find_read_set(b.authorized_snapshot(), payload)


UNSTARTED = b.build_live_status("Finishing", unstarted=True)


def plug_in(before: Snapshot, connector_id: int, raw: str = "Preparing") -> Snapshot:
    return report_status(before, raw, decision_context(serial=5), connectorId=connector_id)


@pytest.mark.note("F33")
def test_plug_elsewhere_is_offered() -> None:
    before = plug_in(b.authorized_snapshot(), 2)

    assert ((2, ()),) == start_gate.find_plugged_elsewhere(before, get_reservation(before), decision_context())


@pytest.mark.note("F33")
@pytest.mark.parametrize(
    ("change", "offered"),
    [
        (lambda seen: seen.with_connector(replace(seen.connector(2), lock=b.lock())), ((2, ("ActiveReservation",)),)),
        (lambda seen: plug_in(seen, 1), ()),
        (lambda seen: plug_in(seen, 2, "Available"), ()),
        (lambda seen: seen.with_connector(replace(seen.connector(1), live=UNSTARTED)), ()),
        (lambda seen: seen.with_connector(replace(seen.connector(2), transaction=b.open_transaction())), ()),
        (lambda seen: replace(seen, presence=None), ()),
        (lambda seen: replace(seen, reservation=replace(get_reservation(seen), state=S.START_REQUESTED)), ()),
    ],
    ids=[
        "kept by somebody else",
        "started here",
        "unplugged",
        "not started here in time",
        "charges",
        "offline",
        "start requested",
    ],
)
def test_only_plain_plug_elsewhere_is_offered(change: Callable[[Snapshot], Snapshot], offered: Any) -> None:
    before = change(plug_in(b.authorized_snapshot(), 2))

    assert offered == start_gate.find_plugged_elsewhere(before, get_reservation(before), decision_context())


@pytest.mark.note("F33")
def test_driver_moves_by_a_tap() -> None:
    after = checkout.move(plug_in(b.authorized_snapshot(), 2), 2, decision_context(serial=9))

    held = get_reservation(after)
    assert (2, S.START_REQUESTED) == (held.connector_id, held.state)
    assert [2] == [call.connector_id for call in after.calls]
    assert after.connector(1).lock is None
    assert "reservation-1" == getattr(after.connector(2).lock, "reservation_id", None)


@pytest.mark.note("F33")
def test_move_to_own_connector_changes_nothing() -> None:
    before = b.authorized_snapshot()

    assert before is checkout.move(before, 1, decision_context(serial=9))


@pytest.mark.note("F33", "F72")
@pytest.mark.parametrize(
    ("change", "minutes", "refusal"),
    [
        (lambda seen: plug_in(seen, 2, "Available"), 0, ("NotPluggedIn", "No car is plugged in at connector 2.")),
        (
            lambda seen: seen.with_connector(replace(seen.connector(2), lock=b.lock())),
            0,
            ("ConnectorBusy", texts.reason_text("ActiveReservation")),
        ),
        (
            lambda seen: replace(seen, reservation=replace(get_reservation(seen), state=S.START_REQUESTED)),
            0,
            ("IllegalTransition", "A reservation that is StartRequested cannot be moved."),
        ),
        (lambda seen: seen, 11, ("IllegalTransition", "The time to start is over.")),
    ],
    ids=["unplugged", "kept by somebody else", "start requested", "too late"],
)
def test_impossible_move_is_refused(
    change: Callable[[Snapshot], Snapshot], minutes: int, refusal: tuple[str, str]
) -> None:
    before = change(plug_in(b.authorized_snapshot(), 2))

    with pytest.raises(CsmsError) as refused:
        checkout.move(before, 2, decision_context(NOW + minutes * MINUTE, serial=9))

    assert refusal == (refused.value.code, refused.value.message)


def time_out_plug(before: Snapshot, raw: str = "Finishing") -> Snapshot:
    """The station has stopped waiting for the start of the car that is plugged in."""
    return plug_in(plug_in(before, 1), 1, raw)


@pytest.mark.note("F32")
@pytest.mark.parametrize("raw", ["Finishing", "SuspendedEVSE"])
def test_timed_out_plug_is_told_to_replug(raw: str) -> None:
    before = time_out_plug(b.snapshot(b.connector()), raw)
    reasons = occupancy.busy_reasons(before, 1, now=NOW, policy=Policy())

    assert ("LiveStatus:Occupied",) == reasons
    assert ("Replug",) == occupancy.driver_reasons(before, 1, reasons, Policy())
    assert texts.reason_text("Replug") == views.connector(before, 1, decision_context())["message"]


@pytest.mark.note("F32")
@pytest.mark.parametrize("path", [["Finishing"], ["Preparing", "Charging", "Finishing"], ["Preparing", "SuspendedEV"]])
def test_other_finishing_is_in_use(path: list[str]) -> None:
    before = b.snapshot(b.connector())
    for raw in path:
        before = plug_in(before, 1, raw)

    assert not occupancy.needs_replug(before, 1, Policy())


@pytest.mark.note("F32")
def test_running_car_needs_no_replug() -> None:
    charging = b.snapshot(b.connector(live=UNSTARTED, transaction=b.open_transaction()))

    assert not occupancy.needs_replug(charging, 1, Policy())
    assert not occupancy.is_plugged_in(charging, 1)


@pytest.mark.note("F32")
def test_repeated_finishing_still_needs_replug() -> None:
    before = plug_in(time_out_plug(b.snapshot(b.connector())), 1, "Finishing")

    assert occupancy.needs_replug(before, 1, Policy())
    assert not occupancy.needs_replug(plug_in(before, 1, "Available"), 1, Policy())


@pytest.mark.note("F32")
def test_make_that_starts_from_finishing_is_started() -> None:
    quirky = b.station(quirks=(Quirk.STARTS_FROM_FINISHING,))
    waiting = plug_in(replace(b.authorized_snapshot(), station=quirky), 1, "Unavailable")
    plugged = plug_in(b.snapshot(b.connector(), station=quirky), 1)
    timed_out = plug_in(plugged, 1, "Finishing")
    unstarted = replace(timed_out.connector(1), lock=waiting.connector(1).lock)

    after = status.apply_report(
        replace(waiting, connectors={1: unstarted}),
        status.Report(connector_id=1, raw="Finishing", state=ConnectorState.FINISHING, charger_at=None),
        decision_context(serial=9),
    )

    assert () == occupancy.busy_reasons(timed_out, 1, now=NOW, policy=Policy())
    assert [CommandKind.REMOTE_START] == [call.kind for call in after.calls]


@pytest.mark.note("F09")
def test_moved_driver_inherits_no_remote_occupied() -> None:
    left = b.connector(
        2,
        lock=b.lock(S.START_REQUESTED, expires_at=NOW - SECOND),
        persisted=b.build_persisted_status("Occupied", NOW - MINUTE, StatusSource.REMOTE_START),
    )
    before = b.authorized_snapshot().with_connector(left)

    after = start_gate.move_reservation(before, 2, decision_context(serial=9))

    assert "reservation-1" == getattr(after.connector(2).lock, "reservation_id", None)
    assert after.connector(2).persisted is None
