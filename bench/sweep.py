"""The cost of a sweep by the number of stored items, with 100 due each time: the product's own sweep, in a dry run.

`python -m bench.sweep` takes a minute or two, mostly to fill the tables; `python -m bench.sweep 1000 20000` takes other
sizes. Capacity units are those that the engine reports.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "layers/core/python"))

from boto3.dynamodb.types import TypeSerializer

from csms.adapters.dynamodb import DUE_SHARDS, Store, table_definition, to_item
from csms.charging.reservation import Event
from csms.model import (
    RECORD_RETENTION,
    AuditEntry,
    Connector,
    IdempotencyRecord,
    IdToken,
    LiveStatus,
    MeterSample,
    Money,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    PersistedStatus,
    Presence,
    Protocol,
    Reading,
    RemoteStart,
    Reservation,
    ReservationState,
    Station,
    StatusSource,
    TagStatus,
    Tariff,
    TimelineEntry,
    Transaction,
)
from csms.ocpp.v16.values import read_state
from local import database

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
DUE: Final = 100
SIZES: Final = (1_000, 10_000, 100_000)
BATCH: Final = 25
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)
READS: Final = frozenset({"GetItem", "BatchGetItem", "Query", "Scan"})


@dataclass(slots=True)
class Tap:
    """The traffic of a boto3 DynamoDB client since the last reset: round trips, items examined, capacity units,
    bytes."""

    requests: int = 0
    scanned: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    operations: list[str] = field(default_factory=list)

    @classmethod
    def attach(cls, client: Any) -> Tap:
        """Count the client's requests from now on."""
        tap = cls()
        tap.listen(client.meta.events)
        return tap

    def listen(self, emitter: Any) -> None:
        """Count the requests of a client, or of all clients that a session creates from now on."""
        emitter.register("provide-client-params.dynamodb", self._count_operation)
        emitter.register("before-send.dynamodb", self._count_sent)
        emitter.register("after-call.dynamodb", self._count_received)

    def reset(self) -> None:
        """Set all counts to zero."""
        self.requests = self.scanned = self.bytes_sent = self.bytes_received = 0
        self.read_units = self.write_units = 0.0
        self.operations.clear()

    def _count_operation(self, params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        asked = {"ReturnConsumedCapacity": "TOTAL"} if "ReturnConsumedCapacity" in model.input_shape.members else {}
        return asked | params

    def _count_sent(self, request: Any, **_: Any) -> None:
        self.requests += 1
        self.bytes_sent += len(request.body or b"")

    def _count_received(self, http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        self.operations.append(model.name)
        self.bytes_received += len(http_response.content)
        self.scanned += parsed.get("ScannedCount", 0)
        consumed = parsed.get("ConsumedCapacity", [])
        units = sum(part["CapacityUnits"] for part in (consumed if isinstance(consumed, list) else [consumed]))
        if model.name in READS:
            self.read_units += units
        else:
            self.write_units += units


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one sweep."""

    found: int
    requests: int
    scanned: int
    read_units: float
    milliseconds: float


def write(client: Any, table: str, entities: Iterable[Any]) -> int:
    """Write the entities to the table directly and without conditions, and return their number."""
    serialize = TypeSerializer().serialize

    def put(batch: list[Any]) -> int:
        items = [{name: serialize(value) for name, value in to_item(entity).items()} for entity in batch]
        wanted = {table: [{"PutRequest": {"Item": item}} for item in items]}
        while wanted:
            wanted = client.batch_write_item(RequestItems=wanted)["UnprocessedItems"]
        return len(items)

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(put, _batches(entities)))


def stored_entities(size: int) -> Iterator[Any]:
    """`size` entities in the proportions of a year of operation. None is due at NOW, and one in thirty will be due
    later."""
    return islice(chain.from_iterable(_session(number) for number in count()), size)


def due_entities() -> Iterator[Any]:
    """What a sweep at NOW must handle: abandoned checkouts, owed payments, unanswered CALLs, stale statuses."""
    for number in range(DUE):
        name, at = f"due-{number}", NOW - number * MINUTE
        yield (
            _reservation(name, state=ReservationState.PENDING_PAYMENT, expires_at=at),
            OutboxItem(reservation_id=name, kind=OutboxKind.CAPTURE, due_at=at, version=1),
            _call(name, due_at=at),
            _connector(name, release_at=at),
        )[number % 4]


PAGE: Final = 100


def cost(client: Any, table: str) -> Cost:
    """The cost for a sweep at NOW to find what is due, and how many items it found. Nothing is changed."""
    tap, store = Tap.attach(client), Store(client, table)
    started = time.perf_counter()
    found = sum(1 for shard in range(DUE_SHARDS) for _ in store.due_items(NOW, shard=shard, page=PAGE))
    return Cost(
        found=found,
        requests=tap.requests,
        scanned=tap.scanned,
        read_units=tap.read_units,
        milliseconds=(time.perf_counter() - started) * 1e3,
    )


def create_filled_table(endpoint: str, size: int) -> str:
    """Create a table with `size` items, DUE of them due, and return its name."""
    client, name = database.client(endpoint), f"sweep-{size}"
    database.create_table(client, table_definition(name))
    write(client, name, chain(due_entities(), stored_entities(size - DUE)))
    return name


def _session(number: int) -> Iterator[Any]:
    """A charge some weeks ago with everything it left stored, and every tenth time its station."""
    rid, station_id, at = f"session-{number}", f"station-{number // 10}", NOW - timedelta(days=1 + number % 300)
    if number % 10 == 0:
        yield from _station(station_id)
    yield _reservation(rid, station_id=station_id, state=ReservationState.COMPLETED)
    events = (Event.CREATED, Event.CHECKOUT_OPENED, Event.PAYMENT_AUTHORIZED, Event.START_SENT, Event.STOPPED)
    for order, event in enumerate((*events, "Captured")):
        yield AuditEntry(
            reservation_id=rid,
            at=at,
            order=order,
            event=event,
            state=ReservationState.COMPLETED,
            money=Money.CAPTURED,
        )
    yield Transaction(
        transaction_id=str(number + 1),
        station_id=station_id,
        connector_id=1,
        id_tag=f"W{number:019}",
        id_tag_status=TagStatus.ACCEPTED,
        started_at=at,
        received_at=at,
        meter_start_wh=1000,
        stopped_at=at + 40 * MINUTE,
        meter_stop_wh=14_000,
        energy_wh=13_000,
        reason="EVDisconnected",
        reservation_id=rid,
        version=2,
    )
    yield IdempotencyRecord(
        station_id=station_id,
        digest=f"{number:032x}",
        answer={"transaction_id": number + 1},
        expires_at=at + RECORD_RETENTION,
    )
    for minute in range(20):
        reading = Reading(at=at + minute * 2 * MINUTE, energy_wh=1000 + minute * 650, power_w=19_500)
        yield MeterSample(
            transaction_id=str(number + 1),
            station_id=station_id,
            connector_id=1,
            readings=(reading,),
            expires_at=at + RECORD_RETENTION,
        )
    for order, kind in enumerate(("StatusChanged", "TransactionStarted", "TransactionStopped", "StatusChanged")):
        yield TimelineEntry(
            station_id=station_id,
            at=at,
            order=order,
            kind=kind,
            detail={"connector": 1, "transaction": number + 1},
            expires_at=at + RECORD_RETENTION,
        )
    # A driver who is paying now, and an owed payment that waits for its next attempt.
    if number % 2:
        waiting = f"waiting-{number}"
        yield _reservation(waiting, state=ReservationState.PENDING_PAYMENT, expires_at=NOW + (1 + number % 30) * MINUTE)
        yield OutboxItem(reservation_id=waiting, kind=OutboxKind.CAPTURE, due_at=NOW + MINUTE, attempts=2, version=3)


def _station(station_id: str) -> Iterator[Any]:
    yield Station(
        station_id=station_id,
        identity=station_id.upper(),
        password_hash="scrypt$" + "0" * 32 + "$" + "0" * 64,
        connectors=(1, 2),
        tariff=TARIFF,
        version=1,
    )
    yield Presence(
        station_id=station_id,
        connection_id="abcdefghijklmno=",
        protocol=Protocol.OCPP16,
        epoch="00000000",
        connected_at=NOW,
        last_seen_at=NOW,
        lease_until=NOW + 15 * MINUTE,
        version=1,
    )
    yield _connector(station_id, release_at=NOW + 200 * MINUTE)
    yield _connector(station_id, connector_id=2)


def _connector(station_id: str, *, connector_id: int = 1, release_at: datetime | None = None) -> Connector:
    raw = "Available" if release_at is None else "Unavailable"
    return Connector(
        station_id=station_id,
        connector_id=connector_id,
        live=LiveStatus(raw=raw, state=read_state(raw), reported_at=NOW, epoch="00000000"),
        persisted=PersistedStatus(
            raw=raw, state=read_state(raw), at=NOW, source=StatusSource.CHARGER, release_at=release_at
        ),
        version=1,
    )


def _reservation(
    rid: str, *, state: ReservationState, station_id: str = "a", expires_at: datetime | None = None
) -> Reservation:
    return Reservation(
        reservation_id=rid,
        station_id=station_id,
        identity=station_id.upper(),
        connector_id=1,
        state=state,
        id_tag="W" + "0" * 19,
        tariff=TARIFF,
        max_amount=1820,
        created_at=NOW,
        expires_at=expires_at,
        checkout_id="cs_" + "0" * 60,
        checkout_url="https://checkout.stripe.com/c/pay/cs_" + "0" * 300,
        version=3,
    )


def _call(name: str, *, due_at: datetime) -> OutboundCall:
    return OutboundCall(
        station_id=name,
        call_id=f"call-{name}",
        command=RemoteStart(connector_id=1, id_token=IdToken(value="W" + "0" * 19)),
        asked_at=due_at,
        send_at=due_at,
        due_at=due_at,
        expires_at=due_at + 10 * MINUTE,
        version=1,
    )


def _batches(entities: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(entities)
    while batch := list(islice(rest, BATCH)):
        yield batch


def main(sizes: tuple[int, ...]) -> None:
    heading = f"{'stored':>8}{'due':>6}{'queries':>9}{'looked at':>11}{'read units':>12}{'ms':>7}{'to scan it all':>16}"
    with database.start() as engine:
        print(f"{engine.engine}\n{heading}")
        for size in sizes:
            name = create_filled_table(engine.endpoint, size)
            swept = cost(database.client(engine.endpoint), name)
            client = database.client(engine.endpoint)
            tap = Tap.attach(client)
            for _ in client.get_paginator("scan").paginate(TableName=name, Select="COUNT"):
                pass
            print(
                f"{size:>8}{swept.found:>6}{swept.requests:>9}{swept.scanned:>11}{swept.read_units:>12.1f}"
                f"{swept.milliseconds:>7.0f}{tap.read_units:>10.1f} units"
            )
            client.delete_table(TableName=name)


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SIZES)
