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
from csms.charging.reservation import start_blockers
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
from tests.laws import PAID
from tests.machine.line import dies, does_not_answer
from tests.machine.world import ACCEPTED, BAYS, KNOCK, STATION, World

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
SAID: Final = [ACCEPTED] * 4 + [{"status": "Rejected"}, {"status": "NotImplemented"}, {}, None]
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

    def standing(self, checkout_id: str) -> Any:
        """How the payment really stands."""
        return self._paying[checkout_id].payment

    def recovers(self) -> None:
        """Nothing will go wrong that has not yet."""
        self._faults.clear()

    def lapses(self, checkout_id: str) -> None:
        """The bank or the provider's own clock ended what was open or authorised."""
        payment = self.standing(checkout_id)
        ended = PaymentStatus.RELEASED if payment.payment_id else PaymentStatus.EXPIRED
        self._paying[checkout_id].payment = replace(payment, status=ended)
        self.refused.add(payment.payment_id or checkout_id)

    def _once(self, operation: str, key: str, asked: Any, act: Callable[[], Any], what: str, amount: int = 0) -> Any:
        try:
            return super()._once(operation, key, asked, act, what, amount)
        except PaymentRefused as refusal:
            self.refused |= {what} if refusal.message == ORDERED else set()
            raise
        except PaymentUnavailable:
            self.silent[what] += 1
            raise


class ServiceMachine(World):
    """Two bays of one station, and everybody who may do something about them, in any order."""

    def _provider(self) -> Any:
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
    def opens(
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
        self._opens(Policy(**self.setting), free=free, asked=asked, far=far)

    # What usually happens next, so that the machine gets far

    @rule(bay=st.sampled_from(BAYS), times=st.integers(1, 6))
    def goes_on_as_usual(self, bay: int, times: int) -> None:
        for _ in range(times):
            self._next(bay)

    # What goes wrong

    @rule(
        ahead=st.integers(0, 9),
        after=st.booleans(),
        what=st.sampled_from([dies, does_not_answer, "sweep", "next 1", "next 2", "cancel", "available", "reconnect"]),
    )
    def trouble_is_ahead(self, ahead: int, after: bool, what: Any) -> None:
        """One of the next database calls fails, or somebody else acts between it and the one before."""
        self.line.expect(ahead, after=after, what=what if callable(what) else lambda: self._meanwhile(what))

    @rule(operation=st.sampled_from(OPERATIONS), refuses=st.sampled_from([False, False, True]), acted=st.booleans())
    def the_provider_will_fail(self, operation: str, refuses: bool, acted: bool) -> None:
        error = PaymentRefused(ORDERED) if refuses else PaymentUnavailable(ORDERED)
        self.provider.fail_next(operation, error, acted=acted and not refuses and operation != "payment")

    @rule(what=st.sampled_from(["a frame is not taken", "frames are taken again"]))
    def the_gateway_stumbles(self, what: str) -> None:
        self.gateway.unreachable = what == "a frame is not taken"

    # What is left behind

    @rule(bay=st.sampled_from(BAYS), after=st.booleans())
    def nobody_is_sent_to_the_checkout(self, bay: int, after: bool) -> None:
        """The process that locked the connector died before it handed out the page, opened or not."""
        if self._comes_to(bay, lambda connector: connector.transaction is None and connector.lock is None):
            self.line.expect(1 - after, after=after, what=dies, in_writes=True)
            self._creates(bay)

    @rule(bay=st.sampled_from(BAYS), stopped=st.booleans(), left=st.booleans())
    def nobody_unplugs_or_tells_a_stop(self, bay: int, stopped: bool, left: bool) -> None:
        """A car charges and stays, or leaves without a stop; whichever of it is told."""
        self._comes_to(bay, lambda connector: connector.transaction is not None)
        running = [c.transaction for c in self._look().all(Connector) if c.connector_id == bay and c.transaction]
        for one in running:
            self._tells(bay, "Charging")
            if stopped:
                self._stops(transactionId=int(one.transaction_id), meterStop=one.meter_start_wh + 5000)
            if left:
                self._tells(bay, "Available")

    @rule(bay=st.sampled_from(BAYS), raw=RAW, pause=st.sampled_from(PAUSES))
    def comes_back_after_its_lease_without_a_word(self, bay: int, raw: str, pause: timedelta) -> None:
        """Only the last status before that is known."""
        self._tells(bay, raw)
        self._sleeps(self.policy.presence_lease + pause)
        self._connects()

    def _comes_to(self, bay: int, where: Callable[[Connector], bool]) -> bool:
        """Whether the usual brings the connector there soon."""
        for _ in range(6):
            connector = self._look().connectors.get(bay)
            if connector is not None and where(connector):
                return True
            self._next(bay)
        return False

    # The driver and the payment provider

    @rule(bay=st.sampled_from(BAYS), card=st.sampled_from([None, None, None, "CARD", "STAFF"]), resumes=st.booleans())
    def creates(self, bay: int, card: str | None, resumes: bool) -> None:
        known = [r.reservation_id for r in self._look().all(Reservation) if r.connector_id == bay]
        self._creates(bay, id_tag=card, resume=known[-1] if known and resumes else None)

    @precondition(lambda self: self._payable())
    @rule(data=st.data(), how=st.sampled_from(["pays", "pays", "pays", "declines"]), told=st.booleans())
    def pays_or_does_not(self, data: st.DataObject, how: str, told: bool) -> None:
        checkout_id, rid = self._any(data, [*self._payable().items()])
        standing = self.provider.standing(checkout_id).status
        if how == "pays" and standing is PaymentStatus.OPEN:
            self.provider.pay(checkout_id)
        elif how == "declines" and standing in {PaymentStatus.OPEN, PaymentStatus.AUTHORISED}:
            self.provider.lapses(checkout_id)
        if told:
            self._confirms(rid)

    @precondition(lambda self: self._look().reservations)
    @rule(
        data=st.data(),
        what=st.sampled_from(["cancel", "confirm", "webhook", "webhook", "status"]),
        times=st.integers(1, 2),
    )
    def asks_about_a_reservation(self, data: st.DataObject, what: str, times: int) -> None:
        rid = self._any(data, [*self._look().reservations])
        for _ in range(times):
            match what:
                case "cancel":
                    self._act(lambda: self.drivers.cancel(rid), IllegalTransition)
                case "confirm":
                    self._confirms(rid)
                case "webhook":
                    self._act(
                        lambda: self.drivers.receive_webhook(*self.provider.notice(rid)),
                        PaymentUnavailable,
                        PaymentRefused,
                    )
                case "status":
                    self._act(lambda: self.drivers.status(rid))

    @precondition(lambda self: self.nudges)
    @rule(data=st.data(), lost=st.sampled_from([False, False, False, True]))
    def a_nudge_arrives_or_is_lost(self, data: st.DataObject, lost: bool) -> None:
        nudge = self._any(data, self.nudges)
        self.nudges.remove(nudge)
        if not lost:
            self._act(lambda: self.maintenance.perform(nudge.reservation_id, nudge.kind))

    # The clock and the operator

    @rule(pause=st.sampled_from([*PAUSES * 4, *JUMPS]), sweeps=st.integers(0, 2))
    def time_passes(self, pause: timedelta, sweeps: int) -> None:
        self._sleeps(pause)
        for _ in range(sweeps):
            self._sweeps()

    @rule(
        data=st.data(),
        what=st.sampled_from(["reset", "close", "cancel", "settle", "trigger", "look"]),
        right=st.booleans(),
    )
    def an_operator_acts(self, data: st.DataObject, what: str, right: bool) -> None:
        scene, bay = self._look(), data.draw(st.sampled_from([0, *BAYS]))
        snapshot = Snapshot(
            station=STATION, presence=next(iter(scene.all(Presence)), None), connectors=scene.connectors
        )
        deeds: list[tuple[str, Callable[[OperatorCommand], object]]] = []
        match what:
            case "reset":
                state = operations.status_state(snapshot, bay, b.moment(scene.now))
                deeds = [(state, lambda order: self.operators.reset_status("CP-1", bay, order))]
            case "close":
                deeds = [
                    (
                        operations.transaction_state(t),
                        lambda order, t=t: self.operators.close_transaction(t.transaction_id, order),
                    )  # type: ignore[misc]
                    for t in scene.all(Transaction)
                ]
            case "cancel":
                deeds = [
                    (r.state, lambda order, r=r: self.operators.cancel_reservation(r.reservation_id, order))  # type: ignore[misc]
                    for r in scene.all(Reservation)
                ]
            case "settle":
                deeds = [
                    (r.state, lambda order, r=r: self.operators.settle_reservation(r.reservation_id, order))  # type: ignore[misc]
                    for r in scene.all(Reservation)
                ]
            case "trigger":
                deeds = [(operations.ONLINE, lambda order: self.operators.trigger_status("CP-1", order))]
            case "look":
                deeds = [("", lambda _: self.operators.occupancy("CP-1", max(bay, 1)))]
        if deeds:
            state, deed = self._any(data, deeds)
            order = OperatorCommand(who="ada", reason="because", expected=state if right else "another")
            self._act(lambda: deed(order), IllegalTransition, Conflict, ChargerOffline)

    # The station

    @rule(how=st.sampled_from(["connects", "connects", "boots", "intrudes", "beats"]))
    def comes(self, how: str) -> None:
        match how:
            case "connects":
                self._connects()
            case "boots":
                self._say("BootNotification", chargePointVendor="ACME", chargePointModel="One")
            case "beats":
                self._say("Heartbeat")
            case "intrudes":
                self._act(lambda: self._knock("intruder", KNOCK[:-4] + "AAA="), Unauthorised)

    @rule(bay=st.sampled_from(BAYS), says=st.sampled_from([None, ACCEPTED, {"status": "Rejected"}, "error"]))
    def pays_while_the_station_is_away_which_comes_back_without_a_word(self, bay: int, says: Any) -> None:
        """Whatever it says to being asked for a status: who paid does not wait for one for ever."""
        self._comes_to(bay, lambda c: c.lock is not None and c.lock.state is S.PENDING_PAYMENT)
        self.line.calm()
        self.gateway.unreachable = False
        self.stations.disconnect(self.socket)
        for held in [r for r in self._look().all(Reservation) if r.state is S.PENDING_PAYMENT]:
            if held.checkout_id and self.provider.standing(held.checkout_id).status is PaymentStatus.OPEN:
                self.provider.pay(held.checkout_id)
                self._confirms(held.reservation_id)
        self.met[PAID_AWAY] += any(r.state is S.AUTHORIZED for r in self._look().all(Reservation))
        self._connects()
        for _ in range(5):
            self._sleeps(self.policy.call_timeout + timedelta(seconds=1))
            self._sweeps()
            for call in self._asked() if says is not None else ():
                error = [4, call.call_id, "NotImplemented", "", {}]
                self._answers(error if says == "error" else [3, call.call_id, says])
        now = b.moment(self.clock.at, **self.setting)
        for held in self._look().all(Reservation):
            started = held.state is not S.AUTHORIZED or now.now > (held.start_deadline or now.now)
            assert started or start_blockers(self.store.snapshot("cp-1"), held, now), "nobody waits for nothing"

    @rule(bay=st.sampled_from(BAYS), boots=st.booleans(), tells=st.booleans(), accepted=st.booleans())
    def loses_its_socket_before_it_starts(self, bay: int, boots: bool, tells: bool, accepted: bool) -> None:
        """What was asked of it over the old one, and what it granted before it booted, it is asked again."""
        self._comes_to(bay, lambda c: c.lock is not None and c.lock.state is S.START_REQUESTED)
        self.line.calm()
        self.gateway.unreachable = False
        if accepted:
            self._next(bay)
        asked = {r.reservation_id for r in self._look().all(Reservation) if r.state is S.START_REQUESTED}
        granted = {r.reservation_id for r in self._look().all(Reservation) if r.start_accepted_at is not None}
        self.met[LOST_START] += len(asked)
        self._connects()
        here = len(self.gateway.sent)
        if boots:
            self._say("BootNotification", chargePointVendor="ACME", chargePointModel="One")
        for number in BAYS if tells else ():
            self._tells(number, "Available")
        for _ in range(5):
            self._sleeps(self.policy.call_timeout + timedelta(seconds=1))
            self._sweeps()
        tags = [frame[3]["idTag"] for frame in self.gateway.frames[here:] if frame[2] == "RemoteStartTransaction"]
        now = b.moment(self.clock.at, **self.setting)
        for held in [r for r in self._look().all(Reservation) if r.reservation_id in asked]:
            over = held.state is not S.START_REQUESTED or now.now > (held.start_deadline or now.now)
            settled = held.reservation_id in granted and not boots
            waits = start_blockers(self.store.snapshot("cp-1"), held, now)
            assert over or settled or waits or held.id_tag in tags, "a start that was lost is asked for again"

    def _asked(self) -> list[OutboundCall]:
        """The questions for a status that wait for an answer."""
        sent = [c for c in self._look().all(OutboundCall) if c.state is CallState.SENT]
        return [call for call in sent if call.kind is CommandKind.TRIGGER_STATUS]

    @rule(data=st.data(), gone=st.booleans(), told=st.sampled_from([True, True, False]))
    def a_socket_closes(self, data: st.DataObject, gone: bool, told: bool) -> None:
        """The gateway may know, and $disconnect may come late, again, or never."""
        socket = self._any(data, [*self.sockets, self.socket])
        if gone:
            self.gateway.gone.add(socket)
        if told:
            self._act(lambda: self.stations.disconnect(socket))

    @rule(
        data=st.data(), bay=st.sampled_from([*BAYS * 4, -1, 0, 3]), raw=RAW, timed=st.sampled_from([True, True, False])
    )
    def tells_a_status(self, data: st.DataObject, bay: int, raw: str, timed: bool) -> None:
        self._tells(bay, raw, **({"timestamp": self._time(data)} if timed else {}))

    @rule(data=st.data(), bay=st.sampled_from([1, 1, 2, 2, 0, 3]), meter=METERS)
    def starts_a_transaction(self, data: st.DataObject, bay: int, meter: int) -> None:
        self._starts(bay, self._tag(data), meter, self._time(data))

    @precondition(lambda self: [r for r in self._look().all(Reservation) if r.state in PAID])
    @rule(data=st.data(), elsewhere=st.sampled_from([False, False, True]))
    def starts_what_was_paid_for(self, data: st.DataObject, elsewhere: bool) -> None:
        held = self._any(data, [r for r in self._look().all(Reservation) if r.state in PAID])
        self._starts(3 - held.connector_id if elsewhere else held.connector_id, held.id_tag)

    @precondition(lambda self: self.starts)
    @rule(data=st.data())
    def starts_the_same_again(self, data: st.DataObject) -> None:
        self.line.calm()
        payload, answer = self._any(data, self.starts)
        before = self._remembered()

        assert answer == self._say("StartTransaction", **payload)
        assert before == self._remembered()

    @rule(data=st.data(), bay=st.integers(0, 3), value=VALUES, unit=st.sampled_from(["Wh", "kWh"]))
    def meters(self, data: st.DataObject, bay: int, value: str, unit: str) -> None:
        entry = {"timestamp": self._time(data), "sampledValue": [{"value": value, "unit": unit}]}
        named = {"transactionId": number} if (number := self._transaction(data)) else {}
        self._say("MeterValues", connectorId=bay, meterValue=[entry], **named)

    @rule(data=st.data(), meter=METERS, tagged=st.booleans(), times=st.integers(1, 2))
    def stops_a_transaction(self, data: st.DataObject, meter: int, tagged: bool, times: int) -> None:
        tag = {"idTag": self._tag(data)} if tagged else {}
        number, time = self._transaction(data), self._time(data)
        for _ in range(times):
            self._stops(transactionId=number, meterStop=meter, timestamp=time, **tag)

    @rule(data=st.data())
    def asks_about_a_tag(self, data: st.DataObject) -> None:
        tag = self._tag(data)
        answer = self._say("Authorize", idTag=tag)
        held = [r for r in self._look().all(Reservation) if r.id_tag == tag]
        accepted = answer is not None and answer["idTagInfo"]["status"] == "Accepted"
        if held and accepted and not self.line.struck:
            assert held[0].state in PAID, "a web tag is good only while its reservation may charge"

    @precondition(lambda self: self.gateway.sent)
    @rule(data=st.data(), said=st.sampled_from(SAID), times=st.integers(1, 2))
    def answers_a_call_once_or_twice_or_late(self, data: st.DataObject, said: Any, times: int) -> None:
        _, call_id, _, _ = self._any(data, self.gateway.frames)
        frame = [4, call_id, "GenericError", "", {}] if said is None else [3, call_id, said]
        for _ in range(times):
            self._answers(frame)
