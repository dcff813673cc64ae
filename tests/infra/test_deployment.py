"""The CDK's own CLI deploys the synthesized stack to an emulator of AWS, where one complete charge runs.

Everything is on loopback except the packages of the layers, which the first synthesis downloads, as `make synth` does.
What this does not prove is listed in docs/deploying.md.
"""

import json
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, Queue
from secrets import token_urlsafe
from typing import Any

import pytest
from botocore.exceptions import ClientError
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from emulator import aws, deployment, edge
from emulator.adapt import REMOVALS
from emulator.aws import COLD_START_S
from emulator.deployment import STACK, Deployment
from local import stack, story
from local.charger import DemoCharger
from stand_ins.stripe import PaymentStandIn

pytestmark = pytest.mark.skipif(not aws.is_installed(), reason="ministack, the emulator, is not installed here")

STRIPE_KEY = "sk_test_local"
PASSWORD = "a station's own password"
OPERATOR = "ada@example.org"
FAST = {
    "csms:MAX_POWER_KW": stack.deliverable_kw(story.SPEED),
    "csms:POWER_TOLERANCE_PERCENT": stack.power_tolerance(story.SPEED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The deployed stack, the base URL of its doors, the payment stand-in's, and an operator's token."""

    deployment: Deployment
    url: str
    payments_url: str
    token: str

    def client(self, service: str) -> Any:
        return self.deployment.emulator.client(service)

    def operate(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> story.Answer:
        """What the operators' API answers."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.url}/operations/{path}"
        return story.request(method, url, data, "application/json", headers=headers, patience=COLD_START_S)


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with ExitStack() as parts:
        webhook_secret = f"whsec_{token_urlsafe(24)}"
        stand_in = PaymentStandIn(
            api_key=STRIPE_KEY, webhook_secret=webhook_secret, webhook_url=None, webhook_timeout=COLD_START_S
        )
        payments_url = parts.enter_context(stand_in.run_in_thread())
        payments = deployment.Payments(url=payments_url, api_key=STRIPE_KEY, webhook_secret=webhook_secret)
        deployed = parts.enter_context(deployment.deploy(payments, FAST))
        doors = edge.Edge(
            deployed.emulator, ocpp=host(deployed.outputs["OcppUrl"]), pages=host(deployed.outputs["PublicUrl"])
        )
        url = parts.enter_context(edge.run_edge(doors))
        stand_in.webhooks.url = deployed.outputs["WebhookUrl"].replace(deployed.outputs["PublicUrl"], url)
        yield Installation(deployment=deployed, url=url, payments_url=payments_url, token=sign_in(deployed))


def host(url: str) -> str:
    return url.split("/")[2]


def sign_in(deployed: Deployment) -> str:
    """The token of an operator who was invited as docs/deploying.md says, and has chosen a password."""
    cognito = deployed.emulator.client("cognito-idp")
    pool, password = deployed.outputs["OperatorPoolId"], f"{token_urlsafe(16)}aA1!"
    mail = {"Name": "email", "Value": OPERATOR}
    cognito.admin_create_user(
        UserPoolId=pool, Username=OPERATOR, UserAttributes=[mail], TemporaryPassword=f"{token_urlsafe(16)}aA1!"
    )
    cognito.admin_set_user_password(UserPoolId=pool, Username=OPERATOR, Password=password, Permanent=True)
    signed_in = cognito.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=deployed.outputs["OperatorClientId"],
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": OPERATOR, "PASSWORD": password},
    )
    token: str = signed_in["AuthenticationResult"]["IdToken"]
    return token


def test_all_supported_resources_are_deployed(installation):
    synthesized = installation.deployment.synthesized["Resources"]
    unknown = {row.kind for row in REMOVALS}
    wanted = {key: row["Type"] for key, row in synthesized.items() if row["Type"] not in unknown}
    pages = installation.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
    made = [row for page in pages for row in page["StackResourceSummaries"]]

    assert unknown == unknown & {row["Type"] for row in synthesized.values()}
    assert wanted == {row["LogicalResourceId"]: row["ResourceType"] for row in made}
    assert {"CREATE_COMPLETE"} == {row["ResourceStatus"] for row in made}


def test_second_deployment_has_no_differences(installation):
    assert "There were no differences" in installation.deployment.diff()


def test_only_known_pages_are_served(installation):
    page, script, other = (
        story.request("GET", f"{installation.url}{path}")
        for path in (f"/cp/{story.STATION}/1", "/assets/driver/start.js", "/cp")
    )

    assert [200, 200, 404] == [page.status, script.status, other.status]


def test_operator_api_rejects_invalid_token(installation):
    assert 401 == installation.operate("GET", "stations", token="").status
    assert 401 == installation.operate("GET", "stations", token=f"{installation.token[:-8]}AAAAAAAA").status


def test_apis_own_address_is_refused(installation):
    apis = installation.client("apigatewayv2").get_apis()["Items"]
    (api,) = (row["ApiId"] for row in apis if row["ProtocolType"] == "HTTP")
    endpoint = installation.deployment.emulator.database.endpoint
    path = f"/payments/connectors/{story.STATION}/1"
    around = story.request("GET", f"{endpoint}/_aws/execute-api/{api}/$default{path}", patience=COLD_START_S)
    through = story.request("GET", f"{installation.url}{path}", patience=COLD_START_S)

    assert (403, "Forbidden") == (around.status, around.body["status"])
    assert (404, "UnknownStation") == (through.status, through.body["status"])


def test_invoked_maintenance_succeeds_on_emulator(installation):
    (name,) = (
        installation.deployment.physical_id(key)
        for key, row in installation.deployment.synthesized["Resources"].items()
        if row["Type"] == "AWS::Lambda::Function" and key.startswith("Maintenance")
    )
    answer = installation.client("lambda").invoke(FunctionName=name, Payload=b"{}")

    assert "FunctionError" not in answer, answer["Payload"].read()


def test_timer_message_reaches_deployed_maintenance(installation):
    resources = installation.deployment.synthesized["Resources"]
    (source,) = (
        installation.deployment.physical_id(key)
        for key, row in resources.items()
        if row["Type"] == "AWS::Lambda::EventSourceMapping"
    )
    (queue,) = (
        installation.deployment.physical_id(key)
        for key, row in resources.items()
        if row["Type"] == "AWS::SQS::Queue" and key.startswith("Timers")
    )
    wake = {"stationId": "nobody", "callId": "nothing"}
    installation.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps({"wake": wake}))
    deadline, result = time.monotonic() + COLD_START_S, ""
    while result in ("", "No records processed") and time.monotonic() < deadline:
        time.sleep(0.1)
        result = installation.client("lambda").get_event_source_mapping(UUID=source)["LastProcessingResult"]

    assert "OK - 1 records" == result


def test_deployed_session_runs_registration_to_bill(installation):
    tariff = {
        "currency": story.TARIFF.currency,
        "pricePerKwh": str(story.TARIFF.energy_price),
        "sessionFee": story.TARIFF.session_fee,
        "maxEnergyWh": story.TARIFF.max_energy_wh,
    }
    registration = {"connectors": [1], "password": PASSWORD, "tariff": tariff}
    registered = installation.operate("PUT", f"stations/{story.STATION}", registration)
    connector = f"{installation.url}/payments/connectors/{story.STATION}/1"
    absent = story.request("GET", connector, patience=COLD_START_S)
    heard: Queue[str] = Queue()
    charger = DemoCharger(
        f"{installation.url.replace('http', 'ws', 1)}/ocpp",
        story.STATION,
        PASSWORD,
        connectors=1,
        speed=story.SPEED,
        meter_interval_s=1.0,
        energy_wh=story.ENERGY_WH,
        on_event=heard.put,
    )
    laptop = stack.Stack(
        url=installation.url,
        database=installation.deployment.emulator.database,
        payments_url=installation.payments_url,
        stripe_key=STRIPE_KEY,
        chargers={},
    )
    with stack.run_chargers((charger,)):
        events = read_until("received StatusNotification answer", heard)
        ending = story.run_story(laptop, lambda _line: None, patience=COLD_START_S)
        seen = installation.operate("GET", f"stations/{story.STATION}")

    assert (200, "Offline") == (registered.status, registered.body["state"])
    assert ["ChargerOffline"] == absent.body["reasons"]
    assert "sent BootNotification" in " ".join(events)
    assert (824, 824, 0) == (ending.expected, ending.captured, ending.still_held)
    assert ending.free_again
    assert (200, "Online", "Demo 22") == (seen.status, seen.body["state"], seen.body["model"])


def read_until(beginning: str, heard: Queue[str]) -> list[str]:
    """What is heard up to what begins so."""
    deadline = time.monotonic() + COLD_START_S
    events: list[str] = []
    while not (events and events[-1].startswith(beginning)):
        try:
            events.append(heard.get(timeout=max(0.0, deadline - time.monotonic())))
        except Empty:
            pytest.fail(f"Not heard within {COLD_START_S} s: {beginning}. Heard were {events}")
    return events


def test_wrong_station_password_returns_403(installation):
    url = f"{installation.url.replace('http', 'ws', 1)}/ocpp/{story.STATION}"
    credentials = b64encode(f"{story.STATION}:not {PASSWORD}".encode()).decode()

    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers={"Authorization": f"Basic {credentials}"}, compression=None, proxy=None)

    assert 403 == refused.value.response.status_code


def test_destroy_keeps_table_and_user_pool(installation):
    """The last of this file: what the others ask is gone then."""
    table = installation.deployment.outputs["TableName"]
    pool = installation.deployment.outputs["OperatorPoolId"]
    installation.deployment.destroy()

    with pytest.raises(ClientError, match="does not exist"):
        installation.client("cloudformation").describe_stacks(StackName=STACK)
    assert [] == installation.client("lambda").list_functions()["Functions"]
    assert installation.client("dynamodb").scan(TableName=table)["Count"] > 0
    assert pool == installation.client("cognito-idp").describe_user_pool(UserPoolId=pool)["UserPool"]["Id"]
