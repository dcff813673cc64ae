"""Stations, drivers and their charges up to where only the clock goes on, for the tests of the sweep: the services on a
real engine, with fakes for sockets and payment provider, and time that stands still until a test moves it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Self

import pytest

from csms.charging import checkout
from csms.config import Settings
from csms.model import Append, Connection, Policy, Protocol, Save
from csms.service.flow import Flow
from local import database
from tests.app.in_process import InProcessApp
from tests.builders import ANY_POWER_W, HOUR, NOW, presence, station
from tests.fakes import Clock
from tests.tables import Table, Tables

TICK: Final = timedelta(microseconds=1)
DAY: Final = 24 * HOUR
ENGINE: Final = "dynoxide"
LONG: Final = NOW + 30 * DAY


@dataclass(kw_only=True)
class SweepSite(InProcessApp):
    """Stations of one connector each, their drivers, and the sweep that looks after them all."""

    identity: str = "cp"
    socket: str = "@cp"
    policy: Policy = field(default_factory=lambda: Policy(max_power_w=ANY_POWER_W, power_tolerance_percent=ANY_POWER_W))
    clock: Clock = field(default_factory=lambda: Clock(at=NOW))
    stations_settle: bool = False

    def register_online(self) -> Self:
        """The station is registered, connected as long as any test lasts, and said an hour ago that it is Available."""
        name = self.identity
        socket = Connection(connection_id=self.socket, station_id=name, protocol=Protocol.OCPP16, expires_at=LONG)
        online = presence(station_id=name, connection_id=socket.connection_id, lease_until=LONG, version=0)
        known = station(station_id=name, identity=name, connectors=(1,), version=0)
        self.store.commit([Save(known), Save(online), Append(socket)])
        self.report_status(1, "Available", at=self.clock() - HOUR)
        return self


@pytest.fixture
def table(tables: Tables) -> Table:
    return tables(ENGINE)


@pytest.fixture
def site(table: Table) -> SweepSite:
    return SweepSite(store=table.store)


def site_with_settings(table: Table, **settings: str) -> SweepSite:
    """A site with these settings of its environment, and meters that rise on a clock that stands still."""
    policy = Settings.load({"TABLE_NAME": table.name, **settings}).policy
    return SweepSite(
        store=table.store, policy=replace(policy, max_power_w=ANY_POWER_W, power_tolerance_percent=ANY_POWER_W)
    )


# How far somebody came at a station, up to where only the clock goes on. Each leaves exactly one thing to be due.


def leave_unpaid(site: SweepSite, name: str) -> str:
    """A driver looks at the checkout page."""
    return site.at(name).register_online().create_reservation()


def leave_checkout_unopened(site: SweepSite, name: str) -> str:
    """Whoever created the reservation died before the checkout was opened."""
    site.at(name).register_online()
    held = Flow(site.dependencies()).units.run(name, lambda s, m: checkout.create(s, 1, m)).outcome.reply
    return str(held.reservation_id)


def pay_for_unavailable_connector(site: SweepSite, name: str) -> str:
    """A driver has paid for a connector that became Unavailable."""
    reservation_id = leave_unpaid(site, name)
    site.at(name).report_status(1, "Unavailable")
    site.pay(reservation_id)
    site.confirm(reservation_id)
    return reservation_id


def request_start(site: SweepSite, name: str) -> str:
    """The station has accepted the remote start and nobody plugs in."""
    station = site.at(name).register_online()
    reservation_id = station.create_paid_reservation()
    station.accept_start(reservation_id)
    return reservation_id


def start_charging(site: SweepSite, name: str) -> str:
    """The car has taken 10 kWh so far."""
    station = site.at(name).register_online()
    reservation_id, number = station.start_session()
    station.send_meter_values(number, 11_000)
    return reservation_id


def finish_charging(site: SweepSite, name: str) -> str:
    """The charge is over and its capture owed."""
    reservation_id = start_charging(site, name)
    site.at(name).stop_transaction(site.reservation(reservation_id).transaction_id or "", 11_000)
    return reservation_id


def leave_stale_status(site: SweepSite, name: str) -> None:
    """The station once said Faulted, and nothing since."""
    site.at(name).register_online().report_status(1, "Faulted")


def leave_call_unanswered(site: SweepSite, name: str) -> None:
    """The station was asked to stop what nobody pays for, and says nothing."""
    station = site.at(name)
    reservation_id = leave_unpaid(site, name)
    station.cancel(reservation_id)
    station.stop_transaction(station.start_transaction(station.reservation(reservation_id).id_tag), 1000)


def boot(site: SweepSite) -> None:
    site.boot()


def plug_in(site: SweepSite) -> None:
    site.start_transaction()


def reserve(site: SweepSite) -> None:
    boot(site)
    site.create_reservation()


def report_again(site: SweepSite) -> None:
    site.report_status(1, "Faulted")


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


Scene = Callable[[SweepSite, str], object]
SCENES: Final[tuple[Scene, ...]] = (
    leave_unpaid,
    pay_for_unavailable_connector,
    start_charging,
    finish_charging,
    leave_stale_status,
    leave_call_unanswered,
)
"""One way to leave something due at a station, for each kind of due item."""
