"""$default: every frame a charger sends. Never raises, because API Gateway would then say something that is not OCPP
(note F40)."""

from __future__ import annotations

import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes import APIGatewayWebSocketEvent, event_source
from aws_lambda_powertools.utilities.typing import LambdaContext

from csms import ocppj
from csms.config import Settings
from csms.gateway import Gateway, Nudge
from csms.service import Stations, Work
from csms.store import Store
from csms_observer import observer

settings = Settings.load(os.environ)
logger = Logger(service="ws_message")
metrics = Metrics(namespace="csms", service="ws_message")
stations = Stations(
    Work(
        store=Store(boto3.client("dynamodb"), settings.table_name),
        gateway=Gateway(boto3.client("apigatewaymanagementapi", endpoint_url=settings.websocket_api_url)),
        ask=Nudge(boto3.client("lambda"), settings.maintenance_function),
        policy=settings.policy,
        observe=observer(logger, metrics),
    )
)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
@event_source(data_class=APIGatewayWebSocketEvent)
def lambda_handler(event: APIGatewayWebSocketEvent, context: LambdaContext) -> dict[str, Any]:
    """The frame to answer with as `body`; without one nothing is sent."""
    text = event.decoded_body or ""
    try:
        answer = stations.receive(event.request_context.connection_id, text)
    except Exception:  # whatever it is, the charger gets an OCPP frame, and the log gets all of it
        logger.exception("failed", extra={"connectionId": event.request_context.connection_id})
        metrics.add_metric("FrameFailed", MetricUnit.Count, 1)
        answer = ocppj.internal_error(text)
    else:
        logger.info("frame", extra={"answered": answer is not None})
    metrics.add_metric("Frames", MetricUnit.Count, 1)
    return {"statusCode": 200} if answer is None else {"statusCode": 200, "body": answer}
