"""Start, meter, stop: what is recorded, who may charge, and what it comes to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from csms.charging.transaction import (
    Start,
    Started,
    Stop,
    authorise,
    best_energy,
    close_overdue,
    digest,
    record_readings,
    start,
    stop,
)
from csms.model import (
    Append,
    CommandKind,
    Connector,
    IdTag,
    IdToken,
    LiveStatus,
    MeterSample,
    Money,
    Reading,
    ReservationState,
    Save,
    Snapshot,
    TagStatus,
    TimelineEntry,
    build_outcome,
)
from csms.ocpp.v16 import core
from csms.ocpp.v16.values import read_transaction_id
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, apply_decision, decision_context, get_reservation

MINE = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=1000, started_at=NOW)
CARD = Start(connector_id=1, id_token=IdToken(value="CARD"), meter_start_wh=1000, started_at=NOW)
END = Stop(transaction_id="3", meter_stop_wh=11_000, stopped_at=NOW + HOUR, reason="Local")


def card(status: TagStatus = TagStatus.ACCEPTED, **changes: Any) -> IdTag:
    return replace(IdTag(tag="CARD", status=status), **changes)


def reading(energy_wh: int | None, power_w: int | None = None) -> Reading:
    return Reading(at=NOW, energy_wh=energy_wh, power_w=power_w)


def card_snapshot() -> Snapshot:
    """The driver's reservation is there, but it is the card that is presented."""
    return replace(b.start_requested_snapshot(), tag=card())


# Who may charge


@pytest.mark.note("F28")
@pytest.mark.parametrize("state", ReservationState)
def test_web_tag_is_valid_while_reservation_lives(state: ReservationState) -> None:
    may = {ReservationState.AUTHORIZED, ReservationState.START_REQUESTED, ReservationState.CHARGING}
    expected = TagStatus.ACCEPTED if state in may else TagStatus.INVALID

    assert expected == authorise(b.SNAPSHOT_BY_STATE[state](), IdToken(value="WTAG1"), decision_context())
    assert expected == authorise(b.SNAPSHOT_BY_STATE[state](), IdToken(value="wtag1"), decision_context())


@pytest.mark.note("F28")
def test_web_tag_needs_its_lock_and_station() -> None:
    seen = b.start_requested_snapshot()
    deadline = get_reservation(seen).start_deadline

    assert deadline is not None
    assert TagStatus.ACCEPTED == authorise(seen, IdToken(value="WTAG1"), decision_context(deadline))
    assert TagStatus.INVALID == authorise(seen, IdToken(value="WTAG1"), decision_context(deadline + SECOND))
    assert TagStatus.INVALID == authorise(b.snapshot(tag=seen.tag), IdToken(value="WTAG1"), decision_context())


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
    assert expected == authorise(b.snapshot(tag=tag), IdToken(value="CARD"), decision_context())


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
    assert () == after.calls


def test_start_without_time_uses_receipt() -> None:
    after, _ = start(b.snapshot(), replace(CARD, started_at=None), decision_context(serial=5))

    assert NOW == after.transactions["5"].started_at


@pytest.mark.note("F57")
def test_new_start_supersedes_open_transaction() -> None:
    before = b.snapshot(
        b.connector(transaction=b.open_transaction(energy_wh=500)), transactions={"77": b.transaction()}
    )

    after, _ = start(before, replace(CARD, started_at=NOW + HOUR), decision_context(NOW + HOUR, serial=5))

    old = after.transactions["77"]
    assert (NOW + HOUR, 500, "Superseded", ("Superseded",)) == (old.stopped_at, old.energy_wh, old.reason, old.flags)
    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)


@pytest.mark.note("F57")
def test_foreign_start_settles_superseded_charge() -> None:
    before = record_readings(b.charging_snapshot(), 1, "3", (reading(11_000),), decision_context())
    before = replace(before, tag=card(), records=())

    after, answer = start(before, replace(CARD, started_at=NOW + HOUR), decision_context(NOW + HOUR, serial=5))

    held = get_reservation(after)
    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert (ReservationState.COMPLETED, Money.CAPTURING, 645) == (held.state, held.money, held.amount)
    assert after.connector(1).lock is None


@pytest.mark.note("F57")
def test_own_second_start_continues_reservation() -> None:
    again = replace(MINE, started_at=NOW + MINUTE, meter_start_wh=3000)

    after, answer = start(b.charging_snapshot(), again, decision_context(NOW + MINUTE, serial=5))

    held = get_reservation(after)
    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert (ReservationState.CHARGING, "5", Money.AUTHORISED) == (held.state, held.transaction_id, held.money)
    assert after.transactions["3"].stopped_at is not None


@pytest.mark.note("F57")
def test_superseded_lost_record_is_rebuilt() -> None:
    before = b.snapshot(b.connector(transaction=b.open_transaction()))

    after, _ = start(before, CARD, decision_context(serial=5))

    assert ("Superseded", ("Rebuilt", "Superseded")) == (
        after.transactions["77"].reason,
        after.transactions["77"].flags,
    )
    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)


# Metering


@pytest.mark.note("F58")
def test_metered_energy_never_falls() -> None:
    seen = b.charging_snapshot()
    energies = []
    for register in (1500, 4000, 200, None, 4001):
        seen = record_readings(seen, 1, "3", (reading(register),), decision_context())
        energies.append(getattr(seen.connector(1).transaction, "energy_wh", None))

    assert [500, 3000, 3000, 3000, 3001] == energies


def test_latest_power_is_kept() -> None:
    first = record_readings(
        b.charging_snapshot(), 1, "3", (reading(None, 7000), reading(None, 6900)), decision_context()
    )
    second = record_readings(first, 1, "3", (reading(1100),), decision_context(NOW + SECOND))

    assert 6900 == getattr(first.connector(1).transaction, "power_w", None)
    assert (6900, NOW + SECOND) == (
        getattr(second.connector(1).transaction, "power_w", None),
        getattr(second.connector(1).transaction, "metered_at", None),
    )


@pytest.mark.parametrize("named", [None, 0, -1, 3])
def test_unnamed_readings_belong_to_running_transaction(named: int | None) -> None:
    after = record_readings(b.charging_snapshot(), 1, read_transaction_id(named), (reading(2000),), decision_context())

    assert 1000 == getattr(after.connector(1).transaction, "energy_wh", None)


def test_readings_of_other_transaction_stay_apart() -> None:
    before = b.charging_snapshot()

    after = record_readings(before, 1, "99", (reading(9000),), decision_context())

    assert before.connectors == after.connectors
    assert ["99"] == [a.record.transaction_id for a in after.records if isinstance(a.record, MeterSample)]


@pytest.mark.parametrize("readings", [(), (reading(5),)], ids=["no readings", "readings of nothing"])
def test_readings_without_transaction_change_nothing(readings: tuple[Reading, ...]) -> None:
    before = b.snapshot() if readings else b.charging_snapshot()

    assert before == record_readings(before, 1, None, readings, decision_context())


@pytest.mark.note("F58")
@pytest.mark.parametrize(
    ("registers", "energy"),
    [((), 0), ((None,), 0), ((900,), 0), ((1000,), 0), ((1001, 1500, 1400), 500), ((None, 1200), 200)],
)
def test_best_energy_is_highest_and_nonnegative(registers: tuple[int | None, ...], energy: int) -> None:
    assert energy == best_energy(1000, map(reading, registers))


# Stopping


def test_stop_closes_bills_and_frees_connector() -> None:
    after = stop(b.charging_snapshot(), END, decision_context(NOW + HOUR, serial=4))

    closed, held = after.transactions["3"], get_reservation(after)
    assert (NOW + HOUR, 11_000, 10_000, "Local", ()) == (
        closed.stopped_at,
        closed.meter_stop_wh,
        closed.energy_wh,
        closed.reason,
        closed.flags,
    )
    assert (ReservationState.COMPLETED, 645, Money.CAPTURING) == (held.state, held.amount, held.money)
    assert (None, None) == (after.connector(1).transaction, after.connector(1).lock)


@pytest.mark.note("F58")
@pytest.mark.parametrize("meter_stop", [0, None, 999, 5000, -7], ids=["0", "missing", "reset", "too low", "negative"])
def test_untrusted_stop_meter_yields_best_sample(meter_stop: int | None) -> None:
    before = record_readings(b.charging_snapshot(), 1, "3", (reading(9000),), decision_context())

    after = stop(before, replace(END, meter_stop_wh=meter_stop), decision_context())

    closed = after.transactions["3"]
    assert (8000, meter_stop, ("MeterStopNotTrusted",)) == (closed.energy_wh, closed.meter_stop_wh, closed.flags)
    assert 8000 == get_reservation(after).energy_wh


@pytest.mark.note("F58")
def test_readings_within_stop_are_counted() -> None:
    after = stop(b.charging_snapshot(), replace(END, meter_stop_wh=0, readings=(reading(6000),)), decision_context())

    assert 5000 == after.transactions["3"].energy_wh


def test_stop_defaults_to_local_and_now() -> None:
    closed = stop(
        b.charging_snapshot(), replace(END, reason=None, stopped_at=None), decision_context(NOW + HOUR)
    ).transactions["3"]

    assert ("Local", NOW + HOUR) == (closed.reason, closed.stopped_at)


@pytest.mark.note("F53", "F54")
@pytest.mark.parametrize("named", [0, -1, 4711])
def test_unknown_stop_is_quarantined(named: int) -> None:
    before = b.charging_snapshot()

    after = stop(before, replace(END, transaction_id=named), decision_context())

    assert before == replace(after, records=())
    assert [("StopPutAside", "unknown", named)] == [
        (a.record.kind, a.record.detail["why"], a.record.detail["transaction"])
        for a in after.records
        if isinstance(a.record, TimelineEntry)
    ]


@pytest.mark.note("F53")
def test_second_stop_is_quarantined() -> None:
    before = apply_decision(b.charging_snapshot(), stop(b.charging_snapshot(), END, decision_context()))

    after = stop(before, replace(END, meter_stop_wh=90_000), decision_context(NOW + HOUR))

    assert before == replace(after, records=())
    assert "already closed" == after.records[0].record.detail["why"]


def test_station_cannot_stop_foreign_transaction() -> None:
    theirs = b.transaction("3", station_id="cp-2")
    before = b.snapshot(transactions={"3": theirs})

    after = stop(before, END, decision_context())

    assert theirs == after.transactions["3"]
    assert "unknown" == after.records[0].record.detail["why"]


@pytest.mark.note("F54")
@pytest.mark.parametrize("named", [0, -1])
def test_unnamed_stop_closes_only_matching_transaction(named: int) -> None:
    lost = replace(END, transaction_id=str(named), is_unnamed=True, id_token=IdToken(value="wtag1"))

    after = stop(b.charging_snapshot(), lost, decision_context(NOW + HOUR))

    assert NOW + HOUR == after.transactions["3"].stopped_at
    assert ReservationState.COMPLETED == get_reservation(after).state


@pytest.mark.note("F54")
@pytest.mark.parametrize(("tag", "meter_stop"), [("CARD", 11_000), (None, 11_000), ("WTAG1", 999), ("WTAG1", None)])
def test_unnamed_stop_without_match_closes_nothing(tag: str | None, meter_stop: int | None) -> None:
    before = b.charging_snapshot()

    after = stop(
        before,
        replace(
            END, transaction_id="-1", is_unnamed=True, id_token=tag and IdToken(value=tag), meter_stop_wh=meter_stop
        ),
        decision_context(),
    )

    assert before == replace(after, records=())


@pytest.mark.note("F54")
def test_ambiguous_unnamed_stop_closes_nothing() -> None:
    twin = b.connector(2, transaction=b.open_transaction("55", id_tag="WTAG1"))
    before = b.charging_snapshot().with_connector(twin)
    before = replace(before, transactions={**before.transactions, "55": b.transaction("55", connector_id=2)})

    after = stop(
        before, replace(END, transaction_id="0", is_unnamed=True, id_token=IdToken(value="WTAG1")), decision_context()
    )

    assert before == replace(after, records=())


@pytest.mark.note("F15")
def test_old_stop_leaves_running_transaction() -> None:
    before = b.charging_snapshot()
    before = replace(before, transactions={**before.transactions, "55": b.transaction("55")})

    after = stop(before, replace(END, transaction_id="55"), decision_context())

    assert before.connectors == after.connectors
    assert before.reservation == after.reservation
    assert after.transactions["55"].stopped_at is not None


def test_past_stop_is_billed_on_receipt() -> None:
    yesterday = datetime(2026, 2, 28, tzinfo=UTC)

    after = stop(b.charging_snapshot(), replace(END, stopped_at=yesterday), decision_context(NOW + HOUR))

    assert (yesterday, NOW + HOUR) == (after.transactions["3"].stopped_at, get_reservation(after).stopped_at)


# Ends that the station did not tell


def implied_stop_snapshot() -> Snapshot:
    """A charge of 2 kWh whose connector said Available at noon, though no stop came."""
    seen = record_readings(b.charging_snapshot(), 1, "3", (reading(3000),), decision_context())
    changed_connector = seen.connector(1)
    assert changed_connector.transaction is not None
    return replace(
        seen.with_connector(
            replace(changed_connector, transaction=replace(changed_connector.transaction, idle_until=NOW + 5 * MINUTE))
        ),
        records=(),
    )


@pytest.mark.note("F55")
def test_implied_stop_settles_after_grace() -> None:
    before = implied_stop_snapshot()

    assert before == close_overdue(before, 1, decision_context(NOW + 4 * MINUTE))
    after = close_overdue(before, 1, decision_context(NOW + 5 * MINUTE))

    closed, held = after.transactions["3"], get_reservation(after)
    assert ("ImpliedStop", 2000, ("ImpliedStop",)) == (closed.reason, closed.energy_wh, closed.flags)
    assert (ReservationState.COMPLETED, 169) == (held.state, held.amount)
    assert (None, None) == (after.connector(1).transaction, after.connector(1).lock)


@pytest.mark.note("F55")
def test_real_stop_within_grace_wins() -> None:
    after = stop(implied_stop_snapshot(), END, decision_context(NOW + MINUTE))

    assert ("Local", 10_000) == (after.transactions["3"].reason, after.transactions["3"].energy_wh)
    assert 645 == get_reservation(after).amount


@pytest.mark.note("F55")
def test_stop_after_grace_raises_no_bill() -> None:
    before = apply_decision(
        implied_stop_snapshot(), close_overdue(implied_stop_snapshot(), 1, decision_context(NOW + 5 * MINUTE))
    )

    after = stop(before, END, decision_context(NOW + HOUR))

    assert ("Local", 10_000, ("ImpliedStop", "CorrectedAfterImpliedStop")) == (
        after.transactions["3"].reason,
        after.transactions["3"].energy_wh,
        after.transactions["3"].flags,
    )
    assert replace(b.get_reservation(before), flags=("Underbilled",)) == after.reservation
    assert before.connectors == after.connectors


@pytest.mark.note("F77")
def test_endless_transaction_is_ended_and_stopped() -> None:
    before = b.charging_snapshot()
    limit = getattr(before.connector(1).transaction, "ends_at", None)

    after = close_overdue(before, 1, decision_context(limit, serial=9))

    assert NOW + 24 * HOUR == limit
    assert before == close_overdue(before, 1, decision_context(limit - SECOND))
    assert "Overdue" == after.transactions["3"].reason
    assert (ReservationState.COMPLETED, None) == (get_reservation(after).state, after.connector(1).lock)
    assert (CommandKind.REMOTE_STOP, "3") == (after.calls[-1].kind, after.calls[-1].transaction_id)


@pytest.mark.note("F77")
def test_connector_is_due_at_earliest_limit() -> None:
    before = b.charging_snapshot()
    metered = record_readings(before, 1, "3", (reading(2000),), decision_context(NOW + HOUR))
    noticed = replace(before.connector(1), transaction=b.open_transaction(idle_until=NOW + MINUTE, ends_at=NOW + HOUR))

    assert {NOW + 24 * HOUR} == {before.connector(1).due_at, metered.connector(1).due_at}
    assert NOW + MINUTE == noticed.due_at


@pytest.mark.note("F72", "F77")
def test_session_limit_zero_disables_the_limit() -> None:
    short, _ = start(b.snapshot(), CARD, decision_context(serial=5, session_limit=2 * HOUR))
    after, _ = start(b.snapshot(), CARD, decision_context(serial=5, session_limit=0 * HOUR))

    assert NOW + 2 * HOUR == getattr(short.connector(1).transaction, "ends_at", None)
    assert getattr(after.connector(1).transaction, "ends_at", NOW) is None


def test_connector_without_transaction_is_not_overdue() -> None:
    assert b.snapshot() == close_overdue(b.snapshot(), 1, decision_context())


@pytest.mark.note("F59")
def test_old_offline_start_leaves_connector_free() -> None:
    yesterday = replace(CARD, started_at=NOW - 24 * HOUR)
    before = replace(b.start_requested_snapshot(), tag=card())

    after, answer = start(before, yesterday, decision_context(serial=5))

    assert Started(transaction_id="5", id_tag_status=TagStatus.ACCEPTED) == answer
    assert ("Offline",) == after.transactions["5"].flags
    assert before.connectors == after.connectors
    assert before.reservation == after.reservation


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


@pytest.mark.note("F77")
def test_overdue_lost_record_is_rebuilt_and_closed() -> None:
    lost = b.snapshot(b.connector(transaction=b.open_transaction("77", energy_wh=1234, ends_at=b.NOW)))
    ended = close_overdue(lost, 1, decision_context(NOW))
    record = ended.transactions["77"]

    assert ended.connector(1).transaction is None
    assert (1234, "Overdue", ("Rebuilt", "Overdue")) == (record.energy_wh, record.reason, record.flags)


@pytest.mark.note("F57")
def test_energy_before_second_start_is_billed() -> None:
    first = b.charging_snapshot(meter_start=1000)
    metered = apply_decision(first, record_readings(first, 1, "3", (reading(6000),), decision_context()))
    again = Start(
        connector_id=1, id_token=IdToken(value=get_reservation(first).id_tag), meter_start_wh=6000, started_at=NOW
    )
    restarted, _ = start(metered, again, decision_context(serial=9))
    running = restarted.connector(1).transaction
    assert running is not None
    ended = stop(
        restarted,
        Stop(transaction_id=running.transaction_id, meter_stop_wh=7000, stopped_at=NOW, reason=None),
        decision_context(),
    )

    assert (6000, 407) == (get_reservation(ended).energy_wh, get_reservation(ended).amount)


@pytest.mark.note("F57")
def test_repeated_start_carries_no_energy() -> None:
    first = b.charging_snapshot(meter_start=1000)
    metered = apply_decision(first, record_readings(first, 1, "3", (reading(6000),), decision_context()))
    again = Start(
        connector_id=1, id_token=IdToken(value=get_reservation(first).id_tag), meter_start_wh=1000, started_at=NOW
    )
    restarted, _ = start(metered, again, decision_context(serial=9))

    assert 0 == get_reservation(restarted).carried_wh


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    ("waits", "asked"),
    [
        (b.authorized_snapshot(), [(CommandKind.TRIGGER_STATUS, 1)]),
        (
            b.authorized_snapshot().with_connector(
                replace(b.authorized_snapshot().connector(1), live=b.build_live_status("Available"))
            ),
            [(CommandKind.TRIGGER_STATUS, 1)],
        ),
        (b.snapshot(), []),
        (b.pending_payment_snapshot(), []),
    ],
    ids=["who paid", "who paid, and Available came before the end", "nobody", "who has not paid"],
)
@pytest.mark.parametrize("ended", ["stopped", "implied"])
def test_transaction_end_triggers_status_for_waiter(
    waits: Snapshot, asked: list[tuple[CommandKind, int]], ended: str
) -> None:
    running = replace(waits.connector(1), transaction=b.open_transaction(idle_until=NOW + MINUTE))
    before = waits.with_connector(running).with_transaction(b.transaction())
    at = decision_context(NOW + 2 * MINUTE, serial=9)

    if ended == "stopped":
        after = stop(before, Stop(transaction_id="77", meter_stop_wh=2000, stopped_at=NOW, reason=None), at)
    else:
        after = close_overdue(before, 1, at)

    assert after.connector(1).transaction is None
    assert asked == [(call.kind, call.connector_id) for call in after.calls]
    assert {NOW + 2 * MINUTE + 10 * SECOND} >= {call.send_at for call in after.calls}


@pytest.mark.note("F21")
@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (b.build_live_status("Charging"), [1]),
        (b.build_live_status("Faulted"), [1]),
        (None, [1]),
        (b.build_live_status("Available", epoch="the last"), [1]),
        (b.build_live_status("Available"), []),
        (b.build_live_status("Preparing"), []),
    ],
    ids=["charging", "out of order", "nothing", "free in another epoch", "free", "plugged in"],
)
@pytest.mark.parametrize("ended", ["stopped", "overdue"])
def test_transaction_end_triggers_unless_reported_free(said: LiveStatus | None, asked: list[int], ended: str) -> None:
    changed_connector = b.connector(1, live=said, transaction=b.open_transaction(ends_at=NOW + MINUTE))
    before = b.snapshot(changed_connector, b.connector(2)).with_transaction(b.transaction())
    at = decision_context(NOW + 2 * MINUTE, serial=9)

    if ended == "stopped":
        after = stop(before, Stop(transaction_id="77", meter_stop_wh=2000, stopped_at=NOW, reason=None), at)
    else:
        after = close_overdue(before, 1, at)
    told = core.status_notification(
        after,
        {"connectorId": 1, "status": "Finishing", "errorCode": "NoError"},
        decision_context(NOW + 3 * MINUTE, serial=10),
    )[0]

    assert asked == [call.connector_id for call in after.calls if call.kind is CommandKind.TRIGGER_STATUS]
    assert [] == [call for call in told.calls if call.kind is CommandKind.TRIGGER_STATUS]


@pytest.mark.note("F21", "F57")
def test_superseding_start_triggers_no_status() -> None:
    changed_connector = b.connector(1, live=b.build_live_status("Charging"), transaction=b.open_transaction())
    before = b.snapshot(changed_connector, b.connector(2)).with_transaction(b.transaction())
    after, _ = start(
        before,
        Start(connector_id=1, id_token=IdToken(value="CARD"), meter_start_wh=3000, started_at=NOW),
        decision_context(serial=9),
    )

    assert "9" == getattr(after.connector(1).transaction, "transaction_id", None)
    assert () == after.calls
