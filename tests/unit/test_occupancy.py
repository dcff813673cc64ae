"""When is a connector busy? The founding note's decision matrix row by row, and what went wrong in the field."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from csms import occupancy, texts, views
from csms.adapters.dynamodb import from_item, to_item
from csms.charging import checkout, status
from csms.charging.reservation import LOCKING_STATES
from csms.charging.start_gate import request_start, start_blockers
from csms.errors import ChargerOffline, ConnectorBusy, NotFound
from csms.model import (
    Connector,
    ConnectorStatus,
    FailureCode,
    PersistedStatus,
    Policy,
    ReservationState,
    Snapshot,
    StatusSource,
)
from csms.occupancy import busy_reasons, coarse_status, explain, public_status
from csms.occupancy.explanation import NOT_READY, SHARED_TEXTS
from csms.ocpp.v16 import core
from csms.ocpp.v16.values import read_state
from tests import builders as b
from tests.builders import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    build_live_status,
    build_persisted_status,
    connector,
    lock,
    open_transaction,
    snapshot,
)

POLICY = Policy()
MICROSECOND = timedelta(microseconds=1)


def reasons(seen: Snapshot, connector_id: int = 1, **asked: Any) -> tuple[str, ...]:
    return busy_reasons(seen, connector_id, **({"now": NOW, "policy": POLICY} | asked))


def silent_connector(**changes: Any) -> Connector:
    """A connector of which nothing live is known."""
    return connector(live=None, **changes)


MATRIX = {
    "the WebSocket is missing": (snapshot(presence=None), ("ChargerOffline",)),
    "the WebSocket is closed": (snapshot(presence=b.presence(connection_id=None)), ("ChargerOffline",)),
    "live Available, nothing open, nobody's": (snapshot(), ()),
    "live Occupied": (snapshot(connector(live=build_live_status("Occupied"))), ("LiveStatus:Occupied",)),
    "live Unavailable": (snapshot(connector(live=build_live_status("Unavailable"))), ("LiveStatus:Unavailable",)),
    "live Faulted": (snapshot(connector(live=build_live_status("Faulted"))), ("LiveStatus:Faulted",)),
    "nothing live, persisted Occupied and fresh": (
        snapshot(silent_connector(persisted=build_persisted_status("Occupied"))),
        ("PersistedStatus:Occupied",),
    ),
    "nothing live, persisted Unavailable and fresh": (
        snapshot(silent_connector(persisted=build_persisted_status("Unavailable"))),
        ("PersistedStatus:Unavailable",),
    ),
    "nothing live, persisted Faulted and fresh": (
        snapshot(silent_connector(persisted=build_persisted_status("Faulted"))),
        ("PersistedStatus:Faulted",),
    ),
    "nothing live, persisted Available": (
        snapshot(silent_connector(persisted=build_persisted_status("Available"))),
        (),
    ),
    "nothing live, persisted Occupied and stale": (
        snapshot(silent_connector(persisted=build_persisted_status("Occupied", NOW - HOUR))),
        (),
    ),
    "nothing live, nothing persisted": (snapshot(silent_connector()), ()),
    "live Available, persisted Occupied and fresh": (
        snapshot(connector(persisted=build_persisted_status("Occupied"))),
        (),
    ),
    "an open transaction": (snapshot(connector(transaction=open_transaction())), ("OpenTransaction",)),
    **{
        f"a reservation that is {state}": (snapshot(connector(lock=lock(state))), ("ActiveReservation",))
        for state in sorted(LOCKING_STATES)
    },
}


@pytest.mark.note("F08")
@pytest.mark.parametrize(("seen", "expected"), MATRIX.values(), ids=MATRIX)
def test_busy_reasons_match_decision_matrix(seen: Snapshot, expected: tuple[str, ...]) -> None:
    assert expected == reasons(seen)


@pytest.mark.note("F01")
@pytest.mark.parametrize(("seen", "expected"), MATRIX.values(), ids=MATRIX)
def test_create_and_public_page_match_rule(seen: Snapshot, expected: tuple[str, ...]) -> None:
    told: tuple[str, ...] = ()
    try:
        checkout.create(seen, 1, b.decision_context())
    except ConnectorBusy as busy:
        told = busy.reasons
    except ChargerOffline as offline:
        told = (offline.code,)
    page = views.connector(seen, 1, b.decision_context())

    assert expected == told
    assert (not expected, list(expected)) == (page["startable"], page["reasons"])


@pytest.mark.note("F01")
@pytest.mark.parametrize(("seen", "expected"), MATRIX.values(), ids=MATRIX)
def test_start_gate_matches_busy_rule(seen: Snapshot, expected: tuple[str, ...]) -> None:
    paid = b.authorized_snapshot()
    held = b.get_reservation(paid)
    changed_connector = seen.connector(1)
    mine = changed_connector.lock is None or changed_connector.lock.reservation_id == held.reservation_id
    gate = replace(
        seen.with_connector(
            replace(changed_connector, lock=paid.connector(1).lock if mine else changed_connector.lock)
        ),
        reservation=held,
    )

    assert (not expected) == (request_start(gate, b.decision_context()) != gate)
    assert expected == start_blockers(gate, held, b.decision_context())


@pytest.mark.note("F01")
@pytest.mark.parametrize(("seen", "expected"), MATRIX.values(), ids=MATRIX)
def test_operator_views_and_log_match_rule(seen: Snapshot, expected: tuple[str, ...]) -> None:
    line = views.station(seen, b.decision_context())
    fleet = line["connectors"][0]
    answer = views.occupancy_explanation(seen, 1, (), (), b.decision_context())
    logged = occupancy.verdict(seen, 1, now=NOW, policy=POLICY)["predicates"]

    assert (not expected, list(expected)) == (fleet["startable"], fleet["reasons"])
    assert bool({*expected} - {"ChargerOffline"}) == ("busy" in line["states"])
    assert (not expected, list(expected)) == (answer["startable"], answer["reasons"])
    assert list(expected) == [reason for reason in logged.values() if reason is not None]  # type: ignore[attr-defined]


@pytest.mark.note("F01", "F64")
@pytest.mark.parametrize(("seen", "expected"), MATRIX.values(), ids=MATRIX)
def test_payment_without_lock_follows_busy_rule(seen: Snapshot, expected: tuple[str, ...]) -> None:
    late = replace(seen, reservation=b.pending_payment_snapshot().reservation)

    after = b.get_reservation(checkout.apply_payment(late, b.payment(), b.decision_context(serial=2)))

    assert (FailureCode.CONNECTOR_TAKEN if expected else None) == after.failure_code


@pytest.mark.note("F02")
def test_all_reasons_follow_seed_order() -> None:
    everything = connector(
        live=build_live_status("Faulted"),
        transaction=open_transaction(),
        lock=lock(),
        persisted=build_persisted_status("Unavailable"),
    )

    assert ("ChargerOffline", "LiveStatus:Faulted", "OpenTransaction", "ActiveReservation") == reasons(
        snapshot(everything, presence=b.presence(connection_id=None))
    )
    assert ("ChargerOffline", "OpenTransaction", "ActiveReservation", "PersistedStatus:Unavailable") == reasons(
        snapshot(replace(everything, live=None), presence=None)
    )


@pytest.mark.note("F02")
def test_every_reason_has_driver_text() -> None:
    assert {reason for _, row in MATRIX.values() for reason in row} <= {*SHARED_TEXTS, *texts.TEXTS["en"]}
    assert texts.TEXTS["en"][NOT_READY] == texts.reason_text("LiveStatus:Something")
    assert "offline" in texts.reason_text("ChargerOffline")


@pytest.mark.note("F02")
def test_first_reason_is_headline_everywhere() -> None:
    seen = snapshot(connector(live=build_live_status("Faulted"), transaction=open_transaction(), lock=lock()))
    all_of_them = ["LiveStatus:Faulted", "OpenTransaction", "ActiveReservation"]
    headline = texts.reason_text("LiveStatus:Faulted")

    page = views.connector(seen, 1, b.decision_context())
    answer = views.occupancy_explanation(seen, 1, (), (), b.decision_context())
    with pytest.raises(ConnectorBusy) as refused:
        checkout.create(seen, 1, b.decision_context())

    assert ("LiveStatus:Faulted", all_of_them, headline) == (page["reason"], page["reasons"], page["message"])
    assert ("LiveStatus:Faulted", all_of_them) == (answer["reason"], answer["reasons"])
    assert (tuple(all_of_them), headline) == (refused.value.reasons, refused.value.message)
    assert "LiveStatus:Faulted" == occupancy.verdict(seen, 1, now=NOW, policy=POLICY)["headline"]


@pytest.mark.note("F03")
def test_preparing_connector_is_startable() -> None:
    assert () == reasons(snapshot(connector(live=build_live_status("Preparing"))))
    assert () == reasons(snapshot(silent_connector(persisted=build_persisted_status("Preparing"))))
    assert "Available" == public_status(
        snapshot(connector(live=build_live_status("Preparing"))), 1, now=NOW, policy=POLICY
    )


@pytest.mark.note("F03")
def test_preparing_startability_is_a_setting() -> None:
    strict = Policy(preparing_is_startable=False)

    assert ("LiveStatus:Occupied",) == reasons(snapshot(connector(live=build_live_status("Preparing"))), policy=strict)
    assert ("PersistedStatus:Occupied",) == reasons(
        snapshot(silent_connector(persisted=build_persisted_status("Preparing"))), policy=strict
    )


@pytest.mark.note("F05")
def test_ocpp16_status_words_map_to_coarse() -> None:
    table = {
        "Available": "Available",
        "Preparing": "Occupied",
        "Charging": "Occupied",
        "SuspendedEV": "Occupied",
        "SuspendedEVSE": "Occupied",
        "Finishing": "Occupied",
        "Reserved": "Occupied",
        "Unavailable": "Unavailable",
        "Faulted": "Faulted",
    }

    assert table == {raw: coarse_status(read_state(raw)) for raw in table}


@pytest.mark.note("F05")
def test_ocpp201_status_words_map_to_coarse() -> None:
    table = {
        "Available": "Available",
        "Occupied": "Occupied",
        "Reserved": "Occupied",
        "Unavailable": "Unavailable",
        "Faulted": "Faulted",
    }

    assert table == {raw: coarse_status(read_state(raw)) for raw in table}


@pytest.mark.note("F06")
def test_live_status_counts_regardless_of_age() -> None:
    ten_hours_ago = build_live_status("Available", reported_at=NOW - 10 * HOUR)

    assert () == reasons(snapshot(connector(live=ten_hours_ago, persisted=build_persisted_status("Occupied"))))
    assert ("LiveStatus:Faulted",) == reasons(
        snapshot(connector(live=build_live_status("Faulted", reported_at=NOW - 10 * HOUR)))
    )


@pytest.mark.note("F06")
def test_earlier_epoch_live_status_is_ignored() -> None:
    before_the_reboot = build_live_status("Faulted", epoch="an earlier one")

    assert () == reasons(snapshot(connector(live=before_the_reboot)))
    assert ("PersistedStatus:Occupied",) == reasons(
        snapshot(
            connector(live=replace(before_the_reboot, raw="Available"), persisted=build_persisted_status("Occupied"))
        )
    )
    assert ("ChargerOffline",) == reasons(snapshot(connector(live=build_live_status("Faulted")), presence=None))


@pytest.mark.note("F07")
@pytest.mark.parametrize("named", [{}, {"transactionId": 77}], ids=["of no transaction", "of one"])
@pytest.mark.parametrize(
    "changed_connector", [{}, {"transaction": open_transaction()}], ids=["nothing runs", "it runs"]
)
def test_meter_values_create_no_live_status(changed_connector: dict[str, Any], named: dict[str, int]) -> None:
    before = snapshot(silent_connector(persisted=build_persisted_status("Occupied"), **changed_connector))
    values = {"connectorId": 1, "meterValue": [{"timestamp": "", "sampledValue": [{"value": "7"}]}], **named}

    after, _ = core.meter_values(before, values, b.decision_context())

    assert after.connector(1).live is None
    assert reasons(before) == reasons(after)
    assert "PersistedStatus:Occupied" in reasons(after)


@pytest.mark.note("F08")
@pytest.mark.parametrize(
    ("age", "blocks"),
    [(timedelta(0), True), (30 * MINUTE, True), (30 * MINUTE + MICROSECOND, False), (-MINUTE, True)],
    ids=["now", "to the minute", "a moment too old", "from a clock ahead of ours"],
)
def test_persisted_status_blocks_for_30_minutes(age: timedelta, blocks: bool) -> None:
    assert blocks == bool(reasons(snapshot(silent_connector(persisted=build_persisted_status("Occupied", NOW - age)))))


@pytest.mark.note("F08")
def test_persisted_status_without_time_is_stale() -> None:
    item = to_item(
        silent_connector(
            persisted=PersistedStatus(raw="Occupied", state=read_state("Occupied"), source=StatusSource.CHARGER)
        )
    )
    assert item["persisted"].pop("at") is None
    seen = snapshot(from_item(item))
    (said,) = [f for f in explain(seen, 1, now=NOW, policy=Policy()) if f.predicate == "persisted_not_startable"]

    assert () == reasons(seen)
    assert ("Occupied", None, None) == (said.value, said.since, said.until)


@pytest.mark.note("F08")
def test_persisted_status_blocks_only_without_live() -> None:
    assert () == reasons(
        snapshot(connector(live=build_live_status("Available"), persisted=build_persisted_status("Faulted")))
    )
    assert ("LiveStatus:Faulted",) == reasons(
        snapshot(connector(live=build_live_status("Faulted"), persisted=build_persisted_status("Unavailable")))
    )
    assert ("LiveStatus:Unavailable",) == reasons(
        snapshot(
            connector(0, live=build_live_status("Unavailable")),
            silent_connector(persisted=build_persisted_status("Faulted")),
        )
    )
    assert () == reasons(snapshot(silent_connector(persisted=build_persisted_status("Available"))))
    assert () == reasons(snapshot(silent_connector()))


@pytest.mark.note("F08")
def test_persisted_status_window_is_a_setting() -> None:
    seen = snapshot(silent_connector(persisted=build_persisted_status("Occupied", NOW - 2 * MINUTE)))

    assert ("PersistedStatus:Occupied",) == reasons(seen, policy=Policy(status_freshness=2 * MINUTE))
    assert () == reasons(seen, policy=Policy(status_freshness=MINUTE))
    assert () == reasons(
        snapshot(silent_connector(persisted=build_persisted_status("Occupied"))),
        policy=Policy(status_freshness=0 * MINUTE),
    )


@pytest.mark.note("F09")
def test_remote_start_occupied_expires_with_lock() -> None:
    server_made = build_persisted_status("Occupied", source=StatusSource.REMOTE_START)
    held = lock(ReservationState.START_REQUESTED, expires_at=NOW + 5 * MINUTE)
    seen = snapshot(silent_connector(persisted=server_made, lock=held))

    assert ("ActiveReservation", "PersistedStatus:Occupied") == reasons(seen)
    assert () == reasons(seen, now=NOW + 6 * MINUTE)


@pytest.mark.note("F09")
def test_new_lock_clears_leftover_remote_occupied() -> None:
    server_made = build_persisted_status("Occupied", source=StatusSource.REMOTE_START)
    left = snapshot(silent_connector(persisted=server_made, lock=lock(expires_at=NOW - MINUTE)))

    after = b.owed_checkout_snapshot(left)

    assert after.connector(1).persisted is None
    assert () == reasons(after, ignoring="reservation-1")


@pytest.mark.note("F10")
def test_connector_0_fault_masks_every_connector() -> None:
    for raw in ("Unavailable", "Faulted"):
        seen = snapshot(
            connector(1), connector(2, live=build_live_status("Charging")), connector(0, live=build_live_status(raw))
        )

        assert (f"LiveStatus:{raw}",) == reasons(seen, 1)
        assert (f"LiveStatus:{raw}",) == reasons(seen, 2)
        assert raw == public_status(seen, 1, now=NOW, policy=POLICY)
        assert "Available" == getattr(seen.connector(1).live, "raw", None)


@pytest.mark.note("F10")
@pytest.mark.parametrize("raw", ["Available", "Occupied", "Charging", "NeverHeardOf"])
def test_other_connector_0_statuses_mask_nothing(raw: str) -> None:
    seen = snapshot(
        connector(1), connector(2, live=build_live_status("Faulted")), connector(0, live=build_live_status(raw))
    )

    assert ((), ("LiveStatus:Faulted",)) == (reasons(seen, 1), reasons(seen, 2))


@pytest.mark.note("F10")
def test_earlier_epoch_connector_0_masks_nothing() -> None:
    assert () == reasons(
        snapshot(connector(1), connector(0, live=build_live_status("Faulted", epoch="an earlier one")))
    )


@pytest.mark.note("F10")
def test_connector_0_cannot_be_reserved() -> None:
    with pytest.raises(NotFound) as refused:
        checkout.create(snapshot(connector(0), connector(1)), 0, b.decision_context())

    assert "UnknownConnector" == refused.value.code


@pytest.mark.note("F12")
@pytest.mark.parametrize("raw", ["Discombobulated", "available", "", "Ünbekannt"])
def test_unknown_status_is_kept_and_busy(raw: str) -> None:
    said = {"connectorId": 1, "errorCode": "NoError", "status": raw}

    after, _ = core.status_notification(snapshot(), said, b.decision_context())

    assert raw == getattr(after.connector(1).live, "raw", None)
    assert ("LiveStatus:Occupied",) == reasons(after)
    assert ("PersistedStatus:Occupied",) == reasons(snapshot(silent_connector(persisted=build_persisted_status(raw))))


@pytest.mark.note("F15")
@pytest.mark.parametrize(
    "other",
    [
        connector(2, live=build_live_status("Faulted")),
        connector(2, live=None, persisted=build_persisted_status("Occupied")),
        connector(2, transaction=open_transaction()),
        connector(2, lock=lock()),
    ],
    ids=["faulted", "persisted", "transaction", "lock"],
)
def test_other_connector_adds_no_busy_reason(other: Connector) -> None:
    seen = snapshot(connector(1), other)

    assert () == reasons(seen, 1)
    assert 1 == len(reasons(seen, 2))


@pytest.mark.note("F72")
@pytest.mark.parametrize(
    ("until", "blocks"),
    [(None, True), (NOW + SECOND, True), (NOW, True), (NOW - MICROSECOND, False), (NOW - HOUR, False)],
    ids=["endless", "running", "to the moment", "just over", "long over"],
)
def test_expired_lock_does_not_block(until: Any, blocks: bool) -> None:
    assert blocks == bool(reasons(snapshot(connector(lock=lock(expires_at=until)))))


def test_only_own_reservation_is_ignored() -> None:
    seen = snapshot(connector(lock=lock()))

    assert () == reasons(seen, ignoring="somebody")
    assert ("ActiveReservation",) == reasons(seen, ignoring="somebody else")


@pytest.mark.note("F20")
def test_station_is_online_until_lease_ends() -> None:
    seen = snapshot(presence=b.presence(lease_until=NOW + MINUTE))

    assert () == reasons(seen, now=NOW + MINUTE - MICROSECOND)
    assert ("ChargerOffline",) == reasons(seen, now=NOW + MINUTE)


def test_each_reason_has_one_predicate() -> None:
    rows = {row[0]: seen for seen, row in MATRIX.values() if row}
    for reason, seen in rows.items():
        view = occupancy.View(
            connector=seen.connector(1),
            whole=seen.connector(0),
            presence=seen.presence,
            now=NOW,
            policy=POLICY,
            ignoring=None,
        )

        assert [reason] == [said for predicate in occupancy.PREDICATES if (said := predicate(view)) is not None]


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (snapshot(presence=None), "Offline"),
        (snapshot(), "Available"),
        (snapshot(connector(transaction=open_transaction())), "Occupied"),
        (snapshot(connector(live=build_live_status("SuspendedEV"))), "Occupied"),
        (snapshot(silent_connector(persisted=build_persisted_status("Faulted"))), "Faulted"),
        (snapshot(silent_connector()), "Unknown"),
    ],
    ids=["offline", "available", "transaction", "suspended", "persisted", "unknown"],
)
def test_public_page_shows_one_status_word(seen: Snapshot, word: str) -> None:
    assert word == public_status(seen, 1, now=NOW, policy=POLICY)


def test_connector_without_any_status_is_free() -> None:
    assert () == reasons(snapshot(connector(1)), 2)
    assert ConnectorStatus.OCCUPIED == coarse_status(read_state(""))


def occupied_in_201(charging_state: str, **changes: Any) -> Snapshot:
    """A 2.0.1 station's Occupied, and what its TransactionEvent said of the car."""
    return status.apply_charging_state(
        snapshot(connector(live=build_live_status("Occupied"), **changes)), 1, charging_state
    )


@pytest.mark.note("F04")
def test_occupied_with_evconnected_is_startable() -> None:
    connected = occupied_in_201("EVConnected")

    assert () == reasons(connected)
    assert ("LiveStatus:Occupied",) == reasons(connected, policy=Policy(preparing_is_startable=False))
    assert occupancy.is_plugged_in(connected, 1)


OCCUPIED_IN_201 = {
    "no evidence": (snapshot(connector(live=build_live_status("Occupied"))), ("LiveStatus:Occupied",)),
    "it charges": (occupied_in_201("Charging"), ("LiveStatus:Occupied",)),
    "it charges by now": (
        status.apply_charging_state(occupied_in_201("EVConnected"), 1, "Charging"),
        ("LiveStatus:Occupied",),
    ),
    "evidence of an earlier epoch": (
        replace(occupied_in_201("EVConnected"), presence=b.presence(epoch="later")).with_connector(
            replace(occupied_in_201("EVConnected").connector(1), live=build_live_status("Occupied", epoch="later"))
        ),
        ("LiveStatus:Occupied",),
    ),
    "a transaction": (
        occupied_in_201("EVConnected", transaction=open_transaction()),
        ("LiveStatus:Occupied", "OpenTransaction"),
    ),
    "somebody else's reservation": (occupied_in_201("EVConnected", lock=lock()), ("ActiveReservation",)),
}


@pytest.mark.note("F04")
@pytest.mark.parametrize("raw", ["Unavailable", "Faulted", "Reserved"])
def test_evconnected_does_not_free_other_statuses(raw: str) -> None:
    connected = status.apply_charging_state(snapshot(connector(live=build_live_status(raw))), 1, "EVConnected")

    assert (f"LiveStatus:{coarse_status(read_state(raw))}",) == reasons(connected)


@pytest.mark.note("F04")
@pytest.mark.parametrize(("seen", "expected"), OCCUPIED_IN_201.values(), ids=OCCUPIED_IN_201)
def test_occupied_in_other_cases_is_busy(seen: Snapshot, expected: tuple[str, ...]) -> None:
    assert expected == reasons(seen)


@pytest.mark.note("F75")
def test_decision_log_names_verdict_and_predicates() -> None:
    busy = snapshot(connector(live=build_live_status("Faulted"), transaction=open_transaction()))
    said = occupancy.verdict(busy, 1, now=NOW, policy=POLICY)
    free = occupancy.verdict(snapshot(), 1, now=NOW, policy=POLICY)
    names = [predicate.__name__ for predicate in occupancy.PREDICATES]

    assert ("busy", "LiveStatus:Faulted") == (said["verdict"], said["headline"])
    assert (
        dict.fromkeys(names)
        | {
            "live_not_startable": "LiveStatus:Faulted",
            "open_transaction": "OpenTransaction",
        }
        == said["predicates"]
    )
    assert ("startable", None, dict.fromkeys(names)) == (free["verdict"], free["headline"], free["predicates"])
