"""No sequence of drivers, chargers, providers, operators, clocks, crashes and duplicates breaks the law of
reservations.

The machine runs the product's own decisions over a store in memory that commits as the real one does. The laws are in
`World._obeys` (what a commit may change) and in the invariants (what may stand).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, ClassVar, Final, TypeVar

import pytest
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

from csms.adapters.dynamodb import KEYS, Key
from csms.charging import checkout, command_results, operations, settlement, status, transaction
from csms.charging.due import chase_call, tidy_connector
from csms.charging.operations import OperatorCommand
from csms.charging.reservation import LOCKING_STATES, MONEY_TRANSITIONS, TRANSITIONS
from csms.errors import ChargerOffline, ConnectorBusy, IllegalTransition
from csms.model import (
    Append,
    CallState,
    CommandKind,
    Connector,
    Drop,
    IdempotencyRecord,
    IdTag,
    Money,
    OpenTransaction,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Outcome,
    Policy,
    Presence,
    Protocol,
    ReadSet,
    Reservation,
    ReservationState,
    Save,
    Snapshot,
    Station,
    StatusSource,
    TagStatus,
    Tariff,
    Transaction,
    Write,
    build_outcome,
    fold,
)
from csms.occupancy import busy_reasons, explain, is_lock_active
from csms.ocpp.schemas import Accepted
from csms.ocpp.v16 import core
from csms.ocpp.v16.values import STATES
from csms.ports.payments import Checkout, Payment, PaymentStatus
from csms.pricing import tariff
from tests import builders as b
from tests.documented import Leftover, LeftoverKind, check_leftovers, pass_until_expired
from tests.invariants import Scene
from tests.machine.service import UNUSUAL
from tests.versions import accept, check

S = ReservationState
T = TypeVar("T")
POLICY: Final = Policy()
CONNECTOR_IDS: Final = (1, 2)
MINIMUM_MET: Final = 10
CARD: Final = IdTag(tag="CARD", status=TagStatus.ACCEPTED)
PAID_STATES: Final = {S.AUTHORIZED, S.START_REQUESTED, S.CHARGING, S.WAITING_FOR_DISCONNECT}
PAUSES: Final = [timedelta(**pause) for pause in ({"seconds": 1}, {"seconds": 40}, {"minutes": 2}, {"minutes": 6})]
JUMPS: Final = [timedelta(minutes=minutes) for minutes in (11, 33, 62, 250, 24 * 60)]
METERS: Final = st.sampled_from([1000, 1001, 1500, 9000, 12_000, 90_000]) | st.integers(-(2**53), 2**53)
RAW: Final = st.sampled_from([*STATES, *["Available", "Preparing"] * 5]) | st.text(max_size=3)
VALUES: Final = METERS.map(str) | st.sampled_from(["2,5", "1.5", "", "NaN", "1E999999", "1E99"])


def transitive_closure(pairs: Mapping[T, set[T]] | set[tuple[T, T]] | frozenset[tuple[T, T]]) -> set[tuple[T, T]]:
    """From where one can come to where: the transitive closure."""
    known = set(pairs)  # type: ignore[arg-type]
    while more := {(a, d) for a, x in known for y, d in known if x == y} - known:
        known |= more
    return known  # type: ignore[return-value]


REACHABLE_STATES: Final = transitive_closure({(before, after) for (before, _), after in TRANSITIONS.items()})
REACHABLE_MONEY: Final = transitive_closure(set(MONEY_TRANSITIONS))


@dataclass(slots=True)
class World:
    """All that is stored, and the time; commits are checked against the versions that were read and against the law."""

    now: datetime = b.NOW
    entities: dict[Key, Any] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=lambda: count(1))

    def decision_context(self) -> Any:
        """Now, with fresh ids."""
        return b.decision_context(self.now, serial=next(self.serials), **self.settings)

    @property
    def policy(self) -> Policy:
        """The settings as one value."""
        return Policy(**{"max_power_w": b.ANY_POWER_W} | self.settings)

    def all(self, kind: type[T]) -> list[T]:
        """Everything of a kind, oldest first."""
        return [thing for thing in self.entities.values() if isinstance(thing, kind)]

    def snapshot(self, read_set: Callable[[Snapshot], ReadSet] = lambda _: ReadSet()) -> Snapshot:
        """What the service would load."""
        (station,) = self.all(Station)
        seen = Snapshot(
            station=station,
            presence=next(iter(self.all(Presence)), None),
            connectors={c.connector_id: c for c in self.all(Connector)},
            calls=tuple(self.all(OutboundCall)),
        )
        wanted = read_set(seen)
        rid, tag = wanted.reservation_id, fold(wanted.id_tag or "")
        if rid is None and wanted.with_ended_reservation:
            ended = [t for t in self.all(Transaction) if t.transaction_id in wanted.transaction_ids and t.stopped_at]
            rid = next((t.reservation_id for t in ended), None)
        return replace(
            seen,
            reservation=self.entities.get((f"RESERVATION#{rid}", "RESERVATION")),
            outbox_items=tuple(
                e
                for e in self.all(OutboxItem)
                if (wanted.with_outbox or wanted.with_ended_reservation) and e.reservation_id == rid
            ),
            transactions={
                t.transaction_id: t for t in self.all(Transaction) if t.transaction_id in wanted.transaction_ids
            },
            tag=next((t for t in self.all(IdTag) if wanted.id_tag is not None and fold(t.tag) == tag), None),
            idempotency_record=next((i for i in self.all(IdempotencyRecord) if i.digest == wanted.digest), None),
        )

    def commit(self, writes: tuple[Write, ...]) -> None:
        """All of the writes, each to a key of its own and on the version that is stored."""
        keys = [KEYS[type(thing)](thing) for thing in map(_written_entity, writes)]
        assert len(keys) == len(set(keys)), "two writes to one key cannot be committed"
        for write, key in zip(writes, keys, strict=True):
            stored, thing = self.entities.get(key), _written_entity(write)
            if isinstance(write, Append):
                assert not (write.once and stored), f"{key} exists"
                self.entities[key] = thing
                continue
            assert (stored.version if stored else 0) == thing.version, f"{key} was read at another version"
            if isinstance(write, Save):
                self._check_write(stored, thing)
                self.entities[key] = replace(thing, version=thing.version + 1)
            elif isinstance(write, Drop):
                del self.entities[key]
        self.now += timedelta(milliseconds=1)

    def carry_out(
        self, decide: Callable[[Snapshot, Any], Outcome], read_set: Callable[[Snapshot], ReadSet] = lambda _: ReadSet()
    ) -> Any:
        """The reply of a decision, which is committed."""
        outcome = decide(self.snapshot(read_set), self.decision_context())
        self.commit(outcome.writes)
        return outcome.reply

    def change(self, rid: str, move: Callable[[Snapshot, Any], Snapshot], kind: OutboxKind | None = None) -> None:
        """The reservation moved; with `kind` only while that effect is owed, as the service does it."""

        def decide(before: Snapshot, context: Any) -> Outcome:
            owed = kind is None or any(outbox_item.kind is kind for outbox_item in before.outbox_items)
            return build_outcome(before, move(before, context) if owed else before)

        self.carry_out(decide, lambda _: ReadSet(reservation_id=rid, with_outbox=True))

    def _check_write(self, old: Any, new: Any) -> None:
        if isinstance(new, Reservation) and old is not None:
            assert old.state == new.state or (old.state, new.state) in REACHABLE_STATES, (
                "a reservation never moves backwards"
            )
            assert old.money == new.money or (old.money, new.money) in REACHABLE_MONEY, "money never moves backwards"
            assert old.start_deadline in {None, new.start_deadline}, "a deadline never moves"
            assert old.tariff == new.tariff, "a tariff is frozen"
            begins = new.state is S.CHARGING and old.state is not S.CHARGING
            assert not begins or self.now <= new.start_deadline, "nobody starts after the deadline"
        if isinstance(new, Reservation) and new.state in PAID_STATES:
            assert new.reservation_id in self.paid or new.max_amount == 0, "nobody charges unpaid"
        if isinstance(new, Connector) and old is not None and new.transaction and old.transaction:
            same = new.transaction.transaction_id == old.transaction.transaction_id
            assert not same or new.transaction.energy_wh >= old.transaction.energy_wh, "energy never falls"


def operator_command(expected: str) -> OperatorCommand:
    """What an operator signs who sees things as they are."""
    return OperatorCommand(who="eve@example.org", reason="It hangs.", expected=expected)


def _written_entity(write: Write) -> Any:
    return write.record if isinstance(write, Append) else write.entity  # type: ignore[union-attr]


class ReservationMachine(RuleBasedStateMachine):
    """Two bays of one station, and everybody who may do something about them, in any order."""

    met: ClassVar[Counter[LeftoverKind]] = Counter()
    """How often each thing that may be left on a connector was seen to keep it busy."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.commit((Save(b.station(version=0)), Append(CARD)))
        self.starts: list[dict[str, Any]] = []
        self.answers: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.call_ids: list[str] = []
        self.silent = False
        self.swept_at: datetime | None = None

    @initialize(
        free=st.sampled_from([False, False, False, True]),
        plug_first=st.booleans(),
        asked=st.sampled_from([b.TARIFF, b.IDLING]),
        mailed=st.booleans(),
        setting=st.sampled_from([{}, {}, {}, *UNUSUAL]),
        silent=st.booleans(),
    )
    def open_station(
        self,
        free: bool,
        plug_first: bool,
        asked: Tariff,
        mailed: bool,
        setting: dict[str, timedelta],
        silent: bool,
    ) -> None:
        self.world.settings = {"start_needs_plug": plug_first, "email_receipts": mailed} | setting
        self.silent = silent
        self.world.carry_out(
            lambda before, _: build_outcome(
                before, replace(before, station=replace(before.station, free=free, tariff=asked))
            )
        )
        self.connect()
        for connector_id in CONNECTOR_IDS:
            self._send_call("StatusNotification", connectorId=connector_id, errorCode="NoError", status="Available")

    # What usually happens next, so that the machine gets far

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), times=st.integers(1, 4), delivered=st.sampled_from([1, 1, 2]))
    def advance_normally(self, connector_id: int, times: int, delivered: int) -> None:
        for _ in range(times):
            self._advance_session(self._read_connector(connector_id), delivered)

    def _advance_session(self, connector: Connector, delivered: int) -> None:
        """The next step of an undisturbed charge on the connector; each message arrives so many times."""
        number, now = connector.connector_id, self.world.now.isoformat()
        busy = busy_reasons(self.world.snapshot(), number, now=self.world.now, policy=self.world.policy)
        if "ChargerOffline" in busy:
            self.connect()
        elif connector.transaction is not None:
            self._advance_transaction(number, connector.transaction, delivered)
        elif not busy:
            self.create_reservation(number)
        elif connector.lock is not None and is_lock_active(connector.lock, self.world.now):
            self._advance_reservation(
                self.world.entities[f"RESERVATION#{connector.lock.reservation_id}", "RESERVATION"], delivered
            )
        else:
            for number_reported in (0, number):
                self._send_call(
                    "StatusNotification",
                    connectorId=number_reported,
                    errorCode="NoError",
                    status="Available",
                    timestamp=now,
                )

    def _advance_transaction(self, connector_id: int, running: OpenTransaction, delivered: int) -> None:
        number, now = int(running.transaction_id), self.world.now.isoformat()
        if running.metered_at is None:
            value = {"value": str(running.meter_start_wh + 3000)}
            entry = {"timestamp": now, "sampledValue": [value]}
            for _ in range(delivered):
                self._send_call("MeterValues", connectorId=connector_id, transactionId=number, meterValue=[entry])
            return
        for _ in range(delivered):
            meter = running.meter_start_wh + 5000
            self._send_call("StopTransaction", transactionId=number, meterStop=meter, timestamp=now)

    def _advance_reservation(self, held: Reservation, delivered: int) -> None:
        rid = held.reservation_id
        outbox_item = self.world.entities.get((f"RESERVATION#{rid}", f"EFFECT#{OutboxKind.OPEN_CHECKOUT}"))
        if held.state is S.PENDING_PAYMENT and held.checkout_id is None:
            for _ in range(delivered if outbox_item is not None else 0):
                self._perform(None, outbox_item, "done")
        elif held.state is S.PENDING_PAYMENT:
            self.world.paid.add(rid)
            word = Payment(status=PaymentStatus.AUTHORISED, payment_id="pi_1", authorised_amount=held.max_amount)
            for _ in range(delivered):
                self.world.change(rid, lambda s, m: checkout.apply_payment(s, word, m))
        elif held.state is S.WAITING_FOR_DISCONNECT:
            for _ in range(delivered):
                self._send_call(
                    "StatusNotification", connectorId=held.connector_id, errorCode="NoError", status="Available"
                )
        else:
            self._start_new_transaction(held.connector_id, held.id_tag)

    # The driver and the payment provider

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS))
    def create_reservation(self, connector_id: int) -> None:
        try:
            self.world.carry_out(lambda before, context: checkout.create(before, connector_id, context))
        except (ChargerOffline, ConnectorBusy):
            before = self.world.snapshot()
            assert busy_reasons(before, connector_id, now=self.world.now, policy=self.world.policy)

    @precondition(lambda self: self.world.all(Reservation))
    @rule(data=st.data())
    def cancel_reservation(self, data: st.DataObject) -> None:
        try:
            self.world.change(self._draw_entity(data, Reservation).reservation_id, checkout.cancel)
        except IllegalTransition:
            return

    @precondition(lambda self: [r for r in self.world.all(Reservation) if r.checkout_id])
    @rule(data=st.data(), said=st.sampled_from([*PaymentStatus, *[PaymentStatus.AUTHORISED] * 4]))
    def receive_payment(self, data: st.DataObject, said: PaymentStatus) -> None:
        held = self._draw_entity(data, Reservation, lambda r: r.checkout_id is not None)
        word = self._draw_payment(data, held, said)
        self.world.change(held.reservation_id, lambda s, m: checkout.apply_payment(s, word, m))

    @precondition(lambda self: [e for e in self.world.all(OutboxItem) if e.due_at])
    @rule(data=st.data(), ending=st.sampled_from(["done", "done", "done", "done twice", "unavailable", "refused"]))
    def perform_outbox_item(self, data: st.DataObject, ending: str) -> None:
        outbox_item = self._draw_entity(data, OutboxItem, lambda e: e.due_at is not None)
        for _ in range(2 if ending == "done twice" else 1):
            self._perform(data, outbox_item, ending)

    # The clock and the operator

    @rule(pause=st.sampled_from([*PAUSES * 4, *JUMPS]), swept=st.booleans())
    def pass_time(self, pause: timedelta, swept: bool) -> None:
        self.world.now += pause
        if swept:
            self._sweep()

    @precondition(lambda self: [c for c in self.world.all(Connector) if c.transaction])
    @rule(data=st.data())
    def close_transaction_as_operator(self, data: st.DataObject) -> None:
        self._close_transaction(self._draw_entity(data, Connector, lambda c: c.transaction is not None).connector_id)

    def _close_transaction(self, connector_id: int) -> None:
        self.world.carry_out(
            lambda before, context: build_outcome(
                before, transaction.end(before, connector_id, transaction.OPERATOR, context)
            ),
            lambda seen: self._transaction_read_set(seen, connector_id),
        )

    @precondition(lambda self: self.world.all(Reservation))
    @rule(data=st.data())
    def cancel_as_operator(self, data: st.DataObject) -> None:
        held = self._draw_entity(data, Reservation)
        with suppress(IllegalTransition):
            self.world.change(
                held.reservation_id, lambda s, m: operations.cancel_reservation(s, operator_command(held.state), m)
            )

    @rule(connector_id=st.sampled_from([0, *CONNECTOR_IDS]))
    def reset_status_as_operator(self, connector_id: int) -> None:
        def decide(before: Snapshot, context: Any) -> Outcome:
            command = operator_command(operations.status_state(before, connector_id, context))
            return build_outcome(before, operations.reset_status(before, connector_id, command, context))

        with suppress(IllegalTransition):
            self.world.carry_out(decide)

    @rule()
    def trigger_status_as_operator(self) -> None:
        def decide(before: Snapshot, context: Any) -> Outcome:
            command = operator_command(operations.presence_state(before, context))
            return build_outcome(before, operations.trigger_status(before, command, context))

        with suppress(ChargerOffline):
            self.world.carry_out(decide)

    # The station

    @rule(how=st.sampled_from(["disconnects", "connects", "boots"]))
    def connect_or_disconnect(self, how: str) -> None:
        if how == "connects":
            self.connect()
        elif how == "boots":
            self._send_call("BootNotification", chargePointVendor="ACME", chargePointModel="One")
        else:
            self.disconnect()

    def connect(self) -> None:
        """A new connection, as the service makes one."""

        def decide(before: Snapshot, context: Any) -> Outcome:
            old = before.presence
            lasting = old is not None and context.now < old.lease_until
            presence = b.presence(
                epoch=old.epoch if lasting and old is not None else context.fresh.epoch,
                lease_until=context.now + POLICY.presence_lease,
                version=old.version if old is not None else 0,
            )
            return build_outcome(before, status.ask_after_connect(replace(before, presence=presence), context))

        self.world.carry_out(decide)

    def disconnect(self) -> None:
        """The connection is gone."""
        self.world.carry_out(
            lambda before, _: build_outcome(
                before, replace(before, presence=before.presence and replace(before.presence, connection_id=None))
            )
        )

    @rule(data=st.data(), connector_id=st.sampled_from([*CONNECTOR_IDS * 4, -1, 0, 3]), raw=RAW)
    def report_status(self, data: st.DataObject, connector_id: int, raw: str) -> None:
        time = {"timestamp": self._draw_time(data)} if data.draw(st.booleans()) else {}
        self._send_call("StatusNotification", connectorId=connector_id, errorCode="NoError", status=raw, **time)

    @rule(data=st.data(), connector_id=st.sampled_from([1, 1, 2, 2, 0, 3]), meter=METERS)
    def start_transaction(self, data: st.DataObject, connector_id: int, meter: int) -> None:
        tag = data.draw(st.sampled_from([*(t.tag for t in self.world.all(IdTag)), "NOBODY"]))
        payload = {"connectorId": connector_id, "idTag": tag, "meterStart": meter, "timestamp": self._draw_time(data)}
        self.starts.append(payload)
        self._send_start(payload)

    @precondition(lambda self: [c for c in self.world.all(Connector) if c.lock and c.lock.state in PAID_STATES])
    @rule(data=st.data())
    def start_paid_transaction(self, data: st.DataObject) -> None:
        connector = self._draw_entity(data, Connector, lambda c: c.lock is not None and c.lock.state in PAID_STATES)
        where = data.draw(st.sampled_from([connector.connector_id, connector.connector_id, *CONNECTOR_IDS]))
        self._start_new_transaction(where, connector.lock.id_tag if connector.lock is not None else "")

    @precondition(lambda self: self.starts)
    @rule(data=st.data())
    def repeat_start_transaction(self, data: st.DataObject) -> None:
        payload = data.draw(st.sampled_from(self.starts))
        stored = dict(self.world.entities)
        assert next(a for p, a in self.answers if p == payload) == self._send_start(payload)
        assert stored == self.world.entities

    @rule(data=st.data(), connector_id=st.integers(0, 3), value=VALUES, unit=st.sampled_from(["Wh", "kWh"]))
    def send_meter_values(self, data: st.DataObject, connector_id: int, value: str, unit: str) -> None:
        entry = {"timestamp": self._draw_time(data), "sampledValue": [{"value": value, "unit": unit}]}
        named = {"transactionId": number} if (number := self._draw_transaction_id(data)) is not None else {}
        self._send_call("MeterValues", connectorId=connector_id, meterValue=[entry], **named)

    @rule(data=st.data(), meter=METERS, tag=st.sampled_from([None, "CARD", "NOBODY"]), sampled=st.none() | VALUES)
    def stop_transaction(self, data: st.DataObject, meter: int, tag: str | None, sampled: str | None) -> None:
        number = self._draw_transaction_id(data)
        payload: dict[str, Any] = {"transactionId": -1 if number is None else number, "meterStop": meter}
        if tag is not None:
            payload["idTag"] = data.draw(st.sampled_from([tag, *(t.tag for t in self.world.all(IdTag))]))
        if sampled is not None:
            payload["transactionData"] = [{"timestamp": "", "sampledValue": [{"value": sampled}]}]
        self._send_call("StopTransaction", **payload, timestamp=self._draw_time(data))

    @rule(data=st.data())
    def authorize_tag(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from([*(t.tag for t in self.world.all(IdTag)), "NOBODY"]))
        answer = self._send_call("Authorize", idTag=tag)
        web = next((t for t in self.world.all(IdTag) if t.tag == tag and t.reservation_id), None)
        if web is not None and answer["idTagInfo"]["status"] == "Accepted":
            held = self.world.entities[f"RESERVATION#{web.reservation_id}", "RESERVATION"]
            assert held.state in PAID_STATES, "a web tag is good only while its reservation may charge"

    @precondition(lambda self: self.world.all(OutboundCall))
    @rule(data=st.data())
    def send_queued_call(self, data: st.DataObject) -> None:
        call = self._draw_entity(data, OutboundCall)
        self.world.commit((Save(replace(call, state=CallState.SENT, due_at=self.world.now + POLICY.call_timeout)),))

    @precondition(lambda self: self.call_ids)
    @rule(data=st.data(), said=st.sampled_from(["Accepted", "Accepted", "Rejected", "NotSupported"]))
    def answer_call(self, data: st.DataObject, said: str) -> None:
        call_id = data.draw(st.sampled_from(self.call_ids))

        def find_call(seen: Snapshot) -> OutboundCall | None:
            return next((call for call in seen.calls if call.call_id == call_id), None)

        def decide(before: Snapshot, context: Any) -> Outcome:
            call = find_call(before)
            return build_outcome(before, b.answer_call(before, call, said, context)) if call is not None else Outcome()

        def build_read_set(seen: Snapshot) -> ReadSet:
            call = find_call(seen)
            return command_results.find_read_set(seen, call) if call is not None else ReadSet()

        self.world.carry_out(decide, build_read_set)

    # The law

    @invariant()
    def check_lock_ownership(self) -> None:
        names = []
        for connector in self.world.all(Connector):
            if connector.lock is None:
                continue
            names.append(connector.lock.reservation_id)
            held = self.world.entities[f"RESERVATION#{connector.lock.reservation_id}", "RESERVATION"]
            assert connector.connector_id in CONNECTOR_IDS
            assert held.state in LOCKING_STATES
            assert (held.connector_id, held.state, held.id_tag, held.expires_at) == (
                connector.connector_id,
                connector.lock.state,
                connector.lock.id_tag,
                connector.lock.expires_at,
            )
        assert len(names) == len(set(names)), "a reservation holds one connector"

    @invariant()
    def check_charging_transactions(self) -> None:
        for held in self.world.all(Reservation):
            if held.state is not S.CHARGING:
                continue
            connector = self._read_connector(held.connector_id)
            assert connector.lock is not None
            assert held.reservation_id == connector.lock.reservation_id
            assert connector.transaction is not None
            assert (held.transaction_id, held.reservation_id) == (
                connector.transaction.transaction_id,
                connector.transaction.reservation_id,
            )
            assert held.expires_at is None

    @invariant()
    def check_money_matches_state(self) -> None:
        owed = {(outbox_item.reservation_id, outbox_item.kind) for outbox_item in self.world.all(OutboxItem)}
        for held in self.world.all(Reservation):
            free = held.max_amount == 0
            assert (held.money is Money.AUTHORISED) == (held.state in PAID_STATES and not free), "no hold is forgotten"
            assert held.money is Money.NONE or not free
            if held.money is Money.RELEASING:
                assert (held.reservation_id, OutboxKind.RELEASE) in owed
            if held.money is Money.CAPTURING:
                assert (held.reservation_id, OutboxKind.CAPTURE) in owed
                assert held.capture_amount
            if held.money is Money.REFUNDING:
                assert (held.reservation_id, OutboxKind.REFUND) in owed
            if held.money is Money.CAPTURED:
                assert held.amount == (held.captured_amount or 0) - held.refunded_amount
            if held.state is S.COMPLETED:
                authorised = held.authorised_amount or 0
                due = tariff.capturable_amount(held.tariff, held.energy_wh, held.idle_seconds, authorised=authorised)
                assert due == held.amount
            assert (held.amount or 0) <= (held.authorised_amount or 0)
            assert (held.captured_amount or 0) <= (held.authorised_amount or 0)
            assert held.energy_wh >= 0

    @invariant()
    def check_open_transactions(self) -> None:
        open_ = {t.transaction_id: t for t in self.world.all(Transaction) if t.stopped_at is None}
        running = {c.transaction.transaction_id: c for c in self.world.all(Connector) if c.transaction is not None}
        assert running.keys() == {number for number, t in open_.items() if "Offline" not in t.flags}
        assert all(t.energy_wh >= 0 and int(t.transaction_id) > 0 for t in self.world.all(Transaction))
        assert all(c.transaction is None or c.transaction.energy_wh >= 0 for c in running.values())

    @invariant()
    def check_remote_start_status(self) -> None:
        for connector in self.world.all(Connector):
            if connector.persisted is not None and connector.persisted.source is StatusSource.REMOTE_START:
                assert connector.lock is not None
                held = self.world.entities[f"RESERVATION#{connector.lock.reservation_id}", "RESERVATION"]
                assert held.start_accepted_at is not None

    @invariant()
    def check_single_start(self) -> None:
        asked = [c.reservation_id for c in self.world.all(OutboundCall) if c.kind is CommandKind.REMOTE_START]
        assert len(asked) == len(set(asked))
        self.call_ids += [c.call_id for c in self.world.all(OutboundCall) if c.call_id not in self.call_ids]

    @invariant()
    def check_busy_limits(self) -> None:
        self._find_leftovers()

    def teardown(self) -> None:
        """Left alone, every connector with nothing on it can be started again in the documented time, and in the end no
        hold is left."""
        if sys.exception() is not None:
            return  # A law was broken before, and the report is about that one.
        if self.silent:
            self.world.now += POLICY.presence_lease
        self.connect()
        for connector_id in () if self.silent else (0, *CONNECTOR_IDS):
            self._send_call("StatusNotification", connectorId=connector_id, errorCode="NoError", status="Available")
        self._expire_leftovers()
        for connector_id in CONNECTOR_IDS:
            now, policy = self.world.now, self.world.policy
            assert {*busy_reasons(self.world.snapshot(), connector_id, now=now, policy=policy)} <= {"ChargerOffline"}
        self.world.now += timedelta(hours=25)
        self._sweep()
        assert not [held for held in self.world.all(Reservation) if held.state in LOCKING_STATES]

    def _expire_leftovers(self) -> None:
        """Nobody sweeps but where it is documented, and all that was left on the connectors goes in its time; what was
        set to stay for ever is closed by an operator."""

        def pass_time(pause: timedelta, swept: bool) -> None:
            self.world.now += pause
            if swept:
                self._sweep()

        pass_until_expired(self._find_leftovers, pass_time, lambda: self.world.now)
        for connector_id in [c.connector_id for c in self.world.all(Connector) if c.transaction is not None]:
            self._close_transaction(connector_id)
        pass_until_expired(self._find_leftovers, pass_time, lambda: self.world.now)

    def _find_leftovers(self) -> list[Leftover]:
        """What is left on the connectors and keeps them busy."""
        scene = Scene(self.world.now, tuple(self.world.entities.values()))
        seen, policy = self.world.snapshot(), self.world.policy
        said = {
            connector_id: explain(seen, connector_id, now=scene.now, policy=policy) for connector_id in CONNECTOR_IDS
        }
        left = check_leftovers(scene, said, policy, self.swept_at)
        self.met.update(one.kind for one in left)
        return left

    # Helpers

    def _draw_entity(self, data: st.DataObject, kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
        return data.draw(st.sampled_from([thing for thing in self.world.all(kind) if wanted(thing)]))

    def _read_connector(self, number: int) -> Connector:
        return self.world.snapshot().connector(number)

    def _draw_time(self, data: st.DataObject) -> str:
        """What a charger's clock may say."""
        ages = [timedelta(0), timedelta(0), timedelta(minutes=1), timedelta(days=1), -timedelta(days=400)]
        times = [(self.world.now - age).isoformat() for age in ages]
        return data.draw(st.sampled_from([*times, "1970-01-01T00:00:00Z", "", "0001-01-01T00:00:00+14:00"]))

    def _draw_transaction_id(self, data: st.DataObject) -> int | None:
        """A number that a charger may name, or none."""
        known = [int(t.transaction_id) for t in self.world.all(Transaction)]
        open_ = [int(c.transaction.transaction_id) for c in self.world.all(Connector) if c.transaction is not None]
        return data.draw(st.sampled_from([*open_, *open_, *known, None, 0, -1, 4711]))

    def _send_call(self, action: str, **payload: Any) -> dict[str, Any]:
        """The answer to a station's CALL, which is one that the schema allows: no CALL may raise."""
        accepted = accept(Protocol.OCPP16, action, payload)
        assert isinstance(accepted, Accepted)
        spoken = core.ACTIONS[action]

        def decide(before: Snapshot, context: Any) -> Outcome:
            after, answer = spoken.decide(before, accepted.payload, context)
            return build_outcome(before, after, answer)

        answer: dict[str, Any] = self.world.carry_out(decide, lambda seen: spoken.find_read_set(seen, accepted.payload))
        check(Protocol.OCPP16, action, answer, response=True)
        return answer

    def _start_new_transaction(self, connector_id: int, tag: str) -> None:
        now = self.world.now.isoformat()
        self.starts.append({"connectorId": connector_id, "idTag": tag, "meterStart": 1000, "timestamp": now})
        self._send_start(self.starts[-1])

    def _send_start(self, payload: dict[str, Any]) -> dict[str, Any]:
        answer = self._send_call("StartTransaction", **payload)
        self.answers.append((payload, answer))
        begun = self.world.entities[f"TRANSACTION#{answer['transactionId']}", "TRANSACTION"]
        web = next((t for t in self.world.all(IdTag) if t.tag == payload["idTag"] and t.reservation_id), None)
        if web is not None:
            accepted = answer["idTagInfo"]["status"] == "Accepted"
            assert accepted == (begun.reservation_id == web.reservation_id), "nobody charges for free"
        return answer

    def _draw_payment(self, data: st.DataObject | None, held: Reservation, said: PaymentStatus) -> Payment:
        """What the provider says; from then on the reservation counts as paid if it says so."""
        if said is not PaymentStatus.AUTHORISED or data is None:
            return Payment(status=said)
        self.world.paid.add(held.reservation_id)
        amount = data.draw(st.sampled_from([held.max_amount, held.max_amount, 300, 50, 0]))
        return Payment(status=said, payment_id="pi_1", authorised_amount=amount)

    def _perform(self, data: st.DataObject | None, outbox_item: OutboxItem, ending: str) -> None:
        """The provider was asked for what is owed, with this ending."""
        rid, kind = outbox_item.reservation_id, outbox_item.kind
        held = self.world.entities[f"RESERVATION#{rid}", "RESERVATION"]
        if ending in {"unavailable", "refused"}:
            self.world.change(
                rid, lambda s, m: settlement.put_off(s, kind, ending, m, final=ending == "refused"), kind=kind
            )
            return
        match kind:
            case OutboxKind.OPEN_CHECKOUT:
                opened = Checkout(checkout_id=f"cs-{rid}", url="https://pay.example")
                self.world.change(rid, lambda s, m: checkout.apply_opened_checkout(s, opened, m), kind=kind)
            case OutboxKind.EXPIRE_CHECKOUT:
                said = data.draw(st.sampled_from(PaymentStatus)) if data is not None else PaymentStatus.EXPIRED
                word = self._draw_payment(data, held, said)
                self.world.change(rid, lambda s, m: checkout.apply_expired_checkout(s, word, m), kind=kind)
            case OutboxKind.CAPTURE:
                taken = Payment(status=PaymentStatus.CAPTURED, captured_amount=held.capture_amount or 0)
                self.world.change(rid, lambda s, m: settlement.record_capture(s, taken, m), kind=kind)
            case OutboxKind.RELEASE:
                self.world.change(rid, settlement.record_release, kind=kind)
            case OutboxKind.REFUND:
                over = (held.captured_amount or 0) - (held.amount or 0)
                back = Payment(status=PaymentStatus.CAPTURED, refunded_amount=over)
                self.world.change(rid, lambda s, m: settlement.record_refund(s, back, m), kind=kind)
            case OutboxKind.EMAIL_RECEIPT:
                self.world.change(rid, settlement.record_receipt, kind=kind)

    def _transaction_read_set(self, seen: Snapshot, connector_id: int) -> ReadSet:
        running: OpenTransaction | None = seen.connector(connector_id).transaction
        if running is None:
            return ReadSet()
        return ReadSet(reservation_id=running.reservation_id, transaction_ids=(running.transaction_id,))

    def _sweep(self) -> None:
        """What is due is done, but for the provider, which does not answer."""
        now = self.swept_at = self.world.now
        for held in self.world.all(Reservation):
            if held.due_at is not None and held.due_at <= now:
                self.world.change(held.reservation_id, checkout.expire)
        for outbox_item in self.world.all(OutboxItem):
            if outbox_item.due_at is not None and outbox_item.due_at <= now:
                self._postpone(outbox_item)
        for call in self.world.all(OutboundCall):
            if call.due_at <= now:
                self.world.carry_out(
                    lambda before, context, call=call: chase_call(before, call, context),
                    lambda seen, call=call: status.find_status_read_set(seen, call),
                )
        for connector in self.world.all(Connector):
            if connector.due_at is not None and connector.due_at <= now:
                number = connector.connector_id
                self.world.carry_out(
                    lambda before, context, number=number: tidy_connector(before, number, context),
                    lambda seen, number=number: self._transaction_read_set(seen, number),
                )

    def _postpone(self, outbox_item: OutboxItem) -> None:
        rid, kind = outbox_item.reservation_id, outbox_item.kind
        if kind is OutboxKind.OPEN_CHECKOUT:
            self.world.change(rid, lambda s, m: checkout.apply_failed_checkout(s, "late", m))
        self.world.change(rid, lambda s, m: settlement.put_off(s, kind, "no answer", m, final=False), kind=kind)


@pytest.mark.note("F09", "F26", "F27", "F30", "F51", "F63", "F65")
def test_reservation_laws_hold_and_connectors_recover() -> None:
    ReservationMachine.met.clear()

    run_state_machine_as_test(
        ReservationMachine, settings=settings(max_examples=2000, stateful_step_count=40, deadline=None)
    )

    seldom = {left: times for left in LeftoverKind if (times := ReservationMachine.met[left]) < MINIMUM_MET}
    assert {} == seldom, "a machine that does not meet what it judges has gone blind"
