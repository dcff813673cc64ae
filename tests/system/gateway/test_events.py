"""The local gateway's events beside AWS's, key by key.

tests/events holds what AWS sends, with names and addresses replaced. The WebSocket events have the keys of real
ones that Powertools for AWS Lambda captured in November 2024 (aws-powertools/powertools-lambda-python,
tests/events/apiGatewayWebSocketApi*.json) and, with a query, of one in DefinitelyTyped issue 68039; `userAgent` appears
where the client sends one. The HTTP events are payload format 2.0 of "Create AWS Lambda proxy integrations for HTTP
APIs in API Gateway", with the JWT authorizer's claims where a route has one. The SQS event is that of "Using Lambda
with Amazon SQS".
"""

import json
import queue
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.sync.client import connect

from local.gateway import Gateway, run_gateway
from local.gateway.queue import queue_url
from tests.aws import aws_client
from tests.system.gateway.backend import SECRET
from tests.system.gateway.clients import SOON, ask

EVENTS: Final = Path(__file__).parents[2] / "events"
TOKEN: Final = "the-operators-token"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def gateway_events() -> dict[str, Json]:
    """An event of each kind from the local gateway, for the same requests as in the samples."""
    events: queue.Queue[Json] = queue.Queue()

    def take(event: Json, _: Any) -> Json:
        events.put(event)
        return {"statusCode": 200}

    names = ("ws_connect", "ws_message", "payments", "operations", "maintenance")
    gateway = Gateway(dict.fromkeys(names, take), origin_secret=SECRET, operator_token=TOKEN, web=Path(__file__).parent)
    with run_gateway(gateway) as url:
        ask(url, "POST", "/payments/create", b"{}", Accept="application/json", User_Agent="phone/1.0")
        http = events.get(timeout=SOON)
        said = {"Accept": "application/json", "Authorization": f"Bearer {TOKEN}", "Cookie": "a=1; b=2"}
        ask(url, "GET", "/operations/stations/CP1?x=1&x=a%20b", User_Agent="curl/8.0", **said)
        operator = events.get(timeout=SOON)
        with connect(
            f"{url.replace('http', 'ws', 1)}/ocpp/CP1",
            user_agent_header="charger/1.0",
            additional_headers={"Authorization": "Basic Q1AxOm9wZW4tc2VzYW1l"},
            subprotocols=["ocpp1.6"],
            compression=None,
            proxy=None,
        ) as station:
            opened = events.get(timeout=SOON)
            station.send('[2,"1","Heartbeat",{}]')
            message = events.get(timeout=SOON)
        closed = events.get(timeout=SOON)
        aws_client("sqs", url).send_message(QueueUrl=queue_url(url, "timers"), MessageBody="{}")
        queued = events.get(timeout=SOON)
    return {
        "http_v2": http,
        "http_v2_operator": operator,
        "ws_connect": opened,
        "ws_message": message,
        "ws_disconnect": closed,
        "sqs": queued,
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("*.json")))
def test_local_event_matches_aws_shape(gateway_events, name):
    sample = json.loads((EVENTS / f"{name}.json").read_text())

    assert shape(sample) == shape(gateway_events[name])


def shape(value: Any, *, within: str = "") -> Any:
    """A value's keys and types. Header names are in lower case, because their case is not fixed, and headers that
    differ between clients are left out."""
    if not isinstance(value, dict):
        return [shape(it) for it in value] if isinstance(value, list) else type(value).__name__
    names = {str(key).lower(): key for key in value} if within.lower().endswith("headers") else {it: it for it in value}
    wanted = {name: key for name, key in names.items() if name not in ("accept-encoding", "content-type")}
    return {name: shape(value[key], within=name) for name, key in wanted.items()}
