"""After which ends of a transaction is the station asked for the status of its connector?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from csms.charging.transaction import Start, Stop, close_overdue, start, stop
from csms.model import CommandKind, IdTag, IdToken, LiveStatus, Snapshot, TagStatus
from csms.ocpp.v16 import core
from tests import builders as b
from tests.builders import MINUTE, NOW, SECOND, decision_context


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    ("waits", "asked"),
    [
        (b.authorized_snapshot(), [(CommandKind.TRIGGER_STATUS, 1)]),
        (
            b.authorized_snapshot().with_connector(
                replace(b.authorized_snapshot().connector(1), live=b.build_live_status("Available"))
            ),
            [(CommandKind.TRIGGER_STATUS, 1)],
        ),
        (b.snapshot(), []),
        (b.pending_payment_snapshot(), []),
    ],
    ids=["who paid", "who paid, and Available came before the end", "nobody", "who has not paid"],
)
@pytest.mark.parametrize("ended", ["stopped", "implied"])
def test_transaction_end_triggers_status_for_waiter(
    waits: Snapshot, asked: list[tuple[CommandKind, int]], ended: str
) -> None:
    running = replace(waits.connector(1), transaction=b.open_transaction(idle_until=NOW + MINUTE))
    before = waits.with_connector(running).with_transaction(b.transaction())
    at = decision_context(NOW + 2 * MINUTE, serial=9)

    if ended == "stopped":
        after = stop(before, Stop(transaction_id="77", meter_stop_wh=2000, stopped_at=NOW, reason=None), at)
    else:
        after = close_overdue(before, 1, at)

    assert after.connector(1).transaction is None
    assert asked == [(call.kind, call.connector_id) for call in after.calls]
    assert {NOW + 2 * MINUTE + 10 * SECOND} >= {call.send_at for call in after.calls}


@pytest.mark.note("F21")
@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (b.build_live_status("Charging"), [1]),
        (b.build_live_status("Faulted"), [1]),
        (None, [1]),
        (b.build_live_status("Available", epoch="the last"), [1]),
        (b.build_live_status("Available"), []),
        (b.build_live_status("Preparing"), []),
    ],
    ids=["charging", "out of order", "nothing", "free in another epoch", "free", "plugged in"],
)
@pytest.mark.parametrize("ended", ["stopped", "overdue"])
def test_transaction_end_triggers_unless_reported_free(said: LiveStatus | None, asked: list[int], ended: str) -> None:
    changed_connector = b.connector(1, live=said, transaction=b.open_transaction(ends_at=NOW + MINUTE))
    before = b.snapshot(changed_connector, b.connector(2)).with_transaction(b.transaction())
    at = decision_context(NOW + 2 * MINUTE, serial=9)

    if ended == "stopped":
        after = stop(before, Stop(transaction_id="77", meter_stop_wh=2000, stopped_at=NOW, reason=None), at)
    else:
        after = close_overdue(before, 1, at)
    told = core.status_notification(
        after,
        {"connectorId": 1, "status": "Finishing", "errorCode": "NoError"},
        decision_context(NOW + 3 * MINUTE, serial=10),
    )[0]

    assert asked == [call.connector_id for call in after.calls if call.kind is CommandKind.TRIGGER_STATUS]
    assert [] == [call for call in told.calls if call.kind is CommandKind.TRIGGER_STATUS]


@pytest.mark.note("F21", "F57")
def test_superseding_start_triggers_no_status() -> None:
    changed_connector = b.connector(1, live=b.build_live_status("Charging"), transaction=b.open_transaction())
    before = b.snapshot(changed_connector, b.connector(2)).with_transaction(b.transaction())
    after, _ = start(
        replace(before, tag=IdTag(tag="CARD", status=TagStatus.ACCEPTED)),
        Start(connector_id=1, id_token=IdToken(value="CARD"), meter_start_wh=3000, started_at=NOW),
        decision_context(serial=9),
    )

    assert "9" == getattr(after.connector(1).transaction, "transaction_id", None)
    assert () == after.calls
