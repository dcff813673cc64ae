"""Stripe's events by EventBridge: no public endpoint and no signature. The webhook stays for who has no such source."""

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

STRIPE: str = "aws.partner/stripe.com"


def stripe_bus(scope: Construct, source: str, *, function: lambda_.Function, letters: sqs.Queue) -> events.EventBus:
    """The bus of a partner event source, which Stripe has made in this account, and its one rule."""
    bus = events.EventBus(scope, "StripeBus", event_source_name=source)
    events.Rule(
        scope,
        "StripeEvents",
        event_bus=bus,
        event_pattern=events.EventPattern(source=events.Match.prefix(STRIPE)),
        targets=[
            targets.LambdaFunction(
                function, dead_letter_queue=letters, retry_attempts=10, max_event_age=Duration.hours(1)
            )
        ],
    )
    return bus
