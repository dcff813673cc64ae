"""What does the clock do, and what does it leave alone? The service on a real engine; sockets and payment provider are
fakes, and time stands still until a test moves it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final

import pytest

from csms.adapters.dynamodb import Store
from csms.charging import checkout
from csms.config import Settings
from csms.errors import ConnectorBusy
from csms.model import (
    Append,
    Connection,
    Connector,
    FailureCode,
    Money,
    NewIds,
    OutboxItem,
    OutboxKind,
    Policy,
    Protocol,
    Reservation,
    ReservationState,
    Save,
    StatusSource,
    Transaction,
    format_time,
)
from csms.ocpp.spoken import DIALECTS
from csms.ports.payments import PaymentStatus
from csms.service import Dependencies, Drivers, Maintenance, Stations, SweepReport
from csms.service.flow import Flow
from local import database
from tests.builders import ANY_POWER_W, HOUR, MINUTE, NOW, SECOND, presence, station
from tests.fakes import Clock, FakeGateway, FakeProvider, SequentialIds
from tests.tables import Table, Tables

TICK: Final = timedelta(microseconds=1)
DAY: Final = 24 * HOUR
ENGINE: Final = "dynoxide"
LONG: Final = NOW + 30 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Stations of one connector each, their drivers, and the sweep that looks after them all."""

    store: Store
    policy: Policy = field(default_factory=lambda: Policy(max_power_w=ANY_POWER_W))
    clock: Clock = field(default_factory=lambda: Clock(at=NOW))
    provider: FakeProvider = field(default_factory=FakeProvider)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    new_ids: Callable[[], NewIds] = field(default_factory=SequentialIds)
    message_ids: Iterator[int] = field(default_factory=count)

    def dependencies(self, **changes: Any) -> Dependencies:
        parts: dict[str, Any] = {
            "store": self.store,
            "dialects": DIALECTS,
            "policy": self.policy,
            "gateway": self.gateway,
            "provider": self.provider,
            "now": self.clock,
            "new_ids": self.new_ids,
            "public_url": "https://csms.example",
        }
        return Dependencies(**parts | changes)

    @property
    def drivers(self) -> Drivers:
        return Drivers(self.dependencies())

    @property
    def stations(self) -> Stations:
        """The chargers' side, which has no provider, as on AWS: what it owes stays owed."""
        return Stations(self.dependencies(provider=None))

    def sweep(self, *, dry_run: bool = False) -> SweepReport:
        return Maintenance(self.dependencies()).sweep(dry_run=dry_run)

    def sweep_after(self, after: timedelta) -> dict[str, int]:
        """What a sweep that much later did, without a failure."""
        self.clock.move(after)
        report = self.sweep()

        assert [] == report.failed
        return report.done

    def register_station(self, name: str) -> None:
        """A station is registered, connected as long as any test lasts, and said an hour ago that it is Available."""
        socket = Connection(connection_id=f"@{name}", station_id=name, protocol=Protocol.OCPP16, expires_at=LONG)
        online = presence(station_id=name, connection_id=socket.connection_id, lease_until=LONG, version=0)
        known = station(station_id=name, identity=name, connectors=(1,), version=0)
        self.store.commit([Save(known), Save(online), Append(socket)])
        self.report_status(name, "Available", at=self.clock() - HOUR)

    def send_call(self, name: str, action: str, **payload: Any) -> dict[str, Any]:
        """What the station's CALL is answered."""
        frame = self.stations.receive(f"@{name}", json.dumps([2, str(next(self.message_ids)), action, payload]))
        kind, _, answer = json.loads(frame or "[]")

        assert 3 == kind
        return dict(answer)

    def report_status(self, name: str, raw: str, at: datetime | None = None) -> None:
        when = format_time(at or self.clock())
        self.send_call(name, "StatusNotification", connectorId=1, errorCode="NoError", status=raw, timestamp=when)

    def start_transaction(self, name: str, id_tag: str = "CARD", meter: int = 1000) -> int:
        at = format_time(self.clock())
        begun = self.send_call(name, "StartTransaction", connectorId=1, idTag=id_tag, meterStart=meter, timestamp=at)
        return int(begun["transactionId"])

    def send_meter_value(self, name: str, transaction_id: int, meter: int) -> None:
        values = [{"timestamp": format_time(self.clock()), "sampledValue": [{"value": str(meter)}]}]
        self.send_call(name, "MeterValues", connectorId=1, transactionId=transaction_id, meterValue=values)

    def stop_transaction(self, name: str, transaction_id: int, meter: int) -> None:
        at = format_time(self.clock())
        self.send_call(name, "StopTransaction", transactionId=transaction_id, meterStop=meter, timestamp=at)

    def accept_call(self, name: str) -> None:
        """The station accepts the CALL that it was sent last."""
        frame = json.dumps([3, self.gateway.frames[-1][1], {"status": "Accepted"}])
        self.stations.receive(f"@{name}", frame)

    def create_reservation(self, name: str) -> str:
        return str(self.drivers.create(name, 1)["reservationId"])

    def pay(self, reservation_id: str) -> None:
        self.provider.pay(self.reservation(reservation_id).checkout_id or "")
        self.drivers.confirm(reservation_id)

    def reservation(self, reservation_id: str) -> Reservation:
        return self.store.reservation(reservation_id)

    def payment(self, reservation_id: str) -> PaymentStatus:
        """How the provider says that the payment stands."""
        return self.provider.payment(self.reservation(reservation_id).checkout_id or "").status

    def connector(self, name: str) -> Connector:
        return self.store.snapshot(name).connector(1)

    def transaction(self, transaction_id: int) -> Transaction:
        return self.store.transaction(transaction_id)


@pytest.fixture
def table(tables: Tables) -> Table:
    return tables(ENGINE)


@pytest.fixture
def site(table: Table) -> Site:
    return Site(store=table.store)


def site_with_settings(table: Table, **settings: str) -> Site:
    """A site with these settings of its environment, and meters that rise on a clock that stands still."""
    policy = Settings.load({"TABLE_NAME": table.name, **settings}).policy
    return Site(store=table.store, policy=replace(policy, max_power_w=ANY_POWER_W))


# How far somebody came at a station, up to where only the clock goes on. Each leaves exactly one thing to be due.


def leave_unpaid(site: Site, name: str) -> str:
    """A driver looks at the checkout page."""
    site.register_station(name)
    return site.create_reservation(name)


def leave_checkout_unopened(site: Site, name: str) -> str:
    """Whoever created the reservation died before the checkout was opened."""
    site.register_station(name)
    held = Flow(site.dependencies()).units.run(name, lambda s, m: checkout.create(s, 1, m)).outcome.reply
    return str(held.reservation_id)


def pay_for_unavailable_connector(site: Site, name: str) -> str:
    """A driver has paid for a connector that became Unavailable."""
    reservation_id = leave_unpaid(site, name)
    site.report_status(name, "Unavailable")
    site.pay(reservation_id)
    return reservation_id


def request_start(site: Site, name: str) -> str:
    """The station has accepted the remote start and nobody plugs in."""
    reservation_id = leave_unpaid(site, name)
    site.pay(reservation_id)
    site.accept_call(name)
    return reservation_id


def start_charging(site: Site, name: str) -> str:
    """The car has taken 10 kWh so far."""
    reservation_id = request_start(site, name)
    site.send_meter_value(name, site.start_transaction(name, site.reservation(reservation_id).id_tag), 11_000)
    return reservation_id


def finish_charging(site: Site, name: str) -> str:
    """The charge is over and its capture owed."""
    reservation_id = start_charging(site, name)
    site.stop_transaction(name, site.reservation(reservation_id).transaction_id or "", 11_000)
    return reservation_id


def leave_stale_status(site: Site, name: str) -> None:
    """The station once said Faulted, and nothing since."""
    site.register_station(name)
    site.report_status(name, "Faulted")


def leave_call_unanswered(site: Site, name: str) -> None:
    """The station was asked to stop what nobody pays for, and says nothing."""
    reservation_id = leave_unpaid(site, name)
    site.drivers.cancel(reservation_id)
    site.stop_transaction(name, site.start_transaction(name, site.reservation(reservation_id).id_tag), 1000)


def sorted_items(table: Table) -> list[dict[str, Any]]:
    """Everything that is stored."""
    return sorted(table.items(), key=lambda item: (item["PK"], item["SK"]))


@contextmanager
def interrupt_before(operation: str, happens: Callable[[], object]) -> Iterator[Callable[[Table], Any]]:
    """Makes a client for the table that, once, lets something happen just before it sends the first such operation; it
    must have happened."""
    left = [happens]

    def strike(**_: Any) -> None:
        if left:
            left.pop()()

    def client(table: Table) -> Any:
        made = database.client(table.endpoint)
        made.meta.events.register(f"before-call.dynamodb.{operation}", strike)
        return made

    yield client

    assert [] == left


# Reservations: each state by its own deadline, and all within the reservation timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a reservation ends by itself when its time is over, and what its driver's money does."""

    scene: Callable[[Site, str], str]
    after: timedelta
    state: ReservationState
    code: FailureCode
    money: Money
    payment: PaymentStatus

    def __str__(self) -> str:
        return self.scene.__name__


ENDINGS = (
    Ending(
        scene=leave_unpaid,
        after=32 * MINUTE,
        state=ReservationState.CANCELLED,
        code=FailureCode.PAYMENT_TIMEOUT,
        money=Money.NONE,
        payment=PaymentStatus.EXPIRED,
    ),
    Ending(
        scene=pay_for_unavailable_connector,
        after=10 * MINUTE,
        state=ReservationState.FAILED,
        code=FailureCode.START_TIMEOUT,
        money=Money.RELEASED,
        payment=PaymentStatus.RELEASED,
    ),
    Ending(
        scene=request_start,
        after=10 * MINUTE,
        state=ReservationState.FAILED,
        code=FailureCode.START_TIMEOUT,
        money=Money.RELEASED,
        payment=PaymentStatus.RELEASED,
    ),
)


@pytest.mark.note("F27", "F63")
@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_reservation_ends_only_past_its_deadline(site, ending):
    rid = ending.scene(site, "cp")
    before = site.reservation(rid)

    site.sweep_after(ending.after)
    assert before == site.reservation(rid)

    site.sweep_after(TICK)
    held = site.reservation(rid)
    assert (ending.state, ending.code, ending.money) == (held.state, held.failure_code, held.money)
    assert ending.payment == site.payment(rid)
    assert site.connector("cp").lock is None
    assert {} == site.sweep_after(HOUR)


def test_sweep_leaves_undue_items_unchanged(site, table):
    for scene in (leave_unpaid, request_start, start_charging, leave_stale_status):
        scene(site, scene.__name__)
    before = sorted_items(table)

    assert {} == site.sweep_after(4 * MINUTE)

    assert before == sorted_items(table)


def test_old_charging_reservation_is_never_ended(table):
    site = site_with_settings(table, SESSION_LIMIT_MINUTES="0")
    rid = start_charging(site, "cp")

    assert {} == site.sweep_after(20 * DAY)

    assert ReservationState.CHARGING == site.reservation(rid).state


@pytest.mark.note("F72")
@pytest.mark.parametrize(("timeout", "minutes"), [("60", 60), ("20", 20), ("0", 65), ("-1", 65)])
def test_reservation_timeout_limits_waiting_unless_disabled(table, timeout, minutes):
    site = site_with_settings(table, RESERVATION_TIMEOUT_MINUTES=timeout, CHECKOUT_MINUTES="58")
    rid = leave_unpaid(site, "cp")
    site.report_status("cp", "Unavailable")
    if minutes > 20:
        site.clock.move(55 * MINUTE)
        site.pay(rid)
    left = NOW + minutes * MINUTE - site.clock()

    site.sweep_after(left)
    assert site.reservation(rid).failure_code is None

    site.sweep_after(TICK)
    assert site.reservation(rid).failure_code is not None


def test_unopened_checkout_is_closed_within_a_minute(site):
    rid = leave_checkout_unopened(site, "cp")

    assert {"OutboxItem": 1} == site.sweep_after(30 * SECOND)

    assert FailureCode.CHECKOUT_FAILED == site.reservation(rid).failure_code
    assert PaymentStatus.EXPIRED == site.payment(rid)
    assert "PendingPayment" == site.drivers.status(site.create_reservation("cp"))["status"]


def test_checkout_opened_during_sweep_is_kept(site, table):
    rid = leave_checkout_unopened(site, "cp")
    late = site.reservation(rid)
    site.clock.move(30 * SECOND)

    owed = OutboxItem(reservation_id=rid, kind=OutboxKind.OPEN_CHECKOUT)
    with interrupt_before("GetItem", lambda: Flow(site.dependencies()).outbox.attempt(late, owed)) as client:
        Maintenance(site.dependencies(store=Store(client(table), table.name))).sweep()

    assert (ReservationState.PENDING_PAYMENT, None) == (site.reservation(rid).state, site.reservation(rid).failure_code)
    assert PaymentStatus.OPEN == site.payment(rid)


# Correctness never waits for a sweep


@pytest.mark.note("F72")
def test_expired_lock_frees_connector_without_sweep(site):
    first = leave_unpaid(site, "cp")
    site.clock.move(32 * MINUTE)
    with pytest.raises(ConnectorBusy):
        site.create_reservation("cp")

    site.clock.move(TICK)
    second = site.create_reservation("cp")

    assert {"Reservation": 1} == site.sweep_after(MINUTE)
    assert ReservationState.CANCELLED == site.reservation(first).state
    assert ReservationState.PENDING_PAYMENT == site.reservation(second).state
    assert second == getattr(site.connector("cp").lock, "reservation_id", None)


# Stale statuses: released only where nothing else is known, and that is looked at in the same write


@pytest.mark.note("F74", "F72")
def test_stale_status_is_released_on_time(site):
    leave_stale_status(site, "cp")

    assert {} == site.sweep_after(240 * MINUTE - TICK)
    assert {"Connector": 1} == site.sweep_after(TICK)

    released = site.connector("cp").persisted
    assert released is not None
    assert ("Available", StatusSource.MAINTENANCE, site.clock()) == (released.raw, released.source, released.at)
    assert [{"connector": 1, "was": "Faulted"}] == [
        entry.detail for entry in site.store.timeline("cp", limit=50) if entry.kind == "StatusReleased"
    ]
    assert {} == site.sweep_after(DAY)


@pytest.mark.note("F74")
def test_transaction_or_reservation_keeps_stale_status(table):
    site = site_with_settings(
        table, RESERVATION_TIMEOUT_MINUTES="0", SESSION_LIMIT_MINUTES="0", START_WINDOW_MINUTES="1000"
    )
    pay_for_unavailable_connector(site, "reserved")
    site.register_station("charging")
    site.start_transaction("charging")
    site.report_status("charging", "Unavailable")

    assert {} == site.sweep_after(250 * MINUTE)

    raws = [getattr(site.connector(name).persisted, "raw", None) for name in ("reserved", "charging")]
    assert ["Unavailable", "Unavailable"] == raws


def boot(site: Site) -> None:
    site.send_call("cp", "BootNotification", chargePointVendor="v", chargePointModel="m")


def plug_in(site: Site) -> None:
    site.start_transaction("cp")


def reserve(site: Site) -> None:
    boot(site)
    site.create_reservation("cp")


def report_again(site: Site) -> None:
    site.report_status("cp", "Faulted")


@pytest.mark.note("F74")
@pytest.mark.parametrize("happens", [plug_in, reserve, report_again])
def test_change_during_sweep_keeps_the_status(site, table, happens):
    leave_stale_status(site, "cp")
    site.clock.move(240 * MINUTE)

    with interrupt_before("TransactWriteItems", lambda: happens(site)) as client:
        report = Maintenance(site.dependencies(store=Store(client(table), table.name))).sweep()

    assert ([], {"Connector": 1}) == (report.failed, report.done)
    persisted = site.connector("cp").persisted
    assert persisted is not None
    assert StatusSource.MAINTENANCE != persisted.source
    assert "StatusReleased" not in {entry.kind for entry in site.store.timeline("cp", limit=50)}


@pytest.mark.note("F72")
@pytest.mark.parametrize("minutes", ["0", "-5"])
def test_status_release_zero_disables_release(table, minutes):
    site = site_with_settings(table, STATUS_RELEASE_MINUTES=minutes)
    leave_stale_status(site, "cp")

    assert {} == site.sweep_after(20 * DAY)

    assert "Faulted" == getattr(site.connector("cp").persisted, "raw", None)
