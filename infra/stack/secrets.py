"""The secrets. docs/decisions.md describes how each reaches the functions that need it."""

import json

from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.payment_secrets import PaymentSecret
from infra.stack.acknowledged_findings import accept


def payment_secret(scope: Construct, row: PaymentSecret) -> secretsmanager.Secret:
    """The provider's keys, which the operator stores after the first deployment. Until then the provider refuses every
    call, and no webhook signature is valid."""
    *first, last = row.fields.values()
    secret = secretsmanager.Secret(
        scope,
        f"{row.title}Secret",
        description=f"{row.title}: {' and '.join((*first, last))}. Put in by hand, read by functions when they start.",
        # Never change this: CloudFormation would generate the value anew, and the operator's keys would be lost.
        generate_secret_string=secretsmanager.SecretStringGenerator(
            secret_string_template=json.dumps(dict.fromkeys(first, "not-set")), generate_string_key=last
        ),
    )
    accept(secret, {"AwsSolutions-SMG4": f"{row.title} makes these keys; it has no interface to rotate them by."})
    return secret


def origin_secret(scope: Construct) -> secretsmanager.Secret:
    """The generated value that proves that a connection came through the edge."""
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
