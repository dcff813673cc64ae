"""functions/payments as API Gateway calls it for drivers and for the payment provider."""

import base64
import json
from urllib.parse import quote

import pytest

from csms.model import Reservation
from infra import routes
from tests.app.handlers import NEXT_ORIGIN, sample_event
from tests.unit.deployed_functions import (
    API_KEY,
    CREATE_REQUEST,
    NOBODY,
    broken_cloud,
    build_webhook,
    cloud,
    deployed_functions,
    sign,
)

__all__ = ["broken_cloud", "cloud", "deployed_functions"]


def test_create_returns_checkout_limit_and_expiry(cloud):
    created = cloud.bring_online().create()

    assert f"https://csms.example/session/{created['reservationId']}" == created["statusUrl"]
    assert created["checkoutUrl"].startswith(cloud.stand_in.url)
    assert ("EUR", 1835) == (created["currency"], created["maxAmount"])
    assert created["expiresAt"].endswith("Z")


@pytest.mark.note("F02")
def test_busy_create_returns_409_with_ordered_reasons(cloud):
    cloud.bring_online().create()
    cloud.report_status(1, "Charging")

    status, busy = cloud.ask("POST", "/payments/create", {"chargePointId": "cp1", "connectorId": 1})

    assert (409, "ConnectorBusy", "LiveStatus:Occupied") == (status, busy["status"], busy["reason"])
    assert ["LiveStatus:Occupied", "ActiveReservation"] == busy["reasons"]
    assert "in use" in busy["message"]


def test_offline_create_returns_409_charger_offline(cloud):
    status, said = cloud.ask("POST", "/payments/create", {"chargePointId": "CP1", "connectorId": 1})

    assert (409, "ChargerOffline") == (status, said["status"])


@pytest.mark.note("F10")
@pytest.mark.parametrize(
    ("identity", "connector_id", "code"),
    [("CP9", 1, "UnknownStation"), ("CP1", 0, "UnknownConnector"), ("CP1", 3, "UnknownConnector")],
)
def test_unknown_station_or_connector_returns_404(cloud, identity, connector_id, code):
    cloud.bring_online()
    wish = {"chargePointId": identity, "connectorId": connector_id}

    for method, path, body in (
        ("POST", "/payments/create", wish),
        ("GET", f"/payments/connectors/{identity}/{connector_id}", None),
    ):
        status, said = cloud.ask(method, path, body)
        assert (404, code) == (status, said["status"])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"CP1"',
        {},
        {"chargePointId": "CP1"},
        {"connectorId": 1},
        CREATE_REQUEST | {"amount": 1},
        CREATE_REQUEST | {"connectorId": "1"},
        CREATE_REQUEST | {"connectorId": 1.5},
        CREATE_REQUEST | {"connectorId": True},
        CREATE_REQUEST | {"connectorId": None},
        CREATE_REQUEST | {"connectorId": -1},
        CREATE_REQUEST | {"connectorId": 2**31},
        CREATE_REQUEST | {"chargePointId": 1},
        CREATE_REQUEST | {"chargePointId": ""},
        CREATE_REQUEST | {"chargePointId": "x" * 49},
        CREATE_REQUEST | {"resume": "x"},
        json.dumps(CREATE_REQUEST)[:-1] + "}}",
        "[" * 10_000,
        '{"chargePointId":"\\ud800","connectorId":1}',
    ],
)
def test_invalid_create_body_returns_400(cloud, body):
    cloud.bring_online()
    before = cloud.table.entities()

    status, said = cloud.ask("POST", "/payments/create", body)

    assert (400, "BadRequest") == (status, said["status"])
    assert {"status", "message"} == said.keys()
    assert before == cloud.table.entities()


@pytest.mark.parametrize("reservation_id", ["x", "", NOBODY + "0", NOBODY.upper() + "G", "RESERVATION#1"])
def test_malformed_reservation_id_returns_400(cloud, reservation_id):
    for path in ("/payments/confirm", "/payments/cancel"):
        status, said = cloud.ask("POST", path, {"reservationId": reservation_id})
        assert (400, "BadRequest") == (status, said["status"])

    status, said = cloud.ask("GET", f"/payments/status/{quote(reservation_id, safe='') or 'x'}")
    assert (400, "BadRequest") == (status, said["status"])


def test_unknown_reservation_returns_404(cloud):
    for method, path, body in (
        ("POST", "/payments/confirm", {"reservationId": NOBODY}),
        ("POST", "/payments/cancel", {"reservationId": NOBODY}),
        ("POST", "/payments/move", {"reservationId": NOBODY, "connectorId": 2}),
        ("GET", f"/payments/status/{NOBODY}", None),
        ("GET", f"/payments/receipt/{NOBODY}", None),
    ):
        status, said = cloud.ask(method, path, body)
        assert (404, "UnknownReservation") == (status, said["status"])


def test_non_numeric_connector_returns_400(cloud):
    status, said = cloud.ask("GET", "/payments/connectors/CP1/one")

    assert (400, "BadRequest") == (status, said["status"])


def test_unknown_path_returns_404(cloud):
    assert (404, "NotFound") == (lambda status, said: (status, said["status"]))(*cloud.ask("GET", "/payments/x"))


@pytest.mark.note("F61")
def test_confirm_starts_charge_only_after_payment(cloud):
    created = cloud.bring_online().create()
    named = {"reservationId": created["reservationId"]}
    status, waiting = cloud.ask("POST", "/payments/confirm", named)
    assert (200, "PendingPayment", "none") == (status, waiting["status"], waiting["money"])

    cloud.pay(created["reservationId"])
    status, started = cloud.ask("POST", "/payments/confirm", named)

    assert (200, "StartRequested", "authorised") == (status, started["status"], started["money"])
    assert '"RemoteStartTransaction",{"connectorId":1,' in cloud.posted_text()
    assert (200, started) == cloud.ask("GET", f"/payments/status/{created['reservationId']}")


def test_confirmed_link_payment_starts_charge(cloud):
    created = cloud.bring_online().create()
    cloud.pay_with_link(created)

    status, started = cloud.ask("POST", "/payments/confirm", {"reservationId": created["reservationId"]})

    assert (200, "StartRequested", "authorised") == (status, started["status"], started["money"])
    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


@pytest.mark.note("F34")
def test_repeated_confirm_starts_once(cloud):
    created = cloud.bring_online().create()
    cloud.pay(created["reservationId"])

    for _ in range(3):
        cloud.ask("POST", "/payments/confirm", {"reservationId": created["reservationId"]})

    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


def test_charging_session_cannot_be_cancelled(cloud):
    reservation_id, _ = cloud.bring_online().start_session()

    status, said = cloud.ask("POST", "/payments/cancel", {"reservationId": reservation_id})

    assert (409, "IllegalTransition") == (status, said["status"])


@pytest.mark.note("F33")
def test_driver_plugged_in_elsewhere_moves(cloud):
    reservation_id = cloud.bring_online().create_reservation()
    cloud.report_status(1, "Faulted")
    cloud.pay(reservation_id)
    cloud.confirm(reservation_id)
    cloud.report_status(2, "Preparing")
    offered = cloud.status(reservation_id)["pluggedElsewhere"]

    status, moved = cloud.ask("POST", "/payments/move", {"reservationId": reservation_id, "connectorId": 2})

    assert [{"connectorId": 2, "startable": True}] == offered
    assert (200, "StartRequested", 2) == (status, moved["status"], moved["connectorId"])
    assert "pluggedElsewhere" not in moved


@pytest.mark.parametrize("connector", [None, 0, -1, "2", 2**31, 1.5])
def test_invalid_move_body_returns_400(cloud, connector):
    status, said = cloud.ask("POST", "/payments/move", {"reservationId": NOBODY, "connectorId": connector})

    assert (400, "BadRequest") == (status, said["status"])
    assert "connectorId" in said["message"]


def test_cancel_before_payment_frees_connector(cloud):
    created = cloud.bring_online().create()
    named = {"reservationId": created["reservationId"]}

    status, cancelled = cloud.ask("POST", "/payments/cancel", named)

    assert (200, "Cancelled", "none") == (status, cancelled["status"], cancelled["money"])
    assert (200, cancelled) == cloud.ask("POST", "/payments/cancel", named)
    assert cloud.ask("GET", "/payments/connectors/CP1/1")[1]["startable"]


@pytest.mark.note("F71")
@pytest.mark.parametrize(("status", "tries"), [(400, 1), (500, 2)])
def test_failed_checkout_returns_502_and_frees_connector(cloud, status, tries):
    cloud.bring_online()
    for _ in range(tries):
        cloud.stand_in.fail_next("checkout.sessions.create", status=status)

    answered, said = cloud.ask("POST", "/payments/create", CREATE_REQUEST)

    assert (502, "PaymentProviderUnavailable") == (answered, said["status"])
    assert "stand-in" not in said["message"]
    assert cloud.ask("GET", "/payments/connectors/CP1/1")[1]["startable"]


@pytest.mark.note("F14")
def test_database_failure_returns_503_and_starts_nothing(broken_cloud):
    known = len(broken_cloud.stand_in.ledger.sessions)

    for method, path, body in (
        ("POST", "/payments/create", CREATE_REQUEST),
        ("POST", "/payments/confirm", {"reservationId": NOBODY}),
        ("GET", f"/payments/status/{NOBODY}", None),
        ("GET", f"/payments/receipt/{NOBODY}", None),
        ("GET", "/payments/connectors/CP1/1", None),
    ):
        status, said = broken_cloud.ask(method, path, body)
        assert (503, "StoreUnavailable") == (status, said["status"])
        assert "gone" not in said["message"]
    assert known == len(broken_cloud.stand_in.ledger.sessions)


def test_unexpected_error_returns_500_without_trace(cloud):
    status, said = cloud.ask_with(sample_event("http_v2") | {"body": "a", "isBase64Encoded": True})

    assert (500, "InternalError") == (status, said["status"])
    assert {"status", "message"} == said.keys()


@pytest.mark.parametrize("origin", ["around", "störung", ""])
@pytest.mark.parametrize("route", [it for it in routes.HTTP if it.function == "payments"], ids=lambda it: it.path)
def test_request_around_cloudfront_is_403(broken_cloud, route, origin):
    """The table is gone, so whatever read it would be 503."""
    asked = len(broken_cloud.stand_in.ledger.sessions)
    path = route.path.format(reservationId=NOBODY, chargePointId="CP1", connectorId=1)
    body = json.dumps(CREATE_REQUEST | {"reservationId": NOBODY})

    status, said = broken_cloud.ask(route.method, path, body, stripe_signature=sign(body), x_origin_verify=origin)

    assert (403, "Forbidden", {"status", "message"}) == (status, said["status"], said.keys())
    assert asked == len(broken_cloud.stand_in.ledger.sessions)


def test_missing_origin_header_is_403(cloud):
    event = sample_event("http_v2")
    del event["headers"]["x-origin-verify"]

    assert 403 == cloud.ask_with(event)[0]
    assert 403 == cloud.ask_with({name: value for name, value in event.items() if name != "headers"})[0]


def test_next_origin_secret_is_accepted(cloud):
    assert 200 == cloud.ask("GET", "/payments/connectors/CP1/1", x_origin_verify=NEXT_ORIGIN)[0]


@pytest.mark.note("F71")
def test_public_status_hides_tag_and_provider_ids(cloud):
    reservation_id, _ = cloud.bring_online().start_session()
    held = cloud.find_only(Reservation)

    _, told = cloud.ask("GET", f"/payments/status/{reservation_id}")

    for secret in (held.id_tag, held.payment_id, held.checkout_id, API_KEY):
        assert secret
        assert secret not in json.dumps(told)


@pytest.mark.note("F35", "F62")
@pytest.mark.parametrize("encoded", [False, True], ids=["as text", "as base64"])
def test_webhook_alone_starts_charge_once(cloud, encoded):
    created = cloud.bring_online().create()
    cloud.pay(created["reservationId"])
    body = build_webhook(created["reservationId"])
    event = sample_event("http_v2") | {"rawPath": "/payments/webhook", "routeKey": "POST /payments/webhook"}
    event["requestContext"]["http"]["path"] = "/payments/webhook"
    event["headers"] |= {"stripe-signature": sign(body)}
    event["body"] = base64.b64encode(body.encode()).decode() if encoded else body
    event["isBase64Encoded"] = encoded

    told = {"received": "evt_1", "about": created["reservationId"]}

    assert [(200, told), (200, told | {"again": True})] == [cloud.ask_with(event), cloud.ask_with(event)]
    assert "StartRequested" == cloud.find_only(Reservation).state
    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


@pytest.mark.note("F35")
def test_link_payment_webhook_starts_charge(cloud):
    created = cloud.bring_online().create()
    cloud.pay_with_link(created)
    body = build_webhook(created["reservationId"])

    answer = cloud.ask("POST", "/payments/webhook", body, stripe_signature=sign(body))

    assert (200, {"received": "evt_1", "about": created["reservationId"]}) == answer
    assert ("StartRequested", "authorised") == (cloud.find_only(Reservation).state, cloud.find_only(Reservation).money)
    assert 1 == cloud.posted_text().count("RemoteStartTransaction")


@pytest.mark.note("F35", "F62")
def test_webhook_for_unpaid_checkout_changes_nothing(cloud):
    created = cloud.bring_online().create()
    body = build_webhook(created["reservationId"])

    status, _ = cloud.ask("POST", "/payments/webhook", body, stripe_signature=sign(body))

    assert 200 == status
    assert "PendingPayment" == cloud.find_only(Reservation).state


@pytest.mark.note("F62")
@pytest.mark.parametrize("secret", ["whsec_other", None])
def test_bad_webhook_signature_returns_400(cloud, secret):
    created = cloud.bring_online().create()
    cloud.pay(created["reservationId"])
    before = cloud.table.entities()
    body = build_webhook(created["reservationId"])
    headers = {"stripe_signature": sign(body, secret)} if secret else {}

    status, said = cloud.ask("POST", "/payments/webhook", body, **headers)

    assert (400, "InvalidSignature") == (status, said["status"])
    assert before == cloud.table.entities()


@pytest.mark.parametrize("reservation_id", [None, NOBODY, "not-one-of-ours"])
def test_unrelated_webhook_is_acknowledged(cloud, reservation_id):
    body = build_webhook(reservation_id)

    answer = cloud.ask("POST", "/payments/webhook", body, stripe_signature=sign(body))

    assert (200, {"received": "evt_1", "about": None}) == answer
