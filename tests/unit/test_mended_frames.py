"""What the service does with frames that are no strict JSON: it takes what was mended, and logs the mends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from csms.model import CommandOutcome, CommandRecord, ReservationState
from csms.ocpp.dialect import refuse_unsupported_version
from tests.app.in_process import InProcessApp

S = ReservationState


@pytest.fixture
def app() -> InProcessApp:
    app = InProcessApp().register()
    app.bring_online()
    return app


def send(app: InProcessApp, text: str) -> Any:
    """The answer to a text, or None."""
    return json.loads(app.stations.receive(app.socket, text) or "null")


@pytest.mark.note("F41", "F45")
def test_mended_transaction_messages_are_taken(app: InProcessApp) -> None:
    start = '[2,"a","StartTransaction",{"connectorId":01,"idTag":"CARD","meterStart":+1000,"timestamp":"%s",}]'
    stop = '\ufeff[2,"b","StopTransaction",{"transactionId":%s,,"meterStop":3000.,"timestamp":"%s"}]\0'

    number = send(app, start % app.time())[2]["transactionId"]
    confirmed = send(app, stop % (number, app.pass_time(minutes=10)))

    assert [3, "b"] == confirmed[:2]
    assert 2000 == app.transaction(number).energy_wh
    told = {flag for what, facts in app.observed if what == "lenient" for flag in facts["flags"]}
    assert {"text: trailing comma", "text: leading zero", "connectorId: read as 1", "text: doubled comma"} <= told


@pytest.mark.note("F44")
def test_mended_answer_ends_command(app: InProcessApp) -> None:
    rid = app.create_paid_reservation()
    call = app.frames[-1][1]

    assert send(app, f'[3,"{call}",{{"status":"Accepted",}}]') is None

    (record,) = [e for e in app.store.entities() if isinstance(e, CommandRecord)]
    assert (CommandOutcome.ACCEPTED, S.START_REQUESTED) == (record.result.outcome, app.reservation(rid).state)


@pytest.mark.note("F44")
def test_unreadable_callerror_ends_command(app: InProcessApp) -> None:
    app.create_paid_reservation()
    call = app.frames[-1][1]

    assert send(app, f'[4,"{call}","InternalError","not "quoted"",{{}}]') is None

    (record,) = [e for e in app.store.entities() if isinstance(e, CommandRecord)]
    assert (CommandOutcome.ERROR, "GenericError") == (record.result.outcome, record.result.error_code)


@pytest.mark.note("F38")
def test_truncated_stop_gets_formation_violation(app: InProcessApp) -> None:
    answer = send(app, '[2,"a","StopTransaction",{"transactionId":1,"meterStop":30')

    assert [4, "a", "FormationViolation"] == answer[:3]


def test_mended_call_of_unsupported_version_is_refused() -> None:
    assert '[4,"a","NotSupported"' in (refuse_unsupported_version('[2,"a","Heartbeat",{},]') or "")
    assert refuse_unsupported_version('[3,"a",{},]') is None
