"""A charging session goes the same way in every app: what a driver is told is the same in this process and over
sockets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from csms.model import Policy
from local.stack import run_stack
from tests.app import App
from tests.app.http import HttpApp, wait_until
from tests.app.in_process import InProcessApp
from tests.app.stack import PASSWORD, REGISTRATION, TOKEN, build_options
from tests.builders import ANY_POWER_W, TARIFF


@pytest.fixture(scope="module")
def http_app() -> Iterator[HttpApp]:
    """A registered station on a running stack, whose sweep is only by hand."""
    with (
        run_stack(build_options()) as stack,
        HttpApp(url=stack.url, token=TOKEN, password=PASSWORD) as app,
    ):
        app.request_ok("PUT", f"/operations/stations/{app.identity}", REGISTRATION)
        yield app


@pytest.fixture
def in_process_app() -> InProcessApp:
    """A registered station whose side settles nothing, as in the stack."""
    policy = Policy(max_power_w=ANY_POWER_W, power_tolerance_percent=ANY_POWER_W)
    return InProcessApp(policy=policy, stations_settle=False).register(tariff=TARIFF)


def tell(status: dict[str, Any]) -> tuple[Any, ...]:
    """State, energy and money, as the driver sees them."""
    return tuple(status[name] for name in ("status", "energyWh", "money", "amount"))


def charge(app: App) -> list[Any]:
    """What the driver is told as the session goes on, and at last of a connector that is free again."""
    app.bring_online()
    told: list[Any] = [app.is_startable()]
    reservation_id = app.create_reservation()
    told += [app.is_startable(), tell(app.status(reservation_id))]
    app.pay(reservation_id)
    told.append(tell(app.confirm(reservation_id)))
    number = app.start_transaction(app.accept_start(reservation_id))
    app.send_meter_values(number, 5000)
    told.append(tell(app.status(reservation_id)))
    app.stop_transaction(number, 11_000)
    return [*told, settle(app, reservation_id), app.is_startable()]


def settle(app: App, reservation_id: str) -> tuple[Any, ...]:
    """What the driver is told when the bill is captured."""
    if isinstance(app, InProcessApp):
        app.sweep_after(timedelta(minutes=1))
    wait_until(lambda: app.status(reservation_id)["money"] == "captured")
    return tell(app.status(reservation_id))


def test_session_looks_same_over_sockets(in_process_app: InProcessApp, http_app: HttpApp) -> None:
    expected = [
        True,
        False,
        ("PendingPayment", 0, "none", 0),
        ("StartRequested", 0, "authorised", 0),
        ("Charging", 4000, "authorised", 288),
        ("Completed", 10_000, "captured", 645),
        True,
    ]

    assert expected == charge(in_process_app)
    assert expected == charge(http_app)


def test_cancelled_session_frees_either_connector(in_process_app: InProcessApp, http_app: HttpApp) -> None:
    for app in (in_process_app, http_app):
        reservation_id = app.bring_online().create_reservation(2)
        assert not app.is_startable(2)

        cancelled = app.cancel(reservation_id)

        assert ("Cancelled", True) == (cancelled["status"], app.is_startable(2))
