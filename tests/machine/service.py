"""The rules of drivers, operators and the clock, and faults between the service and its database. The payment provider
is a fake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from csms.charging import operations
from csms.charging.operations import OperatorCommand
from csms.errors import (
    ChargerOffline,
    Conflict,
    IllegalTransition,
    PaymentRefused,
    PaymentUnavailable,
)
from csms.model import (
    Connector,
    Policy,
    Presence,
    Reservation,
    Snapshot,
    Tariff,
    Transaction,
)
from csms.ports.payments import PaymentStatus
from tests import builders as b
from tests.machine.chargers import ChargerRules
from tests.machine.line import drop_request, kill_process
from tests.machine.provider import ORDERED, Provider
from tests.machine.station import RAW
from tests.machine.values import CONNECTOR_IDS, PAUSES, STATION, UNUSUAL

JUMPS: Final = [timedelta(minutes=minutes) for minutes in (11, 33, 62, 250, 24 * 60, 3 * 24 * 60)]
OPERATIONS: Final = ["open_checkout", "payment", "expire_checkout", "capture", "release", "refund"]


class ServiceMachine(ChargerRules):
    """One station with two connectors, and every action on it in any order."""

    def _build_provider(self) -> Any:
        return Provider()

    @initialize(
        free=st.sampled_from([False, False, False, False, True]),
        plug_first=st.sampled_from([False, False, True]),
        asked=st.sampled_from([b.TARIFF, b.IDLING]),
        setting=st.sampled_from([{}, {}, {}, *UNUSUAL]),
        strongest=st.sampled_from([b.ANY_POWER_W, Policy().max_power_w]),
        silent=st.booleans(),
        far=st.integers(0, 5),
    )
    def open_station(
        self,
        free: bool,
        plug_first: bool,
        asked: Tariff,
        setting: dict[str, timedelta],
        strongest: int,
        silent: bool,
        far: int,
    ) -> None:
        self.silent = silent
        self.setting: dict[str, Any] = {"start_needs_plug": plug_first, "max_power_w": strongest} | setting
        self._open_station(Policy(**self.setting), free=free, asked=asked, far=far)

    # Usual next steps, so that the machine reaches late states

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), times=st.integers(1, 6))
    def advance_normally(self, connector_id: int, times: int) -> None:
        for _ in range(times):
            self._advance_session(connector_id)

    # Faults

    @rule(
        ahead=st.integers(0, 9),
        after=st.booleans(),
        what=st.sampled_from(
            [kill_process, drop_request, "sweep", "next 1", "next 2", "cancel", "available", "reconnect"]
        ),
    )
    def disturb_database(self, ahead: int, after: bool, what: Any) -> None:
        """One of the next database calls fails, or another process acts before or after it."""
        self.line.interrupt(ahead, after=after, what=what if callable(what) else lambda: self._act_concurrently(what))

    @rule(operation=st.sampled_from(OPERATIONS), refuses=st.sampled_from([False, False, True]), acted=st.booleans())
    def fail_provider(self, operation: str, refuses: bool, acted: bool) -> None:
        error = PaymentRefused(ORDERED) if refuses else PaymentUnavailable(ORDERED)
        self.provider.fail_next(operation, error, acted=acted and not refuses and operation != "payment")

    @rule(what=st.sampled_from(["a frame is not taken", "frames are taken again"]))
    def toggle_gateway(self, what: str) -> None:
        self.gateway.unreachable = what == "a frame is not taken"

    # Leftovers

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), after=st.booleans())
    def die_before_checkout_response(self, connector_id: int, after: bool) -> None:
        """The process that locked the connector dies before it returns the checkout's address, whether the checkout was
        opened or not."""
        if self._advance_until(
            connector_id, lambda connector: connector.transaction is None and connector.lock is None
        ):
            self.line.interrupt(1 - after, after=after, what=kill_process, in_writes=True)
            self._create_reservation(connector_id)

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), stopped=st.booleans(), left=st.booleans())
    def lose_unplug_or_stop(self, connector_id: int, stopped: bool, left: bool) -> None:
        """A car charges, and stays or leaves, and its stop may be missing; some of this is reported."""
        self._advance_until(connector_id, lambda connector: connector.transaction is not None)
        running = [
            c.transaction for c in self._read_scene().all(Connector) if c.connector_id == connector_id and c.transaction
        ]
        for one in running:
            self._report_status(connector_id, "Charging")
            if stopped:
                self._stop_transaction(transactionId=int(one.transaction_id), meterStop=one.meter_start_wh + 5000)
            if left:
                self._report_status(connector_id, "Available")

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), raw=RAW, pause=st.sampled_from(PAUSES))
    def reconnect_after_lease(self, connector_id: int, raw: str, pause: timedelta) -> None:
        """A station reports a status and reconnects after its lease, so that only the persisted status is known."""
        self._report_status(connector_id, raw)
        self._sleep(self.policy.presence_lease + pause)
        self._connect()

    # The driver and the payment provider

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        card=st.sampled_from([None, None, None, "CARD", "STAFF"]),
        resumes=st.booleans(),
    )
    def create_reservation(self, connector_id: int, card: str | None, resumes: bool) -> None:
        known = [r.reservation_id for r in self._read_scene().all(Reservation) if r.connector_id == connector_id]
        self._create_reservation(connector_id, id_tag=card, resume=known[-1] if known and resumes else None)

    @precondition(lambda self: self._payable_checkouts())
    @rule(data=st.data(), how=st.sampled_from(["pays", "pays", "pays", "declines"]), confirmed=st.booleans())
    def pay_or_decline(self, data: st.DataObject, how: str, confirmed: bool) -> None:
        checkout_id, rid = self._draw_item(data, [*self._payable_checkouts().items()])
        standing = self.provider.find_payment(checkout_id).status
        if how == "pays" and standing is PaymentStatus.OPEN:
            self.provider.pay(checkout_id)
        elif how == "declines" and standing in {PaymentStatus.OPEN, PaymentStatus.AUTHORIZED}:
            self.provider.lapse(checkout_id)
        if confirmed:
            self._confirm_payment(rid)

    @precondition(lambda self: self._read_scene().reservations)
    @rule(
        data=st.data(),
        what=st.sampled_from(["cancel", "confirm", "webhook", "webhook", "status"]),
        times=st.integers(1, 2),
    )
    def act_on_reservation(self, data: st.DataObject, what: str, times: int) -> None:
        rid = self._draw_item(data, [*self._read_scene().reservations])
        for _ in range(times):
            match what:
                case "cancel":
                    self._act(lambda: self.drivers.cancel(rid), IllegalTransition)
                case "confirm":
                    self._confirm_payment(rid)
                case "webhook":
                    self._act(
                        lambda: self.drivers.receive_webhook(*self.provider.build_webhook(rid)),
                        PaymentUnavailable,
                        PaymentRefused,
                    )
                case "status":
                    self._act(lambda: self.drivers.status(rid))

    @precondition(lambda self: self.triggers)
    @rule(data=st.data(), lost=st.sampled_from([False, False, False, True]))
    def deliver_or_lose_trigger(self, data: st.DataObject, lost: bool) -> None:
        trigger = self._draw_item(data, self.triggers)
        self.triggers.remove(trigger)
        if not lost:
            self._act(lambda: self.maintenance.perform(trigger.reservation_id, trigger.kind))

    # The clock and the operator

    @rule(pause=st.sampled_from([*PAUSES * 4, *JUMPS]), sweeps=st.integers(0, 2))
    def pass_time(self, pause: timedelta, sweeps: int) -> None:
        self._sleep(pause)
        for _ in range(sweeps):
            self._sweep()

    @rule(
        data=st.data(),
        what=st.sampled_from(["reset", "close", "cancel", "settle", "trigger", "look"]),
        right=st.booleans(),
    )
    def act_as_operator(self, data: st.DataObject, what: str, right: bool) -> None:
        scene, connector_id = self._read_scene(), data.draw(st.sampled_from([0, *CONNECTOR_IDS]))
        snapshot = Snapshot(
            station=STATION, presence=next(iter(scene.all(Presence)), None), connectors=scene.connectors
        )
        deeds: list[tuple[str, Callable[[OperatorCommand], object]]] = []
        match what:
            case "reset":
                state = operations.status_state(snapshot, connector_id, b.decision_context(scene.now))
                deeds = [(state, lambda command: self.operators.reset_status("CP-1", connector_id, command))]
            case "close":
                deeds = [
                    (
                        operations.transaction_state(t),
                        lambda command, t=t: self.operators.close_transaction(t.transaction_id, command),
                    )  # type: ignore[misc]
                    for t in scene.all(Transaction)
                ]
            case "cancel":
                deeds = [
                    (r.state, lambda command, r=r: self.operators.cancel_reservation(r.reservation_id, command))  # type: ignore[misc]
                    for r in scene.all(Reservation)
                ]
            case "settle":
                deeds = [
                    (r.state, lambda command, r=r: self.operators.settle_reservation(r.reservation_id, command))  # type: ignore[misc]
                    for r in scene.all(Reservation)
                ]
            case "trigger":
                deeds = [(operations.ONLINE, lambda command: self.operators.trigger_status("CP-1", command))]
            case "look":
                deeds = [("", lambda _: self.operators.occupancy("CP-1", max(connector_id, 1)))]
        if deeds:
            state, deed = self._draw_item(data, deeds)
            command = OperatorCommand(who="ada", reason="because", expected=state if right else "another")
            self._act(lambda: deed(command), IllegalTransition, Conflict, ChargerOffline)
