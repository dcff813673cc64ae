"""The payloads that the count sends for a station are valid for every action."""

from __future__ import annotations

import pytest

from bench.payloads import minimal_payload
from csms.model import Protocol
from csms.ocpp import schemas
from tests.versions import ACTIONS, SCHEMAS

EVERY = [(protocol, action) for protocol in ACTIONS for action in sorted(ACTIONS[protocol])]


@pytest.mark.parametrize(("protocol", "action"), EVERY)
def test_least_payload_fits_its_schema(protocol: Protocol, action: str) -> None:
    schemas.check(SCHEMAS[protocol], action, minimal_payload(SCHEMAS[protocol], action), response=False)


def test_least_payload_has_only_required_members() -> None:
    payload = minimal_payload(SCHEMAS[Protocol.OCPP16], "StatusNotification")

    assert {"connectorId": 1, "errorCode": "ConnectorLockFailure", "status": "Available"} == payload
