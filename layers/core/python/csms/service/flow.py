"""Every change goes this way: commit a decision, then perform what the commit owes. Performing an item commits again,
which may owe more; a queue holds what is still to be done."""

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
    """A command to send over the station's socket now."""

    presence: Presence | None
    call: OutboundCall


@dataclass(frozen=True, slots=True)
class PerformOutboxItem:
    """A provider call or a receipt to perform now."""

    outbox_item: OutboxItem


Owed = SendCommand | PerformOutboxItem


class Flow:
    """Commits decisions and performs what they owe; every service uses it."""

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
        """Load, decide and commit, then perform what the commit owes. Parameters and errors: UnitOfWork.run."""
        committed = self.units.run(station_id, decide, find_read_set, look=look, absent=absent)
        self.walk(committed)
        return committed

    def change(self, held: Reservation, move: Move, *, kind: OutboxKind | None = None) -> Reservation:
        """Change the reservation, then perform what that owes (Outbox.change)."""
        return self.finish(self.outbox.change(held, move, kind=kind))

    def finish(self, changed: Changed) -> Reservation:
        """Perform what the change owes, and return the reservation."""
        if changed.committed is not None:
            self.walk(changed.committed)
        return changed.reservation

    def walk(self, committed: Committed) -> None:
        """Perform what a commit owes, and what that owes in turn. What fails stays owed, and the sweep tries it
        again."""
        waiting = deque(self._find_owed(committed))
        while waiting:
            more = self._perform(waiting.popleft())
            if more is not None:
                waiting.extend(self._find_owed(more))

    def _find_owed(self, committed: Committed) -> Iterator[Owed]:
        """At most one command (note F43), and the outbox items that are to be performed now."""
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
                # The creator opens a checkout; an item that was given up waits for an operator; one that was put off
                # waits until it is due.
                continue
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
        """Ask the maintenance function, which has a payment provider, to perform the item."""
        if self.dependencies.trigger_maintenance is None:
            return
        try:
            self.dependencies.trigger_maintenance(outbox_item)
        except Unreachable as failed:
            self.dependencies.observe("maintenance", {"failed": failed.message})
