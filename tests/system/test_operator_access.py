"""Who gets in as an operator on the laptop: whose events carry claims, and where the token is kept."""

import stat
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.parser.models import APIGatewayProxyEventV2Model

from local import operator_token
from local.client import Api
from local.gateway import Gateway
from local.gateway import run_gateway as gateway_running
from tests.app import Json
from tests.app.stack import TOKEN


def test_only_operator_event_has_jwt_claims() -> None:
    events: list[Json] = []

    def seen(event: Json, _: Any) -> Json:
        events.append(event)
        return {"statusCode": 200, "body": "{}"}

    handlers = {"operations": seen, "payments": seen}
    with gateway_running(Gateway(handlers, origin_secret="s", operator_token=TOKEN, web=Path(__file__).parent)) as url:
        Api(url=url, token=TOKEN).request_ok("GET", "/operations/unknown-stations")
        Api(url=url, token=TOKEN).request_ok("GET", "/payments/status/x")

    operator, driver = events
    assert APIGatewayProxyEventV2Model.model_validate(operator)
    assert {"sub", "email"} <= operator["requestContext"]["authorizer"]["jwt"]["claims"].keys()
    assert "authorizer" not in driver["requestContext"]


def test_gateway_without_token_refuses_operators() -> None:
    with gateway_running(Gateway({}, origin_secret="s", web=Path(__file__).parent)) as url:
        assert 401 == Api(url=url, token="").ask("GET", "/operations/unknown-stations").status


def test_operator_token_is_private_and_stable(tmp_path: Path) -> None:
    path = tmp_path / "operator-token"

    made = operator_token.ensure_token(path)

    assert made == operator_token.ensure_token(path) == operator_token.read_token(path)
    assert 24 <= len(made)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
