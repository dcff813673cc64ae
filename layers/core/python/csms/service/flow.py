"""The one way through the house: run a decision, then walk what its commit owes. Performing an item is again load,
decide and commit, and may add to the list; nothing calls itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from csms.commands import calls
from csms.errors import Unreachable
from csms.model import Effect, EffectKind, Needs, OutboundCall, Presence, Reservation, Snapshot, Station
from csms.service.dispatch import Dispatch, refuse_unspeakable
from csms.service.outbox import Changed, Move, Outbox
from csms.service.unit_of_work import Committed, Decide, Look, UnitOfWork
from csms.service.work import Work


@dataclass(frozen=True, slots=True)
class SendCommand:
    """A command to hand to the station's socket now."""

    presence: Presence | None
    call: OutboundCall


@dataclass(frozen=True, slots=True)
class PerformEffect:
    """A provider's call, or a receipt, to be made now."""

    effect: Effect


Owed = SendCommand | PerformEffect


class Flow:
    """What every entry point is made of."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.units = UnitOfWork(work, partial(refuse_unspeakable, work.dialects))
        self.dispatch = Dispatch(work, self.units)
        self.outbox = Outbox(work, self.units)

    def commit(
        self,
        station_id: str,
        decide: Decide,
        needs: Callable[[Snapshot], Needs] = lambda _snapshot: Needs(),
        *,
        look: Look = lambda snapshot: snapshot,
        absent: Station | None = None,
    ) -> Committed:
        """What was read and what was decided on it, committed, and what it owes done."""
        committed = self.units.run(station_id, decide, needs, look=look, absent=absent)
        self.walk(committed)
        return committed

    def change(self, held: Reservation, move: Move, *, kind: EffectKind | None = None) -> Reservation:
        """The reservation after the move, and what that owes done (Outbox.change)."""
        return self.finish(self.outbox.change(held, move, kind=kind))

    def finish(self, changed: Changed) -> Reservation:
        """The reservation, after what its change owes was done."""
        if changed.committed is not None:
            self.walk(changed.committed)
        return changed.reservation

    def walk(self, committed: Committed) -> None:
        """What a commit owes is done now, and what that owes in turn. What fails is still owed: the sweep does it."""
        waiting = deque(self._owed(committed))
        while waiting:
            more = self._perform(waiting.popleft())
            if more is not None:
                waiting.extend(self._owed(more))

    def _owed(self, committed: Committed) -> Iterator[Owed]:
        """One command at most (note F43), and the calls for reservations that nobody else makes first."""
        before, outcome = committed.before, committed.outcome
        call = calls.choose_next(before, outcome, self.work.now())
        if call is not None:
            yield SendCommand(before.presence, call)
        for effect in outcome.effects:
            if effect.kind is EffectKind.OPEN_CHECKOUT or effect.due_at is None or effect.attempts > effect.spent:
                continue  # A checkout is its creator's to open, what was given up waits for a human, and what was
                # just put off for its time.
            if effect.kind is not EffectKind.EMAIL_RECEIPT or self.work.mailer is not None:
                yield PerformEffect(effect)

    def _perform(self, item: Owed) -> Committed | None:
        match item:
            case SendCommand(presence, call):
                return self.dispatch.send(presence, call)
            case PerformEffect(effect) if self.work.provider is not None:
                return self.outbox.perform(effect).committed
            case PerformEffect(effect):
                self._ask(effect)
        return None

    def _ask(self, effect: Effect) -> None:
        """Whoever has a payment provider is asked to perform it."""
        if self.work.ask is None:
            return
        try:
            self.work.ask(effect)
        except Unreachable as failed:
            self.work.observe("maintenance", {"failed": failed.message})
