"""What the clock does: end what ran out of time, perform what is owed. Correctness never waits for it (note F72); money
and courtesy do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from csms import payments, status, transaction
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
from csms.service.work import Work
from csms.store import Due, Unreadable


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


class Maintenance:
    """The clock's side of the service; its Work has a payment provider."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def sweep(self, *, limit: int = 100, dry_run: bool = False) -> Sweep:
        """What was due is done, each for itself: one that fails is reported, and does not stop the rest (note F73)."""
        report = Sweep()
        for item in self._work.store.due(self._work.now(), limit=limit):
            if dry_run:
                report.planned.append(self._plan(item))
                continue
            try:
                self._handle(item)
            except Exception as failed:  # whatever is wrong with this one, the others are due too
                report.failed.append(f"{_named(item)}: {type(failed).__name__}: {failed}")
            else:
                report.count(type(item).__name__)
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

    def _handle(self, item: Due) -> None:
        match item:
            case Reservation():
                self._work.change(item, payments.expired)
            case Effect():
                self._perform(item)
            case OutboundCall():
                self._work.carry_out(
                    item.station_id, lambda before, moment: chased(before, item, moment), lambda s: chase_needs(s, item)
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

    def _plan(self, item: Due) -> str:
        """What a sweep would do with the item, in one line; nothing is changed."""
        match item:
            case Reservation():
                return f"{_named(item)}: would end, {item.state} since its time ran out at {zulu_or_never(item.due_at)}"
            case Effect():
                return f"{_named(item)}: would {item.kind}, attempt {item.attempts + 1}"
            case OutboundCall():
                return f"{_named(item)}: would send or give up {item.command}, {item.state}"
            case Connector():
                what = "close its transaction" if item.transaction is not None else "release its status"
                return f"{_named(item)}: would {what}"
            case Unreadable():
                return f"{_named(item)}: cannot be read: {item.why}"


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
        waits = replace(known, due_at=known.expires_at) if away and known.state is CallState.QUEUED else known
        return decided(before, replace(before, calls=(*others, waits)))
    after = replace(before, calls=others)
    if known.command is Command.TRIGGER_STATUS and known.connector_id is not None:
        after = status.untold(after, known.connector_id, moment)
    if known.command is Command.REMOTE_START and known.state is CallState.SENT:
        after = status.unanswered(after, known, moment)
    return decided(before, after)


def chase_needs(snapshot: Snapshot, call: OutboundCall) -> Needs:
    """What giving up a CALL has to see: the reservation that waits for the status it asked for."""
    if call.command is not Command.TRIGGER_STATUS or call.connector_id is None:
        return Needs()
    return status.awaited(snapshot, call.connector_id)


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
