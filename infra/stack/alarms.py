"""The alarms, their topic, and the dashboard."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.options import Options

FIVE_MINUTES: Duration = Duration.minutes(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRow:
    """An alarm: the metric, the limit within five minutes, and its meaning for the reader."""

    name: str
    metric: cloudwatch.IMetric
    meaning: str
    at_least: int = 1
    # A missing metric is no alarm, except where `below` is set: there silence is the problem.
    below: bool = False


def add_monitoring(
    scope: Construct,
    options: Options,
    *,
    functions: Mapping[str, lambda_.Function],
    table: dynamodb.Table,
    letters: sqs.Queue,
) -> sns.Topic:
    """Add the alarms if an address for them is given, the dashboard if it is wanted, and the topic of the alarms."""
    topic = _topic(scope, options)
    heard = _alarms(functions, letters) if options.alarm_mail else ()
    alarms = [_alarm(scope, row, topic) for row in heard]
    if options.dashboard:
        _dashboard(scope, functions, table, alarms)
    return topic


def _topic(scope: Construct, options: Options) -> sns.Topic:
    topic = sns.Topic(scope, "Alarms", enforce_ssl=True)
    # A policy of our own replaces the one that lets the account's alarms publish.
    topic.add_to_resource_policy(
        iam.PolicyStatement(
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["sns:Publish"],
            resources=[topic.topic_arn],
            conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
        )
    )
    if options.alarm_mail:
        topic.add_subscription(subscriptions.EmailSubscription(options.alarm_mail))
    return topic


def _alarms(functions: Mapping[str, lambda_.Function], letters: sqs.Queue) -> Iterator[AlarmRow]:
    for name, function in functions.items():
        yield AlarmRow(
            name=f"{_title(name)}Errors",
            metric=function.metric_errors(period=FIVE_MINUTES, statistic="Sum"),
            at_least=3,
            meaning=f"{name} fails. Its log has the trace.",
        )
    yield AlarmRow(
        name="Throttles",
        metric=cloudwatch.MathExpression(
            expression=" + ".join(functions),
            using_metrics={name: function.metric_throttles(statistic="Sum") for name, function in functions.items()},
            period=FIVE_MINUTES,
        ),
        meaning="Lambda turns events away: the account's concurrency is used up. Have it raised.",
    )
    yield AlarmRow(
        name="NoSweep",
        metric=functions["maintenance"].metric_invocations(period=FIVE_MINUTES, statistic="Sum"),
        below=True,
        meaning="Nothing sweeps: what is due is not done, money included. Is the schedule enabled?",
    )
    yield AlarmRow(
        name="DeadLetters",
        metric=letters.metric_approximate_number_of_messages_visible(period=FIVE_MINUTES, statistic="Maximum"),
        meaning="AWS gave up on an event. The sweep has the same work; look at the queue, then purge it.",
    )
    yield AlarmRow(
        name="FrameFailed",
        metric=_function_metric("FrameFailed", "ws_message"),
        meaning="A station's frame caused an unexpected error, and was answered InternalError.",
    )
    yield AlarmRow(
        name="SweepFailures",
        metric=_function_metric("SweepFailures", "maintenance"),
        at_least=5,
        meaning="Something due fails again and again. The log lines of maintenance name it.",
    )
    yield AlarmRow(
        name="NeedsReview",
        metric=cloudwatch.MathExpression(
            expression="FILL(maintenance, 0) + FILL(payments, 0)",
            using_metrics={name: _function_metric("NeedsReview", name) for name in ("maintenance", "payments")},
            period=FIVE_MINUTES,
        ),
        meaning="A payment needs review (docs/runbook.md).",
    )
    yield AlarmRow(
        name="StopNotObeyed",
        metric=cloudwatch.MathExpression(
            expression="FILL(maintenance, 0) + FILL(ws_message, 0)",
            using_metrics={name: _function_metric("StopNotObeyed", name) for name in ("maintenance", "ws_message")},
            period=FIVE_MINUTES,
        ),
        meaning="A station goes on with a transaction that it was asked to stop (docs/runbook.md).",
    )
    yield AlarmRow(
        name="ReconciliationDifferences",
        metric=_function_metric("ReconciliationDifferences", "maintenance"),
        meaning="Stripe's authorizations and ours differ (docs/runbook.md). Compared once a day.",
    )


def _alarm(scope: Construct, row: AlarmRow, topic: sns.Topic) -> cloudwatch.Alarm:
    operators = cloudwatch.ComparisonOperator
    alarm = cloudwatch.Alarm(
        scope,
        f"{row.name}Alarm",
        metric=row.metric,
        alarm_description=row.meaning,
        threshold=row.at_least,
        comparison_operator=operators.LESS_THAN_THRESHOLD
        if row.below
        else operators.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        evaluation_periods=1,
        treat_missing_data=cloudwatch.TreatMissingData.BREACHING
        if row.below
        else cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    alarm.add_alarm_action(actions.SnsAction(topic))
    alarm.add_ok_action(actions.SnsAction(topic))
    return alarm


def _dashboard(
    scope: Construct,
    functions: Mapping[str, lambda_.Function],
    table: dynamodb.Table,
    alarms: list[cloudwatch.Alarm],
) -> None:
    def graph(title: str, metrics: list[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
        return cloudwatch.GraphWidget(title=title, left=metrics, width=12)

    each = functions.values()
    cloudwatch.Dashboard(
        scope,
        "Dashboard",
        widgets=[
            [cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms, width=24)] if alarms else [],
            [
                graph(
                    "Stations",
                    [
                        _function_metric(name, "ws_connect")
                        for name in ("Connected", "Disconnected", "ConnectionRefused")
                    ],
                ),
                graph("Frames", [_function_metric(name, "ws_message") for name in ("Frames", "FrameFailed")]),
            ],
            [
                graph(
                    "Drivers",
                    [_function_metric(name, "payments") for name in ("Requests", "Redirect", "ConnectorBusy")],
                ),
                graph(
                    "Money and what is due",
                    [
                        _function_metric(name, "maintenance")
                        for name in ("Performed", "Swept", "SweepFailures", "NeedsReview", "ReconciliationDifferences")
                    ],
                ),
            ],
            [
                graph("Function errors", [function.metric_errors() for function in each]),
                graph("Function duration, 99 %", [function.metric_duration(statistic="p99") for function in each]),
            ],
            [
                graph(
                    "Table capacity used",
                    [table.metric_consumed_read_capacity_units(), table.metric_consumed_write_capacity_units()],
                ),
                graph("Functions at once", [function.metric("ConcurrentExecutions") for function in each]),
            ],
        ],
    )


def _function_metric(name: str, service: str) -> cloudwatch.Metric:
    """A metric that a function's code publishes."""
    return cloudwatch.Metric(
        namespace="csms",
        metric_name=name,
        dimensions_map={"service": service},
        statistic="Sum",
        period=FIVE_MINUTES,
    )


def _title(name: str) -> str:
    return name.title().replace("_", "")
