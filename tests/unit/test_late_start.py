"""A start that happened in time and is told late: what is held for it, and what it costs (note F30)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from csms.charging.late_start import find_hold
from csms.commands import calls
from csms.model import LateStart, Money, OutboxKind, Reservation, format_time
from csms.model import ReservationState as S
from tests import builders as b
from tests.app import METER_START
from tests.app.in_process import POLICY, InProcessApp
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context

pytestmark = pytest.mark.note("F30")
START_WINDOW = POLICY.start_window


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register().bring_online()


def vanish_after_start(app: InProcessApp, *, answer: bool = True) -> tuple[str, str]:
    """A paid reservation whose start the station was sent, then lost its socket; its id and its tag."""
    reservation_id = app.create_paid_reservation()
    if answer:
        app.accept_start(reservation_id)
    app.disconnect()
    return reservation_id, app.reservation(reservation_id).id_tag


def end_unstarted(app: InProcessApp, reservation_id: str) -> Reservation:
    """The reservation once its start deadline has passed and a sweep has run."""
    app.sweep_after(START_WINDOW + SECOND)
    return app.reservation(reservation_id)


def be_heard(app: InProcessApp, during: timedelta) -> None:
    """The station is heard of every minute."""
    until = app.now() + during
    while app.now() < until:
        app.clock.move(MINUTE)
        app.report_status(1, "Available")


def tell_session(app: InProcessApp, tag: str, started_at: str, *, energy_wh: int = 30_000) -> int:
    """The station is back and tells its queue: the start, and the stop."""
    app.connect("B")
    number = app.start_transaction(tag, at=started_at, over="B")
    app.stop_transaction(number, METER_START + energy_wh, over="B")
    return number


@pytest.mark.parametrize("answered", [True, False], ids=["accepted", "in doubt"])
def test_money_is_held_while_station_is_away(app: InProcessApp, answered: bool) -> None:
    reservation_id, _ = vanish_after_start(app, answer=answered)

    held = end_unstarted(app, reservation_id)

    assert (S.FAILED, Money.AUTHORIZED) == (held.state, held.money)
    assert app.connector(1).lock is None
    assert format_time(held.due_at or NOW) == app.status(reservation_id)["heldUntil"]


@pytest.mark.parametrize("ending", ["time-out", "driver", "sweep late"])
def test_late_start_in_time_is_billed(app: InProcessApp, ending: str) -> None:
    reservation_id, tag = vanish_after_start(app)
    started_at = app.pass_time(minutes=1)
    app.clock.move(MINUTE)
    if ending == "driver":
        app.cancel(reservation_id)
    elif ending == "time-out":
        end_unstarted(app, reservation_id)
    else:
        app.clock.move(START_WINDOW)

    tell_session(app, tag, started_at)

    held = app.reservation(reservation_id)
    assert (S.COMPLETED, 30_000, None) == (held.state, held.energy_wh, held.failure_code)
    assert Money.CAPTURED is held.money
    assert held.captured_amount == held.amount


def test_late_start_takes_free_connector_again(app: InProcessApp) -> None:
    reservation_id, tag = vanish_after_start(app)
    started_at = app.pass_time(minutes=1)
    end_unstarted(app, reservation_id)
    app.connect("B")

    app.start_transaction(tag, at=started_at, over="B")

    lock, held = app.connector(1).lock, app.reservation(reservation_id)
    assert lock is not None
    assert (reservation_id, S.CHARGING) == (lock.reservation_id, lock.state)
    assert (S.CHARGING, None, None) == (held.state, held.expires_at, held.late_start)
    assert app.connector(1).stop_request is None


def test_canceled_late_start_is_stopped_and_billed(app: InProcessApp) -> None:
    reservation_id, tag = vanish_after_start(app)
    started_at = app.pass_time(minutes=1)
    app.clock.move(MINUTE)
    app.cancel(reservation_id)
    app.connect("B")

    app.start_transaction(tag, at=started_at, over="B")

    assert S.CHARGING is app.reservation(reservation_id).state
    assert app.connector(1).stop_request is not None


def test_late_start_beside_another_lock_is_billed(app: InProcessApp) -> None:
    reservation_id, tag = vanish_after_start(app)
    started_at = app.pass_time(minutes=1)
    end_unstarted(app, reservation_id)
    app.connect("B")
    app.report_status(1, "Available", over="B")
    other = app.create_reservation()

    number = app.start_transaction(tag, at=started_at, over="B")
    assert other == getattr(app.connector(1).lock, "reservation_id", None)
    app.stop_transaction(number, METER_START + 30_000, over="B")

    assert (S.COMPLETED, Money.CAPTURED) == (
        app.reservation(reservation_id).state,
        app.reservation(reservation_id).money,
    )
    assert other == getattr(app.connector(1).lock, "reservation_id", None)


def test_late_start_behind_another_charge_is_billed(app: InProcessApp) -> None:
    reservation_id, tag = vanish_after_start(app)
    started_at = app.pass_time(minutes=1)
    end_unstarted(app, reservation_id)
    app.connect("B")
    app.report_status(1, "Available", over="B")
    other, running = app.start_session()

    number = app.start_transaction(tag, at=started_at, over="B")
    app.stop_transaction(number, METER_START + 30_000, over="B")

    assert (S.COMPLETED, Money.CAPTURED) == (
        app.reservation(reservation_id).state,
        app.reservation(reservation_id).money,
    )
    assert str(running) == getattr(app.connector(1).transaction, "transaction_id", None)
    assert S.CHARGING is app.reservation(other).state


def test_unheard_stop_ends_at_session_limit(app: InProcessApp) -> None:
    reservation_id, tag = vanish_after_start(app)
    started_at = app.pass_time(minutes=1)
    end_unstarted(app, reservation_id)
    app.connect("B")
    app.report_status(1, "Available", over="B")
    app.start_session()
    app.start_transaction(tag, at=started_at, over="B")
    held = app.reservation(reservation_id)

    assert app.now() + POLICY.session_limit == held.expires_at
    app.sweep_after(POLICY.session_limit + SECOND)

    assert (S.COMPLETED, Money.RELEASED) == (
        app.reservation(reservation_id).state,
        app.reservation(reservation_id).money,
    )


@pytest.mark.parametrize("stop_comes", [True, False], ids=["its stop comes", "its stop is lost"])
def test_superseded_late_session_is_billed(app: InProcessApp, stop_comes: bool) -> None:
    reservation_id, tag = vanish_after_start(app)
    started_at = app.pass_time(minutes=1)
    end_unstarted(app, reservation_id)
    app.connect("A")
    app.report_status(1, "Available")
    other = app.create_paid_reservation()
    number = app.start_transaction(tag, at=started_at)
    app.send_meter_values(number, METER_START + 9000)
    app.start_transaction(app.reservation(other).id_tag, meter=METER_START + 9000)

    if stop_comes:
        app.stop_transaction(number, METER_START + 9000)
    else:
        app.sweep_after(POLICY.session_limit + SECOND)

    held = app.reservation(reservation_id)
    assert (S.COMPLETED, Money.CAPTURED, 9000) == (held.state, held.money, held.energy_wh)


@pytest.mark.parametrize("late", [timedelta(0), SECOND], ids=["at the deadline", "after it"])
def test_start_deadline_is_inclusive(app: InProcessApp, late: timedelta) -> None:
    reservation_id, tag = vanish_after_start(app)
    deadline = app.reservation(reservation_id).start_deadline or NOW
    end_unstarted(app, reservation_id)

    tell_session(app, tag, format_time(deadline + late))

    assert (S.COMPLETED if not late else S.FAILED) is app.reservation(reservation_id).state


@pytest.mark.parametrize("said", ["1970-01-01T00:00:07Z", "soon"])
def test_start_without_clock_is_not_late(app: InProcessApp, said: str) -> None:
    reservation_id, tag = vanish_after_start(app)
    end_unstarted(app, reservation_id)

    tell_session(app, tag, said)

    assert S.FAILED is app.reservation(reservation_id).state


def test_hold_ends_after_station_had_time(app: InProcessApp) -> None:
    reservation_id, _ = vanish_after_start(app)
    end_unstarted(app, reservation_id)
    app.sweep_after(2 * HOUR)
    assert Money.AUTHORIZED is app.reservation(reservation_id).money
    app.connect("B")
    back_at = app.now()

    while app.reservation(reservation_id).money is Money.AUTHORIZED:
        app.report_status(1, "Available", over="B")
        app.sweep_after(MINUTE)

    # After two hours it is looked for every half an hour.
    assert timedelta(0) <= app.now() - back_at - POLICY.late_start <= 31 * MINUTE
    assert "HoldEnded" in [step["event"] for step in app.status(reservation_id)["steps"]]


def test_hold_ends_before_authorization_lapses(app: InProcessApp) -> None:
    reservation_id, _ = vanish_after_start(app)
    settle_by = end_unstarted(app, reservation_id).settle_by or NOW

    while app.now() <= settle_by:
        assert Money.AUTHORIZED is app.reservation(reservation_id).money
        app.sweep_after(HOUR)

    assert Money.RELEASED is app.reservation(reservation_id).money


def test_station_that_stayed_releases_at_once(app: InProcessApp) -> None:
    reservation_id = app.create_paid_reservation()
    app.accept_start(reservation_id)
    app.clock.move(START_WINDOW)
    app.report_status(1, "Available")

    app.sweep_after(SECOND)

    assert Money.RELEASED is app.reservation(reservation_id).money


def test_silent_socket_counts_as_away(app: InProcessApp) -> None:
    reservation_id = app.create_paid_reservation()
    app.accept_start(reservation_id)

    held = end_unstarted(app, reservation_id)
    assert (S.FAILED, Money.AUTHORIZED) == (held.state, held.money)
    be_heard(app, POLICY.late_start)
    app.sweep_after(SECOND)
    assert Money.AUTHORIZED is app.reservation(reservation_id).money
    be_heard(app, POLICY.late_start)
    app.sweep_after(SECOND)

    assert Money.RELEASED is app.reservation(reservation_id).money


def test_start_that_was_never_sent_holds_nothing(app: InProcessApp) -> None:
    reservation_id = app.create_reservation()
    app.gateway.gone.add("A")
    app.pay(reservation_id)
    app.confirm(reservation_id)

    app.sweep_after(START_WINDOW + SECOND)

    assert Money.RELEASED is app.reservation(reservation_id).money


def test_clear_refusal_ends_the_hold(app: InProcessApp) -> None:
    reservation_id = app.create_paid_reservation()
    app.clock.move(8 * MINUTE)
    app.cancel(reservation_id)
    assert Money.AUTHORIZED is app.reservation(reservation_id).money

    app.answer_call("Rejected")

    assert Money.RELEASED is app.reservation(reservation_id).money


def test_next_driver_has_own_question(app: InProcessApp) -> None:
    first = app.create_paid_reservation()
    app.accept_start(first)
    app.gateway.unreachable = True
    app.clock.move(MINUTE)
    app.cancel(first)
    (sign,) = app.snapshot().calls

    asked = calls.ask_status(app.snapshot(), decision_context(app.now()), (1,), after=timedelta(0)).calls

    assert first == sign.reservation_id
    assert [first, None] == [call.reservation_id for call in asked]


def test_zero_minutes_hold_nothing() -> None:
    away = replace(b.start_requested_snapshot(), presence=b.presence(connection_id=None))
    asked = replace(b.get_reservation(away), start_accepted_at=NOW)

    assert LateStart(until=NOW + 15 * MINUTE, is_away=True) == find_hold(away, asked, decision_context())
    assert find_hold(away, asked, decision_context(late_start=timedelta(0))) is None


def test_settled_hold_owes_release() -> None:
    away = replace(b.start_requested_snapshot(), presence=b.presence(connection_id=None))
    held = replace(b.get_reservation(away), start_accepted_at=NOW, settle_by=NOW)

    assert find_hold(away, held, decision_context()) is None
    assert OutboxKind.CAPTURE not in b.owed_kinds(away)
