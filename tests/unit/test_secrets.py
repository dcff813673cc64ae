"""Environment values that name a secret instead of containing it."""

from __future__ import annotations

import json

import pytest

from csms.config import secret_reference
from csms.errors import BadRequest
from csms_wiring.secrets import resolve_secrets

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:StripeSecret-AbCdEf"


class FakeSecretsManager:
    """Secrets by name, and which were asked for."""

    def __init__(self, **texts: str) -> None:
        self.texts = {ARN: '{"api_key": "sk", "webhook_secret": "wh"}', **texts}
        self.asked: list[str] = []

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:  # noqa: N803 - as boto3 spells it
        self.asked.append(SecretId)
        return {"SecretString": self.texts[SecretId]}


def test_secret_references_resolve_with_one_fetch() -> None:
    client = FakeSecretsManager()
    environ = {
        "STRIPE_API_KEY": secret_reference(ARN, "api_key"),
        "STRIPE_WEBHOOK_SECRET": secret_reference(ARN, "webhook_secret"),
        "TABLE_NAME": "csms",
    }

    found = resolve_secrets(environ, client)

    assert {"STRIPE_API_KEY": "sk", "STRIPE_WEBHOOK_SECRET": "wh", "TABLE_NAME": "csms"} == found
    assert [ARN] == client.asked


def test_plain_environment_fetches_no_secret() -> None:
    client = FakeSecretsManager()

    assert {"STRIPE_API_KEY": "sk_test_1"} == resolve_secrets({"STRIPE_API_KEY": "sk_test_1"}, client)
    assert [] == client.asked


@pytest.mark.note("F71")
@pytest.mark.parametrize(
    "text", ["hush", "[]", '"hush"', '{"other": "hush"}', '{"api_key": {"hush": 1}}', json.dumps(None)]
)
def test_malformed_secret_error_names_only_setting(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        resolve_secrets({"STRIPE_API_KEY": "secret:mine#api_key"}, FakeSecretsManager(mine=text))

    assert 'Setting STRIPE_API_KEY: the secret must be JSON with a text field "api_key".' == refused.value.message
    assert refused.value.__cause__ is None
