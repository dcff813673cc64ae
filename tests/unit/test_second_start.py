"""A start where a transaction is open already: what is superseded, and what is billed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csms.charging.transaction import Start, Stop, record_readings, start, stop
from csms.model import IdToken, Money, ReservationState, TagStatus
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, apply_decision, decision_context, get_reservation
from tests.unit.transaction_cases import CARD, MINE, card, reading


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
    assert (ReservationState.CHARGING, "5", Money.AUTHORIZED) == (held.state, held.transaction_id, held.money)
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


@pytest.mark.note("F57")
def test_unmetered_energy_is_not_carried() -> None:
    again = replace(MINE, started_at=NOW + MINUTE, meter_start_wh=9000)

    restarted, _ = start(b.charging_snapshot(meter_start=1000), again, decision_context(NOW + MINUTE, serial=9))

    assert 0 == get_reservation(restarted).carried_wh
