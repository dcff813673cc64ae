"""What a StatusNotification does for a driver who has paid and waits: start, ask again, move to another connector."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from csms.charging import start_gate
from csms.model import CommandKind, ReservationState, Snapshot, StatusSource
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
def test_driver_plugging_other_connector_is_moved() -> None:
    after = report_status(b.authorized_snapshot(), "Preparing", decision_context(serial=5), connectorId=2)

    held = get_reservation(after)
    assert (2, S.START_REQUESTED) == (held.connector_id, held.state)
    assert [2] == [call.connector_id for call in after.calls]
    assert after.connector(1).lock is None
    assert "reservation-1" == getattr(after.connector(2).lock, "reservation_id", None)


@pytest.mark.note("F33")
def test_driver_is_not_moved_to_held_connector() -> None:
    before = b.authorized_snapshot().with_connector(b.connector(2, lock=b.lock()))

    after = report_status(before, "Preparing", decision_context(serial=5), connectorId=2)

    assert before.reservation == after.reservation
    assert before.connector(1) == after.connector(1)


@pytest.mark.note("F33")
def test_driver_is_not_moved_after_deadline() -> None:
    before = b.authorized_snapshot()

    after = report_status(before, "Preparing", decision_context(NOW + 11 * MINUTE, serial=5), connectorId=2)

    assert before.reservation == after.reservation
    assert after.connector(2).lock is None


@pytest.mark.note("F33")
def test_only_waiting_reservation_is_loaded_elsewhere() -> None:
    def found(seen: Snapshot, raw: str) -> str | None:
        payload = {"connectorId": 2, "errorCode": "NoError", "status": raw}
        return ACTIONS["StatusNotification"].find_read_set(seen, payload).reservation_id

    assert "reservation-1" == found(b.authorized_snapshot(), "Preparing")
    assert found(b.authorized_snapshot(), "Available") is None
    assert found(b.start_requested_snapshot(), "Preparing") is None


@pytest.mark.note("F33", "F72")
@pytest.mark.parametrize(
    ("until", "connector_id"),
    [(NOW + 9 * MINUTE, 1), (NOW, 2)],
    ids=["two candidates", "one whose time is over, unswept"],
)
def test_move_requires_exactly_one_live_candidate(until: datetime, connector_id: int) -> None:
    third = b.connector(3, lock=b.lock(S.AUTHORIZED, expires_at=until))
    plugged = {"connectorId": 2, "errorCode": "NoError", "status": "Preparing"}
    before = b.authorized_snapshot().with_connector(third)
    seen = ACTIONS["StatusNotification"].find_read_set(before, plugged).reservation_id

    after, _ = ACTIONS["StatusNotification"].decide(before, plugged, decision_context(NOW + SECOND, serial=9))

    assert "reservation-1" == seen
    assert connector_id == get_reservation(after).connector_id


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
