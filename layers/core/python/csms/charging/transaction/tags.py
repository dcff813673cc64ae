"""Who may charge: a web tag only while its own reservation locks a connector here, other tags as registered."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime
from typing import Final

from csms import occupancy
from csms.model import (
    Connector,
    DecisionContext,
    IdTag,
    IdToken,
    Lock,
    ReservationState,
    Snapshot,
    TagStatus,
    UnknownTags,
    is_web_tag,
)

AUTHORIZING: Final = frozenset(
    {
        ReservationState.AUTHORIZED,
        ReservationState.START_REQUESTED,
        ReservationState.CHARGING,
    }
)

MANY_UNKNOWN_TAGS: Final = 100
"""So many tags a day that nobody knows are more than strangers with a card of another site."""

COUNTED_ONE_BY_ONE: Final = 20
"""How many unknown tags of a day are stored one by one. From there on one stands for several, chosen at random: each
write adds about a twentieth, so a million guesses are some 240 writes."""


def authorize(snapshot: Snapshot, id_token: IdToken, context: DecisionContext) -> TagStatus:
    """The status of the tag at this station now: a web tag is Accepted only while its own reservation locks a connector
    here, other tags as registered (note F29)."""
    owner = find_owner(snapshot, id_token)
    if owner is not None and is_own_tag(snapshot, owner.connector_id, id_token, context.now):
        return TagStatus.ACCEPTED
    return tag_status(snapshot.tag, context.now)


def is_own_tag(snapshot: Snapshot, connector_id: int, id_token: IdToken, now: datetime) -> bool:
    """Whether the tag is that of the reservation that locks the connector and may charge on it."""
    owner = find_owner(snapshot, id_token)
    if owner is None or owner.lock is None or owner.connector_id != connector_id:
        return False
    return owner.lock.state in AUTHORIZING and occupancy.is_lock_active(owner.lock, now)


def find_owner(snapshot: Snapshot, id_token: IdToken) -> Connector | None:
    """The connector whose reservation has the tag, in any form that stations make of it (note F28); None if none has,
    or more than one could be meant."""
    mine = [c for c in snapshot.connectors.values() if c.lock is not None and is_tag_of(c.lock, id_token)]
    return mine[0] if len(mine) == 1 else None


def is_tag_of(lock: Lock, id_token: IdToken) -> bool:
    """Whether the tag is one of the lock's reservation: the one that the station was asked to start with last, or the
    one that it refused before."""
    is_asked = is_web_tag(lock.id_tag, id_token.value)
    return (lock.refused_tag is not None and is_web_tag(lock.refused_tag, id_token.value)) or is_asked


def tag_status(tag: IdTag | None, now: datetime) -> TagStatus:
    """The status of a registered tag; a web tag alone authorizes nothing."""
    if tag is None or tag.reservation_id is not None:
        return TagStatus.INVALID
    if tag.expires_at is not None and tag.expires_at <= now:
        return TagStatus.EXPIRED
    return tag.status if tag.status.is_known else TagStatus.INVALID


def count_unknown(snapshot: Snapshot, id_token: IdToken, context: DecisionContext) -> Snapshot:
    """Count a tag that is nobody's, for the operator, with a timeline entry once there are many in a day; nothing
    changes for any other tag. Beyond the first ones the count is an estimate, so that guesses cost few writes."""
    if snapshot.tag is not None or find_owner(snapshot, id_token) is not None:
        return snapshot
    station, today = snapshot.station, context.now.date()
    known = station.unknown_tags
    before = known.count if known is not None and known.day == today else 0
    weight = max(1, before // COUNTED_ONE_BY_ONE)
    if _draw(context) % weight:
        return snapshot
    counted = UnknownTags(day=today, count=before + weight)
    after = replace(snapshot, station=replace(station, unknown_tags=counted))
    if not before < MANY_UNKNOWN_TAGS <= counted.count:
        return after
    return after.add_timeline_entry("ManyUnknownTags", context, count=counted.count)


def _draw(context: DecisionContext) -> int:
    """A random number, the same for the same new ids."""
    return int.from_bytes(hashlib.sha256(f"unknown {context.new_ids.id_tag}".encode()).digest()[:8])
