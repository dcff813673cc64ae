"""The HTTP API: requests become events of payload format 2.0, answers become responses, and the operators' routes have
a JWT authorizer."""

import base64
import binascii
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from csms.adapters.cloudfront import ORIGIN_HEADER, VIEWER_HEADER
from infra.routes import Route
from local.gateway import events
from local.gateway.limits import Limits
from local.invoke import ACCOUNT, Functions, FunctionTimeoutError, InvocationError

# The claims that a token of the operators' user pool carries.
OPERATOR: Final = {"sub": "local-operator", "email": "operator@localhost", "token_use": "id"}


def http_routes(
    functions: Functions, routes: Iterable[Route], limits: Limits, *, operator_token: str, origin_secret: str
) -> list[web.RouteDef]:
    """An aiohttp route for each route of the API; {placeholders} are the same in both. With an empty operator_token the
    operators' routes refuse everyone."""

    def handler(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            if route.operator and not _is_operator(request, operator_token):
                return error_response(HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
            event = http_event(request, await request.read(), route, origin_secret=origin_secret)
            try:
                answer = await functions.call(route.function, event, seconds=limits.http_seconds)
            except FunctionTimeoutError:
                return error_response(HTTPStatus.SERVICE_UNAVAILABLE)
            except InvocationError:
                return error_response(HTTPStatus.INTERNAL_SERVER_ERROR)
            return http_response(answer)

        return handle

    # aiohttp answers HEAD for every GET route; API Gateway does not.
    strict = {"GET": {"allow_head": False}}
    return [web.route(row.method, any_segment(row.path), handler(row), **strict.get(row.method, {})) for row in routes]


def any_segment(path: str) -> str:
    """The path as aiohttp's pattern, in which each {placeholder} takes every segment; by itself it takes no braces."""
    return re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", path)


def http_event(request: web.Request, body: bytes, route: Route, *, origin_secret: str) -> dict[str, Any]:
    """The event of payload format 2.0. Keys without a value are absent, as on AWS. What CloudFront and API Gateway add
    to the headers replaces what the client sent.

    An HTTP API decodes rawPath, in spite of its name, and path parameters; rawQueryString stays encoded.
    """
    now = events.now_millis()
    route_key = f"{route.method} {route.path}"
    target, _, query = request.raw_path.partition("?")
    path = unquote(target)
    pairs = [(name.lower(), value) for name, value in request.headers.items()]
    headers = join_values((name, value) for name, value in pairs if name != "cookie")
    source_ip = request.remote or ""
    headers |= {
        "x-amzn-trace-id": events.trace_id(),
        "x-forwarded-for": source_ip,
        "x-forwarded-port": str(request.url.port),
        "x-forwarded-proto": request.scheme,
        ORIGIN_HEADER: origin_secret,
        VIEWER_HEADER: source_ip,
    }
    cookies = [part.strip() for name, value in pairs if name == "cookie" for part in value.split(";")]
    parameters = join_values(parse_qsl(query, keep_blank_values=True))
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": events.API_ID,
            "domainName": request.host,
            "domainPrefix": request.host.partition(".")[0],
            "http": {
                "method": request.method,
                "path": path,
                "protocol": f"HTTP/{request.version.major}.{request.version.minor}",
                "sourceIp": source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": events.new_id(),
            "routeKey": route_key,
            "stage": "$default",
            "time": events.common_log_time(now),
            "timeEpoch": now,
        },
        "isBase64Encoded": False,
    }
    if route.operator:
        event["requestContext"]["authorizer"] = {"jwt": {"claims": dict(OPERATOR), "scopes": None}}
    if cookies:
        event["cookies"] = cookies
    if parameters:
        event["queryStringParameters"] = parameters
    if request.match_info:
        event["pathParameters"] = dict(request.match_info)
    if body:
        event["body"], event["isBase64Encoded"] = encode_body(body, headers.get("content-type", ""))
    return event


def http_response(answer: object) -> web.Response:
    """The response for an answer: its fields if it has a statusCode, else the whole answer as JSON."""
    if not isinstance(answer, dict) or "statusCode" not in answer:
        return web.json_response(answer)
    try:
        return _structured_response(answer)
    except (TypeError, ValueError, AttributeError, binascii.Error):
        # The answer does not have the documented form: the client gets the error that AWS would give.
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR)


def _structured_response(answer: dict[str, Any]) -> web.Response:
    body = answer.get("body") or ""
    headers = {name.lower(): str(value) for name, value in (answer.get("headers") or {}).items()}
    # aiohttp sets these headers itself.
    headers.pop("content-length", None)
    content_type = headers.pop("content-type", "text/plain; charset=utf-8")
    if any(set("\r\n") & set(text) for pair in headers.items() for text in pair):
        raise ValueError("line break in a header")
    response = web.Response(
        status=int(answer["statusCode"]),
        body=base64.b64decode(body, validate=True) if answer.get("isBase64Encoded") else body.encode(),
        headers=headers | {"Content-Type": content_type},
    )
    for cookie in answer.get("cookies") or ():
        response.headers.add("Set-Cookie", cookie)
    return response


def error_response(status: HTTPStatus, text: str = "", *, headers: Mapping[str, str] | None = None) -> web.Response:
    """API Gateway's own error, by default with the phrase of the status."""
    return web.json_response({"message": text or status.phrase}, status=status, headers=headers)


def _is_operator(request: web.Request, token: str) -> bool:
    """Whether the request has the operator's token. A JWT authorizer takes it with or without "Bearer"."""
    shown = request.headers.get("Authorization", "")
    scheme, _, rest = shown.partition(" ")
    bare = rest.strip() if scheme.lower() == "bearer" else shown
    return bool(token) and hmac.compare_digest(bare.encode(errors="replace"), token.encode())


def encode_body(body: bytes, content_type: str) -> tuple[str, bool]:
    """The body as text, and whether that is base64: not for text/*, JSON, XML and JavaScript, but for a form."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind in {"application/json", "application/xml", "application/javascript"}:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            return base64.b64encode(body).decode(), True
    return base64.b64encode(body).decode(), True


def join_values(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One value per name; several values are joined by commas."""
    return {name: ",".join(values) for name, values in events.multi_values(pairs).items()}
