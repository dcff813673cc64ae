"""The installation under test, and the stations registered for the test, which are deleted again."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex, token_urlsafe
from typing import Any, Final
from urllib.parse import quote

from local.client import PATIENCE_S, Api, ClientError, Socket, connect_station, is_local
from local.story import SESSION_FEE, TENTHS_OF_A_CENT_PER_KWH

TARIFF: Final = {
    "currency": "EUR",
    "pricePerKwh": str(TENTHS_OF_A_CENT_PER_KWH / 10),
    "sessionFee": SESSION_FEE,
    "maxEnergyWh": 30_000,
}
BOOT: Final = {"chargePointVendor": "csms", "chargePointModel": "smoke"}
REASON: Final = "The smoke test cleans up."
POLL_S: Final = 0.5

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredStation:
    """A station that is registered for the time of the smoke test."""

    identity: str
    password: str = field(repr=False)

    @property
    def path(self) -> str:
        return f"/operations/stations/{quote(self.identity, safe='')}"


@dataclass(slots=True, kw_only=True)
class Site:
    """The installation: `url` is the OCPP endpoint without the identity, `api` has the operator's token, and `say`
    prints progress.

    `direct` and `direct_api` are the addresses of the WebSocket API and the HTTP API themselves, around the edge, if
    they are known. `patience_s` is how many seconds to wait for what comes without a request: an answer, a webhook, a
    $disconnect.
    """

    url: str
    api: Api
    say: Callable[[str], None]
    long: bool = False
    direct: str | None = None
    direct_api: str | None = None
    pay_minutes: float = 10.0
    patience_s: float = 120.0
    name: str = field(default_factory=lambda: f"SMOKE-{token_hex(4).upper()}")
    registered: list[RegisteredStation] = field(default_factory=list)

    @property
    def is_local(self) -> bool:
        """Whether it is the stack on this machine and not AWS."""
        return is_local(self.url)

    @property
    def quiet_s(self) -> float:
        """How many seconds without a frame count as no answer."""
        return 1.0 if self.is_local else 4.0

    @property
    def driver(self) -> Api:
        return Api(url=self.api.url, patience=self.api.patience)

    def register_station(self, suffix: str = "") -> RegisteredStation:
        """Register a new station with one connector, which exists until clean_up."""
        station = RegisteredStation(identity=f"{self.name}{suffix}", password=token_urlsafe(15))
        self.registered.append(station)
        self.api.request_ok("PUT", station.path, {"connectors": [1], "tariff": TARIFF, "password": station.password})
        return station

    @contextmanager
    def connect_station(self, station: RegisteredStation, **how: Any) -> Iterator[Socket]:
        """The station's socket."""
        with connect_station(
            self.url, station.identity, station.password, patience=min(self.patience_s, PATIENCE_S), **how
        ) as socket:
            yield socket

    def occupancy(self, station: RegisteredStation) -> Json:
        return self.api.request_ok("GET", f"{station.path}/connectors/1/occupancy")

    def count_timeline_entries(self, station: RegisteredStation, kind: str) -> int:
        """How many timeline entries of this kind the station has."""
        return sum(entry["kind"] == kind for entry in self.occupancy(station)["timeline"])

    def wait_until(self, what: str, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until the condition is true. Raises ClientError when `seconds`, or else `patience_s`, are over."""
        patience = seconds or self.patience_s
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise ClientError(f"waited {patience:.0f} s for {what}")
            time.sleep(POLL_S)

    def clean_up(self) -> list[str]:
        """Delete every station, after ending its session. Returns one line for each that could not be deleted."""
        return [problem for station in self.registered if (problem := self._remove_station(station)) is not None]

    def _remove_station(self, station: RegisteredStation) -> str | None:
        try:
            if self.api.ask("GET", station.path).status == 404:
                return None
            self._end_session(station)
            answer = self.api.ask("DELETE", station.path)
        except ClientError as failed:
            return f"{station.identity} is still registered: {failed}"
        return (
            None if answer.status == 200 else f"{station.identity} is still registered: {answer.status} {answer.body}"
        )

    def _end_session(self, station: RegisteredStation) -> None:
        seen = self.occupancy(station)
        running, held = seen["transaction"], seen["reservation"]
        if running is not None:
            order = {"reason": REASON, "expected": running["state"]}
            self.api.ask("POST", f"/operations/transactions/{running['transactionId']}/close", order)
            self.wait_until("the end of a closed transaction", lambda: self.occupancy(station)["transaction"] is None)
        elif held is not None and held["locksConnector"]:
            order = {"reason": REASON, "expected": held["state"]}
            self.api.ask("POST", f"/operations/reservations/{held['reservationId']}/cancel", order)
