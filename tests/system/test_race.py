"""Does exactly one of many drivers get the connector? Several processes, on real engines, through the real service
(note F22)."""

import multiprocessing
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import boto3
import pytest
from botocore.config import Config

from csms.adapters.dynamodb import Store
from csms.errors import ConnectorBusy
from csms.model import (
    AuditEntry,
    Connector,
    IdTag,
    Lock,
    Presence,
    Protocol,
    Reservation,
    ReservationState,
    Save,
    Station,
    Tariff,
)
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Drivers
from local.database import CREDENTIALS
from local.invoke import REGION
from tests.fakes import FakeProvider
from tests.tables import ENGINES, Tables

ROUNDS: Final = 200
PROCESSES: Final = 4
THREADS: Final = 16
DRIVERS: Final = PROCESSES * THREADS
PATIENCE_SECONDS: Final = 120
CONNECTED_AT: Final = datetime.now(UTC)
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)

Answers = list[list[str]]
"""What each thread of a process was answered, round by round."""


def station(number: int) -> Station:
    name = f"race-{number}"
    return Station(station_id=name, identity=name, password_hash="", connectors=(1,), tariff=TARIFF)


def online_presence(number: int) -> Presence:
    return Presence(
        station_id=station(number).station_id,
        connection_id=f"connection-{number}",
        protocol=Protocol.OCPP16,
        epoch="race",
        connected_at=CONNECTED_AT,
        last_seen_at=CONNECTED_AT,
        lease_until=CONNECTED_AT + timedelta(hours=1),
    )


def connector_writes(number: int) -> tuple[Save, ...]:
    """By turns one that was never heard of, a known one, and one whose last driver went away without paying."""
    known = Connector(station_id=station(number).station_id, connector_id=1)
    abandoned = Lock(
        reservation_id="abandoned",
        state=ReservationState.PENDING_PAYMENT,
        id_tag="ABANDONED",
        expires_at=CONNECTED_AT - timedelta(minutes=1),
    )
    return ((), (Save(known),), (Save(replace(known, lock=abandoned)),))[number % 3]


def compete(endpoint: str, table: str, start: Barrier, answers: "Connection[Answers, Answers]") -> None:
    """One process: its threads create in each round at the same moment, on that round's station."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, max_pool_connections=THREADS),
    )
    drivers = Drivers(Dependencies(store=Store(client, table), dialects=DIALECTS, provider=FakeProvider()))

    def drive(_thread: int) -> list[str]:
        heard = []
        for number in range(ROUNDS):
            start.wait(PATIENCE_SECONDS)
            heard.append(create(drivers, station(number).identity))
        return heard

    with ThreadPoolExecutor(THREADS) as pool:
        answers.send(list(pool.map(drive, range(THREADS))))


def create(drivers: Drivers, identity: str) -> str:
    try:
        return str(drivers.create(identity, 1)["status"])
    except ConnectorBusy as busy:
        return f"{busy.code} {','.join(busy.reasons)}"
    except Exception as failed:  # whatever else it may be, the test shall count and name it, and the barrier go on
        return repr(failed)


def race(context: SpawnContext, endpoint: str, table: str) -> list[Counter[str]]:
    """How often each answer was given, round by round; EOFError if a process did not come to its end."""
    start = context.Barrier(DRIVERS)
    heard: list[Connection[Answers, Answers]] = []
    for _ in range(PROCESSES):
        receiver, sender = context.Pipe(duplex=False)
        context.Process(target=compete, args=(endpoint, table, start, sender), daemon=True).start()
        # With our copy closed, the end of the process is the end of the pipe.
        sender.close()
        heard.append(receiver)
    threads = [thread for receiver in heard for thread in receiver.recv()]
    return [Counter(thread[number] for thread in threads) for number in range(ROUNDS)]


@pytest.mark.note("F22")
@pytest.mark.parametrize("engine", ENGINES)
def test_one_of_64_parallel_creates_wins(tables: Tables, engine: str) -> None:
    table = tables(engine)
    for number in range(ROUNDS):
        table.store.commit([Save(station(number)), Save(online_presence(number)), *connector_writes(number)])

    rounds = race(multiprocessing.get_context("spawn"), table.endpoint, table.name)

    fair = Counter({"Redirect": 1, "ConnectorBusy ActiveReservation": DRIVERS - 1})
    assert [] == [(number, heard) for number, heard in enumerate(rounds) if heard != fair]
    left = group_by_type(table.entities())
    winners = {held.station_id: held for held in left.pop(Reservation)}
    assert {station(number).station_id for number in range(ROUNDS)} == winners.keys()
    locks = {connector.station_id: connector.lock for connector in left.pop(Connector)}
    assert {name: held.reservation_id for name, held in winners.items()} == {
        name: lock.reservation_id for name, lock in locks.items() if lock is not None
    }
    assert {held.id_tag for held in winners.values()} == {tag.tag for tag in left.pop(IdTag)}
    assert {held.reservation_id for held in winners.values()} == {step.reservation_id for step in left.pop(AuditEntry)}
    assert {Station, Presence} == left.keys()


def group_by_type(entities: list[Any]) -> dict[type, list[Any]]:
    sorted_out: dict[type, list[Any]] = {}
    for entity in entities:
        sorted_out.setdefault(type(entity), []).append(entity)
    return sorted_out
