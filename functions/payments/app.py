"""The drivers' HTTP API: see a connector, start, pay, cancel, follow the session and get its receipt; and the payment
provider's webhook."""

from __future__ import annotations

from typing import Annotated, Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import Field

from csms.service import Drivers
from csms_http import (
    Body,
    HttpApi,
    Identity,
    ReservationId,
    answer,
    body,
    language,
    path_parameter,
    register_error_handlers,
)
from csms_wiring import open_log, read_origin_secrets
from csms_wiring.paying import build_payment_dependencies, read_settings_and_secrets, signature_header


class CreateBody(Body):
    """The connector to start."""

    identity: Identity = Field(alias="chargePointId")
    connector_id: int = Field(alias="connectorId", ge=0, le=2**31 - 1)
    id_tag: Annotated[str, Field(min_length=1, max_length=20)] | None = Field(alias="idTag", default=None)
    resume: ReservationId | None = None


class ReservationBody(Body):
    """The reservation that is meant."""

    reservation_id: ReservationId = Field(alias="reservationId")


class MoveBody(ReservationBody):
    """The connector that a reservation is to move to."""

    connector_id: int = Field(alias="connectorId", ge=1, le=2**31 - 1)


settings = read_settings_and_secrets()
origin_secrets = read_origin_secrets(settings)
logger, metrics = open_log("payments")
app = HttpApi()
register_error_handlers(app, logger, metrics)
drivers = Drivers(build_payment_dependencies(settings, logger, metrics))


@app.post("/payments/create")
def create() -> dict[str, Any]:
    """Lock a connector and open its checkout."""
    request = CreateBody.model_validate_json(body(app))
    created = drivers.create(request.identity, request.connector_id, id_tag=request.id_tag, resume=request.resume)
    metrics.add_metric(created["status"], MetricUnit.Count, 1)
    return created


@app.post("/payments/confirm")
def confirm() -> dict[str, Any]:
    """Look the payment up, and request the start."""
    return drivers.confirm(ReservationBody.model_validate_json(body(app)).reservation_id, language=language(app))


@app.post("/payments/cancel")
def cancel() -> dict[str, Any]:
    """Cancel the reservation: free the connector and release the hold."""
    return drivers.cancel(ReservationBody.model_validate_json(body(app)).reservation_id)


@app.post("/payments/move")
def move() -> dict[str, Any]:
    """Move the reservation to the connector where its driver is plugged in, and request the start there."""
    request = MoveBody.model_validate_json(body(app))
    return drivers.move(request.reservation_id, request.connector_id, language=language(app))


@app.post("/payments/webhook")
def receive_webhook() -> dict[str, Any]:
    """Process an event of the payment provider."""
    return drivers.receive_webhook(body(app), app.current_event.headers.get(signature_header(settings), ""))


@app.get("/payments/status/<reservation_id>")
def status(reservation_id: str) -> dict[str, Any]:
    """Show a reservation."""
    return drivers.status(path_parameter("reservationId", ReservationId, reservation_id), language=language(app))


@app.get("/payments/receipt/<reservation_id>")
def receipt(reservation_id: str) -> dict[str, Any]:
    """Show the receipt of a paid session."""
    return drivers.receipt(path_parameter("reservationId", ReservationId, reservation_id))


@app.get("/payments/connectors/<identity>/<connector_id>")
def connector(identity: str, connector_id: str) -> dict[str, Any]:
    """Show whether a connector can be started, and what it costs."""
    station = path_parameter("chargePointId", Identity, identity)
    return drivers.connector(station, path_parameter("connectorId", int, connector_id), language=language(app))


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a request of the HTTP API, or process the payment provider's event from EventBridge. For an event, an
    error makes AWS deliver it again."""
    if "detail" in event:
        became = drivers.receive_event(event["detail"])
        logger.info("heard", extra=became)
        return became
    return answer(app, event, context, logger, metrics, origin_secrets=origin_secrets)
