"""Every authorized payment ends captured, released or under review within a limited time, whatever crashes, is
repeated, arrives in another order or is false (`tests.machine.money`). `make soak MINUTES=60` runs longer."""

from __future__ import annotations

from functools import cache
from typing import Final

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from csms.stations import credentials
from tests.conftest import Engines
from tests.machine.line import ENGINE, FaultyDynamoDb
from tests.machine.money import MoneyMachine

SEQUENCES: Final = 500
STEPS: Final = 14
REACHED: Final = (
    "Completed and captured",
    "Completed and released",
    "Completed and needs_review",
    "Cancelled and none",
    "Cancelled and released",
    "Failed and none",
    "Failed and released",
    "AttemptFailed",
    "CheckoutClosing",
    "Corrected",
    "NeedsReview",
    "PaymentBilled",
    "PaymentCameTooLate",
    "PaymentReleased",
    "PaymentRetried",
    "PaymentSettled",
    "ReceiptSent",
    "Refunded",
    "StartTimedOut",
    "Unplugged",
    "station deleted",
)
"""What the machine must reach, or the test checks nothing: endings of reservations and their money, and audit
events."""


@pytest.mark.note("F63", "F65", "F67")
def test_every_authorization_ends_without_overcharge(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    # Password verification is slow on purpose, and its result is always the same here.
    monkeypatch.setattr(credentials, "verify_password", cache(credentials.verify_password))
    line = FaultyDynamoDb(engines(ENGINE).endpoint)
    examples = settings(
        max_examples=SEQUENCES, stateful_step_count=STEPS, deadline=None, database=None, print_blob=True
    )
    MoneyMachine.settled = 0
    MoneyMachine.reached.clear()

    run_state_machine_as_test(lambda: MoneyMachine(line), settings=examples)

    seldom = {what: times for what in REACHED if (times := MoneyMachine.reached[what]) < 3}
    assert {} == seldom
    assert MoneyMachine.settled >= SEQUENCES
