"""API Gateway's limits as values: AWS's own by default, shorter in tests that cannot wait for two hours."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Quotas of a WebSocket API and an HTTP API (API Gateway developer guide, "Quotas")."""

    frame_bytes: int = 32 * 1024
    message_bytes: int = 128 * 1024
    idle_seconds: float = 600
    life_seconds: float = 7200
    integration_seconds: float = 29
    body_bytes: int = 10 * 1024 * 1024
    http_seconds: float = 30
    close_seconds: float = 5
    """Seconds that a peer may take to close its side of a closed connection; AWS documents no number."""


AWS: Final = Limits()
