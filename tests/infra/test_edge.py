"""What the CloudFront Functions make of the addresses that stations and browsers ask for."""

from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from infra import routes
from infra.pages import pages_function
from local.gateway import websocket

OCPP_PATH = (Path(__file__).parents[2] / "infra/edge/ocpp_path.js").read_text()

HANDSHAKE = {
    "sec-websocket-key": {"value": "dGhlIHNhbXBsZSBub25jZQ=="},
    "sec-websocket-protocol": {"value": "ocpp1.6"},
    "authorization": {"value": "Basic Q1AwMDE6cGFzc3dvcmQ="},
}

# Path -> cp as API Gateway shall see it after decoding the query once, or the status the edge answers itself.
ADDRESSES: dict[str, str | int] = {
    "/ocpp/CP001": "CP001",
    "/ocpp/CP001/": "CP001",
    "/ocpp//CP001": "CP001",
    "/ocpp/1.6/CP001": "CP001",
    "/ocpp/2.0.1/CP001/": "CP001",
    "/ocpp/1.6": "1.6",
    "/ocpp/CP%20001": "CP 001",
    "/ocpp/caf%C3%A9": "café",
    "/ocpp/A%2FB": "A/B",
    "/ocpp/100%25": "100%",
    "/ocpp/A+B": "A+B",
    "/ocpp/A&cp=evil": "A&cp=evil",
    "/ocpp/A=B;C#D": "A=B;C#D",
    "/ocpp/" + "%E2%82%AC" * 48: "€" * 48,
    "/ocpp/100%": 400,
    "/ocpp/%zz": 400,
    "/": 404,
    "/ocpp": 404,
    "/ocpp/": 404,
    "/ocpp//": 404,
    "/ocpp/CP001/CP002": 404,
    "/ocpp/1.5/CP001": 404,
    "/ocpp/CP001//": 404,
    "/OCPP/CP001": 404,
    "/other/ocpp/CP001": 404,
    "/ocpp/" + "x" * 433: 404,
}


def request(uri: str, *, headers=HANDSHAKE, query=None):
    return {"method": "GET", "uri": uri, "headers": dict(headers), "querystring": query or {}, "cookies": {}}


@pytest.fixture(scope="module")
def ocpp_answers(run_edge):
    """The edge's answer by path, all from one start of Node."""
    return dict(zip(ADDRESSES, run_edge(OCPP_PATH, [request(uri) for uri in ADDRESSES]), strict=True))


@pytest.mark.parametrize(("uri", "expected"), ADDRESSES.items(), ids=lambda value: str(value)[:30])
def test_the_identity_in_the_path_becomes_cp(ocpp_answers, uri, expected):
    answer = ocpp_answers[uri]

    if isinstance(expected, int):
        assert expected == answer["statusCode"]
        return
    assert "/ocpp" == answer["uri"]
    assert ["cp"] == list(answer["querystring"])
    assert expected == unquote_plus(answer["querystring"]["cp"]["value"])


@pytest.mark.parametrize(("uri", "expected"), ADDRESSES.items(), ids=lambda value: str(value)[:30])
def test_the_local_gateway_accepts_the_same_addresses(uri, expected):
    match = websocket.ADDRESS.fullmatch(uri)

    if expected == 404:
        assert match is None
        return
    assert match is not None
    assert (expected == 400) == bool(websocket.BROKEN_ESCAPE.search(match[1]))


def test_a_station_cannot_choose_its_cp(run_edge):
    query = {"cp": {"value": "evil", "multiValue": [{"value": "evil"}, {"value": "worse"}]}, "x": {"value": "1"}}

    (answer,) = run_edge(OCPP_PATH, [request("/ocpp/CP001", query=query)])

    assert {"cp": {"value": "CP001"}} == answer["querystring"]


def test_compression_is_not_offered_to_api_gateway_and_all_other_headers_pass(run_edge):
    headers = {**HANDSHAKE, "sec-websocket-extensions": {"value": "permessage-deflate; server_max_window_bits=12"}}

    (answer,) = run_edge(OCPP_PATH, [request("/ocpp/CP001", headers=headers)])

    assert answer["headers"] == HANDSHAKE


def test_a_browser_that_does_not_upgrade_is_told_so(run_edge):
    (answer,) = run_edge(OCPP_PATH, [request("/ocpp/CP001", headers={})])

    assert 426 == answer["statusCode"]


def test_each_page_is_its_file_and_assets_are_themselves(run_edge):
    objects = {
        "/cp/CP001/1": "/assets/driver/start.html",
        "/cp/CP%20001/1/": "/assets/driver/start.html",
        "/session/0b7f": "/assets/driver/session.html",
        "/assets/driver/start.js": "/assets/driver/start.js",
    }

    answers = run_edge(pages_function(routes.PAGES), [request(uri, headers={}) for uri in objects])

    assert list(objects.values()) == [answer["uri"] for answer in answers]


def test_an_address_that_is_no_page_is_not_found(run_edge):
    unknown = ["/", "/cp", "/cp/CP001", "/cp/CP001/1/2", "/session/", "/driver/start.html", "/assets"]

    answers = run_edge(pages_function(routes.PAGES), [request(uri, headers={}) for uri in unknown])

    assert [404] * len(unknown) == [answer.get("statusCode") for answer in answers]
