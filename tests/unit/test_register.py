"""Energy from an implausible jump of the meter register is never captured automatically, and an operator can bill the
right energy (note F58)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms import views
from csms.charging import review, settlement
from csms.charging.settlement import IMPLAUSIBLE
from csms.charging.transaction import Start, Stop, close_overdue, record_readings, start, stop
from csms.errors import IllegalTransition
from csms.model import IdToken, Money, OutboxKind, Policy, Reading, Reservation, ReservationState, Snapshot
from tests import builders as b
from tests.builders import AUTHORIZED, HOUR, IDLING, MINUTE, NOW, SECOND, get_reservation

S = ReservationState
OWN_START = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=1000, started_at=NOW)
KW_400 = 400_000


def decision_context(now: datetime, serial: int = 9) -> Any:
    """A moment under the default bound of 400 kW."""
    return b.decision_context(now, serial=serial, max_power_w=Policy().max_power_w)


def report_registers(before: Snapshot, *registers: tuple[timedelta, int | None]) -> Snapshot:
    """The snapshot after a message for each register, that long after the start, on a clock that is right."""
    for after, energy_wh in registers:
        reading = Reading(at=NOW + after, energy_wh=energy_wh)
        before = b.apply_decision(before, record_readings(before, 1, "3", (reading,), decision_context(NOW + after)))
    return before


def report_stop(before: Snapshot, after: timedelta, meter_stop_wh: int | None, **changes: Any) -> Snapshot:
    """The snapshot after the station stopped transaction 3 so long after its start."""
    request = Stop(transaction_id="3", meter_stop_wh=meter_stop_wh, stopped_at=NOW + after, reason="Local")
    return stop(before, replace(request, **changes), decision_context(NOW + after))


def implausible_meter_snapshot(meter_stop_wh: int = 936_950) -> Snapshot:
    """A session of 20 minutes whose meter was not ready at its start."""
    before = report_registers(b.charging_snapshot(meter_start=0), (SECOND, 936_120))
    return b.apply_decision(before, report_stop(before, 20 * MINUTE, meter_stop_wh))


def without_readings_snapshot() -> Snapshot:
    """A session of 20 minutes whose meter was not ready at its start, and that was told by its stop only."""
    before = b.charging_snapshot(meter_start=0)
    return b.apply_decision(before, report_stop(before, 20 * MINUTE, 6_820_000))


def with_max_power(before: Snapshot, max_power_w: int) -> Snapshot:
    return replace(before, station=replace(before.station, max_power_w=max_power_w))


def is_held_back(after: Snapshot) -> bool:
    """Whether the bill waits for a human, and nobody captures it meanwhile."""
    held = get_reservation(after)
    owed = [outbox_item.due_at for outbox_item in after.outbox_items if outbox_item.kind is OutboxKind.CAPTURE]
    return held.money is Money.NEEDS_REVIEW and IMPLAUSIBLE in (held.review or "") and owed == [None]


@pytest.mark.note("F58")
def test_lifetime_register_after_zero_needs_review() -> None:
    """830 Wh were metered, and at 400 kW 111 Wh can have been delivered in the second before."""
    after = implausible_meter_snapshot()

    held = get_reservation(after)
    assert is_held_back(after)
    assert (S.COMPLETED, 941, 111, None) == (held.state, held.energy_wh, held.unsupported_wh, held.captured_amount)


@pytest.mark.note("F58")
def test_lifetime_register_is_billed_at_22_kw() -> None:
    """At 22 kW hardly anything can have been delivered in the second before the first reading."""
    before = with_max_power(b.charging_snapshot(meter_start=0), 22_000)

    after = report_stop(report_registers(before, (SECOND, 936_120)), 20 * MINUTE, 938_120)

    assert (2000, Money.CAPTURING) == (get_reservation(after).energy_wh, get_reservation(after).money)


@pytest.mark.note("F58")
def test_lifetime_register_at_stop_needs_review() -> None:
    assert is_held_back(report_stop(b.charging_snapshot(meter_start=0), 20 * MINUTE, 6_820_000))


@pytest.mark.note("F58")
@pytest.mark.parametrize("meter_stop_wh", [None, 0], ids=["missing", "zero"])
def test_meter_jump_is_remembered_until_stop(meter_stop_wh: int | None) -> None:
    before = report_registers(b.charging_snapshot(meter_start=0), (SECOND, 936_120))

    assert is_held_back(report_stop(before, 20 * HOUR, meter_stop_wh))


@pytest.mark.note("F58")
def test_single_high_reading_yields_to_stop() -> None:
    before = report_registers(b.charging_snapshot(meter_start=0), (SECOND, 936_120))

    after = report_stop(before, 20 * MINUTE, 8300)

    assert (8300, Money.CAPTURING) == (get_reservation(after).energy_wh, get_reservation(after).money)


@pytest.mark.note("F58")
def test_mid_session_jump_needs_review() -> None:
    before = report_registers(
        b.charging_snapshot(), (MINUTE, 2000), (2 * MINUTE, 3000), (3 * MINUTE, 900_000), (4 * MINUTE, 900_500)
    )

    assert is_held_back(report_stop(before, 10 * HOUR, 901_000))


@pytest.mark.note("F58")
def test_jump_within_one_message_needs_review() -> None:
    series = (Reading(at=NOW + MINUTE, energy_wh=2000), Reading(at=NOW + 2 * MINUTE, energy_wh=90_000))
    before = b.apply_decision(
        b.charging_snapshot(),
        record_readings(b.charging_snapshot(), 1, "3", series, decision_context(NOW + 2 * MINUTE)),
    )

    assert is_held_back(report_stop(before, 10 * HOUR, 91_000))


@pytest.mark.note("F58")
def test_jump_in_stop_readings_needs_review() -> None:
    series = (Reading(at=NOW + MINUTE, energy_wh=2000), Reading(at=NOW + 2 * MINUTE, energy_wh=90_000))

    assert is_held_back(report_stop(b.charging_snapshot(), 10 * HOUR, 91_000, readings=series))


@pytest.mark.note("F58")
@pytest.mark.parametrize(("energy_wh", "held_back"), [(6_666 + 111, False), (6_666 + 113, True)])
def test_energy_beyond_400_kw_needs_review(energy_wh: int, held_back: bool) -> None:
    after = report_stop(b.charging_snapshot(), MINUTE, 1000 + energy_wh)

    assert held_back == is_held_back(after)
    assert (Money.NEEDS_REVIEW if held_back else Money.CAPTURING) == get_reservation(after).money


@pytest.mark.note("F58")
def test_max_power_setting_moves_the_bound() -> None:
    request = Stop(transaction_id="3", meter_stop_wh=6001, stopped_at=NOW + HOUR, reason="Local")

    after = stop(b.charging_snapshot(), request, b.decision_context(NOW + HOUR, max_power_w=4_000))

    assert is_held_back(after)


@pytest.mark.note("F58")
def test_whole_kwh_steps_are_no_jump() -> None:
    before = report_registers(
        b.charging_snapshot(), (10 * MINUTE, 4000), (10 * MINUTE + SECOND, 5000), (20 * MINUTE, 8000)
    )

    assert Money.CAPTURING is get_reservation(report_stop(before, 30 * MINUTE, 9000)).money


@pytest.mark.note("F58")
def test_zero_between_readings_is_no_jump() -> None:
    before = report_registers(
        b.charging_snapshot(), (10 * MINUTE, 9000), (20 * MINUTE - SECOND, 0), (20 * MINUTE, 17_000)
    )

    assert Money.CAPTURING is get_reservation(report_stop(before, 30 * MINUTE, 20_000)).money


@pytest.mark.note("F58")
def test_batched_readings_are_no_jump() -> None:
    series = tuple(Reading(at=NOW + n * MINUTE, energy_wh=1000 + n * 1500) for n in range(1, 11))
    late = decision_context(NOW + 11 * MINUTE)
    before = b.apply_decision(b.charging_snapshot(), record_readings(b.charging_snapshot(), 1, "3", series, late))

    assert Money.CAPTURING is get_reservation(report_stop(before, 12 * MINUTE, 16_500)).money


@pytest.mark.note("F58")
@pytest.mark.parametrize("clock", [datetime(1970, 1, 1, tzinfo=NOW.tzinfo), NOW + 400 * 24 * HOUR])
def test_jump_under_implausible_clock_needs_review(clock: datetime) -> None:
    reading = Reading(at=clock, energy_wh=936_120)
    before = b.apply_decision(
        b.charging_snapshot(meter_start=0),
        record_readings(b.charging_snapshot(meter_start=0), 1, "3", (reading,), decision_context(NOW + SECOND)),
    )

    assert is_held_back(report_stop(before, 20 * MINUTE, 936_950, stopped_at=clock))


@pytest.mark.note("F58")
def test_late_reported_session_is_billed() -> None:
    """The station was away for the whole session, and its own clock says how long that was."""
    told_at = NOW + 2 * HOUR
    ready = b.start_requested_snapshot(at=told_at - MINUTE)
    request = replace(OWN_START, started_at=told_at - HOUR)
    begun, _ = start(ready, request, decision_context(told_at, serial=3))
    end = Stop(transaction_id="3", meter_stop_wh=21_000, stopped_at=told_at, reason="Local")

    after = stop(b.apply_decision(ready, begun), end, decision_context(told_at + SECOND))

    assert Money.CAPTURING is get_reservation(after).money


@pytest.mark.note("F58")
def test_jump_before_second_start_needs_review() -> None:
    jumped = report_registers(b.charging_snapshot(meter_start=0), (SECOND, 936_120))
    again, _ = start(
        jumped,
        replace(OWN_START, meter_start_wh=936_130, started_at=NOW + MINUTE),
        decision_context(NOW + MINUTE, serial=5),
    )
    before = b.apply_decision(jumped, again)

    end = Stop(transaction_id="5", meter_stop_wh=937_000, stopped_at=NOW + HOUR, reason="Local")

    assert is_held_back(stop(before, end, decision_context(NOW + HOUR)))


@pytest.mark.note("F58")
def test_implied_stop_after_jump_needs_review() -> None:
    jumped = report_registers(b.charging_snapshot(meter_start=0), (SECOND, 936_120))
    available = b.report_status(jumped, "Available", NOW + MINUTE)

    assert is_held_back(close_overdue(available, 1, decision_context(NOW + HOUR)))


@pytest.mark.note("F58")
def test_unplug_after_doubted_stop_needs_review() -> None:
    plugged = b.report_status(
        b.charging_snapshot(site=b.idle_billing_snapshot(), authorised_amount=b.IDLE_AUTHORIZED), "SuspendedEV"
    )
    waiting = b.apply_decision(plugged, report_stop(plugged, MINUTE, 900_000))

    after = b.report_status(waiting, "Available", NOW + HOUR)

    assert S.WAITING_FOR_DISCONNECT is get_reservation(waiting).state
    assert (IDLING, True) == (get_reservation(after).tariff, is_held_back(after))


def test_free_session_needs_no_review() -> None:
    before = b.charging_snapshot()
    free = replace(get_reservation(before), money=Money.NONE, authorised_amount=None)

    assert Money.NONE is get_reservation(report_stop(replace(before, reservation=free), MINUTE, 900_000)).money


@pytest.mark.note("F66")
def test_jump_below_minimum_energy_is_released() -> None:
    before = report_registers(b.charging_snapshot(meter_start=0), (SECOND, 936_120))
    cheap = replace(get_reservation(before), tariff=replace(b.TARIFF, minimum_energy_wh=2_000_000))

    assert Money.RELEASING is get_reservation(report_stop(replace(before, reservation=cheap), HOUR, 936_950)).money


@pytest.mark.note("F58")
@given(
    steps=st.lists(st.tuples(st.integers(1, 3600), st.integers(0, 60_000)), min_size=1, max_size=6),
    last=st.tuples(st.integers(1, 3600), st.integers(0, 60_000)),
)
def test_only_possible_energy_is_billed(steps: list[tuple[int, int]], last: tuple[int, int]) -> None:
    seconds, register, before = 0, 1000, b.charging_snapshot()
    for pause, rise in steps:
        seconds, register = seconds + pause, register + rise
        before = report_registers(before, (timedelta(seconds=seconds), register))
    seconds, register = seconds + last[0], register + last[1]

    held = get_reservation(report_stop(before, timedelta(seconds=seconds), register))

    most_a_step = [KW_400 * (pause + 1) // 3600 for pause, _ in (*steps, last)]
    can_be = all(rise <= most for (_, rise), most in zip((*steps, last), most_a_step, strict=True))
    assert held.energy_wh <= KW_400 * (seconds + 1) // 3600
    if can_be and len(steps) < 3:
        assert (register - 1000, Money.NEEDS_REVIEW) != (held.energy_wh, held.money)


# What a human does about it.


def test_operator_bills_corrected_energy() -> None:
    after = review.bill_energy(without_readings_snapshot(), 8300, b.decision_context())

    held = get_reservation(after)
    assert (Money.CAPTURING, 8300, 544, 544) == (held.money, held.energy_wh, held.amount, held.capture_amount)
    assert [True] == [e.due_at is not None for e in after.outbox_items if e.kind is OutboxKind.CAPTURE]


def test_operator_billing_zero_releases_hold() -> None:
    after = review.bill_energy(implausible_meter_snapshot(), 0, b.decision_context())

    assert (Money.RELEASING, [OutboxKind.RELEASE]) == (
        get_reservation(after).money,
        [e.kind for e in after.outbox_items],
    )


@pytest.mark.note("F58")
def test_retry_cannot_capture_doubted_bill() -> None:
    with pytest.raises(IllegalTransition, match="bill the right energyWh, or release"):
        review.retry_payment(implausible_meter_snapshot(), b.decision_context())


def test_refused_manual_bill_can_be_retried() -> None:
    doubted = without_readings_snapshot()
    billed = b.apply_decision(doubted, review.bill_energy(doubted, 8300, b.decision_context()))
    refused = settlement.put_off(billed, OutboxKind.CAPTURE, "no", b.decision_context(), final=True)

    after = review.retry_payment(refused, b.decision_context())

    assert (Money.CAPTURING, 544) == (get_reservation(after).money, get_reservation(after).capture_amount)


def test_refused_release_can_be_retried() -> None:
    released = b.apply_decision(
        implausible_meter_snapshot(), review.release_payment(implausible_meter_snapshot(), b.decision_context())
    )
    refused = settlement.put_off(released, OutboxKind.RELEASE, "no", b.decision_context(), final=True)

    assert Money.RELEASING is get_reservation(review.retry_payment(refused, b.decision_context())).money


@pytest.mark.parametrize("what", ["released here", "released at the provider's"])
def test_released_bill_shows_zero_amount(what: str) -> None:
    before = implausible_meter_snapshot()

    here = what == "released here"
    after = (
        review.release_payment(before, b.decision_context())
        if here
        else review.settle_by_hand(before, 0, b.decision_context())
    )

    shown = views.reservation(get_reservation(after), now=NOW)
    assert (0, None, True) == (shown["amount"], shown.get("cut"), shown["meterDoubted"])


def test_manual_bill_cannot_exceed_possible_energy() -> None:
    """20 minutes of 400 kW, whatever the meter showed."""
    doubted = without_readings_snapshot()

    with pytest.raises(IllegalTransition, match="energyWh must be at most 133333,"):
        review.bill_energy(doubted, 133_334, b.decision_context())

    billed = get_reservation(review.bill_energy(doubted, 133_333, b.decision_context()))
    assert (Money.CAPTURING, 133_333, AUTHORIZED) == (billed.money, billed.energy_wh, billed.amount)


def test_manual_bill_cannot_exceed_first_bill() -> None:
    small = report_stop(b.charging_snapshot(), SECOND, 3000)

    with pytest.raises(IllegalTransition, match="energyWh"):
        review.bill_energy(b.apply_decision(b.charging_snapshot(), small), 3000, b.decision_context())


def test_manual_bill_without_bill_is_illegal() -> None:
    releasing = b.failed_snapshot()
    refused = settlement.put_off(releasing, OutboxKind.RELEASE, "no", b.decision_context(), final=True)

    with pytest.raises(IllegalTransition, match="no bill that waits"):
        review.bill_energy(b.apply_decision(releasing, refused), 100, b.decision_context())


@pytest.mark.note("F55")
def test_late_stop_lowers_bill_under_review() -> None:
    jumped = report_registers(b.charging_snapshot(meter_start=0), (SECOND, 936_120))
    implied = b.apply_decision(
        jumped, close_overdue(b.report_status(jumped, "Available", NOW + MINUTE), 1, decision_context(NOW + HOUR))
    )

    after = settlement.correct_bill(implied, 5000, b.decision_context())

    held = get_reservation(after)
    assert (Money.NEEDS_REVIEW, held.amount) == (held.money, held.capture_amount)
    assert held.amount is not None
    assert held.amount < AUTHORIZED


@pytest.mark.parametrize(
    ("held", "reported"),
    [
        (lambda: get_reservation(implausible_meter_snapshot()), True),
        (
            lambda: get_reservation(review.bill_energy(without_readings_snapshot(), 8300, b.decision_context())),
            None,
        ),
        (lambda: replace(get_reservation(b.completed_snapshot()), money=Money.NEEDS_REVIEW), None),
    ],
    ids=["checked", "billed by hand", "refused by the provider"],
)
def test_driver_sees_doubt_only_for_meter_review(held: Any, reported: bool | None) -> None:
    shown: Reservation = held()

    assert reported == views.reservation(shown, now=NOW).get("meterDoubted")


@pytest.mark.parametrize(
    ("register", "reported"), [(936_120, (True, None)), (100, (None, None))], ids=["jumped", "not"]
)
def test_driver_sees_jump_while_charging(register: int, reported: tuple[bool | None, int | None]) -> None:
    charging = report_registers(b.charging_snapshot(meter_start=0), (SECOND, register))

    shown = views.reservation(get_reservation(charging), running=charging.connector(1).transaction, now=NOW)

    assert reported == (shown.get("meterDoubted"), shown.get("cut"))


def test_waiting_session_shows_meter_doubt() -> None:
    plugged = b.report_status(
        b.charging_snapshot(site=b.idle_billing_snapshot(), authorised_amount=b.IDLE_AUTHORIZED), "SuspendedEV"
    )

    waiting = get_reservation(report_stop(plugged, MINUTE, 900_000))

    shown = views.reservation(waiting, now=NOW + MINUTE)
    assert (S.WAITING_FOR_DISCONNECT, True, None) == (shown["status"], shown["meterDoubted"], shown.get("cut"))
