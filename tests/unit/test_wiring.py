"""How each function is wired, in a fresh process as at a cold start."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import boto3
import pytest

from csms.config import Settings
from csms_wiring import build_timer
from csms_wiring.mailing import build_mailer
from infra.permissions import PERMISSIONS

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final = {
    "table": "dynamodb",
    "sockets": "apigatewaymanagementapi",
    "function": "lambda",
    "secret": "secretsmanager",
    "mail": "sesv2",
    "queue": "sqs",
}
"""The AWS service behind the first part of a resource in infra.permissions."""

LATER: Final = {"sqs"}
"""The services whose client is created when it is first needed."""

PAYING: Final = {"payments", "maintenance"}
PAYMENT_CODE: Final = {
    "stripe",
    "csms.adapters.stripe",
    "csms.payment_providers",
    "csms_wiring.paying",
    "csms_wiring.secrets",
}

IMPORT: Final = """
import importlib, json, sys
import boto3
made, client = [], boto3.client
def noted(service, **options):
    made.append(service)
    return client(service, **options)
boto3.client = noted
app = importlib.import_module(f"functions.{sys.argv[1]}.app")
services = [it for it in vars(app).values() if type(it).__module__.startswith("csms.service")]
timers = [it._dependencies.set_timer for it in services]
print(json.dumps({"made": made, "loaded": sorted(sys.modules), "timers": [it is not None for it in timers]}))
"""
ENVIRONMENT: Final = {
    "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "layers/core/python"))),
    "TABLE_NAME": "csms",
    "WEBSOCKET_API_URL": "https://csms.example/ocpp",
    "MAINTENANCE_FUNCTION": "maintenance",
    "TIMER_QUEUE_URL": "https://sqs.example/123456789012/timers",
    "STRIPE_API_KEY": "sk_test_wiring",
    "STRIPE_WEBHOOK_SECRET": "whsec_wiring",
    "RECEIPT_SENDER": "receipts@example.com",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}


def run(function: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A fresh interpreter that imported the function, and said what that made and loaded."""
    command = [sys.executable, "-c", IMPORT, function]
    return subprocess.run(command, env=ENVIRONMENT | settings, capture_output=True, text=True)


@cache
def import_function(function: str) -> dict[str, Any]:
    done = run(function)

    assert 0 == done.returncode, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("function", PERMISSIONS)
def test_clients_match_the_role_permissions(function):
    permitted = {SERVICES[resource.partition("/")[0]] for resource in PERMISSIONS[function]}

    assert sorted(permitted - LATER) == sorted(import_function(function)["made"])


@pytest.mark.parametrize("function", PERMISSIONS)
def test_timers_exist_where_they_are_permitted(function):
    assert ["queue/timers" in PERMISSIONS[function]] == import_function(function)["timers"]


def test_timer_client_is_created_with_first_timer(monkeypatch):
    made: list[str] = []
    sent: list[str] = []

    class Queue:
        def send_message(self, **message: Any) -> None:
            sent.append(message["QueueUrl"])

    monkeypatch.setattr(boto3, "client", lambda service: made.append(service) or Queue())
    set_timer = build_timer(Settings.load({"TABLE_NAME": "t", "TIMER_QUEUE_URL": "https://sqs.example/1/timers"}))
    assert set_timer is not None
    assert [] == made

    set_timer("cp1", seconds=31, call_id="c1")
    set_timer("cp2", seconds=31)

    assert (["sqs"], ["https://sqs.example/1/timers"] * 2) == (made, sent)


def test_no_timer_without_queue():
    assert build_timer(Settings.load({"TABLE_NAME": "t"})) is None


@pytest.mark.parametrize("function", PERMISSIONS)
def test_only_paying_functions_load_payment_code(function):
    assert (PAYMENT_CODE if function in PAYING else set()) == PAYMENT_CODE & set(import_function(function)["loaded"])


@pytest.mark.parametrize("function", PERMISSIONS)
def test_only_maintenance_loads_mailing(function):
    assert (function == "maintenance") == ("csms_wiring.mailing" in import_function(function)["loaded"])


@pytest.mark.parametrize("function", PERMISSIONS)
def test_import_loads_no_ocpp_version(function):
    loaded = import_function(function)["loaded"]

    assert "csms.ocpp.versions" in loaded
    assert [] == [name for name in loaded if re.match(r"csms\.ocpp\.v\d", name)]


@pytest.mark.parametrize("function", sorted(PAYING))
def test_unknown_provider_fails_the_import(function):
    done = run(function, PAYMENT_PROVIDER="nobody")

    assert done.stderr.splitlines()[-1].startswith("csms.errors.BadRequest: Setting PAYMENT_PROVIDER: must be one of ")


def test_mailer_has_short_timeouts_no_retry(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    mailer = build_mailer(Settings.load({"TABLE_NAME": "t", "RECEIPT_SENDER": "receipts@example.com"}))
    assert mailer is not None

    config = mailer._client.meta.config

    assert (3, 5, 1) == (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"])
