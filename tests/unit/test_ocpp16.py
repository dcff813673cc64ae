"""OCPP 1.6: each action's meaning and answer, and how our commands are spelled. Every payload here fits the schema or
is what leniency lets through, and every answer fits it strictly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms.charging import start_gate, status
from csms.commands import calls
from csms.model import (
    CallState,
    Command,
    CommandKind,
    CommandRecord,
    DecisionContext,
    FailureCode,
    IdToken,
    Lock,
    MeterSample,
    Money,
    OutboundCall,
    Protocol,
    Reading,
    RemoteStart,
    RemoteStop,
    ReservationState,
    Snapshot,
    StatusSource,
    TimelineEntry,
    TriggerStatus,
)
from csms.ocpp.schemas import Accepted
from csms.ocpp.v16 import DIALECT
from csms.ocpp.v16.core import ACTIONS
from csms.ocpp.v16.values import parse_time
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, SNAPSHOT_BY_STATE, answer_call, decision_context, get_reservation
from tests.versions import accept, check

S = ReservationState


def handle_call(
    before: Snapshot, action: str, at: DecisionContext | None = None, **payload: Any
) -> tuple[Snapshot, dict[str, Any]]:
    """What comes of a CALL, whose payload and answer are held against the schemas."""
    accepted = accept(Protocol.OCPP16, action, payload)
    assert isinstance(accepted, Accepted)
    after, answer = ACTIONS[action].decide(before, accepted.payload, at or decision_context())
    check(Protocol.OCPP16, action, answer, response=True)
    return after, answer


def boot(before: Snapshot, at: DecisionContext, **more: Any) -> tuple[Snapshot, dict[str, Any]]:
    return handle_call(before, "BootNotification", at, chargePointVendor="ACME", chargePointModel="One", **more)


def report_status(before: Snapshot, raw: str, at: DecisionContext | None = None, **more: Any) -> Snapshot:
    """After StatusNotification of connector 1, unless another is named."""
    payload = {"connectorId": 1, "errorCode": "NoError", "status": raw} | more
    after, answer = handle_call(before, "StatusNotification", at, **payload)
    assert {} == answer
    return after


def sampled_value(value: str, **more: str) -> dict[str, str]:
    return {"value": value, **more}


def send_meter_values(*samples: dict[str, str], before: Snapshot | None = None, **more: Any) -> tuple[Reading, ...]:
    """The readings kept of one MeterValue."""
    entry = {"timestamp": "2026-03-01T12:00:00Z", "sampledValue": list(samples)} | more
    after, answer = handle_call(
        before or b.charging_snapshot(), "MeterValues", connectorId=1, transactionId=3, meterValue=[entry]
    )
    assert {} == answer
    (sample,) = [a.record for a in after.records if isinstance(a.record, MeterSample)]
    return sample.readings


def test_core_profile_actions_are_served() -> None:
    assert {
        "Authorize",
        "BootNotification",
        "DataTransfer",
        "Heartbeat",
        "MeterValues",
        "StartTransaction",
        "StatusNotification",
        "StopTransaction",
    } == set(ACTIONS)


# BootNotification, Heartbeat, DataTransfer, Authorize


@pytest.mark.note("F60")
def test_boot_is_answered_and_remembered() -> None:
    after, answer = boot(
        b.snapshot(), decision_context(NOW + SECOND), firmwareVersion="1.2", chargePointSerialNumber="S1"
    )

    assert {"status": "Accepted", "currentTime": "2026-03-01T12:00:01.000Z", "interval": 300} == answer
    assert ("ACME", "One", "S1", "1.2", NOW + SECOND) == (
        after.station.vendor,
        after.station.model,
        after.station.serial_number,
        after.station.firmware,
        after.station.booted_at,
    )


@pytest.mark.note("F06")
def test_boot_begins_epoch_and_renews_lease() -> None:
    after, _ = boot(b.snapshot(), decision_context(NOW + HOUR, serial=5))

    assert after.presence is not None
    assert ("epoch-5", NOW + HOUR, NOW + HOUR + 15 * MINUTE) == (
        after.presence.epoch,
        after.presence.last_seen_at,
        after.presence.lease_until,
    )


def test_boot_over_closed_connection_creates_no_presence() -> None:
    after, _ = boot(b.snapshot(presence=None), decision_context())

    assert after.presence is None


@pytest.mark.note("F21")
def test_boot_requests_each_status_once() -> None:
    booted, _ = boot(b.snapshot(), decision_context(serial=5))
    again, _ = boot(booted, decision_context(serial=6))
    told = report_status(booted, "Available")

    assert [(CommandKind.TRIGGER_STATUS, 1), (CommandKind.TRIGGER_STATUS, 2)] == [
        (call.kind, call.connector_id) for call in booted.calls
    ]
    assert {(NOW + 10 * SECOND, NOW + 10 * SECOND)} == {(call.send_at, call.due_at) for call in booted.calls}
    assert 2 == len({call.call_id for call in booted.calls})
    assert booted.calls == again.calls
    assert [2] == [call.connector_id for call in told.calls]


@pytest.mark.note("F21")
def test_sent_status_request_still_awaits_answer() -> None:
    booted, _ = boot(b.snapshot(), decision_context(serial=5))
    sent = replace(booted, calls=tuple(replace(call, state=CallState.SENT) for call in booted.calls))

    told = report_status(sent, "Available").calls

    assert [CallState.SENT] * 2 == [call.state for call in told]
    assert [(1, True), (2, False)] == [(call.connector_id, call.told) for call in told]


PLUGGED_IN = b.snapshot(b.connector(1, live=b.build_live_status("Preparing")), b.connector(2))


@pytest.mark.note("F19", "F21", "F32")
@pytest.mark.parametrize(
    ("before", "settings", "asked"),
    [
        (b.snapshot(), {}, []),
        (b.authorized_snapshot(), {}, [1]),
        (b.start_requested_snapshot(), {}, [1]),
        (b.report_status(b.waiting_for_disconnect_snapshot(), "Preparing"), {}, [1]),
        (b.pending_payment_snapshot(), {}, []),
        (b.snapshot(b.connector(1), b.connector(2, live=None)), {}, [2]),
        (b.snapshot(presence=b.presence(epoch="next")), {}, [1, 2]),
        (b.snapshot(b.connector(1, live=b.build_live_status("Charging")), b.connector(2)), {}, [1]),
        (b.snapshot(b.connector(1, live=b.build_live_status("Faulted")), b.connector(2)), {}, [1]),
        (PLUGGED_IN, {}, []),
        (PLUGGED_IN, {"preparing_is_startable": False}, [1]),
        (b.snapshot(b.connector(0, live=b.build_live_status("Unavailable")), b.connector(1), b.connector(2)), {}, [0]),
        (b.snapshot(b.connector(0, live=b.build_live_status("Charging")), b.connector(1), b.connector(2)), {}, []),
        (
            b.snapshot(
                b.connector(0, live=b.build_live_status("Faulted", epoch="last")), b.connector(1), b.connector(2)
            ),
            {},
            [],
        ),
    ],
    ids=[
        "all free",
        "somebody waits",
        "a start may have got lost",
        "a car is to leave",
        "somebody pays",
        "one silent",
        "another epoch",
        "in use",
        "out of order",
        "plugged in",
        "plugged in is busy",
        "all of it is out of order",
        "a whole in use masks nothing",
        "it was in another epoch",
    ],
)
def test_reconnect_requests_only_uncertain_statuses(
    before: Snapshot, settings: dict[str, Any], asked: list[int]
) -> None:
    after = status.ask_after_connect(before, decision_context(**settings))

    new = after.calls[len(before.calls) :]
    assert [(CommandKind.TRIGGER_STATUS, number) for number in asked] == [
        (call.kind, call.connector_id) for call in new
    ]
    assert {NOW + 10 * SECOND} >= {call.send_at for call in new}


@pytest.mark.note("F10", "F21")
def test_whole_station_trigger_names_no_connector() -> None:
    before = b.snapshot(b.connector(0, live=b.build_live_status("Unavailable")), b.connector(1), b.connector(2))
    (whole,) = status.ask_after_connect(before, decision_context()).calls

    assert ("TriggerMessage", {"requestedMessage": "StatusNotification"}) == DIALECT.encode_command(whole.command)


@pytest.mark.note("F60")
def test_heartbeat_returns_time_and_changes_nothing() -> None:
    before = b.snapshot()

    assert (before, {"currentTime": "2026-03-01T12:00:00.000Z"}) == handle_call(before, "Heartbeat")


def test_data_transfer_returns_unknown_vendor_id() -> None:
    before = b.snapshot()

    assert (before, {"status": "UnknownVendorId"}) == handle_call(before, "DataTransfer", vendorId="ACME", data="x")


@pytest.mark.note("F29")
@pytest.mark.parametrize(("tag", "expected"), [("WTAG1", "Accepted"), ("wtag1", "Accepted"), ("WTAG2", "Invalid")])
def test_authorize_accepts_live_reservation_tag(tag: str, expected: str) -> None:
    before = b.start_requested_snapshot()

    assert (before, {"idTagInfo": {"status": expected}}) == handle_call(before, "Authorize", idTag=tag)


@pytest.mark.note("F28", "F29")
@pytest.mark.parametrize(
    ("before", "at"),
    [
        (b.pending_payment_snapshot(), NOW),
        (b.start_requested_snapshot(), NOW + 11 * MINUTE),
        (b.cancelled_snapshot(), NOW),
        (b.completed_snapshot(), NOW),
        (b.snapshot(tag=b.start_requested_snapshot().tag), NOW),
    ],
    ids=["not paid yet", "too late", "cancelled", "over", "at another station"],
)
def test_authorize_rejects_tag_outside_reservation(before: Snapshot, at: datetime) -> None:
    assert (before, {"idTagInfo": {"status": "Invalid"}}) == handle_call(
        before, "Authorize", decision_context(at), idTag="WTAG1"
    )


def test_authorize_loads_the_tag() -> None:
    assert "CARD" == ACTIONS["Authorize"].find_read_set(b.snapshot(), {"idTag": "CARD"}).id_tag


# StatusNotification


@pytest.mark.note("F11")
def test_status_is_live_and_persisted() -> None:
    after = report_status(
        b.snapshot(), "SuspendedEV", decision_context(NOW + SECOND), timestamp="2026-03-01T13:00:02+01:00"
    )

    assert (
        b.build_live_status("SuspendedEV", reported_at=NOW + SECOND, charger_at=NOW + 2 * SECOND)
        == after.connector(1).live
    )
    said = after.connector(1).persisted
    assert said is not None
    assert ("SuspendedEV", NOW + SECOND, StatusSource.CHARGER, NOW + SECOND + 4 * HOUR) == (
        said.raw,
        said.at,
        said.source,
        said.release_at,
    )
    assert b.snapshot().connector(2) == after.connector(2)


@pytest.mark.note("F10")
def test_connector_0_status_is_kept_apart() -> None:
    after = report_status(b.snapshot(), "Faulted", connectorId=0)

    assert "Faulted" == getattr(after.connector(0).live, "raw", None)
    assert b.snapshot().connector(1) == after.connector(1)


@pytest.mark.note("F11")
@pytest.mark.parametrize(
    ("known_at", "said_at", "news"),
    [
        (NOW - MINUTE, NOW - 2 * MINUTE, False),
        (NOW - MINUTE, NOW - MINUTE, True),
        (NOW - MINUTE, NOW, True),
        (NOW - MINUTE, None, True),
        (None, NOW - HOUR, True),
        (NOW - MINUTE, datetime(1970, 1, 1, tzinfo=UTC), True),
        (datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), True),
        (NOW + 6 * MINUTE, NOW, True),
        (NOW + 4 * MINUTE, NOW, True),
        (NOW + 4 * MINUTE, NOW + 3 * MINUTE, False),
        (NOW + 365 * 24 * HOUR, NOW + 364 * 24 * HOUR, True),
    ],
    ids=[
        "older",
        "as old",
        "newer",
        "no time",
        "no time known",
        "said in 1970",
        "both in 1970",
        "known from the future",
        "known from a clock that was fast and is right now",
        "both from a clock a little fast",
        "both from the future",
    ],
)
def test_older_status_is_ignored_with_trusted_clocks(
    known_at: datetime | None, said_at: datetime | None, news: bool
) -> None:
    before = b.snapshot(b.connector(live=b.build_live_status("Charging", charger_at=known_at)))
    time = {} if said_at is None else {"timestamp": said_at.isoformat()}

    after = report_status(before, "Available", **time)

    assert ("Available" if news else "Charging") == getattr(after.connector(1).live, "raw", None)
    assert news == (after != before)


@pytest.mark.note("F11")
def test_older_status_replaces_earlier_epoch_status() -> None:
    before = b.snapshot(b.connector(live=b.build_live_status("Charging", charger_at=NOW, epoch="an earlier one")))

    after = report_status(before, "Available", timestamp=(NOW - HOUR).isoformat())

    assert "Available" == getattr(after.connector(1).live, "raw", None)


def test_only_changed_status_enters_timeline() -> None:
    changed = report_status(b.snapshot(), "Faulted")
    same = report_status(b.snapshot(), "Available")

    assert [{"connector": 1, "status": "Faulted", "was": "Available"}] == [
        a.record.detail for a in changed.records if isinstance(a.record, TimelineEntry)
    ]
    assert () == same.records


@pytest.mark.note("F32")
def test_plugging_in_after_payment_requests_start() -> None:
    after = report_status(b.authorized_snapshot(), "Preparing", decision_context(NOW + MINUTE, serial=5))

    assert S.START_REQUESTED == get_reservation(after).state
    assert [(CommandKind.REMOTE_START, 1)] == [(call.kind, call.connector_id) for call in after.calls]


@pytest.mark.note("F32")
@pytest.mark.parametrize("raw", ["Finishing", "Faulted", "Unavailable"])
def test_paid_driver_waits_while_connector_busy(raw: str) -> None:
    after = report_status(b.authorized_snapshot(), raw, decision_context(NOW + MINUTE))

    assert S.AUTHORIZED == get_reservation(after).state
    assert () == after.calls


@pytest.mark.note("F32")
def test_status_does_not_repeat_pending_start() -> None:
    pending = b.start_requested_snapshot()
    accepted = b.apply_decision(pending, answer_call(pending, pending.calls[0], "Accepted", decision_context()))

    assert pending.calls == report_status(pending, "Preparing", decision_context(serial=5)).calls
    assert () == report_status(accepted, "Preparing", decision_context(serial=5)).calls


@pytest.mark.note("F32")
def test_lost_start_call_is_requested_again() -> None:
    lost = replace(b.start_requested_snapshot(), calls=())

    after = report_status(lost, "Preparing", decision_context(NOW + MINUTE, serial=5))

    assert [CommandKind.REMOTE_START] == [call.kind for call in after.calls]
    assert S.START_REQUESTED == get_reservation(after).state


@pytest.mark.note("F32")
def test_refused_start_is_not_repeated_at_once() -> None:
    requested = b.start_requested_snapshot()
    (start,) = requested.calls
    refused = answer_call(requested, replace(start, repeats=True), "Rejected", decision_context(NOW + SECOND, serial=4))

    at_once = report_status(refused, "Preparing", decision_context(NOW + 2 * SECOND, serial=5))
    later = report_status(refused, "Preparing", decision_context(NOW + 30 * SECOND, serial=6))

    assert [(CommandKind.TRIGGER_STATUS, NOW + 31 * SECOND)] == [(call.kind, call.send_at) for call in refused.calls]
    assert [] == [call for call in at_once.calls if call.kind is CommandKind.REMOTE_START]
    assert [CommandKind.REMOTE_START] == [call.kind for call in later.calls]


@pytest.mark.note("F33")
def test_driver_plugging_other_connector_is_moved() -> None:
    after = report_status(b.authorized_snapshot(), "Preparing", decision_context(serial=5), connectorId=2)

    held = get_reservation(after)
    assert (2, S.START_REQUESTED) == (held.connector_id, held.state)
    assert [2] == [call.connector_id for call in after.calls]
    assert after.connector(1).lock is None
    assert "reservation-1" == getattr(after.connector(2).lock, "reservation_id", None)


@pytest.mark.note("F33")
def test_driver_is_not_moved_to_held_connector() -> None:
    before = b.authorized_snapshot().with_connector(b.connector(2, lock=b.lock()))

    after = report_status(before, "Preparing", decision_context(serial=5), connectorId=2)

    assert before.reservation == after.reservation
    assert before.connector(1) == after.connector(1)


@pytest.mark.note("F33")
def test_driver_is_not_moved_after_deadline() -> None:
    before = b.authorized_snapshot()

    after = report_status(before, "Preparing", decision_context(NOW + 11 * MINUTE, serial=5), connectorId=2)

    assert before.reservation == after.reservation
    assert after.connector(2).lock is None


@pytest.mark.note("F33")
def test_only_waiting_reservation_is_loaded_elsewhere() -> None:
    def found(seen: Snapshot, raw: str) -> str | None:
        payload = {"connectorId": 2, "errorCode": "NoError", "status": raw}
        return ACTIONS["StatusNotification"].find_read_set(seen, payload).reservation_id

    assert "reservation-1" == found(b.authorized_snapshot(), "Preparing")
    assert found(b.authorized_snapshot(), "Available") is None
    assert found(b.start_requested_snapshot(), "Preparing") is None


@pytest.mark.note("F33", "F72")
@pytest.mark.parametrize(
    ("until", "connector_id"),
    [(NOW + 9 * MINUTE, 1), (NOW, 2)],
    ids=["two candidates", "one whose time is over, unswept"],
)
def test_move_requires_exactly_one_live_candidate(until: datetime, connector_id: int) -> None:
    third = b.connector(3, lock=b.lock(S.AUTHORIZED, expires_at=until))
    plugged = {"connectorId": 2, "errorCode": "NoError", "status": "Preparing"}
    before = b.authorized_snapshot().with_connector(third)
    seen = ACTIONS["StatusNotification"].find_read_set(before, plugged).reservation_id

    after, _ = ACTIONS["StatusNotification"].decide(before, plugged, decision_context(NOW + SECOND, serial=9))

    assert "reservation-1" == seen
    assert connector_id == get_reservation(after).connector_id


@pytest.mark.note("F09")
def test_moved_driver_inherits_no_remote_occupied() -> None:
    left = b.connector(
        2,
        lock=b.lock(S.START_REQUESTED, expires_at=NOW - SECOND),
        persisted=b.build_persisted_status("Occupied", NOW - MINUTE, StatusSource.REMOTE_START),
    )
    before = b.authorized_snapshot().with_connector(left)

    after = start_gate.move_reservation(before, 2, decision_context(serial=9))

    assert "reservation-1" == getattr(after.connector(2).lock, "reservation_id", None)
    assert after.connector(2).persisted is None


def idle_until(after: Snapshot) -> datetime | None:
    running = after.connector(1).transaction
    assert running is not None
    return running.idle_until


@pytest.mark.note("F55")
def test_available_starts_grace_other_status_cancels() -> None:
    noticed = report_status(b.charging_snapshot(), "Available", decision_context(NOW + MINUTE))

    assert NOW + 6 * MINUTE == idle_until(noticed)
    assert NOW + 6 * MINUTE == idle_until(report_status(noticed, "Available", decision_context(NOW + 3 * MINUTE)))
    assert idle_until(report_status(noticed, "Charging", decision_context(NOW + 2 * MINUTE))) is None


@pytest.mark.note("F55", "F72")
def test_zero_grace_implies_no_stop() -> None:
    assert (
        idle_until(report_status(b.charging_snapshot(), "Available", decision_context(implied_stop_grace=0 * MINUTE)))
        is None
    )


@pytest.mark.note("F56")
def test_stale_or_replayed_available_closes_nothing() -> None:
    before = b.charging_snapshot()
    rebooted = replace(before, station=b.station(booted_at=NOW + SECOND))

    assert idle_until(report_status(before, "Available", timestamp="2026-03-01T11:59:59Z")) is None
    assert idle_until(report_status(rebooted, "Available", decision_context(NOW + MINUTE))) is None


@pytest.mark.note("F55", "F56")
@pytest.mark.parametrize(
    ("said", "implied"),
    [
        (["Charging"], True),
        (["SuspendedEV", "Finishing"], True),
        (["Charging", "Faulted"], True),
        (["Unavailable"], False),
        (["Faulted", "Available"], False),
    ],
    ids=["charging", "full", "charging, then out of order", "as it starts up", "twice as it starts up"],
)
def test_available_counts_after_post_boot_activity(said: list[str], implied: bool) -> None:
    running, _ = boot(b.charging_snapshot(), decision_context(NOW + SECOND, serial=7))
    for minutes, raw in enumerate(said, start=1):
        running = report_status(running, raw, decision_context(NOW + minutes * MINUTE))

    left = report_status(running, "Available", decision_context(NOW + HOUR))

    assert implied == (NOW + HOUR + 5 * MINUTE == idle_until(left))
    assert implied == (idle_until(left) is not None)


@pytest.mark.note("F55", "F56")
def test_post_boot_activity_survives_reconnect() -> None:
    booted, _ = boot(b.charging_snapshot(), decision_context(NOW + SECOND, serial=7))
    went_on = report_status(booted, "Charging", decision_context(NOW + MINUTE))
    back = replace(went_on, presence=b.presence(epoch="the next"))

    assert NOW + HOUR + 5 * MINUTE == idle_until(report_status(back, "Available", decision_context(NOW + HOUR)))


@pytest.mark.note("F56")
def test_late_pre_boot_reports_are_no_activity() -> None:
    booted, _ = boot(b.charging_snapshot(), decision_context(NOW + 20 * MINUTE, serial=7))
    sample = {"timestamp": "2026-03-01T12:15:00Z", "sampledValue": [{"value": "1500"}]}
    values = {"connectorId": 1, "transactionId": 3, "meterValue": [sample]}
    metered, _ = ACTIONS["MeterValues"].decide(booted, values, decision_context(NOW + 21 * MINUTE, serial=8))
    told = report_status(booted, "Charging", decision_context(NOW + 21 * MINUTE), timestamp="2026-03-01T12:15:00Z")

    for seen in (metered, told):
        assert idle_until(report_status(seen, "Available", decision_context(NOW + HOUR))) is None


@pytest.mark.note("F56")
def test_status_before_boot_is_no_activity() -> None:
    charged = report_status(b.charging_snapshot(), "Charging")
    booted, _ = boot(charged, decision_context(NOW + SECOND, serial=7))

    assert idle_until(report_status(booted, "Available", decision_context(NOW + HOUR))) is None


@pytest.mark.note("F74")
def test_stale_status_is_released_when_unheld() -> None:
    stale = report_status(b.snapshot(), "Faulted")
    later = decision_context(NOW + 4 * HOUR)

    free = status.release_stale_status(stale, 1, later)

    assert ("Available", StatusSource.MAINTENANCE) == (
        getattr(free.connector(1).persisted, "raw", None),
        getattr(free.connector(1).persisted, "source", None),
    )
    assert stale == status.release_stale_status(stale, 1, decision_context(NOW + 4 * HOUR - SECOND))
    for held in ({"lock": b.lock()}, {"transaction": b.open_transaction()}, {"persisted": None}):
        kept = stale.with_connector(replace(stale.connector(1), **held))
        assert kept == status.release_stale_status(kept, 1, later)


@pytest.mark.note("F74")
@pytest.mark.parametrize(
    ("raw", "held", "due"),
    [
        ("Faulted", {}, True),
        ("Available", {}, False),
        ("Faulted", {"lock": b.lock()}, False),
        ("Faulted", {"transaction": b.open_transaction()}, False),
    ],
    ids=["stale some day", "free", "reserved", "in use"],
)
def test_only_releasable_status_has_due_time(raw: str, held: dict[str, Any], due: bool) -> None:
    seen = report_status(b.snapshot(), raw).connector(1)

    assert (NOW + 4 * HOUR if due else None) == replace(seen, **held).due_at


@pytest.mark.note("F74")
def test_status_release_is_in_timeline() -> None:
    stale = report_status(b.snapshot(), "Faulted")

    after = status.release_stale_status(replace(stale, records=()), 1, decision_context(NOW + 4 * HOUR))

    assert [("StatusReleased", {"connector": 1, "was": "Faulted"})] == [
        (a.record.kind, a.record.detail) for a in after.records if isinstance(a.record, TimelineEntry)
    ]
    assert after.connector(1).due_at is None


@pytest.mark.note("F72")
def test_status_release_is_configurable_or_off() -> None:
    kept = report_status(b.snapshot(), "Faulted", decision_context(status_release=0 * MINUTE))

    assert kept == status.release_stale_status(kept, 1, decision_context(NOW + 1000 * HOUR))
    for hours, settings in ((4, {}), (2, {"status_release": 2 * HOUR})):
        said = report_status(b.snapshot(), "Faulted", decision_context(**settings))
        assert NOW + hours * HOUR == getattr(said.connector(1).persisted, "release_at", None)


# MeterValues


def test_reading_has_time_energy_and_power() -> None:
    readings = send_meter_values(
        sampled_value("1500", measurand="Energy.Active.Import.Register", unit="Wh"),
        sampled_value("7.4", measurand="Power.Active.Import", unit="kW"),
        sampled_value("230", measurand="Voltage", phase="L1-N"),
    )

    assert (Reading(at=NOW, energy_wh=1500, power_w=7400),) == readings


@pytest.mark.note("F58")
@pytest.mark.parametrize(
    ("samples", "energy"),
    [
        ([sampled_value("1500")], 1500),
        ([sampled_value(" 1500.9 ")], 1500),
        ([sampled_value("1,5", unit="kWh")], 1500),
        ([sampled_value("1.5", unit="kWh")], 1500),
        ([sampled_value("1E3")], 1000),
        (
            [sampled_value("500", phase="L1"), sampled_value("400", phase="L2"), sampled_value("600.5", phase="L3")],
            1500,
        ),
        ([sampled_value("0.5", phase="L1", unit="kWh"), sampled_value("1000", phase="L2", unit="Wh")], 1500),
        ([sampled_value("9", phase="L1"), sampled_value("1500")], 1500),
        ([sampled_value("1400", context="Transaction.Begin"), sampled_value("1500", context="Sample.Periodic")], 1500),
        ([sampled_value("7", measurand="Energy.Reactive.Import.Register")], None),
        ([sampled_value("OCMF|{}", format="SignedData")], None),
        ([sampled_value("NaN")], None),
        ([sampled_value("Infinity")], None),
        ([sampled_value("")], None),
        ([sampled_value("1.234,5")], None),
        ([sampled_value("1E999999999")], None),
        ([sampled_value("-1E999999", unit="kWh")], None),
        ([sampled_value("1000000000000")], None),
    ],
)
def test_energy_register_is_read_in_wh(samples: list[dict[str, str]], energy: int | None) -> None:
    assert [energy] == [reading.energy_wh for reading in send_meter_values(*samples)]


def test_unreadable_reading_time_means_now() -> None:
    assert [NOW] == [reading.at for reading in send_meter_values(sampled_value("7"), timestamp="yesterday")]


# StartTransaction, StopTransaction


def start(before: Snapshot, at: DecisionContext | None = None, **more: Any) -> tuple[Snapshot, dict[str, Any]]:
    payload = {"connectorId": 1, "idTag": "WTAG1", "meterStart": 1000, "timestamp": "2026-03-01T12:00:00Z"} | more
    return handle_call(before, "StartTransaction", at, **payload)


def stop(before: Snapshot, at: DecisionContext | None = None, **more: Any) -> tuple[Snapshot, dict[str, Any]]:
    payload = {"transactionId": 3, "meterStop": 11_000, "timestamp": "2026-03-01T13:00:00Z"} | more
    return handle_call(before, "StopTransaction", at, **payload)


@pytest.mark.note("F26")
def test_requested_start_is_accepted_with_transaction_id() -> None:
    after, answer = start(b.start_requested_snapshot(), decision_context(serial=3))

    assert {"transactionId": 3, "idTagInfo": {"status": "Accepted"}} == answer
    assert S.CHARGING == get_reservation(after).state


@pytest.mark.note("F52")
@pytest.mark.parametrize("meter_start", [0, -5, 2**53])
def test_unknown_tag_start_is_stored_as_invalid(meter_start: int) -> None:
    after, answer = start(b.snapshot(), decision_context(serial=9), idTag="", meterStart=meter_start)

    assert {"transactionId": 9, "idTagInfo": {"status": "Invalid"}} == answer
    assert meter_start == after.transactions["9"].meter_start_wh


@pytest.mark.note("F30", "F51")
def test_start_loads_reservation_transaction_and_tag() -> None:
    payload = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}

    read_set = ACTIONS["StartTransaction"].find_read_set(b.charging_snapshot(), payload)

    assert ("reservation-1", ("3",), "CARD") == (read_set.reservation_id, read_set.transaction_ids, read_set.id_tag)
    assert 32 == len(read_set.digest or "")


@pytest.mark.note("F33")
def test_start_elsewhere_loads_its_own_reservation() -> None:
    payload = {"connectorId": 2, "idTag": "wtag1", "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}

    assert (
        "reservation-1"
        == ACTIONS["StartTransaction"].find_read_set(b.start_requested_snapshot(), payload).reservation_id
    )


@pytest.mark.note("F33", "F57")
def test_foreign_start_loads_superseded_reservation() -> None:
    before = b.charging_snapshot().with_connector(b.connector(2, lock=b.lock(S.AUTHORIZED)))
    payload = {"connectorId": 1, "idTag": "WSOMEBODY", "meterStart": 0, "timestamp": "2026-03-01T12:00:00Z"}

    assert "reservation-1" == ACTIONS["StartTransaction"].find_read_set(before, payload).reservation_id


@pytest.mark.parametrize(("tag", "answer"), [({}, {}), ({"idTag": "WTAG1"}, {"idTagInfo": {"status": "Accepted"}})])
def test_stop_settles_and_returns_tag_status(tag: dict[str, str], answer: dict[str, Any]) -> None:
    after, told = stop(b.charging_snapshot(), **tag)

    assert answer == told
    assert (S.COMPLETED, 10_000, 645) == (
        get_reservation(after).state,
        get_reservation(after).energy_wh,
        get_reservation(after).amount,
    )


@pytest.mark.note("F53", "F41")
@pytest.mark.parametrize("named", [4711, 0, -1])
def test_unknown_transaction_stop_is_confirmed(named: int) -> None:
    _, answer = stop(b.snapshot(), transactionId=named, idTag="NOBODY", reason="PowerLoss")

    assert {"idTagInfo": {"status": "Invalid"}} == answer


@pytest.mark.note("F58")
def test_stop_readings_are_read_like_others() -> None:
    entry = {"timestamp": "2026-03-01T13:00:00Z", "sampledValue": [sampled_value("6,0", unit="kWh")]}

    after, _ = stop(b.charging_snapshot(), meterStop=0, transactionData=[entry])

    assert 5000 == after.transactions["3"].energy_wh


@pytest.mark.note("F53")
def test_stop_loads_its_reservation_and_transaction() -> None:
    payload = {"transactionId": 3, "meterStop": 7, "timestamp": "", "idTag": "CARD"}

    mine = ACTIONS["StopTransaction"].find_read_set(b.charging_snapshot(), payload)
    alien = ACTIONS["StopTransaction"].find_read_set(b.charging_snapshot(), payload | {"transactionId": 4})
    none = ACTIONS["StopTransaction"].find_read_set(b.charging_snapshot(), payload | {"transactionId": -1})

    assert ("reservation-1", ("3",), "CARD") == (mine.reservation_id, mine.transaction_ids, mine.id_tag)
    assert (None, ("4",)) == (alien.reservation_id, alien.transaction_ids)
    assert (None, ()) == (none.reservation_id, none.transaction_ids)


# Our own CALLs and their answers


@pytest.mark.parametrize(
    ("command", "action", "payload"),
    [
        (
            RemoteStart(connector_id=2, id_token=IdToken(value="WTAG1")),
            "RemoteStartTransaction",
            {"connectorId": 2, "idTag": "WTAG1"},
        ),
        (RemoteStop(transaction_id="7"), "RemoteStopTransaction", {"transactionId": 7}),
        (
            TriggerStatus(connector_id=2),
            "TriggerMessage",
            {"requestedMessage": "StatusNotification", "connectorId": 2},
        ),
    ],
)
def test_commands_match_ocpp16_schema(command: Command, action: str, payload: dict[str, Any]) -> None:
    assert (action, payload) == DIALECT.encode_command(command)
    check(Protocol.OCPP16, action, payload, response=False)


def queued_remote_start(seen: Snapshot) -> OutboundCall:
    """The remote start of reservation 1, wherever it stands."""
    return b.start_requested_snapshot().calls[0]


@pytest.mark.note("F24", "F27")
def test_accepted_remote_start_is_no_start() -> None:
    before = b.start_requested_snapshot()

    after = answer_call(before, before.calls[0], "Accepted", decision_context(NOW + SECOND))

    held = get_reservation(after)
    asked = get_reservation(before)
    assert (S.START_REQUESTED, NOW + SECOND, None) == (held.state, held.start_accepted_at, held.started_at)
    assert (asked.start_deadline, asked.expires_at) == (held.start_deadline, held.expires_at)
    assert before.connector(1).lock == after.connector(1).lock
    assert () == after.calls
    assert StatusSource.REMOTE_START == getattr(after.connector(1).persisted, "source", None)


@pytest.mark.note("F25", "F44", "F63")
@pytest.mark.parametrize("said", ["Rejected", "NotSupported", "InternalError", "Rejoiced"])
def test_refused_remote_start_fails_and_releases_hold(said: str) -> None:
    before = b.start_requested_snapshot()

    after = answer_call(before, before.calls[0], said, decision_context())

    held = get_reservation(after)
    assert (S.FAILED, FailureCode.START_REJECTED, Money.RELEASING) == (held.state, held.failure_code, held.money)
    assert said == after.records[-1].record.detail
    assert after.connector(1).lock is None


@pytest.mark.note("F26")
@pytest.mark.parametrize("state", [S.CHARGING, S.COMPLETED, S.CANCELLED, S.FAILED])
@pytest.mark.parametrize("said", ["Accepted", "Rejected"])
def test_late_start_answer_changes_nothing(state: ReservationState, said: str) -> None:
    before = SNAPSHOT_BY_STATE[state]()

    after = answer_call(before, queued_remote_start(before), said, decision_context())

    assert replace(before, calls=()) == replace(after, records=())
    assert f"{said}, too late to matter" == after.records[-1].record.detail


@pytest.mark.note("F09")
@pytest.mark.parametrize("by_now", [b.lock(), None], ids=["somebody else holds it", "nobody holds it"])
def test_acceptance_without_lock_persists_no_occupied(by_now: Lock | None) -> None:
    before = b.start_requested_snapshot()
    taken = before.with_connector(replace(before.connector(1), lock=by_now))

    after = answer_call(taken, taken.calls[0], "Accepted", decision_context())

    assert taken.connector(1) == after.connector(1)


@pytest.mark.parametrize("command", [RemoteStop(transaction_id="7"), TriggerStatus(connector_id=2)])
def test_other_command_answer_only_ends_call(command: Command) -> None:
    before = calls.queue(b.charging_snapshot(), command, decision_context(serial=9), until=NOW + HOUR)

    after = answer_call(before, before.calls[-1], "Rejected", decision_context())

    assert replace(before, calls=before.calls[:-1]) == replace(after, records=())
    assert [CommandRecord] == [type(append.record) for append in after.records]


# Time


@pytest.mark.note("F60")
@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00",
        "2026-03-01 12:00:00",
        " 2026-03-01T12:00:00Z\n",
        "2026-03-01T12:00Z",
        "2026-03-01T12:00:00.0Z",
        "2026-03-01T12:00:00.000Z",
        "2026-03-01T12:00:00.000000Z",
        "2026-03-01T12:00:00.000000000Z",
        "2026-03-01T12:00:00,000Z",
        "2026-03-01T12:00:00+00:00",
        "2026-03-01T12:00:00-00:00",
        "2026-03-01T14:00:00+02:00",
        "2026-03-01T14:00:00.000000000+02:00",
        "2026-03-01T14:00:00+0200",
        "2026-03-01T14:00:00+02",
        "2026-03-01T06:30:00-05:30",
        "2026-03-02T02:00:00+14:00",
        "20260301T120000Z",
    ],
)
def test_timestamp_formats_are_read(text: str) -> None:
    assert NOW == parse_time(text)


@pytest.mark.note("F60")
@pytest.mark.parametrize("digits", range(1, 10))
def test_one_to_nine_fraction_digits_are_read(digits: int) -> None:
    fraction = "123456789"[:digits]

    assert NOW + timedelta(microseconds=int(fraction.ljust(6, "0")[:6])) == parse_time(
        f"2026-03-01T12:00:00.{fraction}Z"
    )


@pytest.mark.note("F60")
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "now",
        "1772366400",
        "2026-02-30T12:00:00Z",
        "2026-03-01T25:00:00Z",
        "01.03.2026 12:00",
        "2026-03-01T12:00:00+25:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "\ud800",
    ],
)
def test_invalid_timestamp_is_none(text: str | None) -> None:
    assert parse_time(text) is None
