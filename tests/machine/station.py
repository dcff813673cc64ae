"""The rules of the station: messages and answers that it sends or leaves out, and lost sockets and starts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from csms.charging.start_gate import start_blockers
from csms.errors import Unauthorized
from csms.model import (
    CallState,
    CommandKind,
    OutboundCall,
    Reservation,
)
from csms.model import ReservationState as S
from csms.ocpp.v16.values import STATES
from csms.ports.payments import PaymentStatus
from tests import builders as b
from tests.invariants import PAID_STATES
from tests.machine.values import ACCEPTED, AUTHORIZATION, CONNECTOR_IDS, METERS, VALUES
from tests.machine.world import World

LOST_START: Final = "a remote start died with its socket"
PAID_AWAY: Final = "somebody paid while the station was away"
RAW: Final = st.sampled_from([*STATES, *["Available", "Preparing"] * 5]) | st.text(max_size=3)
ANSWERS: Final = [ACCEPTED] * 4 + [{"status": "Rejected"}, {"status": "NotImplemented"}, {}, None]


class StationRules(World):
    """A station that connects, reports, starts, stops and answers, in any order."""

    setting: dict[str, Any]

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
                self._act(lambda: self._open_socket("intruder", AUTHORIZATION[:-4] + "AAA="), Unauthorized)

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        says=st.sampled_from([None, ACCEPTED, {"status": "Rejected"}, "error"]),
    )
    def pay_while_station_offline(self, connector_id: int, says: Any) -> None:
        """A driver pays while the station is offline. Whatever the station answers to TriggerMessage, the start does
        not wait for a status forever."""
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
        """The socket is lost after RemoteStart was sent. The start is sent again, also if the station accepted it and
        then booted."""
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
        """The sent commands for a status that have no answer."""
        sent = [c for c in self._read_scene().read_calls() if c.state is CallState.SENT]
        return [call for call in sent if call.kind is CommandKind.TRIGGER_STATUS]

    @rule(data=st.data(), gone=st.booleans(), reported=st.sampled_from([True, True, False]))
    def close_socket(self, data: st.DataObject, gone: bool, reported: bool) -> None:
        """A socket closes. API Gateway may know it, and $disconnect may come late, repeatedly, or never."""
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

    @precondition(lambda self: [r for r in self._read_scene().all(Reservation) if r.state in PAID_STATES])
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
