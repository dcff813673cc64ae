"""A line to the database that breaks when told to, and a clock that never stands still."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any, Final

import orjson
from botocore.exceptions import ClientError, EndpointConnectionError

from csms.adapters.dynamodb import Item
from tests.fakes import Clock

ENGINE: Final = "dynoxide"
SIGNED: Final = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=local/0/local/dynamodb/aws4_request, SignedHeaders=host, Signature=0",
    "X-Amz-Date": "20260301T120000Z",
}
"""What the engine looks for, and does not look at."""


class ProcessDied(BaseException):
    """The process ended here."""


def kill_process() -> None:
    raise ProcessDied


def drop_request() -> None:
    raise EndpointConnectionError(endpoint_url=ENGINE)


class Refused(ClientError):
    """The engine's refusal, as boto3 puts it."""


class FaultyDynamoDb:
    """A DynamoDB client on one of whose calls or writes something happens, once: before the engine was asked, or after.

    It speaks the engine's own JSON without boto3, which would take most of the time here; that the store and boto3
    understand each other is asked elsewhere.
    """

    exceptions = SimpleNamespace(ConditionalCheckFailedException=type("ConditionRefused", (Refused,), {}))

    def __init__(self, endpoint: str) -> None:
        self.writes = 0
        self.struck = False
        self._http = HTTPConnection(endpoint.removeprefix("http://"))
        self._trouble: tuple[int, bool, Callable[[], None]] | None = None
        self._in_writes = False

    def interrupt(self, ahead: int, *, after: bool, what: Callable[[], None], in_writes: bool = False) -> None:
        """So many calls from now on, or writes, this will happen."""
        self._trouble = (ahead, after, what)
        self._in_writes = in_writes

    def clear_faults(self) -> None:
        """Nothing will happen."""
        self._trouble = None

    def send_request(self, operation: str, arguments: Item) -> Item:
        """What the engine answers."""
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        self._http.request("POST", "/", orjson.dumps(arguments), headers | SIGNED)
        response = self._http.getresponse()
        answer: Item = orjson.loads(response.read())
        if response.status == HTTPStatus.OK:
            return answer
        code = str(answer["__type"]).rpartition("#")[2]
        kind = getattr(self.exceptions, code, Refused)
        raise kind(answer | {"Error": {"Code": code, "Message": str(answer)}}, operation)

    def __getattr__(self, operation: str) -> Callable[..., Item]:
        name = operation.title().replace("_", "")

        def call(**arguments: Any) -> Item:
            writes = name not in {"Query", "GetItem", "BatchGetItem"}
            what, after = self._take_interruption() if writes or not self._in_writes else (None, False)
            if what is not None and not after:
                what()
            self.writes += writes
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


class TickingClock(Clock):
    """A clock that is a millisecond on whenever it is read."""

    def __call__(self) -> datetime:
        self.move(timedelta(milliseconds=1))
        return self.at
