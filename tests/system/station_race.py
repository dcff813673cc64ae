"""Handlers of one fleet in several processes, as on Lambda: each process has its own services over the one table, and
in each round all threads of all processes act at the same moment."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Barrier
from typing import Any, Final

from csms.adapters.dynamodb import Store
from csms.model import (
    Append,
    Connection,
    Connector,
    ConnectorState,
    LiveStatus,
    OpenTransaction,
    Presence,
    Protocol,
    Save,
    Station,
    Tariff,
)
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Drivers, Stations
from local import database
from tests.fakes import FakeProvider
from tests.system.racing import PATIENCE_SECONDS, race, run_rounds
from tests.tables import Table

BEGAN_AT: Final = datetime.now(UTC)
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"))
LONGEST: Final = 1000


def station_id(number: int) -> str:
    """The station of this round."""
    return f"race-{number}"


def socket(number: int) -> str:
    """The connection of that station."""
    return f"socket-{number}"


def put_station(table: Table, number: int, *, connectors: int = 4, transaction_id: str | None = None) -> None:
    """An online station whose sessions cost nothing, with a car plugged in at each connector; a transaction that is
    named runs at connector 1."""
    name = station_id(number)
    numbers = tuple(range(1, connectors + 1))
    live = LiveStatus(raw="Preparing", state=ConnectorState.PLUGGED, reported_at=BEGAN_AT, epoch="race")
    running = transaction_id and OpenTransaction(
        transaction_id=transaction_id, id_tag="TAG", started_at=BEGAN_AT, received_at=BEGAN_AT, meter_start_wh=0
    )
    table.store.commit(
        [
            Save(
                Station(station_id=name, identity=name, password_hash="", connectors=numbers, tariff=TARIFF, free=True)
            ),
            Save(
                Presence(
                    station_id=name,
                    connection_id=socket(number),
                    protocol=Protocol.OCPP16,
                    epoch="race",
                    connected_at=BEGAN_AT,
                    last_seen_at=BEGAN_AT,
                    lease_until=BEGAN_AT + timedelta(hours=1),
                )
            ),
            Append(
                Connection(
                    connection_id=socket(number),
                    station_id=name,
                    protocol=Protocol.OCPP16,
                    expires_at=BEGAN_AT + timedelta(hours=3),
                )
            ),
            *(
                Save(
                    replace(
                        Connector(station_id=name, connector_id=connector_id, live=live),
                        transaction=(running or None) if connector_id == 1 else None,
                    )
                )
                for connector_id in numbers
            ),
        ]
    )


@dataclass
class Wire:
    """What the stations see, counted for all processes: how many CALLs of each round's station are unanswered, and how
    many were at the most."""

    unanswered: Any
    most: Any

    @classmethod
    def new(cls, context: SpawnContext) -> Wire:
        return cls(context.Array("i", LONGEST), context.Array("i", LONGEST))

    def send(self, number: int) -> None:
        with self.unanswered.get_lock():
            self.unanswered[number] += 1
            self.most[number] = max(self.most[number], self.unanswered[number])

    def answer(self, number: int) -> None:
        with self.unanswered.get_lock():
            self.unanswered[number] -= 1


@dataclass
class AnsweringGateway:
    """The sockets of stations that accept every command at once. In every second round the answer is processed before
    the post returns, as if it had overtaken whatever is noted of it."""

    wire: Wire
    pool: ThreadPoolExecutor
    receive: Callable[[str, str], object] = lambda _socket, _frame: None
    calls: list[tuple[int, str, str]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    pending: list[Future[None]] = field(default_factory=list)

    def post(self, connection_id: str, frame: str) -> None:
        message = json.loads(frame)
        if message[0] != 2:
            self.answers.append(message)
            return
        number = int(connection_id.rpartition("-")[2])
        self.wire.send(number)
        self.calls.append((number, message[1], message[2]))
        answered = self.pool.submit(self._answer, number, message[1])
        self.pending.append(answered)
        if number % 2:
            answered.result(PATIENCE_SECONDS)

    def close(self, _connection_id: str) -> None:
        """Nothing is displaced here."""

    def is_connected(self, _connection_id: str) -> bool:
        return True

    def _answer(self, number: int, call_id: str) -> None:
        self.wire.answer(number)
        self.receive(socket(number), json.dumps([3, call_id, {"status": "Accepted"}]))


@dataclass(kw_only=True)
class Site:
    """One process: its services, and when the race began, the same for all processes."""

    began_at: datetime
    stations: Stations
    drivers: Drivers
    gateway: AnsweringGateway


Act = Callable[[Site, int, int], Any]
"""What a thread does in a round: its site, the number of the round and its own number among all threads."""


@dataclass(kw_only=True)
class Heard:
    """What came of a race: the results by round and thread, all CALLs that were sent, the answers that were posted, and
    the most unanswered CALLs in any round."""

    results: list[list[Any]]
    calls: list[tuple[int, str, str]]
    answers: list[Any]
    most: int


def race_handlers(table: Table, act: Act, *, rounds: int, processes: int = 2, threads: int = 3) -> Heard:
    """Let all threads act at the same moment in each round; `act` is a function of a module."""
    wire = Wire.new(multiprocessing.get_context("spawn"))
    arguments = (table.endpoint, table.name, act, wire, BEGAN_AT, rounds, threads)
    parts = race(run_process, *arguments, processes=processes, threads=threads)
    by_thread = [results for part in parts for results in part[0]]
    return Heard(
        results=[[results[number] for results in by_thread] for number in range(rounds)],
        calls=[call for part in parts for call in part[1]],
        answers=[answer for part in parts for answer in part[2]],
        most=max(wire.most),
    )


def run_process(
    process: int,
    start: Barrier,
    endpoint: str,
    table: str,
    act: Act,
    wire: Wire,
    began_at: datetime,
    rounds: int,
    threads: int,
) -> tuple[list[list[Any]], list[tuple[int, str, str]], list[Any]]:
    """One process: the results of its threads, the CALLs and the answers that it sent."""
    store = Store(database.client(endpoint, connections=3 * threads), table)
    with ThreadPoolExecutor(16 * threads) as station_pool:
        gateway = AnsweringGateway(wire, station_pool)
        parts = Dependencies(store=store, dialects=DIALECTS, provider=FakeProvider(), gateway=gateway)  # type: ignore[arg-type]
        site = Site(began_at=began_at, stations=Stations(parts), drivers=Drivers(parts), gateway=gateway)
        gateway.receive = site.stations.receive

        def try_to_act(thread: int, number: int) -> Any:
            try:
                return act(site, number, process * threads + thread)
            except Exception as failed:  # Whatever it is, the test shall name it, and the barrier go on.
                return repr(failed)

        heard = run_rounds(start, try_to_act, rounds=rounds, threads=threads)
        while gateway.pending:
            gateway.pending.pop().result(PATIENCE_SECONDS)
        return heard, gateway.calls, gateway.answers
