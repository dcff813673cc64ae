"""What a timer sends to SQS, and what happens if SQS does not take it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from csms.adapters.sqs import Timer
from csms.errors import Unreachable
from tests.aws import aws_client

QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/timers"


@pytest.fixture
def sqs() -> Iterator[tuple[Timer, Stubber]]:
    client = aws_client("sqs", "https://sqs.eu-central-1.amazonaws.com")
    with Stubber(client) as stubber:
        yield Timer(client, QUEUE), stubber


def expect_message(stubber: Stubber, wake: dict[str, Any], seconds: int) -> None:
    wanted = {"QueueUrl": QUEUE, "MessageBody": json.dumps({"wake": wake}), "DelaySeconds": seconds}
    stubber.add_response("send_message", {"MessageId": "m1", "MD5OfMessageBody": "0" * 32}, wanted)


def test_timer_names_station_and_call(sqs: tuple[Timer, Stubber]) -> None:
    set_timer, stubber = sqs
    expect_message(stubber, {"stationId": "cp1", "callId": "c1"}, 31)

    set_timer("cp1", seconds=31, call_id="c1")

    stubber.assert_no_pending_responses()


def test_timer_without_call_names_station_only(sqs: tuple[Timer, Stubber]) -> None:
    set_timer, stubber = sqs
    expect_message(stubber, {"stationId": "cp1"}, 0)

    set_timer("cp1", seconds=0)

    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(("seconds", "sent"), [(-1, 0), (0, 0), (900, 900), (901, 900)])
def test_delay_is_kept_within_limits(sqs: tuple[Timer, Stubber], seconds: int, sent: int) -> None:
    set_timer, stubber = sqs
    expect_message(stubber, {"stationId": "cp1"}, sent)

    set_timer("cp1", seconds=seconds)

    stubber.assert_no_pending_responses()


def test_refused_timer_raises_unreachable(sqs: tuple[Timer, Stubber]) -> None:
    set_timer, stubber = sqs
    stubber.add_client_error("send_message", "AccessDenied")

    with pytest.raises(Unreachable, match="SQS did not accept the timer: ClientError"):
        set_timer("cp1", seconds=31, call_id="c1")


def test_unreachable_queue_raises_unreachable() -> None:
    class Broken:
        def send_message(self, **_: Any) -> None:
            raise EndpointConnectionError(endpoint_url=QUEUE)

    with pytest.raises(Unreachable, match="EndpointConnectionError"):
        Timer(Broken(), QUEUE)("cp1", seconds=31)
