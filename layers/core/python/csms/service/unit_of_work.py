"""Load, decide, commit: the way of every change. Nothing is sent here: `Committed` and the table have what the commit
owes, and the caller performs it (service.flow)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from csms.errors import Conflict, NotFound
from csms.model import DecisionContext, Money, Outcome, ReadSet, Reservation, Save, Snapshot, Station
from csms.service.dependencies import Dependencies

ATTEMPTS: Final = 8
LONGEST_PAUSE_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 3.0
"""How long a request waits for the end of a station's line before it tries all the same."""

Decide = Callable[[Snapshot, DecisionContext], Outcome]
Look = Callable[[Snapshot], Snapshot]
Refuse = Callable[[Snapshot, Outcome], None]


class OnTurn(Enum):
    """What a change does while the frames of its station are processed in line (service.line)."""

    WAIT = "wait"
    """Wait for the end of the line, but not for long: a driver or an operator waits for the answer."""

    LEAVE = "leave"
    """Raise Conflict at once, so that the caller joins the line."""

    GO_ON = "go on"
    """Pay no attention: for the holder of the turn, and for what touches nothing that a line does."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The snapshot that was read, and the outcome that was decided on it and stored."""

    before: Snapshot
    outcome: Outcome

    @property
    def after(self) -> Snapshot:
        """The snapshot after the decision."""
        return self.outcome.after or self.before

    @property
    def stored(self) -> Snapshot:
        """The snapshot after the decision, with presence and CALLs in the versions that are stored now."""
        saved = {call.call_id: call for call in self.outcome.calls}
        return replace(
            self.after,
            presence=self.outcome.presence or self.after.presence,
            calls=tuple(saved.get(call.call_id, call) for call in self.after.calls),
        )


class UnitOfWork:
    """Runs one change at a time; `refuse` raises for an outcome that must not be stored."""

    def __init__(self, dependencies: Dependencies, refuse: Refuse) -> None:
        self._dependencies = dependencies
        self._refuse = refuse

    def run(
        self,
        station_id: str,
        decide: Decide,
        find_read_set: Callable[[Snapshot], ReadSet] = lambda _snapshot: ReadSet(),
        *,
        look: Look = lambda snapshot: snapshot,
        absent: Station | None = None,
        attempts: int = ATTEMPTS,
        on_turn: OnTurn = OnTurn.GO_ON,
    ) -> Committed:
        """Load, decide and commit; if somebody else changed the data first, do it all again.

        `look` may ask the outside before each decision, which itself does no I/O, and returns the snapshot to decide
        on. `absent` stands in for a station that is not registered.

        Raises NotFound for such a station without `absent`, and Conflict if others changed the data first in every
        attempt.
        """
        patient_until = time.monotonic() + LONGEST_WAIT_SECONDS
        for attempt in range(attempts):
            before = self._load(station_id, find_read_set, absent)
            while on_turn is not OnTurn.GO_ON and _is_turn_held(before, self._dependencies):
                if on_turn is OnTurn.LEAVE:
                    raise Conflict("Frames of this station are processed in line.")
                if time.monotonic() >= patient_until:
                    break
                _pause(attempt)
                before = self._load(station_id, find_read_set, absent)
            # A difference that is still there in the last attempt is stored so, and not caused by reading.
            if before.is_inconsistent and attempt + 1 < attempts:
                self._dependencies.observe("torn", {"attempt": attempt + 1})
                _pause(attempt)
                continue
            outcome = decide(look(before), self._dependencies.build_context())
            self._refuse(before, outcome)
            try:
                self._dependencies.store.commit(outcome.writes)
            except Conflict:
                self._dependencies.observe("conflict", {"attempt": attempt + 1})
                _pause(attempt)
                continue
            self._observe_outcome(before, outcome)
            return Committed(before, outcome)
        raise Conflict("Others changed the same data at the same time. Try again.")

    def preview(
        self,
        station_id: str,
        decide: Decide,
        find_read_set: Callable[[Snapshot], ReadSet],
        *,
        absent: Station | None = None,
    ) -> Committed:
        """What the decision would be now; nothing is stored."""
        before = self._load(station_id, find_read_set, absent)
        return Committed(before, decide(before, self._dependencies.build_context()))

    def _load(self, station_id: str, find_read_set: Callable[[Snapshot], ReadSet], absent: Station | None) -> Snapshot:
        """The station's snapshot, or one of `absent`, with what the decision needs besides."""
        try:
            snapshot = self._dependencies.store.snapshot(station_id)
        except NotFound:
            if absent is None:
                raise
            snapshot = Snapshot(station=absent)
        return self._dependencies.store.complete(snapshot, find_read_set(snapshot))

    def _observe_outcome(self, before: Snapshot, outcome: Outcome) -> None:
        """Observe the verdicts of the busy rule, a transaction that a station does not stop, and a payment that has
        come under review."""
        for verdict in outcome.verdicts:
            self._dependencies.observe("decision", verdict)
        for number, connector in (outcome.after or before).connectors.items():
            asked, request = before.connector(number).stop_request, connector.stop_request
            if request is not None and request.refused_at is not None and (asked is None or asked.refused_at is None):
                self._dependencies.observe(
                    "stopNotObeyed",
                    {
                        "station": connector.station_id,
                        "connector": number,
                        "transaction": request.transaction_id,
                        "unpaidWh": request.unpaid_wh,
                    },
                )
        if before.reservation is None or before.reservation.money is Money.NEEDS_REVIEW:
            return
        for write in outcome.writes:
            match write:
                case Save(Reservation(money=Money.NEEDS_REVIEW) as held):
                    self._dependencies.observe("needsReview", {"reservation": held.reservation_id, "why": held.review})


def _is_turn_held(before: Snapshot, dependencies: Dependencies) -> bool:
    return before.turn is not None and before.turn.is_held(dependencies.now())


def _pause(attempt: int) -> None:
    """Wait for a short random time, so that writers who collided do not collide again."""
    time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS * (attempt + 1)))  # noqa: S311 - no secret depends on it
