"""Which messages of stations are kept for the operator: irregular ones, and those in quarantine.

A message is irregular if it was taken although it bends the rules; it is in quarantine if it was confirmed although it
could not be attributed, because the station would send it for ever (note F41). A regular message costs nothing here,
and an irregular one costs something once a day for each kind: the station's item says which kinds were kept today.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from csms.model import (
    RECORD_RETENTION,
    SHORTEST_CUT,
    Append,
    DecisionContext,
    IdempotencyRecord,
    KeptMessage,
    KeptToday,
    ReadSet,
    Snapshot,
    TimelineEntry,
)
from csms.ocpp.redaction import redact

Payload = dict[str, Any]

QUARANTINED: Final = "MessageQuarantined"
"""The timeline entry of a message in quarantine."""

RETENTION: Final = timedelta(days=30)
"""Shorter than that of other records, because the text is what a station sent and may say more than was looked for; yet
longer than any authorization of a payment, by whose end each doubt is decided."""

LONGEST_TEXT: Final = 65_536
"""In bytes of UTF-8."""

MOST_IRREGULAR: Final = 8
MOST_KEPT: Final = 32
"""How many messages of a station are kept a day; irregular ones leave room for those in quarantine."""

MOST_REASONS: Final = 20
LONGEST_REASON: Final = 200
_NUMBER: Final = re.compile("[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """A message as it was received."""

    station_id: str
    action: str
    message_id: str
    text: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A CALL that is confirmed and not taken: why, and its answer; `fixed_answer` if that is always the same."""

    reasons: tuple[str, ...]
    build_answer: Callable[[DecisionContext], Payload]
    fixed_answer: Payload | None = None


def keep_irregular(
    snapshot: Snapshot, message: ReceivedMessage, flags: Sequence[str], context: DecisionContext
) -> Snapshot:
    """Keep a message that was taken in spite of its flags, unless one of its kind was kept today: with the same action
    and the same flags, apart from the numbers in them."""
    if not flags:
        return snapshot
    kind = _digest("irregular", message.action, *_find_kinds(flags))
    noted = _note(snapshot, kind, context, most=MOST_IRREGULAR)
    if noted is None:
        return snapshot
    return noted.add_records(
        build_kept_message(message, flags, context.now, kind=kind, is_quarantined=False, tags=_find_tags(snapshot))
    )


def find_read_set(message: ReceivedMessage, quarantined: Quarantined) -> ReadSet:
    """What `confirm` reads: the answer that the same message had before."""
    return ReadSet() if quarantined.fixed_answer is not None else ReadSet(digest=find_content(message))


def confirm(
    snapshot: Snapshot, message: ReceivedMessage, quarantined: Quarantined, context: DecisionContext
) -> tuple[Snapshot, Payload]:
    """Keep a message in quarantine, tell the operator in the timeline, and answer it.

    Of messages with a fixed answer, which may come every minute, one a day is kept of those with the same action and
    reasons. Of the others each is kept, and the same message again gets the same answer (note F42).
    """
    reasons, fixed = quarantined.reasons, quarantined.fixed_answer
    if fixed is not None:
        return _quarantine(snapshot, message, reasons, _find_kinds(reasons), context), fixed
    if snapshot.idempotency_record is not None:
        return snapshot, orjson.loads(snapshot.idempotency_record.answer["payload"])
    content, answer = find_content(message), quarantined.build_answer(context)
    remembered = IdempotencyRecord(
        station_id=message.station_id,
        digest=content,
        answer={"payload": orjson.dumps(answer).decode()},
        expires_at=context.now + RECORD_RETENTION,
    )
    return _quarantine(snapshot, message, reasons, [content], context).add_records(remembered, once=True), answer


def keep_failed(message: ReceivedMessage, failed: Exception, context: DecisionContext) -> tuple[Append, ...]:
    """Keep a message whose handling failed, and tell the operator in the timeline."""
    why = f"failed: {failed!r}"
    record = build_kept_message(message, [why], context.now, kind=_digest(message.message_id, why), is_quarantined=True)
    entry = TimelineEntry(
        station_id=message.station_id,
        at=context.now,
        kind=QUARANTINED,
        detail=describe(record),
        expires_at=context.now + RECORD_RETENTION,
    )
    return Append(record), Append(entry)


def find_content(message: ReceivedMessage) -> str:
    """The hash of what the message says: equal for the same message under another id."""
    said = message.text.replace(f'"{message.message_id}"', "", 1)
    return hashlib.sha256(f"{message.action} {said}".encode("utf-8", "replace")).hexdigest()[:32]


def build_kept_message(
    message: ReceivedMessage,
    reasons: Sequence[str],
    now: datetime,
    *,
    kind: str,
    is_quarantined: bool,
    tags: Sequence[str] = (),
) -> KeptMessage:
    """The record of the message: with tags and passwords hidden everywhere, and its text cut to LONGEST_TEXT."""
    redaction = redact(message.text, tags)
    told = [redaction.hide(reason)[:LONGEST_REASON] for reason in reasons[:MOST_REASONS]]
    if len(reasons) > MOST_REASONS:
        told.append(f"and {len(reasons) - MOST_REASONS} more")
    encoded = redaction.text.encode("utf-8", "replace")
    return KeptMessage(
        station_id=message.station_id,
        at=message.received_at,
        kind=kind,
        action=message.action,
        message_id=redaction.hide(message.message_id),
        is_quarantined=is_quarantined,
        reasons=tuple(told),
        text=encoded[:LONGEST_TEXT].decode("utf-8", "ignore"),
        is_cut=len(encoded) > LONGEST_TEXT,
        expires_at=now + RETENTION,
    )


def describe(record: KeptMessage) -> dict[str, str]:
    """The detail of the timeline entry of a message in quarantine."""
    why = "; ".join(record.reasons)[:LONGEST_REASON]
    return {"action": record.action, "message": record.message_id, "why": why}


def _quarantine(
    snapshot: Snapshot,
    message: ReceivedMessage,
    reasons: Sequence[str],
    distinct: Sequence[str],
    context: DecisionContext,
) -> Snapshot:
    """Keep the message and tell the operator in the timeline, unless the same was kept today."""
    kind = _digest("quarantined", message.action, *distinct)
    noted = _note(snapshot, kind, context, most=MOST_KEPT)
    if noted is None:
        return snapshot
    record = build_kept_message(
        message, reasons, context.now, kind=kind, is_quarantined=True, tags=_find_tags(snapshot)
    )
    return noted.add_records(record).add_timeline_entry(QUARANTINED, context, **describe(record))


def _note(snapshot: Snapshot, kind: str, context: DecisionContext, *, most: int) -> Snapshot | None:
    """The snapshot in which the station has noted that the kind was kept today; None if it was before, or if as many
    were kept as may be."""
    today = context.now.date()
    noted = snapshot.station.kept_today
    if noted is None or noted.day != today:
        noted = KeptToday(day=today)
    if kind in noted.kinds or len(noted.kinds) >= most:
        return None
    return replace(snapshot, station=replace(snapshot.station, kept_today=replace(noted, kinds=(*noted.kinds, kind))))


def _find_kinds(reasons: Sequence[str]) -> list[str]:
    """The reasons without the numbers in them, which differ from message to message."""
    return sorted({_NUMBER.sub("#", reason) for reason in reasons})


def _find_tags(snapshot: Snapshot) -> list[str]:
    """The tags that the station's connectors know, and what a station that cuts them makes of them."""
    held = [
        known.id_tag for c in snapshot.connectors.values() for known in (c.transaction, c.lock) if known is not None
    ]
    held += [c.lock.refused_tag for c in snapshot.connectors.values() if c.lock is not None and c.lock.refused_tag]
    return list(dict.fromkeys(text for tag in held for text in (tag, tag[:SHORTEST_CUT])))


def _digest(*parts: str) -> str:
    return f"{zlib.crc32(repr(parts).encode('utf-8', 'replace')):08x}"
