"""A claim to send, and the line of frames: the same answers from the fake, moto and every engine."""

from dataclasses import replace
from datetime import timedelta

import pytest

from csms.errors import Conflict
from csms.model import CallState, Claim, Drop, Save, Turn, WaitingFrame
from tests.contracts.store.entities import CALL, LATER, NOW, PRESENCE, STATION

FRAME = WaitingFrame(
    station_id="cp1",
    frame_id="f1",
    connection_id="abc=",
    protocol="ocpp1.6",
    received_at=NOW,
    text='[2,"1","Heartbeat",{}]',
    expires_at=LATER,
)
UNTIL = NOW + timedelta(seconds=8)


def take(store, turn, holder="me", until=UNTIL, now=NOW):
    return store.take_turn(replace(turn, holder=holder, held_until=until, due_at=until), now)


@pytest.mark.note("F43")
def test_claim_marks_call_as_sent(store):
    store.commit([Save(STATION), Save(PRESENCE), Save(CALL)])

    store.commit([Claim("cp1", 1, CALL.call_id, LATER)])

    snapshot = store.snapshot("cp1")
    assert [(CallState.SENT, LATER, 1)] == [(call.state, call.due_at, call.version) for call in snapshot.calls]
    claimed = replace(PRESENCE, awaited_call_id=CALL.call_id, awaited_until=LATER, version=2)
    assert claimed == snapshot.presence


@pytest.mark.note("F43")
@pytest.mark.parametrize("version", [1, 3])
def test_second_claim_is_refused(store, version):
    store.commit([Save(STATION), Save(PRESENCE), Save(CALL)])
    store.commit([Claim("cp1", 1, CALL.call_id, LATER)])

    with pytest.raises(Conflict):
        store.commit([Claim("cp1", version, "another", LATER)])

    assert CALL.call_id == store.snapshot("cp1").presence.awaited_call_id


def test_claim_of_absent_station_is_refused(store):
    with pytest.raises(Conflict):
        store.commit([Claim("cp1", 1, CALL.call_id, LATER)])


def test_each_join_moves_the_version(store, table):
    first = store.join_line(FRAME, NOW)
    second = store.join_line(replace(FRAME, frame_id="f2"), LATER)

    assert [Turn(station_id="cp1", due_at=NOW, version=n) for n in (1, 2)] == [first, second]
    assert second == store.turn("cp1")
    assert store.turn("cp2") is None


def test_line_is_in_order_of_receipt(store):
    for number in (3, 1, 2):
        store.join_line(replace(FRAME, frame_id=f"f{number}", received_at=NOW + timedelta(milliseconds=number)), NOW)
    store.join_line(replace(FRAME, station_id="cp2"), NOW)

    assert ["f1", "f2"] == [frame.frame_id for frame in store.line("cp1", limit=2)]
    assert [replace(FRAME, station_id="cp2", version=1)] == list(store.line("cp2", limit=9))
    assert () == store.line("cp3", limit=9)


def test_turn_has_one_holder(store):
    turn = store.join_line(FRAME, NOW)
    mine = take(store, turn)

    with pytest.raises(Conflict):
        take(store, turn, "another")

    assert ("me", UNTIL, UNTIL, 2) == (mine.holder, mine.held_until, mine.due_at, mine.version)
    assert mine == store.turn("cp1")
    assert mine == replace(store.join_line(replace(FRAME, frame_id="f2"), NOW), version=2)


def test_turn_is_taken_over_after_its_lease(store):
    turn = store.join_line(FRAME, NOW)
    take(store, turn)

    taken = take(store, turn, "another", LATER, UNTIL)

    assert "another" == taken.holder
    with pytest.raises(Conflict):
        store.hand_over_turn(replace(taken, holder="me"), UNTIL)


def test_ended_line_cannot_be_taken(store):
    turn = store.join_line(FRAME, NOW)
    store.commit([Drop(turn)])

    with pytest.raises(Conflict):
        take(store, turn)
    assert store.turn("cp1") is None


def test_line_with_new_frame_does_not_end(store):
    mine = take(store, store.join_line(FRAME, NOW))
    store.join_line(replace(FRAME, frame_id="f2"), NOW)

    with pytest.raises(Conflict):
        store.commit([Drop(mine)])


def test_handed_over_turn_is_free(store):
    mine = take(store, store.join_line(FRAME, NOW))

    store.hand_over_turn(mine, LATER)

    free = store.turn("cp1")
    assert (None, None, LATER) == (free.holder, free.held_until, free.due_at)
    assert "another" == take(store, free, "another", LATER, NOW).holder


def test_waiting_line_is_due(store):
    turn = store.join_line(FRAME, NOW)
    due = [item for shard in range(4) for item in store.due_items(NOW, shard=shard, page=9)]
    take(store, turn)
    held = [item for shard in range(4) for item in store.due_items(NOW, shard=shard, page=9)]

    assert [turn] == due
    assert [] == held
