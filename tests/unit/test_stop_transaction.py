"""What a stop closes, bills and frees, and which stops are put aside."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from csms.charging.transaction import record_readings, stop
from csms.model import IdToken, Money, Reading, ReservationState, TimelineEntry
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, apply_decision, decision_context, get_reservation
from tests.unit.transaction_cases import END, reading


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
@pytest.mark.parametrize("meter_stop", [0, None, 999, 2500, -7], ids=["0", "missing", "reset", "too low", "negative"])
def test_untrusted_stop_meter_yields_best_sample(meter_stop: int | None) -> None:
    series = tuple(Reading(at=NOW + n * MINUTE, energy_wh=1000 + n * 2000) for n in range(1, 5))
    ended = decision_context(NOW + 4 * MINUTE)
    before = record_readings(b.charging_snapshot(), 1, "3", series, ended)

    after = stop(before, replace(END, meter_stop_wh=meter_stop, stopped_at=ended.now), ended)

    closed = after.transactions["3"]
    assert (8000, meter_stop, ("MeterStopNotTrusted",)) == (closed.energy_wh, closed.meter_stop_wh, closed.flags)
    assert 8000 == get_reservation(after).energy_wh


@pytest.mark.note("F58")
def test_readings_within_stop_are_counted() -> None:
    after = stop(b.charging_snapshot(), replace(END, meter_stop_wh=0, readings=(reading(6000),)), decision_context())

    assert 5000 == after.transactions["3"].energy_wh


@pytest.mark.note("F58")
def test_stop_equal_to_last_reading_is_trusted() -> None:
    before = record_readings(b.charging_snapshot(), 1, "3", (reading(11_000),), decision_context())

    closed = stop(before, END, decision_context()).transactions["3"]

    assert (10_000, ()) == (closed.energy_wh, closed.flags)


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
