"""A transaction's meter register as evidence of its energy (csms.charging.energy): from readings and times to
observations, and from stored rows to a judgement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from csms.charging import energy, status
from csms.charging.energy import Evidence, Explanation, Judgement, Limits, Observation
from csms.model import DecisionContext, OpenTransaction, Reading, Station, Transaction

ENOUGH_VALUES: Final = 3
"""With fewer values little is known of the power, and much seems possible."""


def follow_register(
    running: OpenTransaction, readings: Iterable[Reading], station: Station, context: DecisionContext
) -> tuple[OpenTransaction, int]:
    """The running transaction after these readings, with its energy in Wh by the best explanation and whether that is
    in doubt; and the most that can have been delivered, once there are enough values to tell."""
    limits = find_limits(station, context)
    evidence = energy.follow(load_evidence(running, context), _observe(readings, context), limits)
    judged = judge(evidence, context.now, station, context)
    followed = replace(
        running,
        energy_wh=evidence.explanations[0].energy_wh,
        evidence=energy.dump(evidence),
        doubted=judged.doubt is not None,
    )
    return followed, judged.highest_wh if evidence.values >= ENOUGH_VALUES else 0


def read_stop(
    evidence: Evidence,
    readings: tuple[Reading, ...],
    meter_stop_wh: int | None,
    stopped_at: datetime | None,
    station: Station,
    context: DecisionContext,
) -> Evidence:
    """The evidence after a stop with these readings. A register of 0 or less is none: stations send it for a meter that
    they could not read. Of readings without a usable time, only the last one is known to be new."""
    limits = find_limits(station, context)
    timed = [reading for reading in readings if status.is_believable(reading.at, context)]
    followed = energy.follow(evidence, _observe(timed or readings[-1:], context), limits)
    if meter_stop_wh is None or meter_stop_wh <= 0:
        return followed
    at = _find_time(stopped_at, context)
    return energy.conclude(followed, Observation(meter_stop_wh, at, _to_milliseconds(context.now)), limits)


def judge(evidence: Evidence, until: datetime | None, station: Station, context: DecisionContext) -> Judgement:
    """What the evidence says of the energy delivered until then, on the station's clock."""
    return energy.judge(
        evidence,
        find_limits(station, context),
        at=_find_time(until, context),
        heard_at=_to_milliseconds(context.now),
    )


def find_limits(station: Station, context: DecisionContext) -> Limits:
    """What bounds the energy of the station's connectors."""
    policy = context.policy
    return Limits(station.max_power_w or policy.max_power_w, policy.power_tolerance_percent)


def load_evidence(running: OpenTransaction | Transaction, context: DecisionContext) -> Evidence:
    """What the transaction's meter has shown so far."""
    if running.evidence:
        return energy.load(running.evidence)
    begun = begin_evidence(running, running, context)
    if not running.energy_wh:
        return begun
    # Release 0.4.0 began it, and kept only its energy.
    return replace(
        begun,
        explanations=(
            Explanation(
                register_wh=running.meter_start_wh + running.energy_wh,
                at=begun.started_at,
                heard_at=begun.received_at,
                energy_wh=running.energy_wh,
                hasty_wh=running.energy_wh if running.kept.get("jumped") else 0,
                steps=1,
            ),
        ),
    )


def begin_evidence(
    of: OpenTransaction | Transaction, timed: OpenTransaction | Transaction, context: DecisionContext
) -> Evidence:
    """The evidence at the start of a transaction, with the times of another one that it continues, or its own."""
    started_at = timed.started_at if status.is_believable(timed.started_at, context) else timed.received_at
    return energy.begin(of.meter_start_wh, _to_milliseconds(started_at), _to_milliseconds(timed.received_at))


def _observe(readings: Iterable[Reading], context: DecisionContext) -> list[Observation]:
    heard_at = _to_milliseconds(context.now)
    return [Observation(r.energy_wh, _find_time(r.at, context), heard_at, r.power_w) for r in readings]


def _find_time(at: datetime | None, context: DecisionContext) -> int:
    """The station's time, or ours if its clock cannot be right."""
    believed = at if at is not None and status.is_believable(at, context) else context.now
    return _to_milliseconds(believed)


def _to_milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
