"""Sessions, intents, charges and refunds as values, with their legal moves, and the test cards.

Statuses and codes are Stripe's own (https://docs.stripe.com/api).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

CAPTURE_WINDOW_SECONDS: Final = 7 * 24 * 3600
SESSION_MINIMUM_SECONDS: Final = 30 * 60
SESSION_MAXIMUM_SECONDS: Final = 24 * 3600

# In minor units; other currencies have no floor here: https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
MINIMUM_AMOUNT: Final[Mapping[str, int]] = {
    **dict.fromkeys(("aud", "brl", "cad", "chf", "eur", "inr", "jpy", "nzd", "sgd", "usd"), 50),
    **dict.fromkeys(("aed", "pln", "ron"), 200),
    **dict.fromkeys(("nok", "sek"), 300),
    "gbp": 30,
    "dkk": 250,
    "czk": 1500,
    "huf": 17500,
}


class StripeError(Exception):
    """An error that Stripe answers with: its HTTP status and the fields of its `error` object."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        intent: "Intent | None" = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.intent = intent


class SessionStatus(StrEnum):
    OPEN = "open"
    COMPLETE = "complete"
    EXPIRED = "expired"


class IntentStatus(StrEnum):
    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_ACTION = "requires_action"
    REQUIRES_CAPTURE = "requires_capture"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"


class Move(StrEnum):
    DECLINE = "decline"
    CHALLENGE = "challenge"
    AUTHORIZE = "authorize"
    CHARGE = "charge"
    CAPTURE = "capture"
    CANCEL = "cancel"


_I, _M = IntentStatus, Move
INTENT_MOVES: Final[Mapping[tuple[IntentStatus, Move], IntentStatus]] = {
    (_I.REQUIRES_PAYMENT_METHOD, _M.DECLINE): _I.REQUIRES_PAYMENT_METHOD,
    (_I.REQUIRES_PAYMENT_METHOD, _M.CHALLENGE): _I.REQUIRES_ACTION,
    (_I.REQUIRES_PAYMENT_METHOD, _M.AUTHORIZE): _I.REQUIRES_CAPTURE,
    (_I.REQUIRES_PAYMENT_METHOD, _M.CHARGE): _I.SUCCEEDED,
    (_I.REQUIRES_PAYMENT_METHOD, _M.CANCEL): _I.CANCELED,
    (_I.REQUIRES_ACTION, _M.DECLINE): _I.REQUIRES_PAYMENT_METHOD,
    (_I.REQUIRES_ACTION, _M.CHALLENGE): _I.REQUIRES_ACTION,
    (_I.REQUIRES_ACTION, _M.AUTHORIZE): _I.REQUIRES_CAPTURE,
    (_I.REQUIRES_ACTION, _M.CHARGE): _I.SUCCEEDED,
    (_I.REQUIRES_ACTION, _M.CANCEL): _I.CANCELED,
    (_I.REQUIRES_CAPTURE, _M.CAPTURE): _I.SUCCEEDED,
    (_I.REQUIRES_CAPTURE, _M.CANCEL): _I.CANCELED,
}


class CardOutcome(StrEnum):
    APPROVE = "approve"
    DECLINE = "decline"
    CHALLENGE = "challenge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline:
    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a payer pays with. `method` is Stripe's payment method type, which need not be a card's.

    Not every method can be held and captured later.
    """

    number: str
    brand: str
    title: str
    outcome: CardOutcome
    decline: Decline | None = None
    method: str = "card"
    holdable: bool = True

    @property
    def last4(self) -> str:
        return self.number[-4:]


# https://docs.stripe.com/testing
TEST_CARDS: Final = (
    Card(number="4242424242424242", brand="visa", title="Succeeds", outcome=CardOutcome.APPROVE),
    Card(number="4000002500003155", brand="visa", title="Asks for 3-D Secure", outcome=CardOutcome.CHALLENGE),
    Card(
        number="4000000000000002",
        brand="visa",
        title="Is declined",
        outcome=CardOutcome.DECLINE,
        decline=Decline(code="card_declined", decline_code="generic_decline", message="Your card was declined."),
    ),
    Card(
        number="4000000000009995",
        brand="visa",
        title="Has insufficient funds",
        outcome=CardOutcome.DECLINE,
        decline=Decline(
            code="card_declined", decline_code="insufficient_funds", message="Your card has insufficient funds."
        ),
    ),
)

# https://docs.stripe.com/testing, "PaymentMethods"
TEST_METHODS: Final[Mapping[str, Card]] = {
    "pm_card_visa": TEST_CARDS[0],
    "pm_card_visa_chargeDeclined": TEST_CARDS[2],
}

# The other payment methods of a Stripe account. Only a charge by card has a `card` hash.
OTHER_METHODS: Final[Mapping[str, Card]] = {
    card.method: card
    for card in (
        Card(method="link", number="", brand="", title="Link", outcome=CardOutcome.APPROVE),
        Card(
            method="card_present",
            number="4242424242424242",
            brand="visa",
            title="A card at a Terminal",
            outcome=CardOutcome.APPROVE,
        ),
        Card(
            method="sepa_debit",
            number="DE89370400440532013000",
            brand="",
            title="SEPA Direct Debit",
            outcome=CardOutcome.APPROVE,
            holdable=False,
        ),
    )
}

AUTHENTICATION_FAILED: Final = Decline(
    code="payment_intent_authentication_failure",
    decline_code=None,
    message="We are unable to authenticate your payment method. Please choose a different one and try again.",
)
NOT_A_TEST_CARD: Final = Decline(
    code="card_declined",
    decline_code="test_mode_live_card",
    message="Your card was declined. Your request was in test mode, but used a non test card.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    id: str
    created: int
    expires_at: int
    amount: int
    currency: str
    item_name: str
    success_url: str
    cancel_url: str | None = None
    client_reference_id: str | None = None
    customer_email: str | None = None
    payer_email: str | None = None
    submit_message: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    capture_method: str = "automatic_async"
    intent_metadata: dict[str, str] = field(default_factory=dict)
    intent_description: str | None = None
    status: SessionStatus = SessionStatus.OPEN
    paid: bool = False
    intent_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    id: str
    created: int
    amount: int
    currency: str
    capture_method: str
    metadata: dict[str, str]
    session_id: str | None = None
    description: str | None = None
    status: IntentStatus = IntentStatus.REQUIRES_PAYMENT_METHOD
    amount_capturable: int = 0
    amount_received: int = 0
    charge_id: str | None = None
    last_error: Decline | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    method: str = "card"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    id: str
    created: int
    intent_id: str
    amount: int
    currency: str
    metadata: dict[str, str]
    brand: str
    last4: str
    failure: Decline | None = None
    captured: bool = False
    amount_captured: int = 0
    amount_refunded: int = 0
    capture_before: int | None = None
    method: str = "card"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    id: str
    created: int
    intent_id: str
    charge_id: str
    amount: int
    currency: str
    reason: str | None
    metadata: dict[str, str]
    failed: bool = False


Record = Session | Intent | Charge | Refund
