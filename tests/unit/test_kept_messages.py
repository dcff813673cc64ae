"""Messages that are kept for the operator: irregular ones, and those in quarantine, which are confirmed."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.charging import transaction
from csms.errors import NotFound
from csms.model import Append, KeptMessage, KeptToday, Protocol, Save, Station, TimelineEntry, Turn, WaitingFrame
from csms.ocpp import v16
from csms.ocpp.kept_messages import (
    LONGEST_TEXT,
    MOST_IRREGULAR,
    MOST_KEPT,
    MOST_REASONS,
    QUARANTINED,
    RETENTION,
    ReceivedMessage,
    build_kept_message,
)
from csms.service.line import HOLD
from tests.app.in_process import InProcessApp
from tests.builders import NOW
from tests.versions import check

MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
TAG: Final = "04E91C5A123B80"
TRANSACTION_ACTIONS: Final = ("MeterValues", "StartTransaction", "StatusNotification", "StopTransaction")


@pytest.fixture
def app() -> InProcessApp:
    app = InProcessApp().register()
    app.bring_online()
    return app


@pytest.fixture
def single() -> InProcessApp:
    """A station with one connector."""
    app = InProcessApp().register(connectors=(1,))
    app.bring_online()
    return app


def receive(app: InProcessApp, text: str) -> Any:
    answer = app.stations.receive(app.socket, text, received_at=app.clock.at)
    return None if answer is None else json.loads(answer)


def find(app: InProcessApp, kind: type) -> list[Any]:
    return [entity for entity in app.store.entities() if isinstance(entity, kind)]


def kept(app: InProcessApp) -> list[KeptMessage]:
    return find(app, KeptMessage)


def quarantine_entries(app: InProcessApp) -> list[TimelineEntry]:
    return [entry for entry in find(app, TimelineEntry) if entry.kind == QUARANTINED]


def count_writes(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []
    commit = app.store.commit
    monkeypatch.setattr(app.store, "commit", lambda writes: (counts.append(len(list(writes))), commit(writes))[1])
    return counts


def report(app: InProcessApp, status: str = "Charging", **more: Any) -> list[Any]:
    return app.exchange("StatusNotification", connectorId=1, errorCode="NoError", status=status, **more)


# Irregular messages


@pytest.mark.note("F45")
def test_irregular_message_is_kept_as_received(app: InProcessApp) -> None:
    text = '[2, "s1","StatusNotification",{"connectorId":"1","errorCode":"NoError", "status":"Charging","idTag":"%s"}]'

    assert [3, "s1", {}] == receive(app, text % TAG)

    assert [
        KeptMessage(
            station_id="cp1",
            at=app.clock.at,
            kind=kept(app)[0].kind,
            action="StatusNotification",
            message_id="s1",
            is_quarantined=False,
            reasons=("connectorId: read as 1", "idTag: unknown member"),
            text=text % "***",
            expires_at=app.clock.at + RETENTION,
        )
    ] == kept(app)
    assert [] == quarantine_entries(app)


@pytest.mark.note("F45")
def test_mended_text_is_kept_unmended(app: InProcessApp) -> None:
    text = '[2,"s1","StatusNotification",{,"connectorId":1,"errorCode":"NoError","status":"Charging",}]'

    assert [3, "s1", {}] == receive(app, text)
    assert [text] == [message.text for message in kept(app)]


def test_regular_message_costs_nothing(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_writes(app, monkeypatch)
    report(app)
    regular = counts.copy()
    report(app, "Finishing", extra=1)
    first = counts[len(regular) :]
    report(app, "Charging", extra=2)

    assert 1 == len(kept(app))
    assert [regular[0] + 2] == first
    assert regular == counts[len(regular) + 1 :]


def test_repeated_kind_is_kept_once_a_day(app: InProcessApp) -> None:
    for number in range(3):
        app.exchange("MeterValues", connectorId=1, meterValue=[], transactionId=f"{number}")
        app.pass_time(minutes=1)
    assert 1 == len(kept(app))

    app.clock.move(DAY)
    app.exchange("MeterValues", connectorId=1, meterValue=[], transactionId="9")

    assert 2 == len(kept(app))
    assert [1] == [len(station.kept_today.kinds) for station in find(app, Station)]


def test_other_action_and_flag_are_other_kinds(app: InProcessApp) -> None:
    report(app, extra=1)
    report(app, other=1)
    app.exchange("DataTransfer", vendorId="v", extra=1)

    assert 3 == len(kept(app))


@pytest.mark.note("F73")
def test_irregular_kinds_are_bounded(app: InProcessApp) -> None:
    for letter in "abcdefghijklmnop":
        report(app, **{letter: 1})
    assert MOST_IRREGULAR == len(kept(app))

    for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP":
        app.pass_time(seconds=1)
        app.exchange("StartTransaction", **{letter: 1})

    assert MOST_KEPT == len(kept(app)) == len(quarantine_entries(app)) + MOST_IRREGULAR


def test_messages_of_one_commit_keep_one(app: InProcessApp) -> None:
    until = app.clock.at + HOLD
    app.store.commit([Save(Turn(station_id="cp1", holder="another", held_until=until, due_at=until))])
    for number in range(4):
        receive(app, f'[2,"m{number}","MeterValues",{{"connectorId":1,"meterValue":[],"extra":{number}}}]')
        receive(app, f'[2,"q{number}","MeterValues",{{"meterValue":{number}}}]')
    app.clock.move(HOLD)

    app.maintenance.wake("cp1", None)

    assert [False, True] == sorted(message.is_quarantined for message in kept(app))
    assert 1 == len(quarantine_entries(app))
    assert [] == find(app, WaitingFrame)


def test_tags_of_station_are_hidden(app: InProcessApp) -> None:
    app.exchange("StartTransaction", connectorId=1, idTag=TAG, meterStart=0, timestamp=app.time())

    report(app, vendorErrorCode=f"card {TAG}", extra=1)

    assert "card ***" in kept(app)[0].text


def test_web_tag_of_station_is_hidden(app: InProcessApp) -> None:
    app.create_paid_reservation(1)
    (tag,) = [c.lock.id_tag for c in app.store.snapshot("cp1").connectors.values() if c.lock is not None]

    report(app, "Preparing", vendorErrorCode=f"waits for {tag}", extra=1)

    assert "waits for ***" in kept(app)[0].text


# The text of a kept message


def build(text: str, *reasons: str) -> KeptMessage:
    message = ReceivedMessage(
        station_id="cp1", action="DataTransfer", message_id=TAG, text=text, received_at=NOW - MINUTE
    )
    return build_kept_message(message, reasons, NOW, kind="k", is_quarantined=False)


@pytest.mark.parametrize("letter", ["x", "é", "字", "🚗"])
def test_long_text_is_cut_between_characters(letter: str) -> None:
    whole, longer = letter * (LONGEST_TEXT // len(letter.encode())), letter * (LONGEST_TEXT + 1)

    assert (whole[:-1], False) == (build(whole[:-1]).text, build(whole[:-1]).is_cut)
    assert (whole, True) == (build(longer).text, build(longer).is_cut)
    assert (f"a{whole}"[: len(build(f"a{longer}").text)], True) == (
        build(f"a{longer}").text,
        build(f"a{longer}").is_cut,
    )
    assert len(build(f"a{longer}").text.encode()) > LONGEST_TEXT - 4


def test_longest_text_is_not_cut() -> None:
    assert (LONGEST_TEXT, False) == (len(build("x" * LONGEST_TEXT).text), build("x" * LONGEST_TEXT).is_cut)
    assert (LONGEST_TEXT, True) == (len(build("x" * (LONGEST_TEXT + 1)).text), build("x" * (LONGEST_TEXT + 1)).is_cut)


@pytest.mark.note("F71")
def test_tag_at_the_cut_is_hidden() -> None:
    record = build("x" * (LONGEST_TEXT - 20) + f'"idTag":"{TAG}"', f"{TAG}: unknown member")

    assert TAG[:4] not in record.text
    assert ("***", ("***: unknown member",)) == (record.message_id, record.reasons)


def test_many_reasons_are_counted() -> None:
    reasons = build("{}", *(f"reason {number}" for number in range(MOST_REASONS + 5))).reasons

    assert (MOST_REASONS + 1, "and 5 more") == (len(reasons), reasons[-1])


def test_lone_surrogate_is_storable() -> None:
    assert '"?"' == build('"\ud800"').text


# Quarantine


UNATTRIBUTABLE: Final[list[tuple[str, Any]]] = [
    ("MeterValues", {"meterValue": []}),
    ("MeterValues", {"connectorId": "one", "transactionId": 99, "meterValue": []}),
    ("MeterValues", []),
    ("StartTransaction", {"connectorId": 1, "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}),
    ("StartTransaction", {"idTag": TAG, "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}),
    ("StartTransaction", {}),
    ("StartTransaction", "text"),
    ("StatusNotification", {"errorCode": "NoError", "status": "Available"}),
    ("StatusNotification", {"connectorId": 1, "errorCode": "NoError"}),
    ("StatusNotification", 7),
    ("StopTransaction", [{"transactionId": 1}]),
    ("StopTransaction", {"transactionId": 1, "x": json.loads("[" * 40 + "]" * 40)}),
]


@pytest.mark.note("F41")
@pytest.mark.parametrize(("action", "payload"), UNATTRIBUTABLE)
def test_unattributable_message_is_confirmed_and_kept(app: InProcessApp, action: str, payload: Any) -> None:
    before = [app.connector(1), app.connector(2)]

    kind, unique_id, answer = receive(app, json.dumps([2, "m1", action, payload]))

    assert (3, "m1") == (kind, unique_id)
    check(Protocol.OCPP16, action, answer, response=True)
    (message,) = kept(app)
    assert (True, action, "m1") == (message.is_quarantined, message.action, message.message_id)
    assert message.reasons
    (entry,) = quarantine_entries(app)
    assert {"action": action, "message": "m1"} == {name: entry.detail[name] for name in ("action", "message")}
    assert before == [app.connector(1), app.connector(2)]


MEMBERS: Final = (
    *("connectorId", "idTag", "meterStart", "timestamp", "transactionId", "meterStop", "reason", "transactionData"),
    *("status", "errorCode", "meterValue", "reservationId"),
)
VALUES: Final = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["1", "CARD", "Available", "2026-03-01T12:00:00Z", "NoError", ""])
    | st.lists(st.dictionaries(st.sampled_from(["timestamp", "sampledValue"]), st.integers() | st.text()), max_size=2)
)


@pytest.mark.note("F41")
@settings(deadline=None, max_examples=200)
@given(
    action=st.sampled_from(TRANSACTION_ACTIONS),
    payload=st.dictionaries(st.sampled_from(MEMBERS), VALUES) | VALUES.filter(lambda value: value is not None),
    connectors=st.sampled_from([(1,), (1, 2)]),
)
def test_transaction_messages_are_always_confirmed(action: str, payload: Any, connectors: tuple[int, ...]) -> None:
    app = InProcessApp().register(connectors=connectors)
    app.connect()
    text = json.dumps([2, "m1", action, payload])

    answers = [receive(app, text) for _ in range(2)]

    assert [[3, "m1"]] * 2 == [answer[:2] for answer in answers]
    assert answers[0] == answers[1]
    check(Protocol.OCPP16, action, answers[0][2], response=True)
    assert len(quarantine_entries(app)) == sum(message.is_quarantined for message in kept(app)) <= 1


@pytest.mark.note("F41")
def test_quarantine_covers_the_transaction_actions() -> None:
    rows = {name: action for name, action in v16.DIALECT.actions.items() if action.quarantine is not None}

    assert TRANSACTION_ACTIONS == tuple(sorted(rows))
    for action in rows.values():
        assert action.quarantine is not None
        assert action.fixed_answer in (None, action.quarantine(InProcessApp().dependencies().build_context()))


@pytest.mark.note("F41", "F50", "F52")
def test_quarantined_start_gets_real_id_and_invalid(app: InProcessApp) -> None:
    answer = app.exchange("StartTransaction", connectorId=1)[2]

    assert {"status": "Invalid"} == answer["idTagInfo"]
    assert 1 <= answer["transactionId"] < 2**31


@pytest.mark.note("F42", "F51")
@pytest.mark.parametrize("again", ["m1", "m2"], ids=["same id", "other id"])
def test_resent_start_gets_same_answer(app: InProcessApp, again: str) -> None:
    text = '[2,"%s","StartTransaction",{"connectorId":1,"timestamp":"2026-03-01T12:00:00Z"}]'
    first = receive(app, text % "m1")
    app.clock.move(DAY)

    assert first[2] == receive(app, text % again)[2]
    assert (1, 1) == (len(kept(app)), len(quarantine_entries(app)))


@pytest.mark.note("F51")
def test_each_quarantined_start_is_kept(app: InProcessApp) -> None:
    answers = set()
    for wh in range(3):
        answers.add(app.exchange("StartTransaction", connectorId=1, meterStart=wh)[2]["transactionId"])
        app.pass_time(seconds=1)

    assert 3 == len(answers)
    assert 3 == len(kept(app)) == len(quarantine_entries(app))


def test_resent_stop_is_kept_once(app: InProcessApp) -> None:
    answers = [receive(app, '[2,"x","StopTransaction",[1]]') for _ in range(2)]

    assert [[3, "x", {}]] * 2 == answers
    assert 1 == len(kept(app)) == len(quarantine_entries(app))


def test_quarantined_status_is_told_once_a_day(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_writes(app, monkeypatch)
    for number in range(3):
        app.exchange("StatusNotification", status="Available", errorCode="NoError", info=str(number))

    assert 1 == len(kept(app)) == len(quarantine_entries(app))
    assert [3, 0, 0] == counts


@pytest.mark.note("F41")
def test_stop_of_quarantined_start_is_confirmed(app: InProcessApp) -> None:
    number = app.exchange("StartTransaction", connectorId=1)[2]["transactionId"]

    assert 3 == app.exchange("StopTransaction", transactionId=number, meterStop=5, timestamp=app.time())[0]


@pytest.mark.note("F41")
def test_quarantined_start_is_answered_in_line(app: InProcessApp) -> None:
    until = app.clock.at + HOLD
    app.store.commit([Save(Turn(station_id="cp1", holder="another", held_until=until, due_at=until))])
    assert receive(app, '[2,"m1","StartTransaction",[]]') is None
    app.clock.move(HOLD)

    app.maintenance.wake("cp1", None)

    assert [[3, "m1"]] == [frame[:2] for frame in app.frames if frame[0] == 3]
    assert 1 == len(kept(app))


@pytest.mark.note("F38")
@pytest.mark.parametrize(
    ("action", "payload"),
    [("Authorize", {}), ("BootNotification", {"chargePointVendor": "v"}), ("Heartbeat", []), ("DataTransfer", 7)],
)
def test_other_actions_are_refused(app: InProcessApp, action: str, payload: Any) -> None:
    assert [4, "m1"] == receive(app, json.dumps([2, "m1", action, payload]))[:2]
    assert [] == kept(app)


def test_long_id_is_kept_as_reason(app: InProcessApp) -> None:
    receive(app, json.dumps([2, "i" * 40, "StatusNotification", {}]))

    assert "uniqueId: longer than 36 characters" in kept(app)[0].reasons


# What the snapshot adds


@pytest.mark.note("F41")
@pytest.mark.parametrize("connector", [{}, {"connectorId": None}, {"connectorId": "x"}])
def test_only_connector_needs_no_number(single: InProcessApp, connector: dict[str, Any]) -> None:
    assert {} == single.exchange("StatusNotification", errorCode="NoError", status="Charging", **connector)[2]
    assert "Charging" == getattr(single.connector(1).live, "raw", None)
    assert [False] == [message.is_quarantined for message in kept(single)]


@pytest.mark.note("F41")
def test_transaction_names_connector_of_readings(app: InProcessApp) -> None:
    for connector in (1, 2):
        number = app.exchange("StartTransaction", connectorId=connector, idTag=TAG, meterStart=0, timestamp=app.time())[
            2
        ]["transactionId"]
    reading = {"timestamp": app.time(), "sampledValue": [{"value": "700"}]}

    app.exchange("MeterValues", transactionId=number, meterValue=[reading])

    assert [0, 700] == [getattr(app.connector(n).transaction, "energy_wh", None) for n in (1, 2)]


@pytest.mark.note("F54")
@pytest.mark.parametrize("named", [{}, {"transactionId": None}, {"transactionId": "x"}])
def test_stop_without_id_closes_only_fitting(app: InProcessApp, named: dict[str, Any]) -> None:
    app.exchange("StartTransaction", connectorId=1, idTag=TAG, meterStart=1000, timestamp=app.time())
    app.exchange("StartTransaction", connectorId=2, idTag="OTHER", meterStart=1000, timestamp=app.time())

    answer = app.exchange("StopTransaction", idTag=TAG, meterStop=2000, timestamp=app.time(), **named)

    assert [3, {"idTagInfo": {"status": "Invalid"}}] == [answer[0], answer[2]]
    assert [True, False] == [app.connector(n).transaction is None for n in (1, 2)]


@pytest.mark.note("F54")
def test_unnamed_stop_without_fit_is_kept(app: InProcessApp) -> None:
    app.exchange("StartTransaction", connectorId=1, idTag=TAG, meterStart=1000, timestamp=app.time())

    assert [3, {}] == app.exchange("StopTransaction", meterStop=2000, timestamp=app.time())[::2]
    assert app.connector(1).transaction is not None
    assert [""] == [e.detail["transaction"] for e in find(app, TimelineEntry) if e.kind == "StopPutAside"]
    assert ("transactionId: missing",) == kept(app)[0].reasons


# Frames that fail


@pytest.mark.note("F41")
def test_failed_frame_is_kept_in_quarantine(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    until = app.clock.at + HOLD
    app.store.commit([Save(Turn(station_id="cp1", holder="another", held_until=until, due_at=until))])
    reading = {"timestamp": app.time(), "sampledValue": [{"value": "1"}]}
    text = json.dumps([2, "m1", "MeterValues", {"connectorId": 1, "idTag": TAG, "meterValue": [reading]}])
    assert [3, "m1", {}] == receive(app, text)
    app.clock.move(HOLD)

    def fail(*_arguments: Any) -> Any:
        raise ZeroDivisionError(TAG)

    monkeypatch.setattr(transaction, "record_readings", fail)
    app.maintenance.wake("cp1", None)

    (message,) = kept(app)
    assert (True, "m1", text.replace(TAG, "***")) == (message.is_quarantined, message.message_id, message.text)
    assert ("failed: ZeroDivisionError('***')",) == message.reasons
    assert 1 == len(quarantine_entries(app))
    assert [] == find(app, WaitingFrame)


# What the operator sees


def test_operator_lists_messages_newest_first(app: InProcessApp) -> None:
    report(app, extra=1)
    app.pass_time(minutes=1)
    app.exchange("StartTransaction", idTag=TAG)

    shown = app.operators.messages("CP1", limit=20)

    assert ["Quarantined", "Irregular"] == [row["state"] for row in shown["messages"]]
    assert ["StartTransaction", "StatusNotification"] == [row["action"] for row in shown["messages"]]
    assert TAG not in json.dumps(shown)
    assert shown["next"] is None


def test_message_pages_are_complete(app: InProcessApp) -> None:
    for number in range(5):
        app.exchange("StartTransaction", meterStart=number)
        app.pass_time(minutes=1)

    first = app.operators.messages("CP1", limit=2)
    second = app.operators.messages("CP1", limit=2, after=first["next"])
    last = app.operators.messages("CP1", limit=2, after=second["next"])

    rows = [row["messageId"] for page in (first, second, last) for row in page["messages"]]
    assert (5, 5, None) == (len(rows), len(set(rows)), last["next"])


def test_expired_message_is_not_listed(app: InProcessApp) -> None:
    report(app, extra=1)
    app.clock.move(RETENTION)

    assert [] == app.operators.messages("CP1", limit=20)["messages"]


def test_messages_of_unknown_station_are_not_found(app: InProcessApp) -> None:
    app.store.commit([Append(build("{}"))])

    with pytest.raises(NotFound):
        app.operators.messages("CP2", limit=20)


def test_quarantine_is_in_occupancy_timeline(app: InProcessApp) -> None:
    app.exchange("StatusNotification", status="Available")

    (entry,) = [e for e in app.operators.occupancy("CP1", 1)["timeline"] if e["kind"] == QUARANTINED]
    assert ["action", "message", "why"] == sorted(entry["detail"])
    assert "connectorId: missing" in entry["detail"]["why"]


def test_older_note_of_day_is_replaced(app: InProcessApp) -> None:
    station = app.store.snapshot("cp1").station
    full = KeptToday(day=app.clock.at.date() - DAY, kinds=tuple(f"{n:08x}" for n in range(MOST_KEPT)))
    app.store.commit([Save(Station(**{n: getattr(station, n) for n in station.__slots__} | {"kept_today": full}))])

    report(app, extra=1)

    assert 1 == len(kept(app))
