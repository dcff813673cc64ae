"""What one station can make csms store in its item collection, which every frame reads: a number of connectors that
nobody registered, and a size of all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from csms.model import Append, Connector, DecisionContext, Snapshot, TimelineEntry, build_outcome

MOST_UNREGISTERED: Final = 8
"""The most connectors that are kept of those that a station reports and nobody registered."""

HIGHEST_NUMBER: Final = 9_999
"""An unregistered connector with a higher number is never kept: no station has as many."""

MOST_FORGOTTEN_AT_ONCE: Final = 25
"""The most stored connectors that one commit deletes: an older release kept all of them."""

MOST_WRITES: Final = 80
"""How many writes a commit may have with those deletions; the store's limit leaves room for the renewal of the lease
and for the frames of a line."""

FORGOTTEN: Final = "ConnectorsForgotten"

BASE_BYTES: Final = 131_072
BYTES_PER_CONNECTOR: Final = 8_192


def largest_collection(registered: int) -> int:
    """The size in bytes below which the item collection of a station with so many registered connectors stays, whatever
    it sends."""
    return BASE_BYTES + BYTES_PER_CONNECTOR * (registered + 1 + MOST_UNREGISTERED)


def find_unregistered(snapshot: Snapshot) -> tuple[Connector, ...]:
    """The connectors that the station reported and nobody registered, by number; connector 0 is the station."""
    registered = {0, *snapshot.station.connectors}
    return tuple(c for number, c in sorted(snapshot.connectors.items()) if number not in registered)


def forget_unregistered(before: Snapshot, after: Snapshot, context: DecisionContext) -> Snapshot:
    """The snapshot with MOST_UNREGISTERED unregistered connectors at most; the others are counted and forgotten.

    One with a reservation is always kept. Of the others those in use come first, then those that are stored already, so
    that a flood of numbers changes nothing. A transaction on a forgotten connector stays stored, and its stop counts
    like that of one from the offline queue. Of those stored before, only as many are deleted as a commit has room for.
    """
    ranked = sorted(find_unregistered(after), key=lambda c: _rank(c, before))
    extra = [c for place, c in enumerate(ranked) if c.lock is None and not _has_place(c, place)]
    if not extra:
        return after
    stored = [c for c in extra if c.connector_id in before.connectors]
    new = {c.connector_id for c in extra} - {c.connector_id for c in stored}
    kept = _without(after, new)
    if stored:
        room = MOST_WRITES - len(build_outcome(before, kept).writes)
        most = max(0, min(MOST_FORGOTTEN_AT_ONCE, room))
        # The last ones first; a connector that this commit would write anyway takes no more room.
        deleted = {c.connector_id for c in stored[::-1][:most]}
        kept = _without(kept, deleted)
        new |= deleted
    if not new:
        return after
    counted = kept.station.forgotten_connectors
    kept = replace(kept, station=replace(kept.station, forgotten_connectors=counted + len(new)))
    if counted:
        return kept
    return kept.add_timeline_entry(FORGOTTEN, context, connector=min(new), most=MOST_UNREGISTERED)


def _has_place(connector: Connector, place: int) -> bool:
    return place < MOST_UNREGISTERED and 0 < connector.connector_id <= HIGHEST_NUMBER


def _rank(connector: Connector, before: Snapshot) -> tuple[bool, bool, bool, bool, int]:
    """The place in line for being kept: the lowest first."""
    is_idle = connector.transaction is None and connector.stop_request is None
    number = connector.connector_id
    is_new = number not in before.connectors
    return connector.lock is None, not 0 < number <= HIGHEST_NUMBER, is_idle, is_new, number


def _without(snapshot: Snapshot, numbers: set[int]) -> Snapshot:
    """The snapshot without these connectors, and without the news of their statuses."""
    return replace(
        snapshot,
        connectors={n: c for n, c in snapshot.connectors.items() if n not in numbers},
        records=tuple(record for record in snapshot.records if not _is_news_of(record, numbers)),
    )


def _is_news_of(append: Append, numbers: set[int]) -> bool:
    entry = append.record
    return (
        isinstance(entry, TimelineEntry)
        and entry.kind in {"StatusChanged", "StatusWasHistory"}
        and entry.detail.get("connector") in numbers
    )
