"""The stand-in's HTTP: Stripe's API, the checkout pages, and the clock that expires what is due; `ledger` decides."""

import asyncio
import contextlib
import hmac
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from aiohttp import web

from local.payments import checkout, store
from local.payments.api import OPERATIONS, Call, Listing, Operation
from local.payments.faults import Fault, Faults
from local.payments.idempotency import Answer, Keys
from local.payments.ledger import Change
from local.payments.objects import API_VERSION, Renderer
from local.payments.parameters import decode_form, read
from local.payments.records import StripeError
from local.payments.webhooks import DEFAULT_BACKOFF, Webhooks

SWEEP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Received:
    """A call that was authenticated and read."""

    operation: Operation
    request: web.Request
    params: dict[str, Any]
    id: str
    key: str | None

    @property
    def spelled(self) -> str:
        """The parameters in one canonical spelling, to compare them by."""
        return json.dumps(self.params, sort_keys=True)


class PaymentStandIn:
    """One Stripe account in test mode, with one secret key and one webhook endpoint.

    clock says what time it is for the payments: sessions and authorisations expire by it. webhook_url may be None:
    events are then only remembered in `webhooks.events`. With state_file the payments survive a restart. `url` is the
    base address, set by start(); whoever serves app() otherwise sets it. `latency` delays every call, in seconds.
    """

    def __init__(
        self,
        *,
        api_key: str,
        webhook_secret: str,
        webhook_url: str | None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        state_file: Path | None = None,
        webhook_backoff: Sequence[float] = DEFAULT_BACKOFF,
        webhook_timeout: float = 10.0,
    ) -> None:
        if not api_key.startswith("sk_test_"):
            raise ValueError("The payment stand-in takes test keys (sk_test_…) only.")
        state = store.load(state_file)
        self.url = ""
        self.latency = 0.0
        self.ledger = state.ledger
        self.webhooks = Webhooks(
            url=webhook_url, secret=webhook_secret, backoff=webhook_backoff, timeout=webhook_timeout
        )
        self.webhooks.undelivered = dict(state.undelivered)
        self.webhooks.on_settled = self._save
        self._api_key = api_key
        self._clock = clock
        self._state_file = state_file
        self._keys = Keys(uses=dict(state.uses))
        self._faults = Faults()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def app(self) -> web.Application:
        """The application: `/v1/…` is Stripe's API, `/checkout/…` the pages."""
        app = web.Application()
        for operation in OPERATIONS:
            app.router.add_route(operation.method, operation.path, self._handler(operation))
        checkout.add_routes(app, self)
        app.router.add_route("*", "/{tail:.*}", self._unknown)
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
    def running(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """The stand-in in a thread and an event loop of its own; yields its base address."""
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

    def fail_next(self, operation: str | None = None, *, status: int, acted: bool = False) -> None:
        """Answer the next call of operation (`payment_intents.capture`; any when None) with status.

        Without acted nothing happened and the key is not used up. With acted the call took effect, and as at Stripe the
        error is what the idempotency key answers from then on.
        """
        self._faults.ordered.append(Fault(operation=operation, status=status, acted=acted))

    def hang_next(self, operation: str | None = None, *, acted: bool = False) -> None:
        """Never answer the next call of operation; with acted it took effect, and its key gets the answer later."""
        self._faults.ordered.append(Fault(operation=operation, status=None, acted=acted))

    def now(self) -> int:
        return int(self._clock().timestamp())

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_hex(12)}"

    def sweep(self) -> None:
        """Do what the clock alone brings about: expire sessions, let authorisations lapse."""
        for change in self.ledger.overdue(self.now()):
            self.commit(change)

    def commit(self, change: Change) -> None:
        """Keep the change's records, send its events, save the state."""
        self._apply(change)
        self._save()

    def _handler(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            request_id = self.new_id("req")
            key = request.headers.get("Idempotency-Key") if operation.method == "POST" else None
            try:
                self._authenticate(request)
                params = read(operation.fields, decode_form(await _form(request)))
                received = _Received(operation=operation, request=request, params=params, id=request_id, key=key)
                kept = (
                    self._keys.begin(key, path=request.path, params=received.spelled, now=self.now()) if key else None
                )
            except StripeError as refusal:
                return _respond(self._refused(refusal, request_id), key)
            if kept:
                original = {"Idempotent-Replayed": "true", "Original-Request": kept.request_id}
                return _respond(replace(kept, request_id=request_id), key, original)
            return await self._run(received)

        return handle

    async def _run(self, received: _Received) -> web.Response:
        """The answer to a call that is the first of its key."""
        fault = self._faults.take(received.operation.name)
        answer = None
        try:
            await asyncio.sleep(self.latency)
            if fault is None or fault.acted:
                answer = self._execute(received)
            if fault and answer and fault.status is not None:
                answer = _failure(fault.status, received.id)
        finally:
            if received.key:
                self._keys.finish(received.key, answer)
            if received.operation.method == "POST":
                self._save()
        if fault is None and answer:
            return _respond(answer, received.key)
        return await self._go_wrong(fault, received)

    def _execute(self, received: _Received) -> Answer:
        self.sweep()
        render = self._renderer()
        expand = tuple(received.params.get("expand", ()))
        call = Call(
            ledger=self.ledger,
            object_id=received.request.match_info.get("id", ""),
            params=received.params,
            now=self.now(),
            new_id=self.new_id,
        )
        try:
            decided = received.operation.act(call)
            if isinstance(decided, Listing):
                body = render.listing(
                    decided.records, url=received.request.path, has_more=decided.has_more, expand=expand
                )
                return Answer(status=200, body=body, request_id=received.id)
            # A path that cannot be expanded is refused before anything is done.
            render.object(decided.answer, expand)
        except StripeError as refusal:
            return self._refused(refusal, received.id)
        self._apply(decided, request_id=received.id, key=received.key)
        return Answer(status=200, body=render.object(decided.answer, expand), request_id=received.id)

    async def _go_wrong(self, fault: Fault | None, received: _Received) -> web.Response:
        if fault and fault.status is not None:
            # Stripe says so when its stored answer would only be replayed.
            retry = {"Stripe-Should-Retry": "false"} if fault.acted else {}
            return _respond(_failure(fault.status, received.id), received.key, retry)
        await self._released.wait()
        if received.request.transport:
            received.request.transport.close()
        return web.Response(status=503)

    def _apply(self, change: Change, *, request_id: str | None = None, key: str | None = None) -> None:
        self.ledger.keep(change.records)
        render = self._renderer()
        self.webhooks.emit(
            {
                "id": self.new_id("evt"),
                "object": "event",
                "api_version": API_VERSION,
                "created": self.now(),
                "data": {"object": render.object(record)},
                "livemode": False,
                "pending_webhooks": 1,
                "request": {"id": request_id, "idempotency_key": key},
                "type": event_type,
            }
            for event_type, record in change.events
        )

    def _authenticate(self, request: web.Request) -> None:
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not presented:
            raise StripeError("You did not provide an API key in the Authorization header (Bearer).", status=401)
        if not hmac.compare_digest(presented.encode(), self._api_key.encode()):
            raise StripeError(f"Invalid API Key provided: {presented[:7]}****{presented[-4:]}", status=401)

    def _refused(self, refusal: StripeError, request_id: str) -> Answer:
        return Answer(status=refusal.status, body=self._renderer().error(refusal), request_id=request_id)

    async def _unknown(self, request: web.Request) -> web.Response:
        refusal = StripeError(f"Unrecognized request URL ({request.method}: {request.path}).", status=404)
        return _respond(self._refused(refusal, self.new_id("req")), None)

    async def _background(self, _: web.Application) -> Any:
        """The sweep and the deliveries, for as long as the application runs."""
        self._released = asyncio.Event()
        await self.webhooks.start()
        sweeper = asyncio.create_task(self._sweep_for_ever())
        yield
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        await self.webhooks.stop()

    async def _sweep_for_ever(self) -> None:
        while True:
            self.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    def _renderer(self) -> Renderer:
        return Renderer(site=self.url, find=self.ledger.find)

    def _save(self) -> None:
        if self._state_file is None:
            return
        uses = self._keys.worth_keeping(self.now())
        state = store.State(ledger=self.ledger, uses=uses, undelivered=self.webhooks.undelivered)
        store.save(self._state_file, state)


async def _form(request: web.Request) -> str:
    if request.method == "GET":
        return request.query_string
    if request.can_read_body and request.content_type != "application/x-www-form-urlencoded":
        raise StripeError("Invalid request (check that your POST content type is application/x-www-form-urlencoded).")
    return await request.text()


def _respond(answer: Answer, key: str | None, headers: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    sent = {"Request-Id": answer.request_id, "Stripe-Version": API_VERSION, **headers}
    if key:
        sent["Idempotency-Key"] = key
    return web.json_response(answer.body, status=answer.status, headers=sent)


def _failure(status: int, request_id: str) -> Answer:
    error = {"type": "api_error", "message": f"The stand-in was told to answer {status}."}
    return Answer(status=status, body={"error": error}, request_id=request_id)
