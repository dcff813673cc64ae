"""The demo charger with the smallest possible back end: what it sends, in which order, and how it reconnects."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from local.charger import DemoCharger

ACCEPTED = {"idTagInfo": {"status": "Accepted"}}
NOW = "2026-01-01T00:00:00Z"


class BackEnd:
    """Answers every request with what `answers` holds for its action, and keeps the requests. None: no answer."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any] | None] = {
            "BootNotification": {"status": "Accepted", "currentTime": NOW, "interval": 300},
            "Heartbeat": {"currentTime": NOW},
            "StatusNotification": {},
            "Authorize": ACCEPTED,
            "StartTransaction": ACCEPTED | {"transactionId": 7},
            "StopTransaction": {},
            "MeterValues": {},
        }
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.handshakes: list[Request] = []
        self.refusals = 0
        self.connection: ServerConnection | None = None
        self.server: Server | None = None
        self._results: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/ocpp"

    async def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        async with self._changed:
            self.handshakes.append(request)
            self._changed.notify_all()
        if self.refusals:
            self.refusals -= 1
            return connection.respond(401, "wrong password")
        return None

    async def talk(self, connection: ServerConnection) -> None:
        self.connection = connection
        with suppress(ConnectionClosed):
            async for text in connection:
                await self.hear(connection, json.loads(text))

    async def hear(self, connection: ServerConnection, frame: list[Any]) -> None:
        if frame[0] == 3:
            self._results.pop(frame[1]).set_result(frame[2])
            return
        _, unique_id, action, payload = frame
        async with self._changed:
            self.requests.append((unique_id, action, payload))
            self._changed.notify_all()
        answer = self.answers[action]
        if answer is not None:
            await connection.send(json.dumps([3, unique_id, answer]))

    async def ask(self, action: str, **payload: Any) -> dict[str, Any]:
        """The charger's answer to a request of ours."""
        assert self.connection is not None
        unique_id = f"ask-{action}-{len(self.requests)}"
        self._results[unique_id] = asyncio.get_running_loop().create_future()
        await self.connection.send(json.dumps([2, unique_id, action, payload]))
        return await asyncio.wait_for(self._results[unique_id], 5)

    def sent_payloads(self, *actions: str) -> list[dict[str, Any]]:
        return [payload for _, action, payload in self.requests if action in actions]

    def statuses(self, connector: int = 1) -> list[str]:
        return [it["status"] for it in self.sent_payloads("StatusNotification") if it["connectorId"] == connector]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(condition)


@asynccontextmanager
async def run_charger(back_end: BackEnd, **options: Any) -> AsyncIterator[DemoCharger]:
    """A running charger, connected, at 10,000 times the speed."""
    settings = {"speed": 10_000.0, "backoff_s": 0.05, "meter_interval_s": 1.0, "energy_wh": 10_000} | options
    protocols = [Subprotocol("ocpp1.6")]
    async with serve(
        back_end.talk, "127.0.0.1", 0, subprotocols=protocols, process_request=back_end.admit, compression=None
    ) as back_end.server:
        charger = DemoCharger(back_end.url, "DE*1/A", "s:cret", **settings)
        running = asyncio.create_task(charger.run())
        try:
            yield charger
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def scenario(story: Callable[[BackEnd], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs `story` in an event loop of its own."""

    def run() -> None:
        async def main() -> None:
            await story(BackEnd())

        asyncio.run(main())

    run.__name__ = story.__name__
    return run


@scenario
async def test_charger_connects_boots_and_reports_connectors(
    back_end: BackEnd,
) -> None:
    back_end.answers["BootNotification"] = {"status": "Accepted", "currentTime": NOW, "interval": 1}
    async with run_charger(back_end):
        await back_end.wait_until(lambda: bool(back_end.sent_payloads("Heartbeat")))

    assert "/ocpp/DE%2A1%2FA" == back_end.handshakes[0].path
    expected = "Basic " + b64encode(b"DE*1/A:s:cret").decode()
    assert expected == back_end.handshakes[0].headers["Authorization"]
    actions = [action for _, action, _ in back_end.requests]
    assert ["BootNotification", "StatusNotification", "StatusNotification", "Heartbeat"] == actions
    assert ["Available"] == back_end.statuses(1)
    assert ["Available"] == back_end.statuses(2)


@scenario
async def test_remote_start_runs_a_whole_session(back_end: BackEnd) -> None:
    async with run_charger(back_end) as charger:
        await back_end.wait_until(lambda: len(back_end.statuses(2)) == 1)
        answer = await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=2)
        await back_end.wait_until(lambda: len(back_end.statuses(2)) == 5)
        await back_end.ask("RemoteStartTransaction", idTag="WEB2", connectorId=2)
        await back_end.wait_until(lambda: len(back_end.sent_payloads("StopTransaction")) == 2)

        assert charger.connectors[2].meter_wh == 20_000
    assert {"status": "Accepted"} == answer
    assert ["Available", "Preparing", "Charging", "Finishing", "Available"] == back_end.statuses(2)[:5]
    assert ["Available"] == back_end.statuses(1)
    assert {"idTag": "WEB1"} == back_end.sent_payloads("Authorize")[0]
    starts, stops = back_end.sent_payloads("StartTransaction"), back_end.sent_payloads("StopTransaction")
    assert [(2, "WEB1", 0), (2, "WEB2", 10_000)] == [(s["connectorId"], s["idTag"], s["meterStart"]) for s in starts]
    assert [(7, 10_000, "Local"), (7, 20_000, "Local")] == [
        (s["transactionId"], s["meterStop"], s["reason"]) for s in stops
    ]
    sampled = back_end.sent_payloads("MeterValues")[0]["meterValue"][0]["sampledValue"]
    assert ["Energy.Active.Import.Register", "Power.Active.Import"] == [it["measurand"] for it in sampled]


@scenario
async def test_busy_connector_rejects_remote_start(back_end: BackEnd) -> None:
    async with run_charger(back_end, speed=100.0):
        await back_end.wait_until(lambda: len(back_end.statuses(2)) == 1)
        answers = [
            await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=1),
            await back_end.ask("RemoteStartTransaction", idTag="WEB2", connectorId=1),
            await back_end.ask("RemoteStartTransaction", idTag="WEB3", connectorId=9),
            await back_end.ask("RemoteStartTransaction", idTag="WEB4", connectorId=2),
        ]

    assert ["Accepted", "Rejected", "Rejected", "Accepted"] == [it["status"] for it in answers]


@scenario
async def test_invalid_start_moves_no_energy(back_end: BackEnd) -> None:
    back_end.answers["StartTransaction"] = {"transactionId": 8, "idTagInfo": {"status": "Invalid"}}
    async with run_charger(back_end):
        await back_end.wait_until(lambda: len(back_end.statuses()) == 1)
        await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=1)
        await back_end.wait_until(lambda: len(back_end.statuses()) == 4)

    stop = back_end.sent_payloads("StopTransaction")[0]
    assert (8, 0, "DeAuthorized") == (stop["transactionId"], stop["meterStop"], stop["reason"])
    assert ["Available", "Preparing", "Finishing", "Available"] == back_end.statuses()
    assert [] == back_end.sent_payloads("MeterValues")


@scenario
async def test_unauthorized_id_tag_starts_nothing(back_end: BackEnd) -> None:
    back_end.answers["Authorize"] = {"idTagInfo": {"status": "Invalid"}}
    async with run_charger(back_end):
        await back_end.wait_until(lambda: len(back_end.statuses()) == 1)
        await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=1)
        await back_end.wait_until(lambda: len(back_end.statuses()) == 3)

    assert ["Available", "Preparing", "Available"] == back_end.statuses()
    assert [] == back_end.sent_payloads("StartTransaction")


@scenario
async def test_remote_stop_ends_the_session(back_end: BackEnd) -> None:
    async with run_charger(back_end, speed=100.0):
        await back_end.wait_until(lambda: len(back_end.statuses()) == 1)
        await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=1)
        await back_end.wait_until(lambda: "Charging" in back_end.statuses())
        foreign = await back_end.ask("RemoteStopTransaction", transactionId=99)
        own = await back_end.ask("RemoteStopTransaction", transactionId=7)
        await back_end.wait_until(lambda: bool(back_end.sent_payloads("StopTransaction")))

    assert ({"status": "Rejected"}, {"status": "Accepted"}) == (foreign, own)
    stop = back_end.sent_payloads("StopTransaction")[0]
    assert "Remote" == stop["reason"]
    assert stop["meterStop"] < 10_000


@scenario
async def test_reconnect_resends_transaction_message_without_boot(
    back_end: BackEnd,
) -> None:
    back_end.answers["StopTransaction"] = None
    async with run_charger(back_end):
        await back_end.wait_until(lambda: len(back_end.statuses()) == 1)
        await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=1)
        await back_end.wait_until(lambda: len(back_end.sent_payloads("StopTransaction")) == 1)
        assert back_end.connection is not None
        back_end.answers["StopTransaction"] = {}
        back_end.connection.transport.abort()
        await back_end.wait_until(lambda: back_end.statuses()[-1:] == ["Available"] and len(back_end.statuses()) > 1)

    stops = [(unique_id, payload) for unique_id, action, payload in back_end.requests if action == "StopTransaction"]
    assert 2 == len(stops)
    assert stops[0] == stops[1]
    assert 1 == len(back_end.sent_payloads("BootNotification"))
    assert 1 == len(back_end.statuses(2))


@scenario
async def test_offline_status_change_is_reported_on_reconnect(back_end: BackEnd) -> None:
    async with run_charger(back_end) as charger:
        await back_end.wait_until(lambda: len(back_end.statuses(2)) == 1)
        assert back_end.connection is not None
        back_end.refusals = 2
        back_end.connection.transport.abort()
        await back_end.wait_until(lambda: len(back_end.handshakes) == 2)
        charger.plug(2)
        await back_end.wait_until(lambda: len(back_end.statuses(2)) == 2)

    assert ["Available", "Preparing"] == back_end.statuses(2)
    assert ["Available"] == back_end.statuses(1)
    assert 4 == len(back_end.handshakes)


@scenario
async def test_pending_boot_is_repeated_alone(back_end: BackEnd) -> None:
    back_end.answers["BootNotification"] = {"status": "Pending", "currentTime": NOW, "interval": 1}
    async with run_charger(back_end):
        await back_end.wait_until(lambda: len(back_end.requests) == 1)
        refused = await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=1)
        await back_end.wait_until(lambda: len(back_end.requests) == 2)

    assert {"status": "Rejected"} == refused
    assert ["BootNotification"] * 2 == [action for _, action, _ in back_end.requests]


@scenario
async def test_plugged_car_stays_plugged_after_session(back_end: BackEnd) -> None:
    async with run_charger(back_end) as charger:
        await back_end.wait_until(lambda: len(back_end.statuses()) == 1)
        charger.plug(1)
        await back_end.wait_until(lambda: len(back_end.statuses()) == 2)
        await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=1)
        await back_end.wait_until(lambda: back_end.statuses()[-1] == "Finishing")
        if charger.connectors[1].session is not None:
            await charger.connectors[1].session
        busy = await back_end.ask("RemoteStartTransaction", idTag="WEB2", connectorId=1)
        charger.unplug(1)
        await back_end.wait_until(lambda: back_end.statuses()[-1] == "Available")

    assert {"status": "Rejected"} == busy
    assert ["Available", "Preparing", "Charging", "Finishing", "Available"] == back_end.statuses()


@pytest.mark.parametrize(
    ("request_", "answer", "consequence"),
    [
        (("Heartbeat", None), "Accepted", ["Heartbeat"]),
        (("BootNotification", None), "Accepted", ["BootNotification"]),
        (("StatusNotification", None), "Accepted", ["StatusNotification", "StatusNotification"]),
        (("StatusNotification", 2), "Accepted", ["StatusNotification"]),
        (("MeterValues", 1), "Accepted", ["MeterValues"]),
        (("StatusNotification", 3), "Rejected", []),
        (("FirmwareStatusNotification", None), "NotImplemented", []),
    ],
)
def test_trigger_is_answered_then_obeyed(request_: tuple[str, int | None], answer: str, consequence: list[str]) -> None:
    async def story(back_end: BackEnd) -> None:
        async with run_charger(back_end):
            await back_end.wait_until(lambda: len(back_end.statuses(2)) == 1)
            before = len(back_end.requests)
            wanted, number = request_
            where = {} if number is None else {"connectorId": number}
            actual = await back_end.ask("TriggerMessage", requestedMessage=wanted, **where)
            await back_end.wait_until(lambda: len(back_end.requests) == before + len(consequence))

            assert {"status": answer} == actual
            assert consequence == [action for _, action, _ in back_end.requests[before:]]

    scenario(story)()


@scenario
async def test_configuration_availability_unlock_reset_are_answered(back_end: BackEnd) -> None:
    async with run_charger(back_end):
        await back_end.wait_until(lambda: len(back_end.statuses(2)) == 1)
        changes = [
            await back_end.ask("ChangeConfiguration", key="MeterValueSampleInterval", value="3"),
            await back_end.ask("ChangeConfiguration", key="MeterValueSampleInterval", value="often"),
            await back_end.ask("ChangeConfiguration", key="NumberOfConnectors", value="9"),
            await back_end.ask("ChangeConfiguration", key="Nothing", value="1"),
        ]
        table = await back_end.ask("GetConfiguration", key=["MeterValueSampleInterval", "Nothing"])
        unlocked = await back_end.ask("UnlockConnector", connectorId=1)
        closed = await back_end.ask("ChangeAvailability", connectorId=2, type="Inoperative")
        await back_end.wait_until(lambda: back_end.statuses(2)[-1] == "Unavailable")
        refused = await back_end.ask("RemoteStartTransaction", idTag="WEB1", connectorId=2)
        await back_end.ask("ChangeAvailability", connectorId=0, type="Operative")
        await back_end.wait_until(lambda: back_end.statuses(2)[-1] == "Available")
        reset = await back_end.ask("Reset", type="Soft")
        await back_end.wait_until(lambda: len(back_end.sent_payloads("BootNotification")) == 2)
        await back_end.wait_until(lambda: len(back_end.statuses(2)) == 4)

    assert ["Accepted", "Rejected", "Rejected", "NotSupported"] == [it["status"] for it in changes]
    assert [{"key": "MeterValueSampleInterval", "readonly": False, "value": "3"}] == table["configurationKey"]
    assert ["Nothing"] == table["unknownKey"]
    assert {"status": "Unlocked"} == unlocked
    assert {"status": "Accepted"} == closed
    assert {"status": "Rejected"} == refused
    assert {"status": "Accepted"} == reset
    assert ["Available", "Unavailable", "Available", "Available"] == back_end.statuses(2)
    assert 2 == len(back_end.handshakes)
