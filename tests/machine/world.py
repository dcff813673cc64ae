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
from tests.documented import Leftover, check_leftovers, pass_until_expired
from tests.fakes import FakeGateway, SequentialIds
from tests.invariants import Scene, check_scene
from tests.machine.line import FaultyDynamoDb, ProcessDied, TickingClock
from tests.versions import check

T = TypeVar("T")
PLAIN: Final = TypeDeserializer().deserialize
CONNECTOR_IDS: Final = (1, 2)
PASSWORD: Final = b"password"
AUTHORIZATION: Final = "Basic " + base64.b64encode(b"CP-1:" + PASSWORD).decode()
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

    def __init__(self, line: FaultyDynamoDb) -> None:
        super().__init__()
        self.line = line
        self.table = f"csms-{token_hex(6)}"
        line.clear_faults()
        line.send_request("CreateTable", table_definition(self.table))
        self.clock = TickingClock(at=b.NOW)
        self.provider, self.gateway = self._build_provider(), FakeGateway()
        self.mailer: Any = None
        self.by_hand: set[str] = set()
        self.triggers: list[OutboxItem] = []
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

    def _build_provider(self) -> Any:
        """The payment provider of this world, which can also be looked at from the outside."""
        raise NotImplementedError

    def _open_station(self, policy: Policy, *, free: bool, asked: Tariff, far: int) -> None:
        """The station is registered and connected, and so many usual things have happened on its first bay."""
        self.policy = policy
        self.store = store = Store(self.line, self.table)
        everybody = Dependencies(
            store=store,
            dialects=DIALECTS,
            policy=self.policy,
            gateway=self.gateway,  # type: ignore[arg-type]
            trigger_maintenance=self.triggers.append,
            now=self.clock,
            new_ids=SequentialIds(),
            public_url="https://csms.example",
        )
        self.stations, self.operators = Stations(everybody), Operators(everybody)
        paying = replace(everybody, provider=self.provider, mailer=self.mailer)
        self.drivers, self.maintenance = Drivers(paying), Maintenance(paying)
        store.commit([Save(replace(STATION, free=free, tariff=asked)), Append(CARD), Append(STAFF)])
        self._connect()
        for connector_id in CONNECTOR_IDS:
            self._report_status(connector_id, "Available")
        for _ in range(far):
            self._advance_session(1)

    # What usually comes next

    def _advance_session(self, connector_id: int) -> None:
        """The next step of an undisturbed charge on the connector."""
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
        asked = [c for c in scene.all(OutboundCall) if c.state is CallState.SENT and c.kind is CommandKind.REMOTE_START]
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

    def _act_concurrently(self, what: str) -> None:
        """Somebody else acts while the service is in the middle of something."""
        self._do(what)
        self.line.struck = True  # Whatever was struck in between has been looked at, and this was too.

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

    # The law

    @invariant()
    def check_scene_invariants(self) -> None:
        before, after = self.scene, self._read_scene()
        check_scene(before, after)
        self.scene = after
        for held in after.all(Reservation):
            self._check_payments(held)

    @invariant()
    def check_busy_limits(self) -> None:
        """What keeps a connector busy is not past its time (docs/occupancy.md)."""
        if self.socket:
            self._find_leftovers()

    def _find_leftovers(self) -> list[Leftover]:
        """What is left on the connectors and keeps them busy."""
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
        """The provider's books say the same as the reservation's money."""
        opened = [rid for operation, rid, _ in self.provider.calls if operation == "open_checkout"]
        assert opened.count(held.reservation_id) <= 1, "one checkout for one reservation"
        payments = [
            self.provider.find_payment(c) for c, rid in self.provider.checkouts.items() if rid == held.reservation_id
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
        self._clear_faults()
        self._expire_leftovers()
        waiting = self._run_until(self.clock.at + self._documented_limit())
        assert not waiting, f"everything ends in time, but for {waiting}"
        self.check_scene_invariants()
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
        """Nobody sweeps but where it is documented, and all that was left on the connectors goes in its time; what was
        set to stay for ever is closed by an operator."""

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

    def _open_transactions(self) -> list[OpenTransaction]:
        return [c.transaction for c in self._read_scene().all(Connector) if c.transaction is not None]

    def _reconnect(self) -> None:
        """The station connects, and says that nobody is there; a silent one comes when its lease is over, and says
        nothing."""
        if self.silent:
            self._sleep(self.policy.presence_lease + NORMAL)
        self._connect()
        if self.silent:
            return
        for connector_id in (0, *CONNECTOR_IDS):
            self._report_status(connector_id, "Available", timestamp=self.clock.at.isoformat())

    def _presence_signals(self) -> list[Callable[[], object]]:
        """How the station shows that it is there, one after the other."""
        return [lambda: self._send_call("Heartbeat"), self._connect]

    def _documented_limit(self) -> timedelta:
        """The time in which everything ends."""
        policy = self.policy
        return (policy.session_limit or DAY) + (policy.reservation_timeout or DAY) + policy.status_release + RETRIES

    def _check_at_rest(self, scene: Scene) -> None:
        """Everything has ended, and nothing is owed but what a human must look at."""
        for held in scene.all(Reservation):
            assert held.state not in LOCKING_STATES, "every reservation ends"
            assert held.money in {Money.NONE, Money.CAPTURED, Money.RELEASED, Money.NEEDS_REVIEW}, "money comes to rest"
        for outbox_item in scene.all(OutboxItem):
            assert Money.NEEDS_REVIEW is scene.reservations[outbox_item.reservation_id].money, "nothing else is owed"
        for checkout_id, rid in self.provider.checkouts.items():
            payment = self.provider.find_payment(checkout_id)
            resting = payment.status not in {PaymentStatus.OPEN, PaymentStatus.AUTHORISED}
            spoilt = {checkout_id, payment.payment_id, rid} & self.provider.refused
            reviewed = scene.reservations[rid].money is Money.NEEDS_REVIEW
            assert resting or spoilt or reviewed, "no checkout stays open"

    def _run_until(self, until: datetime) -> list[Any]:
        """What still waits at that time, though it was swept whenever something was due, if not sooner than production
        would."""
        pause = NORMAL
        while (waiting := self._due_items()) and self.clock.at < until:
            ahead = min(e.due_at for e in waiting) - self.clock.at
            self.clock.move(min(max(ahead, pause), until - self.clock.at))
            pause = NORMAL if ahead > timedelta(0) else pause * 2
            self._sweep()
        return waiting

    def _payable_checkouts(self) -> dict[str, str]:
        """The checkouts that a driver may be looking at, each with its reservation."""
        return dict(self.provider.checkouts)

    def _due_items(self) -> list[Any]:
        return [e for e in self._read_scene().entities if getattr(e, "due_at", None) is not None]

    def _sleep(self, pause: timedelta) -> None:
        """Time passes, and nobody sweeps."""
        self.clock.move(pause)

    # Helpers

    def _read_scene(self) -> Scene:
        """All that is stored, read again only when somebody wrote."""
        if self.line.writes != self.seen_writes:
            self.seen_writes = self.line.writes
            self._entities = self._read_entities(*STORED)
        return Scene(self.clock.at, self._entities)

    def _lasting_entities(self) -> list[Any]:
        """What is stored, but for what every message does: the lease runs on, and the next CALL has its turn."""
        return [e for e in self._read_scene().entities if not isinstance(e, Presence | OutboundCall)]

    def _read_entities(self, *wanted: type) -> tuple[Any, ...]:
        """What is stored of these kinds."""
        kinds = {f":{TYPE_NAMES[kind]}": {"S": TYPE_NAMES[kind]} for kind in wanted}
        scan = {
            "TableName": self.table,
            "ConsistentRead": True,
            "FilterExpression": f"#type IN ({', '.join(kinds)})",
            "ExpressionAttributeNames": {"#type": "type"},
            "ExpressionAttributeValues": kinds,
        }
        answer = self.line.send_request("Scan", scan)
        assert "LastEvaluatedKey" not in answer, "one page holds an example"
        return tuple(from_item({name: PLAIN(value) for name, value in item.items()}) for item in answer["Items"])

    def _act(self, deed: Callable[[], T], *refusals: type[CsmsError]) -> T | None:
        """What the deed gives; None if it was refused in one of these ways, or if the trouble that was ahead came."""
        self.line.struck = False
        try:
            return deed()
        except refusals:
            return None
        except (StoreUnavailable, ProcessDied):
            assert self.line.struck, "nothing fails by itself"
            return None

    def _send_call(self, action: str, *, socket: str | None = None, **payload: Any) -> dict[str, Any] | None:
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
            (presence,) = self._read_scene().all(Presence)
            closed = presence.closed_id == self.socket
            assert closed or occupancy.is_online(presence, self.clock.at), "whoever speaks is there"
        check(Protocol.OCPP16, action, answer, response=True)
        return dict(answer)

    def _open_socket(self, socket: str, authorization: str) -> Protocol:
        return self.stations.connect("CP-1", authorization=authorization, offered=["ocpp1.6"], connection_id=socket)

    def _connect(self) -> None:
        """The station comes over a new socket, and may never have closed the old one."""
        socket = f"socket-{next(self.numbers)}"
        if self._act(lambda: self._open_socket(socket, AUTHORIZATION)) is None:
            self.gateway.gone.add(socket)
            return
        self.socket = socket
        self.sockets.append(socket)

    def _answer_call(self, frame: list[Any]) -> None:
        """The station answered one of our CALLs, and is told nothing more."""
        assert self._act(lambda: self.stations.receive(self.socket, json.dumps(frame))) is None

    def _report_status(self, connector_id: int, raw: str, **more: str) -> None:
        before = self._read_scene()
        self._send_call("StatusNotification", connectorId=connector_id, errorCode="NoError", status=raw, **more)
        running = next((c.transaction for c in before.all(Connector) if c.connector_id == connector_id), None)
        if more or self.line.struck or running is None:
            return
        if occupancy.coarse_status(read_state(raw)) is ConnectorStatus.OCCUPIED:
            self.occupied[running.transaction_id] = self.clock.at
        if raw == "Available":
            self._check_implied_stop(running)

    def _check_implied_stop(self, running: OpenTransaction) -> None:
        """A station that calls a connector Available implies the stop of what ran there, if it has not booted since, or
        has shown after its boot that it went on."""
        scene = self._read_scene()
        booted = next(station.booted_at for station in scene.all(Station))
        shown = self.occupied.get(running.transaction_id, running.received_at)
        if not self.policy.implied_stop_grace or (booted is not None and booted >= max(shown, running.received_at)):
            return
        now = [t for t in self._open_transactions() if t.transaction_id == running.transaction_id]
        assert all(t.idle_until is not None for t in now), "a stop is implied"

    def _start_transaction(self, connector_id: int, tag: str, meter: int = 1000, time: str | None = None) -> None:
        payload = {
            "connectorId": connector_id,
            "idTag": tag,
            "meterStart": meter,
            "timestamp": time or self.clock.at.isoformat(),
        }
        answer = self._send_call("StartTransaction", **payload)
        if answer is None:
            return
        self.starts.append((payload, answer))
        scene = self._read_scene()
        begun = next((t for t in scene.all(Transaction) if t.transaction_id == str(answer["transactionId"])), None)
        assert begun is not None, (
            f"what was answered is stored: {answer} to {payload}, not {self._read_entities(Transaction)}"
        )
        web = next((r.reservation_id for r in scene.all(Reservation) if fold(r.id_tag) == fold(tag)), None)
        if web is not None:
            accepted = answer["idTagInfo"]["status"] == "Accepted"
            assert accepted == (begun.reservation_id == web), "nobody charges for free"

    def _stop_transaction(self, **payload: Any) -> None:
        self._send_call("StopTransaction", **{"timestamp": self.clock.at.isoformat()} | payload)

    def _create_reservation(self, connector_id: int, **more: str | None) -> None:
        self._act(
            lambda: self.drivers.create("CP-1", connector_id, **more),
            *(ChargerOffline, ConnectorBusy, PaymentUnavailable, PaymentRefused),
        )

    def _confirm_payment(self, rid: str) -> None:
        self._act(lambda: self.drivers.confirm(rid), IllegalTransition, PaymentUnavailable, PaymentRefused)

    def _sweep(self) -> None:
        begun = self.clock.at
        report = self._act(self.maintenance.sweep)
        assert report is None or self.line.struck or not report.failed, report
        if report is not None and not self.line.struck:
            self.swept_at = begun

    def _is_startable(self, connector_id: int) -> bool:
        shown = self._act(lambda: self.drivers.connector("CP-1", connector_id))
        return shown is not None and bool(shown["startable"])

    def _draw_item(self, data: st.DataObject, things: list[T]) -> T:
        return data.draw(st.sampled_from(things))

    def _draw_tag(self, data: st.DataObject) -> str:
        return self._draw_item(data, ["NOBODY", *(tag.tag for tag in self._read_scene().all(IdTag))])

    def _draw_time(self, data: st.DataObject) -> str:
        """What a charger's clock may say."""
        now, fast = timedelta(0), -timedelta(minutes=4)
        ages = [now, now, fast, timedelta(minutes=1), timedelta(days=1), -timedelta(days=400)]
        times = [(self.clock.at - age).isoformat() for age in ages]
        return self._draw_item(data, [*times, "1970-01-01T00:00:00Z", "", "0001-01-01T00:00:00+14:00"])

    def _draw_transaction_id(self, data: st.DataObject) -> int:
        """A number that a charger may name."""
        scene = self._read_scene()
        running = [int(c.transaction.transaction_id) for c in scene.all(Connector) if c.transaction is not None]
        known = [int(t.transaction_id) for t in scene.all(Transaction)]
        return self._draw_item(data, [*running, *running, *known, 0, -1, 4711])
