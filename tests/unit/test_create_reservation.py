"""Creating a reservation: what it locks, queues and records, and when it is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.charging import checkout
from csms.errors import ChargerOffline, ConnectorBusy, NotFound
from csms.model import Append, Connector, IdTag, Money, OutboxKind, Require, ReservationState, Save, TagStatus
from tests import builders as b
from tests.builders import AUTHORIZED, MINUTE, NOW, SECOND, decision_context, get_reservation, owed_kinds

S = ReservationState


def test_create_locks_connector_and_queues_checkout() -> None:
    outcome = checkout.create(b.snapshot(), 1, decision_context())

    held = outcome.reply
    assert (S.PENDING_PAYMENT, Money.NONE, 1, "CP-1", "cp-1") == (
        held.state,
        held.money,
        held.connector_id,
        held.identity,
        held.station_id,
    )
    assert (AUTHORIZED, b.TARIFF, NOW, NOW + 90 * SECOND) == (
        held.max_amount,
        held.tariff,
        held.created_at,
        held.expires_at,
    )
    assert [(OutboxKind.OPEN_CHECKOUT, NOW + 30 * SECOND)] == [(e.kind, e.due_at) for e in outcome.outbox_items]
    assert ["Created"] == [
        w.record.event for w in outcome.writes if isinstance(w, Append) and hasattr(w.record, "event")
    ]


def test_create_records_the_chosen_provider() -> None:
    held = checkout.create(b.snapshot(), 1, decision_context(payment_provider="another")).reply

    assert "another" == held.provider


@pytest.mark.note("F22")
def test_create_requires_unchanged_busy_rule_inputs() -> None:
    seen = b.snapshot(b.connector(1, version=7), b.connector(0, live=None, version=5))

    writes = checkout.create(seen, 1, decision_context()).writes

    assert {("Station", 1), ("Presence", 1), ("Connector", 5)} == {
        (type(w.entity).__name__, w.entity.version) for w in writes if isinstance(w, Require)
    }
    assert [7] == [w.entity.version for w in writes if isinstance(w, Save) and isinstance(w.entity, Connector)]


@pytest.mark.note("F28")
def test_web_tag_alone_authorizes_nothing() -> None:
    writes = checkout.create(b.snapshot(), 1, decision_context()).writes

    (tag,) = [w for w in writes if isinstance(w, Append) and isinstance(w.record, IdTag)]
    assert isinstance(tag.record, IdTag)
    assert (True, "WTAG1", TagStatus.INVALID, "reservation-1") == (
        tag.once,
        tag.record.tag,
        tag.record.status,
        tag.record.reservation_id,
    )
    assert NOW + timedelta(days=30) == tag.record.expires_at


@pytest.mark.note("F10")
@pytest.mark.parametrize("connector_id", [0, 3, -1])
def test_create_on_unregistered_connector_is_not_found(connector_id: int) -> None:
    with pytest.raises(NotFound) as refused:
        checkout.create(b.snapshot(), connector_id, decision_context())

    assert "UnknownConnector" == refused.value.code


@pytest.mark.note("F02")
def test_busy_create_names_all_reasons() -> None:
    with pytest.raises(ConnectorBusy, match="currently in use") as refused:
        checkout.create(b.snapshot(b.connector(transaction=b.open_transaction(), lock=b.lock())), 1, decision_context())

    assert ("OpenTransaction", "ActiveReservation") == refused.value.reasons


def test_offline_create_is_refused_before_busy() -> None:
    with pytest.raises(ChargerOffline, match="offline"):
        checkout.create(b.snapshot(b.connector(lock=b.lock()), presence=None), 1, decision_context())


@pytest.mark.note("F23")
def test_crashed_create_unlocks_after_first_lease() -> None:
    left = b.owed_checkout_snapshot()

    with pytest.raises(ConnectorBusy):
        checkout.create(left, 1, decision_context(NOW + 90 * SECOND, serial=2))
    after = b.apply_writes(left, checkout.create(left, 1, decision_context(NOW + 91 * SECOND, serial=2)).writes)

    assert "reservation-2" == getattr(after.connector(1).lock, "reservation_id", None)


def test_checkout_order_is_stable_per_reservation() -> None:
    held = get_reservation(b.pending_payment_snapshot())

    order = checkout.build_order(held, public_url="https://example.org", window=30 * MINUTE)

    assert order == checkout.build_order(
        get_reservation(b.owed_checkout_snapshot()), public_url="https://example.org", window=30 * MINUTE
    )
    assert (AUTHORIZED, "EUR", "EV charging at CP-1, connector 1") == (order.amount, order.currency, order.description)
    assert "https://example.org/session/reservation-1?checkout=done" == order.success_url
    assert "https://example.org/session/reservation-1?checkout=cancelled" == order.cancel_url
    assert NOW + 32 * MINUTE == order.expires_at


@pytest.mark.note("F37")
@pytest.mark.parametrize(
    ("station_is_free", "tag", "free"),
    [
        (False, None, False),
        (True, None, True),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED, free=True), True),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED, free=True, expires_at=NOW), True),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED, free=True, expires_at=NOW - SECOND), False),
        (False, IdTag(tag="CARD", status=TagStatus.BLOCKED, free=True), False),
        (False, IdTag(tag="CARD", status=TagStatus.ACCEPTED), False),
    ],
    ids=["paid", "free station", "free tag", "to the moment", "no longer", "blocked", "a tag that pays"],
)
def test_free_session_locks_without_checkout(station_is_free: bool, tag: IdTag | None, free: bool) -> None:
    before = b.snapshot(station=b.station(free=station_is_free), tag=tag)

    after = b.apply_writes(before, checkout.create(before, 1, decision_context()).writes)

    held = get_reservation(after)
    assert (S.START_REQUESTED if free else S.PENDING_PAYMENT, Money.NONE) == (held.state, held.money)
    assert (0 if free else AUTHORIZED, [] if free else [OutboxKind.OPEN_CHECKOUT]) == (
        held.max_amount,
        owed_kinds(after),
    )
    assert (held.reservation_id, held.state) == (
        getattr(after.connector(1).lock, "reservation_id", None),
        getattr(after.connector(1).lock, "state", None),
    )
    ends = NOW + (10 * MINUTE if free else 90 * SECOND)
    assert (ends, ends) == (held.expires_at, getattr(after.connector(1).lock, "expires_at", None))
