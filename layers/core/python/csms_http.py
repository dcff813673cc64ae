"""What the HTTP functions share: strict request bodies, and the one place where errors become HTTP answers.

It is beside csms in the layer, because a function is deployed with its own folder and the layers only; and not in csms,
which knows nothing of HTTP.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response, content_types
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from csms import errors, texts
from csms.adapters.cloudfront import came_through_cloudfront

STATUS: Final[Mapping[type[errors.CsmsError], int]] = {
    errors.BadRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.ChargerOffline: 409,
    errors.Conflict: 409,
    errors.ConnectorBusy: 409,
    errors.IllegalTransition: 409,
    errors.PaymentRefused: 502,
    errors.PaymentUnavailable: 502,
    errors.StoreUnavailable: 503,
}
CODE: Final[Mapping[type[errors.CsmsError], str]] = {
    errors.PaymentRefused: "PaymentProviderUnavailable",
    errors.PaymentUnavailable: "PaymentProviderUnavailable",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """Annotates a type whose pattern is no message for people: any invalid value is refused with "must be <what>"."""

    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        message = f"must be {self.what}"
        return core_schema.custom_error_schema(handler(source), "expected", custom_error_message=message)


Identity = Annotated[str, Field(min_length=1, max_length=48), Expected("a station's identity of 1 to 48 characters")]
ReservationId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$"), Expected("32 hexadecimal digits in lower case")]


class HttpApi(APIGatewayHttpResolver):
    """The routes of a function. A path parameter takes every character except a slash; Powertools' own pattern knows
    not all that an identity may have, as `"`, `#`, `?` and `\\`."""

    @staticmethod
    def _compile_regex(rule: str, base_regex: str = "^{}$") -> re.Pattern[str]:
        return re.compile(base_regex.format(re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", rule)))


class Body(BaseModel):
    """A request body: unknown fields and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def body(app: APIGatewayHttpResolver) -> bytes:
    """The request's body as it was sent, byte by byte."""
    event = app.current_event
    raw = event.body or ""
    return base64.b64decode(raw) if event.is_base64_encoded else raw.encode()


def path_parameter(name: str, kind: Any, text: str) -> Any:
    """The path parameter as a value of this type. Raises BadRequest, which names it as the routes do."""
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError as invalid:
        raise errors.BadRequest(f"{name}: {invalid.errors()[0]['msg']}") from None


def language(app: APIGatewayHttpResolver) -> str:
    """The language to answer the request in."""
    return texts.choose_language(app.current_event.headers.get("accept-language", ""))


def register_error_handlers(app: APIGatewayHttpResolver, logger: Logger, metrics: Metrics) -> None:
    """Make the app answer an error as `{"status": <code>, "message": <text>}`, and log and count it."""

    def handle_error(error: errors.CsmsError) -> Response[dict[str, Any]]:
        answer: dict[str, Any] = {"status": CODE.get(type(error), error.code), "message": error.message}
        if isinstance(error, errors.ChargerOffline):
            answer["message"] = texts.reason_text(error.code, language(app))
        if isinstance(error, errors.ConnectorBusy):
            headline = error.reasons[0]
            answer["message"] = texts.reason_text(headline, language(app))
            answer |= {"reason": headline, "reasons": list(error.reasons)}
        metrics.add_metric(answer["status"], MetricUnit.Count, 1)
        logger.append_keys(refused=answer)
        return _json_response(STATUS.get(type(error), 500), answer)

    def handle_invalid(error: ValidationError) -> Response[dict[str, Any]]:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        return _json_response(400, {"status": "BadRequest", "message": f"{place}: {first['msg']}"})

    def handle_unknown_route(_error: Exception) -> Response[dict[str, Any]]:
        return _json_response(404, {"status": "NotFound", "message": "There is no such route."})

    app.exception_handler(errors.CsmsError)(handle_error)
    app.exception_handler(ValidationError)(handle_invalid)
    app.not_found(handle_unknown_route)


def answer(
    app: APIGatewayHttpResolver,
    event: dict[str, Any],
    context: LambdaContext,
    logger: Logger,
    metrics: Metrics,
    *,
    origin_secrets: tuple[str, ...],
) -> dict[str, Any]:
    """Answer the request, and write one log line. A request that did not come through CloudFront is answered as 403. An
    unexpected error is answered as 500 in the same form, and only the log has its details."""
    try:
        metrics.add_metric("Requests", MetricUnit.Count, 1)
        if came_through_cloudfront(event.get("headers") or {}, origin_secrets):
            answered = app.resolve(event, context)
        else:
            metrics.add_metric("Forbidden", MetricUnit.Count, 1)
            answered = {
                "statusCode": STATUS[errors.Forbidden],
                "headers": {"content-type": "application/json"},
                "body": '{"status":"Forbidden","message":"Use the public address of the CloudFront distribution."}',
            }
        logger.info("answered", extra={"route": event.get("routeKey"), "statusCode": answered["statusCode"]})
    except Exception:  # No stack trace may reach the public.
        logger.exception("failed")
        return {
            "statusCode": 500,
            "headers": {"content-type": "application/json"},
            "body": '{"status":"InternalError","message":"Something went wrong. Please try again."}',
        }
    return answered


def _json_response(status_code: int, content: dict[str, Any]) -> Response[dict[str, Any]]:
    return Response(status_code=status_code, content_type=content_types.APPLICATION_JSON, body=content)
