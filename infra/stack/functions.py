"""The functions: what each is given, and what it therefore may do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path
from typing import Final, cast

from aws_cdk import Duration, Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.options import Options
from infra.stack.accepted import accept, wildcard
from infra.stack.logs import log_group
from infra.stack.table import table_arns

ROOT: Final = Path(__file__).parents[2]
NOT_IN_ASSETS: Final = ["**/__pycache__"]

# What csms.store calls; the parts of a TransactWriteItems are permitted by their own names.
TABLE_ACTIONS: Final = tuple(
    f"dynamodb:{action}"
    for action in ("GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")
)

PAYING: Final = ("PUBLIC_URL", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET")

# Who issues receipts, and who sends them; all chosen by the operator.
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

# Lambda tries an event that nobody waits for twice more, and gives up after this long. By then the sweep has
# done the same work, so the event is only kept to be looked at.
GIVE_UP_SECONDS: Final = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What functions are connected to; values holds each setting by its name in the environment."""

    options: Options
    table: dynamodb.Table
    stage: apigateway.WebSocketStage
    stripe: secretsmanager.Secret
    dead_letters: sqs.Queue
    vendor_layer: Path
    values: Mapping[str, str]


def functions(scope: Construct, around: Surroundings) -> dict[str, lambda_.Function]:
    """The function of each row, by name."""
    layers = [_layer(scope, "Core", ROOT / "layers/core"), _layer(scope, "Vendor", around.vendor_layer)]
    first, *others = FUNCTIONS
    maintenance = _function(scope, first, around, around.values, layers)
    values = {**around.values, "MAINTENANCE_FUNCTION": maintenance.function_name}
    made = {row.name: _function(scope, row, around, values, layers) for row in others}
    for row in others:
        if "MAINTENANCE_FUNCTION" in row.environment:
            _allow(made[row.name], ["lambda:InvokeFunction"], [maintenance.function_arn])
    return {first.name: maintenance, **made}


def _layer(scope: Construct, name: str, folder: Path) -> lambda_.LayerVersion:
    return lambda_.LayerVersion(
        scope,
        f"{name}Layer",
        code=lambda_.Code.from_asset(str(folder), exclude=NOT_IN_ASSETS),
        compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
        compatible_architectures=[lambda_.Architecture.ARM_64],
    )


def _function(
    scope: Construct,
    row: FunctionRow,
    around: Surroundings,
    values: Mapping[str, str],
    layers: list[lambda_.LayerVersion],
) -> lambda_.Function:
    name = row.name.title().replace("_", "")
    options = around.options
    logs = log_group(scope, f"{name}Logs", options)
    # A role of our own, because the managed policy that the CDK would attach may write every log of the account.
    role = iam.Role(scope, f"{name}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    logs.grant_write(role)
    function = lambda_.Function(
        scope,
        name,
        runtime=lambda_.Runtime.PYTHON_3_13,
        architecture=lambda_.Architecture.ARM_64,
        handler="app.lambda_handler",
        code=lambda_.Code.from_asset(str(ROOT / "functions" / row.name), exclude=NOT_IN_ASSETS),
        layers=layers,
        environment={key: values[key] for key in row.environment} | dict(options.settings),
        role=role,
        memory_size=512,
        timeout=Duration.seconds(row.timeout),
        reserved_concurrent_executions=(options.message_concurrency or None) if row.name == "ws_message" else None,
        tracing=lambda_.Tracing.ACTIVE if options.tracing else None,
        logging_format=lambda_.LoggingFormat.JSON,
        system_log_level_v2=lambda_.SystemLogLevel.WARN,
        log_group=logs,
    )
    _allow(function, TABLE_ACTIONS, table_arns(around.table))
    if "WEBSOCKET_API_URL" in row.environment:
        connections = around.stage.api.arn_for_execute_api_v2("*/@connections/*", around.stage.stage_name)
        _allow(function, ["execute-api:ManageConnections"], [connections])
        accept(role, {wildcard(role, connections): "API Gateway makes up connections' ids."})
    if options.tracing:
        accept(role, {wildcard(role, "*"): "X-Ray knows no resources to name."})
    if "STRIPE_API_KEY" in row.environment:
        _allow(function, ["secretsmanager:GetSecretValue"], [around.stripe.secret_arn])
    if "RECEIPT_SENDER" in row.environment and values["RECEIPT_SENDER"]:
        _may_mail_from(values["RECEIPT_SENDER"], function)
    if row.name == "maintenance" or (row.name == "payments" and options.stripe_event_source):
        _give_up(function, around.dead_letters)
    accept(function, {"AwsSolutions-L1": "The runtime is the Python that the layers' packages are for."})
    return function


def _allow(function: lambda_.Function, actions: Sequence[str], resources: list[str]) -> None:
    function.add_to_role_policy(iam.PolicyStatement(actions=list(actions), resources=resources))


def _may_mail_from(sender: str, function: lambda_.Function) -> None:
    """Any verified identity of the account may send or be sent to, but only from the address of the receipts."""
    identities = Stack.of(function).format_arn(service="ses", resource="identity", resource_name="*")
    function.add_to_role_policy(
        iam.PolicyStatement(
            actions=["ses:SendEmail"],
            resources=[identities],
            conditions={"StringEquals": {"ses:FromAddress": parseaddr(sender)[1]}},
        )
    )
    reason = "SES asks for the identities of sender and recipient, whichever they are; the sender is fixed."
    accept(cast("iam.Role", function.role), {wildcard(function, identities): reason})


def _give_up(function: lambda_.Function, letters: sqs.Queue) -> None:
    """After two more tries an event becomes a dead letter. (The CDK's own way to say so also lets the function ask for
    the queue's attributes.)"""
    lambda_.CfnEventInvokeConfig(
        function,
        "GiveUp",
        function_name=function.function_name,
        qualifier="$LATEST",
        maximum_event_age_in_seconds=GIVE_UP_SECONDS,
        maximum_retry_attempts=2,
        destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
            on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=letters.queue_arn)
        ),
    )
    _allow(function, ["sqs:SendMessage"], [letters.queue_arn])
