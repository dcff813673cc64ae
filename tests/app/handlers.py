"""The Lambda handlers in this process, called with the events that API Gateway sends (tests/events)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import pytest

from csms.adapters.dynamodb import Store
from csms.model import CallState, fold
from local.invoke import Context, Handler
from tests.app import Json
from tests.app.http import RemoteApp
from tests.builders import basic_auth_header

EVENTS: Final = Path(__file__).parents[1] / "events"
ORIGIN: Final = "through-the-front-door"
NEXT_ORIGIN: Final = "through-the-new-door"
SOCKET: Final = "Qx1fGcmZDoECJgQ="
CLAIMS: Final = {"sub": "7e1f", "email": "eve@example.org"}
HEADERS: Final = {
    "authorization": "Authorization",
    "protocol": "Sec-WebSocket-Protocol",
    "origin": "x-origin-verify",
}


def sample_event(name: str) -> Json:
    """An event as API Gateway documents it."""
    event: Json = json.loads((EVENTS / f"{name}.json").read_text())
    return event


def import_handler(function: str) -> Handler:
    """The function's handler, made from the environment when it is first asked for."""
    handler: Handler = import_module(f"functions.{function}.app").lambda_handler
    return handler


@dataclass(kw_only=True)
class HandlerApp(RemoteApp):
    """The functions on a table; the station's clock stands still where `station_time` is given."""

    store: Store
    find_handler: Callable[[str], Handler] = import_handler
    identity: str = "CP1"
    socket: str = SOCKET
    password: bytes = b"open-sesame"
    station_time: datetime | None = None
    checkout_urls: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def invoke(self, function: str, event: Json) -> Json:
        """What the function answers."""
        context = Context(function_name=function, deadline=time.monotonic() + 29)
        answer = self.find_handler(function)(json.loads(json.dumps(event)), context)

        assert answer is not None
        return answer

    def connect(self, over: str | None = None, *, cp: str | None = "", **headers: str | None) -> Json:
        """The verdict on a $connect, by default of the station; a header that is None was not sent."""
        event = sample_event("ws_connect")
        own = {"authorization": basic_auth_header(self.identity, self.password), "origin": ORIGIN}
        for name, value in (own | headers).items():
            event["headers"].pop(HEADERS[name])
            event["headers"] |= {HEADERS[name]: value} if value is not None else {}
        event["queryStringParameters"] = {"cp": cp or self.identity} if cp is not None else None
        event["requestContext"]["connectionId"] = over or self.socket
        return self.invoke("ws_connect", event)

    def disconnect(self, over: str | None = None) -> Json:
        event = sample_event("ws_disconnect")
        event["requestContext"]["connectionId"] = over or self.socket
        return self.invoke("ws_connect", event)

    def send_frame(self, text: str, *, over: str | None = None) -> Json:
        """What API Gateway is given for a frame from the station."""
        event = sample_event("ws_message") | {"body": text}
        event["requestContext"]["connectionId"] = over or self.socket
        return self.invoke("ws_message", event)

    def exchange(self, action: str, *, over: str | None = None, **payload: Any) -> list[Any]:
        unique_id = str(next(self.numbers))
        answer: list[Any] = json.loads(self.send_frame(json.dumps([2, unique_id, action, payload]), over=over)["body"])

        assert unique_id == answer[1]
        return answer

    def accept_all(self) -> None:
        """The station accepts whatever it was asked."""
        while sent := [c for c in self.store.snapshot(fold(self.identity)).calls if c.state is CallState.SENT]:
            self.send_frame(json.dumps([3, sent[0].call_id, {"status": "Accepted"}]))

    def accept_start(self, reservation_id: str) -> str:
        self.accept_all()
        return self.store.reservation(reservation_id).id_tag

    def ask(
        self, method: str, path: str, body: Any = None, *, claims: Json | None = CLAIMS, **headers: str
    ) -> tuple[int, Json]:
        """The status and the JSON of an answer, an operator's token having made these claims; a body that is no text is
        sent as JSON."""
        raw_path, _, query = path.partition("?")
        function = "operations" if path.startswith("/operations/") else "payments"
        event = sample_event("http_v2") | {"rawPath": raw_path, "routeKey": f"{method} {raw_path}"}
        event["requestContext"]["http"] |= {"method": method, "path": raw_path}
        if function == "operations" and claims is not None:
            event["requestContext"]["authorizer"] = {"jwt": {"claims": claims, "scopes": None}}
        if query:
            event |= {"rawQueryString": query, "queryStringParameters": dict(parse_qsl(query))}
        event["headers"] |= {name.replace("_", "-"): value for name, value in headers.items()}
        event["body"] = body if isinstance(body, str | None) else json.dumps(body)
        return self.ask_with(event, function)

    def ask_with(self, event: Json, function: str = "payments") -> tuple[int, Json]:
        """The status and the JSON of the answer to an event of the HTTP API."""
        answer = self.invoke(function, event)
        headers = {name.lower(): value for name, value in (answer.get("headers") or {}).items()}
        multiple = answer.get("multiValueHeaders") or {}

        assert "application/json" in (headers.get("content-type") or multiple.get("Content-Type", [""])[0])
        return answer["statusCode"], json.loads(answer["body"])

    def sweep(self) -> Json:
        return self.invoke("maintenance", {"version": "0", "detail-type": "Scheduled Event", "detail": {}})

    def now(self) -> datetime:
        return self.station_time or super().now()


def capture_logs(function: str, capsys: pytest.CaptureFixture[str], act: Callable[[], Any]) -> tuple[Json, Json]:
    """The one log line and the one line of metrics of the act's one invocation of the function."""
    (line,), (metrics,) = capture_lines(function, capsys, act)
    return line, metrics


def capture_lines(
    function: str, capsys: pytest.CaptureFixture[str], act: Callable[[], Any]
) -> tuple[list[Json], list[Json]]:
    """The log lines and the lines of metrics of the act's one invocation of the function."""
    lines, app = StringIO(), import_module(f"functions.{function}.app")
    handler = app.logger.registered_handler
    # Not by setStream: it flushes what was there, the output of the test that imported the function, closed by now.
    before, handler.stream = handler.stream, lines
    level = app.logger.log_level
    app.logger.setLevel("INFO")  # Who ran the laptop's stack before wanted to hear less.
    app.metrics.clear_metrics()  # While they are disabled they pile up.
    capsys.readouterr()
    try:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("POWERTOOLS_METRICS_DISABLED", "false")
            act()
    finally:
        handler.stream = before
        app.logger.setLevel(level)
    logged, counted = (
        [json.loads(line) for line in text.splitlines()] for text in (lines.getvalue(), capsys.readouterr().out)
    )
    return logged, counted
