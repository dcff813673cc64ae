"""Transactions that the station does not end: closed after the grace of an implied stop, or at the session limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csms.charging.transaction import close_overdue, record_readings, start, stop
from csms.model import CommandKind, ReservationState, Snapshot
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, apply_decision, decision_context, get_reservation
from tests.unit.transaction_cases import CARD, END, reading


def implied_stop_snapshot() -> Snapshot:
    """A charge of 2 kWh whose connector said Available at noon, though no stop came."""
    seen = record_readings(b.charging_snapshot(), 1, "3", (reading(3000),), decision_context())
    changed_connector = seen.connector(1)
    assert changed_connector.transaction is not None
    return replace(
        seen.with_connector(
            replace(changed_connector, transaction=replace(changed_connector.transaction, idle_until=NOW + 5 * MINUTE))
        ),
        records=(),
    )


@pytest.mark.note("F55")
def test_implied_stop_settles_after_grace() -> None:
    before = implied_stop_snapshot()

    assert before == close_overdue(before, 1, decision_context(NOW + 4 * MINUTE))
    after = close_overdue(before, 1, decision_context(NOW + 5 * MINUTE))

    closed, held = after.transactions["3"], get_reservation(after)
    assert ("ImpliedStop", 2000, ("ImpliedStop",)) == (closed.reason, closed.energy_wh, closed.flags)
    assert (ReservationState.COMPLETED, 169) == (held.state, held.amount)
    assert (None, None) == (after.connector(1).transaction, after.connector(1).lock)


@pytest.mark.note("F55")
def test_real_stop_within_grace_wins() -> None:
    after = stop(implied_stop_snapshot(), END, decision_context(NOW + MINUTE))

    assert ("Local", 10_000) == (after.transactions["3"].reason, after.transactions["3"].energy_wh)
    assert 645 == get_reservation(after).amount


@pytest.mark.note("F55")
def test_stop_after_grace_raises_no_bill() -> None:
    before = apply_decision(
        implied_stop_snapshot(), close_overdue(implied_stop_snapshot(), 1, decision_context(NOW + 5 * MINUTE))
    )

    after = stop(before, END, decision_context(NOW + HOUR))

    assert ("Local", 10_000, ("ImpliedStop", "CorrectedAfterImpliedStop")) == (
        after.transactions["3"].reason,
        after.transactions["3"].energy_wh,
        after.transactions["3"].flags,
    )
    assert replace(b.get_reservation(before), flags=("Underbilled",)) == after.reservation
    assert replace(before.connector(1), stop_request=None) == after.connector(1)


@pytest.mark.note("F77")
def test_endless_transaction_is_ended_and_stopped() -> None:
    before = b.charging_snapshot()
    limit = getattr(before.connector(1).transaction, "ends_at", None)

    after = close_overdue(before, 1, decision_context(limit, serial=9))

    assert NOW + 24 * HOUR == limit
    assert before == close_overdue(before, 1, decision_context(limit - SECOND))
    assert "Overdue" == after.transactions["3"].reason
    assert (ReservationState.COMPLETED, None) == (get_reservation(after).state, after.connector(1).lock)
    assert (CommandKind.REMOTE_STOP, "3") == (after.calls[-1].kind, after.calls[-1].transaction_id)


@pytest.mark.note("F77")
def test_connector_is_due_at_earliest_limit() -> None:
    before = b.charging_snapshot()
    metered = record_readings(before, 1, "3", (reading(2000),), decision_context(NOW + HOUR))
    noticed = replace(before.connector(1), transaction=b.open_transaction(idle_until=NOW + MINUTE, ends_at=NOW + HOUR))

    assert {NOW + 24 * HOUR} == {before.connector(1).due_at, metered.connector(1).due_at}
    assert NOW + MINUTE == noticed.due_at


@pytest.mark.note("F72", "F77")
def test_session_limit_zero_disables_the_limit() -> None:
    short, _ = start(b.snapshot(), CARD, decision_context(serial=5, session_limit=2 * HOUR))
    after, _ = start(b.snapshot(), CARD, decision_context(serial=5, session_limit=0 * HOUR))

    assert NOW + 2 * HOUR == getattr(short.connector(1).transaction, "ends_at", None)
    assert getattr(after.connector(1).transaction, "ends_at", NOW) is None


def test_connector_without_transaction_is_not_overdue() -> None:
    assert b.snapshot() == close_overdue(b.snapshot(), 1, decision_context())


@pytest.mark.note("F77")
def test_overdue_lost_record_is_rebuilt_and_closed() -> None:
    lost = b.snapshot(b.connector(transaction=b.open_transaction("77", energy_wh=1234, ends_at=b.NOW)))
    ended = close_overdue(lost, 1, decision_context(NOW))
    record = ended.transactions["77"]

    assert ended.connector(1).transaction is None
    assert (1234, "Overdue", ("Rebuilt", "Overdue")) == (record.energy_wh, record.reason, record.flags)
