"""How many requests does each message cost? Counted where botocore sends them, so that retries and hidden reads count.

A warm Lambda is counted: the connection of the socket was looked up by an earlier frame, the station has booted and has
answered what it was asked.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from csms.adapters.apigateway import Gateway
from csms.errors import ConnectionSuperseded
from csms.model import Append, IdTag, OutboxKind, Policy, TagStatus
from csms.ports.payments import Checkout, Order, Payment
from csms.service import Stations
from local.database import CREDENTIALS
from local.invoke import REGION
from tests.app import Json
from tests.app.in_process import InProcessApp
from tests.builders import ANY_POWER_W
from tests.fakes import Clock, FakeProvider
from tests.tables import Tables

AVAILABLE = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}


class Empty:
    """The body of an answer that has none, as botocore reads it."""

    def stream(self) -> Iterator[bytes]:
        yield b""


@dataclass
class RequestLog:
    """The requests that left, by the names of their operations; the sockets' side is answered here, with 200."""

    operations: list[str] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)

    def count(self, request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse | None:
        """What botocore asks before it sends; an answer here is taken for the server's."""
        _, service, operation = event_name.split(".")
        self.operations.append(operation)
        if service == "dynamodb":
            return None
        if operation == "PostToConnection":
            self.frames.append(json.loads(request.body))
        return AWSResponse(request.url, 200, {}, Empty())

    def take(self) -> list[str]:
        """What was sent since this was last asked."""
        operations, self.operations = self.operations, []
        return operations


class NotingProvider(FakeProvider):
    """A provider that notes what had been sent when it was called."""

    def __init__(self, sent: RequestLog) -> None:
        super().__init__()
        self.before: list[str] = []
        self._sent = sent

    def open_checkout(self, order: Order, *, key: str) -> Checkout:
        self.before = self._sent.take()
        return super().open_checkout(order, key=key)

    def payment(self, checkout_id: str) -> Payment:
        self.before = self._sent.take()
        return super().payment(checkout_id)


@dataclass(kw_only=True)
class CountedApp(InProcessApp):
    """One station on line, with two connectors that said Available; what is asked of AWS is counted."""

    sent: RequestLog
    socket: str = "abc="
    policy: Policy = field(default_factory=lambda: Policy(max_power_w=ANY_POWER_W, power_tolerance_percent=ANY_POWER_W))
    stations_settle: bool = False

    @property
    def frames(self) -> list[Any]:
        return self.sent.frames

    def requests_of_call(self, action: str, payload: Json) -> list[str]:
        """The requests that a CALL costs."""
        self.sent.take()
        self.send_call(action, **payload)
        return self.sent.take()

    def create_unconfirmed_reservation(self) -> str:
        """The reservation of a driver who paid, and is not back from the checkout page."""
        reservation_id = self.create_reservation()
        self.pay(reservation_id)
        return reservation_id

    def sent_id_tag(self) -> str:
        """The id tag of the remote start that was sent."""
        return str(self.frames[-1][3]["idTag"])


@pytest.fixture
def site(tables: Tables) -> CountedApp:
    table, sent, clock = tables("dynoxide"), RequestLog(), Clock(datetime.now().astimezone())
    sockets = boto3.client(
        "apigatewaymanagementapi",
        endpoint_url="http://127.0.0.1:9/ocpp",
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    for client in (table.client, sockets):
        client.meta.events.register("before-send", sent.count)
    it = CountedApp(sent=sent, store=table.store, clock=clock, provider=NotingProvider(sent), gateway=Gateway(sockets))
    it.register().bring_online()
    clock.move(timedelta(seconds=20))
    it.sweep()
    answered = 0
    while answered < len(sent.frames):
        answered = len(sent.frames)
        it.answer_call("Accepted")
    sent.take()
    return it


def test_heartbeat_costs_one_write_only(site):
    assert ["UpdateItem"] == site.requests_of_call("Heartbeat", {})


def test_status_notification_costs_read_and_write(site):
    assert ["Query", "TransactWriteItems"] == site.requests_of_call(
        "StatusNotification", AVAILABLE | {"status": "Preparing"}
    )


def test_meter_values_cost_read_and_write(site):
    _, transaction_id = site.start_session()
    values = [{"timestamp": site.time(), "sampledValue": [{"value": "5000"}]}]

    cost = site.requests_of_call(
        "MeterValues", {"connectorId": 1, "transactionId": transaction_id, "meterValue": values}
    )

    assert ["Query", "TransactWriteItems"] == cost


@pytest.mark.note("F22")
def test_create_sends_three_requests_before_provider(site):
    site.create()

    assert ["Query", "GetConnection", "TransactWriteItems"] == site.provider.before
    assert ["Query", "BatchGetItem", "TransactWriteItems"] == site.sent.take()


def test_confirm_reads_once_before_provider(site):
    reservation_id = site.create_unconfirmed_reservation()
    site.sent.take()

    site.confirm(reservation_id)

    assert ["GetItem"] == site.provider.before
    started = ["Query", "BatchGetItem", "TransactWriteItems", "UpdateItem", "PostToConnection"]
    assert [*started, "Query"] == site.sent.take()


def test_first_frame_costs_one_extra_read(site):
    site.stations = Stations(site.stations._dependencies)

    assert ["GetItem", "UpdateItem"] == site.requests_of_call("Heartbeat", {})
    assert ["UpdateItem"] == site.requests_of_call("Heartbeat", {})


@pytest.mark.note("F17")
def test_superseded_connect_costs_three_requests(site):
    before: list[str] = []

    def let_another_be_first() -> datetime:
        if not before:
            before.extend(site.sent.take())
            site.connect("first=")
            site.sent.take()
        return site.clock()

    site.stations = Stations(replace(site.stations._dependencies, now=let_another_be_first))
    with pytest.raises(ConnectionSuperseded):
        site.connect("late=")

    assert ["Query"] == before
    assert ["TransactWriteItems", "Query"] == site.sent.take()


def test_due_lease_renewal_joins_next_message(site):
    site.store.commit([Append(IdTag(tag="CARD", status=TagStatus.ACCEPTED))])
    site.sent.take()
    tag = {"idTag": "CARD"}
    site.clock.move(timedelta(minutes=2))

    assert ["Query", "BatchGetItem", "UpdateItem"] == site.requests_of_call("Authorize", tag)
    assert ["Query", "BatchGetItem"] == site.requests_of_call("Authorize", tag)

    site.clock.move(timedelta(minutes=2))
    assert ["Query", "TransactWriteItems"] == site.requests_of_call("StatusNotification", AVAILABLE)


def test_authorize_costs_two_reads_only(site):
    site.confirm(site.create_unconfirmed_reservation())

    assert ["Query", "BatchGetItem"] == site.requests_of_call("Authorize", {"idTag": site.sent_id_tag()})


def test_transaction_start_and_stop_cost_three_requests(site):
    site.confirm(site.create_unconfirmed_reservation())
    site.answer_call("Accepted")
    site.sent.take()

    transaction_id = site.start_transaction(site.sent_id_tag())
    assert ["Query", "BatchGetItem", "TransactWriteItems"] == site.sent.take()

    site.stop_transaction(transaction_id, 13_000)
    assert ["Query", "BatchGetItem", "TransactWriteItems"] == site.sent.take()


def test_remote_start_answer_costs_three_requests(site):
    site.confirm(site.create_unconfirmed_reservation())
    site.sent.take()

    site.answer_call("Accepted")

    assert ["Query", "BatchGetItem", "TransactWriteItems"] == site.sent.take()


def test_capture_costs_six_requests(site):
    reservation_id, transaction_id = site.start_session()
    site.stop_transaction(transaction_id, 13_000)
    site.sent.take()

    assert "done" == site.maintenance.perform(reservation_id, OutboxKind.CAPTURE)

    noted = ["Query", "BatchGetItem", "TransactWriteItems"]
    assert ["GetItem", "GetItem", *noted, "GetItem"] == site.sent.take()


@pytest.mark.parametrize("charging", [True, False])
def test_charging_session_page_costs_extra_query(site, charging):
    reservation_id = site.start_session()[0] if charging else site.create_unconfirmed_reservation()
    site.sent.take()

    site.status(reservation_id)

    assert ["Query"] * (1 + charging) == site.sent.take()


@pytest.mark.note("F73")
def test_idle_sweep_costs_one_query_per_shard(site):
    for _ in range(3):
        site.create()
        site.clock.move(timedelta(hours=1))
        site.send_call("Heartbeat")
        site.sweep()
    site.sent.take()

    site.sweep()

    assert ["Query"] * 4 == site.sent.take()
