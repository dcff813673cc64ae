"""What is known of makes: which rows match a station, and what their quirks change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from string import digits
from typing import Any

import pytest

from csms import views
from csms.charging import start_gate, web_tags
from csms.charging.start_gate import request_start
from csms.model import Quirk, ReservationState, Save, Snapshot
from csms.ocpp.v16 import core
from csms.service import Registration, Traits, generate_ids
from csms.stations import quirks
from csms.stations.quirks import Handling, Row
from tests import builders as b
from tests.app.in_process import TARIFF, InProcessApp

GROWATT = {"chargePointVendor": "Growatt", "chargePointModel": "THOR_11AS"}
ALFEN = {"chargePointVendor": "Alfen BV", "chargePointModel": "NG910-60023"}
OCULAR = {"chargePointVendor": "EVSE Australia", "chargePointModel": "BS-EV22"}
TAG_QUIRKS = [(), (Quirk.TAG_UP_TO_19,), (Quirk.TAG_UP_TO_18,), (Quirk.TAG_UP_TO_16,), tuple(Quirk)[3:6]]


def boot(before: Snapshot, said: dict[str, str], **settings: Any) -> tuple[Snapshot, dict[str, Any]]:
    return core.boot_notification(before, said, b.decision_context(**settings))


def suggestions(snapshot: Snapshot) -> list[list[str]]:
    return [
        record.record.detail["quirks"]
        for record in snapshot.records
        if getattr(record.record, "kind", "") == "QuirksSuggested"
    ]


# The table


@pytest.mark.parametrize("row", quirks.load_table(), ids=lambda row: row.make)
def test_row_has_source_and_known_quirks(row: Row) -> None:
    assert row.sources
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+|note F\d\d", source) for source in row.sources)
    assert set(row.quirks) <= set(Quirk)
    assert row.quirks or row.max_power_w
    assert row.vendor or row.model


@pytest.mark.parametrize("row", quirks.load_table(), ids=lambda row: row.make)
def test_row_pattern_can_match(row: Row) -> None:
    vendor, model, firmware = (next(iter(patterns), "") for patterns in (row.vendor, row.model, row.firmware))

    assert row in quirks.find_rows(vendor, model, firmware)
    assert row not in quirks.find_rows("Somebody", "Else", "1.0")


def test_every_quirk_has_one_sentence() -> None:
    assert list(Quirk) == list(quirks.MEANINGS)
    assert all(re.fullmatch(r"[A-Z][^.]*\.", meaning.text) for meaning in quirks.MEANINGS.values())


def test_unreported_quirks_are_the_tag_lengths() -> None:
    """Two lengths of tags are in no report yet, and are there for an operator who meets one."""
    named = {name for row in quirks.load_table() for name in row.quirks}

    assert {Quirk.TAG_UP_TO_18, Quirk.TAG_UP_TO_16} == set(Quirk) - named


# Matching


@pytest.mark.parametrize(
    ("vendor", "model", "firmware", "found"),
    [
        ("Growatt", "THOR_11AS", None, ("repeats_start_register",)),
        ("GROWATT", "thor 11as", "", ("repeats_start_register",)),
        (" Gro-watt\x00\x00", "\tTHOR\x00", None, ("repeats_start_register",)),
        ("Growatt", "MIN 3000", None, ()),
        ("ABB", "CDT_TACW7::NET_WIFI", None, ("readings_from_zero",)),
        ("EV-BOX", "Elvi", None, ("starts_by_itself", "rejects_remote_stop")),
        ("EV-BOX", "E3160", "P0424B0424v0.220706_W2.2.0", ("starts_by_itself", "rejects_remote_stop")),
        ("EV-BOX", "E3160", " p0424b0424V1", ("starts_by_itself", "rejects_remote_stop")),
        ("EV-BOX", "E3160", "G4 P0424B0424", ()),
        ("EV-BOX", "BusinessLine", None, ()),
        ("Wall Box Chargers", "PLP1-0-2-4", None, ("rejects_remote_stop",)),
        ("Somebody", "ACChargePoint", None, ()),
        ("ACME", "One", "1.0", ()),
        (None, None, None, ()),
        ("", "", "", ()),
    ],
)
def test_station_is_matched_by_its_words(
    vendor: str | None, model: str | None, firmware: str | None, found: tuple[str, ...]
) -> None:
    assert found == quirks.suggest(vendor, model, firmware)


@pytest.mark.parametrize("vendor", ["", " ", "\x00", None])
def test_blank_vendor_matches_only_itself(vendor: str | None) -> None:
    assert "no_vendor" in quirks.suggest(vendor, "ACChargePoint", None)
    assert "no_vendor" not in quirks.suggest("Huawei", "ACChargePoint", None)


@pytest.mark.parametrize(
    ("vendor", "model", "power_w"),
    [
        ("FoxESS", "A022KP1-E-B", 22_000),
        ("Fox ESS", "A7300S1-E-2", 7_300),
        ("FoxESS", "", None),
        ("ABB", "TACW7", None),
    ],
)
def test_power_is_a_hint_only(vendor: str, model: str, power_w: int | None) -> None:
    station = b.station(vendor=vendor, model=model)

    seen = views.station_details(b.snapshot(station=station), b.decision_context())

    assert (power_w, None) == (seen["suggestedMaxPowerW"], seen["maxPowerW"])


def test_power_of_variants_is_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(
        Row(make="ACME", vendor=("acme",), max_power_w=power_w, sources=("a/b#1",)) for power_w in (7_400, 22_000, None)
    )
    monkeypatch.setattr(quirks, "load_table", lambda: rows)

    assert 22_000 == quirks.suggest_power(b.station(vendor="ACME"))


def test_quirk_names_only_its_own_reports() -> None:
    station = b.station(vendor="Alfen BV", model="Eve Single Pro-line")

    assert ("evcc-io/evcc#29374",) == quirks.find_sources(station, "first_register_is_zero")


# What a boot suggests


def test_boot_suggests_once_per_change() -> None:
    first, _ = boot(b.snapshot(), GROWATT)
    again, _ = boot(replace(first, records=()), GROWATT)
    changed, _ = boot(again, ALFEN)
    unknown, _ = boot(replace(changed, records=()), {"chargePointVendor": "v", "chargePointModel": "m"})

    assert [["repeats_start_register"]] == suggestions(first)
    assert [] == suggestions(again)
    assert [["hexadecimal_tag", "stored_readings_at_once"]] == suggestions(changed)
    assert [[]] == suggestions(unknown)
    assert () == unknown.station.suggested_quirks


def test_boot_of_unknown_make_suggests_nothing() -> None:
    after, _ = boot(b.snapshot(), {"chargePointVendor": "ACME", "chargePointModel": "One"})

    assert [] == suggestions(after)


@pytest.mark.parametrize(
    ("chosen", "suggested", "effective"),
    [
        (None, ("hexadecimal_tag",), ("hexadecimal_tag",)),
        ((), ("hexadecimal_tag",), ()),
        (("tag_up_to_16",), ("hexadecimal_tag",), ("tag_up_to_16",)),
        (("of a later release",), (), ("of a later release",)),
    ],
    ids=["as suggested", "switched off", "replaced", "unknown"],
)
def test_chosen_quirks_win_over_suggested(
    chosen: tuple[str, ...] | None, suggested: tuple[str, ...], effective: tuple[str, ...]
) -> None:
    station = b.station(quirks=chosen, suggested_quirks=suggested)

    assert effective == station.effective_quirks
    assert [quirk for quirk in Quirk if station.has_quirk(quirk)] == [q for q in Quirk if q in effective]


def test_operator_sees_quirks_with_sources() -> None:
    snapshot, _ = boot(b.snapshot(station=b.station(quirks=("tag_up_to_19",))), ALFEN)

    seen = views.station_details(snapshot, b.decision_context())

    assert (["tag_up_to_19"], ["tag_up_to_19"]) == (seen["quirks"], seen["effectiveQuirks"])
    assert {
        "quirk": "hexadecimal_tag",
        "meaning": quirks.MEANINGS[Quirk.HEXADECIMAL_TAG].text,
        "handling": Handling.ACTED_ON,
        "sources": ["lbbrhzn/ocpp#514", "lbbrhzn/ocpp#361"],
    } == seen["suggestedQuirks"][0]


def test_quirk_of_later_release_is_shown_bare() -> None:
    station = b.station(suggested_quirks=("of a later release",))

    seen = views.station_details(b.snapshot(station=station), b.decision_context())

    assert [{"quirk": "of a later release", "meaning": None, "handling": None, "sources": []}] == seen[
        "suggestedQuirks"
    ]


def bring_back_earlier_boot() -> InProcessApp:
    """A station that booted before there were quirks."""
    app = InProcessApp().register()
    app.connect("A")
    app.send_call("BootNotification", **GROWATT)
    app.store.commit([Save(replace(app.snapshot().station, suggested_quirks=()))])
    return app


def test_registration_returns_station_with_suggestion() -> None:
    app = bring_back_earlier_boot()

    station = app.stations.register("CP1", password=b"the second one", connectors=(1, 2), tariff=TARIFF)

    assert ("repeats_start_register",) == station.suggested_quirks
    assert app.snapshot().station == station


def test_registration_suggests_for_stations_booted_before() -> None:
    app = bring_back_earlier_boot()

    told = app.operators.register(Registration(identity="CP1", connectors=(1, 2), tariff=TARIFF), who="eve")

    assert ["repeats_start_register"] == [row["quirk"] for row in told["suggestedQuirks"]]
    assert [1, 2] == [row["connectorId"] for row in told["connectors"]]


def test_quirks_survive_boot_and_storage() -> None:
    app = InProcessApp().register()
    app.connect("A")
    traits = Traits(quirks=("hexadecimal_tag", "tag_up_to_16", "hexadecimal_tag"), max_power_w=22_000)
    app.operators.register(Registration(identity="CP1", connectors=(1, 2), tariff=TARIFF, traits=traits), who="eve")

    app.send_call("BootNotification", **GROWATT)

    told = app.operators.station("CP1")
    assert (["hexadecimal_tag", "tag_up_to_16"], 22_000) == (told["effectiveQuirks"], told["maxPowerW"])
    assert ["repeats_start_register"] == [row["quirk"] for row in told["suggestedQuirks"]]
    assert ["QuirksSuggested"] == [e.kind for e in app.store.timeline("cp1", limit=50) if e.kind.startswith("Quirks")]


# The tag


def write_tags(*effective: str) -> Iterator[str]:
    for _ in range(300):
        yield web_tags.write_web_tag(generate_ids().id_tag, b.station(quirks=effective))


@pytest.mark.note("F28")
@pytest.mark.parametrize("short", TAG_QUIRKS, ids=lambda names: "+".join(names) or "any length")
@pytest.mark.parametrize("hexadecimal", [False, True])
def test_tag_form_keeps_64_random_bits(short: tuple[Quirk, ...], hexadecimal: bool) -> None:
    most = min((int(quirk[-2:]) for quirk in short), default=20)
    effective = (*short, *([Quirk.HEXADECIMAL_TAG] if hexadecimal else []))

    tags = list(write_tags(*effective))

    length = most - most % 2 if hexadecimal else most
    assert {length} == set(map(len, tags))
    assert len(tags) == len(set(tags))
    assert set(digits + "ABCDEF") == set("".join(tags))
    assert 64 <= length * 4


@pytest.mark.note("F28")
def test_tag_stays_as_it_is_elsewhere() -> None:
    tag = generate_ids().id_tag

    assert tag == web_tags.write_web_tag(tag, b.station(suggested_quirks=("rejects_remote_stop",)))


@pytest.mark.note("F28")
def test_remote_start_carries_the_tag_form() -> None:
    app = InProcessApp().register()
    app.connect("A")
    app.send_call("BootNotification", **ALFEN)
    app.report_status(1, "Available")

    reservation_id = app.create_reservation()
    app.pay(reservation_id)
    app.confirm(reservation_id)

    tag = app.reservation(reservation_id).id_tag
    assert re.fullmatch(r"[0-9A-F]{20}", tag)
    assert [tag] == [frame[3]["idTag"] for frame in app.frames if frame[2] == "RemoteStartTransaction"]
    app.start_transaction(tag)
    assert ReservationState.CHARGING == app.reservation(reservation_id).state


# The plug and the socket


@pytest.mark.note("F24", "F32")
def test_start_waits_for_plug_at_such_makes() -> None:
    before = b.authorized_snapshot()
    station = replace(before.station, suggested_quirks=("start_needs_plug",))
    free = replace(before, station=station).with_connector(
        replace(before.connector(1), live=b.build_live_status("Available"))
    )
    plugged = free.with_connector(replace(before.connector(1), live=b.build_live_status("Preparing")))
    switched_off = replace(free, station=replace(station, quirks=()))
    context = b.decision_context(serial=5)
    held = free.reservation
    assert held is not None

    assert ("Plug",) == start_gate.start_blockers(free, held, context)
    assert () == start_gate.start_blockers(plugged, held, context)
    assert () == start_gate.start_blockers(switched_off, held, context)
    assert free.calls == request_start(free, context).calls
    assert free.calls != request_start(plugged, context).calls


@pytest.mark.parametrize(
    ("heartbeat", "interval"), [(timedelta(minutes=5), 60), (timedelta(seconds=60), 60), (timedelta(seconds=30), 30)]
)
def test_silent_socket_gets_short_heartbeat(heartbeat: timedelta, interval: int) -> None:
    _, told = boot(b.snapshot(), OCULAR, heartbeat=heartbeat)
    _, switched_off = boot(b.snapshot(station=b.station(quirks=())), OCULAR, heartbeat=heartbeat)

    assert (interval, heartbeat.total_seconds()) == (told["interval"], switched_off["interval"])
