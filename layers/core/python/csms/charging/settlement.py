"""What becomes of the driver's money: idle time, the bill, and what is owed for it until it rests.

Money moves by owed effects only (`reservation.owing`): each is written in the transaction of its cause, tried again
later and later, and goes in front of a human when it cannot be done (note F63).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from csms import occupancy
from csms.charging.reservation import Event, allows, done, happened, noted, of, owing, paid
from csms.errors import IllegalTransition
from csms.model import ConnectorState, EffectKind, Moment, Money, Reservation, ReservationState, Snapshot
from csms.ports.payments import Payment
from csms.pricing import tariff

MICROSECOND: Final = timedelta(microseconds=1)
SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)

LONGEST_PAUSE: Final = HOUR
"""Between two attempts at a provider call."""

ACCRUING: Final = frozenset({ConnectorState.SUSPENDED_BY_CAR})
"""The car is full and still there: idle time, and no other status begins it (note F68)."""

STILL_THERE: Final = frozenset({ConnectorState.FINISHING, ConnectorState.PLUGGED})
"""A car that is still plugged in: what accrued goes on accruing, and what did not does not."""

OCCUPYING: Final = frozenset({ReservationState.CHARGING, ReservationState.WAITING_FOR_DISCONNECT})

MOVES_MONEY: Final = {
    EffectKind.CAPTURE: Money.CAPTURING,
    EffectKind.RELEASE: Money.RELEASING,
    EffectKind.REFUND: Money.REFUNDING,
}
"""The calls that a reservation's money waits for, and where it stands meanwhile."""

CHECKOUTS: Final = frozenset({EffectKind.OPEN_CHECKOUT, EffectKind.EXPIRE_CHECKOUT})
"""Tried until the provider answers: it ends every checkout by itself, and then says so."""

CORRECTED: Final = "Corrected"
UNDERBILLED: Final = "Underbilled"
BILLED_BY_HAND: Final = "BilledByHand"
BY_HAND: Final = "SettledByHand"
IMPLAUSIBLE: Final = "ImplausibleEnergy"
"""Flag of a transaction, and of its reservation, whose energy no charger can have delivered in its time."""


def lapses(payment: Payment, moment: Moment) -> datetime:
    """When a session on this authorisation must be settled, so that the capture and its retries come before it lapses:
    the margin (setting) before, but never in the first half of its life (note F69)."""
    before = payment.capture_before or moment.now + WITHOUT_A_WORD
    return max(before - moment.policy.settle_margin, moment.now + (before - moment.now) / 2)


WITHOUT_A_WORD: Final = timedelta(days=4)
"""How long an authorisation is trusted when the provider does not say when it lapses: the shortest that card schemes
give is longer."""


def idled(snapshot: Snapshot, connector_id: int, state: ConnectorState, at: datetime, moment: Moment) -> Snapshot:
    """The snapshot whose reservation's idle time is running or closed, as the station's status says; it runs while the
    car is full, over any number of spells. `at` is when the station says it changed: that ends a spell, but none begins
    before we heard of it."""
    r = snapshot.reservation
    if r is None or r.connector_id != connector_id or r.state not in OCCUPYING or state in STILL_THERE:
        return snapshot
    if state not in ACCRUING:
        return replace(snapshot, reservation=_idle_closed(r, at))
    return snapshot if r.idle_since is not None else replace(snapshot, reservation=replace(r, idle_since=moment.now))


def stopped(snapshot: Snapshot, energy_wh: int, moment: Moment, *, plugged_in: bool, detail: str | None) -> Snapshot:
    """The snapshot after charging ended: settled, or, where idle time is billed and the car still plugged in, waiting
    to be unplugged until the hard maximum (note F77)."""
    r = of(snapshot)
    if not plugged_in or not tariff.bills_idle(r.tariff):
        seen = occupancy.last_seen(snapshot.presence, moment.now)
        return settle(snapshot, Event.STOPPED, moment, energy_wh=energy_wh, until=seen, detail=detail)
    until = moment.now + moment.policy.disconnect_limit
    return happened(
        snapshot,
        Event.STOPPED_PLUGGED_IN,
        moment,
        detail=detail,
        stopped_at=moment.now,
        energy_wh=energy_wh,
        expires_at=until if r.settle_by is None else max(moment.now, min(until, r.settle_by)),
    )


def unplugged(snapshot: Snapshot, connector_id: int, at: datetime, moment: Moment) -> Snapshot:
    """The snapshot whose waiting reservation is settled because its connector was seen without its car; unchanged if
    none waits there."""
    r = snapshot.reservation
    if r is None or r.connector_id != connector_id or not allows(r, Event.UNPLUGGED):
        return snapshot
    return settle(snapshot, Event.UNPLUGGED, moment, energy_wh=r.energy_wh, until=at)


def settle(
    snapshot: Snapshot, event: Event, moment: Moment, *, energy_wh: int, until: datetime, detail: str | None = None
) -> Snapshot:
    """The snapshot whose reservation is over: the bill is made, idle time counted up to `until`, and the payment is
    owed as a capture, or as a release when nothing is payable. A bill for energy that no charger can have delivered is
    not captured but put in front of a human."""
    r = _idle_closed(of(snapshot), until)
    amount = tariff.payable(r.tariff, energy_wh, r.idle_seconds, authorised=r.authorised_amount or 0)
    facts: dict[str, Any] = {
        "stopped_at": r.stopped_at or moment.now,
        "energy_wh": energy_wh,
        "amount": amount,
        "capture_amount": amount,
    }
    if r.money is not Money.AUTHORISED:
        return happened(replace(snapshot, reservation=r), event, moment, detail=detail, **facts)
    billed = replace(snapshot, reservation=paid(r, Money.CAPTURING if amount else Money.RELEASING))
    ended = happened(billed, event, moment, detail=detail, **facts)
    owed = owing(ended, EffectKind.CAPTURE if amount else EffectKind.RELEASE, moment)
    if not amount or IMPLAUSIBLE not in r.flags:
        return owed
    why = f"{IMPLAUSIBLE}: {energy_wh} Wh is more than a charger can deliver in the time."
    return _needs_review(_give_up(owed, EffectKind.CAPTURE, why), why, moment)


def doubt_energy(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot whose reservation is flagged because no charger can have delivered its energy."""
    r = of(snapshot)
    if IMPLAUSIBLE in r.flags:
        return snapshot
    flagged = replace(snapshot, reservation=replace(r, flags=(*r.flags, IMPLAUSIBLE)))
    return noted(flagged, IMPLAUSIBLE, moment)


def corrected(snapshot: Snapshot, energy_wh: int, moment: Moment) -> Snapshot:
    """The snapshot after the station told, late, what a session that we had ended really took: the bill is lowered and
    what was captured too much is owed back; a bill is never raised, only flagged (note F55)."""
    r = of(snapshot)
    if r.state is not ReservationState.COMPLETED or r.amount is None or energy_wh == r.energy_wh:
        return snapshot
    amount = tariff.payable(r.tariff, energy_wh, r.idle_seconds, authorised=r.authorised_amount or 0)
    if amount > r.amount:
        flagged = replace(r, flags=(*r.flags, UNDERBILLED))
        return noted(replace(snapshot, reservation=flagged), UNDERBILLED, moment, detail=f"{energy_wh} Wh")
    lowered = replace(r, amount=amount, energy_wh=energy_wh, flags=(*r.flags, CORRECTED))
    if r.money is Money.NEEDS_REVIEW and r.captured_amount is None:
        lowered = replace(lowered, capture_amount=amount)
    return _refunded_down(noted(replace(snapshot, reservation=lowered), CORRECTED, moment), moment)


def captured(snapshot: Snapshot, payment: Payment, moment: Moment) -> Snapshot:
    """The snapshot whose bill is paid; what was captured beyond the bill is owed back, and the receipt is owed where
    receipts are mailed."""
    r = paid(of(snapshot), Money.CAPTURED, review=None, captured_amount=payment.captured_amount, captured_at=moment.now)
    known = noted(done(replace(snapshot, reservation=r), EffectKind.CAPTURE), "Captured", moment)
    mailed = owing(known, EffectKind.EMAIL_RECEIPT, moment) if moment.policy.email_receipts else known
    return _refunded_down(mailed, moment)


def released(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot whose hold is gone."""
    r = paid(of(snapshot), Money.RELEASED, review=None)
    return noted(done(replace(snapshot, reservation=r), EffectKind.RELEASE), "Released", moment)


def refunded(snapshot: Snapshot, payment: Payment, moment: Moment) -> Snapshot:
    """The snapshot in which what was captured too much has gone back."""
    r = paid(of(snapshot), Money.CAPTURED, review=None, refunded_amount=payment.refunded_amount)
    back = done(replace(snapshot, reservation=r), EffectKind.REFUND)
    told = noted(back, "Refunded", moment, detail=str(payment.refunded_amount))
    return owing(told, EffectKind.EMAIL_RECEIPT, moment) if moment.policy.email_receipts else told


def receipt_sent(snapshot: Snapshot, moment: Moment, *, sent: bool = True) -> Snapshot:
    """The snapshot that owes no mail any more, because it was sent or because there is nobody to send it to."""
    return noted(done(snapshot, EffectKind.EMAIL_RECEIPT), "ReceiptSent" if sent else "ReceiptNotSent", moment)


def put_off(snapshot: Snapshot, kind: EffectKind, why: str, moment: Moment, *, final: bool) -> Snapshot:
    """The snapshot after an attempt at an owed call failed: it is on record, and the call is due again later and later.

    Money that could not be moved after enough attempts, or never will be, goes in front of a human; what moves none is
    then forgotten. A checkout that the provider will not close ends its reservation, because it ended the checkout.
    """
    effect = next(effect for effect in snapshot.effects if effect.kind is kind)
    attempts = effect.attempts + 1
    tried = noted(snapshot, "AttemptFailed", moment, detail=f"{kind} {attempts}: {why}")
    given_up = final or (kind not in CHECKOUTS and attempts - effect.spent >= moment.policy.effect_attempts)
    if given_up and kind not in MOVES_MONEY:
        forgotten = noted(done(tried, kind), "GaveUp", moment, detail=f"{kind}: {why}")
        open_still = kind is EffectKind.EXPIRE_CHECKOUT and allows(of(snapshot), Event.PAYMENT_TIMED_OUT)
        return done(happened(forgotten, Event.PAYMENT_TIMED_OUT, moment), kind) if open_still else forgotten
    pause = min(moment.policy.effect_lease * 2 ** min(attempts, 12), LONGEST_PAUSE)
    later = replace(effect, attempts=attempts, last_error=why, due_at=None if given_up else moment.now + pause)
    after = replace(tried, effects=tuple(later if effect.kind is kind else effect for effect in snapshot.effects))
    return _needs_review(after, why, moment) if given_up else after


def deliverable_wh(elapsed: timedelta, moment: Moment) -> int:
    """The most energy that the strongest charger delivers in this time (setting), in Wh; a second more may have passed,
    because stations count whole ones."""
    return (elapsed + SECOND) // MICROSECOND * moment.policy.max_power_w // (HOUR // MICROSECOND)


def is_meter_doubted(r: Reservation) -> bool:
    """Whether no charger can have delivered what the meter shows, and no human has billed what is right."""
    return IMPLAUSIBLE in r.flags and BILLED_BY_HAND not in r.flags


def bill_energy(snapshot: Snapshot, energy_wh: int, moment: Moment) -> Snapshot:
    """The snapshot whose reviewed payment is captured for the energy that a human found to be right, or released where
    nothing is payable for that; IllegalTransition once something was captured, for more than was metered, or, where
    the meter is doubted, for more than a charger can deliver in the time."""
    r = _reviewed(snapshot)
    if r.amount is None or not any(effect.kind is EffectKind.CAPTURE for effect in snapshot.effects):
        raise IllegalTransition("There is no bill here that waits to be captured.")
    if energy_wh > r.energy_wh:
        raise IllegalTransition(
            f"energyWh: at most {r.energy_wh} Wh can be billed, which were metered or billed before."
        )
    if IMPLAUSIBLE in r.flags and r.started_at is not None and r.stopped_at is not None:
        most = deliverable_wh(r.stopped_at - r.started_at, moment)
        if energy_wh > most:
            raise IllegalTransition(f"energyWh: at most {most} Wh can be billed: no charger delivers more in the time.")
    amount = tariff.payable(r.tariff, energy_wh, r.idle_seconds, authorised=r.authorised_amount or 0)
    if amount > r.amount:
        raise IllegalTransition(f"energyWh: {energy_wh} Wh cost {amount}, and at most {r.amount} was billed.")
    billed = replace(r, energy_wh=energy_wh, amount=amount, capture_amount=amount, flags=(*r.flags, BILLED_BY_HAND))
    known = replace(snapshot, reservation=billed)
    return tried_again(known, moment) if amount else let_go(known, moment)


def tried_again(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot whose reviewed payment is owed again, with all its attempts; IllegalTransition if nothing was given
    up, or for a bill that no charger can have delivered."""
    r = _reviewed(snapshot)
    given_up = next((e for e in snapshot.effects if e.kind in MOVES_MONEY and e.due_at is None), None)
    if given_up is None:
        raise IllegalTransition("There is nothing here to try again.")
    if given_up.kind is EffectKind.CAPTURE and is_meter_doubted(r):
        raise IllegalTransition("No charger can have delivered what the meter shows: bill what is right, or release.")
    again = replace(given_up, due_at=moment.now + moment.policy.effect_lease, spent=given_up.attempts)
    effects = tuple(again if effect.kind is given_up.kind else effect for effect in snapshot.effects)
    return replace(snapshot, reservation=paid(r, MOVES_MONEY[given_up.kind], review=None), effects=effects)


def let_go(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot whose reviewed payment is to be released instead of captured, and what was billed by a doubted meter
    is no bill any more; IllegalTransition once something was captured."""
    r = _reviewed(snapshot)
    if r.captured_amount is not None:
        raise IllegalTransition("It was captured: there is no hold to release.")
    if any(effect.kind is EffectKind.RELEASE for effect in snapshot.effects):
        return tried_again(snapshot, moment)
    bare = done(snapshot, EffectKind.CAPTURE)
    return owing(replace(bare, reservation=paid(_waived(r), Money.RELEASING, review=None)), EffectKind.RELEASE, moment)


def settled_by_hand(snapshot: Snapshot, kept: int, moment: Moment) -> Snapshot:
    """The snapshot whose reviewed payment rests, because a human saw to it at the provider's: the driver has paid this
    much there, less what went back, or nothing when that is 0. IllegalTransition for more than the bill, because nobody
    is overcharged by hand either."""
    r = _reviewed(snapshot)
    bill = r.amount or 0
    if not 0 <= kept <= bill:
        raise IllegalTransition(f"At most {bill} was billed: refund what was captured beyond that first.")
    bare = replace(snapshot, effects=tuple(e for e in snapshot.effects if e.kind not in MOVES_MONEY))
    known = replace(r, review=None, flags=(*r.flags, BY_HAND))
    if r.captured_amount is not None:
        refunded_amount = r.captured_amount - kept
        return replace(bare, reservation=paid(known, Money.CAPTURED, refunded_amount=refunded_amount))
    if not kept:
        return replace(bare, reservation=paid(_waived(known), Money.RELEASED))
    return replace(bare, reservation=paid(known, Money.CAPTURED, captured_amount=kept, captured_at=moment.now))


def _reviewed(snapshot: Snapshot) -> Reservation:
    """The reservation whose money is in front of a human; IllegalTransition for any other."""
    r = of(snapshot)
    if r.money is not Money.NEEDS_REVIEW:
        raise IllegalTransition(f"Its money is {r.money}, and needs no review.")
    return r


def _waived(r: Reservation) -> Reservation:
    """The reservation whose bill is 0 where its meter is doubted; unchanged where it is not."""
    return replace(r, amount=0, capture_amount=0) if is_meter_doubted(r) else r


def _idle_closed(r: Reservation, at: datetime) -> Reservation:
    """The reservation with its running spell of idle time counted up to then."""
    if r.idle_since is None:
        return r
    return replace(r, idle_since=None, idle_seconds=r.idle_seconds + tariff.idle_seconds(r.tariff, r.idle_since, at))


def _refunded_down(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot that owes back what was captured and not yet refunded beyond the bill."""
    r = of(snapshot)
    over = (r.captured_amount or 0) - (r.amount or 0) - r.refunded_amount
    if r.money is not Money.CAPTURED or over <= 0:
        return snapshot
    return owing(replace(snapshot, reservation=paid(r, Money.REFUNDING)), EffectKind.REFUND, moment)


def _give_up(snapshot: Snapshot, kind: EffectKind, why: str) -> Snapshot:
    """The snapshot whose owed call is made by nobody until a human says so."""
    effects = (replace(e, due_at=None, last_error=why) if e.kind is kind else e for e in snapshot.effects)
    return replace(snapshot, effects=tuple(effects))


def _needs_review(snapshot: Snapshot, why: str, moment: Moment) -> Snapshot:
    """The snapshot whose money a human must look at."""
    r = of(snapshot)
    if r.money not in MOVES_MONEY.values():
        return snapshot
    reviewed = paid(r, Money.NEEDS_REVIEW, review=why)
    return noted(replace(snapshot, reservation=reviewed), "NeedsReview", moment, detail=why)
