"""A reservation's life: the tables of its states and of its money's states, and the changes that reservation and
connector make together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from csms.charging import late_start
from csms.commands import calls
from csms.errors import IllegalTransition, NotFound
from csms.model import (
    AuditEntry,
    Connector,
    DecisionContext,
    FailureCode,
    Lock,
    Money,
    OutboxItem,
    OutboxKind,
    Reservation,
    Snapshot,
    StatusSource,
    TriggerStatus,
    format_time,
)
from csms.model import ReservationState as S


class Event(StrEnum):
    """What can happen to a reservation."""

    CREATED = "Created"
    CHECKOUT_OPENED = "CheckoutOpened"
    CHECKOUT_FAILED = "CheckoutFailed"
    PAYMENT_AUTHORIZED = "PaymentAuthorised"
    PAYMENT_FAILED = "PaymentFailed"
    PAYMENT_TIMED_OUT = "PaymentTimedOut"
    CONNECTOR_TAKEN = "ConnectorTaken"
    NOTHING_TO_PAY = "NothingToPay"
    START_SENT = "StartSent"
    START_ACCEPTED = "StartAccepted"
    START_REJECTED = "StartRejected"
    START_TIMED_OUT = "StartTimedOut"
    STARTED = "Started"
    STARTED_LATE = "StartedLate"
    STOPPED = "Stopped"
    STOPPED_PLUGGED_IN = "StoppedPluggedIn"
    UNPLUGGED = "Unplugged"
    DISCONNECT_TIMED_OUT = "DisconnectTimedOut"
    SETTLED_BY_OPERATOR = "SettledByOperator"
    CANCELLED = "Cancelled"
    CANCELLED_BY_OPERATOR = "CancelledByOperator"


TRANSITIONS: Final[Mapping[tuple[S, Event], S]] = {
    (S.PENDING_PAYMENT, Event.CHECKOUT_OPENED): S.PENDING_PAYMENT,
    (S.PENDING_PAYMENT, Event.CHECKOUT_FAILED): S.FAILED,
    (S.PENDING_PAYMENT, Event.PAYMENT_AUTHORIZED): S.AUTHORIZED,
    (S.PENDING_PAYMENT, Event.NOTHING_TO_PAY): S.AUTHORIZED,
    (S.PENDING_PAYMENT, Event.PAYMENT_FAILED): S.FAILED,
    (S.PENDING_PAYMENT, Event.PAYMENT_TIMED_OUT): S.CANCELLED,
    (S.PENDING_PAYMENT, Event.CONNECTOR_TAKEN): S.FAILED,
    (S.PENDING_PAYMENT, Event.CANCELLED): S.CANCELLED,
    (S.PENDING_PAYMENT, Event.CANCELLED_BY_OPERATOR): S.CANCELLED,
    (S.AUTHORIZED, Event.PAYMENT_FAILED): S.FAILED,
    (S.AUTHORIZED, Event.START_SENT): S.START_REQUESTED,
    (S.AUTHORIZED, Event.START_TIMED_OUT): S.FAILED,
    (S.AUTHORIZED, Event.STARTED): S.CHARGING,
    (S.AUTHORIZED, Event.CANCELLED): S.CANCELLED,
    (S.AUTHORIZED, Event.CANCELLED_BY_OPERATOR): S.CANCELLED,
    (S.START_REQUESTED, Event.PAYMENT_FAILED): S.FAILED,
    (S.START_REQUESTED, Event.START_SENT): S.START_REQUESTED,
    (S.START_REQUESTED, Event.START_ACCEPTED): S.START_REQUESTED,
    (S.START_REQUESTED, Event.START_REJECTED): S.FAILED,
    (S.START_REQUESTED, Event.START_TIMED_OUT): S.FAILED,
    (S.START_REQUESTED, Event.STARTED): S.CHARGING,
    (S.START_REQUESTED, Event.CANCELLED): S.CANCELLED,
    (S.START_REQUESTED, Event.CANCELLED_BY_OPERATOR): S.CANCELLED,
    (S.FAILED, Event.STARTED_LATE): S.CHARGING,
    (S.CANCELLED, Event.STARTED_LATE): S.CHARGING,
    (S.CHARGING, Event.STOPPED): S.COMPLETED,
    (S.CHARGING, Event.STOPPED_PLUGGED_IN): S.WAITING_FOR_DISCONNECT,
    (S.WAITING_FOR_DISCONNECT, Event.UNPLUGGED): S.COMPLETED,
    (S.WAITING_FOR_DISCONNECT, Event.DISCONNECT_TIMED_OUT): S.COMPLETED,
    (S.WAITING_FOR_DISCONNECT, Event.SETTLED_BY_OPERATOR): S.COMPLETED,
}

LOCKING_STATES: Final = frozenset(
    {S.PENDING_PAYMENT, S.AUTHORIZED, S.START_REQUESTED, S.CHARGING, S.WAITING_FOR_DISCONNECT}
)

FAILURES: Final[Mapping[Event, FailureCode]] = {
    Event.CHECKOUT_FAILED: FailureCode.CHECKOUT_FAILED,
    Event.PAYMENT_FAILED: FailureCode.PAYMENT_FAILED,
    Event.PAYMENT_TIMED_OUT: FailureCode.PAYMENT_TIMEOUT,
    Event.CONNECTOR_TAKEN: FailureCode.CONNECTOR_TAKEN,
    Event.START_REJECTED: FailureCode.START_REJECTED,
    Event.START_TIMED_OUT: FailureCode.START_TIMEOUT,
    Event.CANCELLED: FailureCode.CANCELLED_BY_DRIVER,
    Event.CANCELLED_BY_OPERATOR: FailureCode.CANCELLED_BY_OPERATOR,
}

UNHEARD_ENDINGS: Final = frozenset({Event.START_TIMED_OUT, Event.CANCELLED, Event.CANCELLED_BY_OPERATOR})
"""The endings of a paid reservation that leave open whether its start happened (csms.charging.late_start)."""

MONEY_TRANSITIONS: Final = frozenset(
    {
        (Money.NONE, Money.AUTHORIZED),
        (Money.AUTHORIZED, Money.CAPTURING),
        (Money.AUTHORIZED, Money.RELEASING),
        (Money.CAPTURING, Money.CAPTURED),
        (Money.CAPTURING, Money.NEEDS_REVIEW),
        (Money.RELEASING, Money.RELEASED),
        (Money.RELEASING, Money.NEEDS_REVIEW),
        (Money.CAPTURED, Money.REFUNDING),
        (Money.REFUNDING, Money.CAPTURED),
        (Money.REFUNDING, Money.NEEDS_REVIEW),
        (Money.NEEDS_REVIEW, Money.CAPTURING),
        (Money.NEEDS_REVIEW, Money.RELEASING),
        (Money.NEEDS_REVIEW, Money.REFUNDING),
        (Money.NEEDS_REVIEW, Money.CAPTURED),
        (Money.NEEDS_REVIEW, Money.RELEASED),
    }
)


def advance(reservation: Reservation, event: Event, **changes: Any) -> Reservation:
    """The reservation after the event, with these fields changed; IllegalTransition if its state does not allow the
    event."""
    try:
        state = TRANSITIONS[reservation.state, event]
    except KeyError:
        raise IllegalTransition(f"{event} is not possible while the reservation is {reservation.state}.") from None
    return replace(reservation, state=state, **changes)


def can_advance(reservation: Reservation, event: Event) -> bool:
    """Whether the reservation's state allows the event."""
    return (reservation.state, event) in TRANSITIONS


def advance_money(reservation: Reservation, money: Money, **changes: Any) -> Reservation:
    """The reservation with its money in the new state; IllegalTransition if the present state does not allow it."""
    if (reservation.money, money) not in MONEY_TRANSITIONS:
        raise IllegalTransition(f"The reservation's money cannot become {money} while it is {reservation.money}.")
    return replace(reservation, money=money, **changes)


def apply_event(
    snapshot: Snapshot, event: Event, context: DecisionContext, *, detail: str | None = None, **changes: Any
) -> Snapshot:
    """Apply the event to the reservation: change its state, update the connector's lock, and add an audit entry.

    A reservation that ends frees its connector, and its commands that were not sent are withdrawn. If it ends unused,
    an authorization is released and an open checkout expired; but while the station may still report that it started,
    the authorization is held.
    """
    before = require_reservation(snapshot)
    after = advance(before, event, **changes)
    hold = late_start.find_hold(snapshot, before, context) if event in UNHEARD_ENDINGS else None
    if after.state not in LOCKING_STATES:
        code = after.failure_code or FAILURES.get(event)
        after = replace(after, ended_at=context.now, expires_at=None, close_by=None, failure_code=code, late_start=hold)
        snapshot = calls.withdraw(snapshot, after.reservation_id)
    moved = _sync_lock(replace(snapshot, reservation=after), after)
    if event in FAILURES and hold is None:
        moved = give_back(moved, context)
    noted = add_audit_entry(moved, event, context, detail=detail)
    if hold is None:
        return noted
    told = add_audit_entry(noted, "HeldForLateStart", context, detail=f"until {format_time(hold.until)} at least")
    return told if hold.is_away else _ask_for_sign(told, after, context)


def add_audit_entry(snapshot: Snapshot, event: str, context: DecisionContext, *, detail: str | None = None) -> Snapshot:
    """Add an entry to the reservation's audit trail."""
    r = require_reservation(snapshot)
    return snapshot.add_records(
        AuditEntry(
            reservation_id=r.reservation_id,
            at=context.now,
            order=len(snapshot.records),
            event=str(event),
            state=r.state,
            money=r.money,
            detail=detail,
        )
    )


def add_outbox_item(snapshot: Snapshot, kind: OutboxKind, context: DecisionContext) -> Snapshot:
    """Owe a provider call or a receipt: it is performed right after the commit, or by the sweep if that fails. One of
    the same kind is owed only once."""
    if any(outbox_item.kind is kind for outbox_item in snapshot.outbox_items):
        return snapshot
    outbox_item = OutboxItem(
        reservation_id=require_reservation(snapshot).reservation_id,
        kind=kind,
        due_at=context.now + context.policy.outbox_lease,
    )
    return replace(snapshot, outbox_items=(*snapshot.outbox_items, outbox_item))


def remove_outbox_item(snapshot: Snapshot, kind: OutboxKind) -> Snapshot:
    """Remove the owed item of this kind."""
    return replace(
        snapshot,
        outbox_items=tuple(item for item in snapshot.outbox_items if item.kind is not kind),
    )


def give_back(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Owe the return of what an unused reservation took from the driver: release the authorization, or expire the
    checkout that could still become one."""
    r = require_reservation(snapshot)
    if r.money is Money.AUTHORIZED:
        return add_outbox_item(
            replace(snapshot, reservation=advance_money(r, Money.RELEASING)), OutboxKind.RELEASE, context
        )
    if r.money is Money.NONE and r.checkout_id is not None:
        return add_outbox_item(snapshot, OutboxKind.EXPIRE_CHECKOUT, context)
    return snapshot


def _ask_for_sign(snapshot: Snapshot, held: Reservation, context: DecisionContext) -> Snapshot:
    """Request the connector's status, because any answer shows that the station is here and has nothing to report."""
    return calls.queue(
        snapshot,
        TriggerStatus(connector_id=held.connector_id),
        context,
        until=context.now + late_start.CONFIRMATION,
        reservation_id=held.reservation_id,
    )


def end_hold(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Give back the money that was held for a late start, because none can come any more; nothing changes if none is
    held."""
    held = require_reservation(snapshot)
    if held.late_start is None:
        return snapshot
    ended = add_audit_entry(replace(snapshot, reservation=replace(held, late_start=None)), "HoldEnded", context)
    return give_back(ended, context)


def renew_hold(snapshot: Snapshot, context: DecisionContext, *, heard: bool = False) -> Snapshot:
    """Hold the money longer if the station may still report a late start, or give it back. `heard` says that the
    station is heard now, which its presence may not show yet."""
    held, presence = require_reservation(snapshot), snapshot.presence
    now_seen = replace(presence, last_seen_at=context.now) if heard and presence is not None else presence
    longer = late_start.renew_hold(replace(snapshot, presence=now_seen), held, context)
    if longer is None:
        return end_hold(snapshot, context)
    return replace(snapshot, reservation=replace(held, late_start=longer))


def require_reservation(snapshot: Snapshot) -> Reservation:
    """The reservation of the snapshot; NotFound if it has none."""
    if snapshot.reservation is None:
        raise NotFound("There is no such reservation.", code="UnknownReservation")
    return snapshot.reservation


def require_connector(snapshot: Snapshot, connector_id: int) -> None:
    """Raise NotFound unless the station is registered with this connector; 0, the whole station, is none."""
    if connector_id not in snapshot.station.connectors:
        raise NotFound(f"{snapshot.station.identity} has no connector {connector_id}.", code="UnknownConnector")


def _sync_lock(snapshot: Snapshot, reservation: Reservation) -> Snapshot:
    """Make the connector's lock equal to the reservation, or remove it when the reservation has ended; the lock of
    another reservation is left alone."""
    connector = snapshot.connector(reservation.connector_id)
    if connector.lock is None or connector.lock.reservation_id != reservation.reservation_id:
        return snapshot
    if reservation.state in LOCKING_STATES:
        return snapshot.with_connector(replace(connector, lock=build_lock(reservation)))
    return snapshot.with_connector(unlock(connector))


def build_lock(reservation: Reservation) -> Lock:
    """The connector's lock for this reservation."""
    return Lock(
        reservation_id=reservation.reservation_id,
        state=reservation.state,
        id_tag=reservation.id_tag,
        refused_tag=reservation.refused_tag,
        expires_at=reservation.expires_at,
    )


def unlock(connector: Connector) -> Connector:
    """The connector without its lock, and without the Occupied that csms wrote for the lock's remote start (note
    F09)."""
    server_made = connector.persisted is not None and connector.persisted.source is StatusSource.REMOTE_START
    return replace(connector, lock=None, persisted=None if server_made else connector.persisted)
