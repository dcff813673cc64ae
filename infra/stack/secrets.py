"""The two secrets. How each reaches those who need it is in docs/decisions.md."""

import json

from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.stack.accepted import accept


def stripe_secret(scope: Construct) -> secretsmanager.Secret:
    """Stripe's keys, which the operator puts in after the first deployment. Until then Stripe refuses every call, and
    no webhook has a signature that fits."""
    secret = secretsmanager.Secret(
        scope,
        "StripeSecret",
        description="Stripe: api_key and webhook_secret. Put in by hand, read by functions when they start.",
        # Never change this: CloudFormation would generate anew, and what the operator put in would be gone.
        generate_secret_string=secretsmanager.SecretStringGenerator(
            secret_string_template=json.dumps({"api_key": "not-set"}), generate_string_key="webhook_secret"
        ),
    )
    accept(secret, {"AwsSolutions-SMG4": "Stripe makes these keys; it has no interface to rotate them by."})
    return secret


def origin_secret(scope: Construct) -> secretsmanager.Secret:
    """The generated value that proves a connection came through the edge."""
    secret = secretsmanager.Secret(
        scope,
        "OriginSecret",
        description="Sent by CloudFront to the WebSocket API; $connect refuses those who do not know it.",
        generate_secret_string=secretsmanager.SecretStringGenerator(password_length=48, exclude_punctuation=True),
    )
    accept(
        secret,
        {
            "AwsSolutions-SMG4": "CloudFront and $connect must change it in the same moment, which only a deployment "
            "does; it guards the way in, and the station's password is asked for all the same."
        },
    )
    return secret
