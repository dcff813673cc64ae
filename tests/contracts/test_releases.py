"""What older releases really wrote is read, carried on and paid by this one (tests/releases)."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

import csms
from csms.adapters.dynamodb import KEYS, SCHEMA, TYPE_NAMES, Item, from_item, skim_item, to_item, upgrade
from csms.charging import checkout
from csms.model import (
    CommandRecord,
    ForeignItem,
    InboxSlot,
    KeptMessage,
    Money,
    OutboxItem,
    Presence,
    RefusedConnections,
    Reservation,
    ReservationState,
    TimelineEntry,
    Turn,
    Versioned,
    WaitingFrame,
)
from csms.ports.payments import Checkout, Payment, PaymentStatus
from tests.fakes import Clock, SequentialIds
from tests.releases.write import FOLDER, IDENTITY, ReleaseSite
from tests.tables import Table, Tables

ROOT = Path(__file__).parents[2]
RELEASES = sorted(folder.name for folder in FOLDER.iterdir() if (folder / "items.jsonl").exists())
T = TypeVar("T")
PAYMENT_STATUS_BY_MONEY = {Money.AUTHORIZED: PaymentStatus.AUTHORIZED, Money.CAPTURING: PaymentStatus.AUTHORIZED}


def read_items(release: str) -> list[dict[str, object]]:
    """The items as that release wrote them."""
    return [json.loads(line) for line in (FOLDER / release / "items.jsonl").read_text("utf-8").splitlines()]


def keep_items(items: list[Item]) -> list[Item]:
    return items


def add_unknown_attributes(items: list[Item]) -> list[Item]:
    """Each item and each map in it has one more attribute, but for a command: that of a newer release is its own."""
    grown = [item | {name: grow(value) for name, value in item.items() if name not in COMMAND} for item in items]
    return [item | LATER for item in grown]


COMMAND: Final = {"command", "result"}


def grow(value: Any) -> Any:
    return value | LATER if isinstance(value, dict) else value


def add_unknown_words(items: list[Item]) -> list[Item]:
    """Each kind of word that is no operation's subject is one of later, and so are all words of one more connector, its
    reservation, and a CALL and a provider call that are owed."""
    later: list[Item] = []
    for item in items:
        match item:
            case {"type": "IdTag", "tag": "RFID-1"}:
                later.append(item | {"status": "Suspended"})
            case {"type": "Connector", "persisted": dict(persisted)}:
                later.append(item | {"persisted": persisted | {"source": "roaming partner"}})
            case {"type": "Transaction", "stopped_at": _}:
                later.append(item | {"id_tag_status": "Suspended"})
            case {"type": "Reservation", "money": "captured"}:
                words = {"state": "Paused", "money": "disputed", "failure_code": "Moved"}
                key = {"PK": "RESERVATION#later", "reservation_id": "later", "connector_id": 1, **words}
                lock = {"reservation_id": "later", "state": "Paused", "id_tag": "LATER"}
                owed = {"PK": "RESERVATION#later", "SK": "EFFECT#notify", "type": "Effect", "version": 1}
                later += [item, item | key, owed | {"reservation_id": "later", "kind": "notify"}]
                later.append(
                    {"PK": STATION, "SK": "CONNECTOR#6", "type": "Connector", "version": 1, "lock": lock}
                    | CONNECTOR_KEY
                )
            case {"type": "OutboundCall"}:
                words = {"command": {"kind": "SetChargingProfile"}, "state": "paused"}
                later += [item, item | {"SK": "CALL#later", "call_id": "later", "due_shard": "DUE#later", **words}]
            case _:
                later.append(item)
    return later


def add_unknown_types(items: list[Item]) -> list[Item]:
    """Beside each item stands one of a type of later."""
    keys = sorted({str(item["PK"]) for item in items})
    return [*items, *({"PK": pk, "SK": "NOVEL#1", "type": "ChargingProfile", "version": 3, **LATER} for pk in keys)]


def simulate_later_release(items: list[Item]) -> list[Item]:
    """All of it, under a number of later."""
    later = [upgrade(item) for item in items]
    return [item | {"schema": 99} for item in add_unknown_types(add_unknown_words(add_unknown_attributes(later)))]


STATION: Final = f"STATION#{IDENTITY.lower()}"
CONNECTOR_KEY: Final = {"station_id": IDENTITY.lower(), "connector_id": 6}
LATER: Final[Item] = {"later": {"a": [1, "two"]}}
Alter = Callable[[list[Item]], list[Item]]
ALTERATIONS: Final[tuple[Alter, ...]] = (
    keep_items,
    add_unknown_attributes,
    add_unknown_words,
    add_unknown_types,
    simulate_later_release,
)
WORDS: Final = {"status", "source", "id_tag_status", "state", "money", "failure_code", "kind", "command"}


@dataclass(kw_only=True)
class UpgradedSite(ReleaseSite):
    """This release on a table that another one wrote, a minute after the last thing that happened there."""

    table: Table

    def __post_init__(self) -> None:
        self._found = self.table.items()
        self.clock = Clock(max(entry.at for entry in self.all(TimelineEntry)))
        self.new_ids = SequentialIds(f"release{self.clock.at:%H%M}")
        super().__post_init__()
        self.pass_time(minutes=1)
        for held in self.all(Reservation):
            self._add_payment(held)

    def all(self, kind: type[T]) -> list[T]:
        """Everything of a kind that is stored."""
        return [thing for item in self.table.items() if isinstance(thing := skim_item(item), kind)]

    def find_reservation(self, state: ReservationState, money: Money) -> Reservation:
        """The one that stands so."""
        (held,) = [r for r in self.all(Reservation) if (r.state, r.money) == (state, money)]
        return held

    def lost_items(self) -> list[Item]:
        """What this release should have left as it was, and did not."""
        after = {(item["PK"], item["SK"]): item for item in self.table.items()}
        lost = []
        for item in self._found:
            now, entity = after.get((item["PK"], item["SK"])), skim_item(item)
            if not isinstance(entity, Versioned) and item.get("version"):
                lost += [item] if now != item else []
            elif isinstance(entity, Versioned) and now is not None:
                lost += [item] if now.get("later") != item.get("later") else []
        return lost

    def _add_payment(self, held: Reservation) -> None:
        """The provider knows the reservation's payment as that release left it."""
        self.provider.add_checkout(
            checkout.build_order(held, public_url="https://charge.example", window=self.policy.checkout_window),
            Checkout(checkout_id=held.checkout_id or "", url=held.checkout_url or ""),
            Payment(
                status=PAYMENT_STATUS_BY_MONEY.get(held.money, PaymentStatus.OPEN),
                payment_id=held.payment_id,
                reservation_id=held.reservation_id,
                authorised_amount=held.authorised_amount or 0,
                capture_before=held.capture_before,
            ),
        )


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=ALTERATIONS, ids=lambda alter: alter.__name__)
def site(tables: Tables, release: str, request: pytest.FixtureRequest) -> Iterator[UpgradedSite]:
    """The station as that release left it, or as a later one would have; what this one does not know is still there in
    the end."""
    table = tables("dynoxide")
    for item in request.param(read_items(release)):
        table.put(item)
    it = UpgradedSite(store=table.store, table=table)
    yield it
    assert [] == it.lost_items()


def test_changelog_and_recorded_releases_agree() -> None:
    dated = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert csms.__version__ == dated[0]
    assert sorted(dated) == RELEASES


def test_each_release_wrote_every_item_type(release: str) -> None:
    items = read_items(release)

    # A release before that had no such item.
    since = {
        CommandRecord: (0, 2, 0),
        InboxSlot: (0, 6, 0),
        KeptMessage: (0, 5, 0),
        RefusedConnections: (0, 6, 0),
        Turn: (0, 4, 0),
        WaitingFrame: (0, 4, 0),
    }
    number = tuple(map(int, release.split(".")))
    assert {TYPE_NAMES[kind] for kind in KEYS if since.get(kind, ()) <= number} == {item["type"] for item in items}
    readable = [(item, from_item(item)) for item in items]
    assert all((i["PK"], i["SK"]) == KEYS[type(e)](e) for i, e in readable)


def test_rewritten_item_keeps_all_attributes(release: str) -> None:
    for item in map(upgrade, (*read_items(release), *add_unknown_attributes(read_items(release)))):
        entity = from_item(item)
        again = json.loads(json.dumps(to_item(entity), default=int))

        assert SCHEMA == again.pop("schema")
        assert again.keys() >= item.keys() - {"schema"} or not isinstance(entity, Versioned)
        common = item.keys() & again.keys() - {"schema"}
        assert {name: item[name] for name in common} == {name: common_part(again[name], item[name]) for name in common}


def common_part(value: Any, item: Any) -> Any:
    """The part of the value that the item has too: releases add attributes."""
    return {name: inner for name, inner in value.items() if name in item} if isinstance(value, dict) else value


def test_unknown_values_of_later_releases_survive(release: str) -> None:
    known = {(i["PK"], i["SK"]) for i in read_items(release)}
    for item in add_unknown_words([upgrade(item) for item in read_items(release)]):
        if item["type"] == "OutboundCall" and item["SK"] == "CALL#later":
            assert isinstance(skim_item(item), ForeignItem), "nobody here knows how to send it"
            continue
        again = to_item(from_item(item))

        assert {n: v for n, v in item.items() if n in WORDS} == {n: v for n, v in again.items() if n in WORDS}
    assert {"CALL#later", "CONNECTOR#6", "EFFECT#notify", "RESERVATION"} == {
        i["SK"] for i in add_unknown_words(read_items(release)) if (i["PK"], i["SK"]) not in known
    }


@pytest.mark.parametrize("release", ["0.1.0", "0.1.1"])
def test_older_reservations_default_to_stripe(release: str) -> None:
    items = [item for item in read_items(release) if item["type"] == "Reservation"]

    assert [] == [item for item in items if "provider" in item]
    assert ["stripe"] * len(items) == [from_item(item).provider for item in items]
    assert items


def test_charging_session_is_stopped_and_captured(site: UpgradedSite) -> None:
    held = site.find_reservation(ReservationState.CHARGING, Money.AUTHORIZED)

    site.stop_transaction(held.transaction_id, 9000, at=site.pass_time(minutes=20))

    after = site.reservation(held.reservation_id)
    assert (ReservationState.COMPLETED, Money.CAPTURED, 526) == (after.state, after.money, after.captured_amount)


def test_open_checkout_can_be_paid(site: UpgradedSite) -> None:
    held = site.find_reservation(ReservationState.PENDING_PAYMENT, Money.NONE)

    site.pay(held.reservation_id)
    site.confirm(held.reservation_id)

    assert Money.AUTHORIZED is site.reservation(held.reservation_id).money


def test_pending_remote_start_can_be_answered(site: UpgradedSite) -> None:
    held = site.find_reservation(ReservationState.START_REQUESTED, Money.AUTHORIZED)
    (call,) = [call for call in site.snapshot().calls if call.connector_id == held.connector_id]

    site.answer_call("Accepted", call_id=call.call_id)

    assert site.reservation(held.reservation_id).start_accepted_at is not None


def test_sweep_makes_owed_capture(site: UpgradedSite) -> None:
    owed = site.find_reservation(ReservationState.COMPLETED, Money.CAPTURING)

    report = site.sweep()

    assert [] == report.failed
    assert Money.CAPTURED is site.reservation(owed.reservation_id).money
    assert owed.reservation_id not in {e.reservation_id for e in site.all(OutboxItem)}


def test_finished_session_keeps_its_receipt(site: UpgradedSite) -> None:
    held = site.find_reservation(ReservationState.COMPLETED, Money.CAPTURED)

    assert 526 == site.drivers.receipt(held.reservation_id)["total"]


def test_station_reconnects_with_its_password(site: UpgradedSite) -> None:
    site.connect("new=")

    assert ["new="] == [e.connection_id for e in site.all(Presence)]


def test_operator_sees_connectors_and_unknown_stations(site: UpgradedSite) -> None:
    shown = site.operators.station(IDENTITY)
    explained = [site.operators.occupancy(IDENTITY, row["connectorId"]) for row in shown["connectors"]]

    assert [True, True, False, False, False] == [row["startable"] for row in explained]
    assert ["STRANGER-1"] == [row["identity"] for row in site.operators.unknown_stations(limit=100)["unknownStations"]]
