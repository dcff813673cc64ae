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


def origin_secret(scope: Construct, generation: int) -> secretsmanager.Secret:
    """The generated value that proves that a request came through CloudFront. Each generation has its own resource,
    because CloudFormation resolves a reference again only if the template has changed."""
    secret = secretsmanager.Secret(
        scope,
        "OriginSecret" if generation == 1 else f"OriginSecret{generation}",
        description="Sent by CloudFront to both APIs; their functions refuse those who do not know it.",
        generate_secret_string=secretsmanager.SecretStringGenerator(password_length=48, exclude_punctuation=True),
    )
    accept(
        secret,
        {
            "AwsSolutions-SMG4": "CloudFront and the functions must change it in order, which only a deployment does; "
            "it guards the way in, and passwords, tokens and signatures are asked for all the same."
        },
    )
    return secret
