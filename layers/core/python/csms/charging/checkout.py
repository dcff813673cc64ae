"""The driver's side of a reservation: create, checkout, payment, cancel, expiry.

The state of a payment is always fetched from the provider (`Payment`), never taken from a redirect or a webhook's body.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from csms import occupancy, texts
from csms.charging import review, settlement
from csms.charging.reservation import (
    Event,
    add_audit_entry,
    add_outbox_item,
    advance_money,
    apply_event,
    build_lock,
    can_advance,
    give_back,
    remove_outbox_item,
    renew_hold,
    require_connector,
    require_reservation,
    unlock,
)
from csms.charging.start_gate import move_reservation, request_start
from csms.charging.web_tags import build_web_tag, write_web_tag
from csms.commands import calls
from csms.errors import ChargerOffline, ConnectorBusy, IllegalTransition
from csms.model import (
    DecisionContext,
    Money,
    OutboxKind,
    Outcome,
    ProcessedWebhook,
    RemoteStop,
    Reservation,
    ReservationState,
    Snapshot,
    TagStatus,
    build_outcome,
)
from csms.ports.payments import NOT_AUTHORIZABLE, Checkout, Order, Payment, PaymentStatus
from csms.pricing import tariff

EVENT_RETENTION: Final = timedelta(days=30)
"""How long a provider's events are remembered; it repeats them for some days at most."""

AUTHORIZATION_LOST: Final = "AuthorisationLost"

LONGEST_CHECKOUT: Final = timedelta(hours=24)
"""The longest time that a provider keeps a checkout open."""

PROVIDER_MARGIN: Final = timedelta(minutes=2)
"""Added to the checkout window, because the provider counts its minimum of 30 minutes from the arrival of the
request."""


def create(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Outcome:
    """Create a reservation that locks the connector and owes a checkout; if there is nothing to pay, allow its start.

    The commit fails if anything that the busy rule read has changed, so that two reservations are never both stored.
    Raises ConnectorBusy, ChargerOffline or NotFound.
    """
    station, now = snapshot.station, context.now
    asked = tariff.free_tariff(station.tariff) if _is_driver_free(snapshot, context) else tariff.station_tariff(station)
    hold = tariff.hold_amount(asked)
    require_connector(snapshot, connector_id)
    reasons = occupancy.busy_reasons(snapshot, connector_id, now=now, policy=context.policy)
    refuse_busy(reasons, occupancy.driver_reasons(snapshot, connector_id, reasons, context.policy))
    held = Reservation(
        reservation_id=context.new_ids.reservation_id,
        station_id=station.station_id,
        identity=station.identity,
        connector_id=connector_id,
        state=ReservationState.PENDING_PAYMENT,
        id_tag=write_web_tag(context.new_ids.id_tag, station),
        tariff=asked,
        max_amount=hold,
        created_at=now,
        expires_at=now + context.policy.first_lease,
        provider=context.policy.payment_provider,
    )
    judged = snapshot.add_verdict(occupancy.verdict(snapshot, connector_id, now=now, policy=context.policy))
    locked = judged.with_connector(replace(unlock(snapshot.connector(connector_id)), lock=build_lock(held)))
    created = add_audit_entry(replace(locked, reservation=held), Event.CREATED, context)
    tagged = created.add_records(build_web_tag(held, context), once=True)
    payable = add_outbox_item(tagged, OutboxKind.OPEN_CHECKOUT, context)
    after = payable if hold else _allow_start(tagged, Event.NOTHING_TO_PAY, context)
    looked_at = (station, snapshot.presence, snapshot.connector(0))
    return build_outcome(snapshot, after, after.reservation, requires=looked_at)


def refuse_busy(reasons: tuple[str, ...], told: tuple[str, ...] | None = None) -> None:
    """Raise ChargerOffline if that is the headline reason, or ConnectorBusy with all reasons; do nothing without
    reasons. `told` are the reasons as a driver is told them."""
    if not reasons:
        return
    if reasons[0] == occupancy.CHARGER_OFFLINE:
        raise ChargerOffline(texts.reason_text(reasons[0]))
    raise ConnectorBusy(texts.reason_text((told or reasons)[0]), reasons=reasons)


def build_order(reservation: Reservation, *, public_url: str, window: timedelta) -> Order:
    """The order for the reservation's checkout; always equal, so that a repeated call is the same call."""
    page = f"{public_url}/session/{reservation.reservation_id}"
    return Order(
        reservation_id=reservation.reservation_id,
        amount=reservation.max_amount,
        currency=reservation.tariff.currency,
        description=f"EV charging at {reservation.identity}, connector {reservation.connector_id}",
        success_url=f"{page}?checkout=done",
        cancel_url=f"{page}?checkout=cancelled",
        expires_at=reservation.created_at + window + PROVIDER_MARGIN,
    )


def apply_opened_checkout(snapshot: Snapshot, checkout: Checkout, context: DecisionContext) -> Snapshot:
    """Record the open checkout, which can be paid until its window ends; expire it if the reservation has ended or lost
    its connector meanwhile."""
    held = require_reservation(snapshot)
    opened = replace(held, checkout_id=checkout.checkout_id, checkout_url=checkout.url)
    known = remove_outbox_item(replace(snapshot, reservation=opened), OutboxKind.OPEN_CHECKOUT)
    if not can_advance(held, Event.CHECKOUT_OPENED):
        return give_back(known, context)
    if not _has_lock(known, opened):
        return apply_event(known, Event.CONNECTOR_TAKEN, context)
    window = _limit_window(context.policy.checkout_window + PROVIDER_MARGIN, context.policy.reservation_timeout)
    until = opened.created_at + window
    return apply_event(known, Event.CHECKOUT_OPENED, context, expires_at=until)


def apply_failed_checkout(snapshot: Snapshot, why: str, context: DecisionContext) -> Snapshot:
    """End the reservation whose checkout was not handed out; a checkout that may exist at the provider is still
    closed."""
    if not can_advance(require_reservation(snapshot), Event.CHECKOUT_FAILED):
        return snapshot
    return apply_event(snapshot, Event.CHECKOUT_FAILED, context, detail=why)


def apply_refused_checkout(snapshot: Snapshot, why: str, context: DecisionContext) -> Snapshot:
    """End the reservation whose checkout the provider refused to open; there is none to close."""
    return apply_failed_checkout(remove_outbox_item(snapshot, OutboxKind.OPEN_CHECKOUT), why, context)


def apply_payment(snapshot: Snapshot, payment: Payment, context: DecisionContext) -> Snapshot:
    """Apply the payment's state at the provider: an authorization allows the start, or is released if it came too late;
    a lost authorization ends the reservation, or stops its charge."""
    held = require_reservation(snapshot)
    if payment.status in NOT_AUTHORIZABLE:
        return _apply_lost_authorization(snapshot, context)
    if payment.status is not PaymentStatus.AUTHORIZED:
        return snapshot
    if can_advance(held, Event.PAYMENT_AUTHORIZED):
        return _apply_authorization(snapshot, payment, context)
    if held.money is Money.NONE:
        late = advance_money(held, Money.AUTHORIZED, **_authorization_fields(payment, context))
        return add_audit_entry(give_back(replace(snapshot, reservation=late), context), "PaymentCameTooLate", context)
    return request_start(snapshot, context) if held.state is ReservationState.AUTHORIZED else snapshot


def record_webhook(snapshot: Snapshot, event_id: str, context: DecisionContext) -> Snapshot:
    """Remember that this event of the provider was applied (note F62)."""
    return snapshot.add_records(
        ProcessedWebhook(event_id=event_id, at=context.now, expires_at=context.now + EVENT_RETENTION)
    )


def apply_expired_checkout(snapshot: Snapshot, payment: Payment, context: DecisionContext) -> Snapshot:
    """Record that the checkout was closed, and apply a payment that was made before that."""
    return apply_payment(remove_outbox_item(snapshot, OutboxKind.EXPIRE_CHECKOUT), payment, context)


def cancel(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Cancel the reservation for its driver; nothing changes if it is canceled already. IllegalTransition once it
    charges or has ended in another way."""
    if require_reservation(snapshot).state is ReservationState.CANCELLED:
        return snapshot
    return apply_event(snapshot, Event.CANCELLED, context)


def move(snapshot: Snapshot, connector_id: int, context: DecisionContext) -> Snapshot:
    """Move the paid reservation to the connector where its driver says that they are plugged in, and request the start
    there (note F33); nothing changes if it is there already.

    IllegalTransition once a start was requested, after the start deadline, or if no car is plugged in there; NotFound
    for an unknown connector, ConnectorBusy for one that cannot be started.
    """
    held = require_reservation(snapshot)
    require_connector(snapshot, connector_id)
    if held.connector_id == connector_id:
        return snapshot
    if held.state is not ReservationState.AUTHORIZED or not _has_lock(snapshot, held):
        raise IllegalTransition(f"A reservation that is {held.state} cannot be moved.")
    if held.start_deadline is not None and context.now > held.start_deadline:
        raise IllegalTransition("The time to start is over.")
    refuse_busy(occupancy.busy_reasons(snapshot, connector_id, now=context.now, policy=context.policy))
    if not occupancy.is_plugged_in(snapshot, connector_id):
        raise IllegalTransition(f"No car is plugged in at connector {connector_id}.", code="NotPluggedIn")
    return request_start(move_reservation(snapshot, connector_id, context), context)


def expire(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """End the reservation when its time is over; nothing changes before.

    An unpaid reservation is canceled, a paid one that did not start fails, and one that waits for the unplug is
    settled, as is one that started late on a connector of somebody else and never stopped. Money that is held for a
    late start is held longer or given back. A doubted bill that nobody has decided about is settled at the lowest. A
    checkout that may still be paid is closed first: its reservation ends when the provider has reported the payment's
    end state, or at the reservation timeout. A payment made before that takes the connector again if it is free (note
    F64).
    """
    held = require_reservation(snapshot)
    if held.due_at is None or context.now <= held.due_at:
        return snapshot
    if held.decide_by is not None:
        return review.end_doubt(snapshot, context)
    if held.late_start is not None:
        return renew_hold(snapshot, context)
    if held.state is ReservationState.CHARGING:
        return settlement.settle_unheard(snapshot, context)
    if can_advance(held, Event.DISCONNECT_TIMED_OUT):
        event, seen = Event.DISCONNECT_TIMED_OUT, occupancy.last_seen(snapshot.presence, context.now)
        return settlement.settle(snapshot, event, context, energy_wh=held.energy_wh, until=seen)
    if not can_advance(held, Event.PAYMENT_TIMED_OUT):
        return apply_event(snapshot, Event.START_TIMED_OUT, context)
    close_by = held.created_at + (context.policy.reservation_timeout or LONGEST_CHECKOUT)
    if held.checkout_id is None or context.now > close_by:
        return apply_event(snapshot, Event.PAYMENT_TIMED_OUT, context)
    closing = replace(snapshot, reservation=replace(held, close_by=close_by))
    return add_audit_entry(add_outbox_item(closing, OutboxKind.EXPIRE_CHECKOUT, context), "CheckoutClosing", context)


def _apply_lost_authorization(snapshot: Snapshot, context: DecisionContext) -> Snapshot:
    """Act on a final report that there is no authorization: end a reservation that does not charge yet, stop one that
    does."""
    held = require_reservation(snapshot)
    if can_advance(held, Event.PAYMENT_TIMED_OUT):
        return remove_outbox_item(apply_event(snapshot, Event.PAYMENT_TIMED_OUT, context), OutboxKind.EXPIRE_CHECKOUT)
    if held.money is Money.AUTHORIZED and can_advance(held, Event.PAYMENT_FAILED):
        return apply_event(snapshot, Event.PAYMENT_FAILED, context, detail="The authorization is gone.")
    if (
        held.money is not Money.AUTHORIZED
        or held.state is not ReservationState.CHARGING
        or AUTHORIZATION_LOST in held.flags
    ):
        return snapshot
    flagged = add_audit_entry(
        replace(snapshot, reservation=replace(held, flags=(*held.flags, AUTHORIZATION_LOST))),
        AUTHORIZATION_LOST,
        context,
    )
    until = context.now + context.policy.start_window
    stop = RemoteStop(transaction_id=held.transaction_id or "")
    return calls.queue(
        flagged, stop, context, until=until, reservation_id=held.reservation_id, reason=AUTHORIZATION_LOST
    )


def _apply_authorization(snapshot: Snapshot, payment: Payment, context: DecisionContext) -> Snapshot:
    """Record the authorization and request the start, if the connector allows it now; end the reservation if it is past
    the reservation timeout, or has lost its connector to another."""
    held = require_reservation(snapshot)
    authorized = replace(
        snapshot,
        reservation=advance_money(
            held, Money.AUTHORIZED, close_by=None, authorised_at=context.now, **_authorization_fields(payment, context)
        ),
    )
    bound = context.policy.reservation_timeout
    if bound and context.now > held.created_at + bound:
        return apply_event(authorized, Event.PAYMENT_TIMED_OUT, context, detail="The payment came too late.")
    if _has_lock(snapshot, held):
        return _allow_start(authorized, Event.PAYMENT_AUTHORIZED, context)
    verdict = occupancy.verdict(snapshot, held.connector_id, now=context.now, policy=context.policy)
    if verdict["headline"] is not None:
        return apply_event(authorized.add_verdict(verdict), Event.CONNECTOR_TAKEN, context)
    connector = unlock(snapshot.connector(held.connector_id))
    taken_again = authorized.with_connector(replace(connector, lock=build_lock(held)))
    return _allow_start(taken_again, Event.PAYMENT_AUTHORIZED, context)


def _allow_start(snapshot: Snapshot, event: Event, context: DecisionContext) -> Snapshot:
    """Allow the start until its deadline, and request it at once if the connector allows it.

    The deadline is an absolute time from here on (note F27), within the reservation timeout.
    """
    held, deadline = require_reservation(snapshot), context.now + context.policy.start_window
    if context.policy.reservation_timeout:
        deadline = min(deadline, held.created_at + context.policy.reservation_timeout)
    if held.settle_by is not None:
        deadline = min(deadline, held.settle_by)
    ready = apply_event(snapshot, event, context, start_deadline=deadline, expires_at=deadline)
    return request_start(ready, context)


def _authorization_fields(payment: Payment, context: DecisionContext) -> dict[str, Any]:
    """The fields of a reservation that come from an authorization."""
    return {
        "payment_id": payment.payment_id,
        "authorised_amount": payment.authorised_amount,
        "capture_before": payment.capture_before,
        "settle_by": settlement.settle_deadline(payment, context),
        "card_brand": payment.card_brand,
        "card_last4": payment.card_last4,
    }


def _is_driver_free(snapshot: Snapshot, context: DecisionContext) -> bool:
    """Whether the driver's own tag is valid and makes the session free (note F37)."""
    tag = snapshot.tag
    if tag is None or not tag.free or tag.status is not TagStatus.ACCEPTED:
        return False
    return tag.expires_at is None or context.now <= tag.expires_at


def _has_lock(snapshot: Snapshot, held: Reservation) -> bool:
    """Whether the connector's lock is this reservation's; an expired lock still is until another reservation takes
    it."""
    lock = snapshot.connector(held.connector_id).lock
    return lock is not None and lock.reservation_id == held.reservation_id


def _limit_window(window: timedelta, bound: timedelta) -> timedelta:
    """The window, limited by the reservation timeout; a timeout of zero is none."""
    return min(window, bound) if bound else window
