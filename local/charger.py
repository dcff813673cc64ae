"""A simulated charger: an OCPP 1.6 station on the `ocpp` package and a real WebSocket.

Only its cable, its car and its meter are simulated. charger_link answers the back end's requests.
"""

import asyncio
import random
import uuid
from base64 import b64encode
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn
from urllib.parse import quote

from ocpp.exceptions import OCPPError
from ocpp.v16 import call, call_result
from ocpp.v16.datatypes import MeterValue, SampledValue
from ocpp.v16.enums import (
    AuthorizationStatus,
    ChargePointErrorCode,
    ChargePointStatus,
    ConfigurationStatus,
    Measurand,
    ReadingContext,
    Reason,
    RegistrationStatus,
    RemoteStartStopStatus,
    UnitOfMeasure,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from local.charger_link import Link

HANDLING_S: Final = 2.0  # How long a person takes to plug the cable in or out.
LONGEST_BACKOFF_S: Final = 30.0
READ_ONLY: Final = frozenset({"NumberOfConnectors", "StopTransactionOnInvalidId", "SupportedFeatureProfiles"})
# A closed connection, a timeout (an OSError), or a CALLERROR.
UNANSWERED: Final = (ConnectionClosed, OSError, OCPPError)

RANDOM: Final = random.SystemRandom()


def ignore_event(_line: str) -> None:
    """Ignore the event."""


@dataclass(slots=True, kw_only=True)
class Connector:
    """A connector: the state of its cable, contactor and meter. The meter is in Wh and counts on across sessions."""

    number: int
    meter_wh: float = 0.0
    plugged: bool = False
    operative: bool = True
    status: ChargePointStatus = ChargePointStatus.available
    reported: ChargePointStatus | None = None
    requested_by: str | None = None
    transaction_id: int | None = None
    session: asyncio.Task[Any] | None = None
    stopping: asyncio.Future[Reason] | None = None

    @property
    def is_free(self) -> bool:
        """Whether the connector can be reserved: no session, no pending remote start, and the last driver's cable is
        out."""
        idle = self.session is None and self.requested_by is None
        return idle and self.status in {ChargePointStatus.available, ChargePointStatus.preparing}

    def status_at_rest(self) -> ChargePointStatus:
        """The status of this connector while no session runs."""
        if not self.operative:
            return ChargePointStatus.unavailable
        if not self.plugged:
            return ChargePointStatus.available
        finishing = self.status is ChargePointStatus.finishing
        return ChargePointStatus.finishing if finishing else ChargePointStatus.preparing

    def stop(self, reason: Reason) -> None:
        """End the session, if one runs. If several callers end it, the first reason is reported."""
        if self.stopping is not None and not self.stopping.done():
            self.stopping.set_result(reason)


class DemoCharger:
    """A station with a Type 2 cable for each connector. A simulated driver plugs it in when the back end starts it.

    `url` is the OCPP endpoint without the identity. `energy_wh` is what a car takes. `speed` multiplies the charging
    rate and the driver's movements; message intervals stay in real seconds. Everything runs in the event loop of run(),
    and all other methods must be called from it.
    """

    def __init__(
        self,
        url: str,
        identity: str,
        password: str,
        *,
        connectors: int = 2,
        power_w: float = 22_000,
        speed: float = 1.0,
        meter_interval_s: float = 5.0,
        energy_wh: int = 10_000,
        backoff_s: float = 1.0,
        on_event: Callable[[str], None] = ignore_event,
    ) -> None:
        self.identity = identity
        self.power_w = power_w
        self.speed = speed
        self.energy_wh = energy_wh
        self.connectors = {number: Connector(number=number) for number in range(1, connectors + 1)}
        self.configuration = {
            "AuthorizeRemoteTxRequests": "true",
            "HeartbeatInterval": "300",
            "MeterValueSampleInterval": f"{meter_interval_s:g}",
            "MeterValuesSampledData": "Energy.Active.Import.Register,Power.Active.Import",
            "NumberOfConnectors": str(connectors),
            "StopTransactionOnInvalidId": "true",
            "StopTxnSampledData": "",
            "SupportedFeatureProfiles": "Core,RemoteTrigger",
        }
        self.read_only = READ_ONLY
        self.on_event = on_event
        self._url = f"{url.rstrip('/')}/{quote(identity, safe='')}"
        self._credentials = b64encode(f"{identity}:{password}".encode()).decode()
        self._backoff_s = backoff_s
        self._attempts = 0
        self._booted = False
        self._ready = asyncio.Event()
        self._link: Link | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> NoReturn:
        """Stay connected and serve until the task is cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                await self._connect_once()
                self._attempts += 1
                longest = min(LONGEST_BACKOFF_S, self._backoff_s * 2 ** (self._attempts - 1))
                await asyncio.sleep(RANDOM.uniform(longest / 2, longest))

    def plug(self, number: int) -> None:
        """Plug the connector's cable into a car."""
        connector = self.connectors[number]
        connector.plugged = True
        self.report_status_at_rest(connector)

    def unplug(self, number: int) -> None:
        """Unplug the cable; a running session ends with EVDisconnected."""
        connector = self.connectors[number]
        connector.plugged = False
        connector.stop(Reason.ev_disconnected)
        self.report_status_at_rest(connector)

    def report_status_at_rest(self, connector: Connector) -> None:
        """Report the status at rest if it changed and no session runs, because a session reports its own."""
        if connector.session is None and connector.status is not connector.status_at_rest():
            self.spawn(self.report(connector, connector.status_at_rest()))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        if self._tasks is None:
            work.close()
            raise RuntimeError("the charger is not running")
        return self._tasks.create_task(work)

    async def report(self, connector: Connector, status: ChargePointStatus) -> None:
        """Change the status and send a StatusNotification. While offline only the last status is kept and sent after
        the reconnect."""
        connector.status = status
        if self._ready.is_set():
            await self.notify(connector)

    async def notify(self, connector: Connector) -> None:
        status = connector.status
        acknowledged = await self.send_once(
            call.StatusNotification(
                connector_id=connector.number,
                error_code=ChargePointErrorCode.no_error,
                status=status,
                timestamp=now(),
            )
        )
        if acknowledged:
            connector.reported = status

    async def send_once(self, payload: Any) -> bool:
        """Send a message that may be lost, and return whether it was answered."""
        if self._link is None:
            return False
        try:
            await self._link.ask(payload)
        except UNANSWERED as error:
            self.on_event(f"{type(payload).__name__} got no answer: {error!r}")
            return False
        return True

    async def boot(self, link: Link) -> None:
        """Send BootNotification until it is Accepted, at the interval that the back end sets (OCPP 1.6, 4.2)."""
        while True:
            answer = await link.ask(
                call.BootNotification(
                    charge_point_model="Demo 22",
                    charge_point_vendor="csms",
                    charge_point_serial_number=self.identity[:25],
                    firmware_version="1.0",
                )
            )
            interval_s = answer.interval or 60
            if answer.status == RegistrationStatus.accepted:
                self.configuration["HeartbeatInterval"] = str(interval_s)
                self._booted = True
                return
            await asyncio.sleep(interval_s)

    async def boot_again(self, link: Link) -> None:
        """Send another BootNotification on request; the connection stays open, whatever the answer."""
        try:
            await self.boot(link)
        except UNANSWERED as error:
            self.on_event(f"BootNotification got no answer: {error!r}")

    def accept_remote_start(self, id_tag: str, number: int | None) -> RemoteStartStopStatus:
        """Reserve a connector for a remote start: the given one if it is free, or any free one."""
        wanted = self.connectors.values() if number is None else filter(None, [self.connectors.get(number)])
        connector = next((it for it in wanted if it.is_free), None)
        if connector is None or not self._booted:
            return RemoteStartStopStatus.rejected
        connector.requested_by = id_tag
        return RemoteStartStopStatus.accepted

    def start_requested_sessions(self) -> None:
        """Start the requested sessions. This is separate from accept_remote_start because its answer must be sent
        first."""
        for connector in self.connectors.values():
            if connector.requested_by is None:
                continue
            connector.stopping = asyncio.get_running_loop().create_future()
            connector.session = self.spawn(self._run_session(connector, connector.requested_by, connector.stopping))
            connector.requested_by = None

    async def stop_all_sessions(self, reason: Reason) -> None:
        """Stop every session, and return when the back end has confirmed each StopTransaction."""
        sessions = [it.session for it in self.connectors.values() if it.session is not None]
        for connector in self.connectors.values():
            connector.stop(reason)
        await asyncio.gather(*sessions)

    async def restart(self, reason: Reason) -> None:
        """Finish the transactions, drop the connection and boot again."""
        await self.stop_all_sessions(reason)
        self._booted = False
        self._attempts = 0
        if self._link is not None:
            await self._link.close()

    def configure(self, key: str, value: str) -> ConfigurationStatus:
        """Change one entry of the configuration table; intervals are in whole seconds."""
        if key not in self.configuration:
            return ConfigurationStatus.not_supported
        if key in READ_ONLY or (key.endswith("Interval") and not value.isdecimal()):
            return ConfigurationStatus.rejected
        self.configuration[key] = value
        return ConfigurationStatus.accepted

    def build_meter_values(self, connector: Connector, context: ReadingContext) -> call.MeterValues:
        """The connector's meter register (Wh) and power, as measured now."""
        charging = connector.status is ChargePointStatus.charging
        values = [
            SampledValue(
                value=str(int(connector.meter_wh)),
                context=context,
                measurand=Measurand.energy_active_import_register,
                unit=UnitOfMeasure.wh,
            ),
            SampledValue(
                value=f"{self.power_w if charging else 0:g}",
                context=context,
                measurand=Measurand.power_active_import,
                unit=UnitOfMeasure.w,
            ),
        ]
        return call.MeterValues(
            connector_id=connector.number,
            transaction_id=connector.transaction_id,
            meter_value=[MeterValue(timestamp=now(), sampled_value=values)],
        )

    async def _connect_once(self) -> None:
        try:
            async with connect(
                self._url,
                subprotocols=[Subprotocol("ocpp1.6")],
                additional_headers={"Authorization": f"Basic {self._credentials}"},
                compression=None,
            ) as connection:
                if connection.subprotocol is None:
                    self.on_event("refused: no common sub-protocol")
                    return
                await self._serve(connection)
        except (OSError, InvalidHandshake) as error:
            self.on_event(f"no connection: {error}")

    async def _serve(self, connection: ClientConnection) -> None:
        self.on_event("connected")
        self._link = link = Link(self, connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.start())
                group.create_task(self._converse(link))
        except* UNANSWERED:
            self.on_event("disconnected")
        finally:
            self._ready.clear()
            self._link = None
            link.gone.set()

    async def _converse(self, link: Link) -> NoReturn:
        if not self._booted:
            await self.boot(link)
            for connector in self.connectors.values():
                connector.reported = None
        self._attempts = 0
        self._ready.set()
        for connector in self.connectors.values():
            if connector.reported is not connector.status:
                await self.notify(connector)
        while True:
            await asyncio.sleep(float(self.configuration["HeartbeatInterval"]))
            await link.ask(call.Heartbeat())

    async def _run_session(self, connector: Connector, id_tag: str, stopping: asyncio.Future[Reason]) -> None:
        brought_cable = not connector.plugged
        if brought_cable:
            await self._pause()
            connector.plugged = True
            await self.report(connector, ChargePointStatus.preparing)
        if await self._is_authorized(id_tag):
            await self._run_transaction(connector, id_tag, stopping)
            await self.report(connector, ChargePointStatus.finishing)
        if brought_cable and connector.plugged:
            await self._pause()
            connector.plugged = False
        connector.session = connector.stopping = None
        # The driver may have plugged in an own cable: it stays, and so does Finishing, until it is unplugged.
        self.report_status_at_rest(connector)

    async def _is_authorized(self, id_tag: str) -> bool:
        if self.configuration["AuthorizeRemoteTxRequests"].lower() != "true":
            return True
        answer = await self._deliver(call.Authorize(id_tag=id_tag))
        return answer is not None and is_accepted(answer)

    async def _run_transaction(self, connector: Connector, id_tag: str, stopping: asyncio.Future[Reason]) -> None:
        meter_start = int(connector.meter_wh)
        answer = await self._deliver(
            call.StartTransaction(
                connector_id=connector.number, id_tag=id_tag, meter_start=meter_start, timestamp=now()
            )
        )
        if answer is None:
            return
        connector.transaction_id = answer.transaction_id
        reason = Reason.de_authorized
        if is_accepted(answer):
            await self.report(connector, ChargePointStatus.charging)
            reason = await self._energise(connector, stopping, meter_start + self.energy_wh)
        await self._deliver(
            call.StopTransaction(
                meter_stop=int(connector.meter_wh),
                timestamp=now(),
                transaction_id=answer.transaction_id,
                id_tag=id_tag,
                reason=reason,
            )
        )
        connector.transaction_id = None

    async def _energise(self, connector: Connector, stopping: asyncio.Future[Reason], meter_end: int) -> Reason:
        """Deliver energy until the car is full or the session is stopped; return the reason of the end."""
        loop = asyncio.get_running_loop()
        wh_per_s = self.power_w * self.speed / 3600
        begun, meter_start = loop.time(), connector.meter_wh
        while not stopping.done() and connector.meter_wh < meter_end:
            rest_s = (meter_end - connector.meter_wh) / wh_per_s
            interval_s = float(self.configuration["MeterValueSampleInterval"]) or rest_s
            await asyncio.wait([stopping], timeout=min(rest_s, interval_s))
            connector.meter_wh = min(meter_end, meter_start + (loop.time() - begun) * wh_per_s)
            await self.send_once(self.build_meter_values(connector, ReadingContext.sample_periodic))
        return stopping.result() if stopping.done() else Reason.local

    async def _deliver(self, payload: Any) -> Any:
        """Send a message that must arrive, and return its answer. It is sent again with the same id after a timeout or
        a reconnect.

        Returns None if the back end answered with a CALLERROR.
        """
        unique_id = str(uuid.uuid4())
        while True:
            await self._ready.wait()
            link = self._link
            if link is None:
                raise RuntimeError("ready without a connection")
            try:
                return await link.ask(payload, unique_id)
            except OCPPError as error:
                self.on_event(f"{type(payload).__name__} was refused: {error}")
                return None
            except TimeoutError:
                self.on_event(f"{type(payload).__name__} got no answer; sending it again")
            except (ConnectionClosed, ConnectionError):
                await link.gone.wait()

    async def _pause(self) -> None:
        await asyncio.sleep(HANDLING_S / self.speed)


def is_accepted(answer: call_result.Authorize | call_result.StartTransaction) -> bool:
    return bool(answer.id_tag_info["status"] == AuthorizationStatus.accepted)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
