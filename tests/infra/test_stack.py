"""The synthesized stack holds what the code expects, and nothing that must not be in it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from csms.adapters.cloudfront import VIEWER_HEADER
from csms.adapters.dynamodb import table_definition
from csms.config import Settings
from infra import routes
from infra.layers import LAYERS_BY_FUNCTION

ROOT = Path(__file__).parents[2]
CORE = ROOT / "layers/core/python"
WIRING = (*sorted((CORE / "csms_wiring").glob("*.py")), CORE / "csms/payment_providers.py")
FUNCTIONS = ("maintenance", "operations", "payments", "ws_connect", "ws_message")

API_PATHS = ("/payments/*", "/operations/*")

# Only a laptop has a stand-in for Stripe.
NOT_ON_AWS = {"STRIPE_API_BASE"}


def api(synthesized, protocol):
    """The logical id of the one API that speaks protocol."""
    apis = synthesized.resources("AWS::ApiGatewayV2::Api")
    (key,) = (key for key, row in apis.items() if row["ProtocolType"] == protocol)
    return key


def read_routes(synthesized, protocol):
    """Route key -> (logical id of the integration, name of the function) for one API."""
    integrations = synthesized.resources("AWS::ApiGatewayV2::Integration")
    found = {}
    for row in synthesized.resources("AWS::ApiGatewayV2::Route").values():
        if row["ApiId"] == {"Ref": api(synthesized, protocol)}:
            integration = reference(row["Target"])
            found[row["RouteKey"]] = (
                integration,
                function_name(synthesized, integrations[integration]["IntegrationUri"]),
            )
    return found


def function_name(synthesized, value):
    """The name of the one function of ours that a value of the template refers to."""
    text = json.dumps(value)
    (name,) = (name for name, key in synthesized.function_ids.items() if f'"{key}"' in text)
    return name


def reference(value):
    """The logical id in the one Ref of a value of the template."""
    (key,) = re.findall(r'\{"Ref": "([^"]+)"\}', json.dumps(value))
    return key


def read_settings_names(name):
    """The environment names behind each `settings.<field>` in a function's source, and in what it is wired with; policy
    has defaults throughout."""
    nodes = [node for tree in reachable_sources(name) for node in ast.walk(tree)]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_settings(node.value)}
    return {field.alias for key, field in Settings.model_fields.items() if key in read} - NOT_ON_AWS


def reachable_sources(function):
    """A function's source, and each definition of the wiring and the providers' registry that is named in it, or in one
    of those."""
    known = {name: tree for path in WIRING for tree in ast.parse(path.read_text()).body for name in defined_names(tree)}
    reached, left = [], [ast.parse((ROOT / "functions" / function / "app.py").read_text())]
    while left:
        reached.append(left.pop())
        named = {node.id for node in ast.walk(reached[-1]) if isinstance(node, ast.Name)} & known.keys()
        left += [known.pop(it) for it in sorted(named)]
    return reached


def defined_names(statement):
    """The names that a module's statement gives a meaning."""
    match statement:
        case ast.FunctionDef(name=name):
            return [name]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def is_settings(node):
    return isinstance(node, ast.Name) and node.id == "settings"


def test_http_routes_match_the_route_table(synthesized):
    found = {key: function for key, (_, function) in read_routes(synthesized, "HTTP").items()}

    assert {f"{route.method} {route.path}": route.function for route in routes.HTTP} == found


def test_only_operator_routes_require_jwt(synthesized):
    found = {
        row["RouteKey"]: row.get("AuthorizationType")
        for row in synthesized.resources("AWS::ApiGatewayV2::Route").values()
        if row["ApiId"] == {"Ref": api(synthesized, "HTTP")}
    }
    authorizer = synthesized.only_resource("AWS::ApiGatewayV2::Authorizer")
    (pool,) = synthesized.resources("AWS::Cognito::UserPool")
    (client,) = synthesized.resources("AWS::Cognito::UserPoolClient")

    wanted = {f"{row.method} {row.path}": "JWT" if row.operator else "NONE" for row in routes.HTTP}
    assert wanted == {key: kind or "NONE" for key, kind in found.items()}
    assert {row.path.startswith("/operations/") for row in routes.HTTP if row.operator} == {True}
    assert not [row for row in routes.HTTP if row.path.startswith("/operations/") and not row.operator]
    assert ["$request.header.Authorization"] == authorizer["IdentitySource"]
    assert [{"Ref": client}] == authorizer["JwtConfiguration"]["Audience"]
    assert {"Ref": pool} in authorizer["JwtConfiguration"]["Issuer"]["Fn::Join"][1]


def test_operators_join_by_invitation_only(synthesized):
    pool = synthesized.only_resource("AWS::Cognito::UserPool")
    client = synthesized.only_resource("AWS::Cognito::UserPoolClient")

    assert pool["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"] is True
    assert "ACTIVE" == pool["DeletionProtection"]
    assert "ENABLED" == client["PreventUserExistenceErrors"]
    assert "implicit" not in client.get("AllowedOAuthFlows", [])


def test_edge_forwards_api_paths_without_caching(synthesized):
    behaviors = [
        behavior
        for row in synthesized.resources("AWS::CloudFront::Distribution").values()
        for behavior in row["DistributionConfig"].get("CacheBehaviors", [])
    ]
    disabled = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"

    assert {"/payments/*", "/operations/*"} == {behavior["PathPattern"] for behavior in behaviors}
    assert {disabled} == {behavior["CachePolicyId"] for behavior in behaviors}


def test_websocket_routes_match_the_route_table(synthesized):
    found = {key: function for key, (_, function) in read_routes(synthesized, "WEBSOCKET").items()}

    assert routes.WEBSOCKET == found


def test_websocket_routes_share_no_integration(synthesized):
    integrations = [integration for integration, _ in read_routes(synthesized, "WEBSOCKET").values()]

    assert len(routes.WEBSOCKET) == len(set(integrations))


def test_each_route_may_invoke_its_function(synthesized):
    permissions = synthesized.resources("AWS::Lambda::Permission").values()
    found = {
        (function_name(synthesized, row["FunctionName"]), row["SourceArn"]["Fn::Join"][1][-1]) for row in permissions
    }

    websocket = {(function, f"/*{key}") for key, function in routes.WEBSOCKET.items()}
    http = {(route.function, f"/*/*{route.path}") for route in routes.HTTP}
    assert websocket | http == found


def test_only_default_route_has_route_response(synthesized):
    by_key = {row["RouteKey"]: row for row in synthesized.resources("AWS::ApiGatewayV2::Route").values()}
    responses = synthesized.only_resource("AWS::ApiGatewayV2::RouteResponse")
    answering = [key for key, row in by_key.items() if "RouteResponseSelectionExpression" in row]

    assert ["$default"] == answering
    assert "$default" == responses["RouteResponseKey"]
    assert "$default" == synthesized.template["Resources"][responses["RouteId"]["Ref"]]["Properties"]["RouteKey"]


def test_websocket_stage_matches_edge_rewrite(synthesized):
    stages = synthesized.resources("AWS::ApiGatewayV2::Stage").values()
    (stage,) = (row for row in stages if row["ApiId"] == {"Ref": api(synthesized, "WEBSOCKET")})
    sources = [row["FunctionCode"] for row in synthesized.resources("AWS::CloudFront::Function").values()]

    assert any(f"request.uri = '/{stage['StageName']}';" in source for source in sources)
    assert stage["AutoDeploy"] is True


def test_schedules_match_the_schedule_table(synthesized):
    found = [
        (
            function_name(synthesized, row["Target"]["Arn"]),
            row["ScheduleExpression"],
            json.loads(row["Target"].get("Input", "{}")),
            row["Target"]["RetryPolicy"]["MaximumRetryAttempts"],
        )
        for row in synthesized.resources("AWS::Scheduler::Schedule").values()
    ]

    assert [(row.function, row.rate, row.input, row.retries) for row in routes.SCHEDULES] == found


def test_dead_letters_are_kept_two_weeks(synthesized):
    key, queue = synthesized.find_queue("DeadLetters")
    arn = {"Fn::GetAtt": [key, "Arn"]}
    schedules = synthesized.resources("AWS::Scheduler::Schedule").values()
    asynchronous = synthesized.only_resource("AWS::Lambda::EventInvokeConfig")

    assert 14 * 24 * 3600 == queue["MessageRetentionPeriod"]
    assert all(row["Target"]["DeadLetterConfig"] == {"Arn": arn} for row in schedules)
    assert {"Ref": synthesized.function_ids["maintenance"]} == asynchronous["FunctionName"]
    assert {"Destination": arn} == asynchronous["DestinationConfig"]["OnFailure"]


def test_both_apis_are_throttled(synthesized):
    stages = synthesized.resources("AWS::ApiGatewayV2::Stage").values()
    limits = {row["StageName"]: tuple(row["DefaultRouteSettings"].values()) for row in stages}

    assert {"ocpp": (2000, 1000), "$default": (200, 100)} == limits


def test_webhook_and_operators_have_own_throttles(synthesized):
    (stage,) = (
        row for row in synthesized.template["Resources"].values() if "RouteSettings" in row.get("Properties", {})
    )
    own = {f"{route.method} {route.path}" for route in routes.HTTP if route.operator or route.path == routes.WEBHOOK}
    keys = {
        row["RouteKey"]: key
        for key, row in synthesized.resources("AWS::ApiGatewayV2::Route").items()
        if "RouteKey" in row
    }

    limit = {"ThrottlingRateLimit": 100, "ThrottlingBurstLimit": 200}
    assert dict.fromkeys(own, limit) == stage["Properties"]["RouteSettings"]
    assert {keys[name] for name in own} <= set(stage["DependsOn"])


def test_access_logs_omit_caller_identity(synthesized):
    (stage,) = (row for row in synthesized.resources("AWS::ApiGatewayV2::Stage").values() if "AccessLogSettings" in row)
    told = json.loads(stage["AccessLogSettings"]["Format"]).values()

    assert "$default" == stage["StageName"]
    assert {"$context.status", "$context.routeKey"} <= set(told)
    assert [] == [word for word in told if re.search(r"ip|path|query|agent|claims", word, re.IGNORECASE)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_get_exactly_settings_they_read(synthesized, name):
    assert read_settings_names(name) == set(synthesized.functions()[name]["Environment"]["Variables"])


def test_settings_without_default_are_all_given(synthesized):
    given = {name for row in synthesized.functions().values() for name in row["Environment"]["Variables"]}
    fields = Settings.model_fields.values()
    without_default = {field.alias for field in fields if field.is_required() or field.get_default() == ""}

    assert without_default - NOT_ON_AWS == given


def test_functions_match_tables_and_share_runtime(synthesized):
    named = {*routes.WEBSOCKET.values(), *(row.function for row in (*routes.HTTP, *routes.SCHEDULES))}

    assert named == set(synthesized.functions())
    for row in synthesized.functions().values():
        assert ("app.lambda_handler", "python3.13", ["arm64"]) == (row["Handler"], row["Runtime"], row["Architectures"])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_their_layers_and_runtime(synthesized, name):
    function = synthesized.functions()[name]
    layers = synthesized.resources("AWS::Lambda::LayerVersion")
    used = [key for layer in function["Layers"] for key in layers if key == layer["Ref"]]

    assert {f"{layer.title()}Layer" for layer in LAYERS_BY_FUNCTION[name]} == {key[:-8] for key in used}
    assert {function["Runtime"]} == {runtime for key in used for runtime in layers[key]["CompatibleRuntimes"]}


@pytest.mark.note("F76")
def test_logs_expire_after_30_days(synthesized):
    groups = synthesized.resources("AWS::Logs::LogGroup")
    used = {row["LoggingConfig"]["LogGroup"]["Ref"] for row in synthesized.functions().values()}
    # The function that copies the pages, and the HTTP API, have one each.
    assert len(synthesized.functions()) + 2 == len(groups)
    assert used < set(groups)
    assert {30} == {row["RetentionInDays"] for row in groups.values()}


@pytest.mark.note("F76")
def test_table_has_ttl_recovery_and_protection(synthesized):
    definition = table_definition("any")
    (resource,) = (row for row in synthesized.template["Resources"].values() if row["Type"] == "AWS::DynamoDB::Table")
    table = resource["Properties"]

    assert definition["KeySchema"] == table["KeySchema"]
    assert definition["GlobalSecondaryIndexes"] == table["GlobalSecondaryIndexes"]
    assert {"due", "directory"} == {index["IndexName"] for index in table["GlobalSecondaryIndexes"]}
    assert {"AttributeName": "ttl", "Enabled": True} == table["TimeToLiveSpecification"]
    assert {"PointInTimeRecoveryEnabled": True} == table["PointInTimeRecoverySpecification"]
    assert table["DeletionProtectionEnabled"] is True
    assert "PAY_PER_REQUEST" == table["BillingMode"]
    assert ("Retain", "Retain") == (resource["DeletionPolicy"], resource["UpdateReplacePolicy"])


def test_template_secrets_are_references_not_values(synthesized):
    (stripe,) = (key for key in synthesized.resources("AWS::SecretsManager::Secret") if key.startswith("Stripe"))
    environments = [row["Environment"]["Variables"] for row in synthesized.functions().values()]
    origins = [
        origin
        for row in synthesized.resources("AWS::CloudFront::Distribution").values()
        for origin in row["DistributionConfig"]["Origins"]
    ]
    in_headers = [header["HeaderValue"] for origin in origins for header in origin.get("OriginCustomHeaders", [])]
    at_deployment = [row[name] for row in environments for name in row if "ORIGIN_SECRET" in name] + in_headers
    at_start = {(name, json.dumps(row[name])) for row in environments for name in row if name.startswith("STRIPE_")}

    assert [] == re.findall(r"sk_(?:live|test)_|whsec_", json.dumps(synthesized.template))
    assert 3 * 2 + 1 + len(API_PATHS) == len(at_deployment)
    assert all("{{resolve:secretsmanager:" in json.dumps(value) for value in at_deployment)
    assert {
        ("STRIPE_API_KEY", json.dumps({"Fn::Join": ["", ["secret:", {"Ref": stripe}, "#api_key"]]})),
        ("STRIPE_WEBHOOK_SECRET", json.dumps({"Fn::Join": ["", ["secret:", {"Ref": stripe}, "#webhook_secret"]]})),
    } == at_start


def test_storage_and_transport_are_encrypted(synthesized):
    bucket = synthesized.only_resource("AWS::S3::Bucket")
    queues = synthesized.resources("AWS::SQS::Queue").values()
    behaviors = [
        behavior["ViewerProtocolPolicy"]
        for row in synthesized.resources("AWS::CloudFront::Distribution").values()
        for behavior in (
            row["DistributionConfig"]["DefaultCacheBehavior"],
            *row["DistributionConfig"].get("CacheBehaviors", []),
        )
    ]
    denied_in_the_clear = [
        statement["Effect"]
        for kind in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy")
        for policy in synthesized.resources(kind).values()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
    ]

    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert {"SSEAlgorithm": "AES256"} == rule["ServerSideEncryptionByDefault"]
    assert [True, True] == [queue["SqsManagedSseEnabled"] for queue in queues]
    assert {"https-only", "redirect-to-https"} == set(behaviors)
    assert ["Deny"] * 4 == denied_in_the_clear


@pytest.mark.parametrize(("which", "current", "following"), [("synthesized", "", "2"), ("everything", "3", "4")])
def test_every_api_origin_sends_current_secret(which, current, following, request):
    synthesized = request.getfixturevalue(which)
    sent = {}
    for config in (
        row["DistributionConfig"] for row in synthesized.resources("AWS::CloudFront::Distribution").values()
    ):
        origins = {origin["Id"]: origin for origin in config["Origins"]}
        for behavior in (config["DefaultCacheBehavior"] | {"PathPattern": "*"}, *config.get("CacheBehaviors", [])):
            origin = origins[behavior["TargetOriginId"]]
            if "CustomOriginConfig" in origin:
                sent[config["Comment"], behavior["PathPattern"]] = origin["OriginCustomHeaders"]
    known = [row["Environment"]["Variables"] for row in synthesized.functions().values()]
    value, next_value = (secret_reference(synthesized, name) for name in (current, following))

    assert {("OCPP stations", "*")} | {("Driver pages and the HTTP API", path) for path in API_PATHS} == sent.keys()
    assert all([{"HeaderName": "x-origin-verify", "HeaderValue": value}] == headers for headers in sent.values())
    assert {json.dumps(value)} == {json.dumps(row["ORIGIN_SECRET"]) for row in known if "ORIGIN_SECRET" in row}
    assert [next_value] * 3 == [row["NEXT_ORIGIN_SECRET"] for row in known if "NEXT_ORIGIN_SECRET" in row]


def secret_reference(synthesized, generation):
    """The reference to the generated value of this origin secret."""
    known = synthesized.resources("AWS::SecretsManager::Secret")
    (key,) = (key for key in known if re.fullmatch(f"OriginSecret{generation}[0-9A-F]{{8}}", key))
    return {"Fn::Join": ["", ["{{resolve:secretsmanager:", {"Ref": key}, ":SecretString:::}}"]]}


def test_every_function_behind_apis_knows_secret(synthesized):
    behind = {route.function for route in routes.HTTP} | {routes.WEBSOCKET["$connect"]}
    knowing = {
        name
        for name, row in synthesized.functions().items()
        if {"ORIGIN_SECRET", "NEXT_ORIGIN_SECRET"} <= row["Environment"]["Variables"].keys()
    }

    assert behind == knowing


@pytest.mark.parametrize("which", ["synthesized", "everything"])
def test_functions_change_after_their_distribution(which, request):
    synthesized = request.getfixturevalue(which)
    fronts = {
        row["DistributionConfig"]["Comment"]: key
        for key, row in synthesized.resources("AWS::CloudFront::Distribution").items()
    }
    waited = {
        name: set(fronts.values()) & set(synthesized.template["Resources"][key].get("DependsOn", []))
        for name, key in synthesized.function_ids.items()
    }
    ocpp, web = {fronts["OCPP stations"]}, {fronts["Driver pages and the HTTP API"]}

    assert {
        "ws_connect": ocpp,
        "payments": web,
        "operations": web,
        "maintenance": set(),
        "ws_message": set(),
    } == waited


def test_every_api_behavior_passes_viewer_address(synthesized):
    code = {key: row["FunctionCode"] for key, row in synthesized.resources("AWS::CloudFront::Function").items()}
    for config in (
        row["DistributionConfig"] for row in synthesized.resources("AWS::CloudFront::Distribution").values()
    ):
        custom = {origin["Id"] for origin in config["Origins"] if "CustomOriginConfig" in origin}
        for behavior in (config["DefaultCacheBehavior"], *config.get("CacheBehaviors", [])):
            if behavior["TargetOriginId"] not in custom:
                continue
            (association,) = behavior["FunctionAssociations"]
            source = code[association["FunctionARN"]["Fn::GetAtt"][0]]
            assert "viewer-request" == association["EventType"]
            assert f"request.headers['{VIEWER_HEADER}'] = {{ value: event.viewer.ip }};" in source


def test_api_addresses_are_in_no_output(everything, synthesized):
    for it in (everything, synthesized):
        assert "execute-api" not in json.dumps(it.template["Outputs"])


@pytest.mark.parametrize("which", ["synthesized", "everything"])
def test_templates_pass_cfn_lint(which, request):
    templates = sorted(request.getfixturevalue(which).folder.glob("*.template.json"))

    # W3005: the CDK states dependencies that CloudFormation would see by itself.
    command = [Path(sys.executable).with_name("cfn-lint"), "--ignore-checks", "W3005", "--template", *templates]
    done = subprocess.run(command, capture_output=True, text=True)

    assert "" == done.stdout + done.stderr
    assert 0 == done.returncode


@pytest.mark.parametrize("which", ["synthesized", "everything"])
def test_cdk_nag_has_no_open_findings(which, request):
    assert [] == request.getfixturevalue(which).findings


@pytest.mark.parametrize("which", ["synthesized", "everything"])
def test_cdk_nag_reasons_are_sentences(which, request):
    text = (request.getfixturevalue(which).folder / "Csms.metadata.json").read_text()
    reasons = set(re.findall(r'"Annotation::AwsSolutions-[^"]+": "([^"]+)"', text))

    assert len(reasons) > 10
    assert [] == [reason for reason in reasons if not re.fullmatch(r"[A-Z$].{20,}\.", reason)]
