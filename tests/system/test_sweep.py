"""What does the clock do, and what does it leave alone? The service on a real engine; drivers, sockets and the payment
provider are fakes, and time stands still until a test moves it."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any, Final

import pytest
from botocore.exceptions import EndpointConnectionError

from bench.sweep import write
from csms import payments
from csms.config import Settings
from csms.errors import ChargerOffline, ConnectorBusy, PaymentUnavailable, StoreUnavailable
from csms.model import (
    CallState,
    Connection,
    Connector,
    Effect,
    EffectKind,
    Fresh,
    Moment,
    Outcome,
    PersistedStatus,
    Policy,
    Protocol,
    Reservation,
    Save,
    Snapshot,
    Step,
    TimelineEntry,
    Transaction,
    zulu,
)
from csms.model import Append as Add
from csms.service import Drivers, Maintenance, Stations, Sweep, Work
from csms.store import DUE_SHARDS, Store, to_item
from local import database
from tests.builders import HOUR, MINUTE, NOW, SECOND, presence, station
from tests.fakes import Clock, FakeGateway, FakeProvider, FakeStore, FreshIds
from tests.tables import Table, Tables

TICK: Final = timedelta(microseconds=1)
DAY: Final = 24 * HOUR
ENGINE: Final = "dynoxide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Some stations, their drivers, and the sweep that looks after them."""

    store: Store
    policy: Policy = field(default_factory=Policy)
    clock: Clock = field(default_factory=lambda: Clock(at=NOW))
    provider: FakeProvider = field(default_factory=FakeProvider)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    fresh: Callable[[], Fresh] = field(default_factory=FreshIds)

    @property
    def work(self) -> Work:
        return Work(
            store=self.store,
            policy=self.policy,
            gateway=self.gateway,
            provider=self.provider,
            now=self.clock,
            fresh=self.fresh,
            public_url="https://csms.example",
        )

    def registered(self, name: str) -> None:
        """The station is known, and connected for as long as any test lasts."""
        socket = Connection(
            connection_id=f"socket-{name}", station_id=name, protocol=Protocol.OCPP16, expires_at=NOW + 30 * DAY
        )
        online = presence(station_id=name, connection_id=socket.connection_id, lease_until=NOW + 30 * DAY, version=0)
        known = station(station_id=name, identity=name, connectors=(1,), version=0)
        self.store.commit([Save(known), Save(online), Add(socket)])

    def says(self, name: str, action: str, **payload: Any) -> dict[str, Any]:
        """What the station is answered."""
        answer = Stations(self.work).receive(f"socket-{name}", json.dumps([2, "id", action, payload]))
        kind, _, body = json.loads(answer or "[4, 0, 0]")

        assert 3 == kind
        return dict(body)

    def status(self, name: str, raw: str, **more: Any) -> None:
        """The station tells the status of its connector."""
        self.says(name, "StatusNotification", connectorId=1, errorCode="NoError", status=raw, **more)

    def begin(self, name: str, id_tag: str = "CARD") -> int:
        """The station starts a transaction at meter 1000."""
        begun = self.says(
            name, "StartTransaction", connectorId=1, idTag=id_tag, meterStart=1000, timestamp=zulu(self.clock())
        )
        return int(begun["transactionId"])

    def stop(self, name: str, transaction_id: int, meter: int) -> None:
        """The station stops the transaction."""
        self.says(name, "StopTransaction", transactionId=transaction_id, meterStop=meter, timestamp=zulu(self.clock()))

    def answer_call(self, name: str) -> None:
        """The station accepts the CALL that it was sent last."""
        Stations(self.work).receive(
            f"socket-{name}", json.dumps([3, self.gateway.frames[-1][1], {"status": "Accepted"}])
        )

    def sweep(self, *, dry_run: bool = False) -> Sweep:
        return Maintenance(self.work).sweep(dry_run=dry_run)

    def reservation(self, reservation_id: str) -> Reservation:
        return self.store.reservation(reservation_id)

    def connector(self, name: str) -> Connector:
        return self.store.snapshot(name).connector(1)

    def transaction(self, transaction_id: int) -> Transaction:
        return next(
            e for e in entities(self.store) if isinstance(e, Transaction) and e.transaction_id == transaction_id
        )
