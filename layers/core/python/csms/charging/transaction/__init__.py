"""Transactions, independent of the OCPP version: start, meter values, stop.

A transaction message is never refused for a business reason: what does not fit is stored, set aside and confirmed
(notes F41, F53).
"""

from csms.charging.transaction.running import close_for_operator, close_overdue, record_readings
from csms.charging.transaction.starting import find_start_read_set, start
from csms.charging.transaction.stopping import end, find_stop_read_set, stop
from csms.charging.transaction.tags import MANY_UNKNOWN_TAGS, authorize, count_unknown
from csms.charging.transaction.values import (
    CSMS_STOP_REASONS,
    IMPLIED,
    OPERATOR,
    OVERDUE,
    SUPERSEDED,
    Start,
    Started,
    Stop,
    digest,
)

__all__ = [
    "CSMS_STOP_REASONS",
    "IMPLIED",
    "MANY_UNKNOWN_TAGS",
    "OPERATOR",
    "OVERDUE",
    "SUPERSEDED",
    "Start",
    "Started",
    "Stop",
    "authorize",
    "close_for_operator",
    "close_overdue",
    "count_unknown",
    "digest",
    "end",
    "find_start_read_set",
    "find_stop_read_set",
    "record_readings",
    "start",
    "stop",
]
