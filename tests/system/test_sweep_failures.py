"""What if a sweep meets another one, a row that makes no sense, or a call that fails? Everything due is done all the
same, and once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from threading import Barrier
from typing import Any, Final

import pytest
from botocore.exceptions import BotoCoreError, EndpointConnectionError, ReadTimeoutError

from bench.sweep import write
from csms.adapters.dynamodb import DUE_SHARDS, Due, Store
from csms.errors import StoreUnavailable
from csms.model import AuditEntry, Connector, Reservation, TimelineEntry, Transaction
from csms.service import Maintenance, SweepReport
from local import database
from tests.builders import MINUTE, SECOND
from tests.fakes import FakeStore
from tests.system.sweep_scenes import (
    DAY,
    ENGINE,
    SCENES,
    Scene,
    SweepSite,
    finish_charging,
    leave_checkout_unopened,
    leave_stale_status,
    leave_unpaid,
    pay_for_unavailable_connector,
    start_charging,
)
from tests.tables import Table, Tables

EACH: Final = 10


def play_scenes(table: Table, *scenes: Scene) -> SweepSite:
    """The scenes were played, each at a station of its own, and two days have passed: all are due. They were played in
    memory, which is quick, and are continued on the table."""
    site = SweepSite(store=FakeStore())
    for number, scene in enumerate(scenes):
        scene(site, f"cp-{number}")
    site.clock.move(2 * DAY)
    write(table.client, table.name, site.store.entities())  # type: ignore[attr-defined]
    return replace(site, store=table.store)


def due_items(site: SweepSite, at: datetime) -> list[Due]:
    """All that is due by then."""
    return [found for shard in range(DUE_SHARDS) for found in site.store.due_items(at, shard=shard, page=100)]


def sweep_with_client(site: SweepSite, client: Any, table: Table) -> SweepReport:
    """What a sweep over a client of its own did."""
    return Maintenance(site.dependencies(store=Store(client, table.name))).sweep()


def collect_facts(site: SweepSite, table: Table) -> dict[str, Any]:
    """How everything ended, and every line that was written about it but those of attempts that failed: what is done
    twice is in here twice."""
    found = table.entities()
    frames = Counter({frame[1]: (frame[2], str(frame[3])) for frame in site.frames}.values())
    # A silent station is asked again to stop; how often depends on when it was asked first.
    stops = {frame: 1 for frame in frames if frame[0] == "RemoteStopTransaction"}
    return {
        "reservations": {
            e.reservation_id: (
                e.state,
                e.money,
                e.amount,
                e.captured_amount,
                e.failure_code,
                e.checkout_id and site.provider.payment(e.checkout_id),
            )
            for e in found
            if isinstance(e, Reservation)
        },
        "steps": Counter(
            (e.reservation_id, e.event) for e in found if isinstance(e, AuditEntry) and e.event != "AttemptFailed"
        ),
        "timeline": Counter((e.station_id, e.kind) for e in found if isinstance(e, TimelineEntry)),
        "transactions": {e.transaction_id: (e.reason, e.energy_wh) for e in found if isinstance(e, Transaction)},
        "connectors": {
            e.station_id: (e.transaction, e.lock, e.persisted and e.persisted.raw)
            for e in found
            if isinstance(e, Connector)
        },
        "frames": {**frames, **stops},
        "due": due_items(site, site.clock() + DAY),
        "held": site.provider.held_amount(),
    }


def settle_and_collect(site: SweepSite, table: Table) -> dict[str, Any]:
    """How everything ended, when a station is no longer asked to stop."""
    for minutes in (1, 1, 16, 1):
        site.sweep_after(minutes * MINUTE)
    return collect_facts(site, table)


# Two sweeps at once


@pytest.mark.note("F73")
def test_two_sweeps_do_each_item_once(tables: Tables) -> None:
    alone, table = tables(ENGINE), tables(ENGINE)
    expected, site = play_scenes(alone, *SCENES * EACH), play_scenes(table, *SCENES * EACH)
    assert len(SCENES) * EACH == len(due_items(site, site.clock()))
    expected.sweep()
    together = Barrier(2)

    def sweep(_number: int) -> SweepReport:
        client = database.client(table.endpoint)
        together.wait()
        return sweep_with_client(site, client, table)

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(sweep, range(2)))

    assert [[], []] == [report.failed for report in reports]
    assert all(sum(report.done.values()) > EACH for report in reports)
    moved = [what for what, _, _ in site.provider.calls if what in {"capture", "release"}]
    assert {"capture": 2 * EACH, "release": EACH} == Counter(moved)
    assert settle_and_collect(expected, alone) == settle_and_collect(site, table)


# Rows that make no sense


GARBAGE: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"type": "Unheard"},
    {"type": {"a": ["map"]}},
    {"type": ["Reservation"]},
    {"type": 7},
    {"type": "Reservation"},
    {"type": "Effect", "reservation_id": "x", "kind": "unheard-of", "version": 1},
    {"type": "Effect", "reservation_id": "nobody's", "kind": "capture", "version": 1},
    {"type": "Connector", "station_id": "nowhere", "connector_id": "one"},
    {"type": "Connector", "station_id": "nowhere", "connector_id": 1, "version": 1},
    {"type": "OutboundCall", "station_id": "nowhere", "call_id": "c", "command": "RemoteStart"},
    {"type": "Step", "reservation_id": "x"},
)


@pytest.mark.note("F73")
def test_invalid_rows_are_reported_and_skipped(tables: Tables) -> None:
    alone, table = tables(ENGINE), tables(ENGINE)
    expected, site = play_scenes(alone, *SCENES), play_scenes(table, *SCENES)
    expected.sweep()
    oldest = "2020-01-01T00:00:00.000000Z"
    for number, garbage in enumerate(GARBAGE):
        for shard in range(DUE_SHARDS):
            place = {"PK": f"GARBAGE#{number}", "SK": str(shard), "due_shard": f"DUE#{shard}", "due_at": oldest}
            table.put(place | garbage)
    placed = len(GARBAGE) * DUE_SHARDS

    for _ in range(3):
        report = site.sweep()
        assert placed == len(report.failed)
        site.clock.move(MINUTE)

    for shard in range(DUE_SHARDS):
        for number in range(len(GARBAGE)):
            table.client.delete_item(
                TableName=table.name, Key={"PK": {"S": f"GARBAGE#{number}"}, "SK": {"S": str(shard)}}
            )
    assert settle_and_collect(expected, alone) == settle_and_collect(site, table)


@pytest.mark.note("F73")
def test_invalid_row_stops_only_its_station(tables: Tables) -> None:
    table = tables(ENGINE)
    site = play_scenes(table, leave_stale_status, leave_stale_status)
    table.put({"PK": "STATION#cp-0", "SK": "CONNECTOR#2", "type": "Unheard"})

    report = site.sweep()

    assert ({"Connector": 1}, 1) == (report.done, len(report.failed))
    assert "Connector cp-0 1" in report.failed[0]
    assert "Available" == getattr(site.at("cp-1").connector().persisted, "raw", None)


# Calls that fail


@dataclass(frozen=True, slots=True)
class Fault:
    """How a request to the database fails: before it was sent, or after it was answered and acted on."""

    event: str
    error: BotoCoreError

    def __str__(self) -> str:
        return self.event

    def strike(self, client: Any, number: int) -> list[str]:
        """The client's request of this number fails; the list gets the operation's name when it did."""
        struck: list[str] = []
        requests = count(1)

        def fail(model: Any, **_: Any) -> None:
            if next(requests) == number:
                struck.append(model.name)
                raise self.error

        client.meta.events.register(f"{self.event}.dynamodb", fail)
        return struck


UNSENT_REQUEST: Final = Fault("before-call", EndpointConnectionError(endpoint_url="as ordered"))
LOST_ANSWER: Final = Fault("after-call", ReadTimeoutError(endpoint_url="as ordered"))


def run_failing_sweep(site: SweepSite, table: Table, fault: Fault, number: int) -> str | None:
    """Which operation failed in the sweep, whose failure it must have told; None if there were fewer."""
    client = database.client(table.endpoint)
    struck = fault.strike(client, number)
    try:
        report = sweep_with_client(site, client, table)
    except StoreUnavailable:
        return struck[0]

    assert len(struck) == len(report.failed)
    return struck[0] if struck else None


@pytest.mark.note("F73")
@pytest.mark.parametrize("fault", [UNSENT_REQUEST, LOST_ANSWER], ids=str)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_failed_database_request_is_recovered_once(tables: Tables, scene: Scene, fault: Fault) -> None:
    alone = tables(ENGINE)
    expected = play_scenes(alone, scene)
    expected.sweep()
    ending = settle_and_collect(expected, alone)

    failed: list[str] = []
    for number in count(1):
        table = tables(ENGINE)
        site = play_scenes(table, scene)
        operation = run_failing_sweep(site, table, fault, number)
        assert ending == settle_and_collect(site, table)
        if operation is None:
            break
        failed.append(operation)

    assert DUE_SHARDS < failed.count("Query")
    assert {"TransactWriteItems", "PutItem", "DeleteItem"} & {*failed}


OPERATIONS: Final[dict[str, Scene]] = {
    "open_checkout": leave_checkout_unopened,
    "expire_checkout": leave_unpaid,
    "release": pay_for_unavailable_connector,
    "capture": finish_charging,
}


@pytest.mark.note("F73", "F67")
@pytest.mark.parametrize("acted", [False, True], ids=["before it acted", "after it acted"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_failed_provider_call_is_recovered_once(tables: Tables, operation: str, acted: bool) -> None:
    alone, table = tables(ENGINE), tables(ENGINE)
    expected, site = play_scenes(alone, OPERATIONS[operation]), play_scenes(table, OPERATIONS[operation])
    expected.sweep()

    site.provider.fail_next(operation, acted=acted)
    assert [] == site.sweep().failed
    assert collect_facts(expected, alone) != collect_facts(site, table)

    assert settle_and_collect(expected, alone) == settle_and_collect(site, table)


@pytest.mark.note("F73")
def test_untaken_frame_is_sent_by_next_sweep(tables: Tables) -> None:
    table = tables(ENGINE)
    site = play_scenes(table, start_charging)
    spoken = len(site.frames)
    site.gateway.unreachable = True

    assert [] == site.sweep().failed
    site.gateway.unreachable = False
    site.sweep_after(MINUTE)

    assert ["RemoteStopTransaction"] == [frame[2] for frame in site.frames[spoken:]]
    assert {} == site.sweep_after(SECOND)
