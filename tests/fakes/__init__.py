"""What stands in for the outside in tests: a table, the stations' sockets, a payment provider, a clock, fresh ids.

Each keeps its state for the test to look at, and sits the same exam as the real one (tests/contracts). What a test
orders to go wrong goes wrong once.
"""

from tests.fakes.clock import START, Clock
from tests.fakes.gateway import FakeGateway
from tests.fakes.ids import SequentialIds
from tests.fakes.mailer import FakeMailer
from tests.fakes.provider import HOLD, FakeProvider
from tests.fakes.store import FakeStore

__all__ = [
    "HOLD",
    "START",
    "Clock",
    "FakeGateway",
    "FakeMailer",
    "FakeProvider",
    "FakeStore",
    "SequentialIds",
]
