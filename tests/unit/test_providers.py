"""The payment providers that can be configured, and when their modules are loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from csms.adapters.stripe import StripePayments
from csms.config import Settings
from csms.errors import BadRequest
from csms.model import Policy
from csms.payment_providers import PROVIDERS, find_provider, open_provider

SETTINGS = Settings.load({"TABLE_NAME": "t", "STRIPE_API_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": "whsec_x"})

LOADING_PROGRAM = """
import sys
from csms import payment_providers
from csms.config import Settings
before = "stripe" in sys.modules
payment_providers.open_provider("stripe", Settings.load({"TABLE_NAME": "t", "STRIPE_API_KEY": "sk_test_x"}))
print(before, "stripe" in sys.modules)
"""


def test_default_provider_is_registered():
    assert find_provider(Policy().payment_provider)


def test_stripe_opens_its_adapter():
    assert isinstance(open_provider("stripe", SETTINGS), StripePayments)


def test_signature_headers_are_lower_case():
    headers = [row.signature_header for row in PROVIDERS.values()]

    assert [header.lower() for header in headers] == headers
    assert all(headers)


@pytest.mark.parametrize("name", ["nobody", "", "Stripe"])
def test_unknown_provider_names_the_setting(name):
    with pytest.raises(BadRequest) as refused:
        open_provider(name, SETTINGS)

    assert f"Setting PAYMENT_PROVIDER: must be one of {', '.join(PROVIDERS)}" == refused.value.message


def test_adapter_is_imported_when_opened():
    done = subprocess.run([sys.executable, "-c", LOADING_PROGRAM], capture_output=True, text=True, check=True)

    assert "False True\n" == done.stdout
