"""What a driver does on the web: look at a connector, start, pay, cancel, and follow the session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from csms import occupancy, texts, views
from csms.charging import checkout
from csms.charging.reservation import require_connector
from csms.charging.start_gate import find_plugged_elsewhere, start_blockers
from csms.errors import (
    ChargerOffline,
    Conflict,
    ConnectorBusy,
    IllegalTransition,
    NotFound,
    PaymentRefused,
    PaymentUnavailable,
    Unreachable,
)
from csms.model import (
    DecisionContext,
    Money,
    OutboxItem,
    OutboxKind,
    Outcome,
    ReadSet,
    Reservation,
    ReservationState,
    Snapshot,
)
from csms.ports.payments import Payment, ProviderEvent
from csms.pricing import receipt
from csms.service.dependencies import Dependencies
from csms.service.flow import Flow
from csms.views import Json

LIVE_STATES: Final = frozenset(
    {ReservationState.AUTHORIZED, ReservationState.CHARGING, ReservationState.WAITING_FOR_DISCONNECT}
)
"""States in which the station's snapshot has more to show than the reservation alone."""


class Drivers:
    """The drivers' part of the service; its dependencies include a payment provider."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._flow = Flow(dependencies)

    def connector(self, identity: str, connector_id: int, *, language: str = texts.ENGLISH) -> Json:
        """What the driver sees of a connector before starting.

        Raises NotFound for a station or connector that is not registered.
        """
        snapshot = self._dependencies.store.snapshot(self._dependencies.find_station_id(identity))
        require_connector(snapshot, connector_id)
        return views.connector(snapshot, connector_id, self._dependencies.build_context(), language)

    def create(self, identity: str, connector_id: int, *, id_tag: str | None = None, resume: str | None = None) -> Json:
        """Reserve the connector and open its checkout; return where to pay, or where to follow the session if nothing
        is payable. The connector is locked before the provider is called (note F22).

        `resume` is the reservation that this browser began: while it can still be paid here, its own checkout is
        returned (note F36). `id_tag` may make the session free (note F37).

        Raises NotFound, ChargerOffline, ConnectorBusy with all reasons, or PaymentUnavailable; the connector is not
        locked by this call then.
        """

        station_id = self._dependencies.find_station_id(identity)

        def decide(seen: Snapshot, context: DecisionContext) -> Outcome:
            try:
                return checkout.create(seen, connector_id, context)
            except (ChargerOffline, ConnectorBusy):  # Nothing is committed, so the verdict is observed here.
                verdict = occupancy.verdict(seen, connector_id, now=context.now, policy=context.policy)
                self._dependencies.observe("decision", verdict)
                raise

        def look(before: Snapshot) -> Snapshot:
            return self._probe(before, connector_id)

        begun = self._find_resumable(identity, connector_id, resume) if resume is not None else None
        if begun is not None:
            return views.redirect(begun, public_url=self._dependencies.public_url)
        try:
            committed = self._flow.commit(station_id, decide, lambda _: ReadSet(id_tag=id_tag), look=look)
            held: Reservation = committed.outcome.reply
        except Conflict:
            # Decided again without a commit, to refuse with the present reasons if there are any.
            decide(look(self._dependencies.store.snapshot(station_id)), self._dependencies.build_context())
            raise ConnectorBusy(texts.reason_text(texts.CONTENDED), reasons=(texts.CONTENDED,)) from None
        if held.state is not ReservationState.PENDING_PAYMENT:
            return views.free_session(held, public_url=self._dependencies.public_url)
        opened = self._open_checkout(held)
        if opened.state is not ReservationState.PENDING_PAYMENT:
            raise PaymentUnavailable("The checkout was not opened in time. Please try again.")
        return views.redirect(opened, public_url=self._dependencies.public_url)

    def confirm(self, reservation_id: str, *, language: str = texts.ENGLISH) -> Json:
        """Look the payment up at the provider, and return the reservation. If the payment is authorized and the
        connector allows it, request the start (note F35); if the reservation has already ended, release the payment."""
        held = self._dependencies.store.reservation(reservation_id)
        ended_unpaid = held.money is Money.NONE and held.ended_at is not None and held.checkout_id is not None
        if held.state not in {ReservationState.PENDING_PAYMENT, ReservationState.AUTHORIZED} and not ended_unpaid:
            return self.status(reservation_id, language=language)
        if held.checkout_id is None:
            raise IllegalTransition("The checkout is not open yet.")
        self._look_up(held)
        return self.status(reservation_id, language=language)

    def receive_webhook(self, body: bytes, signature: str) -> Json:
        """Process an event of the payment provider. Raises BadRequest, with nothing changed, if the signature is wrong
        (note F62)."""
        return self._process_event(self._flow.outbox.require_provider().read_webhook(body, signature))

    def receive_event(self, detail: Mapping[str, Any]) -> Json:
        """Process an event that came over EventBridge, to which only the provider can write. Raises BadRequest if it is
        no event."""
        return self._process_event(self._flow.outbox.require_provider().read_event(detail))

    def cancel(self, reservation_id: str) -> Json:
        """Cancel the reservation for its driver, and return it. Raises IllegalTransition once it charges."""
        self._flow.change(self._dependencies.store.reservation(reservation_id), checkout.cancel)
        return self.status(reservation_id)

    def move(self, reservation_id: str, connector_id: int, *, language: str = texts.ENGLISH) -> Json:
        """Move the reservation to the connector where its driver is plugged in, and return it (checkout.move)."""
        held = self._dependencies.store.reservation(reservation_id)
        self._flow.change(held, lambda s, m: checkout.move(s, connector_id, m))
        return self.status(reservation_id, language=language)

    def status(self, reservation_id: str, *, language: str = texts.ENGLISH) -> Json:
        """The reservation as it stands, with energy, running cost and audit trail."""
        held, audit_entries = self._dependencies.store.reservation_with_audit_trail(reservation_id)
        context = self._dependencies.build_context()
        if held.state not in LIVE_STATES:
            return views.reservation(held, audit_entries, now=context.now)
        snapshot = self._dependencies.store.snapshot(held.station_id)
        if held.state is ReservationState.AUTHORIZED:
            blockers = start_blockers(snapshot, held, context)
            return views.reservation(
                held,
                audit_entries,
                waiting_for=occupancy.driver_reasons(snapshot, held.connector_id, blockers, context.policy),
                plugged_elsewhere=find_plugged_elsewhere(snapshot, held, context),
                language=language,
                now=context.now,
            )
        running = snapshot.connector(held.connector_id).transaction
        mine = running is not None and running.transaction_id == held.transaction_id
        # Idle time counts until the station was last seen, as it does in the bill.
        heard = occupancy.last_seen(snapshot.presence, context.now)
        return views.reservation(held, audit_entries, running if mine else None, now=heard)

    def receipt(self, reservation_id: str) -> Json:
        """The receipt of a paid session. Raises NotFound, which says why, if there is none."""
        return receipt.to_json(
            receipt.build_receipt(self._dependencies.store.reservation(reservation_id), self._dependencies.issuer)
        )

    def _process_event(self, event: ProviderEvent) -> Json:
        """Look up the payment of the event's reservation, once for each event; the event's own content is not used."""
        received: Json = {"received": event.event_id, "about": event.reservation_id}
        if event.reservation_id is None:
            return received
        if self._dependencies.store.has_processed_webhook(event.event_id):
            return received | {"again": True}
        try:
            held = self._dependencies.store.reservation(event.reservation_id)
        except NotFound:
            self._dependencies.observe("webhook", {"unknownReservation": event.reservation_id, "kind": event.kind})
            return received | {"about": None}
        self._look_up(held, event_id=event.event_id)
        return received

    def _find_resumable(self, identity: str, connector_id: int, reservation_id: str) -> Reservation | None:
        """The reservation that this browser began on this connector, if its checkout can still be paid."""
        try:
            held = self._dependencies.store.reservation(reservation_id)
        except NotFound:
            return None
        same = (held.station_id, held.connector_id) == (self._dependencies.find_station_id(identity), connector_id)
        payable = held.state is ReservationState.PENDING_PAYMENT and held.checkout_url is not None
        if not same or not payable or held.expires_at is None or self._dependencies.now() > held.expires_at:
            return None
        return held

    def _probe(self, snapshot: Snapshot, connector_id: int) -> Snapshot:
        """The snapshot, without its connection unless API Gateway confirms it. Before money is asked for, the lease
        alone is not enough, and no answer counts as offline. Only a socket that is known to be gone is recorded as lost
        (note F18). Not asked for a busy connector, which is refused anyway."""
        presence, gateway = snapshot.presence, self._dependencies.gateway
        if gateway is None or presence is None or presence.connection_id is None:
            return snapshot
        if occupancy.busy_reasons(
            snapshot, connector_id, now=self._dependencies.now(), policy=self._dependencies.policy
        ):
            return snapshot
        try:
            if gateway.is_connected(presence.connection_id):
                return snapshot
        except Unreachable as failed:
            self._dependencies.observe("socket", {"failed": failed.message})
        else:
            self._flow.dispatch.lose(presence.station_id, presence.connection_id)
        return replace(snapshot, presence=replace(presence, connection_id=None))

    def _open_checkout(self, held: Reservation) -> Reservation:
        """Open the reservation's checkout. If the provider does not open one, end the reservation and free the
        connector at once."""
        try:
            outbox_item = OutboxItem(reservation_id=held.reservation_id, kind=OutboxKind.OPEN_CHECKOUT)
            return self._flow.finish(self._flow.outbox.attempt(held, outbox_item))
        except PaymentRefused as refused:
            why = refused.message
            self._flow.change(
                held, lambda s, m: checkout.apply_refused_checkout(s, why, m), kind=OutboxKind.OPEN_CHECKOUT
            )
            raise
        except PaymentUnavailable as unavailable:
            why = unavailable.message
            self._flow.change(
                held, lambda s, m: checkout.apply_failed_checkout(s, why, m), kind=OutboxKind.OPEN_CHECKOUT
            )
            raise

    def _look_up(self, held: Reservation, *, event_id: str | None = None) -> None:
        """Apply what the provider answers about the reservation's payment, and record the event that caused the
        request."""

        def apply(before: Snapshot, payment: Payment, context: DecisionContext) -> Snapshot:
            after = checkout.apply_payment(before, payment, context)
            return after if event_id is None else checkout.record_webhook(after, event_id, context)

        self._flow.finish(self._flow.outbox.look_up(held, apply))
