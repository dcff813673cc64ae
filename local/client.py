"""Scripted clients of csms, for the laptop and any deployment: a station over its WebSocket, and a driver or operator
over the HTTP API."""

import base64
import http.client
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import quote, urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.extensions.base import ClientExtensionFactory
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

PATIENCE_S: Final = 15.0
OCPP16: Final = "ocpp1.6"

Json = dict[str, Any]


class ClientError(Exception):
    """The other side did not answer as expected. The message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of the HTTP API. Header names are in lower case, and body is {} if it was not JSON."""

    status: int
    headers: dict[str, str]
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The HTTP API at `url`; with a token its caller is an operator."""

    url: str
    token: str | None = field(default=None, repr=False)
    patience: float = PATIENCE_S

    def ask(self, method: str, path: str, body: Json | bytes | None = None, **headers: str) -> Answer:
        """Send a request and return the answer, whatever its status. Raises ClientError if there is none. Underscores
        in header names become hyphens."""
        address = urlsplit(self.url)
        kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            sent["Content-Type"] = "application/json"
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection = kind(address.netloc, timeout=self.patience)
        try:
            connection.request(method, f"{address.path.rstrip('/')}{path}", data, sent)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as failed:
            raise ClientError(f"{method} {path}: no answer from {self.url}: {failed!r}") from failed
        finally:
            connection.close()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=named, body=_json(content, named.get("content-type", "")))

    def request_ok(self, method: str, path: str, body: Json | bytes | None = None, **headers: str) -> Json:
        """Send a request and return the body. Raises ClientError unless the status is 200."""
        answer = self.ask(method, path, body, **headers)
        if answer.status != 200:
            raise ClientError(f"{method} {path}: {answer.status} {answer.body}")
        return answer.body


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCall:
    """A CALL that the back end sent to the station."""

    unique_id: str
    action: str
    payload: Json


@dataclass(slots=True, kw_only=True)
class Socket:
    """The station's end of its connection. Frames are read only while a caller waits for one."""

    connection: ClientConnection
    patience: float = PATIENCE_S
    received_calls: deque[ReceivedCall] = field(default_factory=deque)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def call(self, action: str, **payload: Any) -> Json:
        """Send a CALL and return the payload of its CALLRESULT. Raises ClientError for a CALLERROR or no answer."""
        unique_id = str(next(self.numbers))
        self.send([2, unique_id, action, payload])
        for frame in self._frames(f"the answer to {action}", self.patience):
            if frame[1] != unique_id:
                continue
            if frame[0] != 3:
                raise ClientError(f"{action} was answered with {json.dumps(frame)}")
            answer: Json = frame[2]
            return answer
        raise ClientError(f"{action} was not answered")

    def receive_call(self, action: str, *, patience: float | None = None) -> ReceivedCall:
        """The next CALL of this action that the back end has sent, or sends within `patience` seconds."""
        frames = self._frames(f"a {action}", patience or self.patience)
        while True:
            for one in self.received_calls:
                if one.action == action:
                    self.received_calls.remove(one)
                    return one
            next(frames)

    def accept_call(self, action: str, *, patience: float | None = None, **answer: Any) -> ReceivedCall:
        """Receive the next CALL of this action, and answer it with Accepted or the given payload."""
        asked = self.receive_call(action, patience=patience)
        self.send([3, asked.unique_id, answer or {"status": "Accepted"}])
        return asked

    def send(self, frame: Any) -> None:
        """Send a frame; text is sent as it is."""
        try:
            self.connection.send(frame if isinstance(frame, str) else json.dumps(frame))
        except ConnectionClosed as closed:
            raise ClientError(f"the socket is closed: {closed}") from closed

    def receive_text(self, seconds: float) -> str | None:
        """The next text frame, or None if none comes within so many seconds."""
        try:
            return str(self.connection.recv(timeout=seconds))
        except TimeoutError:
            return None
        except ConnectionClosed as closed:
            raise ClientError(f"the socket was closed: {closed}") from closed

    def _frames(self, what: str, patience: float) -> Iterator[list[Any]]:
        """Every frame that arrives; CALLs are also kept for receive_call. Raises ClientError when `patience` seconds
        are over."""
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            text = self.receive_text(left)
            if text is None:
                break
            frame = _frame(text)
            if frame[0] == 2:
                self.received_calls.append(ReceivedCall(unique_id=frame[1], action=frame[2], payload=frame[3]))
            yield frame
        raise ClientError(f"waited {patience:.0f} s for {what}")


@contextmanager
def connect_station(
    url: str,
    identity: str,
    password: str | None,
    *,
    protocols: Sequence[str] = (OCPP16,),
    extensions: Sequence[ClientExtensionFactory] = (),
    query: str = "",
    patience: float = PATIENCE_S,
) -> Iterator[Socket]:
    """Connect as a station, and yield its open socket until the block ends.

    `url` is the OCPP endpoint without the identity. Raises InvalidStatus if the upgrade is refused, and ClientError if
    nothing answers.
    """
    user = base64.b64encode(f"{identity}:{password}".encode()).decode()
    try:
        connection = connect(
            f"{station_address(url, identity)}{query}",
            subprotocols=[Subprotocol(protocol) for protocol in protocols] or None,
            additional_headers={"Authorization": f"Basic {user}"} if password is not None else {},
            extensions=list(extensions) or None,
            compression=None,
            open_timeout=patience,
            # The script sends its own pings: automatic ones could keep a connection alive that a test expects to end.
            ping_interval=None,
            max_size=None,
            **_proxy_arguments(url),
        )
    except InvalidHandshake:
        raise
    except OSError as failed:
        raise ClientError(f"no connection to {url}: {failed}") from failed
    with connection:
        yield Socket(connection=connection, patience=patience)


def station_address(url: str, identity: str) -> str:
    """The station's address at the OCPP endpoint; without an identity the endpoint itself."""
    return f"{url.rstrip('/')}/{quote(identity, safe='')}" if identity else url.rstrip("/")


def _proxy_arguments(url: str) -> Json:
    """The arguments that keep a connection to this machine away from a proxy."""
    return {"proxy": None} if is_local(url) else {}


def is_local(url: str) -> bool:
    """Whether the address is on this machine."""
    return (urlsplit(url).hostname or "") in {"127.0.0.1", "localhost", "::1"}


def _frame(text: str) -> list[Any]:
    """The OCPP-J frame in a text. Raises ClientError if it is none, as an error message of API Gateway."""
    try:
        frame = json.loads(text)
    except ValueError:
        raise ClientError(f"not JSON: {text[:200]!r}") from None
    if not isinstance(frame, list) or len(frame) < 3:
        raise ClientError(f"not an OCPP frame: {text[:200]!r}")
    return frame


def _json(content: bytes, content_type: str) -> Json:
    if "json" not in content_type:
        return {}
    body = json.loads(content)
    return body if isinstance(body, dict) else {"": body}
