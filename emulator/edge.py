"""Both distributions of the deployed stack on one loopback port. It does what the emulator's CloudFront cannot.

An HTTP request goes to the emulator's CloudFront under the domain name of its distribution. That CloudFront takes no
WebSockets, so for them this module applies what the distribution is deployed with: its function, its origin's headers
and its origin's address. The emulator negotiates no sub-protocol either, so the station gets the first that it offers.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from emulator.adapt import HOST
from emulator.aws import NODE, Emulator

OCPP: Final = "/ocpp/"

# Headers that belong to this connection and not to the request, and those that CloudFront replaces.
NOT_FORWARDED: Final = frozenset(
    {"connection", "host", "keep-alive", "sec-websocket-key", "sec-websocket-version", "transfer-encoding", "upgrade"}
)
NOT_RETURNED: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})

RUN_FUNCTION: Final = """
const { source, event } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const context = require('vm').createContext({});
require('vm').runInContext(source, context);
console.log(JSON.stringify(context.handler(event)));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What is deployed in front of the WebSocket API: the live function, and the origin's address and headers."""

    source: str
    headers: Mapping[str, str]
    origin: str

    @classmethod
    def find(cls, emulator: Emulator, domain: str) -> "Distribution":
        """The distribution with this domain name, and its function as it is live."""
        cloudfront = emulator.client("cloudfront")
        found = cloudfront.list_distributions()["DistributionList"]["Items"]
        (name,) = (row["Id"] for row in found if row["DomainName"] == domain)
        config = cloudfront.get_distribution_config(Id=name)["DistributionConfig"]
        (association,) = config["DefaultCacheBehavior"]["FunctionAssociations"]["Items"]
        function = association["FunctionARN"].rpartition("/")[2]
        (origin,) = config["Origins"]["Items"]
        address = f"{origin['DomainName']}:{origin['CustomOriginConfig']['HTTPPort']}"
        return cls(
            source=cloudfront.get_function(Name=function, Stage="LIVE")["FunctionCode"].read().decode(),
            headers={row["HeaderName"]: row["HeaderValue"] for row in origin["CustomHeaders"]["Items"]},
            origin=f"ws://{address}{origin['OriginPath']}",
        )

    def run_function(self, path: str, headers: Mapping[str, str], *, viewer: str) -> dict[str, Any]:
        """The function's answer to a request of the viewer with this address: the request to forward, or a response."""
        request = {
            "method": "GET",
            "uri": path,
            "querystring": {},
            "headers": {name.lower(): {"value": value} for name, value in headers.items()},
        }
        work = json.dumps({"source": self.source, "event": {"request": request, "viewer": {"ip": viewer}}})
        done = subprocess.run([NODE, "-e", RUN_FUNCTION], input=work, capture_output=True, text=True, check=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


class Edge:
    """Both distributions; `ocpp` and `pages` are their domain names."""

    def __init__(self, emulator: Emulator, *, ocpp: str, pages: str) -> None:
        self._endpoint = emulator.database.endpoint
        self._domains = {True: ocpp, False: pages}
        self._stations = Distribution.find(emulator, ocpp)
        self._turn = asyncio.Lock()
        self._client: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a free port, and return the base URL without a slash at its end."""
        self._client = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_station(request)
        return await self._fetch(request)

    async def _fetch(self, request: web.Request) -> web.Response:
        headers = _forwarded_headers(request)
        headers["Host"] = self._domains[request.path.startswith(OCPP)]
        # The emulator listens without TLS; its CloudFront must take the viewer's request for one over HTTPS.
        headers["X-Forwarded-Proto"] = "https"
        url = f"{self._endpoint}{request.raw_path}"
        body = await request.read()
        # One request at a time: the emulator would start another process of the function for a parallel one.
        async with (
            self._turn,
            self._session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer,
        ):
            kept = CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in NOT_RETURNED)
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    async def _serve_station(self, request: web.Request) -> web.StreamResponse:
        path, viewer = urlsplit(request.raw_path).path, request.remote or ""
        decided = await asyncio.to_thread(self._stations.run_function, path, request.headers, viewer=viewer)
        if "statusCode" in decided:
            return web.Response(status=decided["statusCode"])
        query = "&".join(f"{name}={field['value']}" for name, field in decided["querystring"].items())
        passed = {name: field["value"] for name, field in decided["headers"].items() if name not in NOT_FORWARDED}
        headers = {**passed, **self._stations.headers}
        try:
            behind = await self._session.ws_connect(f"{self._stations.origin}{decided['uri']}?{query}", headers=headers)
        except aiohttp.WSServerHandshakeError as refused:
            return web.Response(status=refused.status)
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        station = web.WebSocketResponse(protocols=offered[:1])
        await station.prepare(request)
        inward, outward = (asyncio.create_task(_relay(*pair)) for pair in ((station, behind), (behind, station)))
        await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(behind.close(), station.close())
        await asyncio.gather(inward, outward)
        return station

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            raise RuntimeError("the edge is not started")
        return self._client


Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _relay(source: Socket, target: Socket) -> None:
    """Pass text messages on until the source ends."""
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT and not target.closed:
            await target.send_str(message.data)


def _forwarded_headers(request: web.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in NOT_FORWARDED}


@contextmanager
def run_edge(edge: Edge) -> Iterator[str]:
    """Run the edge in a thread of its own until the block ends, and yield its base URL."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="edge", daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(edge.start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(edge.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
