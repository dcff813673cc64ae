"""Whatever a station sends, its item collection, which every frame reads, stays below the stated size."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from csms.stations.bounds import MOST_UNREGISTERED, find_unregistered, largest_collection
from tests.app import CONNECTORS
from tests.app.in_process import InProcessApp

TEXTS: Final = st.sampled_from(["", "Charging", "ä" * 60, "x" * 40_000, "\U0001f50c" * 2_000])
HARDWARE: Final = ("chargePointVendor", "chargePointModel", "chargePointSerialNumber", "firmwareVersion")
NUMBERS: Final = st.integers(-1, 40) | st.integers(10_000, 2**31)
FLOOD: Final = st.integers(12, 40)
"""How often a message is sent, each time from the next connector."""
STATUSES: Final = st.sampled_from(["Available", "Charging", "Faulted", "Preparing"]) | TEXTS
READINGS: Final = st.integers(0, 10**6).map(lambda wh: [{"sampledValue": [{"value": str(wh)}]}])
CALLS: Final = st.one_of(
    st.tuples(
        st.just("StatusNotification"),
        st.fixed_dictionaries(
            {"connectorId": NUMBERS, "status": STATUSES, "errorCode": TEXTS, "info": TEXTS, "vendorId": TEXTS}
        ),
    ),
    st.tuples(
        st.just("StartTransaction"),
        st.fixed_dictionaries({"connectorId": NUMBERS, "idTag": TEXTS, "meterStart": st.integers(0, 10**9)}),
    ),
    st.tuples(st.just("MeterValues"), st.fixed_dictionaries({"connectorId": NUMBERS, "meterValue": READINGS})),
    st.tuples(
        st.just("StopTransaction"),
        st.fixed_dictionaries({"transactionId": st.integers(1, 50), "meterStop": NUMBERS, "reason": TEXTS}),
    ),
    st.tuples(
        st.just("BootNotification"),
        st.fixed_dictionaries(dict.fromkeys(HARDWARE, TEXTS)),
    ),
    st.tuples(st.just("Authorize"), st.fixed_dictionaries({"idTag": TEXTS})),
    st.tuples(st.just("DataTransfer"), st.fixed_dictionaries({"vendorId": TEXTS, "data": TEXTS})),
    st.tuples(st.just("Heartbeat"), st.just({})),
    st.tuples(st.just("Unknown"), st.just({})),
)
LONG: Final = "x" * 40_000
LONG_START: Final = ("StartTransaction", {"connectorId": 1, "idTag": LONG, "meterStart": 0})
LONG_STATUS: Final = (
    "StatusNotification",
    {"connectorId": 1, "status": LONG, "errorCode": LONG, "info": LONG, "vendorId": LONG},
)
LONG_BOOT: Final = ("BootNotification", dict.fromkeys(HARDWARE, LONG))
"""The floods that a text without a limit would show."""

ANSWERS: Final = st.fixed_dictionaries({"status": st.sampled_from(["Accepted", "Rejected"]) | TEXTS, "more": TEXTS})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(st.tuples(CALLS, st.just(1) | FLOOD), min_size=1, max_size=6),
    answers=st.lists(ANSWERS, max_size=3),
    reconnects=st.booleans(),
)
@example(steps=[(LONG_START, 20)], answers=[], reconnects=False)
@example(steps=[(LONG_STATUS, 20), (LONG_BOOT, 1)], answers=[], reconnects=True)
def test_item_collection_stays_below_stated_size(
    steps: list[tuple[tuple[str, dict[str, Any]], int]], answers: list[dict[str, str]], reconnects: bool
) -> None:
    app = InProcessApp().register()
    app.bring_online()

    for (action, payload), times in steps:
        for n in range(times):
            moved = payload if times == 1 or "connectorId" not in payload else payload | {"connectorId": n + 1}
            receive(app, [2, f"{action}-{n}-{len(app.observed)}", action, moved])
        for answer in answers:
            receive(app, [3, last_call(app), answer])
        if reconnects:
            app.reconnect("B" if app.socket == "A" else "A")

        assert measure(app) < largest_collection(len(CONNECTORS))
        assert len(find_unregistered(app.snapshot())) <= MOST_UNREGISTERED


def receive(app: InProcessApp, frame: list[Any]) -> None:
    app.stations.receive(app.socket, json.dumps(frame), received_at=app.clock.at)


def last_call(app: InProcessApp) -> str:
    return next((frame[1] for frame in reversed(app.frames) if frame[0] == 2), "none")


def measure(app: InProcessApp) -> int:
    """The bytes of the items that every frame of the station reads."""
    own = [item for item in app.store.items() if item["PK"] == "STATION#cp1"]
    return sum(len(json.dumps(item, default=str, ensure_ascii=False).encode()) for item in own)
