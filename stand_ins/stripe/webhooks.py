"""Signed events on their way to the webhook: at least once, in no promised order, with a limited number of attempts."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

DEFAULT_BACKOFF: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One POST to the webhook; `status` is None if no answer came."""

    event_id: str
    type: str
    status: int | None


class Webhooks:
    """The outgoing events of one stand-in, and hooks that let a test disturb their delivery.

    The hooks may be called from any thread. Without a url nothing is delivered.
    """

    def __init__(
        self,
        *,
        url: str | None,
        sign: Callable[[Event], tuple[bytes, str]],
        backoff: Sequence[float] = DEFAULT_BACKOFF,
        timeout: float = 10.0,
    ) -> None:
        self.url = url
        self.attempts: list[Attempt] = []
        self.undelivered: dict[str, Event] = {}
        self.on_settled: Callable[[], None] = lambda: None
        self._sign = sign
        self._backoff = tuple(backoff)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._holding = False
        self._held: list[Event] = []
        self._to_drop: list[str | None] = []
        self._to_duplicate: list[str | None] = []

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = aiohttp.ClientSession(timeout=self._timeout)
        for event in list(self.undelivered.values()):
            self._launch(event)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client:
            await self._client.close()
        self._loop = self._client = None

    def emit(self, event: Event) -> None:
        if self.url is None:
            return
        with self._changed:
            if _take(self._to_drop, event):
                return
            copies = 2 if _take(self._to_duplicate, event) else 1
            self.undelivered[event["id"]] = event
            if self._holding:
                self._held += [event] * copies
                return
        for _ in range(copies):
            self._launch(event)

    def pause(self) -> None:
        """Hold back every event from now on."""
        self._holding = True

    def resume(self, *, reverse: bool = False) -> None:
        """Deliver what was held back, one event after the other, and hold back no more. Blocks as wait_until_quiet
        does."""
        with self._changed:
            held, self._held, self._holding = self._held, [], False
        for event in reversed(held) if reverse else held:
            self._launch(event)
            self.wait_until_quiet()

    def drop_next(self, event_type: str | None = None) -> None:
        """Never deliver the next event (of event_type)."""
        self._to_drop.append(event_type)

    def duplicate_next(self, event_type: str | None = None) -> None:
        """Deliver the next event (of event_type) twice."""
        self._to_duplicate.append(event_type)

    def resend(self, event: Event) -> None:
        """Deliver an earlier event once more."""
        self._launch(event)

    def wait_until_quiet(self, timeout: float = 10.0) -> None:
        """Wait until no delivery is running. Must not be called from the stand-in's own event loop."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_flight == 0, timeout):
                raise TimeoutError(f"{self._in_flight} webhook deliveries still under way after {timeout} s")

    def _launch(self, event: Event) -> None:
        if self._loop is None or self.url is None:
            return
        with self._changed:
            self._in_flight += 1
        self._loop.call_soon_threadsafe(self._spawn, event)

    def _spawn(self, event: Event) -> None:
        task = asyncio.ensure_future(self._deliver(event))
        self._tasks.add(task)
        task.add_done_callback(self._forget_delivery)

    def _forget_delivery(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    async def _deliver(self, event: Event) -> None:
        for pause in (0.0, *self._backoff):
            await asyncio.sleep(pause)
            status = await self._post(event)
            self.attempts.append(Attempt(event_id=event["id"], type=event["type"], status=status))
            if status is not None and 200 <= status < 300:
                break
        # After the last attempt Stripe gives up as well; the receiver has to look the payment up.
        self.undelivered.pop(event["id"], None)
        self.on_settled()

    async def _post(self, event: Event) -> int | None:
        if self._client is None or self.url is None:
            return None
        payload, signature = self._sign(event)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature,
            "User-Agent": "Stripe/1.0 (stand-in)",
        }
        try:
            async with self._client.post(self.url, data=payload, headers=headers, allow_redirects=False) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None


def _take(wanted: list[str | None], event: Event) -> bool:
    """Take the first of the wanted types that fits the event off the list, and return whether there was one."""
    for index, event_type in enumerate(wanted):
        if event_type in {None, event["type"]}:
            del wanted[index]
            return True
    return False
