"""A running stack, over HTTP and WebSockets."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from local import maintain, story
from local.client import Api, Socket, connect_station
from tests.app import App, Json

SOON: Final = 10.0


class RemoteApp(App):
    """The drivers' and the operators' side by the HTTP API, whoever carries a request there."""

    checkout_urls: dict[str, str]

    @abstractmethod
    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Json]:
        """The status and the JSON of an answer."""

    def request_ok(self, method: str, path: str, body: Any = None) -> Json:
        """The JSON of an answer 200."""
        status, answer = self.ask(method, path, body)

        assert 200 == status, answer
        return answer

    def create(self, connector: int = 1) -> Json:
        wish = {"chargePointId": self.identity, "connectorId": connector}
        created = self.request_ok("POST", "/payments/create", wish)
        self.checkout_urls[created["reservationId"]] = created["checkoutUrl"]
        return created

    def pay(self, reservation_id: str) -> None:
        story.pay(self.checkout_urls[reservation_id])

    def confirm(self, reservation_id: str) -> Json:
        return self.request_ok("POST", "/payments/confirm", {"reservationId": reservation_id})

    def cancel(self, reservation_id: str) -> Json:
        return self.request_ok("POST", "/payments/cancel", {"reservationId": reservation_id})

    def status(self, reservation_id: str) -> Json:
        return self.request_ok("GET", f"/payments/status/{reservation_id}")

    def view_connector(self, connector: int = 1) -> Json:
        return self.request_ok("GET", f"/payments/connectors/{self.identity}/{connector}")

    def occupancy(self, connector: int = 1) -> Json:
        """Why an operator is told that the connector is busy, or not."""
        return self.request_ok("GET", f"/operations/stations/{self.identity}/connectors/{connector}/occupancy")

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(kw_only=True)
class HttpApp(RemoteApp):
    """A running stack over HTTP and WebSockets, its operators with this token; the sockets close with the block."""

    url: str
    token: str | None = None
    identity: str = "CP1"
    socket: str = "A"
    password: str = "correct horse"
    sockets: dict[str, Socket] = field(default_factory=dict)
    checkout_urls: dict[str, str] = field(default_factory=dict)
    open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    def connect(self, over: str | None = None) -> None:
        url = f"{self.url.replace('http', 'ws', 1)}/ocpp"
        opened = connect_station(url, self.identity, self.password, patience=SOON)
        self.sockets[over or self.socket] = self.open.enter_context(opened)

    def disconnect(self, over: str | None = None) -> None:
        self.sockets.pop(over or self.socket).connection.close()

    def exchange(self, action: str, *, over: str | None = None, **payload: Any) -> list[Any]:
        return [3, "", self.sockets[over or self.socket].call(action, **payload)]

    def accept_call(self, action: str) -> Json:
        """What the station is asked by the next CALL of this action, which it accepts."""
        return dict(self.sockets[self.socket].accept_call(action).payload)

    def accept_start(self, reservation_id: str) -> str:  # noqa: ARG002 - the next one is meant
        return str(self.accept_call("RemoteStartTransaction")["idTag"])

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Json]:
        answer = Api(url=self.url, token=self.token, patience=SOON).ask(method, path, body)
        return answer.status, answer.body

    def sweep(self) -> Json:
        return maintain.invoke_maintenance(self.url, {"dryRun": False})


def wait_until(condition: Callable[[], bool], seconds: float = SOON) -> None:
    """The condition holds, soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
