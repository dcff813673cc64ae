"""A register that jumps is never captured by itself, and an operator can bill what is right (note F58)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms import views
from csms.charging import settlement
from csms.charging.settlement import IMPLAUSIBLE
from csms.charging.transaction import Start, Stop, close_overdue, record_readings, start, stop
from csms.errors import IllegalTransition
from csms.model import IdToken, Money, OutboxKind, Policy, Reading, Reservation, ReservationState, Snapshot
from tests import builders as b
from tests.builders import AUTHORISED, HOUR, IDLING, MINUTE, NOW, SECOND, reservation_in

S = ReservationState
OWN_START = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=1000, started_at=NOW)
KW_400 = 400_000


def at(now: datetime, serial: int = 9) -> Any:
    """A moment under the default bound of 400 kW."""
    return b.moment(now, serial=serial, max_power_w=Policy().max_power_w)


def metered(before: Snapshot, *registers: tuple[timedelta, int | None]) -> Snapshot:
    """The snapshot after a message for each register, that long after the start, on a clock that is right."""
    for after, energy_wh in registers:
        reading = Reading(at=NOW + after, energy_wh=energy_wh)
        before = b.stored(before, record_readings(before, 1, "3", (reading,), at(NOW + after)))
    return before


def stopped(before: Snapshot, after: timedelta, meter_stop_wh: int | None, **changes: Any) -> Snapshot:
    """The snapshot after the station stopped transaction 3 so long after its start."""
    request = Stop(transaction_id="3", meter_stop_wh=meter_stop_wh, stopped_at=NOW + after, reason="Local")
    return stop(before, replace(request, **changes), at(NOW + after))


def reviewed(meter_stop_wh: int = 936_950) -> Snapshot:
    """A session of 20 minutes whose meter was not ready at its start."""
    before = metered(b.charging(meter_start=0), (SECOND, 936_120))
    return b.stored(before, stopped(before, 20 * MINUTE, meter_stop_wh))


def is_held_back(after: Snapshot) -> bool:
    """Whether the bill waits for a human, and nobody captures it meanwhile."""
    held = reservation_in(after)
    owed = [effect.due_at for effect in after.outbox_items if effect.kind is OutboxKind.CAPTURE]
    return held.money is Money.NEEDS_REVIEW and IMPLAUSIBLE in (held.review or "") and owed == [None]


@pytest.mark.note("F58")
def test_lifetime_register_after_zero_needs_review() -> None:
    after = reviewed()

    assert is_held_back(after)
    assert (S.COMPLETED, AUTHORISED, None) == (
        reservation_in(after).state,
        reservation_in(after).amount,
        reservation_in(after).captured_amount,
    )


@pytest.mark.note("F58")
def test_lifetime_register_at_stop_needs_review() -> None:
    assert is_held_back(stopped(b.charging(meter_start=0), 20 * MINUTE, 6_820_000))


@pytest.mark.note("F58")
@pytest.mark.parametrize("meter_stop_wh", [None, 0, 830], ids=["missing", "zero", "the truth"])
def test_meter_jump_is_remembered_until_stop(meter_stop_wh: int | None) -> None:
    before = metered(b.charging(meter_start=0), (SECOND, 936_120))

    assert is_held_back(stopped(before, 20 * HOUR, meter_stop_wh))


@pytest.mark.note("F58")
def test_mid_session_jump_needs_review() -> None:
    before = metered(b.charging(), (MINUTE, 2000), (2 * MINUTE, 3000), (3 * MINUTE, 900_000), (4 * MINUTE, 900_500))

    assert is_held_back(stopped(before, 10 * HOUR, 901_000))


@pytest.mark.note("F58")
def test_jump_within_one_message_needs_review() -> None:
    series = (Reading(at=NOW + MINUTE, energy_wh=2000), Reading(at=NOW + 2 * MINUTE, energy_wh=90_000))
    before = b.stored(b.charging(), record_readings(b.charging(), 1, "3", series, at(NOW + 2 * MINUTE)))

    assert is_held_back(stopped(before, 10 * HOUR, 91_000))


@pytest.mark.note("F58")
def test_jump_in_stop_readings_needs_review() -> None:
    series = (Reading(at=NOW + MINUTE, energy_wh=2000), Reading(at=NOW + 2 * MINUTE, energy_wh=90_000))

    assert is_held_back(stopped(b.charging(), 10 * HOUR, 91_000, readings=series))


@pytest.mark.note("F58")
@pytest.mark.parametrize(("energy_wh", "held_back"), [(6_666 + 111, False), (6_666 + 113, True)])
def test_energy_beyond_400_kw_needs_review(energy_wh: int, held_back: bool) -> None:
    after = stopped(b.charging(), MINUTE, 1000 + energy_wh)

    assert held_back == is_held_back(after)
    assert (Money.NEEDS_REVIEW if held_back else Money.CAPTURING) == reservation_in(after).money


@pytest.mark.note("F58")
def test_max_power_setting_moves_the_bound() -> None:
    request = Stop(transaction_id="3", meter_stop_wh=6000, stopped_at=NOW + HOUR, reason="Local")

    after = stop(b.charging(), request, b.moment(NOW + HOUR, max_power_w=4_000))

    assert is_held_back(after)


@pytest.mark.note("F58")
def test_whole_kwh_steps_are_no_jump() -> None:
    before = metered(b.charging(), (10 * MINUTE, 4000), (10 * MINUTE + SECOND, 5000), (20 * MINUTE, 8000))

    assert Money.CAPTURING is reservation_in(stopped(before, 30 * MINUTE, 9000)).money


@pytest.mark.note("F58")
def test_zero_between_readings_is_no_jump() -> None:
    before = metered(b.charging(), (10 * MINUTE, 9000), (20 * MINUTE - SECOND, 0), (20 * MINUTE, 17_000))

    assert Money.CAPTURING is reservation_in(stopped(before, 30 * MINUTE, 20_000)).money


@pytest.mark.note("F58")
def test_batched_readings_are_no_jump() -> None:
    series = tuple(Reading(at=NOW + n * MINUTE, energy_wh=1000 + n * 1500) for n in range(1, 11))
    late = at(NOW + 11 * MINUTE)
    before = b.stored(b.charging(), record_readings(b.charging(), 1, "3", series, late))

    assert Money.CAPTURING is reservation_in(stopped(before, 12 * MINUTE, 16_500)).money


@pytest.mark.note("F58")
@pytest.mark.parametrize("clock", [datetime(1970, 1, 1, tzinfo=NOW.tzinfo), NOW + 400 * 24 * HOUR])
def test_jump_under_implausible_clock_needs_review(clock: datetime) -> None:
    reading = Reading(at=clock, energy_wh=936_120)
    before = b.stored(
        b.charging(meter_start=0), record_readings(b.charging(meter_start=0), 1, "3", (reading,), at(NOW + SECOND))
    )

    assert is_held_back(stopped(before, 20 * MINUTE, 936_950, stopped_at=clock))


@pytest.mark.note("F58")
def test_late_reported_session_is_billed() -> None:
    """The station was away for the whole session, and its own clock says how long that was."""
    told_at = NOW + 2 * HOUR
    ready = b.start_requested(at=told_at - MINUTE)
    request = replace(OWN_START, started_at=told_at - HOUR)
    begun, _ = start(ready, request, at(told_at, serial=3))
    end = Stop(transaction_id="3", meter_stop_wh=21_000, stopped_at=told_at, reason="Local")

    after = stop(b.stored(ready, begun), end, at(told_at + SECOND))

    assert Money.CAPTURING is reservation_in(after).money


@pytest.mark.note("F58")
def test_jump_before_second_start_needs_review() -> None:
    jumped = metered(b.charging(meter_start=0), (SECOND, 936_120))
    again, _ = start(
        jumped, replace(OWN_START, meter_start_wh=936_130, started_at=NOW + MINUTE), at(NOW + MINUTE, serial=5)
    )
    before = b.stored(jumped, again)

    end = Stop(transaction_id="5", meter_stop_wh=937_000, stopped_at=NOW + HOUR, reason="Local")

    assert is_held_back(stop(before, end, at(NOW + HOUR)))


@pytest.mark.note("F58")
def test_implied_stop_after_jump_needs_review() -> None:
    jumped = metered(b.charging(meter_start=0), (SECOND, 936_120))
    available = b.told(jumped, "Available", NOW + MINUTE)

    assert is_held_back(close_overdue(available, 1, at(NOW + HOUR)))


@pytest.mark.note("F58")
def test_unplug_after_doubted_stop_needs_review() -> None:
    plugged = b.told(b.charging(site=b.idle_site(), authorised_amount=b.IDLE_AUTHORISED), "SuspendedEV")
    waiting = b.stored(plugged, stopped(plugged, MINUTE, 900_000))

    after = b.told(waiting, "Available", NOW + HOUR)

    assert S.WAITING_FOR_DISCONNECT is reservation_in(waiting).state
    assert (IDLING, True) == (reservation_in(after).tariff, is_held_back(after))


def test_free_session_needs_no_review() -> None:
    before = b.charging()
    free = replace(reservation_in(before), money=Money.NONE, authorised_amount=None)

    assert Money.NONE is reservation_in(stopped(replace(before, reservation=free), MINUTE, 900_000)).money


@pytest.mark.note("F66")
def test_jump_below_minimum_energy_is_released() -> None:
    before = metered(b.charging(meter_start=0), (SECOND, 936_120))
    cheap = replace(reservation_in(before), tariff=replace(b.TARIFF, minimum_energy_wh=2_000_000))

    assert Money.RELEASING is reservation_in(stopped(replace(before, reservation=cheap), HOUR, 936_950)).money


@pytest.mark.note("F58")
@given(
    steps=st.lists(st.tuples(st.integers(1, 3600), st.integers(0, 60_000)), min_size=1, max_size=6),
    last=st.tuples(st.integers(1, 3600), st.integers(0, 60_000)),
)
def test_only_plausible_energy_is_captured(steps: list[tuple[int, int]], last: tuple[int, int]) -> None:
    seconds, register, before = 0, 1000, b.charging()
    most_a_step = [KW_400 * (pause + 1) // 3600 + 1000 for pause, _ in (*steps, last)]
    for pause, rise in steps:
        seconds, register = seconds + pause, register + rise
        before = metered(before, (timedelta(seconds=seconds), register))
    seconds, register = seconds + last[0], register + last[1]

    after = stopped(before, timedelta(seconds=seconds), register)

    can_be = all(rise <= most for (_, rise), most in zip((*steps, last), most_a_step, strict=True))
    can_be = can_be and register - 1000 <= KW_400 * (seconds + 1) // 3600
    nothing = reservation_in(after).amount == 0
    assert (can_be or nothing) == (reservation_in(after).money in {Money.CAPTURING, Money.RELEASING})


# What a human does about it.


def test_operator_bills_corrected_energy() -> None:
    after = settlement.bill_energy(reviewed(), 8300, b.moment())

    held = reservation_in(after)
    assert (Money.CAPTURING, 8300, 544, 544) == (held.money, held.energy_wh, held.amount, held.capture_amount)
    assert [True] == [e.due_at is not None for e in after.outbox_items if e.kind is OutboxKind.CAPTURE]


def test_operator_billing_zero_releases_hold() -> None:
    after = settlement.bill_energy(reviewed(), 0, b.moment())

    assert (Money.RELEASING, [OutboxKind.RELEASE]) == (
        reservation_in(after).money,
        [e.kind for e in after.outbox_items],
    )


@pytest.mark.note("F58")
def test_retry_cannot_capture_doubted_bill() -> None:
    with pytest.raises(IllegalTransition, match="bill the right energyWh, or release"):
        settlement.retry_payment(reviewed(), b.moment())


def test_refused_manual_bill_can_be_retried() -> None:
    billed = b.stored(reviewed(), settlement.bill_energy(reviewed(), 8300, b.moment()))
    refused = settlement.put_off(billed, OutboxKind.CAPTURE, "no", b.moment(), final=True)

    after = settlement.retry_payment(refused, b.moment())

    assert (Money.CAPTURING, 544) == (reservation_in(after).money, reservation_in(after).capture_amount)


def test_refused_release_can_be_retried() -> None:
    released = b.stored(reviewed(), settlement.release_payment(reviewed(), b.moment()))
    refused = settlement.put_off(released, OutboxKind.RELEASE, "no", b.moment(), final=True)

    assert Money.RELEASING is reservation_in(settlement.retry_payment(refused, b.moment())).money


@pytest.mark.parametrize("what", ["released here", "released at the provider's"])
def test_released_bill_shows_zero_amount(what: str) -> None:
    before = reviewed()

    here = what == "released here"
    after = settlement.release_payment(before, b.moment()) if here else settlement.settle_by_hand(before, 0, b.moment())

    shown = views.reservation(reservation_in(after), now=NOW)
    assert (0, None, True) == (shown["amount"], shown.get("cut"), shown["meterDoubted"])


@pytest.mark.parametrize(("energy_wh", "most"), [(936_951, 936_950), (133_445, 133_444)], ids=["metered", "delivered"])
def test_manual_bill_cannot_exceed_possible_energy(energy_wh: int, most: int) -> None:
    """20 minutes and a second of 400 kW are less than was metered; of any power they are more."""
    moment = at(NOW) if most < 936_950 else b.moment()

    with pytest.raises(IllegalTransition, match=f"energyWh must be at most {most},"):
        settlement.bill_energy(reviewed(), energy_wh, moment)

    billed = reservation_in(settlement.bill_energy(reviewed(), most, moment))
    assert (Money.CAPTURING, most, AUTHORISED) == (billed.money, billed.energy_wh, billed.amount)


def test_manual_bill_cannot_exceed_first_bill() -> None:
    small = stopped(b.charging(), SECOND, 3000)

    with pytest.raises(IllegalTransition, match="energyWh"):
        settlement.bill_energy(b.stored(b.charging(), small), 3000, b.moment())


def test_manual_bill_without_bill_is_illegal() -> None:
    releasing = b.failed()
    refused = settlement.put_off(releasing, OutboxKind.RELEASE, "no", b.moment(), final=True)

    with pytest.raises(IllegalTransition, match="no bill that waits"):
        settlement.bill_energy(b.stored(releasing, refused), 100, b.moment())


@pytest.mark.note("F55")
def test_late_stop_lowers_bill_under_review() -> None:
    jumped = metered(b.charging(meter_start=0), (SECOND, 936_120))
    implied = b.stored(jumped, close_overdue(b.told(jumped, "Available", NOW + MINUTE), 1, at(NOW + HOUR)))

    after = settlement.correct_bill(implied, 5000, b.moment())

    held = reservation_in(after)
    assert (Money.NEEDS_REVIEW, held.amount) == (held.money, held.capture_amount)
    assert held.amount is not None
    assert held.amount < AUTHORISED


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (lambda: reservation_in(reviewed()), True),
        (lambda: reservation_in(settlement.bill_energy(reviewed(), 8300, b.moment())), None),
        (lambda: replace(reservation_in(b.completed()), money=Money.NEEDS_REVIEW), None),
    ],
    ids=["checked", "billed by hand", "refused by the provider"],
)
def test_driver_sees_doubt_only_for_meter_review(held: Any, told: bool | None) -> None:
    shown: Reservation = held()

    assert told == views.reservation(shown, now=NOW).get("meterDoubted")


@pytest.mark.parametrize(("register", "told"), [(936_120, (True, None)), (1000, (None, None))], ids=["jumped", "not"])
def test_driver_sees_jump_while_charging(register: int, told: tuple[bool | None, int | None]) -> None:
    charging = metered(b.charging(meter_start=0), (SECOND, register))

    shown = views.reservation(reservation_in(charging), running=charging.connector(1).transaction, now=NOW)

    assert told == (shown.get("meterDoubted"), shown.get("cut"))


def test_waiting_session_shows_meter_doubt() -> None:
    plugged = b.told(b.charging(site=b.idle_site(), authorised_amount=b.IDLE_AUTHORISED), "SuspendedEV")

    waiting = reservation_in(stopped(plugged, MINUTE, 900_000))

    shown = views.reservation(waiting, now=NOW + MINUTE)
    assert (S.WAITING_FOR_DISCONNECT, True, None) == (shown["status"], shown["meterDoubted"], shown.get("cut"))
