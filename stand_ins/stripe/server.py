"""The account on loopback: Stripe's API and the checkout pages over HTTP, the delivery of webhooks, and the regular
sweep."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from stand_ins.stripe import checkout, store
from stand_ins.stripe.account import Account, Event, Reply, Request, random_id
from stand_ins.stripe.idempotency import Keys
from stand_ins.stripe.ledger import NewId
from stand_ins.stripe.webhooks import DEFAULT_BACKOFF, Webhooks

SWEEP_SECONDS: Final = 1.0


class PaymentStandIn(Account):
    """An account that listens, delivers its events, and saves its state.

    With webhook_url None events are only recorded in `events`. With state_file the payments survive a restart. `url` is
    the base address, set by start(); a caller that serves app() otherwise must set it. `latency` delays every call, in
    seconds.
    """

    def __init__(
        self,
        *,
        api_key: str,
        webhook_secret: str,
        webhook_url: str | None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: NewId = random_id,
        state_file: Path | None = None,
        webhook_backoff: Sequence[float] = DEFAULT_BACKOFF,
        webhook_timeout: float = 10.0,
    ) -> None:
        super().__init__(api_key=api_key, webhook_secret=webhook_secret, clock=clock, new_id=new_id)
        state = store.load(state_file)
        self.ledger = state.ledger
        self.latency = 0.0
        self.webhooks = Webhooks(
            url=webhook_url, sign=self.sign_event, backoff=webhook_backoff, timeout=webhook_timeout
        )
        self.webhooks.undelivered = dict(state.undelivered)
        self.webhooks.on_settled = self.save
        self._keys = Keys(uses=dict(state.uses))
        self._state_file = state_file
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return self.site

    @url.setter
    def url(self, url: str) -> None:
        self.site = url

    def app(self) -> web.Application:
        """The application: `/checkout/…` are the pages, everything else is Stripe's API."""
        app = web.Application()
        checkout.add_routes(app, self)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        app.cleanup_ctx.append(self._background)
        return app

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base address (`http://127.0.0.1:<port>`)."""
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        self._released.set()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    @contextlib.contextmanager
    def run_in_thread(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Run the stand-in in a thread with an event loop of its own, and yield its base address."""
        ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            leave = asyncio.Event()
            try:
                await self.start(host, port)
            except OSError as error:
                await self.stop()
                ready.set_exception(error)
                return
            ready.set_result((asyncio.get_running_loop(), leave))
            await leave.wait()
            await self.stop()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), name="payment-stand-in")
        thread.start()
        loop, leave = ready.result()
        try:
            yield self.url
        finally:
            loop.call_soon_threadsafe(leave.set)
            thread.join()

    def emit(self, event: Event) -> None:
        """Record the event, and deliver it to the webhook."""
        super().emit(event)
        self.webhooks.emit(event)

    def save(self) -> None:
        """Write the state to its file, if it has one."""
        if self._state_file is None:
            return
        uses = self._keys.unexpired_uses(self.now())
        state = store.State(ledger=self.ledger, uses=uses, undelivered=self.webhooks.undelivered)
        store.save(self._state_file, state)

    async def _answer(self, request: web.Request) -> web.Response:
        read = request.method == "GET"
        text = request.query_string if read else await request.text()
        begun = self.begin(Request(method=request.method, path=request.path, headers=request.headers, text=text))
        if isinstance(begun, Reply):
            return _response(begun)
        await asyncio.sleep(self.latency)
        if reply := self.finish(begun):
            return _response(reply)
        await self._released.wait()
        if request.transport:
            request.transport.close()
        return web.Response(status=503)

    async def _background(self, _: web.Application) -> Any:
        """Run the sweep and the deliveries as long as the application runs."""
        self._released = asyncio.Event()
        await self.webhooks.start()
        sweeper = asyncio.create_task(self._sweep_forever())
        yield
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        await self.webhooks.stop()

    async def _sweep_forever(self) -> None:
        while True:
            self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)


def _response(reply: Reply) -> web.Response:
    return web.json_response(reply.body, status=reply.status, headers=reply.headers)
