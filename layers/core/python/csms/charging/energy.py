"""How much energy a transaction has delivered, judged by all of its register values together (note F58).

Registers err in known ways. A value is far off for a moment; the register starts again at 0; the station changes
between a register of the meter's lifetime and one of the session; the start was told before the meter was ready. So
each value can be read in several ways: it continues the register, or it is the first value of another register, or it
is wrong. An `Explanation` is one way to read all values so far. Each irregularity in it has a cost, and the cheapest
explanation is the best. Only the few explanations that may still become the best are kept.

An explanation also says what is uncertain in it: energy that nothing metered, because the register changed, and energy
that came faster than a charger can deliver. If this leaves more than 1 % open, or if two explanations are nearly as
good and differ by more, the energy is in doubt.

Energy in Wh, power in W, times in milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields, replace
from typing import Final

STOP_MISREAD: Final = 15
"""Cost of a wrong value at the stop. A wrong reading costs so much less that a single high one is not believed against
the stop, and two cost more (note F58)."""
MISREAD: Final = 8
NEW_REGISTER: Final = 14
"""Cost of a change to another register: more than that of a wrong value, less than that of two."""
FIRST_REGISTER: Final = 10
"""Cost of a change while only the start is known: then the start may be the one value that is wrong."""
LAST_CHANGE: Final = 8
"""Further cost of a change to another register at the stop, which no later value confirms."""
FORMER_REGISTER: Final = 2
"""Cost of a return to the register of the start, at a value that agrees with the energy so far."""
TOO_FAST: Final = 3
"""Cost of a step that is faster than a charger can deliver."""
STEEP: Final = 1
"""Cost of a step that is faster than the power so far."""
RETURN: Final = 16
"""Cost of counting in one step beyond where the register was before it fell: more than of a return to that register."""
RIVAL: Final = NEW_REGISTER - MISREAD
"""Explanations that are dearer than the best by no more than this may be right too."""
MARGIN: Final = 20
"""Explanations that are dearer than the best by more than this are dropped."""
MOST_EXPLANATIONS: Final = 6

UNTIMED_WH: Final = 10_000
"""The most that a step may exceed what a charger can deliver: values may reach csms long after they were measured, with
no usable time, but a larger step is another register."""
SHOWN_RESOLUTION: Final = 3
"""So many values that are whole kWh are a register that shows no less."""
LARGEST_SESSION_WH: Final = 1_000_000
"""The largest batteries of trucks take less."""
JITTER_WH: Final = 10
SHARE: Final = 100
"""1 of this many parts of the energy may stay uncertain, or JITTER_WH if that is more."""
CHARGING_W: Final = 1000
"""No car charges with less; the power of a car that does not charge says nothing."""
NOWHERE: Final = -1
STEADY_W: Final = 4000
"""A rise up to this power is never steep: cars begin slowly."""
STEADY_PERCENT: Final = 125
SECOND: Final = 1000
HOUR: Final = 3600 * SECOND


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the energy: the connector's maximum power, and by how many percent it may exceed measured power."""

    max_power_w: int
    tolerance_percent: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What a meter showed: by the station's clock it was read at `at`, and we heard of it at `heard_at`."""

    register_wh: int | None
    at: int
    heard_at: int
    power_w: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One way to read the values so far, up to the one it accepted last (`register_wh`, `at`, `heard_at`).

    `energy_wh` is what was metered. Of it, `hasty_wh` came in steps that are faster than a charger can deliver. Besides
    it, energy may have been delivered for `gap` milliseconds, in which the register changed, less `covered_wh`, which
    the new register has counted, and for the `tail` milliseconds since the last right value, if wrong ones followed
    it. `steps` counts the rises, `fastest_w` is the fastest. `left_wh` is where the register was before it fell, or
    NOWHERE.
    """

    register_wh: int
    at: int
    heard_at: int
    cost: int = 0
    energy_wh: int = 0
    hasty_wh: int = 0
    gap: int = 0
    covered_wh: int = 0
    tail: int = 0
    steps: int = 0
    fastest_w: int = 0
    left_wh: int = NOWHERE


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a transaction's energy: its start, the power that was measured, and the explanations of its
    register values, the best first.

    `peak_w` is the highest of `samples` measured powers with which a car charges; `values` counts register values,
    which all are multiples of `resolution_wh`.
    """

    start_wh: int
    started_at: int
    received_at: int
    explanations: tuple[Explanation, ...]
    peak_w: int = 0
    samples: int = 0
    values: int = 0
    resolution_wh: int = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the evidence says: it supports `lowest_wh` in any case, and at most `highest_wh` can have been delivered.
    `doubt` says why a person must decide between them; None if `lowest_wh` can be billed."""

    lowest_wh: int
    highest_wh: int
    doubt: str | None = None


def begin(start_wh: int, started_at: int, received_at: int) -> Evidence:
    """The evidence at the start of a transaction."""
    return Evidence(
        start_wh,
        started_at,
        received_at,
        (Explanation(start_wh, started_at, received_at),),
        resolution_wh=_find_resolution(start_wh, start_wh),
    )


def follow(evidence: Evidence, observations: Iterable[Observation], limits: Limits) -> Evidence:
    """The evidence after these readings, in the order of receipt."""
    for seen in observations:
        evidence = _take_power(evidence, seen.power_w)
        if seen.register_wh is not None:
            evidence = _take(evidence, _Step(evidence, seen, seen.register_wh, limits, is_stop=False))
    return evidence


def conclude(evidence: Evidence, stop: Observation, limits: Limits) -> Evidence:
    """The evidence after the register value of the stop. Where that counts as wrong, what was delivered since the last
    reading is unmetered."""
    if stop.register_wh is None:
        return evidence
    return _take(evidence, _Step(evidence, stop, stop.register_wh, limits, is_stop=True))


def judge(evidence: Evidence, limits: Limits, *, at: int, heard_at: int) -> Judgement:
    """The energy delivered until `at` (the station's clock) and `heard_at` (ours)."""
    best = evidence.explanations[0]
    rivals = [one for one in evidence.explanations if one.cost <= best.cost + RIVAL]
    elapsed = max(at - evidence.started_at, heard_at - evidence.received_at, 0)
    possible = deliverable_wh(elapsed + SECOND, _bound_power(evidence, limits))
    lowest = max(0, min(possible, *(one.energy_wh - one.hasty_wh for one in rivals)))
    highest = _find_highest(evidence, rivals, limits, lowest, possible)
    resolution = evidence.resolution_wh if evidence.values >= SHOWN_RESOLUTION else 1
    doubt: str | None = None
    if best.cost > MISREAD * (evidence.values // 3 + 1) + NEW_REGISTER:
        lowest, doubt = 0, "The meter values contradict each other."
    elif best.energy_wh > LARGEST_SESSION_WH:
        lowest, doubt = 0, f"{best.energy_wh} Wh is more than a vehicle takes."
    elif best.energy_wh > possible + resolution:
        doubt = f"{best.energy_wh} Wh is more than a charger can deliver in the time."
    elif highest - lowest > max(JITTER_WH, highest // SHARE):
        doubt = f"The meter values allow anything from {lowest} to {highest} Wh."
    if doubt is not None:  # Whoever decides may know what was delivered after the last value.
        ended = [replace(one, tail=max(one.tail, at - one.at)) for one in rivals]
        highest = _find_highest(evidence, ended, limits, lowest, possible)
    return Judgement(lowest_wh=lowest, highest_wh=highest, doubt=doubt)


def deliverable_wh(elapsed: int, power_w: int) -> int:
    """The energy in Wh that this power delivers in so many milliseconds."""
    return max(0, elapsed) * power_w // HOUR


def dump(evidence: Evidence) -> str:
    """The evidence as the short text that is stored: its own fields, then each explanation, as hexadecimal numbers.
    Those of an explanation are relative to the start, because a kilobyte more doubles the price of a write."""
    own = [getattr(evidence, name) for name in _OWN]
    return ";".join(map(_dump_numbers, [own, *(_shift(evidence, astuple(one), -1) for one in evidence.explanations)]))


def load(text: str) -> Evidence:
    """The evidence that `dump` stored; a newer release may have stored more fields."""
    own, *explained = (_load_numbers(row) for row in text.split(";"))
    bare = Evidence(explanations=(), **dict(zip(_OWN, own, strict=False)))
    rows = (_shift(bare, tuple([*row, *[0] * _LENGTH][:_LENGTH]), 1) for row in explained)
    return replace(bare, explanations=tuple(Explanation(*row) for row in rows))


_OWN: Final = tuple(part.name for part in fields(Evidence) if part.name != "explanations")
_LENGTH: Final = len(fields(Explanation))


def _shift(evidence: Evidence, row: tuple[int, ...], by: int) -> tuple[int, ...]:
    """An explanation's numbers with register and times moved to or from the start, and `left_wh` to 0 for NOWHERE."""
    register_wh, at, heard_at, *others, left_wh = row
    origin = by * evidence.start_wh, by * evidence.started_at, by * evidence.received_at
    return (register_wh + origin[0], at + origin[1], heard_at + origin[2], *others, left_wh + by * NOWHERE)


def _dump_numbers(numbers: Iterable[int]) -> str:
    return ",".join(format(number, "x") if number else "" for number in numbers).rstrip(",")


def _load_numbers(row: str) -> list[int]:
    return [int(number, 16) if number else 0 for number in row.split(",")]


@dataclass(frozen=True, slots=True)
class _Step:
    """A register value to be read after those before."""

    evidence: Evidence
    seen: Observation
    register_wh: int
    limits: Limits
    is_stop: bool


@dataclass(frozen=True, slots=True)
class _Pace:
    """How much a register can have risen since the last value: at the maximum power, and at the power so far, which
    binds if it was measured, or if the step is the last one of several; `possible_wh` is the most since the start."""

    elapsed: int
    most_wh: int
    steady_wh: int
    possible_wh: int
    is_binding: bool
    is_last: bool

    @property
    def untimed_wh(self) -> int:
        """The most that may be told as one step."""
        return self.most_wh + UNTIMED_WH


def _take_power(evidence: Evidence, power_w: int | None) -> Evidence:
    if power_w is None or power_w < CHARGING_W:
        return evidence
    return replace(evidence, peak_w=max(evidence.peak_w, power_w), samples=evidence.samples + 1)


def _take(evidence: Evidence, step: _Step) -> Evidence:
    """The evidence after one register value."""
    found = [after for before in evidence.explanations for after in _read(before, step)]
    resolution_wh = min(evidence.resolution_wh, _find_resolution(step.register_wh, step.register_wh))
    return replace(evidence, explanations=_keep_best(found), values=evidence.values + 1, resolution_wh=resolution_wh)


def _keep_best(found: list[Explanation]) -> tuple[Explanation, ...]:
    """The explanations that may still become the best, the best first; on equal cost the one with less energy."""
    ranked = sorted(found, key=lambda one: (one.cost, one.energy_wh, one.gap))
    kept: list[Explanation] = []
    for one in ranked:
        if one.cost > ranked[0].cost + MARGIN or len(kept) == MOST_EXPLANATIONS:
            break
        if not any(_replaces(better, one) for better in kept):
            kept.append(one)
    return tuple(kept)


def _replaces(better: Explanation, one: Explanation) -> bool:
    """Whether the cheaper explanation of two makes the other one needless: both are at the same value, and they agree
    about the energy, or the other is far dearer."""
    if (better.register_wh, better.at) != (one.register_wh, one.at):
        return False
    is_same = abs(better.energy_wh - one.energy_wh) <= JITTER_WH and better.gap <= one.gap
    return is_same or one.cost > better.cost + RIVAL


def _read(before: Explanation, step: _Step) -> Iterator[Explanation]:
    """The ways to read a register value after those before."""
    value, rise = step.register_wh, step.register_wh - before.register_wh
    if step.seen.at < before.at and rise <= 0:  # History, which the station told late.
        yield before
        return
    resolution = _find_resolution(before.register_wh, value)
    pace = _find_pace(before, step, resolution)
    yield _misread(before, step, pace)
    here = replace(before, register_wh=value, at=step.seen.at, heard_at=step.seen.heard_at, tail=0)
    if -JITTER_WH <= rise <= 0:
        yield replace(here, register_wh=before.register_wh)
        return
    regained = value - step.evidence.start_wh - before.energy_wh
    if regained != rise and regained >= -JITTER_WH and value - step.evidence.start_wh <= pace.possible_wh:
        yield _regain(here, regained)
    yield from _read_rise(before, here, pace) if rise > 0 else _read_fall(before, here, pace)


def _misread(before: Explanation, step: _Step, pace: _Pace) -> Explanation:
    """The explanation that this value is wrong."""
    return replace(before, cost=before.cost + (STOP_MISREAD if step.is_stop else MISREAD), tail=pace.elapsed)


def _regain(here: Explanation, regained: int) -> Explanation:
    """The explanation that this is the register of the start again, which has risen by so much more than was metered
    meanwhile."""
    changed = _close_gaps(_change(here, FORMER_REGISTER))
    return replace(changed, energy_wh=here.energy_wh + max(0, regained), steps=here.steps + 1)


def _read_rise(before: Explanation, here: Explanation, pace: _Pace) -> Iterator[Explanation]:
    """The ways to read a higher value: the register has risen, or it is another one that began anywhere."""
    rise = here.register_wh - before.register_wh
    if rise <= pace.untimed_wh:
        yield _count(_charge_return(here, before, rise), rise, pace)
    else:
        yield replace(_change(here, _price_change(before, pace)), gap=before.gap + pace.elapsed)


def _read_fall(before: Explanation, here: Explanation, pace: _Pace) -> Iterator[Explanation]:
    """The ways to read a lower value, which is another register's: it counts the session, or it counts from 0 since it
    began, or it began anywhere."""
    value, told = here.register_wh, here.register_wh - before.energy_wh
    changed = _change(here, _price_change(before, pace))
    fallen = replace(changed, left_wh=before.register_wh)
    counts_session, counts_from_0 = -JITTER_WH <= told <= pace.untimed_wh, value <= pace.untimed_wh
    if counts_session:
        yield _count(_close_gaps(changed), told, pace)
    if before.energy_wh and (counts_from_0 if not counts_session else value <= pace.most_wh):
        counted = _count(fallen, value, pace)
        yield replace(counted, gap=before.gap + pace.elapsed, covered_wh=before.covered_wh + value)
    if not counts_session and not counts_from_0:
        yield replace(fallen, gap=before.gap + pace.elapsed)


def _count(here: Explanation, energy_wh: int, pace: _Pace) -> Explanation:
    """The explanation after so much more was metered."""
    if energy_wh <= 0:
        return here
    allowed_wh = pace.steady_wh if pace.is_binding else pace.most_wh
    dearer = TOO_FAST * (energy_wh > pace.most_wh) + STEEP * (energy_wh > pace.steady_wh)
    return replace(
        here,
        cost=here.cost + dearer,
        energy_wh=here.energy_wh + energy_wh,
        hasty_wh=here.hasty_wh + energy_wh * (energy_wh > allowed_wh),
        steps=here.steps + 1,
        fastest_w=max(here.fastest_w, energy_wh * HOUR // max(pace.elapsed, SECOND)),
    )


def _change(here: Explanation, cost: int) -> Explanation:
    """The explanation after a change to another register."""
    return replace(here, cost=here.cost + cost, left_wh=NOWHERE)


def _close_gaps(here: Explanation) -> Explanation:
    """The explanation at a register that has counted all of the session, so that nothing is unmetered."""
    return replace(here, gap=0, covered_wh=0)


def _price_change(before: Explanation, pace: _Pace) -> int:
    """What a change to another register costs: more after a step that was too fast, because that may have been a wrong
    value."""
    is_first = not before.steps and not before.cost
    price = FIRST_REGISTER if is_first else NEW_REGISTER + MISREAD * bool(before.hasty_wh)
    return price + LAST_CHANGE * pace.is_last


def _charge_return(here: Explanation, before: Explanation, rise: int) -> Explanation:
    """The explanation, dearer if a register that had fallen jumps back to where it was."""
    if before.left_wh == NOWHERE or here.register_wh < before.left_wh:
        return here
    has_jumped = rise > before.left_wh // 2
    return replace(here, cost=here.cost + RETURN * has_jumped, left_wh=NOWHERE)


def _find_pace(before: Explanation, step: _Step, resolution: int) -> _Pace:
    evidence, limits = step.evidence, step.limits
    elapsed = _elapse(before, step.seen)
    steady_w = _find_steady_power(evidence, before, limits)
    return _Pace(
        elapsed=elapsed,
        most_wh=deliverable_wh(elapsed + SECOND, limits.max_power_w) + resolution,
        steady_wh=deliverable_wh(elapsed + SECOND, steady_w) + resolution,
        possible_wh=deliverable_wh(_elapse_since_start(evidence, step.seen) + SECOND, limits.max_power_w) + resolution,
        is_binding=evidence.samples > 1 or (step.is_stop and before.steps > 2),
        is_last=step.is_stop,
    )


def _elapse(before: Explanation, seen: Observation) -> int:
    """The time since the last value: the longer one of our clock's and the station's, because a station that was
    offline reports late; within one message only the station's clock separates the values."""
    return max(seen.heard_at - before.heard_at, seen.at - before.at, 0)


def _elapse_since_start(evidence: Evidence, seen: Observation) -> int:
    return max(seen.at - evidence.started_at, seen.heard_at - evidence.received_at, 0)


def _bound_power(evidence: Evidence, limits: Limits) -> int:
    """The maximum power, tightened by measured power if there is more than one sample of it."""
    if evidence.samples < 2:
        return limits.max_power_w
    return min(limits.max_power_w, evidence.peak_w * (100 + limits.tolerance_percent) // 100)


def _find_steady_power(evidence: Evidence, before: Explanation, limits: Limits) -> int:
    """The power that the register is expected not to exceed: the measured one, else that of the rises so far, else the
    maximum."""
    bound = _bound_power(evidence, limits)
    if evidence.samples > 1 or before.steps < 2:
        return bound
    return min(bound, max(STEADY_W, before.fastest_w * STEADY_PERCENT // 100))


def _find_unmetered(evidence: Evidence, one: Explanation, limits: Limits) -> int:
    """The most that may have been delivered while the register changed."""
    power_w = _find_steady_power(evidence, one, limits)
    return deliverable_wh(one.tail, power_w) + max(0, deliverable_wh(one.gap, power_w) - one.covered_wh)


def _find_highest(evidence: Evidence, rivals: list[Explanation], limits: Limits, lowest: int, possible: int) -> int:
    """The most that one of the explanations allows."""
    most = max(one.energy_wh + _find_unmetered(evidence, one, limits) for one in rivals)
    return max(lowest, min(possible, most))


def _find_resolution(one_wh: int, other_wh: int) -> int:
    """The step in Wh of a register that shows both values: a whole kWh, a tenth or a hundredth of it, or less."""
    return next((step for step in (1000, 100, 10) if not one_wh % step and not other_wh % step), 1)
