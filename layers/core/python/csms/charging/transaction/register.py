"""The energy register as a series: how far it has risen, and whether a charger can deliver that in the time.

Energy in Wh, power in W. The elapsed time is the longer one of our clock's and the station's, because a station that
was away tells late what took long; within one message only the station's clock tells readings apart. What is
implausible is never billed without a human (note F58).
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
"""Some registers count whole kWh: two readings a second apart may then differ by one."""


def follow_register(running: OpenTransaction, readings: Iterable[Reading], context: DecisionContext) -> OpenTransaction:
    """The running transaction after these readings: its energy, which never falls, when the register last was at its
    highest, and whether it ever rose faster than a charger can deliver.

    A reading below the highest so far is no step down: some meters show 0 for a moment.
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
    """Whether no charger can have delivered the energy of a transaction that is now over: all of it in all its time, or
    a step of the register on the way, the last one to `meter_stop_wh` included. `running` is the transaction as it ran,
    None where nothing is known of that any more."""
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
    """When the station says that the register was at its highest so far; at the start it was at `meter_start_wh`."""
    at = running.peak_at or running.started_at
    return at if status.is_believable(at, context) else running.received_at


def _choose_longer(ours: timedelta, stations: timedelta) -> timedelta:
    return max(ours, stations, timedelta(0))
