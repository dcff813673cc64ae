"""What each choice of an operator changes, and that none of it is there unasked."""

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
def test_what_costs_or_needs_more_is_not_there_unasked(synthesized, kind):
    assert {} == synthesized.resources(kind)
    assert not (synthesized.folder / "Guard.template.json").exists()


def test_tracing_and_reserved_concurrency_are_off_unless_chosen(synthesized, everything):
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


def test_settings_that_were_chosen_reach_every_function_and_no_others_do(synthesized, everything):
    chosen = {key.removeprefix("csms:"): _text(value) for key, value in EVERYTHING.items() if key[5:].isupper()}

    for name, row in everything.functions().items():
        before = synthesized.functions()[name]["Environment"]["Variables"]
        after = row["Environment"]["Variables"]

        assert chosen == {key: value for key, value in after.items() if key in chosen}
        assert set(before) | set(chosen) == set(after)


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_receipts_are_mailed_from_their_sender_alone(synthesized, everything):
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


def test_logs_are_kept_as_long_as_chosen(everything):
    assert {90} == {row["RetentionInDays"] for row in everything.resources("AWS::Logs::LogGroup").values()}


def test_domains_are_the_doors_names_with_tls_that_each_side_speaks(everything):
    doors = {
        tuple(row["DistributionConfig"]["Aliases"]): row["DistributionConfig"]["ViewerCertificate"]
        for row in everything.resources("AWS::CloudFront::Distribution").values()
    }
    names = {row["Name"] for row in everything.resources("AWS::Route53::RecordSet").values()}

    assert {("ocpp.example.com",): "TLSv1.2_2018", ("charge.example.com",): "TLSv1.2_2021"} == {
        name: certificate["MinimumProtocolVersion"] for name, certificate in doors.items()
    }
    assert {"ocpp.example.com.", "charge.example.com."} == names


def test_a_domain_is_in_every_address_that_people_and_stations_are_given(everything):
    outputs = {name: row["Value"] for name, row in everything.template["Outputs"].items()}

    assert "wss://ocpp.example.com/ocpp/" == outputs["OcppUrl"]
    assert "https://charge.example.com" == outputs["PublicUrl"]
    assert "https://charge.example.com/payments/webhook" == outputs["WebhookUrl"]
    for name in ("maintenance", "payments"):
        environment = everything.functions()[name]["Environment"]["Variables"]
        assert "https://charge.example.com" == environment["PUBLIC_URL"]


def test_waf_stands_before_both_doors_in_a_stack_of_us_east_1(everything):
    guard = json.loads((everything.folder / "Guard.template.json").read_text())
    (acl,) = (row["Properties"] for row in guard["Resources"].values() if row["Type"] == "AWS::WAFv2::WebACL")
    limits = {rule["Name"]: rule["Statement"]["RateBasedStatement"]["Limit"] for rule in acl["Rules"]}
    doors = everything.resources("AWS::CloudFront::Distribution").values()

    assert "CLOUDFRONT" == acl["Scope"]
    assert {"Connections": 500, "Requests": 2000} == limits
    assert {"us-east-1"} == {row["DistributionConfig"]["WebACLId"]["Fn::GetStackOutput"]["Region"] for row in doors}


def test_stripes_events_reach_the_payments_function_by_their_bus(everything):
    bus = everything.only("AWS::Events::EventBus")
    rule = everything.only("AWS::Events::Rule")

    assert bus["Name"] == bus["EventSourceName"] == "aws.partner/stripe.com/ed_test_61abc"
    assert {"source": [{"prefix": "aws.partner/stripe.com"}]} == rule["EventPattern"]
    assert everything.function_ids["payments"] in json.dumps(rule["Targets"])
    assert 2 == len(everything.resources("AWS::Lambda::EventInvokeConfig"))


def test_invitations_come_from_the_verified_sender(everything):
    assert "example.com" == everything.only("AWS::SES::EmailIdentity")["EmailIdentity"]
    mail = everything.only("AWS::Cognito::UserPool")["EmailConfiguration"]

    assert ("DEVELOPER", "csms@example.com") == (mail["EmailSendingAccount"], mail["From"])
    assert "identity/example.com" in json.dumps(mail["SourceArn"])
