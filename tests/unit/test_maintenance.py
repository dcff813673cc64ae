"""What a sweep gets done whatever else is due, and what a dry run says that it would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, islice
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.adapters.dynamodb import DUE_SHARDS, Due, to_item
from csms.charging import checkout
from csms.charging.due import OUTBOX_DESCRIPTIONS, chase_call, describe, describe_outbox_item, tidy_connector
from csms.commands import calls
from csms.errors import Conflict, StoreUnavailable
from csms.model import (
    CallState,
    Connector,
    DecisionContext,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Reservation,
    ReservationState,
    Save,
    Snapshot,
    TriggerStatus,
    build_outcome,
)
from csms.service.maintenance import FAILURE_PAUSE, MAX_FAILURES, STATION_SHARE
from csms.service.outbox import build_placeholder_station
from tests import builders as b
from tests.app.in_process import InProcessApp
from tests.builders import HOUR, MINUTE, NOW, SECOND, decision_context
from tests.fakes import START

LONG_AGO: Final = START - timedelta(days=400)


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


def shard(entity: OutboxItem | Reservation) -> str:
    return str(to_item(entity)["due_shard"])


def abandoned_reservation(number: int) -> Reservation:
    """A reservation that nobody paid in time, at a station that is not known any more."""
    return replace(
        b.get_reservation(b.owed_checkout_snapshot()),
        reservation_id=f"abandoned-{number}",
        expires_at=START - timedelta(minutes=1),
        version=0,
    )


def poison_items(*, like: Reservation) -> Iterator[OutboxItem]:
    """Owed calls of reservations that nobody has, older than it and in its shard: each fails in every sweep."""
    endless = (
        OutboxItem(reservation_id=f"nobodys-{number}", kind=OutboxKind.CAPTURE, due_at=LONG_AGO) for number in count()
    )
    return (outbox_item for outbox_item in endless if shard(outbox_item) == shard(like))


def store_entities(app: InProcessApp, *entities: OutboxItem | Reservation | OutboundCall) -> None:
    for entity in entities:
        app.store.commit([Save(entity)])


def ended_reservation_ids(app: InProcessApp) -> list[str]:
    """The reservations that were ended."""
    found = (e for e in app.store.entities() if isinstance(e, Reservation))
    return [held.reservation_id for held in found if held.state is ReservationState.CANCELLED]


@pytest.mark.note("F73")
def test_failing_rows_do_not_starve_due_items(app: InProcessApp) -> None:
    held = abandoned_reservation(1)
    store_entities(app, held, *islice(poison_items(like=held), 150))

    report = app.sweep()

    assert ({"Reservation": 1}, 150) == (report.done, len(report.failed))
    assert [held.reservation_id] == ended_reservation_ids(app)


@pytest.mark.note("F73")
def test_sweep_limit_per_shard_excludes_failures(app: InProcessApp) -> None:
    many = [abandoned_reservation(number) for number in range(60)]
    store_entities(app, *many, *islice(poison_items(like=many[0]), 5))
    assert all(sum(shard(held) == f"DUE#{number}" for held in many) > 3 for number in range(DUE_SHARDS))

    report = app.sweep(limit=3)

    assert ({"Reservation": 3 * DUE_SHARDS}, 5) == (report.done, len(report.failed))


@pytest.mark.note("F73")
def test_sweep_leaves_failing_shard_to_next_sweep(app: InProcessApp) -> None:
    many = [abandoned_reservation(number) for number in range(20)]
    behind = [held for held in many if shard(held) == shard(many[0])]
    elsewhere = [held for held in many if held not in behind]
    store_entities(app, *many, *islice(poison_items(like=many[0]), MAX_FAILURES))

    report = app.sweep()

    assert MAX_FAILURES == len(report.failed)
    assert sorted(held.reservation_id for held in elsewhere) == ended_reservation_ids(app)


@pytest.mark.note("F73")
def test_sweep_alternates_between_shards(app: InProcessApp) -> None:
    many = [abandoned_reservation(number) for number in range(60)]
    store_entities(app, *many)
    shards = {held.reservation_id: shard(held) for held in many}

    planned = app.sweep(dry_run=True).planned

    first = [shards[line.split()[1].rstrip(":")] for line in planned[:DUE_SHARDS]]
    assert [f"DUE#{number}" for number in range(DUE_SHARDS)] == first
    assert len(many) == len(planned)


# Money first, and a station's share


def due_call(station_id: str, number: int, at: datetime = LONG_AGO) -> OutboundCall:
    """A CALL that waits in a queue, and cannot be sent."""
    return OutboundCall(
        station_id=station_id,
        call_id=f"call-{number}",
        command=TriggerStatus(connector_id=1),
        asked_at=at,
        send_at=at,
        due_at=at,
        expires_at=START + 24 * HOUR,
    )


def wait_online(app: InProcessApp) -> None:
    """Every CALL of the station waits behind one that is not answered."""
    app.register().bring_online()
    app.sweep()
    app.gateway.unreachable = True


@pytest.mark.note("F73")
def test_money_is_handled_before_waiting_calls(app: InProcessApp) -> None:
    wait_online(app)
    calls_due = [due_call("cp1", number) for number in range(300)]
    many = [abandoned_reservation(number) for number in range(6)]
    store_entities(app, *many, *calls_due)

    report = app.sweep(limit=50)

    assert len(many) == report.done["Reservation"]
    assert sorted(held.reservation_id for held in many) == ended_reservation_ids(app)


@pytest.mark.note("F73")
def test_station_gets_only_its_share(app: InProcessApp) -> None:
    wait_online(app)
    store_entities(app, *(due_call("cp1", number) for number in range(60)))
    read_before = len(app.observed)

    report = app.sweep()

    assert {"cp1": 60 - STATION_SHARE} == report.over_share
    assert len(app.observed) - read_before <= 2 * STATION_SHARE


@pytest.mark.note("F73")
def test_failed_item_is_put_off(app: InProcessApp) -> None:
    (poison,) = islice(poison_items(like=abandoned_reservation(1)), 1)
    store_entities(app, poison)

    first, next_ = app.sweep(), app.sweep()
    app.clock.move(FAILURE_PAUSE)
    later = app.sweep()

    assert [1, 0, 1] == [len(report.failed) for report in (first, next_, later)]
    assert 1 == first.put_off


@pytest.mark.note("F73")
@pytest.mark.parametrize("error", [Conflict("Again."), StoreUnavailable("Down.")])
def test_passing_failure_is_due_again_at_once(
    app: InProcessApp, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store_entities(app, abandoned_reservation(1))

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(app.maintenance._flow, "commit", fail)
        failed = app.sweep()
    done = app.sweep()

    assert (1, 0, {"Reservation": 1}) == (len(failed.failed), failed.put_off, done.done)


@pytest.mark.note("F73")
def test_contended_station_comes_last(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = [abandoned_reservation(number) for number in range(8)]
    older = START - timedelta(minutes=2)
    noisy = [replace(abandoned_reservation(number), station_id="noisy", expires_at=older) for number in range(20, 28)]
    store_entities(app, *calm, *noisy)
    commit, order = app.maintenance._flow.commit, list[str]()

    def contend(station_id: str, *arguments: Any, **more: Any) -> Any:
        order.append(station_id)
        if station_id == "noisy":
            raise Conflict("Others change it all the time.")
        return commit(station_id, *arguments, **more)

    monkeypatch.setattr(app.maintenance._flow, "commit", contend)
    report = app.sweep()

    assert (len(calm), len(noisy)) == (report.done["Reservation"], len(report.failed))
    assert ["noisy"] * (len(noisy) - 1) == order[-len(noisy) + 1 :], "after its first conflict it is last"


@pytest.mark.note("F73")
def test_sweep_ends_when_its_time_is_up(app: InProcessApp) -> None:
    store_entities(app, *(abandoned_reservation(number) for number in range(10)))
    looks = iter([False] * 4 + [True])

    report = app.sweep(is_time_up=lambda: next(looks))

    assert (False, {"Reservation": 4}) == (report.is_complete, report.done)
    assert app.sweep().is_complete


@settings(max_examples=40, deadline=None)
@given(
    noise=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 120), min_size=1),
    poison=st.integers(0, 40),
    held=st.integers(1, 12),
    limit=st.sampled_from([20, 50, 100]),
)
def test_no_noise_delays_money(noise: dict[str, int], poison: int, held: int, limit: int) -> None:
    app = InProcessApp()
    many = [abandoned_reservation(number) for number in range(held)]
    store_entities(app, *many, *islice(poison_items(like=many[0]), poison))
    for station_id, number in noise.items():
        store_entities(app, *(due_call(station_id, one) for one in range(number)))

    report = app.sweep(limit=limit)

    handled = Counter(line.split()[1] for line in report.failed if line.startswith("Call "))
    assert sorted(one.reservation_id for one in many) == ended_reservation_ids(app)
    assert all(times <= STATION_SHARE for times in handled.values())


# A dry run

PAYING: Final = b.get_reservation(b.pending_payment_snapshot())
(CALL,) = b.start_requested_snapshot().calls
SENT: Final = replace(CALL, state=CallState.SENT, due_at=NOW + 30 * SECOND)
RUNNING: Final = b.open_transaction(idle_until=NOW + 5 * MINUTE, ends_at=NOW + 24 * HOUR)
OWED: Final = OutboxItem(reservation_id="reservation-1", kind=OutboxKind.CAPTURE, due_at=NOW)


def describe_plan(item: Due, now: DecisionContext, *, away: bool = False) -> str:
    """What a sweep would do with the item, in words, on a station where nothing else is."""
    match item:
        case OutboxItem():
            return describe_outbox_item(item)
        case Reservation():
            before = Snapshot(station=build_placeholder_station(item), reservation=item)
            return describe(item, before, build_outcome(before, checkout.expire(before, now)), now)
        case OutboundCall():
            started = b.start_requested_snapshot()
            before = replace(started, calls=(item,), presence=None if away else started.presence)
            return describe(item, before, chase_call(before, item, now), now)
        case Connector():
            before = b.snapshot(item)
            return describe(item, before, tidy_connector(before, item.connector_id, now), now)
        case _:
            raise AssertionError(item)


@pytest.mark.note("F73")
@pytest.mark.parametrize(
    ("item", "after", "would"),
    [
        (b.get_reservation(b.owed_checkout_snapshot()), HOUR, "end as Cancelled, PaymentTimeout, PendingPayment"),
        (PAYING, 32 * MINUTE, "leave it as it is"),
        (PAYING, 33 * MINUTE, "close its checkout before it ends, PendingPayment"),
        (replace(PAYING, close_by=NOW + HOUR), 61 * MINUTE, "end as Cancelled, PaymentTimeout, PendingPayment"),
        (b.get_reservation(b.authorized_snapshot()), HOUR, "end as Failed, StartTimeout, Authorized"),
        (b.get_reservation(b.waiting_for_disconnect_snapshot()), 13 * HOUR, "end as Completed, WaitingForDisconnect"),
        (
            replace(OWED, kind=OutboxKind.OPEN_CHECKOUT),
            SECOND,
            "end its reservation as Failed and close the checkout, attempt 1",
        ),
        (replace(OWED, attempts=2), SECOND, "capture the bill, attempt 3"),
        (CALL, 5 * SECOND, "send RemoteStart"),
        (CALL, HOUR, "give up RemoteStart, queued"),
        (SENT, 29 * SECOND, "leave RemoteStart, sent"),
        (SENT, 30 * SECOND, "give up RemoteStart, sent, and request the status of the connector"),
        (b.connector(transaction=RUNNING), 4 * MINUTE, "leave it as it is"),
        (b.connector(transaction=RUNNING), 5 * MINUTE, "close its transaction"),
        (b.connector(transaction=RUNNING), 24 * HOUR, "close its transaction and ask the station to stop it"),
        (
            b.connector(persisted=replace(b.build_persisted_status("Faulted"), release_at=NOW)),
            SECOND,
            "release its status",
        ),
        (b.connector(lock=b.lock()), SECOND, "leave it as it is"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_dry_run_describes_each_due_item(item: Due, after: timedelta, would: str) -> None:
    assert would == describe_plan(item, decision_context(NOW + after)).partition(" since ")[0]


def test_dry_run_keeps_command_for_offline_station() -> None:
    assert "keep RemoteStart until the station is back" == describe_plan(
        CALL, decision_context(NOW + 5 * SECOND), away=True
    )


@pytest.mark.note("F73")
def test_dry_run_describes_every_outbox_kind() -> None:
    assert {*OutboxKind} == OUTBOX_DESCRIPTIONS.keys()


@pytest.mark.note("F73")
def test_dry_run_matches_sweep_for_unopened_checkout(
    app: InProcessApp,
) -> None:
    app.bring_online()
    app.provider.fail_next("open_checkout", RuntimeError("The process died."))
    with pytest.raises(RuntimeError):
        app.create()
    app.clock.move(timedelta(seconds=91))

    (line,) = (line for line in app.sweep(dry_run=True).planned if line.startswith("OutboxItem"))
    app.sweep()

    assert line.endswith("open-checkout: would end its reservation as Failed and close the checkout, attempt 1")
    (held,) = (e for e in app.store.entities() if isinstance(e, Reservation))
    assert ReservationState.FAILED is held.state
    assert ["open_checkout", "expire_checkout"] == [what for what, _, _ in app.provider.calls][-2:]


@pytest.mark.note("F73")
def test_dry_run_continues_past_invalid_row(app: InProcessApp) -> None:
    completed = replace(b.get_reservation(b.completed_snapshot()), expires_at=START - MINUTE, version=0)
    store_entities(app, completed, abandoned_reservation(1))

    planned_lines = app.sweep(dry_run=True).planned

    assert 2 == len(planned_lines)
    assert [True] == [": would fail: IllegalTransition" in line for line in planned_lines if "reservation-1" in line]


@pytest.mark.note("F32")
@pytest.mark.parametrize("state", [CallState.QUEUED, CallState.SENT, CallState.PROMISED])
def test_answered_status_question_is_not_chased(
    state: CallState,
) -> None:
    waits = b.authorized_snapshot()
    free = waits.with_connector(replace(waits.connector(1), live=b.build_live_status("Available")))
    (found,) = calls.ask_status(free, decision_context(serial=9), (1,), after=timedelta(0)).calls

    outcome = chase_call(free, replace(found, state=state), decision_context(NOW + MINUTE, serial=10))

    assert () == outcome.writes
