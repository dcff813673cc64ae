"""One complete charge on a deployed stack: the connector is free, a driver pays, charges, and gets the right bill.

The stand-in's checkout is filled in here. Stripe's own page lets no program pay, so the smoke test waits for a person.
"""

import time
from typing import Any, Final

from local import story
from local.charger import DemoCharger
from local.client import ClientError, is_local
from local.stack import run_chargers
from local.story import expected_amount, follow, format_euros, post, require_answer, wait_until
from smoke.site import RegisteredStation, Site
from smoke.verdicts import DoesNotHold

ENERGY_WH: Final = 500
SPEED: Final = 15.0  # 330 kW. More than the strongest charger can deliver would put the payment under review.
POLL_S: Final = 1.0
WEBHOOK_S: Final = 10.0
WIDTH: Final = 120
PROGRESS_S: Final = 15.0

Json = dict[str, Any]


def check_charge(site: Site) -> str:
    """Run a charge and describe it. Raises DoesNotHold if the bill is wrong or the connector is not free again."""
    station = site.register_station("-z")
    charger = DemoCharger(
        site.url,
        station.identity,
        station.password,
        connectors=1,
        speed=SPEED,
        meter_interval_s=1.0,
        energy_wh=ENERGY_WH,
        on_event=lambda event: site.say(f"    {event[:WIDTH]}"),
    )
    with run_chargers((charger,)):
        try:
            return _run_charge(site, station)
        except story.StoryError as failed:
            raise DoesNotHold(str(failed)) from failed


def _run_charge(site: Site, station: RegisteredStation) -> str:
    http, patience = site.api.url.rstrip("/"), site.patience_s
    connector = f"{http}/payments/connectors/{station.identity}/1"
    wait_until("the connector to be free", connector, lambda body: bool(body.get("startable")), patience=patience)
    wish = {"chargePointId": station.identity, "connectorId": 1}
    created = require_answer(200, "Redirect", post(f"{http}/payments/create", wish))
    require_answer(409, "ConnectorBusy", post(f"{http}/payments/create", wish))
    site.say("The connector is held for one driver, and refused to a second.")

    reservation = created["reservationId"]
    status = f"{http}/payments/status/{reservation}"
    paid_by_hand = _await_payment(site, created["checkoutUrl"], status)
    heard = _await_authorization(site, reservation, status)
    done = follow(status, lambda line: site.say(line), patience=patience)
    expected = expected_amount(ENERGY_WH)
    if (done["energyWh"], done["capturedAmount"]) != (ENERGY_WH, expected):
        raise DoesNotHold(f"{done['energyWh']} Wh and {done['capturedAmount']} were captured, not {expected}")
    wait_until("the connector to be free again", connector, lambda body: bool(body.get("startable")), patience=patience)
    return f"{ENERGY_WH / 1000:g} kWh, {format_euros(expected)} captured; paid by {paid_by_hand}, heard by {heard}"


def _await_payment(site: Site, checkout_url: str, status: str) -> str:
    """Wait for the payment, and return who paid. Raises DoesNotHold if nobody paid in time."""
    if is_local(checkout_url):
        story.pay(checkout_url)
        return "the smoke test"
    site.say(f"Please pay with card {story.CARD}, any date to come, any code: {checkout_url}")
    end, reported_at = time.monotonic() + site.pay_minutes * 60, 0.0
    while (left := end - time.monotonic()) > 0:
        answer = story.request("GET", status)
        if answer.status == 200 and answer.body["status"] != "PendingPayment":
            return "hand"
        if time.monotonic() - reported_at > PROGRESS_S:
            reported_at = time.monotonic()
            site.say(f"Waiting for the payment, {left / 60:.1f} minutes left.")
        time.sleep(POLL_S)
    raise DoesNotHold(f"nobody paid within {site.pay_minutes:g} minutes")


def _await_authorization(site: Site, reservation: str, status: str) -> str:
    """Wait for the authorization, and return how csms learned of it: from the webhook, which needs no browser, or from
    a look-up because none came."""

    def has_moved() -> bool:
        return bool(story.request("GET", status).body.get("status") != "PendingPayment")

    try:
        site.wait_until("the webhook", has_moved, WEBHOOK_S)
    except ClientError:
        site.say("No webhook has come; the payment is looked up instead, as the driver's page does.")
        story.post(f"{site.api.url.rstrip('/')}/payments/confirm", {"reservationId": reservation})
        return f"looking it up: no webhook came within {WEBHOOK_S:g} s"
    return "webhook, or by the driver's page"
