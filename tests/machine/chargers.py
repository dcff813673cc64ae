"""The rules of chargers as they are: meters that tell something else than the car took, stops that are odd or missing,
and stations that do not obey. What the car really took is known here, so that a bill can be compared with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import rule

from csms import occupancy
from csms.charging import settlement
from csms.charging.operations import OPEN, OperatorCommand
from csms.errors import Conflict, IllegalTransition
from csms.model import CallState, CommandKind, Lock, Presence, TimelineEntry
from csms.model import ReservationState as S
from tests import builders as b
from tests.machine.station import StationRules
from tests.machine.values import CONNECTOR_IDS

LIFETIME_WH: Final = 2_000_000
INTERVAL: Final = timedelta(minutes=10)
READINGS: Final = 4
UNNAMED: Final = 4711
"""A transaction id that csms never gave."""
TO_BE_STARTED: Final = frozenset({S.AUTHORIZED, S.START_REQUESTED})
TOLD_WRONGLY: Final = "a station told something else than the car took"
WENT_ON: Final = "a transaction went on after its end"
NOT_OBEYED: Final = "StopNotObeyed"
REFUSALS: Final = ({"status": "Rejected"}, "error", None)
"""The answers to RemoteStopTransaction of a station that does not obey; None is no answer."""
REPORTS: Final = [timedelta(seconds=seconds) for seconds in (31, 61, 121, 241, 481, 61)]
"""The pauses between the readings of a transaction that goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the station tells of a session: the register at the start, in each reading and, with everything else that
    the stop has, at the stop. Without a stop the connector just becomes Available."""

    meter_start: int
    readings: tuple[Any, ...]
    stop: dict[str, Any] | None = field(default_factory=dict)
    repeats_start: bool = False


def tell_truly(start: int, taken: tuple[int, ...]) -> Told:
    """The register of a right meter, which had counted `start` before the car took this much, in Wh."""
    readings = tuple(str(start + wh) for wh in taken[:-1])
    return Told(meter_start=start, readings=readings, stop={"meterStop": start + taken[-1]})


def spoil_reading(number: int, change: Callable[[str], Any]) -> Callable[[int, tuple[int, ...]], Told]:
    """A session of which one reading is changed."""

    def tell(start: int, taken: tuple[int, ...]) -> Told:
        told = tell_truly(start, taken)
        spoilt = tuple(change(wh) if n == number else wh for n, wh in enumerate(told.readings))
        return replace(told, readings=spoilt)

    return tell


def spoil_stop(change: Callable[[int, int], dict[str, Any] | None]) -> Callable[[int, tuple[int, ...]], Told]:
    """A session whose stop is changed, given the register at the start and the energy."""
    return lambda start, taken: replace(tell_truly(start, taken), stop=change(start, taken[-1]))


def start_before_meter_is_ready(_: int, taken: tuple[int, ...]) -> Told:
    return replace(tell_truly(LIFETIME_WH, taken), meter_start=0)


def count_readings_from_0(start: int, taken: tuple[int, ...]) -> Told:
    return replace(tell_truly(start, taken), readings=tell_truly(0, taken).readings)


def show_lifetime_later(_: int, taken: tuple[int, ...]) -> Told:
    session, lifetime = tell_truly(0, taken), tell_truly(LIFETIME_WH, taken)
    return replace(session, readings=(*session.readings[:2], *lifetime.readings[2:]), stop=lifetime.stop)


METER_FAULTS: Final[dict[str, Callable[[int, tuple[int, ...]], Told]]] = {
    "none": tell_truly,
    "one reading far up": spoil_reading(1, lambda wh: str(int(wh) + 5_000_000)),
    "one reading a little up": spoil_reading(1, lambda wh: str(int(wh) + 8_000)),
    "one reading 0": spoil_reading(2, lambda _: "0"),
    "one reading NaN": spoil_reading(1, lambda _: "NaN"),
    "one reading a number": spoil_reading(1, int),
    "one reading a fraction": spoil_reading(1, lambda wh: float(wh) + 0.213),
    "one reading without value": spoil_reading(1, lambda _: None),
    "meterStart before the meter is ready": start_before_meter_is_ready,
    "readings count from 0": count_readings_from_0,
    "lifetime register after 0": show_lifetime_later,
    "the start in every reading": lambda start, taken: replace(tell_truly(start, taken), repeats_start=True),
    "meterStop 0": spoil_stop(lambda *_: {"meterStop": 0}),
    "meterStop missing": spoil_stop(lambda *_: {}),
    "meterStop too low": spoil_stop(lambda start, wh: {"meterStop": start + wh // 3}),
    "meterStop huge": spoil_stop(lambda start, wh: {"meterStop": start + wh + 6_820_000}),
    "meterStop a fraction": spoil_stop(lambda start, wh: {"meterStop": start + wh + 0.333}),
    "stop without time": spoil_stop(lambda start, wh: {"meterStop": start + wh, "timestamp": None}),
    "stop of an unknown transaction": spoil_stop(lambda start, wh: {"meterStop": start + wh, "transactionId": UNNAMED}),
    "no stop": spoil_stop(lambda *_: None),
}
"""What the public reports of running systems name (docs/field-notes.md F41, F45, F53, F54, F58)."""
CLEAR: Final = frozenset(
    {
        "none",
        "one reading far up",
        "one reading 0",
        "one reading NaN",
        "one reading a number",
        "one reading a fraction",
        "one reading without value",
        "the start in every reading",
        "meterStop a fraction",
        "stop without time",
    }
)
"""What needs no human: the other readings and the stop tell what the car took."""


class ChargerRules(StationRules):
    """A station whose meter, stops and answers are those of real makes and models."""

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        fault=st.sampled_from([*METER_FAULTS]),
        start=st.sampled_from([0, 1000, 235_800]),
        power_w=st.sampled_from([11_000, 22_000]),
    )
    def tell_energy_wrongly(self, connector_id: int, fault: str, start: int, power_w: int) -> None:
        """A paid session with a known energy, of which the station tells something else."""
        if self.policy.max_power_w >= b.ANY_POWER_W:
            return
        self._end_faults()
        lock = self._reach_paid_lock(connector_id)
        if lock is None:
            return
        taken = tuple(int(power_w * n * INTERVAL / timedelta(hours=1)) for n in range(1, READINGS + 2))
        told = METER_FAULTS[fault](start, taken)
        self._start_transaction(connector_id, lock.id_tag, told.meter_start)
        running = self._read_scene().connectors[connector_id].transaction
        if running is None or running.reservation_id != lock.reservation_id:
            return
        self.taken[running.transaction_id] = taken[-1]
        self.met[TOLD_WRONGLY] += fault != "none"
        self.telling = True
        self._report_status(connector_id, "Charging")
        for register in told.readings:
            self._sleep(INTERVAL)
            self._tell_reading(connector_id, running.transaction_id, register, told)
        self._sleep(INTERVAL)
        if told.stop is not None:
            stop = {"transactionId": int(running.transaction_id), "timestamp": self.clock.at.isoformat()} | told.stop
            self._stop_transaction(**stop)
        self._report_status(connector_id, "Available")
        self.telling = False
        self._sleep(self.policy.implied_stop_grace + timedelta(seconds=1))
        self._sweep()
        held = self._read_scene().reservations[lock.reservation_id]
        assert fault not in CLEAR or settlement.IMPLAUSIBLE not in held.flags, "a clear series is billed"

    def _reach_paid_lock(self, connector_id: int) -> Lock | None:
        """The connector's lock, once its reservation may start; None if the usual next steps do not lead there soon."""
        self._advance_until(connector_id, lambda c: c.lock is not None and c.lock.state in TO_BE_STARTED, most=9)
        connector = self._read_scene().connectors.get(connector_id)
        lock = connector.lock if connector is not None else None
        return lock if lock is not None and lock.state in TO_BE_STARTED else None

    def _tell_reading(self, connector_id: int, transaction_id: str, register: Any, told: Told) -> None:
        sampled: list[dict[str, Any]] = [{"unit": "Wh"} if register is None else {"value": register, "unit": "Wh"}]
        if told.repeats_start:
            sampled.append({"value": str(told.meter_start), "unit": "Wh", "context": "Transaction.Begin"})
        entry = {"timestamp": self.clock.at.isoformat(), "sampledValue": sampled}
        self._send_call("MeterValues", connectorId=connector_id, transactionId=int(transaction_id), meterValue=[entry])

    @rule(
        connector_id=st.sampled_from(CONNECTOR_IDS),
        why=st.sampled_from(["cancelled", "unknown", "closed"]),
        says=st.sampled_from(REFUSALS),
    )
    def go_on_after_end(self, connector_id: int, why: str, says: Any) -> None:
        """A transaction that ended, or that csms did not accept, goes on, and the station refuses to stop it: it is
        asked again and again, and then stands before a human."""
        self._end_faults()
        transaction_id = self._begin_unwanted_transaction(connector_id, why)
        if transaction_id is None:
            return
        for number, pause in enumerate(REPORTS):
            self._sleep(pause)
            register = str(2000 + 500 * number)
            self._tell_reading(connector_id, transaction_id, register, Told(meter_start=0, readings=()))
            self._sweep()
            self._refuse_stops(transaction_id, says)
        self.met[WENT_ON] += 1
        asked = [frame for frame in self.gateway.frames if frame[2] == "RemoteStopTransaction"]
        entries = [entry for entry in self._read_entities(TimelineEntry) if entry.kind == NOT_OBEYED]

        assert len([one for one in asked if str(one[3]["transactionId"]) == transaction_id]) >= 2, "it is asked again"
        assert transaction_id in {entry.detail["transaction"] for entry in entries}, "a human sees who does not obey"
        self._stop_transaction(transactionId=int(transaction_id), meterStop=1000)

    def _begin_unwanted_transaction(self, connector_id: int, why: str) -> str | None:
        """The id of a transaction that goes on at the station; None if the connector's leftovers prevent it."""
        match why:
            case "closed":
                self._advance_until(connector_id, lambda c: c.transaction is not None)
            case "cancelled":
                self._reach_paid_lock(connector_id)
            case _:
                self._advance_until(connector_id, lambda c: c.transaction is None and c.lock is None)
        scene = self._read_scene()
        presence, connector = next(iter(scene.all(Presence)), None), scene.connectors.get(connector_id)
        online = occupancy.is_online(presence, scene.now) and presence is not None
        if connector is None or not online or presence.connection_id != self.socket or self.socket in self.gateway.gone:
            return None  # Nobody can be asked over a socket that is gone.
        if why == "closed":
            return self._close_as_operator(connector.transaction.transaction_id) if connector.transaction else None
        if connector.transaction is not None:
            return None
        tag, lock = "NOBODY", connector.lock
        if why == "cancelled":
            if lock is None or lock.state not in TO_BE_STARTED:
                return None
            tag = lock.id_tag
            self._act(lambda: self.drivers.cancel(lock.reservation_id), IllegalTransition)
        self._start_transaction(connector_id, tag)
        running = self._read_scene().connectors[connector_id].transaction
        return running.transaction_id if running is not None and running.reservation_id is None else None

    def _close_as_operator(self, transaction_id: str) -> str:
        command = OperatorCommand(who="ada", reason="because", expected=OPEN)
        self._act(lambda: self.operators.close_transaction(transaction_id, command), IllegalTransition, Conflict)
        self._find_leftovers()  # The rules after this one let the time of the close pass.
        return transaction_id

    def _refuse_stops(self, transaction_id: str, says: Any) -> None:
        for call in self._read_scene().read_calls():
            stops = call.kind is CommandKind.REMOTE_STOP and call.transaction_id == transaction_id
            if stops and call.state is CallState.SENT and says is not None:
                error = [4, call.call_id, "InternalError", "", {}]
                self._answer_call(error if says == "error" else [3, call.call_id, says])

    def _end_faults(self) -> None:
        self.line.clear_faults()
        self.provider.clear_faults()
        self.gateway.unreachable = False
