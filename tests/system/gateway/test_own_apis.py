"""Are the AWS APIs of the laptop open to this installation alone?"""

import json
from typing import Any

import pytest
from aiohttp import web
from botocore.exceptions import ClientError

from local import invoke
from tests.aws import aws_client, sign
from tests.system.gateway.clients import ask

INVOKE = "/2015-03-31/functions/maintenance/invocations"
MAIL = "/v2/email/outbound-emails"
SOCKET = "/ocpp/@connections/Qx1f%3D"


async def taken(request: web.Request) -> web.StreamResponse:
    return await invoke.refuse_request(request) or web.Response(status=200)


@pytest.fixture
def closed(backend: Any) -> Any:
    with backend.serve(secret_key="of this installation", extra={f"POST {MAIL}": taken}) as url:
        yield url


APIS = {"lambda": INVOKE, "execute-api": SOCKET, "sqs": "/", "ses": MAIL}
OWN = "of this installation"


def send(url: str, service: str, **changes: str) -> tuple[int, str]:
    """The status of a request, signed with its own secret key and then changed, and the kind of refusal."""
    path = changes.pop("path", APIS[service])
    headers = sign(service, "POST", f"{url}{APIS[service]}", b"{}", secret=changes.pop("secret", OWN))
    sent = changes.pop("body", "{}").encode()
    status, told, _ = ask(url, "POST", path, sent, **(headers | changes))
    return status, told.get("x-amzn-ErrorType", "")


@pytest.mark.parametrize("service", APIS)
def test_request_with_own_secret_is_let_in(closed: str, service: str) -> None:
    assert 403 != send(closed, service)[0]


@pytest.mark.parametrize("service", APIS)
@pytest.mark.parametrize(
    "change",
    [
        {"secret": "local"},
        {"secret": ""},
        {"body": '{"another":1}'},
        {"X-Amz-Date": "20260101T000000Z"},
        {"Authorization": "AWS4-HMAC-SHA256 any"},
        {"Authorization": "Bearer of this installation"},
    ],
    ids=str,
)
def test_other_signature_is_refused(backend: Any, closed: str, service: str, change: dict[str, str]) -> None:
    assert (403, "SignatureDoesNotMatch") == send(closed, service, **change)
    assert backend.events.empty()


@pytest.mark.parametrize("service", APIS)
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:8080", "localhost.evil:80", "["]
)
def test_request_under_foreign_name_is_refused(closed: str, service: str, host: str) -> None:
    signed_host = "evil.example" if host == "[" else host
    headers = sign(service, "POST", f"http://{signed_host}{APIS[service]}", b"{}", secret=OWN)

    status, told, _ = ask(closed, "POST", APIS[service], b"{}", **(headers | {"Host": host}))

    assert (403, "AccessDeniedException") == (status, told.get("x-amzn-ErrorType"))


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_own_names_are_let_in(closed: str, name: str) -> None:
    host = f"{name}:{closed.rpartition(':')[2]}"
    headers = sign("lambda", "POST", f"http://{host}{INVOKE}", b"{}", secret=OWN)

    status, _, answer = ask(closed, "POST", INVOKE, b"{}", **(headers | {"Host": host}))

    assert (200, {"seen": {}}) == (status, json.loads(answer))


def test_signature_is_for_one_path(closed: str) -> None:
    assert (403, "SignatureDoesNotMatch") == send(closed, "lambda", path=INVOKE.replace("maintenance", "payments"))


def test_boto3_client_with_other_secret_is_refused(closed: str) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        aws_client("lambda", closed).invoke(FunctionName="maintenance")
