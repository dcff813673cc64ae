"""The service machine's world with the stand-in for Stripe instead of a fake: the usual next steps of a payment, its
faults, and its invariants."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from csms.charging.operations import OperatorCommand
from csms.charging.reservation import LOCKING_STATES
from csms.charging.transaction import CSMS_STOP_REASONS
from csms.errors import Conflict, IllegalTransition, PaymentRefused, PaymentUnavailable, Unreachable
from csms.model import (
    AuditEntry,
    Connector,
    Money,
    OutboxItem,
    OutboxKind,
    Policy,
    Reservation,
    Tariff,
    Transaction,
)
from csms.model import ReservationState as S
from csms.ports.payments import Order, PaymentStatus
from csms.pricing.receipt import Mail
from tests import builders as b
from tests.invariants import Scene
from tests.machine.books import COUNTED_KINDS, DRIVER, OPERATION_BY_NAME, Fault, TrackingStripePayments
from tests.machine.line import ProcessDied
from tests.machine.service import ServiceMachine

LIMITED: Final = replace(b.IDLING, max_amount=1200, minimum_energy_wh=500)
LUNCH: Final = replace(b.IDLING, idle_free_from="12:30", idle_free_until="13:00")
HOLD_DURATIONS: Final = [timedelta(days=7), timedelta(days=7), timedelta(hours=12)]
HEARD_WITHIN: Final = timedelta(hours=2)
"""The longest time between a payment and its Authorized: later it came too late."""
SETTLED_BY_SWEEP: Final = frozenset({S.CHARGING, S.WAITING_FOR_DISCONNECT})
DELIVERED: Final = (5000, 12_000, 300, 60_000)
EVENT_BY_KIND: Final = {
    OutboxKind.CAPTURE: "Captured",
    OutboxKind.RELEASE: "Released",
    OutboxKind.REFUND: "Refunded",
}
"""The audit events of payment operations."""


KIND_BY_STRIPE_EVENT: Final = {"payment_intent.succeeded": OutboxKind.CAPTURE, "charge.refunded": OutboxKind.REFUND}
"""The provider's events of captures and refunds, and the outbox item that each must come from."""


class UnreliableMailer:
    """A mail service that accepts mails unless a fault was ordered."""

    def __init__(self) -> None:
        self.failing = 0
        self.sent: list[str] = []

    def send(self, address: str, _mail: Mail) -> None:
        """Accept the mail. Raises Unreachable if the test ordered it."""
        if self.failing:
            self.failing -= 1
            raise Unreachable("The mail was not taken: as ordered.")
        self.sent.append(address)


class MoneyWorld(ServiceMachine):
    """One station with two connectors, and the stand-in for Stripe."""

    reached: ClassVar[Counter[str]] = Counter()
    """How many reservations reached each ending or step."""

    provider: TrackingStripePayments

    @classmethod
    def count_endings(cls) -> Counter[str]:
        """How often each ending was reached: the state of the reservation and of its money."""
        return Counter({what: times for what, times in cls.reached.items() if " and " in what})

    def _build_provider(self) -> TrackingStripePayments:
        return TrackingStripePayments(self.clock)

    @initialize(
        free=st.sampled_from([*[False] * 19, True]),
        plug_first=st.sampled_from([False, False, False, True]),
        asked=st.sampled_from([b.IDLING, b.IDLING, LIMITED, LUNCH, b.TARIFF]),
        hold=st.sampled_from(HOLD_DURATIONS),
        mails=st.booleans(),
        returns=st.sampled_from([True, True, False]),
        strongest=st.sampled_from([b.ANY_POWER_W, Policy().max_power_w]),
        far=st.integers(0, 9),
    )
    def open_station(
        self,
        free: bool,
        plug_first: bool,
        asked: Tariff,
        hold: timedelta,
        mails: bool,
        returns: bool,
        strongest: int,
        far: int,
    ) -> None:
        self.mailer = UnreliableMailer()
        self.provider.hold = hold
        self.returns = returns
        self.amid = self.disturbed = False
        self.processed_events: set[str] = set()
        self.retries: Counter[str] = Counter()
        policy = Policy(start_needs_plug=plug_first, email_receipts=mails, max_power_w=strongest)
        self._open_station(policy, free=free, asked=asked, far=far)

    # Usual next steps

    def _advance_session(self, connector_id: int) -> None:
        scene = self._read_scene()
        connector = scene.connectors.get(connector_id)
        if connector is None or connector.live is None or self.amid:
            super()._advance_session(connector_id)
            return
        running, waits = connector.transaction, connector.lock and connector.lock.state is S.WAITING_FOR_DISCONNECT
        match connector.live.raw:
            case "Available" | "Preparing" if running is not None:
                self._report_status(connector_id, "Charging")
            case "Charging" if running is not None:
                self._report_status(connector_id, "SuspendedEV")
            case "SuspendedEV" if running is not None:
                self._run_until(self.clock.at + timedelta(minutes=25))
                delivered = DELIVERED[next(self.numbers) % len(DELIVERED)]
                self._stop_transaction(
                    transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + delivered
                )
            case "SuspendedEV" if waits:
                self._run_until(self.clock.at + timedelta(minutes=7))
                self._report_status(connector_id, "Available")
            case _:
                super()._advance_session(connector_id)

    def _advance_to_state(self, connector_id: int, state: S) -> Reservation | None:
        """The connector's reservation in that state, if the usual next steps lead to it soon and it is not free of
        charge."""
        for _ in range(9):
            scene = self._read_scene()
            connector = scene.connectors.get(connector_id)
            lock = connector.lock if connector is not None else None
            held = scene.reservations[lock.reservation_id] if lock is not None else None
            if held is not None and held.state is state and held.max_amount and held.checkout_id is not None:
                return held
            self._advance_session(connector_id)
        return None

    def _open_transaction(self, connector_id: int) -> Any:
        connector = self._read_scene().connectors.get(connector_id)
        return connector.transaction if connector is not None else None

    def _end_session(self, held: Reservation) -> None:
        """End the session: stop the transaction if it charges, else cancel."""
        running = self._open_transaction(held.connector_id)
        if running is None:
            self._act(lambda: self.drivers.cancel(held.reservation_id), IllegalTransition)
        else:
            stop = {"transactionId": int(running.transaction_id), "meterStop": running.meter_start_wh + 8000}
            self._stop_transaction(reason="EVDisconnected", **stop)

    def _cancel_as_operator(self, held: Reservation) -> None:
        """Cancel the reservation as an operator who sees its present state."""
        command = OperatorCommand(who="ada", reason="because", expected=held.state)
        self._act(lambda: self.operators.cancel_reservation(held.reservation_id, command), IllegalTransition, Conflict)

    # Faults

    def _disturb_write(self, ahead: int, after: bool, what: Any) -> None:
        self.disturbed = True
        happens = what if callable(what) else lambda: self._act_concurrently(what)
        self.line.interrupt(ahead, after=after, what=happens, in_writes=True)

    def _disturb_provider(self, ahead: int, after: bool, what: Any) -> None:
        def strike() -> None:
            self.disturbed = self.line.struck = True
            if callable(what):
                raise ProcessDied
            self._act_concurrently(what)

        self.provider.wire.interrupt(ahead, after=after, what=strike)

    def _fail_next(self, name: str, lost: tuple[int | None, bool] | None) -> None:
        """Let the next call of this operation get no usable answer; `lost` tells whether it takes effect
        nevertheless."""
        if lost is not None:
            self.provider.wire.faults.append(Fault(operation=OPERATION_BY_NAME[name], status=lost[0], acted=lost[1]))

    def _act_concurrently(self, what: str) -> None:
        outer, self.amid = self.amid, True
        try:
            super()._act_concurrently(what)
        finally:
            self.amid = outer

    def _do(self, what: str) -> None:
        scene = self._read_scene()
        held = [r for r in scene.all(Reservation) if r.state in LOCKING_STATES]
        running = [c.transaction for c in scene.all(Connector) if c.transaction is not None]
        match what:
            case "operator" if held:
                self._cancel_as_operator(held[-1])
            case "webhook" if self.provider.account.events:
                self._deliver_event(self.provider.account.events[-1])
            case "pays":
                for checkout_id in self._open_checkouts():
                    self.provider.pay(checkout_id)
            case "stops" if running:
                self._stop_transaction(
                    transactionId=int(running[-1].transaction_id), meterStop=running[-1].meter_start_wh + 3000
                )
            case "trigger" if self.triggers:
                trigger = self.triggers[-1]
                self._act(lambda: self.maintenance.perform(trigger.reservation_id, trigger.kind))
            case _:
                super()._do(what)

    def _sleep(self, pause: timedelta) -> None:
        super()._sleep(pause)
        self.provider.lapse_overdue()

    # What actions can choose from

    def _payable_checkouts(self) -> dict[str, str]:
        """Only drivers who were given a checkout's address can pay there."""
        known_checkouts = {held.checkout_id for held in self._read_scene().all(Reservation)}
        return {
            checkout_id: rid for checkout_id, rid in self.provider.checkouts.items() if checkout_id in known_checkouts
        }

    def _open_checkouts(self) -> list[str]:
        return [
            one for one in self._payable_checkouts() if self.provider.find_payment(one).status is PaymentStatus.OPEN
        ]

    def _pending_reservations(self) -> list[Reservation]:
        pending = [r for r in self._read_scene().all(Reservation) if r.state is S.PENDING_PAYMENT]
        return [r for r in pending if r.checkout_id is not None]

    def _server_stopped_transactions(self) -> list[Transaction]:
        return [
            t
            for t in self._read_scene().all(Transaction)
            if t.reason in CSMS_STOP_REASONS and t.reservation_id is not None
        ]

    def _payments_under_review(self) -> list[Reservation]:
        return [r for r in self._read_scene().all(Reservation) if r.money is Money.NEEDS_REVIEW]

    def _settle_by_hand(self, held: Reservation, kept: int, command: OperatorCommand) -> object:
        """Settle the payment as an operator: first in the provider's dashboard, then in csms."""
        self.line.clear_faults()
        self.by_hand.add(held.reservation_id)
        paid_amount = self.provider.settle_by_hand(held.payment_id or "", kept)
        return self.operators.settle_payment(held.reservation_id, paid_amount, command)

    def _deliver_event(self, event: dict[str, Any], *, over_the_bus: bool = False) -> None:
        """Deliver the event. One that was processed before has no effect: nothing is asked of the provider, and nothing
        is stored."""

        def deliver() -> Any:
            if over_the_bus:
                return self.drivers.receive_event(event)
            return self.drivers.receive_webhook(*self.provider.account.sign_event(event))

        before = (self.provider.wire.requests, self.line.writes)
        answer = self._act(deliver, PaymentUnavailable, PaymentRefused)
        if self.line.struck or answer is None:
            return
        if event["id"] in self.processed_events:
            assert before == (self.provider.wire.requests, self.line.writes), "an event acts once"
        held = self._read_scene().reservations.get(answer["about"] or "")
        if held is not None and held.checkout_id is not None:
            self.processed_events.add(event["id"])

    def _deliver_reservation_events(self, rid: str) -> None:
        for event in self.provider.account.events:
            if event["data"]["object"].get("metadata", {}).get("reservation_id") == rid:
                self._deliver_event(event)

    # Invariants

    @invariant()
    def check_settle_margin(self) -> None:
        """A sweep is due SETTLE_MARGIN_MINUTES before the authorization of a session or doubted bill lapses, but not in
        the first half of the authorization's life, which begins when csms hears of the payment."""
        scene = self._read_scene()
        for held in scene.all(Reservation):
            paid_at = self.provider.paid_at.get(held.payment_id or "")
            if paid_at is None or (held.state not in SETTLED_BY_SWEEP and held.decide_by is None):
                continue
            lapses_at, heard_by = paid_at + self.provider.hold, paid_at + HEARD_WITHIN
            until = max(lapses_at - self.policy.settle_margin, heard_by + (lapses_at - heard_by) / 2)
            connector = scene.connectors.get(held.connector_id)  # None if it is not registered any more.
            due = [at for at in (held.due_at, connector and connector.due_at) if at is not None]
            assert min(due, default=lapses_at) <= until, "an authorization is used before it lapses"

    @invariant()
    def check_refund_keys(self) -> None:
        """A refund is asked again under its own key, until an operator retries it: unlike a capture, it can happen
        twice."""
        reservations = {held.payment_id: held.reservation_id for held in self._read_scene().all(Reservation)}
        for (payment_id, _), keys in self.provider.refund_keys.items():
            assert len(keys) <= 1 + self.retries[reservations[payment_id]], "a refund keeps its key"

    @invariant()
    def check_ended_checkouts(self) -> None:
        """No ended reservation can still be paid, unless its checkout is about to be expired."""
        scene = self._read_scene()
        closing = {
            outbox_item.reservation_id
            for outbox_item in scene.all(OutboxItem)
            if outbox_item.kind is OutboxKind.EXPIRE_CHECKOUT and outbox_item.due_at is not None
        }
        for held in scene.all(Reservation):
            if held.state in LOCKING_STATES or held.money is not Money.NONE or held.checkout_id is None:
                continue
            standing = self.provider.find_payment(held.checkout_id).status
            over = standing not in {PaymentStatus.OPEN, PaymentStatus.AUTHORIZED}
            assert over or held.reservation_id in closing, "a checkout ends with its reservation"

    def _clear_faults(self) -> None:
        self.mailer.failing = 0
        super()._clear_faults()

    def _expire_leftovers(self) -> None:
        """Nothing here: payments need their sweeps in time, so leftovers without sweeps are checked by the service
        machine."""

    def _reconnect(self) -> None:
        if self.returns:
            super()._reconnect()

    def _presence_signals(self) -> list[Callable[[], object]]:
        return super()._presence_signals() if self.returns else [super()._reconnect]

    def _documented_limit(self) -> timedelta:
        return super()._documented_limit() + self.policy.disconnect_limit

    def _check_at_rest(self, scene: Scene) -> None:
        super()._check_at_rest(scene)
        audit_entries = self._read_entities(AuditEntry)
        for payment in self.provider.payments():
            held = scene.reservations[payment.reservation_id or ""]
            forgotten = payment.status is PaymentStatus.AUTHORIZED and held.money is not Money.NEEDS_REVIEW
            assert not forgotten, "every authorization ends captured, released, or in front of a human"
            assert payment.captured_amount <= payment.authorised_amount
            if held.reservation_id not in self.by_hand and held.money is not Money.NEEDS_REVIEW:
                self._check_payment_recorded(
                    payment,
                    {
                        audit_entry.event
                        for audit_entry in audit_entries
                        if audit_entry.reservation_id == held.reservation_id
                    },
                )
        self._check_attempts_recorded(audit_entries)
        self._check_idempotency_keys()
        self._check_reconciliation()
        assert set(self.mailer.sent) <= {DRIVER}
        self._count_reached(scene, audit_entries)

    def _check_payment_recorded(self, payment: Any, events: set[str]) -> None:
        assert not payment.captured_amount or EVENT_BY_KIND[OutboxKind.CAPTURE] in events, "a capture is on record"
        assert not payment.refunded_amount or EVENT_BY_KIND[OutboxKind.REFUND] in events, "a refund is on record"

    def _check_attempts_recorded(self, audit_entries: tuple[AuditEntry, ...]) -> None:
        """Each failed attempt has its audit entry, unless the process that made it died or lost a conflict."""
        failed = Counter(
            (audit_entry.reservation_id, OutboxKind((audit_entry.detail or "").partition(" ")[0]))
            for audit_entry in audit_entries
            if audit_entry.event == "AttemptFailed"
        )
        recorded = Counter({key: times for key, times in failed.items() if key[1] in COUNTED_KINDS})
        assert self.disturbed or recorded == self.provider.failures, "every attempt is on record"

    def _check_idempotency_keys(self) -> None:
        """Each capture and refund has the idempotency key of its outbox item, which contains our own ids and is the
        same for repeated calls. Operations in the provider's dashboard have none."""
        for event in self.provider.account.events:
            kind, asked = KIND_BY_STRIPE_EVENT.get(event["type"]), event["request"]
            if kind is None or asked["id"] is None:
                continue
            rid = event["data"]["object"]["metadata"]["reservation_id"]
            ours = re.fullmatch(rf"{rid}:{kind}(:\d+)+", asked["idempotency_key"] or "")
            assert ours, f"{event['type']} was asked for with its key"

    def _check_reconciliation(self) -> None:
        """The reconciliation reports a payment that no reservation holds, and every reservation under review whose
        payment the provider does not hold, and nothing else."""
        order = Order(
            reservation_id="nobody",
            amount=1000,
            currency="EUR",
            description="Of another installation",
            success_url="https://csms.example",
            cancel_url="https://csms.example",
            expires_at=self.clock.at + timedelta(hours=1),
        )
        if next(self.numbers) % 2:
            self._sleep(timedelta(days=8))  # Every hold has lapsed by then.
            order = replace(order, expires_at=self.clock.at + timedelta(hours=1))
        payment_id = self.provider.hold_for_nobody(order)

        found = self.maintenance.reconcile()

        authorized = {p.payment_id for p in self.provider.payments() if p.status is PaymentStatus.AUTHORIZED}
        gone = {
            held.reservation_id
            for held in self._read_scene().all(Reservation)
            if held.money is Money.NEEDS_REVIEW and held.captured_amount is None and held.payment_id not in authorized
        }
        assert [payment_id] == [line.split()[0] for line in found.unknown], "a hold of nobody is reported"
        assert gone == {line.split()[1] for line in found.missing}, "a hold that is gone is reported"
        self.reached["reported missing"] += len(gone)

    def _count_reached(self, scene: Scene, audit_entries: tuple[AuditEntry, ...]) -> None:
        """Count the endings that were reached, so that the test can require each of them."""
        seen = Counter(
            event for _, event in {(audit_entry.reservation_id, audit_entry.event) for audit_entry in audit_entries}
        )
        ends = Counter(f"{held.state} and {held.money}" for held in scene.all(Reservation))
        self.reached.update(seen + ends)
        self.reached["mailed"] += len(self.mailer.sent)
