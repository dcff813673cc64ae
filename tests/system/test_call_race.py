"""Is there never more than one unanswered CALL at a station, and is each id sent once? Several processes, on real
engines (notes F43 and F44; OCPP-J 1.6 4.1.1 and 4.1.4)."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from csms.model import OutboundCall, Save, TriggerStatus
from tests.system.racing import count_rounds
from tests.system.station_race import BEGAN_AT, Site, put_station, race_handlers, socket, station_id
from tests.tables import ENGINES, Table, Tables


def queue_status_requests(table: Table, number: int) -> None:
    """Two status requests that are to be sent now."""
    for connector_id in (3, 4):
        table.store.commit(
            [
                Save(
                    OutboundCall(
                        station_id=station_id(number),
                        call_id=f"status-{number}-{connector_id}",
                        command=TriggerStatus(connector_id=connector_id),
                        asked_at=BEGAN_AT,
                        send_at=BEGAN_AT,
                        due_at=BEGAN_AT,
                        expires_at=BEGAN_AT + timedelta(hours=1),
                    )
                )
            ]
        )


def create_or_send(site: Site, number: int, thread: int) -> Any:
    """Two drivers start at connectors 1 and 2, while the station sends frames that make what waits go out."""
    if thread in (0, 2):
        return site.drivers.create(station_id(number), 1 if thread == 0 else 2)["status"]
    action, payload = {
        1: ("Authorize", {"idTag": "NOBODY"}),
        3: ("StatusNotification", {"connectorId": 0, "errorCode": "NoError", "status": "Available"}),
    }[thread]
    answer = site.stations.receive(socket(number), json.dumps([2, f"m{thread}", action, payload]))
    return json.loads(answer or "null")[0]


@pytest.mark.note("F43", "F44")
@pytest.mark.parametrize("engine", ENGINES)
def test_one_call_at_a_time_once(tables: Tables, engine: str) -> None:
    table, rounds = tables(engine), count_rounds(engine, dynoxide=200, others=40)
    for number in range(rounds):
        put_station(table, number)
        queue_status_requests(table, number)

    heard = race_handlers(table, create_or_send, rounds=rounds, threads=2)

    wanted = ["NothingToPay", 3, "NothingToPay", 3]
    assert [] == [(number, results) for number, results in enumerate(heard.results) if results != wanted]
    assert 1 == heard.most
    assert [] == [call for call, times in Counter(heard.calls).items() if times > 1]
    sent = Counter((number, action) for number, _, action in heard.calls)
    assert {2} == {sent[number, "RemoteStartTransaction"] for number in range(rounds)}
    asked = {call_id for _, call_id, action in heard.calls if action == "TriggerMessage"}
    assert {f"status-{number}-{connector}" for number in range(rounds) for connector in (3, 4)} <= asked
