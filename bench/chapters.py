"""What stations, drivers, operators and the clock do with the product, chapter by chapter, to be counted. A new route
or effect belongs into one of the CHAPTERS; an action that stands in none is said once, with the least it must have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from websockets.exceptions import InvalidStatus

from bench.meter import CountError, Meter
from bench.payloads import least
from csms.model import Protocol, format_time
from csms.ocpp.spoken import DIALECTS
from local import maintain, stack, story
from local.client import Api, Request, Socket, dialled
from stand_ins.stripe import PaymentStandIn

PASSWORD: Final = "a password of 1"  # noqa: S105 - of a station that lives for seconds
OPERATOR: Final = "an operator"
TARIFF: Final = {"currency": "EUR", "pricePerKwh": "59.5", "sessionFee": 50, "maxEnergyWh": 30_000}
REGISTRATION: Final = {"connectors": [1, 2], "tariff": TARIFF, "password": PASSWORD}
WHY: Final = "It is counted."
SAMPLES: Final = 3
MINUTE: Final = timedelta(minutes=1)

HEARD_BY_WEBHOOK: Final = frozenset(
    {"checkout.session.completed", "checkout.session.expired", "payment_intent.amount_capturable_updated"}
)
"""What the endpoint in Stripe is registered for (docs/deploying.md)."""

Json = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Site:
    """The running product, one station of it, and who uses it."""

    meter: Meter
    url: str
    client: Any
    stand_in: PaymentStandIn
    identity: str
    socket: Socket | None = None
    energy_wh: int = 1000
    heard: int = 0
    said: set[str] = field(default_factory=set)

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
        """What the act gives, when the invocation of this kind that it leads to has ended."""
        times = self.meter.ended[kind] + 1
        result = act()
        self.meter.wait_for(kind, times)
        return result

    def says(self, action: str, **payload: Any) -> Json:
        """The answer to the station's CALL."""
        self.said.add(action)
        return self.station.call(action, **payload)

    def status(self, raw: str, connector: int = 1) -> None:
        self.says("StatusNotification", connectorId=connector, errorCode="NoError", status=raw, timestamp=now())

    def answers(self, action: str, **answer: Any) -> Request:
        """What the station was asked, when its answer was heard."""
        return self.wait_for(f"answer to {action}", lambda: self.station.accept(action, **answer))

    def minute_passes(self) -> None:
        """The station's last sign of life is long enough ago for its lease to be renewed with the next message."""
        self.client.update_item(
            TableName=stack.TABLE,
            Key={"PK": {"S": f"STATION#{self.identity.lower()}"}, "SK": {"S": "PRESENCE"}},
            UpdateExpression="SET last_seen_at = :then",
            ConditionExpression="attribute_exists(PK)",
            ExpressionAttributeValues={":then": {"S": format_time(datetime.now(UTC) - 2 * MINUTE)}},
        )

    def created(self) -> Json:
        """A reservation whose driver is on the checkout page."""
        wish = {"chargePointId": self.identity, "connectorId": 1}
        return self.driver.good("POST", "/payments/create", wish)

    def paid(self) -> str:
        """The reservation of a driver who paid; the provider's events wait to be delivered."""
        created = self.created()
        story.pay(created["checkoutUrl"])
        return str(created["reservationId"])

    def webhooks(self) -> None:
        """Every event since the last time is delivered, in its order."""
        news, self.heard = self.stand_in.events[self.heard :], len(self.stand_in.events)
        for event in news:
            if event["type"] in HEARD_BY_WEBHOOK:
                body, signature = self.stand_in.signed(event)
                self.driver.good("POST", "/payments/webhook", body, stripe_signature=signature)

    def orders(self, path: str, expected: str, **more: Any) -> Json:
        """What an operator's action answers."""
        return self.operator.good("POST", f"/operations/{path}", {"reason": WHY, "expected": expected, **more})

    def charging(self) -> tuple[str, int]:
        """A reservation that charges, and its transaction."""
        reservation_id = self.paid()
        self.webhooks()
        return reservation_id, self.begun(self.answers("RemoteStartTransaction").payload["idTag"])

    def begun(self, id_tag: str) -> int:
        started = self.says("StartTransaction", connectorId=1, idTag=id_tag, meterStart=self.energy_wh, timestamp=now())
        return int(started["transactionId"])

    def metered(self, transaction_id: int) -> None:
        self.energy_wh += 4000
        context = {"context": "Sample.Periodic", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
        power = {"context": "Sample.Periodic", "measurand": "Power.Active.Import", "unit": "W", "value": "22000.0"}
        values = [{"timestamp": now(), "sampledValue": [{"value": str(self.energy_wh), **context}, power]}]
        self.says("MeterValues", connectorId=1, transactionId=transaction_id, meterValue=values)

    def stop(self, transaction_id: int, *, energy_wh: int | None = None, reason: str = "EVDisconnected") -> None:
        """The transaction is over, as the station says it."""
        meter = self.energy_wh if energy_wh is None else energy_wh
        facts = {"meterStop": meter, "timestamp": now(), "reason": reason}
        self.says("StopTransaction", transactionId=transaction_id, **facts)

    def leaves(self, transaction_id: int) -> None:
        """The driver stops and unplugs, and what is owed for it is performed."""

        def leave() -> None:
            self.stop(transaction_id)
            self.status("Finishing")
            self.minute_passes()
            self.status("Available")

        self.wait_for("perform capture", leave)

    def under_review(self) -> str:
        """A reservation whose capture the provider refused."""
        reservation_id, transaction_id = self.charging()
        self.metered(transaction_id)
        self.stand_in.fail_next("payment_intents.capture", status=400)
        self.leaves(transaction_id)
        return reservation_id


@contextmanager
def connected(site: Site, *, counted: bool = True) -> Iterator[None]:
    """The station's socket is open in the block. If not counted, opening it, its first frame, which asks whose socket
    it is, and closing it are no part of the chapter."""
    chapter = site.meter.chapter
    with ExitStack() as socket:
        site.meter.chapter = chapter if counted else None
        site.socket = socket.enter_context(dialled(site.ocpp_url, site.identity, PASSWORD))
        if not counted:
            site.says("Heartbeat")
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
    site.operator.good("PUT", f"/operations/stations/{site.identity}", REGISTRATION)


def arrival(site: Site) -> None:
    """The station has booted, and says how it is."""
    with connected(site):
        site.says(
            "BootNotification",
            chargePointVendor="A vendor of chargers",
            chargePointModel="Model 22",
            chargePointSerialNumber="0123456789ABCDEF",
            firmwareVersion="1.2.3",
        )
        for connector in (0, 1, 2):
            site.status("Available", connector)


def reconnect(site: Site) -> None:
    """API Gateway cut the connection, and the station is back; its first frame asks whose the new socket is."""
    with connected(site):
        site.says("Heartbeat")


def heartbeat(site: Site) -> None:
    """One Heartbeat."""
    with connected(site, counted=False):
        site.says("Heartbeat")


def session(site: Site) -> None:
    """A driver charges and pays, from the page to the bill, and the station says what stations say."""
    with connected(site, counted=False):
        site.driver.good("GET", f"/payments/connectors/{site.identity}/1")
        site.minute_passes()
        reservation_id = site.paid()
        site.webhooks()
        tag = site.answers("RemoteStartTransaction").payload["idTag"]
        site.driver.good("POST", "/payments/confirm", {"reservationId": reservation_id})
        site.minute_passes()
        site.status("Preparing")
        site.says("Authorize", idTag=tag)
        transaction_id = site.begun(tag)
        site.status("Charging")
        for _ in range(SAMPLES):
            site.minute_passes()
            site.metered(transaction_id)
            site.driver.good("GET", f"/payments/status/{reservation_id}")
        site.minute_passes()
        site.leaves(transaction_id)
        site.webhooks()
        site.driver.good("GET", f"/payments/receipt/{reservation_id}")
        done = site.driver.good("GET", f"/payments/status/{reservation_id}")
        if (done["status"], done["money"]) != ("Completed", "captured"):
            raise CountError(f"the session ended as {done['status']}, money {done['money']}")


def abandoned(site: Site) -> None:
    """A driver leaves the checkout page by its cancel button."""
    with connected(site, counted=False):
        reservation_id = site.created()["reservationId"]
        site.driver.good("POST", "/payments/cancel", {"reservationId": reservation_id})
        site.webhooks()


def refused(site: Site) -> None:
    """The station does not start what was paid for, and the driver's hold goes back."""
    with connected(site, counted=False):
        site.paid()
        site.webhooks()
        site.wait_for("perform release", lambda: site.answers("RemoteStartTransaction", status="Rejected"))
        site.webhooks()


def sweep(site: Site) -> None:
    """The clock finds nothing to do."""
    maintain.asked(site.url, {})


def operated(site: Site) -> None:
    """What operators do, each once."""
    operator, identity = site.operator, site.identity
    with connected(site, counted=False):
        operator.good("GET", "/operations/stations?limit=50")
        operator.good("GET", f"/operations/stations/{identity}")
        operator.good("GET", f"/operations/stations/{identity}/connectors/1/occupancy")
        site.orders(f"stations/{identity}/trigger-status", "Online")
        operator.good("GET", f"/operations/stations/{identity}/commands")
        for _ in range(2):
            site.answers("TriggerMessage")
        site.status("Faulted", 2)
        site.orders(f"stations/{identity}/connectors/2/reset-status", "Faulted")
        site.answers("TriggerMessage")
        site.status("Available", 2)
        cancelled = site.created()["reservationId"]
        site.wait_for(
            "perform expire-checkout", lambda: site.orders(f"reservations/{cancelled}/cancel", "PendingPayment")
        )
        site.webhooks()
        _, transaction_id = site.charging()
        site.metered(transaction_id)
        site.wait_for("perform capture", lambda: site.orders(f"transactions/{transaction_id}/close", "Open"))
        site.answers("RemoteStopTransaction")
        # The real stop says less than what was billed, and the rest goes back.
        site.wait_for("perform refund", lambda: site.stop(transaction_id, energy_wh=site.energy_wh - 1000))
        site.status("Available")
        site.webhooks()


def reviewed(site: Site) -> None:
    """The provider refuses four captures, and operators see to each in another way."""
    operator = site.operator
    with connected(site, counted=False):
        retried, billed, released, settled = (site.under_review() for _ in range(4))
        operator.good("GET", "/operations/payments")
        operator.good("GET", f"/operations/payments/{retried}")
        site.wait_for("perform capture", lambda: site.orders(f"payments/{retried}/retry", "needs_review"))
        site.wait_for("perform capture", lambda: site.orders(f"payments/{billed}/bill", "needs_review", energyWh=3000))
        site.wait_for("perform release", lambda: site.orders(f"payments/{released}/release", "needs_review"))
        site.orders(f"payments/{settled}/settle", "needs_review", capturedAmount=0)
        site.webhooks()


def left_plugged(site: Site) -> None:
    """A car that is full stays, where that costs something, until an operator ends it."""
    idle = TARIFF | {"idlePricePerMinute": "10", "idleMaximum": 500}
    site.operator.good("PUT", f"/operations/stations/{site.identity}", REGISTRATION | {"tariff": idle})
    with connected(site, counted=False):
        reservation_id, transaction_id = site.charging()
        site.metered(transaction_id)
        site.status("SuspendedEV")
        site.stop(transaction_id, reason="Local")
        site.status("Finishing")
        site.wait_for(
            "perform capture", lambda: site.orders(f"reservations/{reservation_id}/settle", "WaitingForDisconnect")
        )
        site.status("Available")
        site.webhooks()
    site.operator.good("PUT", f"/operations/stations/{site.identity}", REGISTRATION)


def stranger(site: Site) -> None:
    """A station that nobody registered knocks, is accepted and deleted again."""
    name = f"{site.identity}-stranger"
    with suppress(InvalidStatus), dialled(site.ocpp_url, name, PASSWORD):
        raise CountError(f"{name} was let in")
    operator = site.operator
    operator.good("GET", "/operations/strangers")
    operator.good("POST", f"/operations/strangers/{name}/accept", REGISTRATION)
    operator.good("DELETE", f"/operations/stations/{name}")


def reconciled(site: Site) -> None:
    """The clock compares the provider's books with ours, which agree."""
    maintain.asked(site.url, {"reconcile": True})


def vendor(site: Site) -> None:
    """The station says something of its vendor's own, and then what it said in no chapter before."""
    dialect = DIALECTS[Protocol.OCPP16]
    with connected(site, counted=False):
        site.says("DataTransfer", vendorId="a.vendor", messageId="greeting", data="{}")
        for action in sorted(dialect.actions.keys() - site.said):
            site.says(action, **least(dialect.schemas, action))


CHAPTERS: Final = (
    registration,
    arrival,
    reconnect,
    heartbeat,
    session,
    abandoned,
    refused,
    vendor,
    operated,
    reviewed,
    left_plugged,
    stranger,
    sweep,
    reconciled,
)
"""In the order in which they are lived through; how often each comes is said in bench.cost."""
