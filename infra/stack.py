"""The whole product as one CloudFormation stack: table, functions, two APIs, the schedule, and the edge before them."""

from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final

from aws_cdk import CfnOutput, Duration, RemovalPolicy, SecretValue, Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_deployment as deployment
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from csms.store import table_definition
from infra import routes
from infra.pages import pages_function

ROOT: Final = Path(__file__).parents[1]
NOT_IN_ASSETS: Final = ["**/__pycache__"]

# The path a station dials, and the name of the stage behind it: infra/edge/ocpp_path.js relies on both being "ocpp".
STAGE: Final = "ocpp"
ORIGIN_HEADER: Final = "x-origin-verify"

# Made by hand before the first deployment, with the fields api_key and webhook_secret (docs/deploying.md).
STRIPE_SECRET: Final = "csms/stripe"  # noqa: S105 - the name of the secret

# What csms.store calls; the parts of a TransactWriteItems are permitted by their own names.
TABLE_ACTIONS: Final = tuple(
    f"dynamodb:{action}"
    for action in ("GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")
)


PAYING: Final = ("PUBLIC_URL", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET")

# Who issues receipts; each is chosen as CDK context: `-c csms:OPERATOR_NAME=...`.
ISSUING: Final = ("OPERATOR_NAME", "OPERATOR_ADDRESS", "OPERATOR_VAT_NUMBER", "OPERATOR_CONTACT")


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """One folder of functions/: its time-out in seconds, and its settings, from which its permissions follow."""

    name: str
    timeout: int
    environment: tuple[str, ...]


# maintenance comes first because the others carry its name.
FUNCTIONS: Final = (
    FunctionRow("maintenance", 60, ("TABLE_NAME", "WEBSOCKET_API_URL", *PAYING, *ISSUING, "RECEIPT_SENDER")),
    FunctionRow("operations", 29, ("TABLE_NAME", "WEBSOCKET_API_URL", "MAINTENANCE_FUNCTION")),
    FunctionRow("payments", 29, ("TABLE_NAME", "WEBSOCKET_API_URL", *PAYING, *ISSUING)),
    FunctionRow("ws_connect", 10, ("TABLE_NAME", "WEBSOCKET_API_URL", "ORIGIN_SECRET")),
    FunctionRow("ws_message", 10, ("TABLE_NAME", "WEBSOCKET_API_URL", "MAINTENANCE_FUNCTION")),
)


class Csms(Stack):
    """Everything in one Region; vendor_layer is the folder with the functions' packages (infra.vendor)."""

    def __init__(self, scope: Construct, construct_id: str, *, vendor_layer: Path, **options: Any) -> None:
        super().__init__(scope, construct_id, **options)
        self.table = self._table()
        self.websocket = apigateway.WebSocketApi(self, "WebSocket", route_selection_expression="$request.body.[2]")
        self.stage = apigateway.WebSocketStage(
            self, "Stage", web_socket_api=self.websocket, stage_name=STAGE, auto_deploy=True
        )
        self.http = apigateway.HttpApi(self, "Http")
        operators = self._operators()
        console = self._console(operators)
        origin_secret = self._origin_secret()
        ocpp = self._ocpp_distribution(origin_secret)
        web = self._web_distribution()
        public_url = f"https://{web.distribution_domain_name}"
        values = {
            "TABLE_NAME": self.table.table_name,
            "WEBSOCKET_API_URL": self.stage.callback_url,
            "PUBLIC_URL": public_url,
            "ORIGIN_SECRET": origin_secret,
            "STRIPE_API_KEY": _stripe("api_key"),
            "STRIPE_WEBHOOK_SECRET": _stripe("webhook_secret"),
            **{name: self.node.try_get_context(f"csms:{name}") or "" for name in (*ISSUING, "RECEIPT_SENDER")},
        }
        self.functions = self._functions(values, vendor_layer)
        self._routes(authorizers.HttpUserPoolAuthorizer("OperatorsOnly", operators, user_pool_clients=[console]))
        self._schedules()
        CfnOutput(self, "OcppUrl", value=f"wss://{ocpp.distribution_domain_name}/{STAGE}/")
        CfnOutput(self, "PublicUrl", value=public_url)
        CfnOutput(self, "WebhookUrl", value=f"{public_url}/payments/webhook")
        CfnOutput(self, "TableName", value=self.table.table_name)
        CfnOutput(self, "OperatorPoolId", value=operators.user_pool_id)
        CfnOutput(self, "OperatorClientId", value=console.user_pool_client_id)

    def _table(self) -> dynamodb.Table:
        """The one table; keys and indexes are the store's own definition."""
        definition = table_definition("csms")
        types = {row["AttributeName"]: row["AttributeType"] for row in definition["AttributeDefinitions"]}
        table = dynamodb.Table(
            self,
            "Table",
            **_keys(definition["KeySchema"], types),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            time_to_live_attribute="ttl",
            deletion_protection=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
        for index in definition["GlobalSecondaryIndexes"]:
            projection = index["Projection"]
            table.add_global_secondary_index(
                index_name=index["IndexName"],
                **_keys(index["KeySchema"], types),
                projection_type=dynamodb.ProjectionType[projection["ProjectionType"]],
                non_key_attributes=projection.get("NonKeyAttributes"),
            )
        return table

    def _operators(self) -> cognito.UserPool:
        """The people who may operate: invited by name, nobody signs up by themselves."""
        return cognito.UserPool(
            self,
            "Operators",
            self_sign_up_enabled=False,
            sign_in_aliases=cognito.SignInAliases(email=True),
            sign_in_case_sensitive=False,
            account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
            mfa=cognito.Mfa.OPTIONAL,
            mfa_second_factor=cognito.MfaSecondFactor(otp=True, sms=False),
            password_policy=cognito.PasswordPolicy(min_length=14),
            deletion_protection=True,
            removal_policy=RemovalPolicy.RETAIN,
        )

    def _console(self, operators: cognito.UserPool) -> cognito.UserPoolClient:
        """What operators sign in with: a browser or a script, so it has no secret."""
        return operators.add_client(
            "Console",
            auth_flows=cognito.AuthFlow(user_srp=True, admin_user_password=True),
            disable_o_auth=True,
            prevent_user_existence_errors=True,
            access_token_validity=Duration.hours(1),
            id_token_validity=Duration.hours(1),
            refresh_token_validity=Duration.days(1),
        )

    def _origin_secret(self) -> str:
        """A reference to the generated value that proves a connection came through the edge."""
        secret = secretsmanager.Secret(
            self,
            "OriginSecret",
            description="Sent by CloudFront to the WebSocket API; $connect refuses those who do not know it.",
            generate_secret_string=secretsmanager.SecretStringGenerator(password_length=48, exclude_punctuation=True),
        )
        return secret.secret_value.unsafe_unwrap()

    def _ocpp_distribution(self, origin_secret: str) -> cloudfront.Distribution:
        """The stations' door: only it knows the origin secret, and its function turns the path into cp."""
        function = cloudfront.Function(
            self,
            "OcppPath",
            runtime=cloudfront.FunctionRuntime.JS_2_0,
            code=cloudfront.FunctionCode.from_file(file_path=str(ROOT / "infra/edge/ocpp_path.js")),
        )
        return cloudfront.Distribution(
            self,
            "Ocpp",
            comment="OCPP stations",
            http_version=cloudfront.HttpVersion.HTTP1_1,
            default_behavior=cloudfront.BehaviorOptions(
                origin=self._api_origin(self.websocket.api_id, {ORIGIN_HEADER: origin_secret}),
                function_associations=[_on_viewer_request(function)],
                allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD,
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
                **_uncached(),
            ),
        )

    def _web_distribution(self) -> cloudfront.Distribution:
        """The drivers' door: pages from a bucket, /payments/* from the HTTP API, one origin for the browser."""
        bucket = s3.Bucket(
            self,
            "Web",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            encryption=s3.BucketEncryption.S3_MANAGED,
        )
        function = cloudfront.Function(
            self,
            "PagePath",
            runtime=cloudfront.FunctionRuntime.JS_2_0,
            code=cloudfront.FunctionCode.from_inline(pages_function(routes.PAGES)),
        )
        distribution = cloudfront.Distribution(
            self,
            "Pages",
            comment="Driver pages and the HTTP API",
            default_behavior=cloudfront.BehaviorOptions(
                origin=origins.S3BucketOrigin.with_origin_access_control(bucket),
                function_associations=[_on_viewer_request(function)],
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                response_headers_policy=cloudfront.ResponseHeadersPolicy.SECURITY_HEADERS,
            ),
            additional_behaviors={
                path: cloudfront.BehaviorOptions(
                    origin=self._api_origin(self.http.api_id, {}),
                    allowed_methods=cloudfront.AllowedMethods.ALLOW_ALL,
                    viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
                    response_headers_policy=cloudfront.ResponseHeadersPolicy.SECURITY_HEADERS,
                    **_uncached(),
                )
                for path in dict.fromkeys(f"/{route.path.split('/')[1]}/*" for route in routes.HTTP)
            },
        )
        deployment.BucketDeployment(
            self,
            "WebFiles",
            sources=[deployment.Source.asset(str(ROOT / "web"))],
            destination_bucket=bucket,
            destination_key_prefix="assets",
            distribution=distribution,
            distribution_paths=["/*"],
        )
        return distribution

    def _api_origin(self, api_id: str, headers: dict[str, str]) -> origins.HttpOrigin:
        return origins.HttpOrigin(
            f"{api_id}.execute-api.{self.region}.{self.url_suffix}",
            protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
            custom_headers=headers,
        )

    def _functions(self, values: dict[str, str], vendor_layer: Path) -> dict[str, lambda_.Function]:
        layers = [self._layer("Core", ROOT / "layers/core"), self._layer("Vendor", vendor_layer)]
        first, *others = FUNCTIONS
        maintenance = self._function(first, values, layers)
        values = {**values, "MAINTENANCE_FUNCTION": maintenance.function_name}
        functions = {row.name: self._function(row, values, layers) for row in others}
        for row in others:
            if "MAINTENANCE_FUNCTION" in row.environment:
                maintenance.grant_invoke(functions[row.name])
        return {first.name: maintenance, **functions}

    def _layer(self, name: str, folder: Path) -> lambda_.LayerVersion:
        return lambda_.LayerVersion(
            self,
            f"{name}Layer",
            code=lambda_.Code.from_asset(str(folder), exclude=NOT_IN_ASSETS),
            compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
            compatible_architectures=[lambda_.Architecture.ARM_64],
        )

    def _function(
        self, row: FunctionRow, values: dict[str, str], layers: list[lambda_.LayerVersion]
    ) -> lambda_.Function:
        name = row.name.title().replace("_", "")
        function = lambda_.Function(
            self,
            name,
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="app.lambda_handler",
            code=lambda_.Code.from_asset(str(ROOT / "functions" / row.name), exclude=NOT_IN_ASSETS),
            layers=layers,
            environment={key: values[key] for key in row.environment},
            memory_size=512,
            timeout=Duration.seconds(row.timeout),
            logging_format=lambda_.LoggingFormat.JSON,
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
            log_group=logs.LogGroup(
                self, f"{name}Logs", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
            ),
        )
        self.table.grant(function, *TABLE_ACTIONS)
        if "WEBSOCKET_API_URL" in row.environment:
            self.stage.grant_management_api_access(function)
        if "RECEIPT_SENDER" in row.environment and values["RECEIPT_SENDER"]:
            function.add_to_role_policy(self._may_mail_from(values["RECEIPT_SENDER"]))
        return function

    def _may_mail_from(self, sender: str) -> iam.PolicyStatement:
        """Any verified identity of the account may send or be sent to, but only from the address of the receipts."""
        return iam.PolicyStatement(
            actions=["ses:SendEmail"],
            resources=[self.format_arn(service="ses", resource="identity", resource_name="*")],
            conditions={"StringEquals": {"ses:FromAddress": parseaddr(sender)[1]}},
        )

    def _routes(self, operators_only: authorizers.HttpUserPoolAuthorizer) -> None:
        for key, name in routes.WEBSOCKET.items():
            self.websocket.add_route(
                key,
                # One integration object for each route: a shared one has left routes without permission to invoke.
                integration=integrations.WebSocketLambdaIntegration(f"Route{key}", self.functions[name]),
                return_response=True if key == "$default" else None,
            )
        for name in dict.fromkeys(route.function for route in routes.HTTP):
            integration = integrations.HttpLambdaIntegration(name, self.functions[name])
            for route in (row for row in routes.HTTP if row.function == name):
                self.http.add_routes(
                    path=route.path,
                    methods=[apigateway.HttpMethod[route.method]],
                    integration=integration,
                    authorizer=operators_only if route.operator else None,
                )

    def _schedules(self) -> None:
        for row in routes.SCHEDULES:
            scheduler.Schedule(
                self,
                f"Run{row.function.title()}",
                schedule=scheduler.ScheduleExpression.expression(row.rate),
                # The next run is the retry.
                target=targets.LambdaInvoke(self.functions[row.function], retry_attempts=0),
            )


def _keys(schema: list[dict[str, str]], types: dict[str, str]) -> dict[str, Any]:
    """The key arguments of a table or an index, from a KeySchema of create_table."""
    arguments = {"HASH": "partition_key", "RANGE": "sort_key"}
    attribute_types = {"S": dynamodb.AttributeType.STRING, "N": dynamodb.AttributeType.NUMBER}
    return {
        arguments[row["KeyType"]]: dynamodb.Attribute(
            name=row["AttributeName"], type=attribute_types[types[row["AttributeName"]]]
        )
        for row in schema
    }


def _stripe(field: str) -> str:
    return SecretValue.secrets_manager(STRIPE_SECRET, json_field=field).unsafe_unwrap()


def _on_viewer_request(function: cloudfront.Function) -> cloudfront.FunctionAssociation:
    return cloudfront.FunctionAssociation(function=function, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST)


def _uncached() -> dict[str, Any]:
    """What an API behind CloudFront needs: nothing cached, all forwarded but Host, which must be its own."""
    return {
        "cache_policy": cloudfront.CachePolicy.CACHING_DISABLED,
        "origin_request_policy": cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
    }
