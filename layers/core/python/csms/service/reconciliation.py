"""Reconciliation: the provider's open authorizations compared with the reservations that hold money, in both
directions. Each difference is first looked up at the provider, which resolves those that a lost webhook caused (note
F63)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from csms.errors import CsmsError, NotFound
from csms.model import Money, Reservation
from csms.ports.payments import Payment
from csms.service.flow import Flow

LOOKBACK: Final = timedelta(days=31)
"""How far back the provider's authorizations are listed; none lives longer."""

HELD_MONEY: Final = (Money.AUTHORIZED, Money.CAPTURING, Money.RELEASING, Money.NEEDS_REVIEW)
"""The money states in which the provider holds, or may still hold, money of a driver."""

PAGE: Final = 100


@dataclass(slots=True, kw_only=True)
class Reconciliation:
    """How much was compared, and every difference as one line."""

    authorizations: int = 0
    reservations: int = 0
    unknown: list[str] = field(default_factory=list)
    """Authorizations of the provider that no reservation holds."""
    missing: list[str] = field(default_factory=list)
    """Reservations whose payment the provider does not hold."""

    @property
    def differences(self) -> int:
        """The number of differences."""
        return len(self.unknown) + len(self.missing)


def reconcile(flow: Flow) -> Reconciliation:
    """Compare the provider's open authorizations with the reservations that hold money. Each difference is looked up
    before it is reported, because a payment may have changed meanwhile.

    Raises NotFound if there is no provider, PaymentUnavailable if it does not answer.
    """
    dependencies = flow.dependencies
    if dependencies.provider is None:
        raise NotFound("There is no payment provider to compare with.", code="NoProvider")
    there = {
        payment.payment_id: payment for payment in dependencies.provider.authorizations(dependencies.now() - LOOKBACK)
    }
    here = {held.payment_id: held for held in _find_held(flow)}
    report = Reconciliation(authorizations=len(there), reservations=len(here))
    for payment_id in there.keys() - here.keys():
        report.unknown += _describe_unknown(flow, there[payment_id])
    for payment_id in here.keys() - there.keys():
        report.missing += _describe_missing(flow, here[payment_id])
    return report


def _find_held(flow: Flow) -> Iterator[Reservation]:
    """Every reservation whose money the provider holds, or may still hold, and of which nothing was captured."""
    for money in HELD_MONEY:
        after: str | None = None
        while True:
            page, after = flow.dependencies.store.payments(money, limit=PAGE, after=after)
            yield from (held for held in page if held.captured_amount is None)
            if after is None:
                break


def _describe_unknown(flow: Flow, payment: Payment) -> list[str]:
    """The line about an authorization that no reservation holds; none if looking it up has resolved that."""
    said = f"{payment.payment_id} holds {payment.authorised_amount}"
    if payment.reservation_id is None:
        return [f"{said} for no reservation of ours"]
    try:
        held = _look_up(flow, payment.reservation_id)
        still_held = flow.outbox.is_still_held(held, payment)
    except NotFound:
        return [f"{said} for reservation {payment.reservation_id}, which does not exist"]
    except CsmsError as failed:
        return [f"{said} for reservation {payment.reservation_id}: {failed.message}"]
    if not still_held or (held.payment_id == payment.payment_id and held.money in HELD_MONEY):
        return []
    return [f"{said} for reservation {held.reservation_id}, which is {held.state} and {held.money}"]


def _describe_missing(flow: Flow, held: Reservation) -> list[str]:
    """The line about a reservation whose payment the provider does not hold; none if looking it up has resolved that. A
    capture or release under way is no difference, because its result may not be stored yet."""
    if held.money in {Money.CAPTURING, Money.RELEASING}:
        return []
    line = f"reservation {held.reservation_id} is {held.money}, and {held.payment_id} holds nothing"
    try:
        after = _look_up(flow, held.reservation_id)
    except CsmsError as failed:
        return [f"{line}: {failed.message}"]
    return [line] if after.money is held.money else []


def _look_up(flow: Flow, reservation_id: str) -> Reservation:
    """Ask the provider for the reservation's payment, and return the reservation after it."""
    return flow.finish(flow.outbox.look_up(flow.dependencies.store.reservation(reservation_id)))
