"""What a start and a stop are, in words that every OCPP version shares, and how ends are named that are ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from csms.commands import calls
from csms.model import (
    DecisionContext,
    IdToken,
    OpenTransaction,
    Reading,
    RemoteStop,
    Snapshot,
    TagStatus,
    fold,
)

IMPLIED: Final = "ImpliedStop"


OVERDUE: Final = "Overdue"


SUPERSEDED: Final = "Superseded"


OPERATOR: Final = "ClosedByOperator"


CSMS_STOP_REASONS: Final = frozenset({IMPLIED, OVERDUE, SUPERSEDED, OPERATOR})
"""Ends that the station did not tell: its own stop still corrects the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A transaction begins; `started_at` is the charger's clock, None when that could not be read, and `transaction_id`
    the station's own, None where the back end makes it."""

    connector_id: int
    id_token: IdToken
    meter_start_wh: int
    started_at: datetime | None
    transaction_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A transaction ended; `meter_stop_wh` is None when the charger did not say, and `is_unnamed` says that what it
    gave as a transaction id is none. `is_unplugged` says that the stop itself tells that the cable is out."""

    transaction_id: str
    is_unnamed: bool = False
    id_token: IdToken | None = None
    meter_stop_wh: int | None
    stopped_at: datetime | None
    reason: str | None
    is_unplugged: bool = False
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What the station is told of its new transaction."""

    transaction_id: str
    id_tag_status: TagStatus


def digest(start: Start) -> str:
    """The name of a start, equal for the same start sent again (note F51): connector, tag, time and meter, and the
    station's own id where it has one."""
    own = () if start.transaction_id is None else (start.transaction_id,)
    parts = (start.connector_id, fold(start.id_token.value), start.started_at, start.meter_start_wh, *own)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def best_energy(meter_start_wh: int, readings: Iterable[Reading]) -> int:
    """The most energy that the readings prove since the start, in Wh; never negative."""
    return max(0, *(r.energy_wh - meter_start_wh for r in readings if r.energy_wh is not None), 0)


def is_same_transaction(running: OpenTransaction | None, transaction_id: str) -> bool:
    return running is not None and running.transaction_id == transaction_id


def request_stop(snapshot: Snapshot, transaction_id: str, context: DecisionContext) -> Snapshot:
    """The snapshot that asks the station to stop: a start that nobody pays for (note F30), or one that never ends."""
    until = context.now + context.policy.start_window
    return calls.queue(snapshot, RemoteStop(transaction_id=transaction_id), context, until=until)
