"""Amazon SQS on a laptop, for the queue of timers: it takes messages from an unmodified boto3 client, and passes each
to its function after its delay, as Lambda's event source mapping does."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from aiohttp import web

from infra.routes import Queue
from local.gateway.events import now_millis
from local.invoke import ACCOUNT, REGION, Functions, InvocationError, refuse_request

logger = logging.getLogger(__name__)

SEND: Final = "AmazonSQS.SendMessage"
LONGEST_SECONDS: Final = 900
TAKEN: Final = frozenset({"QueueUrl", "MessageBody", "DelaySeconds"})
"""What a request may contain. This queue would lose anything else, so it refuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message, to be delivered after `delay` seconds."""

    body: str
    delay: int = 0
    message_id: str = field(default_factory=lambda: str(uuid4()))
    sent_at: int = field(default_factory=now_millis)

    @property
    def digest(self) -> str:
        return hashlib.md5(self.body.encode(), usedforsecurity=False).hexdigest()


class QueueError(Exception):
    """The request is refused: `code` as boto3 shows it, and `query_code` as clients of SQS's older protocol know it."""

    def __init__(self, code: str, message: str, *, query_code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.query_code = query_code or code


def queue_url(url: str, name: str) -> str:
    """The address of the queue at a gateway with this base URL."""
    return f"{url}/{ACCOUNT}/{name}"


class EventSource:
    """Delivers the queue's messages to its function, one at a time each, until it is closed.

    A message whose invocation fails, or that the function returns in batchItemFailures, is delivered again after
    `retry_seconds`, by default those of the queue. After its last delivery it is logged, as there are no dead letters
    here.
    """

    def __init__(self, functions: Functions, queue: Queue, *, seconds: float = 60, retry_seconds: float | None = None):
        self._functions = functions
        self._queue = queue
        self._seconds = seconds
        self._retry_seconds = queue.retry_seconds if retry_seconds is None else retry_seconds
        self._waiting: set[asyncio.Task[None]] = set()

    def deliver(self, message: Message) -> None:
        """Deliver the message after its delay, without waiting for it."""
        task = asyncio.get_running_loop().create_task(self._deliver(message))
        # The event loop keeps only weak references to its tasks.
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def close(self) -> None:
        """Cancel the messages that wait; the sweep does their work."""
        for task in tuple(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    async def _deliver(self, message: Message) -> None:
        pause, first_at = float(message.delay), None
        for count in range(1, self._queue.receives + 1):
            await asyncio.sleep(pause)
            first_at = first_at or now_millis()
            if await self._try_deliver(message, count=count, first_at=first_at):
                return
            pause = self._retry_seconds
        logger.error("%s: message dropped after %d deliveries: %s", self._queue.name, count, message.body)

    async def _try_deliver(self, message: Message, *, count: int, first_at: int) -> bool:
        """Invoke the function with the message, and return whether it succeeded."""
        event = {"Records": [build_record(message, self._queue.name, count=count, first_at=first_at)]}
        try:
            answer = await self._functions.call(self._queue.function, event, seconds=self._seconds)
        except InvocationError:  # call() has logged it.
            return False
        failures = (answer or {}).get("batchItemFailures") or ()
        return message.message_id not in [failure["itemIdentifier"] for failure in failures]


def build_record(message: Message, queue: str, *, count: int, first_at: int) -> dict[str, Any]:
    """The record of a message in Lambda's event, at its delivery number `count`."""
    return {
        "messageId": message.message_id,
        "receiptHandle": str(uuid4()),
        "body": message.body,
        "attributes": {
            "ApproximateReceiveCount": str(count),
            "SentTimestamp": str(message.sent_at),
            "SenderId": ACCOUNT,
            "ApproximateFirstReceiveTimestamp": str(first_at),
        },
        "messageAttributes": {},
        "md5OfBody": message.digest,
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
        "awsRegion": REGION,
    }


def queue_routes(name: str, take: Callable[[Message], None]) -> list[web.RouteDef]:
    """The route of SQS's JSON protocol, of which only SendMessage to this queue is answered; `take` gets each
    message."""

    async def handle(request: web.Request) -> web.Response:
        if refusal := await refuse_request(request):
            return refusal
        try:
            message = parse_message(request.headers.get("X-Amz-Target", ""), await request.read(), name)
        except QueueError as refused:
            body = {"__type": f"com.amazonaws.sqs#{refused.code}", "message": str(refused)}
            headers = {"x-amzn-query-error": f"{refused.query_code};Sender"}
            return web.json_response(body, status=400, headers=headers)
        take(message)
        return web.json_response({"MD5OfMessageBody": message.digest, "MessageId": message.message_id})

    return [web.post("/", handle)]


def parse_message(target: str, body: bytes, name: str) -> Message:
    """The message of a SendMessage request to the queue. Raises QueueError."""
    if target != SEND:
        raise QueueError("UnsupportedOperation", f"This queue takes {SEND} only, and not {target or 'nothing'}.")
    try:
        wanted = json.loads(body)
        address, text, delay = wanted["QueueUrl"], wanted["MessageBody"], wanted.get("DelaySeconds", 0)
    except (ValueError, TypeError, AttributeError, KeyError) as wrong:
        raise QueueError("InvalidParameterValue", f"Not a message: {type(wrong).__name__} {wrong}") from None
    if unknown := wanted.keys() - TAKEN:
        raise QueueError("UnsupportedOperation", f"This queue takes no {', '.join(sorted(unknown))}.")
    if not isinstance(address, str) or not address.endswith(f"/{ACCOUNT}/{name}"):
        raise QueueError(
            "QueueDoesNotExist",
            "The specified queue does not exist.",
            query_code="AWS.SimpleQueueService.NonExistentQueue",
        )
    if not isinstance(text, str) or not text:
        raise QueueError("InvalidParameterValue", "The message body must be a text, and not empty.")
    if not isinstance(delay, int) or not 0 <= delay <= LONGEST_SECONDS:
        reason = f"DelaySeconds must be >= 0 and <= {LONGEST_SECONDS}."
        raise QueueError("InvalidParameterValue", f"Value {delay} for parameter DelaySeconds is invalid. {reason}")
    return Message(body=text, delay=delay)
