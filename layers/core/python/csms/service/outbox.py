"""The outbox of a reservation: provider calls and the receipt. Each item is stored before it is performed, and stays
owed until its result is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from csms.charging import checkout, settlement
from csms.errors import CsmsError, PaymentRefused, PaymentUnavailable, Unreachable
from csms.model import (
    AuditEntry,
    DecisionContext,
    OutboxItem,
    OutboxKind,
    Outcome,
    ReadSet,
    Reservation,
    Snapshot,
    Station,
    build_outcome,
)
from csms.ports.payments import Payment, PaymentProvider, PaymentStatus
from csms.pricing import receipt
from csms.service.dependencies import Dependencies
from csms.service.unit_of_work import Committed, OnTurn, UnitOfWork

Move = Callable[[Snapshot, DecisionContext], Snapshot]


@dataclass(frozen=True, slots=True)
class Changed:
    """A reservation after a change, and what was committed."""

    reservation: Reservation
    committed: Committed | None = None

    @property
    def audit_entries(self) -> tuple[AuditEntry, ...]:
        """The entries that the change added to the audit trail."""
        records = self.committed.after.records if self.committed is not None else ()
        return tuple(append.record for append in records if isinstance(append.record, AuditEntry))


class Outbox:
    """Performs outbox items, and commits changes of reservations."""

    def __init__(self, dependencies: Dependencies, units: UnitOfWork) -> None:
        self._dependencies = dependencies
        self._units = units

    def change(self, held: Reservation, move: Move, *, kind: OutboxKind | None = None) -> Changed:
        """Apply the move to the reservation and commit. With `kind`, only while that outbox item is still owed, so that
        its result counts once, no matter who performed it."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            owed = kind is None or any(outbox_item.kind is kind for outbox_item in before.outbox_items)
            after = move(before, context) if owed else before
            return build_outcome(before, after, after.reservation)

        committed = self._units.run(
            held.station_id,
            decide,
            lambda _: ReadSet(reservation_id=held.reservation_id, with_outbox=True),
            absent=build_placeholder_station(held),
            on_turn=OnTurn.WAIT,
        )
        reply = committed.outcome.reply
        return Changed(reply if isinstance(reply, Reservation) else held, committed)

    def perform(self, outbox_item: OutboxItem) -> Changed:
        """Perform the outbox item. If that fails, put it off and keep the reason."""
        held = self._dependencies.store.reservation(outbox_item.reservation_id)
        try:
            return self.attempt(held, outbox_item)
        except (PaymentRefused, PaymentUnavailable, Unreachable) as failed:
            self._dependencies.observe("payment", {"kind": outbox_item.kind, "failed": failed.message})
            return self._put_off(held, outbox_item.kind, failed)

    def attempt(self, held: Reservation, outbox_item: OutboxItem) -> Changed:
        """Perform the outbox item and commit the result. Raises PaymentRefused, PaymentUnavailable or Unreachable if
        that fails, with nothing stored.

        A provider always repeats its first answer to an idempotency key, failures included. So each attempt after a
        stored failure has another key. That is safe because a payment is captured or released only once, whatever the
        key. It would not be safe for a checkout or a refund: a checkout keeps its key, and a refund keeps it until an
        operator tries again.
        """
        provider, kind = self.require_provider(), outbox_item.kind
        key, attempt = f"{held.reservation_id}:{kind}", outbox_item.attempts
        match kind:
            case OutboxKind.OPEN_CHECKOUT:
                order = checkout.build_order(
                    held, public_url=self._dependencies.public_url, window=self._dependencies.policy.checkout_window
                )
                opened = provider.open_checkout(order, key=key)
                return self.change(held, lambda s, m: checkout.apply_opened_checkout(s, opened, m), kind=kind)
            case OutboxKind.EXPIRE_CHECKOUT:
                seen: Payment = provider.expire_checkout(held.checkout_id or "", key=f"{key}:{attempt}")
                return self.change(held, lambda s, m: checkout.apply_expired_checkout(s, seen, m), kind=kind)
            case OutboxKind.CAPTURE:
                taken = provider.capture(held.payment_id or "", held.capture_amount or 0, key=f"{key}:{attempt}")
                return self.change(held, lambda s, m: settlement.record_capture(s, taken, m), kind=kind)
            case OutboxKind.RELEASE:
                provider.release(held.payment_id or "", key=f"{key}:{attempt}")
                return self.change(held, settlement.record_release, kind=kind)
            case OutboxKind.REFUND:
                over = (held.captured_amount or 0) - (held.amount or 0)
                back = provider.refund(held.payment_id or "", over, key=f"{key}:{over}:{outbox_item.spent}")
                return self.change(held, lambda s, m: settlement.record_refund(s, back, m), kind=kind)
            case OutboxKind.EMAIL_RECEIPT:
                sent = self._mail_receipt(held, provider)
                return self.change(held, lambda s, m: settlement.record_receipt(s, m, sent=sent), kind=kind)

    def look_up(
        self,
        held: Reservation,
        apply: Callable[[Snapshot, Payment, DecisionContext], Snapshot] = checkout.apply_payment,
    ) -> Changed:
        """Ask the provider for the reservation's payment and apply the answer. Raises PaymentUnavailable or
        PaymentRefused if there is none. A reservation without a checkout has no payment and stays as it is."""
        if held.checkout_id is None:
            return Changed(held)
        payment = self.require_provider().payment(held.checkout_id)
        return self.change(held, lambda before, context: apply(before, payment, context))

    def is_still_held(self, held: Reservation, payment: Payment) -> bool:
        """Whether the provider still holds a payment that names this reservation. Only the payment of the reservation's
        own checkout can be looked up; any other is taken to be as it was listed."""
        if held.checkout_id is None or self._dependencies.provider is None:
            return True
        known = self._dependencies.provider.payment(held.checkout_id)
        return known.payment_id != payment.payment_id or known.status is PaymentStatus.AUTHORIZED

    def require_provider(self) -> PaymentProvider:
        """The payment provider. Raises PaymentUnavailable if there is none."""
        if self._dependencies.provider is None:
            raise PaymentUnavailable("No payment provider is configured.")
        return self._dependencies.provider

    def _mail_receipt(self, held: Reservation, provider: PaymentProvider) -> bool:
        """Send the receipt, and return whether it was sent: the driver may have given no address. Raises Unreachable if
        the mail service did not take it."""
        address = provider.email_address(held.checkout_id or "")
        if address is None or self._dependencies.mailer is None:
            self._dependencies.observe("receipt", {"reservation": held.reservation_id, "sent": False})
            return False
        shown = receipt.build_receipt(held, self._dependencies.issuer)
        self._dependencies.mailer.send(address, receipt.to_mail(shown, public_url=self._dependencies.public_url))
        return True

    def _put_off(self, held: Reservation, kind: OutboxKind, failed: CsmsError) -> Changed:
        """Put the outbox item off after a failure, or put its payment under review."""
        final, why = isinstance(failed, PaymentRefused), failed.message
        return self.change(held, lambda s, m: settlement.put_off(s, kind, why, m, final=final), kind=kind)


def build_placeholder_station(held: Reservation) -> Station:
    """A stand-in for a station that was deleted before its last reservations were settled."""
    return Station(
        station_id=held.station_id, identity=held.identity, password_hash="", connectors=(), tariff=held.tariff
    )
