"""The laws of the service machine hold at a station that tells its starts late, has no clock, floods, or has neighbors
who plug in (`tests.machine.strangers`)."""

from __future__ import annotations

from functools import cache
from typing import Final

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from csms.stations import credentials
from tests.conftest import Engines
from tests.machine.line import ENGINE, FaultyDynamoDb
from tests.machine.strangers import CLOCKLESS, FLOOD, NEIGHBOR, TOLD_LATE, StrangeMachine

SEQUENCES: Final = 60
MINIMUM_MET: Final = 3


@pytest.mark.note("F11", "F30", "F33")
def test_laws_hold_at_strange_stations(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    # Password verification is slow on purpose, and its result is always the same here.
    monkeypatch.setattr(credentials, "verify_password", cache(credentials.verify_password))
    line = FaultyDynamoDb(engines(ENGINE).endpoint)
    examples = settings(max_examples=SEQUENCES, stateful_step_count=15, deadline=None, database=None, print_blob=True)
    StrangeMachine.settled = 0
    StrangeMachine.met.clear()

    run_state_machine_as_test(lambda: StrangeMachine(line), settings=examples)

    met = {what: StrangeMachine.met[what] for what in (TOLD_LATE, CLOCKLESS, NEIGHBOR, FLOOD)}
    assert min(met.values()) >= MINIMUM_MET, f"a machine that does not meet what it judges has gone blind: {met}"
    assert StrangeMachine.settled >= SEQUENCES // 2
