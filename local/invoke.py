"""AWS Lambda on a laptop: it runs the handlers in threads, and answers the Invoke API to an unmodified boto3 client."""

import asyncio
import json
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from aiohttp import web

from local.signature import is_signed

logger = logging.getLogger(__name__)

ACCOUNT: Final = "000000000000"
REGION: Final = "eu-central-1"
OWN_NAME: Final = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)

SECRET_KEY: Final = web.AppKey("secret_key", str)
"""Where the application keeps the secret key with which requests to the AWS APIs are signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What Lambda passes as a handler's second argument. The deadline is on the monotonic clock."""

    function_name: str
    deadline: float
    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 512

    @property
    def invoked_function_arn(self) -> str:
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.function_name}"

    @property
    def log_group_name(self) -> str:
        return f"/aws/lambda/{self.function_name}"

    @property
    def log_stream_name(self) -> str:
        return f"local/[{self.function_version}]"

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.deadline - time.monotonic()) * 1000))


Handler = Callable[[dict[str, Any], Any], dict[str, Any] | None]


class InvocationError(Exception):
    """
    * InvocationError
        * UnknownFunctionError - no function is deployed under that name
        * FunctionFailedError  - the handler raised, or its answer is not JSON
        * FunctionTimeoutError - the handler did not end within its time
    """


class UnknownFunctionError(InvocationError):
    pass


class FunctionTimeoutError(InvocationError):
    pass


class FunctionFailedError(InvocationError):
    """`payload` is what Lambda answers instead of a result."""

    def __init__(self, cause: BaseException, request_id: str) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.payload = {
            "errorMessage": str(cause),
            "errorType": type(cause).__name__,
            "requestId": request_id,
            "stackTrace": traceback.format_tb(cause.__traceback__),
        }


def run(name: str, handler: Handler, payload: str, *, seconds: float) -> str:
    """Run the handler with the JSON text `payload`, and return its answer as JSON text. Raises FunctionFailedError if
    there is none."""
    context = Context(function_name=name, deadline=time.monotonic() + seconds)
    try:
        return json.dumps(handler(json.loads(payload), context))
    # Any exception ends only this invocation, not the service; sys.exit() is Lambda's Runtime.ExitError.
    except (Exception, SystemExit) as error:
        raise FunctionFailedError(error, context.aws_request_id) from error


class Functions:
    """The deployed functions by name. Every event and every result is converted to JSON and back, as on AWS."""

    def __init__(
        self, handlers: Mapping[str, Handler], *, workers: int = 64, retry_seconds: Sequence[float] = (1.0, 2.0)
    ) -> None:
        self._handlers = handlers
        self._retry_seconds = retry_seconds
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="lambda")
        self._background: set[asyncio.Task[None]] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._handlers

    async def call(self, name: str, event: object, *, seconds: float) -> Any:
        """Invoke the function and return its answer. Raises InvocationError if there is none, and logs it."""
        if name not in self._handlers:
            logger.error("%s: no such function", name)
            raise UnknownFunctionError(name)
        work = (name, self._handlers[name], json.dumps(event))
        try:
            # A thread cannot be stopped: a handler that exceeds its time runs on, as behind API Gateway after 29
            # seconds.
            async with asyncio.timeout(seconds):
                answer = await asyncio.get_running_loop().run_in_executor(
                    self._pool, lambda: run(*work, seconds=seconds)
                )
        except TimeoutError:
            logger.error("%s: no answer within %s s", name, seconds)
            raise FunctionTimeoutError(name) from None
        except FunctionFailedError as error:
            logger.error("%s: %s", name, error, exc_info=error.__cause__)
            raise
        return json.loads(answer)

    def submit(self, name: str, event: object, *, seconds: float) -> None:
        """Invoke asynchronously, without waiting for the result. An error is retried once for each entry of
        retry_seconds."""
        self.run_in_background(self._retry(name, event, seconds))

    async def _retry(self, name: str, event: object, seconds: float) -> None:
        for pause in (*self._retry_seconds, None):
            try:
                await self.call(name, event, seconds=seconds)
            except InvocationError:
                if pause is None:
                    logger.error("%s: event dropped after %d attempts", name, 1 + len(self._retry_seconds))
                    return
                await asyncio.sleep(pause)
            else:
                return

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work without waiting for it; drain and close wait for its end."""
        task = asyncio.get_running_loop().create_task(work)
        # The event loop keeps only weak references to its tasks.
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def drain(self, seconds: float) -> None:
        """Wait until the background work is done, but not longer than `seconds`."""
        if self._background:
            await asyncio.wait(self._background, timeout=seconds)

    async def close(self) -> None:
        """Cancel what waits for a retry; handlers that already run come to their end."""
        for task in tuple(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)


def aws_error(status: int, code: str, message: str) -> web.Response:
    """An error in the JSON form that boto3 turns into the exception of this code."""
    return web.json_response({"message": message}, status=status, headers={"x-amzn-ErrorType": code})


async def refuse_request(request: web.Request) -> web.Response | None:
    """The refusal of a request to an AWS API of this machine, or None if it may use it.

    It may if it comes from this machine, by a name of its own (a page in a browser may have had its name changed to
    this address), and signed with the secret key of this installation, which other users of the machine do not know.
    """
    if request.remote is None or not ip_address(request.remote).is_loopback:
        return aws_error(403, "AccessDeniedException", "Answered on the loopback interface only.")
    if OWN_NAME.fullmatch(request.host) is None:
        return aws_error(403, "AccessDeniedException", "Answered under 127.0.0.1 and localhost only.")
    if not request.headers.get("Authorization"):
        return aws_error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    if not is_signed(request, await request.read(), request.app[SECRET_KEY]):
        return aws_error(403, "SignatureDoesNotMatch", "Not signed with the secret key of this installation.")
    return None


def invoke_routes(functions: Functions, *, seconds: float = 60) -> list[web.RouteDef]:
    """The route of Lambda's Invoke API, with the types RequestResponse, Event and DryRun."""

    async def invoke(request: web.Request) -> web.Response:
        if refusal := await refuse_request(request):
            return refusal
        # A full ARN or a qualifier names the same function here.
        name = request.match_info["name"].rpartition(":function:")[2].partition(":")[0]
        if name not in functions:
            return aws_error(404, "ResourceNotFoundException", f"Function not found: {name}")
        try:
            event = json.loads(await request.read() or b"{}")
        except ValueError as error:
            return aws_error(400, "InvalidRequestContentException", f"Could not parse request body into json: {error}")

        match request.headers.get("X-Amz-Invocation-Type", "RequestResponse"):
            case "Event":
                functions.submit(name, event, seconds=seconds)
                return web.Response(status=202)
            case "DryRun":
                return web.Response(status=204)
            case "RequestResponse":
                return await answer(name, event)
            case other:
                return aws_error(400, "InvalidParameterValueException", f"Unknown invocation type {other}")

    async def answer(name: str, event: object) -> web.Response:
        version = {"X-Amz-Executed-Version": "$LATEST"}
        failed = version | {"X-Amz-Function-Error": "Unhandled"}
        try:
            return web.json_response(await functions.call(name, event, seconds=seconds), headers=version)
        except FunctionFailedError as error:
            return web.json_response(error.payload, headers=failed)
        except FunctionTimeoutError:
            late = {"errorType": "Sandbox.Timedout", "errorMessage": f"Task timed out after {seconds:.2f} seconds"}
            return web.json_response(late, headers=failed)

    return [web.post("/2015-03-31/functions/{name}/invocations", invoke)]


class Schedule:
    """Runs a handler every `seconds` until it is stopped, as EventBridge Scheduler does at rate(...).

    The first run comes one period after the start. A failed run is logged, and the next one comes all the same. Runs
    never overlap: one that takes longer than the period delays the next.
    """

    def __init__(
        self, name: str, handler: Handler, *, seconds: float = 60, payload: Mapping[str, Any] | None = None
    ) -> None:
        self._name = name
        self._handler = handler
        self._seconds = seconds
        self._payload = payload
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"schedule-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the schedule, and return when a run in progress has ended."""
        self._stopped.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _loop(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                run(self._name, self._handler, json.dumps(self._event()), seconds=self._seconds)
            except FunctionFailedError as failure:
                logger.error("%s: scheduled run failed: %s", self._name, failure, exc_info=failure.__cause__)

    def _event(self) -> dict[str, Any]:
        """The event of a run: EventBridge Scheduler's own, or the schedule's input alone if it has one."""
        if self._payload:
            return dict(self._payload)
        return {
            "version": "0",
            "id": str(uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.scheduler",
            "account": ACCOUNT,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": [f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule/default/{self._name}"],
            "detail": {},
        }
