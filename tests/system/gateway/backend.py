"""The functions behind the local gateway, which a test may replace or let misbehave."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.gateway import AWS, Gateway, Limits, run_gateway
from tests.system.gateway.clients import SOON

SECRET = "the-way-through-the-edge"
QUICK = Limits(integration_seconds=0.5, http_seconds=0.5, close_seconds=1)

Event = dict[str, Any]


class Backend:
    """Four small functions. Each records its event, and answers what its attribute gives, which a test may replace."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.on_connect: Callable[[Event], Any] = lambda _: {"statusCode": 200}
        self.on_message: Callable[[Event], Any] = lambda event: {"statusCode": 200, "body": f"echo {event['body']}"}
        self.on_http: Callable[[Event], Any] = lambda _: {"ok": True}
        self.on_task: Callable[[Event], Any] = lambda event: {"seen": event}

    def ws_connect(self, event: Event, _: Any) -> Any:
        self.events.put(event)
        return self.on_connect(event) if event["requestContext"]["eventType"] == "CONNECT" else {"statusCode": 200}

    def ws_message(self, event: Event, _: Any) -> Any:
        self.events.put(event)
        return self.on_message(event)

    def payments(self, event: Event, _: Any) -> Any:
        self.events.put(event)
        return self.on_http(event)

    def maintenance(self, event: Event, _: Any) -> Any:
        self.events.put({"task": event})
        return self.on_task(event)

    def next_event(self, kind: str) -> Event:
        """The next event with this eventType."""
        while True:
            event = self.events.get(timeout=SOON)
            if event.get("requestContext", {}).get("eventType") == kind:
                return event

    @contextmanager
    def serve(self, limits: Limits = AWS, **settings: Any) -> Iterator[str]:
        names = ("ws_connect", "ws_message", "payments", "maintenance")
        handlers = {name: getattr(self, name) for name in names}
        web_folder = settings.pop("web", Path(__file__).parent)
        with run_gateway(
            Gateway(
                handlers, origin_secret=SECRET, web=web_folder, limits=limits, retry_seconds=(0.01, 0.01), **settings
            )
        ) as url:
            yield url


def raise_error(_: Event) -> Any:
    raise RuntimeError("as ordered")


def answer_after_close(handler_may_go: threading.Event) -> Callable[[Event], Any]:
    def answer(_: Event) -> Any:
        handler_may_go.wait(SOON)
        return {"statusCode": 200, "body": "late"}

    return answer
