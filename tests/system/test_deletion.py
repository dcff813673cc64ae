"""A station is deleted while something begins there: on real engines, where both operations read before either
writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any, Final

import pytest

from csms.adapters.dynamodb import Store
from csms.charging.operations import OperatorCommand
from csms.errors import CsmsError, IllegalTransition
from csms.model import (
    Append,
    Connection,
    Connector,
    OutboundCall,
    Presence,
    Protocol,
    Save,
    Station,
    Write,
    format_time,
)
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Drivers, Maintenance, Operators, Registration, Stations
from local import database
from tests.builders import TARIFF, basic_auth_header, presence
from tests.fakes import START, Clock, FakeProvider
from tests.tables import ENGINES, Table, Tables

ROUNDS: Final = 10
PATIENCE_SECONDS: Final = 30
PASSWORD: Final = b"correct horse"
LIVE: Final = Station | Presence | Connector | OutboundCall

Begin = Callable[[Dependencies, str], object]


class BarrierStore(Store):
    """The table, on which the first commit waits until somebody else's is ready too."""

    def __init__(self, table: Table, start: Barrier) -> None:
        super().__init__(database.client(table.endpoint), table.name)
        self._start: Barrier | None = start

    def commit(self, writes: Iterable[Write]) -> None:
        start, self._start = self._start, None
        if start is not None:
            start.wait(PATIENCE_SECONDS)
        super().commit(writes)


def call_as_station(action: str, **payload: Any) -> Begin:
    return lambda dependencies, name: Stations(dependencies).receive(f"@{name}", json.dumps([2, "1", action, payload]))


def start_transaction(connector_id: int) -> Begin:
    return call_as_station(
        "StartTransaction", connectorId=connector_id, idTag="CARD", meterStart=0, timestamp=format_time(START)
    )


def connect_station(dependencies: Dependencies, name: str) -> object:
    credentials = basic_auth_header(name, PASSWORD)
    return Stations(dependencies).connect(name, authorization=credentials, offered=("ocpp1.6",), connection_id="new")


BEGINNINGS: Final[dict[str, Begin]] = {
    "a transaction": start_transaction(1),
    "a transaction on a connector nobody registered": start_transaction(7),
    "an irregular message": call_as_station("MeterValues", connectorId=1, meterValue=[], extra=1),
    "a message in quarantine": call_as_station("StartTransaction", connectorId=1),
    "a status": call_as_station("StatusNotification", connectorId=1, errorCode="NoError", status="Charging"),
    "a reservation": lambda dependencies, name: Drivers(dependencies).create(name, 1),
    "a question": lambda dependencies, name: Operators(dependencies).trigger_status(
        name, OperatorCommand(who="eve", reason="To see.", expected="Online")
    ),
    "its first connection": connect_station,
}


def register_station(dependencies: Dependencies, name: str, *, online: bool) -> None:
    """A station of which nothing is known yet but, perhaps, that it is connected."""
    Operators(dependencies).register(
        Registration(identity=name, connectors=(1, 2), tariff=TARIFF, password=PASSWORD), who="adam"
    )
    if online:
        until = START + timedelta(days=1)
        seen = presence(station_id=name, connection_id=f"@{name}", last_seen_at=START, lease_until=until, version=0)
        socket = Connection(connection_id=f"@{name}", station_id=name, protocol=Protocol.OCPP16, expires_at=until)
        dependencies.store.commit([Save(seen), Append(socket)])


def outcome(act: Callable[[], object]) -> str:
    """What became of it: done, or why it was refused."""
    try:
        act()
    except CsmsError as refused:
        return type(refused).__name__
    return "done"


@pytest.mark.note("F73")
@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("engine", ENGINES)
def test_deletion_during_activity_leaves_nothing_behind(tables: Tables, engine: str, beginning: str) -> None:
    table, clock, provider = tables(engine), Clock(), FakeProvider()

    def dependencies(store: Store) -> Dependencies:
        return Dependencies(store=store, dialects=DIALECTS, now=clock, provider=provider)

    names = [f"cp-{number}" for number in range(ROUNDS)]
    deletions = []
    with ThreadPoolExecutor(2) as pool:
        for name in names:
            register_station(dependencies(table.store), name, online=beginning != "its first connection")
            start = Barrier(2)
            ours, theirs = dependencies(BarrierStore(table, start)), dependencies(BarrierStore(table, start))
            begun = pool.submit(outcome, lambda it=theirs, name=name: BEGINNINGS[beginning](it, name))
            deletions.append(outcome(lambda it=ours, name=name: Operators(it).delete(name, who="eve")))
            assert {begun.result(), deletions[-1]} & {"done"}

    assert {*deletions} <= {"done", IllegalTransition.__name__}
    gone = {name for name, deletion in zip(names, deletions, strict=True) if deletion == "done"}
    live = [entity for entity in table.entities() if isinstance(entity, LIVE)]
    assert [] == [entity for entity in live if entity.station_id in gone]
    clock.move(timedelta(days=3))
    assert [] == Maintenance(dependencies(table.store)).sweep().failed
