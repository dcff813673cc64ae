"""A process that dies around a provider call: does the next sweep finish or undo what it left? A real process, a real
engine, and the payment stand-in over HTTP.

Each scene ends in a process of its own, which ends itself at its fault point as hard as a lost machine: after the
commit and before the provider was asked, or after the provider acted and before that was noted.
"""

import base64
import json
import multiprocessing
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from csms.adapters.dynamodb import Store
from csms.adapters.stripe import StripePayments
from csms.errors import ConnectorBusy
from csms.model import OutboxItem, OutboxKind, Policy, Tariff
from csms.ocpp.spoken import DIALECTS
from csms.service import Dependencies, Drivers, Maintenance, Stations
from local import database
from stand_ins.stripe import PaymentStandIn
from stand_ins.stripe.records import SessionStatus
from tests.builders import ANY_POWER_W
from tests.fakes import Clock, FakeGateway
from tests.tables import Table, Tables

DIED: Final = 70
API_KEY: Final = "sk_test_crash"
SECRET: Final = "whsec_crash"
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)
ENERGY_WH: Final = 13_000
BILL: Final = 824
PASSWORD: Final = b"password"
SOCKET: Final = "abc="

Json = dict[str, Any]

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
        Dependencies(
            store=store, dialects=DIALECTS, provider=provider, public_url="https://csms.example", now=lambda: death.now
        )
    )


def stripe_payments(api_base: str) -> StripePayments:
    return StripePayments(api_key=API_KEY, webhook_secret=SECRET, api_base=api_base)


@dataclass(frozen=True, kw_only=True)
class World:
    """A station on line, its drivers, and what the rest of the product does with them."""

    table: Table
    stand_in: PaymentStandIn
    clock: Clock
    gateway: FakeGateway = field(default_factory=FakeGateway)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def dependencies(self, **changes: Any) -> Dependencies:
        parts = {
            "provider": stripe_payments(self.stand_in.url),
            "public_url": "https://csms.example",
            "gateway": self.gateway,
            "policy": Policy(max_power_w=ANY_POWER_W),
        }
        return Dependencies(store=self.table.store, dialects=DIALECTS, now=self.clock, **parts | changes)

    def drivers(self) -> Drivers:
        return Drivers(self.dependencies())

    def station(self) -> Stations:
        """The chargers' side, which has no provider of its own, as on AWS: what it owes stays owed."""
        return Stations(self.dependencies(provider=None))

    def send_call(self, action: str, payload: Json) -> Json:
        call = json.dumps([2, str(next(self.numbers)), action, payload])
        answer: Json = json.loads(self.station().receive(SOCKET, call) or "null")[2]
        return answer

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

    def sweep_after(self, after: timedelta) -> dict[str, int]:
        """What the sweep did that came so much later, with no failure."""
        self.clock.move(after)
        report = Maintenance(self.dependencies()).sweep()
        assert [] == report.failed
        return report.done


@pytest.fixture
def world(tables: Tables) -> Iterator[World]:
    clock = Clock(datetime.now(UTC))
    stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=SECRET, webhook_url=None, clock=clock)
    with stand_in.run_in_thread():
        it = World(table=tables("dynoxide"), stand_in=stand_in, clock=clock)
        it.station().register("CP1", password=PASSWORD, connectors=(1,), tariff=TARIFF)
        header = "Basic " + base64.b64encode(b"CP1:" + PASSWORD).decode()
        it.station().connect("CP1", authorization=header, offered=["ocpp1.6"], connection_id=SOCKET)
        it.send_call("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Available"})
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


def prepare_create(_world: World) -> Create:
    return Create()


def prepare_unpaid_cancel(world: World) -> Cancel:
    return Cancel(world.drivers().create("CP1", 1)["reservationId"])


def prepare_paid_cancel(world: World) -> Cancel:
    created = world.drivers().create("CP1", 1)
    pay(created["checkoutUrl"])
    assert "StartRequested" == world.drivers().confirm(created["reservationId"])["status"]
    return Cancel(created["reservationId"])


def prepare_capture(world: World) -> Perform:
    reservation_id = prepare_paid_cancel(world).reservation_id
    call_id, payload = world.gateway.frames[-1][1], world.gateway.frames[-1][3]
    world.station().receive(SOCKET, json.dumps([3, call_id, {"status": "Accepted"}]))
    start = {"connectorId": 1, "idTag": payload["idTag"], "meterStart": 0, "timestamp": world.clock().isoformat()}
    transaction_id = world.send_call("StartTransaction", start)["transactionId"]
    stop = {"transactionId": transaction_id, "meterStop": ENERGY_WH, "timestamp": world.clock().isoformat()}
    world.send_call("StopTransaction", stop)
    assert [OutboxKind.CAPTURE] == world.owed_kinds()
    return Perform(reservation_id, OutboxKind.CAPTURE)


def pay(checkout_url: str) -> None:
    """The checkout page's form, sent; its answer leads to a page that does not run here."""

    class StayHere(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), StayHere)
    with pytest.raises(urllib.error.HTTPError) as answer:
        browser.open(f"{checkout_url}/pay", urlencode({"card_number": "4242424242424242"}).encode(), timeout=5)
    assert 303 == answer.value.code


SCENES: Final = {
    "create": (prepare_create, "open_checkout", OutboxKind.OPEN_CHECKOUT, ("Failed", "none", [])),
    "expire": (prepare_unpaid_cancel, "expire_checkout", OutboxKind.EXPIRE_CHECKOUT, ("Cancelled", "none", [])),
    "release": (prepare_paid_cancel, "release", OutboxKind.RELEASE, ("Cancelled", "released", [])),
    "capture": (prepare_capture, "capture", OutboxKind.CAPTURE, ("Completed", "captured", [BILL])),
}


def captured_amounts(world: World) -> list[int]:
    """Each capture that the provider made."""
    return [
        event["data"]["object"]["amount_received"]
        for event in world.stand_in.events
        if event["type"] == "payment_intent.succeeded"
    ]


def assert_nothing_left(world: World) -> None:
    """No call owed, no money held, no checkout that can still be paid, and the connector free for the next driver."""
    ledger = world.stand_in.ledger
    assert [] == world.owed_kinds()
    assert [] == [intent.id for intent in ledger.intents.values() if intent.amount_capturable]
    assert [] == [session.id for session in ledger.sessions.values() if session.status is SessionStatus.OPEN]
    assert world.drivers().connector("CP1", 1)["startable"]


def ending(world: World) -> tuple[str, str, list[int]]:
    (reservation_id,) = {e.reservation_id for e in world.table.entities() if type(e).__name__ == "Reservation"}
    status = world.drivers().status(reservation_id)
    return status["status"], status["money"], captured_amounts(world)


@pytest.mark.note("F23", "F67")
@pytest.mark.parametrize("acted", [False, True], ids=["before the provider was asked", "after the provider acted"])
@pytest.mark.parametrize("scene", SCENES)
def test_next_sweep_finishes_killed_process_work(world, scene, acted):
    play, operation, kind, expected = SCENES[scene]
    world.run_until_killed(play(world), operation, acted=acted)
    assert [kind] == world.owed_kinds()

    assert {} == world.sweep_after(timedelta(seconds=5))
    assert world.sweep_after(timedelta(minutes=1))

    assert expected == ending(world)
    assert_nothing_left(world)
    assert {} == world.sweep_after(timedelta(minutes=5))
    assert expected == ending(world)


@pytest.mark.note("F63")
@pytest.mark.parametrize("acted", [False, True], ids=["before the provider was asked", "after the provider acted"])
@pytest.mark.parametrize("scene", SCENES)
def test_late_sweep_leaves_nothing_behind(world, scene, acted):
    play, operation, _, expected = SCENES[scene]
    world.run_until_killed(play(world), operation, acted=acted)

    world.sweep_after(timedelta(minutes=12))

    assert expected == ending(world)
    assert_nothing_left(world)


@pytest.mark.note("F23", "F72")
def test_first_lease_ends_without_a_sweep(world):
    world.run_until_killed(Create(), "open_checkout", acted=False)
    with pytest.raises(ConnectorBusy):
        world.drivers().create("CP1", 1)

    world.clock.move(timedelta(seconds=91))
    second = world.drivers().create("CP1", 1)
    world.sweep_after(timedelta(minutes=1))

    assert "PendingPayment" == world.drivers().status(second["reservationId"])["status"]
    assert [] == world.owed_kinds()
    open_sessions = [s.id for s in world.stand_in.ledger.sessions.values() if s.status is SessionStatus.OPEN]
    assert 1 == len(open_sessions)


@pytest.mark.note("F73", "F67")
@pytest.mark.parametrize("acted", [False, True], ids=["before the provider was asked", "after the provider acted"])
def test_two_sweeps_capture_once(world, acted):
    world.run_until_killed(prepare_capture(world), "capture", acted=acted)
    world.clock.move(timedelta(minutes=1))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: Maintenance(world.dependencies()).sweep(), range(2)))
    world.sweep_after(timedelta(minutes=10))

    assert ("Completed", "captured", [BILL]) == ending(world)
    assert_nothing_left(world)
