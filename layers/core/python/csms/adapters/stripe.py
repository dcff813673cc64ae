"""Stripe as payment provider: Checkout Sessions whose PaymentIntents are captured manually.

A session with manual capture completes as `unpaid`, so a payment is authorized when its PaymentIntent is
`requires_capture` (note F61). Stripe's error texts never leave this module, because they may name the card or the
customer (note F71).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import stripe

from csms.errors import BadRequest, PaymentRefused, PaymentUnavailable
from csms.ports.payments import Checkout, Order, Payment, PaymentStatus, ProviderEvent

API_VERSION: Final = "2026-10-28.endive"
"""Stripe's API version for parameters and answers, whatever the package's or the account's default is."""
TIMEOUT_SECONDS: Final = 10
RETRIES: Final = 1
"""Few, because a driver waits for the answer and the outbox tries again anyway."""
PAGE: Final = 100
"""The most that Stripe returns in one page."""

INTENT_STATUSES: Final[Mapping[str, PaymentStatus]] = {
    "requires_capture": PaymentStatus.AUTHORIZED,
    "succeeded": PaymentStatus.CAPTURED,
    "canceled": PaymentStatus.RELEASED,
}
FINAL_ERRORS: Final = (stripe.CardError, stripe.InvalidRequestError, stripe.IdempotencyError)
"""Errors that a retry cannot change. A wrong key or a missing permission is not among them, because it can be
corrected."""
TRANSIENT_CODES: Final = frozenset({"idempotency_key_in_use", "lock_timeout", "rate_limit"})
"""Codes of requests that Stripe never executed, so that it stored no answer for their key
(docs.stripe.com/error-codes)."""

# At level INFO the package logs the texts of errors.
logging.getLogger("stripe").setLevel(logging.WARNING)

_T = TypeVar("_T")


class StripePayments:
    """The PaymentProvider that calls Stripe, or a server with the same API at `api_base` or behind `http_client`; with
    `http_client`, timeouts and retries are those of that client."""

    def __init__(
        self, *, api_key: str, webhook_secret: str, api_base: str = "", http_client: stripe.HTTPClient | None = None
    ) -> None:
        self._stripe = stripe.StripeClient(
            api_key,
            stripe_version=API_VERSION,
            http_client=http_client or stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
            max_network_retries=RETRIES if http_client is None else 0,
            base_addresses={"api": api_base} if api_base else {},
        ).v1
        self._webhook_secret = webhook_secret

    def open_checkout(self, order: Order, *, key: str) -> Checkout:
        """Open a Checkout Session that authorizes the order's amount.

        Checkout's own defaults ask for the driver's mail address, use the browser's language, and keep no Customer.
        """
        metadata = {"reservation_id": order.reservation_id}
        params: stripe.params.checkout.SessionCreateParams = {
            "mode": "payment",
            # A card's hold can be captured in part, has a capture_before, and gives brand and digits for the receipt.
            # Some other payment methods cannot be held at all.
            "allowed_payment_method_types": ["card"],
            # The hold must be in the tariff's currency, as the bill will be.
            "adaptive_pricing": {"enabled": False},
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": order.currency.lower(),
                        "unit_amount": order.amount,
                        "product_data": {"name": order.description},
                    },
                }
            ],
            "payment_intent_data": {
                "capture_method": "manual",
                "description": order.description,
                "metadata": metadata,
            },
            "metadata": metadata,
            "client_reference_id": order.reservation_id,
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
            "expires_at": int(order.expires_at.timestamp()),
        }
        session = _call_stripe(lambda: self._stripe.checkout.sessions.create(params, {"idempotency_key": key}))
        return Checkout(checkout_id=session.id, url=session.url or "")

    def payment(self, checkout_id: str) -> Payment:
        """The state of the session's PaymentIntent; OPEN while there is none."""
        params: stripe.params.checkout.SessionRetrieveParams = {"expand": ["payment_intent.latest_charge"]}
        session = _call_stripe(lambda: self._stripe.checkout.sessions.retrieve(checkout_id, params))
        expired = session.status == "expired"
        intent = session.payment_intent
        # Expiring a session cancels the PaymentIntent of a card that was declined.
        if not isinstance(intent, stripe.PaymentIntent) or (expired and intent.status == "canceled"):
            status = PaymentStatus.EXPIRED if expired else PaymentStatus.OPEN
            return Payment(status=status, reservation_id=_find_reservation_id(session))
        return _build_payment(intent)

    def expire_checkout(self, checkout_id: str, *, key: str) -> Payment:
        """Expire the session, and return its payment. A session that was completed before stays so, and its payment is
        returned."""
        try:
            session = self._stripe.checkout.sessions.expire(checkout_id, None, {"idempotency_key": key})
        except (stripe.InvalidRequestError, stripe.APIError) as failed:
            # The session may have been completed or expired before; looking it up tells.
            payment = self.payment(checkout_id)
            if payment.status is PaymentStatus.OPEN:
                raise _translate_error(failed) from None
            return payment
        except stripe.StripeError as failed:
            raise _translate_error(failed) from None
        return Payment(status=PaymentStatus.EXPIRED, reservation_id=_find_reservation_id(session))

    def capture(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Capture this much, in minor units, and return the payment. If it was captured before, return it as it is
        (note F67)."""
        params: stripe.params.PaymentIntentCaptureParams = {"amount_to_capture": amount, "expand": ["latest_charge"]}
        return self._move_payment(
            payment_id,
            lambda payment: payment.status is PaymentStatus.CAPTURED,
            lambda: _build_payment(self._stripe.payment_intents.capture(payment_id, params, {"idempotency_key": key})),
        )

    def release(self, payment_id: str, *, key: str) -> Payment:
        """Cancel the authorization, and return the payment."""
        params: stripe.params.PaymentIntentCancelParams = {"expand": ["latest_charge"]}
        return self._move_payment(
            payment_id,
            lambda payment: payment.status is PaymentStatus.RELEASED,
            lambda: _build_payment(self._stripe.payment_intents.cancel(payment_id, params, {"idempotency_key": key})),
        )

    def refund(self, payment_id: str, amount: int, *, key: str) -> Payment:
        """Refund up to this much in all, in minor units, and return the payment. Only what was not refunded before is
        refunded."""
        payment = _call_stripe(lambda: self._retrieve_payment(payment_id))
        missing = amount - payment.refunded_amount
        if missing <= 0:
            return payment
        # The events of a refund carry the refund's own metadata, so the reservation is named there too.
        named = {"reservation_id": payment.reservation_id} if payment.reservation_id else {}
        params: stripe.params.RefundCreateParams = {
            "payment_intent": payment_id,
            "amount": missing,
            "metadata": named,
        }

        def give_back() -> Payment:
            self._stripe.refunds.create(params, {"idempotency_key": key})
            return self._retrieve_payment(payment_id)

        refunded = self._move_payment(payment_id, lambda payment: payment.refunded_amount >= amount, give_back)
        if refunded.refunded_amount < amount:
            # Stripe repeated its answer to this key: for another refund, or for this one, which the bank sent back.
            raise PaymentRefused("The payment provider refused: refund_incomplete.")
        return refunded

    def authorizations(self, since: datetime) -> Iterator[Payment]:
        """Every PaymentIntent created since then that is `requires_capture` and names a reservation, newest first."""
        params: stripe.params.PaymentIntentListParams = {
            "created": {"gte": int(since.timestamp())},
            "limit": PAGE,
            "expand": ["data.latest_charge"],
        }
        try:
            for intent in self._stripe.payment_intents.list(params).auto_paging_iter():
                # The account may have payments that csms did not make; they are skipped.
                if (
                    INTENT_STATUSES.get(intent.status) is PaymentStatus.AUTHORIZED
                    and _find_reservation_id(intent) is not None
                ):
                    yield _build_payment(intent)
        except stripe.StripeError as failed:
            raise _translate_error(failed) from None

    def email_address(self, checkout_id: str) -> str | None:
        """The mail address that the driver entered in Checkout, else the one that the session was opened with."""
        session = _call_stripe(lambda: self._stripe.checkout.sessions.retrieve(checkout_id))
        given = session.customer_details.email if session.customer_details else None
        return given or session.customer_email

    def read_webhook(self, body: bytes, signature: str) -> ProviderEvent:
        """The event in a webhook's raw body. Raises BadRequest if the signature is wrong."""
        try:
            signature.encode("ascii")  # The comparison below raises TypeError for any other text.
            stripe.WebhookSignature.verify_header(
                body.decode(), signature, self._webhook_secret, stripe.Webhook.DEFAULT_TOLERANCE
            )
        except (stripe.SignatureVerificationError, ValueError):
            raise BadRequest("The signature does not match the body.", code="InvalidSignature") from None
        try:
            detail = json.loads(body)
        except ValueError:
            raise _build_invalid_event() from None
        return self.read_event(detail)

    def read_event(self, detail: Mapping[str, Any]) -> ProviderEvent:
        """The event in a message from EventBridge, which has the form of a webhook's body. Raises BadRequest for
        anything else."""
        match detail:
            case {"object": "event", "id": str(event_id), "type": str(kind), "data": {"object": {**subject}}}:
                return ProviderEvent(
                    event_id=event_id, kind=kind, reservation_id=_read_reservation_id(subject.get("metadata"))
                )
        raise _build_invalid_event()

    def _retrieve_payment(self, payment_id: str) -> Payment:
        params: stripe.params.PaymentIntentRetrieveParams = {"expand": ["latest_charge"]}
        return _build_payment(self._stripe.payment_intents.retrieve(payment_id, params))

    def _move_payment(self, payment_id: str, there: Callable[[Payment], bool], move: Callable[[], Payment]) -> Payment:
        """Make the request, and return the payment. If Stripe refuses, return the payment all the same if it is already
        as wanted. Raises PaymentRefused if it is not."""
        try:
            return move()
        except (stripe.InvalidRequestError, stripe.APIError) as failed:
            # An earlier request may have succeeded and its answer been lost; looking the payment up tells.
            payment = _call_stripe(lambda: self._retrieve_payment(payment_id))
            if there(payment):
                return payment
            raise _translate_error(failed) from None
        except stripe.StripeError as failed:
            raise _translate_error(failed) from None


def _build_payment(intent: stripe.PaymentIntent) -> Payment:
    status = INTENT_STATUSES.get(intent.status, PaymentStatus.OPEN)
    payment = Payment(
        status=status,
        payment_id=intent.id,
        reservation_id=_find_reservation_id(intent),
        authorised_amount=intent.amount_capturable if status is PaymentStatus.AUTHORIZED else intent.amount,
        captured_amount=intent.amount_received,
    )
    charge = getattr(intent, "latest_charge", None)
    if status is PaymentStatus.OPEN or not isinstance(charge, stripe.Charge):
        return payment
    card = _find_card(charge)
    # Stripe omits the field when nothing can be captured any more.
    lapses = getattr(card, "capture_before", None)
    return replace(
        payment,
        refunded_amount=charge.amount_refunded,
        capture_before=datetime.fromtimestamp(lapses, UTC) if lapses else None,
        card_brand=card.brand if card else None,
        card_last4=card.last4 if card else None,
    )


def _find_card(charge: stripe.Charge) -> stripe.Charge.PaymentMethodDetails.Card | None:
    # A charge has details of its own payment method only; what an answer leaves out is no attribute in the package.
    details: stripe.Charge.PaymentMethodDetails | None = getattr(charge, "payment_method_details", None)
    card: stripe.Charge.PaymentMethodDetails.Card | None = getattr(details, "card", None)
    return card


def _find_reservation_id(subject: stripe.PaymentIntent | stripe.checkout.Session) -> str | None:
    metadata = getattr(subject, "metadata", None)
    return _read_reservation_id(metadata.to_dict() if isinstance(metadata, stripe.StripeObject) else None)


def _read_reservation_id(metadata: object) -> str | None:
    match metadata:
        case {"reservation_id": str(reservation_id)}:
            return reservation_id
    return None


def _build_invalid_event() -> BadRequest:
    return BadRequest("The body is not an event of the payment provider.", code="InvalidEvent")


def _call_stripe(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except stripe.StripeError as failed:
        raise _translate_error(failed) from None


def _translate_error(failed: stripe.StripeError) -> PaymentRefused | PaymentUnavailable:
    """PaymentRefused for an answer that will not change, else PaymentUnavailable; its message has Stripe's code, never
    its text.

    Raise it `from None`, because a logged traceback would contain Stripe's text.
    """
    # Some of the package's errors have the code only in their `error`.
    code = failed.code or (failed.error.code if failed.error else None)
    what = code or type(failed).__name__
    if isinstance(failed, FINAL_ERRORS) and code not in TRANSIENT_CODES:
        return PaymentRefused(f"The payment provider refused: {what}.")
    return PaymentUnavailable(f"The payment provider did not answer usefully: {what}.")
