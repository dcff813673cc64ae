"""Does the local Lambda API invoke, retry and fail as Lambda does, and does the schedule go on?"""

import json
import queue
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.gateway import Gateway, Schedule, run_gateway
from tests.aws import aws_client
from tests.system.gateway.backend import SECRET, Event, raise_error
from tests.system.gateway.clients import SOON, ask


def test_request_response_returns_the_payload(url):
    answer = aws_client("lambda", url).invoke(FunctionName="maintenance", Payload=b'{"a":[1]}')

    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    assert json.load(answer["Payload"]) == {"seen": {"a": [1]}}


def test_raising_request_response_is_function_error(backend, url):
    backend.on_task = raise_error
    answer = aws_client("lambda", url).invoke(
        FunctionName="arn:aws:lambda:eu-central-1:000000000000:function:maintenance"
    )

    payload = json.load(answer["Payload"])
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert (payload["errorType"], payload["errorMessage"]) == ("RuntimeError", "as ordered")


@pytest.mark.parametrize(("failures", "attempts"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_event_invocation_is_retried_twice(backend, url, failures, attempts):
    runs = threading.Semaphore(0)
    calls: list[Event] = []

    def fail_at_first(event: Event) -> Any:
        calls.append(event)
        runs.release()
        return raise_error(event) if len(calls) <= failures else None

    backend.on_task = fail_at_first
    answer = aws_client("lambda", url).invoke(FunctionName="maintenance", InvocationType="Event", Payload=b'{"n":1}')

    assert answer["StatusCode"] == 202
    assert all(runs.acquire(timeout=SOON) for _ in range(attempts))
    assert not runs.acquire(timeout=0.1)
    assert calls == [{"n": 1}] * attempts


def test_unknown_function_and_bad_payload_are_refused(url):
    client = aws_client("lambda", url)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="absent")
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="maintenance", Payload=b"{")
    with pytest.raises(ClientError, match="Missing Authentication Token"):
        raise_for_status(ask(url, "POST", "/2015-03-31/functions/maintenance/invocations", b"{}"))


def raise_for_status(answer: tuple[int, Any, bytes]) -> None:
    status, headers, body = answer
    assert status == 403
    raise ClientError(
        {"Error": {"Code": headers["x-amzn-ErrorType"], "Message": json.loads(body)["message"]}}, "Invoke"
    )


def test_context_has_powertools_fields(backend):
    from aws_lambda_powertools import Logger

    contexts: queue.Queue[Any] = queue.Queue()

    @Logger(service="test").inject_lambda_context
    def maintenance(event: Event, context: Any) -> None:
        contexts.put(context)

    with run_gateway(Gateway({"maintenance": maintenance}, origin_secret=SECRET, web=Path(__file__).parent)) as url:
        aws_client("lambda", url).invoke(FunctionName="maintenance")

    context = contexts.get(timeout=SOON)
    assert context.function_name == "maintenance"
    assert context.invoked_function_arn.endswith(":function:maintenance")
    assert 50_000 < context.get_remaining_time_in_millis() <= 60_000


def test_schedule_survives_failure_and_stops(caplog):
    runs = threading.Semaphore(0)

    def sweep(event: Event, _: Any) -> None:
        runs.release()
        raise RuntimeError(event["source"])

    with Schedule("maintenance", sweep, seconds=0.02):
        assert all(runs.acquire(timeout=SOON) for _ in range(3))
    while runs.acquire(blocking=False):
        pass

    assert not runs.acquire(timeout=0.1)
    assert "maintenance: scheduled run failed: RuntimeError: aws.scheduler" in caplog.text
