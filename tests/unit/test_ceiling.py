"""Energy is cut off remotely before more is delivered than was authorized (note F65)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from csms.charging.transaction import Start, record_readings, start
from csms.model import CommandKind, IdTag, IdToken, Snapshot, TagStatus, Tariff
from tests import builders as b
from tests.builders import MINUTE, NOW, apply_decision, decision_context


def report_meter(
    before: Snapshot, energy_wh: int, *, number: str = "3", serial: int = 9, margin: int = 300
) -> Snapshot:
    """The snapshot after connector 1 told that so much was delivered since the start."""
    reading = b.reading(before.connector(1), energy_wh)
    after = record_readings(
        before, 1, number, (reading,), decision_context(NOW + MINUTE, serial=serial, stop_margin_wh=margin)
    )
    return apply_decision(before, after)


def count_remote_stops(seen: Snapshot) -> int:
    """How many times the station is being told to stop."""
    return sum(call.kind is CommandKind.REMOTE_STOP for call in seen.calls)


@pytest.mark.note("F65")
@pytest.mark.parametrize(
    ("readings", "asked"),
    [
        ([10_000], 0),
        ([14_999], 0),
        ([15_000], 1),
        ([14_999, 29_699], 1),
        ([14_999, 22_000, 22_999], 0),
        ([14_000, 28_000, 29_500, 29_699], 0),
        ([14_000, 28_000, 29_500, 29_700], 1),
        ([14_000, 28_000, 31_000], 1),
    ],
    ids=[
        "far away",
        "the next reading just fits",
        "the next reading would not fit",
        "this fast it would not",
        "slower by now",
        "slow, and before the margin",
        "slow, and at the margin",
        "beyond it already",
    ],
)
def test_remote_stop_sent_before_exceeding_ceiling(readings: list[int], asked: int) -> None:
    seen = b.charging_snapshot()
    for energy_wh in readings[:-1]:
        seen = replace(report_meter(seen, energy_wh), calls=())

    after = report_meter(seen, readings[-1])

    assert asked == count_remote_stops(after)


@pytest.mark.note("F65")
def test_remote_stop_repeats_only_after_answer() -> None:
    once = report_meter(b.charging_snapshot(), 29_900)
    twice = report_meter(once, 29_950, serial=10)
    (call,) = [call for call in twice.calls if call.kind is CommandKind.REMOTE_STOP]
    answered = apply_decision(twice, b.answer_call(twice, call, "Accepted", decision_context(serial=11)))

    assert (1, 1) == (count_remote_stops(once), count_remote_stops(twice))
    assert 0 == count_remote_stops(answered)
    assert 1 == count_remote_stops(report_meter(answered, 29_990, serial=12))


@pytest.mark.note("F65")
@pytest.mark.parametrize(
    ("tariff", "ceiling"),
    [
        (b.TARIFF, 30_000),
        (replace(b.TARIFF, max_amount=645), 10_008),
        (b.IDLING, 30_000),
    ],
    ids=["the maximum energy", "what the maximum amount pays for", "idle time is kept back"],
)
def test_ceiling_is_energy_covered_by_authorization(tariff: Tariff, ceiling: int) -> None:
    site = b.snapshot(station=b.station(tariff=tariff))
    running = b.charging_snapshot(site=site).connector(1).transaction

    assert running is not None
    assert ceiling == running.stop_at_wh


@pytest.mark.note("F65")
def test_earlier_start_energy_counts_toward_ceiling() -> None:
    before = report_meter(b.charging_snapshot(), 12_000)
    again = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=13_000, started_at=NOW + MINUTE)

    after, _ = start(before, again, decision_context(NOW + MINUTE, serial=5))

    running = after.connector(1).transaction
    assert running is not None
    assert 18_000 == running.stop_at_wh


@pytest.mark.note("F65")
def test_ceiling_limits_free_not_rfid_sessions() -> None:
    free = b.snapshot(station=b.station(free=True, tariff=replace(b.TARIFF, energy_price=Decimal(40))))
    created = b.owed_checkout_snapshot(free)
    after, _ = start(
        created,
        Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=0, started_at=NOW),
        decision_context(serial=3),
    )
    own, _ = start(
        replace(b.snapshot(), tag=IdTag(tag="CARD", status=TagStatus.ACCEPTED)),
        Start(connector_id=1, id_token=IdToken(value="CARD"), meter_start_wh=0, started_at=NOW),
        decision_context(serial=3),
    )

    assert 30_000 == getattr(after.connector(1).transaction, "stop_at_wh", 0)
    assert getattr(own.connector(1).transaction, "stop_at_wh", 0) is None
    assert 0 == count_remote_stops(report_meter(apply_decision(b.snapshot(), own), 500_000))
