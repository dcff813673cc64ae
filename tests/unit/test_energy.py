"""What stations with faulty meters lead to: what the driver sees, when a session is stopped, and what is billed in the
end (note F58)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from csms.charging import checkout
from csms.charging.review import BILLED_AT_LOWEST
from csms.charging.settlement import IMPLAUSIBLE
from csms.charging.transaction import Start, Stop, close_overdue, record_readings, start, stop
from csms.model import CommandKind, IdToken, Money, OpenTransaction, OutboxKind, Policy, Reading, Reservation, Snapshot
from csms.ocpp.v16 import core
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, get_reservation

pytestmark = pytest.mark.note("F58")
ENERGY = "Energy.Active.Import.Register"
ACCEPTED_KW = Policy().max_power_w
STOP_AT = 29_000
"""The hold of the tests' reservation pays for this much energy above its start, in Wh."""


def decision_context(now: datetime, serial: int = 9) -> Any:
    return b.decision_context(now, serial=serial, max_power_w=ACCEPTED_KW, power_tolerance_percent=25)


def report(before: Snapshot, after: timedelta, register_wh: int, power_w: int | None = None) -> Snapshot:
    """The snapshot after a reading so long after the start."""
    seen = Reading(at=NOW + after, energy_wh=register_wh, power_w=power_w)
    return b.apply_decision(before, record_readings(before, 1, "3", (seen,), decision_context(NOW + after)))


def report_stop(before: Snapshot, after: timedelta, meter_stop_wh: int | None) -> Snapshot:
    request = Stop(transaction_id="3", meter_stop_wh=meter_stop_wh, stopped_at=NOW + after, reason="Local")
    return b.apply_decision(before, stop(before, request, decision_context(NOW + after)))


def get_running(of: Snapshot) -> OpenTransaction:
    running = of.connector(1).transaction
    assert running is not None
    return running


def is_asked_to_stop(of: Snapshot) -> bool:
    return any(call.kind is CommandKind.REMOTE_STOP for call in of.calls)


def doubted_snapshot() -> Snapshot:
    """A session of 10 minutes under review: its meter jumped by far more than the hold pays for."""
    before = report(report(b.charging_snapshot(), MINUTE, 3000), 2 * MINUTE, 5000)
    before = report(before, 3 * MINUTE, 905_000)
    return report_stop(before, 10 * MINUTE, 908_000)


def test_repeated_start_register_does_not_count() -> None:
    """Growatt: each message has the present register, then that of the start."""
    seen = b.charging_snapshot(meter_start=235_800)
    for n, register in enumerate(("245000", "257000", "263000"), 1):
        at = NOW + n * HOUR
        samples = [
            {"value": register, "context": "Sample.Periodic"},
            {"value": "235800", "context": "Transaction.Begin"},
        ]
        payload = {
            "connectorId": 1,
            "transactionId": 3,
            "meterValue": [{"timestamp": at.isoformat(), "sampledValue": samples}],
        }
        seen = b.apply_decision(seen, core.meter_values(seen, payload, decision_context(at))[0])

    assert (27_200, True) == (get_running(seen).energy_wh, is_asked_to_stop(seen))


def test_first_lifetime_register_does_not_stop_session() -> None:
    """FoxESS, Alfen: meterStart 0, because the meter was not ready."""
    seen = report(b.charging_snapshot(meter_start=0), SECOND, 936_120)

    assert (0, False) == (get_running(seen).energy_wh, is_asked_to_stop(seen))
    assert (0, False) == (get_running(report(seen, MINUTE, 936_200)).energy_wh // 100, is_asked_to_stop(seen))


def test_readings_from_0_reach_ceiling() -> None:
    """MicroOcpp: start and stop are the lifetime register, and the readings count the session."""
    seen = b.charging_snapshot(meter_start=235_800)
    for n in range(1, 8):
        seen = report(seen, n * HOUR, n * 4000)

    assert (28_000, True) == (get_running(seen).energy_wh, is_asked_to_stop(seen))
    assert (28_500, Money.CAPTURING) == (
        get_reservation(report_stop(seen, 7 * HOUR + MINUTE, 264_300)).energy_wh,
        get_reservation(report_stop(seen, 7 * HOUR + MINUTE, 264_300)).money,
    )


def test_session_register_that_begins_again_is_carried() -> None:
    """The station reboots and tells its start again, with a register of 0."""
    seen = report(report(b.charging_snapshot(meter_start=0), HOUR, 3000), 2 * HOUR, 4000)
    again = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=0, started_at=NOW + 2 * HOUR + MINUTE)

    after, _ = start(seen, again, decision_context(NOW + 2 * HOUR + MINUTE, serial=7))

    assert 4000 == get_reservation(after).carried_wh


def test_start_told_again_counts_energy_once() -> None:
    """The station resumes its session: it tells the old start again, and goes on from where the register was."""
    begun = b.charging_snapshot()
    at_22_kw = replace(begun, station=replace(begun.station, max_power_w=22_000))
    seen = report(report(at_22_kw, HOUR, 3000), 2 * HOUR, 5000)
    again = Start(
        connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=1000, started_at=NOW + 2 * HOUR + MINUTE
    )
    resumed, _ = start(seen, again, decision_context(NOW + 2 * HOUR + MINUTE, serial=7))
    before = b.apply_decision(seen, resumed)

    ended = NOW + 2 * HOUR + 2 * MINUTE
    request = Stop(transaction_id="7", meter_stop_wh=5100, stopped_at=ended, reason="Local")
    held = get_reservation(stop(before, request, decision_context(ended)))

    assert (4100, Money.CAPTURING) == (held.energy_wh, held.money)


def test_retold_readings_without_time_do_not_count() -> None:
    """A stop repeats the readings of its session, under a clock in 1970."""
    seen = b.charging_snapshot()
    for n in range(1, 5):
        seen = report(seen, n * HOUR, 1000 + n * 2000)
    epoch = datetime(1970, 1, 1, tzinfo=NOW.tzinfo)
    retold = tuple(Reading(at=epoch, energy_wh=1000 + n * 2000) for n in range(5))
    request = Stop(transaction_id="3", meter_stop_wh=9000, stopped_at=epoch, reason="Local", readings=retold)

    held = get_reservation(stop(seen, request, decision_context(NOW + 4 * HOUR + SECOND)))

    assert (8000, Money.CAPTURING) == (held.energy_wh, held.money)


def test_energy_beyond_measured_power_needs_review() -> None:
    """Three readings of 4 kW, and a rise of 20 kWh in the last half hour."""
    seen = b.charging_snapshot()
    for n in range(1, 4):
        seen = report(seen, n * 30 * MINUTE, 1000 + n * 2000, 4000)

    assert Money.NEEDS_REVIEW is get_reservation(report_stop(seen, 2 * HOUR, 27_000)).money
    assert Money.CAPTURING is get_reservation(report_stop(seen, 2 * HOUR, 9000)).money


def test_one_power_sample_bounds_nothing() -> None:
    seen = report(report(b.charging_snapshot(), 30 * MINUTE, 1000, 4000), HOUR, 12_000)

    assert Money.CAPTURING is get_reservation(report_stop(seen, 2 * HOUR, 27_000)).money


def test_power_without_charging_bounds_nothing() -> None:
    """The car took nothing when its power was measured, and charged in between."""
    seen = report(report(b.charging_snapshot(), 30 * MINUTE, 1000, 40), HOUR, 1000, 60)

    assert Money.CAPTURING is get_reservation(report_stop(seen, 2 * HOUR, 12_000)).money


def test_person_may_bill_energy_after_last_value() -> None:
    """The register jumps a second after the start, and the stop 20 minutes later has no value."""
    held = get_reservation(report_stop(report(b.charging_snapshot(), SECOND, 936_120), 20 * MINUTE, None))

    assert (Money.NEEDS_REVIEW, 133_333) == (held.money, held.energy_wh)


def test_doubt_that_may_exceed_hold_ends_session() -> None:
    """The register changed an hour ago: up to 50 kWh may have been delivered meanwhile."""
    seen = b.charging_snapshot(meter_start=0)
    for n in range(1, 4):
        seen = report(seen, n * 10 * MINUTE, n * 5000)
    assert not is_asked_to_stop(seen)

    for n in range(1, 4):
        seen = report(seen, 90 * MINUTE + n * MINUTE, 936_000 + n * 10)

    assert (True, True) == (get_running(seen).doubted, is_asked_to_stop(seen))


def test_late_stop_below_series_is_put_aside() -> None:
    seen = b.charging_snapshot()
    for n in range(1, 4):
        seen = report(seen, n * HOUR, 1000 + n * 2000)
    gone = b.report_status(seen, "Available", NOW + 3 * HOUR)
    ended = b.apply_decision(gone, close_overdue(gone, 1, decision_context(NOW + 4 * HOUR)))

    after = report_stop(ended, 3 * HOUR + MINUTE, 2000)

    assert (6000, 6000) == (get_reservation(ended).energy_wh, get_reservation(after).energy_wh)


def test_late_stop_in_doubt_is_put_aside() -> None:
    """The register changed in the first hour, of which nothing is known; the late stop only goes on from there."""
    seen = report(report(b.charging_snapshot(meter_start=0), HOUR, 936_120), 2 * HOUR, 938_000)
    gone = b.report_status(seen, "Available", NOW + 2 * HOUR)
    ended = b.apply_decision(gone, close_overdue(gone, 1, decision_context(NOW + 3 * HOUR)))

    after = report_stop(ended, 2 * HOUR + MINUTE, 938_100)

    assert Money.NEEDS_REVIEW is get_reservation(ended).money
    assert get_reservation(ended).energy_wh == get_reservation(after).energy_wh


def test_transaction_of_older_release_goes_on() -> None:
    """Release 0.4.0 kept no evidence of the running transaction but its energy."""
    seen = report(b.charging_snapshot(), HOUR, 5000)
    bare = replace(get_running(seen), evidence="")
    before = seen.with_connector(replace(seen.connector(1), transaction=bare))

    after = report(before, 2 * HOUR, 8000)

    assert (7000, False) == (get_running(after).energy_wh, get_running(after).doubted)


def test_doubted_transaction_of_older_release_stays_doubted() -> None:
    seen = report(b.charging_snapshot(), HOUR, 5000)
    bare = replace(get_running(seen), evidence="", kept={"jumped": True})
    before = seen.with_connector(replace(seen.connector(1), transaction=bare))

    assert Money.NEEDS_REVIEW is get_reservation(report_stop(before, 2 * HOUR, 8000)).money


# The end of a doubt.


def expire(before: Snapshot, at: datetime) -> Reservation:
    return get_reservation(checkout.expire(before, decision_context(at)))


@pytest.mark.note("F69")
def test_undecided_doubt_is_billed_at_lowest() -> None:
    """The register shows 4000 Wh, changes to another one, and shows 3000 Wh more."""
    before = doubted_snapshot()
    held = get_reservation(before)
    assert (Money.NEEDS_REVIEW, 7000) == (held.money, held.energy_wh - held.unsupported_wh)
    assert held.decide_by is not None
    assert (held.settle_by, held.due_at) == (held.decide_by, held.decide_by)

    after = checkout.expire(before, decision_context(held.decide_by + SECOND))

    billed = get_reservation(after)
    assert before.reservation == expire(before, held.decide_by)
    assert (Money.CAPTURING, 7000, 467) == (billed.money, billed.energy_wh, billed.capture_amount)
    assert (True, None) == (BILLED_AT_LOWEST in billed.flags, billed.decide_by)
    assert [(OutboxKind.CAPTURE, True)] == [(item.kind, item.due_at is not None) for item in after.outbox_items]


@pytest.mark.note("F69")
def test_undecided_doubt_without_support_is_released() -> None:
    before = report_stop(b.charging_snapshot(meter_start=0), 20 * MINUTE, 6_820_000)
    decide_by = get_reservation(before).decide_by
    assert decide_by is not None

    released = expire(before, decide_by + SECOND)

    assert (Money.RELEASING, 0, 0) == (released.money, released.amount, released.energy_wh)


@pytest.mark.note("F69")
def test_decided_doubt_is_left_alone() -> None:
    before = doubted_snapshot()
    decide_by = get_reservation(before).decide_by
    assert decide_by is not None
    decided = replace(
        before, outbox_items=tuple(replace(item, kind=OutboxKind.RELEASE) for item in before.outbox_items)
    )

    after = expire(decided, decide_by + SECOND)

    assert replace(get_reservation(decided), decide_by=None) == replace(after, version=get_reservation(decided).version)


def test_doubt_says_what_is_supported_and_possible() -> None:
    held = get_reservation(doubted_snapshot())

    assert held.review is not None
    assert held.review.startswith(f"{IMPLAUSIBLE}: the meter values support 7000 Wh, and up to {held.energy_wh} Wh")
