"""What we say to the outside on AWS: frames to stations' sockets (API Gateway @connections), and a nudge to our own
maintenance function."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from csms.errors import ConnectionGone, Unreachable
from csms.model import OutboxItem


class Gateway:
    """The stations' sockets; `client` is a boto3 apigatewaymanagementapi client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def post(self, connection_id: str, frame: str) -> None:
        """The frame was handed to the socket, which does not mean it was read; ConnectionGone or Unreachable if it was
        not."""
        try:
            self._client.post_to_connection(ConnectionId=connection_id, Data=frame.encode())
        except self._client.exceptions.GoneException as gone:
            raise ConnectionGone("The station's socket is closed.") from gone
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"The frame was not taken: {type(failed).__name__}.") from failed

    def is_connected(self, connection_id: str) -> bool:
        """Whether the socket is still there; Unreachable if nobody could tell."""
        try:
            self._client.get_connection(ConnectionId=connection_id)
        except self._client.exceptions.GoneException:
            return False
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"Nobody knows of the socket: {type(failed).__name__}.") from failed
        return True

    def close(self, connection_id: str) -> None:
        """The socket is closed, if it was not already."""
        try:
            self._client.delete_connection(ConnectionId=connection_id)
        except self._client.exceptions.GoneException:
            return
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"The socket was not closed: {type(failed).__name__}.") from failed


class MaintenanceTrigger:
    """Asks the maintenance function to perform an owed effect now; it would do so by itself within minutes. `client` is
    a boto3 Lambda client."""

    def __init__(self, client: Any, function: str) -> None:
        self._client = client
        self._function = function

    def __call__(self, outbox_item: OutboxItem) -> None:
        """The function was asked; it has not run yet. Unreachable if it could not be asked."""
        payload = {"perform": {"reservationId": outbox_item.reservation_id, "kind": outbox_item.kind}}
        try:
            self._client.invoke(
                FunctionName=self._function, InvocationType="Event", Payload=json.dumps(payload).encode()
            )
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"Maintenance was not asked: {type(failed).__name__}.") from failed
