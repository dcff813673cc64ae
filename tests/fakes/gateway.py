"""API Gateway's connections API in memory."""

import json
from dataclasses import dataclass, field
from typing import Any

from csms.errors import ConnectionGone, Unreachable


@dataclass(slots=True)
class FakeGateway:
    """The stations' sockets: `sent` has every frame that was accepted, `closed` every socket that was closed."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    unreachable: bool = False

    @property
    def frames(self) -> list[Any]:
        """The accepted frames, decoded."""
        return [json.loads(frame) for _, frame in self.sent]

    def post(self, connection_id: str, frame: str) -> None:
        """Accept the frame. Raises ConnectionGone or Unreachable if the test ordered it."""
        if self.unreachable:
            raise Unreachable("The frame was not taken: as ordered.")
        if connection_id in self.gone:
            raise ConnectionGone("The station's socket is closed.")
        self.sent.append((connection_id, frame))

    def is_connected(self, connection_id: str) -> bool:
        """Whether the socket is open. Raises Unreachable if the test ordered it."""
        if self.unreachable:
            raise Unreachable("Nobody knows of the socket: as ordered.")
        return connection_id not in self.gone

    def close(self, connection_id: str) -> None:
        """Close the socket, unless it is closed already. Raises Unreachable if the test ordered it."""
        if self.unreachable:
            raise Unreachable("The socket was not closed: as ordered.")
        if connection_id not in self.gone:
            self.closed.append(connection_id)
            self.gone.add(connection_id)
