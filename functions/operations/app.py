"""The operators' HTTP API: see stations, register them, see why a connector is busy, and free what is stuck. Who asks
has shown a token, and the gateway has checked it."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Annotated, Any, Literal

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from csms.config import Settings
from csms.errors import Unauthorised
from csms.gateway import Gateway, Nudge
from csms.model import Tariff
from csms.operations import Order
from csms.service import Operators, Registration, Work
from csms.store import Store
from csms_http import Body, Identity, ReservationId, answer, body, speak_errors
from csms_observer import observer

NewIdentity = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f/]{1,48}$")]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
Amount = Annotated[int, Field(ge=0, le=10**9)]


class TariffBody(Body):
    """What a session costs; amounts in minor units, the price of a kWh as a decimal string."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    exponent: int = Field(default=2, ge=0, le=4)
    price_per_kwh: str = Field(alias="pricePerKwh", pattern=r"^\d{1,7}(\.\d{1,4})?$")
    session_fee: Amount = Field(alias="sessionFee", default=0)
    max_energy_wh: int = Field(alias="maxEnergyWh", default=40_000, ge=1, le=10_000_000)
    minimum_amount: Amount = Field(alias="minimumAmount", default=50)


class RegistrationBody(Body):
    """What is to be known of a station; without a password a new one gets one, and a known one keeps its own."""

    connectors: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(min_length=1, max_length=64)
    tariff: TariffBody
    password: Annotated[str, Field(min_length=8, max_length=64)] | None = None
    time_zone: str = Field(alias="timeZone", default="UTC", max_length=64)
    free: bool = False


class OrderBody(Body):
    """Why, and the state that was seen: the action is refused if it is another one by now."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]
    expected: str = Field(min_length=1, max_length=50)


class Page(BaseModel):
    """Which part of the list of stations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=50, ge=1, le=100)
    after: str | None = Field(default=None, pattern=r"^\d#.+$")
    state: Literal["online", "offline", "busy", "faulted"] | None = None


settings = Settings.load(os.environ)
logger = Logger(service="operations")
metrics = Metrics(namespace="csms", service="operations")
app = APIGatewayHttpResolver()
speak_errors(app, logger, metrics)


def signed_in(api: APIGatewayHttpResolver, route: NextMiddleware) -> Response[Any]:
    """What the route answers to somebody whose token the gateway has checked; Unauthorised to anybody else."""
    authorizer = api.current_event.request_context.get("authorizer") or {}
    claims = authorizer.get("jwt", {}).get("claims", {})
    who = claims.get("email") or claims.get("sub")
    if not who:
        raise Unauthorised("Unauthorized")
    api.append_context(who=str(who))
    return route(api)


app.use([signed_in])
operators = Operators(
    Work(
        store=Store(boto3.client("dynamodb"), settings.table_name),
        gateway=Gateway(boto3.client("apigatewaymanagementapi", endpoint_url=settings.websocket_api_url)),
        ask=Nudge(boto3.client("lambda"), settings.maintenance_function),
        policy=settings.policy,
        observe=observer(logger, metrics),
    )
)


@app.get("/operations/stations")
def stations() -> dict[str, Any]:
    """See the fleet, page by page."""
    page = Page.model_validate(app.current_event.query_string_parameters)
    return operators.stations(limit=page.limit, after=page.after, state=page.state)


@app.get("/operations/stations/<identity>")
def station(identity: str) -> dict[str, Any]:
    """See a station."""
    return operators.station(_identity(identity))


@app.put("/operations/stations/<identity>")
def register(identity: str) -> dict[str, Any]:
    """Register a station, or change what is registered."""
    return operators.register(_registration(identity), who=_acts("Register"))


@app.delete("/operations/stations/<identity>")
def delete(identity: str) -> dict[str, Any]:
    """Delete a station that is not in use."""
    operators.delete(_identity(identity), who=_acts("Delete"))
    return {"status": "Deleted", "identity": identity}


@app.get("/operations/strangers")
def strangers() -> dict[str, Any]:
    """See who tried to connect."""
    return operators.strangers()


@app.post("/operations/strangers/<identity>/accept")
def accept(identity: str) -> dict[str, Any]:
    """Register one of them."""
    return operators.accept(_registration(identity), who=_acts("Accept"))


@app.get("/operations/stations/<identity>/connectors/<connector_id>/occupancy")
def occupancy(identity: str, connector_id: str) -> dict[str, Any]:
    """See why a connector is busy."""
    return operators.occupancy(_identity(identity), _number(connector_id))


@app.post("/operations/stations/<identity>/connectors/<connector_id>/reset-status")
def reset_status(identity: str, connector_id: str) -> dict[str, Any]:
    """Make a connector's status Available."""
    return operators.reset_status(_identity(identity), _number(connector_id), _order("ResetStatus"))


@app.post("/operations/stations/<identity>/trigger-status")
def trigger_status(identity: str) -> dict[str, Any]:
    """Ask a station how it is."""
    return operators.trigger_status(_identity(identity), _order("TriggerStatus"))


@app.post("/operations/transactions/<transaction_id>/close")
def close_transaction(transaction_id: str) -> dict[str, Any]:
    """Close a transaction whose stop will not come."""
    return operators.close_transaction(_number(transaction_id), _order("CloseTransaction"))


@app.post("/operations/reservations/<reservation_id>/cancel")
def cancel_reservation(reservation_id: str) -> dict[str, Any]:
    """Cancel a reservation that does not charge yet."""
    held = TypeAdapter(ReservationId).validate_python(reservation_id)
    return operators.cancel_reservation(held, _order("CancelReservation"))


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The HTTP API's answer."""
    return answer(app, event, context, logger, metrics)


def _acts(action: str) -> str:
    """Who acts; noted in the log, and counted."""
    who: str = app.context["who"]
    logger.append_keys(operation={"action": action, "who": who})
    metrics.add_metric(action, MetricUnit.Count, 1)
    return who


def _order(action: str) -> Order:
    asked = OrderBody.model_validate_json(body(app))
    return Order(who=_acts(action), reason=asked.reason, expected=asked.expected)


def _registration(identity: str) -> Registration:
    asked = RegistrationBody.model_validate_json(body(app))
    of = asked.tariff
    return Registration(
        identity=TypeAdapter(NewIdentity).validate_python(identity),
        connectors=asked.connectors,
        tariff=Tariff(
            currency=of.currency,
            exponent=of.exponent,
            energy_price=Decimal(of.price_per_kwh),
            session_fee=of.session_fee,
            max_energy_wh=of.max_energy_wh,
            minimum_amount=of.minimum_amount,
        ),
        password=asked.password.encode() if asked.password is not None else None,
        time_zone=asked.time_zone,
        free=asked.free,
    )


def _identity(text: str) -> str:
    return TypeAdapter(Identity).validate_python(text)


def _number(text: str) -> int:
    return TypeAdapter(Number).validate_python(text)
