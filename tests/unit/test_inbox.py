"""What do operators see of connections that were refused, however many there are?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms.adapters.dynamodb import to_item
from csms.errors import BadRequest, CsmsError, NotFound, TooManyGuesses, Unauthorized
from csms.model import Append, InboxSlot, RefusedConnections, TimelineEntry, UnknownStation, Write, format_time
from csms.service import Handshake, Stations
from csms.stations import credentials, knocks
from tests.app.in_process import InProcessApp
from tests.builders import basic_auth_header
from tests.unit.test_operators import WANTED, WHO

HERE = Handshake(path="/ocpp/New-1", address="192.0.2.7", user_agent="Acme/1.2")
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


@pytest.fixture
def written(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Write]]:
    """The minute of every write from now on, also of one that fails, and what was written."""
    writes: list[tuple[Any, Write]] = []
    commit = app.store.commit

    def count(wanted: Iterable[Write]) -> None:
        wanted = list(wanted)
        writes.extend((app.clock().replace(second=0, microsecond=0), write) for write in wanted)
        commit(wanted)

    monkeypatch.setattr(app.store, "commit", count)
    return writes


def knock(
    app: InProcessApp,
    identity: str,
    *,
    offered: Iterable[str] = ("ocpp1.6",),
    handshake: Handshake = HERE,
    stations: Stations | None = None,
) -> None:
    """An unknown station tries to connect."""
    with pytest.raises(NotFound):
        (stations or app.stations).connect(
            identity,
            authorization=basic_auth_header(identity, b"x"),
            offered=offered,
            connection_id="Z",
            handshake=handshake,
        )


def guess(
    app: InProcessApp, password: bytes = b"wrong", *, address: str | None = "192.0.2.7", offered: str = "ocpp1.6"
) -> CsmsError | None:
    """The refusal of a connection with this password; None if it is let in."""
    try:
        app.stations.connect(
            app.identity,
            authorization=basic_auth_header(app.identity, password),
            offered=(offered,),
            connection_id="B",
            handshake=replace(HERE, address=address),
        )
    except (Unauthorized, TooManyGuesses, BadRequest) as refused:
        return refused
    return None


def list_unknown(app: InProcessApp, limit: int = 50) -> list[Any]:
    rows: list[Any] = app.operators.unknown_stations(limit=limit)["unknownStations"]
    return rows


# Unknown stations


@pytest.mark.note("F49")
def test_unknown_station_shows_its_last_attempt(app: InProcessApp) -> None:
    begun = app.clock()
    knock(app, "New-1", offered=(" soap", ""))
    app.clock.move(MINUTE)
    knock(app, "New-1")
    app.clock.move(5 * MINUTE)
    knock(app, "NEW-1", offered=("ocpp1.6", "ocpp2.0.1"))

    assert [
        {
            "stationId": "new-1",
            "identity": "NEW-1",
            "steady": True,
            "firstSeenAt": format_time(begun),
            "lastSeenAt": format_time(app.clock()),
            "times": 3,
            "subprotocols": ["ocpp1.6", "ocpp2.0.1"],
            "path": "/ocpp/New-1",
            "address": "192.0.2.7",
            "userAgent": "Acme/1.2",
            "reasons": ["UnknownStation"],
        }
    ] == list_unknown(app)


@pytest.mark.note("F49")
@pytest.mark.parametrize(
    ("offered", "authorization", "reasons"),
    [
        (("OCPP1.6",), basic_auth_header("X", b"x"), ["UnknownStation"]),
        (("ocpp1.5", "soap"), basic_auth_header("X", b"x"), ["UnknownStation", "NoSubprotocol"]),
        ((), None, ["UnknownStation", "NoSubprotocol", "NoCredentials"]),
        (("ocpp1.6",), basic_auth_header("Y", b"x"), ["UnknownStation", "NoCredentials"]),
    ],
)
def test_reasons_name_what_registration_leaves(
    app: InProcessApp, offered: tuple[str, ...], authorization: str | None, reasons: list[str]
) -> None:
    with pytest.raises(NotFound):
        app.stations.connect("X", authorization=authorization, offered=offered, connection_id="Z")

    assert reasons == list_unknown(app)[0]["reasons"]


@pytest.mark.note("F49")
def test_stored_texts_are_short_and_printable(app: InProcessApp) -> None:
    nasty = "\x1b[2J\u202e" + "x" * 9_000
    offers = [f"{nasty}{number}" for number in range(100)]
    handshake = Handshake(path=nasty, address=nasty, user_agent=nasty)
    knock(app, "é" * 48, offered=offers, handshake=handshake)
    for _ in range(20):
        app.stations._guesses = knocks.Guesses()
        guess(app, offered=nasty)
        with pytest.raises(BadRequest):
            app.stations.connect(
                app.identity,
                authorization=basic_auth_header(app.identity, app.password),
                offered=offers,
                connection_id="B",
                handshake=handshake,
            )
        app.clock.move(2 * MINUTE)

    items = [to_item(e) for e in app.store.entities() if isinstance(e, (UnknownStation, RefusedConnections))]
    assert 2 == len(items)
    assert all(len(str(item).encode()) < 10_000 for item in items)
    assert all(str(value).isprintable() for item in items for value in item.values())
    assert "\\u001b[2J\\u202e" in items[1]["user_agent"]


@pytest.mark.note("F49")
@pytest.mark.parametrize(
    ("offered", "pause", "steady"),
    [
        ("ocpp1.6", 5 * MINUTE, True),
        ("ocpp2.1", 5 * MINUTE, True),
        ("soap", 5 * MINUTE, False),
        ("ocpp1.6", 5 * MINUTE - SECOND, False),
    ],
)
def test_steady_station_offered_ocpp_twice(app: InProcessApp, offered: str, pause: timedelta, steady: bool) -> None:
    knock(app, "zz", offered=(offered,))
    knock(app, "aa")
    app.clock.move(pause)
    knock(app, "zz", offered=(offered,))

    rows = [(row["identity"], row["steady"]) for row in list_unknown(app)]
    assert [("zz", True), ("aa", False)] == rows if steady else [("aa", False), ("zz", False)] == rows


@pytest.mark.note("F49")
def test_flood_hides_no_honest_station(app: InProcessApp, written: list[tuple[Any, Write]]) -> None:
    honest = ("Ägypten-1", "zz-last")
    for number in range(2_000):
        if number % 200 == 100:  # Each minute, in the midst of the flood, which goes on for ten.
            for identity in honest:
                knock(app, identity)
        knock(app, f"A-{number:04}")
        app.clock.move(0.3 * SECOND)

    assert ["zz-last", "Ägypten-1"] == [row["identity"] for row in list_unknown(app, limit=10)][:2]
    a_minute = Counter(minute for minute, _ in written)
    assert max(a_minute.values()) <= 2 * sum(knocks.PER_MINUTE.values())
    assert len(written) <= 11 * 2 * knocks.PER_MINUTE[knocks.NEWCOMER] + 2 * 2 * 3
    listed, after, pages = 0, None, 0
    while pages == 0 or after is not None:
        page = app.operators.unknown_stations(limit=100, after=after)
        listed, after, pages = listed + len(page["unknownStations"]), page["next"], pages + 1
    assert listed <= 11 * knocks.PER_MINUTE[knocks.NEWCOMER] + 2
    assert pages <= 3


@pytest.mark.note("F49")
def test_processes_share_the_writes_of_a_minute(app: InProcessApp, written: list[tuple[Any, Write]]) -> None:
    processes = [Stations(app.dependencies()) for _ in range(6)]
    for number in range(300):
        knock(app, f"A-{number}", stations=processes[number % 6])

    slots = [write for _, write in written if isinstance(write, Append) and isinstance(write.record, InboxSlot)]
    entries = [e for e in app.store.entities() if isinstance(e, UnknownStation)]
    assert 5 <= len(entries) <= knocks.PER_MINUTE[knocks.NEWCOMER]
    # Each process fails once, and then tries no more in this minute.
    assert len(entries) <= len(slots) <= len(entries) + 6
    app.clock.move(MINUTE)
    knock(app, "later", stations=processes[0])
    assert "later" in [e.identity for e in app.store.entities() if isinstance(e, UnknownStation)]


@pytest.mark.note("F49")
def test_returning_names_leave_room_for_new(app: InProcessApp) -> None:
    for minute in range(12):
        for number in range(200):
            knock(app, f"A-{number}")
        knock(app, f"new-{minute}")
        app.clock.move(MINUTE)

    taken = Counter((e.minute, e.kind) for e in app.store.entities() if isinstance(e, InboxSlot))
    assert {kind: max(n for (_, k), n in taken.items() if k == kind) for kind in knocks.PER_MINUTE} == knocks.PER_MINUTE


@pytest.mark.note("F49")
def test_restarted_process_recognizes_steady_station(app: InProcessApp) -> None:
    for _ in range(3):
        knock(app, "New-1", stations=Stations(app.dependencies()))
        app.clock.move(5 * MINUTE)

    (row,) = list_unknown(app)
    assert (True, 3) == (row["steady"], row["times"])


@pytest.mark.note("F49")
def test_quick_retries_are_counted_not_written(
    app: InProcessApp, written: list[tuple[Any, Write]], monkeypatch: pytest.MonkeyPatch
) -> None:
    find, read = app.store.unknown_station, list[str]()
    monkeypatch.setattr(app.store, "unknown_station", lambda name: read.append(name) or find(name))
    for _ in range(61):
        knock(app, "New-1")
        app.clock.move(10 * SECOND)

    assert 61 == list_unknown(app)[0]["times"]
    # A slot and an entry, three times; once the entry moves to the other list.
    assert 7 == len(written)
    assert 3 == len(read)


@pytest.mark.note("F49")
def test_memory_of_names_is_bounded(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocks, "MOST_REMEMBERED", 20)
    for number in range(100):
        knock(app, f"A-{number}")
        knock(app, "honest")
        app.stations._guesses.count(f"A-{number}", None, app.clock())

    assert 20 == len(app.stations._inbox._unknown._names) == len(app.stations._guesses._windows)
    assert "honest" in app.stations._inbox._unknown._names


@pytest.mark.note("F13", "F49")
@pytest.mark.parametrize("come", [1, 2], ids=["passing", "steady"])
def test_registered_station_leaves_either_list(app: InProcessApp, come: int) -> None:
    for _ in range(come):
        knock(app, "CP8")
        app.clock.move(5 * MINUTE)
    app.operators.accept(replace(WANTED, identity="cp8"), who=WHO)
    assert [] == list_unknown(app)

    app.operators.delete("CP8", who=WHO)
    knock(app, "CP8")
    app.clock.move(5 * MINUTE)
    knock(app, "CP8")
    assert ["CP8"] == [row["identity"] for row in list_unknown(app)]


# Refused connections of registered stations


@pytest.mark.note("F17")
def test_refused_connections_are_shown_at_station(app: InProcessApp) -> None:
    begun = app.clock()
    assert {"counts": [], "latest": []} == app.operators.refused_connections("CP1")
    guess(app)
    guess(app)
    app.clock.move(MINUTE)
    guess(app, address="2001:db8::1")
    guess(app, app.password, offered="ocpp1.5")

    shown = app.operators.refused_connections("CP1")
    times = {
        "firstAt": format_time(begun),
        "lastAt": format_time(app.clock()),
    }
    assert {"reason": "Unauthorized", "times": 3} | times in shown["counts"]
    assert {"reason": "NoSubprotocol", "times": 1} | times | {"firstAt": times["lastAt"]} in shown["counts"]
    assert ["ocpp1.5", "ocpp1.6", "ocpp1.6"] == [row["subprotocols"][0] for row in shown["latest"]]
    assert ["192.0.2.7", "2001:db8::1", "192.0.2.7"] == [row["address"] for row in shown["latest"]]
    assert {"Acme/1.2"} == {row["userAgent"] for row in shown["latest"]}
    assert shown["counts"] == app.operators.station("CP1")["refusedConnections"]
    with pytest.raises(NotFound):
        app.operators.refused_connections("CP9")


@pytest.mark.note("F17")
def test_guesser_causes_one_write_a_minute(app: InProcessApp, written: list[tuple[Any, Write]]) -> None:
    app.bring_online("A")
    live = list(app.store.snapshot("cp1").connectors.values())
    written.clear()
    for number in range(1_000):
        guess(app, b"guess %d" % number, address=f"192.0.2.{number % 250}")
        app.clock.move(0.6 * SECOND)

    assert 1 == sum(isinstance(getattr(write, "record", None), TimelineEntry) for _, write in written)
    assert len(written) <= 12
    assert max(Counter(minute for minute, _ in written).values()) <= 2
    shown = app.operators.refused_connections("CP1")
    assert knocks.MOST_LATEST == len(shown["latest"])
    assert 900 < shown["counts"][0]["times"] <= 1_000
    assert live == list(app.store.snapshot("cp1").connectors.values())
    assert not app.store.snapshot("cp1").foreign


@pytest.mark.note("F17")
def test_refusals_of_other_process_count_for_interval(app: InProcessApp, written: list[tuple[Any, Write]]) -> None:
    for _ in range(5):
        app.stations = Stations(app.dependencies())
        guess(app)

    assert 2 == len(written), "the refusal, and its line in the timeline"


@pytest.mark.note("F17")
def test_refusals_begin_episodes_in_timeline(app: InProcessApp) -> None:
    for pause in (MINUTE, 2 * MINUTE, knocks.EPISODE, MINUTE):
        guess(app)
        app.clock.move(pause)
    guess(app, app.password, offered="ocpp1.5")

    lines = [entry for entry in app.store.timeline("cp1", limit=50) if entry.kind == "ConnectionRefused"]
    assert ["NoSubprotocol", "Unauthorized", "Unauthorized"] == [entry.detail["reason"] for entry in lines]
    assert {"192.0.2.7"} == {entry.detail["address"] for entry in lines}


@pytest.mark.note("F17")
def test_old_refused_connections_are_forgotten(app: InProcessApp) -> None:
    guess(app)
    app.clock.move(knocks.RETENTION)
    assert {"counts": [], "latest": []} == app.operators.refused_connections("CP1")
    assert [] == app.operators.station("CP1")["refusedConnections"]

    guess(app)
    assert [1, 1] == [len(rows) for rows in app.operators.refused_connections("CP1").values()]


# Guessing


@pytest.mark.note("F17")
def test_guesses_are_slowed_by_station_and_address(app: InProcessApp) -> None:
    kinds = [type(guess(app)) for _ in range(knocks.GUESSES + 2)]

    assert [*[Unauthorized] * knocks.GUESSES, TooManyGuesses, TooManyGuesses] == kinds
    assert Unauthorized is type(guess(app, address="192.0.2.8"))
    assert Unauthorized is type(guess(app.at("CP2").register()))
    app.clock.move(4 * MINUTE)
    refused = guess(app)
    assert isinstance(refused, TooManyGuesses)
    assert 360 == refused.wait_seconds
    app.clock.move(6 * MINUTE)
    assert Unauthorized is type(guess(app))


@pytest.mark.note("F17")
def test_right_password_is_never_slowed(app: InProcessApp) -> None:
    for _ in range(50):
        guess(app)
    assert guess(app, app.password) is None
    assert TooManyGuesses is type(guess(app))
    assert guess(app, app.password) is None


@pytest.mark.note("F17", "F47")
def test_guesses_at_connected_station_cost_no_scrypt(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app.bring_online("A")
    verify: Callable[[bytes, str], bool] = credentials.verify_password
    derived: list[bytes] = []
    monkeypatch.setattr(credentials, "verify_password", lambda p, stored: derived.append(p) or verify(p, stored))
    for number in range(100):
        guess(app, b"guess %d" % number)

    assert [] == derived
    assert guess(app, app.password) is None
