"""The operators' HTTP API: list and register stations, see why a connector is busy, and resolve what is stuck. API
Gateway has validated the caller's JWT."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from csms.charging.operations import OperatorCommand
from csms.errors import Unauthorized
from csms.model import Money, Tariff
from csms.pricing.currency import EXPONENTS
from csms.service import Operators, Registration, Traits
from csms_http import (
    Body,
    Expected,
    HttpApi,
    Identity,
    ReservationId,
    answer,
    body,
    path_parameter,
    register_error_handlers,
)
from csms_wiring import (
    build_dependencies,
    build_maintenance_trigger,
    build_timer,
    open_log,
    read_origin_secrets,
    read_settings,
)

Connectors = Annotated[
    tuple[Annotated[int, Field(ge=1, le=1000)], ...],
    Field(min_length=1, max_length=64),
    Expected("an array of 1 to 64 connector numbers from 1 to 1000, for example [1, 2]"),
]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
TransactionId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9A-Za-z][!-~]{0,63}$"),
    Expected("1 to 64 printable ASCII characters without spaces, the first a letter or a digit"),
]
MaxPower = Annotated[
    int, Field(ge=1, le=10**9), Expected("the most power of one connector in W, an integer from 1 to 1000000000")
]
Amount = Annotated[int, Field(ge=0, le=10**9), Expected("an integer of minor currency units from 0 to 1000000000")]
Price = Annotated[
    str,
    StringConstraints(pattern=r"^\d{1,7}(\.\d{1,4})?$"),
    Expected('a price in minor currency units as a string, with at most 7 digits and 4 decimals, for example "59.5"'),
]
Percent = Annotated[
    str,
    StringConstraints(pattern=r"^\d{1,2}(\.\d{1,2})?$"),
    Expected('a percentage below 100 as a string, with at most 2 decimals, for example "19"'),
]
Currency = Annotated[
    str, StringConstraints(pattern=r"^[A-Z]{3}$"), Expected('an ISO 4217 currency code, for example "EUR"')
]
TimeOfDay = Annotated[str, StringConstraints(max_length=5), Expected('a time of day, for example "22:00"')]
PageStart = Annotated[str, StringConstraints(pattern=r"^\d#.+$"), Expected("the `next` of the previous page")]
MessageStart = Annotated[
    str, StringConstraints(pattern=r"^[0-9TZ:.#a-f-]{1,50}$"), Expected("the `next` of the previous page")
]


class TariffBody(Body):
    """What a session costs: amounts in minor units, prices and VAT as decimal strings. The exponent follows from the
    currency; if it is given, it must agree."""

    currency: Currency
    exponent: int | None = Field(default=None, ge=0, le=4)
    price_per_kwh: Price = Field(alias="pricePerKwh")
    session_fee: Amount = Field(alias="sessionFee", default=0)
    idle_price_per_minute: Price = Field(alias="idlePricePerMinute", default="0")
    idle_grace_minutes: int = Field(alias="idleGraceMinutes", default=0, ge=0, le=24 * 60)
    idle_maximum: Amount = Field(alias="idleMaximum", default=0)
    idle_free_from: TimeOfDay | None = Field(alias="idleFreeFrom", default=None)
    idle_free_until: TimeOfDay | None = Field(alias="idleFreeUntil", default=None)
    vat_percent: Percent = Field(alias="vatPercent", default="0")
    max_energy_wh: int = Field(alias="maxEnergyWh", default=40_000, ge=1, le=10_000_000)
    max_amount: Amount | None = Field(alias="maxAmount", default=None)
    minimum_energy_wh: int = Field(alias="minimumEnergyWh", default=0, ge=0, le=10_000_000)
    minimum_amount: Amount = Field(alias="minimumAmount", default=50)

    def to_tariff(self) -> Tariff:
        """The tariff with these values."""
        return Tariff(
            currency=self.currency,
            exponent=EXPONENTS.get(self.currency, 2) if self.exponent is None else self.exponent,
            energy_price=Decimal(self.price_per_kwh),
            session_fee=self.session_fee,
            idle_price=Decimal(self.idle_price_per_minute),
            idle_grace_minutes=self.idle_grace_minutes,
            idle_maximum=self.idle_maximum,
            idle_free_from=self.idle_free_from,
            idle_free_until=self.idle_free_until,
            vat_percent=Decimal(self.vat_percent),
            max_energy_wh=self.max_energy_wh,
            max_amount=self.max_amount,
            minimum_energy_wh=self.minimum_energy_wh,
            minimum_amount=self.minimum_amount,
        )


class RegistrationBody(Body):
    """A station's registration. Without a password, one is generated for a new station, and a known station keeps its
    own."""

    connectors: Connectors
    tariff: TariffBody
    password: Annotated[str, Field(min_length=8, max_length=64)] | None = None
    time_zone: str = Field(alias="timeZone", default="UTC", max_length=64)
    free: bool = False
    max_power_w: MaxPower | None = Field(alias="maxPowerW", default=None)
    quirks: Annotated[tuple[Annotated[str, Field(max_length=50)], ...], Field(max_length=100)] | None = None


class CommandBody(Body):
    """The operator's reason, and the state that the operator saw; the action is refused if the state has changed."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]
    expected: str = Field(min_length=1, max_length=50)


class BillBody(CommandBody):
    """The energy that was really delivered, in Wh, for a payment whose meter value cannot be right."""

    energy_wh: int = Field(alias="energyWh", ge=0, le=10_000_000)


class SettlementBody(CommandBody):
    """What an operator did about a payment at the provider: this amount was captured and not refunded, or all was
    released if it is 0."""

    captured_amount: Amount = Field(alias="capturedAmount")


class PageQuery(BaseModel):
    """The part of a list to return."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=50, ge=1, le=100)
    after: PageStart | None = None


class NewestQuery(BaseModel):
    """How many of the newest to return."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=50, ge=1, le=100)


class MessagesQuery(BaseModel):
    """The part of the list of messages to return. A page of the longest texts stays below Lambda's 6 MB for an
    answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=20, ge=1, le=20)
    after: MessageStart | None = None


class PaymentsQuery(PageQuery):
    """The part of the list of payments to return: those in this money state."""

    state: Literal["authorised", "capturing", "releasing", "refunding", "needs_review"] = "needs_review"


class StationsQuery(PageQuery):
    """The part of the list of stations to return."""

    state: Literal["online", "offline", "busy", "faulted", "refusing"] | None = None


settings = read_settings()
origin_secrets = read_origin_secrets(settings)
logger, metrics = open_log("operations")
app = HttpApi()
register_error_handlers(app, logger, metrics)


def require_operator(api: APIGatewayHttpResolver, route: NextMiddleware) -> Response[Any]:
    """Call the route for a caller whose JWT API Gateway has validated. Raises Unauthorized for any other."""
    authorizer = api.current_event.request_context.get("authorizer") or {}
    claims = authorizer.get("jwt", {}).get("claims", {})
    who = claims.get("email") or claims.get("sub")
    if not who:
        raise Unauthorized("Unauthorized")
    api.append_context(who=str(who))
    return route(api)


app.use([require_operator])
operators = Operators(
    build_dependencies(
        settings,
        logger,
        metrics,
        trigger_maintenance=build_maintenance_trigger(settings),
        set_timer=build_timer(settings),
    )
)


@app.get("/operations/stations")
def stations() -> dict[str, Any]:
    """List the stations, page by page."""
    page = StationsQuery.model_validate(app.current_event.query_string_parameters)
    return operators.stations(limit=page.limit, after=page.after, state=page.state)


@app.get("/operations/stations/<identity>")
def station(identity: str) -> dict[str, Any]:
    """Show a station."""
    return operators.station(_parse_identity(identity))


@app.put("/operations/stations/<identity>")
def register(identity: str) -> dict[str, Any]:
    """Register a station, or change its registration."""
    return operators.register(_read_registration(identity), who=_record_action("Register"))


@app.delete("/operations/stations/<identity>")
def delete(identity: str) -> dict[str, Any]:
    """Delete a station that is not in use."""
    operators.delete(_parse_identity(identity), who=_record_action("Delete"))
    return {"status": "Deleted", "identity": identity}


@app.get("/operations/unknown-stations")
def unknown_stations() -> dict[str, Any]:
    """List the unknown stations that tried to connect, page by page."""
    page = PageQuery.model_validate(app.current_event.query_string_parameters)
    return operators.unknown_stations(limit=page.limit, after=page.after)


@app.post("/operations/unknown-stations/<identity>/accept")
def accept(identity: str) -> dict[str, Any]:
    """Register one of the unknown stations."""
    return operators.accept(_read_registration(identity), who=_record_action("Accept"))


@app.get("/operations/stations/<identity>/connectors/<connector_id>/occupancy")
def occupancy(identity: str, connector_id: str) -> dict[str, Any]:
    """Show why a connector is busy."""
    return operators.occupancy(_parse_identity(identity), _parse_number("connectorId", connector_id))


@app.get("/operations/stations/<identity>/commands")
def commands(identity: str) -> dict[str, Any]:
    """List the commands to a station, who requested them, and their results."""
    page = NewestQuery.model_validate(app.current_event.query_string_parameters)
    return operators.commands(_parse_identity(identity), limit=page.limit)


@app.get("/operations/stations/<identity>/messages")
def messages(identity: str) -> dict[str, Any]:
    """List a station's irregular messages, and those in quarantine."""
    page = MessagesQuery.model_validate(app.current_event.query_string_parameters)
    return operators.messages(_parse_identity(identity), limit=page.limit, after=page.after)


@app.get("/operations/stations/<identity>/refused-connections")
def refused_connections(identity: str) -> dict[str, Any]:
    """List the connections in a station's name that were refused."""
    return operators.refused_connections(_parse_identity(identity))


@app.post("/operations/stations/<identity>/connectors/<connector_id>/reset-status")
def reset_status(identity: str, connector_id: str) -> dict[str, Any]:
    """Set a connector's status to Available."""
    return operators.reset_status(
        _parse_identity(identity), _parse_number("connectorId", connector_id), _read_command("ResetStatus")
    )


@app.post("/operations/stations/<identity>/trigger-status")
def trigger_status(identity: str) -> dict[str, Any]:
    """Request the status of a station's connectors."""
    return operators.trigger_status(_parse_identity(identity), _read_command("TriggerStatus"))


@app.post("/operations/transactions/<transaction_id>/close")
def close_transaction(transaction_id: str) -> dict[str, Any]:
    """Close a transaction whose StopTransaction will not come."""
    return operators.close_transaction(
        path_parameter("transactionId", TransactionId, transaction_id), _read_command("CloseTransaction")
    )


@app.post("/operations/reservations/<reservation_id>/cancel")
def cancel_reservation(reservation_id: str) -> dict[str, Any]:
    """Cancel a reservation that does not charge yet."""
    return operators.cancel_reservation(_parse_reservation_id(reservation_id), _read_command("CancelReservation"))


@app.post("/operations/reservations/<reservation_id>/settle")
def settle_reservation(reservation_id: str) -> dict[str, Any]:
    """Bill a reservation that only waits for the unplug."""
    return operators.settle_reservation(_parse_reservation_id(reservation_id), _read_command("SettleReservation"))


@app.get("/operations/payments")
def payments() -> dict[str, Any]:
    """List the payments under way, by default those that need review."""
    page = PaymentsQuery.model_validate(app.current_event.query_string_parameters)
    return operators.payments(Money(page.state), limit=page.limit, after=page.after)


@app.get("/operations/payments/<reservation_id>")
def payment(reservation_id: str) -> dict[str, Any]:
    """Show a payment and every attempt at it."""
    return operators.payment(_parse_reservation_id(reservation_id))


@app.post("/operations/payments/<reservation_id>/retry")
def retry_payment(reservation_id: str) -> dict[str, Any]:
    """Try a payment again that was given up."""
    return operators.retry_payment(_parse_reservation_id(reservation_id), _read_command("RetryPayment"))


@app.post("/operations/payments/<reservation_id>/bill")
def bill_payment(reservation_id: str) -> dict[str, Any]:
    """Capture the bill for the energy that was really delivered."""
    request = BillBody.model_validate_json(body(app))
    command = OperatorCommand(who=_record_action("BillPayment"), reason=request.reason, expected=request.expected)
    return operators.bill_payment(_parse_reservation_id(reservation_id), request.energy_wh, command)


@app.post("/operations/payments/<reservation_id>/release")
def release_payment(reservation_id: str) -> dict[str, Any]:
    """Release a hold instead of capturing it."""
    return operators.release_payment(_parse_reservation_id(reservation_id), _read_command("ReleasePayment"))


@app.post("/operations/payments/<reservation_id>/settle")
def settle_payment(reservation_id: str) -> dict[str, Any]:
    """Mark a payment as settled that an operator settled at the provider."""
    request = SettlementBody.model_validate_json(body(app))
    command = OperatorCommand(who=_record_action("SettlePayment"), reason=request.reason, expected=request.expected)
    return operators.settle_payment(_parse_reservation_id(reservation_id), request.captured_amount, command)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a request of the HTTP API."""
    return answer(app, event, context, logger, metrics, origin_secrets=origin_secrets)


def _record_action(action: str) -> str:
    """Log and count the action; return the operator's name."""
    who: str = app.context["who"]
    logger.append_keys(operation={"action": action, "who": who})
    metrics.add_metric(action, MetricUnit.Count, 1)
    return who


def _read_command(action: str) -> OperatorCommand:
    request = CommandBody.model_validate_json(body(app))
    return OperatorCommand(who=_record_action(action), reason=request.reason, expected=request.expected)


def _read_registration(identity: str) -> Registration:
    request = RegistrationBody.model_validate_json(body(app))
    return Registration(
        identity=_parse_identity(identity),
        connectors=request.connectors,
        tariff=request.tariff.to_tariff(),
        password=request.password.encode() if request.password is not None else None,
        time_zone=request.time_zone,
        free=request.free,
        traits=Traits(max_power_w=request.max_power_w, quirks=request.quirks),
    )


def _parse_identity(text: str) -> str:
    return str(path_parameter("stationId", Identity, text))


def _parse_reservation_id(text: str) -> str:
    return str(path_parameter("reservationId", ReservationId, text))


def _parse_number(name: str, text: str) -> int:
    return int(path_parameter(name, Number, text))
