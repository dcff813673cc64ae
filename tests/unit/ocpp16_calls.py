"""CALLs of an OCPP 1.6 station for the tests: every payload fits the schema or is what leniency lets through, and every
answer fits it strictly."""

from __future__ import annotations

from typing import Any

from csms.model import DecisionContext, Protocol, Snapshot
from csms.ocpp.schemas import Accepted
from csms.ocpp.v16.core import ACTIONS
from tests.builders import decision_context
from tests.versions import accept, check


def handle_call(
    before: Snapshot, action: str, at: DecisionContext | None = None, **payload: Any
) -> tuple[Snapshot, dict[str, Any]]:
    """What comes of a CALL, whose payload and answer are held against the schemas."""
    accepted = accept(Protocol.OCPP16, action, payload)
    assert isinstance(accepted, Accepted)
    after, answer = ACTIONS[action].decide(before, accepted.payload, at or decision_context())
    check(Protocol.OCPP16, action, answer, response=True)
    return after, answer


def boot(before: Snapshot, at: DecisionContext, **more: Any) -> tuple[Snapshot, dict[str, Any]]:
    return handle_call(before, "BootNotification", at, chargePointVendor="ACME", chargePointModel="One", **more)


def report_status(before: Snapshot, raw: str, at: DecisionContext | None = None, **more: Any) -> Snapshot:
    """After StatusNotification of connector 1, unless another is named."""
    payload = {"connectorId": 1, "errorCode": "NoError", "status": raw} | more
    after, answer = handle_call(before, "StatusNotification", at, **payload)
    assert {} == answer
    return after
