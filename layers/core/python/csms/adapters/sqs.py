"""Timers as delayed messages in an SQS queue, whose messages the maintenance function handles."""

from __future__ import annotations

import json
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from csms.errors import Unreachable

LONGEST_SECONDS: Final = 900
"""The longest delay of a message that SQS accepts."""


class Timer:
    """Sets timers; `client` is a boto3 SQS client."""

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def __call__(self, station_id: str, *, seconds: int, call_id: str | None = None) -> None:
        """Wake the maintenance function for the station after this time, at most LONGEST_SECONDS. `call_id` is the CALL
        that the timer is for. Raises Unreachable."""
        wake = {"stationId": station_id} | ({"callId": call_id} if call_id is not None else {})
        try:
            self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=json.dumps({"wake": wake}),
                DelaySeconds=min(max(seconds, 0), LONGEST_SECONDS),
            )
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"SQS did not accept the timer: {type(failed).__name__}.") from failed
