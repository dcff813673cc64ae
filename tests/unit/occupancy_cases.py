"""The reasons why a connector is busy, and a connector without a live status: for the tests of the busy rule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from csms.model import Connector, Policy, Snapshot
from csms.occupancy import busy_reasons
from tests.builders import NOW, connector

POLICY = Policy()
MICROSECOND = timedelta(microseconds=1)


def reasons(seen: Snapshot, connector_id: int = 1, **asked: Any) -> tuple[str, ...]:
    return busy_reasons(seen, connector_id, **({"now": NOW, "policy": POLICY} | asked))


def silent_connector(**changes: Any) -> Connector:
    """A connector of which nothing live is known."""
    return connector(live=None, **changes)
