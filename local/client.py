"""Who talks to a csms: a station at its end of a socket, and a person at their end of the HTTP API. They do what a
script tells them, wherever the csms runs."""

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
    """The other side did not do what was expected of it; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the HTTP API answered; header names are small, and body is {} if it was not JSON."""

    status: int
    headers: dict[str, str]
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The HTTP API at url; with a token, as an operator."""

    url: str
    token: str | None = field(default=None, repr=False)
    patience: float = PATIENCE_S

    def ask(self, method: str, path: str, body: Json | bytes | None = None, **headers: str) -> Answer:
        """The answer, whatever its status; ClientError if there is none. Underscores in header names are hyphens."""
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
        """The body of an answer 200; ClientError for another."""
        answer = self.ask(method, path, body, **headers)
        if answer.status != 200:
            raise ClientError(f"{method} {path}: {answer.status} {answer.body}")
        return answer.body


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCall:
    """What the back end asks of a station."""

    unique_id: str
    action: str
    payload: Json


@dataclass(slots=True, kw_only=True)
class Socket:
    """A station's end of its connection. Nothing is read from it but while somebody waits for something."""

    connection: ClientConnection
    patience: float = PATIENCE_S
    received_calls: deque[ReceivedCall] = field(default_factory=deque)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def call(self, action: str, **payload: Any) -> Json:
        """The payload of the CALLRESULT; ClientError for a CALLERROR, or for none."""
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
        """The next CALL of this action that the back end sends or has sent."""
        frames = self._frames(f"a {action}", patience or self.patience)
        while True:
            for one in self.received_calls:
                if one.action == action:
                    self.received_calls.remove(one)
                    return one
            next(frames)

    def accept_call(self, action: str, *, patience: float | None = None, **answer: Any) -> ReceivedCall:
        """The next CALL of this action, answered with Accepted, or as told."""
        asked = self.receive_call(action, patience=patience)
        self.send([3, asked.unique_id, answer or {"status": "Accepted"}])
        return asked

    def send(self, frame: Any) -> None:
        """The frame is on its way; text is sent as it is."""
        try:
            self.connection.send(frame if isinstance(frame, str) else json.dumps(frame))
        except ConnectionClosed as closed:
            raise ClientError(f"the socket is closed: {closed}") from closed

    def receive_text(self, seconds: float) -> str | None:
        """The next text whatever it is, or None if nothing comes so long."""
        try:
            return str(self.connection.recv(timeout=seconds))
        except TimeoutError:
            return None
        except ConnectionClosed as closed:
            raise ClientError(f"the socket was closed: {closed}") from closed

    def _frames(self, what: str, patience: float) -> Iterator[list[Any]]:
        """Every frame that comes, with requests kept for who wants them; ClientError when patience ends."""
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
    """The station's open socket until the block ends; InvalidStatus for a refusal, ClientError where nobody is. url is
    the OCPP endpoint without the identity."""
    user = base64.b64encode(f"{identity}:{password}".encode()).decode()
    try:
        connection = connect(
            f"{station_address(url, identity)}{query}",
            subprotocols=[Subprotocol(protocol) for protocol in protocols] or None,
            additional_headers={"Authorization": f"Basic {user}"} if password is not None else {},
            extensions=list(extensions) or None,
            compression=None,
            open_timeout=patience,
            # Pings are the script's business: they may keep a connection alive that should be seen to die.
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
    """Where a station dials; without an identity the endpoint itself."""
    return f"{url.rstrip('/')}/{quote(identity, safe='')}" if identity else url.rstrip("/")


def _proxy_arguments(url: str) -> Json:
    """No proxy for this machine itself."""
    return {"proxy": None} if is_local(url) else {}


def is_local(url: str) -> bool:
    """Whether the address is this machine's own."""
    return (urlsplit(url).hostname or "") in {"127.0.0.1", "localhost", "::1"}


def _frame(text: str) -> list[Any]:
    """The OCPP-J frame in a text; ClientError if it is none, which is how API Gateway's own errors look."""
    try:
        frame = json.loads(text)
    except ValueError:
        raise ClientError(f"not JSON: {text[:200]}") from None
    if not isinstance(frame, list) or len(frame) < 3:
        raise ClientError(f"not an OCPP frame: {text[:200]}")
    return frame


def _json(content: bytes, content_type: str) -> Json:
    if "json" not in content_type:
        return {}
    body = json.loads(content)
    return body if isinstance(body, dict) else {"": body}
