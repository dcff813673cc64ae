"""Fakes of what is outside csms: the table, the stations' sockets, the mail service, the payment provider, the clock
and new ids.

A test can inspect the state of each, and tests/contracts compares each with the real one. A fault that a test orders
happens once.
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
