"""One WebSocket connection of a simulated charger: it answers OCPP 1.6 requests and passes each frame to a listener."""

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ocpp.routing import after, on
from ocpp.v16 import ChargePoint, call, call_result
from ocpp.v16.datatypes import KeyValue
from ocpp.v16.enums import (
    Action,
    AvailabilityStatus,
    AvailabilityType,
    MessageTrigger,
    ReadingContext,
    Reason,
    RemoteStartStopStatus,
    ResetStatus,
    ResetType,
    TriggerMessageStatus,
    UnlockStatus,
)
from websockets.asyncio.client import ClientConnection

if TYPE_CHECKING:
    from local.charger import DemoCharger

TRIGGERS: Final = frozenset(
    {
        MessageTrigger.boot_notification,
        MessageTrigger.heartbeat,
        MessageTrigger.meter_values,
        MessageTrigger.status_notification,
    }
)


class Link(ChargePoint):
    """One connection of a charger: OCPP requests in, answers out. The charger outlives its connections."""

    def __init__(self, charger: "DemoCharger", connection: ClientConnection) -> None:
        super().__init__(charger.identity, NarratedConnection(connection, charger.on_event), response_timeout=15)
        self.charger = charger
        self.gone = asyncio.Event()

    async def ask(self, payload: Any, unique_id: str | None = None) -> Any:
        """Send a request and return its answer. Raises ConnectionError, ConnectionClosed, TimeoutError or OCPPError."""
        asking = asyncio.ensure_future(self.call(payload, suppress=False, unique_id=unique_id))
        ending = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise ConnectionError("the connection ended before the answer")
            return asking.result()
        finally:
            asking.cancel()
            ending.cancel()

    async def close(self) -> None:
        await self._connection.close()

    @on(Action.remote_start_transaction)
    def remote_start(self, id_tag: str, connector_id: int | None = None, **_: Any) -> Any:
        return call_result.RemoteStartTransaction(status=self.charger.accept_remote_start(id_tag, connector_id))

    @after(Action.remote_start_transaction)
    def after_remote_start(self, **_: Any) -> None:
        self.charger.start_requested_sessions()

    @on(Action.remote_stop_transaction)
    def remote_stop(self, transaction_id: int) -> Any:
        for connector in self.charger.connectors.values():
            if connector.transaction_id == transaction_id:
                connector.stop(Reason.remote)
                return call_result.RemoteStopTransaction(status=RemoteStartStopStatus.accepted)
        return call_result.RemoteStopTransaction(status=RemoteStartStopStatus.rejected)

    @on(Action.trigger_message)
    def trigger(self, requested_message: str, connector_id: int | None = None) -> Any:
        if requested_message not in TRIGGERS:
            return call_result.TriggerMessage(status=TriggerMessageStatus.not_implemented)
        if connector_id is not None and connector_id not in self.charger.connectors:
            return call_result.TriggerMessage(status=TriggerMessageStatus.rejected)
        return call_result.TriggerMessage(status=TriggerMessageStatus.accepted)

    @after(Action.trigger_message)
    def after_trigger(self, requested_message: str, connector_id: int | None = None) -> None:
        charger = self.charger
        chosen = [it for it in charger.connectors.values() if connector_id in (None, it.number)]
        match requested_message:
            case MessageTrigger.boot_notification:
                charger.spawn(charger.boot_again(self))
            case MessageTrigger.heartbeat:
                charger.spawn(charger.send_once(call.Heartbeat()))
            case MessageTrigger.meter_values:
                for connector in chosen:
                    charger.spawn(charger.send_once(charger.build_meter_values(connector, ReadingContext.trigger)))
            case MessageTrigger.status_notification:
                for connector in chosen:
                    charger.spawn(charger.notify(connector))

    @on(Action.get_configuration)
    def get_configuration(self, key: list[str] | None = None) -> Any:
        table = self.charger.configuration
        known = [
            KeyValue(key=name, readonly=name in self.charger.read_only, value=value)
            for name, value in table.items()
            if not key or name in key
        ]
        unknown = [name for name in key or () if name not in table]
        return call_result.GetConfiguration(configuration_key=known, unknown_key=unknown)

    @on(Action.change_configuration)
    def change_configuration(self, key: str, value: str) -> Any:
        return call_result.ChangeConfiguration(status=self.charger.configure(key, value))

    @on(Action.change_availability)
    def change_availability(self, connector_id: int, type: str) -> Any:  # noqa: A002 - OCPP's own name
        if connector_id and connector_id not in self.charger.connectors:
            return call_result.ChangeAvailability(status=AvailabilityStatus.rejected)
        scheduled = False
        for connector in self.charger.connectors.values():
            if connector_id not in (0, connector.number):
                continue
            connector.operative = type == AvailabilityType.operative
            scheduled |= connector.session is not None
        status = AvailabilityStatus.scheduled if scheduled else AvailabilityStatus.accepted
        return call_result.ChangeAvailability(status=status)

    @after(Action.change_availability)
    def after_change_availability(self, **_: Any) -> None:
        for connector in self.charger.connectors.values():
            self.charger.report_status_at_rest(connector)

    @on(Action.unlock_connector)
    def unlock(self, connector_id: int) -> Any:
        connector = self.charger.connectors.get(connector_id)
        if connector is None:
            return call_result.UnlockConnector(status=UnlockStatus.not_supported)
        connector.stop(Reason.unlock_command)
        return call_result.UnlockConnector(status=UnlockStatus.unlocked)

    @on(Action.reset)
    def reset(self, **_: Any) -> Any:
        return call_result.Reset(status=ResetStatus.accepted)

    @after(Action.reset)
    def after_reset(self, type: str) -> None:  # noqa: A002 - OCPP's own name
        hard = type == ResetType.hard
        self.charger.spawn(self.charger.restart(Reason.hard_reset if hard else Reason.soft_reset))


class NarratedConnection:
    """A connection that passes each frame to a listener, with the action that an answer belongs to."""

    def __init__(self, connection: ClientConnection, on_event: Callable[[str], None]) -> None:
        self._connection = connection
        self._on_event = on_event
        self._actions: dict[str, str] = {}

    async def send(self, text: str) -> None:
        self._report_frame("sent", text)
        await self._connection.send(text)

    async def recv(self) -> str | bytes:
        text = await self._connection.recv()
        self._report_frame("received", text)
        return text

    async def close(self) -> None:
        await self._connection.close()

    def _report_frame(self, direction: str, text: str | bytes) -> None:
        try:
            frame = json.loads(text)
        except ValueError:
            frame = None
        match frame:
            case [2, str(unique_id), str(action), payload]:
                self._actions[unique_id] = action
                self._on_event(f"{direction} {action} {json.dumps(payload)}")
            case [3, str(unique_id), payload]:
                self._on_event(f"{direction} {self._actions.pop(unique_id, '?')} answer {json.dumps(payload)}")
            case [4, str(unique_id), code, *_]:
                self._on_event(f"{direction} {self._actions.pop(unique_id, '?')} error {code}")
            case _:
                self._on_event(f"{direction} {text!r}")
