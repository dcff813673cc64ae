"""When is a paid charge's remote start sent, sent again, or given up?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.model import CommandKind, Policy
from tests.app.in_process import InProcessApp


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


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
def test_start_after_cancel_is_stopped_remotely(app: InProcessApp) -> None:
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


@pytest.mark.note("F32")
def test_lost_start_is_resent_on_new_status(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    app.reconnect("B")
    app.report_status(1, "Preparing", over="B")

    assert ("StartRequested", 1) == (app.status(rid)["status"], app.count_sent("B", "RemoteStartTransaction"))


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

    assert 2 == app.count_sent("A", "RemoteStartTransaction")
    assert 1 == len([c for c in app.snapshot().calls if c.kind is CommandKind.REMOTE_START])


@pytest.mark.note("F24", "F32")
def test_accepted_start_is_resent_after_boot(app: InProcessApp) -> None:
    app.bring_online()
    app.create_paid_reservation()
    app.answer_call("Accepted")
    app.report_status(1, "Available")
    assert 1 == app.count_sent("A", "RemoteStartTransaction")
    app.reconnect("B")
    app.boot(over="B")
    app.report_status(1, "Preparing", over="B")

    assert 1 == app.count_sent("B", "RemoteStartTransaction")


@pytest.mark.note("F25")
def test_refused_repeated_start_keeps_reservation(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()
    app.reconnect("B")
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
    assert 1 == app.count_sent("A", "RemoteStopTransaction")

    app.reconnect("B")
    app.send_call("Heartbeat", over="B")
    app.sweep()

    assert 1 == app.count_sent("B", "RemoteStopTransaction")


@pytest.mark.note("F32", "F08")
def test_wait_ends_when_persisted_status_expires(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.report_status(1, "Finishing")
    app.reconnect("B", away=27 * 60)
    app.pay(rid)
    assert ["PersistedStatus:Occupied"] == [one["code"] for one in app.confirm(rid)["waitingFor"]]
    for _ in range(8):
        app.clock.move(timedelta(minutes=1))
        app.send_call("Heartbeat", over="B")
        app.sweep()
        if app.frames[-1][2] == "TriggerMessage":
            app.answer_call("Rejected", over="B")

    assert "StartRequested" == app.status(rid)["status"]


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
