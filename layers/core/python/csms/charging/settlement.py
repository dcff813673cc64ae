"""The driver's money: idle time, the bill, and the provider calls that are owed for it.

Money moves only through outbox items (`reservation.add_outbox_item`): each is stored together with its cause, retried
with growing pauses, and put under review when it cannot be done (note F63).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from csms import occupancy
from csms.charging.reservation import (
    Event,
    add_audit_entry,
    add_outbox_item,
    advance_money,
    apply_event,
    can_advance,
    remove_outbox_item,
    require_reservation,
)
from csms.model import ConnectorState, DecisionContext, Money, OutboxKind, Reservation, ReservationState, Snapshot
from csms.ports.payments import Payment
from csms.pricing import tariff

HOUR: Final = timedelta(hours=1)

LONGEST_PAUSE: Final = HOUR
"""The longest pause between two attempts at a provider call."""

ACCRUING: Final = frozenset({ConnectorState.SUSPENDED_BY_CAR})
"""The states that begin idle time: the car takes no energy and is still plugged in (note F68)."""

STILL_PLUGGED_IN: Final = frozenset({ConnectorState.FINISHING, ConnectorState.PLUGGED})
"""States of a plugged-in car that neither begin nor end idle time."""

QUEUE_FLUSH: Final = timedelta(minutes=10)
"""How long after a connect a station may still send what it queued while it was offline."""

OCCUPYING: Final = frozenset({ReservationState.CHARGING, ReservationState.WAITING_FOR_DISCONNECT})

PENDING_MONEY: Final = {
    OutboxKind.CAPTURE: Money.CAPTURING,
    OutboxKind.RELEASE: Money.RELEASING,
    OutboxKind.REFUND: Money.REFUNDING,
}
"""The provider calls that move money, and the state of the money while each is owed."""

CHECKOUTS: Final = frozenset({OutboxKind.OPEN_CHECKOUT, OutboxKind.EXPIRE_CHECKOUT})
"""Calls that are retried until the provider answers: it ends every checkout by itself and then reports that."""

CORRECTED: Final = "Corrected"
UNDERBILLED: Final = "Underbilled"
IMPLAUSIBLE: Final = "ImplausibleEnergy"
"""Flag of a transaction, and of its reservation, whose meter values leave its energy in doubt
(csms.charging.energy)."""


def settle_deadline(payment: Payment, context: DecisionContext) -> datetime:
    """When a session must be settled so that the capture and its retries come before the authorization lapses:
    SETTLE_MARGIN_MINUTES before that, but never in the first half of the authorization's life (note F69)."""
    before = payment.capture_before or context.now + DEFAULT_AUTHORIZATION_LIFE
    return max(before - context.policy.settle_margin, context.now + (before - context.now) / 2)


DEFAULT_AUTHORIZATION_LIFE: Final = timedelta(days=4)
"""How long an authorization is assumed to last if the provider does not say; card schemes grant more."""


def update_idle_time(
    snapshot: Snapshot, connector_id: int, state: ConnectorState, context: DecisionContext
) -> Snapshot:
    """Begin or end a spell of idle time by the reported state: idle time runs while the car is full, over any number of
    spells. A spell begins when the gateway receives the state, and ends by the same clock (note F11)."""
    r = snapshot.reservation
    if r is None or r.connector_id != connector_id or r.state not in OCCUPYING or state in STILL_PLUGGED_IN:
        return snapshot
    if state not in ACCRUING:
        return replace(snapshot, reservation=_close_idle_spell(r, _find_idle_end(snapshot, context)))
    if r.idle_since is not None:
        return snapshot
    return replace(snapshot, reservation=replace(r, idle_since=context.received_at))


def _find_idle_end(snapshot: Snapshot, context: DecisionContext) -> datetime:
    """When a spell of idle time ends that a message ends: at its receipt. But what a station sends soon after it was
    away may be old, and then the spell ends when the station was last heard before, in favor of the driver."""
    seen, r = snapshot.presence, require_reservation(snapshot)
    if seen is None or seen.away_since is None or seen.back_at is None or r.idle_since is None:
        return context.received_at
    if r.idle_since >= seen.back_at or context.received_at - seen.back_at > QUEUE_FLUSH:
        return context.received_at
    return min(context.received_at, seen.away_since)


def apply_stop(
    snapshot: Snapshot, energy_wh: int, context: DecisionContext, *, plugged_in: bool, detail: str | None
) -> Snapshot:
    """End charging: settle the session, or, if idle time is billed and the car is still plugged in, wait for the unplug
    for at most DISCONNECT_LIMIT_MINUTES (note F77)."""
    r = require_reservation(snapshot)
    if not plugged_in or not tariff.has_idle_fee(r.tariff):
        last = min(_find_idle_end(snapshot, context), occupancy.last_seen(snapshot.presence, context.now))
        return settle(snapshot, Event.STOPPED, context, energy_wh=energy_wh, until=last, detail=detail)
    until = context.now + context.policy.disconnect_limit
    return apply_event(
        snapshot,
        Event.STOPPED_PLUGGED_IN,
        context,
        detail=detail,
        stopped_at=context.now,
        energy_wh=energy_wh,
        expires_at=until if r.settle_by is None else max(context.now, min(until, r.settle_by)),
    )


def settle_on_unplug(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Settle the reservation that waits for the unplug on this connector; nothing changes if none does."""
    r = snapshot.reservation
    if r is None or r.connector_id != connector_id or not can_advance(r, Event.UNPLUGGED):
        return snapshot
    return settle(snapshot, Event.UNPLUGGED, context, energy_wh=r.energy_wh, until=_find_idle_end(snapshot, context))


def settle_unheard(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Settle a session that began before others took its connector, and whose stop was never heard, with what its
    transaction metered."""
    r = require_reservation(snapshot)
    known = snapshot.transactions.get(r.transaction_id or "")
    metered_wh = known.energy_wh if known is not None else 0
    seen = occupancy.last_seen(snapshot.presence, context.now)
    return settle(snapshot, Event.STOPPED, context, energy_wh=r.carried_wh + metered_wh, until=seen)


def settle(
    snapshot: Snapshot,
    event: Event,
    context: DecisionContext,
    *,
    energy_wh: int,
    until: datetime,
    detail: str | None = None,
) -> Snapshot:
    """Settle the reservation: count idle time up to `until`, make the bill, and owe its capture, or a release if
    nothing is payable. A bill for energy in doubt is put under review instead of being captured, and has an end (note
    F69)."""
    r = _close_idle_spell(require_reservation(snapshot), until)
    amount = tariff.capturable_amount(r.tariff, energy_wh, r.idle_seconds, authorized=r.authorised_amount or 0)
    facts: dict[str, Any] = {
        "stopped_at": r.stopped_at or context.now,
        "energy_wh": energy_wh,
        "amount": amount,
        "capture_amount": amount,
    }
    if r.money is not Money.AUTHORIZED:
        return apply_event(replace(snapshot, reservation=r), event, context, detail=detail, **facts)
    billed = replace(snapshot, reservation=advance_money(r, Money.CAPTURING if amount else Money.RELEASING))
    ended = apply_event(billed, event, context, detail=detail, **facts)
    owed = add_outbox_item(ended, OutboxKind.CAPTURE if amount else OutboxKind.RELEASE, context)
    if not amount or IMPLAUSIBLE not in r.flags:
        return owed
    supported_wh = max(0, energy_wh - r.unsupported_wh)
    why = f"{IMPLAUSIBLE}: the meter values support {supported_wh} Wh, and up to {energy_wh} Wh are possible."
    reviewed = _put_under_review(_give_up(owed, OutboxKind.CAPTURE, why), why, context)
    decide_by = r.settle_by or context.now + DEFAULT_AUTHORIZATION_LIFE / 2
    return replace(reviewed, reservation=replace(require_reservation(reviewed), decide_by=decide_by))


def doubt_energy(snapshot: Snapshot, unsupported_wh: int, context: DecisionContext, *, why: str) -> Snapshot:
    """Flag the reservation because its meter values do not support so much of its energy."""
    r = require_reservation(snapshot)
    flags = r.flags if IMPLAUSIBLE in r.flags else (*r.flags, IMPLAUSIBLE)
    flagged = replace(r, flags=flags, unsupported_wh=r.unsupported_wh + unsupported_wh)
    return add_audit_entry(replace(snapshot, reservation=flagged), IMPLAUSIBLE, context, detail=why)


def correct_bill(snapshot: Snapshot, energy_wh: int, context: DecisionContext) -> Snapshot:
    """Correct the bill of a session that csms ended, with the energy that the station reported later: lower it and owe
    the refund of the difference. A bill is never raised, only flagged (note F55)."""
    r = require_reservation(snapshot)
    if r.state is not ReservationState.COMPLETED or r.amount is None or energy_wh == r.energy_wh:
        return snapshot
    amount = tariff.capturable_amount(r.tariff, energy_wh, r.idle_seconds, authorized=r.authorised_amount or 0)
    if amount > r.amount:
        flagged = replace(r, flags=(*r.flags, UNDERBILLED))
        return add_audit_entry(replace(snapshot, reservation=flagged), UNDERBILLED, context, detail=f"{energy_wh} Wh")
    unsupported_wh = max(0, r.unsupported_wh - (r.energy_wh - energy_wh))
    lowered = replace(r, amount=amount, energy_wh=energy_wh, unsupported_wh=unsupported_wh, flags=(*r.flags, CORRECTED))
    if r.money is Money.NEEDS_REVIEW and r.captured_amount is None:
        lowered = replace(lowered, capture_amount=amount)
    return _refund_excess(add_audit_entry(replace(snapshot, reservation=lowered), CORRECTED, context), context)


def record_capture(snapshot: Snapshot, payment: Payment, context: DecisionContext) -> Snapshot:
    """Record the captured amount, owe the refund of what exceeds the bill, and owe the receipt if receipts are
    mailed."""
    r = advance_money(
        require_reservation(snapshot),
        Money.CAPTURED,
        review=None,
        captured_amount=payment.captured_amount,
        captured_at=context.now,
    )
    known = add_audit_entry(
        remove_outbox_item(replace(snapshot, reservation=r), OutboxKind.CAPTURE), "Captured", context
    )
    mailed = add_outbox_item(known, OutboxKind.EMAIL_RECEIPT, context) if context.policy.email_receipts else known
    return _refund_excess(mailed, context)


def record_release(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Record that the hold was released."""
    r = advance_money(require_reservation(snapshot), Money.RELEASED, review=None)
    return add_audit_entry(
        remove_outbox_item(replace(snapshot, reservation=r), OutboxKind.RELEASE), "Released", context
    )


def record_refund(snapshot: Snapshot, payment: Payment, context: DecisionContext) -> Snapshot:
    """Record the refunded amount, and owe a new receipt if receipts are mailed."""
    r = advance_money(
        require_reservation(snapshot), Money.CAPTURED, review=None, refunded_amount=payment.refunded_amount
    )
    back = remove_outbox_item(replace(snapshot, reservation=r), OutboxKind.REFUND)
    told = add_audit_entry(back, "Refunded", context, detail=str(payment.refunded_amount))
    return add_outbox_item(told, OutboxKind.EMAIL_RECEIPT, context) if context.policy.email_receipts else told


def record_receipt(snapshot: Snapshot, context: DecisionContext, *, sent: bool = True) -> Snapshot:
    """Remove the owed receipt, because it was mailed or, with `sent` false, because there is no address or no mail
    service."""
    return add_audit_entry(
        remove_outbox_item(snapshot, OutboxKind.EMAIL_RECEIPT), "ReceiptSent" if sent else "ReceiptNotSent", context
    )


def put_off(snapshot: Snapshot, kind: OutboxKind, why: str, context: DecisionContext, *, final: bool) -> Snapshot:
    """Record a failed attempt at an owed call, and retry it later with growing pauses.

    A call that moves money is put under review after its last attempt or a final refusal; any other call is dropped. If
    the provider refuses for good to close a checkout, it has ended the checkout, and the reservation ends too.
    """
    outbox_item = next(outbox_item for outbox_item in snapshot.outbox_items if outbox_item.kind is kind)
    attempts = outbox_item.attempts + 1
    tried = add_audit_entry(snapshot, "AttemptFailed", context, detail=f"{kind} {attempts}: {why}")
    given_up = final or (kind not in CHECKOUTS and attempts - outbox_item.spent >= context.policy.outbox_attempts)
    if given_up and kind not in PENDING_MONEY:
        forgotten = add_audit_entry(remove_outbox_item(tried, kind), "GaveUp", context, detail=f"{kind}: {why}")
        open_still = kind is OutboxKind.EXPIRE_CHECKOUT and can_advance(
            require_reservation(snapshot), Event.PAYMENT_TIMED_OUT
        )
        return (
            remove_outbox_item(apply_event(forgotten, Event.PAYMENT_TIMED_OUT, context), kind)
            if open_still
            else forgotten
        )
    pause = min(context.policy.outbox_lease * 2 ** min(attempts, 12), LONGEST_PAUSE)
    later = replace(outbox_item, attempts=attempts, last_error=why, due_at=None if given_up else context.now + pause)
    after = replace(
        tried,
        outbox_items=tuple(later if outbox_item.kind is kind else outbox_item for outbox_item in snapshot.outbox_items),
    )
    return _put_under_review(after, why, context) if given_up else after


def _close_idle_spell(r: Reservation, at: datetime) -> Reservation:
    """The reservation with its running spell of idle time counted up to `at`."""
    if r.idle_since is None:
        return r
    return replace(r, idle_since=None, idle_seconds=r.idle_seconds + tariff.idle_seconds(r.tariff, r.idle_since, at))


def _refund_excess(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Owe the refund of what was captured beyond the bill and not yet refunded."""
    r = require_reservation(snapshot)
    over = (r.captured_amount or 0) - (r.amount or 0) - r.refunded_amount
    if r.money is not Money.CAPTURED or over <= 0:
        return snapshot
    return add_outbox_item(replace(snapshot, reservation=advance_money(r, Money.REFUNDING)), OutboxKind.REFUND, context)


def _give_up(snapshot: Snapshot, kind: OutboxKind, why: str) -> Snapshot:
    """Stop attempting the owed call until an operator retries it."""
    outbox_items = (replace(e, due_at=None, last_error=why) if e.kind is kind else e for e in snapshot.outbox_items)
    return replace(snapshot, outbox_items=tuple(outbox_items))


def _put_under_review(snapshot: Snapshot, why: str, context: DecisionContext) -> Snapshot:
    """Put the money under review, if a call that moves it is owed."""
    r = require_reservation(snapshot)
    if r.money not in PENDING_MONEY.values():
        return snapshot
    reviewed = advance_money(r, Money.NEEDS_REVIEW, review=why)
    return add_audit_entry(replace(snapshot, reservation=reviewed), "NeedsReview", context, detail=why)
