"""Who may charge, and what a start does: to the reservation, the connector and the record."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms.charging.transaction import Start, Started, Stop, authorize, digest, start, stop
from csms.model import (
    Append,
    CommandKind,
    Connector,
    DecisionContext,
    IdTag,
    IdToken,
    ReservationState,
    Save,
    Snapshot,
    TagStatus,
    build_outcome,
)
from csms.ocpp.dialect import Call, Taken
from csms.ocpp.v16 import DIALECT
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, apply_decision, decision_context, get_reservation
from tests.unit.transaction_cases import CARD, END, MINE, card


def card_snapshot() -> Snapshot:
    """The driver's reservation is there, but it is the card that is presented."""
    return replace(b.start_requested_snapshot(), tag=card())


# Who may charge


@pytest.mark.note("F28")
@pytest.mark.parametrize("state", ReservationState)
def test_web_tag_is_valid_while_reservation_lives(state: ReservationState) -> None:
    may = {ReservationState.AUTHORIZED, ReservationState.START_REQUESTED, ReservationState.CHARGING}
    expected = TagStatus.ACCEPTED if state in may else TagStatus.INVALID

    assert expected == authorize(b.SNAPSHOT_BY_STATE[state](), IdToken(value="WTAG1"), decision_context())
    assert expected == authorize(b.SNAPSHOT_BY_STATE[state](), IdToken(value="wtag1"), decision_context())


@pytest.mark.note("F28")
def test_web_tag_needs_its_lock_and_station() -> None:
    seen = b.start_requested_snapshot()
    deadline = get_reservation(seen).start_deadline

    assert deadline is not None
    assert TagStatus.ACCEPTED == authorize(seen, IdToken(value="WTAG1"), decision_context(deadline))
    assert TagStatus.INVALID == authorize(seen, IdToken(value="WTAG1"), decision_context(deadline + SECOND))
    assert TagStatus.INVALID == authorize(b.snapshot(tag=seen.tag), IdToken(value="WTAG1"), decision_context())


@pytest.mark.note("F28")
@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (None, TagStatus.INVALID),
        (card(), TagStatus.ACCEPTED),
        (card(TagStatus.BLOCKED), TagStatus.BLOCKED),
        (card(expires_at=NOW + SECOND), TagStatus.ACCEPTED),
        (card(expires_at=NOW), TagStatus.EXPIRED),
        (card(reservation_id="reservation-1"), TagStatus.INVALID),
    ],
    ids=["unknown", "good", "blocked", "good for a second", "expired", "a web tag whatever it says"],
)
def test_other_tag_follows_its_registration(tag: IdTag | None, expected: TagStatus) -> None:
    assert expected == authorize(b.snapshot(tag=tag), IdToken(value="CARD"), decision_context())


# Starting


@pytest.mark.note("F26")
@pytest.mark.parametrize(
    "reached", [b.authorized_snapshot, b.start_requested_snapshot], ids=["Authorized", "StartRequested"]
)
def test_start_may_precede_remote_start_answer(reached: Any) -> None:
    after, answer = start(reached(), MINE, decision_context(NOW + SECOND, serial=3))

    held = get_reservation(after)
    running = after.connector(1).transaction
    assert Started(transaction_id="3", id_tag_status=TagStatus.ACCEPTED) == answer
    assert (ReservationState.CHARGING, "3", NOW + SECOND, None) == (
        held.state,
        held.transaction_id,
        held.started_at,
        held.expires_at,
    )
    assert running is not None
    assert ("3", 1000, "reservation-1") == (running.transaction_id, running.meter_start_wh, running.reservation_id)
    assert getattr(after.connector(1).lock, "expires_at", NOW) is None
    assert ["Started"] == b.audit_events(after)


@pytest.mark.note("F30")
@pytest.mark.parametrize(
    "reached",
    [b.cancelled_snapshot, b.failed_snapshot, b.completed_snapshot, b.pending_payment_snapshot],
    ids=lambda f: f.__name__,
)
def test_unpaid_start_is_invalid_and_stopped(reached: Any) -> None:
    before = reached()

    after, answer = start(before, MINE, decision_context(serial=8))

    assert Started(transaction_id="8", id_tag_status=TagStatus.INVALID) == answer
    assert after.transactions["8"].reservation_id is None
    assert "8" == getattr(after.connector(1).transaction, "transaction_id", None)
    assert before.reservation == after.reservation
    call = after.calls[-1]
    assert (CommandKind.REMOTE_STOP, "8", NOW + 10 * MINUTE) == (call.kind, call.transaction_id, call.expires_at)


@pytest.mark.note("F30", "F72")
def test_late_start_is_stopped_without_a_sweep() -> None:
    before = b.start_requested_snapshot()
    late = NOW + 11 * MINUTE

    after, answer = start(before, replace(MINE, started_at=late), decision_context(late, serial=8))

    assert TagStatus.INVALID == answer.id_tag_status
    assert ReservationState.START_REQUESTED == get_reservation(after).state
    assert CommandKind.REMOTE_STOP == after.calls[-1].kind


@pytest.mark.note("F27")
def test_start_at_deadline_is_accepted() -> None:
    after, answer = start(b.start_requested_snapshot(), MINE, decision_context(NOW + 10 * MINUTE, serial=8))

    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert ReservationState.CHARGING == get_reservation(after).state


@pytest.mark.note("F33")
def test_own_tag_moves_to_free_connector() -> None:
    after, answer = start(b.start_requested_snapshot(), replace(MINE, connector_id=2), decision_context(serial=8))

    held = get_reservation(after)
    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert (ReservationState.CHARGING, 2) == (held.state, held.connector_id)
    assert (None, None) == (after.connector(1).lock, after.connector(1).transaction)
    assert ("reservation-1", "8") == (
        getattr(after.connector(2).lock, "reservation_id", None),
        getattr(after.connector(2).transaction, "transaction_id", None),
    )
    assert ["Moved", "Started"] == b.audit_events(after)


@pytest.mark.note("F33", "F72")
def test_expired_lock_leaves_connector_free() -> None:
    left = b.start_requested_snapshot().with_connector(b.connector(2, lock=b.lock(expires_at=NOW - SECOND)))

    after, answer = start(left, replace(MINE, connector_id=2), decision_context(serial=8))

    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert "reservation-1" == getattr(after.connector(2).lock, "reservation_id", None)


@pytest.mark.note("F33")
def test_charging_driver_is_not_moved() -> None:
    before = b.charging_snapshot()

    after, answer = start(before, replace(MINE, connector_id=2, started_at=NOW + MINUTE), decision_context(serial=8))

    assert TagStatus.INVALID == answer.id_tag_status
    assert (before.reservation, before.connector(1)) == (after.reservation, after.connector(1))
    assert after.connector(2).lock is None
    assert CommandKind.REMOTE_STOP == after.calls[-1].kind


@pytest.mark.note("F33")
@pytest.mark.parametrize(
    "changed_connector",
    [b.connector(2, lock=b.lock()), b.connector(2, transaction=b.open_transaction())],
    ids=["held by somebody", "somebody charges there"],
)
def test_web_tag_is_refused_at_busy_connector(changed_connector: Connector) -> None:
    before = b.start_requested_snapshot().with_connector(changed_connector)

    after, answer = start(before, replace(MINE, connector_id=2), decision_context(serial=8))

    assert TagStatus.INVALID == answer.id_tag_status
    assert before.reservation == after.reservation
    assert (changed_connector.lock, before.connector(1)) == (after.connector(2).lock, after.connector(1))
    assert CommandKind.REMOTE_STOP == after.calls[-1].kind


@pytest.mark.note("F10", "F33")
@pytest.mark.parametrize("connector_id", [0, 3])
def test_web_tag_is_refused_at_missing_connector(connector_id: int) -> None:
    after, answer = start(
        b.start_requested_snapshot(), replace(MINE, connector_id=connector_id), decision_context(serial=8)
    )

    assert TagStatus.INVALID == answer.id_tag_status
    assert ReservationState.START_REQUESTED == get_reservation(after).state


@pytest.mark.note("F51")
@pytest.mark.parametrize("request_", [MINE, CARD], ids=["web tag", "card"])
def test_repeated_start_gets_the_same_answer(request_: Start) -> None:
    first, answer = start(card_snapshot(), request_, decision_context(serial=3))
    again = replace(apply_decision(card_snapshot(), first), idempotency_record=b.idempotency_record(first))

    after, second = start(again, request_, decision_context(NOW + HOUR, serial=4))

    assert again == after
    assert answer == second


CLOCKLESS = replace(CARD, meter_start_wh=0, started_at=datetime(1970, 1, 1, tzinfo=UTC), message_id="7")


def begin_clockless(request_: Start) -> tuple[Snapshot, Started]:
    """A transaction that runs after this start, with the stored answer to it."""
    before = b.snapshot(tag=card())
    after, answer = start(before, request_, decision_context(serial=3))
    return replace(apply_decision(before, after), idempotency_record=b.idempotency_record(after)), answer


@pytest.mark.note("F11", "F51")
@pytest.mark.parametrize("at", [CLOCKLESS.started_at, None], ids=["1970", "no time"])
def test_clockless_sessions_are_told_apart(at: datetime | None) -> None:
    first = replace(CLOCKLESS, started_at=at)
    running, _ = begin_clockless(first)
    ended = stop(running, Stop(transaction_id="3", meter_stop_wh=900, stopped_at=at, reason="Local"), later(MINUTE))
    before = replace(apply_decision(running, ended), idempotency_record=None)

    after, answer = start(before, replace(first, message_id="8"), later(HOUR, serial=9))

    assert digest(first) != digest(replace(first, message_id="8"))
    assert "9" == answer.transaction_id == getattr(after.connector(1).transaction, "transaction_id", None)


@pytest.mark.note("F11", "F51")
@pytest.mark.parametrize("changes", [{}, {"message_id": "8"}], ids=["same message", "another message"])
def test_running_clockless_start_is_repeated(changes: dict[str, Any]) -> None:
    before, answer = begin_clockless(CLOCKLESS)
    before = replace(before, idempotency_record=None if changes else before.idempotency_record)

    assert (before, answer) == start(before, replace(CLOCKLESS, **changes), later(HOUR, serial=9))


@pytest.mark.note("F11", "F51")
@pytest.mark.parametrize("changes", [{"meter_start_wh": 1}, {"id_token": IdToken(value="OTHER")}], ids=str)
def test_other_clockless_start_supersedes(changes: dict[str, Any]) -> None:
    before, _ = begin_clockless(CLOCKLESS)
    other = replace(CLOCKLESS, message_id="8", **changes)

    _, answer = start(replace(before, idempotency_record=None), other, later(HOUR, serial=9))

    assert "9" == answer.transaction_id


@pytest.mark.note("F11", "F42")
@pytest.mark.parametrize(("waits", "expected"), [(10 * MINUTE - SECOND, "3"), (10 * MINUTE, "9")], ids=str)
def test_ended_clockless_start_answers_its_message(waits: timedelta, expected: str) -> None:
    running, _ = begin_clockless(CLOCKLESS)
    stopped = Stop(transaction_id="3", meter_stop_wh=900, stopped_at=None, reason="Local")
    before = apply_decision(running, stop(running, stopped, later(MINUTE)))
    before = replace(before, idempotency_record=running.idempotency_record)

    after, answer = start(before, CLOCKLESS, later(waits, serial=9))

    assert expected == answer.transaction_id
    assert [False] * (expected == "9") == [
        it.once for it in build_outcome(before, after).writes if isinstance(it, Append) and hasattr(it.record, "digest")
    ]


@pytest.mark.note("F11", "F42")
def test_start_knows_its_message_id() -> None:
    said = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "1970-01-01T00:00:00Z"}
    taken = [DIALECT.accept(Call(unique_id, "StartTransaction", said)) for unique_id in ("7", "7", "8")]

    found = [it.action.find_read_set(b.snapshot(), it.payload).digest for it in taken if isinstance(it, Taken)]

    assert found[0] == found[1] != found[2]
    assert digest(CLOCKLESS) == found[0]


def later(after: timedelta, *, serial: int = 5) -> DecisionContext:
    return decision_context(NOW + after, serial=serial)


@pytest.mark.note("F51")
def test_digest_covers_connector_tag_time_meter() -> None:
    others = [
        replace(MINE, connector_id=2),
        replace(MINE, id_token=IdToken(value="OTHER")),
        replace(MINE, started_at=NOW + SECOND),
        replace(MINE, started_at=None),
        replace(MINE, meter_start_wh=1001),
    ]

    assert digest(MINE) == digest(replace(MINE, id_token=IdToken(value="wtag1")))
    assert 6 == len({digest(MINE), *map(digest, others)})


@pytest.mark.note("F50", "F51")
def test_new_transaction_requires_unused_ids() -> None:
    before = b.start_requested_snapshot()
    after, _ = start(before, MINE, decision_context(serial=3))

    writes = build_outcome(before, after).writes
    assert [0] == [w.entity.version for w in writes if isinstance(w, Save) and w.entity is after.transactions["3"]]
    assert [True] == [w.once for w in writes if isinstance(w, Append) and w.record is b.idempotency_record(after)]


@pytest.mark.note("F52")
def test_invalid_tag_gets_stored_transaction() -> None:
    after, answer = start(b.snapshot(), CARD, decision_context(serial=5))

    assert Started(transaction_id="5", id_tag_status=TagStatus.INVALID) == answer
    assert TagStatus.INVALID == after.transactions["5"].id_tag_status
    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)


@pytest.mark.note("F30")
@pytest.mark.parametrize(
    ("tag", "asked"),
    [
        (None, [30]),
        (card(TagStatus.BLOCKED), [30]),
        (card(expires_at=NOW - HOUR), [30]),
        (card(), []),
        (card(reservation_id="another"), [0]),
    ],
    ids=["unknown", "blocked", "expired", "accepted", "web tag of nobody"],
)
def test_unaccepted_start_is_stopped_after_grace(tag: IdTag | None, asked: list[int]) -> None:
    after, _ = start(replace(b.snapshot(), tag=tag), CARD, decision_context(serial=5))

    stops = [call for call in after.calls if call.kind is CommandKind.REMOTE_STOP]
    assert asked == [(call.send_at - NOW).total_seconds() for call in stops]
    assert {"5"} >= {call.transaction_id for call in stops}


@pytest.mark.note("F30")
def test_self_stopping_station_is_not_asked() -> None:
    running, _ = start(b.snapshot(), CARD, decision_context(serial=5))

    stopped = stop(
        b.apply_decision(b.snapshot(), running), replace(END, transaction_id="5"), decision_context(serial=6)
    )

    assert [] == [call for call in stopped.calls if call.kind is CommandKind.REMOTE_STOP]
    assert stopped.connector(1).stop_request is None


@pytest.mark.note("F30")
def test_start_by_itself_on_purpose_is_kept() -> None:
    free = b.snapshot(station=b.station(quirks=("other", "starts_by_itself")))

    after, answer = start(free, CARD, decision_context(serial=5))
    web, _ = start(replace(free, tag=card(reservation_id="another")), CARD, decision_context(serial=5))

    assert ((), TagStatus.INVALID) == (after.calls, answer.id_tag_status)
    assert [CommandKind.REMOTE_STOP] == [call.kind for call in web.calls]


def test_start_without_time_uses_receipt() -> None:
    after, _ = start(b.snapshot(), replace(CARD, started_at=None), decision_context(serial=5))

    assert NOW == after.transactions["5"].started_at


# Starts told after the fact


@pytest.mark.note("F59")
def test_old_offline_start_leaves_connector_free() -> None:
    yesterday = replace(CARD, started_at=NOW - 24 * HOUR)
    before = replace(b.start_requested_snapshot(), tag=card())

    after, answer = start(before, yesterday, decision_context(serial=5))

    assert Started(transaction_id="5", id_tag_status=TagStatus.ACCEPTED) == answer
    assert ("Offline",) == after.transactions["5"].flags
    assert before.connectors == after.connectors
    assert before.reservation == after.reservation


@pytest.mark.note("F59", "F30")
def test_old_unaccepted_offline_start_is_not_stopped() -> None:
    after, answer = start(b.snapshot(), replace(CARD, started_at=NOW - 24 * HOUR), decision_context(serial=5))

    assert (TagStatus.INVALID, ()) == (answer.id_tag_status, after.calls)


@pytest.mark.note("F59", "F11")
@pytest.mark.parametrize(
    ("started_at", "raw"),
    [(NOW - 10 * MINUTE, "Available"), (NOW - HOUR, "Charging"), (datetime(1970, 1, 1, tzinfo=UTC), "Available")],
    ids=["lately", "and it still charges", "says a clock that cannot be right"],
)
def test_current_start_occupies_the_connector(started_at: datetime, raw: str) -> None:
    before = b.snapshot(b.connector(1, live=b.build_live_status(raw)), tag=card())

    after, _ = start(before, replace(CARD, started_at=started_at), decision_context(serial=5))

    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)
