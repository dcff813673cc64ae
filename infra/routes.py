"""The function of each request, used by the stack, the local gateway and the tests. Plain values, no CDK."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP route; `path` has API Gateway's {placeholders}.

    An operator's route requires an operator's token.
    """

    method: str
    path: str
    function: str
    operator: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of a function. `rate` is an EventBridge Scheduler expression, `input` the event of the function. A run
    that could not be started has `retries` if the next one is far off."""

    name: str
    function: str
    rate: str
    input: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue whose messages go to a function, at most `batch` at once. A message that failed is delivered again after
    `retry_seconds`, and after `receives` deliveries it becomes a dead letter."""

    name: str
    function: str
    batch: int
    receives: int
    retry_seconds: int
    retention_seconds: int


WEBSOCKET: Final[Mapping[str, str]] = MappingProxyType(
    {"$connect": "ws_connect", "$disconnect": "ws_connect", "$default": "ws_message"}
)

WEBHOOK: Final = "/payments/webhook"

_STATION: Final = "/operations/stations/{stationId}"
_PAYMENT: Final = "/operations/payments/{reservationId}"

HTTP: Final = (
    Route("POST", "/payments/create", "payments"),
    Route("POST", "/payments/confirm", "payments"),
    Route("POST", "/payments/cancel", "payments"),
    Route("POST", "/payments/move", "payments"),
    Route("POST", WEBHOOK, "payments"),
    Route("GET", "/payments/status/{reservationId}", "payments"),
    Route("GET", "/payments/receipt/{reservationId}", "payments"),
    Route("GET", "/payments/connectors/{chargePointId}/{connectorId}", "payments"),
    Route("GET", "/operations/stations", "operations", operator=True),
    Route("GET", _STATION, "operations", operator=True),
    Route("PUT", _STATION, "operations", operator=True),
    Route("DELETE", _STATION, "operations", operator=True),
    Route("GET", f"{_STATION}/connectors/{{connectorId}}/occupancy", "operations", operator=True),
    Route("GET", f"{_STATION}/commands", "operations", operator=True),
    Route("GET", f"{_STATION}/messages", "operations", operator=True),
    Route("GET", f"{_STATION}/refused-connections", "operations", operator=True),
    Route("POST", f"{_STATION}/connectors/{{connectorId}}/reset-status", "operations", operator=True),
    Route("POST", f"{_STATION}/trigger-status", "operations", operator=True),
    Route("POST", "/operations/transactions/{transactionId}/close", "operations", operator=True),
    Route("POST", "/operations/reservations/{reservationId}/cancel", "operations", operator=True),
    Route("POST", "/operations/reservations/{reservationId}/settle", "operations", operator=True),
    Route("GET", "/operations/payments", "operations", operator=True),
    Route("GET", _PAYMENT, "operations", operator=True),
    Route("POST", f"{_PAYMENT}/retry", "operations", operator=True),
    Route("POST", f"{_PAYMENT}/bill", "operations", operator=True),
    Route("POST", f"{_PAYMENT}/release", "operations", operator=True),
    Route("POST", f"{_PAYMENT}/settle", "operations", operator=True),
    Route("GET", "/operations/unknown-stations", "operations", operator=True),
    Route("POST", "/operations/unknown-stations/{stationId}/accept", "operations", operator=True),
)

SCHEDULES: Final = (
    Schedule("Sweep", "maintenance", "rate(1 minute)"),
    Schedule("Reconcile", "maintenance", "rate(1 day)", input={"reconcile": True}, retries=10),
)

# The numbers are AWS's advice for a queue before a function: six times the function's time between two deliveries, and
# five of them, because one that Lambda throttles counts too. A batch is small, because a timer may take ten seconds of
# the function's sixty. The retention is longer than the longest delay and all deliveries (15 and 30 minutes).
TIMERS: Final = Queue(
    name="timers", function="maintenance", batch=5, receives=5, retry_seconds=360, retention_seconds=3600
)

# Address of a page -> its file under web/. Every other file of web/ is served at /assets/<path>.
PAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/cp/{station}/{connector}": "driver/start.html",
        "/session/{reservation}": "driver/session.html",
        "/receipt/{reservation}": "driver/receipt.html",
    }
)
