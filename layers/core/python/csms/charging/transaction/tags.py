"""Who may charge: a web tag only while its own reservation locks a connector here, other tags as registered."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from csms import occupancy
from csms.model import (
    Connector,
    DecisionContext,
    IdTag,
    IdToken,
    ReservationState,
    Snapshot,
    TagStatus,
    fold,
)

AUTHORIZING: Final = frozenset(
    {
        ReservationState.AUTHORIZED,
        ReservationState.START_REQUESTED,
        ReservationState.CHARGING,
    }
)


def authorize(snapshot: Snapshot, id_token: IdToken, context: DecisionContext) -> TagStatus:
    """The status of the tag at this station now: a web tag is Accepted only while its own reservation locks a connector
    here, other tags as registered (note F29)."""
    for connector in snapshot.connectors.values():
        if is_own_tag(connector, id_token, context.now):
            return TagStatus.ACCEPTED
    return tag_status(snapshot.tag, context.now)


def is_own_tag(connector: Connector, id_token: IdToken, now: datetime) -> bool:
    """Whether the tag is that of the reservation that locks the connector and may charge on it."""
    lock = connector.lock
    return (
        lock is not None
        and fold(lock.id_tag) == fold(id_token.value)
        and lock.state in AUTHORIZING
        and occupancy.is_lock_active(lock, now)
    )


def tag_status(tag: IdTag | None, now: datetime) -> TagStatus:
    """The status of a registered tag; a web tag alone authorizes nothing."""
    if tag is None or tag.reservation_id is not None:
        return TagStatus.INVALID
    if tag.expires_at is not None and tag.expires_at <= now:
        return TagStatus.EXPIRED
    return tag.status if tag.status.is_known else TagStatus.INVALID
