"""Which sample of a MeterValue counts, if there are several of one measurand (note F58)."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from csms.ocpp.v16.values import read_meter
from tests.builders import decision_context

NOW = {"value": "240000", "context": "Sample.Periodic"}
BEGIN = {"value": "235800", "context": "Transaction.Begin"}
INLET = {"value": "990000", "location": "Inlet"}
CAR = {"value": "239000", "location": "EV"}
VOLTAGE = {"value": "230", "measurand": "Voltage"}


def read_energy(*samples: dict[str, Any]) -> int | None:
    (reading,) = read_meter([{"timestamp": "2026-03-01T12:00:00Z", "sampledValue": list(samples)}], decision_context())
    return reading.energy_wh


@pytest.mark.note("F58")
@pytest.mark.parametrize("samples", list(permutations((NOW, BEGIN, INLET, CAR, VOLTAGE), 3)))
def test_present_register_at_outlet_counts(samples: tuple[dict[str, Any], ...]) -> None:
    by_rank = ((NOW, 240000), (CAR, 239000), (INLET, 990000), (BEGIN, 235800))
    energy = read_energy(*samples)

    if NOW in samples:
        assert 240000 == energy
    elif CAR in samples or INLET in samples:
        assert energy in {value for sample, value in by_rank[1:3] if sample in samples}
    else:
        assert 235800 == energy


@pytest.mark.note("F58")
def test_start_register_counts_where_it_is_alone() -> None:
    assert 235800 == read_energy(BEGIN)


@pytest.mark.note("F58")
def test_phases_are_summed_within_one_context() -> None:
    phases = [{"value": "100", "phase": name} for name in ("L1", "L2", "L3")]
    at_start = [{**phase, "value": "7", "context": "Transaction.Begin"} for phase in phases]

    assert 300 == read_energy(*at_start, *phases)


@pytest.mark.note("F58")
def test_later_sample_of_same_rank_counts() -> None:
    assert 240001 == read_energy(NOW, {**NOW, "value": "240001"})
