"""Everything that the service machine does, and all that can happen to money besides: lost, late, doubled and lying
webhooks, answers of every kind and none, processes that die at any commit and payment call, overlapping sweeps, banks
that let go, operators who see to it, mails that do not go out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from csms.adapters.dynamodb import Store
from csms.charging.operations import OperatorCommand
from csms.errors import Conflict, IllegalTransition
from csms.model import (
    Money,
    Presence,
    Save,
)
from csms.model import ReservationState as S
from tests import builders as b
from tests.machine.books import DECLINED, FINAL, WAYS, Fault
from tests.machine.line import dies, does_not_answer
from tests.machine.money_world import MoneyWorld
from tests.machine.service import PAUSES
from tests.machine.world import BAYS, STATION

MOMENTS: Final = [timedelta(minutes=minutes) for minutes in (2, 12, 35, 90)]
DAYS: Final = [timedelta(hours=hours) for hours in (8, 14, 26)]
TOLD_LATE: Final = (4000, 2500, 300, 0, 9000)
MAY_BE_FINAL: Final = {WAYS[name] for name in ("capture", "release", "refund")}
AMID: Final = ("sweep", "next 1", "cancel", "operator", "webhook", "pays", "stops", "nudge")
"""What somebody else may do in the middle of something."""
LOST_ANSWERS: Final = [(None, True), (None, False), (500, True), (500, False), (429, False)]


class MoneyMachine(MoneyWorld):
    """Two bays of one station, a payment provider, and everything that may happen to a driver's money between them."""

    # What has nothing to do with money is left to the service machine.
    asks_about_a_tag = starts_the_same_again = comes = None
    pays_while_the_station_is_away_which_comes_back_without_a_word = nobody_is_sent_to_the_checkout = None
    nobody_unplugs_or_tells_a_stop = loses_its_socket_before_it_starts = None

    @rule(bay=st.sampled_from([1, 1, 1, 2]), times=st.integers(2, 9))
    def goes_on_as_usual(self, bay: int, times: int) -> None:
        for _ in range(times):
            self._next(bay)

    @rule(pause=st.sampled_from([*MOMENTS, *DAYS]))
    def time_runs_and_is_swept(self, pause: timedelta) -> None:
        self._runs(self.clock.at + pause)

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

    @rule(ahead=st.integers(0, 9), after=st.booleans(), what=st.sampled_from([dies, does_not_answer, *AMID]))
    def trouble_is_ahead(self, ahead: int, after: bool, what: Any) -> None:
        self.disturbed = True
        super().trouble_is_ahead(ahead, after, what)

    @rule(ahead=st.integers(0, 3), after=st.booleans(), what=st.sampled_from([dies, *AMID]))
    def trouble_at_the_provider_is_ahead(self, ahead: int, after: bool, what: Any) -> None:
        self._trouble_at_the_provider(ahead, after, what)

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

    @precondition(lambda self: self.provider.account.events)
    @rule(data=st.data(), times=st.integers(1, 3), over_the_bus=st.booleans())
    def events_arrive(self, data: st.DataObject, times: int, over_the_bus: bool) -> None:
        """Any of those there ever were, in any order, as often as the provider likes."""
        for _ in range(times):
            self._delivers(self._any(data, self.provider.account.events), over_the_bus=over_the_bus)

    @rule(
        bay=st.sampled_from(BAYS),
        told=st.sampled_from([None, *TOLD_LATE, 4000, 4500]),
        lost=st.sampled_from([None, *LOST_ANSWERS]),
        dying=st.sampled_from([None, None, 0, 1, 2]),
    )
    def a_stop_is_lost(self, bay: int, told: int | None, lost: Any, dying: int | None) -> None:
        """The car is gone, and the stop does not come, or only when the session was ended without it; then the refund
        may go wrong."""
        running = self._comes_to_state(bay, S.CHARGING) and self._running_on(bay)
        if not running:
            return
        sampled = [{"value": str(running.meter_start_wh + 5000), "unit": "Wh"}]
        entry = {"timestamp": self.clock.at.isoformat(), "sampledValue": sampled}
        self._say("MeterValues", connectorId=bay, meterValue=[entry], transactionId=int(running.transaction_id))
        self._tells(bay, "Available")
        self._runs(self.clock.at + self.policy.implied_stop_grace + timedelta(minutes=1))
        if told is None:
            return
        self._fails("refund", lost)
        if dying is not None:
            self._trouble_at_the_provider(dying, dying == 1, dies)
        self._stops(transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + told)

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
        held = self._comes_to_state(bay, S.PENDING_PAYMENT)
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
        running = self._comes_to_state(bay, S.CHARGING) and self._running_on(bay)
        if not running:
            return
        self._tells(bay, until)
        if stopped:
            self._stops(transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + 8000)
        self._runs(self.clock.at + timedelta(hours=14))

    @rule(
        bay=st.sampled_from(BAYS),
        kind=st.sampled_from(["capture", "capture", "release"]),
        what=st.sampled_from([FINAL, FINAL, *LOST_ANSWERS]),
    )
    def money_does_not_move(self, bay: int, kind: str, what: Any) -> None:
        """The session ends, and the provider refuses, or gives no answer of use."""
        held = self._comes_to_state(bay, S.CHARGING if kind == "capture" else S.START_REQUESTED)
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
        held = self._comes_to_state(bay, state)
        if held is None:
            return
        if where == "database":
            self._trouble_at_a_write(ahead, after, what)
        else:
            self._trouble_at_the_provider(ahead, after, what)
        self._ends(held)

    @precondition(lambda self: self._ended_by_us())
    @rule(data=st.data(), told=st.sampled_from(TOLD_LATE))
    def a_stop_comes_late(self, data: st.DataObject, told: int) -> None:
        ended = self._any(data, self._ended_by_us())
        self._stops(transactionId=int(ended.transaction_id), meterStop=ended.meter_start_wh + told)

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

    @rule(
        data=st.data(),
        bay=st.sampled_from(BAYS),
        what=st.sampled_from(["retry", "release", "settle", "bill"]),
        discount=st.sampled_from([0, 0, 100]),
        energy_wh=st.sampled_from([4000, 700, 0, 50_000]),
    )
    def an_operator_sees_to_a_payment(
        self, data: st.DataObject, bay: int, what: str, discount: int, energy_wh: int
    ) -> None:
        if not self._reviewed():
            self.money_does_not_move(bay, "capture", FINAL)
            self._runs(self.clock.at + timedelta(minutes=2))
        if not self._reviewed():
            return
        held = self._any(data, self._reviewed())
        rid = held.reservation_id
        order = OperatorCommand(who="ada", reason="because", expected=Money.NEEDS_REVIEW)
        deeds: dict[str, Callable[[], object]] = {
            "retry": lambda: self.operators.retry_payment(rid, order),
            "bill": lambda: self.operators.bill_payment(rid, energy_wh, order),
            "release": lambda: self.operators.release_payment(rid, order),
            "settle": lambda: self._settles(held, max(0, (held.amount or 0) - discount), order),
        }
        self._act(deeds[what], IllegalTransition, Conflict)
