"""The events that API Gateway sends to Lambda for a WebSocket API ("Set up integration request", developer guide)."""

import base64
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

STAGE: Final = "ocpp"
API_ID: Final = "local"

# API Gateway's own texts, used if the closing side gave no reason.
REASONS: Final = {1000: "Connection Closed Normally", 1005: "Client-side close frame status not set"}


def new_id() -> str:
    """An id in API Gateway's form: 15 characters of base64 and "="."""
    return base64.urlsafe_b64encode(secrets.token_bytes(11)).decode()


def trace_id() -> str:
    """An X-Ray trace id, which API Gateway adds to the headers of each request."""
    return f"Root=1-{now_millis() // 1000:08x}-{secrets.token_hex(12)}"


def now_millis() -> int:
    return time.time_ns() // 1_000_000


def common_log_time(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def multi_values(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """All values by name, in the order of their arrival."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What API Gateway stores of a connection and repeats in each of its events."""

    connection_id: str
    connected_at: int
    source_ip: str
    user_agent: str
    domain_name: str


def _request_context(peer: Peer, *, route: str, kind: str, at: int, extra: Mapping[str, Any]) -> dict[str, Any]:
    request_id = new_id()
    identity = {"sourceIp": peer.source_ip}
    if peer.user_agent:
        identity["userAgent"] = peer.user_agent
    return {
        "routeKey": route,
        "eventType": kind,
        "extendedRequestId": request_id,
        "requestTime": common_log_time(at),
        "messageDirection": "IN",
        "stage": STAGE,
        "connectedAt": peer.connected_at,
        "requestTimeEpoch": at,
        "identity": identity,
        "requestId": request_id,
        "domainName": peer.domain_name,
        "connectionId": peer.connection_id,
        "apiId": API_ID,
        **extra,
    }


def connect(peer: Peer, *, headers: Iterable[tuple[str, str]], query: Mapping[str, str]) -> dict[str, Any]:
    """The $connect event. Of a header sent twice, `headers` has the last value and `multiValueHeaders` all."""
    pairs = tuple(headers)
    return {
        "headers": dict(pairs),
        "multiValueHeaders": multi_values(pairs),
        "queryStringParameters": dict(query),
        "multiValueQueryStringParameters": multi_values(query.items()),
        "requestContext": _request_context(peer, route="$connect", kind="CONNECT", at=now_millis(), extra={}),
        "isBase64Encoded": False,
    }


def message(peer: Peer, body: str, *, arrived_at: int) -> dict[str, Any]:
    """The event of one text message, which arrived at this time in milliseconds. Unlike $connect it has neither headers
    nor query."""
    extra = {"messageId": new_id()}
    context = _request_context(peer, route="$default", kind="MESSAGE", at=arrived_at, extra=extra)
    return {"requestContext": context, "body": body, "isBase64Encoded": False}


def disconnect(peer: Peer, *, code: int, reason: str) -> dict[str, Any]:
    """The $disconnect event. Its headers are API Gateway's own, not the peer's."""
    end = {"disconnectStatusCode": code, "disconnectReason": reason or REASONS.get(code, "")}
    headers = {"Host": peer.domain_name, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
    return {
        "headers": headers,
        "multiValueHeaders": multi_values(headers.items()),
        "requestContext": _request_context(peer, route="$disconnect", kind="DISCONNECT", at=now_millis(), extra=end),
        "isBase64Encoded": False,
    }
