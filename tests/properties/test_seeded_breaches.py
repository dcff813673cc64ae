"""The machines catch what they are there for: with a wrong rule in place of the right one, an invariant fails.

A machine runs here with the few rules that lead to the breach, so that a handful of short examples finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from csms.adapters.dynamodb import Store
from csms.charging import settlement, stop_requests
from csms.model import DecisionContext, OutboxItem, OutboxKind, Reservation, ReservationState, Snapshot
from csms.pricing import tariff
from csms.service import maintenance
from csms.service.outbox import Changed, Outbox
from csms.service.reconciliation import Reconciliation
from csms.stations import credentials
from tests.conftest import Engines
from tests.machine.line import ENGINE, FaultyDynamoDb
from tests.machine.money import MoneyMachine
from tests.machine.service import ServiceMachine

EXAMPLES: Final = 60
RULE_MARKER: Final = "hypothesis_stateful_rule"
ATTEMPT: Final = Outbox.attempt
CORRECT_BILL: Final = settlement.correct_bill

Breach = Callable[[pytest.MonkeyPatch], None]


def ask_refund_under_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt at a refund has a key of its own, as those at a capture have."""

    def attempt(self: Outbox, held: Reservation, outbox_item: OutboxItem) -> Changed:
        refund = outbox_item.kind is OutboxKind.REFUND
        return ATTEMPT(self, held, replace(outbox_item, spent=outbox_item.attempts) if refund else outbox_item)

    monkeypatch.setattr(Outbox, "attempt", attempt)


def report_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "reconcile", lambda _: Reconciliation())


def report_no_missing_payment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csms.service.reconciliation._describe_missing", lambda *_: [])


def settle_when_authorization_lapses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "settle_deadline", lambda payment, _: payment.capture_before)


def process_event_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "has_processed_webhook", lambda *_: False)


def raise_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a late stop tells is billed beside what was billed before."""

    def correct_bill(snapshot: Snapshot, energy_wh: int, context: DecisionContext) -> Snapshot:
        held = snapshot.reservation
        if held is None or held.state is not ReservationState.COMPLETED or held.amount is None:
            return CORRECT_BILL(snapshot, energy_wh, context)
        both_wh, authorized = held.energy_wh + energy_wh, held.authorised_amount or 0
        due = tariff.capturable_amount(held.tariff, both_wh, held.idle_seconds, authorized=authorized)
        if due <= held.amount:
            return CORRECT_BILL(snapshot, energy_wh, context)
        return replace(snapshot, reservation=replace(held, energy_wh=both_wh, amount=due))

    monkeypatch.setattr(settlement, "correct_bill", correct_bill)


def capture_without_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy that no charger can deliver is billed like any other."""
    monkeypatch.setattr(settlement, "doubt_energy", lambda snapshot, *_, **__: snapshot)


def take_no_for_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A station that refuses to stop a transaction is not asked again."""
    monkeypatch.setattr(stop_requests, "ask_again", lambda snapshot, *_: snapshot)
    monkeypatch.setattr(stop_requests, "_insist", lambda snapshot, *_: snapshot)


def hide_who_does_not_obey(monkeypatch: pytest.MonkeyPatch) -> None:
    """A station that refuses to stop is asked in vain, and nobody sees it."""
    monkeypatch.setattr(stop_requests, "_put_before_operator", lambda snapshot, *_: snapshot)


BREACHES: Final[dict[Breach, tuple[type, tuple[str, ...], str]]] = {
    ask_refund_under_new_key: (MoneyMachine, ("lose_stop",), "a refund keeps its key"),
    report_no_difference: (MoneyMachine, ("advance_normally",), "a hold of nobody is reported"),
    report_no_missing_payment: (MoneyMachine, ("fail_money_operation",), "a hold that is gone is reported"),
    settle_when_authorization_lapses: (MoneyMachine, ("advance_normally",), "an authorization is used before"),
    process_event_again: (MoneyMachine, ("advance_normally", "deliver_events"), "an event acts once"),
    capture_without_doubt: (ServiceMachine, ("tell_energy_wrongly",), "what the car took is captured|implausible"),
    take_no_for_an_end: (ServiceMachine, ("go_on_after_end",), "it is asked again"),
    hide_who_does_not_obey: (ServiceMachine, ("go_on_after_end",), "a human sees"),
    raise_bill: (MoneyMachine, ("lose_stop",), "a bill only falls"),
}
"""Each wrong rule, the machine with the rules that lead to it, and the sentence that it breaks."""


def keep_rules(machine: type, names: tuple[str, ...]) -> type:
    """The machine with these rules only; its invariants are all there."""
    rules = {name for name in dir(machine) if hasattr(getattr(machine, name, None), RULE_MARKER)}
    assert rules >= {*names}
    return type(machine.__name__, (machine,), dict.fromkeys(rules - {*names}))


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.__name__)
def test_machine_catches_wrong_rule(breach: Breach, engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "verify_password", cache(credentials.verify_password))
    machine, names, sentence = BREACHES[breach]
    narrow = keep_rules(machine, names)
    line = FaultyDynamoDb(engines(ENGINE).endpoint)
    short = settings(
        max_examples=EXAMPLES,
        stateful_step_count=4,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    breach(monkeypatch)

    with pytest.raises(AssertionError, match=sentence):
        run_state_machine_as_test(lambda: narrow(line), settings=short)
