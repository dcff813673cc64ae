"""One station with two connectors: the usual next steps of a charge, the invariants at any time, and what must have
ended in the end. The machines have the rules and faults."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from hypothesis.stateful import invariant

from csms import occupancy
from csms.charging import operations, review
from csms.charging.operations import OperatorCommand
from csms.charging.reservation import LOCKING_STATES
from csms.errors import IllegalTransition
from csms.model import (
    CallState,
    CommandKind,
    Connector,
    Money,
    OutboxItem,
    Policy,
    Presence,
    Reservation,
    Snapshot,
    Tariff,
    Transaction,
)
from csms.model import ReservationState as S
from csms.ports.payments import PaymentStatus
from csms.pricing import tariff
from tests import builders as b
from tests.documented import Leftover, check_leftovers, pass_until_expired
from tests.invariants import Scene, check_scene
from tests.machine.actions import NORMAL, Actions
from tests.machine.values import ACCEPTED, CONNECTOR_IDS, STATION

TICK: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
RETRIES: Final = timedelta(hours=2)
DAY: Final = timedelta(days=1)
"""The longest time that a provider keeps a checkout open if no setting limits it."""


class World(Actions):
    """One station with two connectors, in a table of its own, with the machine's clock."""

    settled = 0
    met: ClassVar[Counter[str]] = Counter()
    """How often each kind of leftover was seen to keep a connector busy, and each other situation that must occur."""

    def _open_station(self, policy: Policy, *, free: bool, asked: Tariff, far: int) -> None:
        """Register and connect the station, and take so many usual steps on its first connector."""
        self._start_service(policy, free=free, asked=asked)
        self._connect()
        for connector_id in CONNECTOR_IDS:
            self._report_status(connector_id, "Available")
        for _ in range(far):
            self._advance_session(1)

    # Usual next steps

    def _advance_session(self, connector_id: int) -> None:
        """Take the next step of an undisturbed charge on the connector."""
        scene = self._read_scene()
        connector = scene.connectors.get(connector_id) or Connector(station_id="cp-1", connector_id=connector_id)
        presence = next(iter(scene.all(Presence)), None)
        if not occupancy.is_online(presence, scene.now) or presence is None or presence.connection_id != self.socket:
            self._connect()
        elif connector.transaction is not None:
            running = connector.transaction
            self._stop_transaction(transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + 5000)
        elif connector.lock is not None:
            self._advance_reservation(scene.reservations[connector.lock.reservation_id], scene)
        elif not self._is_startable(connector_id):
            self._report_status(0, "Available")
            self._report_status(connector_id, "Available")
        else:
            self._create_reservation(connector_id)

    def _advance_reservation(self, held: Reservation, scene: Scene) -> None:
        waiting = scene.read_calls()
        asked = [c for c in waiting if c.state is CallState.SENT and c.kind is CommandKind.REMOTE_START]
        if asked:
            self._answer_call([3, asked[0].call_id, ACCEPTED])
        elif held.state is S.WAITING_FOR_DISCONNECT:
            self._report_status(held.connector_id, "Available")
        elif held.state is not S.PENDING_PAYMENT:
            self._start_transaction(held.connector_id, held.id_tag)
        elif held.checkout_id is None or self.provider.find_payment(held.checkout_id).status is not PaymentStatus.OPEN:
            self._sleep(timedelta(minutes=2))
            self._sweep()
        else:
            self.provider.pay(held.checkout_id)
            self._confirm_payment(held.reservation_id)

    def _advance_until(self, connector_id: int, where: Callable[[Connector], bool], *, most: int = 6) -> bool:
        """Take usual steps on the connector until the condition is true, and return whether it became true soon."""
        for _ in range(most):
            connector = self._read_scene().connectors.get(connector_id)
            if connector is not None and where(connector):
                return True
            self._advance_session(connector_id)
        return False

    def _act_concurrently(self, what: str) -> None:
        """Let another process act while the service is in the middle of an operation."""
        self._do(what)
        # A fault in the concurrent action was handled there, and the action itself counts as one.
        self.line.struck = True

    def _do(self, what: str) -> None:
        held = [r.reservation_id for r in self._read_scene().all(Reservation) if r.state in LOCKING_STATES]
        match what:
            case "sweep":
                self._sweep()
            case "next 1" | "next 2":
                self._advance_session(int(what[-1]))
            case "cancel" if held:
                self._act(lambda: self.drivers.cancel(held[-1]), IllegalTransition)
            case "available":
                for connector_id in CONNECTOR_IDS:
                    self._report_status(connector_id, "Available")
            case "reconnect":
                self._connect()

    # Invariants

    @invariant()
    def check_scene_invariants(self) -> None:
        before, after = self.scene, self._read_scene()
        check_scene(before, after)
        self.scene = after
        for held in after.all(Reservation):
            self._check_payments(held)

    @invariant()
    def check_busy_limits(self) -> None:
        """No leftover keeps a connector busy longer than documented (docs/occupancy.md)."""
        if self.socket:
            self._find_leftovers()

    def _find_leftovers(self) -> list[Leftover]:
        """The leftovers that keep the connectors busy."""
        scene = self._read_scene()
        seen = Snapshot(station=STATION, presence=next(iter(scene.all(Presence)), None), connectors=scene.connectors)
        said = {
            connector_id: occupancy.explain(seen, connector_id, now=scene.now, policy=self.policy)
            for connector_id in CONNECTOR_IDS
        }
        left = check_leftovers(scene, said, self.policy, self.swept_at)
        self.met.update(one.kind for one in left)
        return left

    def _check_payments(self, held: Reservation) -> None:
        """The provider's payments agree with the reservation's money."""
        opened = [rid for operation, rid, _ in self.provider.calls if operation == "open_checkout"]
        assert opened.count(held.reservation_id) <= 1, "one checkout for one reservation"
        payments = [
            self.provider.find_payment(c) for c, rid in self.provider.checkouts.items() if rid == held.reservation_id
        ]
        self._check_evidence(held, sum(p.captured_amount for p in payments))
        spoilt = held.payment_id in self.provider.refused
        assert sum(p.captured_amount for p in payments) <= max((p.authorised_amount for p in payments), default=0)
        if held.money is Money.AUTHORIZED:
            assert spoilt or [PaymentStatus.AUTHORIZED] == [p.status for p in payments], "nobody charges unpaid"
        if held.money is Money.CAPTURED:
            kept = [p.captured_amount - p.refunded_amount for p in payments]
            assert [held.amount] == kept or held.reservation_id in self.by_hand, "what was kept is the bill"
            assert sum(kept) <= (held.amount or 0), "nobody is overcharged"
        if held.money is Money.RELEASED:
            assert [PaymentStatus.RELEASED] == [p.status for p in payments], "what was released is free"
        if held.money is Money.NEEDS_REVIEW:
            silent = self.provider.silent[held.payment_id or ""] >= self.policy.outbox_attempts
            doubted = review.is_meter_doubted(held)
            assert spoilt or silent or doubted, "a human sees what the provider refuses, and what no meter can show"

    def _check_evidence(self, held: Reservation, captured: int) -> None:
        """Nothing is captured on evidence that was not plausible, unless a human decided: no more than the strongest
        charger delivers in the time of the transactions and one second more, and, where it is known what the car took,
        no more than that within 1 % or 10 Wh."""
        decided = review.BILLED_BY_HAND in held.flags or held.reservation_id in self.by_hand
        if not captured or decided or self.policy.max_power_w >= b.ANY_POWER_W:
            return
        charged = [t for t in self._read_scene().all(Transaction) if t.reservation_id == held.reservation_id]
        possible = sum(self._deliverable_wh(one, held.captured_at or self.clock.at) for one in charged)
        assert captured <= self._price(held, possible), "nothing implausible is captured"
        taken = [self.taken.get(one.transaction_id) for one in charged]
        known = sum(wh for wh in taken if wh is not None)
        if None not in taken:
            assert captured <= self._price(held, max(known * 101 // 100, known + 10)), "what the car took is captured"

    def _deliverable_wh(self, transaction: Transaction, captured_at: datetime) -> int:
        """What the strongest charger delivers from the start of the transaction, by our clock or the station's, to its
        stop, or to the capture if no stop was heard."""
        begun = self.began.get(transaction.transaction_id, min(transaction.received_at, transaction.started_at))
        ended = self.stopped.get(transaction.transaction_id, captured_at)
        return int((ended - begun + TICK) / HOUR * self.policy.max_power_w)

    def _price(self, held: Reservation, energy_wh: int) -> int:
        authorized = held.authorised_amount or 0
        return tariff.capturable_amount(held.tariff, energy_wh, held.idle_seconds, authorized=authorized)

    def teardown(self) -> None:
        """Check that without further actions everything ends in the documented time, and both connectors can be
        started."""
        if sys.exception() is not None or not self.socket:
            return  # An invariant was violated before, and the report is about that one.
        self._clear_faults()
        self._expire_leftovers()
        waiting = self._run_until(self.clock.at + self._documented_limit())
        undecided = [at for at in map(_find_end_of_doubt, waiting) if at is not None]
        assert len(undecided) == len(waiting), f"everything ends in time, but for {waiting}"
        waiting = self._run_until(max(undecided, default=self.clock.at) + RETRIES)
        assert not waiting, f"a doubt has an end, but for {waiting}"
        self.check_scene_invariants()
        self._check_nothing_untold()
        self._check_at_rest(self._read_scene())
        for greets in self._presence_signals():
            greets()
            for connector_id in CONNECTOR_IDS:
                assert self._is_startable(connector_id), "a connector with nothing on it can be started"
        type(self).settled += 1

    def _clear_faults(self) -> None:
        self.line.clear_faults()
        self.provider.clear_faults()
        self.gateway.unreachable = False
        self._reconnect()

    def _expire_leftovers(self) -> None:
        """Let all leftovers expire in their documented time, with sweeps only where they are documented. An operator
        closes those that the settings let stay forever."""

        def pass_time(pause: timedelta, swept: bool) -> None:
            self._sleep(pause)
            if swept:
                self._sweep()
            self._send_call("Heartbeat")

        pass_until_expired(self._find_leftovers, pass_time, lambda: self.clock.at)
        for running in self._open_transactions():
            command = OperatorCommand(who="ada", reason="because", expected=operations.OPEN)
            self.operators.close_transaction(running.transaction_id, command)
        pass_until_expired(self._find_leftovers, pass_time, lambda: self.clock.at)
        assert not self._find_leftovers(), "nothing is left"
        for connector_id in CONNECTOR_IDS:
            assert self._is_startable(connector_id), "a connector with nothing on it can be started in its time"

    def _reconnect(self) -> None:
        """Connect the station, and report every connector Available. A silent station connects after its lease is over
        and reports nothing."""
        if self.silent:
            self._sleep(self.policy.presence_lease + NORMAL)
        self._connect()
        if self.silent:
            return
        for connector_id in (0, *CONNECTOR_IDS):
            self._report_status(connector_id, "Available", timestamp=self.clock.at.isoformat())

    def _presence_signals(self) -> list[Callable[[], object]]:
        """The ways in which the station shows that it is online, one after the other."""
        return [lambda: self._send_call("Heartbeat"), self._connect]

    def _documented_limit(self) -> timedelta:
        """The time in which everything ends."""
        policy = self.policy
        return (policy.session_limit or DAY) + (policy.reservation_timeout or DAY) + policy.status_release + RETRIES

    def _check_at_rest(self, scene: Scene) -> None:
        """Check that everything has ended, and that nothing is owed except payments under review."""
        for held in scene.all(Reservation):
            assert held.state not in LOCKING_STATES, "every reservation ends"
            assert held.money in {Money.NONE, Money.CAPTURED, Money.RELEASED, Money.NEEDS_REVIEW}, "money comes to rest"
        for outbox_item in scene.all(OutboxItem):
            assert Money.NEEDS_REVIEW is scene.reservations[outbox_item.reservation_id].money, "nothing else is owed"
        for checkout_id, rid in self.provider.checkouts.items():
            payment = self.provider.find_payment(checkout_id)
            resting = payment.status not in {PaymentStatus.OPEN, PaymentStatus.AUTHORIZED}
            spoilt = {checkout_id, payment.payment_id, rid} & self.provider.refused
            reviewed = scene.reservations[rid].money is Money.NEEDS_REVIEW
            assert resting or spoilt or reviewed, "no checkout stays open"


def _find_end_of_doubt(due: Any) -> datetime | None:
    """When a bill in doubt is settled, or a hold for an unheard start ends at a station that stays away; None for what
    is neither."""
    if not isinstance(due, Reservation):
        return None
    return due.decide_by or (due.settle_by if due.late_start is not None else None)
