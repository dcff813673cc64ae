"""The rules of drivers, chargers, providers, operators and the clock for the decisions, in any order."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from csms.charging import checkout, command_results, operations
from csms.errors import ChargerOffline, IllegalTransition
from csms.model import (
    CallState,
    Connector,
    IdTag,
    OutboundCall,
    OutboxItem,
    Outcome,
    ReadSet,
    Reservation,
    Save,
    Snapshot,
    Tariff,
    build_outcome,
)
from csms.ocpp.v16.values import STATES
from csms.ports.payments import PaymentStatus
from tests import builders as b
from tests.invariants import PAID_STATES
from tests.machine.reservation_actions import operator_command
from tests.machine.reservation_laws import ReservationLaws
from tests.machine.values import CONNECTOR_IDS, METERS, PAUSES, POLICY, UNUSUAL, VALUES

JUMPS: Final = [timedelta(minutes=minutes) for minutes in (11, 33, 62, 250, 24 * 60)]
RAW: Final = st.sampled_from([*STATES, *["Available", "Preparing"] * 5]) | st.text(max_size=3)


class ReservationMachine(ReservationLaws):
    """One station with two connectors, and every action on it in any order."""

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

    # Usual next steps, so that the machine reaches late states

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS), times=st.integers(1, 4), delivered=st.sampled_from([1, 1, 2]))
    def advance_normally(self, connector_id: int, times: int, delivered: int) -> None:
        for _ in range(times):
            self._advance_session(self._read_connector(connector_id), delivered)

    # The driver and the payment provider

    @rule(connector_id=st.sampled_from(CONNECTOR_IDS))
    def create_reservation(self, connector_id: int) -> None:
        self._create_reservation(connector_id)

    @precondition(lambda self: self.world.all(Reservation))
    @rule(data=st.data())
    def cancel_reservation(self, data: st.DataObject) -> None:
        try:
            self.world.change(self._draw_entity(data, Reservation).reservation_id, checkout.cancel)
        except IllegalTransition:
            return

    @precondition(lambda self: [r for r in self.world.all(Reservation) if r.checkout_id])
    @rule(data=st.data(), said=st.sampled_from([*PaymentStatus, *[PaymentStatus.AUTHORIZED] * 4]))
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
    @rule(
        data=st.data(),
        said=st.sampled_from(["Accepted", "Accepted", "Rejected", "NotSupported", "Scheduled", "accepted"]),
    )
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
