"""Why is a connector busy? The findings agree with the busy rule, and each ends at the time it gives."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms import occupancy, views
from csms.charging.due import tidy_connector
from csms.model import Policy, Presence, Snapshot, StatusSource, format_time
from csms.occupancy import Finding, busy_reasons, explain
from local.explain import WIDTH, format_age, render_occupancy
from tests import builders as b
from tests.builders import (
    HOUR,
    MINUTE,
    NOW,
    build_live_status,
    build_persisted_status,
    connector,
    lock,
    open_transaction,
    snapshot,
)
from tests.unit.snapshot_strategies import policies, snapshots

POLICY = Policy()
TICK = timedelta(microseconds=1)


def finding(before: Snapshot, predicate: str, **asked: Any) -> Finding:
    found = explain(before, 1, **({"now": NOW, "policy": POLICY} | asked))
    return next(one for one in found if one.predicate == predicate)


@pytest.mark.note("F75", "F01")
@given(snapshots, policies, st.none() | st.just("mine"))
def test_findings_follow_predicates_and_busy_reasons(before: Snapshot, policy: Policy, ignoring: str | None) -> None:
    findings = explain(before, 1, now=NOW, policy=policy, ignoring=ignoring)

    assert [predicate.__name__ for predicate in occupancy.PREDICATES] == [one.predicate for one in findings]
    assert busy_reasons(before, 1, now=NOW, policy=policy, ignoring=ignoring) == tuple(
        one.reason for one in findings if one.reason is not None
    )


@pytest.mark.note("F75")
@given(snapshots, policies)
def test_every_reason_states_clearing_and_deadline(before: Snapshot, policy: Policy) -> None:
    for one in explain(before, 1, now=NOW, policy=policy):
        if one.reason is None:
            assert (None, None) == (one.clears, one.until)
            continue
        assert one.value is not None
        assert one.clears is not None
        assert (True, True) == (one.clears.startswith("Clears "), one.clears.endswith("."))
        assert ". " not in one.clears
        assert one.until is None or format_time(one.until)[:19] in one.clears


@pytest.mark.note("F75")
@given(snapshots, policies)
def test_reason_holds_exactly_until_its_deadline(before: Snapshot, policy: Policy) -> None:
    def says(predicate: str, now: datetime) -> str | None:
        return finding(before, predicate, now=now, policy=policy).reason

    for name in ("active_reservation", "persisted_not_startable"):
        one = finding(before, name, policy=policy)
        if one.reason is not None and one.until is not None:
            assert (one.reason, None) == (says(name, one.until), says(name, one.until + TICK))


@pytest.mark.note("F75")
def test_maintenance_closes_transaction_at_named_time() -> None:
    before = snapshot(connector(transaction=open_transaction(idle_until=NOW + 5 * MINUTE, ends_at=NOW + HOUR)))
    before = before.with_transaction(b.transaction())
    until = finding(before, "open_transaction").until
    assert NOW + 5 * MINUTE == until

    kept, closed = (
        b.apply_writes(before, tidy_connector(before, 1, b.decision_context(at)).writes) for at in (until - TICK, until)
    )

    assert "OpenTransaction" == finding(kept, "open_transaction").reason
    assert finding(closed, "open_transaction").reason is None


@pytest.mark.note("F75")
def test_every_predicate_has_evidence() -> None:
    assert set(occupancy.PREDICATES) == set(occupancy.EVIDENCE)


@pytest.mark.note("F75")
@pytest.mark.parametrize(
    ("presence", "clears"),
    [
        (None, "Clears when the station connects for the first time."),
        (b.presence(connection_id=None), "Clears when the station connects again."),
        (
            b.presence(lease_until=NOW),
            "Clears with the station's next message: its lease ended at 2026-03-01T12:00:00Z.",
        ),
    ],
    ids=["never seen", "gone", "silent"],
)
def test_offline_finding_explains_clearing(presence: Presence | None, clears: str) -> None:
    one = finding(snapshot(presence=presence), "offline")

    assert ("ChargerOffline", "Offline", clears) == (one.reason, one.value, one.clears)


@pytest.mark.note("F75", "F10")
def test_whole_station_status_names_connector_0() -> None:
    masked = finding(snapshot(connector(1), connector(0, live=build_live_status("Faulted"))), "live_not_startable")
    own = finding(snapshot(connector(1, live=build_live_status("Faulted")), connector(0)), "live_not_startable")

    assert ("station, connector 0", "station, connector 1") == (masked.source, own.source)
    assert "reset connector 0" in (masked.clears or "")
    assert "reset connector 1" in (own.clears or "")


@pytest.mark.note("F75")
def test_finding_has_evidence_without_reason() -> None:
    shown = snapshot(connector(persisted=build_persisted_status("Occupied", NOW - MINUTE, StatusSource.REMOTE_START)))

    one = finding(shown, "persisted_not_startable")

    assert (None, "Occupied", "remote start", NOW - MINUTE, None) == (
        one.reason,
        one.value,
        one.source,
        one.since,
        one.clears,
    )


@pytest.mark.note("F09")
def test_remote_start_occupied_ends_with_lock() -> None:
    server_made = build_persisted_status("Occupied", source=StatusSource.REMOTE_START)
    held = connector(live=None, persisted=server_made, lock=lock(expires_at=NOW + 5 * MINUTE))

    one = finding(snapshot(held), "persisted_not_startable")

    assert ("PersistedStatus:Occupied", NOW + 5 * MINUTE) == (one.reason, one.until)
    assert NOW + 30 * MINUTE == finding(snapshot(replace(held, lock=lock(expires_at=None))), one.predicate).until


@pytest.mark.note("F75")
def test_loaded_reservation_dates_its_finding() -> None:
    held = b.pending_payment_snapshot(NOW - 7 * MINUTE)

    assert NOW - 7 * MINUTE == finding(held, "active_reservation").since
    assert finding(replace(held, reservation=None), "active_reservation").since is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (-3, "just now"),
        (0, "just now"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7199, "1 hour ago"),
        (172_800, "2 days ago"),
    ],
)
def test_age_is_written_in_words(seconds: int | None, words: str) -> None:
    assert words == format_age(seconds)


@given(snapshots)
def test_explanation_fits_100_columns(before: Snapshot) -> None:
    shown = replace(b.charging_snapshot(), connectors=before.connectors, presence=before.presence)
    noted = shown.add_timeline_entry("Noted", b.decision_context(), why="x" * 300)
    entries = [append.record for append in noted.records]

    answer = views.occupancy_explanation(shown, 1, (), entries, b.decision_context())  # type: ignore[arg-type]

    text = render_occupancy(json.loads(json.dumps(answer)))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert all(reason in text.replace("\n", " ") for reason in answer["reasons"])
