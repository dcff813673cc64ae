"""The energy register as a series: how far it has risen, and whether a charger can deliver that in the time.

Energy in Wh, power in W. The elapsed time is the longer one of our clock's and the station's, because a station that
was offline reports late; within one message only the station's clock separates the readings. Implausible energy is
never billed without an operator (note F58).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from csms.charging import status
from csms.charging.settlement import deliverable_wh
from csms.model import DecisionContext, OpenTransaction, Reading, Transaction

COARSEST_REGISTER_WH: Final = 1000
"""Some registers count whole kWh, so that two readings a second apart may differ by one."""


def follow_register(running: OpenTransaction, readings: Iterable[Reading], context: DecisionContext) -> OpenTransaction:
    """The running transaction after these readings: its energy, which never falls, the time of the register's highest
    value, and whether the register ever rose faster than a charger can deliver.

    A reading below the highest value is ignored: some meters show 0 for a moment.
    """
    after, heard_at = running, running.peak_heard_at or running.received_at
    for reading in readings:
        if reading.energy_wh is None:
            continue
        risen = reading.energy_wh - running.meter_start_wh
        if risen < after.energy_wh:
            continue
        at = reading.at if status.is_believable(reading.at, context) else context.now
        ours, stations = context.now - heard_at, at - _peak_time(after, context)
        told_together = after.peak_heard_at == context.now and stations > timedelta(0)
        elapsed = stations if told_together else _choose_longer(ours, stations)
        jumped = risen - after.energy_wh > deliverable_wh(elapsed, context) + COARSEST_REGISTER_WH
        after = replace(after, energy_wh=risen, peak_at=at, peak_heard_at=context.now, jumped=after.jumped or jumped)
    return after


def is_implausible(closed: Transaction, running: OpenTransaction | None, context: DecisionContext) -> bool:
    """Whether a closed transaction has more energy than a charger can deliver: in total, or in one step of the
    register, the last step included. `running` is the transaction as it ran, None if that is unknown."""
    started_at, stopped_at = closed.started_at, closed.stopped_at or context.now
    reported = timedelta(0)
    if status.is_believable(started_at, context) and status.is_believable(stopped_at, context):
        reported = stopped_at - started_at
    if closed.energy_wh > deliverable_wh(_choose_longer(context.now - closed.received_at, reported), context):
        return True
    if running is None or running.jumped:
        return running is not None
    last = Reading(at=stopped_at, energy_wh=closed.meter_start_wh + closed.energy_wh)
    return follow_register(running, (last,), context).jumped


def _peak_time(running: OpenTransaction, context: DecisionContext) -> datetime:
    """The station's time of the register's highest value so far, which at the start is `meter_start_wh`."""
    at = running.peak_at or running.started_at
    return at if status.is_believable(at, context) else running.received_at


def _choose_longer(ours: timedelta, stations: timedelta) -> timedelta:
    return max(ours, stations, timedelta(0))
