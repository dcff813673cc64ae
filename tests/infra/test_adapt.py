"""The template for the emulator: each row makes its change, and nothing else changes."""

import pytest

from emulator.adapt import AdaptationError, Place, adapt_template

PLACE = Place(port=4566, payments_url="http://127.0.0.1:12111")
WEBSOCKET = {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"ProtocolType": "WEBSOCKET"}}
HTTP = {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"ProtocolType": "HTTP"}}


def adapt(**resources):
    return adapt_template({"Resources": resources, "Outputs": {}}, PLACE)["Resources"]


def address(api, *, before="", after=""):
    parts = [before, {"Ref": api}, ".execute-api.", {"Ref": "AWS::Region"}, ".", {"Ref": "AWS::URLSuffix"}, after]
    return {"Fn::Join": ["", [part for part in parts if part]]}


def function(**variables):
    return {"Type": "AWS::Lambda::Function", "Properties": {"Timeout": 9, "Environment": {"Variables": variables}}}


def test_unlisted_resources_stay_unchanged():
    table = {"Type": "AWS::DynamoDB::Table", "Properties": {"TableName": "csms"}, "DeletionPolicy": "Retain"}
    plain = {"Type": "AWS::Lambda::Function", "Properties": {"Timeout": 9}}

    assert {"Table": table, "Plain": plain} == adapt(Table=table, Plain=plain)


def test_route_response_and_dependencies_are_removed():
    response = {"Type": "AWS::ApiGatewayV2::RouteResponse", "Properties": {"ApiId": {"Ref": "WebSocket"}}}
    stage = {"Type": "AWS::ApiGatewayV2::Stage", "DependsOn": ["WebSocket", "Response"]}
    alone = {"Type": "AWS::ApiGatewayV2::Stage", "DependsOn": "Response"}
    after = adapt(WebSocket=WEBSOCKET, Response=response, Stage=stage, Alone=alone)

    assert {"WebSocket", "Stage", "Alone"} == after.keys()
    assert (["WebSocket"], []) == (after["Stage"]["DependsOn"], after["Alone"]["DependsOn"])


def test_computed_alarm_watches_first_metric():
    plain = {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Errors", "Threshold": 1}}
    metric = {"Namespace": "AWS/Lambda", "MetricName": "Throttles"}
    metrics = [{"Expression": "a + b"}, {"Id": "a", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}]
    computed = {"Type": "AWS::CloudWatch::Alarm", "Properties": {"Metrics": metrics, "Threshold": 2}}
    after = adapt(Plain=plain, Computed=computed)

    assert plain == after["Plain"]
    assert {**metric, "Period": 60, "Statistic": "Sum", "Threshold": 2} == after["Computed"]["Properties"]


def test_queue_policy_keeps_all_but_tls():
    allow = {
        "Effect": "Allow",
        "Action": "sqs:SendMessage",
        "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}},
    }
    deny = {"Effect": "Deny", "Action": "sqs:*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    policy = {"Version": "2012-10-17", "Statement": [deny, allow]}
    after = adapt(Policy={"Type": "AWS::SQS::QueuePolicy", "Properties": {"PolicyDocument": policy, "Queues": ["q"]}})

    assert {"PolicyDocument": {**policy, "Statement": [allow]}, "Queues": ["q"]} == after["Policy"]["Properties"]


@pytest.mark.parametrize("reference", [{"Ref": "Files"}, {"Fn::GetAtt": ["Files", "SourceObjectKeys"]}])
def test_reference_to_removed_resource_is_error(reference):
    files = {"Type": "Custom::CDKBucketDeployment", "Properties": {}}
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"Tags": [{"Key": "files", "Value": reference}]}}

    with pytest.raises(AdaptationError, match=r"\ATopic refers to Files, which the emulator does not know\.\Z"):
        adapt(Files=files, Topic=topic)


def test_secret_ref_becomes_its_arn():
    secret = {"Type": "AWS::SecretsManager::Secret", "Properties": {}}
    role = {"Type": "AWS::IAM::Policy", "Properties": {"Resource": [{"Ref": "Secret"}, {"Ref": "Role"}]}}
    after = adapt_template(
        {"Resources": {"Secret": secret, "Role": role}, "Outputs": {"Where": {"Ref": "Secret"}}}, PLACE
    )

    arn = {"Fn::GetAtt": ["Secret", "Id"]}
    assert [arn, {"Ref": "Role"}] == after["Resources"]["Role"]["Properties"]["Resource"]
    assert {"Where": arn} == after["Outputs"]


def test_function_gets_emulator_and_stand_in_urls():
    url = address("WebSocket", before="https://", after="/ocpp")
    before = function(TABLE_NAME="csms", WEBSOCKET_API_URL=url, STRIPE_API_KEY="a reference")
    after = adapt(WebSocket=WEBSOCKET, Payments=before)["Payments"]["Properties"]

    expected = {
        "TABLE_NAME": "csms",
        "WEBSOCKET_API_URL": {
            "Fn::Join": ["", ["http://127.0.0.1:4566/_aws/execute-api/", {"Ref": "WebSocket"}, "/ocpp"]]
        },
        "STRIPE_API_KEY": "a reference",
        "STRIPE_API_BASE": "http://127.0.0.1:12111",
    }
    assert {"Timeout": 9, "Environment": {"Variables": expected}} == after
    assert "STRIPE_API_BASE" not in before["Properties"]["Environment"]["Variables"]


def test_function_without_payments_stays_unchanged():
    after = adapt(Other=function(TABLE_NAME="csms"))["Other"]

    assert function(TABLE_NAME="csms") == after


def test_distribution_origins_move_to_loopback():
    secret = [{"HeaderName": "x-origin-verify", "HeaderValue": "a reference"}]
    bucket = {"Id": "files", "DomainName": {"Fn::GetAtt": ["Web", "RegionalDomainName"]}, "S3OriginConfig": {}}
    origins = [
        {"Id": "stations", "DomainName": address("WebSocket"), "OriginCustomHeaders": secret},
        {"Id": "drivers", "DomainName": address("Http")},
        bucket,
    ]
    door = {"Type": "AWS::CloudFront::Distribution", "Properties": {"DistributionConfig": {"Origins": origins}}}
    after = adapt(WebSocket=WEBSOCKET, Http=HTTP, Door=door)["Door"]["Properties"]["DistributionConfig"]["Origins"]

    loopback = {
        "DomainName": "127.0.0.1",
        "CustomOriginConfig": {"HTTPPort": 4566, "OriginProtocolPolicy": "http-only"},
    }
    stations = {"Fn::Join": ["", ["/_aws/execute-api/", {"Ref": "WebSocket"}]]}
    drivers = {"Fn::Join": ["", ["/_aws/execute-api/", {"Ref": "Http"}, "/$default"]]}
    assert [
        {"Id": "stations", "OriginCustomHeaders": secret, "OriginPath": stations, **loopback},
        {"Id": "drivers", "OriginPath": drivers, **loopback},
        bucket,
    ] == after
