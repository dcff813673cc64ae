"""Which identities a station can have, and that an accepted one is accepted in every address."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csms.errors import BadRequest, NotFound, Unauthorized
from csms.model import Save, Station, UnknownStation, fold
from csms.service import Registration
from csms.stations import identities
from csms_http import HttpApi
from tests.app.in_process import TARIFF, InProcessApp
from tests.builders import basic_auth_header

PASSWORD = b"correct horse"
WANTED = Registration(identity="CP9", connectors=(1,), tariff=TARIFF, password=PASSWORD)


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


def connect(app: InProcessApp, identity: str, *, password: bytes = PASSWORD, offered: str = "ocpp1.6") -> str:
    return app.stations.connect(
        identity,
        authorization=basic_auth_header(identity.encode(), password),
        offered=offered.split(","),
        connection_id=f"of {identity} {offered}",
    )


def register_as_0_4_0(app: InProcessApp, identity: str) -> Station:
    """The station as releases up to 0.4.0 stored it."""
    app.at(identity).register()
    station = app.store.snapshot(fold(identity)).station
    older = replace(station, station_id=identity.casefold(), version=0)
    app.operators.delete(identity, who="eve")
    app.store.commit([Save(older)])
    return older


REFUSED = [
    "",
    "C" * 49,
    "ä" * 49,
    "A/B",
    "/",
    ".",
    "..",
    " CP1",
    "CP1 ",
    "CP\n1",
    "CP1\n",
    "\x00",
    "CP\x1b[2J",
    "CP\x7f",
    "CP\x9b2J",
    "CP\u2028",
    "\u202eCP",
    "CP\u200b1",
    "CP\u00a01",
    "\ud800",
]


@pytest.mark.parametrize("identity", REFUSED, ids=ascii)
def test_impossible_identity_is_refused_in_print(app: InProcessApp, identity: str) -> None:
    before = app.store.entities()

    with pytest.raises(BadRequest, match=r"\AstationId: must be an identity ") as refused:
        app.operators.register(replace(WANTED, identity=identity), who="eve")

    assert refused.value.message.isprintable()
    assert before == app.store.entities()


@pytest.mark.note("F49")
@pytest.mark.parametrize("identity", [one for one in REFUSED if one != "\ud800"], ids=ascii)
def test_station_with_impossible_identity_is_400(app: InProcessApp, identity: str) -> None:
    before = app.store.entities()

    with pytest.raises(BadRequest) as refused:
        connect(app, identity)

    assert "InvalidIdentity" == refused.value.code
    assert refused.value.message.isprintable()
    assert before == app.store.entities()


@pytest.mark.note("F49")
def test_known_station_with_impossible_identity_connects(app: InProcessApp) -> None:
    station = app.store.snapshot("cp1").station
    app.store.commit([Save(replace(station, station_id="cp\x7f", identity="CP\x7f", version=0))])

    assert "ocpp1.6" == connect(app, "CP\x7f")
    with pytest.raises(Unauthorized):
        connect(app, "CP\x7f", password=b"wrong")


@given(identity=st.text(min_size=1, max_size=48))
@example(identity='"#?\\`^{}[]|<>%')
@example(identity="%2F")
@example(identity="e\u0301")
@example(identity="🔌" * 48)
@example(identity="..a")
def test_possible_identity_fits_every_address(identity: str) -> None:
    if identities.find_problem(identity) is not None:
        return
    seen: list[Any] = []
    api = HttpApi()
    api.get("/stations/<identity>/connectors/<connector_id>")(lambda **named: seen.append(named) or {})
    event = {"version": "2.0", "rawPath": f"/stations/{identity}/connectors/1", "headers": {}}
    event["requestContext"] = {"stage": "$default", "http": {"method": "GET"}}

    assert 200 == api.resolve(event, None)["statusCode"]  # type: ignore[arg-type]

    assert [{"identity": identity, "connector_id": "1"}] == seen


@pytest.mark.note("F13")
@pytest.mark.parametrize("identity", ['"', "#1", "A?b=c", "back\\slash", "STRASSE-1", "straße-1", "ÄÖ", "CP 1", "电桩"])
def test_possible_identity_works_everywhere(app: InProcessApp, identity: str) -> None:
    with pytest.raises(NotFound):
        connect(app, identity)
    (knocked,) = [e for e in app.store.entities() if isinstance(e, UnknownStation)]
    app.operators.accept(replace(WANTED, identity=knocked.identity), who="eve")

    connect(app, identity)

    assert identity == app.operators.station(identity)["identity"]
    assert app.drivers.connector(identity, 1)
    app.operators.delete(identity, who="eve")
    with pytest.raises(NotFound):
        app.operators.station(identity)


@pytest.mark.note("F13")
@pytest.mark.parametrize(("one", "other"), [("STRASSE-1", "straße-1"), ("ÄÖ", "äö"), ("ſ", "s"), ("ΣΑΣ", "σασ")])
def test_stations_beyond_ascii_stay_apart(app: InProcessApp, one: str, other: str) -> None:
    for identity in (one, other):
        app.operators.register(replace(WANTED, identity=identity, password=f"of {identity}".encode()), who="eve")

    for identity in (one, other):
        assert identity == app.operators.station(identity)["identity"]
        connect(app, identity, password=f"of {identity}".encode())


@pytest.mark.note("F13")
@pytest.mark.parametrize("identity", ["Straße-1", "LADESÄULE", "ǅ"])
def test_station_of_older_release_keeps_working(app: InProcessApp, identity: str) -> None:
    older = register_as_0_4_0(app, identity)

    connect(app, identity)
    app.operators.register(replace(WANTED, identity=identity, free=True), who="eve")

    assert app.store.snapshot(older.station_id).station.free
    assert {"messages": [], "next": None} == app.operators.messages(identity, limit=1)
    assert app.operators.commands(identity, limit=1)
    with pytest.raises(NotFound):
        app.store.snapshot(fold(identity))
    assert app.drivers.connector(identity, 1)
    app.operators.delete(identity, who="eve")
    app.operators.register(replace(WANTED, identity=identity), who="eve")
    assert identity == app.store.snapshot(fold(identity)).station.identity


@pytest.mark.note("F13")
def test_older_station_is_never_overwritten(app: InProcessApp) -> None:
    older = register_as_0_4_0(app, "straße-1")
    before = app.store.snapshot(older.station_id)

    with pytest.raises(BadRequest, match='stored the station "straße-1" under this name'):
        app.operators.register(replace(WANTED, identity="STRASSE-1"), who="eve")
    app.operators.register(replace(WANTED, identity="STRAßE-2"), who="eve")

    assert before == app.store.snapshot(older.station_id)
    assert "STRAßE-2" == app.operators.station("straße-2")["identity"]


@pytest.mark.note("F48")
@pytest.mark.parametrize("offered", ["OCPP1.6", "Ocpp1.6", "ocpp2.0.1, OCPP1.6, ocpp1.6", "ocpp9.9,ocpp1.6 ,OCPP1.6"])
def test_subprotocol_is_answered_as_offered(app: InProcessApp, offered: str) -> None:
    chosen = connect(app, "CP1", offered=offered)

    assert chosen == next(one.strip() for one in offered.split(",") if one.strip().lower() == "ocpp1.6")
    assert "ocpp1.6" == app.presence().protocol
