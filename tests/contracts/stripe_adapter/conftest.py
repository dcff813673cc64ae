"""What only Stripe's adapter can meet: Stripe's statuses and codes, its texts, its time limits, its pages of lists."""

import pytest

from csms.adapters.stripe import StripePayments
from stand_ins.stripe import Account, InProcess, sequential_ids
from tests.contracts.stripe_adapter.adapter_desk import API_KEY, SECRET, Desk
from tests.fakes import Clock


@pytest.fixture
def desk() -> Desk:
    clock = Clock()
    account = Account(api_key=API_KEY, webhook_secret=SECRET, clock=clock, new_id=sequential_ids())
    provider = StripePayments(api_key=API_KEY, webhook_secret=SECRET, http_client=InProcess(account))
    return Desk(account=account, provider=provider, clock=clock)
