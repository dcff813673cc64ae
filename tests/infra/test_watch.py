"""Alarms: what wakes somebody up is what the code really counts."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Counted by the money work, which the alarms are ready for.
ANNOUNCED = {"NeedsReview", "ReconciliationDifferences"}
ALARMS = {
    "MaintenanceErrors",
    "OperationsErrors",
    "PaymentsErrors",
    "WsConnectErrors",
    "WsMessageErrors",
    "Throttles",
    "NoSweep",
    "DeadLetters",
    "FrameFailed",
    "SweepFailures",
    "NeedsReview",
    "ReconciliationDifferences",
}


def alarms(synthesized):
    """The properties of each alarm by its name in the code."""
    rows = synthesized.resources("AWS::CloudWatch::Alarm").items()
    return {re.sub(r"Alarm[0-9A-F]{8}$", "", key): row for key, row in rows}


def counted_by(service):
    """The metrics that a function's own source counts."""
    source = (ROOT / "functions" / service / "app.py").read_text()
    return set(re.findall(r'add_metric\("(\w+)"', source))


def test_these_are_the_alarms_and_each_tells_the_topic_and_says_what_it_means(synthesized):
    (topic,) = synthesized.resources("AWS::SNS::Topic")

    assert set(alarms(synthesized)) == ALARMS
    for row in alarms(synthesized).values():
        assert [{"Ref": topic}] == row["AlarmActions"] == row["OKActions"]
        assert row["AlarmDescription"].endswith((".", "?"))


def test_alarms_may_publish_to_their_topic(synthesized):
    statements = synthesized.only("AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    allowed = [row for row in statements if row["Effect"] == "Allow"]

    assert [{"Service": "cloudwatch.amazonaws.com"}] == [row["Principal"] for row in allowed]


def test_every_metric_of_ours_that_an_alarm_reads_is_counted_by_that_function(synthesized):
    ours = {
        (row["MetricName"], row["Dimensions"][0]["Value"])
        for row in alarms(synthesized).values()
        if row.get("Namespace") == "csms"
    }

    assert {"FrameFailed", "SweepFailures", *ANNOUNCED} == {name for name, _ in ours}
    assert [] == [name for name, service in ours if name not in counted_by(service) | ANNOUNCED]


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_silence_is_an_alarm_only_where_silence_is_the_trouble(synthesized, name):
    row = alarms(synthesized)[name]
    silence = ("breaching", "LessThanThreshold") if name == "NoSweep" else None

    wanted = silence or ("notBreaching", "GreaterThanOrEqualToThreshold")
    assert wanted == (row["TreatMissingData"], row["ComparisonOperator"])


def test_the_dashboard_shows_every_alarm(synthesized):
    body = json.dumps(synthesized.only("AWS::CloudWatch::Dashboard")["DashboardBody"])

    assert [] == [key for key in synthesized.resources("AWS::CloudWatch::Alarm") if key not in body]


def test_who_wants_to_be_told_is_subscribed(everything):
    subscription = everything.only("AWS::SNS::Subscription")

    assert ("email", "night@example.com") == (subscription["Protocol"], subscription["Endpoint"])
