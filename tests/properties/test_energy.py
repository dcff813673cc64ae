"""What is billed for sessions that stations tell wrongly, and what stands before a person (note F58)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.charging import energy
from csms.charging.energy import JITTER_WH, Evidence, Explanation, Limits, Observation
from tests import pathologies as p
from tests.pathologies import BEGUN, Session

pytestmark = pytest.mark.note("F58")

SESSIONS: Final = 60
Fault = Callable[[Random, Session], Session]

SHARES: Final[dict[Fault, tuple[float, float]]] = {
    p.tell_truly: (0, 0),
    p.count_whole_kwh: (0, 0),
    p.count_readings_from_0: (0, 0),
    p.count_readings_and_stop_from_0: (0, 0),
    p.glitch_to_0: (0, 0),
    p.stop_at_0: (0, 0),
    p.stop_without_meter: (0, 0),
    p.glitch_up: (0, 0.15),
    p.glitch_up_twice: (0, 0.15),
    p.glitch_to_0_for_a_while: (0, 0.2),
    p.start_before_meter_is_ready: (0.1, 0.5),
    p.change_to_session_register: (0.1, 0.5),
    p.restart_from_0: (0.2, 0.6),
    p.glitch_at_stop: (0.4, 0.85),
    p.stop_below_readings: (0.4, 0.85),
    p.change_to_lifetime_register: (0.6, 0.95),
    p.small_glitch_at_stop: (0.8, 1),
    p.start_before_meter_is_ready_without_readings: (1, 1),
    p.tell_garbage: (0.95, 1),
}
"""The share of the sessions with a fault that stands before a person. Where the register changes or the stop is wrong,
nothing has metered the energy of one interval: this is billed without it only if it is less than 1 % of the session."""

INCOMPLETE: Final = frozenset({p.stop_at_0, p.stop_without_meter})
"""Here the last reading is billed: what was delivered after it is given away (note F55)."""


@pytest.mark.parametrize("fault", SHARES, ids=lambda fault: fault.__name__)
def test_faulty_session_is_billed_or_reviewed(fault: Fault) -> None:
    least, most = SHARES[fault]
    reviewed = 0
    for seed in range(SESSIONS):
        random = Random(seed)  # noqa: S311 - no secret
        session = fault(random, p.draw_session(random))
        judged = p.tell(session)
        tolerated = max(JITTER_WH, session.delivered_wh // 100)
        possible = energy.deliverable_wh((session.duration + 2) * 1000, session.max_power_w)
        assert judged.lowest_wh <= (possible if session.knows_power else session.delivered_wh + tolerated), seed
        if judged.doubt is not None:
            reviewed += 1
        elif fault in INCOMPLETE:
            last_wh = session.readings[-1].register_wh - session.meter_start
            assert last_wh - tolerated <= judged.lowest_wh <= session.delivered_wh, seed
        elif fault is p.count_whole_kwh:
            assert -1000 <= judged.lowest_wh - session.delivered_wh <= 0, seed
        else:
            assert abs(judged.lowest_wh - session.delivered_wh) <= tolerated, seed

    assert least <= reviewed / SESSIONS <= most


ANY_REGISTER = st.one_of(st.integers(0, 50_000), st.integers(0, 10**12))
VALUES = st.lists(
    st.tuples(st.integers(0, 4_000), ANY_REGISTER, st.one_of(st.none(), st.integers(0, 50_000))), max_size=12
)
LIMITS = Limits(22_000, 25)
LENGTHS = (len(fields(Evidence)) - 1, *[len(fields(Explanation))] * energy.MOST_EXPLANATIONS)


def follow_values(start_wh: int, values: list[tuple[int, int, int | None]]) -> tuple[Evidence, int]:
    """The evidence after values that came so many seconds after each other, and the time of the last."""
    evidence, at = energy.begin(start_wh, BEGUN, BEGUN), BEGUN
    for seconds, register_wh, power_w in values:
        at += seconds * 1000
        evidence = energy.follow(evidence, [Observation(register_wh, at, at, power_w)], LIMITS)
    return evidence, at


@given(ANY_REGISTER, VALUES)
def test_lowest_energy_is_possible(start_wh: int, values: list[tuple[int, int, int | None]]) -> None:
    evidence, at = follow_values(start_wh, values)

    judged = energy.judge(evidence, LIMITS, at=at, heard_at=at)

    possible = energy.deliverable_wh(at - BEGUN + 1000, LIMITS.max_power_w)
    assert 0 <= judged.lowest_wh <= judged.highest_wh <= possible


@given(ANY_REGISTER, VALUES)
def test_evidence_survives_storage(start_wh: int, values: list[tuple[int, int, int | None]]) -> None:
    evidence, _ = follow_values(start_wh, values)

    text = energy.dump(evidence)

    assert evidence == energy.load(text)
    assert text.count(";") <= energy.MOST_EXPLANATIONS


@given(ANY_REGISTER, VALUES)
def test_evidence_of_newer_release_is_read(start_wh: int, values: list[tuple[int, int, int | None]]) -> None:
    """A newer release has one more field in each row."""
    evidence, _ = follow_values(start_wh, values)
    rows = [row.split(",") for row in energy.dump(evidence).split(";")]
    own, *explained = ([*row, *[""] * (length - len(row)), "7"] for row, length in zip(rows, LENGTHS, strict=False))

    assert evidence == energy.load(";".join(map(",".join, [own, *explained])))


@given(ANY_REGISTER, VALUES, st.integers(0, 10**9))
def test_energy_depends_on_differences_only(
    start_wh: int, values: list[tuple[int, int, int | None]], moved_wh: int
) -> None:
    """A meter that has counted more before tells the same, unless a value may be one that counts from 0."""
    rising = sorted(register_wh for _, register_wh, _ in values)
    steady = [(seconds, start_wh + wh, power) for (seconds, _, power), wh in zip(values, rising, strict=True)]
    moved = [(seconds, register_wh + moved_wh * 1000, power) for seconds, register_wh, power in steady]

    here, at = follow_values(start_wh, steady)
    there, _ = follow_values(start_wh + moved_wh * 1000, moved)

    def judge(evidence: Evidence) -> energy.Judgement:
        return energy.judge(evidence, LIMITS, at=at, heard_at=at)

    assert judge(here) == judge(there)


@given(st.integers(0, 10**9), st.lists(st.tuples(st.integers(10, 900), st.floats(0, 1)), min_size=1, max_size=30))
def test_possible_rising_series_is_billed(start_wh: int, steps: list[tuple[int, float]]) -> None:
    """What a register shows that rises as fast as the charger can deliver, and no faster."""
    values, delivered = list[tuple[int, int, int | None]](), 0.0
    for seconds, load in steps:
        delivered += load * seconds * LIMITS.max_power_w / 3600
        values.append((seconds, start_wh + int(delivered), None))
    evidence, at = follow_values(start_wh, values)

    judged = energy.judge(evidence, LIMITS, at=at, heard_at=at)

    assert (int(delivered), None) == (judged.lowest_wh, judged.doubt)


def test_told_again_history_changes_nothing() -> None:
    random = Random(3)  # noqa: S311 - no secret
    session = p.draw_session(random)
    again = replace(session, readings=(*session.readings, *session.readings[:-1]))

    assert p.tell(session) == p.tell(again)
