"""The functions: their settings, resources and permissions (infra.permissions)."""

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

from infra import payment_secrets, routes
from infra.layers import LAYERS_BY_FUNCTION, Layers
from infra.options import Options
from infra.permissions import PERMISSIONS, POLLING
from infra.stack.acknowledged_findings import accept, wildcard
from infra.stack.logs import log_group
from infra.stack.table import index_names

ROOT: Final = Path(__file__).parents[2]
NOT_IN_ASSETS: Final = ["**/__pycache__"]

PAYMENT_SETTINGS: Final = ("PUBLIC_URL", *payment_secrets.SETTINGS)

# The issuer and the sender of receipts, which the operator chooses.
ISSUER_SETTINGS: Final = ("OPERATOR_NAME", "OPERATOR_ADDRESS", "OPERATOR_VAT_NUMBER", "OPERATOR_CONTACT")

ORIGIN_SETTINGS: Final = ("ORIGIN_SECRET", "NEXT_ORIGIN_SECRET")

# Memory determines CPU: with twice as much, a cold start takes half as long, which matters only where people wait.
INTERACTIVE_MEMORY_MB: Final = 1024


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """One folder of functions/: its timeout in seconds, its settings, and its memory in MB."""

    name: str
    timeout: int
    environment: tuple[str, ...]
    memory: int = 512


# maintenance is first because the others need its name.
FUNCTIONS: Final = (
    FunctionRow(
        "maintenance",
        60,
        ("TABLE_NAME", "WEBSOCKET_API_URL", "TIMER_QUEUE_URL", *PAYMENT_SETTINGS, *ISSUER_SETTINGS, "RECEIPT_SENDER"),
    ),
    FunctionRow(
        "operations",
        29,
        ("TABLE_NAME", "WEBSOCKET_API_URL", "MAINTENANCE_FUNCTION", "TIMER_QUEUE_URL", *ORIGIN_SETTINGS),
        INTERACTIVE_MEMORY_MB,
    ),
    FunctionRow(
        "payments",
        29,
        ("TABLE_NAME", "WEBSOCKET_API_URL", "TIMER_QUEUE_URL", *ORIGIN_SETTINGS, *PAYMENT_SETTINGS, *ISSUER_SETTINGS),
        INTERACTIVE_MEMORY_MB,
    ),
    FunctionRow("ws_connect", 10, ("TABLE_NAME", "WEBSOCKET_API_URL", *ORIGIN_SETTINGS)),
    FunctionRow("ws_message", 10, ("TABLE_NAME", "WEBSOCKET_API_URL", "MAINTENANCE_FUNCTION", "TIMER_QUEUE_URL")),
)

# Lambda retries an asynchronous event twice, and gives up after this time. The sweep has done the same work by then, so
# the event is kept only for inspection.
GIVE_UP_SECONDS: Final = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionDependencies:
    """What functions are connected to. `values` holds each setting by its name in the environment, `secrets` each
    payment provider's secret by its name in infra.permissions."""

    options: Options
    table: dynamodb.Table
    stage: apigateway.WebSocketStage
    secrets: Mapping[str, secretsmanager.Secret]
    dead_letters: sqs.Queue
    timers: sqs.Queue
    layers: Layers
    values: Mapping[str, str]


def functions(scope: Construct, dependencies: FunctionDependencies) -> dict[str, lambda_.Function]:
    """The functions of all rows, by name."""
    first, *others = FUNCTIONS
    runtime = lambda_.Runtime(f"python{dependencies.layers.python}", lambda_.RuntimeFamily.PYTHON)
    layers = {name: _layer(scope, name, folder, runtime) for name, folder in dependencies.layers.folders.items()}
    maintenance = _function(scope, first, dependencies, dependencies.values, layers, runtime)
    values = {**dependencies.values, "MAINTENANCE_FUNCTION": maintenance.function_name}
    made = {first.name: maintenance} | {
        row.name: _function(scope, row, dependencies, values, layers, runtime) for row in others
    }
    arns = _arns(dependencies, made)
    for name, function in made.items():
        _permit(name, function, arns, sender=values["RECEIPT_SENDER"])
    return made


def _layer(scope: Construct, name: str, folder: Path, runtime: lambda_.Runtime) -> lambda_.LayerVersion:
    return lambda_.LayerVersion(
        scope,
        f"{name.title()}Layer",
        code=lambda_.Code.from_asset(str(folder)),
        compatible_runtimes=[runtime],
        compatible_architectures=[lambda_.Architecture.ARM_64],
    )


def _function(
    scope: Construct,
    row: FunctionRow,
    dependencies: FunctionDependencies,
    values: Mapping[str, str],
    layers: Mapping[str, lambda_.LayerVersion],
    runtime: lambda_.Runtime,
) -> lambda_.Function:
    name = row.name.title().replace("_", "")
    options = dependencies.options
    logs = log_group(scope, f"{name}Logs", options)
    # A role of our own, because the managed policy that the CDK would attach may write to every log group of the
    # account.
    role = iam.Role(scope, f"{name}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    logs.grant_write(role)
    function = lambda_.Function(
        scope,
        name,
        runtime=runtime,
        architecture=lambda_.Architecture.ARM_64,
        handler="app.lambda_handler",
        code=lambda_.Code.from_asset(str(ROOT / "functions" / row.name), exclude=NOT_IN_ASSETS),
        layers=[layers[layer] for layer in LAYERS_BY_FUNCTION[row.name]],
        environment={key: values[key] for key in row.environment} | dict(options.settings),
        role=role,
        memory_size=row.memory,
        timeout=Duration.seconds(row.timeout),
        reserved_concurrent_executions=(options.message_concurrency or None) if row.name == "ws_message" else None,
        # A timer may set the next one, once for each command that waits at a station that answers none. Lambda would
        # take the seventeenth for an endless loop, and drop it.
        recursive_loop=lambda_.RecursiveLoop.ALLOW if row.name == routes.TIMERS.function else None,
        tracing=lambda_.Tracing.ACTIVE if options.tracing else None,
        logging_format=lambda_.LoggingFormat.JSON,
        system_log_level_v2=lambda_.SystemLogLevel.WARN,
        log_group=logs,
    )
    if options.tracing:
        accept(role, {wildcard(role, "*"): "X-Ray knows no resources to name."})
    if row.name == "maintenance" or (row.name == "payments" and options.stripe_event_source):
        _add_dead_letter_queue(function, dependencies.dead_letters)
    accept(function, {"AwsSolutions-L1": "The runtime is the Python that the layers' packages are for."})
    return function


def _arns(dependencies: FunctionDependencies, functions: Mapping[str, lambda_.Function]) -> Mapping[str, str]:
    """The ARNs of the resources of infra.permissions that have a name of their own."""
    api, stage = dependencies.stage.api, dependencies.stage.stage_name
    table = dependencies.table.table_arn
    arns = {"table": table} | {name: secret.secret_arn for name, secret in dependencies.secrets.items()}
    arns |= {f"table/index/{name}": f"{table}/index/{name}" for name in index_names()}
    for method in ("GET", "POST", "DELETE"):
        arns[f"sockets/{method}"] = api.arn_for_execute_api_v2(f"{method}/@connections/*", stage)
    arns[f"queue/{routes.TIMERS.name}"] = dependencies.timers.queue_arn
    arns |= {f"function/{name}": function.function_arn for name, function in functions.items()}
    return arns


def _permit(name: str, function: lambda_.Function, arns: Mapping[str, str], *, sender: str) -> None:
    """Grant the function its permissions in infra.permissions; without a sender of receipts it gets none for mail."""
    for resource, actions in (*PERMISSIONS[name].items(), *POLLING.get(name, {}).items()):
        if resource == "mail":
            _allow_mail_from(sender, actions, function)
            continue
        _allow(function, actions, [arns[resource]])
        if resource.startswith("sockets/"):
            ids = {wildcard(function, arns[resource]): "API Gateway makes up connections' ids."}
            accept(function.role or function, ids)


def _allow(function: lambda_.Function, actions: Sequence[str], resources: list[str]) -> None:
    function.add_to_role_policy(iam.PolicyStatement(actions=list(actions), resources=resources))


def _allow_mail_from(sender: str, actions: Sequence[str], function: lambda_.Function) -> None:
    """Allow mail to any recipient, and from any verified identity of the account, but only with the sender address of
    the receipts."""
    if not sender:
        return
    identities = Stack.of(function).format_arn(service="ses", resource="identity", resource_name="*")
    function.add_to_role_policy(
        iam.PolicyStatement(
            actions=list(actions),
            resources=[identities],
            conditions={"StringEquals": {"ses:FromAddress": parseaddr(sender)[1]}},
        )
    )
    reason = "SES asks for the identities of sender and recipient, whichever they are; the sender is fixed."
    accept(cast("iam.Role", function.role), {wildcard(function, identities): reason})


def _add_dead_letter_queue(function: lambda_.Function, letters: sqs.Queue) -> None:
    """Send an event to the dead-letter queue after two retries. (The CDK's own method would also let the function read
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
