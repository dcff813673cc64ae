"""One entity of each kind as before it was first saved, how it stands after, and a table that stops answering."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from csms.adapters.dynamodb import KEYS
from csms.model import (
    AuditEntry,
    Connection,
    Connector,
    IdempotencyRecord,
    IdTag,
    IdToken,
    Money,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Presence,
    Protocol,
    RemoteStart,
    Reservation,
    ReservationState,
    Station,
    TagStatus,
    Tariff,
    Transaction,
    Versioned,
)
from tests.fakes import FakeStore
from tests.tables import Table

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
TARIFF = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50)
STATION = Station(station_id="cp1", identity="CP1", password_hash="scrypt$00$00", connectors=(1, 2), tariff=TARIFF)
PRESENCE = Presence(
    station_id="cp1",
    connection_id="abc=",
    protocol=Protocol.OCPP16,
    epoch="e1",
    connected_at=NOW,
    last_seen_at=NOW,
    lease_until=LATER,
)
CONNECTOR = Connector(station_id="cp1", connector_id=1)
CALL = OutboundCall(
    station_id="cp1",
    call_id="c1",
    command=RemoteStart(connector_id=1, id_token=IdToken(value="WTAG")),
    asked_at=NOW,
    send_at=NOW,
    due_at=NOW,
    expires_at=LATER,
)
RESERVATION = Reservation(
    reservation_id="r1",
    station_id="cp1",
    identity="CP1",
    connector_id=1,
    state=ReservationState.PENDING_PAYMENT,
    id_tag="WTAG",
    tariff=TARIFF,
    max_amount=1820,
    created_at=NOW,
    expires_at=NOW,
)
OUTBOX_ITEM = OutboxItem(reservation_id="r1", kind=OutboxKind.CAPTURE, due_at=NOW)
TRANSACTION = Transaction(
    transaction_id="7",
    station_id="cp1",
    connector_id=1,
    id_tag="WTAG",
    id_tag_status=TagStatus.ACCEPTED,
    started_at=NOW,
    received_at=NOW,
    meter_start_wh=1000,
)
TAG = IdTag(tag="WTag", status=TagStatus.INVALID, reservation_id="r1")
IDEMPOTENCY_RECORD = IdempotencyRecord(station_id="cp1", digest="d1", answer={"transaction_id": 7}, expires_at=LATER)
AUDIT_ENTRY = AuditEntry(
    reservation_id="r1", at=NOW, event="Created", state=ReservationState.PENDING_PAYMENT, money=Money.NONE, detail="one"
)
SOCKET = Connection(connection_id="abc=", station_id="cp1", protocol=Protocol.OCPP16, expires_at=LATER)
VERSIONED: tuple[Versioned, ...] = (STATION, PRESENCE, CONNECTOR, CALL, RESERVATION, OUTBOX_ITEM, TRANSACTION)


def saved_entity(entity: Any) -> Any:
    """The entity as it stands in the table after it was saved."""
    return replace(entity, version=entity.version + 1)


def sort_by_key(entities: list[Any]) -> list[Any]:
    return sorted(entities, key=lambda entity: KEYS[type(entity)](entity))


def silence(table: Table | FakeStore) -> None:
    """From here on the table gives no useful answer."""
    if isinstance(table, FakeStore):
        table.unavailable = True
        return
    table.client.delete_table(TableName=table.name)
