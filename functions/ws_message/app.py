"""$default: every frame that a station sends. It never raises, because API Gateway would then send a message that is
not OCPP (note F40)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes import APIGatewayWebSocketEvent, event_source
from aws_lambda_powertools.utilities.typing import LambdaContext

from csms.ocpp import framing
from csms.service import Stations
from csms_wiring import build_dependencies, build_maintenance_trigger, build_timer, open_log, read_settings

settings = read_settings()
logger, metrics = open_log("ws_message")
stations = Stations(
    build_dependencies(
        settings,
        logger,
        metrics,
        trigger_maintenance=build_maintenance_trigger(settings),
        set_timer=build_timer(settings),
    )
)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
@event_source(data_class=APIGatewayWebSocketEvent)
def lambda_handler(event: APIGatewayWebSocketEvent, context: LambdaContext) -> dict[str, Any]:
    """Process the frame; the answer's `body` is the frame to send, and without one nothing is sent."""
    text = event.decoded_body or ""
    try:
        received_at = datetime.fromtimestamp(event.request_context.request_time_epoch / 1000, UTC)
        answer = stations.receive(event.request_context.connection_id, text, received_at=received_at)
    except Exception:  # The station gets an OCPP frame whatever was raised, and the log has the details.
        logger.exception("failed", extra={"connectionId": event.request_context.connection_id})
        metrics.add_metric("FrameFailed", MetricUnit.Count, 1)
        answer = framing.internal_error(text)
    else:
        logger.info("frame", extra={"answered": answer is not None})
    metrics.add_metric("Frames", MetricUnit.Count, 1)
    return {"statusCode": 200} if answer is None else {"statusCode": 200, "body": answer}
