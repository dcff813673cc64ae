"""Everything that drivers, chargers, operators and clocks may do, and what goes wrong between the service and its
database; the payment provider is a fake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from csms.charging import operations
from csms.charging.operations import OperatorCommand
from csms.charging.start_gate import start_blockers
from csms.errors import (
    ChargerOffline,
    Conflict,
    IllegalTransition,
    PaymentRefused,
    PaymentUnavailable,
    Unauthorised,
)
from csms.model import (
    CallState,
    CommandKind,
    Connector,
    OutboundCall,
    Policy,
    Presence,
    Reservation,
    Snapshot,
    Tariff,
    Transaction,
)
from csms.model import ReservationState as S
from csms.occupancy import COARSE_STATUSES
from csms.ports.payments import PaymentStatus
from tests import builders as b
from tests.fakes import FakeProvider
from tests.invariants import PAID_STATES
from tests.machine.line import drop_request, kill_process
from tests.machine.world import ACCEPTED, AUTHORIZATION, CONNECTOR_IDS, STATION, World

PAUSES: Final = [timedelta(**pause) for pause in ({"seconds": 1}, {"seconds": 40}, {"minutes": 2}, {"minutes": 6})]
JUMPS: Final = [timedelta(minutes=minutes) for minutes in (11, 33, 62, 250, 24 * 60, 3 * 24 * 60)]
LOST_START: Final = "a remote start died with its socket"
PAID_AWAY: Final = "somebody paid while the station was away"
UNUSUAL: Final[list[dict[str, timedelta]]] = [
    *(
        {name: timedelta(0)}
        for name in (
            "reservation_timeout",
            "status_freshness",
            "status_release",
            "implied_stop_grace",
            "session_limit",
        )
    ),
    {"reservation_timeout": timedelta(minutes=8)},
    {"status_freshness": timedelta(hours=3)},
    {"start_window": timedelta(minutes=45)},
    {"session_limit": timedelta(minutes=50)},
]
"""What an operator may set: each bound switched off, or where it is felt."""
METERS: Final = st.sampled_from([1000, 1001, 1500, 9000, 12_000, 90_000]) | st.integers(-(2**53), 2**53)
RAW: Final = st.sampled_from([*COARSE_STATUSES, *["Available", "Preparing"] * 5]) | st.text(max_size=3)
VALUES: Final = METERS.map(str) | st.sampled_from(["2,5", "1.5", "", "NaN", "1E999999", "1E99"])
ANSWERS: Final = [ACCEPTED] * 4 + [{"status": "Rejected"}, {"status": "NotImplemented"}, {}, None]
ORDERED: Final = "As ordered."
OPERATIONS: Final = ["open_checkout", "payment", "expire_checkout", "capture", "release", "refund"]


class Provider(FakeProvider):
    """Remembers which payments it spoilt, so that whatever else goes wrong with one is not its doing."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.silent: Counter[str] = Counter()

    @property
    def checkouts(self) -> dict[str, str]:
        """The reservation of each checkout."""
        return {checkout_id: paying.order.reservation_id for checkout_id, paying in self._paying.items()}

    def find_payment(self, checkout_id: str) -> Any:
        """How the payment really stands."""
        return self._paying[checkout_id].payment

    def clear_faults(self) -> None:
        """Nothing will go wrong that has not yet."""
        self._faults.clear()

    def lapse(self, checkout_id: str) -> None:
        """The bank or the provider's own clock ended what was open or authorised."""
        payment = self.find_payment(checkout_id)
        ended = PaymentStatus.RELEASED if payment.payment_id else PaymentStatus.EXPIRED
        self._paying[checkout_id].payment = replace(payment, status=ended)
        self.refused.add(payment.payment_id or checkout_id)

    def _run_once(
        self, operation: str, key: str, asked: Any, act: Callable[[], Any], what: str, amount: int = 0
    ) -> Any:
        try:
            return super()._run_once(operation, key, asked, act, what, amount)
        except PaymentRefused as refusal:
            self.refused |= {what} if refusal.message == ORDERED else set()
            raise
        except PaymentUnavailable:
            self.silent[what] += 1
            raise


class ServiceMachine(World):
    """Two bays of one station, and everybody who may do something about them, in any order."""

    def _build_provider(self) -> Any:
        return Provider()

    @initialize(
        free=st.sampled_from([False, False, False, False, True]),
        plug_first=st.sampled_from([False, False, True]),
        asked=st.sampled_from([b.TARIFF, b.IDLING]),
        setting=st.sampled_from([{}, {}, {}, *UNUSUAL]),
        strongest=st.sampled_from([b.ANY_POWER_W, b.ANY_POWER_W, Policy().max_power_w]),
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

    # What usually happens next, so that the machine gets far

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), times=st.integers(1, 6))
    def advance_normally(self, connector_id: int, times: int) -> None:
        for _ in range(times):
            self._advance_session(connector_id)

    # What goes wrong

    @rule(
        ahead=st.integers(0, 9),
        after=st.booleans(),
        what=st.sampled_from(
            [kill_process, drop_request, "sweep", "next 1", "next 2", "cancel", "available", "reconnect"]
        ),
    )
    def disturb_database(self, ahead: int, after: bool, what: Any) -> None:
        """One of the next database calls fails, or somebody else acts between it and the one before."""
        self.line.interrupt(ahead, after=after, what=what if callable(what) else lambda: self._act_concurrently(what))

    @rule(operation=st.sampled_from(OPERATIONS), refuses=st.sampled_from([False, False, True]), acted=st.booleans())
    def fail_provider(self, operation: str, refuses: bool, acted: bool) -> None:
        error = PaymentRefused(ORDERED) if refuses else PaymentUnavailable(ORDERED)
        self.provider.fail_next(operation, error, acted=acted and not refuses and operation != "payment")

    @rule(what=st.sampled_from(["a frame is not taken", "frames are taken again"]))
    def toggle_gateway(self, what: str) -> None:
        self.gateway.unreachable = what == "a frame is not taken"

    # What is left behind

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), after=st.booleans())
    def die_before_checkout_response(self, connector_id: int, after: bool) -> None:
        """The process that locked the connector died before it handed out the page, opened or not."""
        if self._advance_until(
            connector_id, lambda connector: connector.transaction is None and connector.lock is None
        ):
            self.line.interrupt(1 - after, after=after, what=kill_process, in_writes=True)
            self._create_reservation(connector_id)

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), stopped=st.booleans(), left=st.booleans())
    def lose_unplug_or_stop(self, connector_id: int, stopped: bool, left: bool) -> None:
        """A car charges and stays, or leaves without a stop; whichever of it is told."""
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
        """Only the last status before that is known."""
        self._report_status(connector_id, raw)
        self._sleep(self.policy.presence_lease + pause)
        self._connect()

    def _advance_until(self, connector_id: int, where: Callable[[Connector], bool]) -> bool:
        """Whether the usual brings the connector there soon."""
        for _ in range(6):
            connector = self._read_scene().connectors.get(connector_id)
            if connector is not None and where(connector):
                return True
            self._advance_session(connector_id)
        return False

    # The driver and the payment provider

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        card=st.sampled_from([None, None, None, "CARD", "STAFF"]),
        resumes=st.booleans(),
    )
    def create_reservation(self, connector_id: int, card: str | None, resumes: bool) -> None:
        known = [r.reservation_id for r in self._read_scene().all(Reservation) if r.connector_id == connector_id]
        self._create_reservation(connector_id, id_tag=card, resume=known[-1] if known and resumes else None)

    @precondition(lambda self: self._payable())
    @rule(data=st.data(), how=st.sampled_from(["pays", "pays", "pays", "declines"]), confirmed=st.booleans())
    def pay_or_decline(self, data: st.DataObject, how: str, confirmed: bool) -> None:
        checkout_id, rid = self._draw_item(data, [*self._payable_checkouts().items()])
        standing = self.provider.find_payment(checkout_id).status
        if how == "pays" and standing is PaymentStatus.OPEN:
            self.provider.pay(checkout_id)
        elif how == "declines" and standing in {PaymentStatus.OPEN, PaymentStatus.AUTHORISED}:
            self.provider.lapse(checkout_id)
        if confirmed:
            self._confirm_payment(rid)

    @precondition(lambda self: self._look().reservations)
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

    # The station

    @rule(how=st.sampled_from(["connects", "connects", "boots", "intrudes", "beats"]))
    def contact_as_station(self, how: str) -> None:
        match how:
            case "connects":
                self._connect()
            case "boots":
                self._send_call("BootNotification", chargePointVendor="ACME", chargePointModel="One")
            case "beats":
                self._send_call("Heartbeat")
            case "intrudes":
                self._act(lambda: self._open_socket("intruder", AUTHORIZATION[:-4] + "AAA="), Unauthorised)

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        says=st.sampled_from([None, ACCEPTED, {"status": "Rejected"}, "error"]),
    )
    def pay_while_station_offline(self, connector_id: int, says: Any) -> None:
        """Whatever it says to being asked for a status: who paid does not wait for one for ever."""
        self._advance_until(connector_id, lambda c: c.lock is not None and c.lock.state is S.PENDING_PAYMENT)
        self.line.clear_faults()
        self.gateway.unreachable = False
        self.stations.disconnect(self.socket)
        for held in [r for r in self._read_scene().all(Reservation) if r.state is S.PENDING_PAYMENT]:
            if held.checkout_id and self.provider.find_payment(held.checkout_id).status is PaymentStatus.OPEN:
                self.provider.pay(held.checkout_id)
                self._confirm_payment(held.reservation_id)
        self.met[PAID_AWAY] += any(r.state is S.AUTHORIZED for r in self._read_scene().all(Reservation))
        self._connect()
        for _ in range(5):
            self._sleep(self.policy.call_timeout + timedelta(seconds=1))
            self._sweep()
            for call in self._pending_status_triggers() if says is not None else ():
                error = [4, call.call_id, "NotImplemented", "", {}]
                self._answer_call(error if says == "error" else [3, call.call_id, says])
        now = b.decision_context(self.clock.at, **self.setting)
        for held in self._read_scene().all(Reservation):
            started = held.state is not S.AUTHORIZED or now.now > (held.start_deadline or now.now)
            assert started or start_blockers(self.store.snapshot("cp-1"), held, now), "nobody waits for nothing"

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), boots=st.booleans(), tells=st.booleans(), accepted=st.booleans())
    def lose_socket_before_start(self, connector_id: int, boots: bool, tells: bool, accepted: bool) -> None:
        """What was asked of it over the old one, and what it granted before it booted, it is asked again."""
        self._advance_until(connector_id, lambda c: c.lock is not None and c.lock.state is S.START_REQUESTED)
        self.line.clear_faults()
        self.gateway.unreachable = False
        if accepted:
            self._advance_session(connector_id)
        asked = {r.reservation_id for r in self._read_scene().all(Reservation) if r.state is S.START_REQUESTED}
        granted = {r.reservation_id for r in self._read_scene().all(Reservation) if r.start_accepted_at is not None}
        self.met[LOST_START] += len(asked)
        self._connect()
        here = len(self.gateway.sent)
        if boots:
            self._send_call("BootNotification", chargePointVendor="ACME", chargePointModel="One")
        for number in CONNECTOR_IDS if tells else ():
            self._report_status(number, "Available")
        for _ in range(5):
            self._sleep(self.policy.call_timeout + timedelta(seconds=1))
            self._sweep()
        tags = [frame[3]["idTag"] for frame in self.gateway.frames[here:] if frame[2] == "RemoteStartTransaction"]
        now = b.decision_context(self.clock.at, **self.setting)
        for held in [r for r in self._read_scene().all(Reservation) if r.reservation_id in asked]:
            over = held.state is not S.START_REQUESTED or now.now > (held.start_deadline or now.now)
            settled = held.reservation_id in granted and not boots
            waits = start_blockers(self.store.snapshot("cp-1"), held, now)
            assert over or settled or waits or held.id_tag in tags, "a start that was lost is asked for again"

    def _pending_status_triggers(self) -> list[OutboundCall]:
        """The questions for a status that wait for an answer."""
        sent = [c for c in self._read_scene().all(OutboundCall) if c.state is CallState.SENT]
        return [call for call in sent if call.kind is CommandKind.TRIGGER_STATUS]

    @rule(data=st.data(), gone=st.booleans(), reported=st.sampled_from([True, True, False]))
    def close_socket(self, data: st.DataObject, gone: bool, reported: bool) -> None:
        """The gateway may know, and $disconnect may come late, again, or never."""
        socket = self._draw_item(data, [*self.sockets, self.socket])
        if gone:
            self.gateway.gone.add(socket)
        if reported:
            self._act(lambda: self.stations.disconnect(socket))

    @rule(
        data=st.data(),
        connector_id=st.sampled_from([*CONNECTOR_IDS * 4, -1, 0, 3]),
        raw=RAW,
        timed=st.sampled_from([True, True, False]),
    )
    def report_status(self, data: st.DataObject, connector_id: int, raw: str, timed: bool) -> None:
        self._report_status(connector_id, raw, **({"timestamp": self._draw_time(data)} if timed else {}))

    @rule(data=st.data(), connector_id=st.sampled_from([1, 1, 2, 2, 0, 3]), meter=METERS)
    def start_transaction(self, data: st.DataObject, connector_id: int, meter: int) -> None:
        self._start_transaction(connector_id, self._draw_tag(data), meter, self._draw_time(data))

    @precondition(lambda self: [r for r in self._look().all(Reservation) if r.state in PAID_STATES])
    @rule(data=st.data(), elsewhere=st.sampled_from([False, False, True]))
    def start_paid_transaction(self, data: st.DataObject, elsewhere: bool) -> None:
        held = self._draw_item(data, [r for r in self._read_scene().all(Reservation) if r.state in PAID_STATES])
        self._start_transaction(3 - held.connector_id if elsewhere else held.connector_id, held.id_tag)

    @precondition(lambda self: self.starts)
    @rule(data=st.data())
    def repeat_start_transaction(self, data: st.DataObject) -> None:
        self.line.clear_faults()
        payload, answer = self._draw_item(data, self.starts)
        before = self._lasting_entities()

        assert answer == self._send_call("StartTransaction", **payload)
        assert before == self._lasting_entities()

    @rule(data=st.data(), connector_id=st.integers(0, 3), value=VALUES, unit=st.sampled_from(["Wh", "kWh"]))
    def send_meter_values(self, data: st.DataObject, connector_id: int, value: str, unit: str) -> None:
        entry = {"timestamp": self._draw_time(data), "sampledValue": [{"value": value, "unit": unit}]}
        named = {"transactionId": number} if (number := self._draw_transaction_id(data)) else {}
        self._send_call("MeterValues", connectorId=connector_id, meterValue=[entry], **named)

    @rule(data=st.data(), meter=METERS, tagged=st.booleans(), times=st.integers(1, 2))
    def stop_transaction(self, data: st.DataObject, meter: int, tagged: bool, times: int) -> None:
        tag = {"idTag": self._draw_tag(data)} if tagged else {}
        number, time = self._draw_transaction_id(data), self._draw_time(data)
        for _ in range(times):
            self._stop_transaction(transactionId=number, meterStop=meter, timestamp=time, **tag)

    @rule(data=st.data())
    def authorize_tag(self, data: st.DataObject) -> None:
        tag = self._draw_tag(data)
        answer = self._send_call("Authorize", idTag=tag)
        held = [r for r in self._read_scene().all(Reservation) if r.id_tag == tag]
        accepted = answer is not None and answer["idTagInfo"]["status"] == "Accepted"
        if held and accepted and not self.line.struck:
            assert held[0].state in PAID_STATES, "a web tag is good only while its reservation may charge"

    @precondition(lambda self: self.gateway.sent)
    @rule(data=st.data(), said=st.sampled_from(ANSWERS), times=st.integers(1, 2))
    def answer_call(self, data: st.DataObject, said: Any, times: int) -> None:
        _, call_id, _, _ = self._draw_item(data, self.gateway.frames)
        frame = [4, call_id, "GenericError", "", {}] if said is None else [3, call_id, said]
        for _ in range(times):
            self._answer_call(frame)
