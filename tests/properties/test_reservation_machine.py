"""No sequence of actions by drivers, chargers, providers, operators and the clock, repeated or interrupted by crashes,
breaks the invariants of reservations.

The machine (`tests.machine.reservation`) runs the product's own decisions over a store in memory that commits as the
real one does. The invariants are in `MemoryWorld` (what a commit may change) and in `ReservationLaws` (what may exist).
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.documented import LeftoverKind
from tests.machine.reservation import ReservationMachine

MINIMUM_MET: Final = 10


@pytest.mark.note("F09", "F26", "F27", "F30", "F51", "F63", "F65")
def test_reservation_laws_hold_and_connectors_recover() -> None:
    ReservationMachine.met.clear()

    run_state_machine_as_test(
        ReservationMachine, settings=settings(max_examples=2000, stateful_step_count=40, deadline=None)
    )

    seldom = {left: times for left in LeftoverKind if (times := ReservationMachine.met[left]) < MINIMUM_MET}
    assert {} == seldom, "a machine that does not meet what it judges has gone blind"
