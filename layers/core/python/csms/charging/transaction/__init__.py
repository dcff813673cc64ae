"""Transactions: start, meter, stop, in words that every OCPP version shares. Each decision turns a snapshot into the
next one.

A transaction message is never refused for a business reason: what fits nothing is stored, put aside and confirmed
(notes F41, F53).
"""

from csms.charging.transaction.running import meter, overdue
from csms.charging.transaction.starting import start, start_needs
from csms.charging.transaction.stopping import end, stop, stop_needs
from csms.charging.transaction.tags import authorise
from csms.charging.transaction.words import (
    IMPLIED,
    OPERATOR,
    OURS,
    OVERDUE,
    SUPERSEDED,
    Start,
    Started,
    Stop,
    best_energy,
    digest,
)

__all__ = [
    "IMPLIED",
    "OPERATOR",
    "OURS",
    "OVERDUE",
    "SUPERSEDED",
    "Start",
    "Started",
    "Stop",
    "authorise",
    "best_energy",
    "digest",
    "end",
    "meter",
    "overdue",
    "start",
    "start_needs",
    "stop",
    "stop_needs",
]
