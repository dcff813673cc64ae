"""What the clock does: end what ran out of time, perform what is owed. Correctness never waits for it (note F72); money
and courtesy do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from csms import payments
from csms.errors import CsmsError
from csms.model import (
    CallState,
    Effect,
    EffectKind,
    Moment,
    OutboundCall,
    Outcome,
    Reservation,
    Snapshot,
    decided,
)
from csms.service.work import Work
from csms.store import Due


@dataclass(slots=True, kw_only=True)
class Sweep:
    """What one sweep found and did; `failed` names what could not be done and is due again."""

    done: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        """One more of these was handled."""
        self.done[what] = self.done.get(what, 0) + 1


class Maintenance:
    """The clock's side of the service; its Work has a payment provider."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def sweep(self, *, limit: int = 100) -> Sweep:
        """What was due is done, each for itself: one that fails is reported, and does not stop the rest (note F73)."""
        report = Sweep()
        for item in self._work.store.due(self._work.now(), limit=limit):
            name = (
                f"{type(item).__name__} of {getattr(item, 'reservation_id', None) or getattr(item, 'station_id', '')}"
            )
            try:
                self._handle(item)
            except CsmsError as failed:
                report.failed.append(f"{name}: {failed.code}: {failed.message}")
            else:
                report.count(type(item).__name__)
        return report

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
                self._chase(item)

    def _perform(self, effect: Effect) -> None:
        """The effect is performed. A checkout nobody was sent to is closed rather than handed out: its driver has
        left."""
        if effect.kind is EffectKind.OPEN_CHECKOUT:
            held = self._work.store.reservation(effect.reservation_id)
            self._work.change(held, lambda s, m: payments.checkout_failed(s, "The checkout was not opened in time.", m))
        self._work.perform(effect)

    def _chase(self, call: OutboundCall) -> None:
        """A CALL that was not sent is sent; one that was not answered, or is pointless by now, is given up (note F25:
        which proves nothing)."""

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            stale = tuple(c for c in before.calls if c.call_id == call.call_id and _over(c, moment))
            after = replace(before, calls=tuple(c for c in before.calls if c not in stale))
            return decided(before, after)

        self._work.carry_out(call.station_id, decide)


def _over(call: OutboundCall, moment: Moment) -> bool:
    """Whether nothing more is to be expected of the CALL."""
    if moment.now >= call.expires_at:
        return True
    return call.state is CallState.SENT and moment.now >= call.due_at
