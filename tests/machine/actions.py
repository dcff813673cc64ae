"""The actions of drivers, the station, the clock and sweeps on the service, and reading what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from secrets import token_hex
from typing import Any, Final, TypeVar

from boto3.dynamodb.types import TypeDeserializer
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from csms import occupancy
from csms.adapters.dynamodb import TYPE_NAMES, Store, from_item, table_definition
from csms.errors import (
    ChargerOffline,
    ConnectionSuperseded,
    ConnectorBusy,
    CsmsError,
    IllegalTransition,
    PaymentRefused,
    PaymentUnavailable,
    StoreUnavailable,
)
from csms.model import (
    Append,
    Connector,
    ConnectorStatus,
    IdTag,
    OpenTransaction,
    OutboundCall,
    OutboxItem,
    Policy,
    Presence,
    Protocol,
    Reservation,
    Save,
    Station,
    Tariff,
    Transaction,
    fold,
)
from csms.ocpp.v16.values import read_state
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Drivers, Maintenance, Operators, Stations
from tests import builders as b
from tests.fakes import FakeGateway, SequentialIds
from tests.invariants import Scene, check_bill_falls
from tests.machine.line import FaultyDynamoDb, ProcessDied, TickingClock, key_of
from tests.machine.values import AUTHORIZATION, CARD, STAFF, STATION
from tests.versions import check

T = TypeVar("T")
PLAIN: Final = TypeDeserializer().deserialize
STORED: Final = (Station, Presence, Connector, OutboundCall, Transaction, Reservation, OutboxItem, IdTag)
STORED_NAMES: Final = frozenset(TYPE_NAMES[kind] for kind in STORED)
CLOCKS_EXIST_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
NO_CLOCK: Final = "1970-01-01T00:00:07Z"
NORMAL: Final = timedelta(minutes=1)
"""The time between two sweeps."""

KEYS_AT_ONCE: Final = 100
"""The most keys of one BatchGetItem."""


def parse_item(item: dict[str, Any]) -> Any:
    """The entity of a stored item."""
    return from_item({name: PLAIN(value) for name, value in item.items()})


class Actions(RuleBasedStateMachine):
    """A table for each example, the service over it, and every single action on it."""

    def __init__(self, line: FaultyDynamoDb) -> None:
        super().__init__()
        self.line = line
        self.table = f"csms-{token_hex(6)}"
        line.clear_faults()
        line.touched.clear()
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
        self._entities: tuple[Any, ...] = ()
        self._stored: dict[tuple[str, str], Any] = {}
        self.numbers = count(1)
        self.socket = ""
        self.sockets: list[str] = []
        self.starts: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.began: dict[str, datetime] = {}
        self.stopped: dict[str, datetime] = {}
        self.taken: dict[str, int] = {}
        self.telling = False

    def _build_provider(self) -> Any:
        """The payment provider, whose payments the machine can also read directly."""
        raise NotImplementedError

    def _start_service(self, policy: Policy, *, free: bool, asked: Tariff) -> None:
        """Start the service and register the station."""
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

    # What is stored

    def _read_scene(self) -> Scene:
        """Everything that is stored, where only what may have been written meanwhile is read again; a bill only falls
        meanwhile."""
        if self.line.writes != self.seen_writes:
            self.seen_writes = self.line.writes
            before = Scene(self.clock.at, self._entities).reservations
            self._read_touched()
            self._entities = tuple(self._stored[key] for key in sorted(self._stored))
            for rid, held in Scene(self.clock.at, self._entities).reservations.items():
                check_bill_falls(before.get(rid, held), held)
        return Scene(self.clock.at, self._entities)

    def _read_touched(self) -> None:
        """Read again what the line's writes have named."""
        keys = [*self.line.touched]
        self.line.touched.clear()
        for start in range(0, len(keys), KEYS_AT_ONCE):
            part = keys[start : start + KEYS_AT_ONCE]
            asked = [{"PK": {"S": pk}, "SK": {"S": sk}} for pk, sk in part]
            request = {"RequestItems": {self.table: {"Keys": asked, "ConsistentRead": True}}}
            answer = self.line.send_request("BatchGetItem", request)
            assert not answer.get("UnprocessedKeys"), "one answer holds what was written"
            for key in part:
                self._stored.pop(key, None)
            for item in answer["Responses"].get(self.table, ()):
                if item["type"]["S"] in STORED_NAMES:
                    self._stored[key_of(item)] = parse_item(item)

    def _check_nothing_untold(self) -> None:
        """Check that the table holds what was read by parts, and nothing else."""
        scanned = self._read_entities(*STORED)
        known = self._read_scene().entities
        assert len(scanned) == len(known), "every write is read again"
        assert all(entity in known for entity in scanned), "every write is read again"

    def _lasting_entities(self) -> list[Any]:
        """What is stored, without what every message changes: the presence's lease and the queue of CALLs."""
        return [e for e in self._read_scene().entities if not isinstance(e, Presence | OutboundCall)]

    def _read_entities(self, *wanted: type) -> tuple[Any, ...]:
        """The stored entities of these types."""
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
        return tuple(parse_item(item) for item in answer["Items"])

    def _open_transactions(self) -> list[OpenTransaction]:
        return [c.transaction for c in self._read_scene().all(Connector) if c.transaction is not None]

    def _due_items(self) -> list[Any]:
        return [e for e in self._read_scene().entities if getattr(e, "due_at", None) is not None]

    def _payable_checkouts(self) -> dict[str, str]:
        """The checkouts that a driver may be looking at, each with its reservation."""
        return dict(self.provider.checkouts)

    # Single actions

    def _act(self, deed: Callable[[], T], *refusals: type[CsmsError]) -> T | None:
        """The result of an action; None if it was refused in one of these ways, or if the ordered fault occurred."""
        self.line.struck = False
        try:
            return deed()
        except refusals:
            return None
        except (StoreUnavailable, ProcessDied):
            assert self.line.struck, "nothing fails by itself"
            return None

    def _send_call(self, action: str, *, socket: str | None = None, **payload: Any) -> dict[str, Any] | None:
        """Send a CALL as the station and return the answer, which must fit the schema; None only after a fault."""
        self._doubt_taken(action, payload)
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

    def _doubt_taken(self, action: str, payload: dict[str, Any]) -> None:
        """Forget the energy of a session if anything else is told of it than its own station's story."""
        if self.telling or action not in {"MeterValues", "StopTransaction"}:
            return
        named = str(payload.get("transactionId"))
        if named in self.taken:
            del self.taken[named]
        elif payload.get("transactionId", 0) <= 0:
            self.taken.clear()

    def _read_claim(self, said: str | None) -> datetime:
        """The station's time, or ours if its clock cannot be right."""
        try:
            claimed = datetime.fromisoformat(said or "")
        except ValueError:
            return self.clock.at
        if claimed.tzinfo is None or not CLOCKS_EXIST_SINCE < claimed <= self.clock.at + CLOCK_TOLERANCE:
            return self.clock.at
        return claimed

    def _open_socket(self, socket: str, authorization: str) -> Protocol:
        return self.stations.connect("CP-1", authorization=authorization, offered=["ocpp1.6"], connection_id=socket)

    def _connect(self) -> None:
        """Connect the station over a new socket; the old one may still be open."""
        socket = f"socket-{next(self.numbers)}"
        if self._act(lambda: self._open_socket(socket, AUTHORIZATION), ConnectionSuperseded) is None:
            self.gateway.gone.add(socket)
            return
        self.socket = socket
        self.sockets.append(socket)

    def _answer_call(self, frame: list[Any]) -> None:
        """Answer one of our CALLs as the station. The answer gets no reply."""
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
        """Check that a reported Available implies the stop of the connector's transaction, unless the station has
        booted and not reported the connector in use since."""
        scene = self._read_scene()
        booted = next(station.booted_at for station in scene.all(Station))
        shown = self.occupied.get(running.transaction_id, running.received_at)
        if not self.policy.implied_stop_grace or (booted is not None and booted >= max(shown, running.received_at)):
            return
        now = [t for t in self._open_transactions() if t.transaction_id == running.transaction_id]
        assert all(t.idle_until is not None for t in now), "a stop is implied"

    def _start_transaction(self, connector_id: int, tag: str, meter: int = 1000, time: str | None = None) -> int | None:
        """Tell a start, and return the transaction's number; None after a fault."""
        payload = {
            "connectorId": connector_id,
            "idTag": tag,
            "meterStart": meter,
            "timestamp": time or self.clock.at.isoformat(),
        }
        answer = self._send_call("StartTransaction", **payload)
        if answer is None:
            return None
        if time != NO_CLOCK:  # Without a clock only the same message is the same start.
            self.starts.append((payload, answer))
        begins = min(self.clock.at, self._read_claim(str(payload["timestamp"])))
        self.began.setdefault(str(answer["transactionId"]), begins)
        scene = self._read_scene()
        begun = next((t for t in scene.all(Transaction) if t.transaction_id == str(answer["transactionId"])), None)
        assert begun is not None, (
            f"what was answered is stored: {answer} to {payload}, not {self._read_entities(Transaction)}"
        )
        web = next((r.reservation_id for r in scene.all(Reservation) if fold(r.id_tag) == fold(tag)), None)
        if web is not None:
            accepted, late = answer["idTagInfo"]["status"] == "Accepted", time is not None
            ours = begun.reservation_id == web
            assert accepted == ours or (ours and late), "nobody charges for free"
        return int(answer["transactionId"])

    def _stop_transaction(self, **payload: Any) -> None:
        self._send_call("StopTransaction", **{"timestamp": self.clock.at.isoformat()} | payload)
        if not self.line.struck:
            ends = max(self.clock.at, self._read_claim(payload.get("timestamp")))
            named = str(payload["transactionId"])
            self.stopped[named] = max(ends, self.stopped.get(named, ends))

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

    def _sleep(self, pause: timedelta) -> None:
        """Let time pass without a sweep."""
        self.clock.move(pause)

    def _run_until(self, until: datetime) -> list[Any]:
        """Run sweeps until nothing is due or that time is reached, and return what is still due. Sweeps are no more
        frequent than in production."""
        pause = NORMAL
        while (waiting := self._due_items()) and self.clock.at < until:
            ahead = min(e.due_at for e in waiting) - self.clock.at
            self.clock.move(min(max(ahead, pause), until - self.clock.at))
            pause = NORMAL if ahead > timedelta(0) else pause * 2
            self._sweep()
        return waiting

    def _is_startable(self, connector_id: int) -> bool:
        shown = self._act(lambda: self.drivers.connector("CP-1", connector_id))
        return shown is not None and bool(shown["startable"])

    # What is drawn

    def _draw_item(self, data: st.DataObject, things: list[T]) -> T:
        return data.draw(st.sampled_from(things))

    def _draw_tag(self, data: st.DataObject) -> str:
        return self._draw_item(data, ["NOBODY", *(tag.tag for tag in self._read_scene().all(IdTag))])

    def _draw_time(self, data: st.DataObject) -> str:
        """A time that a charger's clock may give."""
        now, fast = timedelta(0), -timedelta(minutes=4)
        ages = [now, now, fast, timedelta(minutes=1), timedelta(days=1), -timedelta(days=400)]
        times = [(self.clock.at - age).isoformat() for age in ages]
        return self._draw_item(data, [*times, "1970-01-01T00:00:00Z", "", "0001-01-01T00:00:00+14:00"])

    def _draw_transaction_id(self, data: st.DataObject) -> int:
        """A transaction id that a charger may send."""
        scene = self._read_scene()
        running = [int(c.transaction.transaction_id) for c in scene.all(Connector) if c.transaction is not None]
        known = [int(t.transaction_id) for t in scene.all(Transaction)]
        return self._draw_item(data, [*running, *running, *known, 0, -1, 4711])
