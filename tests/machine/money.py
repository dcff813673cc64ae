"""The rules of the service machine, and those for payments: webhooks that are lost, late, repeated or false, any answer
of the provider or none, processes that die at any commit and payment call, overlapping sweeps, lapsed holds, payment
reviews by operators, and mails that fail."""

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
from tests.machine.books import DECLINED, FINAL_STATUS, OPERATION_BY_NAME, Fault
from tests.machine.line import drop_request, kill_process
from tests.machine.money_world import MoneyWorld
from tests.machine.values import CONNECTOR_IDS, PAUSES, STATION

SHORT_PAUSES: Final = [timedelta(minutes=minutes) for minutes in (2, 12, 35, 90)]
LONG_PAUSES: Final = [timedelta(hours=hours) for hours in (8, 14, 26)]
LATE_METER_READINGS: Final = (4000, 2500, 300, 0, 9000)
FINAL_OPERATIONS: Final = {OPERATION_BY_NAME[name] for name in ("capture", "release", "refund")}
CONCURRENT_ACTIONS: Final = ("sweep", "next 1", "cancel", "operator", "webhook", "pays", "stops", "trigger")
"""What may happen concurrently to an operation."""
LOST_ANSWERS: Final = [(None, True), (None, False), (500, True), (500, False), (429, False)]


class MoneyMachine(MoneyWorld):
    """One station with two connectors, a payment provider, and everything that may happen to a payment between them."""

    # Rules that have no effect on payments are left to the service machine.
    authorize_tag = repeat_start_transaction = contact_as_station = None
    pay_while_station_offline = die_before_checkout_response = None
    lose_unplug_or_stop = lose_socket_before_start = go_on_after_end = None

    @rule(connector_id=st.sampled_from([1, 1, 1, 2]), times=st.integers(2, 9))
    def advance_normally(self, connector_id: int, times: int) -> None:
        for _ in range(times):
            self._advance_session(connector_id)

    @rule(pause=st.sampled_from([*SHORT_PAUSES, *LONG_PAUSES]))
    def run_with_sweeps(self, pause: timedelta) -> None:
        self._run_until(self.clock.at + pause)

    @rule(
        connector_id=st.sampled_from([1, 1, 2]),
        where=st.sampled_from(["database", "database", "provider"]),
        ahead=st.integers(0, 2),
        after=st.booleans(),
        what=st.sampled_from([*[kill_process] * 6, drop_request, *CONCURRENT_ACTIONS]),
        times=st.integers(1, 12),
    )
    def disturb_every_other_step(
        self, connector_id: int, where: str, ahead: int, after: bool, what: Any, times: int
    ) -> None:
        for number in range(times):
            if number % 2:
                self.line.clear_faults()
                self.provider.wire.clear_faults()
            elif where == "database":
                self._disturb_write(ahead, after, what)
            else:
                self._disturb_provider(ahead, after, what)
            self._advance_session(connector_id)

    @rule(
        ahead=st.integers(0, 9),
        after=st.booleans(),
        what=st.sampled_from([kill_process, drop_request, *CONCURRENT_ACTIONS]),
    )
    def disturb_database(self, ahead: int, after: bool, what: Any) -> None:
        self.disturbed = True
        super().disturb_database(ahead, after, what)

    @rule(ahead=st.integers(0, 3), after=st.booleans(), what=st.sampled_from([kill_process, *CONCURRENT_ACTIONS]))
    def disturb_provider(self, ahead: int, after: bool, what: Any) -> None:
        self._disturb_provider(ahead, after, what)

    @rule(
        operation=st.sampled_from([*OPERATION_BY_NAME.values()]),
        status=st.sampled_from([None, None, FINAL_STATUS, 409, 429, 500, 500]),
        acted=st.booleans(),
        times=st.sampled_from([1, 1, 2, 3]),
    )
    def fail_provider(self, operation: str, status: int | None, acted: bool, times: int) -> None:
        if status == FINAL_STATUS and operation not in FINAL_OPERATIONS:
            status = 500
        acts = acted and status in {None, 500}
        self.provider.wire.faults += [Fault(operation=operation, status=status, acted=acts)] * times

    @rule(hours=st.sampled_from([1, 4]), first=st.integers(0, 3))
    def take_provider_down(self, hours: int, first: int) -> None:
        """The provider is unavailable long enough for every outbox item to be given up."""
        self.provider.wire.down = True
        for _ in range(first):
            self._advance_session(1)
        self._run_until(self.clock.at + timedelta(hours=hours))
        self.provider.wire.down = False

    @rule(times=st.integers(1, 9))
    def fail_mails(self, times: int) -> None:
        self.mailer.failing = times

    @precondition(lambda self: self._open_checkouts())
    @rule(data=st.data())
    def decline_card(self, data: st.DataObject) -> None:
        self.provider.pay(self._draw_item(data, self._open_checkouts()), DECLINED)

    @precondition(lambda self: self._pending_reservations())
    @rule(
        data=st.data(),
        late=st.sampled_from([timedelta(seconds=1), timedelta(minutes=1), timedelta(minutes=29)]),
        pays=st.booleans(),
        after=st.booleans(),
        taken=st.booleans(),
    )
    def expire_checkout(self, data: st.DataObject, late: timedelta, pays: bool, after: bool, taken: bool) -> None:
        """A checkout expires. The driver may pay at the last moment, and another driver may have the connector by
        then."""
        held = self._draw_item(data, self._pending_reservations())
        if held.expires_at is not None and held.expires_at > self.clock.at:
            self._sleep(held.expires_at - self.clock.at - timedelta(seconds=1))
        if pays and held.checkout_id in self._open_checkouts():
            self.provider.pay(held.checkout_id)
        self._sleep(timedelta(seconds=1) + late)
        if taken:
            self._create_reservation(held.connector_id)
        if after:
            self._deliver_reservation_events(held.reservation_id)
        self._sweep()

    @precondition(lambda self: self.provider.account.events)
    @rule(data=st.data(), times=st.integers(1, 3), over_the_bus=st.booleans())
    def deliver_events(self, data: st.DataObject, times: int, over_the_bus: bool) -> None:
        """Any earlier events, in any order, and repeatedly."""
        for _ in range(times):
            self._deliver_event(self._draw_item(data, self.provider.account.events), over_the_bus=over_the_bus)

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        reported_wh=st.sampled_from([None, *LATE_METER_READINGS, 4000, 4500]),
        lost=st.sampled_from([None, *LOST_ANSWERS]),
        dying=st.sampled_from([None, None, 0, 1, 2]),
    )
    def lose_stop(self, connector_id: int, reported_wh: int | None, lost: Any, dying: int | None) -> None:
        """The car has left, but StopTransaction does not come, or only after csms has ended the session. The refund may
        then fail."""
        running = self._advance_to_state(connector_id, S.CHARGING) and self._open_transaction(connector_id)
        if not running:
            return
        sampled = [{"value": str(running.meter_start_wh + 5000), "unit": "Wh"}]
        entry = {"timestamp": self.clock.at.isoformat(), "sampledValue": sampled}
        self._send_call(
            "MeterValues", connectorId=connector_id, meterValue=[entry], transactionId=int(running.transaction_id)
        )
        self._report_status(connector_id, "Available")
        self._run_until(self.clock.at + self.policy.implied_stop_grace + timedelta(minutes=1))
        if reported_wh is None:
            return
        self._fail_next("refund", lost)
        if dying is not None:
            self._disturb_provider(dying, dying == 1, kill_process)
        self._stop_transaction(
            transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + reported_wh
        )

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), lost=st.sampled_from(LOST_ANSWERS), dying=st.booleans())
    def lose_checkout(self, connector_id: int, lost: Any, dying: bool) -> None:
        """The provider's answer with the checkout's address is lost; the checkout may have been opened."""
        known = len(self._read_scene().reservations)
        if dying:
            self._disturb_provider(0, lost[1], kill_process)
        else:
            self._fail_next("open", lost)
        for _ in range(9):
            if len(self._read_scene().reservations) > known:
                break
            self._advance_session(connector_id)
        self._run_until(self.clock.at + timedelta(minutes=3))

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        lost=st.sampled_from([None, None, *LOST_ANSWERS]),
        then=st.sampled_from(["cancels", "is cancelled", "pays and cancels", "cancels and pays", "leaves"]),
        events_delivered=st.booleans(),
    )
    def cancel_at_checkout(self, connector_id: int, lost: Any, then: str, events_delivered: bool) -> None:
        """A cancellation on the checkout page; the checkout may then fail to expire."""
        held = self._advance_to_state(connector_id, S.PENDING_PAYMENT)
        if held is None:
            return
        self._fail_next("expire", lost)
        for deed in then.split(" and "):
            match deed:
                case "cancels":
                    self._act(lambda: self.drivers.cancel(held.reservation_id), IllegalTransition)
                case "is cancelled":
                    self._cancel_as_operator(held)
                case "pays":
                    self._do("pays")
        if events_delivered:
            self._deliver_reservation_events(held.reservation_id)

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        until=st.sampled_from(["Charging", "SuspendedEV"]),
        stopped=st.booleans(),
    )
    def stay_plugged_in(self, connector_id: int, until: str, stopped: bool) -> None:
        """The car stays plugged in for longer than the hold lasts."""
        running = self._advance_to_state(connector_id, S.CHARGING) and self._open_transaction(connector_id)
        if not running:
            return
        self._report_status(connector_id, until)
        if stopped:
            self._stop_transaction(transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + 8000)
        self._run_until(self.clock.at + timedelta(hours=14))

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        kind=st.sampled_from(["capture", "capture", "release"]),
        what=st.sampled_from([FINAL_STATUS, FINAL_STATUS, *LOST_ANSWERS]),
    )
    def fail_money_operation(self, connector_id: int, kind: str, what: Any) -> None:
        """The session ends, and the provider refuses or gives no usable answer."""
        held = self._advance_to_state(connector_id, S.CHARGING if kind == "capture" else S.START_REQUESTED)
        if held is not None:
            self._fail_next(kind, (what, False) if what == FINAL_STATUS else what)
            self._end_session(held)

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        state=st.sampled_from([S.CHARGING, S.CHARGING, S.START_REQUESTED]),
        where=st.sampled_from(["database", "provider"]),
        ahead=st.integers(0, 2),
        after=st.booleans(),
        what=st.sampled_from([kill_process, kill_process, kill_process, "sweep", "trigger", "stops"]),
    )
    def die_during_money_operation(
        self, connector_id: int, state: S, where: str, ahead: int, after: bool, what: Any
    ) -> None:
        """The process dies before or after any commit or provider call at the end of a session, or another process acts
        concurrently."""
        held = self._advance_to_state(connector_id, state)
        if held is None:
            return
        if where == "database":
            self._disturb_write(ahead, after, what)
        else:
            self._disturb_provider(ahead, after, what)
        self._end_session(held)

    @precondition(lambda self: self._server_stopped_transactions())
    @rule(data=st.data(), reported_wh=st.sampled_from(LATE_METER_READINGS))
    def send_late_stop(self, data: st.DataObject, reported_wh: int) -> None:
        ended = self._draw_item(data, self._server_stopped_transactions())
        self._stop_transaction(transactionId=int(ended.transaction_id), meterStop=ended.meter_start_wh + reported_wh)

    @rule(pause=st.sampled_from([*PAUSES, *SHORT_PAUSES]), events=st.booleans())
    def reregister_station(self, pause: timedelta, events: bool) -> None:
        self.line.clear_faults()
        self.provider.wire.clear_faults()
        if self._act(lambda: self.operators.delete("CP-1", who="ada") or True, IllegalTransition) is None:
            return
        known = next(iter(self._read_scene().all(Presence)), None)
        assert known is None, "nothing is left of a deleted station"
        for event in self.provider.account.events if events else ():
            self._deliver_event(event)
        self._run_until(self.clock.at + pause)
        Store(self.line, self.table).commit([Save(replace(STATION, tariff=b.IDLING))])
        self.reached["station deleted"] += 1
        self._reconnect()

    @rule(
        data=st.data(),
        connector_id=st.sampled_from(CONNECTOR_IDS),
        what=st.sampled_from(["retry", "release", "settle", "bill"]),
        discount=st.sampled_from([0, 0, 100]),
        energy_wh=st.sampled_from([4000, 700, 0, 50_000]),
    )
    def resolve_payment_review(
        self, data: st.DataObject, connector_id: int, what: str, discount: int, energy_wh: int
    ) -> None:
        if not self._payments_under_review():
            self.fail_money_operation(connector_id, "capture", FINAL_STATUS)
            self._run_until(self.clock.at + timedelta(minutes=2))
        if not self._payments_under_review():
            return
        held = self._draw_item(data, self._payments_under_review())
        rid = held.reservation_id
        command = OperatorCommand(who="ada", reason="because", expected=Money.NEEDS_REVIEW)
        deeds: dict[str, Callable[[], object]] = {
            "retry": lambda: self.operators.retry_payment(rid, command),
            "bill": lambda: self.operators.bill_payment(rid, energy_wh, command),
            "release": lambda: self.operators.release_payment(rid, command),
            "settle": lambda: self._settle_by_hand(held, max(0, (held.amount or 0) - discount), command),
        }
        self.retries[rid] += 1
        self._act(deeds[what], IllegalTransition, Conflict)
