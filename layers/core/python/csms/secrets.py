"""Values that stand in Secrets Manager: an environment may say where a value is instead of holding it, so that nobody
who may look at a function's configuration sees a key, and a key that was changed needs no deployment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from csms.errors import BadRequest

PREFIX: Final = "secret:"


def reference(secret: str, field: str) -> str:
    """What an environment says in place of the value of a field of a secret (a name or an ARN)."""
    return f"{PREFIX}{secret}#{field}"


def revealed(environ: Mapping[str, str], client: Any) -> dict[str, str]:
    """The environment with values in place of references; `client` is a boto3 Secrets Manager client, asked once for
    each secret.

    BadRequest that names the setting, and never a value, if the secret has no such field.
    """
    once = cache(lambda secret: client.get_secret_value(SecretId=secret)["SecretString"])
    return {name: _field(name, value, once) if value.startswith(PREFIX) else value for name, value in environ.items()}


def _field(name: str, value: str, fetch: Callable[[str], str]) -> str:
    secret, _, field = value.removeprefix(PREFIX).rpartition("#")
    try:
        found = json.loads(fetch(secret))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get(field), str):
        raise BadRequest(f'Setting {name}: the secret is not a JSON object with a text "{field}"')
    text: str = found[field]
    return text
