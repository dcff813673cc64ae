"""A stop, a stop that was implied, and a capture: for the tests of csms.charging.settlement."""

from datetime import datetime
from typing import Any

from csms.charging import settlement, transaction
from csms.model import Snapshot
from csms.ocpp.v16 import core
from csms.ports.payments import Payment, PaymentStatus
from tests import builders as b
from tests.builders import NOW, decision_context


def stop(before: Snapshot, energy_wh: int, at: datetime = NOW, *, plugged_in: bool = False) -> Snapshot:
    return settlement.apply_stop(before, energy_wh, decision_context(at), plugged_in=plugged_in, detail="Local")


def implied_stop_snapshot(energy_wh: int = 10_000) -> Snapshot:
    """A session that we ended ourselves at this energy, and that is being captured."""
    charging = b.charging_snapshot()
    values = {"timestamp": NOW.isoformat(), "sampledValue": [{"value": str(1000 + energy_wh)}]}
    payload = {"connectorId": 1, "transactionId": 3, "meterValue": [values]}
    metered = b.apply_decision(charging, core.meter_values(charging, payload, decision_context(serial=5))[0])
    return b.apply_decision(metered, transaction.end(metered, 1, transaction.IMPLIED, decision_context(serial=6)))


def apply_capture(before: Snapshot, amount: int, **settings: Any) -> Snapshot:
    word = Payment(status=PaymentStatus.CAPTURED, captured_amount=amount)
    return b.apply_decision(before, settlement.record_capture(before, word, decision_context(serial=7, **settings)))
