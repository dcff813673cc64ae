"""WebSocket frames on a connection that aiohttp has upgraded, with API Gateway's size limits.

aiohttp joins fragments before the length of a frame can be checked. So after the handshake the bytes go to the sans-I/O
protocol of the websockets package, which limits frames and messages separately.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from local.gateway.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseReason:
    """How a connection ended: code 1006 without a close frame, 1005 if the close frame had no code."""

    code: int
    reason: str


class Frames:
    """One open connection. `received` is called with each text message; `closed` is done when the TCP connection has
    ended.

    Pings are answered and not passed on. A frame or message over its limit ends the connection with 1009, binary data
    with 1003, and text that is not UTF-8 with 1007.
    """

    def __init__(self, *, limits: Limits, received: Callable[[str], None]) -> None:
        self.closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        self._limits = limits
        self._received = received
        self._protocol = Protocol(Side.SERVER, max_size=(limits.message_bytes, limits.frame_bytes))
        self._fragments: list[bytes] = []
        self._ignores_messages = False
        self._transport: asyncio.Transport | None = None
        self._last_resort: asyncio.TimerHandle | None = None

    def attach(self, request: web.Request) -> None:
        """Take the connection of an upgraded request over from aiohttp."""
        if not isinstance(request.transport, asyncio.Transport):
            self.feed_eof()
            return
        self._transport = request.transport
        request.protocol.keep_alive(False)
        # aiohttp's own WebSocketResponse uses set_parser() as well; it needs only feed_data() and feed_eof().
        request.protocol.set_parser(self)  # type: ignore[arg-type]

    @property
    def is_open(self) -> bool:
        return self._transport is not None and self._protocol.state is State.OPEN

    def send(self, text: str) -> None:
        """Send one text message, unless closing has begun."""
        if self.is_open:
            self._protocol.send_text(text.encode())
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, unless it has begun."""
        if self.is_open:
            self._ignores_messages = True
            self._protocol.send_close(code, reason)
            self._flush()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """aiohttp's payload parser interface: bytes arrived. (False, b"") means that more are wanted and none are left
        over."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._accept(event)
        self._flush()
        return False, b""

    def feed_eof(self) -> None:
        """aiohttp's payload parser interface: the TCP connection has ended."""
        self._transport = None
        self._protocol.receive_eof()
        if self._last_resort is not None:
            self._last_resort.cancel()
        if not self.closed.done():
            self.closed.set_result(self._close_reason())

    def _accept(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.BINARY:
                self._fail(CloseCode.UNSUPPORTED_DATA, "Binary messages are not supported")
            case Opcode.TEXT | Opcode.CONT if not self._ignores_messages:
                self._fragments.append(bytes(frame.data))
                if frame.fin:
                    self._deliver()

    def _deliver(self) -> None:
        message, self._fragments = b"".join(self._fragments), []
        try:
            text = message.decode()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "Text is not UTF-8")
            return
        self._received(text)

    def _fail(self, code: CloseCode, reason: str) -> None:
        self._ignores_messages = True
        self._protocol.fail(code, reason)

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            # Close only our half: a full close with unread bytes resets the connection, and the close frame would be
            # lost.
            elif self._transport.can_write_eof():
                self._transport.write_eof()
        if self._protocol.close_expected() and self._last_resort is None:
            loop = asyncio.get_running_loop()
            self._last_resort = loop.call_later(self._limits.close_seconds, self._transport.abort)

    def _close_reason(self) -> CloseReason:
        # The side that closed first gives the code; the other side only repeats it.
        ours_first = self._protocol.close_sent is not None and not self._protocol.close_rcvd_then_sent
        close = self._protocol.close_sent if ours_first else self._protocol.close_rcvd
        if close is None:
            return CloseReason(code=CloseCode.ABNORMAL_CLOSURE, reason="")
        return CloseReason(code=close.code, reason=close.reason)
