"""Calls to AWS services: sending frames to stations (API Gateway @connections), and invoking the maintenance
function."""

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
        """Send the frame to the socket; success does not mean that the station read it. Raises ConnectionGone or
        Unreachable."""
        try:
            self._client.post_to_connection(ConnectionId=connection_id, Data=frame.encode())
        except self._client.exceptions.GoneException as gone:
            raise ConnectionGone("The station's socket is closed.") from gone
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"API Gateway did not accept the frame: {type(failed).__name__}.") from failed

    def is_connected(self, connection_id: str) -> bool:
        """Whether the socket is open. Raises Unreachable if API Gateway does not answer."""
        try:
            self._client.get_connection(ConnectionId=connection_id)
        except self._client.exceptions.GoneException:
            return False
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(
                f"API Gateway did not tell whether the socket is open: {type(failed).__name__}."
            ) from failed
        return True

    def close(self, connection_id: str) -> None:
        """Close the socket, if it is not closed already. Raises Unreachable."""
        try:
            self._client.delete_connection(ConnectionId=connection_id)
        except self._client.exceptions.GoneException:
            return
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"API Gateway did not close the socket: {type(failed).__name__}.") from failed


class MaintenanceTrigger:
    """Invokes the maintenance function to perform an outbox item now instead of in its next sweep; `client` is a boto3
    Lambda client."""

    def __init__(self, client: Any, function: str) -> None:
        self._client = client
        self._function = function

    def __call__(self, outbox_item: OutboxItem) -> None:
        """Invoke the function, without waiting for its result. Raises Unreachable."""
        payload = {"perform": {"reservationId": outbox_item.reservation_id, "kind": outbox_item.kind}}
        try:
            self._client.invoke(
                FunctionName=self._function, InvocationType="Event", Payload=json.dumps(payload).encode()
            )
        except (ClientError, BotoCoreError) as failed:
            raise Unreachable(f"The maintenance function could not be invoked: {type(failed).__name__}.") from failed
