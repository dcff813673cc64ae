"""The driver's side: create, checkout, payment, cancel, expiry.

Decisions turn a snapshot into the next one. What the provider says is always fetched from it (`Payment`), never taken
from a redirect or a webhook's body.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from csms import occupancy, texts
from csms.charging import settlement
from csms.charging.reservation import (
    Event,
    allows,
    done,
    give_back,
    happened,
    lock_of,
    noted,
    of,
    owing,
    paid,
    request_start,
    unlocked,
)
from csms.commands import calls
from csms.errors import ChargerOffline, ConnectorBusy, NotFound
from csms.model import (
    EffectKind,
    HandledEvent,
    IdTag,
    Moment,
    Money,
    Outcome,
    RemoteStop,
    Reservation,
    ReservationState,
    Snapshot,
    TagStatus,
    decided,
)
from csms.ports.payments import OVER, Checkout, Order, Payment, PaymentStatus
from csms.pricing import tariff

TAG_KEPT: Final = timedelta(days=30)
"""How long the tag of an ended reservation is recognised, so that a late start is refused as ours."""

EVENTS_KEPT: Final = timedelta(days=30)
"""How long a provider's events are remembered; it repeats them for some days at most."""

LOST: Final = "AuthorisationLost"

LONGEST_CHECKOUT: Final = timedelta(hours=24)
"""No provider keeps a checkout open for longer."""

PROVIDER_MARGIN: Final = timedelta(minutes=2)
"""Added to the checkout's window, because the provider's minimum of 30 minutes counts from when the request arrives
there."""


def create(snapshot: Snapshot, connector_id: int, moment: Moment) -> Outcome:
    """A new reservation that holds the connector and owes a checkout; ConnectorBusy, ChargerOffline or NotFound if it
    may not be.

    The outcome holds only if nothing that the busy rule looked at has changed meanwhile, so two of them never both
    commit.
    """
    station, now = snapshot.station, moment.now
    asked = tariff.free_of_charge(station.tariff) if _driver_is_free(snapshot, moment) else tariff.asked_at(station)
    hold = tariff.ceiling(asked)
    if connector_id not in station.connectors:
        raise NotFound(f"{station.identity} has no connector {connector_id}.", code="UnknownConnector")
    refuse_busy(occupancy.busy_reasons(snapshot, connector_id, now=now, policy=moment.policy))
    held = Reservation(
        reservation_id=moment.fresh.reservation_id,
        station_id=station.station_id,
        identity=station.identity,
        connector_id=connector_id,
        state=ReservationState.PENDING_PAYMENT,
        id_tag=moment.fresh.id_tag,
        tariff=asked,
        max_amount=hold,
        created_at=now,
        expires_at=now + moment.policy.first_lease,
        provider=moment.policy.payment_provider,
    )
    judged = snapshot.judged(occupancy.verdict(snapshot, connector_id, now=now, policy=moment.policy))
    locked = judged.with_connector(replace(unlocked(snapshot.connector(connector_id)), lock=lock_of(held)))
    created = noted(replace(locked, reservation=held), Event.CREATED, moment)
    tagged = created.recording(_web_tag(held, moment), once=True)
    payable = owing(tagged, EffectKind.OPEN_CHECKOUT, moment)
    after = payable if hold else _start_by(tagged, Event.NOTHING_TO_PAY, moment)
    looked_at = (station, snapshot.presence, snapshot.connector(0))
    return decided(snapshot, after, after.reservation, requires=looked_at)


def refuse_busy(reasons: tuple[str, ...]) -> None:
    """Nothing if there are no reasons; else ChargerOffline if that is the headline, or ConnectorBusy with all of
    them."""
    if not reasons:
        return
    if reasons[0] == occupancy.CHARGER_OFFLINE:
        raise ChargerOffline(texts.reason(reasons[0]))
    raise ConnectorBusy(texts.reason(reasons[0]), reasons=reasons)


def order(reservation: Reservation, *, public_url: str, window: timedelta) -> Order:
    """The order for a reservation's checkout; equal for the same reservation, so that a repeated call is the same
    call."""
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


def checkout_opened(snapshot: Snapshot, checkout: Checkout, moment: Moment) -> Snapshot:
    """The snapshot whose reservation can be paid until the checkout ends; if the connector was lost meanwhile, the
    checkout is to be closed."""
    held = of(snapshot)
    opened = replace(held, checkout_id=checkout.checkout_id, checkout_url=checkout.url)
    known = done(replace(snapshot, reservation=opened), EffectKind.OPEN_CHECKOUT)
    if not allows(held, Event.CHECKOUT_OPENED):
        return give_back(known, moment)
    if not _owns(known, opened):
        return happened(known, Event.CONNECTOR_TAKEN, moment)
    window = _shorter(moment.policy.checkout_window + PROVIDER_MARGIN, moment.policy.reservation_timeout)
    until = opened.created_at + window
    return happened(known, Event.CHECKOUT_OPENED, moment, expires_at=until)


def checkout_failed(snapshot: Snapshot, why: str, moment: Moment) -> Snapshot:
    """The snapshot whose reservation ended because nobody got its checkout; a checkout that may exist all the same is
    still owed its end."""
    if not allows(of(snapshot), Event.CHECKOUT_FAILED):
        return snapshot
    return happened(snapshot, Event.CHECKOUT_FAILED, moment, detail=why)


def checkout_refused(snapshot: Snapshot, why: str, moment: Moment) -> Snapshot:
    """The snapshot whose reservation ended because the provider would not open a checkout: there is none to close."""
    return checkout_failed(done(snapshot, EffectKind.OPEN_CHECKOUT), why, moment)


def payment_seen(snapshot: Snapshot, payment: Payment, moment: Moment) -> Snapshot:
    """The snapshot after the provider told how the payment stands: authorised starts the charge, or goes back if it
    came too late; an authorisation that is gone before anybody charges ends the reservation."""
    held = of(snapshot)
    if payment.status in OVER:
        return _over(snapshot, moment)
    if payment.status is not PaymentStatus.AUTHORISED:
        return snapshot
    if allows(held, Event.PAYMENT_AUTHORISED):
        return _authorised(snapshot, payment, moment)
    if held.money is Money.NONE:
        late = paid(held, Money.AUTHORISED, **_facts(payment, moment))
        return noted(give_back(replace(snapshot, reservation=late), moment), "PaymentCameTooLate", moment)
    return request_start(snapshot, moment) if held.state is ReservationState.AUTHORIZED else snapshot


def handled(snapshot: Snapshot, event_id: str, moment: Moment) -> Snapshot:
    """The snapshot that remembers that this event of the provider was acted on (note F62)."""
    return snapshot.recording(HandledEvent(event_id=event_id, at=moment.now, expires_at=moment.now + EVENTS_KEPT))


def checkout_expired(snapshot: Snapshot, payment: Payment, moment: Moment) -> Snapshot:
    """The snapshot after the checkout was closed, with whatever had been paid before that."""
    return payment_seen(done(snapshot, EffectKind.EXPIRE_CHECKOUT), payment, moment)


def cancel(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot after the driver cancelled; cancelling what is cancelled changes nothing, what is charging cannot be
    cancelled."""
    if of(snapshot).state is ReservationState.CANCELLED:
        return snapshot
    return happened(snapshot, Event.CANCELLED, moment)


def expired(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot after the reservation's time ran out: unpaid is cancelled, paid but not started has failed, and one
    that nobody unplugged is settled; unchanged until its time is over.

    A checkout that may still be paid is closed first, and its reservation ends when the provider has said how the
    payment stands: a payment that was faster takes the connector again, if it is still free (note F64). For that answer
    it waits until the reservation timeout, and no longer.
    """
    held = of(snapshot)
    if held.due_at is None or moment.now <= held.due_at:
        return snapshot
    if allows(held, Event.DISCONNECT_TIMED_OUT):
        event, seen = Event.DISCONNECT_TIMED_OUT, occupancy.last_seen(snapshot.presence, moment.now)
        return settlement.settle(snapshot, event, moment, energy_wh=held.energy_wh, until=seen)
    if not allows(held, Event.PAYMENT_TIMED_OUT):
        return happened(snapshot, Event.START_TIMED_OUT, moment)
    close_by = held.created_at + (moment.policy.reservation_timeout or LONGEST_CHECKOUT)
    if held.checkout_id is None or moment.now > close_by:
        return happened(snapshot, Event.PAYMENT_TIMED_OUT, moment)
    closing = replace(snapshot, reservation=replace(held, close_by=close_by))
    return noted(owing(closing, EffectKind.EXPIRE_CHECKOUT, moment), "CheckoutClosing", moment)


def _over(snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot after the provider said that there is no authorisation, and will be none: nobody charges on it, and
    a charge that runs is stopped."""
    held = of(snapshot)
    if allows(held, Event.PAYMENT_TIMED_OUT):
        return done(happened(snapshot, Event.PAYMENT_TIMED_OUT, moment), EffectKind.EXPIRE_CHECKOUT)
    if held.money is Money.AUTHORISED and allows(held, Event.PAYMENT_FAILED):
        return happened(snapshot, Event.PAYMENT_FAILED, moment, detail="The authorisation is gone.")
    if held.money is not Money.AUTHORISED or held.state is not ReservationState.CHARGING or LOST in held.flags:
        return snapshot
    flagged = noted(replace(snapshot, reservation=replace(held, flags=(*held.flags, LOST))), LOST, moment)
    until = moment.now + moment.policy.start_window
    stop = RemoteStop(transaction_id=held.transaction_id or "")
    return calls.queue(flagged, stop, moment, until=until, reservation_id=held.reservation_id, reason=LOST)


def _authorised(snapshot: Snapshot, payment: Payment, moment: Moment) -> Snapshot:
    """The snapshot whose reservation is paid for: its start is requested if the connector allows it now."""
    held = of(snapshot)
    authorised = replace(
        snapshot,
        reservation=paid(held, Money.AUTHORISED, close_by=None, authorised_at=moment.now, **_facts(payment, moment)),
    )
    bound = moment.policy.reservation_timeout
    if bound and moment.now > held.created_at + bound:
        return happened(authorised, Event.PAYMENT_TIMED_OUT, moment, detail="The payment came too late.")
    if _owns(snapshot, held):
        return _start_by(authorised, Event.PAYMENT_AUTHORISED, moment)
    verdict = occupancy.verdict(snapshot, held.connector_id, now=moment.now, policy=moment.policy)
    if verdict["headline"] is not None:
        return happened(authorised.judged(verdict), Event.CONNECTOR_TAKEN, moment)
    connector = unlocked(snapshot.connector(held.connector_id))
    taken_again = authorised.with_connector(replace(connector, lock=lock_of(held)))
    return _start_by(taken_again, Event.PAYMENT_AUTHORISED, moment)


def _start_by(snapshot: Snapshot, event: Event, moment: Moment) -> Snapshot:
    """The snapshot whose reservation may start until its deadline, and is asked to at once if its connector allows it.

    The deadline is absolute from here on (note F27), and within the reservation timeout.
    """
    held, deadline = of(snapshot), moment.now + moment.policy.start_window
    if moment.policy.reservation_timeout:
        deadline = min(deadline, held.created_at + moment.policy.reservation_timeout)
    if held.settle_by is not None:
        deadline = min(deadline, held.settle_by)
    ready = happened(snapshot, event, moment, start_deadline=deadline, expires_at=deadline)
    return request_start(ready, moment)


def _facts(payment: Payment, moment: Moment) -> dict[str, Any]:
    """What a reservation keeps of an authorisation."""
    return {
        "payment_id": payment.payment_id,
        "authorised_amount": payment.authorised_amount,
        "capture_before": payment.capture_before,
        "settle_by": settlement.lapses(payment, moment),
        "card_brand": payment.card_brand,
        "card_last4": payment.card_last4,
    }


def _driver_is_free(snapshot: Snapshot, moment: Moment) -> bool:
    """Whether the driver's own tag pays for nothing, and is good."""
    tag = snapshot.tag
    if tag is None or not tag.free or tag.status is not TagStatus.ACCEPTED:
        return False
    return tag.expires_at is None or moment.now <= tag.expires_at


def _owns(snapshot: Snapshot, held: Reservation) -> bool:
    """Whether the connector's lock is this reservation's; an expired one still is, until somebody else takes it."""
    lock = snapshot.connector(held.connector_id).lock
    return lock is not None and lock.reservation_id == held.reservation_id


def _web_tag(held: Reservation, moment: Moment) -> IdTag:
    return IdTag(
        tag=held.id_tag,
        status=TagStatus.INVALID,
        reservation_id=held.reservation_id,
        expires_at=moment.now + TAG_KEPT,
    )


def _shorter(window: timedelta, bound: timedelta) -> timedelta:
    """The window within the reservation timeout; a bound of zero is none."""
    return min(window, bound) if bound else window
