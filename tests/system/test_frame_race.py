"""Is every frame answered with its CALLRESULT, however many of one station come at once, and does the last received
status stay? Several processes, on real engines (notes F11, F40 and F41)."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any, Final

import pytest

from csms.adapters.dynamodb import from_item
from csms.model import Connector, MeterSample, Transaction, Turn, WaitingFrame
from tests.system.racing import count_rounds
from tests.system.station_race import Heard, Site, put_station, race_handlers, socket
from tests.tables import ENGINES, Table, Tables

STATUSES: Final = ("Charging", "SuspendedEV", "Finishing", "Available", "Preparing", "Unavailable")
FRAMES: Final = 100
STEP_WH: Final = 10


def receive(site: Site, number: int, frame_id: str, action: str, payload: dict[str, Any], milliseconds: int) -> Any:
    """The answer that the station gets at once, None if it comes over the socket."""
    text = json.dumps([2, frame_id, action, payload])
    answer = site.stations.receive(
        socket(number), text, received_at=site.began_at + timedelta(minutes=1, milliseconds=milliseconds)
    )
    return None if answer is None else json.loads(answer)


def start_or_report(site: Site, number: int, thread: int) -> list[Any]:
    """A start among twelve statuses of its connector, which four handlers process; the last one received is
    Unavailable."""
    answers = []
    if thread == 0:
        start = {"connectorId": 1, "idTag": "NOBODY", "meterStart": 0, "timestamp": site.began_at.isoformat()}
        answers.append(receive(site, number, f"{number}-start", "StartTransaction", start, 0))
    for place in range(thread, 12, 4):
        status = {"connectorId": 1, "errorCode": "NoError", "status": STATUSES[place % 6]}
        answers.append(receive(site, number, f"{number}-{place}", "StatusNotification", status, place))
    return answers


def flush_readings(site: Site, number: int, thread: int) -> list[Any]:
    """The thread's share of a hundred stored readings of one transaction."""
    answers = []
    for place in range(thread, FRAMES, 16):
        reading = {
            "timestamp": (site.began_at + timedelta(seconds=place)).isoformat(),
            "sampledValue": [{"value": str(place * STEP_WH)}],
        }
        payload = {"connectorId": 1, "transactionId": 1 + number, "meterValue": [reading]}
        answers.append(receive(site, number, f"{number}-{place}", "MeterValues", payload, place))
    return answers


def count_answers(heard: Heard) -> Counter[tuple[int, str]]:
    """How often each frame was answered, over the socket or at once, by the kind of the answer."""
    at_once = [answer for results in heard.results for answers in results for answer in answers if answer is not None]
    return Counter((answer[0], answer[1]) for answer in (*at_once, *heard.answers))


def find_entities(table: Table, *kinds: type) -> list[Any]:
    return [entity for entity in map(from_item, table.items()) if isinstance(entity, kinds)]


@pytest.mark.note("F11", "F40", "F41")
@pytest.mark.parametrize("engine", ENGINES)
def test_start_among_statuses_is_answered(tables: Tables, engine: str) -> None:
    table, rounds = tables(engine), count_rounds(engine, dynoxide=200, others=40)
    for number in range(rounds):
        put_station(table, number, connectors=1)

    heard = race_handlers(table, start_or_report, rounds=rounds, threads=2)

    wanted = {f"{number}-{place}" for number in range(rounds) for place in (*range(12), "start")}
    assert Counter({(3, frame_id): 1 for frame_id in wanted}) == count_answers(heard)
    assert rounds == len(find_entities(table, Transaction))
    assert {"Unavailable"} == {connector.live.raw for connector in find_entities(table, Connector)}
    assert [] == find_entities(table, Turn, WaitingFrame)


@pytest.mark.note("F40", "F41")
@pytest.mark.parametrize("engine", ENGINES)
def test_hundred_readings_at_once_count(tables: Tables, engine: str) -> None:
    table, rounds = tables(engine), 3
    for number in range(rounds):
        put_station(table, number, connectors=1, transaction_id=str(1 + number))

    heard = race_handlers(table, flush_readings, rounds=rounds, threads=8)

    wanted = {f"{number}-{place}" for number in range(rounds) for place in range(FRAMES)}
    assert Counter({(3, frame_id): 1 for frame_id in wanted}) == count_answers(heard)
    samples = Counter(sample.transaction_id for sample in find_entities(table, MeterSample))
    assert Counter({str(1 + number): FRAMES for number in range(rounds)}) == samples
    running = {connector.transaction.energy_wh for connector in find_entities(table, Connector)}
    assert {(FRAMES - 1) * STEP_WH} == running
    assert [] == find_entities(table, Turn, WaitingFrame)
