"""The table of endings in docs/reference.md agrees with the decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from csms.charging import settlement
from csms.charging.reservation import FAILURES, LOCKING_STATES, TRANSITIONS, Event, apply_event
from csms.model import Money, OutboxKind, Policy, Snapshot
from docs import endings
from docs.endings import ENDINGS, Hold
from tests import builders as b
from tests.builders import NOW, SNAPSHOT_BY_STATE, decision_context

OWED = {
    Hold.NOTHING_YET: {(), (OutboxKind.EXPIRE_CHECKOUT,)},
    Hold.RELEASED: {(OutboxKind.RELEASE,)},
    Hold.HELD: {(OutboxKind.RELEASE,)},
    Hold.CAPTURED: {(OutboxKind.CAPTURE,), (OutboxKind.RELEASE,)},
}


def end_in_every_state(event: Event) -> Iterator[Snapshot]:
    """What becomes of a reservation in every state in which the event ends it."""
    for state in endings.sources(event):
        before = SNAPSHOT_BY_STATE[state]()
        if event is Event.CONNECTOR_TAKEN:  # It may be found out when the checkout opens, or when it was paid.
            paid = replace(b.get_reservation(before), money=Money.AUTHORIZED)
            yield apply_event(replace(before, reservation=paid), event, decision_context())
        if event is Event.CHECKOUT_FAILED:
            before = b.owed_checkout_snapshot()
        if event in FAILURES:
            yield apply_event(replace(before, outbox_items=()), event, decision_context())
            continue
        for energy_wh in (10_000, 0):
            yield settlement.settle(
                replace(before, outbox_items=()), event, decision_context(), energy_wh=energy_wh, until=NOW
            )


def test_endings_table_covers_exactly_all_endings() -> None:
    assert {event for (_, event), after in TRANSITIONS.items() if after not in LOCKING_STATES} == set(ENDINGS)


@pytest.mark.note("F63")
@pytest.mark.parametrize("event", ENDINGS)
def test_documented_hold_matches_outbox_items(event: Event) -> None:
    said = set().union(*(OWED[hold] for hold in ENDINGS[event].holds))
    happens = {tuple(outbox_item.kind for outbox_item in after.outbox_items) for after in end_in_every_state(event)}

    assert happens <= said
    assert all(happens & OWED[hold] for hold in ENDINGS[event].holds), "nothing is promised that never happens"


@pytest.mark.parametrize("event", ENDINGS)
def test_only_captured_endings_have_an_amount(event: Event) -> None:
    charged = {b.get_reservation(after).amount or 0 for after in end_in_every_state(event)}

    assert (Hold.CAPTURED in ENDINGS[event].holds) == any(charged)


def test_endings_rows_have_no_empty_cell() -> None:
    rows = list(endings.rows())

    assert len(ENDINGS) == len(rows)
    assert all(all(cells) for cells in rows)


def test_documented_patience_matches_capture_retries() -> None:
    seen, at = b.completed_snapshot(), NOW + Policy().outbox_lease
    while (owed := seen.outbox_items[-1]).due_at is not None:
        at = owed.due_at
        seen = b.apply_decision(
            seen, settlement.put_off(seen, OutboxKind.CAPTURE, "no answer", decision_context(at), final=False)
        )

    assert endings.retry_period(Policy()) == at - NOW
