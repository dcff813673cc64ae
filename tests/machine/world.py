"""One station with two bays and everybody who may do something about them: what each of them can do, what usually comes
next, what must hold at any moment, and what must have become of everything in the end. Which of it happens, and what
goes wrong, is for the machines to say."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from secrets import token_hex
from typing import Any, ClassVar, Final, TypeVar

from boto3.dynamodb.types import TypeDeserializer
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from csms import occupancy
from csms.adapters.dynamodb import TYPE_NAMES, Store, from_item, table_definition
from csms.charging import operations, settlement
from csms.charging.operations import OperatorCommand
from csms.charging.reservation import LOCKING_STATES
from csms.errors import (
    ChargerOffline,
    ConnectorBusy,
    CsmsError,
    IllegalTransition,
    PaymentRefused,
    PaymentUnavailable,
    StoreUnavailable,
)
from csms.model import (
    Append,
    CallState,
    CommandKind,
    Connector,
    ConnectorStatus,
    IdTag,
    Money,
    OpenTransaction,
    OutboundCall,
    OutboxItem,
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
from csms.ocpp.spoken import DIALECTS
from csms.ocpp.v16.values import read_state
from csms.ports.payments import PaymentStatus
from csms.service import Dependencies, Drivers, Maintenance, Operators, Stations
from csms.stations import credentials
from tests import builders as b
from tests.documented import Leftover, overdue, wear_off
from tests.fakes import FakeGateway, FreshIds
from tests.laws import Scene, judge
from tests.machine.line import Died, Line, Ticking
from tests.versions import check

T = TypeVar("T")
PLAIN: Final = TypeDeserializer().deserialize
BAYS: Final = (1, 2)
PASSWORD: Final = b"password"
KNOCK: Final = "Basic " + base64.b64encode(b"CP-1:" + PASSWORD).decode()
STATION: Final = b.station(version=0, password_hash=credentials.hash_password(PASSWORD, salt=b"salt"))
CARD: Final = IdTag(tag="CARD", status=TagStatus.ACCEPTED)
STAFF: Final = IdTag(tag="STAFF", status=TagStatus.ACCEPTED, free=True)
STORED: Final = (Station, Presence, Connector, OutboundCall, Transaction, Reservation, OutboxItem, IdTag)
RETRIES: Final = timedelta(hours=2)
NORMAL: Final = timedelta(minutes=1)
"""Between two sweeps."""
DAY: Final = timedelta(days=1)
"""The longest that a provider keeps a checkout open, where no setting bounds it."""
ACCEPTED: Final = {"status": "Accepted"}


class World(RuleBasedStateMachine):
    """Two bays of one station, in a table of its own; time is the machine's."""

    settled = 0
    met: ClassVar[Counter[str]] = Counter()
    """How often each thing that may be left on a connector was seen to keep it busy, and what else must be met."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line
        self.table = f"csms-{token_hex(6)}"
        line.calm()
        line.ask("CreateTable", table_definition(self.table))
        self.clock = Ticking(at=b.NOW)
        self.provider, self.gateway = self._provider(), FakeGateway()
        self.mailer: Any = None
        self.by_hand: set[str] = set()
        self.nudges: list[OutboxItem] = []
        self.policy = Policy()
        self.silent = False
        self.occupied: dict[int, datetime] = {}
        self.swept_at: datetime | None = None
        self.scene = Scene(b.NOW)
        self.seen_writes = -1
        self.numbers = count(1)
        self.socket = ""
        self.sockets: list[str] = []
        self.starts: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def _provider(self) -> Any:
        """The payment provider of this world, which can also be looked at from the outside."""
        raise NotImplementedError

    def _opens(self, policy: Policy, *, free: bool, asked: Tariff, far: int) -> None:
        """The station is registered and connected, and so many usual things have happened on its first bay."""
        self.policy = policy
        self.store = store = Store(self.line, self.table)
        everybody = Dependencies(
            store=store,
            dialects=DIALECTS,
            policy=self.policy,
            gateway=self.gateway,  # type: ignore[arg-type]
            trigger_maintenance=self.nudges.append,
            now=self.clock,
            new_ids=FreshIds(),
            public_url="https://csms.example",
        )
        self.stations, self.operators = Stations(everybody), Operators(everybody)
        paying = replace(everybody, provider=self.provider, mailer=self.mailer)
        self.drivers, self.maintenance = Drivers(paying), Maintenance(paying)
        store.commit([Save(replace(STATION, free=free, tariff=asked)), Append(CARD), Append(STAFF)])
        self._connects()
        for bay in BAYS:
            self._tells(bay, "Available")
        for _ in range(far):
            self._next(1)

    # What usually comes next

    def _next(self, bay: int) -> None:
        """The next step of an undisturbed charge on the connector."""
        scene = self._look()
        connector = scene.connectors.get(bay) or Connector(station_id="cp-1", connector_id=bay)
        presence = next(iter(scene.all(Presence)), None)
        if not occupancy.is_online(presence, scene.now) or presence is None or presence.connection_id != self.socket:
            self._connects()
        elif connector.transaction is not None:
            running = connector.transaction
            self._stops(transactionId=int(running.transaction_id), meterStop=running.meter_start_wh + 5000)
        elif connector.lock is not None:
            self._next_of(scene.reservations[connector.lock.reservation_id], scene)
        elif not self._startable(bay):
            self._tells(0, "Available")
            self._tells(bay, "Available")
        else:
            self._creates(bay)

    def _next_of(self, held: Reservation, scene: Scene) -> None:
        asked = [c for c in scene.all(OutboundCall) if c.state is CallState.SENT and c.kind is CommandKind.REMOTE_START]
        if asked:
            self._answers([3, asked[0].call_id, ACCEPTED])
        elif held.state is S.WAITING_FOR_DISCONNECT:
            self._tells(held.connector_id, "Available")
        elif held.state is not S.PENDING_PAYMENT:
            self._starts(held.connector_id, held.id_tag)
        elif held.checkout_id is None or self.provider.standing(held.checkout_id).status is not PaymentStatus.OPEN:
            self._sleeps(timedelta(minutes=2))
            self._sweeps()
        else:
            self.provider.pay(held.checkout_id)
            self._confirms(held.reservation_id)

    def _meanwhile(self, what: str) -> None:
        """Somebody else acts while the service is in the middle of something."""
        self._do(what)
        self.line.struck = True  # Whatever was struck in between has been looked at, and this was too.

    def _do(self, what: str) -> None:
        held = [r.reservation_id for r in self._look().all(Reservation) if r.state in LOCKING_STATES]
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

    # The law

    @invariant()
    def the_law_holds(self) -> None:
        before, after = self.scene, self._look()
        judge(before, after)
        self.scene = after
        for held in after.all(Reservation):
            self._nobody_pays_twice(held)

    @invariant()
    def nobody_waits_longer_than_is_documented(self) -> None:
        """What keeps a connector busy is not past its time (docs/occupancy.md)."""
        if self.socket:
            self._left()

    def _left(self) -> list[Leftover]:
        """What is left on the connectors and keeps them busy."""
        scene = self._look()
        seen = Snapshot(station=STATION, presence=next(iter(scene.all(Presence)), None), connectors=scene.connectors)
        said = {bay: occupancy.explain(seen, bay, now=scene.now, policy=self.policy) for bay in BAYS}
        left = overdue(scene, said, self.policy, self.swept_at)
        self.met.update(one.left for one in left)
        return left

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
            assert [held.amount] == kept or held.reservation_id in self.by_hand, "what was kept is the bill"
            assert sum(kept) <= (held.amount or 0), "nobody is overcharged"
        if held.money is Money.RELEASED:
            assert [PaymentStatus.RELEASED] == [p.status for p in payments], "what was released is free"
        if held.money is Money.NEEDS_REVIEW:
            silent = self.provider.silent[held.payment_id or ""] >= self.policy.outbox_attempts
            doubted = settlement.is_meter_doubted(held)
            assert spoilt or silent or doubted, "a human sees what the provider refuses, and what no meter can show"

    def teardown(self) -> None:
        """Left alone, everything comes to its end in the documented time, and both connectors can be started."""
        if sys.exception() is not None or not self.socket:
            return  # A law was broken before, and the report is about that one.
        self._goes_right_from_now_on()
        self._wears_off()
        waiting = self._runs(self.clock.at + self._documented())
        assert not waiting, f"everything ends in time, but for {waiting}"
        self.the_law_holds()
        self._rests(self._look())
        for greets in self._greetings():
            greets()
            for bay in BAYS:
                assert self._startable(bay), "a connector with nothing on it can be started"
        type(self).settled += 1

    def _goes_right_from_now_on(self) -> None:
        self.line.calm()
        self.provider.recovers()
        self.gateway.unreachable = False
        self._comes_back()

    def _wears_off(self) -> None:
        """Nobody sweeps but where it is documented, and all that was left on the connectors goes in its time; what was
        set to stay for ever is closed by an operator."""

        def passes(pause: timedelta, swept: bool) -> None:
            self._sleeps(pause)
            if swept:
                self._sweeps()
            self._say("Heartbeat")

        wear_off(self._left, passes, lambda: self.clock.at)
        for running in self._running():
            order = OperatorCommand(who="ada", reason="because", expected=operations.OPEN)
            self.operators.close_transaction(running.transaction_id, order)
        wear_off(self._left, passes, lambda: self.clock.at)
        assert not self._left(), "nothing is left"
        for bay in BAYS:
            assert self._startable(bay), "a connector with nothing on it can be started in its time"

    def _running(self) -> list[OpenTransaction]:
        return [c.transaction for c in self._look().all(Connector) if c.transaction is not None]

    def _comes_back(self) -> None:
        """The station connects, and says that nobody is there; a silent one comes when its lease is over, and says
        nothing."""
        if self.silent:
            self._sleeps(self.policy.presence_lease + NORMAL)
        self._connects()
        if self.silent:
            return
        for bay in (0, *BAYS):
            self._tells(bay, "Available", timestamp=self.clock.at.isoformat())

    def _greetings(self) -> list[Callable[[], object]]:
        """How the station shows that it is there, one after the other."""
        return [lambda: self._say("Heartbeat"), self._connects]

    def _documented(self) -> timedelta:
        """The time in which everything ends."""
        policy = self.policy
        return (policy.session_limit or DAY) + (policy.reservation_timeout or DAY) + policy.status_release + RETRIES

    def _rests(self, scene: Scene) -> None:
        """Everything has ended, and nothing is owed but what a human must look at."""
        for held in scene.all(Reservation):
            assert held.state not in LOCKING_STATES, "every reservation ends"
            assert held.money in {Money.NONE, Money.CAPTURED, Money.RELEASED, Money.NEEDS_REVIEW}, "money comes to rest"
        for effect in scene.all(OutboxItem):
            assert Money.NEEDS_REVIEW is scene.reservations[effect.reservation_id].money, "nothing else is owed"
        for checkout_id, rid in self.provider.checkouts.items():
            payment = self.provider.standing(checkout_id)
            resting = payment.status not in {PaymentStatus.OPEN, PaymentStatus.AUTHORISED}
            spoilt = {checkout_id, payment.payment_id, rid} & self.provider.refused
            reviewed = scene.reservations[rid].money is Money.NEEDS_REVIEW
            assert resting or spoilt or reviewed, "no checkout stays open"

    def _runs(self, until: datetime) -> list[Any]:
        """What still waits at that time, though it was swept whenever something was due, if not sooner than production
        would."""
        pause = NORMAL
        while (waiting := self._waiting()) and self.clock.at < until:
            ahead = min(e.due_at for e in waiting) - self.clock.at
            self.clock.move(min(max(ahead, pause), until - self.clock.at))
            pause = NORMAL if ahead > timedelta(0) else pause * 2
            self._sweeps()
        return waiting

    def _payable(self) -> dict[str, str]:
        """The checkouts that a driver may be looking at, each with its reservation."""
        return dict(self.provider.checkouts)

    def _waiting(self) -> list[Any]:
        return [e for e in self._look().entities if getattr(e, "due_at", None) is not None]

    def _sleeps(self, pause: timedelta) -> None:
        """Time passes, and nobody sweeps."""
        self.clock.move(pause)

    # Helpers

    def _look(self) -> Scene:
        """All that is stored, read again only when somebody wrote."""
        if self.line.writes != self.seen_writes:
            self.seen_writes = self.line.writes
            self._entities = self._stored(*STORED)
        return Scene(self.clock.at, self._entities)

    def _remembered(self) -> list[Any]:
        """What is stored, but for what every message does: the lease runs on, and the next CALL has its turn."""
        return [e for e in self._look().entities if not isinstance(e, Presence | OutboundCall)]

    def _stored(self, *wanted: type) -> tuple[Any, ...]:
        """What is stored of these kinds."""
        kinds = {f":{TYPE_NAMES[kind]}": {"S": TYPE_NAMES[kind]} for kind in wanted}
        scan = {
            "TableName": self.table,
            "ConsistentRead": True,
            "FilterExpression": f"#type IN ({', '.join(kinds)})",
            "ExpressionAttributeNames": {"#type": "type"},
            "ExpressionAttributeValues": kinds,
        }
        answer = self.line.ask("Scan", scan)
        assert "LastEvaluatedKey" not in answer, "one page holds an example"
        return tuple(from_item({name: PLAIN(value) for name, value in item.items()}) for item in answer["Items"])

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
        if socket is None and not self.line.struck and self.socket not in self.gateway.gone:
            (presence,) = self._look().all(Presence)
            closed = presence.closed_id == self.socket
            assert closed or occupancy.is_online(presence, self.clock.at), "whoever speaks is there"
        check(Protocol.OCPP16, action, answer, response=True)
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
        before = self._look()
        self._say("StatusNotification", connectorId=bay, errorCode="NoError", status=raw, **more)
        running = next((c.transaction for c in before.all(Connector) if c.connector_id == bay), None)
        if more or self.line.struck or running is None:
            return
        if occupancy.coarse_status(read_state(raw)) is ConnectorStatus.OCCUPIED:
            self.occupied[running.transaction_id] = self.clock.at
        if raw == "Available":
            self._is_on_notice(running)

    def _is_on_notice(self, running: OpenTransaction) -> None:
        """A station that calls a connector Available implies the stop of what ran there, if it has not booted since, or
        has shown after its boot that it went on."""
        scene = self._look()
        booted = next(station.booted_at for station in scene.all(Station))
        shown = self.occupied.get(running.transaction_id, running.received_at)
        if not self.policy.implied_stop_grace or (booted is not None and booted >= max(shown, running.received_at)):
            return
        now = [t for t in self._running() if t.transaction_id == running.transaction_id]
        assert all(t.idle_until is not None for t in now), "a stop is implied"

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
        begun = next((t for t in scene.all(Transaction) if t.transaction_id == str(answer["transactionId"])), None)
        assert begun is not None, f"what was answered is stored: {answer} to {payload}, not {self._stored(Transaction)}"
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
        begun = self.clock.at
        report = self._act(self.maintenance.sweep)
        assert report is None or self.line.struck or not report.failed, report
        if report is not None and not self.line.struck:
            self.swept_at = begun

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
        running = [int(c.transaction.transaction_id) for c in scene.all(Connector) if c.transaction is not None]
        known = [int(t.transaction_id) for t in scene.all(Transaction)]
        return self._any(data, [*running, *running, *known, 0, -1, 4711])
