"""OCPP 1.6, one module for each profile (OCPP 1.6 edition 2, section 3.2)."""

from __future__ import annotations

from typing import Final

from csms.model import Protocol
from csms.ocpp.dialect import Dialect
from csms.ocpp.v16 import core, remote_trigger
from csms.ocpp.v16.values import FRAMING, SCHEMAS

DIALECT: Final = Dialect(
    protocol=Protocol.OCPP16,
    framing=FRAMING,
    schemas=SCHEMAS,
    actions=core.ACTIONS,
    commands={**core.COMMANDS, **remote_trigger.COMMANDS},
)
