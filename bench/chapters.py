"""Usage of the product by stations, drivers, operators and schedules, in chapters, so that it can be counted. A new
route or outbox kind belongs into one of the CHAPTERS. An action that is in none is sent once, with its smallest
payload."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from websockets.exceptions import InvalidStatus

from bench.meter import CountError, Meter
from bench.payloads import minimal_payload
from csms.model import Protocol, format_time
from csms.ocpp.versions import DIALECTS
from infra import routes
from local import maintain, stack, story
from local.client import Api, ReceivedCall, Socket, connect_station
from local.gateway.queue import Message, build_record
from stand_ins.stripe import PaymentStandIn

PASSWORD: Final = "a password of 1"  # noqa: S105 - of a station that lives for seconds
OPERATOR: Final = "an operator"
TARIFF: Final = {"currency": "EUR", "pricePerKwh": "59.5", "sessionFee": 50, "maxEnergyWh": 30_000}
REGISTRATION: Final = {"connectors": [1, 2], "tariff": TARIFF, "password": PASSWORD}
REASON: Final = "It is counted."
SAMPLES: Final = 3
MINUTE: Final = timedelta(minutes=1)

WEBHOOK_EVENT_TYPES: Final = frozenset(
    {"checkout.session.completed", "checkout.session.expired", "payment_intent.amount_capturable_updated"}
)
"""The events that the endpoint in Stripe is registered for (docs/deploying.md)."""

Json = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Site:
    """The running product, one station, and the station's users."""

    meter: Meter
    url: str
    client: Any
    stand_in: PaymentStandIn
    identity: str
    socket: Socket | None = None
    energy_wh: int = 1000
    delivered_events: int = 0
    sent_actions: set[str] = field(default_factory=set)

    @property
    def ocpp_url(self) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/ocpp"

    @property
    def driver(self) -> Api:
        return Api(url=self.url)

    @property
    def operator(self) -> Api:
        return Api(url=self.url, token=OPERATOR)

    @property
    def station(self) -> Socket:
        if self.socket is None:
            raise CountError("the station is not connected")
        return self.socket

    def wait_for(self, kind: str, act: Callable[[], Any]) -> Any:
        """Run `act` and return its result, after the invocation of this kind that it causes has ended."""
        times = self.meter.ended[kind] + 1
        result = act()
        self.meter.wait_for(kind, times)
        return result

    def send_call(self, action: str, **payload: Any) -> Json:
        """Send a CALL as the station, and return the answer."""
        self.sent_actions.add(action)
        return self.station.call(action, **payload)

    def report_status(self, raw: str, connector: int = 1) -> None:
        self.send_call("StatusNotification", connectorId=connector, errorCode="NoError", status=raw, timestamp=now())

    def answer_call(self, action: str, **answer: Any) -> ReceivedCall:
        """Answer a CALL of csms as the station, and return it after the answer was processed."""
        return self.wait_for(f"answer to {action}", lambda: self.station.accept_call(action, **answer))

    def age_last_seen(self) -> None:
        """Set the station's last sign of life two minutes back, so that its next message renews the lease."""
        self.client.update_item(
            TableName=stack.TABLE,
            Key={"PK": {"S": f"STATION#{self.identity.lower()}"}, "SK": {"S": "PRESENCE"}},
            UpdateExpression="SET last_seen_at = :then",
            ConditionExpression="attribute_exists(PK)",
            ExpressionAttributeValues={":then": {"S": format_time(datetime.now(UTC) - 2 * MINUTE)}},
        )

    def create_reservation(self) -> Json:
        """Create a reservation whose driver is on the checkout page."""
        wish = {"chargePointId": self.identity, "connectorId": 1}
        return self.driver.request_ok("POST", "/payments/create", wish)

    def create_paid_reservation(self) -> str:
        """Create a reservation whose driver has paid, and return its id. The provider's events are not delivered
        yet."""
        created = self.create_reservation()
        story.pay(created["checkoutUrl"])
        return str(created["reservationId"])

    def deliver_webhooks(self) -> None:
        """Deliver every event since the last call, in order."""
        news, self.delivered_events = self.stand_in.events[self.delivered_events :], len(self.stand_in.events)
        for event in news:
            if event["type"] in WEBHOOK_EVENT_TYPES:
                body, signature = self.stand_in.sign_event(event)
                self.driver.request_ok("POST", "/payments/webhook", body, stripe_signature=signature)

    def send_operator_command(self, path: str, expected: str, **more: Any) -> Json:
        """Send an operator's action, and return the answer."""
        return self.operator.request_ok("POST", f"/operations/{path}", {"reason": REASON, "expected": expected, **more})

    def start_session(self) -> tuple[str, int]:
        """Start a session; return its reservation id and transaction id."""
        reservation_id = self.create_paid_reservation()
        self.deliver_webhooks()
        return reservation_id, self.start_transaction(self.answer_call("RemoteStartTransaction").payload["idTag"])

    def start_transaction(self, id_tag: str) -> int:
        started = self.send_call(
            "StartTransaction", connectorId=1, idTag=id_tag, meterStart=self.energy_wh, timestamp=now()
        )
        return int(started["transactionId"])

    def send_meter_values(self, transaction_id: int) -> None:
        self.energy_wh += 4000
        context = {"context": "Sample.Periodic", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
        power = {"context": "Sample.Periodic", "measurand": "Power.Active.Import", "unit": "W", "value": "22000.0"}
        values = [{"timestamp": now(), "sampledValue": [{"value": str(self.energy_wh), **context}, power]}]
        self.send_call("MeterValues", connectorId=1, transactionId=transaction_id, meterValue=values)

    def stop_transaction(
        self, transaction_id: int, *, energy_wh: int | None = None, reason: str = "EVDisconnected"
    ) -> None:
        """Send StopTransaction as the station."""
        meter = self.energy_wh if energy_wh is None else energy_wh
        facts = {"meterStop": meter, "timestamp": now(), "reason": reason}
        self.send_call("StopTransaction", transactionId=transaction_id, **facts)

    def finish_session(self, transaction_id: int) -> None:
        """Stop and unplug as the driver, and wait until what is owed for the session was performed."""

        def leave() -> None:
            self.stop_transaction(transaction_id)
            self.report_status("Finishing")
            self.age_last_seen()
            self.report_status("Available")

        self.wait_for("perform capture", leave)

    def create_payment_under_review(self) -> str:
        """Create a reservation whose capture the provider refuses, and return its id."""
        reservation_id, transaction_id = self.start_session()
        self.send_meter_values(transaction_id)
        self.stand_in.fail_next("payment_intents.capture", status=400)
        self.finish_session(transaction_id)
        return reservation_id


@contextmanager
def connect_site(site: Site, *, counted: bool = True) -> Iterator[None]:
    """Connect the station until the block ends. If not `counted`, opening the socket, its first frame (which looks up
    whose socket it is) and closing it are not part of the chapter."""
    chapter = site.meter.chapter
    with ExitStack() as socket:
        site.meter.chapter = chapter if counted else None
        site.socket = socket.enter_context(connect_station(site.ocpp_url, site.identity, PASSWORD))
        if not counted:
            site.send_call("Heartbeat")
        site.meter.chapter = chapter
        yield
        site.meter.chapter = chapter if counted else None
        site.wait_for("$disconnect", socket.close)
        site.meter.chapter = chapter


def now() -> str:
    """The time as stations write it."""
    return format_time(datetime.now(UTC))


def registration(site: Site) -> None:
    """An operator registers the station."""
    site.operator.request_ok("PUT", f"/operations/stations/{site.identity}", REGISTRATION)


def arrival(site: Site) -> None:
    """The station boots and reports its statuses."""
    with connect_site(site):
        site.send_call(
            "BootNotification",
            chargePointVendor="A vendor of chargers",
            chargePointModel="Model 22",
            chargePointSerialNumber="0123456789ABCDEF",
            firmwareVersion="1.2.3",
        )
        for connector in (0, 1, 2):
            site.report_status("Available", connector)


def reconnect(site: Site) -> None:
    """The station reconnects after API Gateway has cut the connection. Its first frame looks up whose socket it is."""
    with connect_site(site):
        site.send_call("Heartbeat")


def heartbeat(site: Site) -> None:
    """One Heartbeat."""
    with connect_site(site, counted=False):
        site.send_call("Heartbeat")


def session(site: Site) -> None:
    """A driver charges and pays, from the page to the bill, with all messages of a usual session."""
    with connect_site(site, counted=False):
        site.driver.request_ok("GET", f"/payments/connectors/{site.identity}/1")
        site.age_last_seen()
        reservation_id = site.create_paid_reservation()
        site.deliver_webhooks()
        tag = site.answer_call("RemoteStartTransaction").payload["idTag"]
        site.driver.request_ok("POST", "/payments/confirm", {"reservationId": reservation_id})
        site.age_last_seen()
        site.report_status("Preparing")
        site.send_call("Authorize", idTag=tag)
        transaction_id = site.start_transaction(tag)
        site.report_status("Charging")
        for _ in range(SAMPLES):
            site.age_last_seen()
            site.send_meter_values(transaction_id)
            site.driver.request_ok("GET", f"/payments/status/{reservation_id}")
        site.age_last_seen()
        site.finish_session(transaction_id)
        site.deliver_webhooks()
        site.driver.request_ok("GET", f"/payments/receipt/{reservation_id}")
        done = site.driver.request_ok("GET", f"/payments/status/{reservation_id}")
        if (done["status"], done["money"]) != ("Completed", "captured"):
            raise CountError(f"the session ended as {done['status']}, money {done['money']}")


def abandoned_checkout(site: Site) -> None:
    """A driver leaves the checkout page with its cancel button."""
    with connect_site(site, counted=False):
        reservation_id = site.create_reservation()["reservationId"]
        site.driver.request_ok("POST", "/payments/cancel", {"reservationId": reservation_id})
        site.deliver_webhooks()


def moved_driver(site: Site) -> None:
    """The connector of a driver who pays fails, and they continue at the other one, where they have plugged in."""
    with connect_site(site, counted=False):
        reservation_id = site.create_reservation()["reservationId"]
        site.report_status("Faulted", 1)
        story.pay(site.driver.request_ok("GET", f"/payments/status/{reservation_id}")["checkoutUrl"])
        site.deliver_webhooks()
        site.report_status("Preparing", 2)
        there = {"reservationId": reservation_id, "connectorId": 2}
        site.driver.request_ok("POST", "/payments/move", there)
        site.answer_call("RemoteStartTransaction")
        site.driver.request_ok("POST", "/payments/cancel", {"reservationId": reservation_id})
        site.wait_for("perform release", lambda: site.answer_call("TriggerMessage"))
        site.deliver_webhooks()
        for connector_id in (1, 2):
            site.report_status("Available", connector_id)


def refused_start(site: Site) -> None:
    """The station rejects the remote start of a paid reservation in both forms of the tag, and the hold is released."""
    with connect_site(site, counted=False):
        site.create_paid_reservation()
        site.deliver_webhooks()
        site.answer_call("RemoteStartTransaction", status="Rejected")
        site.wait_for("perform release", lambda: site.answer_call("RemoteStartTransaction", status="Rejected"))
        site.deliver_webhooks()


def timer(site: Site) -> None:
    """A timer goes off, and the station has answered the CALL meanwhile."""
    wake = {"stationId": site.identity.lower(), "callId": "answered"}
    message = Message(body=json.dumps({"wake": wake}))
    record = build_record(message, routes.TIMERS.name, count=1, first_at=message.sent_at)
    maintain.invoke_maintenance(site.url, {"Records": [record]})


def sweep(site: Site) -> None:
    """A sweep with nothing due."""
    maintain.invoke_maintenance(site.url, {})


def operator_actions(site: Site) -> None:
    """Every action of operators, each once."""
    operator, identity = site.operator, site.identity
    with connect_site(site, counted=False):
        operator.request_ok("GET", "/operations/stations?limit=50")
        operator.request_ok("GET", f"/operations/stations/{identity}")
        operator.request_ok("GET", f"/operations/stations/{identity}/connectors/1/occupancy")
        site.send_operator_command(f"stations/{identity}/trigger-status", "Online")
        operator.request_ok("GET", f"/operations/stations/{identity}/commands")
        operator.request_ok("GET", f"/operations/stations/{identity}/messages")
        operator.request_ok("GET", f"/operations/stations/{identity}/refused-connections")
        for _ in range(2):
            site.answer_call("TriggerMessage")
        site.report_status("Faulted", 2)
        site.send_operator_command(f"stations/{identity}/connectors/2/reset-status", "Faulted")
        site.answer_call("TriggerMessage")
        site.report_status("Available", 2)
        cancelled = site.create_reservation()["reservationId"]
        site.wait_for(
            "perform expire-checkout",
            lambda: site.send_operator_command(f"reservations/{cancelled}/cancel", "PendingPayment"),
        )
        site.deliver_webhooks()
        _, transaction_id = site.start_session()
        site.send_meter_values(transaction_id)
        site.send_operator_command(f"transactions/{transaction_id}/close", "Open")
        site.answer_call("RemoteStopTransaction")
        site.wait_for("perform capture", lambda: site.stop_transaction(transaction_id))
        site.report_status("Available")
        site.deliver_webhooks()
        _, transaction_id = site.start_session()
        site.send_meter_values(transaction_id)
    site.wait_for("perform capture", lambda: site.send_operator_command(f"transactions/{transaction_id}/close", "Open"))
    with connect_site(site, counted=False):
        # The real stop reports less than was billed, so the difference is refunded.
        site.wait_for("perform refund", lambda: site.stop_transaction(transaction_id, energy_wh=site.energy_wh - 1000))
        site.report_status("Available")
        site.deliver_webhooks()


def payment_reviews(site: Site) -> None:
    """The provider refuses four captures, and operators resolve each in another way."""
    operator = site.operator
    with connect_site(site, counted=False):
        retried, billed, released, settled = (site.create_payment_under_review() for _ in range(4))
        operator.request_ok("GET", "/operations/payments")
        operator.request_ok("GET", f"/operations/payments/{retried}")
        site.wait_for(
            "perform capture", lambda: site.send_operator_command(f"payments/{retried}/retry", "needs_review")
        )
        site.wait_for(
            "perform capture",
            lambda: site.send_operator_command(f"payments/{billed}/bill", "needs_review", energyWh=3000),
        )
        site.wait_for(
            "perform release", lambda: site.send_operator_command(f"payments/{released}/release", "needs_review")
        )
        site.send_operator_command(f"payments/{settled}/settle", "needs_review", capturedAmount=0)
        site.deliver_webhooks()


def idle_overstay(site: Site) -> None:
    """A full car stays plugged in where idle time is billed, until an operator ends the session."""
    idle = TARIFF | {"idlePricePerMinute": "10", "idleMaximum": 500}
    site.operator.request_ok("PUT", f"/operations/stations/{site.identity}", REGISTRATION | {"tariff": idle})
    with connect_site(site, counted=False):
        reservation_id, transaction_id = site.start_session()
        site.send_meter_values(transaction_id)
        site.report_status("SuspendedEV")
        site.stop_transaction(transaction_id, reason="Local")
        site.report_status("Finishing")
        site.wait_for(
            "perform capture",
            lambda: site.send_operator_command(f"reservations/{reservation_id}/settle", "WaitingForDisconnect"),
        )
        site.report_status("Available")
        site.deliver_webhooks()
    site.operator.request_ok("PUT", f"/operations/stations/{site.identity}", REGISTRATION)


def unknown_station(site: Site) -> None:
    """A station that is not registered tries to connect, is accepted and deleted again."""
    name = f"{site.identity}-stranger"
    with suppress(InvalidStatus), connect_station(site.ocpp_url, name, PASSWORD):
        raise CountError(f"{name} was let in")
    operator = site.operator
    operator.request_ok("GET", "/operations/unknown-stations")
    operator.request_ok("POST", f"/operations/unknown-stations/{name}/accept", REGISTRATION)
    operator.request_ok("DELETE", f"/operations/stations/{name}")


def reconciliation(site: Site) -> None:
    """Reconciliation without a difference between the provider and our reservations."""
    maintain.invoke_maintenance(site.url, {"reconcile": True})


def vendor(site: Site) -> None:
    """The station sends a vendor-specific DataTransfer, and then every action that no other chapter sends."""
    dialect = DIALECTS[Protocol.OCPP16]
    with connect_site(site, counted=False):
        site.send_call("DataTransfer", vendorId="a.vendor", messageId="greeting", data="{}")
        for action in sorted(dialect.actions.keys() - site.sent_actions):
            site.send_call(action, **minimal_payload(dialect.schemas, action))


CHAPTERS: Final = (
    registration,
    arrival,
    reconnect,
    heartbeat,
    session,
    abandoned_checkout,
    moved_driver,
    refused_start,
    vendor,
    operator_actions,
    payment_reviews,
    idle_overstay,
    unknown_station,
    timer,
    sweep,
    reconciliation,
)
"""The chapters in the order in which they run. How often each occurs is in bench.cost_model."""
