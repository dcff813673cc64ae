"""What older releases really wrote is read, carried on and paid by this one (tests/releases)."""

import base64
import json
import re
from pathlib import Path
from typing import TypeVar

import pytest

import csms
from csms import payments
from csms.model import Effect, MeterSample, Money, Presence, Reservation, ReservationState, TimelineEntry
from csms.provider import Checkout, Payment, PaymentStatus
from csms.service import Operators, Work
from csms.store import KEYS, from_item
from tests.releases.write import FOLDER, IDENTITY, PASSWORD, Site
from tests.tables import Table, Tables

ROOT = Path(__file__).parents[2]
RELEASES = sorted(folder.name for folder in FOLDER.iterdir() if (folder / "items.jsonl").exists())
T = TypeVar("T")
STANDS = {Money.AUTHORISED: PaymentStatus.AUTHORISED, Money.CAPTURING: PaymentStatus.AUTHORISED}


def written(release: str) -> list[dict[str, object]]:
    """The items as that release wrote them."""
    return [json.loads(line) for line in (FOLDER / release / "items.jsonl").read_text("utf-8").splitlines()]


class Upgraded(Site):
    """This release on a table that another one wrote, a minute after the last thing that happened there."""

    def __init__(self, table: Table) -> None:
        self._table = table
        super().__init__(table.store, max(entry.at for entry in self.all(TimelineEntry)))
        self.passes(minutes=1)
        for held in self.all(Reservation):
            self._pays(held)

    def all(self, kind: type[T]) -> list[T]:
        """Everything of a kind that is stored."""
        return [thing for thing in self._table.entities() if isinstance(thing, kind)]

    def reservation(self, state: ReservationState, money: Money) -> Reservation:
        """The one that stands so."""
        (held,) = [r for r in self.all(Reservation) if (r.state, r.money) == (state, money)]
        return held

    def _pays(self, held: Reservation) -> None:
        """The provider knows the reservation's payment as that release left it."""
        self.provider.know(
            payments.order(held, public_url="https://charge.example", window=self.policy.checkout_window),
            Checkout(checkout_id=held.checkout_id or "", url=held.checkout_url or ""),
            Payment(
                status=STANDS.get(held.money, PaymentStatus.OPEN),
                payment_id=held.payment_id,
                reservation_id=held.reservation_id,
                authorised_amount=held.authorised_amount or 0,
                capture_before=held.capture_before,
            ),
        )


@pytest.fixture(params=RELEASES)
def site(tables: Tables, request: pytest.FixtureRequest) -> Upgraded:
    """The station as that release left it."""
    table = tables("dynoxide")
    for item in written(request.param):
        table.put(item)
    return Upgraded(table)


def test_this_release_is_written_down() -> None:
    dated = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert csms.__version__ == dated[0]
    assert sorted(dated) == RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_release_wrote_each_kind_of_item(release: str) -> None:
    items = written(release)

    assert {kind.__name__ for kind in KEYS} == {item["type"] for item in items}
    readable = [(item, from_item(item)) for item in items]
    assert all((i["PK"], i["SK"]) == KEYS[type(e)](e) for i, e in readable if not isinstance(e, MeterSample))


@pytest.mark.parametrize("release", ["0.1.0", "0.1.1"])
def test_older_reservations_are_paid_at_stripe(release: str) -> None:
    items = [item for item in written(release) if item["type"] == "Reservation"]

    assert [] == [item for item in items if "provider" in item]
    assert ["stripe"] * len(items) == [from_item(item).provider for item in items]
    assert items


def test_charging_session_is_stopped_and_captured(site: Upgraded) -> None:
    held = site.reservation(ReservationState.CHARGING, Money.AUTHORISED)

    stopped_at = site.passes(minutes=20)
    site.says("StopTransaction", transactionId=held.transaction_id, meterStop=9000, timestamp=stopped_at)

    after = site.store.reservation(held.reservation_id)
    assert (ReservationState.COMPLETED, Money.CAPTURED, 526) == (after.state, after.money, after.captured_amount)


def test_open_checkout_can_be_paid(site: Upgraded) -> None:
    held = site.reservation(ReservationState.PENDING_PAYMENT, Money.NONE)

    site.provider.pay(held.checkout_id or "")
    site.drivers.confirm(held.reservation_id)

    assert Money.AUTHORISED is site.store.reservation(held.reservation_id).money


def test_unanswered_start_can_still_be_answered(site: Upgraded) -> None:
    held = site.reservation(ReservationState.START_REQUESTED, Money.AUTHORISED)
    (call,) = [call for call in site.store.snapshot(IDENTITY.lower()).calls if call.connector_id == held.connector_id]

    site.stations.receive("socket=", json.dumps([3, call.call_id, {"status": "Accepted"}]))

    assert site.store.reservation(held.reservation_id).start_accepted_at is not None


def test_owed_capture_is_made_by_the_sweep(site: Upgraded) -> None:
    owed = site.reservation(ReservationState.COMPLETED, Money.CAPTURING)

    report = site.maintenance.sweep()

    assert [] == report.failed
    assert Money.CAPTURED is site.store.reservation(owed.reservation_id).money
    assert owed.reservation_id not in {e.reservation_id for e in site.all(Effect)}


def test_finished_session_keeps_its_receipt(site: Upgraded) -> None:
    held = site.reservation(ReservationState.COMPLETED, Money.CAPTURED)

    assert 526 == site.drivers.receipt(held.reservation_id)["total"]


def test_station_reconnects_with_its_password(site: Upgraded) -> None:
    authorization = "Basic " + base64.b64encode(IDENTITY.encode() + b":" + PASSWORD).decode()

    site.stations.connect(IDENTITY, authorization=authorization, offered=("ocpp1.6",), connection_id="new=")

    assert ["new="] == [e.connection_id for e in site.all(Presence)]


def test_operator_sees_every_connector(site: Upgraded) -> None:
    operators = Operators(Work(store=site.store, now=site.clock))

    shown = operators.station(IDENTITY)
    explained = [operators.occupancy(IDENTITY, row["connectorId"]) for row in shown["connectors"]]

    assert [True, True, False, False, False] == [row["startable"] for row in explained]
    assert ["STRANGER-1"] == [row["identity"] for row in operators.strangers()["strangers"]]
