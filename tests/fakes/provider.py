"""A payment provider in memory: idempotency keys, webhooks, and faults that a test orders."""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from threading import Lock
from typing import Any, Final

from csms.errors import BadRequest, PaymentRefused, PaymentUnavailable
from csms.ports.payments import Checkout, Order, Payment, PaymentStatus, ProviderEvent
from tests.fakes.clock import START

HOLD: Final = timedelta(days=7)
"""How long the fake provider's authorizations can be captured."""


@dataclass(slots=True)
class _CheckoutRecord:
    """One checkout and its payment, as the provider stores them; `paid_at` is when the driver paid."""

    order: Order
    checkout: Checkout
    payment: Payment
    paid_at: datetime | None = None
    email: str | None = None


@dataclass(slots=True)
class _Fault:
    operation: str
    error: Exception
    acted: bool


class FakeProvider:
    """A PaymentProvider without a network, as strict as a real one. `pay` is the driver's part, and `now` its own
    clock.

    A repeated key gives its first answer, and is refused for another request. `calls` are the operations that took
    effect.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: START) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self._now = now
        self._secret = b"whsec_fake"
        self._notices = count(1)
        self._paying: dict[str, _CheckoutRecord] = {}
        self._answers: dict[str, tuple[Any, Any]] = {}
        self._faults: list[_Fault] = []
        self._lock = Lock()

    def fail_next(self, operation: str, error: Exception | None = None, *, acted: bool = False) -> None:
        """Make the next call of the operation (a method's name) raise the error, by default PaymentUnavailable. With
        `acted` it takes effect nevertheless."""
        self._faults.append(_Fault(operation=operation, error=error or PaymentUnavailable("As ordered."), acted=acted))

    def pay(self, checkout_id: str, *, email: str | None = None) -> None:
        """Pay as the driver. Raises PaymentRefused unless the checkout is open."""
        paying = self._paying[checkout_id]
        if paying.payment.status is not PaymentStatus.OPEN:
            raise PaymentRefused(f"The checkout is {paying.payment.status}.")
        paying.email = email
        paying.paid_at = self._now()
        paying.payment = replace(
            paying.payment,
            status=PaymentStatus.AUTHORIZED,
            payment_id=checkout_id.replace("checkout", "payment"),
            authorised_amount=paying.order.amount,
            capture_before=paying.paid_at + HOLD,
            card_brand="visa",
            card_last4="4242",
        )

    def add_checkout(self, order: Order, checkout: Checkout, payment: Payment) -> None:
        """Add a checkout from before the test, with its payment."""
        self._paying[checkout.checkout_id] = _CheckoutRecord(
            order=order, checkout=checkout, payment=payment, paid_at=self._now() if payment.payment_id else None
        )

    def build_webhook(
        self, reservation_id: str | None, kind: str = "payment.authorized", *, event_id: str | None = None
    ) -> tuple[bytes, str]:
        """A webhook's body and its signature, for a new event unless an id is given."""
        event = {"id": event_id or f"event-{next(self._notices)}", "kind": kind, "reservation": reservation_id}
        body = json.dumps(event).encode()
        return body, self._signature(body)

    def captured_amounts(self) -> list[int]:
        """The captured amounts of all payments, in minor units."""
        standing = [paying.payment for paying in self._paying.values()]
        return [p.captured_amount for p in standing if p.status is PaymentStatus.CAPTURED]

    def refunded_amount(self) -> int:
        """The refunded amount of all payments, in minor units."""
        return sum(paying.payment.refunded_amount for paying in self._paying.values())

    def held_amount(self) -> int:
        """What is authorized and neither captured nor released, over all payments, in minor units."""
        standing = [paying.payment for paying in self._paying.values()]
        return sum(p.authorised_amount for p in standing if p.status is PaymentStatus.AUTHORIZED)

    def open_checkout(self, order: Order, *, key: str) -> Checkout:
        """Open a checkout for the order."""

        def act() -> Checkout:
            checkout_id = f"checkout-{order.reservation_id}-{len(self._paying) + 1}"
            checkout = Checkout(checkout_id=checkout_id, url=f"https://pay.example/{checkout_id}")
            payment = Payment(status=PaymentStatus.OPEN, reservation_id=order.reservation_id)
            self._paying[checkout_id] = _CheckoutRecord(order=order, checkout=checkout, payment=payment)
            return checkout

        return self._run_once("open_checkout", key, order, act, order.reservation_id, order.amount)

    def payment(self, checkout_id: str) -> Payment:
        """The checkout's payment."""
        self._raise_fault("payment", acted=False)
        return self._find_checkout(checkout_id).payment

    def expire_checkout(self, checkout_id: str, *, key: str) -> Payment:
        """Expire the checkout if it is open, and return its payment."""

        def act() -> Payment:
            paying = self._find_checkout(checkout_id)
            if paying.payment.status is PaymentStatus.OPEN:
                paying.payment = replace(paying.payment, status=PaymentStatus.EXPIRED)
            return paying.payment

        return self._run_once("expire_checkout", key, checkout_id, act, checkout_id)

    def capture(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Capture the amount, unless it was captured before, and return the payment."""

        def act() -> Payment:
            paying = self._find_payment(payment_id)
            if paying.payment.status is PaymentStatus.AUTHORIZED and not 0 < amount <= paying.payment.authorised_amount:
                raise PaymentRefused("The payment provider refused: amount_too_large.")
            return self._change_status(paying, PaymentStatus.CAPTURED, captured_amount=amount)

        return self._run_once("capture", key, (payment_id, amount), act, payment_id, amount)

    def release(self, payment_id: str, *, key: str) -> Payment:
        """Release the authorization, unless it was released before, and return the payment."""
        return self._run_once(
            "release",
            key,
            payment_id,
            lambda: self._change_status(self._find_payment(payment_id), PaymentStatus.RELEASED),
            payment_id,
        )

    def refund(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Refund up to this total amount, unless that was done before, and return the payment."""

        def act() -> Payment:
            paying = self._find_payment(payment_id)
            if paying.payment.refunded_amount >= amount:
                return paying.payment
            if paying.payment.status is not PaymentStatus.CAPTURED or amount > paying.payment.captured_amount:
                raise PaymentRefused("The payment provider refused: InvalidRequestError.")
            paying.payment = replace(paying.payment, refunded_amount=amount)
            return paying.payment

        return self._run_once("refund", key, (payment_id, amount), act, payment_id, amount)

    def authorizations(self, since: datetime) -> Iterator[Payment]:
        """Every payment since then that is authorized, newest first."""
        self._raise_fault("authorizations", acted=False)
        for paying in reversed(list(self._paying.values())):
            recent = paying.paid_at is not None and paying.paid_at >= since
            if recent and paying.payment.status is PaymentStatus.AUTHORIZED:
                yield paying.payment

    def email_address(self, checkout_id: str) -> str | None:
        """The e-mail address that the driver paid with."""
        self._raise_fault("email_address", acted=False)
        return self._find_checkout(checkout_id).email

    def read_webhook(self, body: bytes, signature: str) -> ProviderEvent:
        """The event in a body that `build_webhook` signed."""
        if not hmac.compare_digest(signature.encode(errors="replace"), self._signature(body).encode()):
            raise BadRequest("The signature does not fit the body.", code="InvalidSignature")
        return self.read_event(json.loads(body))

    def read_event(self, detail: Mapping[str, Any]) -> ProviderEvent:
        """The event that `build_webhook` wrote."""
        match detail:
            case {"id": str(event_id), "kind": str(kind), "reservation": reservation_id}:
                return ProviderEvent(event_id=event_id, kind=kind, reservation_id=reservation_id)
        raise BadRequest("This is no event of the payment provider.", code="InvalidEvent")

    def _run_once(
        self, operation: str, key: str, asked: Any, act: Callable[[], Any], what: str, amount: int = 0
    ) -> Any:
        with self._lock:
            self._raise_fault(operation, acted=False)
            first, answer = self._answers.get(key, (None, None))
            if first is not None and first != (operation, asked):
                raise PaymentRefused("The payment provider refused: idempotency_error.")
            if first is None:
                answer = act()
                self._answers[key] = ((operation, asked), answer)
                self.calls.append((operation, what, amount))
            self._raise_fault(operation, acted=True)
            return answer

    def _raise_fault(self, operation: str, *, acted: bool) -> None:
        fault = next((f for f in self._faults if f.operation == operation), None)
        if fault is not None and fault.acted is acted:
            self._faults.remove(fault)
            raise fault.error

    def _change_status(self, paying: _CheckoutRecord, status: PaymentStatus, *, captured_amount: int = 0) -> Payment:
        if paying.payment.status is PaymentStatus.AUTHORIZED:
            paying.payment = replace(paying.payment, status=status, captured_amount=captured_amount)
        if paying.payment.status is not status:
            raise PaymentRefused(f"The payment is {paying.payment.status}, not {status}.")
        return paying.payment

    def _find_checkout(self, checkout_id: str) -> _CheckoutRecord:
        if checkout_id not in self._paying:
            raise PaymentRefused("The payment provider refused: resource_missing.")
        return self._paying[checkout_id]

    def _find_payment(self, payment_id: str) -> _CheckoutRecord:
        for paying in self._paying.values():
            if paying.payment.payment_id == payment_id:
                return paying
        raise PaymentRefused("The payment provider refused: resource_missing.")

    def _signature(self, body: bytes) -> str:
        return hmac.new(self._secret, body, hashlib.sha256).hexdigest()
