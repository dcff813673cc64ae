"""The options of an installation: valid and invalid values, and that each option changes the stack."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from csms.config import Settings
from csms.model import Policy
from csms.payment_providers import PROVIDERS
from infra.options import (
    KNOWN,
    LEAST_OCPP_REQUESTS,
    LEAST_WEB_REQUESTS,
    LOG_DAYS,
    PREFIX,
    SETTABLE,
    Options,
    OptionsError,
)
from infra.payment_secrets import PAYMENT_SECRETS
from infra.stack.logs import RETENTION
from tests.infra.conftest import EVERYTHING

ROOT = Path(__file__).parents[2]
IMPORTABLE = os.pathsep.join(map(str, (ROOT, ROOT / "layers/core/python")))
CERTIFICATE = EVERYTHING["csms:certificateArn"]


def test_foreign_context_keys_leave_defaults():
    assert Options() == Options.load({})
    assert Options() == Options.load({"@aws-cdk/core:target-partitions": ["aws"], "cli-telemetry": False})


def test_full_installation_chooses_every_option():
    names = {f"{PREFIX}{field.alias}" for name, field in Options.model_fields.items() if name != "settings"}
    with_a_usable_default = {f"{PREFIX}{name}" for name in ("stackName", "tableName")}
    with_a_usable_default |= {f"{PREFIX}{kind}{what}" for kind in ("message", "request") for what in ("Rate", "Burst")}

    assert names - with_a_usable_default == {key for key in EVERYTHING if not key.removeprefix(PREFIX).isupper()} - {
        f"{PREFIX}{name}" for name in SETTABLE
    }


def test_policy_settings_are_choosable_stack_settings_not():
    read = {Settings.model_fields[row.name].alias for row in fields(Policy) if row.name in Settings.model_fields}

    assert read < set(SETTABLE)
    assert {field.alias for field in Settings.model_fields.values()} == set(SETTABLE) | KNOWN
    assert not set(SETTABLE) & KNOWN


def test_every_provider_has_its_secret():
    settings = {field.alias for field in Settings.model_fields.values()}

    assert list(PROVIDERS) == [row.provider for row in PAYMENT_SECRETS]
    assert settings >= {setting for row in PAYMENT_SECRETS for setting in row.fields}


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"csms:alarmMial": "a@b.de"}, "csms:alarmMial: there is no such option"),
        ({"csms:table_name": "a"}, "csms:table_name: there is no such option"),
        ({"csms:TABLE_NAME": "a"}, "csms:TABLE_NAME: there is no such option"),
        ({"csms:STRIPE_API_KEY": "a"}, "csms:STRIPE_API_KEY: there is no such option"),
        ({"csms:settings": {}}, "csms:settings: there is no such option"),
        ({"csms:HEARTBEAT_SECONDS": "541"}, "csms:HEARTBEAT_SECONDS: "),
        ({"csms:HEARTBEAT_SECONDS": "often"}, "csms:HEARTBEAT_SECONDS: "),
        ({"csms:PAYMENT_PROVIDER": "nobody"}, "csms:PAYMENT_PROVIDER: must be one of stripe"),
        ({"csms:logDays": "31"}, "csms:logDays: must be one of 1, 7, 14, 30, 90, 180, 365"),
        ({"csms:logDays": "a month"}, "csms:logDays: "),
        ({"csms:tracing": "perhaps"}, "csms:tracing: "),
        ({"csms:alarmMail": "nobody"}, "csms:alarmMail: "),
        ({"csms:requestRate": 0}, "csms:requestRate: "),
        ({"csms:webRequests": 4999}, "csms:webRequests: must be 0, or at least 5000: a carrier's drivers share"),
        ({"csms:ocppRequests": "499"}, "csms:ocppRequests: must be 0, or at least 500: a site's stations share"),
        ({"csms:originSecret": 0}, "csms:originSecret: "),
        ({"csms:webDomain": "charge"}, "csms:webDomain: "),
        ({"csms:webDomain": "charge.example.com"}, "csms:certificateArn: goes with"),
        ({"csms:certificateArn": CERTIFICATE}, "csms:certificateArn: goes with"),
        ({"csms:certificateArn": CERTIFICATE.replace("us-east-1", "eu-central-1")}, "csms:certificateArn: "),
        ({"csms:hostedZoneId": "Z1"}, "csms:hostedZoneId: goes with"),
        (
            {"csms:webDomain": "a.example.com", "csms:ocppDomain": "a.example.com", "csms:certificateArn": CERTIFICATE},
            "csms:ocppDomain: must differ",
        ),
        ({"csms:mailFrom": "a@example.com"}, "csms:mailFrom: must be an address of csms:mailIdentity"),
        ({"csms:mailFrom": "a@example.com", "csms:mailIdentity": "example.org"}, "csms:mailFrom: must be an address"),
        ({"csms:stripeEventSource": "stripe"}, "csms:stripeEventSource: "),
    ],
)
def test_invalid_option_error_names_the_key(chosen, complaint):
    with pytest.raises(OptionsError) as refused:
        Options.load(chosen)

    assert str(refused.value).startswith(complaint)
    assert 1 == len(str(refused.value).splitlines())


def test_least_limits_are_accepted():
    chosen = Options.load({"csms:webRequests": LEAST_WEB_REQUESTS, "csms:ocppRequests": LEAST_OCPP_REQUESTS})

    assert (5000, 500) == (chosen.web_requests, chosen.ocpp_requests)


def test_web_limit_allows_thirty_polling_drivers():
    (milliseconds,) = re.findall(r"REFRESH_MS = (\d+_\d+);", (ROOT / "web/driver/decisions.js").read_text())[:1]
    polls = 300_000 / int(milliseconds)
    files = len([it for it in (ROOT / "web/driver").iterdir() if it.suffix in {".js", ".css", ".svg"}])

    assert LEAST_WEB_REQUESTS >= 30 * (polls + files)


def test_log_day_choices_match_cloudwatch_retention():
    assert set(LOG_DAYS) == set(RETENTION)


def test_invalid_option_ends_synthesis_with_error():
    program = "import infra.app; infra.app.layers.built = lambda aim: None; infra.app.main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": IMPORTABLE, "CDK_CONTEXT_JSON": '{"csms:nonsense": 1}'},
        capture_output=True,
        text=True,
    )

    assert (1, "csms:nonsense: there is no such option\n") == (done.returncode, done.stderr)
