"""The Lambda functions on a table of moto's, with moto's sockets, and the stand-in as the payment provider; nothing
runs at once."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from typing import Any, Final
from urllib.parse import quote

import boto3
import pytest
from moto import mock_aws
from moto.apigatewaymanagementapi.models import apigatewaymanagementapi_backends

from csms.model import Reservation, Tariff
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Stations
from csms.service.inbox import Inbox
from infra import routes
from local.invoke import REGION
from stand_ins.stripe import PaymentStandIn
from tests.app import Json
from tests.app.handlers import NEXT_ORIGIN, ORIGIN, SOCKET, HandlerApp
from tests.tables import Table, create_unique_table

FUNCTIONS: Final = sorted({*routes.WEBSOCKET.values(), "payments", "maintenance"})
API_KEY: Final = "sk_test_functions"
WEBHOOK_SECRET: Final = "whsec_functions"
PASSWORD: Final = b"open-sesame"
TARIFF: Final = Tariff(currency="EUR", energy_price=Decimal("59.5"), session_fee=50, max_energy_wh=30_000)
STATION_TIME: Final = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
NOBODY: Final = "0" * 32
CREATE_REQUEST: Final = {"chargePointId": "CP1", "connectorId": 1}
ACCOUNT_OF_MOTO: Final = "123456789012"


@dataclass(kw_only=True)
class DeployedFunctions(HandlerApp):
    """The functions, imported on one table; `stand_in` is the payment provider they were told of."""

    table: Table
    stand_in: PaymentStandIn

    def pay_with_link(self, created: Json) -> None:
        """The driver pays otherwise than by card."""
        self.stand_in.pay_otherwise(created["checkoutUrl"].rpartition("/")[2], "link")

    def posted_text(self, connection_id: str = SOCKET) -> str:
        """All that was posted to a socket."""
        connections = apigatewaymanagementapi_backends[ACCOUNT_OF_MOTO][REGION].connections
        # moto takes the id as it stands in the address.
        return bytes(connections[quote(connection_id, safe="")].data).decode()

    def read_id_tag(self) -> str:
        """The id tag of the only reservation there is."""
        return str(self.find_only(Reservation).id_tag)

    def find_only(self, kind: type) -> Any:
        """The only entity of this kind that is stored."""
        (it,) = (entity for entity in self.table.entities() if type(entity) is kind)
        return it


def reload_functions(environment: pytest.MonkeyPatch, **variables: str) -> None:
    """Every function reads the environment when it is next asked for, as a new Lambda environment does."""
    for name, value in variables.items():
        environment.setenv(name, value)
    forget_functions()


def forget_functions() -> None:
    for function in FUNCTIONS:
        sys.modules.pop(f"functions.{function}.app", None)


@pytest.fixture(scope="module")
def deployed_functions() -> Iterator[DeployedFunctions]:
    stand_in = PaymentStandIn(api_key=API_KEY, webhook_secret=WEBHOOK_SECRET, webhook_url=None)
    with stand_in.run_in_thread(), mock_aws(), pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        table = create_unique_table(boto3.client("dynamodb"))
        reload_functions(
            environment,
            TABLE_NAME=table.name,
            WEBSOCKET_API_URL=f"https://abcdef1234.execute-api.{REGION}.amazonaws.com/ocpp",
            PUBLIC_URL="https://csms.example",
            ORIGIN_SECRET=ORIGIN,
            NEXT_ORIGIN_SECRET=NEXT_ORIGIN,
            STRIPE_API_KEY=API_KEY,
            STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
            STRIPE_API_BASE=stand_in.url,
            MAINTENANCE_FUNCTION="maintenance",
            TIMER_QUEUE_URL=boto3.client("sqs").create_queue(QueueName=routes.TIMERS.name)["QueueUrl"],
            POWERTOOLS_METRICS_DISABLED="true",
        )
        yield DeployedFunctions(store=table.store, table=table, stand_in=stand_in, station_time=STATION_TIME)
        forget_functions()


@pytest.fixture
def cloud(deployed_functions: DeployedFunctions) -> DeployedFunctions:
    """The functions on a table that holds one registered station, which is not connected."""
    for item in deployed_functions.table.items():
        key = {"PK": {"S": item["PK"]}, "SK": {"S": item["SK"]}}
        deployed_functions.table.client.delete_item(TableName=deployed_functions.table.name, Key=key)
    for function in ("ws_connect", "ws_message"):
        stations = import_module(f"functions.{function}.app").stations
        stations._connections.clear()
        stations._guesses._windows.clear()
        stations._inbox = Inbox(stations._dependencies)
    apigatewaymanagementapi_backends[ACCOUNT_OF_MOTO][REGION].connections.clear()
    deployed_functions.checkout_urls.clear()
    register(deployed_functions.table, "CP1")
    return deployed_functions


@pytest.fixture
def broken_cloud(cloud: DeployedFunctions) -> Iterator[DeployedFunctions]:
    """The functions on a table that is gone, the socket having been accepted before."""
    cloud.bring_online()
    with pytest.MonkeyPatch.context() as environment:
        reload_functions(environment, TABLE_NAME="gone")
        yield cloud
    forget_functions()


def register(table: Table, identity: str, password: bytes = PASSWORD) -> None:
    Stations(Dependencies(store=table.store, dialects=DIALECTS)).register(
        identity, password=password, connectors=(1, 2), tariff=TARIFF
    )


def sign(body: str, secret: str = WEBHOOK_SECRET) -> str:
    stamp = int(time.time())
    digest = hmac.new(secret.encode(), f"{stamp}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def build_webhook(reservation_id: str | None) -> str:
    """A webhook's body; spaced as no JSON library would, because the signature is of the bytes."""
    metadata = {"reservation_id": reservation_id} if reservation_id else {}
    subject = {"id": "pi_1", "object": "payment_intent", "metadata": metadata}
    event = {"id": "evt_1", "object": "event", "type": "payment_intent.amount_capturable_updated"}
    return json.dumps(event | {"data": {"object": subject}}, separators=(" , ", "  : "))
