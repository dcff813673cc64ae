"""Finding the test card of the number that a payer typed."""

import re
from typing import Final

from stand_ins.stripe.records import NOT_A_TEST_CARD, TEST_CARDS, Card, CardOutcome, StripeError

CHALLENGE_CARD: Final = next(card for card in TEST_CARDS if card.outcome is CardOutcome.CHALLENGE)


def find_card(typed: str) -> Card:
    """The test card with this number. Any other well-formed number is declined."""
    number = re.sub(r"[\s-]", "", typed)
    if not re.fullmatch(r"[0-9]{12,19}", number):
        raise StripeError("Your card number is incomplete.", code="incomplete_number")
    if not _is_luhn_valid(number):
        raise StripeError("Your card number is invalid.", code="incorrect_number")
    known = {card.number: card for card in TEST_CARDS}
    other = Card(number=number, brand="unknown", title="", outcome=CardOutcome.DECLINE, decline=NOT_A_TEST_CARD)
    return known.get(number, other)


def _is_luhn_valid(number: str) -> bool:
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(number))]
    return sum(digit // 10 + digit % 10 for digit in doubled) % 10 == 0
