"""Does exactly one of many drivers get the connector? Several processes, on real engines, through the real service
(note F22)."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import pytest

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
from local import database
from tests.fakes import FakeProvider
from tests.system.racing import race, run_rounds
from tests.tables import ENGINES, Tables

ROUNDS: Final = 200
PROCESSES: Final = 4
THREADS: Final = 16
DRIVERS: Final = PROCESSES * THREADS
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


def compete(_process: int, start: Barrier, endpoint: str, table: str) -> Answers:
    """One process: its threads create in each round at the same moment, on that round's station."""
    store = Store(database.client(endpoint, connections=THREADS), table)
    drivers = Drivers(Dependencies(store=store, dialects=DIALECTS, provider=FakeProvider()))

    def drive(_thread: int, number: int) -> str:
        return create(drivers, station(number).identity)

    return run_rounds(start, drive, rounds=ROUNDS, threads=THREADS)


def create(drivers: Drivers, identity: str) -> str:
    try:
        return str(drivers.create(identity, 1)["status"])
    except ConnectorBusy as busy:
        return f"{busy.code} {','.join(busy.reasons)}"
    except Exception as failed:  # whatever else it may be, the test shall count and name it, and the barrier go on
        return repr(failed)


@pytest.mark.note("F22")
@pytest.mark.parametrize("engine", ENGINES)
def test_one_of_64_parallel_creates_wins(tables: Tables, engine: str) -> None:
    table = tables(engine)
    for number in range(ROUNDS):
        table.store.commit([Save(station(number)), Save(online_presence(number)), *connector_writes(number)])

    answers = race(compete, table.endpoint, table.name, processes=PROCESSES, threads=THREADS)

    rounds = [Counter(thread[number] for process in answers for thread in process) for number in range(ROUNDS)]
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
