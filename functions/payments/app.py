"""The drivers' HTTP API: see a connector, start, pay, cancel, follow; and the payment provider's webhook."""

from __future__ import annotations

import base64
import os
from typing import Annotated, Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from csms import errors
from csms.config import Settings
from csms.gateway import Gateway
from csms.service import Drivers, Work
from csms.store import Store
from csms.stripe_payments import StripePayments

STATUS = {
    errors.BadRequest: 400,
    errors.NotFound: 404,
    errors.ChargerOffline: 409,
    errors.Conflict: 409,
    errors.ConnectorBusy: 409,
    errors.IllegalTransition: 409,
    errors.PaymentRefused: 502,
    errors.PaymentUnavailable: 502,
    errors.StoreUnavailable: 503,
}
CODE = {errors.PaymentRefused: "PaymentProviderUnavailable", errors.PaymentUnavailable: "PaymentProviderUnavailable"}

Identity = Annotated[str, Field(min_length=1, max_length=48)]
ReservationId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Body(BaseModel):
    """A request body: nothing unknown in it, and nothing of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Create(Body):
    """Which connector to start."""

    identity: Identity = Field(alias="chargePointId")
    connector_id: int = Field(alias="connectorId", ge=0, le=2**31 - 1)
    id_tag: Annotated[str, Field(min_length=1, max_length=20)] | None = Field(alias="idTag", default=None)
    resume: ReservationId | None = None


class Named(Body):
    """Which reservation is meant."""

    reservation_id: ReservationId = Field(alias="reservationId")


settings = Settings.load(os.environ)
logger = Logger(service="payments")
metrics = Metrics(namespace="csms", service="payments")
app = APIGatewayHttpResolver()
drivers = Drivers(
    Work(
        store=Store(boto3.client("dynamodb"), settings.table_name),
        gateway=Gateway(boto3.client("apigatewaymanagementapi", endpoint_url=settings.websocket_api_url)),
        provider=StripePayments(
            api_key=settings.stripe_api_key,
            webhook_secret=settings.stripe_webhook_secret,
            api_base=settings.stripe_api_base,
        ),
        policy=settings.policy,
        public_url=settings.public_url,
        observe=lambda what, facts: logger.append_keys(**{what: dict(facts)}),
    )
)


@app.post("/payments/create")
def create() -> dict[str, Any]:
    """Lock a connector and open its checkout."""
    asked = Create.model_validate_json(_body())
    return drivers.create(asked.identity, asked.connector_id, id_tag=asked.id_tag, resume=asked.resume)


@app.post("/payments/confirm")
def confirm() -> dict[str, Any]:
    """Look the payment up, and start."""
    return drivers.confirm(Named.model_validate_json(_body()).reservation_id)


@app.post("/payments/cancel")
def cancel() -> dict[str, Any]:
    """Give the connector back, and the money."""
    return drivers.cancel(Named.model_validate_json(_body()).reservation_id)


@app.post("/payments/webhook")
def webhook() -> dict[str, Any]:
    """Hear that a payment moved."""
    return drivers.webhook(_body(), app.current_event.headers.get("stripe-signature", ""))


@app.get("/payments/status/<reservation_id>")
def status(reservation_id: str) -> dict[str, Any]:
    """Follow a reservation."""
    return drivers.status(TypeAdapter(ReservationId).validate_python(reservation_id))


@app.get("/payments/connectors/<identity>/<connector_id>")
def connector(identity: str, connector_id: str) -> dict[str, Any]:
    """See whether a connector is free, and what it costs."""
    return drivers.connector(identity, TypeAdapter(int).validate_python(connector_id))


@app.exception_handler(errors.CsmsError)
def refused(error: errors.CsmsError) -> Response[dict[str, Any]]:
    """The one place where an error becomes an HTTP answer."""
    answer: dict[str, Any] = {"status": CODE.get(type(error), error.code), "message": error.message}
    if isinstance(error, errors.ConnectorBusy):
        answer |= {"reason": error.reasons[0], "reasons": list(error.reasons)}
    metrics.add_metric(answer["status"], MetricUnit.Count, 1)
    logger.append_keys(refused=answer)
    return _json(STATUS.get(type(error), 500), answer)


@app.exception_handler(ValidationError)
def invalid(error: ValidationError) -> Response[dict[str, Any]]:
    """What does not make sense is named, with the first place where it does not."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "body"
    return _json(400, {"status": "BadRequest", "message": f"{place}: {first['msg']}"})


@app.not_found
def unknown_route(_error: Exception) -> Response[dict[str, Any]]:
    """A path nobody serves."""
    return _json(404, {"status": "NotFound", "message": "There is nothing here."})


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The HTTP API's answer; an error nobody foresaw is a 500 in the same form, and the log has all of it."""
    try:
        answer = app.resolve(event, context)
        logger.info("answered", extra={"route": event.get("routeKey"), "statusCode": answer["statusCode"]})
        return answer
    except Exception:  # the last line of defence: the public sees no trace
        logger.exception("failed")
        return {
            "statusCode": 500,
            "headers": {"content-type": "application/json"},
            "body": '{"status":"InternalError","message":"Something went wrong. Please try again."}',
        }


def _body() -> bytes:
    """The request's body as it was sent, byte by byte."""
    event = app.current_event
    raw = event.body or ""
    return base64.b64decode(raw) if event.is_base64_encoded else raw.encode()


def _json(status_code: int, body: dict[str, Any]) -> Response[dict[str, Any]]:
    return Response(status_code=status_code, content_type=content_types.APPLICATION_JSON, body=body)
