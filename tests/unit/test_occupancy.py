"""When is a connector busy? The founding note's decision matrix row by row, everywhere it is asked; connector 0, other
connectors, locks and leases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from csms import occupancy, texts, views
from csms.charging import checkout
from csms.charging.reservation import LOCKING_STATES
from csms.charging.start_gate import request_start, start_blockers
from csms.errors import ChargerOffline, ConnectorBusy, NotFound
from csms.model import Connector, FailureCode, Snapshot
from csms.occupancy import public_status
from csms.occupancy.explanation import NOT_READY, SHARED_TEXTS
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
from tests.unit.occupancy_cases import MICROSECOND, POLICY, reasons, silent_connector

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
            station=seen.station,
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
