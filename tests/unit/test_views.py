"""What the public is told, and what it is never told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from csms import texts, views
from csms.model import ConnectorStatus, Money, ReservationState
from tests import builders as b
from tests.builders import HOUR, MINUTE, NOW, SECOND, SNAPSHOT_BY_STATE, audit_entry, decision_context, get_reservation

SECRETS = ("WTAG", "CARD", "pi_secret", "cs_secret", "call-", "socket-", "epoch", "scrypt")


@pytest.mark.note("F71")
@pytest.mark.parametrize("state", ReservationState)
def test_public_answer_leaks_no_internal_id(state: ReservationState) -> None:
    seen = SNAPSHOT_BY_STATE[state]()
    held = replace(get_reservation(seen), payment_id="pi_secret")

    view = json.dumps(
        [
            views.reservation(held, (audit_entry(),), b.open_transaction(), ("OpenTransaction",), now=NOW),
            views.redirect(held, public_url="https://example.org"),
            views.connector(seen, 1, decision_context()),
        ]
    )

    assert [] == [secret for secret in SECRETS if secret in view]


def test_redirect_shows_checkout_amount_and_expiry() -> None:
    assert {
        "status": "Redirect",
        "reservationId": "reservation-1",
        "checkoutUrl": "https://pay.example/c/1",
        "statusUrl": "https://example.org/session/reservation-1",
        "currency": "EUR",
        "maxAmount": 1835,
        "expiresAt": "2026-03-01T12:32:00.000Z",
    } == views.redirect(get_reservation(b.pending_payment_snapshot()), public_url="https://example.org")


def test_unpaid_reservation_shows_checkout_url() -> None:
    assert {
        "status": "PendingPayment",
        "money": "none",
        "reservationId": "reservation-1",
        "chargePointId": "CP-1",
        "connectorId": 1,
        "currency": "EUR",
        "exponent": 2,
        "maxAmount": 1835,
        "createdAt": "2026-03-01T12:00:00.000Z",
        "expiresAt": "2026-03-01T12:32:00.000Z",
        "energyWh": 0,
        "amount": 0,
        "checkoutUrl": "https://pay.example/c/1",
        "tariff": {
            "currency": "EUR",
            "exponent": 2,
            "pricePerKwh": "59.5",
            "sessionFee": 50,
            "idlePricePerMinute": "0",
            "idleGraceMinutes": 0,
            "idleMaximum": 0,
            "vatPercent": "0",
            "maxEnergyWh": 30000,
            "maxAmount": 1835,
            "minimumEnergyWh": 0,
        },
        "steps": [],
    } == views.reservation(get_reservation(b.pending_payment_snapshot()), now=NOW)


@pytest.mark.note("F65", "F68")
def test_price_shows_every_cost_and_limit() -> None:
    tariff = replace(
        b.TARIFF,
        idle_price=Decimal("12.5"),
        idle_grace_minutes=20,
        idle_maximum=1000,
        idle_free_from="22:00",
        idle_free_until="06:00",
        vat_percent=Decimal("8.10"),
        max_amount=2000,
        minimum_energy_wh=500,
    )

    assert {
        "currency": "EUR",
        "exponent": 2,
        "pricePerKwh": "59.5",
        "sessionFee": 50,
        "idlePricePerMinute": "12.5",
        "idleGraceMinutes": 20,
        "idleMaximum": 1000,
        "idleFreeFrom": "22:00",
        "idleFreeUntil": "06:00",
        "vatPercent": "8.10",
        "maxEnergyWh": 15_974,
        "maxAmount": 2000,
        "minimumEnergyWh": 500,
    } == views.price(tariff)


def test_operator_sees_registered_tariff_limits() -> None:
    limited = replace(b.TARIFF, max_amount=1000)

    registered = [
        views.station_details(b.snapshot(station=b.station(tariff=tariff)), b.decision_context())["tariff"]
        for tariff in (limited, b.TARIFF)
    ]

    assert [(30_000, 1000, 50), (30_000, None, 50)] == [
        (view["maxEnergyWh"], view["maxAmount"], view["minimumAmount"]) for view in registered
    ]


def test_charging_shows_energy_power_and_cost() -> None:
    view = views.reservation(
        get_reservation(b.charging_snapshot()), (), b.open_transaction(energy_wh=2000, power_w=7400), now=NOW
    )

    assert ("Charging", "authorised", 2000, 7400, 169) == (
        view["status"],
        view["money"],
        view["energyWh"],
        view["powerW"],
        view["amount"],
    )
    assert {"checkoutUrl", "stoppedAt", "capturedAmount", "waitingFor"}.isdisjoint(view)


@pytest.mark.note("F65")
def test_completed_session_shows_captured_amount() -> None:
    held = replace(get_reservation(b.completed_snapshot(NOW + HOUR)), money=Money.CAPTURED, captured_amount=645)

    view = views.reservation(held, now=NOW)

    assert ("Completed", "captured", 10_000, 645, 645, "2026-03-01T13:00:00.000Z") == (
        view["status"],
        view["money"],
        view["energyWh"],
        view["amount"],
        view["capturedAmount"],
        view["stoppedAt"],
    )
    assert "expiresAt" not in view


@pytest.mark.note("F68")
def test_running_idle_fee_is_shown() -> None:
    waiting = get_reservation(b.waiting_for_disconnect_snapshot())

    view = [views.reservation(waiting, now=NOW + after * MINUTE) for after in (0, 10, 11, 30, 600)]

    assert ("WaitingForDisconnect", "2026-03-01T12:00:00.000Z") == (view[0]["status"], view[0]["stoppedAt"])
    assert {"2026-03-01T12:00:00.000Z"} == {one["idle"]["since"] for one in view}
    assert {"2026-03-01T12:10:00.000Z"} == {one["idle"]["feeBeginsAt"] for one in view}
    assert [(0, 0), (600, 0), (660, 10), (1800, 200), (36_000, 600)] == [
        (one["idle"]["seconds"], one["idle"]["fee"]) for one in view
    ]
    assert [645, 645, 655, 845, 1245] == [one["amount"] for one in view]


@pytest.mark.note("F68")
@pytest.mark.parametrize("minutes", [0, 9, 10, 11, 25, 61, 71, 500])
def test_shown_idle_fee_equals_billed_fee(minutes: int) -> None:
    waiting = b.waiting_for_disconnect_snapshot()
    left = NOW + minutes * MINUTE

    shown = views.reservation(get_reservation(waiting), now=left)
    billed = views.reservation(get_reservation(b.report_status(waiting, "Available", left)), now=left + HOUR)

    assert shown["amount"] == billed["amount"]
    assert {name: shown["idle"][name] for name in ("seconds", "fee")} == billed.get("idle", {"seconds": 0, "fee": 0})


@pytest.mark.note("F68")
def test_full_car_shows_idle_while_charging() -> None:
    full = b.report_status(b.charging_snapshot(site=b.idle_billing_snapshot()), "SuspendedEV")

    view = views.reservation(get_reservation(full), (), b.open_transaction(energy_wh=2000), now=NOW + 30 * MINUTE)

    assert ("Charging", 200, 169 + 200) == (view["status"], view["idle"]["fee"], view["amount"])


def test_unbilled_idle_time_is_not_shown() -> None:
    full = b.report_status(b.charging_snapshot(), "SuspendedEV")

    assert "idle" not in views.reservation(get_reservation(full), (), b.open_transaction(), now=NOW + HOUR)


@pytest.mark.note("F65")
def test_cut_beyond_hold_is_shown() -> None:
    small = replace(get_reservation(b.charging_snapshot()), authorised_amount=500)
    settled = replace(get_reservation(b.completed_snapshot()), authorised_amount=500, amount=500)

    for view in (
        views.reservation(small, (), b.open_transaction(energy_wh=10_000), now=NOW),
        views.reservation(settled, now=NOW),
    ):
        assert (500, -145) == (view["amount"], view["cut"])


@pytest.mark.note("F55")
def test_refund_and_receipt_are_shown() -> None:
    paid = replace(get_reservation(b.completed_snapshot()), money=Money.CAPTURED, captured_amount=645)
    back = replace(paid, amount=288, refunded_amount=357)

    assert (357, "/receipt/reservation-1") == tuple(
        views.reservation(back, now=NOW)[name] for name in ("refundedAmount", "receiptUrl")
    )
    assert "refundedAmount" not in views.reservation(paid, now=NOW)
    assert "receiptUrl" not in views.reservation(get_reservation(b.completed_snapshot()), now=NOW)


def test_zero_bill_is_shown_as_zero() -> None:
    view = views.reservation(get_reservation(b.completed_snapshot(meter_stop=1000)), now=NOW)

    assert (0, 0, "releasing") == (view["amount"], view["energyWh"], view["money"])


def test_failure_code_and_wait_reasons_are_shown() -> None:
    assert "StartRejected" == views.reservation(get_reservation(b.failed_snapshot()), now=NOW)["failureCode"]

    waits = get_reservation(b.authorized_snapshot())
    waiting = views.reservation(waits, waiting_for=("LiveStatus:Unavailable",), now=NOW)["waitingFor"]

    assert [{"code": "LiveStatus:Unavailable", "message": texts.reason_text("LiveStatus:Unavailable")}] == waiting


def test_public_steps_omit_their_details() -> None:
    assert [
        {"at": "2026-03-01T12:00:00.000Z", "event": "Created", "state": "PendingPayment", "money": "none"},
        {"at": "2026-03-01T12:00:01.000Z", "event": "Started", "state": "Charging", "money": "authorised"},
    ] == views.reservation(
        get_reservation(b.charging_snapshot()),
        (
            audit_entry(),
            audit_entry(at=NOW + SECOND, event="Started", state=ReservationState.CHARGING, money=Money.AUTHORIZED),
        ),
        now=NOW,
    )["steps"]


def test_free_connector_is_startable_with_price() -> None:
    view = views.connector(b.snapshot(), 1, decision_context())

    assert ("CP-1", 1, "Available", True, []) == (
        view["chargePointId"],
        view["connectorId"],
        view["status"],
        view["startable"],
        view["reasons"],
    )
    assert "59.5" == view["tariff"]["pricePerKwh"]
    assert {"reason", "message"}.isdisjoint(view)


@pytest.mark.note("F02")
def test_busy_connector_shows_headline_first() -> None:
    view = views.connector(
        b.snapshot(b.connector(transaction=b.open_transaction(), lock=b.lock())), 1, decision_context()
    )

    assert ("Occupied", False, "OpenTransaction", ["OpenTransaction", "ActiveReservation"]) == (
        view["status"],
        view["startable"],
        view["reason"],
        view["reasons"],
    )
    assert view["message"].startswith("This connector is currently in use.")


@pytest.mark.note("F70")
@pytest.mark.parametrize("price", ["59.5", "60", "1E+2", "0.05", "6E-7"])
def test_price_is_a_plain_decimal(price: str) -> None:
    view = views.price(replace(b.TARIFF, energy_price=Decimal(price)))["pricePerKwh"]

    assert Decimal(price) == Decimal(view)
    assert "E" not in view


@pytest.mark.note("F60")
@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, None),
        (NOW, "2026-03-01T12:00:00.000Z"),
        (NOW + timedelta(microseconds=1999), "2026-03-01T12:00:00.001Z"),
        (datetime(2026, 3, 1, 14, tzinfo=timezone(2 * HOUR)), "2026-03-01T12:00:00.000Z"),
        (datetime(2026, 3, 1, 12, 30, tzinfo=timezone(30 * MINUTE)), "2026-03-01T12:00:00.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_every_public_time_ends_in_z(at: datetime | None, text: str | None) -> None:
    assert text == views.format_optional_time(at)


def test_every_answer_is_plain_json() -> None:
    for reached in SNAPSHOT_BY_STATE.values():
        seen = reached()
        for view in (views.reservation(get_reservation(seen), now=NOW), views.connector(seen, 1, decision_context())):
            assert view == json.loads(json.dumps(view))

    assert (
        str(ConnectorStatus.AVAILABLE)
        == json.loads(json.dumps(views.connector(b.snapshot(), 1, decision_context())))["status"]
    )
