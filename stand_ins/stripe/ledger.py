"""The decisions on payments, one pure function for each, and the ledger that keeps the records.

A decision takes the records it needs, the time and a source of ids. It returns the Change to make, or raises the
StripeError to answer. The messages are Stripe's own if they are known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stand_ins.stripe.records import (
    AUTHENTICATION_FAILED,
    CAPTURE_WINDOW_SECONDS,
    INTENT_MOVES,
    MINIMUM_AMOUNT,
    SESSION_MAXIMUM_SECONDS,
    SESSION_MINIMUM_SECONDS,
    Card,
    CardOutcome,
    Charge,
    Intent,
    IntentStatus,
    Move,
    Record,
    Refund,
    Session,
    SessionStatus,
    StripeError,
)

NewId = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The result of a decision: the record to answer with, the records to store, and the events to emit, oldest
    first."""

    answer: Record
    records: tuple[Record, ...] = ()
    events: tuple[tuple[str, Record], ...] = ()


def open_session(session: Session) -> Change:
    """Open a session. Raises StripeError if Stripe would not accept its amount or its expiry."""
    seconds = session.expires_at - session.created
    if seconds < SESSION_MINIMUM_SECONDS:
        raise StripeError("The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.")
    if seconds > SESSION_MAXIMUM_SECONDS:
        raise StripeError("The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.")
    minimum = MINIMUM_AMOUNT.get(session.currency, 1)
    if session.amount < minimum:
        raise StripeError(
            "The Checkout Session's total amount due must add up to at least "
            f"{minimum} {session.currency} (minor units)",
            code="amount_too_small",
        )
    return Change(answer=session, records=(session,))


def open_intent(intent: Intent, card: Card, *, now: int, new_id: NewId) -> Change:
    """Create an intent without a session, and confirm it with the card at once.

    Raises:
        StripeError: the card was declined, or requires authentication by the payer.
    """
    if intent.amount < MINIMUM_AMOUNT.get(intent.currency, 1):
        raise _too_small_error(intent.currency, "amount")
    if card.decline:
        raise StripeError(card.decline.message, status=402, kind="card_error", code=card.decline.code)
    held, charge = _confirm_intent(intent, card, now=now, new_id=new_id)
    events = (("payment_intent.created", intent), *_charge_events(held, charge))
    return Change(answer=held, records=(held, charge), events=events)


def pay(session: Session, intent: Intent | None, card: Card, *, now: int, new_id: NewId) -> Change:
    """Try to pay an open session with the card: authorized, declined (the session stays payable) or challenged.

    Raises:
        StripeError: the session is not open any more.
    """
    _require_open(session)
    known, intent = intent is not None, intent or _new_intent(session, now=now, new_id=new_id)
    created = () if known else (("payment_intent.created", intent),)
    match card.outcome:
        case CardOutcome.APPROVE:
            change = _authorize(session, intent, card, now=now, new_id=new_id)
        case CardOutcome.DECLINE:
            change = _decline(session, intent, card, now=now, new_id=new_id)
        case CardOutcome.CHALLENGE:
            challenged = replace(intent, status=_next_status(intent, Move.CHALLENGE))
            kept = replace(session, intent_id=intent.id)
            events = (("payment_intent.requires_action", challenged),)
            change = Change(answer=challenged, records=(kept, challenged), events=events)
    return replace(change, events=(*created, *change.events))


def authenticate(session: Session, intent: Intent, card: Card, *, passed: bool, now: int, new_id: NewId) -> Change:
    """End a 3-D Secure challenge: authorized if passed, else declined.

    Raises:
        StripeError: the session is not open any more, or waits for no authentication.
    """
    _require_open(session)
    if intent.status is not IntentStatus.REQUIRES_ACTION:
        raise StripeError("This payment is not waiting for authentication.", code="payment_intent_unexpected_state")
    if passed:
        return _authorize(session, intent, card, now=now, new_id=new_id)
    return _decline(session, intent, replace(card, decline=AUTHENTICATION_FAILED), now=now, new_id=new_id)


def expire(session: Session, intent: Intent | None, *, now: int) -> Change:
    """Expire the session. Raises Stripe's refusal if it was paid first."""
    if session.status is not SessionStatus.OPEN:
        raise StripeError(
            'Only Checkout Sessions with a status in ["open"] can be expired. '
            f"This Checkout Session has a status of `{session.status}`."
        )
    expired = replace(session, status=SessionStatus.EXPIRED)
    change = Change(answer=expired, records=(expired,), events=(("checkout.session.expired", expired),))
    if intent is None:
        return change
    # Stripe's reference: a session's intent cannot be cancelled, "to cancel, expire the Checkout Session instead".
    ended = _cancel_intent(intent, reason=None, now=now)
    return replace(change, records=(expired, ended), events=(("payment_intent.canceled", ended), *change.events))


def capture(intent: Intent, charge: Charge | None, amount: int | None) -> Change:
    """Capture the amount (all of it if None), and release the rest of the hold.

    Since 2025-03-31.basil the released rest is no refund: amount_refunded stays 0 and charge.refunded is not sent.
    """
    if intent.status is IntentStatus.SUCCEEDED:
        raise _unexpected_state_error(
            intent, "This PaymentIntent could not be captured because it has already been captured."
        )
    if charge is None or (intent.status, Move.CAPTURE) not in INTENT_MOVES:
        raise _unexpected_state_error(
            intent,
            f"This PaymentIntent could not be captured because it has a status of {intent.status}. "
            "Only a PaymentIntent with one of the following statuses may be captured: requires_capture.",
        )
    amount = intent.amount_capturable if amount is None else amount
    if amount > intent.amount_capturable:
        raise StripeError(
            "The payment could not be captured because the requested capture amount is greater than "
            "the amount you can capture for this charge.",
            code="amount_too_large",
            param="amount_to_capture",
            intent=intent,
        )
    if amount < MINIMUM_AMOUNT.get(intent.currency, 1):
        raise _too_small_error(intent.currency, "amount_to_capture")
    captured = replace(intent, status=_next_status(intent, Move.CAPTURE), amount_capturable=0, amount_received=amount)
    charged = replace(charge, captured=True, amount_captured=amount)
    events = (("charge.captured", charged), ("payment_intent.succeeded", captured))
    return Change(answer=captured, records=(captured, charged), events=events)


def cancel(intent: Intent, session: Session | None, *, reason: str | None, now: int) -> Change:
    """Cancel the intent and release its hold."""
    if (intent.status, Move.CANCEL) not in INTENT_MOVES:
        raise _unexpected_state_error(
            intent,
            f"You cannot cancel this PaymentIntent because it has a status of {intent.status}. "
            "Only a PaymentIntent with one of the following statuses may be canceled: requires_payment_method, "
            "requires_capture, requires_confirmation, requires_action, processing.",
        )
    if session and session.status is SessionStatus.OPEN:
        raise StripeError(
            "You cannot cancel a PaymentIntent of an open Checkout Session. Expire the Checkout Session instead.",
            intent=intent,
        )
    canceled = _cancel_intent(intent, reason=reason, now=now)
    return Change(answer=canceled, records=(canceled,), events=(("payment_intent.canceled", canceled),))


def lapse(intent: Intent, charge: Charge, *, now: int) -> Change:
    """Let an uncaptured authorization lapse: the intent is canceled as `expired`."""
    canceled = _cancel_intent(intent, reason="expired", now=now)
    events = (("charge.expired", charge), ("payment_intent.canceled", canceled))
    return Change(answer=canceled, records=(canceled,), events=events)


def refund(
    charge: Charge, *, amount: int | None, reason: str | None, metadata: dict[str, str], now: int, new_id: NewId
) -> Change:
    """Refund the amount (all that is left if None). All refunds together never exceed what was captured."""
    if not charge.captured or charge.failure:
        raise StripeError(
            f"This PaymentIntent ({charge.intent_id}) does not have a successful charge to refund.",
            param="payment_intent",
        )
    left = charge.amount_captured - charge.amount_refunded
    if left == 0:
        raise StripeError(f"Charge {charge.id} has already been refunded.", code="charge_already_refunded")
    amount = left if amount is None else amount
    if amount > left:
        raise StripeError(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}), in minor units",
            param="amount",
        )
    made = Refund(
        id=new_id("re"),
        created=now,
        intent_id=charge.intent_id,
        charge_id=charge.id,
        amount=amount,
        currency=charge.currency,
        reason=reason,
        metadata=metadata,
    )
    refunded = replace(charge, amount_refunded=charge.amount_refunded + amount)
    events = (("refund.created", made), ("charge.refunded", refunded))
    return Change(answer=made, records=(made, refunded), events=events)


def bounce(refund: Refund, charge: Charge) -> Change:
    """Record that the payer's bank sent the refund back: it has failed, and its amount is not refunded any more."""
    failed = replace(refund, failed=True)
    back = replace(charge, amount_refunded=charge.amount_refunded - refund.amount)
    return Change(answer=failed, records=(failed, back), events=(("refund.failed", failed),))


@dataclass(slots=True, kw_only=True)
class Ledger:
    """All records by id; the only mutable object of this module."""

    sessions: dict[str, Session] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    charges: dict[str, Charge] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)

    def keep(self, records: tuple[Record, ...]) -> None:
        for record in records:
            match record:
                case Session():
                    self.sessions[record.id] = record
                case Intent():
                    self.intents[record.id] = record
                case Charge():
                    self.charges[record.id] = record
                case Refund():
                    self.refunds[record.id] = record

    def find(self, record_id: str) -> Record | None:
        kinds = (self.sessions, self.intents, self.charges, self.refunds)
        return next((kind[record_id] for kind in kinds if record_id in kind), None)

    def find_intent(self, session: Session) -> Intent | None:
        return self.intents[session.intent_id] if session.intent_id else None

    def find_charge(self, intent: Intent) -> Charge | None:
        return self.charges[intent.charge_id] if intent.charge_id else None

    def overdue_changes(self, now: int) -> list[Change]:
        """What is due by the clock: expired sessions and lapsed authorizations."""
        ended = [
            expire(session, self.find_intent(session), now=now)
            for session in self.sessions.values()
            if session.status is SessionStatus.OPEN and session.expires_at <= now
        ]
        held = [intent for intent in self.intents.values() if intent.status is IntentStatus.REQUIRES_CAPTURE]
        for intent in held:
            charge = self.find_charge(intent)
            if charge and charge.capture_before is not None and charge.capture_before <= now:
                ended.append(lapse(intent, charge, now=now))
        return ended


def _next_status(intent: Intent, move: Move) -> IntentStatus:
    """The status after the move. A move that is not in the table is an error of this module, not of the caller."""
    return INTENT_MOVES[intent.status, move]


def _require_open(session: Session) -> None:
    if session.status is not SessionStatus.OPEN:
        raise StripeError(
            f"This Checkout Session has a status of `{session.status}`.", code="checkout_session_not_open"
        )


def _too_small_error(currency: str, param: str) -> StripeError:
    least = MINIMUM_AMOUNT.get(currency, 1)
    return StripeError(
        f"Amount must be at least {least} {currency} (minor units)", code="amount_too_small", param=param
    )


def _unexpected_state_error(intent: Intent, message: str) -> StripeError:
    return StripeError(message, code="payment_intent_unexpected_state", intent=intent)


def _new_intent(session: Session, *, now: int, new_id: NewId) -> Intent:
    # Stripe creates the intent when the payer confirms, not with the session (2022-08-01).
    return Intent(
        id=new_id("pi"),
        created=now,
        session_id=session.id,
        amount=session.amount,
        currency=session.currency,
        capture_method=session.capture_method,
        metadata=session.intent_metadata,
        description=session.intent_description,
    )


def _new_charge(intent: Intent, card: Card, *, now: int, new_id: NewId) -> Charge:
    return Charge(
        id=new_id("ch"),
        created=now,
        intent_id=intent.id,
        amount=intent.amount,
        currency=intent.currency,
        metadata=intent.metadata,
        brand=card.brand,
        last4=card.last4,
        method=card.method,
    )


def _authorize(session: Session, intent: Intent, card: Card, *, now: int, new_id: NewId) -> Change:
    held, charge = _confirm_intent(intent, card, now=now, new_id=new_id)
    paid = intent.capture_method != "manual"
    complete = replace(session, status=SessionStatus.COMPLETE, paid=paid, intent_id=intent.id)
    events = (*_charge_events(held, charge), ("checkout.session.completed", complete))
    return Change(answer=complete, records=(complete, held, charge), events=events)


def _confirm_intent(intent: Intent, card: Card, *, now: int, new_id: NewId) -> tuple[Intent, Charge]:
    """The intent with its amount held, or captured at once, and its charge."""
    manual = intent.capture_method == "manual"
    if manual and not card.holdable:
        raise StripeError(f"Payments by {card.method} cannot be captured later.", param="capture_method")
    charge = replace(
        _new_charge(intent, card, now=now, new_id=new_id),
        captured=not manual,
        amount_captured=0 if manual else intent.amount,
        capture_before=now + CAPTURE_WINDOW_SECONDS if manual else None,
    )
    held = replace(
        intent,
        status=_next_status(intent, Move.AUTHORIZE if manual else Move.CHARGE),
        amount_capturable=intent.amount if manual else 0,
        amount_received=0 if manual else intent.amount,
        charge_id=charge.id,
        last_error=None,
        method=card.method,
    )
    return held, charge


def _charge_events(held: Intent, charge: Charge) -> tuple[tuple[str, Record], ...]:
    event_type = "payment_intent.amount_capturable_updated" if held.amount_capturable else "payment_intent.succeeded"
    return ("charge.succeeded", charge), (event_type, held)


def _decline(session: Session, intent: Intent, card: Card, *, now: int, new_id: NewId) -> Change:
    charge = replace(_new_charge(intent, card, now=now, new_id=new_id), failure=card.decline)
    refused = replace(intent, status=_next_status(intent, Move.DECLINE), charge_id=charge.id, last_error=card.decline)
    kept = replace(session, intent_id=intent.id)
    events = (("charge.failed", charge), ("payment_intent.payment_failed", refused))
    return Change(answer=refused, records=(kept, refused, charge), events=events)


def _cancel_intent(intent: Intent, *, reason: str | None, now: int) -> Intent:
    return replace(
        intent,
        status=_next_status(intent, Move.CANCEL),
        amount_capturable=0,
        canceled_at=now,
        cancellation_reason=reason,
    )
