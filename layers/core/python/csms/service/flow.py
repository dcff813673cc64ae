"""Every change goes this way: commit a decision, then perform what the commit owes. Performing an item commits again,
which may owe more; a queue holds what is still to be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from csms.errors import Unreachable
from csms.model import CallState, OutboxItem, OutboxKind, ReadSet, Reservation, Snapshot, Station
from csms.service.dependencies import Dependencies
from csms.service.dispatch import Dispatch, refuse_unsupported_commands
from csms.service.outbox import Changed, Move, Outbox
from csms.service.unit_of_work import ATTEMPTS, Committed, Decide, Look, OnTurn, UnitOfWork


@dataclass(frozen=True, slots=True)
class SendNextCommand:
    """The station has commands: send the next one, if none is unanswered. `is_new` says that one was queued now."""

    snapshot: Snapshot
    is_new: bool


@dataclass(frozen=True, slots=True)
class PerformOutboxItem:
    """A provider call or a receipt to perform now."""

    outbox_item: OutboxItem


Owed = SendNextCommand | PerformOutboxItem


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
        attempts: int = ATTEMPTS,
        on_turn: OnTurn = OnTurn.WAIT,
    ) -> Committed:
        """Load, decide and commit, then perform what the commit owes. Parameters and errors: UnitOfWork.run."""
        committed = self.units.run(
            station_id, decide, find_read_set, look=look, absent=absent, attempts=attempts, on_turn=on_turn
        )
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

    def send_next(self, snapshot: Snapshot) -> None:
        """Send the station's next command, and perform what that owes (Dispatch.send_next)."""
        self._walk([SendNextCommand(snapshot, is_new=True)])

    def walk(self, committed: Committed) -> None:
        """Perform what a commit owes, and what that owes in turn. What fails stays owed, and the sweep tries it
        again."""
        self._walk(self._find_owed(committed))

    def _walk(self, owed: Iterable[Owed]) -> None:
        waiting = deque(owed)
        while waiting:
            more = self._perform(waiting.popleft())
            if more is not None:
                waiting.extend(self._find_owed(more))

    def _find_owed(self, committed: Committed) -> Iterator[Owed]:
        """The station's next command (note F43), and the outbox items that are to be performed now."""
        outcome = committed.outcome
        if self.dependencies.gateway is not None and committed.after.calls:
            is_new = any(call.state is CallState.QUEUED for call in outcome.calls)
            yield SendNextCommand(committed.stored, is_new)
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
            case SendNextCommand(snapshot, is_new):
                return self.dispatch.send_next(snapshot, is_new=is_new)
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
