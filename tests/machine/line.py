"""A database connection with ordered faults, and a clock that advances with every reading."""

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
"""The headers that the engine requires; it does not verify the signature."""


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

    It uses the engine's own JSON without boto3, which would take most of the time. The contract tests of the store use
    boto3.
    """

    exceptions = SimpleNamespace(ConditionalCheckFailedException=type("ConditionRefused", (Refused,), {}))

    def __init__(self, endpoint: str) -> None:
        self.writes = 0
        self.struck = False
        self._http = HTTPConnection(endpoint.removeprefix("http://"))
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
    """A clock that advances by a millisecond with every reading."""

    def __call__(self) -> datetime:
        self.move(timedelta(milliseconds=1))
        return self.at
