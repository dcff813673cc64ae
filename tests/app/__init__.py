"""The one driver of the product: what a station, its drivers, the operators and the clock do, each step said once, over
the few things that differ between the services in this process (in_process), a running stack (http) and the Lambda
handlers (handlers)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any, Final, Self

from csms.model import format_time

CONNECTORS: Final = (1, 2)
METER_START: Final = 1000

Json = dict[str, Any]


class App(ABC):
    """One station and who uses it; `over` names a socket, where it is not the one that the station usually has."""

    identity: str
    socket: str

    # What carries the steps

    @abstractmethod
    def connect(self, over: str | None = None) -> Any:
        """The station's socket is open."""

    @abstractmethod
    def disconnect(self, over: str | None = None) -> None:
        """The station's socket is closed."""

    @abstractmethod
    def exchange(self, action: str, *, over: str | None = None, **payload: Any) -> list[Any]:
        """The whole frame that answers the station's CALL."""

    @abstractmethod
    def accept_start(self, reservation_id: str) -> str:
        """The id tag of the remote start, which the station accepts."""

    @abstractmethod
    def create(self, connector: int = 1) -> Json:
        """What a driver is told who asks for a reservation."""

    @abstractmethod
    def pay(self, reservation_id: str) -> None:
        """The driver pays on the checkout page."""

    @abstractmethod
    def confirm(self, reservation_id: str) -> Json:
        """The driver is back from the checkout page."""

    @abstractmethod
    def cancel(self, reservation_id: str) -> Json:
        """The driver gives up."""

    @abstractmethod
    def status(self, reservation_id: str) -> Json:
        """What the driver sees of the session."""

    @abstractmethod
    def view_connector(self, connector: int = 1) -> Json:
        """What a driver sees of the connector."""

    @abstractmethod
    def sweep(self) -> Any:
        """The report of a sweep."""

    @abstractmethod
    def now(self) -> datetime:
        """The time at the station."""

    # What the station says

    def send_call(self, action: str, *, over: str | None = None, **payload: Any) -> Json:
        """The payload of the CALLRESULT."""
        answer = self.exchange(action, over=over, **payload)

        assert 3 == answer[0], answer
        return dict(answer[2])

    def boot(self, *, over: str | None = None) -> Json:
        """The station has booted."""
        return self.send_call("BootNotification", over=over, chargePointVendor="v", chargePointModel="m")

    def report_status(
        self, connector: int, status: str, *, over: str | None = None, at: datetime | None = None
    ) -> None:
        """The station says how a connector is; with `at`, when that was by its clock."""
        stamp = {"timestamp": format_time(at)} if at is not None else {}
        connector_status = {"connectorId": connector, "errorCode": "NoError", "status": status}
        self.send_call("StatusNotification", over=over, **connector_status, **stamp)

    def bring_online(self, over: str | None = None) -> Self:
        """The station connected, booted and said that its connectors are free."""
        self.connect(over)
        self.boot(over=over)
        for connector in CONNECTORS:
            self.report_status(connector, "Available", over=over)
        return self

    def start_transaction(
        self,
        id_tag: str = "CARD",
        *,
        connector: int = 1,
        meter: int = METER_START,
        at: str | None = None,
        over: str | None = None,
    ) -> int:
        """The transaction's number."""
        start = {"connectorId": connector, "idTag": id_tag, "meterStart": meter, "timestamp": at or self.time()}
        return int(self.send_call("StartTransaction", over=over, **start)["transactionId"])

    def send_meter_values(self, transaction_id: int, meter: int, *, connector: int = 1, at: str | None = None) -> None:
        """The station says what its meter reads."""
        value = {"timestamp": at or self.time(), "sampledValue": [{"value": str(meter)}]}
        self.send_call("MeterValues", connectorId=connector, transactionId=transaction_id, meterValue=[value])

    def stop_transaction(
        self, transaction_id: int | str, meter: int, *, at: str | None = None, over: str | None = None
    ) -> None:
        """The station says that the transaction is over."""
        stop = {"transactionId": transaction_id, "meterStop": meter, "timestamp": at or self.time()}
        self.send_call("StopTransaction", over=over, **stop)

    def time(self) -> str:
        """The time as a station writes it."""
        return format_time(self.now())

    # What drivers do

    def create_reservation(self, connector: int = 1) -> str:
        """A reservation whose driver is on the checkout page."""
        return str(self.create(connector)["reservationId"])

    def create_paid_reservation(self, connector: int = 1) -> str:
        """A reservation that was paid for and confirmed."""
        reservation_id = self.create_reservation(connector)
        self.pay(reservation_id)
        self.confirm(reservation_id)
        return reservation_id

    def start_session(self, connector: int = 1) -> tuple[str, int]:
        """A paid reservation whose car charges, and its transaction."""
        reservation_id = self.create_paid_reservation(connector)
        return reservation_id, self.start_transaction(self.accept_start(reservation_id), connector=connector)

    def finish_session(self, connector: int = 1, *, energy_wh: int = 10_000) -> str:
        """A session that was paid, charged and stopped."""
        reservation_id, number = self.start_session(connector)
        self.stop_transaction(number, METER_START + energy_wh)
        return reservation_id

    def is_startable(self, connector: int = 1) -> bool:
        """Whether a driver is told that a charge can begin."""
        return bool(self.view_connector(connector)["startable"])
