"""The options of a running stack for tests: no stations of its own, and known secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from local.gateway import IN_ORDER, Delivery
from local.stack import Options, Secrets
from tests.tables import skip_without_dynoxide

TOKEN: Final = "the-operators-token"
PASSWORD: Final = "a password of 1"
REGISTRATION: Final = {
    "connectors": [1, 2],
    "tariff": {"currency": "EUR", "pricePerKwh": "59.5", "sessionFee": 50, "maxEnergyWh": 30_000},
    "password": PASSWORD,
}
SPEED: Final = 2000.0
"""A whole charge takes a moment at this speed, and its bill is not held back as implausible."""

NEVER: Final = timedelta(hours=1)
"""Between sweeps: longer than any test, which sweeps by hand."""


def build_options(*, sweep: timedelta = NEVER, speed: float = SPEED, delivery: Delivery = IN_ORDER) -> Options:
    """A stack on dynoxide with these secrets; the test is skipped on a platform without dynoxide."""
    skip_without_dynoxide()
    secrets = Secrets(origin="the-edge", webhook="whsec_local", operator=TOKEN)
    return Options(sites=(), secrets=secrets, engine="dynoxide", sweep=sweep, speed=speed, delivery=delivery)
