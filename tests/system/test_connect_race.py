"""Does exactly one of many connections that a station opens at once survive? Several processes, on real engines,
through the real service (notes F16, F17)."""

from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Final

import pytest

from csms.adapters.dynamodb import Store
from csms.errors import ConnectionSuperseded
from csms.model import Connection, Save, Station, fold
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Stations
from csms.stations.credentials import hash_password
from csms.stations.presence import is_displaced
from local import database
from tests.app.in_process import TARIFF
from tests.builders import basic_auth_header
from tests.fakes import FakeGateway
from tests.system.racing import count_rounds, race, run_rounds
from tests.tables import ENGINES, Tables

PROCESSES: Final = 5
THREADS: Final = 10
PASSWORD: Final = b"correct horse"
PASSWORD_HASH: Final = hash_password(PASSWORD, salt=b"race")
ACCEPTED: Final = "ocpp1.6"
SUPERSEDED: Final = ConnectionSuperseded.__name__


def identity(number: int) -> str:
    return f"Race-{number}"


def earlier_id(number: int) -> str:
    return f"{number}-earlier"


def connection_id(number: int, process: int, thread: int) -> str:
    return f"{number}-{process}-{thread}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a process heard: the answer of each thread and round, and the connections that it closed."""

    answers: list[list[str]]
    closed: list[str]


def compete(process: int, start: Barrier, endpoint: str, table: str, rounds: int) -> Heard:
    """One process: its threads connect in each round at the same moment as that round's station."""
    gateway, store = FakeGateway(), Store(database.client(endpoint, connections=THREADS), table)
    stations = Stations(Dependencies(store=store, dialects=DIALECTS, gateway=gateway))

    def connect(thread: int, number: int) -> str:
        return try_to_connect(stations, identity(number), connection_id(number, process, thread))

    answers = run_rounds(start, connect, rounds=rounds, threads=THREADS)
    return Heard(answers=answers, closed=gateway.closed)


def try_to_connect(stations: Stations, name: str, over: str) -> str:
    header = basic_auth_header(name, PASSWORD)
    try:
        return stations.connect(name, authorization=header, offered=(ACCEPTED,), connection_id=over)
    except ConnectionSuperseded as refused:
        return refused.code
    except Exception as failed:  # whatever else it may be, the test shall count and name it, and the barrier go on
        return repr(failed)


def was_connected(number: int) -> bool:
    return number % 3 == 1


def prepare(store: Store, number: int) -> None:
    """By turns a station that never connected, one that is connected, and one whose connection was closed."""
    name, stations = identity(number), Stations(Dependencies(store=store, dialects=DIALECTS))
    station = Station(station_id=fold(name), identity=name, password_hash=PASSWORD_HASH, connectors=(1,), tariff=TARIFF)
    store.commit([Save(station)])
    if number % 3 == 0:
        return
    assert ACCEPTED == try_to_connect(stations, name, earlier_id(number))
    if not was_connected(number):
        stations.disconnect(earlier_id(number))


@pytest.mark.note("F16", "F17")
@pytest.mark.parametrize("engine", ENGINES)
def test_one_of_50_parallel_connects_survives(tables: Tables, engine: str) -> None:
    table, rounds = tables(engine), count_rounds(engine, others=15)
    for number in range(rounds):
        prepare(table.store, number)

    heard = race(compete, table.endpoint, table.name, rounds, processes=PROCESSES, threads=THREADS)

    closed = {over for it in heard for over in it.closed}
    stored = {it.connection_id: it for it in table.entities() if isinstance(it, Connection)}
    for number in range(rounds):
        answers = collect_answers(heard, number)
        accepted = {over for over, answer in answers.items() if answer == ACCEPTED}
        presence = table.store.snapshot(fold(identity(number))).presence

        assert {ACCEPTED, SUPERSEDED} >= set(answers.values())
        assert PROCESSES * THREADS == len(answers)
        assert presence is not None
        assert presence.connection_id in accepted
        displaced = accepted - {presence.connection_id}
        before = {earlier_id(number)} if was_connected(number) else set()
        assert displaced | before == {over for over in closed if over.startswith(f"{number}-")}
        # One of them may have been in its handshake, and open still: its next frame shows that it was displaced.
        assert displaced == {over for over in accepted if is_displaced(presence, stored[over])}
        assert set() == stored.keys() & (answers.keys() - accepted)


def collect_answers(heard: list[Heard], number: int) -> dict[str, str]:
    """What each connection of the round was answered."""
    return {
        connection_id(number, process, thread): answers[number]
        for process, it in enumerate(heard)
        for thread, answers in enumerate(it.answers)
    }
