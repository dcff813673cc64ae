"""The four steps that every entry point takes, and the speaking that follows a commit.

What is spoken was stored as owed in the same commit, so nothing here has to succeed: what was not said is said again by
the sweep.
"""

from __future__ import annotations

import base64
import random
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from csms import ocpp16, ocppj, payments, receipt, schemas, settlement
from csms.errors import Conflict, ConnectionGone, CsmsError, NotFound, PaymentRefused, PaymentUnavailable, Unreachable
from csms.gateway import Gateway
from csms.mail import Mailer
from csms.model import (
    CallState,
    Drop,
    Effect,
    EffectKind,
    Fresh,
    Moment,
    Money,
    Needs,
    OutboundCall,
    Outcome,
    Policy,
    Presence,
    Reservation,
    Save,
    Snapshot,
    Station,
    decided,
)
from csms.provider import Payment, PaymentProvider, PaymentStatus
from csms.receipt import Issuer
from csms.store import Store

ATTEMPTS: Final = 4
LONGEST_PAUSE_SECONDS: Final = 0.05

Decide = Callable[[Snapshot, Moment], Outcome]
Observe = Callable[[str, Mapping[str, Any]], None]


def fresh_ids() -> Fresh:
    """Ids nobody has used: the id tag has 95 random bits in 20 characters without underscore (note F28), the
    transaction id is 1 to 2^31-1."""
    return Fresh(
        reservation_id=uuid.uuid4().hex,
        id_tag="W" + base64.b32encode(secrets.token_bytes(15)).decode()[:19],
        transaction_id=secrets.randbelow(2**31 - 1) + 1,
        call_id=str(uuid.uuid4()),
        epoch=secrets.token_hex(4),
    )


def utc_now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)


def unobserved(_what: str, _facts: Mapping[str, Any]) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything an entry point works with. Without `provider` owed payments are left to `ask`, which wakes whoever has
    one; without `mailer` receipts are left to the sweep."""

    store: Store
    policy: Policy = field(default_factory=Policy)
    gateway: Gateway | None = None
    provider: PaymentProvider | None = None
    mailer: Mailer | None = None
    issuer: Issuer = field(default_factory=Issuer)
    ask: Callable[[Effect], None] | None = None
    public_url: str = ""
    now: Callable[[], datetime] = utc_now
    fresh: Callable[[], Fresh] = fresh_ids
    observe: Observe = unobserved

    def moment(self) -> Moment:
        """The time and unused ids, for one decision."""
        return Moment(now=self.now(), fresh=self.fresh(), policy=self.policy)

    def carry_out(
        self,
        station_id: str,
        decide: Decide,
        needs: Callable[[Snapshot], Needs] = lambda _snapshot: Needs(),
        *,
        speak: bool = True,
        absent: Station | None = None,
    ) -> Outcome:
        """The outcome of the decision, committed and spoken; taken anew on what is there now when somebody else was
        first. `absent` stands in for a station that is not registered; without it that is NotFound."""
        for attempt in range(ATTEMPTS):
            before = self._loaded(station_id, absent)
            before = self.store.complete(before, needs(before))
            if before.torn and attempt + 1 < ATTEMPTS:  # What still differs then was not read apart: it is so.
                self.observe("torn", {"attempt": attempt + 1})
                _pause(attempt)
                continue
            outcome = decide(before, self.moment())
            try:
                self.store.commit(outcome.writes)
            except Conflict:
                self.observe("conflict", {"attempt": attempt + 1})
                _pause(attempt)
                continue
            for verdict in outcome.verdicts:
                self.observe("decision", verdict)
            self._tell_review(before, outcome)
            if speak:
                self._speak(before, outcome)
            return outcome
        raise Conflict("Others kept changing it first.")

    def change(
        self,
        held: Reservation,
        move: Callable[[Snapshot, Moment], Snapshot],
        *,
        kind: EffectKind | None = None,
    ) -> Reservation:
        """The reservation after the move; with `kind`, only while that effect is still owed, so that it counts once
        whoever performed it."""

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            owed = kind is None or any(effect.kind is kind for effect in before.effects)
            after = move(before, moment) if owed else before
            return decided(before, after, after.reservation)

        outcome = self.carry_out(
            held.station_id,
            decide,
            lambda _: Needs(reservation_id=held.reservation_id, effects=True),
            absent=departed(held),
        )
        return outcome.reply if isinstance(outcome.reply, Reservation) else held

    def perform(self, effect: Effect) -> Reservation:
        """The reservation after its owed provider call was made, or put off with the reason kept."""
        held = self.store.reservation(effect.reservation_id)
        try:
            return self._performed(held, effect)
        except (PaymentRefused, PaymentUnavailable, Unreachable) as failed:
            self.observe("payment", {"kind": effect.kind, "failed": failed.message})
            return self._put_off(held, effect.kind, failed)

    def open_checkout(self, held: Reservation) -> Reservation:
        """The reservation after its checkout was opened; PaymentRefused or PaymentUnavailable if it was not, with
        nothing noted."""
        return self._performed(held, Effect(reservation_id=held.reservation_id, kind=EffectKind.OPEN_CHECKOUT))

    def look_up(
        self, held: Reservation, seen: Callable[[Snapshot, Payment, Moment], Snapshot] = payments.payment_seen
    ) -> Reservation:
        """The reservation after the provider was asked how its payment stands; PaymentUnavailable or PaymentRefused if
        it gave no answer. A reservation without a checkout has no payment, and is as it was."""
        if held.checkout_id is None:
            return held
        if self.provider is None:
            raise PaymentUnavailable("No payment provider is configured.")
        payment = self.provider.payment(held.checkout_id)
        return self.change(held, lambda before, moment: seen(before, payment, moment))

    def holds(self, held: Reservation, payment: Payment) -> bool:
        """Whether the provider still holds a payment that names this reservation. Only that of its own checkout can be
        asked for; any other is as it was when it was told."""
        if held.checkout_id is None or self.provider is None:
            return True
        known = self.provider.payment(held.checkout_id)
        return known.payment_id != payment.payment_id or known.status is PaymentStatus.AUTHORISED

    def dispatch(self, presence: Presence | None, call: OutboundCall) -> None:
        """The CALL was handed to the station's socket and is waiting for its answer; or the station turned out to be
        gone."""
        if self.gateway is None or presence is None or presence.connection_id is None:
            return
        action, payload = ocpp16.spelled(call)
        schemas.check(presence.protocol, action, payload, response=False)
        frame = ocppj.encode(ocppj.Call(unique_id=call.call_id, action=action, payload=payload), presence.protocol)
        try:
            self.gateway.post(presence.connection_id, frame)
        except ConnectionGone:
            self.observe("socket", {"gone": presence.connection_id})
            self.lost(presence.station_id, presence.connection_id)
            return
        except Unreachable as failed:  # It may have been handed over all the same.
            self.observe("socket", {"failed": failed.message})
            self._noted(replace(call, repeats=True))
            return
        sent = replace(call, state=CallState.SENT, due_at=self.now() + self.policy.call_timeout)
        self._noted(sent)

    def _noted(self, call: OutboundCall) -> None:
        """The CALL is stored as it is now, if nobody changed it meanwhile."""
        try:
            self.store.commit([Save(call)])
        except Conflict:
            self.observe("call", {"answeredBeforeNotedAsSent": call.call_id})

    def lost(self, station_id: str, connection_id: str, *, closed: bool = False) -> None:
        """The station no longer counts as connected, unless it has another connection by now (notes F16, F18); over one
        that was closed, as we were told, nobody speaks any more."""

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            presence = before.presence
            if presence is None or presence.connection_id not in {connection_id, None}:
                return Outcome()
            closed_id = connection_id if closed else presence.closed_id
            gone = replace(before, presence=replace(presence, connection_id=None, closed_id=closed_id))
            was_here = presence.connection_id is not None
            return decided(before, gone.timeline("Disconnected", moment) if was_here else gone)

        try:
            # Nothing can be said to who is gone.
            self.carry_out(station_id, decide, speak=False)
        except NotFound:
            self.observe("socket", {"of a station that was deleted": station_id})

    def _loaded(self, station_id: str, absent: Station | None) -> Snapshot:
        """The station with all that is live of it, or, if nobody registered it, the one that stands in."""
        try:
            return self.store.snapshot(station_id)
        except NotFound:
            if absent is None:
                raise
            return Snapshot(station=absent)

    def _tell_review(self, before: Snapshot, outcome: Outcome) -> None:
        """Whoever watches hears that a payment came in front of a human, because an alarm waits for it."""
        if before.reservation is None or before.reservation.money is Money.NEEDS_REVIEW:
            return
        for write in outcome.writes:
            match write:
                case Save(Reservation(money=Money.NEEDS_REVIEW) as held):
                    self.observe("needsReview", {"reservation": held.reservation_id, "why": held.review})

    def _speak(self, before: Snapshot, outcome: Outcome) -> None:
        """What the commit owes is done now: one CALL at most (note F43), and the provider's calls, or a word to who
        makes them."""
        call = next_call(before, outcome, self.now())
        if call is not None:
            self.dispatch(before.presence, call)
        for effect in outcome.effects:
            if effect.kind is EffectKind.OPEN_CHECKOUT or effect.due_at is None or effect.attempts > effect.spent:
                continue  # A checkout is its creator's to open, what was given up waits for a human, and what was
                # just put off for its time.
            if effect.kind is EffectKind.EMAIL_RECEIPT and self.mailer is None:
                continue
            if self.provider is not None:
                self.perform(effect)
            elif self.ask is not None:
                try:
                    self.ask(effect)
                except Unreachable as failed:
                    self.observe("maintenance", {"failed": failed.message})

    def _performed(self, held: Reservation, effect: Effect) -> Reservation:
        """The reservation after this was done and noted.

        A provider answers a key for ever as it did the first time, its own failures included. So an attempt that was
        noted as failed is followed by one with another key, which is safe because a payment is captured or released
        once whatever the key. A checkout and a refund are not: their key stays, a refund's until a human tries again.
        """
        provider, kind = self.provider, effect.kind
        if provider is None:
            raise PaymentUnavailable("No payment provider is configured.")
        key, attempt = f"{held.reservation_id}:{kind}", effect.attempts
        match kind:
            case EffectKind.OPEN_CHECKOUT:
                order = payments.order(held, public_url=self.public_url, window=self.policy.checkout_window)
                checkout = provider.open_checkout(order, key=key)
                return self.change(held, lambda s, m: payments.checkout_opened(s, checkout, m), kind=kind)
            case EffectKind.EXPIRE_CHECKOUT:
                seen: Payment = provider.expire_checkout(held.checkout_id or "", key=f"{key}:{attempt}")
                return self.change(held, lambda s, m: payments.checkout_expired(s, seen, m), kind=kind)
            case EffectKind.CAPTURE:
                taken = provider.capture(held.payment_id or "", held.capture_amount or 0, key=f"{key}:{attempt}")
                return self.change(held, lambda s, m: settlement.captured(s, taken, m), kind=kind)
            case EffectKind.RELEASE:
                provider.release(held.payment_id or "", key=f"{key}:{attempt}")
                return self.change(held, settlement.released, kind=kind)
            case EffectKind.REFUND:
                over = (held.captured_amount or 0) - (held.amount or 0)
                back = provider.refund(held.payment_id or "", over, key=f"{key}:{over}:{effect.spent}")
                return self.change(held, lambda s, m: settlement.refunded(s, back, m), kind=kind)
            case EffectKind.EMAIL_RECEIPT:
                sent = self._mail_receipt(held, provider)
                return self.change(held, lambda s, m: settlement.receipt_sent(s, m, sent=sent), kind=kind)

    def _mail_receipt(self, held: Reservation, provider: PaymentProvider) -> bool:
        """Whether the receipt was handed to the mail service, because the driver gave an address and there is a
        service; Unreachable if it was not taken."""
        address = provider.email(held.checkout_id or "")
        if address is None or self.mailer is None:
            self.observe("receipt", {"reservation": held.reservation_id, "sent": False})
            return False
        self.mailer.send(address, receipt.mail(receipt.of(held, self.issuer), public_url=self.public_url))
        return True

    def _put_off(self, held: Reservation, kind: EffectKind, failed: CsmsError) -> Reservation:
        """The reservation whose owed call is due again later, or in front of a human."""
        final, why = isinstance(failed, PaymentRefused), failed.message
        return self.change(held, lambda s, m: settlement.put_off(s, kind, why, m, final=final), kind=kind)


def departed(held: Reservation) -> Station:
    """What stands in for a station that was deleted before its last reservations were settled."""
    return Station(
        station_id=held.station_id, identity=held.identity, password_hash="", connectors=(), tariff=held.tariff
    )


def _pause(attempt: int) -> None:
    """A short wait of chance length, so that those who collided do not collide again."""
    time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS * (attempt + 1)))  # noqa: S311 - it guards nothing


def next_call(before: Snapshot, outcome: Outcome, now: datetime) -> OutboundCall | None:
    """The CALL to send after this outcome: the oldest one waiting, if none is unanswered and it is new, was lost or has
    just got its turn."""
    dropped = {w.entity.call_id for w in outcome.writes if isinstance(w, Drop) and isinstance(w.entity, OutboundCall)}
    new = {call.call_id: call for call in outcome.calls}
    answered = any(call.state is CallState.PROMISED for call in new.values()) or any(
        isinstance(w, Drop) and isinstance(w.entity, OutboundCall) and w.entity.state is CallState.SENT
        for w in outcome.writes
    )
    known = {call.call_id: call for call in before.calls if call.call_id not in dropped} | new
    if any(call.state is CallState.SENT and now < call.due_at for call in known.values()):
        return None
    waiting = [call for call in known.values() if call.state is CallState.QUEUED and now < call.expires_at]
    ready = [c for c in waiting if c.send_at <= now and (answered or c.call_id in new or c.due_at <= now)]
    return min(ready, key=lambda call: (call.call_id in new, call.due_at), default=None)
