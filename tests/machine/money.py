"""Everything that the service machine does, over the stand-in for Stripe instead of a fake, and all that can happen to
money besides: lost, late, doubled and lying webhooks, answers of every kind and none, processes that die in the middle
of a payment call, overlapping sweeps, banks that let go, operators who see to it, mails that do not go out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from csms.errors import Conflict, IllegalTransition, PaymentRefused, PaymentUnavailable, Unreachable
from csms.model import (
    Connector,
    Effect,
    EffectKind,
    Money,
    Policy,
    Presence,
    Reservation,
    Save,
    Step,
    Tariff,
    Transaction,
)
from csms.model import ReservationState as S
from csms.operations import Order
from csms.provider import PaymentStatus
from csms.receipt import Mail
from csms.reservation import HOLDING
from csms.store import Store
from csms.transaction import OURS
from tests import builders as b
from tests.laws import Scene
from tests.machine.books import DECLINED, DRIVER, FINAL, WAYS, Books, Fault
from tests.machine.line import Died, dies, does_not_answer
from tests.machine.service import PAUSES, ServiceMachine
from tests.machine.world import BAYS, STATION

LIMITED: Final = replace(b.IDLING, max_amount=1200, minimum_energy_wh=500)
LUNCH: Final = replace(b.IDLING, idle_free_from="12:30", idle_free_until="13:00")
HOLDS: Final = [timedelta(days=7), timedelta(days=7), timedelta(hours=12)]
DELIVERED: Final = (5000, 12_000, 300, 60_000)
MOMENTS: Final = [timedelta(minutes=minutes) for minutes in (2, 12, 35, 90)]
DAYS: Final = [timedelta(hours=hours) for hours in (8, 14, 26)]
TOLD_LATE: Final = (4000, 2500, 300, 0, 9000)
MAY_BE_FINAL: Final = {WAYS[name] for name in ("capture", "release", "refund")}
AMID: Final = ("sweep", "next 1", "cancel", "operator", "webhook", "pays", "stops", "nudge")
"""What somebody else may do in the middle of something."""
LOST_ANSWERS: Final = [(None, True), (None, False), (500, True), (500, False), (429, False)]
MOVES: Final = {
    EffectKind.CAPTURE: "Captured",
    EffectKind.RELEASE: "Released",
    EffectKind.REFUND: "Refunded",
}
"""How the audit trail calls what was moved."""


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


class MoneyMachine(ServiceMachine):
    """Two bays of one station, a payment provider, and everything that may happen to a driver's money between them."""

    reached: ClassVar[Counter[str]] = Counter()
    """How many reservations came to which ending, or past which point."""

    provider: Books

    # What has nothing to do with money is left to the service machine.
    asks_about_a_tag = starts_the_same_again = comes = None

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
        far=st.integers(0, 9),
    )
    def opens(
        self, free: bool, plug_first: bool, asked: Tariff, hold: timedelta, mails: bool, returns: bool, far: int
    ) -> None:
        self.mailer = Post()
        self.provider.hold = hold
        self.returns = returns
        self.amid = self.disturbed = False
        self._opens(Policy(start_needs_plug=plug_first, email_receipts=mails), free=free, asked=asked, far=far)

    # What usually comes next

    @rule(bay=st.sampled_from([1, 1, 1, 2]), times=st.integers(2, 9))
    def goes_on_as_usual(self, bay: int, times: int) -> None:
        for _ in range(times):
            self._next(bay)

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
                self._stops(transactionId=running.transaction_id, meterStop=running.meter_start_wh + delivered)
            case "SuspendedEV" if waits:
                self._runs(self.clock.at + timedelta(minutes=7))
                self._tells(bay, "Available")
            case _:
                super()._next(bay)

    @rule(pause=st.sampled_from([*MOMENTS, *DAYS]))
    def time_runs_and_is_swept(self, pause: timedelta) -> None:
        self._runs(self.clock.at + pause)

    # What goes wrong

    @rule(
        bay=st.sampled_from([1, 1, 2]),
        where=st.sampled_from(["database", "database", "provider"]),
        ahead=st.integers(0, 2),
        after=st.booleans(),
        what=st.sampled_from([*[dies] * 6, does_not_answer, *AMID]),
        times=st.integers(1, 12),
    )
    def every_other_step_is_disturbed(
        self, bay: int, where: str, ahead: int, after: bool, what: Any, times: int
    ) -> None:
        for number in range(times):
            if number % 2:
                self.line.calm()
                self.provider.wire.calm()
            elif where == "database":
                self._trouble_at_a_write(ahead, after, what)
            else:
                self._trouble_at_the_provider(ahead, after, what)
            self._next(bay)

    def _trouble_at_a_write(self, ahead: int, after: bool, what: Any) -> None:
        self.disturbed = True
        happens = what if callable(what) else lambda: self._meanwhile(what)
        self.line.expect(ahead, after=after, what=happens, in_writes=True)

    @rule(ahead=st.integers(0, 3), after=st.booleans(), what=st.sampled_from([dies, *AMID]))
    def trouble_at_the_provider_is_ahead(self, ahead: int, after: bool, what: Any) -> None:
        self._trouble_at_the_provider(ahead, after, what)

    def _trouble_at_the_provider(self, ahead: int, after: bool, what: Any) -> None:
        def strikes() -> None:
            self.disturbed = self.line.struck = True
            if callable(what):
                raise Died
            self._meanwhile(what)

        self.provider.wire.expect(ahead, after=after, what=strikes)

    def trouble_is_ahead(self, ahead: int, after: bool, what: Any) -> None:
        self.disturbed = True
        super().trouble_is_ahead(ahead, after, what)

    def _meanwhile(self, what: str) -> None:
        outer, self.amid = self.amid, True
        try:
            super()._meanwhile(what)
        finally:
            self.amid = outer

    def _do(self, what: str) -> None:
        scene = self._look()
        held = [r for r in scene.all(Reservation) if r.state in HOLDING]
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
                self._stops(transactionId=running[-1].transaction_id, meterStop=running[-1].meter_start_wh + 3000)
            case "nudge" if self.nudges:
                nudge = self.nudges[-1]
                self._act(lambda: self.maintenance.perform(nudge.reservation_id, nudge.kind))
            case _:
                super()._do(what)

    def _cancels(self, held: Reservation) -> None:
        """An operator who sees how it stands cancels the reservation."""
        order = Order(who="ada", reason="because", expected=held.state)
        self._act(lambda: self.operators.cancel_reservation(held.reservation_id, order), IllegalTransition, Conflict)

    @rule(
        operation=st.sampled_from([*WAYS.values()]),
        status=st.sampled_from([None, None, FINAL, 409, 429, 500, 500]),
        acted=st.booleans(),
        times=st.sampled_from([1, 1, 2, 3]),
    )
    def the_provider_will_fail(self, operation: str, status: int | None, acted: bool, times: int) -> None:
        if status == FINAL and operation not in MAY_BE_FINAL:
            status = 500
        acts = acted and status in {None, 500}
        self.provider.wire.faults += [Fault(operation=operation, status=status, acted=acts)] * times

    @rule(hours=st.sampled_from([1, 4]), first=st.integers(0, 3))
    def the_provider_is_down_for_hours(self, hours: int, first: int) -> None:
        """Long enough for everything that is owed to be given up."""
        self.provider.wire.down = True
        for _ in range(first):
            self._next(1)
        self._runs(self.clock.at + timedelta(hours=hours))
        self.provider.wire.down = False

    @rule(times=st.integers(1, 9))
    def mails_do_not_go_out(self, times: int) -> None:
        self.mailer.failing = times

    # The driver, the bank and the provider

    def _payable(self) -> dict[str, str]:
        """Only whoever was told the address of a page can pay on it."""
        told = {held.checkout_id for held in self._look().all(Reservation)}
        return {checkout_id: rid for checkout_id, rid in self.provider.checkouts.items() if checkout_id in told}

    def _open(self) -> list[str]:
        return [one for one in self._payable() if self.provider.standing(one).status is PaymentStatus.OPEN]

    @precondition(lambda self: self._open())
    @rule(data=st.data())
    def a_card_is_declined(self, data: st.DataObject) -> None:
        self.provider.pay(self._any(data, self._open()), DECLINED)

    @precondition(lambda self: self._closing())
    @rule(
        data=st.data(),
        late=st.sampled_from([timedelta(seconds=1), timedelta(minutes=1), timedelta(minutes=29)]),
        pays=st.booleans(),
        after=st.booleans(),
        taken=st.booleans(),
    )
    def a_checkout_runs_out(self, data: st.DataObject, late: timedelta, pays: bool, after: bool, taken: bool) -> None:
        """The driver may pay at the last moment, and somebody else may have the connector by then."""
        held = self._any(data, self._closing())
        if held.expires_at is not None and held.expires_at > self.clock.at:
            self._sleeps(held.expires_at - self.clock.at - timedelta(seconds=1))
        if pays and held.checkout_id in self._open():
            self.provider.pay(held.checkout_id)
        self._sleeps(timedelta(seconds=1) + late)
        if taken:
            self._creates(held.connector_id)
        if after:
            self._delivers_what_is_known_of(held.reservation_id)
        self._sweeps()

    def _closing(self) -> list[Reservation]:
        pending = [r for r in self._look().all(Reservation) if r.state is S.PENDING_PAYMENT]
        return [r for r in pending if r.checkout_id is not None]

    @precondition(lambda self: self.provider.account.events)
    @rule(data=st.data(), times=st.integers(1, 3), over_the_bus=st.booleans())
    def events_arrive(self, data: st.DataObject, times: int, over_the_bus: bool) -> None:
        """Any of those there ever were, in any order, as often as the provider likes."""
        for _ in range(times):
            self._delivers(self._any(data, self.provider.account.events), over_the_bus=over_the_bus)

    def _delivers_what_is_known_of(self, rid: str) -> None:
        for event in self.provider.account.events:
            if event["data"]["object"].get("metadata", {}).get("reservation_id") == rid:
                self._delivers(event)

    def _delivers(self, event: dict[str, Any], *, over_the_bus: bool = False) -> None:
        def deliver() -> Any:
            if over_the_bus:
                return self.drivers.provider_event(event)
            return self.drivers.webhook(*self.provider.account.signed(event))

        self._act(deliver, PaymentUnavailable, PaymentRefused)

    # The station

    @rule(
        bay=st.sampled_from(BAYS),
        told=st.sampled_from([None, *TOLD_LATE, 4000, 4500]),
        lost=st.sampled_from([None, *LOST_ANSWERS]),
        dying=st.sampled_from([None, None, 0, 1, 2]),
    )
    def a_stop_is_lost(self, bay: int, told: int | None, lost: Any, dying: int | None) -> None:
        """The car is gone, and the stop does not come, or only when the session was ended without it; then the refund
        may go wrong."""
        running = self._comes_to(bay, S.CHARGING) and self._running(bay)
        if not running:
            return
        sampled = [{"value": str(running.meter_start_wh + 5000), "unit": "Wh"}]
        entry = {"timestamp": self.clock.at.isoformat(), "sampledValue": sampled}
        self._say("MeterValues", connectorId=bay, meterValue=[entry], transactionId=running.transaction_id)
        self._tells(bay, "Available")
        self._runs(self.clock.at + self.policy.implied_stop_grace + timedelta(minutes=1))
        if told is None:
            return
        self._fails("refund", lost)
        if dying is not None:
            self._trouble_at_the_provider(dying, dying == 1, dies)
        self._stops(transactionId=running.transaction_id, meterStop=running.meter_start_wh + told)

    @rule(bay=st.sampled_from(BAYS), lost=st.sampled_from(LOST_ANSWERS), dying=st.booleans())
    def a_checkout_is_lost(self, bay: int, lost: Any, dying: bool) -> None:
        """It may have been opened, and nobody knows its address."""
        known = len(self._look().reservations)
        if dying:
            self._trouble_at_the_provider(0, lost[1], dies)
        else:
            self._fails("open", lost)
        for _ in range(9):
            if len(self._look().reservations) > known:
                break
            self._next(bay)
        self._runs(self.clock.at + timedelta(minutes=3))

    @rule(
        bay=st.sampled_from(BAYS),
        lost=st.sampled_from([None, None, *LOST_ANSWERS]),
        then=st.sampled_from(["cancels", "is cancelled", "pays and cancels", "cancels and pays", "leaves"]),
        told=st.booleans(),
    )
    def a_driver_changes_their_mind(self, bay: int, lost: Any, then: str, told: bool) -> None:
        """On the checkout page, which may then not be closed."""
        held = self._comes_to(bay, S.PENDING_PAYMENT)
        if held is None:
            return
        self._fails("expire", lost)
        for deed in then.split(" and "):
            match deed:
                case "cancels":
                    self._act(lambda: self.drivers.cancel(held.reservation_id), IllegalTransition)
                case "is cancelled":
                    self._cancels(held)
                case "pays":
                    self._do("pays")
        if told:
            self._delivers_what_is_known_of(held.reservation_id)

    @rule(bay=st.sampled_from(BAYS), until=st.sampled_from(["Charging", "SuspendedEV"]), stopped=st.booleans())
    def nobody_unplugs(self, bay: int, until: str, stopped: bool) -> None:
        """The station goes on, and nobody comes for longer than the card's bank waits."""
        running = self._comes_to(bay, S.CHARGING) and self._running(bay)
        if not running:
            return
        self._tells(bay, until)
        if stopped:
            self._stops(transactionId=running.transaction_id, meterStop=running.meter_start_wh + 8000)
        self._runs(self.clock.at + timedelta(hours=14))

    @rule(
        bay=st.sampled_from(BAYS),
        kind=st.sampled_from(["capture", "capture", "release"]),
        what=st.sampled_from([FINAL, FINAL, *LOST_ANSWERS]),
    )
    def money_does_not_move(self, bay: int, kind: str, what: Any) -> None:
        """The session ends, and the provider refuses, or gives no answer of use."""
        held = self._comes_to(bay, S.CHARGING if kind == "capture" else S.START_REQUESTED)
        if held is not None:
            self._fails(kind, (what, False) if what == FINAL else what)
            self._ends(held)

    @rule(
        bay=st.sampled_from(BAYS),
        state=st.sampled_from([S.CHARGING, S.CHARGING, S.START_REQUESTED]),
        where=st.sampled_from(["database", "provider"]),
        ahead=st.integers(0, 2),
        after=st.booleans(),
        what=st.sampled_from([dies, dies, dies, "sweep", "nudge", "stops"]),
    )
    def somebody_dies_as_money_moves(self, bay: int, state: S, where: str, ahead: int, after: bool, what: Any) -> None:
        """Before or after any commit or provider call at the end of a session; or somebody else moves it too."""
        held = self._comes_to(bay, state)
        if held is None:
            return
        if where == "database":
            self._trouble_at_a_write(ahead, after, what)
        else:
            self._trouble_at_the_provider(ahead, after, what)
        self._ends(held)

    def _ends(self, held: Reservation) -> None:
        """The session is over: stopped if it charges, else cancelled."""
        running = self._running(held.connector_id)
        if running is None:
            self._act(lambda: self.drivers.cancel(held.reservation_id), IllegalTransition)
        else:
            stop = {"transactionId": running.transaction_id, "meterStop": running.meter_start_wh + 8000}
            self._stops(reason="EVDisconnected", **stop)

    def _comes_to(self, bay: int, state: S) -> Reservation | None:
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

    def _fails(self, name: str, lost: tuple[int | None, bool] | None) -> None:
        """The next call of this name gets no answer of use; whether it took effect all the same."""
        if lost is not None:
            self.provider.wire.faults.append(Fault(operation=WAYS[name], status=lost[0], acted=lost[1]))

    @precondition(lambda self: self._ended_by_us())
    @rule(data=st.data(), told=st.sampled_from(TOLD_LATE))
    def a_stop_comes_late(self, data: st.DataObject, told: int) -> None:
        ended = self._any(data, self._ended_by_us())
        self._stops(transactionId=ended.transaction_id, meterStop=ended.meter_start_wh + told)

    def _ended_by_us(self) -> list[Transaction]:
        return [t for t in self._look().all(Transaction) if t.reason in OURS and t.reservation_id is not None]

    def _running(self, bay: int) -> Any:
        connector = self._look().connectors.get(bay)
        return connector.transaction if connector is not None else None

    @rule(pause=st.sampled_from([*PAUSES, *MOMENTS]), events=st.booleans())
    def the_station_is_deleted_and_registered_again(self, pause: timedelta, events: bool) -> None:
        self.line.calm()
        self.provider.wire.calm()
        if self._act(lambda: self.operators.delete("CP-1", who="ada") or True, IllegalTransition) is None:
            return
        known = next(iter(self._look().all(Presence)), None)
        assert known is None, "nothing is left of a deleted station"
        for event in self.provider.account.events if events else ():
            self._delivers(event)
        self._runs(self.clock.at + pause)
        Store(self.line, self.table).commit([Save(replace(STATION, tariff=b.IDLING))])
        self.reached["station deleted"] += 1
        self._comes_back()

    # The operator

    @precondition(lambda self: self._reviewed())
    @rule(
        data=st.data(),
        what=st.sampled_from(["retry", "retry", "release", "settle", "settle"]),
        discount=st.sampled_from([0, 0, 100]),
    )
    def an_operator_sees_to_a_payment(self, data: st.DataObject, what: str, discount: int) -> None:
        held = self._any(data, self._reviewed())
        rid = held.reservation_id
        order = Order(who="ada", reason="because", expected=Money.NEEDS_REVIEW)
        deeds: dict[str, Callable[[], object]] = {
            "retry": lambda: self.operators.retry_payment(rid, order),
            "release": lambda: self.operators.release_payment(rid, order),
            "settle": lambda: self._settles(held, max(0, (held.amount or 0) - discount), order),
        }
        self._act(deeds[what], IllegalTransition, Conflict)

    def _settles(self, held: Reservation, kept: int, order: Order) -> object:
        """An honest operator: first at the provider's desk, then here."""
        self.line.calm()
        self.by_hand.add(held.reservation_id)
        told = self.provider.by_hand(held.payment_id or "", kept)
        return self.operators.settle_payment(held.reservation_id, told, order)

    def _reviewed(self) -> list[Reservation]:
        return [r for r in self._look().all(Reservation) if r.money is Money.NEEDS_REVIEW]

    # The law

    def _sleeps(self, pause: timedelta) -> None:
        super()._sleeps(pause)
        self.provider.overslept()

    @invariant()
    def what_ended_unpaid_cannot_be_paid(self) -> None:
        """Nobody pays for what is over, unless the checkout is about to be closed."""
        scene = self._look()
        closing = {
            effect.reservation_id
            for effect in scene.all(Effect)
            if effect.kind is EffectKind.EXPIRE_CHECKOUT and effect.due_at is not None
        }
        for held in scene.all(Reservation):
            if held.state in HOLDING or held.money is not Money.NONE or held.checkout_id is None:
                continue
            standing = self.provider.standing(held.checkout_id).status
            over = standing not in {PaymentStatus.OPEN, PaymentStatus.AUTHORISED}
            assert over or held.reservation_id in closing, "a checkout ends with its reservation"

    def _goes_right_from_now_on(self) -> None:
        self.mailer.failing = 0
        super()._goes_right_from_now_on()

    def _comes_back(self) -> None:
        if self.returns:
            super()._comes_back()

    def _greetings(self) -> list[Callable[[], object]]:
        return super()._greetings() if self.returns else [super()._comes_back]

    def _documented(self) -> timedelta:
        return super()._documented() + self.policy.disconnect_limit

    def _rests(self, scene: Scene) -> None:
        super()._rests(scene)
        steps = self._stored(Step)
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
        self._reconciles(scene)
        assert set(self.mailer.sent) <= {DRIVER}
        self._counts(scene, steps)

    def _is_on_record(self, payment: Any, events: set[str]) -> None:
        assert not payment.captured_amount or MOVES[EffectKind.CAPTURE] in events, "a capture is on record"
        assert not payment.refunded_amount or MOVES[EffectKind.REFUND] in events, "a refund is on record"

    def _every_attempt_is_on_record(self, steps: tuple[Step, ...]) -> None:
        """Each answer that was of no use has its line, unless the process that got it died or lost to another."""
        failed = Counter(
            (step.reservation_id, EffectKind((step.detail or "").partition(" ")[0]))
            for step in steps
            if step.event == "AttemptFailed"
        )
        asked = {kind for _, kind in self.provider.failures}
        told = Counter({key: times for key, times in failed.items() if key[1] in asked})
        assert self.disturbed or told == self.provider.failures, "every attempt is on record"

    def _reconciles(self, scene: Scene) -> None:
        found = self.maintenance.reconcile()
        reviewed = {held.reservation_id for held in scene.all(Reservation) if held.money is Money.NEEDS_REVIEW}

        assert [] == found.unknown
        assert {line.split()[1] for line in found.missing} <= reviewed

    def _counts(self, scene: Scene, steps: tuple[Step, ...]) -> None:
        """The endings that were reached, so that nobody can go blind without being seen."""
        seen = Counter(event for _, event in {(step.reservation_id, step.event) for step in steps})
        ends = Counter(f"{held.state} and {held.money}" for held in scene.all(Reservation))
        self.reached.update(seen + ends)
        self.reached["mailed"] += len(self.mailer.sent)
