"""Each function may do what it does, and nothing else: the table of permissions against what the functions need while
they do all that they do, and against the policies of the synthesized stack.

That nothing is missing holds wherever the laptop runs, in every system test: it refuses what the table does not allow.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import boto3
import pytest
from moto.iam.aws_managed_policies import aws_managed_policies_data

from bench.messages import run_aws_stub
from csms.adapters.dynamodb import Store, table_definition
from csms.config import secret_reference
from infra import routes
from infra.payment_secrets import PAYMENT_SECRETS
from infra.permissions import PERMISSIONS, POLLING, Permissions
from local import database, functions
from tests.infra.installation import ENVIRONMENT, TABLE, Installation, exercise_installation, stand_in, vault

Json = dict[str, Any]
Permission = tuple[str, str, str]  # function, resource, action

# Permissions that no code of ours uses: Lambda itself writes logs and traces, and files events that failed.
OF_LAMBDA_ITSELF = re.compile(r"(logs|xray):|sqs:SendMessage queue/dead-letters")


@pytest.fixture(scope="module")
def exercised_installation() -> Iterator[tuple[Installation, set[Permission]]]:
    """The installation after all that, and what each function needed for it; nothing was refused."""
    used: set[Permission] = set()

    def note(function: str, permission: functions.Permission) -> bool:
        used.add((function, *permission))
        return True

    provider = stand_in()
    with ExitStack() as parts:
        engine = parts.enter_context(database.start())
        aws = parts.enter_context(run_aws_stub())
        payments = parts.enter_context(provider.run_in_thread())
        client = database.client(engine.endpoint)
        database.create_table(client, table_definition(TABLE))
        environment = ENVIRONMENT | {
            **engine.environment(),
            "WEBSOCKET_API_URL": f"{aws}/ocpp",
            "AWS_ENDPOINT_URL_LAMBDA": aws,
            "AWS_ENDPOINT_URL_SESV2": aws,
            "AWS_ENDPOINT_URL_SQS": aws,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": parts.enter_context(vault()),
            **{
                setting: secret_reference(f"csms/{row.provider}", field)
                for row in PAYMENT_SECRETS
                for setting, field in row.fields.items()
            },
            "RECEIPT_SENDER": "receipts@example.com",
            "STRIPE_API_BASE": payments,
        }
        handlers = parts.enter_context(functions.load_functions(environment, note))
        installation = Installation(find_handler=handlers.__getitem__, store=Store(client, TABLE), stand_in=provider)
        exercise_installation(installation)
        yield installation, used


def allowed_permissions(table: Mapping[str, Permissions] = PERMISSIONS) -> set[Permission]:
    return {
        (function, resource, action)
        for function, permissions in table.items()
        for resource, actions in permissions.items()
        for action in actions
    }


def listing(permissions: set[Permission]) -> str:
    """A line for each, which says what to add to infra/permissions.py or to take from it."""
    return "\n".join(f"{function}: {resource}: {action}" for function, resource, action in sorted(permissions))


def granted_permissions(synthesized: Any) -> set[Permission]:
    """What the template's policies allow each function, in the words of the table."""
    roles = {row["Role"]["Fn::GetAtt"][0]: name for name, row in synthesized.functions().items()}
    found = set()
    for policy in synthesized.resources("AWS::IAM::Policy").values():
        for function in (roles[role["Ref"]] for role in policy["Roles"] if role["Ref"] in roles):
            for statement in policy["PolicyDocument"]["Statement"]:
                found |= {
                    (function, resource, action)
                    for action in as_list(statement["Action"])
                    for resource in (resource_name(synthesized, it) for it in as_list(statement["Resource"]))
                    if not OF_LAMBDA_ITSELF.match(f"{action} {resource}")
                }
    return found


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def resource_name(synthesized: Any, arn: Any) -> str:
    """The name that the table of permissions has for a resource of the template; the ARN itself if it has none."""
    parts = arn.get("Fn::Join", ["", [arn]])[1] if isinstance(arn, dict) else [arn]
    text = "".join(it if isinstance(it, str) else json.dumps(it) for it in parts)
    (table,) = synthesized.resources("AWS::DynamoDB::Table")
    apis = synthesized.resources("AWS::ApiGatewayV2::Api")
    (sockets,) = (key for key, row in apis.items() if row["ProtocolType"] == "WEBSOCKET")
    stage = r'(?:ocpp|{"Ref": "\w+"})'
    places = {
        rf'{{"Fn::GetAtt": \["{table}", "Arn"\]}}(/index/\w+)?': r"table\1",
        **{rf'{{"Ref": "{row.title}Secret\w+"}}': row.resource for row in PAYMENT_SECRETS},
        r"arn:.*:ses:.*:identity/\*": "mail",
        rf'arn:.*:execute-api:.*:{{"Ref": "{sockets}"}}/{stage}/(\w+)/@connections/\*': r"sockets/\1",
    }
    for key in synthesized.resources("AWS::SQS::Queue"):
        name = {"DeadLetters": "dead-letters", "Timers": "timers"}[key[:-8]]
        places[rf'{{"Fn::GetAtt": \["{key}", "Arn"\]}}'] = f"queue/{name}"
    for name, key in synthesized.function_ids.items():
        places[rf'{{"Fn::GetAtt": \["{key}", "Arn"\]}}'] = f"function/{name}"
    for pattern, name in places.items():
        if match := re.fullmatch(pattern, text):
            return match.expand(name)
    return text


def test_every_http_route_is_exercised(exercised_installation):
    installation, _ = exercised_installation

    assert {f"{row.method} {row.path}" for row in routes.HTTP} == installation.routes_taken


def test_no_function_has_unused_permissions(exercised_installation):
    _, used = exercised_installation

    assert "" == listing(allowed_permissions() - used)


def test_no_function_exceeds_its_permissions(exercised_installation):
    _, used = exercised_installation

    assert "" == listing(used - allowed_permissions())


def test_stack_policies_equal_the_permission_table(everything):
    stack, allowed = granted_permissions(everything), allowed_permissions() | allowed_permissions(POLLING)

    assert "" == listing(allowed - stack)
    assert "" == listing(stack - allowed)


def test_no_mail_permission_without_receipt_sender(synthesized):
    allowed = allowed_permissions() | allowed_permissions(POLLING)

    assert {it for it in allowed if it[1] != "mail"} == granted_permissions(synthesized)


def test_polled_queues_have_an_event_source(synthesized):
    functions_by_id = {key: name for name, key in synthesized.function_ids.items()}
    found = {
        (functions_by_id[row["FunctionName"]["Ref"]], resource_name(synthesized, row["EventSourceArn"]))
        for row in synthesized.resources("AWS::Lambda::EventSourceMapping").values()
    }

    assert {(function, resource) for function, resources in POLLING.items() for resource in resources} == found


def test_polling_permissions_match_managed_policy():
    """No code of ours uses them, and the emulator's poller asks for none: the word of AWS is the only proof."""
    (statement,) = json.loads(aws_managed_policies_data)["AWSLambdaSQSQueueExecutionRole"]["Document"]["Statement"]
    of_aws = {action for action in statement["Action"] if action.startswith("sqs:")}

    assert [of_aws] == [set(actions) for resources in POLLING.values() for actions in resources.values()]


def test_laptop_refuses_and_logs_missing_permission(monkeypatch, caplog):
    monkeypatch.setattr(
        functions, "PERMISSIONS", {**PERMISSIONS, "ws_connect": {"table": ("dynamodb:Query", "dynamodb:GetItem")}}
    )
    with database.start() as engine:
        client = database.client(engine.endpoint)
        database.create_table(client, table_definition(TABLE))
        with functions.load_functions(ENVIRONMENT | engine.environment()) as handlers:
            it = Installation(find_handler=handlers.__getitem__, store=Store(client, TABLE), stand_in=stand_in())
            it.connect("one=", status=503)

    assert "ws_connect is not authorized to perform dynamodb:PutItem on table" in caplog.text


@pytest.mark.parametrize(
    ("service", "operation", "params", "expected"),
    [
        ("dynamodb", "GetItem", {}, {("table", "dynamodb:GetItem")}),
        ("dynamodb", "Query", {"IndexName": "due"}, {("table/index/due", "dynamodb:Query")}),
        (
            "dynamodb",
            "TransactWriteItems",
            {"TransactItems": [{"Put": {}}, {"ConditionCheck": {}}, {"Put": {}}]},
            {("table", "dynamodb:PutItem"), ("table", "dynamodb:ConditionCheckItem")},
        ),
        ("apigatewaymanagementapi", "GetConnection", {}, {("sockets/GET", "execute-api:ManageConnections")}),
        ("lambda", "Invoke", {"FunctionName": "maintenance"}, {("function/maintenance", "lambda:InvokeFunction")}),
        (
            "secretsmanager",
            "GetSecretValue",
            {"SecretId": "csms/stripe"},
            {("secret/stripe", "secretsmanager:GetSecretValue")},
        ),
        ("sesv2", "SendEmail", {}, {("mail", "ses:SendEmail")}),
        ("sqs", "SendMessage", {"QueueUrl": "https://sqs.example/1/timers"}, {("queue/timers", "sqs:SendMessage")}),
        ("sns", "Publish", {}, {("sns", "sns:Publish")}),
    ],
)
def test_aws_calls_map_to_iam_actions(service, operation, params, expected):
    client = boto3.client(service, region_name="eu-central-1", aws_access_key_id="none", aws_secret_access_key="none")

    assert expected == functions.needed_permissions(client.meta.service_model.operation_model(operation), params)
