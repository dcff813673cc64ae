"""The schedules, and the queue for events that failed finally."""

from collections.abc import Mapping

from aws_cdk import Duration, Stack
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_scheduler_targets as targets
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra import routes
from infra.stack.acknowledged_findings import accept, wildcard


def dead_letters(scope: Construct) -> sqs.Queue:
    """The queue of events that AWS gave up on, kept for two weeks. An alarm reports that there are any."""
    queue = sqs.Queue(
        scope,
        "DeadLetters",
        retention_period=Duration.days(14),
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
    )
    accept(queue, {"AwsSolutions-SQS3": "This is the dead-letter queue."})
    return queue


def add_schedules(scope: Construct, functions: Mapping[str, lambda_.Function], letters: sqs.Queue) -> None:
    """Add every row of routes.SCHEDULES. A schedule whose next run comes soon needs no retries."""
    for row in routes.SCHEDULES:
        scheduler.Schedule(
            scope,
            row.name,
            schedule=scheduler.ScheduleExpression.expression(row.rate),
            target=targets.LambdaInvoke(
                functions[row.function],
                input=scheduler.ScheduleTargetInput.from_object(dict(row.input)) if row.input else None,
                retry_attempts=row.retries,
                max_event_age=Duration.hours(1),
                dead_letter_queue=letters,
            ),
        )
    for function in {row.function: functions[row.function] for row in routes.SCHEDULES}.values():
        versions = wildcard(scope, f"{function.function_arn}:*")
        accept(Stack.of(scope), {versions: "The scheduler may invoke each version of its function."})
