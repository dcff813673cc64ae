"""No sequence of drivers, chargers, providers, operators, clocks, crashes, races and lost messages breaks the law, and
whatever happened, all of it comes to an end by itself in the documented time.

The machine drives the real service over the real store on a real engine, a fresh table for each example. Sockets and
the payment provider are fakes, time is the machine's. The laws are in `tests.laws`, and in what each answer must be.
"""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import count
from secrets import token_hex
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import orjson
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from csms import credentials, occupancy, operations, schemas
from csms.errors import (
    ChargerOffline,
    Conflict,
    ConnectorBusy,
    CsmsError,
    IllegalTransition,
    PaymentRefused,
    PaymentUnavailable,
    StoreUnavailable,
    Unauthorised,
)
from csms.model import (
    Append,
    CallState,
    Command,
    Connector,
    Effect,
    IdTag,
    Money,
    OutboundCall,
    Policy,
    Presence,
    Protocol,
    Reservation,
    Save,
    Snapshot,
    Station,
    TagStatus,
    Tariff,
    Transaction,
    fold,
)
from csms.model import ReservationState as S
from csms.occupancy import COARSE
from csms.operations import Order
from csms.provider import PaymentStatus
from csms.reservation import HOLDING
from csms.service import Drivers, Maintenance, Operators, Stations, Work
from csms.store import Item, Store, from_item, table_definition
from tests import builders as b
from tests.conftest import Engines
from tests.fakes import Clock, FakeGateway, FakeProvider, FreshIds
from tests.laws import PAID, Scene, judge

T = TypeVar("T")
PLAIN: Final = TypeDeserializer().deserialize
ENGINE: Final = "dynoxide"
SIGNED: Final = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=local/0/local/dynamodb/aws4_request, SignedHeaders=host, Signature=0",
    "X-Amz-Date": "20260301T120000Z",
}
"""What the engine looks for, and does not look at."""
BAYS: Final = (1, 2)
PASSWORD: Final = b"password"
KNOCK: Final = "Basic " + base64.b64encode(b"CP-1:" + PASSWORD).decode()
STATION: Final = b.station(version=0, password_hash=credentials.hash_password(PASSWORD, salt=b"salt"))
CARD: Final = IdTag(tag="CARD", status=TagStatus.ACCEPTED)
STAFF: Final = IdTag(tag="STAFF", status=TagStatus.ACCEPTED, free=True)
PAUSES: Final = [timedelta(**pause) for pause in ({"seconds": 1}, {"seconds": 40}, {"minutes": 2}, {"minutes": 6})]
JUMPS: Final = [timedelta(minutes=minutes) for minutes in (11, 33, 62, 250, 24 * 60, 3 * 24 * 60)]
METERS: Final = st.sampled_from([1000, 1001, 1500, 9000, 12_000, 90_000]) | st.integers(-(2**53), 2**53)
RAW: Final = st.sampled_from([*COARSE, *["Available", "Preparing"] * 5]) | st.text(max_size=3)
VALUES: Final = METERS.map(str) | st.sampled_from(["2,5", "1.5", "", "NaN", "1E999999", "1E99"])
SAID: Final = [{"status": "Accepted"}] * 4 + [{"status": "Rejected"}, {"status": "NotImplemented"}, {}, None]
STORED: Final = (Station, Presence, Connector, OutboundCall, Transaction, Reservation, Effect, IdTag)
RETRIES: Final = timedelta(hours=2)
ORDERED: Final = "As ordered."
OPERATIONS: Final = ["open_checkout", "payment", "expire_checkout", "capture", "release", "refund"]


class Died(BaseException):
    """The process ended here."""


def dies() -> None:
    raise Died


def does_not_answer() -> None:
    raise EndpointConnectionError(endpoint_url=ENGINE)


class Refused(ClientError):
    """The engine's refusal, as boto3 puts it."""


class Line:
    """A DynamoDB client on one of whose calls something happens, once: before the engine was asked, or after.

    It speaks the engine's own JSON without boto3, which would take most of the time here; that the store and boto3
    understand each other is asked elsewhere.
    """

    exceptions = SimpleNamespace(ConditionalCheckFailedException=type("ConditionRefused", (Refused,), {}))

    def __init__(self, endpoint: str) -> None:
        self.writes = 0
        self.struck = False
        self._http = HTTPConnection(endpoint.removeprefix("http://"))
        self._trouble: tuple[int, bool, Callable[[], None]] | None = None

    def expect(self, ahead: int, *, after: bool, what: Callable[[], None]) -> None:
        """So many calls from now on this will happen."""
        self._trouble = (ahead, after, what)

    def calm(self) -> None:
        """Nothing will happen."""
        self._trouble = None

    def ask(self, operation: str, arguments: Item) -> Item:
        """What the engine answers."""
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        self._http.request("POST", "/", orjson.dumps(arguments), headers | SIGNED)
        response = self._http.getresponse()
        answer: Item = orjson.loads(response.read())
        if response.status == HTTPStatus.OK:
            return answer
        code = str(answer["__type"]).rpartition("#")[2]
        kind = getattr(self.exceptions, code, Refused)
        raise kind(answer | {"Error": {"Code": code, "Message": str(answer)}}, operation)

    def __getattr__(self, operation: str) -> Callable[..., Item]:
        name = operation.title().replace("_", "")

        def call(**arguments: Any) -> Item:
            what, after = self._next()
            if what is not None and not after:
                what()
            self.writes += name not in {"Query", "GetItem", "BatchGetItem"}
            answer = self.ask(name, arguments)
            if what is not None and after:
                what()
            return answer

        return call

    def _next(self) -> tuple[Callable[[], None] | None, bool]:
        if self._trouble is None:
            return None, False
        ahead, after, what = self._trouble
        self._trouble = (ahead - 1, after, what) if ahead else None
        self.struck |= not ahead
        return (None, False) if ahead else (what, after)


class Ticking(Clock):
    """A clock that is a millisecond on whenever it is read."""

    def __call__(self) -> datetime:
        self.move(timedelta(milliseconds=1))
        return self.at


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


class ServiceMachine(RuleBasedStateMachine):
    """Two bays of one station, and everybody who may do something about them, in any order."""

    settled = 0

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line
        self.table = f"csms-{token_hex(6)}"
        line.calm()
        line.ask("CreateTable", table_definition(self.table))
        self.clock = Ticking(at=b.NOW)
        self.provider, self.gateway = Provider(), FakeGateway()
        self.nudges: list[Effect] = []
        self.policy = Policy()
        self.scene = Scene(b.NOW)
        self.seen_writes = -1
        self.numbers = count(1)
        self.socket = ""
        self.sockets: list[str] = []
        self.starts: list[tuple[dict[str, Any], dict[str, Any]]] = []

    @initialize(
        free=st.sampled_from([False, False, False, False, True]),
        plug_first=st.sampled_from([False, False, True]),
        asked=st.sampled_from([b.TARIFF, b.IDLING]),
        far=st.integers(0, 5),
    )
    def opens(self, free: bool, plug_first: bool, asked: Tariff, far: int) -> None:
        self.policy = Policy(start_needs_plug=plug_first)
        store = Store(self.line, self.table)
        everybody = Work(
            store=store,
            policy=self.policy,
            gateway=self.gateway,  # type: ignore[arg-type]
            ask=self.nudges.append,
            now=self.clock,
            fresh=FreshIds(),
            public_url="https://csms.example",
        )
        self.stations, self.operators = Stations(everybody), Operators(everybody)
        paying = replace(everybody, provider=self.provider)
        self.drivers, self.maintenance = Drivers(paying), Maintenance(paying)
        store.commit([Save(replace(STATION, free=free, tariff=asked)), Append(CARD), Append(STAFF)])
        self._connects()
        for bay in BAYS:
            self._tells(bay, "Available")
        for _ in range(far):
            self._next(1)

    # What usually happens next, so that the machine gets far

    @rule(bay=st.sampled_from(BAYS), times=st.integers(1, 6))
    def goes_on_as_usual(self, bay: int, times: int) -> None:
        for _ in range(times):
            self._next(bay)

    def _next(self, bay: int) -> None:
        """The next step of an undisturbed charge on the connector."""
        scene = self._look()
        connector = scene.connectors.get(bay) or Connector(station_id="cp-1", connector_id=bay)
        presence = next(iter(scene.all(Presence)), None)
        if not occupancy.online(presence, scene.now) or presence is None or presence.connection_id != self.socket:
            self._connects()
        elif connector.transaction is not None:
            running = connector.transaction
            self._stops(transactionId=running.transaction_id, meterStop=running.meter_start_wh + 5000)
        elif connector.lock is not None:
            self._next_of(scene.reservations[connector.lock.reservation_id], scene)
        elif not self._startable(bay):
            self._tells(0, "Available")
            self._tells(bay, "Available")
        else:
            self._creates(bay)

    def _next_of(self, held: Reservation, scene: Scene) -> None:
        asked = [c for c in scene.all(OutboundCall) if c.state is CallState.SENT and c.command is Command.REMOTE_START]
        if asked:
            self._answers([3, asked[0].call_id, SAID[0]])
        elif held.state is S.WAITING_FOR_DISCONNECT:
            self._tells(held.connector_id, "Available")
        elif held.state is not S.PENDING_PAYMENT:
            self._starts(held.connector_id, held.id_tag)
        elif held.checkout_id is None or self.provider.standing(held.checkout_id).status is not PaymentStatus.OPEN:
            self.clock.move(timedelta(minutes=2))
            self._sweeps()
        else:
            self.provider.pay(held.checkout_id)
            self._confirms(held.reservation_id)

    # What goes wrong

    @rule(
        ahead=st.integers(0, 9),
        after=st.booleans(),
        what=st.sampled_from([dies, does_not_answer, "sweep", "next 1", "next 2", "cancel", "available", "reconnect"]),
    )
    def trouble_is_ahead(self, ahead: int, after: bool, what: Any) -> None:
        """One of the next database calls fails, or somebody else acts between it and the one before."""
        self.line.expect(ahead, after=after, what=what if callable(what) else lambda: self._meanwhile(what))

    def _meanwhile(self, what: str) -> None:
        held = [r.reservation_id for r in self._look().all(Reservation) if r.state in HOLDING]
        match what:
            case "sweep":
                self._sweeps()
            case "next 1" | "next 2":
                self._next(int(what[-1]))
            case "cancel" if held:
                self._act(lambda: self.drivers.cancel(held[-1]), IllegalTransition)
            case "available":
                for bay in BAYS:
                    self._tells(bay, "Available")
            case "reconnect":
                self._connects()

    @rule(operation=st.sampled_from(OPERATIONS), refuses=st.sampled_from([False, False, True]), acted=st.booleans())
    def the_provider_will_fail(self, operation: str, refuses: bool, acted: bool) -> None:
        error = PaymentRefused(ORDERED) if refuses else PaymentUnavailable(ORDERED)
        self.provider.fail_next(operation, error, acted=acted and not refuses and operation != "payment")

    @rule(what=st.sampled_from(["a frame is not taken", "frames are taken again"]))
    def the_gateway_stumbles(self, what: str) -> None:
        self.gateway.unreachable = what == "a frame is not taken"

    # The driver and the payment provider

    @rule(bay=st.sampled_from(BAYS), card=st.sampled_from([None, None, None, "CARD", "STAFF"]), resumes=st.booleans())
    def creates(self, bay: int, card: str | None, resumes: bool) -> None:
        known = [r.reservation_id for r in self._look().all(Reservation) if r.connector_id == bay]
        self._creates(bay, id_tag=card, resume=known[-1] if known and resumes else None)

    @precondition(lambda self: self.provider.checkouts)
    @rule(data=st.data(), how=st.sampled_from(["pays", "pays", "pays", "declines"]), told=st.booleans())
    def pays_or_does_not(self, data: st.DataObject, how: str, told: bool) -> None:
        checkout_id, rid = self._any(data, [*self.provider.checkouts.items()])
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
                        lambda: self.drivers.webhook(*self.provider.notice(rid)), PaymentUnavailable, PaymentRefused
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
        self.clock.move(pause)
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
        deeds: list[tuple[str, Callable[[Order], object]]] = []
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
            order = Order(who="ada", reason="because", expected=state if right else "another")
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

    # The law

    @invariant()
    def the_law_holds(self) -> None:
        before, after = self.scene, self._look()
        judge(before, after)
        self.scene = after
        for held in after.all(Reservation):
            self._nobody_pays_twice(held)

    def _nobody_pays_twice(self, held: Reservation) -> None:
        """The provider's books say the same as the reservation's money."""
        opened = [rid for operation, rid, _ in self.provider.calls if operation == "open_checkout"]
        assert opened.count(held.reservation_id) <= 1, "one checkout for one reservation"
        payments = [
            self.provider.standing(c) for c, rid in self.provider.checkouts.items() if rid == held.reservation_id
        ]
        spoilt = held.payment_id in self.provider.refused
        assert sum(p.captured_amount for p in payments) <= max((p.authorised_amount for p in payments), default=0)
        if held.money is Money.AUTHORISED:
            assert spoilt or [PaymentStatus.AUTHORISED] == [p.status for p in payments], "nobody charges unpaid"
        if held.money is Money.CAPTURED:
            kept = [p.captured_amount - p.refunded_amount for p in payments]
            assert [held.amount] == kept, "what was captured and not given back is the bill"
        if held.money is Money.RELEASED:
            assert [PaymentStatus.RELEASED] == [p.status for p in payments], "what was released is free"
        if held.money is Money.NEEDS_REVIEW:
            silent = self.provider.silent[held.payment_id or ""] >= self.policy.effect_attempts
            assert spoilt or silent, "only what the provider refuses for good needs a human"

    def teardown(self) -> None:
        """Left alone, everything comes to its end in the documented time, and both connectors can be started."""
        if sys.exception() is not None or not self.socket:
            return  # A law was broken before, and the report is about that one.
        self.line.calm()
        self.provider.recovers()
        self.gateway.unreachable = False
        self._connects()
        for bay in (0, *BAYS):
            self._tells(bay, "Available", timestamp=self.clock.at.isoformat())
        self._time_heals()
        self.the_law_holds()
        scene = self._look()
        for held in scene.all(Reservation):
            assert held.state not in HOLDING, "every reservation ends"
            assert held.money in {Money.NONE, Money.CAPTURED, Money.RELEASED, Money.NEEDS_REVIEW}, "money comes to rest"
        for effect in scene.all(Effect):
            assert Money.NEEDS_REVIEW is scene.reservations[effect.reservation_id].money, "nothing else is owed"
        for checkout_id in self.provider.checkouts:
            payment = self.provider.standing(checkout_id)
            resting = payment.status not in {PaymentStatus.OPEN, PaymentStatus.AUTHORISED}
            assert resting or {checkout_id, payment.payment_id} & self.provider.refused, "no checkout stays open"
        for comes_back in (lambda: self._say("Heartbeat"), self._connects):
            comes_back()
            for bay in BAYS:
                assert self._startable(bay), "a connector with nothing on it can be started"
        type(self).settled += 1

    def _time_heals(self) -> None:
        """Sweeps, later and later, until nothing is due; the documented time must be enough."""
        bound = self.clock.at + self.policy.session_limit + self.policy.reservation_timeout
        bound += self.policy.status_release + RETRIES
        pause = timedelta(minutes=1)
        while waiting := [e for e in self._look().entities if getattr(e, "due_at", None) is not None]:
            assert self.clock.at < bound, f"everything ends in time, but for {waiting}"
            ahead = min(e.due_at for e in waiting) - self.clock.at
            self.clock.move(max(ahead, pause))
            pause = pause * 2 if ahead < pause else pause
            self._sweeps()

    # Helpers

    def _look(self) -> Scene:
        """All that is stored, read again only when somebody wrote."""
        if self.line.writes != self.seen_writes:
            self.seen_writes = self.line.writes
            self._entities = tuple(from_item(item) for item in self._items())
        return Scene(self.clock.at, self._entities)

    def _remembered(self) -> list[Any]:
        """What is stored, but for what every message does: the lease runs on, and the next CALL has its turn."""
        return [e for e in self._look().entities if not isinstance(e, Presence | OutboundCall)]

    def _items(self) -> list[Item]:
        """The items that the laws are about."""
        kinds = {f":{kind.__name__}": {"S": kind.__name__} for kind in STORED}
        scan = {
            "TableName": self.table,
            "ConsistentRead": True,
            "FilterExpression": f"#type IN ({', '.join(kinds)})",
            "ExpressionAttributeNames": {"#type": "type"},
            "ExpressionAttributeValues": kinds,
        }
        answer = self.line.ask("Scan", scan)
        assert "LastEvaluatedKey" not in answer, "one page holds an example"
        return [{name: PLAIN(value) for name, value in item.items()} for item in answer["Items"]]

    def _act(self, deed: Callable[[], T], *refusals: type[CsmsError]) -> T | None:
        """What the deed gives; None if it was refused in one of these ways, or if the trouble that was ahead came."""
        self.line.struck = False
        try:
            return deed()
        except refusals:
            return None
        except (StoreUnavailable, Died):
            assert self.line.struck, "nothing fails by itself"
            return None

    def _say(self, action: str, *, socket: str | None = None, **payload: Any) -> dict[str, Any] | None:
        """The answer to a station's CALL, which is one that the schema allows; None only if trouble came."""
        number = str(next(self.numbers))
        frame = json.dumps([2, number, action, payload])
        text = self._act(lambda: self.stations.receive(socket or self.socket, frame))
        if text is None:
            assert self.line.struck, "every CALL is answered"
            return None
        kind, echoed, answer = json.loads(text)[:3]

        assert (3, number) == (kind, echoed)
        schemas.check(Protocol.OCPP16, action, answer, response=True)
        return dict(answer)

    def _knock(self, socket: str, authorization: str) -> Protocol:
        return self.stations.connect("CP-1", authorization=authorization, offered=["ocpp1.6"], connection_id=socket)

    def _connects(self) -> None:
        """The station comes over a new socket, and may never have closed the old one."""
        socket = f"socket-{next(self.numbers)}"
        if self._act(lambda: self._knock(socket, KNOCK)) is None:
            self.gateway.gone.add(socket)
            return
        self.socket = socket
        self.sockets.append(socket)

    def _answers(self, frame: list[Any]) -> None:
        """The station answered one of our CALLs, and is told nothing more."""
        assert self._act(lambda: self.stations.receive(self.socket, json.dumps(frame))) is None

    def _tells(self, bay: int, raw: str, **more: str) -> None:
        self._say("StatusNotification", connectorId=bay, errorCode="NoError", status=raw, **more)

    def _starts(self, bay: int, tag: str, meter: int = 1000, time: str | None = None) -> None:
        payload = {
            "connectorId": bay,
            "idTag": tag,
            "meterStart": meter,
            "timestamp": time or self.clock.at.isoformat(),
        }
        answer = self._say("StartTransaction", **payload)
        if answer is None:
            return
        self.starts.append((payload, answer))
        scene = self._look()
        begun = next(t for t in scene.all(Transaction) if t.transaction_id == answer["transactionId"])
        web = next((r.reservation_id for r in scene.all(Reservation) if fold(r.id_tag) == fold(tag)), None)
        if web is not None:
            accepted = answer["idTagInfo"]["status"] == "Accepted"
            assert accepted == (begun.reservation_id == web), "nobody charges for free"

    def _stops(self, **payload: Any) -> None:
        self._say("StopTransaction", **{"timestamp": self.clock.at.isoformat()} | payload)

    def _creates(self, bay: int, **more: str | None) -> None:
        self._act(
            lambda: self.drivers.create("CP-1", bay, **more),
            *(ChargerOffline, ConnectorBusy, PaymentUnavailable, PaymentRefused),
        )

    def _confirms(self, rid: str) -> None:
        self._act(lambda: self.drivers.confirm(rid), IllegalTransition, PaymentUnavailable, PaymentRefused)

    def _sweeps(self) -> None:
        report = self._act(self.maintenance.sweep)
        assert report is None or self.line.struck or not report.failed, report

    def _startable(self, bay: int) -> bool:
        shown = self._act(lambda: self.drivers.connector("CP-1", bay))
        return shown is not None and bool(shown["startable"])

    def _any(self, data: st.DataObject, things: list[T]) -> T:
        return data.draw(st.sampled_from(things))

    def _tag(self, data: st.DataObject) -> str:
        return self._any(data, ["NOBODY", *(tag.tag for tag in self._look().all(IdTag))])

    def _time(self, data: st.DataObject) -> str:
        """What a charger's clock may say."""
        now, fast = timedelta(0), -timedelta(minutes=4)
        ages = [now, now, fast, timedelta(minutes=1), timedelta(days=1), -timedelta(days=400)]
        told = [(self.clock.at - age).isoformat() for age in ages]
        return self._any(data, [*told, "1970-01-01T00:00:00Z", "", "0001-01-01T00:00:00+14:00"])

    def _transaction(self, data: st.DataObject) -> int:
        """A number that a charger may name."""
        scene = self._look()
        running = [c.transaction.transaction_id for c in scene.all(Connector) if c.transaction is not None]
        known = [t.transaction_id for t in scene.all(Transaction)]
        return self._any(data, [*running, *running, *known, 0, -1, 4711])


def test_whatever_happens_the_law_holds_and_everything_ends(engines: Engines) -> None:
    line = Line(engines(ENGINE).endpoint)
    examples = settings(
        max_examples=200,
        stateful_step_count=30,
        deadline=None,
        database=None,
        print_blob=True,
    )
    ServiceMachine.settled = 0

    run_state_machine_as_test(lambda: ServiceMachine(line), settings=examples)

    assert ServiceMachine.settled >= examples.max_examples // 2
