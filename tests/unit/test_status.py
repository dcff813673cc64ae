"""A StatusNotification: which status is stored, with which time, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms.charging import status, transaction
from csms.charging.status import Report
from csms.charging.transaction import Start
from csms.commands import calls
from csms.model import (
    CallState,
    CommandKind,
    CommandOutcome,
    CommandResult,
    ConnectorState,
    DecisionContext,
    IdToken,
    Lock,
    OpenTransaction,
    Protocol,
    RemoteStop,
    ReservationState,
    Snapshot,
)
from csms.ocpp.schemas import Accepted
from csms.ocpp.v16.core import ACTIONS
from csms.ocpp.v16.values import read_state
from tests import builders as b
from tests.builders import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    build_live_status,
    build_persisted_status,
    connector,
    decision_context,
    get_reservation,
)
from tests.unit.occupancy_cases import reasons
from tests.versions import accept

RAW = (
    "Available",
    "Preparing",
    "Charging",
    "SuspendedEV",
    "SuspendedEVSE",
    "Finishing",
    "Reserved",
    "Unavailable",
    "Faulted",
)
CLOCKS = {
    "none": None,
    "in 1970": datetime(1970, 1, 1, tzinfo=UTC),
    "a little late": NOW - 3 * MINUTE,
    "a little early": NOW + 3 * MINUTE,
    "a year early": NOW + timedelta(days=365),
}
"""When the charger says that it is, at noon."""
each_clock = pytest.mark.parametrize("says", CLOCKS.values(), ids=CLOCKS)


def report_status(
    before: Snapshot,
    raw: str,
    at: DecisionContext | None = None,
    *,
    connector_id: int = 1,
    says: datetime | None = None,
):
    """After a report whose charger's clock says this."""
    return status.apply_report(
        before,
        Report(connector_id=connector_id, raw=raw, state=read_state(raw), charger_at=says),
        at or decision_context(),
    )


def find_transaction(seen: Snapshot) -> OpenTransaction:
    found = seen.connector(1).transaction
    assert found is not None
    return found


# What is kept


@pytest.mark.note("F05")
@pytest.mark.parametrize("raw", RAW)
def test_raw_status_is_kept_live_and_persisted(raw: str) -> None:
    changed_connector = report_status(b.snapshot(connector(live=None)), raw).connector(1)

    assert (raw, raw) == (
        getattr(changed_connector.live, "raw", None),
        getattr(changed_connector.persisted, "raw", None),
    )


@pytest.mark.note("F12")
def test_unknown_status_is_accepted_and_kept() -> None:
    said = {"connectorId": 1, "errorCode": "NoError", "status": "Discombobulated"}

    accepted = accept(Protocol.OCPP16, "StatusNotification", said)
    assert isinstance(accepted, Accepted)
    after, answer = ACTIONS["StatusNotification"].decide(b.snapshot(), accepted.payload, decision_context())

    assert {} == answer
    assert "Discombobulated" == getattr(after.connector(1).live, "raw", None)


# The station as a whole


@pytest.mark.note("F10")
@pytest.mark.parametrize("raw", ["Available", "Unavailable", "Faulted"])
def test_connector_zero_status_overwrites_no_connector(raw: str) -> None:
    before = b.snapshot(
        connector(1, persisted=build_persisted_status("Charging")), connector(2, live=build_live_status("Faulted"))
    )

    after = report_status(before, raw, connector_id=0)

    assert (before.connector(1), before.connector(2)) == (after.connector(1), after.connector(2))


@pytest.mark.note("F10")
def test_connector_zero_available_lifts_the_mask() -> None:
    before = b.snapshot(connector(1), connector(2, live=build_live_status("Charging")))

    masked = report_status(before, "Unavailable", connector_id=0)
    again = report_status(masked, "Available", decision_context(NOW + SECOND), connector_id=0)

    assert {("LiveStatus:Unavailable",)} == {reasons(masked, 1), reasons(masked, 2)}
    assert ((), ("LiveStatus:Occupied",)) == (reasons(again, 1), reasons(again, 2))


@pytest.mark.note("F10", "F32")
@pytest.mark.parametrize(
    ("before", "asked"),
    [
        (b.authorized_snapshot(), [(CommandKind.TRIGGER_STATUS, 1, NOW + MINUTE)]),
        (replace(b.start_requested_snapshot(), calls=()), [(CommandKind.TRIGGER_STATUS, 1, NOW + MINUTE)]),
        (b.snapshot(), []),
        (b.pending_payment_snapshot(), []),
        (replace(b.charging_snapshot(), calls=()), []),
    ],
    ids=["waits", "waits for a start that got lost", "nobody", "who has not paid", "who charges"],
)
def test_connector_zero_status_triggers_waiting_connector(
    before: Snapshot, asked: list[tuple[CommandKind, int, datetime]]
) -> None:
    after = report_status(before, "Available", decision_context(NOW + MINUTE, serial=5), connector_id=0)

    assert asked == [(c.kind, c.connector_id, c.send_at) for c in after.calls]


# Whose clock counts


@pytest.mark.note("F11")
@each_clock
def test_status_freshness_counts_from_receipt(says: datetime | None) -> None:
    changed_connector = report_status(b.snapshot(connector(live=None)), "Faulted", says=says).connector(1)

    assert changed_connector.live is not None
    assert changed_connector.persisted is not None
    assert (NOW, NOW, NOW + 4 * HOUR) == (
        changed_connector.live.reported_at,
        changed_connector.persisted.at,
        changed_connector.persisted.release_at,
    )


@pytest.mark.note("F11")
@each_clock
def test_implied_stop_grace_counts_from_receipt(says: datetime | None) -> None:
    before = b.charging_snapshot(NOW - HOUR)
    begun = replace(find_transaction(before), started_at=datetime(1969, 1, 1, tzinfo=UTC))
    before = before.with_connector(replace(before.connector(1), transaction=begun))

    after = report_status(before, "Available", says=says)

    assert NOW + 5 * MINUTE == find_transaction(after).idle_until


@pytest.mark.note("F11")
@each_clock
def test_start_deadline_counts_from_receipt(says: datetime | None) -> None:
    request = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=0, started_at=says)
    late = decision_context(NOW + 11 * MINUTE, serial=4)

    in_time, answer = transaction.start(b.start_requested_snapshot(), request, decision_context(NOW + SECOND, serial=3))
    too_late, refusal = transaction.start(b.start_requested_snapshot(), request, late)

    assert ("Accepted", "Invalid") == (answer.id_tag_status, refusal.id_tag_status)
    assert (NOW + SECOND, NOW + SECOND + 24 * HOUR) == (
        find_transaction(in_time).received_at,
        find_transaction(in_time).ends_at,
    )
    assert NOW + SECOND == get_reservation(in_time).started_at
    assert ReservationState.START_REQUESTED == get_reservation(too_late).state


@pytest.mark.note("F11", "F21")
@pytest.mark.parametrize(
    ("asked", "state", "news"),
    [
        (1, CallState.SENT, True),
        (1, CallState.PROMISED, True),
        (0, CallState.PROMISED, True),
        (1, CallState.QUEUED, False),
        (2, CallState.PROMISED, False),
    ],
    ids=["sent", "promised", "promised of the whole", "not sent yet", "promised of the other"],
)
def test_queued_status_counts_only_when_requested(asked: int, state: CallState, news: bool) -> None:
    away = b.presence(away_since=NOW - HOUR, back_at=NOW)
    known = report_status(b.snapshot(presence=away), "Charging", says=NOW)
    question = calls.ask_status(known, decision_context(serial=9), (asked,), after=timedelta(0))
    before = replace(question, calls=tuple(replace(call, state=state) for call in question.calls))

    after = report_status(before, "Available", decision_context(NOW + SECOND), says=NOW - MINUTE)

    assert ("Available" if news else "Charging") == getattr(after.connector(1).live, "raw", None)


@pytest.mark.note("F21")
def test_reconnect_leaves_status_promise_to_expire() -> None:
    question = calls.ask_status(b.snapshot(), decision_context(serial=9), (1,), after=timedelta(0))
    before = status.await_report(
        question, question.calls[0], CommandResult(outcome=CommandOutcome.ACCEPTED), decision_context()
    )

    assert before == calls.renew_after_reconnect(before, decision_context(NOW + SECOND), after=10 * SECOND)


@pytest.mark.note("F73")
def test_postponed_call_is_due_on_reconnect() -> None:
    queued = calls.queue(b.snapshot(), RemoteStop(transaction_id="77"), decision_context(serial=9), until=NOW + HOUR)
    away = replace(queued, calls=tuple(replace(call, due_at=call.expires_at) for call in queued.calls))

    back = calls.renew_after_reconnect(away, decision_context(NOW + MINUTE), after=10 * SECOND)

    assert [(CallState.QUEUED, NOW + MINUTE)] == [(call.state, call.due_at) for call in back.calls]


@pytest.mark.note("F25")
@pytest.mark.parametrize(
    "by_now",
    [None, b.lock(ReservationState.AUTHORIZED), b.charging_snapshot().connector(1).lock],
    ids=["nobody holds", "somebody else holds", "it charges"],
)
def test_unanswered_start_triggers_only_while_waiting(by_now: Lock | None) -> None:
    before = b.start_requested_snapshot()
    (call,) = before.calls
    gone = replace(before.with_connector(replace(before.connector(1), lock=by_now)), calls=())

    assert [1] == [
        c.connector_id
        for c in status.ask_after_unanswered_start(
            replace(before, calls=()), call, decision_context(), after=timedelta(0)
        ).calls
    ]
    assert gone == status.ask_after_unanswered_start(gone, call, decision_context(), after=timedelta(0))


@pytest.mark.note("F11")
def test_future_stored_clock_proves_no_order() -> None:
    before = b.snapshot(connector(live=build_live_status("Charging", charger_at=NOW + 6 * MINUTE)))

    after = report_status(before, "Available", says=NOW + MINUTE)

    assert "Available" == getattr(after.connector(1).live, "raw", None)


# What a status sets in motion


@pytest.mark.note("F32", "F27")
@pytest.mark.parametrize("raw", ["Available", "Preparing"])
def test_status_starts_reservation_until_deadline(raw: str) -> None:
    before = b.authorized_snapshot()
    deadline = get_reservation(before).start_deadline
    assert deadline is not None

    starts = [
        get_reservation(report_status(before, raw, decision_context(at, serial=5))).state
        for at in (NOW, deadline, deadline + SECOND)
    ]

    assert [ReservationState.START_REQUESTED] * 2 + [ReservationState.AUTHORIZED] == starts


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    ("before", "starts"),
    [
        (report_status(b.authorized_snapshot(), "Faulted"), False),
        (b.snapshot(), False),
        (b.charging_snapshot(), False),
        (b.start_requested_snapshot(), False),
        (replace(b.authorized_snapshot(), presence=b.presence(epoch="the next")), True),
    ],
    ids=["still busy", "nobody", "it charges", "already asked", "nothing is known"],
)
def test_untold_status_decides_by_known_state(before: Snapshot, starts: bool) -> None:
    at = decision_context(NOW + MINUTE, serial=9, status_freshness=0 * MINUTE)

    after = status.decide_without_report(before, 1, at)

    assert starts == (after != before)
    assert before == status.decide_without_report(before, 2, at)


def expiring_status(age: timedelta, **changes: Any) -> dict[str, Any]:
    """What is left at a connector of which nothing live is known, and that said it was in use so long ago."""
    return {"live": None, "persisted": build_persisted_status("Occupied", NOW - age), **changes}


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    ("changed_connector", "asked"),
    [
        (expiring_status(25 * MINUTE), [NOW + 5 * MINUTE + SECOND]),
        (
            expiring_status(25 * MINUTE, transaction=b.open_transaction(ends_at=NOW + 7 * MINUTE)),
            [NOW + 7 * MINUTE + SECOND],
        ),
        (
            expiring_status(22 * MINUTE, transaction=b.open_transaction(ends_at=NOW + 7 * MINUTE)),
            [NOW + 8 * MINUTE + SECOND],
        ),
        (expiring_status(20 * MINUTE), []),
        (expiring_status(25 * MINUTE, transaction=b.open_transaction()), []),
        ({"live": build_live_status("Faulted")}, []),
    ],
    ids=["soon", "with what runs", "after what runs", "at the deadline", "but what runs has no end", "never"],
)
def test_temporary_block_schedules_a_status_trigger(changed_connector: dict[str, Any], asked: list[datetime]) -> None:
    waits = b.authorized_snapshot()
    before = waits.with_connector(replace(waits.connector(1), **changed_connector))

    after = status.decide_without_report(before, 1, decision_context(serial=9))

    assert NOW + 10 * MINUTE == get_reservation(before).start_deadline
    assert asked == [call.send_at for call in after.calls]


@pytest.mark.note("F32", "F68")
def test_status_reads_waiting_or_charging_reservation() -> None:
    report = Report(connector_id=1, raw="Available", state=ConnectorState.AVAILABLE, charger_at=None)

    assert "reservation-1" == status.find_read_set(b.authorized_snapshot(), report).reservation_id
    assert "reservation-1" == status.find_read_set(b.start_requested_snapshot(), report).reservation_id
    assert "reservation-1" == status.find_read_set(b.charging_snapshot(), report).reservation_id
    assert "reservation-1" == status.find_read_set(b.waiting_for_disconnect_snapshot(), report).reservation_id
    assert status.find_read_set(b.pending_payment_snapshot(), report).reservation_id is None
