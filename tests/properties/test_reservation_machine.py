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
from tests.documented import Left, Leftover, overdue, wear_off
from tests.laws import Scene
from tests.machine.service import UNUSUAL
from tests.versions import accept, check

S = ReservationState
T = TypeVar("T")
POLICY: Final = Policy()
BAYS: Final = (1, 2)
SEEN: Final = 10
CARD: Final = IdTag(tag="CARD", status=TagStatus.ACCEPTED)
PAID: Final = {S.AUTHORIZED, S.START_REQUESTED, S.CHARGING, S.WAITING_FOR_DISCONNECT}
PAUSES: Final = [timedelta(**pause) for pause in ({"seconds": 1}, {"seconds": 40}, {"minutes": 2}, {"minutes": 6})]
JUMPS: Final = [timedelta(minutes=minutes) for minutes in (11, 33, 62, 250, 24 * 60)]
METERS: Final = st.sampled_from([1000, 1001, 1500, 9000, 12_000, 90_000]) | st.integers(-(2**53), 2**53)
RAW: Final = st.sampled_from([*STATES, *["Available", "Preparing"] * 5]) | st.text(max_size=3)
VALUES: Final = METERS.map(str) | st.sampled_from(["2,5", "1.5", "", "NaN", "1E999999", "1E99"])


def reach(pairs: Mapping[T, set[T]] | set[tuple[T, T]] | frozenset[tuple[T, T]]) -> set[tuple[T, T]]:
    """From where one can come to where: the transitive closure."""
    known = set(pairs)  # type: ignore[arg-type]
    while more := {(a, d) for a, x in known for y, d in known if x == y} - known:
        known |= more
    return known  # type: ignore[return-value]


FORWARD: Final = reach({(before, after) for (before, _), after in TRANSITIONS.items()})
ONWARD: Final = reach(set(MONEY_TRANSITIONS))


@dataclass(slots=True)
class World:
    """All that is stored, and the time; commits are checked against the versions that were read and against the law."""

    now: datetime = b.NOW
    things: dict[Key, Any] = field(default_factory=dict)
    paid: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=lambda: count(1))

    def moment(self) -> Any:
        """Now, with fresh ids."""
        return b.moment(self.now, serial=next(self.serials), **self.settings)

    @property
    def policy(self) -> Policy:
        """The settings as one value."""
        return Policy(**{"max_power_w": b.ANY_POWER_W} | self.settings)

    def all(self, kind: type[T]) -> list[T]:
        """Everything of a kind, oldest first."""
        return [thing for thing in self.things.values() if isinstance(thing, kind)]

    def snapshot(self, needs: Callable[[Snapshot], ReadSet] = lambda _: ReadSet()) -> Snapshot:
        """What the service would load."""
        (station,) = self.all(Station)
        seen = Snapshot(
            station=station,
            presence=next(iter(self.all(Presence)), None),
            connectors={c.connector_id: c for c in self.all(Connector)},
            calls=tuple(self.all(OutboundCall)),
        )
        wanted = needs(seen)
        rid, tag = wanted.reservation_id, fold(wanted.id_tag or "")
        if rid is None and wanted.with_ended_reservation:
            ended = [t for t in self.all(Transaction) if t.transaction_id in wanted.transaction_ids and t.stopped_at]
            rid = next((t.reservation_id for t in ended), None)
        return replace(
            seen,
            reservation=self.things.get((f"RESERVATION#{rid}", "RESERVATION")),
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
        keys = [KEYS[type(thing)](thing) for thing in map(_thing, writes)]
        assert len(keys) == len(set(keys)), "two writes to one key cannot be committed"
        for write, key in zip(writes, keys, strict=True):
            stored, thing = self.things.get(key), _thing(write)
            if isinstance(write, Append):
                assert not (write.once and stored), f"{key} exists"
                self.things[key] = thing
                continue
            assert (stored.version if stored else 0) == thing.version, f"{key} was read at another version"
            if isinstance(write, Save):
                self._obeys(stored, thing)
                self.things[key] = replace(thing, version=thing.version + 1)
            elif isinstance(write, Drop):
                del self.things[key]
        self.now += timedelta(milliseconds=1)

    def carry_out(
        self, decide: Callable[[Snapshot, Any], Outcome], needs: Callable[[Snapshot], ReadSet] = lambda _: ReadSet()
    ) -> Any:
        """The reply of a decision, which is committed."""
        outcome = decide(self.snapshot(needs), self.moment())
        self.commit(outcome.writes)
        return outcome.reply

    def change(self, rid: str, move: Callable[[Snapshot, Any], Snapshot], kind: OutboxKind | None = None) -> None:
        """The reservation moved; with `kind` only while that effect is owed, as the service does it."""

        def decide(before: Snapshot, moment: Any) -> Outcome:
            owed = kind is None or any(effect.kind is kind for effect in before.outbox_items)
            return build_outcome(before, move(before, moment) if owed else before)

        self.carry_out(decide, lambda _: ReadSet(reservation_id=rid, with_outbox=True))

    def _obeys(self, old: Any, new: Any) -> None:
        if isinstance(new, Reservation) and old is not None:
            assert old.state == new.state or (old.state, new.state) in FORWARD, "a reservation never moves backwards"
            assert old.money == new.money or (old.money, new.money) in ONWARD, "money never moves backwards"
            assert old.start_deadline in {None, new.start_deadline}, "a deadline never moves"
            assert old.tariff == new.tariff, "a tariff is frozen"
            begins = new.state is S.CHARGING and old.state is not S.CHARGING
            assert not begins or self.now <= new.start_deadline, "nobody starts after the deadline"
        if isinstance(new, Reservation) and new.state in PAID:
            assert new.reservation_id in self.paid or new.max_amount == 0, "nobody charges unpaid"
        if isinstance(new, Connector) and old is not None and new.transaction and old.transaction:
            same = new.transaction.transaction_id == old.transaction.transaction_id
            assert not same or new.transaction.energy_wh >= old.transaction.energy_wh, "energy never falls"


def signed(expected: str) -> OperatorCommand:
    """What an operator signs who sees things as they are."""
    return OperatorCommand(who="eve@example.org", reason="It hangs.", expected=expected)


def _thing(write: Write) -> Any:
    return write.record if isinstance(write, Append) else write.entity  # type: ignore[union-attr]


class ReservationMachine(RuleBasedStateMachine):
    """Two bays of one station, and everybody who may do something about them, in any order."""

    met: ClassVar[Counter[Left]] = Counter()
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
    def opens(
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
        self.connects()
        for bay in BAYS:
            self._say("StatusNotification", connectorId=bay, errorCode="NoError", status="Available")

    # What usually happens next, so that the machine gets far

    @rule(bay=st.sampled_from(BAYS), times=st.integers(1, 4), delivered=st.sampled_from([1, 1, 2]))
    def goes_on_as_usual(self, bay: int, times: int, delivered: int) -> None:
        for _ in range(times):
            self._next(self._bay(bay), delivered)

    def _next(self, bay: Connector, delivered: int) -> None:
        """The next step of an undisturbed charge on the connector; each message arrives so many times."""
        number, now = bay.connector_id, self.world.now.isoformat()
        busy = busy_reasons(self.world.snapshot(), number, now=self.world.now, policy=self.world.policy)
        if "ChargerOffline" in busy:
            self.connects()
        elif bay.transaction is not None:
            self._next_of_transaction(number, bay.transaction, delivered)
        elif not busy:
            self.creates(number)
        elif bay.lock is not None and is_lock_active(bay.lock, self.world.now):
            self._next_of_reservation(
                self.world.things[f"RESERVATION#{bay.lock.reservation_id}", "RESERVATION"], delivered
            )
        else:
            for told in (0, number):
                self._say(
                    "StatusNotification", connectorId=told, errorCode="NoError", status="Available", timestamp=now
                )

    def _next_of_transaction(self, bay: int, running: OpenTransaction, delivered: int) -> None:
        number, now = int(running.transaction_id), self.world.now.isoformat()
        if running.metered_at is None:
            value = {"value": str(running.meter_start_wh + 3000)}
            entry = {"timestamp": now, "sampledValue": [value]}
            for _ in range(delivered):
                self._say("MeterValues", connectorId=bay, transactionId=number, meterValue=[entry])
            return
        for _ in range(delivered):
            meter = running.meter_start_wh + 5000
            self._say("StopTransaction", transactionId=number, meterStop=meter, timestamp=now)

    def _next_of_reservation(self, held: Reservation, delivered: int) -> None:
        rid = held.reservation_id
        effect = self.world.things.get((f"RESERVATION#{rid}", f"EFFECT#{OutboxKind.OPEN_CHECKOUT}"))
        if held.state is S.PENDING_PAYMENT and held.checkout_id is None:
            for _ in range(delivered if effect is not None else 0):
                self._perform(None, effect, "done")
        elif held.state is S.PENDING_PAYMENT:
            self.world.paid.add(rid)
            word = Payment(status=PaymentStatus.AUTHORISED, payment_id="pi_1", authorised_amount=held.max_amount)
            for _ in range(delivered):
                self.world.change(rid, lambda s, m: checkout.apply_payment(s, word, m))
        elif held.state is S.WAITING_FOR_DISCONNECT:
            for _ in range(delivered):
                self._say("StatusNotification", connectorId=held.connector_id, errorCode="NoError", status="Available")
        else:
            self._start_of(held.connector_id, held.id_tag)

    # The driver and the payment provider

    @rule(bay=st.sampled_from(BAYS))
    def creates(self, bay: int) -> None:
        try:
            self.world.carry_out(lambda before, moment: checkout.create(before, bay, moment))
        except (ChargerOffline, ConnectorBusy):
            before = self.world.snapshot()
            assert busy_reasons(before, bay, now=self.world.now, policy=self.world.policy)

    @precondition(lambda self: self.world.all(Reservation))
    @rule(data=st.data())
    def cancels(self, data: st.DataObject) -> None:
        try:
            self.world.change(self._any(data, Reservation).reservation_id, checkout.cancel)
        except IllegalTransition:
            return

    @precondition(lambda self: [r for r in self.world.all(Reservation) if r.checkout_id])
    @rule(data=st.data(), said=st.sampled_from([*PaymentStatus, *[PaymentStatus.AUTHORISED] * 4]))
    def hears_of_a_payment(self, data: st.DataObject, said: PaymentStatus) -> None:
        held = self._any(data, Reservation, lambda r: r.checkout_id is not None)
        word = self._word(data, held, said)
        self.world.change(held.reservation_id, lambda s, m: checkout.apply_payment(s, word, m))

    @precondition(lambda self: [e for e in self.world.all(OutboxItem) if e.due_at])
    @rule(data=st.data(), ending=st.sampled_from(["done", "done", "done", "done twice", "unavailable", "refused"]))
    def performs_what_is_owed(self, data: st.DataObject, ending: str) -> None:
        effect = self._any(data, OutboxItem, lambda e: e.due_at is not None)
        for _ in range(2 if ending == "done twice" else 1):
            self._perform(data, effect, ending)

    # The clock and the operator

    @rule(pause=st.sampled_from([*PAUSES * 4, *JUMPS]), swept=st.booleans())
    def time_passes(self, pause: timedelta, swept: bool) -> None:
        self.world.now += pause
        if swept:
            self._sweep()

    @precondition(lambda self: [c for c in self.world.all(Connector) if c.transaction])
    @rule(data=st.data())
    def operator_closes_a_transaction(self, data: st.DataObject) -> None:
        self._closes(self._any(data, Connector, lambda c: c.transaction is not None).connector_id)

    def _closes(self, bay: int) -> None:
        self.world.carry_out(
            lambda before, moment: build_outcome(before, transaction.end(before, bay, transaction.OPERATOR, moment)),
            lambda seen: self._running(seen, bay),
        )

    @precondition(lambda self: self.world.all(Reservation))
    @rule(data=st.data())
    def operator_cancels(self, data: st.DataObject) -> None:
        held = self._any(data, Reservation)
        with suppress(IllegalTransition):
            self.world.change(held.reservation_id, lambda s, m: operations.cancel_reservation(s, signed(held.state), m))

    @rule(bay=st.sampled_from([0, *BAYS]))
    def operator_resets_a_status(self, bay: int) -> None:
        def decide(before: Snapshot, moment: Any) -> Outcome:
            order = signed(operations.status_state(before, bay, moment))
            return build_outcome(before, operations.reset_status(before, bay, order, moment))

        with suppress(IllegalTransition):
            self.world.carry_out(decide)

    @rule()
    def operator_asks_how_it_is(self) -> None:
        def decide(before: Snapshot, moment: Any) -> Outcome:
            order = signed(operations.presence_state(before, moment))
            return build_outcome(before, operations.trigger_status(before, order, moment))

        with suppress(ChargerOffline):
            self.world.carry_out(decide)

    # The station

    @rule(how=st.sampled_from(["disconnects", "connects", "boots"]))
    def comes_or_goes(self, how: str) -> None:
        if how == "connects":
            self.connects()
        elif how == "boots":
            self._say("BootNotification", chargePointVendor="ACME", chargePointModel="One")
        else:
            self.disconnects()

    def connects(self) -> None:
        """A new connection, as the service makes one."""

        def decide(before: Snapshot, moment: Any) -> Outcome:
            old = before.presence
            lasting = old is not None and moment.now < old.lease_until
            presence = b.presence(
                epoch=old.epoch if lasting and old is not None else moment.fresh.epoch,
                lease_until=moment.now + POLICY.presence_lease,
                version=old.version if old is not None else 0,
            )
            return build_outcome(before, status.ask_after_connect(replace(before, presence=presence), moment))

        self.world.carry_out(decide)

    def disconnects(self) -> None:
        """The connection is gone."""
        self.world.carry_out(
            lambda before, _: build_outcome(
                before, replace(before, presence=before.presence and replace(before.presence, connection_id=None))
            )
        )

    @rule(data=st.data(), bay=st.sampled_from([*BAYS * 4, -1, 0, 3]), raw=RAW)
    def tells_a_status(self, data: st.DataObject, bay: int, raw: str) -> None:
        time = {"timestamp": self._time(data)} if data.draw(st.booleans()) else {}
        self._say("StatusNotification", connectorId=bay, errorCode="NoError", status=raw, **time)

    @rule(data=st.data(), bay=st.sampled_from([1, 1, 2, 2, 0, 3]), meter=METERS)
    def starts_a_transaction(self, data: st.DataObject, bay: int, meter: int) -> None:
        tag = data.draw(st.sampled_from([*(t.tag for t in self.world.all(IdTag)), "NOBODY"]))
        payload = {"connectorId": bay, "idTag": tag, "meterStart": meter, "timestamp": self._time(data)}
        self.starts.append(payload)
        self._start(payload)

    @precondition(lambda self: [c for c in self.world.all(Connector) if c.lock and c.lock.state in PAID])
    @rule(data=st.data())
    def starts_what_was_paid_for(self, data: st.DataObject) -> None:
        bay = self._any(data, Connector, lambda c: c.lock is not None and c.lock.state in PAID)
        where = data.draw(st.sampled_from([bay.connector_id, bay.connector_id, *BAYS]))
        self._start_of(where, bay.lock.id_tag if bay.lock is not None else "")

    @precondition(lambda self: self.starts)
    @rule(data=st.data())
    def starts_the_same_again(self, data: st.DataObject) -> None:
        payload = data.draw(st.sampled_from(self.starts))
        stored = dict(self.world.things)
        assert next(a for p, a in self.answers if p == payload) == self._start(payload)
        assert stored == self.world.things

    @rule(data=st.data(), bay=st.integers(0, 3), value=VALUES, unit=st.sampled_from(["Wh", "kWh"]))
    def meters(self, data: st.DataObject, bay: int, value: str, unit: str) -> None:
        entry = {"timestamp": self._time(data), "sampledValue": [{"value": value, "unit": unit}]}
        named = {"transactionId": number} if (number := self._transaction(data)) is not None else {}
        self._say("MeterValues", connectorId=bay, meterValue=[entry], **named)

    @rule(data=st.data(), meter=METERS, tag=st.sampled_from([None, "CARD", "NOBODY"]), sampled=st.none() | VALUES)
    def stops_a_transaction(self, data: st.DataObject, meter: int, tag: str | None, sampled: str | None) -> None:
        number = self._transaction(data)
        payload: dict[str, Any] = {"transactionId": -1 if number is None else number, "meterStop": meter}
        if tag is not None:
            payload["idTag"] = data.draw(st.sampled_from([tag, *(t.tag for t in self.world.all(IdTag))]))
        if sampled is not None:
            payload["transactionData"] = [{"timestamp": "", "sampledValue": [{"value": sampled}]}]
        self._say("StopTransaction", **payload, timestamp=self._time(data))

    @rule(data=st.data())
    def asks_about_a_tag(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from([*(t.tag for t in self.world.all(IdTag)), "NOBODY"]))
        answer = self._say("Authorize", idTag=tag)
        web = next((t for t in self.world.all(IdTag) if t.tag == tag and t.reservation_id), None)
        if web is not None and answer["idTagInfo"]["status"] == "Accepted":
            held = self.world.things[f"RESERVATION#{web.reservation_id}", "RESERVATION"]
            assert held.state in PAID, "a web tag is good only while its reservation may charge"

    @precondition(lambda self: self.world.all(OutboundCall))
    @rule(data=st.data())
    def sends_a_call(self, data: st.DataObject) -> None:
        call = self._any(data, OutboundCall)
        self.world.commit((Save(replace(call, state=CallState.SENT, due_at=self.world.now + POLICY.call_timeout)),))

    @precondition(lambda self: self.call_ids)
    @rule(data=st.data(), said=st.sampled_from(["Accepted", "Accepted", "Rejected", "NotSupported"]))
    def answers_a_call_once_or_twice_or_late(self, data: st.DataObject, said: str) -> None:
        call_id = data.draw(st.sampled_from(self.call_ids))

        def named(seen: Snapshot) -> OutboundCall | None:
            return next((call for call in seen.calls if call.call_id == call_id), None)

        def decide(before: Snapshot, moment: Any) -> Outcome:
            call = named(before)
            return build_outcome(before, b.answered(before, call, said, moment)) if call is not None else Outcome()

        def needs(seen: Snapshot) -> ReadSet:
            call = named(seen)
            return command_results.find_read_set(seen, call) if call is not None else ReadSet()

        self.world.carry_out(decide, needs)

    # The law

    @invariant()
    def a_lock_is_that_of_a_reservation_that_holds(self) -> None:
        names = []
        for bay in self.world.all(Connector):
            if bay.lock is None:
                continue
            names.append(bay.lock.reservation_id)
            held = self.world.things[f"RESERVATION#{bay.lock.reservation_id}", "RESERVATION"]
            assert bay.connector_id in BAYS
            assert held.state in LOCKING_STATES
            assert (held.connector_id, held.state, held.id_tag, held.expires_at) == (
                bay.connector_id,
                bay.lock.state,
                bay.lock.id_tag,
                bay.lock.expires_at,
            )
        assert len(names) == len(set(names)), "a reservation holds one connector"

    @invariant()
    def whoever_charges_holds_the_connector_and_runs_on_it(self) -> None:
        for held in self.world.all(Reservation):
            if held.state is not S.CHARGING:
                continue
            bay = self._bay(held.connector_id)
            assert bay.lock is not None
            assert held.reservation_id == bay.lock.reservation_id
            assert bay.transaction is not None
            assert (held.transaction_id, held.reservation_id) == (
                bay.transaction.transaction_id,
                bay.transaction.reservation_id,
            )
            assert held.expires_at is None

    @invariant()
    def money_stands_where_the_state_says(self) -> None:
        owed = {(effect.reservation_id, effect.kind) for effect in self.world.all(OutboxItem)}
        for held in self.world.all(Reservation):
            free = held.max_amount == 0
            assert (held.money is Money.AUTHORISED) == (held.state in PAID and not free), "no hold is forgotten"
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
    def an_open_transaction_is_on_its_connector(self) -> None:
        open_ = {t.transaction_id: t for t in self.world.all(Transaction) if t.stopped_at is None}
        running = {c.transaction.transaction_id: c for c in self.world.all(Connector) if c.transaction is not None}
        assert running.keys() == {number for number, t in open_.items() if "Offline" not in t.flags}
        assert all(t.energy_wh >= 0 and int(t.transaction_id) > 0 for t in self.world.all(Transaction))
        assert all(c.transaction is None or c.transaction.energy_wh >= 0 for c in running.values())

    @invariant()
    def what_the_server_made_up_ends_with_its_lock(self) -> None:
        for bay in self.world.all(Connector):
            if bay.persisted is not None and bay.persisted.source is StatusSource.REMOTE_START:
                assert bay.lock is not None
                held = self.world.things[f"RESERVATION#{bay.lock.reservation_id}", "RESERVATION"]
                assert held.start_accepted_at is not None

    @invariant()
    def nobody_is_started_twice(self) -> None:
        asked = [c.reservation_id for c in self.world.all(OutboundCall) if c.kind is CommandKind.REMOTE_START]
        assert len(asked) == len(set(asked))
        self.call_ids += [c.call_id for c in self.world.all(OutboundCall) if c.call_id not in self.call_ids]

    @invariant()
    def nobody_waits_longer_than_is_documented(self) -> None:
        self._left()

    def teardown(self) -> None:
        """Left alone, every connector with nothing on it can be started again in the documented time, and in the end no
        hold is left."""
        if sys.exception() is not None:
            return  # A law was broken before, and the report is about that one.
        if self.silent:
            self.world.now += POLICY.presence_lease
        self.connects()
        for bay in () if self.silent else (0, *BAYS):
            self._say("StatusNotification", connectorId=bay, errorCode="NoError", status="Available")
        self._wears_off()
        for bay in BAYS:
            now, policy = self.world.now, self.world.policy
            assert {*busy_reasons(self.world.snapshot(), bay, now=now, policy=policy)} <= {"ChargerOffline"}
        self.world.now += timedelta(hours=25)
        self._sweep()
        assert not [held for held in self.world.all(Reservation) if held.state in LOCKING_STATES]

    def _wears_off(self) -> None:
        """Nobody sweeps but where it is documented, and all that was left on the connectors goes in its time; what was
        set to stay for ever is closed by an operator."""

        def passes(pause: timedelta, swept: bool) -> None:
            self.world.now += pause
            if swept:
                self._sweep()

        wear_off(self._left, passes, lambda: self.world.now)
        for bay in [c.connector_id for c in self.world.all(Connector) if c.transaction is not None]:
            self._closes(bay)
        wear_off(self._left, passes, lambda: self.world.now)

    def _left(self) -> list[Leftover]:
        """What is left on the connectors and keeps them busy."""
        scene = Scene(self.world.now, tuple(self.world.things.values()))
        seen, policy = self.world.snapshot(), self.world.policy
        said = {bay: explain(seen, bay, now=scene.now, policy=policy) for bay in BAYS}
        left = overdue(scene, said, policy, self.swept_at)
        self.met.update(one.left for one in left)
        return left

    # Helpers

    def _any(self, data: st.DataObject, kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
        return data.draw(st.sampled_from([thing for thing in self.world.all(kind) if wanted(thing)]))

    def _bay(self, number: int) -> Connector:
        return self.world.snapshot().connector(number)

    def _time(self, data: st.DataObject) -> str:
        """What a charger's clock may say."""
        ages = [timedelta(0), timedelta(0), timedelta(minutes=1), timedelta(days=1), -timedelta(days=400)]
        told = [(self.world.now - age).isoformat() for age in ages]
        return data.draw(st.sampled_from([*told, "1970-01-01T00:00:00Z", "", "0001-01-01T00:00:00+14:00"]))

    def _transaction(self, data: st.DataObject) -> int | None:
        """A number that a charger may name, or none."""
        known = [int(t.transaction_id) for t in self.world.all(Transaction)]
        open_ = [int(c.transaction.transaction_id) for c in self.world.all(Connector) if c.transaction is not None]
        return data.draw(st.sampled_from([*open_, *open_, *known, None, 0, -1, 4711]))

    def _say(self, action: str, **payload: Any) -> dict[str, Any]:
        """The answer to a station's CALL, which is one that the schema allows: no CALL may raise."""
        accepted = accept(Protocol.OCPP16, action, payload)
        assert isinstance(accepted, Accepted)
        spoken = core.ACTIONS[action]

        def decide(before: Snapshot, moment: Any) -> Outcome:
            after, answer = spoken.decide(before, accepted.payload, moment)
            return build_outcome(before, after, answer)

        answer: dict[str, Any] = self.world.carry_out(decide, lambda seen: spoken.find_read_set(seen, accepted.payload))
        check(Protocol.OCPP16, action, answer, response=True)
        return answer

    def _start_of(self, bay: int, tag: str) -> None:
        now = self.world.now.isoformat()
        self.starts.append({"connectorId": bay, "idTag": tag, "meterStart": 1000, "timestamp": now})
        self._start(self.starts[-1])

    def _start(self, payload: dict[str, Any]) -> dict[str, Any]:
        answer = self._say("StartTransaction", **payload)
        self.answers.append((payload, answer))
        begun = self.world.things[f"TRANSACTION#{answer['transactionId']}", "TRANSACTION"]
        web = next((t for t in self.world.all(IdTag) if t.tag == payload["idTag"] and t.reservation_id), None)
        if web is not None:
            accepted = answer["idTagInfo"]["status"] == "Accepted"
            assert accepted == (begun.reservation_id == web.reservation_id), "nobody charges for free"
        return answer

    def _word(self, data: st.DataObject | None, held: Reservation, said: PaymentStatus) -> Payment:
        """What the provider says; from then on the reservation counts as paid if it says so."""
        if said is not PaymentStatus.AUTHORISED or data is None:
            return Payment(status=said)
        self.world.paid.add(held.reservation_id)
        amount = data.draw(st.sampled_from([held.max_amount, held.max_amount, 300, 50, 0]))
        return Payment(status=said, payment_id="pi_1", authorised_amount=amount)

    def _perform(self, data: st.DataObject | None, effect: OutboxItem, ending: str) -> None:
        """The provider was asked for what is owed, with this ending."""
        rid, kind = effect.reservation_id, effect.kind
        held = self.world.things[f"RESERVATION#{rid}", "RESERVATION"]
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
                word = self._word(data, held, said)
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

    def _running(self, seen: Snapshot, bay: int) -> ReadSet:
        running: OpenTransaction | None = seen.connector(bay).transaction
        if running is None:
            return ReadSet()
        return ReadSet(reservation_id=running.reservation_id, transaction_ids=(running.transaction_id,))

    def _sweep(self) -> None:
        """What is due is done, but for the provider, which does not answer."""
        now = self.swept_at = self.world.now
        for held in self.world.all(Reservation):
            if held.due_at is not None and held.due_at <= now:
                self.world.change(held.reservation_id, checkout.expire)
        for effect in self.world.all(OutboxItem):
            if effect.due_at is not None and effect.due_at <= now:
                self._put_off(effect)
        for call in self.world.all(OutboundCall):
            if call.due_at <= now:
                self.world.carry_out(
                    lambda before, moment, call=call: chase_call(before, call, moment),
                    lambda seen, call=call: status.find_status_read_set(seen, call),
                )
        for bay in self.world.all(Connector):
            if bay.due_at is not None and bay.due_at <= now:
                number = bay.connector_id
                self.world.carry_out(
                    lambda before, moment, number=number: tidy_connector(before, number, moment),
                    lambda seen, number=number: self._running(seen, number),
                )

    def _put_off(self, effect: OutboxItem) -> None:
        rid, kind = effect.reservation_id, effect.kind
        if kind is OutboxKind.OPEN_CHECKOUT:
            self.world.change(rid, lambda s, m: checkout.apply_failed_checkout(s, "late", m))
        self.world.change(rid, lambda s, m: settlement.put_off(s, kind, "no answer", m, final=False), kind=kind)


@pytest.mark.note("F09", "F26", "F27", "F30", "F51", "F63", "F65")
def test_reservation_laws_hold_and_connectors_recover() -> None:
    ReservationMachine.met.clear()

    run_state_machine_as_test(
        ReservationMachine, settings=settings(max_examples=2000, stateful_step_count=40, deadline=None)
    )

    seldom = {left: times for left in Left if (times := ReservationMachine.met[left]) < SEEN}
    assert {} == seldom, "a machine that does not meet what it judges has gone blind"
