"""The two APIs, their throttles, and the integration of each route with its function."""

import json
from collections.abc import Mapping
from typing import Final, cast

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra import routes
from infra.options import Options
from infra.stack.acknowledged_findings import accept
from infra.stack.logs import log_group

# The path that a station connects to, and the name of the stage behind it: infra/edge/ocpp_path.js requires both to be
# "ocpp".
STAGE: Final = "ocpp"

# The access log has answers that came before or instead of a function's: 401, 404, 429. It has no query and no address
# of a person.
ACCESS_LOG: Final = json.dumps(
    {
        "requestId": "$context.requestId",
        "requestTime": "$context.requestTime",
        "routeKey": "$context.routeKey",
        "status": "$context.status",
        "latency": "$context.responseLatency",
        "error": "$context.error.message",
        "authorizerError": "$context.authorizer.error",
        "integrationError": "$context.integrationErrorMessage",
    }
)


def websocket_stage(scope: Construct, options: Options) -> apigateway.WebSocketStage:
    """The stations' API, without its routes, because the functions need its address first."""
    api = apigateway.WebSocketApi(scope, "WebSocket", route_selection_expression="$request.body.[2]")
    stage = apigateway.WebSocketStage(
        scope,
        "Stage",
        web_socket_api=api,
        stage_name=STAGE,
        auto_deploy=True,
        throttle=apigateway.ThrottleSettings(rate_limit=options.message_rate, burst_limit=options.message_burst),
    )
    accept(
        stage,
        {
            "AwsSolutions-APIG1": "The functions log a line for each connection and each frame; a second one would "
            "double the largest part of the bill after messages, and needs a role that holds for the whole account."
        },
    )
    return stage


def http_stage(scope: Construct, options: Options) -> apigateway.HttpStage:
    """The drivers' and operators' API, without its routes."""
    api = apigateway.HttpApi(scope, "Http", create_default_stage=False)
    stage = apigateway.HttpStage(
        scope,
        "HttpStage",
        http_api=api,
        stage_name="$default",
        auto_deploy=True,
        throttle=apigateway.ThrottleSettings(rate_limit=options.request_rate, burst_limit=options.request_burst),
    )
    logs = log_group(scope, "HttpLogs", options)
    # Set on the resource below the CDK's class, because Python cannot pass the object that the class expects.
    resource = cast("apigateway.CfnStage", stage.node.default_child)
    resource.access_log_settings = apigateway.CfnStage.AccessLogSettingsProperty(
        destination_arn=Stack.of(scope).format_arn(
            service="logs",
            resource="log-group",
            resource_name=logs.log_group_name,
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        ),
        format=ACCESS_LOG,
    )
    return stage


def add_websocket_routes(api: apigateway.WebSocketApi, functions: Mapping[str, lambda_.Function]) -> None:
    """Add every row of routes.WEBSOCKET. Only $default has a route response."""
    for key, name in routes.WEBSOCKET.items():
        api.add_route(
            key,
            # Each route has its own integration object: a shared one has left routes without permission to invoke.
            integration=integrations.WebSocketLambdaIntegration(f"Route{key}", functions[name]),
            return_response=True if key == "$default" else None,
        )
    accept(
        api,
        {
            "AwsSolutions-APIG4": "$connect authenticates by itself, because an authorizer could not answer 404 to an "
            "unknown station; messages come only over a connection that was let in."
        },
    )


def add_http_routes(
    stage: apigateway.HttpStage,
    options: Options,
    functions: Mapping[str, lambda_.Function],
    operators_only: authorizers.HttpUserPoolAuthorizer,
) -> None:
    """Add every row of routes.HTTP. An operator's route requires an operator's token. The operators' routes and the
    webhook have throttles of their own, so that a flood at the drivers' routes takes nothing from them."""
    api = cast("apigateway.HttpApi", stage.api)
    resource = cast("apigateway.CfnStage", stage.node.default_child)
    throttle = {"ThrottlingRateLimit": options.request_rate, "ThrottlingBurstLimit": options.request_burst}
    throttles = {}
    for name in dict.fromkeys(route.function for route in routes.HTTP):
        integration = integrations.HttpLambdaIntegration(name, functions[name])
        for route in (row for row in routes.HTTP if row.function == name):
            (made,) = api.add_routes(
                path=route.path,
                methods=[apigateway.HttpMethod[route.method]],
                integration=integration,
                authorizer=operators_only if route.operator else None,
            )
            if route.operator or route.path == routes.WEBHOOK:
                throttles[f"{route.method} {route.path}"] = throttle
                # API Gateway refuses settings of a route that it does not know yet.
                resource.add_dependency(cast("apigateway.CfnRoute", made.node.default_child))
            if not route.operator:
                accept(
                    made,
                    {
                        "AwsSolutions-APIG4": "Drivers have no account. What they may do hangs on an unguessable "
                        "reservation id, and a webhook on its signature."
                    },
                )
    resource.route_settings = throttles
