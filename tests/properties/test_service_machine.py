"""No sequence of actions, crashes, races and lost messages breaks the invariants, and afterwards everything ends by
itself in the documented time.

The machine (`tests.machine.service`) drives the real service over the real store on a real engine, with a fresh table
for each example. Sockets and the payment provider are fakes, and the clock is the machine's. The invariants are in
`tests.invariants` and in `tests.machine.world`.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from csms.stations import credentials
from tests.conftest import Engines
from tests.documented import LeftoverKind
from tests.machine.chargers import TOLD_WRONGLY, WENT_ON
from tests.machine.line import ENGINE, FaultyDynamoDb
from tests.machine.service import ServiceMachine
from tests.machine.station import LOST_START, PAID_AWAY

MINIMUM_MET: Final = 10


@pytest.mark.note("F09", "F26", "F27", "F30", "F51", "F63", "F65")
def test_service_laws_hold_and_everything_ends(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    # Password verification is slow on purpose, and its result is always the same here.
    monkeypatch.setattr(credentials, "verify_password", cache(credentials.verify_password))
    line = FaultyDynamoDb(engines(ENGINE).endpoint)
    examples = settings(
        max_examples=200,
        stateful_step_count=30,
        deadline=None,
        database=None,
        print_blob=True,
    )
    ServiceMachine.settled = 0
    ServiceMachine.met.clear()

    run_state_machine_as_test(lambda: ServiceMachine(line), settings=examples)

    seldom = {
        left: times
        for left in (*LeftoverKind, PAID_AWAY, LOST_START, TOLD_WRONGLY, WENT_ON)
        if (times := ServiceMachine.met[left]) < MINIMUM_MET
    }
    assert {} == seldom, "a machine that does not meet what it judges has gone blind"
    assert ServiceMachine.settled >= examples.max_examples // 2
