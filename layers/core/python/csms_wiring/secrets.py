"""Settings whose values are in AWS Secrets Manager.

An environment variable names a field of a secret instead of containing the key. So the key is not visible in a
function's configuration, and a changed key needs no deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import TransformParameterError

from csms.config import SECRET_PREFIX
from csms.errors import BadRequest

MAX_AGE_SECONDS: Final = 300
"""A function reads its settings once, at start; within this time each secret is fetched once."""


def resolve_secrets(environ: Mapping[str, str], client: Any) -> dict[str, str]:
    """The environment with values in place of references; `client` is a boto3 Secrets Manager client.

    Raises BadRequest, which names the setting and never contains a value, if the secret has no such field;
    GetParameterError if Secrets Manager refuses.
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
        fields = None  # The error's message is dropped, because it contains the secret.
    if not isinstance(fields, dict) or not isinstance(fields.get(field), str):
        raise BadRequest(f'Setting {name}: the secret must be JSON with a text field "{field}".')
    text: str = fields[field]
    return text
