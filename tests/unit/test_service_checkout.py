"""What does a driver who creates, resumes, pays, confirms or cancels a reservation get?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from csms.errors import ConnectorBusy
from csms.model import Append, IdTag, OutboxItem, Save, TagStatus
from tests.app.in_process import TARIFF, InProcessApp


@pytest.fixture
def app() -> InProcessApp:
    return InProcessApp().register()


@pytest.mark.note("F34")
def test_confirm_after_payment_asks_no_provider(app: InProcessApp) -> None:
    app.bring_online()
    paid = app.create_paid_reservation()
    app.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    free = app.create(2, id_tag="FRIEND")["reservationId"]
    app.provider.fail_next("payment")

    assert ["StartRequested"] * 2 == [app.confirm(rid)["status"] for rid in (paid, free)]


@pytest.mark.note("F35")
def test_verified_redirect_alone_starts_the_charge(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    lying = app.confirm(rid)
    assert ("PendingPayment", "none", []) == (lying["status"], lying["money"], app.frames)

    app.pay(rid)
    paid = app.confirm(rid)

    assert ("StartRequested", "authorised") == (paid["status"], paid["money"])
    assert ["RemoteStartTransaction"] == [frame[2] for frame in app.frames]


@pytest.mark.note("F35")
def test_second_confirm_starts_after_reconnect(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    app.pay(rid)
    app.disconnect("A")
    assert "Authorized" == app.confirm(rid)["status"]

    app.connect("B")

    assert "StartRequested" == app.confirm(rid)["status"]


@pytest.mark.note("F36")
@pytest.mark.parametrize("another", [None, "0" * 32], ids=["that began nothing", "that began something else"])
def test_only_own_browser_resumes_checkout(app: InProcessApp, another: str | None) -> None:
    app.bring_online()
    first = app.create()
    app.provider.fail_next("open_checkout")  # Nobody asks for another one.
    resumed = app.drivers.create("cp1", 1, resume=first["reservationId"])
    with pytest.raises(ConnectorBusy) as refused:
        app.create(1, resume=another)

    assert first == resumed
    assert ("ActiveReservation",) == refused.value.reasons
    assert "temporarily reserved" in refused.value.message


@pytest.mark.note("F36")
def test_other_or_ended_checkout_is_not_resumed(app: InProcessApp) -> None:
    app.bring_online()
    first = app.create()
    other = app.create(2, resume=first["reservationId"])
    app.cancel(first["reservationId"])
    again = app.create(1, resume=first["reservationId"])

    assert 3 == len({first["reservationId"], other["reservationId"], again["reservationId"]})


@pytest.mark.note("F36")
def test_checkout_resumes_until_expiry(app: InProcessApp) -> None:
    app.bring_online()
    first = app.create()
    until = app.reservation(first["reservationId"]).expires_at
    assert until is not None
    app.clock.move(until - app.clock())
    app.send_call("Heartbeat")
    assert first == app.create(1, resume=first["reservationId"])

    app.clock.move(timedelta(microseconds=1))

    assert first["reservationId"] != app.create(1, resume=first["reservationId"])["reservationId"]


@pytest.mark.note("F36")
def test_paid_checkout_is_not_resumed(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_paid_reservation()

    with pytest.raises(ConnectorBusy):
        app.create(1, resume=rid)


@pytest.mark.note("F37")
def test_free_session_has_lock_and_status_page(app: InProcessApp) -> None:
    app.bring_online()
    app.store.commit([Append(IdTag(tag="FRIEND", status=TagStatus.ACCEPTED, free=True))])
    begun = app.create(1, id_tag="friend")
    with pytest.raises(ConnectorBusy):
        app.create(1, id_tag="FRIEND")
    followed = app.status(begun["reservationId"])

    page = f"https://charge.example/session/{begun['reservationId']}"
    assert ("NothingToPay", page) == (begun["status"], begun["statusUrl"])
    assert ("StartRequested", "none", 0) == (followed["status"], followed["money"], followed["maxAmount"])


@pytest.mark.note("F37")
def test_free_station_session_owes_nothing(app: InProcessApp) -> None:
    app.bring_online()
    station = app.snapshot().station
    app.store.commit([Save(replace(station, free=True))])
    rid = app.create_reservation()
    app.answer_call("Accepted")
    number = app.start_transaction(app.reservation(rid).id_tag, meter=0, at="2026-11-23T09:00:10Z")
    app.stop_transaction(number, 9000, at="2026-11-23T09:30:00Z")
    followed = app.status(rid)

    assert ("Completed", "none", 9000, 0) == tuple(followed[k] for k in ("status", "money", "energyWh", "amount"))
    assert [] == [e for e in app.store.entities() if isinstance(e, OutboxItem)]


@pytest.mark.note("F64")
def test_late_payment_is_released_at_once(app: InProcessApp) -> None:
    app.bring_online()
    rid = app.create_reservation()
    checkout = app.reservation(rid).checkout_id or ""
    app.provider.fail_next("expire_checkout")
    app.cancel(rid)
    app.provider.pay(checkout)
    told = app.confirm(rid)

    assert ("Cancelled", "released") == (told["status"], told["money"])
    assert "PaymentCameTooLate" in [audit_entry["event"] for audit_entry in told["steps"]]
    assert 0 == app.provider.held_amount()


@pytest.mark.note("F68")
def test_idle_fee_stops_when_station_falls_silent(app: InProcessApp) -> None:
    app.bring_online()
    station = app.snapshot().station
    idle = replace(TARIFF, idle_price=Decimal(10), idle_maximum=600)
    app.store.commit([Save(replace(station, tariff=idle))])
    rid = app.create_paid_reservation()
    number = app.start_transaction(app.reservation(rid).id_tag, meter=0)
    app.report_status(1, "SuspendedEV")
    app.stop_transaction(number, 10_000)
    app.clock.move(timedelta(minutes=10))
    app.send_call("Heartbeat")
    while_online = app.status(rid)
    app.clock.move(timedelta(hours=2))
    later = app.status(rid)

    assert ("WaitingForDisconnect", 100) == (while_online["status"], while_online["idle"]["fee"])
    assert while_online["idle"] == later["idle"]
