"""Settings whose values are in AWS Secrets Manager.

An environment variable names a field of a secret instead of holding a key, so that nobody who may read a function's
configuration sees one, and a changed key needs no deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import TransformParameterError

from csms.config import SECRET_PREFIX
from csms.errors import BadRequest

MAX_AGE_SECONDS: Final = 300
"""A function resolves its settings once, at start; within that each secret is fetched once."""


def resolve_secrets(environ: Mapping[str, str], client: Any) -> dict[str, str]:
    """The environment with values in place of references; `client` is a boto3 Secrets Manager client.

    BadRequest that names the setting, and never a value, if the secret has no such field; GetParameterError if Secrets
    Manager refuses.
    """
    provider = SecretsProvider(boto3_client=client)
    return {
        name: _read_field(name, value, provider) if value.startswith(SECRET_PREFIX) else value
        for name, value in environ.items()
    }


def _read_field(name: str, value: str, provider: SecretsProvider) -> str:
    secret, _, field = value.removeprefix(SECRET_PREFIX).rpartition("#")
    try:
        fields = provider.get(secret, max_age=MAX_AGE_SECONDS, transform="json")
    except TransformParameterError:
        fields = None  # The library's message quotes what it could not read.
    if not isinstance(fields, dict) or not isinstance(fields.get(field), str):
        raise BadRequest(f'Setting {name}: the secret is not a JSON object with a text "{field}"')
    text: str = fields[field]
    return text
