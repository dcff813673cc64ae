"""What stations and their neighbors do besides: starts that are told late, cars at other connectors, and floods."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from csms.errors import IllegalTransition
from csms.model import Connector, Policy, Reservation, Tariff
from csms.model import ReservationState as S
from csms.ports.payments import PaymentStatus
from csms.stations.bounds import MOST_UNREGISTERED
from tests import builders as b
from tests.machine.actions import NO_CLOCK
from tests.machine.service import ServiceMachine
from tests.machine.values import CONNECTOR_IDS

TOLD_LATE: Final = "a start was told late, after its reservation had ended"
CLOCKLESS: Final = "a station without a clock told a start late"
NEIGHBOR: Final = "somebody plugged in beside a driver who waits"
FLOOD: Final = "a station reported many connectors that nobody registered"
SOON: Final = timedelta(seconds=20)
ENERGY_WH: Final = 5000


class StrangeMachine(ServiceMachine):
    """A station that loses touch and tells later what it did, and cars that are not the driver's; each sequence begins
    with one of that."""

    @initialize(
        deed=st.sampled_from(["late", "clockless", "neighbor", "flood"]),
        asked=st.sampled_from([b.TARIFF, b.IDLING]),
        cancels=st.booleans(),
        silent=st.booleans(),
    )
    def open_strange_station(self, deed: str, asked: Tariff, cancels: bool, silent: bool) -> None:
        self.silent, self.setting = silent, {"max_power_w": b.ANY_POWER_W}
        self._open_station(Policy(**self.setting), free=False, asked=asked, far=0)
        match deed:
            case "neighbor":
                self.plug_in_as_neighbor(connector_id=1, starts=cancels)
            case "flood":
                self.flood_connectors(first=3, many=30)
            case _:
                self.tell_start_late(connector_id=1, cancels=cancels, clockless=deed == "clockless", stops=True)

    open_station = None  # type: ignore[assignment] # Each sequence opens the station once.

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        cancels=st.booleans(),
        clockless=st.sampled_from([False, False, True]),
        stops=st.booleans(),
    )
    def tell_start_late(self, connector_id: int, cancels: bool, clockless: bool, stops: bool) -> None:
        """The station starts what it was asked to, and tells so only after the reservation has ended: what happened in
        time is billed, and a start without a clock is one of now, which nobody pays."""
        self._end_faults()
        if not self._advance_until(
            connector_id, lambda c: c.lock is not None and c.lock.state is S.START_REQUESTED, most=9
        ):
            return
        lock = self._read_scene().connectors[connector_id].lock
        if lock is None:
            return
        rid = lock.reservation_id
        self._act(lambda: self.stations.disconnect(self.socket))
        self._sleep(SOON)
        began = self.clock.at
        self._sleep(SOON)
        if cancels:
            self._act(lambda: self.drivers.cancel(rid), IllegalTransition)
        else:
            self._sleep(self.policy.start_window)
            self._sweep()
        held = self._read_scene().reservations[rid]
        if held.late_start is None:
            return
        self._connect()
        number = self._start_transaction(connector_id, lock.id_tag, time=NO_CLOCK if clockless else began.isoformat())
        told = self._read_scene().reservations[rid]
        in_time = not clockless and held.start_deadline is not None and began <= held.start_deadline
        self.met[CLOCKLESS if clockless else TOLD_LATE] += 1
        assert in_time == (told.state is S.CHARGING), "a start in time is billed, and no other"
        if stops and number is not None:
            self._stop_transaction(transactionId=number, meterStop=1000 + ENERGY_WH)
            ended = self._read_scene().reservations[rid]
            assert not in_time or ended.state in {S.COMPLETED, S.WAITING_FOR_DISCONNECT}, "a late session ends"

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), starts=st.booleans())
    def plug_in_as_neighbor(self, connector_id: int, starts: bool) -> None:
        """Somebody plugs in, and perhaps starts with a card, beside a driver whose connector failed while they paid."""
        self._end_faults()
        self._advance_until(connector_id, lambda c: c.lock is not None and c.lock.state is S.PENDING_PAYMENT)
        self._report_status(connector_id, "Faulted")
        for held in [r for r in self._read_scene().all(Reservation) if r.state is S.PENDING_PAYMENT]:
            if held.checkout_id and self.provider.find_payment(held.checkout_id).status is PaymentStatus.OPEN:
                self.provider.pay(held.checkout_id)
                self._confirm_payment(held.reservation_id)
        waiting = [r for r in self._read_scene().all(Reservation) if r.state is S.AUTHORIZED]
        self._report_status(3 - connector_id, "Preparing")
        if starts:
            self._start_transaction(3 - connector_id, "CARD")
        after = self._read_scene().reservations
        self.met[NEIGHBOR] += len(waiting)
        for held in waiting:
            assert held.connector_id == after[held.reservation_id].connector_id, "a plug moves nobody"
        self._report_status(connector_id, "Available")

    @rule(first=st.integers(3, 60), many=st.integers(10, 30))
    def flood_connectors(self, first: int, many: int) -> None:
        """The station reports connectors that nobody registered: only some are kept."""
        self._end_faults()
        for number in range(first, first + many):
            self._send_call("StatusNotification", connectorId=number, errorCode="NoError", status="Available")
        strange = [c for c in self._read_scene().all(Connector) if c.connector_id not in (0, *CONNECTOR_IDS)]
        self.met[FLOOD] += 1
        assert len([c for c in strange if c.transaction is None]) <= MOST_UNREGISTERED, "a flood is forgotten"
