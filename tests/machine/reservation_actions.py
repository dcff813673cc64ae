"""The actions of drivers, providers, the station and the clock on the decisions, and the usual next steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from csms.charging import checkout, operations, settlement, status
from csms.charging.due import chase_call, tidy_connector
from csms.charging.operations import OperatorCommand
from csms.errors import ChargerOffline, ConnectorBusy
from csms.model import (
    Append,
    Connector,
    IdTag,
    OpenTransaction,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Outcome,
    Protocol,
    ReadSet,
    Reservation,
    Save,
    Snapshot,
    Transaction,
    build_outcome,
)
from csms.model import ReservationState as S
from csms.occupancy import busy_reasons, is_lock_active
from csms.ocpp.schemas import Accepted
from csms.ocpp.v16 import core
from csms.ports.payments import Checkout, Payment, PaymentStatus
from tests import builders as b
from tests.machine.memory_world import MemoryWorld
from tests.machine.values import CARD, POLICY
from tests.versions import accept, check

T = TypeVar("T")


def operator_command(expected: str) -> OperatorCommand:
    """The command of an operator who sees the present state."""
    return OperatorCommand(who="eve@example.org", reason="It hangs.", expected=expected)


class ReservationActions(RuleBasedStateMachine):
    """One station with two connectors in memory, and every single action on it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = MemoryWorld()
        self.world.commit((Save(b.station(version=0)), Append(CARD)))
        self.starts: list[dict[str, Any]] = []
        self.answers: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.call_ids: list[str] = []
        self.silent = False
        self.swept_at: datetime | None = None

    # Single actions

    def connect(self) -> None:
        """Connect the station as the service does."""

        def decide(before: Snapshot, context: Any) -> Outcome:
            old = before.presence
            lasting = old is not None and context.now < old.lease_until
            presence = b.presence(
                epoch=old.epoch if lasting and old is not None else context.new_ids.epoch,
                lease_until=context.now + POLICY.presence_lease,
                version=old.version if old is not None else 0,
            )
            return build_outcome(before, status.ask_after_connect(replace(before, presence=presence), context))

        self.world.carry_out(decide)

    def disconnect(self) -> None:
        """Remove the connection."""
        self.world.carry_out(
            lambda before, _: build_outcome(
                before, replace(before, presence=before.presence and replace(before.presence, connection_id=None))
            )
        )

    def _create_reservation(self, connector_id: int) -> None:
        try:
            self.world.carry_out(lambda before, context: checkout.create(before, connector_id, context))
        except (ChargerOffline, ConnectorBusy):
            before = self.world.snapshot()
            assert busy_reasons(before, connector_id, now=self.world.now, policy=self.world.policy)

    def _send_call(self, action: str, **payload: Any) -> dict[str, Any]:
        """Send a CALL as the station and return the answer, which must fit the schema. No CALL may raise."""
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
        """The provider's answer; if it is authorized, the reservation counts as paid from now on."""
        if said is not PaymentStatus.AUTHORIZED or data is None:
            return Payment(status=said)
        self.world.paid.add(held.reservation_id)
        amount = data.draw(st.sampled_from([held.max_amount, held.max_amount, 300, 50, 0]))
        return Payment(status=said, payment_id="pi_1", authorised_amount=amount)

    def _perform(self, data: st.DataObject | None, outbox_item: OutboxItem, ending: str) -> None:
        """Perform the outbox item with this result."""
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

    def _close_transaction(self, connector_id: int) -> None:
        running = self._read_connector(connector_id).transaction
        assert running is not None
        command = operator_command(operations.OPEN)
        self.world.carry_out(
            lambda before, context: build_outcome(
                before, operations.close_transaction(before, running.transaction_id, command, context)
            ),
            lambda seen: self._transaction_read_set(seen, connector_id),
        )

    def _transaction_read_set(self, seen: Snapshot, connector_id: int) -> ReadSet:
        running: OpenTransaction | None = seen.connector(connector_id).transaction
        if running is None:
            return ReadSet()
        return ReadSet(reservation_id=running.reservation_id, transaction_ids=(running.transaction_id,))

    def _sweep(self) -> None:
        """Do what is due, with a provider that does not answer."""
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

    # Usual next steps

    def _advance_session(self, connector: Connector, delivered: int) -> None:
        """Take the next step of an undisturbed charge on the connector; each message is delivered so many times."""
        number, now = connector.connector_id, self.world.now.isoformat()
        busy = busy_reasons(self.world.snapshot(), number, now=self.world.now, policy=self.world.policy)
        if "ChargerOffline" in busy:
            self.connect()
        elif connector.transaction is not None:
            self._advance_transaction(number, connector.transaction, delivered)
        elif not busy:
            self._create_reservation(number)
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
            word = Payment(status=PaymentStatus.AUTHORIZED, payment_id="pi_1", authorised_amount=held.max_amount)
            for _ in range(delivered):
                self.world.change(rid, lambda s, m: checkout.apply_payment(s, word, m))
        elif held.state is S.WAITING_FOR_DISCONNECT:
            for _ in range(delivered):
                self._send_call(
                    "StatusNotification", connectorId=held.connector_id, errorCode="NoError", status="Available"
                )
        else:
            self._start_new_transaction(held.connector_id, held.id_tag)

    # What is drawn

    def _draw_entity(self, data: st.DataObject, kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
        return data.draw(st.sampled_from([thing for thing in self.world.all(kind) if wanted(thing)]))

    def _read_connector(self, number: int) -> Connector:
        return self.world.snapshot().connector(number)

    def _draw_time(self, data: st.DataObject) -> str:
        """A time that a charger's clock may give."""
        ages = [timedelta(0), timedelta(0), timedelta(minutes=1), timedelta(days=1), -timedelta(days=400)]
        times = [(self.world.now - age).isoformat() for age in ages]
        return data.draw(st.sampled_from([*times, "1970-01-01T00:00:00Z", "", "0001-01-01T00:00:00+14:00"]))

    def _draw_transaction_id(self, data: st.DataObject) -> int | None:
        """A transaction id that a charger may send, or None for none."""
        known = [int(t.transaction_id) for t in self.world.all(Transaction)]
        open_ = [int(c.transaction.transaction_id) for c in self.world.all(Connector) if c.transaction is not None]
        return data.draw(st.sampled_from([*open_, *open_, *known, None, 0, -1, 4711]))
