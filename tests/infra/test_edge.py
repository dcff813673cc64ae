"""The CloudFront Functions' results for the addresses that stations and browsers request."""

from pathlib import Path
from urllib.parse import parse_qs, unquote_plus

import pytest

from csms.adapters.cloudfront import VIEWER_HEADER
from infra import routes
from infra.pages import pages_function
from tests.addresses import ADDRESSES

EDGE = Path(__file__).parents[2] / "infra/edge"
OCPP_PATH = (EDGE / "ocpp_path.js").read_text()

HANDSHAKE = {
    "sec-websocket-key": {"value": "dGhlIHNhbXBsZSBub25jZQ=="},
    "sec-websocket-protocol": {"value": "ocpp1.6"},
    "authorization": {"value": "Basic Q1AwMDE6cGFzc3dvcmQ="},
}


def request(uri: str, *, headers=HANDSHAKE, query=None):
    return {"method": "GET", "uri": uri, "headers": dict(headers), "querystring": query or {}, "cookies": {}}


@pytest.fixture(scope="module")
def ocpp_answers(run_edge):
    """What the edge makes of each address, all from one start of Node."""
    asked = [
        request(row.path, headers=HANDSHAKE if row.upgrade else {}, query=cloudfront_query(row.query))
        for row in ADDRESSES
    ]
    return dict(zip(ADDRESSES, run_edge(OCPP_PATH, asked), strict=True))


def cloudfront_query(query):
    """A query string as CloudFront gives it to a function."""
    parsed = parse_qs(query, keep_blank_values=True)
    return {
        name: {"value": values[-1], **({"multiValue": [{"value": it} for it in values]} if len(values) > 1 else {})}
        for name, values in parsed.items()
    }


@pytest.mark.note("F47")
@pytest.mark.parametrize("address", ADDRESSES, ids=lambda it: f"{it.path[:30]}?{it.query}"[:50])
def test_path_identity_becomes_only_cp_parameter(ocpp_answers, address):
    answer = ocpp_answers[address]

    if isinstance(address.answer, int):
        assert address.answer == answer["statusCode"]
        return
    assert "/ocpp" == answer["uri"]
    assert ["cp"] == list(answer["querystring"])
    assert ["value"] == list(answer["querystring"]["cp"])
    assert address.answer == unquote_plus(answer["querystring"]["cp"]["value"])


def test_compression_header_is_dropped_others_pass(run_edge):
    headers = {**HANDSHAKE, "sec-websocket-extensions": {"value": "permessage-deflate; server_max_window_bits=12"}}

    (answer,) = run_edge(OCPP_PATH, [request("/ocpp/CP001", headers=headers)])

    assert answer["headers"] == HANDSHAKE | {VIEWER_HEADER: {"value": "192.0.2.7"}}


@pytest.mark.parametrize("function", ["ocpp_path.js", "viewer_address.js"])
def test_edge_replaces_forged_viewer_address(run_edge, function):
    forged = {"value": "203.0.113.1", "multiValue": [{"value": "203.0.113.1"}, {"value": "203.0.113.2"}]}
    asked = request("/ocpp/CP001", headers={**HANDSHAKE, VIEWER_HEADER: forged})

    (answer,) = run_edge((EDGE / function).read_text(), [asked])

    assert {"value": "192.0.2.7"} == answer["headers"][VIEWER_HEADER]


def test_edge_leaves_http_requests_otherwise_unchanged(run_edge):
    asked = request("/payments/status/0b7f", query={"a": {"value": "1"}})

    (answer,) = run_edge((EDGE / "viewer_address.js").read_text(), [asked])

    assert asked | {"headers": HANDSHAKE | {VIEWER_HEADER: {"value": "192.0.2.7"}}} == answer


def test_page_paths_map_to_files(run_edge):
    objects = {
        "/cp/CP001/1": "/assets/driver/start.html",
        "/cp/CP%20001/1/": "/assets/driver/start.html",
        "/session/0b7f": "/assets/driver/session.html",
        "/assets/driver/start.js": "/assets/driver/start.js",
    }

    answers = run_edge(pages_function(routes.PAGES), [request(uri, headers={}) for uri in objects])

    assert list(objects.values()) == [answer["uri"] for answer in answers]


def test_unknown_page_returns_404(run_edge):
    unknown = ["/", "/cp", "/cp/CP001", "/cp/CP001/1/2", "/session/", "/driver/start.html", "/assets"]

    answers = run_edge(pages_function(routes.PAGES), [request(uri, headers={}) for uri in unknown])

    assert [404] * len(unknown) == [answer.get("statusCode") for answer in answers]
