"""OCPP 1.6: how our commands are spelled, and what their answers mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from csms.charging import command_results
from csms.charging.transaction import start
from csms.commands import calls
from csms.model import (
    Command,
    CommandKind,
    CommandOutcome,
    CommandRecord,
    FailureCode,
    IdToken,
    Lock,
    Money,
    OutboundCall,
    Protocol,
    RemoteStart,
    RemoteStop,
    ReservationState,
    Snapshot,
    StatusSource,
    TagStatus,
    TriggerStatus,
)
from csms.ocpp.framing import CallError, CallResult, ErrorCode
from csms.ocpp.v16 import DIALECT
from tests import builders as b
from tests.builders import HOUR, NOW, SECOND, SNAPSHOT_BY_STATE, answer_call, decision_context, get_reservation
from tests.unit.transaction_cases import MINE
from tests.versions import check

S = ReservationState


def with_known_form(before: Snapshot) -> Snapshot:
    """The station's make is known to take this form of tag, so that no other one is tried after a rejection."""
    return replace(before, station=replace(before.station, quirks=("hexadecimal_tag",)))


@pytest.mark.parametrize(
    ("command", "action", "payload"),
    [
        (
            RemoteStart(connector_id=2, id_token=IdToken(value="WTAG1")),
            "RemoteStartTransaction",
            {"connectorId": 2, "idTag": "WTAG1"},
        ),
        (RemoteStop(transaction_id="7"), "RemoteStopTransaction", {"transactionId": 7}),
        (
            TriggerStatus(connector_id=2),
            "TriggerMessage",
            {"requestedMessage": "StatusNotification", "connectorId": 2},
        ),
    ],
)
def test_commands_match_ocpp16_schema(command: Command, action: str, payload: dict[str, Any]) -> None:
    assert (action, payload) == DIALECT.encode_command(command)
    check(Protocol.OCPP16, action, payload, response=False)


def queued_remote_start(seen: Snapshot) -> OutboundCall:
    """The remote start of reservation 1, wherever it stands."""
    return b.start_requested_snapshot().calls[0]


@pytest.mark.note("F24", "F27")
def test_accepted_remote_start_is_no_start() -> None:
    before = b.start_requested_snapshot()

    after = answer_call(before, before.calls[0], "Accepted", decision_context(NOW + SECOND))

    held = get_reservation(after)
    asked = get_reservation(before)
    assert (S.START_REQUESTED, NOW + SECOND, None) == (held.state, held.start_accepted_at, held.started_at)
    assert (asked.start_deadline, asked.expires_at) == (held.start_deadline, held.expires_at)
    assert before.connector(1).lock == after.connector(1).lock
    assert () == after.calls
    assert StatusSource.REMOTE_START == getattr(after.connector(1).persisted, "source", None)


@pytest.mark.note("F25", "F44", "F63")
@pytest.mark.parametrize("said", ["Rejected", "NotSupported", "NotImplemented"])
def test_refused_remote_start_fails_and_releases_hold(said: str) -> None:
    before = with_known_form(b.start_requested_snapshot())

    after = answer_call(before, before.calls[0], said, decision_context())

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.START_REJECTED, Money.RELEASING) == (held.state, held.failure_code, held.money)
    assert said == after.records[-1].record.detail
    assert after.connector(1).lock is None


@pytest.mark.note("F25")
@pytest.mark.parametrize(
    "said",
    [{}, {"status": None}, {"status": "accepted"}, {"status": "rejected"}, {"status": "Scheduled"}, {"status": [1]}],
    ids=str,
)
def test_unclear_remote_start_answer_waits(said: dict[str, Any]) -> None:
    before = b.start_requested_snapshot()
    call = before.calls[0]

    result = DIALECT.read_answer(call.command, CallResult(call.call_id, said))
    after = command_results.apply_result(before, call, result, decision_context(NOW + SECOND))

    held = get_reservation(after)
    (record,) = [it.record for it in after.records if isinstance(it.record, CommandRecord)]
    assert CommandOutcome.UNCLEAR == record.result.outcome
    assert orjson.loads(record.result.payload) == said
    assert (S.START_REQUESTED, Money.AUTHORIZED, None) == (held.state, held.money, held.start_accepted_at)
    assert before.connector(1) == after.connector(1)
    assert ["StartUnclear"] == b.audit_events(after)
    assert [CommandKind.TRIGGER_STATUS] == [asked.kind for asked in after.calls]
    assert decision_context().policy.call_timeout == after.calls[0].send_at - (NOW + SECOND)
    begun, answer = start(after, MINE, decision_context(NOW + SECOND, serial=3))
    assert (S.CHARGING, TagStatus.ACCEPTED) == (get_reservation(begun).state, answer.id_tag_status)


@pytest.mark.note("F25")
def test_callerror_to_remote_start_fails_it() -> None:
    before = b.start_requested_snapshot()
    call = before.calls[0]

    result = DIALECT.read_answer(call.command, CallError(call.call_id, ErrorCode.INTERNAL_ERROR, "", {}))
    after = command_results.apply_result(before, call, result, decision_context())

    assert (CommandOutcome.ERROR, S.FAILED) == (result.outcome, get_reservation(after).state)


@pytest.mark.note("F26")
@pytest.mark.parametrize("state", [S.CHARGING, S.COMPLETED, S.CANCELLED, S.FAILED])
@pytest.mark.parametrize("said", ["Accepted", "Rejected"])
def test_late_start_answer_changes_nothing(state: ReservationState, said: str) -> None:
    before = SNAPSHOT_BY_STATE[state]()

    after = answer_call(before, queued_remote_start(before), said, decision_context())

    assert replace(before, calls=()) == replace(after, records=())
    assert f"{said}, too late to matter" == after.records[-1].record.detail


@pytest.mark.note("F09")
@pytest.mark.parametrize("by_now", [b.lock(), None], ids=["somebody else holds it", "nobody holds it"])
def test_acceptance_without_lock_persists_no_occupied(by_now: Lock | None) -> None:
    before = b.start_requested_snapshot()
    taken = before.with_connector(replace(before.connector(1), lock=by_now))

    after = answer_call(taken, taken.calls[0], "Accepted", decision_context())

    assert taken.connector(1) == after.connector(1)


@pytest.mark.parametrize(
    ("command", "word"), [(RemoteStop(transaction_id="7"), "Accepted"), (TriggerStatus(connector_id=2), "Rejected")]
)
def test_other_command_answer_only_ends_call(command: Command, word: str) -> None:
    before = calls.queue(b.charging_snapshot(), command, decision_context(serial=9), until=NOW + HOUR)

    after = answer_call(before, before.calls[-1], word, decision_context())

    assert replace(before, calls=before.calls[:-1]) == replace(after, records=())
    assert [CommandRecord] == [type(append.record) for append in after.records]
