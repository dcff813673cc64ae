"""Alarms: their metrics are those that the code publishes."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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
    "StopNotObeyed",
    "ReconciliationDifferences",
}


def alarms(synthesized):
    """The properties of each alarm by its name in the code."""
    rows = synthesized.resources("AWS::CloudWatch::Alarm").items()
    return {re.sub(r"Alarm[0-9A-F]{8}$", "", key): row for key, row in rows}


def counted_metrics(service):
    """The metrics that a function counts: in its own source, and by the observer that it is wired with."""
    wiring = ROOT / "layers/core/python/csms_wiring/__init__.py"
    sources = [ROOT / "functions" / service / "app.py", ROOT / "layers/core/python/csms_observer.py"]
    assert "csms_wiring" in sources[0].read_text()
    assert "csms_observer" in wiring.read_text()
    return {name for source in sources for name in re.findall(r'add_metric\("(\w+)"', source.read_text())}


def alarm_metrics(alarm):
    """Each metric that the alarm reads, itself or in what it computes."""
    computed = [it["MetricStat"]["Metric"] for it in alarm.get("Metrics", ()) if "MetricStat" in it]
    return [row for row in (alarm, *computed) if row.get("Namespace") == "csms"]


def test_listed_alarms_notify_the_topic(everything):
    (topic,) = everything.resources("AWS::SNS::Topic")

    assert set(alarms(everything)) == ALARMS
    for row in alarms(everything).values():
        assert [{"Ref": topic}] == row["AlarmActions"] == row["OKActions"]
        assert row["AlarmDescription"].endswith((".", "?"))


def test_alarms_may_publish_to_topic(everything):
    statements = everything.only_resource("AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    allowed = [row for row in statements if row["Effect"] == "Allow"]

    assert [("sns:Publish", {"Service": "cloudwatch.amazonaws.com"})] == [
        (row["Action"], row["Principal"]) for row in allowed
    ]


def test_alarm_metrics_are_emitted_by_functions(everything):
    ours = {
        (row["MetricName"], row["Dimensions"][0]["Value"])
        for alarm in alarms(everything).values()
        for row in alarm_metrics(alarm)
    }

    assert {"FrameFailed", "SweepFailures", "NeedsReview", "StopNotObeyed", "ReconciliationDifferences"} == {
        name for name, _ in ours
    }
    assert [] == [name for name, service in ours if name not in counted_metrics(service)]


@pytest.mark.note("F63")
def test_review_alarm_covers_maintenance_and_payments(everything):
    services = {row["Dimensions"][0]["Value"] for row in alarm_metrics(alarms(everything)["NeedsReview"])}

    assert {"maintenance", "payments"} == services


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_missing_data_alarms_only_for_sweep(everything, name):
    row = alarms(everything)[name]
    silence = ("breaching", "LessThanThreshold") if name == "NoSweep" else None

    wanted = silence or ("notBreaching", "GreaterThanOrEqualToThreshold")
    assert wanted == (row["TreatMissingData"], row["ComparisonOperator"])


def test_dashboard_shows_every_alarm(everything):
    body = json.dumps(everything.only_resource("AWS::CloudWatch::Dashboard")["DashboardBody"])

    assert [] == [key for key in everything.resources("AWS::CloudWatch::Alarm") if key not in body]


def test_alarm_mail_address_is_subscribed(everything):
    subscription = everything.only_resource("AWS::SNS::Subscription")

    assert ("email", "night@example.com") == (subscription["Protocol"], subscription["Endpoint"])


def test_no_alarms_without_alarm_mail(synthesized):
    assert {} == synthesized.resources("AWS::CloudWatch::Alarm")
    assert {} == synthesized.resources("AWS::CloudWatch::Dashboard")
