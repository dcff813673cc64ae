"""The functions behind the stations' sockets, as API Gateway calls them: $connect, $disconnect and $default."""

import base64
import json
import os
import sys
from importlib import import_module

import pytest
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayProxyEventV2Model,
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
    SqsModel,
)

from csms.model import InboxSlot, Presence, RefusedConnections, UnknownStation
from csms.stations.knocks import GUESSES
from tests.app.handlers import NEXT_ORIGIN, SOCKET, sample_event
from tests.builders import basic_auth_header
from tests.unit.deployed_functions import PASSWORD, broken_cloud, cloud, deployed_functions, register

__all__ = ["broken_cloud", "cloud", "deployed_functions"]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("ws_connect", APIGatewayWebSocketConnectEventModel),
        ("ws_message", APIGatewayWebSocketMessageEventModel),
        ("ws_disconnect", APIGatewayWebSocketDisconnectEventModel),
        ("http_v2", APIGatewayProxyEventV2Model),
        ("sqs", SqsModel),
    ],
)
def test_event_samples_match_documented_models(name, model):
    assert model.model_validate(sample_event(name))


def test_valid_station_connects_with_subprotocol(cloud):
    assert {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "ocpp1.6"}} == cloud.connect()

    assert SOCKET == cloud.find_only(Presence).connection_id


def test_next_origin_secret_is_accepted(cloud):
    assert 200 == cloud.connect(origin=NEXT_ORIGIN)["statusCode"]


@pytest.mark.note("F48")
def test_capitals_are_answered_in_capitals(cloud):
    verdict = cloud.connect(protocol="ocpp2.0.1, OCPP1.6")

    assert {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "OCPP1.6"}} == verdict
    assert "ocpp1.6" == cloud.find_only(Presence).protocol


REFUSED = {
    "wrong password": (401, {"authorization": basic_auth_header(b"CP1", b"wrong")}),
    "another's name": (401, {"authorization": basic_auth_header(b"CP2", PASSWORD)}),
    "no credentials": (401, {"authorization": None}),
    "no Basic": (401, {"authorization": "Bearer abc"}),
    "no base64": (401, {"authorization": "Basic ####"}),
    "wrong origin secret": (401, {"origin": "around"}),
    "no origin secret": (401, {"origin": None}),
    "an origin secret beyond ASCII": (401, {"origin": "störung"}),
    "no sub-protocol": (400, {"protocol": None}),
    "no common sub-protocol": (400, {"protocol": "ocpp1.5, soap"}),
    "no station in the address": (404, {"cp": None}),
    "an empty address": (404, {"cp": "/"}),
    "an identity that is too long": (400, {"cp": "C" * 49}),
    "an identity longer than any key": (400, {"cp": "C" * 3000}),
    "a control character": (400, {"cp": "CP\x1b[2J"}),
}


@pytest.mark.note("F17", "F48")
@pytest.mark.parametrize("why", REFUSED)
def test_refused_connect_changes_nothing(cloud, why):
    status, claims = REFUSED[why]
    cloud.bring_online()
    before = cloud.table.entities()

    verdict = cloud.connect("other=", **claims)

    assert status == verdict["statusCode"]
    assert "headers" not in verdict
    kept = [entity for entity in cloud.table.entities() if not isinstance(entity, RefusedConnections)]
    assert before == [entity for entity in kept if getattr(entity, "kind", "") != "ConnectionRefused"]


@pytest.mark.note("F49")
def test_unknown_station_returns_404_and_is_listed(cloud):
    before = cloud.table.entities()

    assert 404 == cloud.connect(cp="Unheard-Of")["statusCode"]

    assert "Unheard-Of" == cloud.find_only(UnknownStation).identity
    noted = (InboxSlot, UnknownStation)
    assert before == [entity for entity in cloud.table.entities() if not isinstance(entity, noted)]


@pytest.mark.note("F49")
def test_unknown_station_shows_viewer_address(cloud):
    cloud.connect(cp="Unheard-Of")

    seen = cloud.find_only(UnknownStation)
    assert ("192.0.2.7", "charger/1.0", "/ocpp/Unheard-Of") == (seen.address, seen.user_agent, seen.path)


@pytest.mark.note("F17")
def test_repeated_guesses_return_429(cloud):
    wrong = basic_auth_header(b"CP1", b"a guess")
    verdicts = [cloud.connect(authorization=wrong) for _ in range(GUESSES + 1)]

    assert [*[401] * GUESSES, 429] == [verdict["statusCode"] for verdict in verdicts]
    assert 0 < int(verdicts[-1]["headers"]["Retry-After"]) <= 600
    assert "192.0.2.7" == cloud.find_only(RefusedConnections).latest[0].address
    assert 200 == cloud.connect()["statusCode"]


@pytest.mark.note("F47")
@pytest.mark.parametrize(
    ("identity", "password"), [("CP:1", b"a:b:c"), ("CP 1?x%20", b"plain"), ("CP1", b"\xff\xfe:\x00\x80"), ("CP1", b"")]
)
def test_credentials_allow_colons_and_raw_bytes(cloud, identity, password):
    register(cloud.table, identity, password)

    verdict = cloud.connect(cp=identity, authorization=basic_auth_header(identity.encode(), password))
    assert 200 == verdict["statusCode"]

    other = cloud.connect(cp=identity, authorization=basic_auth_header(identity.encode(), password + b"x"))
    assert 401 == other["statusCode"]


@pytest.mark.note("F47")
def test_password_is_not_stored_in_clear(cloud):
    cloud.bring_online()

    assert PASSWORD.decode() not in repr(cloud.table.items())


@pytest.mark.note("F48")
@pytest.mark.parametrize("offered", ["ocpp2.0.1 , ocpp1.6", " ocpp1.6", "soap,ocpp1.6,ocpp1.5"])
def test_first_spoken_subprotocol_is_chosen(cloud, offered):
    assert {"Sec-WebSocket-Protocol": "ocpp1.6"} == cloud.connect(protocol=offered).get("headers")


@pytest.mark.note("F13")
@pytest.mark.parametrize(("address", "user"), [("cp1", b"cp1"), ("cP1", b"Cp1"), ("CP1", b"cp1")])
def test_station_identity_ignores_case(cloud, address, user):
    assert 200 == cloud.connect(cp=address, authorization=basic_auth_header(user, PASSWORD))["statusCode"]


@pytest.mark.note("F16")
def test_late_disconnect_keeps_new_connection(cloud):
    cloud.connect("old=")
    cloud.connect("new=")

    assert {"statusCode": 200} == cloud.disconnect("old=")
    assert "new=" == cloud.find_only(Presence).connection_id

    assert {"statusCode": 200} == cloud.disconnect("new=")
    assert cloud.find_only(Presence).connection_id is None


def test_unknown_socket_disconnect_is_ignored(cloud):
    assert {"statusCode": 200} == cloud.disconnect("unknown=")


@pytest.mark.note("F14")
def test_connect_returns_503_when_database_fails(broken_cloud):
    assert 503 == broken_cloud.connect()["statusCode"]


@pytest.mark.note("F60")
def test_call_is_answered_in_response_body(cloud):
    cloud.bring_online()

    answer = cloud.send_frame('[2,"7","Heartbeat",{}]')

    assert 200 == answer["statusCode"]
    assert [3, "7"] == json.loads(answer["body"])[:2]
    assert json.loads(answer["body"])[2]["currentTime"].endswith("Z")


@pytest.mark.note("F39")
@pytest.mark.parametrize(
    "text", ['[3,"1",{}]', '[4,"1","GenericError","",{}]', '[9,"1"]', "no json", "", '{"a":1}', "[]"]
)
def test_non_call_frames_get_no_answer(cloud, text):
    cloud.bring_online()

    assert {"statusCode": 200} == cloud.send_frame(text)


@pytest.mark.note("F38", "F39")
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ([2, "1", "Unheard", {}], "NotImplemented"),
        ([2, "1", "heartbeat", {}], "NotImplemented"),
        ([2, "1", "FirmwareStatusNotification", {"status": "Idle"}], "NotSupported"),
        ([2, "1", "Authorize", {}], "OccurenceConstraintViolation"),
        ([2, "1", "Authorize", {"idTag": []}], "TypeConstraintViolation"),
        ([2, "1", "Heartbeat", []], "FormationViolation"),
    ],
)
def test_invalid_call_returns_ocpp16_error_code(cloud, frame, code):
    cloud.bring_online()

    kind, unique_id, said, *_ = json.loads(cloud.send_frame(json.dumps(frame))["body"])

    assert (4, "1") == (kind, unique_id)
    assert said == code


def test_base64_frame_is_decoded(cloud):
    cloud.bring_online()
    body = base64.b64encode(b'[2,"1","Heartbeat",{}]').decode()

    answer = cloud.invoke("ws_message", sample_event("ws_message") | {"body": body, "isBase64Encoded": True})

    assert 3 == json.loads(answer["body"])[0]


@pytest.mark.note("F40")
@pytest.mark.parametrize("action", ["Heartbeat", "Authorize", "Unheard"])
def test_call_on_unknown_socket_returns_internal_error(cloud, action):
    answer = cloud.send_frame(json.dumps([2, "1", action, {"idTag": "x"}]), over="unknown=")

    assert [4, "1", "InternalError"] == json.loads(answer["body"])[:3]
    assert {"statusCode": 200} == cloud.send_frame('[3,"1",{}]', over="unknown=")


@pytest.mark.note("F40")
@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("Heartbeat", {}),
        ("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Available"}),
        ("StopTransaction", {"transactionId": 1, "meterStop": 1, "timestamp": "2026-11-23T09:00:00Z"}),
    ],
)
def test_database_failure_returns_ocpp_internal_error(broken_cloud, action, payload):
    answer = broken_cloud.send_frame(json.dumps([2, "1", action, payload]))

    kind, unique_id, code, description, details = json.loads(answer["body"])
    assert (200, 4, "1", "InternalError", {}) == (answer["statusCode"], kind, unique_id, code, details)
    assert "gone" not in description
    assert {"statusCode": 200} == broken_cloud.send_frame('[3,"1",{"status":"Accepted"}]')


@pytest.mark.note("F51")
def test_resent_start_keeps_transaction_across_sockets(cloud):
    cloud.bring_online()
    _, transaction_id = cloud.start_session()
    cloud.connect("new=")
    start = {"connectorId": 1, "idTag": cloud.read_id_tag(), "meterStart": 1000, "timestamp": cloud.time()}

    again = json.loads(cloud.send_frame(json.dumps([2, "again", "StartTransaction", start]), over="new=")["body"])

    assert {"transactionId": transaction_id, "idTagInfo": {"status": "Accepted"}} == again[2]


@pytest.mark.note("F42")
def test_resent_call_gets_first_answer(cloud):
    cloud.bring_online()
    start = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"}
    frame = json.dumps([2, "same", "StartTransaction", start])
    first = cloud.send_frame(frame)
    cloud.connect("new=")

    assert first == cloud.send_frame(frame, over="new=")


@pytest.mark.note("F42")
def test_reused_id_with_other_payload_is_new(cloud):
    cloud.bring_online()
    answers = [
        json.loads(cloud.send_frame(json.dumps([2, "1", "StartTransaction", start]))["body"])[2]["transactionId"]
        for start in (
            {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": "2026-11-23T09:00:00Z"},
            {"connectorId": 1, "idTag": "CARD", "meterStart": 9, "timestamp": "2026-11-23T10:00:00Z"},
        )
    ]

    assert answers[0] != answers[1]


@pytest.mark.parametrize("function", ["ws_connect", "ws_message"])
def test_station_functions_need_no_stripe_settings(deployed_functions, monkeypatch, function):
    for name in [name for name in os.environ if name.startswith("STRIPE_")]:
        monkeypatch.delenv(name)
    sys.modules.pop(f"functions.{function}.app", None)

    assert import_module(f"functions.{function}.app").lambda_handler
