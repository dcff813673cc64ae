"""One server on one port for the WebSocket API, the HTTP API, the pages, @connections, Lambda's Invoke API and SQS."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Thread

from aiohttp import web as aio

from infra import routes
from local.database import CREDENTIALS
from local.gateway.delivery import IN_ORDER, Delivery
from local.gateway.events import STAGE
from local.gateway.http import any_segment, error_response, http_routes
from local.gateway.limits import AWS, Limits
from local.gateway.management import management_routes
from local.gateway.queue import EventSource, Message, queue_routes
from local.gateway.websocket import WebSocketApi
from local.invoke import SECRET_KEY, Functions, Handler, invoke_routes

Respond = Callable[[aio.Request], Awaitable[aio.StreamResponse]]


class Gateway:
    """In place of CloudFront, API Gateway, Lambda and SQS, for unmodified handlers.

    `handlers` are the functions by name. `operator_token` is required by the operators' routes, which refuse everyone
    if it is empty. `web` is the folder of the static files. `extra` are aiohttp handlers by "METHOD /path" for routes
    that exist only on a laptop. `secret_key` signs the requests to the AWS APIs. `take_timer` takes the timers'
    messages in place of EventSource, so that they do not go off. The other settings are described at WebSocketApi,
    Functions and EventSource.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        origin_secret: str,
        operator_token: str = "",
        web: Path,
        limits: Limits = AWS,
        websocket: Mapping[str, str] = routes.WEBSOCKET,
        http: Iterable[routes.Route] = routes.HTTP,
        pages: Mapping[str, str] = routes.PAGES,
        extra: Mapping[str, Respond] | None = None,
        delivery: Delivery = IN_ORDER,
        lose_disconnects: bool = False,
        retry_seconds: Sequence[float] = (1.0, 2.0),
        timer_retry_seconds: float | None = None,
        secret_key: str = CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        take_timer: Callable[[Message], None] | None = None,
        workers: int = 64,
    ) -> None:
        self._functions = Functions(handlers, workers=workers, retry_seconds=retry_seconds)
        self._sockets = WebSocketApi(
            self._functions,
            routes=websocket,
            limits=limits,
            origin_secret=origin_secret,
            delivery=delivery,
            lose_disconnects=lose_disconnects,
        )
        self._timers = EventSource(self._functions, routes.TIMERS, retry_seconds=timer_retry_seconds)
        self._secret_key = secret_key
        self._limits = limits
        self._table = (
            *(aio.route(*_method_and_path(address), respond) for address, respond in (extra or {}).items()),
            *http_routes(self._functions, http, limits, operator_token=operator_token, origin_secret=origin_secret),
            *invoke_routes(self._functions),
            *queue_routes(routes.TIMERS.name, take_timer or self._timers.deliver),
            *management_routes(self._sockets.connections, limits),
            aio.get(f"/{STAGE}/{{rest:.*}}", self._sockets.handle, allow_head=False),
            *_page_routes(pages, web),
            aio.static("/assets", web),
        )
        self._runner: aio.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, also: Sequence[str] = ()) -> str:
        """Listen, on a free port if `port` is 0, and return the base URL without a slash at its end. With `also`,
        listen on this port at these addresses too."""
        app = aio.Application(middlewares=[_api_gateway_errors], client_max_size=self._limits.body_bytes)
        app[SECRET_KEY] = self._secret_key
        app.add_routes(self._table)
        app.on_response_prepare.append(_forbid_caching)
        self._runner = aio.AppRunner(app, access_log=None, shutdown_timeout=self._limits.close_seconds)
        await self._runner.setup()
        await aio.TCPSite(self._runner, host, port).start()
        number = self._runner.addresses[0][1]
        for address in also:
            await aio.TCPSite(self._runner, address, number).start()
        return f"http://{host}:{number}"

    async def stop(self) -> None:
        """Close every connection with 1001, wait for $disconnect to run, stop listening, and cancel the timers."""
        await self._sockets.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._timers.close()
        await self._functions.close()


@contextmanager
def run_gateway(gateway: Gateway, *, host: str = "127.0.0.1", port: int = 0, also: Sequence[str] = ()) -> Iterator[str]:
    """Run the gateway in a thread of its own until the block ends, and yield its base URL."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="gateway", daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(gateway.start(host, port, also=also), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@aio.middleware
async def _api_gateway_errors(request: aio.Request, handler: Respond) -> aio.StreamResponse:
    """Turn aiohttp's refusals into API Gateway's: a method without a route is 404, like an unknown path."""
    try:
        return await handler(request)
    except (aio.HTTPNotFound, aio.HTTPMethodNotAllowed, aio.HTTPForbidden):
        return error_response(HTTPStatus.NOT_FOUND)
    except aio.HTTPRequestEntityTooLarge:
        return error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


async def _forbid_caching(_: aio.Request, response: aio.StreamResponse) -> None:
    # A page that is being edited must not come from the browser's cache.
    if isinstance(response, aio.FileResponse):
        response.headers["Cache-Control"] = "no-cache"


def _method_and_path(address: str) -> tuple[str, str]:
    method, _, path = address.partition(" ")
    return method, path


def _page_routes(pages: Mapping[str, str], web: Path) -> list[aio.RouteDef]:
    def page(file: str) -> Respond:
        async def respond(_: aio.Request) -> aio.StreamResponse:
            return aio.FileResponse(web / file)

        return respond

    return [aio.get(any_segment(address) + slash, page(file)) for address, file in pages.items() for slash in ("", "/")]
