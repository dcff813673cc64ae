"""A start by the web tag, one by a card, a stop, and what meters say: for the tests of csms.charging.transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from csms.charging.transaction import Start, Stop
from csms.model import IdTag, IdToken, Reading, TagStatus
from tests.builders import HOUR, NOW

MINE = Start(connector_id=1, id_token=IdToken(value="WTAG1"), meter_start_wh=1000, started_at=NOW)
CARD = Start(connector_id=1, id_token=IdToken(value="CARD"), meter_start_wh=1000, started_at=NOW)
END = Stop(transaction_id="3", meter_stop_wh=11_000, stopped_at=NOW + HOUR, reason="Local")


def card(status: TagStatus = TagStatus.ACCEPTED, **changes: Any) -> IdTag:
    return replace(IdTag(tag="CARD", status=status), **changes)


def reading(energy_wh: int | None, power_w: int | None = None) -> Reading:
    return Reading(at=NOW, energy_wh=energy_wh, power_w=power_w)
