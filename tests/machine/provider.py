"""The fake payment provider that remembers its ordered faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from csms.errors import (
    PaymentRefused,
    PaymentUnavailable,
)
from csms.ports.payments import PaymentStatus
from tests.fakes import FakeProvider

ORDERED: Final = "As ordered."


class Provider(FakeProvider):
    """Remembers which payments had an ordered fault, so that other failures of a payment are found."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.silent: Counter[str] = Counter()

    @property
    def checkouts(self) -> dict[str, str]:
        """The reservation of each checkout."""
        return {checkout_id: paying.order.reservation_id for checkout_id, paying in self._paying.items()}

    def find_payment(self, checkout_id: str) -> Any:
        """The payment as the provider stores it."""
        return self._paying[checkout_id].payment

    def clear_faults(self) -> None:
        """Drop every fault that has not happened."""
        self._faults.clear()

    def lapse(self, checkout_id: str) -> None:
        """End an open checkout or an authorization, as the bank or the provider's clock does."""
        payment = self.find_payment(checkout_id)
        ended = PaymentStatus.RELEASED if payment.payment_id else PaymentStatus.EXPIRED
        self._paying[checkout_id].payment = replace(payment, status=ended)
        self.refused.add(payment.payment_id or checkout_id)

    def _run_once(
        self, operation: str, key: str, asked: Any, act: Callable[[], Any], what: str, amount: int = 0
    ) -> Any:
        try:
            return super()._run_once(operation, key, asked, act, what, amount)
        except PaymentRefused as refusal:
            self.refused |= {what} if refusal.message == ORDERED else set()
            raise
        except PaymentUnavailable:
            self.silent[what] += 1
            raise
