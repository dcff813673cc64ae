"""The one way through the house: run a decision, then walk what its commit owes. Performing an item is again load,
decide and commit, and may add to the list; nothing calls itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from csms.commands import calls
from csms.errors import Unreachable
from csms.model import OutboundCall, OutboxItem, OutboxKind, Presence, ReadSet, Reservation, Snapshot, Station
from csms.service.dependencies import Dependencies
from csms.service.dispatch import Dispatch, refuse_unsupported_commands
from csms.service.outbox import Changed, Move, Outbox
from csms.service.unit_of_work import Committed, Decide, Look, UnitOfWork


@dataclass(frozen=True, slots=True)
class SendCommand:
    """A command to hand to the station's socket now."""

    presence: Presence | None
    call: OutboundCall


@dataclass(frozen=True, slots=True)
class PerformOutboxItem:
    """A provider's call, or a receipt, to be made now."""

    outbox_item: OutboxItem


Owed = SendCommand | PerformOutboxItem


class Flow:
    """What every entry point is made of."""

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.units = UnitOfWork(dependencies, partial(refuse_unsupported_commands, dependencies.dialects))
        self.dispatch = Dispatch(dependencies, self.units)
        self.outbox = Outbox(dependencies, self.units)

    def commit(
        self,
        station_id: str,
        decide: Decide,
        find_read_set: Callable[[Snapshot], ReadSet] = lambda _snapshot: ReadSet(),
        *,
        look: Look = lambda snapshot: snapshot,
        absent: Station | None = None,
    ) -> Committed:
        """What was read and what was decided on it, committed, and what it owes done."""
        committed = self.units.run(station_id, decide, find_read_set, look=look, absent=absent)
        self.walk(committed)
        return committed

    def change(self, held: Reservation, move: Move, *, kind: OutboxKind | None = None) -> Reservation:
        """The reservation after the move, and what that owes done (Outbox.change)."""
        return self.finish(self.outbox.change(held, move, kind=kind))

    def finish(self, changed: Changed) -> Reservation:
        """The reservation, after what its change owes was done."""
        if changed.committed is not None:
            self.walk(changed.committed)
        return changed.reservation

    def walk(self, committed: Committed) -> None:
        """What a commit owes is done now, and what that owes in turn. What fails is still owed: the sweep does it."""
        waiting = deque(self._find_owed(committed))
        while waiting:
            more = self._perform(waiting.popleft())
            if more is not None:
                waiting.extend(self._find_owed(more))

    def _find_owed(self, committed: Committed) -> Iterator[Owed]:
        """One command at most (note F43), and the calls for reservations that nobody else makes first."""
        before, outcome = committed.before, committed.outcome
        call = calls.choose_next(before, outcome, self.dependencies.now())
        if call is not None:
            yield SendCommand(before.presence, call)
        for outbox_item in outcome.outbox_items:
            if (
                outbox_item.kind is OutboxKind.OPEN_CHECKOUT
                or outbox_item.due_at is None
                or outbox_item.attempts > outbox_item.spent
            ):
                continue  # A checkout is its creator's to open, what was given up waits for a human, and what was
                # just put off for its time.
            if outbox_item.kind is not OutboxKind.EMAIL_RECEIPT or self.dependencies.mailer is not None:
                yield PerformOutboxItem(outbox_item)

    def _perform(self, item: Owed) -> Committed | None:
        match item:
            case SendCommand(presence, call):
                return self.dispatch.send(presence, call)
            case PerformOutboxItem(outbox_item) if self.dependencies.provider is not None:
                return self.outbox.perform(outbox_item).committed
            case PerformOutboxItem(outbox_item):
                self._trigger_maintenance(outbox_item)
        return None

    def _trigger_maintenance(self, outbox_item: OutboxItem) -> None:
        """Whoever has a payment provider is asked to perform it."""
        if self.dependencies.trigger_maintenance is None:
            return
        try:
            self.dependencies.trigger_maintenance(outbox_item)
        except Unreachable as failed:
            self.dependencies.observe("maintenance", {"failed": failed.message})
