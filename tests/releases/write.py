"""Writes what this release stores: one station with an item of each type, made by running the services.

Run it once for a release (`make release-data`), and commit the file: later releases are tested with what this one
really wrote (tests/contracts/test_releases.py).
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from csms.adapters.dynamodb import KEYS, TYPE_NAMES, Store
from csms.errors import NotFound, PaymentUnavailable, Unauthorized
from csms.model import Append, IdTag, Money, Policy, Protocol, TagStatus, Tariff, WaitingFrame
from csms.service.frames import KEPT_IN_LINE
from local import database
from tests.app import METER_START
from tests.app.in_process import InProcessApp
from tests.fakes import Clock, FakeProvider, SequentialIds
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


@dataclass(kw_only=True)
class ReleaseSite(InProcessApp):
    """The station, its drivers and what serves them, on a clock of its own that goes on with each step."""

    identity: str = IDENTITY
    socket: str = SOCKET
    password: bytes = PASSWORD
    email: str | None = None
    policy: Policy = field(default_factory=Policy)
    provider: UnhelpfulProvider = field(default_factory=UnhelpfulProvider)
    clock: Clock = field(default_factory=lambda: Clock(START))
    new_ids: SequentialIds = field(default_factory=lambda: SequentialIds(f"release{START:%H%M}"))

    def start_session(self, connector: int = 1) -> tuple[str, int]:
        reservation_id = self.create_paid_reservation(connector)
        id_tag = self.accept_start(reservation_id)
        return reservation_id, self.start_transaction(id_tag, connector=connector, at=self.pass_time(seconds=20))

    def finish_session(self, connector: int = 1, *, energy_wh: int = 8000) -> str:
        reservation_id, number = self.start_session(connector)
        at = self.pass_time(minutes=10)
        self.send_meter_values(number, METER_START + energy_wh - 5000, connector=connector, at=at)
        self.stop_transaction(number, METER_START + energy_wh, at=self.pass_time(minutes=20))
        return reservation_id


def write(store: Store) -> None:
    """A station on which every kind of thing has happened."""
    site = ReleaseSite(store=store).register(connectors=(1, 2, 3, 4, 5), tariff=TARIFF)
    try:
        site.at("STRANGER-1").connect("other=")
    except NotFound:
        site.pass_time(seconds=1)
    try:
        site.connect("guess=", b"wrong")
    except Unauthorized:
        site.pass_time(seconds=1)
    site.connect()
    site.send_call("BootNotification", chargePointVendor="Acme", chargePointModel="One", firmwareVersion="1.2")
    for connector in range(6):
        site.report_status(connector, "Available")
    site.send_call("StatusNotification", status="Available", errorCode="NoError")
    store.commit([Append(IdTag(tag="RFID-1", status=TagStatus.ACCEPTED))])
    rid = site.finish_session(1)
    site.provider.silent = True
    owed = site.finish_session(2)
    site.start_session(3)
    site.create_reservation(4)
    site.create_paid_reservation(5)
    site.drivers.receive_webhook(*site.provider.build_webhook(rid))
    store.join_line(
        WaitingFrame(
            station_id=IDENTITY.lower(),
            frame_id="frame-1",
            connection_id=SOCKET,
            protocol=Protocol.OCPP16,
            received_at=site.now(),
            text=json.dumps([2, "frame-1", "Heartbeat", {}]),
            expires_at=site.now() + KEPT_IN_LINE,
        ),
        site.now(),
    )
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
