"""What a station says of its connectors: what is kept of it, by whose clock, and what it sets in motion."""

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
    Policy,
    Protocol,
    RemoteStop,
    ReservationState,
    Snapshot,
)
from csms.occupancy import busy_reasons
from csms.ocpp.schemas import Accepted
from csms.ocpp.v16.core import ACTIONS
from csms.ocpp.v16.values import read_state
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, connector, live, moment, persisted, reservation_in
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


def told(
    before: Snapshot,
    raw: str,
    at: DecisionContext | None = None,
    *,
    connector_id: int = 1,
    says: datetime | None = None,
):
    """After a report whose charger's clock says this."""
    return status.apply_report(
        before, Report(connector_id=connector_id, raw=raw, state=read_state(raw), charger_at=says), at or moment()
    )


def reasons(seen: Snapshot, connector_id: int = 1) -> tuple[str, ...]:
    return busy_reasons(seen, connector_id, now=NOW, policy=Policy())


def running(seen: Snapshot) -> OpenTransaction:
    found = seen.connector(1).transaction
    assert found is not None
    return found


# What is kept


@pytest.mark.note("F05")
@pytest.mark.parametrize("raw", RAW)
def test_raw_status_is_kept_live_and_persisted(raw: str) -> None:
    bay = told(b.snapshot(connector(live=None)), raw).connector(1)

    assert (raw, raw) == (getattr(bay.live, "raw", None), getattr(bay.persisted, "raw", None))


@pytest.mark.note("F12")
def test_unknown_status_is_accepted_and_kept() -> None:
    said = {"connectorId": 1, "errorCode": "NoError", "status": "Discombobulated"}

    accepted = accept(Protocol.OCPP16, "StatusNotification", said)
    assert isinstance(accepted, Accepted)
    after, answer = ACTIONS["StatusNotification"].decide(b.snapshot(), accepted.payload, moment())

    assert {} == answer
    assert "Discombobulated" == getattr(after.connector(1).live, "raw", None)


# The station as a whole


@pytest.mark.note("F10")
@pytest.mark.parametrize("raw", ["Available", "Unavailable", "Faulted"])
def test_connector_zero_status_overwrites_no_connector(raw: str) -> None:
    before = b.snapshot(connector(1, persisted=persisted("Charging")), connector(2, live=live("Faulted")))

    after = told(before, raw, connector_id=0)

    assert (before.connector(1), before.connector(2)) == (after.connector(1), after.connector(2))


@pytest.mark.note("F10")
def test_connector_zero_available_lifts_the_mask() -> None:
    before = b.snapshot(connector(1), connector(2, live=live("Charging")))

    masked = told(before, "Unavailable", connector_id=0)
    again = told(masked, "Available", moment(NOW + SECOND), connector_id=0)

    assert {("LiveStatus:Unavailable",)} == {reasons(masked, 1), reasons(masked, 2)}
    assert ((), ("LiveStatus:Occupied",)) == (reasons(again, 1), reasons(again, 2))


@pytest.mark.note("F10", "F32")
@pytest.mark.parametrize(
    ("before", "asked"),
    [
        (b.waiting(), [(CommandKind.TRIGGER_STATUS, 1, NOW + MINUTE)]),
        (replace(b.start_requested(), calls=()), [(CommandKind.TRIGGER_STATUS, 1, NOW + MINUTE)]),
        (b.snapshot(), []),
        (b.paying(), []),
        (replace(b.charging(), calls=()), []),
    ],
    ids=["waits", "waits for a start that got lost", "nobody", "who has not paid", "who charges"],
)
def test_connector_zero_status_triggers_waiting_connector(
    before: Snapshot, asked: list[tuple[CommandKind, int, datetime]]
) -> None:
    after = told(before, "Available", moment(NOW + MINUTE, serial=5), connector_id=0)

    assert asked == [(c.kind, c.connector_id, c.send_at) for c in after.calls]


# Whose clock counts


@pytest.mark.note("F11")
@each_clock
def test_status_freshness_counts_from_receipt(says: datetime | None) -> None:
    bay = told(b.snapshot(connector(live=None)), "Faulted", says=says).connector(1)

    assert bay.live is not None
    assert bay.persisted is not None
    assert (NOW, NOW, NOW + 4 * HOUR) == (bay.live.reported_at, bay.persisted.at, bay.persisted.release_at)


@pytest.mark.note("F11")
@each_clock
def test_implied_stop_grace_counts_from_receipt(says: datetime | None) -> None:
    before = b.charging(NOW - HOUR)
    begun = replace(running(before), started_at=datetime(1969, 1, 1, tzinfo=UTC))
    before = before.with_connector(replace(before.connector(1), transaction=begun))

    after = told(before, "Available", says=says)

    assert NOW + 5 * MINUTE == running(after).idle_until


@pytest.mark.note("F11")
@each_clock
def test_start_deadline_counts_from_receipt(says: datetime | None) -> None:
    request = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=0, started_at=says)
    late = moment(NOW + 11 * MINUTE, serial=4)

    in_time, answer = transaction.start(b.start_requested(), request, moment(NOW + SECOND, serial=3))
    too_late, refusal = transaction.start(b.start_requested(), request, late)

    assert ("Accepted", "Invalid") == (answer.id_tag_status, refusal.id_tag_status)
    assert (NOW + SECOND, NOW + SECOND + 24 * HOUR) == (running(in_time).received_at, running(in_time).ends_at)
    assert NOW + SECOND == reservation_in(in_time).started_at
    assert ReservationState.START_REQUESTED == reservation_in(too_late).state


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
def test_older_status_counts_only_when_requested(asked: int, state: CallState, news: bool) -> None:
    known = told(b.snapshot(), "Charging", says=NOW)
    question = calls.ask_status(known, moment(serial=9), (asked,), after=timedelta(0))
    before = replace(question, calls=tuple(replace(call, state=state) for call in question.calls))

    after = told(before, "Available", says=NOW - MINUTE)

    assert news == (after != before)
    assert ("Available" if news else "Charging") == getattr(after.connector(1).live, "raw", None)


@pytest.mark.note("F21")
def test_reconnect_leaves_status_promise_to_expire() -> None:
    question = calls.ask_status(b.snapshot(), moment(serial=9), (1,), after=timedelta(0))
    before = status.await_report(question, question.calls[0], CommandResult(outcome=CommandOutcome.ACCEPTED), moment())

    assert before == calls.renew_after_reconnect(before, moment(NOW + SECOND), after=10 * SECOND)


@pytest.mark.note("F73")
def test_postponed_call_is_due_on_reconnect() -> None:
    queued = calls.queue(b.snapshot(), RemoteStop(transaction_id="77"), moment(serial=9), until=NOW + HOUR)
    away = replace(queued, calls=tuple(replace(call, due_at=call.expires_at) for call in queued.calls))

    back = calls.renew_after_reconnect(away, moment(NOW + MINUTE), after=10 * SECOND)

    assert [(CallState.QUEUED, NOW + MINUTE)] == [(call.state, call.due_at) for call in back.calls]


@pytest.mark.note("F25")
@pytest.mark.parametrize(
    "by_now",
    [None, b.lock(ReservationState.AUTHORIZED), b.charging().connector(1).lock],
    ids=["nobody holds", "somebody else holds", "it charges"],
)
def test_unanswered_start_triggers_only_while_waiting(by_now: Lock | None) -> None:
    before = b.start_requested()
    (call,) = before.calls
    gone = replace(before.with_connector(replace(before.connector(1), lock=by_now)), calls=())

    assert [1] == [
        c.connector_id for c in status.ask_after_unanswered_start(replace(before, calls=()), call, moment()).calls
    ]
    assert gone == status.ask_after_unanswered_start(gone, call, moment())


@pytest.mark.note("F11")
def test_future_stored_clock_proves_no_order() -> None:
    before = b.snapshot(connector(live=live("Charging", charger_at=NOW + 6 * MINUTE)))

    after = told(before, "Available", says=NOW + MINUTE)

    assert "Available" == getattr(after.connector(1).live, "raw", None)


# What a status sets in motion


@pytest.mark.note("F32", "F27")
@pytest.mark.parametrize("raw", ["Available", "Preparing"])
def test_status_starts_reservation_until_deadline(raw: str) -> None:
    before = b.waiting()
    deadline = reservation_in(before).start_deadline
    assert deadline is not None

    starts = [
        reservation_in(told(before, raw, moment(at, serial=5))).state for at in (NOW, deadline, deadline + SECOND)
    ]

    assert [ReservationState.START_REQUESTED] * 2 + [ReservationState.AUTHORIZED] == starts


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    ("before", "starts"),
    [
        (told(b.waiting(), "Faulted"), False),
        (b.snapshot(), False),
        (b.charging(), False),
        (b.start_requested(), False),
        (replace(b.waiting(), presence=b.presence(epoch="the next")), True),
    ],
    ids=["still busy", "nobody", "it charges", "already asked", "nothing is known"],
)
def test_untold_status_decides_by_known_state(before: Snapshot, starts: bool) -> None:
    at = moment(NOW + MINUTE, serial=9, status_freshness=0 * MINUTE)

    after = status.decide_without_report(before, 1, at)

    assert starts == (after != before)
    assert before == status.decide_without_report(before, 2, at)


def wears_off(age: timedelta, **changes: Any) -> dict[str, Any]:
    """What is left at a connector of which nothing live is known, and that said it was in use so long ago."""
    return {"live": None, "persisted": persisted("Occupied", NOW - age), **changes}


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    ("bay", "asked"),
    [
        (wears_off(25 * MINUTE), [NOW + 5 * MINUTE + SECOND]),
        (wears_off(25 * MINUTE, transaction=b.running(ends_at=NOW + 7 * MINUTE)), [NOW + 7 * MINUTE + SECOND]),
        (wears_off(22 * MINUTE, transaction=b.running(ends_at=NOW + 7 * MINUTE)), [NOW + 8 * MINUTE + SECOND]),
        (wears_off(20 * MINUTE), []),
        (wears_off(25 * MINUTE, transaction=b.running()), []),
        ({"live": live("Faulted")}, []),
    ],
    ids=["soon", "with what runs", "after what runs", "at the deadline", "but what runs has no end", "never"],
)
def test_temporary_block_schedules_a_status_trigger(bay: dict[str, Any], asked: list[datetime]) -> None:
    waits = b.waiting()
    before = waits.with_connector(replace(waits.connector(1), **bay))

    after = status.decide_without_report(before, 1, moment(serial=9))

    assert NOW + 10 * MINUTE == reservation_in(before).start_deadline
    assert asked == [call.send_at for call in after.calls]


@pytest.mark.note("F32", "F68")
def test_status_reads_waiting_or_charging_reservation() -> None:
    report = Report(connector_id=1, raw="Available", state=ConnectorState.AVAILABLE, charger_at=None)

    assert "reservation-1" == status.find_read_set(b.waiting(), report).reservation_id
    assert "reservation-1" == status.find_read_set(b.start_requested(), report).reservation_id
    assert "reservation-1" == status.find_read_set(b.charging(), report).reservation_id
    assert "reservation-1" == status.find_read_set(b.unplugging(), report).reservation_id
    assert status.find_read_set(b.paying(), report).reservation_id is None
