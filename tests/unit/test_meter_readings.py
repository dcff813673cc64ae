"""Which transaction a reading belongs to, and what energy it comes to."""

from __future__ import annotations

import pytest

from csms.charging.transaction import record_readings
from csms.model import MeterSample, Reading
from csms.ocpp.v16.values import read_transaction_id
from tests import builders as b
from tests.builders import NOW, SECOND, decision_context
from tests.unit.transaction_cases import reading


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
