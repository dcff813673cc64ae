"""What the service keeps true over several messages: presence, the outbound slot, cancelled starts, resuming."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from csms import texts
from csms.adapters.dynamodb import to_item
from csms.charging.due import chase_call
from csms.errors import BadRequest, ChargerOffline, Conflict, ConnectorBusy, NotFound, Unauthorised
from csms.model import (
    Append,
    CallState,
    CommandKind,
    Connection,
    DecisionContext,
    IdempotencyRecord,
    IdTag,
    MeterSample,
    OutboundCall,
    OutboxItem,
    Policy,
    ProcessedWebhook,
    Protocol,
    RemoteStop,
    Reservation,
    ReservationState,
    Save,
    TagStatus,
    TimelineEntry,
    UnknownStation,
    Write,
)
from tests.app.in_process import TARIFF, InProcessApp
from tests.builders import basic_auth_header
from tests.fakes import START, SequentialIds
from tests.unit.raced_stores import InterruptedStore, OutrunStore

LEASE = Policy().presence_lease


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


@pytest.mark.note("F26")
def test_start_during_cancel_is_answered_invalid() -> None:
    store = InterruptedStore()
    app = InProcessApp(store=store).register()
    app.bring_online()
    held = store.reservation(app.create_paid_reservation())
    store.meanwhile = lambda: app.cancel(held.reservation_id)

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": app.time()}
    answer = app.exchange("StartTransaction", **start)

    assert (3, "Invalid") == (answer[0], answer[2]["idTagInfo"]["status"])
    assert ReservationState.CANCELLED is store.reservation(held.reservation_id).state


def test_start_survives_lasting_inconsistent_read(app: InProcessApp) -> None:
    app.bring_online()
    held = app.reservation(app.create_paid_reservation())
    app.store.commit([Save(replace(held, expires_at=app.clock.at + timedelta(minutes=1)))])

    start = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": app.time()}

    assert "Accepted" == app.send_call("StartTransaction", **start)["idTagInfo"]["status"]
    assert ReservationState.CHARGING is app.reservation(held.reservation_id).state


@pytest.mark.note("F16")
def test_old_socket_disconnect_keeps_station_online(app: InProcessApp) -> None:
    app.bring_online("A")
    app.connect("B")
    app.disconnect("A")

    assert "B" == app.presence().connection_id
    assert app.is_startable()


@pytest.mark.note("F16")
def test_current_socket_disconnect_takes_station_offline(app: InProcessApp) -> None:
    app.bring_online("A")
    app.disconnect("A")

    assert "Offline" == app.view_connector(1)["status"]


@pytest.mark.note("F17")
@pytest.mark.parametrize("password", [b"wrong", b""])
def test_failed_authentication_displaces_no_socket(app: InProcessApp, password: bytes) -> None:
    app.bring_online("A")
    before = app.store.entities()
    with pytest.raises(Unauthorised):
        app.connect("B", password)

    assert before == app.store.entities()
    assert [] == app.gateway.closed


@pytest.mark.note("F17")
def test_authenticated_connect_closes_old_socket(app: InProcessApp) -> None:
    app.bring_online("A")
    app.connect("B")

    assert ["A"] == app.gateway.closed


def test_disconnected_station_is_sent_nothing(app: InProcessApp) -> None:
    app.connect("A")
    app.clock.move(timedelta(minutes=1))
    waiting = app.snapshot().calls
    app.disconnect("A")

    assert {"TriggerStatus"} == {str(call.kind) for call in waiting if call.send_at <= app.clock()}
    assert [] == app.gateway.sent


@pytest.mark.note("F18")
def test_gone_socket_means_offline_before_checkout(
    app: InProcessApp,
) -> None:
    app.bring_online("A")
    app.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        app.create()

    assert app.presence().connection_id is None
    assert [] == [e for e in app.store.entities() if isinstance(e, Reservation | OutboxItem)]


@pytest.mark.note("F18")
def test_new_connection_survives_gone_old_socket(app: InProcessApp) -> None:
    app.bring_online("A")
    rid = app.create_reservation()
    app.connect("B")
    app.gateway.gone.add("A")
    app.pay(rid)
    app.confirm(rid)

    assert "B" == app.presence().connection_id
    assert "B" == app.gateway.sent[-1][0]


@pytest.mark.note("F19")
def test_reconnect_needs_no_boot_or_status(app: InProcessApp) -> None:
    app.bring_online("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    app.connect("B")

    assert app.is_startable()
    assert "Available" == app.view_connector(1)["status"]


@pytest.mark.note("F20")
def test_lost_disconnect_ends_with_lease(app: InProcessApp) -> None:
    app.bring_online("A")
    app.clock.move(LEASE - timedelta(seconds=1))
    assert app.is_startable()
    app.clock.move(timedelta(seconds=1))

    assert not app.is_startable()


@pytest.mark.note("F20")
def test_heartbeat_renews_presence_lease(app: InProcessApp) -> None:
    app.bring_online("A")
    for _ in range(10):
        app.clock.move(timedelta(seconds=300))
        app.send_call("Heartbeat")

    assert app.is_startable()


@pytest.mark.note("F21")
def test_sweep_asks_silent_station_for_status(app: InProcessApp) -> None:
    app.bring_online("A")
    app.disconnect("A")
    app.clock.move(LEASE + timedelta(hours=1))
    app.connect("B")
    app.clock.move(timedelta(seconds=30))
    app.sweep()
    app.answer_call("Accepted", over="B")

    asked = [(f[2], f[3]["connectorId"]) for f in app.frames]
    assert [("TriggerMessage", 1), ("TriggerMessage", 2)] == sorted(asked)


@pytest.mark.note("F21")
def test_connect_itself_sends_nothing(app: InProcessApp) -> None:
    app.connect("A")

    assert [] == app.gateway.sent


@pytest.mark.note("F22")
def test_connector_is_locked_before_checkout(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.bring_online("A")
    held: list[str | None] = []
    opened = app.provider.open_checkout

    def watched(order: Any, *, key: str) -> Any:
        lock = app.connector(1).lock
        held.append(lock.reservation_id if lock is not None else None)
        return opened(order, key=key)

    monkeypatch.setattr(app.provider, "open_checkout", watched)
    rid = app.create_reservation()
    with pytest.raises(ConnectorBusy):
        app.create()

    assert [rid] == held


@pytest.mark.note("F22")
def test_lost_create_race_reports_contended() -> None:
    app = InProcessApp(store=OutrunStore()).register()
    app.bring_online()
    app.take_decisions()

    with pytest.raises(ConnectorBusy) as refused:
        app.create()

    assert (("Contended",), texts.reason_text("Contended")) == (refused.value.reasons, refused.value.message)
    assert [] == app.provider.calls
    assert [] == app.take_decisions()


@pytest.mark.note("F22", "F75")
def test_lost_create_race_reports_present_reason() -> None:
    store = OutrunStore()
    app = InProcessApp(store=store).register()
    app.bring_online()
    app.take_decisions()
    store.happens = lambda: app.report_status(1, "Faulted")

    with pytest.raises(ConnectorBusy) as refused:
        app.create()

    assert ("LiveStatus:Faulted",) == refused.value.reasons
    assert [("busy", "LiveStatus:Faulted")] == app.take_decisions()


@pytest.mark.note("F22")
def test_lost_create_race_reports_offline_station() -> None:
    store = OutrunStore()
    app = InProcessApp(store=store).register()
    app.bring_online()
    store.happens = lambda: app.disconnect("A")

    with pytest.raises(ChargerOffline):
        app.create()


@pytest.mark.note("F25", "F29")
def test_unanswered_remote_start_may_still_start(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    held = app.reservation(rid)
    app.clock.move(Policy().call_timeout)
    app.sweep()
    assert [CommandKind.TRIGGER_STATUS] == [call.kind for call in app.snapshot().calls]
    assert held == app.reservation(rid)

    app.clock.move(Policy().start_window - Policy().call_timeout)
    late = {"connectorId": 1, "idTag": held.id_tag, "meterStart": 0, "timestamp": "2026-11-23T09:10:00Z"}
    assert "Accepted" == app.send_call("Authorize", idTag=held.id_tag)["idTagInfo"]["status"]
    started = app.send_call("StartTransaction", **late)

    assert "Accepted" == started["idTagInfo"]["status"]
    assert "Charging" == app.status(rid)["status"]


@pytest.mark.note("F31", "F30")
def test_start_after_cancel_is_stopped_remotely(
    app: InProcessApp,
) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    tag = app.reservation(rid).id_tag
    assert "Cancelled" == app.cancel(rid)["status"]
    app.answer_call("Accepted")
    started = app.send_call(
        "StartTransaction", connectorId=1, idTag=tag, meterStart=0, timestamp="2026-11-23T09:00:10Z"
    )

    assert "Invalid" == started["idTagInfo"]["status"]
    assert ["RemoteStopTransaction", {"transactionId": started["transactionId"]}] == app.frames[-1][2:]
    followed = app.status(rid)
    assert ("Cancelled", "released") == (followed["status"], followed["money"])
    assert [] == app.provider.captured_amounts()


@pytest.mark.note("F32")
def test_paid_reservation_starts_on_status_after_reconnect(app: InProcessApp) -> None:
    app.bring_online()
    created = app.create()
    rid = created["reservationId"]
    app.disconnect("A")
    app.pay(rid)
    waiting = app.confirm(rid)
    assert ("Authorized", "ChargerOffline") == (waiting["status"], waiting["waitingFor"][0]["code"])

    app.connect("B")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    assert "TriggerMessage" == app.frames[-1][2]
    app.answer_call("Accepted", over="B")
    app.report_status(1, "Available", over="B")

    assert "StartRequested" == app.status(rid)["status"]
    assert "RemoteStartTransaction" == app.frames[-1][2]


def reconnect_and_trigger_status(app: InProcessApp) -> str:
    """The reservation of a driver who paid while the station was away; it is back, and asked for its status."""
    app.bring_online()
    rid: str = app.create_reservation()
    app.pay(rid)
    app.disconnect("A")
    assert "Authorized" == app.confirm(rid)["status"]
    app.connect("B")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    assert "TriggerMessage" == app.frames[-1][2]
    return rid


@pytest.mark.note("F32")
@pytest.mark.parametrize(
    "refusal", ['[3,"{}",{{"status":"Rejected"}}]', '[4,"{}","NotImplemented","",{{}}]'], ids=["rejected", "not known"]
)
def test_refused_trigger_starts_from_known_status(app: InProcessApp, refusal: str) -> None:
    rid = reconnect_and_trigger_status(app)

    app.stations.receive("B", refusal.format(app.frames[-1][1]))

    assert "StartRequested" == app.status(rid)["status"]
    assert "RemoteStartTransaction" == app.frames[-1][2]


@pytest.mark.note("F32")
@pytest.mark.parametrize("answers", [False, True], ids=["no answer", "a promise that is not kept"])
def test_missing_status_starts_after_call_timeout(app: InProcessApp, answers: bool) -> None:
    rid = reconnect_and_trigger_status(app)
    if answers:
        app.clock.move(timedelta(seconds=10))
        app.answer_call("Accepted", over="B")
    app.clock.move(Policy().call_timeout - timedelta(seconds=1))
    app.sweep()
    assert "Authorized" == app.status(rid)["status"]

    app.clock.move(timedelta(seconds=1))
    app.sweep()

    assert "StartRequested" == app.status(rid)["status"]
    assert "RemoteStartTransaction" == app.frames[-1][2]
    assert ["RemoteStart"] == [call.kind for call in app.snapshot().calls]


@pytest.mark.note("F32")
def test_promised_faulted_status_prevents_start(app: InProcessApp) -> None:
    rid = reconnect_and_trigger_status(app)
    app.answer_call("Accepted", over="B")
    app.report_status(1, "Faulted", over="B")
    assert () == app.snapshot().calls
    app.clock.move(timedelta(minutes=2))
    app.sweep()

    assert "Authorized" == app.status(rid)["status"]


@pytest.mark.note("F32", "F43")
def test_promised_status_delays_no_other_call(app: InProcessApp) -> None:
    app.bring_online()
    waiting = [app.create_reservation(connector_id) for connector_id in (1, 2)]
    app.disconnect("A")
    for rid in waiting:
        app.pay(rid)
        app.confirm(rid)
    app.connect("B")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    app.answer_call("Accepted", over="B")

    asked = [frame[3]["connectorId"] for frame in app.frames if frame[2] == "TriggerMessage"]
    assert [1, 2] == sorted(asked)


@pytest.mark.note("F32", "F43")
def test_accepted_trigger_releases_queued_start(app: InProcessApp) -> None:
    reconnect_and_trigger_status(app)
    app.create_paid_reservation(2)
    assert "TriggerMessage" == app.frames[-1][2]

    app.answer_call("Accepted", over="B")

    assert ("RemoteStartTransaction", 2) == (app.frames[-1][2], app.frames[-1][3]["connectorId"])


@pytest.mark.note("F32")
def test_lost_start_is_resent_after_refused_trigger(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    app.disconnect("A")
    app.clock.move(Policy().call_timeout)
    app.sweep()
    assert CommandKind.REMOTE_START not in {call.kind for call in app.snapshot().calls}
    app.connect("B")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    assert "TriggerMessage" == app.frames[-1][2]

    app.answer_call("Rejected", over="B")

    tag = app.reservation(rid).id_tag
    assert ["RemoteStartTransaction", {"connectorId": 1, "idTag": tag}] == app.frames[-1][2:]


@pytest.mark.note("F21")
def test_unkept_status_promise_expires(app: InProcessApp) -> None:
    app.connect("A")
    for _ in (1, 2):
        app.clock.move(timedelta(seconds=20))
        app.sweep()
        app.answer_call("Accepted")
    assert [CallState.PROMISED] * 2 == [call.state for call in app.snapshot().calls]

    app.clock.move(Policy().call_timeout)
    app.sweep()

    assert () == app.snapshot().calls


@pytest.mark.note("F21")
def test_status_may_precede_trigger_answer(app: InProcessApp) -> None:
    app.connect("A")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    app.clock.move(timedelta(seconds=1))
    ((_, asked, _, what),) = app.frames
    app.report_status(what["connectorId"], "Available")
    app.stations.receive("A", json.dumps([3, asked, {"status": "Accepted"}]))

    assert [3 - what["connectorId"]] == [call.connector_id for call in app.snapshot().calls]


def reconnect(app: InProcessApp, over: str, *, away: float = 2) -> None:
    """The station's socket closed, and it connected over another."""
    app.disconnect(app.presence().connection_id or "")
    app.clock.move(timedelta(seconds=away))
    app.connect(over)


def count_sent(app: InProcessApp, connection_id: str, action: str) -> int:
    return sum(over == connection_id and json.loads(frame)[2] == action for over, frame in app.gateway.sent)


@pytest.mark.note("F32")
def test_lost_start_is_resent_on_new_status(
    app: InProcessApp,
) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    reconnect(app, "B")
    app.report_status(1, "Preparing", over="B")

    assert ("StartRequested", 1) == (
        app.status(rid)["status"],
        count_sent(app, "B", "RemoteStartTransaction"),
    )


@pytest.mark.note("F25", "F32")
@pytest.mark.parametrize("says", ["a status", "nothing"])
def test_unanswered_remote_start_is_sent_again(app: InProcessApp, says: str) -> None:
    app.bring_online()
    app.create_paid_reservation()
    app.clock.move(Policy().call_timeout + timedelta(seconds=1))
    if says == "a status":
        app.report_status(1, "Preparing")
    else:
        for _ in (1, 2):
            app.sweep()
            app.clock.move(Policy().call_timeout + timedelta(seconds=1))

    assert 2 == count_sent(app, "A", "RemoteStartTransaction")
    assert 1 == len([c for c in app.snapshot().calls if c.kind is CommandKind.REMOTE_START])


@pytest.mark.note("F24", "F32")
def test_accepted_start_is_resent_after_boot(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation()
    app.answer_call("Accepted")
    app.report_status(1, "Available")
    assert 1 == count_sent(app, "A", "RemoteStartTransaction")
    reconnect(app, "B")
    app.boot(over="B")
    app.report_status(1, "Preparing", over="B")

    assert 1 == count_sent(app, "B", "RemoteStartTransaction")


@pytest.mark.note("F25")
def test_refused_repeated_start_keeps_reservation(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    reconnect(app, "B")
    app.report_status(1, "Preparing", over="B")
    app.answer_call("Rejected", over="B")
    assert "StartRequested" == app.status(rid)["status"]

    app.start_transaction(app.reservation(rid).id_tag, at="2026-11-23T09:00:10Z", over="B")

    assert "Charging" == app.status(rid)["status"]


@pytest.mark.note("F30")
def test_remote_stop_is_resent_over_new_socket(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    app.answer_call("Accepted")
    app.cancel(rid)
    app.start_transaction(app.reservation(rid).id_tag, at="2026-11-23T09:00:10Z")
    assert 1 == count_sent(app, "A", "RemoteStopTransaction")

    reconnect(app, "B")
    app.send_call("Heartbeat", over="B")
    app.sweep()

    assert 1 == count_sent(app, "B", "RemoteStopTransaction")


@pytest.mark.note("F32", "F08")
def test_wait_ends_when_persisted_status_expires(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.report_status(1, "Finishing")
    reconnect(app, "B", away=27 * 60)
    app.pay(rid)
    assert ["PersistedStatus:Occupied"] == [one["code"] for one in app.confirm(rid)["waitingFor"]]
    for _ in range(8):
        app.clock.move(timedelta(minutes=1))
        app.send_call("Heartbeat", over="B")
        app.sweep()
        if app.frames[-1][2] == "TriggerMessage":
            app.answer_call("Rejected", over="B")

    assert "StartRequested" == app.status(rid)["status"]


@pytest.mark.note("F21")
@pytest.mark.parametrize("asked", ["and no answer came", "and it was not sent"])
def test_reconnect_asks_for_status_again(app: InProcessApp, asked: str) -> None:
    app.bring_online()
    app.report_status(1, "Charging")
    reconnect(app, "B")
    if asked == "and no answer came":
        app.clock.move(timedelta(seconds=11))
        app.sweep()
        assert 1 == count_sent(app, "B", "TriggerMessage")
    reconnect(app, "C", away=9 * 60 + 50)
    app.clock.move(timedelta(seconds=30))
    app.sweep()

    assert 1 == count_sent(app, "C", "TriggerMessage")


@pytest.mark.note("F21")
def test_old_socket_status_answers_no_new_trigger(app: InProcessApp) -> None:
    app.connect("A")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    asked = app.frames[-1][3]["connectorId"]
    app.report_status(asked, "Available")
    assert [True] == [c.told for c in app.snapshot().calls if c.connector_id == asked]

    app.connect("B")

    assert [False] == [c.told for c in app.snapshot().calls if c.connector_id == asked]


@pytest.mark.note("F21")
def test_station_with_64_connectors_reconnects(app: InProcessApp) -> None:
    app.register(connectors=tuple(range(1, 65)))
    for over in ("A", "B", "C"):
        app.connect(over)
        app.clock.move(timedelta(seconds=11))
        app.sweep()
        app.answer_call("Accepted", over=over)
        app.clock.move(timedelta(seconds=11))

    asked = [call.connector_id for call in app.snapshot().calls if call.state is not CallState.PROMISED]
    assert "C" == app.presence().connection_id
    assert len(asked) == len(set(asked))
    assert set(range(1, 65)) == {call.connector_id for call in app.snapshot().calls}


@pytest.mark.note("F32")
def test_refusing_station_is_triggered_at_most_twice(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.start_transaction("CARD")
    app.report_status(1, "Available")
    app.pay(rid)
    app.confirm(rid)
    app.clock.move(Policy().implied_stop_grace + timedelta(seconds=2))
    reconnect(app, "B")
    app.clock.move(timedelta(seconds=11))
    app.send_call("Heartbeat", over="B")
    app.report_status(2, "Available", over="B")
    for _ in range(9):
        if count_sent(app, "B", "TriggerMessage"):
            app.answer_call("Rejected", over="B")

    assert 2 >= count_sent(app, "B", "TriggerMessage")


@pytest.mark.note("F21")
def test_stop_requests_a_fresh_status(app: InProcessApp) -> None:
    app.bring_online()
    number = app.start_transaction("CARD")
    app.report_status(1, "Charging")
    reconnect(app, "B")
    app.clock.move(timedelta(seconds=11))
    app.sweep()
    app.report_status(1, "Charging", over="B")
    app.stop_transaction(number, 5000, at="2026-11-23T09:00:12Z", over="B")
    app.answer_call("Accepted", over="B")

    waiting = [(c.connector_id, c.state) for c in app.snapshot().calls]
    assert [(1, CallState.QUEUED)] == waiting


@pytest.mark.note("F11", "F21")
def test_only_first_status_answers_a_trigger(app: InProcessApp) -> None:
    app.bring_online()
    app.report_status(1, "Charging", at=START)
    reconnect(app, "B")
    app.clock.move(timedelta(seconds=11))
    app.sweep()
    app.report_status(1, "Charging", over="B", at=START + timedelta(seconds=12))
    app.report_status(1, "Available", over="B", at=START + timedelta(seconds=5))

    assert not app.is_startable(1)


@pytest.mark.note("F32")
def test_one_message_queues_calls_for_both_connectors(app: InProcessApp) -> None:
    app.bring_online()
    waiting = [app.create_reservation(connector_id) for connector_id in (1, 2)]
    app.gateway.gone.add("A")
    app.report_status(2, "Faulted")
    app.report_status(2, "Available")
    app.clock.move(LEASE + timedelta(seconds=1))
    for rid in waiting:
        app.pay(rid)
        app.confirm(rid)
    app.gateway.gone.clear()
    app.report_status(1, "Available")

    calls = {(c.kind, c.connector_id) for c in app.snapshot().calls}
    assert {(CommandKind.REMOTE_START, 1), (CommandKind.TRIGGER_STATUS, 2)} == calls


@pytest.mark.note("F73")
def test_postponed_call_conflicts_with_reconnect(app: InProcessApp) -> None:
    app.connect("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    before = app.snapshot()
    call = before.calls[0]
    app.connect("B")

    outcome = chase_call(before, call, DecisionContext(now=app.clock.at, new_ids=SequentialIds()(), policy=Policy()))
    with pytest.raises(Conflict):
        app.store.commit(outcome.writes)


@pytest.mark.note("F25")
def test_refusal_after_failed_send_keeps_reservation(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.pay(rid)
    app.gateway.unreachable = True
    app.confirm(rid)
    app.gateway.unreachable = False
    app.clock.move(timedelta(seconds=6))
    app.sweep()
    app.answer_call("Rejected")

    assert "StartRequested" == app.status(rid)["status"]


@pytest.mark.note("F21")
def test_station_with_full_queue_reconnects(app: InProcessApp) -> None:
    app.register(connectors=tuple(range(1, 65)))
    app.connect("A")
    at, until = app.clock.at, app.clock.at + timedelta(minutes=10)
    stops = [
        OutboundCall(
            station_id="cp1",
            call_id=f"stop-{number}",
            command=RemoteStop(transaction_id=str(number)),
            asked_at=at,
            send_at=at,
            due_at=until,
            expires_at=until,
        )
        for number in range(1, 65)
    ]
    app.store.commit([Save(stop) for stop in stops])
    app.connect("B")

    assert "B" == app.presence().connection_id


@pytest.mark.note("F11", "F21")
def test_requested_status_counts_despite_old_clock(app: InProcessApp) -> None:
    app.bring_online()
    app.report_status(1, "Charging", at=START)
    app.report_status(1, "Available", at=START - timedelta(hours=1))
    assert not app.is_startable(1)

    reconnect(app, "B")
    app.clock.move(timedelta(seconds=11))
    app.sweep()
    app.answer_call("Accepted", over="B")
    app.report_status(1, "Available", over="B", at=START - timedelta(hours=1))

    assert app.is_startable(1)


@pytest.mark.note("F73")
def test_absent_station_calls_wait_for_reconnect(app: InProcessApp) -> None:
    app.connect("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    assert 2 == app.sweep().done["OutboundCall"]

    app.clock.move(timedelta(minutes=5))
    assert {} == app.sweep().done

    app.connect("B")
    app.clock.move(timedelta(seconds=10))
    app.send_call("Heartbeat", over="B")
    app.sweep()
    assert 1 == count_sent(app, "B", "TriggerMessage")


@pytest.mark.note("F73")
def test_undeliverable_call_expires(app: InProcessApp) -> None:
    app.connect("A")
    app.disconnect("A")
    app.clock.move(timedelta(seconds=20))
    app.sweep()
    app.clock.move(timedelta(minutes=11))
    app.sweep()

    assert () == app.snapshot().calls


@pytest.mark.note("F34")
def test_confirm_after_payment_asks_no_provider(app: InProcessApp) -> None:
    app.bring_online()
    paid = app.create_paid_reservation()
    app.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    free = app.create(2, id_tag="FRIEND")["reservationId"]
    app.provider.fail_next("payment")

    assert ["StartRequested"] * 2 == [app.confirm(rid)["status"] for rid in (paid, free)]


@pytest.mark.note("F35")
def test_verified_redirect_alone_starts_the_charge(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    lying = app.confirm(rid)
    assert ("PendingPayment", "none", []) == (lying["status"], lying["money"], app.frames)

    app.pay(rid)
    paid = app.confirm(rid)

    assert ("StartRequested", "authorised") == (paid["status"], paid["money"])
    assert ["RemoteStartTransaction"] == [frame[2] for frame in app.frames]


@pytest.mark.note("F35")
def test_second_confirm_starts_after_reconnect(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.pay(rid)
    app.disconnect("A")
    assert "Authorized" == app.confirm(rid)["status"]

    app.connect("B")

    assert "StartRequested" == app.confirm(rid)["status"]


@pytest.mark.note("F36")
@pytest.mark.parametrize("another", [None, "0" * 32], ids=["that began nothing", "that began something else"])
def test_only_own_browser_resumes_checkout(app: InProcessApp, another: str | None) -> None:
    app.bring_online()
    first = app.create()
    app.provider.fail_next("open_checkout")  # Nobody asks for another one.
    resumed = app.drivers.create("cp1", 1, resume=first["reservationId"])
    with pytest.raises(ConnectorBusy) as refused:
        app.create(1, resume=another)

    assert first == resumed
    assert ("ActiveReservation",) == refused.value.reasons
    assert "temporarily reserved" in refused.value.message


@pytest.mark.note("F36")
def test_other_or_ended_checkout_is_not_resumed(app: InProcessApp) -> None:
    app.bring_online()
    first = app.create()
    other = app.create(2, resume=first["reservationId"])
    app.cancel(first["reservationId"])
    again = app.create(1, resume=first["reservationId"])

    assert 3 == len({first["reservationId"], other["reservationId"], again["reservationId"]})


@pytest.mark.note("F36")
def test_checkout_resumes_until_expiry(app: InProcessApp) -> None:
    app.bring_online()
    first = app.create()
    until = app.reservation(first["reservationId"]).expires_at
    assert until is not None
    app.clock.move(until - app.clock())
    app.send_call("Heartbeat")
    assert first == app.create(1, resume=first["reservationId"])

    app.clock.move(timedelta(microseconds=1))

    assert first["reservationId"] != app.create(1, resume=first["reservationId"])["reservationId"]


@pytest.mark.note("F36")
def test_paid_checkout_is_not_resumed(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()

    with pytest.raises(ConnectorBusy):
        app.create(1, resume=rid)


@pytest.mark.note("F37")
def test_free_session_has_lock_and_status_page(app: InProcessApp) -> None:
    app.bring_online()
    app.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    begun = app.create(1, id_tag="friend")
    with pytest.raises(ConnectorBusy):
        app.create(1, id_tag="FRIEND")
    followed = app.status(begun["reservationId"])

    page = f"https://charge.example/session/{begun['reservationId']}"
    assert ("NothingToPay", page) == (begun["status"], begun["statusUrl"])
    assert ("StartRequested", "none", 0) == (followed["status"], followed["money"], followed["maxAmount"])


@pytest.mark.note("F37")
def test_free_station_session_owes_nothing(app: InProcessApp) -> None:
    app.bring_online()
    station = app.snapshot().station
    app.store.commit([Save(replace(station, free=True))])
    rid = app.create_reservation()
    app.answer_call("Accepted")
    number = app.start_transaction(app.reservation(rid).id_tag, meter=0, at="2026-11-23T09:00:10Z")
    app.stop_transaction(number, 9000, at="2026-11-23T09:30:00Z")
    followed = app.status(rid)

    assert ("Completed", "none", 9000, 0) == tuple(followed[k] for k in ("status", "money", "energyWh", "amount"))
    assert [] == [e for e in app.store.entities() if isinstance(e, OutboxItem)]


@pytest.mark.note("F64")
def test_late_payment_is_released_at_once(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    checkout = app.reservation(rid).checkout_id or ""
    app.provider.fail_next("expire_checkout")
    app.cancel(rid)
    app.provider.pay(checkout)
    told = app.confirm(rid)

    assert ("Cancelled", "released") == (told["status"], told["money"])
    assert "PaymentCameTooLate" in [audit_entry["event"] for audit_entry in told["steps"]]
    assert 0 == app.provider.held_amount()


def test_receipt_is_mailed_once_without_storing_address(app: InProcessApp) -> None:
    rid = app.bring_online().finish_session()
    app.clock.move(timedelta(hours=1))
    app.sweep()

    ((address, mail),) = app.mailer.sent
    assert "driver@example.com" == address
    assert f"https://charge.example/receipt/{rid}" in mail.text
    assert "Total: EUR 6.45" in mail.text
    assert "ReceiptSent" in [audit_entry["event"] for audit_entry in app.status(rid)["steps"]]
    assert "driver@example.com" not in repr(app.store.entities()) + json.dumps(app.drivers.receipt(rid))


def test_failed_receipt_mail_is_retried(app: InProcessApp) -> None:
    app.mailer.unreachable = True
    rid = app.bring_online().finish_session()
    assert "captured" == app.status(rid)["money"]

    app.mailer.unreachable = False
    app.clock.move(timedelta(hours=1))
    app.sweep()

    assert 1 == len(app.mailer.sent)


def test_driver_without_address_gets_no_mail(app: InProcessApp) -> None:
    app.email = None
    rid = app.bring_online().finish_session()

    assert ([], 645) == (app.mailer.sent, app.drivers.receipt(rid)["total"])
    assert [] == [e for e in app.store.entities() if isinstance(e, OutboxItem)]


@pytest.mark.note("F68")
def test_idle_fee_stops_when_station_falls_silent(app: InProcessApp) -> None:
    app.bring_online()
    station = app.snapshot().station
    idle = replace(TARIFF, idle_price=Decimal(10), idle_maximum=600)
    app.store.commit([Save(replace(station, tariff=idle))])
    rid = app.create_paid_reservation()
    number = app.start_transaction(app.reservation(rid).id_tag, meter=0)
    app.report_status(1, "SuspendedEV")
    app.stop_transaction(number, 10_000)
    app.clock.move(timedelta(minutes=10))
    app.send_call("Heartbeat")
    while_online = app.status(rid)
    app.clock.move(timedelta(hours=2))
    later = app.status(rid)

    assert ("WaitingForDisconnect", 100) == (while_online["status"], while_online["idle"]["fee"])
    assert while_online["idle"] == later["idle"]


# What is told of each decision


def test_create_reports_its_decision(app: InProcessApp) -> None:
    app.bring_online()
    app.create()
    assert [("startable", None)] == app.take_decisions()
    with pytest.raises(ConnectorBusy):
        app.create()

    assert [("busy", "ActiveReservation")] == app.take_decisions()


def test_gone_socket_reports_charger_offline(app: InProcessApp) -> None:
    app.bring_online()
    app.gateway.gone.add("A")
    with pytest.raises(ChargerOffline):
        app.create()

    assert [("busy", "ChargerOffline")] == app.take_decisions()


def test_unknown_connector_is_no_decision(app: InProcessApp) -> None:
    app.bring_online()
    with pytest.raises(NotFound):
        app.create(3)

    assert [] == app.take_decisions()


def test_only_committed_decision_is_reported(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.bring_online()
    commit, lost = app.store.commit, [Conflict("Somebody else was first.")]

    def contested(writes: Iterable[Write]) -> None:
        if lost:
            raise lost.pop()
        commit(writes)

    monkeypatch.setattr(app.store, "commit", contested)
    app.observed.clear()
    app.create()

    assert ["conflict", "decision"] == [what for what, _ in app.observed]


def test_confirm_reports_decision_once_paid(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.take_decisions()
    app.confirm(rid)
    assert [] == app.take_decisions()

    app.pay(rid)
    app.report_status(1, "Faulted")
    app.confirm(rid)
    assert [("busy", "LiveStatus:Faulted")] == app.take_decisions()

    app.report_status(1, "Preparing")
    assert [("startable", None)] == app.take_decisions()

    app.confirm(rid)
    app.report_status(1, "Charging")
    assert [] == app.take_decisions()


def test_webhook_reports_its_decision(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.take_decisions()
    app.pay(rid)
    app.drivers.receive_webhook(*app.provider.build_webhook(rid))

    assert [("startable", None)] == app.take_decisions()


def test_late_payment_reports_busy_connector(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.pay(rid)
    app.clock.move(timedelta(minutes=33))
    app.send_call("Heartbeat")
    app.create()
    app.take_decisions()
    app.confirm(rid)

    assert [("busy", "ActiveReservation")] == app.take_decisions()


def test_free_start_reports_two_decisions(app: InProcessApp) -> None:
    app.bring_online()
    app.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    app.create(1, id_tag="FRIEND")

    assert [("startable", None)] * 2 == app.take_decisions()


def test_queries_report_no_decision(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.take_decisions()
    app.view_connector(1)
    app.status(rid)
    app.report_status(2, "Charging")

    assert [] == app.take_decisions()


@pytest.mark.note("F43")
def test_outbound_calls_go_one_at_a_time(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    assert ["RemoteStartTransaction"] == [frame[2] for frame in app.frames]
    assert "currentTime" in app.send_call("Heartbeat")
    app.answer_call("Accepted")

    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames]


@pytest.mark.note("F43")
def test_timed_out_call_frees_the_slot(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation(1)
    app.create_paid_reservation(2)
    app.clock.move(Policy().call_timeout)
    app.sweep()

    assert [1, 2] == [frame[3]["connectorId"] for frame in app.frames]


@pytest.mark.note("F44")
def test_late_call_result_changes_nothing(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation(1)
    app.clock.move(Policy().call_timeout)
    app.sweep()
    app.answer_call("Rejected")

    assert "StartRequested" == app.status(rid)["status"]


@pytest.mark.note("F48")
def test_subprotocol_is_first_known_or_refused(app: InProcessApp) -> None:
    offers = ("ocpp9.9", " OCPP1.6 ")
    chosen = app.stations.connect(
        "CP1", authorization=basic_auth_header("CP1", b"correct horse"), offered=offers, connection_id="A"
    )
    with pytest.raises(BadRequest):
        app.stations.connect(
            "CP1", authorization=basic_auth_header("CP1", b"correct horse"), offered=("",), connection_id="B"
        )

    assert Protocol.OCPP16 is chosen
    assert "A" == app.presence().connection_id


@pytest.mark.note("F49")
def test_unknown_station_is_only_listed(app: InProcessApp) -> None:
    before = app.store.entities()
    with pytest.raises(NotFound):
        app.stations.connect(
            "New-1", authorization=basic_auth_header("New-1", b"x"), offered=("ocpp1.6",), connection_id="A"
        )

    (unknown_station,) = [e for e in app.store.entities() if e not in before]
    assert isinstance(unknown_station, UnknownStation)
    assert "New-1" == unknown_station.identity


KEPT = {
    Connection: timedelta(hours=3),
    ProcessedWebhook: timedelta(days=30),
    IdTag: timedelta(days=30),
    IdempotencyRecord: timedelta(days=90),
    MeterSample: timedelta(days=90),
    UnknownStation: timedelta(days=30),
    TimelineEntry: timedelta(days=90),
}
"""How long what accumulates is kept."""


@pytest.mark.note("F76")
@pytest.mark.parametrize("kind", KEPT)
def test_accumulating_item_has_ttl(app: InProcessApp, kind: type) -> None:
    with pytest.raises(NotFound):
        app.stations.connect("New-1", authorization=None, offered=(), connection_id="Z")
    app.bring_online()
    rid = app.create_paid_reservation()
    app.drivers.receive_webhook(*app.provider.build_webhook(rid))
    number = app.start_transaction(app.reservation(rid).id_tag, meter=0, at="2026-11-23T09:00:10Z")
    app.send_meter_values(number, 100, at="2026-11-23T09:10:00Z")

    kept = [to_item(e)["ttl"] for e in app.store.entities() if isinstance(e, kind)]

    assert {int((app.clock() + KEPT[kind]).timestamp())} == set(kept)


@pytest.mark.note("F76")
def test_other_items_have_no_ttl(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation()

    assert [] == [e for e in app.store.entities() if type(e) not in KEPT and "ttl" in to_item(e)]


@pytest.mark.note("F41")
@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("StartTransaction", {"connectorId": 1, "idTag": "NOBODY", "meterStart": 0}),
        ("StartTransaction", {"connectorId": 9, "idTag": "NOBODY", "meterStart": -5}),
        ("StopTransaction", {"transactionId": 4711, "meterStop": 0}),
        ("StopTransaction", {"transactionId": -1, "meterStop": 0, "idTag": "NOBODY"}),
    ],
    ids=["unknown tag", "unknown connector", "unknown transaction", "no transaction at all"],
)
def test_faulty_transaction_message_gets_call_result(app: InProcessApp, action: str, payload: dict[str, Any]) -> None:
    app.bring_online()

    answers = [app.exchange(action, **payload, timestamp=app.time())[0] for _ in range(2)]

    assert [3, 3] == answers
