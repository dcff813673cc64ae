"""Do the payment provider's books say the same as ours? Both directions of every difference, and the cure for those
that have one: the payment is looked up, as if its webhook had come only now (note F63)."""

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
"""No authorisation lives longer."""

HELD_MONEY: Final = (Money.AUTHORISED, Money.CAPTURING, Money.RELEASING, Money.NEEDS_REVIEW)
"""Where our books say that the provider holds, or may still hold, money of a driver."""

PAGE: Final = 100


@dataclass(slots=True, kw_only=True)
class Reconciliation:
    """What was compared, and every difference, in one line each."""

    authorisations: int = 0
    reservations: int = 0
    unknown: list[str] = field(default_factory=list)
    """Held by the provider, and not by our books."""
    missing: list[str] = field(default_factory=list)
    """Held by our books, and not by the provider."""

    @property
    def differences(self) -> int:
        """How many there are."""
        return len(self.unknown) + len(self.missing)


def reconcile(flow: Flow) -> Reconciliation:
    """The provider's open authorisations against the reservations that hold money; PaymentUnavailable if it does not
    tell them. Each difference is looked up before it is reported, because a payment may have moved meanwhile."""
    dependencies = flow.dependencies
    if dependencies.provider is None:
        raise NotFound("There is no payment provider to compare with.", code="NoProvider")
    there = {
        payment.payment_id: payment for payment in dependencies.provider.authorisations(dependencies.now() - LOOKBACK)
    }
    here = {held.payment_id: held for held in _find_held(flow)}
    report = Reconciliation(authorisations=len(there), reservations=len(here))
    for payment_id in there.keys() - here.keys():
        report.unknown += _describe_unknown(flow, there[payment_id])
    for payment_id in here.keys() - there.keys():
        report.missing += _describe_missing(flow, here[payment_id])
    return report


def _find_held(flow: Flow) -> Iterator[Reservation]:
    """Every reservation that our books say holds money at the provider."""
    for money in HELD_MONEY:
        after: str | None = None
        while True:
            page, after = flow.dependencies.store.payments(money, limit=PAGE, after=after)
            yield from (held for held in page if held.captured_amount is None)
            if after is None:
                break


def _describe_unknown(flow: Flow, payment: Payment) -> list[str]:
    """The line about an authorisation that our books do not know of, unless looking it up has put that right."""
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
    """The line about a reservation whose money the provider does not hold; what is on its way is not one, because it
    may have moved and not be noted yet."""
    if held.money in {Money.CAPTURING, Money.RELEASING}:
        return []
    line = f"reservation {held.reservation_id} is {held.money}, and {held.payment_id} holds nothing"
    try:
        after = _look_up(flow, held.reservation_id)
    except CsmsError as failed:
        return [f"{line}: {failed.message}"]
    return [line] if after.money is held.money else []


def _look_up(flow: Flow, reservation_id: str) -> Reservation:
    """The reservation after the provider was asked how its payment stands."""
    return flow.finish(flow.outbox.look_up(flow.dependencies.store.reservation(reservation_id)))
