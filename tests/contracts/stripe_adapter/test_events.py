"""Which events name a reservation, and which signatures are believed."""

import json
import time

import pytest

from csms.errors import BadRequest
from stand_ins.stripe.signature import sign
from tests.contracts.stripe_adapter.adapter_desk import SECRET
from tests.contracts.stripe_events import event


@pytest.mark.note("F62")
def test_every_payment_event_names_its_reservation(desk):
    payment_id = desk.capture_payment("r-life")
    desk.provider.refund(payment_id, 300, key="r-life:refund")
    desk.provider.expire_checkout(desk.open_checkout("r-life-2").checkout_id, key="r-life-2:expire")

    told = [desk.provider.read_webhook(*desk.account.sign_event(event)) for event in desk.account.events]

    assert {"r-life", "r-life-2"} == {it.reservation_id for it in told}
    assert len(told) == len({it.event_id for it in told})
    assert {"checkout.session.completed", "checkout.session.expired", "refund.created"} < {it.kind for it in told}


@pytest.mark.parametrize(
    "subject", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"something": "else"}}, {"metadata": "text"}]
)
def test_foreign_event_names_no_reservation(desk, subject):
    told = desk.provider.read_webhook(*desk.account.sign_event(event("customer.tax_id.created", **subject)))

    assert (None, "customer.tax_id.created") == (told.reservation_id, told.kind)


@pytest.mark.note("F62")
def test_old_or_foreign_signature_is_refused(desk):
    for body, signature in (sign(event(), "whsec_other"), sign(event(), SECRET, at=time.time() - 3600)):
        with pytest.raises(BadRequest):
            desk.provider.read_webhook(body, signature)


@pytest.mark.parametrize(
    "detail", [[], {}, event() | {"object": "v2.core.event"}, event() | {"id": 1}, {"event": event()}]
)
def test_signed_non_event_is_bad_request(desk, detail):
    with pytest.raises(BadRequest) as refused:
        desk.provider.read_webhook(*sign(detail, SECRET))

    assert "InvalidEvent" == refused.value.code
    assert json.dumps(detail) not in refused.value.message
