"""Does the local queue answer as SQS does, and does it deliver as Lambda's event source mapping does?"""

import asyncio
import hashlib
import json
import queue
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra import routes
from local.gateway import Gateway
from local.gateway.queue import TAKEN, queue_url
from tests.aws import aws_client, sign
from tests.system.gateway.backend import SECRET, Backend, Event, raise_error
from tests.system.gateway.clients import SOON, ask

RECEIVES = routes.TIMERS.receives


def send(url: str, body: str = "{}", *, to: str = routes.TIMERS.name, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = aws_client("sqs", url).send_message(
        QueueUrl=queue_url(url, to), MessageBody=body, DelaySeconds=0, **more
    )
    return answer


def next_record(backend: Backend) -> dict[str, Any]:
    """The one record of the next event for the maintenance function."""
    (record,) = backend.events.get(timeout=SOON)["task"]["Records"]
    return dict(record)


def count_of(record: dict[str, Any]) -> int:
    """How often the message was delivered."""
    return int(record["attributes"]["ApproximateReceiveCount"])


def return_as_failed(event: Event) -> Any:
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in event["Records"]]}


def test_sent_message_is_delivered_as_record(backend, url):
    answer = send(url, '{"wake":{"stationId":"ä"}}')

    record = next_record(backend)
    digest = hashlib.md5(b'{"wake":{"stationId":"\xc3\xa4"}}', usedforsecurity=False).hexdigest()
    assert (answer["MessageId"], answer["MD5OfMessageBody"]) == (record["messageId"], record["md5OfBody"])
    assert ('{"wake":{"stationId":"ä"}}', digest) == (record["body"], record["md5OfBody"])
    assert ("aws:sqs", "1") == (record["eventSource"], record["attributes"]["ApproximateReceiveCount"])
    assert record["eventSourceARN"].endswith(":timers")


def test_message_is_delivered_after_delay(backend, url):
    began = time.monotonic()
    aws_client("sqs", url).send_message(QueueUrl=queue_url(url, "timers"), MessageBody="later", DelaySeconds=1)
    send(url, "now")

    assert ["now", "later"] == [next_record(backend)["body"] for _ in range(2)]
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("fail", [raise_error, return_as_failed])
def test_failed_message_is_delivered_again(fail, caplog):
    backend = Backend()
    backend.on_task = lambda event: fail(event) if count_of(event["Records"][0]) < 3 else {"batchItemFailures": []}
    with backend.serve(timer_retry_seconds=0.01) as url:
        send(url)
        counts = [count_of(next_record(backend)) for _ in range(3)]

        with pytest.raises(queue.Empty):
            backend.events.get(timeout=0.2)

    assert [1, 2, 3] == counts
    assert "message dropped" not in caplog.text


def test_message_is_dropped_after_last_delivery(caplog):
    backend = Backend()
    backend.on_task = return_as_failed
    with backend.serve(timer_retry_seconds=0.01) as url:
        send(url, "poison")
        bodies = [next_record(backend)["body"] for _ in range(RECEIVES)]

        with pytest.raises(queue.Empty):
            backend.events.get(timeout=0.2)

    assert ["poison"] * RECEIVES == bodies
    assert f"timers: message dropped after {RECEIVES} deliveries: poison" in caplog.text


def test_only_the_failed_message_is_repeated(backend):
    backend.on_task = lambda event: return_as_failed(event) if event["Records"][0]["body"] == "bad" else None
    with backend.serve(timer_retry_seconds=0.01) as url:
        send(url, "good")
        send(url, "bad")
        bodies = [next_record(backend)["body"] for _ in range(1 + RECEIVES)]

    assert (1, RECEIVES) == (bodies.count("good"), bodies.count("bad"))


def test_stopping_gateway_cancels_waiting_messages():
    async def run_and_stop() -> set[asyncio.Task[Any]]:
        gateway = Gateway({"maintenance": backend.maintenance}, origin_secret=SECRET, web=Path(__file__).parent)
        url = await gateway.start()
        later = {"QueueUrl": queue_url(url, "timers"), "MessageBody": "later", "DelaySeconds": 900}
        await asyncio.to_thread(lambda: aws_client("sqs", url).send_message(**later))
        await gateway.stop()
        return asyncio.all_tasks() - {asyncio.current_task()}

    backend = Backend()

    assert set() == asyncio.run(run_and_stop())
    assert backend.events.empty()


def test_queue_takes_known_parameters_only(url):
    sqs = aws_client("sqs", url)
    known = sqs.meta.service_model.operation_model("SendMessage").input_shape.members

    assert set(known) >= TAKEN
    with pytest.raises(sqs.exceptions.UnsupportedOperation, match="MessageGroupId"):
        send(url, MessageGroupId="g")
    with pytest.raises(sqs.exceptions.UnsupportedOperation, match="not AmazonSQS"):
        sqs.list_queues()


def test_other_queue_and_wrong_delay_are_refused(url):
    sqs = aws_client("sqs", url)

    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        send(url, to="other")
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*DelaySeconds must be >= 0 and <= 900"):
        sqs.send_message(QueueUrl=queue_url(url, "timers"), MessageBody="{}", DelaySeconds=901)
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        send(url, "")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"QueueUrl":1,"MessageBody":"{}"}'])
def test_invalid_request_is_refused(url, body):
    signed = sign("sqs", "POST", f"{url}/", body) | {"X_Amz_Target": "AmazonSQS.SendMessage"}

    status, headers, answer = ask(url, "POST", "/", body, **signed)

    assert (400, True) == (status, headers["x-amzn-query-error"].endswith(";Sender"))
    assert json.loads(answer)["__type"].startswith("com.amazonaws.sqs#")


def test_unsigned_request_is_refused(backend, url):
    body = json.dumps({"QueueUrl": queue_url(url, "timers"), "MessageBody": "{}"}).encode()

    status, _, _ = ask(url, "POST", "/", body, X_Amz_Target="AmazonSQS.SendMessage")

    assert (403, True) == (status, backend.events.empty())
