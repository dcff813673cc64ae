"""Stripe as payment provider: Checkout Sessions in front of PaymentIntents with manual capture.

A manual-capture session completes as `unpaid`, so authorised means that its PaymentIntent is `requires_capture` (note
F61). Stripe's own error texts stay here: they may name the card or the customer (note F71).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import stripe

from csms.errors import BadRequest, PaymentRefused, PaymentUnavailable
from csms.provider import Checkout, Order, Payment, PaymentStatus, ProviderEvent

TIMEOUT_SECONDS: Final = 10

INTENT: Final[Mapping[str, PaymentStatus]] = {
    "requires_capture": PaymentStatus.AUTHORISED,
    "succeeded": PaymentStatus.CAPTURED,
    "canceled": PaymentStatus.RELEASED,
}
SESSION: Final[Mapping[str, PaymentStatus]] = {"expired": PaymentStatus.EXPIRED}

_T = TypeVar("_T")


class StripePayments:
    """A PaymentProvider that speaks to Stripe, or to whatever speaks Stripe's wire format at `api_base`."""

    def __init__(self, *, api_key: str, webhook_secret: str, api_base: str = "") -> None:
        addresses: Any = {"base_addresses": {"api": api_base}} if api_base else {}
        self._stripe = stripe.StripeClient(
            api_key, http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS), max_network_retries=1, **addresses
        ).v1
        self._webhook_secret = webhook_secret

    def open_checkout(self, order: Order, *, key: str) -> Checkout:
        """A Checkout Session that authorises the order's amount."""
        metadata = {"reservation_id": order.reservation_id}
        product = {"name": order.description}
        price = {"currency": order.currency.lower(), "unit_amount": order.amount, "product_data": product}
        params: Any = {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "payment_intent_data": {"capture_method": "manual", "metadata": metadata},
            "metadata": metadata,
            "client_reference_id": order.reservation_id,
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
            "expires_at": int(order.expires_at.timestamp()),
        }
        session = _asked(lambda: self._stripe.checkout.sessions.create(params, {"idempotency_key": key}))
        return Checkout(checkout_id=session.id, url=session.url or "")

    def payment(self, checkout_id: str) -> Payment:
        """How the session's PaymentIntent stands; OPEN while there is none yet."""
        session = _asked(lambda: self._stripe.checkout.sessions.retrieve(checkout_id, {"expand": ["payment_intent"]}))
        intent = session.payment_intent
        if intent is None or isinstance(intent, str):
            return Payment(status=SESSION.get(session.status or "", PaymentStatus.OPEN))
        return _payment(intent, otherwise=SESSION.get(session.status or "", PaymentStatus.OPEN))

    def expire_checkout(self, checkout_id: str, *, key: str) -> Payment:
        """The payment after the session was expired; one that was completed before that stays so, and says what was
        paid."""
        try:
            self._stripe.checkout.sessions.expire(checkout_id, None, {"idempotency_key": key})
        except stripe.InvalidRequestError:
            return self.payment(checkout_id)
        except stripe.StripeError as failed:
            raise _translated(failed) from failed
        return Payment(status=PaymentStatus.EXPIRED)

    def capture(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """The PaymentIntent after this much was captured; one that had been captured already is found so, and not
        captured again (note F67)."""
        params: Any = {"amount_to_capture": amount}
        return self._moved(
            payment_id,
            PaymentStatus.CAPTURED,
            lambda: self._stripe.payment_intents.capture(payment_id, params, {"idempotency_key": key}),
        )

    def release(self, payment_id: str, *, key: str) -> Payment:
        """The PaymentIntent after its authorisation was cancelled."""
        return self._moved(
            payment_id,
            PaymentStatus.RELEASED,
            lambda: self._stripe.payment_intents.cancel(payment_id, None, {"idempotency_key": key}),
        )

    def event(self, body: bytes, signature: str) -> ProviderEvent:
        """The event in a webhook's raw body; BadRequest if the signature does not fit."""
        try:
            event = stripe.Webhook.construct_event(body, signature, self._webhook_secret)
        except (stripe.SignatureVerificationError, ValueError):
            raise BadRequest("The signature does not fit the body.", code="InvalidSignature") from None
        subject: Mapping[str, Any] = event.data.object.to_dict()
        reservation_id = (subject.get("metadata") or {}).get("reservation_id")
        return ProviderEvent(event_id=event.id, kind=event.type, reservation_id=reservation_id)

    def _moved(self, payment_id: str, wanted: PaymentStatus, move: Callable[[], stripe.PaymentIntent]) -> Payment:
        """The payment after the move, or as it stands when it had moved there before; PaymentRefused if it went
        elsewhere."""
        try:
            return _payment(move())
        except (stripe.InvalidRequestError, stripe.APIError) as failed:
            # Whoever asked before, and however that answer was lost: the intent itself knows whether it moved.
            payment = _payment(_asked(lambda: self._stripe.payment_intents.retrieve(payment_id)))
            if payment.status is wanted:
                return payment
            raise _translated(failed) from failed
        except stripe.StripeError as failed:
            raise _translated(failed) from failed


def _payment(intent: stripe.PaymentIntent, *, otherwise: PaymentStatus = PaymentStatus.OPEN) -> Payment:
    status = INTENT.get(intent.status, otherwise)
    return Payment(
        status=status,
        payment_id=intent.id,
        authorised_amount=intent.amount_capturable if status is PaymentStatus.AUTHORISED else intent.amount,
        captured_amount=intent.amount_received,
    )


def _asked(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except stripe.StripeError as failed:
        raise _translated(failed) from failed


def _translated(failed: stripe.StripeError) -> PaymentRefused | PaymentUnavailable:
    """Final for an answer that will not change, else worth another try; named by Stripe's code, never by its text."""
    what = failed.code or type(failed).__name__
    if isinstance(failed, stripe.CardError | stripe.InvalidRequestError | stripe.PermissionError):
        return PaymentRefused(f"The payment provider refused: {what}.")
    return PaymentUnavailable(f"The payment provider did not answer usefully: {what}.")
