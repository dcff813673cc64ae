"""A process that dies around a provider call: does the next sweep finish or undo what it left? A real process, a real
engine, and the payment stand-in over HTTP.

Each scene ends in a process of its own, which ends itself at its fault point as hard as a lost machine: after the
commit and before the provider was asked, or after the provider acted and before that was noted.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from csms.adapters.dynamodb import Store
from csms.adapters.stripe import StripePayments
from csms.errors import ConnectorBusy
from csms.model import OutboxItem, OutboxKind, Policy
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Drivers, Maintenance
from local import database, story
from stand_ins.stripe import PaymentStandIn
from stand_ins.stripe.records import SessionStatus
from tests.app import METER_START
from tests.app.in_process import PUBLIC_URL, InProcessApp
from tests.builders import ANY_POWER_W
from tests.fakes import Clock
from tests.tables import Table, Tables

DIED: Final = 70
API_KEY: Final = "sk_test_crash"
SECRET: Final = "whsec_crash"
ENERGY_WH: Final = 13_000
BILL: Final = 824
# A server that has imported the slow packages forks the dying processes: half a second each instead of two.
PROCESSES: Final = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["boto3", "jsonschema_rs", "ocpp.v16", "pydantic", "pytest", "stripe", "aiohttp.web"])


class FatalProvider:
    """A payment provider at one of whose operations the process ends, before it acts or after."""

    def __init__(self, provider: StripePayments, operation: str, *, acted: bool) -> None:
        self._provider = provider
        self._operation = operation
        self._acted = acted

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._provider, name)
        return self._die_in(method) if name == self._operation else method

    def _die_in(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **options: Any) -> None:
            if self._acted:
                method(*args, **options)
            os._exit(DIED)

        return act


@dataclass(frozen=True, kw_only=True)
class Death:
    """What the dying process is to do, and where it ends; all that another process needs to know."""

    endpoint: str
    table: str
    payments: str
    now: datetime
    act: Callable[[Dependencies], object]
    operation: str
    acted: bool


def die(death: Death) -> None:
    """The body of the dying process."""
    provider: Any = FatalProvider(stripe_payments(death.payments), death.operation, acted=death.acted)
    store = Store(database.client(death.endpoint), death.table)
    death.act(
        Dependencies(store=store, dialects=DIALECTS, provider=provider, public_url=PUBLIC_URL, now=lambda: death.now)
    )


def stripe_payments(api_base: str) -> StripePayments:
    return StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=api_base)


@dataclass(kw_only=True)
class CrashApp(InProcessApp):
    """A station on line, its drivers, and what the rest of the product does with them, on a table that another process
    finds, with the stand-in as the payment provider."""

    table: Table
    stand_in: PaymentStandIn
    socket: str = "abc="
    policy: Policy = field(default_factory=lambda: Policy(max_power_w=ANY_POWER_W, power_tolerance_percent=ANY_POWER_W))
    stations_settle: bool = False

    def pay(self, reservation_id: str) -> None:
        story.pay(self.reservation(reservation_id).checkout_url or "")

    def owed_kinds(self) -> list[OutboxKind]:
        return [entity.kind for entity in self.table.entities() if isinstance(entity, OutboxItem)]

    def run_until_killed(self, act: Callable[[Dependencies], object], operation: str, *, acted: bool) -> None:
        """The act was begun in a process that died at the operation."""
        death = Death(
            endpoint=self.table.endpoint,
            table=self.table.name,
            payments=self.stand_in.url,
            now=self.clock(),
            act=act,
            operation=operation,
            acted=acted,
        )
        process = PROCESSES.Process(target=die, args=(death,))
        process.start()
        process.join(60)
        assert DIED == process.exitcode


@pytest.fixture
def app(tables: Tables) -> Iterator[CrashApp]:
    clock = Clock(datetime.now(UTC))
    stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=SECRET, webhook_url=None, clock=clock)
    with stand_in.run_in_thread():
        table = tables("dynoxide")
        provider = stripe_payments(stand_in.url)
        it = CrashApp(store=table.store, table=table, stand_in=stand_in, provider=provider, clock=clock)
        it.register(connectors=(1,)).connect()
        it.report_status(1, "Available")
        yield it


# Scenes: each plays up to the moment before the dying process begins, and says what that one does.


class Create:
    """A driver asks for a checkout."""

    def __call__(self, dependencies: Dependencies) -> object:
        return Drivers(dependencies).create("CP1", 1)


@dataclass(frozen=True)
class Cancel:
    """A driver gives up."""

    reservation_id: str

    def __call__(self, dependencies: Dependencies) -> object:
        return Drivers(dependencies).cancel(self.reservation_id)


@dataclass(frozen=True)
class Perform:
    """Maintenance was told that something is owed."""

    reservation_id: str
    kind: OutboxKind

    def __call__(self, dependencies: Dependencies) -> object:
        return Maintenance(dependencies).perform(self.reservation_id, self.kind)


def prepare_create(_app: CrashApp) -> Create:
    return Create()


def prepare_unpaid_cancel(app: CrashApp) -> Cancel:
    return Cancel(app.create_reservation())


def prepare_paid_cancel(app: CrashApp) -> Cancel:
    reservation_id = app.create_reservation()
    app.pay(reservation_id)
    assert "StartRequested" == app.confirm(reservation_id)["status"]
    return Cancel(reservation_id)


def prepare_capture(app: CrashApp) -> Perform:
    reservation_id = prepare_paid_cancel(app).reservation_id
    app.stop_transaction(app.start_transaction(app.accept_start(reservation_id)), METER_START + ENERGY_WH)
    assert [OutboxKind.CAPTURE] == app.owed_kinds()
    return Perform(reservation_id, OutboxKind.CAPTURE)


SCENES: Final = {
    "create": (prepare_create, "open_checkout", OutboxKind.OPEN_CHECKOUT, ("Failed", "none", [])),
    "expire": (prepare_unpaid_cancel, "expire_checkout", OutboxKind.EXPIRE_CHECKOUT, ("Cancelled", "none", [])),
    "release": (prepare_paid_cancel, "release", OutboxKind.RELEASE, ("Cancelled", "released", [])),
    "capture": (prepare_capture, "capture", OutboxKind.CAPTURE, ("Completed", "captured", [BILL])),
}


def captured_amounts(app: CrashApp) -> list[int]:
    """Each capture that the provider made."""
    return [
        event["data"]["object"]["amount_received"]
        for event in app.stand_in.events
        if event["type"] == "payment_intent.succeeded"
    ]


def assert_nothing_left(app: CrashApp) -> None:
    """No call owed, no money held, no checkout that can still be paid, and the connector free for the next driver."""
    ledger = app.stand_in.ledger
    assert [] == app.owed_kinds()
    assert [] == [intent.id for intent in ledger.intents.values() if intent.amount_capturable]
    assert [] == [session.id for session in ledger.sessions.values() if session.status is SessionStatus.OPEN]
    assert app.is_startable()


def ending(app: CrashApp) -> tuple[str, str, list[int]]:
    (reservation_id,) = {e.reservation_id for e in app.table.entities() if type(e).__name__ == "Reservation"}
    status = app.status(reservation_id)
    return status["status"], status["money"], captured_amounts(app)


@pytest.mark.note("F23", "F67")
@pytest.mark.parametrize("acted", [False, True], ids=["before the provider was asked", "after the provider acted"])
@pytest.mark.parametrize("scene", SCENES)
def test_next_sweep_finishes_killed_process_work(app, scene, acted):
    play, operation, kind, expected = SCENES[scene]
    app.run_until_killed(play(app), operation, acted=acted)
    assert [kind] == app.owed_kinds()

    assert {} == app.sweep_after(timedelta(seconds=5))
    assert app.sweep_after(timedelta(minutes=1))

    assert expected == ending(app)
    assert_nothing_left(app)
    assert {} == app.sweep_after(timedelta(minutes=5))
    assert expected == ending(app)


@pytest.mark.note("F63")
@pytest.mark.parametrize("acted", [False, True], ids=["before the provider was asked", "after the provider acted"])
@pytest.mark.parametrize("scene", SCENES)
def test_late_sweep_leaves_nothing_behind(app, scene, acted):
    play, operation, _, expected = SCENES[scene]
    app.run_until_killed(play(app), operation, acted=acted)

    app.sweep_after(timedelta(minutes=12))

    assert expected == ending(app)
    assert_nothing_left(app)


@pytest.mark.note("F23", "F72")
def test_first_lease_ends_without_a_sweep(app):
    app.run_until_killed(Create(), "open_checkout", acted=False)
    with pytest.raises(ConnectorBusy):
        app.create()

    app.clock.move(timedelta(seconds=91))
    second = app.create()
    app.sweep_after(timedelta(minutes=1))

    assert "PendingPayment" == app.status(second["reservationId"])["status"]
    assert [] == app.owed_kinds()
    open_sessions = [s.id for s in app.stand_in.ledger.sessions.values() if s.status is SessionStatus.OPEN]
    assert 1 == len(open_sessions)


@pytest.mark.note("F73", "F67")
@pytest.mark.parametrize("acted", [False, True], ids=["before the provider was asked", "after the provider acted"])
def test_two_sweeps_capture_once(app, acted):
    app.run_until_killed(prepare_capture(app), "capture", acted=acted)
    app.clock.move(timedelta(minutes=1))

    with ThreadPoolExecutor(2) as pool:
        own = [app.dependencies(provider=stripe_payments(app.stand_in.url)) for _ in range(2)]
        list(pool.map(lambda dependencies: Maintenance(dependencies).sweep(), own))
    app.sweep_after(timedelta(minutes=10))

    assert ("Completed", "captured", [BILL]) == ending(app)
    assert_nothing_left(app)
