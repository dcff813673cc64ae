"""Every test is asked of every provider under exam."""

from collections.abc import Iterator

import pytest

from tests.contracts.payment_provider.desks import PROVIDER_PARAMS, Desk, open_desk


@pytest.fixture(params=PROVIDER_PARAMS)
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    with open_desk(request.param) as opened:
        yield opened
