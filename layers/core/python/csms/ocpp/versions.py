"""The OCPP versions that csms supports. One more version is one more row."""

from __future__ import annotations

from typing import Final

from csms.model import Protocol
from csms.ocpp.dialect import Dialect, Dialects


def _load_v16() -> Dialect:
    from csms.ocpp.v16 import DIALECT

    return DIALECT


DIALECTS: Final = Dialects({Protocol.OCPP16: _load_v16})
