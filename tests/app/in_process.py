"""The services in this process, over fakes unless something else is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any, Final, Self

from csms.model import Connector, NewIds, OutboxItem, Policy, Presence, Reservation, Snapshot, Tariff, Transaction, fold
from csms.ocpp.versions import DIALECTS
from csms.ports.payments import PaymentStatus
from csms.service import Dependencies, Drivers, Maintenance, Operators, Stations, SweepReport
from tests.app import CONNECTORS, App, Json
from tests.builders import ANY_POWER_W, basic_auth_header
from tests.fakes import Clock, FakeGateway, FakeMailer, FakeProvider, FakeStore, SequentialIds

EMAIL: Final = "driver@example.com"
OCPP16: Final = "ocpp1.6"
PUBLIC_URL: Final = "https://charge.example"
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)
POLICY: Final = Policy(email_receipts=True, max_power_w=ANY_POWER_W, power_tolerance_percent=ANY_POWER_W)


@dataclass(kw_only=True)
class InProcessApp(App):
    """Unless the stations settle, their side has no payment provider, as on AWS: what it owes waits for a sweep. The
    drivers pay with this address."""

    identity: str = "CP1"
    socket: str = "A"
    password: bytes = b"correct horse"
    store: Any = field(default_factory=FakeStore)
    clock: Clock = field(default_factory=Clock)
    gateway: Any = field(default_factory=FakeGateway)
    provider: Any = field(default_factory=FakeProvider)
    mailer: FakeMailer = field(default_factory=FakeMailer)
    policy: Policy = POLICY
    new_ids: Callable[[], NewIds] = field(default_factory=SequentialIds)
    dialects: Mapping[str, Any] = field(default_factory=lambda: DIALECTS)
    stations_settle: bool = True
    email: str | None = EMAIL
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    observed: list[tuple[str, Any]] = field(default_factory=list)
    left_owed: list[OutboxItem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stations = Stations(self.dependencies() if self.stations_settle else self.dependencies(provider=None))
        self.drivers = Drivers(self.dependencies())
        self.maintenance = Maintenance(self.dependencies())
        self.operators = Operators(self.dependencies(provider=None, trigger_maintenance=self.left_owed.append))

    def dependencies(self, **changes: Any) -> Dependencies:
        """What the services work with."""
        parts: Json = {
            "store": self.store,
            "dialects": self.dialects,
            "gateway": self.gateway,
            "provider": self.provider,
            "mailer": self.mailer,
            "policy": self.policy,
            "public_url": PUBLIC_URL,
            "now": self.clock,
            "new_ids": self.new_ids,
            "observe": lambda what, facts: self.observed.append((what, facts)),
        }
        return Dependencies(**parts | changes)

    def at(self, identity: str) -> Self:
        """The same app, at another station, over a socket of that station's own."""
        return replace(self, identity=identity, socket=f"@{identity}")

    def register(self, *, connectors: tuple[int, ...] = CONNECTORS, tariff: Tariff = TARIFF) -> Self:
        """The station is registered."""
        self.stations.register(self.identity, password=self.password, connectors=connectors, tariff=tariff)
        return self

    def connect(
        self, over: str | None = None, password: bytes | None = None, *, offered: Iterable[str] = (OCPP16,)
    ) -> str:
        """The sub-protocol that was agreed on."""
        header = basic_auth_header(self.identity, self.password if password is None else password)
        return self.stations.connect(
            self.identity, authorization=header, offered=offered, connection_id=over or self.socket
        )

    def disconnect(self, over: str | None = None) -> None:
        self.stations.disconnect(over or self.socket)

    def reconnect(self, over: str, *, away: float = 2) -> None:
        """The station's socket closed, and seconds later another one is open."""
        self.disconnect(self.presence().connection_id)
        self.pass_time(seconds=away)
        self.connect(over)

    def exchange(self, action: str, *, over: str | None = None, **payload: Any) -> list[Any]:
        frame = json.dumps([2, f"m{next(self.numbers)}", action, payload])
        answer: list[Any] = json.loads(self.stations.receive(over or self.socket, frame) or "null")
        return answer

    def answer_call(
        self, answer: str | Json = "Accepted", *, over: str | None = None, call_id: str | None = None
    ) -> None:
        """The station answers the CALL it was sent last, with a status or a whole payload; or the one of that id."""
        payload = {"status": answer} if isinstance(answer, str) else answer
        frame = json.dumps([3, call_id or self.frames[-1][1], payload])

        assert self.stations.receive(over or self.socket, frame) is None

    @property
    def frames(self) -> list[Any]:
        """The frames that the station was sent."""
        frames: list[Any] = self.gateway.frames
        return frames

    def count_sent(self, over: str, action: str) -> int:
        """How many CALLs of this action the socket was sent."""
        return sum(to == over and json.loads(frame)[2] == action for to, frame in self.gateway.sent)

    def accept_start(self, reservation_id: str) -> str:
        self.answer_call("Accepted")
        return self.reservation(reservation_id).id_tag

    def create(self, connector: int = 1, **more: Any) -> Json:
        return self.drivers.create(self.identity, connector, **more)

    def pay(self, reservation_id: str) -> None:
        self.provider.pay(self.reservation(reservation_id).checkout_id or "", email=self.email)

    def confirm(self, reservation_id: str) -> Json:
        return self.drivers.confirm(reservation_id)

    def cancel(self, reservation_id: str) -> Json:
        return self.drivers.cancel(reservation_id)

    def status(self, reservation_id: str) -> Json:
        return self.drivers.status(reservation_id)

    def view_connector(self, connector: int = 1) -> Json:
        return self.drivers.connector(self.identity, connector)

    def sweep(self, **how: Any) -> SweepReport:
        return self.maintenance.sweep(**how)

    def sweep_after(self, after: timedelta) -> dict[str, int]:
        """What a sweep that much later did, without a failure."""
        self.clock.move(after)
        report = self.sweep()

        assert [] == report.failed
        return report.done

    def now(self) -> datetime:
        return self.clock.at

    def pass_time(self, **much: float) -> str:
        """The time after so much of it has passed, as a station writes it."""
        self.clock.move(timedelta(**much))
        return self.time()

    # What is stored, and what was told

    def snapshot(self) -> Snapshot:
        """The station as it is stored."""
        seen: Snapshot = self.store.snapshot(fold(self.identity))
        return seen

    def presence(self) -> Presence:
        """The presence of a station that has been there."""
        found = self.snapshot().presence

        assert found is not None
        return found

    def connector(self, connector: int = 1) -> Connector:
        """The connector as it is stored."""
        return self.snapshot().connector(connector)

    def reservation(self, reservation_id: str) -> Reservation:
        """The reservation as it is stored."""
        held: Reservation = self.store.reservation(reservation_id)
        return held

    def transaction(self, transaction_id: int | str) -> Transaction:
        """The transaction as it is stored."""
        stored: Transaction = self.store.transaction(transaction_id)
        return stored

    def payment_status(self, reservation_id: str) -> PaymentStatus:
        """How the provider says that the payment stands."""
        status: PaymentStatus = self.provider.payment(self.reservation(reservation_id).checkout_id or "").status
        return status

    def take_decisions(self) -> list[tuple[str, str | None]]:
        """The verdict and the headline of each decision since they were last asked for."""
        told = [(facts["verdict"], facts["headline"]) for what, facts in self.observed if what == "decision"]
        self.observed.clear()
        return told
