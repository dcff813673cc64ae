"""Stripe's events over EventBridge, without a public endpoint and a signature. Installations without this event source
use the webhook."""

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

STRIPE: str = "aws.partner/stripe.com"


def stripe_bus(scope: Construct, source: str, *, function: lambda_.Function, letters: sqs.Queue) -> events.EventBus:
    """The bus of the partner event source that Stripe has created in this account, with its one rule."""
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
