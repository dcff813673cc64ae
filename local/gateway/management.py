"""The @connections API for boto3's apigatewaymanagementapi client: post to, get and delete a connection."""

from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import web

from local.gateway.events import STAGE
from local.gateway.limits import Limits
from local.gateway.websocket import Connection
from local.invoke import aws_error, refuse_request


def management_routes(connections: Mapping[str, Connection], limits: Limits) -> list[web.RouteDef]:
    """The routes below /<stage>/@connections/. They answer 410 until $connect has returned, and after the connection's
    end."""

    async def handle(request: web.Request) -> web.Response:
        if refusal := await refuse_request(request):
            return refusal
        connection = connections.get(request.match_info["connection_id"])
        if connection is None or not connection.frames.is_open:
            return aws_error(410, "GoneException", "Gone")
        match request.method:
            case "POST":
                return await post(connection, request)
            case "GET":
                return describe(connection)
            case "DELETE":
                connection.frames.close(1000, "Connection Closed Normally")
                return web.Response(status=204)
            case _:
                return aws_error(403, "ForbiddenException", "Forbidden")

    async def post(connection: Connection, request: web.Request) -> web.Response:
        data = await request.read()
        if len(data) > limits.message_bytes:
            return aws_error(413, "PayloadTooLargeException", "Message too long")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return aws_error(400, "BadRequestException", "Data is not UTF-8 text")
        if not connection.frames.is_open:
            return aws_error(410, "GoneException", "Gone")
        connection.send(text)
        return web.Response(status=200)

    def describe(connection: Connection) -> web.Response:
        peer = connection.peer
        return web.json_response(
            {
                "connectedAt": iso_time(peer.connected_at),
                "identity": {"sourceIp": peer.source_ip, "userAgent": peer.user_agent},
                "lastActiveAt": iso_time(connection.last_active_at),
            }
        )

    async def wrong_stage(_: web.Request) -> web.Response:
        return aws_error(403, "ForbiddenException", "Forbidden")

    return [
        web.route("*", f"/{STAGE}/@connections/{{connection_id}}", handle),
        web.route("*", "/{stage}/@connections/{connection_id}", wrong_stage),
    ]


def iso_time(millis: int) -> str:
    return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
