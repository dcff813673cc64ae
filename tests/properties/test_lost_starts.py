"""Whatever order of plug, pay, vanish and come back: no energy is delivered on a card whose driver did nothing at that
connector, and no start that was accepted and happened in its window goes unbilled."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from csms.errors import CsmsError
from csms.model import Money, ReservationState, format_time
from csms.pricing import tariff
from tests.app import CONNECTORS, METER_START
from tests.app.in_process import InProcessApp
from tests.builders import MINUTE, SECOND
from tests.machine.actions import NO_CLOCK

CONNECTION_TIMEOUT: Final = 2 * MINUTE
"""How long the station waits for the plug after it has accepted a start (ConnectionTimeOut)."""

ENERGY_WH: Final = 5000
SEQUENCES: Final = 120
STEPS: Final = 15
REACHED: Final = (
    "billed",
    "billed late",
    "billed late after cancel",
    "billed beside another",
    "moved by a tap",
    "told without a clock",
    "plugged elsewhere",
)
"""What must happen, or the machine has gone blind."""


@dataclass(slots=True)
class Session:
    """What happened at the station with one tag."""

    tag: str
    connector_id: int
    began_at: datetime
    is_clockless: bool
    is_in_queue: bool
    transaction_id: int | None = None
    is_running: bool = True


@dataclass(slots=True)
class Station:
    """A station with cars: it obeys commands that reach it, and queues what it cannot report."""

    is_here: bool = True
    is_clockless: bool = False
    plugged: set[int] = field(default_factory=set)
    granted: dict[int, tuple[str, datetime]] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    queue: list[tuple[str, Session]] = field(default_factory=list)
    read: int = 0
    sockets: int = 0

    @property
    def socket(self) -> str:
        """The name of the present connection."""
        return f"S{self.sockets}"

    def running(self, connector_id: int) -> Session | None:
        """The session that delivers energy at the connector."""
        return next((s for s in self.sessions if s.is_running and s.connector_id == connector_id), None)


class LostStarts(RuleBasedStateMachine):
    """Drivers pay, plug in and give up at a station that comes and goes."""

    reached: ClassVar[Counter[str]] = Counter()

    @initialize(clockless=st.sampled_from([False, False, False, True]))
    def open_station(self, clockless: bool) -> None:
        self.app = InProcessApp(socket="S0").register().bring_online()
        self.station = Station(is_clockless=clockless)
        self.asked: dict[str, set[int]] = {}
        self.ended: dict[str, datetime] = {}
        self.begun_with: dict[str, list[Session]] = {}

    # Drivers

    @rule(connector_id=st.sampled_from(CONNECTORS))
    def pay(self, connector_id: int) -> None:
        self.app.clock.move(SECOND)
        try:
            reservation_id = self.app.create_paid_reservation(connector_id)
        except CsmsError:
            return
        self.asked[reservation_id] = {connector_id}
        self._obey()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.app.clock.move(SECOND)
        self._cancel(data.draw(st.sampled_from(sorted(self.asked))))

    def _cancel(self, reservation_id: str) -> None:
        try:
            self.app.cancel(reservation_id)
        except CsmsError:
            return
        self.ended.setdefault(reservation_id, self.app.now())
        self._obey()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def tap_offer(self, data: st.DataObject) -> None:
        self.app.clock.move(SECOND)
        self._tap(data.draw(st.sampled_from(sorted(self.asked))))

    def _tap(self, reservation_id: str) -> None:
        for offer in self.app.status(reservation_id).get("pluggedElsewhere", ()):
            self._count("plugged elsewhere")
            if not offer["startable"]:
                continue
            self.asked[reservation_id].add(offer["connectorId"])
            self.app.drivers.move(reservation_id, offer["connectorId"])
            self._count("moved by a tap")
            self._obey()
            return

    # Cars

    @rule(connector_id=st.sampled_from(CONNECTORS))
    def plug_in(self, connector_id: int) -> None:
        self.app.clock.move(SECOND)
        if connector_id in self.station.plugged:
            return
        self.station.plugged.add(connector_id)
        self._report(connector_id, "Preparing")
        self._begin_if_granted(connector_id)

    @rule(connector_id=st.sampled_from(CONNECTORS))
    def unplug(self, connector_id: int) -> None:
        self.app.clock.move(SECOND)
        if connector_id not in self.station.plugged:
            return
        self.station.plugged.discard(connector_id)
        self._end(connector_id)
        self._report(connector_id, "Available")

    @rule(connector_id=st.sampled_from(CONNECTORS), works=st.booleans())
    def fail_connector(self, connector_id: int, works: bool) -> None:
        self.app.clock.move(SECOND)
        if self.station.running(connector_id) is None:
            free = "Preparing" if connector_id in self.station.plugged else "Available"
            self._report(connector_id, free if works else "Faulted")

    # The station and the time

    @precondition(lambda self: self.station.is_here)
    @rule(said=st.booleans())
    def vanish(self, said: bool) -> None:
        self.app.clock.move(SECOND)
        if said:
            self.app.disconnect(self.station.socket)
        self.station.is_here = False

    @precondition(lambda self: not self.station.is_here)
    @rule()
    def come_back(self) -> None:
        self.app.clock.move(SECOND)
        self.station.sockets += 1
        self.station.is_here = True
        self.app.connect(self.station.socket)
        for connector_id in CONNECTORS:
            self._report(connector_id, self._status(connector_id))
        self._obey()

    @precondition(lambda self: self.station.is_here and self.station.queue)
    @rule()
    def flush_queue(self) -> None:
        self.app.clock.move(SECOND)
        queued, self.station.queue = self.station.queue, []
        for what, session in queued:
            if what == "start":
                self._tell_start(session)
            else:
                self._tell_stop(session)

    # What is seldom drawn by chance

    @precondition(lambda self: self.station.is_here)
    @rule(
        connector_id=st.sampled_from(CONNECTORS),
        said=st.booleans(),
        pause=st.sampled_from([SECOND, MINUTE]),
        then=st.sampled_from(["wait", "cancel", "nothing"]),
        ends=st.booleans(),
        other=st.booleans(),
    )
    def start_while_away(
        self, connector_id: int, said: bool, pause: timedelta, then: str, ends: bool, other: bool
    ) -> None:
        """The start is accepted, the station vanishes, and the car is plugged in."""
        self.unplug(connector_id)
        known = set(self.asked)
        self.pay(connector_id)
        self.vanish(said)
        self.wait(pause)
        self.plug_in(connector_id)
        for reservation_id in set(self.asked) - known:
            if then == "cancel":
                self.wait(pause)
                self._cancel(reservation_id)
        if then == "wait":
            self.wait(11 * MINUTE)
        if ends:
            self.unplug(connector_id)
        if other:
            self.come_back()
            self.pay(connector_id)

    @precondition(lambda self: self.station.is_here)
    @rule(connector_id=st.sampled_from(CONNECTORS), taps=st.booleans())
    def plug_in_elsewhere(self, connector_id: int, taps: bool) -> None:
        """The connector fails while its driver pays, and somebody plugs in at the other one."""
        self.unplug(connector_id)
        self.unplug(3 - connector_id)
        try:
            reservation_id = self.app.create_reservation(connector_id)
        except CsmsError:
            return
        self.asked[reservation_id] = {connector_id}
        self._report(connector_id, "Faulted")
        self.app.pay(reservation_id)
        self.app.confirm(reservation_id)
        self.plug_in(3 - connector_id)
        if taps:
            self._tap(reservation_id)

    @rule(pause=st.sampled_from([SECOND, MINUTE, 3 * MINUTE, 11 * MINUTE]))
    def wait(self, pause: timedelta) -> None:
        if self.station.is_here:
            self.flush_queue()
        until = self.app.now() + pause
        while self.app.now() < until:
            self.app.clock.move(min(5 * MINUTE, until - self.app.now()))
            self._forget_grants()
            if self.station.is_here:
                self.app.send_call("Heartbeat", over=self.station.socket)
            self._sweep()

    @rule()
    def sweep(self) -> None:
        self._sweep()

    def teardown(self) -> None:
        """Let everything end, and compare what was delivered with what was billed."""
        if not self.station.is_here:
            self.come_back()
        self.flush_queue()
        for connector_id in CONNECTORS:
            self.unplug(connector_id)
            self._report(connector_id, "Available")
        for _ in range(12):
            self.wait(5 * MINUTE)
        for reservation_id in self.asked:
            self._check(reservation_id)

    def _check(self, reservation_id: str) -> None:
        held = self.app.reservation(reservation_id)
        mine = [s for s in self.station.sessions if s.tag == held.id_tag]
        assert {s.connector_id for s in mine} <= self.asked[reservation_id], (
            "a card pays at its driver's connector only"
        )
        deadline = held.start_deadline
        ends = [at for at in (deadline, self.ended.get(reservation_id)) if at is not None]
        known = [s for s in mine if not (s.is_clockless and s.is_in_queue)]
        in_time = [s for s in known if ends and s.began_at <= min(ends)]
        assert held.money in {Money.NONE, Money.RELEASED, Money.CAPTURED}, "everything ends"
        if not in_time:
            assert held.money is not Money.CAPTURED or mine != known, "nobody pays for what began after the end"
            return
        assert (ReservationState.COMPLETED, Money.CAPTURED) == (held.state, held.money), "no start in time is free"
        energy_wh = ENERGY_WH * len(in_time)
        due = tariff.capturable_amount(held.tariff, energy_wh, 0, authorized=held.authorised_amount or 0)
        assert due == held.captured_amount
        events = {step["event"]: step.get("detail") for step in self.app.status(reservation_id)["steps"]}
        late = "StartedLate" in events
        how = "billed late after cancel" if late and reservation_id in self.ended else "billed late"
        self._count(how if late else "billed")

    def _count(self, what: str) -> None:
        self.reached[what] += 1

    def _sweep(self) -> None:
        assert [] == self.app.sweep().failed
        self._obey()

    # What the station does

    def _obey(self) -> None:
        """Read the frames that were sent. What was sent to a socket that is dead is lost."""
        while self.station.read < len(self.app.gateway.sent):
            to, text = self.app.gateway.sent[self.station.read]
            self.station.read += 1
            if self.station.is_here and to == self.station.socket:
                self._answer(json.loads(text))

    def _answer(self, frame: list[Any]) -> None:
        _, call_id, action, payload = frame
        word = "Accepted"
        number = payload.get("connectorId")
        if action == "RemoteStartTransaction" and self.station.running(number) is None:
            self.station.granted[number] = (payload["idTag"], self.app.now() + CONNECTION_TIMEOUT)
        elif action == "RemoteStartTransaction":
            word = "Rejected"
        answer = json.dumps([3, call_id, {"status": word}])
        assert self.app.stations.receive(self.station.socket, answer) is None
        if action == "RemoteStartTransaction" and word == "Accepted":
            self._begin_if_granted(number)
        if action == "RemoteStopTransaction":
            for session in self.station.sessions:
                if session.is_running and session.transaction_id == payload["transactionId"]:
                    self._end(session.connector_id)
        if action == "TriggerMessage":
            self._report(number, self._status(number))

    def _status(self, connector_id: int) -> str:
        if self.station.running(connector_id) is not None:
            return "Charging"
        return "Preparing" if connector_id in self.station.plugged else "Available"

    def _report(self, connector_id: int, status: str) -> None:
        if self.station.is_here:
            self.app.report_status(connector_id, status, over=self.station.socket)
            self._obey()

    def _forget_grants(self) -> None:
        now = self.app.now()
        self.station.granted = {n: (tag, until) for n, (tag, until) in self.station.granted.items() if now < until}

    def _begin_if_granted(self, connector_id: int) -> None:
        self._forget_grants()
        if connector_id not in self.station.plugged or connector_id not in self.station.granted:
            return
        tag, _ = self.station.granted.pop(connector_id)
        session = Session(
            tag=tag,
            connector_id=connector_id,
            began_at=self.app.now(),
            is_clockless=self.station.is_clockless,
            is_in_queue=not self.station.is_here or bool(self.station.queue),
        )
        self.station.sessions.append(session)
        if not session.is_in_queue:
            self._tell_start(session)
            self._report(connector_id, "Charging")
        else:
            self.station.queue.append(("start", session))

    def _end(self, connector_id: int) -> None:
        session = self.station.running(connector_id)
        if session is None:
            return
        session.is_running = False
        if self.station.is_here and not self.station.queue:
            self._tell_stop(session)
        else:
            self.station.queue.append(("stop", session))

    def _tell_start(self, session: Session) -> None:
        said = NO_CLOCK if session.is_clockless else format_time(session.began_at)
        if session.is_clockless and session.is_in_queue:
            self._count("told without a clock")
        session.transaction_id = self.app.start_transaction(
            session.tag, connector=session.connector_id, at=said, over=self.station.socket
        )
        lock = self.app.connector(session.connector_id).lock
        if session.is_in_queue and lock is not None and lock.id_tag != session.tag:
            self._count("billed beside another")
        self._obey()

    def _tell_stop(self, session: Session) -> None:
        said = NO_CLOCK if session.is_clockless else self.app.time()
        self.app.stop_transaction(
            session.transaction_id or 0, METER_START + ENERGY_WH, at=said, over=self.station.socket
        )
        self._obey()


@pytest.mark.note("F30", "F33")
def test_no_start_is_lost_or_strange() -> None:
    LostStarts.reached.clear()

    run_state_machine_as_test(
        LostStarts, settings=settings(max_examples=SEQUENCES, stateful_step_count=STEPS, deadline=None)
    )

    assert [] == [what for what in REACHED if not LostStarts.reached[what]], "a machine that meets nothing is blind"
