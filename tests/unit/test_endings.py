"""The table of endings in docs/reference.md says what the decisions do."""

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
from tests.builders import NOW, REACHED, moment

OWED = {
    Hold.NOTHING_YET: {(), (OutboxKind.EXPIRE_CHECKOUT,)},
    Hold.RELEASED: {(OutboxKind.RELEASE,)},
    Hold.CAPTURED: {(OutboxKind.CAPTURE,), (OutboxKind.RELEASE,)},
}


def ended(event: Event) -> Iterator[Snapshot]:
    """What becomes of a reservation in every state in which the event ends it."""
    for state in endings.sources(event):
        before = REACHED[state]()
        if event is Event.CONNECTOR_TAKEN:  # It may be found out when the checkout opens, or when it was paid.
            paid = replace(b.reservation_in(before), money=Money.AUTHORISED)
            yield apply_event(replace(before, reservation=paid), event, moment())
        if event is Event.CHECKOUT_FAILED:
            before = b.created()
        if event in FAILURES:
            yield apply_event(replace(before, outbox_items=()), event, moment())
            continue
        for energy_wh in (10_000, 0):
            yield settlement.settle(replace(before, outbox_items=()), event, moment(), energy_wh=energy_wh, until=NOW)


def test_endings_table_covers_exactly_all_endings() -> None:
    assert {event for (_, event), after in TRANSITIONS.items() if after not in LOCKING_STATES} == set(ENDINGS)


@pytest.mark.note("F63")
@pytest.mark.parametrize("event", ENDINGS)
def test_documented_hold_matches_outbox_items(event: Event) -> None:
    said = set().union(*(OWED[hold] for hold in ENDINGS[event].holds))
    happens = {tuple(effect.kind for effect in after.outbox_items) for after in ended(event)}

    assert happens <= said
    assert all(happens & OWED[hold] for hold in ENDINGS[event].holds), "nothing is promised that never happens"


@pytest.mark.parametrize("event", ENDINGS)
def test_only_captured_endings_have_an_amount(event: Event) -> None:
    charged = {b.reservation_in(after).amount or 0 for after in ended(event)}

    assert (Hold.CAPTURED in ENDINGS[event].holds) == any(charged)


def test_endings_rows_have_no_empty_cell() -> None:
    rows = list(endings.rows())

    assert len(ENDINGS) == len(rows)
    assert all(all(cells) for cells in rows)


def test_documented_patience_matches_capture_retries() -> None:
    seen, at = b.completed(), NOW + Policy().outbox_lease
    while (owed := seen.outbox_items[-1]).due_at is not None:
        at = owed.due_at
        seen = b.stored(seen, settlement.put_off(seen, OutboxKind.CAPTURE, "no answer", moment(at), final=False))

    assert endings.patience(Policy()) == at - NOW
