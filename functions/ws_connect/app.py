"""$connect and $disconnect: authenticate a station's connection, and record its end (OCPP-J 1.6 section 3)."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes import APIGatewayWebSocketEvent, event_source
from aws_lambda_powertools.utilities.typing import LambdaContext

from csms.adapters.cloudfront import came_through_cloudfront, read_viewer_address
from csms.errors import BadRequest, ConnectionSuperseded, CsmsError, NotFound, TooManyGuesses, Unauthorized
from csms.service import Handshake, Stations
from csms_wiring import build_dependencies, open_log, read_origin_secrets, read_settings

# With 503 a station tries again after a while; it may take 4xx for a wrong setting.
STATUS = {BadRequest: 400, Unauthorized: 401, NotFound: 404, TooManyGuesses: 429, ConnectionSuperseded: 503}

settings = read_settings()
origin_secrets = read_origin_secrets(settings)
logger, metrics = open_log("ws_connect")
stations = Stations(build_dependencies(settings, logger, metrics))


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
@event_source(data_class=APIGatewayWebSocketEvent)
def lambda_handler(event: APIGatewayWebSocketEvent, context: LambdaContext) -> dict[str, Any]:
    """Accept or refuse a connection: 200 with the sub-protocol (the station sees 101), or 400, 401, 404 or
    429; 503 if another connection of the station was accepted meanwhile, or the request cannot be decided."""
    connection_id = event.request_context.connection_id
    if event.request_context.event_type == "DISCONNECT":
        stations.disconnect(connection_id)
        metrics.add_metric("Disconnected", MetricUnit.Count, 1)
        logger.info("disconnected", extra={"connectionId": connection_id})
        return {"statusCode": 200}
    headers = {name.lower(): value for name, value in (event.headers or {}).items()}
    try:
        identity = _read_identity(event, headers)
        protocol = stations.connect(
            identity,
            authorization=headers.get("authorization"),
            offered=headers.get("sec-websocket-protocol", "").split(","),
            connection_id=connection_id,
            # CloudFront only lets this path through, and an optional version segment that it removes.
            handshake=Handshake(
                path=f"/ocpp/{identity}",
                address=read_viewer_address(headers, origin_secrets),
                user_agent=headers.get("user-agent"),
            ),
        )
    except CsmsError as refused:
        status = STATUS.get(type(refused), 503)
        metrics.add_metric("ConnectionRefused", MetricUnit.Count, 1)
        logger.warning("refused", extra={"connectionId": connection_id, "code": refused.code, "statusCode": status})
        answer: dict[str, Any] = {"statusCode": status, "body": refused.message}
        if isinstance(refused, TooManyGuesses):
            answer["headers"] = {"Retry-After": str(refused.wait_seconds)}
        return answer
    metrics.add_metric("Connected", MetricUnit.Count, 1)
    logger.info("connected", extra={"connectionId": connection_id, "protocol": protocol})
    return {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": protocol}}


def _read_identity(event: APIGatewayWebSocketEvent, headers: dict[str, str]) -> str:
    """The identity that CloudFront took from the URL. Raises Unauthorized for a request that did not come through
    CloudFront, NotFound if there is no identity."""
    if not came_through_cloudfront(headers, origin_secrets):
        raise Unauthorized("Connect through the public address of the CloudFront distribution.")
    identity = (event.query_string_parameters or {}).get("cp", "").strip("/")
    if not identity:
        raise NotFound("The URL names no station: connect to /ocpp/<identity>.", code="UnknownStation")
    return identity
