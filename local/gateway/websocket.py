"""The WebSocket API: the edge in front of it, its three routes, and its open connections."""

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from websockets.utils import accept_key

from csms.adapters.cloudfront import ORIGIN_HEADER, VIEWER_HEADER
from local.gateway import events
from local.gateway.delivery import IN_ORDER, Delivery, Line
from local.gateway.events import Peer
from local.gateway.frames import Frames
from local.gateway.limits import Limits
from local.invoke import Functions, InvocationError

# The same addresses as infra/edge/ocpp_path.js; some stations always add a version segment.
ADDRESS: Final = re.compile(r"/ocpp/+(?:(?:1\.6|2\.0\.1)/)?([!-.0-~]+)/?")
LONGEST: Final = 576
BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

# Headers that are hop-by-hop or replaced by the edge; and extensions, because API Gateway mishandles their window bits.
NOT_FORWARDED: Final = frozenset(
    {
        "connection",
        "host",
        "sec-websocket-extensions",
        "upgrade",
        "x-amzn-trace-id",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-forwarded-proto",
        ORIGIN_HEADER,
        VIEWER_HEADER,
    }
)

GOING_AWAY: Final = (1001, "Going away")


@dataclass(slots=True, kw_only=True)
class Connection:
    """An open connection. `last_active_at` is in milliseconds and changes with each message in either direction."""

    peer: Peer
    frames: Frames
    line: Line
    idle_seconds: float
    last_active_at: int = field(default_factory=events.now_millis)
    idle: asyncio.TimerHandle | None = None

    def send(self, text: str) -> None:
        """Send a message, unless closing has begun."""
        if self.frames.is_open:
            self.touch()
            self.frames.send(text)

    def touch(self) -> None:
        """Restart the idle time."""
        self.last_active_at = events.now_millis()
        if self.idle is not None:
            self.idle.cancel()
        self.idle = asyncio.get_running_loop().call_later(self.idle_seconds, self.frames.close, *GOING_AWAY)


class WebSocketApi:
    """The WebSocket API; `routes` maps $connect, $default and $disconnect to functions.

    `delivery` says whether the messages of one connection keep their order; those of others are never waited for.
    `lose_disconnects` drops every $disconnect event, because AWS delivers them with best effort only.
    """

    def __init__(
        self,
        functions: Functions,
        *,
        routes: Mapping[str, str],
        limits: Limits,
        origin_secret: str,
        delivery: Delivery = IN_ORDER,
        lose_disconnects: bool = False,
    ) -> None:
        self._functions = functions
        self._routes = routes
        self._limits = limits
        self._origin_secret = origin_secret
        self._delivery = delivery
        self._random = Random(delivery.seed)  # noqa: S311 - no secret depends on it
        self._lose_disconnects = lose_disconnects
        self.connections: dict[str, Connection] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer GET /ocpp/<identity> as CloudFront and API Gateway do: 404, 400, 426, $connect's refusal, or 101."""
        address = ADDRESS.fullmatch(request.raw_path.partition("?")[0])
        if address is None:
            return web.Response(status=404)
        if len(address[1]) > LONGEST or BROKEN_ESCAPE.search(address[1]):
            return web.Response(status=400)
        key = request.headers.get("Sec-WebSocket-Key")
        if key is None or request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=426, headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        if not _is_valid_key(key) or request.headers.get("Sec-WebSocket-Version") != "13":
            return web.Response(status=400, headers={"Sec-WebSocket-Version": "13"})

        peer = Peer(
            connection_id=events.new_id(),
            connected_at=events.now_millis(),
            source_ip=request.remote or "",
            user_agent=request.headers.get("User-Agent", ""),
            domain_name=request.host,
        )
        status, protocol = await self._admit(peer, request, cp=unquote(address[1]))
        if status != 200:
            return web.json_response(_error_frame(peer), status=status)
        return await self._serve(peer, request, upgrade=_upgrade_headers(key, protocol))

    async def _admit(self, peer: Peer, request: web.Request, *, cp: str) -> tuple[int, str | None]:
        """The status and sub-protocol that $connect decides on; 502 if the function raised or its answer is invalid."""
        forwarded = [(name, value) for name, value in request.headers.items() if name.lower() not in NOT_FORWARDED]
        own = {
            "Host": peer.domain_name,
            "X-Amzn-Trace-Id": events.trace_id(),
            "X-Forwarded-For": peer.source_ip,
            "X-Forwarded-Port": str(request.url.port),
            "X-Forwarded-Proto": request.scheme,
            ORIGIN_HEADER: self._origin_secret,
            VIEWER_HEADER: peer.source_ip,
        }
        event = events.connect(peer, headers=[*forwarded, *own.items()], query={"cp": cp})
        try:
            answer = await self._call("$connect", event)
        except InvocationError:
            return 502, None
        match answer:
            case {"statusCode": 200, **rest}:
                return _check_sub_protocol(rest.get("headers"))
            case {"statusCode": int(status)} if 300 <= status <= 599:
                return status, None
            case _:
                return 502, None

    async def _serve(self, peer: Peer, request: web.Request, *, upgrade: Mapping[str, str]) -> web.StreamResponse:
        """Complete the handshake, and return when the connection has ended."""
        response = web.StreamResponse(status=101, headers=upgrade)
        frames = Frames(limits=self._limits, received=lambda text: self._on_message(connection, text))
        line = Line(self._delivery, self._random)
        connection = Connection(peer=peer, frames=frames, line=line, idle_seconds=self._limits.idle_seconds)
        life = asyncio.get_running_loop().call_later(self._limits.life_seconds, frames.close, *GOING_AWAY)
        self.connections[peer.connection_id] = connection
        connection.touch()
        try:
            await self._shake_hands(response, request, frames)
            closed = await frames.closed
        finally:
            life.cancel()
            if connection.idle is not None:
                connection.idle.cancel()
            del self.connections[peer.connection_id]
        if not self._lose_disconnects:
            event = events.disconnect(peer, code=closed.code, reason=closed.reason)
            self._functions.run_in_background(self._send_disconnect(connection, event))
        line.release_all()
        return response

    async def _shake_hands(self, response: web.StreamResponse, request: web.Request, frames: Frames) -> None:
        try:
            await response.prepare(request)
        except ConnectionResetError:
            # The station left while $connect ran. It was admitted, so $disconnect must follow.
            frames.feed_eof()
            return
        frames.attach(request)

    async def close(self) -> None:
        """Close every connection with 1001, and return when all have ended and their $disconnect events are handled."""
        ends = [connection.frames.closed for connection in self.connections.values()]
        for connection in tuple(self.connections.values()):
            connection.frames.close(*GOING_AWAY)
        await asyncio.gather(*ends)
        # One turn of the loop lets each _serve() submit its event.
        await asyncio.sleep(0)
        await self._functions.drain(self._limits.integration_seconds)

    def _on_message(self, connection: Connection, text: str) -> None:
        connection.touch()
        event = events.message(connection.peer, text, arrived_at=events.now_millis())
        connection.line.add(lambda: self._functions.run_in_background(self._handle_message(connection, event)))

    async def _handle_message(self, connection: Connection, event: dict[str, Any]) -> None:
        async with connection.line.turn:
            if frame := await self._reply(connection.peer, event):
                connection.send(frame)

    async def _reply(self, peer: Peer, event: dict[str, Any]) -> str | None:
        """The frame to send back to the station: the body of $default's answer, API Gateway's own error frame, or
        nothing."""
        try:
            answer = await self._call("$default", event)
        except InvocationError:
            return web.json_response(_error_frame(peer)).text
        match answer:
            case None | {"body": None}:
                return None
            case {"body": str(body)} if len(body.encode()) <= self._limits.message_bytes:
                return body
            case dict() if "body" not in answer:
                return None
            case _:
                return web.json_response(_error_frame(peer)).text

    async def _send_disconnect(self, connection: Connection, event: dict[str, Any]) -> None:
        async with connection.line.turn:
            try:
                await self._call("$disconnect", event)
            except InvocationError:
                # call() has logged it; as on AWS, $disconnect has no retry and no caller.
                return

    async def _call(self, route: str, event: dict[str, Any]) -> Any:
        return await self._functions.call(self._routes[route], event, seconds=self._limits.integration_seconds)


def _error_frame(peer: Peer) -> dict[str, str]:
    return {"message": "Internal server error", "connectionId": peer.connection_id, "requestId": events.new_id()}


def _is_valid_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _check_sub_protocol(headers: object) -> tuple[int, str | None]:
    match headers:
        case None:
            return 200, None
        case dict():
            chosen = {str(name).lower(): value for name, value in headers.items()}.get("sec-websocket-protocol")
            # Any other value would let a handler add headers to the handshake.
            if chosen is None or (isinstance(chosen, str) and re.fullmatch(r"[\w.+-]+", chosen)):
                return 200, chosen
    return 502, None


def _upgrade_headers(key: str, protocol: str | None) -> dict[str, str]:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept_key(key)}
    if protocol is not None:
        headers["Sec-WebSocket-Protocol"] = protocol
    return headers
