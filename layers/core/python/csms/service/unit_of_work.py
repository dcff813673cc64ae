"""Load, decide, commit: the way of every change. Nothing is said here; what a commit owes is in the table and in the
`Committed` that comes back, and whoever entered walks it (service.flow)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from csms.errors import Conflict, NotFound
from csms.model import Moment, Money, Needs, Outcome, Reservation, Save, Snapshot, Station
from csms.service.work import Work

ATTEMPTS: Final = 4
LONGEST_PAUSE_SECONDS: Final = 0.05

Decide = Callable[[Snapshot, Moment], Outcome]
Look = Callable[[Snapshot], Snapshot]
Refuse = Callable[[Snapshot, Outcome], None]


@dataclass(frozen=True, slots=True)
class Committed:
    """What was read, and what was decided on it and stored."""

    before: Snapshot
    outcome: Outcome

    @property
    def after(self) -> Snapshot:
        """The snapshot as it was stored."""
        return self.outcome.after or self.before


class UnitOfWork:
    """One change at a time; `refuse` raises for an outcome that must not be stored."""

    def __init__(self, work: Work, refuse: Refuse) -> None:
        self._work = work
        self._refuse = refuse

    def run(
        self,
        station_id: str,
        decide: Decide,
        needs: Callable[[Snapshot], Needs] = lambda _snapshot: Needs(),
        *,
        look: Look = lambda snapshot: snapshot,
        absent: Station | None = None,
    ) -> Committed:
        """The decision, committed; taken anew on what is there now when somebody else was first.

        `look` asks outside what the decision has to know, and gives it as the snapshot to decide on: a decision itself
        does no I/O. `absent` stands in for a station that is not registered; without it that is NotFound. Conflict when
        others keep changing it first.
        """
        for attempt in range(ATTEMPTS):
            before = self._load(station_id, needs, absent)
            if before.torn and attempt + 1 < ATTEMPTS:  # What still differs then was not read apart: it is so.
                self._work.observe("torn", {"attempt": attempt + 1})
                _pause(attempt)
                continue
            outcome = decide(look(before), self._work.moment())
            self._refuse(before, outcome)
            try:
                self._work.store.commit(outcome.writes)
            except Conflict:
                self._work.observe("conflict", {"attempt": attempt + 1})
                _pause(attempt)
                continue
            self._tell(before, outcome)
            return Committed(before, outcome)
        raise Conflict("Others kept changing it first.")

    def preview(
        self,
        station_id: str,
        decide: Decide,
        needs: Callable[[Snapshot], Needs],
        *,
        absent: Station | None = None,
    ) -> Committed:
        """What the decision would be now, with nothing stored."""
        before = self._load(station_id, needs, absent)
        return Committed(before, decide(before, self._work.moment()))

    def _load(self, station_id: str, needs: Callable[[Snapshot], Needs], absent: Station | None) -> Snapshot:
        """The station with all that is live of it, or the one that stands in, and what the decision needs beside it."""
        try:
            snapshot = self._work.store.snapshot(station_id)
        except NotFound:
            if absent is None:
                raise
            snapshot = Snapshot(station=absent)
        return self._work.store.complete(snapshot, needs(snapshot))

    def _tell(self, before: Snapshot, outcome: Outcome) -> None:
        """Whoever watches hears what was decided, and that a payment came in front of a human."""
        for verdict in outcome.verdicts:
            self._work.observe("decision", verdict)
        if before.reservation is None or before.reservation.money is Money.NEEDS_REVIEW:
            return
        for write in outcome.writes:
            match write:
                case Save(Reservation(money=Money.NEEDS_REVIEW) as held):
                    self._work.observe("needsReview", {"reservation": held.reservation_id, "why": held.review})


def _pause(attempt: int) -> None:
    """A short wait of random length, so that those who collided do not collide again."""
    time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS * (attempt + 1)))  # noqa: S311 - it guards nothing
