"""A payment under review: what an operator decides about it, and what happens if nobody decides in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from csms.charging.reservation import (
    add_audit_entry,
    add_outbox_item,
    advance_money,
    end_hold,
    remove_outbox_item,
    require_reservation,
)
from csms.charging.settlement import IMPLAUSIBLE, PENDING_MONEY
from csms.errors import IllegalTransition
from csms.model import DecisionContext, Money, OutboxKind, Reservation, Snapshot
from csms.pricing import tariff

BILLED_BY_HAND: Final = "BilledByHand"
SETTLED_BY_HAND: Final = "SettledByHand"
BILLED_AT_LOWEST: Final = "BilledAtLowest"


def is_meter_doubted(r: Reservation) -> bool:
    """Whether the energy is in doubt, and neither was the right energy billed by an operator nor the lowest one in the
    end."""
    return IMPLAUSIBLE in r.flags and not {BILLED_BY_HAND, BILLED_AT_LOWEST}.intersection(r.flags)


def end_doubt(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Bill the lowest energy that the meter values support, because nobody has decided in time: capture that, or
    release the hold if nothing is payable for it. A payment that no longer waits for a decision is left alone."""
    r = require_reservation(snapshot)
    waits = any(item.kind is OutboxKind.CAPTURE and item.due_at is None for item in snapshot.outbox_items)
    if r.money is not Money.NEEDS_REVIEW or not waits:
        return replace(snapshot, reservation=replace(r, decide_by=None))
    energy_wh = max(0, r.energy_wh - r.unsupported_wh)
    told = add_audit_entry(snapshot, BILLED_AT_LOWEST, context, detail=f"{energy_wh} Wh")
    return _bill_decided(told, energy_wh, BILLED_AT_LOWEST, context)


def bill_energy(snapshot: Snapshot, energy_wh: int, context: DecisionContext) -> Snapshot:
    """Capture the payment under review for the energy in Wh that an operator found to be right, or release it if
    nothing is payable for that.

    IllegalTransition if no bill waits for its capture, or if the energy is more than was metered or, where the meter is
    doubted, can have been delivered, or costs more than the bill.
    """
    r = _require_under_review(snapshot)
    if r.amount is None or not any(outbox_item.kind is OutboxKind.CAPTURE for outbox_item in snapshot.outbox_items):
        raise IllegalTransition("This reservation has no bill that waits for its capture.")
    if energy_wh > r.energy_wh:
        raise IllegalTransition(
            f"energyWh must be at most {r.energy_wh}, the most that was metered or can have been delivered."
        )
    amount = tariff.capturable_amount(r.tariff, energy_wh, r.idle_seconds, authorized=r.authorised_amount or 0)
    if amount > r.amount:
        raise IllegalTransition(
            f"energyWh must cost at most {r.amount}, the bill so far: {energy_wh} Wh cost {amount}."
        )
    return _bill_decided(snapshot, energy_wh, BILLED_BY_HAND, context)


def retry_payment(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Owe the given-up call of a payment under review again, with all its attempts; IllegalTransition if none was given
    up, or for the capture of a bill whose meter is doubted."""
    r = _require_under_review(snapshot)
    given_up = next((e for e in snapshot.outbox_items if e.kind in PENDING_MONEY and e.due_at is None), None)
    if given_up is None:
        raise IllegalTransition("No provider call of this reservation was given up: there is nothing to retry.")
    if given_up.kind is OutboxKind.CAPTURE and is_meter_doubted(r):
        raise IllegalTransition(
            "The meter values leave the energy in doubt: bill the right energyWh, or release the hold."
        )
    again = replace(given_up, due_at=context.now + context.policy.outbox_lease, spent=given_up.attempts)
    outbox_items = tuple(
        again if outbox_item.kind is given_up.kind else outbox_item for outbox_item in snapshot.outbox_items
    )
    return replace(
        snapshot,
        reservation=advance_money(r, PENDING_MONEY[given_up.kind], review=None, decide_by=None),
        outbox_items=outbox_items,
    )


def release_payment(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Release the payment under review instead of capturing it, and waive a bill whose meter is doubted, or release
    what is held for a late start; IllegalTransition once something was captured."""
    if require_reservation(snapshot).late_start is not None:
        return end_hold(snapshot, context)
    r = _require_under_review(snapshot)
    if r.captured_amount is not None:
        raise IllegalTransition("The payment was captured: there is no hold to release.")
    if any(outbox_item.kind is OutboxKind.RELEASE for outbox_item in snapshot.outbox_items):
        return retry_payment(snapshot, context)
    bare = remove_outbox_item(snapshot, OutboxKind.CAPTURE)
    return add_outbox_item(
        replace(bare, reservation=advance_money(_waive_doubted_bill(r), Money.RELEASING, review=None, decide_by=None)),
        OutboxKind.RELEASE,
        context,
    )


def settle_by_hand(snapshot: Snapshot, kept: int, context: DecisionContext) -> Snapshot:
    """End the review of a payment that an operator settled at the provider: `kept`, in minor units, is what was
    captured there and not refunded. IllegalTransition for more than the bill."""
    r = _require_under_review(snapshot)
    bill = r.amount or 0
    if not 0 <= kept <= bill:
        raise IllegalTransition(
            f"capturedAmount must be from 0 to {bill}, the bill: refund what was captured beyond it first."
        )
    bare = replace(snapshot, outbox_items=tuple(e for e in snapshot.outbox_items if e.kind not in PENDING_MONEY))
    known = replace(r, review=None, decide_by=None, flags=(*r.flags, SETTLED_BY_HAND))
    if r.captured_amount is not None:
        refunded_amount = r.captured_amount - kept
        return replace(bare, reservation=advance_money(known, Money.CAPTURED, refunded_amount=refunded_amount))
    if not kept:
        return replace(bare, reservation=advance_money(_waive_doubted_bill(known), Money.RELEASED))
    return replace(
        bare, reservation=advance_money(known, Money.CAPTURED, captured_amount=kept, captured_at=context.now)
    )


def _bill_decided(snapshot: Snapshot, energy_wh: int, flag: str, context: DecisionContext) -> Snapshot:
    """Bill this energy of a payment under review, and owe its capture, or its release if nothing is payable."""
    r = require_reservation(snapshot)
    amount = tariff.capturable_amount(r.tariff, energy_wh, r.idle_seconds, authorized=r.authorised_amount or 0)
    billed = replace(
        r,
        energy_wh=energy_wh,
        unsupported_wh=0,
        amount=amount,
        capture_amount=amount,
        decide_by=None,
        flags=(*r.flags, flag),
    )
    known = replace(snapshot, reservation=billed)
    return retry_payment(known, context) if amount else release_payment(known, context)


def _require_under_review(snapshot: Snapshot) -> Reservation:
    """The reservation, if its money is under review; IllegalTransition otherwise."""
    r = require_reservation(snapshot)
    if r.money is not Money.NEEDS_REVIEW:
        raise IllegalTransition(f"The reservation's money is {r.money} and needs no review.")
    return r


def _waive_doubted_bill(r: Reservation) -> Reservation:
    """The reservation with a bill of 0 if its meter is doubted; unchanged otherwise."""
    return replace(r, amount=0, capture_amount=0) if is_meter_doubted(r) else r
