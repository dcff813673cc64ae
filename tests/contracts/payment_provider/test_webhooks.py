"""Webhooks and events: which are believed, and the reservation that they name."""

import json

import pytest

from csms.errors import BadRequest


@pytest.mark.note("F62")
def test_signed_webhook_names_its_reservation(desk):
    body, signature = desk.build_webhook("r1")

    told = desk.provider.read_webhook(body, signature)

    assert "r1" == told.reservation_id
    assert told.event_id
    assert told.kind


@pytest.mark.note("F62")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda body, _: (body, ""),
        lambda body, _: (body, "t=1,v1=00"),
        lambda body, signature: (body, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        lambda body, signature: (body.replace(b"r1", b"r2"), signature),
        lambda body, signature: (body + b" ", signature),
        lambda _, signature: (b"", signature),
        lambda body, signature: (body, f"{signature}é"),
        lambda body, signature: (body, f"{signature},v1=\udcff"),
        lambda _, signature: (b"\xff\xfe", signature),
    ],
)
def test_webhook_with_wrong_signature_is_refused(desk, spoil):
    with pytest.raises(BadRequest) as refused:
        desk.provider.read_webhook(*spoil(*desk.build_webhook("r1")))

    assert "InvalidSignature" == refused.value.code


@pytest.mark.note("F62")
def test_webhook_and_eventbridge_yield_same_event(desk):
    body, signature = desk.build_webhook("r1")

    assert desk.provider.read_webhook(body, signature) == desk.provider.read_event(json.loads(body))


@pytest.mark.parametrize("detail", [{}, {"id": 1, "type": 2, "kind": 3}, {"object": "event"}, [], None, "event"])
def test_malformed_event_is_bad_request(desk, detail):
    with pytest.raises(BadRequest):
        desk.provider.read_event(detail)
