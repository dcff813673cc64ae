"""The idTag on its way out and in: what a station makes of it, what is tried after a rejection, and who guesses."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms import views
from csms.charging import transaction, web_tags
from csms.charging.transaction import tags
from csms.model import (
    Append,
    FailureCode,
    IdTag,
    IdToken,
    KeptMessage,
    Money,
    ReadSet,
    RemoteStart,
    ReservationState,
    Snapshot,
    Station,
    TagStatus,
)
from csms.ocpp.v16 import core
from csms.service import generate_ids
from tests import builders as b
from tests.app.in_process import InProcessApp
from tests.builders import NOW, SECOND, answer_call, decision_context, get_reservation

S = ReservationState
WEB = "WANRVHVONRYN5TW7YHJM"
SPOILT = [
    f"{WEB}_17000000",
    f"{WEB}\0\0",
    f" {WEB} ",
    f"\0\t{WEB}\x1f\r\n",
    f"{WEB} _1",
    WEB.lower(),
    WEB[:19],
    WEB[:18],
    WEB[:16],
    f"{WEB[:16].lower()}\0",
]
FOREIGN = [WEB[:15], WEB[:15] + "_" + WEB[15:], f"{WEB}0", f"X{WEB}", WEB[:19] + "X", "", "_", "\0", WEB[4:], "CARD"]


def bring_to_payment() -> tuple[InProcessApp, str]:
    """An app whose paid reservation has just been asked to start, at a station of unknown make."""
    app = InProcessApp(new_ids=generate_ids).register()
    app.connect("A")
    app.send_call("BootNotification", chargePointVendor="ACME", chargePointModel="One")
    app.report_status(1, "Preparing")
    reservation_id = app.create_reservation()
    app.pay(reservation_id)
    app.confirm(reservation_id)
    return app, reservation_id


def sent_tags(app: InProcessApp) -> list[str]:
    return [frame[3]["idTag"] for frame in app.frames if frame[2] == "RemoteStartTransaction"]


def say_start(app: InProcessApp, tag: str, connector: int = 1) -> str:
    answer = app.send_call(
        "StartTransaction", connectorId=connector, idTag=tag, meterStart=1000, timestamp=app.now().isoformat()
    )
    return str(answer["idTagInfo"]["status"])


# On the way in


@pytest.mark.note("F28", "F29")
@pytest.mark.parametrize("spoil", range(len(SPOILT)))
def test_spoilt_tag_authorizes_and_starts(spoil: int) -> None:
    app, reservation_id = bring_to_payment()
    own = app.reservation(reservation_id).id_tag
    said = SPOILT[spoil].replace(WEB, own).replace(WEB.lower(), own.lower())
    for cut in (19, 18, 16):
        said = said.replace(WEB[:cut], own[:cut]).replace(WEB[:cut].lower(), own[:cut].lower())

    assert "Accepted" == app.send_call("Authorize", idTag=said)["idTagInfo"]["status"]
    assert "Accepted" == say_start(app, said)
    assert S.CHARGING == app.reservation(reservation_id).state


@pytest.mark.note("F28", "F29")
@pytest.mark.parametrize("said", FOREIGN, ids=repr)
def test_other_tag_neither_authorizes_nor_starts(said: str) -> None:
    before = with_tag(b.authorized_snapshot(), WEB)

    assert TagStatus.INVALID == transaction.authorize(before, IdToken(value=said), decision_context())
    assert tags.find_owner(before, IdToken(value=said)) is None


@pytest.mark.note("F28")
@pytest.mark.parametrize("said", SPOILT, ids=repr)
def test_spoilt_tag_has_one_owner(said: str) -> None:
    before = with_tag(b.authorized_snapshot(), WEB)

    assert before.connector(1) == tags.find_owner(before, IdToken(value=said))


@pytest.mark.note("F28")
def test_tag_of_two_reservations_is_nobodys() -> None:
    before = with_tag(b.authorized_snapshot(), WEB)
    twin = before.with_connector(replace(before.connector(2), lock=b.lock(S.AUTHORIZED)))
    twins = twin.with_connector(replace(twin.connector(2), lock=replace(b.lock(S.AUTHORIZED), id_tag=f"{WEB[:18]}XX")))

    assert TagStatus.INVALID == transaction.authorize(twins, IdToken(value=WEB[:18]), decision_context())
    assert TagStatus.ACCEPTED == transaction.authorize(twins, IdToken(value=WEB), decision_context())


@pytest.mark.note("F29")
def test_registered_tag_is_exact_after_trimming() -> None:
    card = IdTag(tag="04A2B3C4D5E6F7A8B9C0", status=TagStatus.ACCEPTED)

    def accepts(said: str) -> bool:
        return tags.tag_status(find(card, said), NOW) is TagStatus.ACCEPTED

    assert accepts("04a2b3c4d5e6f7a8b9c0")
    assert accepts(" 04A2B3C4D5E6F7A8B9C0\0")
    assert not accepts("04A2B3C4D5E6F7A8")
    assert not accepts("04A2B3C4D5E6F7A8B9C0_1")


@pytest.mark.note("F28", "F30")
@pytest.mark.parametrize("said", ["{}_17000000", "{:.16}", " {}\0"])
def test_spoilt_tag_of_ended_reservation_is_stopped(said: str) -> None:
    app, reservation_id = bring_to_payment()
    tag = app.reservation(reservation_id).id_tag
    app.answer_call("Accepted")
    app.cancel(reservation_id)

    assert "Invalid" == say_start(app, said.format(tag))

    assert ["RemoteStopTransaction"] == [frame[2] for frame in app.frames[-1:]], "at once: it is no stranger's"
    assert app.snapshot().station.unknown_tags is None


@pytest.mark.note("F30")
@pytest.mark.parametrize("said", ["{}", "{}_17000000", "{:.16}"])
def test_spoilt_late_start_is_billed(said: str) -> None:
    app, reservation_id = bring_to_payment()
    tag = app.reservation(reservation_id).id_tag
    app.answer_call("Accepted")
    began = app.now()
    app.disconnect()
    app.pass_time(minutes=12)
    app.sweep()
    assert S.FAILED == app.reservation(reservation_id).state
    app.connect("B")

    answer = app.send_call(
        "StartTransaction",
        over="B",
        connectorId=1,
        idTag=said.format(tag),
        meterStart=1000,
        timestamp=began.isoformat(),
    )

    assert "Accepted" == answer["idTagInfo"]["status"]
    assert S.CHARGING == app.reservation(reservation_id).state


@pytest.mark.note("F54")
@pytest.mark.parametrize("said", ["{}_17000000", "{:.16}", "{}\0"])
def test_unnamed_stop_with_spoilt_tag_closes(said: str) -> None:
    app, reservation_id = bring_to_payment()
    tag = app.reservation(reservation_id).id_tag
    app.answer_call("Accepted")
    say_start(app, tag)

    app.send_call(
        "StopTransaction", transactionId=0, idTag=said.format(tag), meterStop=1000, timestamp=app.now().isoformat()
    )

    assert app.connector().transaction is None


# After a rejection


@pytest.mark.note("F28")
def test_rejected_start_is_asked_once_more() -> None:
    app, reservation_id = bring_to_payment()
    deadline = app.reservation(reservation_id).start_deadline

    app.answer_call("Rejected")

    first, second = sent_tags(app)
    held = app.reservation(reservation_id)
    assert (S.START_REQUESTED, Money.AUTHORIZED) == (held.state, held.money)
    assert (second, first) == (held.id_tag, held.refused_tag)
    assert (16, True) == (len(second), set(second) <= set("0123456789ABCDEF"))
    assert (deadline, deadline) == (held.start_deadline, held.expires_at)
    lock = app.connector().lock
    assert lock is not None
    assert (second, first) == (lock.id_tag, lock.refused_tag)


@pytest.mark.note("F28", "F63")
def test_second_rejection_ends_reservation() -> None:
    app, reservation_id = bring_to_payment()

    app.answer_call("Rejected")
    app.answer_call("Rejected")

    held = app.reservation(reservation_id)
    assert (S.FAILED, FailureCode.START_REJECTED, Money.RELEASED) == (held.state, held.failure_code, held.money)
    assert 2 == len(sent_tags(app))
    assert () == app.snapshot().station.learnt_quirks
    assert app.connector().lock is None


@pytest.mark.note("F25", "F26")
@pytest.mark.parametrize("answers", [[], ["Accepted"]])
def test_refused_tag_may_still_start(answers: list[str]) -> None:
    app, reservation_id = bring_to_payment()
    app.answer_call("Rejected")
    for answer in answers:
        app.answer_call(answer)

    assert "Accepted" == say_start(app, sent_tags(app)[0])

    assert S.CHARGING == app.reservation(reservation_id).state
    assert () == app.snapshot().station.learnt_quirks, "it was the usual form"


@pytest.mark.note("F28")
def test_accepted_form_is_learnt_from_start() -> None:
    app, _ = bring_to_payment()
    app.answer_call("Rejected")
    app.answer_call("Accepted")
    assert () == app.snapshot().station.learnt_quirks, "an acceptance is not a start"

    assert "Accepted" == say_start(app, sent_tags(app)[1] + "_17")

    station = app.snapshot().station
    assert ("hexadecimal_tag", "tag_up_to_16") == station.learnt_quirks == station.effective_quirks
    assert ["QuirksLearnt"] == [e.kind for e in app.store.timeline("cp1", limit=50) if e.kind.startswith("Quirks")]
    told = app.operators.station("CP1")["suggestedQuirks"]
    assert ["hexadecimal_tag", "tag_up_to_16"] == [row["quirk"] for row in told]
    assert [[f"learnt from a rejection on {app.now().date()}"]] * 2 == [row["sources"] for row in told]


@pytest.mark.note("F26")
def test_form_is_learnt_from_late_answer() -> None:
    app, reservation_id = bring_to_payment()
    app.answer_call("Rejected")
    call_id = app.frames[-1][1]

    say_start(app, sent_tags(app)[1])
    assert () == app.snapshot().station.learnt_quirks
    app.answer_call("Accepted", call_id=call_id)

    assert ("hexadecimal_tag", "tag_up_to_16") == app.snapshot().station.learnt_quirks
    assert S.CHARGING == app.reservation(reservation_id).state


@pytest.mark.note("F28")
def test_learnt_form_is_used_from_the_start() -> None:
    learnt = b.station(learnt_quirks=("hexadecimal_tag", "tag_up_to_16"), learnt_at=NOW)

    tag = web_tags.write_web_tag(generate_ids().id_tag, learnt)

    assert (16, True) == (len(tag), set(tag) <= set("0123456789ABCDEF"))
    assert () == replace(learnt, quirks=()).effective_quirks, "the operator has the last word"


def reject(before: Snapshot, said: str = "Rejected", **changes: Any) -> Snapshot:
    (call,) = before.calls
    return answer_call(before, replace(call, **changes), said, decision_context(NOW + SECOND, serial=9))


@pytest.mark.note("F28")
@pytest.mark.parametrize("quirk", [*sorted(web_tags.FORM_QUIRKS)])
def test_known_form_is_not_asked_again(quirk: str) -> None:
    before = b.start_requested_snapshot()
    known = replace(before, station=replace(before.station, suggested_quirks=(quirk,)))

    assert S.FAILED == get_reservation(reject(known)).state
    assert S.START_REQUESTED == get_reservation(reject(before)).state


@pytest.mark.note("F28")
@pytest.mark.parametrize("raw", ["Unavailable", "Faulted", "Reserved"])
def test_rejection_with_known_cause_is_final(raw: str) -> None:
    before = b.start_requested_snapshot()
    broken = before.with_connector(replace(before.connector(1), live=b.build_live_status(raw)))

    after = reject(broken)

    assert (S.FAILED, ()) == (get_reservation(after).state, after.calls)


@pytest.mark.note("F28")
@pytest.mark.parametrize("said", ["NotSupported", "NotImplemented"])
def test_station_without_remote_start_is_final(said: str) -> None:
    after = reject(b.start_requested_snapshot(), said)

    assert (S.FAILED, ()) == (get_reservation(after).state, after.calls)


@pytest.mark.note("F27", "F28")
def test_rejection_after_deadline_is_final() -> None:
    before = b.start_requested_snapshot()
    deadline = get_reservation(before).start_deadline
    assert deadline is not None
    (call,) = before.calls

    late = answer_call(before, call, "Rejected", decision_context(deadline + SECOND, serial=9))
    in_time = answer_call(before, call, "Rejected", decision_context(deadline, serial=9))

    assert (S.FAILED, S.START_REQUESTED) == (get_reservation(late).state, get_reservation(in_time).state)


@pytest.mark.note("F25", "F28")
def test_repeated_start_tries_no_other_form() -> None:
    after = reject(b.start_requested_snapshot(), repeats="call-0")

    held = get_reservation(after)
    assert (S.START_REQUESTED, None) == (held.state, held.refused_tag)


@pytest.mark.note("F28")
def test_other_form_repeats_no_start() -> None:
    before = b.start_requested_snapshot()

    after = reject(before)

    (call,) = after.calls
    held = get_reservation(after)
    assert isinstance(call.command, RemoteStart)
    assert held.id_tag == call.command.id_token.value
    assert (None, call.call_id, NOW + SECOND) == (call.repeats, held.start_command_id, call.send_at)
    assert held.start_deadline == call.expires_at
    (stored,) = [r.record for r in after.records if isinstance(r.record, IdTag)]
    assert (held.id_tag, held.reservation_id) == (stored.tag, stored.reservation_id)


def test_both_tags_are_hidden_in_kept_messages() -> None:
    app, _ = bring_to_payment()
    app.answer_call("Rejected")
    first, second = sent_tags(app)

    app.send_call("StatusNotification", connectorId=1, errorCode="NoError", status="Preparing", x=f"{first} {second}")
    app.send_call("DataTransfer", vendorId="ACME", y=f"{first[:16]}... {second.lower()}")

    texts = [entity.text for entity in app.store.entities() if isinstance(entity, KeptMessage)]
    assert 2 == len(texts)
    assert not [text for text in texts if first[:16].lower() in text.lower() or second.lower() in text.lower()]


def test_driver_is_shown_no_tag() -> None:
    app, reservation_id = bring_to_payment()
    app.answer_call("Rejected")

    shown = json.dumps([app.status(reservation_id), app.view_connector()])

    assert not [tag for tag in sent_tags(app) if tag in shown]


# Guesses


def guess(station: Station, count: int, **changes: Any) -> tuple[Station, int, list[str]]:
    """The station after so many Authorize with tags of nobody, how often it was written, and what its timeline says."""
    writes, said = 0, []
    for number in range(count):
        context = decision_context(serial=number, **changes)
        before = b.snapshot(station=station)
        after, answer = core.authorize(before, {"idTag": f"GUESS{number}"}, context)
        assert {"idTagInfo": {"status": "Invalid"}} == answer
        writes += after.station != station
        said += [r.record.kind for r in after.records]
        station = after.station
    return station, writes, said


@pytest.mark.note("F28")
def test_first_guesses_are_counted_exactly() -> None:
    station, writes, said = guess(b.station(), 20)

    assert (20, 20, []) == (getattr(station.unknown_tags, "count", None), writes, said)


@pytest.mark.note("F28")
def test_many_guesses_cost_few_writes() -> None:
    station, writes, said = guess(b.station(), 5000)

    assert station.unknown_tags is not None
    assert 2500 < station.unknown_tags.count < 10_000
    assert writes < 200
    assert ["ManyUnknownTags"] == said


@pytest.mark.note("F28")
def test_guesses_are_counted_by_day() -> None:
    station, _, _ = guess(b.station(), 3)
    tomorrow = decision_context(NOW + timedelta(days=1))

    shown = views.station_details(b.snapshot(station=station), decision_context())
    later = views.station_details(b.snapshot(station=station), tomorrow)
    after, _ = core.authorize(b.snapshot(station=station), {"idTag": "GUESS"}, tomorrow)

    assert {"day": "2026-03-01", "count": 3, "many": False} == shown["unknownTags"]
    assert later["unknownTags"] is None
    assert 1 == getattr(after.station.unknown_tags, "count", None)


@pytest.mark.note("F28", "F52")
def test_start_with_nobodys_tag_counts() -> None:
    app, _ = bring_to_payment()

    say_start(app, "STRANGER", connector=2)

    assert 1 == getattr(app.snapshot().station.unknown_tags, "count", None)


@pytest.mark.note("F28")
def test_known_tags_are_no_guesses() -> None:
    blocked = IdTag(tag="CARD", status=TagStatus.BLOCKED)
    card = replace(b.snapshot(), tag=blocked)
    own = with_tag(b.authorized_snapshot(), WEB)

    for before, said in ((card, "CARD"), (own, WEB[:18])):
        assert before == tags.count_unknown(before, IdToken(value=said), decision_context())


def find(tag: IdTag, said: str) -> IdTag | None:
    app = InProcessApp().register()
    app.store.commit([Append(tag)])
    return app.store.complete(app.snapshot(), ReadSet(id_tag=said)).tag


def with_tag(before: Snapshot, tag: str) -> Snapshot:
    held = replace(get_reservation(before), id_tag=tag)
    lock = before.connector(held.connector_id).lock
    assert lock is not None
    return replace(before, reservation=held).with_connector(
        replace(before.connector(held.connector_id), lock=replace(lock, id_tag=tag))
    )
