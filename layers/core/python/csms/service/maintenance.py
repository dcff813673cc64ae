"""What the clock does: end what ran out of time, perform what is owed. Correctness never waits for it (note F72); money
and courtesy do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from csms import payments, reservation, status, transaction
from csms.errors import BadRequest
from csms.model import (
    CallState,
    Command,
    Connector,
    Effect,
    EffectKind,
    Moment,
    Needs,
    OutboundCall,
    Outcome,
    Reservation,
    Snapshot,
    decided,
    zulu,
)
from csms.service.reconciliation import Reconciliation, reconcile
from csms.service.work import Work, departed
from csms.store import DUE_SHARDS, Due, Unreadable

DEEDS: Final[Mapping[EffectKind, str]] = {
    EffectKind.OPEN_CHECKOUT: "end its reservation as Failed and close the checkout",
    EffectKind.EXPIRE_CHECKOUT: "close the checkout",
    EffectKind.CAPTURE: "capture the bill",
    EffectKind.RELEASE: "release the hold",
    EffectKind.REFUND: "refund what was captured too much",
    EffectKind.EMAIL_RECEIPT: "mail the receipt",
}
"""What a sweep does about each thing that is owed, in a dry run's words."""

MOST_FAILED: Final = 250
"""In one shard, before a sweep leaves the rest of it to the next: a sweep ends, whatever is wrong."""


@dataclass(slots=True, kw_only=True)
class Sweep:
    """What one sweep found and did; `failed` names what could not be done and is due again; `planned` is a dry
    run's."""

    done: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        """One more of these was handled."""
        self.done[what] = self.done.get(what, 0) + 1


@dataclass(slots=True, kw_only=True)
class _Turns:
    """A shard of what is due, and how much of it a sweep may still do and may still fail at."""

    items: Iterator[Due]
    left: int
    patience: int = MOST_FAILED

    def item(self) -> Due | None:
        """The next one; None when all is done, or enough."""
        return next(self.items, None) if self.left > 0 and self.patience > 0 else None

    def took(self, *, done: bool) -> None:
        """What fails takes nothing away from what is due behind it, as long as there is patience."""
        self.left -= done
        self.patience -= not done


class Maintenance:
    """The clock's side of the service; its Work has a payment provider."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def sweep(self, *, limit: int = 100, dry_run: bool = False) -> Sweep:
        """What was due is done, at most `limit` in each shard and each for itself: one that fails is reported, and
        neither stops the rest nor stands in its way (note F73). The shards take turns, so that what is slow in one
        costs the others nothing."""
        report, now = Sweep(), self._work.now()
        shards = deque(
            _Turns(items=self._work.store.due(now, shard=shard, page=limit), left=limit) for shard in range(DUE_SHARDS)
        )
        while shards:
            turns = shards.popleft()
            item = turns.item()
            if item is None:
                continue
            turns.took(done=self._planned(item, report) if dry_run else self._done(item, report))
            shards.append(turns)
        return report

    def reconcile(self) -> Reconciliation:
        """Our books against the provider's (service.reconciliation)."""
        return reconcile(self._work)

    def perform(self, reservation_id: str, kind: EffectKind) -> str:
        """What became of one owed provider call, asked for by name: done, put off, or nothing owed."""
        effect = self._work.store.effect(reservation_id, kind)
        if effect is None:
            return "nothing owed"
        self._work.perform(effect)
        return "put off" if self._work.store.effect(reservation_id, kind) is not None else "done"

    def _planned(self, item: Due, report: Sweep) -> bool:
        """Whether a sweep might do it; what it would do is in the report."""
        try:
            report.planned.append(planned(item, self._work.moment()))
        except Exception as failed:  # so would the sweep
            report.planned.append(f"{_named(item)}: would fail: {type(failed).__name__}: {failed}")
            return False
        return not isinstance(item, Unreadable)

    def _done(self, item: Due, report: Sweep) -> bool:
        """Whether it was done, which is in the report."""
        try:
            self._handle(item)
        except Exception as failed:  # whatever is wrong with this one, the others are due too
            report.failed.append(f"{_named(item)}: {type(failed).__name__}: {failed}")
            return False
        report.count(type(item).__name__)
        return True

    def _handle(self, item: Due) -> None:
        match item:
            case Reservation():
                self._work.change(item, payments.expired)
            case Effect():
                self._perform(item)
            case OutboundCall():
                self._work.carry_out(
                    item.station_id,
                    lambda before, moment: chased(before, item, moment),
                    lambda s: status.awaited(s, item),
                )
            case Connector():
                number = item.connector_id
                self._work.carry_out(
                    item.station_id, lambda before, moment: tidied(before, number, moment), lambda s: _held(s, number)
                )
            case Unreadable():
                raise BadRequest(item.why)

    def _perform(self, effect: Effect) -> None:
        """The effect is performed. A checkout nobody was sent to is closed rather than handed out: its driver has
        left."""
        if effect.kind is EffectKind.OPEN_CHECKOUT:
            held = self._work.store.reservation(effect.reservation_id)
            self._work.change(
                held,
                lambda s, m: payments.checkout_failed(s, "The checkout was not opened in time.", m),
                kind=effect.kind,
            )
        self._work.perform(effect)


def planned(item: Due, moment: Moment) -> str:
    """What a sweep would do with the item now, in one line."""
    match item:
        case Reservation():
            return f"{_named(item)}: would {_ending(item, moment)}"
        case Effect():
            return f"{_named(item)}: would {DEEDS[item.kind]}, attempt {item.attempts + 1}"
        case OutboundCall():
            return f"{_named(item)}: would {_speaking(item, moment)}"
        case Connector():
            return f"{_named(item)}: would {_tidying(item, moment)}"
        case Unreadable():
            return f"{_named(item)}: cannot be read: {item.why}"


def _ending(held: Reservation, moment: Moment) -> str:
    """What becomes of a reservation whose time ran out."""
    before = Snapshot(station=departed(held), reservation=held)
    after = payments.expired(before, moment)
    since = f"{held.state} since its time ran out at {zulu_or_never(held.due_at)}"
    if after == before:
        return "leave it as it is"
    ended = reservation.of(after)
    if ended.state is held.state:
        return f"close its checkout before it ends, {since}"
    return f"end as {', '.join(filter(None, (ended.state, ended.failure_code)))}, {since}"


def _speaking(call: OutboundCall, moment: Moment) -> str:
    """What becomes of a CALL that waits for its turn or for its answer."""
    if _over(call, moment):
        asks = ", and ask how the connector is if its driver still waits"
        lost = call.command is Command.REMOTE_START and call.state is CallState.SENT
        return f"give up {call.command}, {call.state}{asks if lost else ''}"
    if call.state is CallState.QUEUED:
        return f"send {call.command} if the station owes no answer, or keep it until it is back if it is away"
    return f"leave {call.command}, {call.state}"


def _tidying(connector: Connector, moment: Moment) -> str:
    """What becomes of a connector on which nothing moves any more."""
    running = connector.transaction
    if connector.due_at is None or moment.now < connector.due_at:
        return "leave it as it is"
    if running is None:
        return "release its status"
    if running.ends_at is not None and running.ends_at <= moment.now:
        return "close its transaction and have the station stop it"
    return "close its transaction"


def chased(before: Snapshot, call: OutboundCall, moment: Moment) -> Outcome:
    """A CALL that was not answered in time, or is pointless by now, is given up (which proves nothing, note F25); what
    still waits is sent after the commit, or when a station that is away is back. A status that was asked for in vain
    keeps nobody waiting."""
    known = next((c for c in before.calls if c.call_id == call.call_id), None)
    if known is None:
        return decided(before, before)
    others = tuple(c for c in before.calls if c.call_id != call.call_id)
    if not _over(known, moment):
        away = before.presence is None or before.presence.connection_id is None
        if not away or known.state is not CallState.QUEUED:
            return decided(before, before)
        waits = replace(known, due_at=known.expires_at)
        return decided(before, replace(before, calls=(*others, waits)), requires=(before.presence,))
    after = replace(before, calls=others)
    if known.command is Command.TRIGGER_STATUS and known.connector_id is not None:
        after = status.untold(after, known.connector_id, moment)
    if known.command is Command.REMOTE_START and known.state is CallState.SENT:
        after = status.unanswered(after, known, moment)
    return decided(before, after)


def tidied(before: Snapshot, connector_id: int, moment: Moment) -> Outcome:
    """A connector whose transaction is over in all but name is freed of it; else its stale status is released."""
    return decided(before, status.released(transaction.overdue(before, connector_id, moment), connector_id, moment))


def zulu_or_never(at: datetime | None) -> str:
    """The time as text."""
    return "never" if at is None else zulu(at)


def _held(snapshot: Snapshot, connector_id: int) -> Needs:
    running = snapshot.connector(connector_id).transaction
    if running is None:
        return Needs()
    return Needs(reservation_id=running.reservation_id, transaction_ids=(running.transaction_id,))


def _named(item: Due) -> str:
    match item:
        case Reservation():
            return f"Reservation {item.reservation_id}"
        case Effect():
            return f"Effect {item.reservation_id} {item.kind}"
        case OutboundCall():
            return f"Call {item.station_id} {item.command} {item.call_id}"
        case Connector():
            return f"Connector {item.station_id} {item.connector_id}"
        case Unreadable():
            return f"Item {' '.join(item.key)}"


def _over(call: OutboundCall, moment: Moment) -> bool:
    """Whether nothing more is to be expected of the CALL."""
    if moment.now >= call.expires_at:
        return True
    return call.state is not CallState.QUEUED and moment.now >= call.due_at
