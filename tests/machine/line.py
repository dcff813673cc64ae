"""A database connection with ordered faults, and a clock that advances with every reading."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from socket import IPPROTO_TCP, TCP_NODELAY, create_connection
from types import SimpleNamespace
from typing import Any, Final

import orjson
from botocore.exceptions import ClientError, EndpointConnectionError

from csms.adapters.dynamodb import Item
from tests.fakes import Clock

ENGINE: Final = "dynoxide"
HEAD: Final = (
    "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.0\r\n"
    "Authorization: AWS4-HMAC-SHA256 Credential=local/0/local/dynamodb/aws4_request, SignedHeaders=host, "
    "Signature=0\r\n"
    "X-Amz-Date: 20260301T120000Z\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\nContent-Length: {length}\r\n\r\n"
)
"""A request's head, with the headers that the engine requires; it does not verify the signature."""
OK: Final = b"200"


class ProcessDied(BaseException):
    """The process ended at this point."""


def kill_process() -> None:
    raise ProcessDied


def drop_request() -> None:
    raise EndpointConnectionError(endpoint_url=ENGINE)


class Refused(ClientError):
    """The engine's refusal, in boto3's form."""


class FaultyDynamoDb:
    """A DynamoDB client that is interrupted once, before or after one of its calls or writes.

    It uses the engine's own JSON and a bare connection, without boto3 and http.client, which would take most of the
    time. The contract tests of the store use boto3.
    """

    exceptions = SimpleNamespace(ConditionalCheckFailedException=type("ConditionRefused", (Refused,), {}))

    def __init__(self, endpoint: str) -> None:
        self.writes = 0
        self.touched: set[tuple[str, str]] = set()
        self.struck = False
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._socket = create_connection((host, int(port)))
        self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        self._trouble: tuple[int, bool, Callable[[], None]] | None = None
        self._in_writes = False

    def interrupt(self, ahead: int, *, after: bool, what: Callable[[], None], in_writes: bool = False) -> None:
        """Let `what` happen at the call, or write, after so many others."""
        self._trouble = (ahead, after, what)
        self._in_writes = in_writes

    def clear_faults(self) -> None:
        """Drop the fault if it has not happened."""
        self._trouble = None

    def send_request(self, operation: str, arguments: Item) -> Item:
        """The engine's answer."""
        body = orjson.dumps(arguments)
        self._socket.sendall(HEAD.format(operation=operation, length=len(body)).encode() + body)
        status, content = self._receive_response()
        answer: Item = orjson.loads(content)
        if status == OK:
            return answer
        code = str(answer["__type"]).rpartition("#")[2]
        kind = getattr(self.exceptions, code, Refused)
        raise kind(answer | {"Error": {"Code": code, "Message": str(answer)}}, operation)

    def _receive_response(self) -> tuple[bytes, bytes]:
        """The status and the body of one response, whose length the engine always says."""
        received = self._receive()
        while (head_length := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:head_length].lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        body = received[head_length + 4 :]
        while len(body) < length:
            body += self._receive()
        assert len(body) == length, "one response answers one request"
        return head.split(b" ", 2)[1], body

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 18)
        if not received:
            raise ConnectionError("The engine closed the connection.")
        return received

    def __getattr__(self, operation: str) -> Callable[..., Item]:
        name = operation.title().replace("_", "")

        def call(**arguments: Any) -> Item:
            writes = name not in {"Query", "GetItem", "BatchGetItem"}
            what, after = self._take_interruption() if writes or not self._in_writes else (None, False)
            if what is not None and not after:
                what()
            self.writes += writes
            if writes:
                self.touched |= find_keys(name, arguments)
            answer = self.send_request(name, arguments)
            if what is not None and after:
                what()
            return answer

        return call

    def _take_interruption(self) -> tuple[Callable[[], None] | None, bool]:
        if self._trouble is None:
            return None, False
        ahead, after, what = self._trouble
        self._trouble = (ahead - 1, after, what) if ahead else None
        self.struck |= not ahead
        return (None, False) if ahead else (what, after)


def key_of(item: Item) -> tuple[str, str]:
    """The primary key of an item or key."""
    return item["PK"]["S"], item["SK"]["S"]


def find_keys(operation: str, arguments: Item) -> set[tuple[str, str]]:
    """The keys that a write names, also those of condition checks."""
    if operation != "TransactWriteItems":
        assert operation in {"PutItem", "UpdateItem", "DeleteItem"}, f"{operation} names its keys in another way"
        return {key_of(arguments.get("Item") or arguments["Key"])}
    parts = [part for one in arguments["TransactItems"] for part in one.values()]
    return {key_of(part.get("Item") or part["Key"]) for part in parts}


class TickingClock(Clock):
    """A clock that advances by a millisecond with every reading."""

    def __call__(self) -> datetime:
        self.move(timedelta(milliseconds=1))
        return self.at
