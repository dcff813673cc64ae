"""Writes what this release stores: one station with an item of each type, made by running the services.

Run it once for a release (`make release-data`), and commit the file: later releases are tested with what this one
really wrote (tests/contracts/test_releases.py).
"""

import base64
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from csms.adapters.dynamodb import KEYS, TYPE_NAMES, Store
from csms.errors import NotFound, PaymentUnavailable
from csms.model import Append, IdTag, Money, TagStatus, Tariff
from csms.ocpp.spoken import DIALECTS
from csms.service import Dependencies, Drivers, Maintenance, Stations
from local import database
from tests.fakes import Clock, FakeGateway, FakeProvider, SequentialIds
from tests.tables import Table, create_unique_table

FOLDER: Final = Path(__file__).parent
START: Final = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
IDENTITY: Final = "RELEASE-1"
PASSWORD: Final = b"only of this fixture"
SOCKET: Final = "socket="
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50, max_energy_wh=30_000)


class UnhelpfulProvider(FakeProvider):
    """A provider that captures nothing while `silent`, so that the capture stays owed."""

    silent = False

    def capture(self, payment_id: str, amount: int, *, key: str) -> Any:
        if self.silent:
            raise PaymentUnavailable("The payment provider did not answer usefully: api_error.")
        return super().capture(payment_id, amount, key=key)


class Site:
    """The station, its drivers and what serves them, on a clock of its own."""

    def __init__(self, store: Store, begins: datetime = START) -> None:
        self.store, self.clock, self.provider, self.gateway = store, Clock(begins), UnhelpfulProvider(), FakeGateway()
        dependencies = Dependencies(
            store=store,
            dialects=DIALECTS,
            gateway=self.gateway,  # type: ignore[arg-type]
            provider=self.provider,
            now=self.clock,
            new_ids=SequentialIds(f"release{begins:%H%M}"),
            public_url="https://charge.example",
        )
        self.policy = dependencies.policy
        self.stations, self.drivers, self.maintenance = (
            Stations(dependencies),
            Drivers(dependencies),
            Maintenance(dependencies),
        )
        self.serial = 0

    def send_call(self, action: str, **payload: Any) -> dict[str, Any]:
        """What the station is answered."""
        self.serial += 1
        frame = json.dumps([2, f"m{self.serial}", action, payload])
        answer: list[Any] = json.loads(self.stations.receive(SOCKET, frame) or "null")
        return dict(answer[2])

    def pass_time(self, **time: float) -> str:
        """The time after so much of it has passed, as a station writes it."""
        self.clock.move(timedelta(**time))
        return self.clock.at.isoformat()

    def create_paid_reservation(self, connector: int) -> str:
        """A reservation that was paid for, and whose start the station was asked for."""
        rid = str(self.drivers.create(IDENTITY, connector)["reservationId"])
        self.provider.pay(self.store.reservation(rid).checkout_id or "")
        self.drivers.confirm(rid)
        return rid

    def start_session(self, connector: int) -> tuple[str, int]:
        """A session that charges: its reservation and its transaction."""
        rid = self.create_paid_reservation(connector)
        self.stations.receive(SOCKET, json.dumps([3, self.gateway.frames[-1][1], {"status": "Accepted"}]))
        start = {"connectorId": connector, "idTag": self.store.reservation(rid).id_tag, "meterStart": 1000}
        begun = self.send_call("StartTransaction", **start, timestamp=self.pass_time(seconds=20))
        return rid, int(begun["transactionId"])

    def complete_session(self, connector: int) -> str:
        """A session that is over."""
        rid, number = self.start_session(connector)
        sample = {"timestamp": self.pass_time(minutes=10), "sampledValue": [{"value": "4000", "unit": "Wh"}]}
        self.send_call("MeterValues", connectorId=connector, transactionId=number, meterValue=[sample])
        self.send_call("StopTransaction", transactionId=number, meterStop=9000, timestamp=self.pass_time(minutes=20))
        return rid


def write(store: Store) -> None:
    """A station on which every kind of thing has happened."""
    site = Site(store)
    site.stations.register(IDENTITY, password=PASSWORD, connectors=(1, 2, 3, 4, 5), tariff=TARIFF)
    authorization = "Basic " + base64.b64encode(IDENTITY.encode() + b":" + PASSWORD).decode()
    try:
        site.stations.connect("STRANGER-1", authorization=authorization, offered=("ocpp1.6",), connection_id="other=")
    except NotFound:
        site.pass_time(seconds=1)
    site.stations.connect(IDENTITY, authorization=authorization, offered=("ocpp1.6",), connection_id=SOCKET)
    site.send_call("BootNotification", chargePointVendor="Acme", chargePointModel="One", firmwareVersion="1.2")
    for connector in range(6):
        site.send_call("StatusNotification", connectorId=connector, errorCode="NoError", status="Available")
    store.commit([Append(IdTag(tag="RFID-1", status=TagStatus.ACCEPTED))])
    rid = site.complete_session(1)
    site.provider.silent = True
    owed = site.complete_session(2)
    site.start_session(3)
    site.drivers.create(IDENTITY, 4)
    site.create_paid_reservation(5)
    site.drivers.receive_webhook(*site.provider.build_webhook(rid))
    assert (Money.CAPTURED, Money.CAPTURING) == (store.reservation(rid).money, store.reservation(owed).money)


def to_json_value(value: Any) -> Any:
    """DynamoDB's numbers as JSON has them."""
    return int(value) if isinstance(value, Decimal) else value


def main() -> int:
    release = sys.argv[1]
    with database.start() as engine:
        table: Table = create_unique_table(database.client(engine.endpoint), engine.endpoint)
        write(table.store)
        items: list[Mapping[str, Any]] = sorted(table.items(), key=lambda item: (item["PK"], item["SK"]))
    missing = {TYPE_NAMES[kind] for kind in KEYS} - {item["type"] for item in items}
    if missing:
        print(f"Nothing was written, because no item is a {', '.join(sorted(missing))}.", file=sys.stderr)
        return 1
    folder = FOLDER / release
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(item, default=to_json_value, sort_keys=True) for item in items]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{len(items)} items written to {folder.relative_to(FOLDER.parents[1])}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
