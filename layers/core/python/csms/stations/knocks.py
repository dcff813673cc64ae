"""Connection attempts that are refused: what is stored of them, and how often.

Whoever sends made-up names or passwords must neither hide the honest ones nor cause many writes. So a process counts in
its memory, and writes of each name now and then, as often as a minute allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from csms.model import (
    RECORD_RETENTION,
    Append,
    InboxSlot,
    RefusalCount,
    RefusedConnection,
    RefusedConnections,
    TimelineEntry,
    UnknownStation,
    fold,
)

RETENTION: Final = timedelta(days=30)
SLOT_RETENTION: Final = timedelta(hours=1)
RETURN_AFTER: Final = timedelta(minutes=5)
"""After that long, a name that comes again counts as one that came back."""
REFUSAL_INTERVAL: Final = timedelta(minutes=1)
EPISODE: Final = timedelta(hours=1)
"""After a pause that long, a refusal for the same reason is in the timeline again."""

NEWCOMER: Final = "new"
RETURNER: Final = "back"
PER_MINUTE: Final = {NEWCOMER: 10, RETURNER: 20}
"""How many unknown stations are written a minute, by all processes together. Those that came back have their own share,
so that new names cannot use it up."""
REFUSALS_PER_MINUTE: Final = 30
"""How many refused connections of registered stations one process writes a minute."""

MOST_REMEMBERED: Final = 10_000
MOST_LATEST: Final = 8
MOST_REASONS: Final = 8
MOST_SUBPROTOCOLS: Final = 8
LONGEST_SUBPROTOCOL: Final = 32
LONGEST_TEXT: Final = 200

WRONG_CREDENTIALS: Final = "Unauthorized"
NO_CREDENTIALS: Final = "NoCredentials"
NO_SUBPROTOCOL: Final = "NoSubprotocol"
NOT_REGISTERED: Final = "UnknownStation"

GUESSES: Final = 5
GUESS_WINDOW: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """Where a connection comes from, as far as it is known: the path it asked for, the viewer's address, and the
    User-Agent header."""

    path: str | None = None
    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """A connection attempt as it is stored: every text short and printable."""

    subprotocols: tuple[str, ...]
    path: str | None
    address: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a process has counted of a name since it wrote it last, and the slot in which it may write it now."""

    kind: str
    minute: datetime
    number: int
    first_at: datetime
    times: int


def build_knock(offered: Iterable[str], handshake: Handshake) -> Knock:
    """The attempt as it is stored."""
    offers = [offer for offer in (one.strip() for one in offered) if offer]
    return Knock(
        subprotocols=tuple(_clean(offer, LONGEST_SUBPROTOCOL) for offer in offers[:MOST_SUBPROTOCOLS]),
        path=_clean_optional(handshake.path),
        address=_clean_optional(handshake.address),
        user_agent=_clean_optional(handshake.user_agent),
    )


def find_reasons(knock: Knock, spoken: Iterable[str], *, has_password: bool) -> tuple[str, ...]:
    """What keeps an unknown station out: that it is unknown, and what would keep it out if it were registered."""
    known = set(spoken)
    is_understood = any(fold(offer) in known for offer in knock.subprotocols)
    return (
        NOT_REGISTERED,
        *(() if is_understood else (NO_SUBPROTOCOL,)),
        *(() if has_password else (NO_CREDENTIALS,)),
    )


def note_unknown_station(
    known: UnknownStation | None,
    identity: str,
    knock: Knock,
    reasons: tuple[str, ...],
    visit: Visit,
    now: datetime,
) -> tuple[Append, ...]:
    """The writes for an unknown station of which `known` is stored; none if that is younger than RETURN_AFTER.

    One that offered an OCPP sub-protocol and came twice within more than RETURN_AFTER is steady from then on, and its
    entry moves to the list of those.
    """
    alive = known if known is not None and known.expires_at > now else None
    if alive is not None and now - alive.last_seen_at < RETURN_AFTER:
        return ()
    first_at = visit.first_at if alive is None else min(visit.first_at, alive.first_seen_at or alive.last_seen_at)
    offers_ocpp = any(fold(offer).startswith("ocpp") for offer in knock.subprotocols)
    is_steady = (alive is not None and alive.is_steady) or (offers_ocpp and now - first_at >= RETURN_AFTER)
    entry = UnknownStation(
        station_id=fold(identity),
        identity=identity,
        is_steady=is_steady,
        first_seen_at=first_at,
        last_seen_at=now,
        times=visit.times + (alive.times if alive is not None else 0),
        subprotocols=knock.subprotocols,
        path=knock.path,
        address=knock.address,
        user_agent=knock.user_agent,
        reasons=reasons,
        expires_at=now + RETENTION,
    )
    if alive is not None and is_steady and not alive.is_steady:
        return Append(entry), Append(replace(alive, expires_at=now))
    return (Append(entry),)


def build_slot(visit: Visit, owner: str) -> Append:
    """The write that takes the visit's slot for the process `owner`, and fails if another process has it."""
    slot = InboxSlot(
        minute=visit.minute,
        kind=visit.kind,
        number=visit.number,
        owner=owner,
        expires_at=visit.minute + SLOT_RETENTION,
    )
    return Append(slot, once=True)


def note_refusal(
    known: RefusedConnections | None, station_id: str, reason: str, knock: Knock, visit: Visit, now: datetime
) -> tuple[Append, ...]:
    """The writes for a connection in a registered station's name that was refused, with a line in the station's
    timeline where the reason is new after EPISODE; none if one for this reason was written less than REFUSAL_INTERVAL
    ago."""
    counts = {one.reason: one for one in known.counts} if known is not None and known.expires_at > now else {}
    latest: Sequence[RefusedConnection] = known.latest if known is not None and counts else ()
    before = counts.get(reason)
    if before is not None and now - before.last_at < REFUSAL_INTERVAL:
        return ()
    counts[reason] = RefusalCount(
        reason=reason,
        times=visit.times + (before.times if before is not None else 0),
        first_at=before.first_at if before is not None else visit.first_at,
        last_at=now,
    )
    attempt = RefusedConnection(
        at=now,
        reason=reason,
        subprotocols=knock.subprotocols,
        path=knock.path,
        address=knock.address,
        user_agent=knock.user_agent,
    )
    newest = sorted(counts.values(), key=lambda one: one.last_at, reverse=True)
    kept = Append(
        RefusedConnections(
            station_id=station_id,
            counts=tuple(newest[:MOST_REASONS]),
            latest=(attempt, *latest)[:MOST_LATEST],
            expires_at=now + RETENTION,
        )
    )
    if before is not None and now - before.last_at < EPISODE:
        return (kept,)
    return kept, Append(_build_timeline_entry(station_id, attempt))


def _build_timeline_entry(station_id: str, attempt: RefusedConnection) -> TimelineEntry:
    said = {"reason": attempt.reason, "address": attempt.address, "userAgent": attempt.user_agent}
    return TimelineEntry(
        station_id=station_id,
        at=attempt.at,
        kind="ConnectionRefused",
        detail={name: value for name, value in said.items() if value is not None},
        expires_at=attempt.at + RECORD_RETENTION,
    )


@dataclass(slots=True)
class _Remembered:
    first_at: datetime
    times: int = 0
    written_at: datetime | None = None


@dataclass(slots=True)
class _Share:
    """What one kind has used of the present minute."""

    minute: datetime
    used: int = 0


@dataclass(slots=True)
class KnockMemory:
    """What this process remembers of those it refused: at most MOST_REMEMBERED names, each written once in `interval`,
    and of each kind so many a minute as `per_minute` says. `offset` is where it begins among the slots of a minute, so
    that several processes do not want the same one."""

    per_minute: dict[str, int]
    interval: timedelta
    offset: int = 0
    _names: dict[str, _Remembered] = field(default_factory=dict)
    _shares: dict[str, _Share] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def note(self, name: str, now: datetime) -> Visit | None:
        """Count the name; the visit if it may be written now."""
        with self._lock:
            known = self._names.pop(name, None) or _Remembered(first_at=now)
            known.times += 1
            if len(self._names) >= MOST_REMEMBERED:
                del self._names[next(iter(self._names))]  # The one that has not come for the longest time.
            self._names[name] = known
            if known.written_at is not None and now - known.written_at < self.interval:
                return None
            came_back = RETURNER in self.per_minute and now - known.first_at >= RETURN_AFTER
            kind = RETURNER if came_back else NEWCOMER
            share = self._find_share(kind, now)
            if share.used >= self.per_minute[kind]:
                return None
            number = (share.used + self.offset) % self.per_minute[kind]
            share.used += 1
            return Visit(kind=kind, minute=share.minute, number=number, first_at=known.first_at, times=known.times)

    def forget_written(self, name: str, visit: Visit, written_at: datetime) -> None:
        """The name was written at that time with what the visit counted."""
        with self._lock:
            known = self._names.get(name)
            if known is not None:
                known.written_at = written_at
                known.times -= visit.times

    def leave(self, name: str, written_at: datetime) -> None:
        """Another process wrote the name at that time: what is counted here stays counted."""
        with self._lock:
            known = self._names.get(name)
            if known is not None:
                known.written_at = written_at

    def use_up(self, visit: Visit) -> None:
        """Write no more of this kind in this minute, because other processes use its slots."""
        with self._lock:
            self._find_share(visit.kind, visit.minute).used = self.per_minute[visit.kind]

    def _find_share(self, kind: str, now: datetime) -> _Share:
        minute = now.replace(second=0, microsecond=0)
        share = self._shares.get(kind)
        if share is None or share.minute < minute:
            share = self._shares[kind] = _Share(minute)
        return share


@dataclass(slots=True)
class Guesses:
    """Counts wrong passwords by station and address, in the memory of this process."""

    _windows: dict[tuple[str, str | None], tuple[datetime, int]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def count(self, station_id: str, address: str | None, now: datetime) -> timedelta | None:
        """Count a wrong password; how long the address is asked to wait if these were more than GUESSES within
        GUESS_WINDOW, else None."""
        key = (station_id, address)
        with self._lock:
            begun, times = self._windows.pop(key, (now, 0))
            if now - begun >= GUESS_WINDOW:
                begun, times = now, 0
            if len(self._windows) >= MOST_REMEMBERED:
                del self._windows[next(iter(self._windows))]
            self._windows[key] = begun, times + 1
            return begun + GUESS_WINDOW - now if times >= GUESSES else None


def _clean_optional(text: str | None) -> str | None:
    return _clean(text, LONGEST_TEXT) if text else None


def _clean(text: str, longest: int) -> str:
    """The beginning of the text, with every character escaped, as in JSON, that is not printed as itself."""
    short = text[:longest]
    if short.isprintable():
        return short
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in short)[:longest]
