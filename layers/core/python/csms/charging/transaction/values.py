"""A start and a stop, independent of the OCPP version, and the names of the ends that csms decides."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from csms.charging import status
from csms.model import (
    IdToken,
    OpenTransaction,
    Reading,
    TagStatus,
    fold,
)

IMPLIED: Final = "ImpliedStop"


OVERDUE: Final = "Overdue"


SUPERSEDED: Final = "Superseded"


OPERATOR: Final = "ClosedByOperator"


CSMS_STOP_REASONS: Final = frozenset({IMPLIED, OVERDUE, SUPERSEDED, OPERATOR})
"""Reasons of ends that csms decided; the station's own stop still corrects the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The start of a transaction. `started_at` is the station's time, None if it could not be read; `transaction_id` is
    the station's own id, None if csms makes the id; `message_id` is the unique id of the station's message, None if the
    version does not pass it on."""

    connector_id: int
    id_token: IdToken
    meter_start_wh: int
    started_at: datetime | None
    transaction_id: str | None = None
    message_id: str | None = None

    @property
    def is_clockless(self) -> bool:
        """Whether neither a clock nor the station's own id tells this start from another one (note F11)."""
        if self.transaction_id is not None:
            return False
        return self.started_at is None or self.started_at <= status.CLOCKS_EXIST_SINCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The end of a transaction. `meter_stop_wh` is None if the station did not send it; `is_unnamed` means that its
    transaction id is not usable, `is_unplugged` that the stop itself reports the cable as unplugged."""

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
    """The answer to a start: the transaction's id and the status of the tag."""

    transaction_id: str
    id_tag_status: TagStatus


def digest(start: Start) -> str:
    """The hash that identifies a start, equal for the same start sent again (note F51): of connector, tag, time, meter,
    and the station's own id if there is one. Without a clock the message's own id takes part, because all sessions of
    one card are equal otherwise."""
    own: tuple[str, ...] = () if start.transaction_id is None else (start.transaction_id,)
    if start.is_clockless and start.message_id is not None:
        own = ("message", start.message_id)
    parts = (start.connector_id, fold(start.id_token.value), start.started_at, start.meter_start_wh, *own)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def is_same_transaction(running: OpenTransaction | None, transaction_id: str) -> bool:
    return running is not None and running.transaction_id == transaction_id
