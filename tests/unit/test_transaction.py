"""Start, meter, stop: what is recorded, who may charge, and what it comes to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from csms.charging.transaction import Start, Started, Stop, authorise, best_energy, digest, meter, overdue, start, stop
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
    decided,
)
from csms.ocpp.v16 import core
from csms.ocpp.v16.values import read_transaction_id
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, moment, reservation_in, stored

MINE = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=1000, started_at=NOW)
CARD = Start(connector_id=1, id_token=IdToken(value="CARD"), meter_start_wh=1000, started_at=NOW)
END = Stop(transaction_id="3", meter_stop_wh=11_000, stopped_at=NOW + HOUR, reason="Local")


def card(status: TagStatus = TagStatus.ACCEPTED, **changes: Any) -> IdTag:
    return replace(IdTag(tag="CARD", status=status), **changes)


def reading(energy_wh: int | None, power_w: int | None = None) -> Reading:
    return Reading(at=NOW, energy_wh=energy_wh, power_w=power_w)


def with_card() -> Snapshot:
    """The driver's reservation is there, but it is the card that is presented."""
    return replace(b.start_requested(), tag=card())


# Who may charge


@pytest.mark.parametrize("state", ReservationState)
def test_f28_a_web_tag_is_valid_only_while_its_reservation_may_charge(state: ReservationState) -> None:
    may = {ReservationState.AUTHORIZED, ReservationState.START_REQUESTED, ReservationState.CHARGING}
    expected = TagStatus.ACCEPTED if state in may else TagStatus.INVALID

    assert expected == authorise(b.REACHED[state](), IdToken(value="WTAG1"), moment())
    assert expected == authorise(b.REACHED[state](), IdToken(value="wtag1"), moment())


def test_f28_a_web_tag_is_valid_until_its_lock_ends_and_never_at_another_station() -> None:
    seen = b.start_requested()
    deadline = reservation_in(seen).start_deadline

    assert deadline is not None
    assert TagStatus.ACCEPTED == authorise(seen, IdToken(value="WTAG1"), moment(deadline))
    assert TagStatus.INVALID == authorise(seen, IdToken(value="WTAG1"), moment(deadline + SECOND))
    assert TagStatus.INVALID == authorise(b.snapshot(tag=seen.tag), IdToken(value="WTAG1"), moment())


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
def test_f28_other_tags_are_what_they_are_registered_as_and_a_web_tag_is_none_of_them(
    tag: IdTag | None, expected: TagStatus
) -> None:
    assert expected == authorise(b.snapshot(tag=tag), IdToken(value="CARD"), moment())


# Starting


@pytest.mark.parametrize("reached", [b.waiting, b.start_requested], ids=["Authorized", "StartRequested"])
def test_f26_a_start_may_come_before_the_remote_start_was_answered_or_even_sent(reached: Any) -> None:
    after, answer = start(reached(), MINE, moment(NOW + SECOND, serial=3))

    held = reservation_in(after)
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
    assert ["Started"] == b.steps(after)


@pytest.mark.parametrize("reached", [b.cancelled, b.failed, b.completed, b.paying], ids=lambda f: f.__name__)
def test_f30_a_start_that_nobody_pays_for_is_recorded_answered_invalid_and_stopped(reached: Any) -> None:
    before = reached()

    after, answer = start(before, MINE, moment(serial=8))

    assert Started(transaction_id="8", id_tag_status=TagStatus.INVALID) == answer
    assert after.transactions["8"].reservation_id is None
    assert "8" == getattr(after.connector(1).transaction, "transaction_id", None)
    assert before.reservation == after.reservation
    call = after.calls[-1]
    assert (CommandKind.REMOTE_STOP, "8", NOW + 10 * MINUTE) == (call.kind, call.transaction_id, call.expires_at)


def test_f30_a_start_after_the_deadline_does_not_charge_even_before_a_sweep() -> None:
    before = b.start_requested()
    late = NOW + 11 * MINUTE

    after, answer = start(before, replace(MINE, started_at=late), moment(late, serial=8))

    assert TagStatus.INVALID == answer.id_tag_status
    assert ReservationState.START_REQUESTED == reservation_in(after).state
    assert CommandKind.REMOTE_STOP == after.calls[-1].kind


def test_f27_a_start_at_the_very_deadline_is_in_time() -> None:
    after, answer = start(b.start_requested(), MINE, moment(NOW + 10 * MINUTE, serial=8))

    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert ReservationState.CHARGING == reservation_in(after).state


def test_f33_a_driver_who_plugged_in_at_the_other_bay_charges_there_if_it_is_free() -> None:
    after, answer = start(b.start_requested(), replace(MINE, connector_id=2), moment(serial=8))

    held = reservation_in(after)
    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert (ReservationState.CHARGING, 2) == (held.state, held.connector_id)
    assert (None, None) == (after.connector(1).lock, after.connector(1).transaction)
    assert ("reservation-1", "8") == (
        getattr(after.connector(2).lock, "reservation_id", None),
        getattr(after.connector(2).transaction, "transaction_id", None),
    )
    assert ["Moved", "Started"] == b.steps(after)


def test_f33_an_expired_lock_makes_no_bay_taken() -> None:
    left = b.start_requested().with_connector(b.connector(2, lock=b.lock(expires_at=NOW - SECOND)))

    after, answer = start(left, replace(MINE, connector_id=2), moment(serial=8))

    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert "reservation-1" == getattr(after.connector(2).lock, "reservation_id", None)


def test_f33_a_driver_who_charges_already_is_not_moved_by_a_second_start_elsewhere() -> None:
    before = b.charging()

    after, answer = start(before, replace(MINE, connector_id=2, started_at=NOW + MINUTE), moment(serial=8))

    assert TagStatus.INVALID == answer.id_tag_status
    assert (before.reservation, before.connector(1)) == (after.reservation, after.connector(1))
    assert after.connector(2).lock is None
    assert CommandKind.REMOTE_STOP == after.calls[-1].kind


@pytest.mark.parametrize(
    "bay",
    [b.connector(2, lock=b.lock()), b.connector(2, transaction=b.running())],
    ids=["held by somebody", "somebody charges there"],
)
def test_f33_a_web_tag_does_not_charge_at_a_bay_that_is_not_free(bay: Connector) -> None:
    before = b.start_requested().with_connector(bay)

    after, answer = start(before, replace(MINE, connector_id=2), moment(serial=8))

    assert TagStatus.INVALID == answer.id_tag_status
    assert before.reservation == after.reservation
    assert (bay.lock, before.connector(1)) == (after.connector(2).lock, after.connector(1))
    assert CommandKind.REMOTE_STOP == after.calls[-1].kind


@pytest.mark.parametrize("connector_id", [0, 3])
def test_f10_f33_a_web_tag_does_not_charge_where_there_is_no_bay(connector_id: int) -> None:
    after, answer = start(b.start_requested(), replace(MINE, connector_id=connector_id), moment(serial=8))

    assert TagStatus.INVALID == answer.id_tag_status
    assert ReservationState.START_REQUESTED == reservation_in(after).state


@pytest.mark.parametrize("request_", [MINE, CARD], ids=["web tag", "card"])
def test_f51_the_same_start_again_gets_the_same_answer_and_changes_nothing(request_: Start) -> None:
    first, answer = start(with_card(), request_, moment(serial=3))
    again = replace(stored(with_card(), first), intake=b.intake(first))

    after, second = start(again, request_, moment(NOW + HOUR, serial=4))

    assert again == after
    assert answer == second


def test_f51_a_start_is_the_same_by_connector_tag_time_and_meter() -> None:
    others = [
        replace(MINE, connector_id=2),
        replace(MINE, id_token=IdToken(value="OTHER")),
        replace(MINE, started_at=NOW + SECOND),
        replace(MINE, started_at=None),
        replace(MINE, meter_start_wh=1001),
    ]

    assert digest(MINE) == digest(replace(MINE, id_token=IdToken(value="wtag1")))
    assert 6 == len({digest(MINE), *map(digest, others)})


def test_f50_f51_a_new_transaction_id_and_its_intake_must_both_be_unused() -> None:
    before = b.start_requested()
    after, _ = start(before, MINE, moment(serial=3))

    writes = decided(before, after).writes
    assert [0] == [w.entity.version for w in writes if isinstance(w, Save) and w.entity is after.transactions["3"]]
    assert [True] == [w.once for w in writes if isinstance(w, Append) and w.record is b.intake(after)]


def test_f52_an_invalid_tag_still_gets_a_stored_transaction_with_a_real_id() -> None:
    after, answer = start(b.snapshot(), CARD, moment(serial=5))

    assert Started(transaction_id="5", id_tag_status=TagStatus.INVALID) == answer
    assert TagStatus.INVALID == after.transactions["5"].id_tag_status
    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)
    assert () == after.calls


def test_a_start_whose_clock_cannot_be_read_began_when_it_was_received() -> None:
    after, _ = start(b.snapshot(), replace(CARD, started_at=None), moment(serial=5))

    assert NOW == after.transactions["5"].started_at


def test_f57_a_start_on_a_connector_whose_old_one_is_open_closes_the_old_one() -> None:
    before = b.snapshot(b.connector(transaction=b.running(energy_wh=500)), transactions={"77": b.transaction()})

    after, _ = start(before, replace(CARD, started_at=NOW + HOUR), moment(NOW + HOUR, serial=5))

    old = after.transactions["77"]
    assert (NOW + HOUR, 500, "Superseded", ("Superseded",)) == (old.stopped_at, old.energy_wh, old.reason, old.flags)
    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)


def test_f57_somebody_elses_start_settles_the_charge_that_it_supersedes() -> None:
    before = meter(b.charging(), 1, "3", (reading(11_000),), moment())
    before = replace(before, tag=card(), records=())

    after, answer = start(before, replace(CARD, started_at=NOW + HOUR), moment(NOW + HOUR, serial=5))

    held = reservation_in(after)
    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert (ReservationState.COMPLETED, Money.CAPTURING, 645) == (held.state, held.money, held.amount)
    assert after.connector(1).lock is None


def test_f57_the_drivers_own_second_start_goes_on_with_the_same_reservation() -> None:
    again = replace(MINE, started_at=NOW + MINUTE, meter_start_wh=3000)

    after, answer = start(b.charging(), again, moment(NOW + MINUTE, serial=5))

    held = reservation_in(after)
    assert TagStatus.ACCEPTED == answer.id_tag_status
    assert (ReservationState.CHARGING, "5", Money.AUTHORISED) == (held.state, held.transaction_id, held.money)
    assert after.transactions["3"].stopped_at is not None


def test_f57_an_old_transaction_whose_record_was_lost_is_closed_by_a_new_one_all_the_same() -> None:
    before = b.snapshot(b.connector(transaction=b.running()))

    after, _ = start(before, CARD, moment(serial=5))

    assert ("Superseded", ("Rebuilt", "Superseded")) == (
        after.transactions["77"].reason,
        after.transactions["77"].flags,
    )
    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)


# Metering


def test_f58_energy_moves_on_and_never_falls() -> None:
    seen = b.charging()
    energies = []
    for register in (1500, 4000, 200, None, 4001):
        seen = meter(seen, 1, "3", (reading(register),), moment())
        energies.append(getattr(seen.connector(1).transaction, "energy_wh", None))

    assert [500, 3000, 3000, 3000, 3001] == energies


def test_the_latest_power_is_kept_until_there_is_another() -> None:
    first = meter(b.charging(), 1, "3", (reading(None, 7000), reading(None, 6900)), moment())
    second = meter(first, 1, "3", (reading(1100),), moment(NOW + SECOND))

    assert 6900 == getattr(first.connector(1).transaction, "power_w", None)
    assert (6900, NOW + SECOND) == (
        getattr(second.connector(1).transaction, "power_w", None),
        getattr(second.connector(1).transaction, "metered_at", None),
    )


@pytest.mark.parametrize("named", [None, 0, -1, 3])
def test_readings_that_name_no_transaction_are_those_of_the_running_one(named: int | None) -> None:
    after = meter(b.charging(), 1, read_transaction_id(named), (reading(2000),), moment())

    assert 1000 == getattr(after.connector(1).transaction, "energy_wh", None)


def test_readings_of_another_transaction_are_kept_and_do_not_touch_the_running_one() -> None:
    before = b.charging()

    after = meter(before, 1, "99", (reading(9000),), moment())

    assert before.connectors == after.connectors
    assert ["99"] == [a.record.transaction_id for a in after.records if isinstance(a.record, MeterSample)]


@pytest.mark.parametrize("readings", [(), (reading(5),)], ids=["no readings", "readings of nothing"])
def test_readings_without_a_transaction_change_nothing(readings: tuple[Reading, ...]) -> None:
    before = b.snapshot() if readings else b.charging()

    assert before == meter(before, 1, None, readings, moment())


@pytest.mark.parametrize(
    ("registers", "energy"),
    [((), 0), ((None,), 0), ((900,), 0), ((1000,), 0), ((1001, 1500, 1400), 500), ((None, 1200), 200)],
)
def test_f58_the_best_energy_is_the_most_that_was_read_and_never_negative(
    registers: tuple[int | None, ...], energy: int
) -> None:
    assert energy == best_energy(1000, map(reading, registers))


# Stopping


def test_a_stop_closes_settles_and_frees() -> None:
    after = stop(b.charging(), END, moment(NOW + HOUR, serial=4))

    closed, held = after.transactions["3"], reservation_in(after)
    assert (NOW + HOUR, 11_000, 10_000, "Local", ()) == (
        closed.stopped_at,
        closed.meter_stop_wh,
        closed.energy_wh,
        closed.reason,
        closed.flags,
    )
    assert (ReservationState.COMPLETED, 645, Money.CAPTURING) == (held.state, held.amount, held.money)
    assert (None, None) == (after.connector(1).transaction, after.connector(1).lock)


@pytest.mark.parametrize("meter_stop", [0, None, 999, 5000, -7], ids=["0", "missing", "reset", "too low", "negative"])
def test_f58_a_meter_at_stop_that_is_not_to_be_trusted_gives_way_to_the_best_sample(meter_stop: int | None) -> None:
    before = meter(b.charging(), 1, "3", (reading(9000),), moment())

    after = stop(before, replace(END, meter_stop_wh=meter_stop), moment())

    closed = after.transactions["3"]
    assert (8000, meter_stop, ("MeterStopNotTrusted",)) == (closed.energy_wh, closed.meter_stop_wh, closed.flags)
    assert 8000 == reservation_in(after).energy_wh


def test_f58_the_readings_that_come_with_a_stop_count_too() -> None:
    after = stop(b.charging(), replace(END, meter_stop_wh=0, readings=(reading(6000),)), moment())

    assert 5000 == after.transactions["3"].energy_wh


def test_a_stop_that_names_no_reason_was_local_and_one_without_a_time_is_now() -> None:
    closed = stop(b.charging(), replace(END, reason=None, stopped_at=None), moment(NOW + HOUR)).transactions["3"]

    assert ("Local", NOW + HOUR) == (closed.reason, closed.stopped_at)


@pytest.mark.parametrize("named", [0, -1, 4711])
def test_f53_f54_an_unknown_stop_is_put_aside_and_closes_nothing(named: int) -> None:
    before = b.charging()

    after = stop(before, replace(END, transaction_id=named), moment())

    assert before == replace(after, records=())
    assert [("StopPutAside", "unknown", named)] == [
        (a.record.kind, a.record.detail["why"], a.record.detail["transaction"])
        for a in after.records
        if isinstance(a.record, TimelineEntry)
    ]


def test_f53_a_second_stop_is_put_aside_and_changes_no_bill() -> None:
    before = stored(b.charging(), stop(b.charging(), END, moment()))

    after = stop(before, replace(END, meter_stop_wh=90_000), moment(NOW + HOUR))

    assert before == replace(after, records=())
    assert "already closed" == after.records[0].record.detail["why"]


def test_a_station_cannot_stop_the_transaction_of_another() -> None:
    theirs = b.transaction("3", station_id="cp-2")
    before = b.snapshot(transactions={"3": theirs})

    after = stop(before, END, moment())

    assert theirs == after.transactions["3"]
    assert "unknown" == after.records[0].record.detail["why"]


@pytest.mark.parametrize("named", [0, -1])
def test_f54_a_stop_without_a_real_id_is_that_of_the_only_one_open_that_fits(named: int) -> None:
    lost = replace(END, transaction_id=str(named), is_unnamed=True, id_token=IdToken(value="wtag1"))

    after = stop(b.charging(), lost, moment(NOW + HOUR))

    assert NOW + HOUR == after.transactions["3"].stopped_at
    assert ReservationState.COMPLETED == reservation_in(after).state


@pytest.mark.parametrize(("tag", "meter_stop"), [("CARD", 11_000), (None, 11_000), ("WTAG1", 999), ("WTAG1", None)])
def test_f54_a_stop_that_fits_nothing_open_closes_nothing(tag: str | None, meter_stop: int | None) -> None:
    before = b.charging()

    after = stop(
        before,
        replace(
            END, transaction_id="-1", is_unnamed=True, id_token=tag and IdToken(value=tag), meter_stop_wh=meter_stop
        ),
        moment(),
    )

    assert before == replace(after, records=())


def test_f54_a_stop_that_fits_two_closes_neither() -> None:
    twin = b.connector(2, transaction=b.running("55", id_tag="WTAG1"))
    before = b.charging().with_connector(twin)
    before = replace(before, transactions={**before.transactions, "55": b.transaction("55", connector_id=2)})

    after = stop(before, replace(END, transaction_id="0", is_unnamed=True, id_token=IdToken(value="WTAG1")), moment())

    assert before == replace(after, records=())


def test_f15_a_stop_leaves_what_runs_on_the_connector_by_now() -> None:
    before = b.charging()
    before = replace(before, transactions={**before.transactions, "55": b.transaction("55")})

    after = stop(before, replace(END, transaction_id="55"), moment())

    assert before.connectors == after.connectors
    assert before.reservation == after.reservation
    assert after.transactions["55"].stopped_at is not None


def test_a_stop_in_the_past_is_kept_as_told_and_the_bill_is_dated_on_receipt() -> None:
    yesterday = datetime(2026, 2, 28, tzinfo=UTC)

    after = stop(b.charging(), replace(END, stopped_at=yesterday), moment(NOW + HOUR))

    assert (yesterday, NOW + HOUR) == (after.transactions["3"].stopped_at, reservation_in(after).stopped_at)


# Ends that the station did not tell


def on_notice() -> Snapshot:
    """A charge of 2 kWh whose connector said Available at noon, though no stop came."""
    seen = meter(b.charging(), 1, "3", (reading(3000),), moment())
    bay = seen.connector(1)
    assert bay.transaction is not None
    return replace(
        seen.with_connector(replace(bay, transaction=replace(bay.transaction, idle_until=NOW + 5 * MINUTE))),
        records=(),
    )


def test_f55_an_implied_stop_settles_after_its_grace_with_the_best_meter() -> None:
    before = on_notice()

    assert before == overdue(before, 1, moment(NOW + 4 * MINUTE))
    after = overdue(before, 1, moment(NOW + 5 * MINUTE))

    closed, held = after.transactions["3"], reservation_in(after)
    assert ("ImpliedStop", 2000, ("ImpliedStop",)) == (closed.reason, closed.energy_wh, closed.flags)
    assert (ReservationState.COMPLETED, 169) == (held.state, held.amount)
    assert (None, None) == (after.connector(1).transaction, after.connector(1).lock)


def test_f55_the_real_stop_within_the_grace_wins() -> None:
    after = stop(on_notice(), END, moment(NOW + MINUTE))

    assert ("Local", 10_000) == (after.transactions["3"].reason, after.transactions["3"].energy_wh)
    assert 645 == reservation_in(after).amount


def test_f55_the_real_stop_after_the_grace_corrects_the_record_and_raises_no_bill() -> None:
    before = stored(on_notice(), overdue(on_notice(), 1, moment(NOW + 5 * MINUTE)))

    after = stop(before, END, moment(NOW + HOUR))

    assert ("Local", 10_000, ("ImpliedStop", "CorrectedAfterImpliedStop")) == (
        after.transactions["3"].reason,
        after.transactions["3"].energy_wh,
        after.transactions["3"].flags,
    )
    assert replace(b.reservation_in(before), flags=("Underbilled",)) == after.reservation
    assert before.connectors == after.connectors


def test_f77_a_transaction_that_never_ends_is_ended_and_stopped() -> None:
    before = b.charging()
    limit = getattr(before.connector(1).transaction, "ends_at", None)

    after = overdue(before, 1, moment(limit, serial=9))

    assert NOW + 24 * HOUR == limit
    assert before == overdue(before, 1, moment(limit - SECOND))
    assert "Overdue" == after.transactions["3"].reason
    assert (ReservationState.COMPLETED, None) == (reservation_in(after).state, after.connector(1).lock)
    assert (CommandKind.REMOTE_STOP, "3") == (after.calls[-1].kind, after.calls[-1].transaction_id)


def test_f77_maintenance_looks_when_the_maximum_is_reached_whatever_the_meter_says() -> None:
    before = b.charging()
    metered = meter(before, 1, "3", (reading(2000),), moment(NOW + HOUR))
    noticed = replace(before.connector(1), transaction=b.running(idle_until=NOW + MINUTE, ends_at=NOW + HOUR))

    assert {NOW + 24 * HOUR} == {before.connector(1).due_at, metered.connector(1).due_at}
    assert NOW + MINUTE == noticed.due_at


def test_f72_f77_the_maximum_is_a_setting_and_zero_is_none() -> None:
    short, _ = start(b.snapshot(), CARD, moment(serial=5, session_limit=2 * HOUR))
    after, _ = start(b.snapshot(), CARD, moment(serial=5, session_limit=0 * HOUR))

    assert NOW + 2 * HOUR == getattr(short.connector(1).transaction, "ends_at", None)
    assert getattr(after.connector(1).transaction, "ends_at", NOW) is None


def test_a_connector_without_a_transaction_is_not_overdue() -> None:
    assert b.snapshot() == overdue(b.snapshot(), 1, moment())


def test_f59_a_start_from_the_offline_queue_is_recorded_and_does_not_occupy_the_connector() -> None:
    yesterday = replace(CARD, started_at=NOW - 24 * HOUR)
    before = replace(b.start_requested(), tag=card())

    after, answer = start(before, yesterday, moment(serial=5))

    assert Started(transaction_id="5", id_tag_status=TagStatus.ACCEPTED) == answer
    assert ("Offline",) == after.transactions["5"].flags
    assert before.connectors == after.connectors
    assert before.reservation == after.reservation


@pytest.mark.parametrize(
    ("started_at", "raw"),
    [(NOW - 10 * MINUTE, "Available"), (NOW - HOUR, "Charging"), (datetime(1970, 1, 1, tzinfo=UTC), "Available")],
    ids=["lately", "and it still charges", "says a clock that cannot be right"],
)
def test_f59_a_start_of_now_occupies_the_connector(started_at: datetime, raw: str) -> None:
    before = b.snapshot(b.connector(1, live=b.live(raw)), tag=card())

    after, _ = start(before, replace(CARD, started_at=started_at), moment(serial=5))

    assert "5" == getattr(after.connector(1).transaction, "transaction_id", None)


def test_f77_a_transaction_whose_record_was_lost_is_closed_all_the_same() -> None:
    lost = b.snapshot(b.connector(transaction=b.running("77", energy_wh=1234, ends_at=b.NOW)))
    ended = overdue(lost, 1, moment(NOW))
    record = ended.transactions["77"]

    assert ended.connector(1).transaction is None
    assert (1234, "Overdue", ("Rebuilt", "Overdue")) == (record.energy_wh, record.reason, record.flags)


def test_f57_what_the_first_start_delivered_is_billed_with_the_second() -> None:
    first = b.charging(meter_start=1000)
    metered = stored(first, meter(first, 1, "3", (reading(6000),), moment()))
    again = Start(
        connector_id=1, id_token=IdToken(value=reservation_in(first).id_tag), meter_start_wh=6000, started_at=NOW
    )
    restarted, _ = start(metered, again, moment(serial=9))
    running = restarted.connector(1).transaction
    assert running is not None
    ended = stop(
        restarted,
        Stop(transaction_id=running.transaction_id, meter_stop_wh=7000, stopped_at=NOW, reason=None),
        moment(),
    )

    assert (6000, 407) == (reservation_in(ended).energy_wh, reservation_in(ended).amount)


def test_f57_a_start_that_was_told_twice_is_billed_once() -> None:
    first = b.charging(meter_start=1000)
    metered = stored(first, meter(first, 1, "3", (reading(6000),), moment()))
    again = Start(
        connector_id=1, id_token=IdToken(value=reservation_in(first).id_tag), meter_start_wh=1000, started_at=NOW
    )
    restarted, _ = start(metered, again, moment(serial=9))

    assert 0 == reservation_in(restarted).carried_wh


@pytest.mark.parametrize(
    ("waits", "asked"),
    [
        (b.waiting(), [(CommandKind.TRIGGER_STATUS, 1)]),
        (
            b.waiting().with_connector(replace(b.waiting().connector(1), live=b.live("Available"))),
            [(CommandKind.TRIGGER_STATUS, 1)],
        ),
        (b.snapshot(), []),
        (b.paying(), []),
    ],
    ids=["who paid", "who paid, and Available came before the end", "nobody", "who has not paid"],
)
@pytest.mark.parametrize("ended", ["stopped", "implied"])
def test_f32_who_waits_for_what_runs_to_end_is_thought_of_when_it_has(
    waits: Snapshot, asked: list[tuple[CommandKind, int]], ended: str
) -> None:
    running = replace(waits.connector(1), transaction=b.running(idle_until=NOW + MINUTE))
    before = waits.with_connector(running).with_transaction(b.transaction())
    at = moment(NOW + 2 * MINUTE, serial=9)

    if ended == "stopped":
        after = stop(before, Stop(transaction_id="77", meter_stop_wh=2000, stopped_at=NOW, reason=None), at)
    else:
        after = overdue(before, 1, at)

    assert after.connector(1).transaction is None
    assert asked == [(call.kind, call.connector_id) for call in after.calls]
    assert {NOW + 2 * MINUTE + 10 * SECOND} >= {call.send_at for call in after.calls}


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (b.live("Charging"), [1]),
        (b.live("Faulted"), [1]),
        (None, [1]),
        (b.live("Available", epoch="the last"), [1]),
        (b.live("Available"), []),
        (b.live("Preparing"), []),
    ],
    ids=["charging", "out of order", "nothing", "free in another epoch", "free", "plugged in"],
)
@pytest.mark.parametrize("ended", ["stopped", "overdue"])
def test_f21_what_frees_a_connector_may_be_lost_so_the_station_is_asked_when_nothing_runs_there_any_more(
    said: LiveStatus | None, asked: list[int], ended: str
) -> None:
    bay = b.connector(1, live=said, transaction=b.running(ends_at=NOW + MINUTE))
    before = b.snapshot(bay, b.connector(2)).with_transaction(b.transaction())
    at = moment(NOW + 2 * MINUTE, serial=9)

    if ended == "stopped":
        after = stop(before, Stop(transaction_id="77", meter_stop_wh=2000, stopped_at=NOW, reason=None), at)
    else:
        after = overdue(before, 1, at)
    told = core.status_notification(
        after, {"connectorId": 1, "status": "Finishing", "errorCode": "NoError"}, moment(NOW + 3 * MINUTE, serial=10)
    )[0]

    assert asked == [call.connector_id for call in after.calls if call.kind is CommandKind.TRIGGER_STATUS]
    assert [] == [call for call in told.calls if call.kind is CommandKind.TRIGGER_STATUS]


def test_f21_f57_a_start_that_supersedes_another_tells_by_itself_how_the_connector_is() -> None:
    bay = b.connector(1, live=b.live("Charging"), transaction=b.running())
    before = b.snapshot(bay, b.connector(2)).with_transaction(b.transaction())
    after, _ = start(
        before,
        Start(connector_id=1, id_token=IdToken(value="CARD"), meter_start_wh=3000, started_at=NOW),
        moment(serial=9),
    )

    assert "9" == getattr(after.connector(1).transaction, "transaction_id", None)
    assert () == after.calls
