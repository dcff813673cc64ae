"""The queue for timers: delayed messages that the maintenance function handles."""

from typing import Final

from aws_cdk import Duration
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra import routes

MAX_CONCURRENCY: Final = 2
"""The most environments that handle timers, and the least that Lambda accepts. A new account may have ten in all."""


def timer_queue(scope: Construct, letters: sqs.Queue) -> sqs.Queue:
    """The queue of routes.TIMERS. A message that fails again and again becomes a dead letter."""
    row = routes.TIMERS
    return sqs.Queue(
        scope,
        "Timers",
        visibility_timeout=Duration.seconds(row.retry_seconds),
        retention_period=Duration.seconds(row.retention_seconds),
        dead_letter_queue=sqs.DeadLetterQueue(queue=letters, max_receive_count=row.receives),
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
    )


def add_timer_source(scope: Construct, queue: sqs.Queue, function: lambda_.Function) -> None:
    """Have Lambda pass the queue's messages to the function. (The CDK's own method would also grant permissions that
    are not in infra.permissions.)"""
    lambda_.EventSourceMapping(
        scope,
        "TimerSource",
        target=function,
        event_source_arn=queue.queue_arn,
        batch_size=routes.TIMERS.batch,
        max_concurrency=MAX_CONCURRENCY,
        report_batch_item_failures=True,
    )
