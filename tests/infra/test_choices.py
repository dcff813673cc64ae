"""What each option changes in the stack, and that none of it is there by default."""

import json

import pytest

from tests.infra.conftest import EVERYTHING

UNASKED = (
    "AWS::Events::EventBus",
    "AWS::Events::Rule",
    "AWS::Route53::RecordSet",
    "AWS::SES::EmailIdentity",
    "AWS::SNS::Subscription",
    "AWS::WAFv2::WebACL",
)


@pytest.mark.parametrize("kind", UNASKED)
def test_optional_resources_are_absent_by_default(synthesized, kind):
    assert {} == synthesized.resources(kind)
    assert not (synthesized.folder / "Guard.template.json").exists()


def test_tracing_and_concurrency_are_opt_in(synthesized, everything):
    chosen = everything.functions()

    for row in synthesized.functions().values():
        assert "TracingConfig" not in row
        assert "ReservedConcurrentExecutions" not in row
    assert {"Active"} == {row["TracingConfig"]["Mode"] for row in chosen.values()}
    assert {"ws_message": 200} == {
        name: row["ReservedConcurrentExecutions"]
        for name, row in chosen.items()
        if "ReservedConcurrentExecutions" in row
    }


def test_chosen_settings_reach_every_function(synthesized, everything):
    chosen = {key.removeprefix("csms:"): _text(value) for key, value in EVERYTHING.items() if key[5:].isupper()}

    for name, row in everything.functions().items():
        before = synthesized.functions()[name]["Environment"]["Variables"]
        after = row["Environment"]["Variables"]

        assert chosen == {key: value for key, value in after.items() if key in chosen}
        assert set(before) | set(chosen) == set(after)


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_maintenance_mails_only_from_receipt_sender(synthesized, everything):
    def mailing(stack):
        return [
            (role["Ref"], statement["Condition"])
            for row in stack.resources("AWS::IAM::Policy").values()
            for role in row["Roles"]
            for statement in row["PolicyDocument"]["Statement"]
            if "ses:SendEmail" in statement["Action"]
        ]

    ((role, condition),) = mailing(everything)

    assert [] == mailing(synthesized)
    assert everything.functions()["maintenance"]["Role"]["Fn::GetAtt"][0] == role
    assert {"StringEquals": {"ses:FromAddress": "receipts@example.com"}} == condition


def test_logs_keep_chosen_retention(everything):
    assert {90} == {row["RetentionInDays"] for row in everything.resources("AWS::Logs::LogGroup").values()}


def test_domains_have_aliases_records_and_tls(everything):
    doors = {
        tuple(row["DistributionConfig"]["Aliases"]): row["DistributionConfig"]["ViewerCertificate"]
        for row in everything.resources("AWS::CloudFront::Distribution").values()
    }
    names = {row["Name"] for row in everything.resources("AWS::Route53::RecordSet").values()}

    assert {("ocpp.example.com",): "TLSv1.2_2018", ("charge.example.com",): "TLSv1.2_2021"} == {
        name: certificate["MinimumProtocolVersion"] for name, certificate in doors.items()
    }
    assert {"ocpp.example.com.", "charge.example.com."} == names


def test_custom_domains_are_in_all_urls(everything):
    outputs = {name: row["Value"] for name, row in everything.template["Outputs"].items()}

    assert "wss://ocpp.example.com/ocpp/" == outputs["OcppUrl"]
    assert "https://charge.example.com" == outputs["PublicUrl"]
    assert "https://charge.example.com/payments/webhook" == outputs["WebhookUrl"]
    for name in ("maintenance", "payments"):
        environment = everything.functions()[name]["Environment"]["Variables"]
        assert "https://charge.example.com" == environment["PUBLIC_URL"]


def test_waf_guards_distributions_from_us_east_1(everything):
    guard = json.loads((everything.folder / "Guard.template.json").read_text())
    (acl,) = (row["Properties"] for row in guard["Resources"].values() if row["Type"] == "AWS::WAFv2::WebACL")
    rules = {rule["Name"]: rule["Statement"]["RateBasedStatement"] for rule in acl["Rules"]}
    limits = {name: rule["Limit"] for name, rule in rules.items()}
    doors = everything.resources("AWS::CloudFront::Distribution").values()

    assert "CLOUDFRONT" == acl["Scope"]
    assert {"Connections": 500, "Requests": 6000, "Webhook": 10_000} == limits
    assert counted_paths(rules["Connections"]) == {("STARTS_WITH", "/ocpp/")}
    assert counted_paths(rules["Webhook"]) == {("EXACTLY", "/payments/webhook")}
    assert counted_paths(rules["Requests"], "NotStatement", "Statement") == {
        ("STARTS_WITH", "/ocpp/"),
        ("EXACTLY", "/payments/webhook"),
    }
    assert {"us-east-1"} == {row["DistributionConfig"]["WebACLId"]["Fn::GetStackOutput"]["Region"] for row in doors}


def counted_paths(rule, *within):
    """The paths that the rule is about, each with how it is compared."""
    statement = rule["ScopeDownStatement"]
    for name in within:
        statement = statement[name]
    parts = statement["OrStatement"]["Statements"] if "OrStatement" in statement else [statement]
    matches = [part["ByteMatchStatement"] for part in parts]
    return {(match["PositionalConstraint"], match["SearchString"]) for match in matches}


def test_stripe_event_bus_targets_payments_function(everything):
    bus = everything.only_resource("AWS::Events::EventBus")
    rule = everything.only_resource("AWS::Events::Rule")

    assert bus["Name"] == bus["EventSourceName"] == "aws.partner/stripe.com/ed_test_61abc"
    assert {"source": [{"prefix": "aws.partner/stripe.com"}]} == rule["EventPattern"]
    assert everything.function_ids["payments"] in json.dumps(rule["Targets"])
    assert 2 == len(everything.resources("AWS::Lambda::EventInvokeConfig"))


def test_invitations_use_the_verified_sender(everything):
    assert "example.com" == everything.only_resource("AWS::SES::EmailIdentity")["EmailIdentity"]
    mail = everything.only_resource("AWS::Cognito::UserPool")["EmailConfiguration"]

    assert ("DEVELOPER", "csms@example.com") == (mail["EmailSendingAccount"], mail["From"])
    assert "identity/example.com" in json.dumps(mail["SourceArn"])
