"""Valid values, so that a test states only what matters to it. Reservations are created by the product's own decisions,
never put together by hand."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from csms.charging import checkout, command_results
from csms.model import (
    Append,
    AuditEntry,
    Connector,
    DecisionContext,
    Drop,
    IdempotencyRecord,
    IdTag,
    LiveStatus,
    Lock,
    Money,
    NewIds,
    OpenTransaction,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    PersistedStatus,
    Policy,
    Presence,
    Protocol,
    Reading,
    Reservation,
    ReservationState,
    Save,
    Snapshot,
    Station,
    StatusSource,
    TagStatus,
    Tariff,
    Transaction,
    Write,
    build_outcome,
)
from csms.ocpp.framing import CallResult
from csms.ocpp.v16 import DIALECT, core
from csms.ocpp.v16.values import read_state
from csms.ports.payments import Checkout, Payment, PaymentStatus

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50, max_energy_wh=30_000)
AUTHORIZED: Final = 1835
IDLING: Final = replace(TARIFF, idle_price=Decimal(10), idle_grace_minutes=10, idle_maximum=600)
"""The tariff of a site that bills idle time: 10 a minute after 10 minutes, at most 600."""
IDLE_AUTHORIZED: Final = AUTHORIZED + 600
ANY_POWER_W: Final = 10**15
"""A limit above any charger's power, because with a clock that stands still every rise of the meter would be
implausible."""
CHECKOUT: Final = Checkout(checkout_id="cs_secret", url="https://pay.example/c/1")


def decision_context(now: datetime = NOW, *, serial: int = 1, **settings: Any) -> DecisionContext:
    """A decision context whose new ids end in `serial`, with the default policy except for these settings, and without
    a limit on the charger's power."""
    new_ids = NewIds(
        reservation_id=f"reservation-{serial}",
        id_tag=f"WTAG{serial}",
        transaction_id=str(serial),
        call_id=f"call-{serial}",
        epoch=f"epoch-{serial}",
    )
    return DecisionContext(
        now=now,
        new_ids=new_ids,
        policy=Policy(**{"max_power_w": ANY_POWER_W, "power_tolerance_percent": ANY_POWER_W} | settings),
    )


def basic_auth_header(user: str | bytes, password: bytes) -> str:
    """The Authorization header by which a station proves who it is."""
    name = user.encode() if isinstance(user, str) else user
    return "Basic " + base64.b64encode(name + b":" + password).decode()


def station(**changes: Any) -> Station:
    """A registered station with two connectors."""
    known = Station(
        station_id="cp-1", identity="CP-1", password_hash="scrypt$00$00", connectors=(1, 2), tariff=TARIFF, version=1
    )
    return replace(known, **changes)


def presence(**changes: Any) -> Presence:
    """The presence of a station that has just connected."""
    connected = Presence(
        station_id="cp-1",
        connection_id="socket-1",
        protocol=Protocol.OCPP16,
        epoch="epoch",
        connected_at=NOW,
        last_seen_at=NOW,
        lease_until=NOW + 24 * HOUR,
        version=1,
    )
    return replace(connected, **changes)


def build_live_status(raw: str, **changes: Any) -> LiveStatus:
    """A live status that the station has just reported in its present epoch."""
    return replace(LiveStatus(raw=raw, state=read_state(raw), reported_at=NOW, epoch="epoch"), **changes)


def build_persisted_status(
    raw: str, at: datetime = NOW, source: StatusSource = StatusSource.CHARGER
) -> PersistedStatus:
    """A persisted status."""
    return PersistedStatus(raw=raw, state=read_state(raw), at=at, source=source)


def open_transaction(transaction_id: str = "77", **changes: Any) -> OpenTransaction:
    """A transaction on a connector, of a driver with their own card."""
    begun = OpenTransaction(
        transaction_id=transaction_id, id_tag="CARD", started_at=NOW, received_at=NOW, meter_start_wh=1000
    )
    return replace(begun, **changes)


def transaction(transaction_id: str = "77", **changes: Any) -> Transaction:
    """The open transaction that belongs to `open_transaction`."""
    begun = Transaction(
        transaction_id=transaction_id,
        station_id="cp-1",
        connector_id=1,
        id_tag="CARD",
        id_tag_status=TagStatus.ACCEPTED,
        started_at=NOW,
        received_at=NOW,
        meter_start_wh=1000,
        version=1,
    )
    return replace(begun, **changes)


def lock(state: ReservationState = ReservationState.PENDING_PAYMENT, **changes: Any) -> Lock:
    """Another driver's lock, valid for an hour."""
    held = Lock(reservation_id="somebody", state=state, id_tag="WSOMEBODY", expires_at=NOW + HOUR)
    return replace(held, **changes)


def connector(connector_id: int = 1, **changes: Any) -> Connector:
    """A connector that is Available."""
    free = Connector(station_id="cp-1", connector_id=connector_id, live=build_live_status("Available"), version=1)
    return replace(free, **changes)


def snapshot(*connectors: Connector, **changes: Any) -> Snapshot:
    """An online station with these connectors; without any, with connectors 1 and 2 Available."""
    all_connectors = connectors or (connector(1), connector(2))
    seen = Snapshot(
        station=station(), presence=presence(), connectors={one.connector_id: one for one in all_connectors}
    )
    return replace(seen, **changes)


def apply_writes(before: Snapshot, writes: Iterable[Write]) -> Snapshot:
    """The snapshot as it would be read after the writes were committed."""
    after = before
    for write in writes:
        match write:
            case Save(entity):
                after = _replace_entity(after, replace(entity, version=entity.version + 1))
            case Drop(OutboundCall() as gone):
                after = replace(after, calls=tuple(c for c in after.calls if c.call_id != gone.call_id))
            case Drop(OutboxItem() as gone):
                after = replace(after, outbox_items=tuple(e for e in after.outbox_items if e.kind is not gone.kind))
            case Append(IdTag() as tag):
                after = replace(after, tag=tag)
    return after


def apply_decision(before: Snapshot, after: Snapshot) -> Snapshot:
    """The result of a decision as it would be read after its commit."""
    return apply_writes(before, build_outcome(before, after).writes)


def _replace_entity(after: Snapshot, entity: Any) -> Snapshot:
    match entity:
        case Connector():
            return after.with_connector(entity)
        case Transaction():
            return after.with_transaction(entity)
        case OutboundCall():
            return replace(after, calls=(*(c for c in after.calls if c.call_id != entity.call_id), entity))
        case OutboxItem():
            return replace(after, outbox_items=(*(e for e in after.outbox_items if e.kind is not entity.kind), entity))
        case _:
            return replace(after, **{type(entity).__name__.lower(): entity})


def reading(charging_connector: Connector, energy_wh: int, at: datetime = NOW) -> Reading:
    """The meter reading when this much energy (Wh) was delivered since the start of the connector's transaction."""
    start = charging_connector.transaction.meter_start_wh if charging_connector.transaction is not None else 0
    return Reading(at=at, energy_wh=start + energy_wh)


# A reservation on connector 1 in each of its states; `at` is the time of the last event.


def owed_checkout_snapshot(before: Snapshot | None = None, at: datetime = NOW, **settings: Any) -> Snapshot:
    """The connector is locked, and the checkout is in the outbox."""
    before = before or snapshot()
    return apply_writes(before, checkout.create(before, 1, decision_context(at, **settings)).writes)


def pending_payment_snapshot(at: datetime = NOW, *, site: Snapshot | None = None) -> Snapshot:
    """The driver is on the checkout page."""
    before = owed_checkout_snapshot(site, at=at)
    return apply_decision(before, checkout.apply_opened_checkout(before, CHECKOUT, decision_context(at)))


def payment(status: PaymentStatus = PaymentStatus.AUTHORIZED, **changes: Any) -> Payment:
    """The payment at the provider, by default with the whole amount authorized."""
    word = Payment(status=status, payment_id="pi_secret", authorised_amount=AUTHORIZED)
    return replace(word, **changes)


def authorized_snapshot(at: datetime = NOW) -> Snapshot:
    """The driver has paid, but the connector is Unavailable: Authorized."""
    before = pending_payment_snapshot(at)
    before = before.with_connector(replace(before.connector(1), live=build_live_status("Unavailable")))
    return apply_decision(before, checkout.apply_payment(before, payment(), decision_context(at, serial=2)))


def start_requested_snapshot(at: datetime = NOW, *, site: Snapshot | None = None, **paid: Any) -> Snapshot:
    """The driver has paid, and the remote start is queued; `paid` changes the payment at the provider."""
    before = pending_payment_snapshot(at, site=site)
    word = payment(**{"authorised_amount": get_reservation(before).max_amount, **paid})
    return apply_decision(before, checkout.apply_payment(before, word, decision_context(at, serial=2)))


def charging_snapshot(
    at: datetime = NOW, *, meter_start: int = 1000, site: Snapshot | None = None, **paid: Any
) -> Snapshot:
    """The charger started transaction 3 for the reservation."""
    before = start_requested_snapshot(at, site=site, **paid)
    request = {"connectorId": 1, "idTag": "WTAG1", "meterStart": meter_start, "timestamp": "2026-03-01T12:00:00Z"}
    after, _ = core.start_transaction(before, request, decision_context(at, serial=3))
    return apply_decision(before, after)


def idle_billing_snapshot() -> Snapshot:
    """An online station of a site that bills idle time."""
    return snapshot(station=station(tariff=IDLING))


def report_status(before: Snapshot, raw: str, at: datetime = NOW, *, serial: int = 20) -> Snapshot:
    """The snapshot after the station reported this status of connector 1, with a correct clock."""
    payload = {"connectorId": 1, "errorCode": "NoError", "status": raw, "timestamp": at.isoformat()}
    return apply_decision(before, core.status_notification(before, payload, decision_context(at, serial=serial))[0])


def waiting_for_disconnect_snapshot(at: datetime = NOW, *, meter_stop: int = 11_000) -> Snapshot:
    """The transaction has ended with a full car, and the cable is still plugged in where idle time is billed."""
    before = report_status(charging_snapshot(at, site=idle_billing_snapshot()), "SuspendedEV", at)
    request = {"transactionId": 3, "meterStop": meter_stop, "timestamp": "2026-03-01T13:00:00Z"}
    after, _ = core.stop_transaction(before, request, decision_context(at, serial=4))
    return apply_decision(before, after)


def completed_snapshot(at: datetime = NOW, *, meter_stop: int = 11_000) -> Snapshot:
    """The session has ended, and its capture is in the outbox."""
    before = charging_snapshot(at)
    request = {"transactionId": 3, "meterStop": meter_stop, "timestamp": "2026-03-01T13:00:00Z"}
    after, _ = core.stop_transaction(before, request, decision_context(at, serial=4))
    return apply_decision(before, after)


def answer_call(before: Snapshot, call: OutboundCall, word: str, now: DecisionContext) -> Snapshot:
    """The snapshot after the station answered the command with this status."""
    result = DIALECT.read_answer(call.command, CallResult(call.call_id, {"status": word}))
    return command_results.apply_result(before, call, result, now)


def cancelled_snapshot(at: datetime = NOW) -> Snapshot:
    """The driver cancelled on the checkout page."""
    before = pending_payment_snapshot(at)
    return apply_decision(before, checkout.cancel(before, decision_context(at, serial=2)))


def failed_snapshot(at: datetime = NOW) -> Snapshot:
    """The charger rejected the remote start with either form of the tag, and the release is in the outbox."""
    before = start_requested_snapshot(at)
    again = apply_decision(before, answer_call(before, before.calls[0], "Rejected", decision_context(at, serial=3)))
    return apply_decision(again, answer_call(again, again.calls[0], "Rejected", decision_context(at, serial=4)))


SNAPSHOT_BY_STATE: Final[Mapping[ReservationState, Callable[[], Snapshot]]] = {
    ReservationState.PENDING_PAYMENT: pending_payment_snapshot,
    ReservationState.AUTHORIZED: authorized_snapshot,
    ReservationState.START_REQUESTED: start_requested_snapshot,
    ReservationState.CHARGING: charging_snapshot,
    ReservationState.WAITING_FOR_DISCONNECT: waiting_for_disconnect_snapshot,
    ReservationState.COMPLETED: completed_snapshot,
    ReservationState.CANCELLED: cancelled_snapshot,
    ReservationState.FAILED: failed_snapshot,
}
"""A snapshot with a reservation in each state."""


def get_reservation(seen: Snapshot) -> Reservation:
    """The reservation of a snapshot that has one."""
    assert seen.reservation is not None
    return seen.reservation


def take_connector(seen: Snapshot) -> Snapshot:
    """The snapshot after another driver locked the connector."""
    return seen.with_connector(replace(seen.connector(1), lock=lock()))


def owed_kinds(seen: Snapshot) -> list[OutboxKind]:
    """The kinds of the outbox items."""
    return [outbox_item.kind for outbox_item in seen.outbox_items]


def audit_entry(**changes: object) -> AuditEntry:
    """The first audit entry of a reservation, with a detail that only operators may see."""
    made = AuditEntry(
        reservation_id="reservation-1",
        at=NOW,
        event="Created",
        state=ReservationState.PENDING_PAYMENT,
        money=Money.NONE,
        detail="Your card was declined: pi_secret WTAG1",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def audit_events(after: Snapshot) -> list[str]:
    """The events that a decision added to the audit trail."""
    return [append.record.event for append in after.records if isinstance(append.record, AuditEntry)]


def idempotency_record(after: Snapshot) -> IdempotencyRecord:
    """The answer that a decision stored for repeated requests."""
    return next(append.record for append in after.records if isinstance(append.record, IdempotencyRecord))
