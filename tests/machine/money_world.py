"""The world of the service machine over the stand-in for Stripe instead of a fake: what brings money there, what can
break on its way, and what must have become of it in the end."""

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
from csms.ports.payments import PaymentStatus
from csms.pricing.receipt import Mail
from tests import builders as b
from tests.laws import Scene
from tests.machine.books import COUNTED, DRIVER, WAYS, Books, Fault
from tests.machine.line import Died
from tests.machine.service import ServiceMachine

LIMITED: Final = replace(b.IDLING, max_amount=1200, minimum_energy_wh=500)
LUNCH: Final = replace(b.IDLING, idle_free_from="12:30", idle_free_until="13:00")
HOLDS: Final = [timedelta(days=7), timedelta(days=7), timedelta(hours=12)]
DELIVERED: Final = (5000, 12_000, 300, 60_000)
MOVES: Final = {
    OutboxKind.CAPTURE: "Captured",
    OutboxKind.RELEASE: "Released",
    OutboxKind.REFUND: "Refunded",
}
"""How the audit trail calls what was moved."""


KEYED: Final = {"payment_intent.succeeded": OutboxKind.CAPTURE, "charge.refunded": OutboxKind.REFUND}
"""The provider's events that tell of money that was taken or given back, and what had been owed."""


class Post:
    """A mail service that takes mails, unless told not to."""

    def __init__(self) -> None:
        self.failing = 0
        self.sent: list[str] = []

    def send(self, address: str, _mail: Mail) -> None:
        """The mail was taken; Unreachable if it was not."""
        if self.failing:
            self.failing -= 1
            raise Unreachable("The mail was not taken: as ordered.")
        self.sent.append(address)


class MoneyWorld(ServiceMachine):
    """Two bays of one station, and a payment provider that keeps books of its own."""

    reached: ClassVar[Counter[str]] = Counter()
    """How many reservations came to which ending, or past which point."""

    provider: Books

    @classmethod
    def endings(cls) -> Counter[str]:
        """How often each ending was reached: the state of the reservation and of its money."""
        return Counter({what: times for what, times in cls.reached.items() if " and " in what})

    def _provider(self) -> Books:
        return Books(self.clock)

    @initialize(
        free=st.sampled_from([*[False] * 19, True]),
        plug_first=st.sampled_from([False, False, False, True]),
        asked=st.sampled_from([b.IDLING, b.IDLING, LIMITED, LUNCH, b.TARIFF]),
        hold=st.sampled_from(HOLDS),
        mails=st.booleans(),
        returns=st.sampled_from([True, True, False]),
        strongest=st.sampled_from([b.ANY_POWER_W, b.ANY_POWER_W, Policy().max_power_w]),
        far=st.integers(0, 9),
    )
    def opens(
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
        self.mailer = Post()
        self.provider.hold = hold
        self.returns = returns
        self.amid = self.disturbed = False
        policy = Policy(start_needs_plug=plug_first, email_receipts=mails, max_power_w=strongest)
        self._opens(policy, free=free, asked=asked, far=far)

    # What usually comes next, and how far

    def _next(self, bay: int) -> None:
        scene = self._look()
        connector = scene.connectors.get(bay)
        if connector is None or connector.live is None or self.amid:
            super()._next(bay)
            return
        running, waits = connector.transaction, connector.lock and connector.lock.state is S.WAITING_FOR_DISCONNECT
        match connector.live.raw:
            case "Available" | "Preparing" if running is not None:
                self._tells(bay, "Charging")
            case "Charging" if running is not None:
                self._tells(bay, "SuspendedEV")
            case "SuspendedEV" if running is not None:
                self._runs(self.clock.at + timedelta(minutes=25))
                delivered = DELIVERED[next(self.numbers) % len(DELIVERED)]
                self._stops(transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + delivered)
            case "SuspendedEV" if waits:
                self._runs(self.clock.at + timedelta(minutes=7))
                self._tells(bay, "Available")
            case _:
                super()._next(bay)

    def _comes_to_state(self, bay: int, state: S) -> Reservation | None:
        """The bay's reservation in that state, if the usual brings it there soon and it is not free of charge."""
        for _ in range(9):
            scene = self._look()
            connector = scene.connectors.get(bay)
            lock = connector.lock if connector is not None else None
            held = scene.reservations[lock.reservation_id] if lock is not None else None
            if held is not None and held.state is state and held.max_amount and held.checkout_id is not None:
                return held
            self._next(bay)
        return None

    def _running_on(self, bay: int) -> Any:
        connector = self._look().connectors.get(bay)
        return connector.transaction if connector is not None else None

    def _ends(self, held: Reservation) -> None:
        """The session is over: stopped if it charges, else cancelled."""
        running = self._running_on(held.connector_id)
        if running is None:
            self._act(lambda: self.drivers.cancel(held.reservation_id), IllegalTransition)
        else:
            stop = {"transactionId": int(running.transaction_id), "meterStop": running.meter_start_wh + 8000}
            self._stops(reason="EVDisconnected", **stop)

    def _cancels(self, held: Reservation) -> None:
        """An operator who sees how it stands cancels the reservation."""
        order = OperatorCommand(who="ada", reason="because", expected=held.state)
        self._act(lambda: self.operators.cancel_reservation(held.reservation_id, order), IllegalTransition, Conflict)

    # What goes wrong

    def _trouble_at_a_write(self, ahead: int, after: bool, what: Any) -> None:
        self.disturbed = True
        happens = what if callable(what) else lambda: self._meanwhile(what)
        self.line.expect(ahead, after=after, what=happens, in_writes=True)

    def _trouble_at_the_provider(self, ahead: int, after: bool, what: Any) -> None:
        def strikes() -> None:
            self.disturbed = self.line.struck = True
            if callable(what):
                raise Died
            self._meanwhile(what)

        self.provider.wire.expect(ahead, after=after, what=strikes)

    def _fails(self, name: str, lost: tuple[int | None, bool] | None) -> None:
        """The next call of this name gets no answer of use; whether it took effect all the same."""
        if lost is not None:
            self.provider.wire.faults.append(Fault(operation=WAYS[name], status=lost[0], acted=lost[1]))

    def _meanwhile(self, what: str) -> None:
        outer, self.amid = self.amid, True
        try:
            super()._meanwhile(what)
        finally:
            self.amid = outer

    def _do(self, what: str) -> None:
        scene = self._look()
        held = [r for r in scene.all(Reservation) if r.state in LOCKING_STATES]
        running = [c.transaction for c in scene.all(Connector) if c.transaction is not None]
        match what:
            case "operator" if held:
                self._cancels(held[-1])
            case "webhook" if self.provider.account.events:
                self._delivers(self.provider.account.events[-1])
            case "pays":
                for checkout_id in self._open():
                    self.provider.pay(checkout_id)
            case "stops" if running:
                self._stops(transactionId=int(running[-1].transaction_id), meterStop=running[-1].meter_start_wh + 3000)
            case "nudge" if self.nudges:
                nudge = self.nudges[-1]
                self._act(lambda: self.maintenance.perform(nudge.reservation_id, nudge.kind))
            case _:
                super()._do(what)

    def _sleeps(self, pause: timedelta) -> None:
        super()._sleeps(pause)
        self.provider.overslept()

    # What there is to act on

    def _payable(self) -> dict[str, str]:
        """Only whoever was told the address of a page can pay on it."""
        told = {held.checkout_id for held in self._look().all(Reservation)}
        return {checkout_id: rid for checkout_id, rid in self.provider.checkouts.items() if checkout_id in told}

    def _open(self) -> list[str]:
        return [one for one in self._payable() if self.provider.standing(one).status is PaymentStatus.OPEN]

    def _closing(self) -> list[Reservation]:
        pending = [r for r in self._look().all(Reservation) if r.state is S.PENDING_PAYMENT]
        return [r for r in pending if r.checkout_id is not None]

    def _ended_by_us(self) -> list[Transaction]:
        return [
            t for t in self._look().all(Transaction) if t.reason in CSMS_STOP_REASONS and t.reservation_id is not None
        ]

    def _reviewed(self) -> list[Reservation]:
        return [r for r in self._look().all(Reservation) if r.money is Money.NEEDS_REVIEW]

    def _settles(self, held: Reservation, kept: int, order: OperatorCommand) -> object:
        """An honest operator: first at the provider's desk, then here."""
        self.line.calm()
        self.by_hand.add(held.reservation_id)
        told = self.provider.by_hand(held.payment_id or "", kept)
        return self.operators.settle_payment(held.reservation_id, told, order)

    def _delivers(self, event: dict[str, Any], *, over_the_bus: bool = False) -> None:
        def deliver() -> Any:
            if over_the_bus:
                return self.drivers.receive_event(event)
            return self.drivers.receive_webhook(*self.provider.account.signed(event))

        self._act(deliver, PaymentUnavailable, PaymentRefused)

    def _delivers_what_is_known_of(self, rid: str) -> None:
        for event in self.provider.account.events:
            if event["data"]["object"].get("metadata", {}).get("reservation_id") == rid:
                self._delivers(event)

    # The law

    @invariant()
    def what_ended_unpaid_cannot_be_paid(self) -> None:
        """Nobody pays for what is over, unless the checkout is about to be closed."""
        scene = self._look()
        closing = {
            effect.reservation_id
            for effect in scene.all(OutboxItem)
            if effect.kind is OutboxKind.EXPIRE_CHECKOUT and effect.due_at is not None
        }
        for held in scene.all(Reservation):
            if held.state in LOCKING_STATES or held.money is not Money.NONE or held.checkout_id is None:
                continue
            standing = self.provider.standing(held.checkout_id).status
            over = standing not in {PaymentStatus.OPEN, PaymentStatus.AUTHORISED}
            assert over or held.reservation_id in closing, "a checkout ends with its reservation"

    def _goes_right_from_now_on(self) -> None:
        self.mailer.failing = 0
        super()._goes_right_from_now_on()

    def _wears_off(self) -> None:
        """Money needs its sweeps in time: what nobody sweeps is the service machine's."""

    def _comes_back(self) -> None:
        if self.returns:
            super()._comes_back()

    def _greetings(self) -> list[Callable[[], object]]:
        return super()._greetings() if self.returns else [super()._comes_back]

    def _documented(self) -> timedelta:
        return super()._documented() + self.policy.disconnect_limit

    def _rests(self, scene: Scene) -> None:
        super()._rests(scene)
        steps = self._stored(AuditEntry)
        for payment in self.provider.payments():
            held = scene.reservations[payment.reservation_id or ""]
            forgotten = payment.status is PaymentStatus.AUTHORISED and held.money is not Money.NEEDS_REVIEW
            assert not forgotten, "every authorisation ends captured, released, or in front of a human"
            assert payment.captured_amount <= payment.authorised_amount
            if held.reservation_id not in self.by_hand and held.money is not Money.NEEDS_REVIEW:
                self._is_on_record(
                    payment, {step.event for step in steps if step.reservation_id == held.reservation_id}
                )
        self._every_attempt_is_on_record(steps)
        self._every_move_had_its_key()
        self._reconciles(scene)
        assert set(self.mailer.sent) <= {DRIVER}
        self._counts(scene, steps)

    def _is_on_record(self, payment: Any, events: set[str]) -> None:
        assert not payment.captured_amount or MOVES[OutboxKind.CAPTURE] in events, "a capture is on record"
        assert not payment.refunded_amount or MOVES[OutboxKind.REFUND] in events, "a refund is on record"

    def _every_attempt_is_on_record(self, steps: tuple[AuditEntry, ...]) -> None:
        """Each answer that was of no use has its line, unless the process that got it died or lost to another."""
        failed = Counter(
            (step.reservation_id, OutboxKind((step.detail or "").partition(" ")[0]))
            for step in steps
            if step.event == "AttemptFailed"
        )
        told = Counter({key: times for key, times in failed.items() if key[1] in COUNTED})
        assert self.disturbed or told == self.provider.failures, "every attempt is on record"

    def _every_move_had_its_key(self) -> None:
        """What the provider was asked for bears the key of its owed call, which is made of our own ids and is the same
        when the call is repeated; what was done at its desk has none."""
        for event in self.provider.account.events:
            kind, asked = KEYED.get(event["type"]), event["request"]
            if kind is None or asked["id"] is None:
                continue
            rid = event["data"]["object"]["metadata"]["reservation_id"]
            ours = re.fullmatch(rf"{rid}:{kind}(:\d+)+", asked["idempotency_key"] or "")
            assert ours, f"{event['type']} was asked for with its key"

    def _reconciles(self, scene: Scene) -> None:
        found = self.maintenance.reconcile()
        reviewed = {held.reservation_id for held in scene.all(Reservation) if held.money is Money.NEEDS_REVIEW}

        assert [] == found.unknown
        assert {line.split()[1] for line in found.missing} <= reviewed

    def _counts(self, scene: Scene, steps: tuple[AuditEntry, ...]) -> None:
        """The endings that were reached, so that nobody can go blind without being seen."""
        seen = Counter(event for _, event in {(step.reservation_id, step.event) for step in steps})
        ends = Counter(f"{held.state} and {held.money}" for held in scene.all(Reservation))
        self.reached.update(seen + ends)
        self.reached["mailed"] += len(self.mailer.sent)
