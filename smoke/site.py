"""The installation that is asked, and what was registered there to ask it, which is taken away again."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex, token_urlsafe
from typing import Any, Final
from urllib.parse import quote

from local.client import PATIENCE_S, Api, ClientError, Socket, dialled, local
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
class Known:
    """A station that is registered for as long as the smoke lasts."""

    identity: str
    password: str = field(repr=False)

    @property
    def path(self) -> str:
        return f"/operations/stations/{quote(self.identity, safe='')}"


@dataclass(slots=True, kw_only=True)
class Site:
    """url is where stations dial, without the identity; api has the operator's token; say tells the person how it goes.

    direct is the address of the WebSocket API itself, around the edge, where it is known. patience_s is how long to
    wait for what should come by itself: an answer, a webhook, a $disconnect.
    """

    url: str
    api: Api
    say: Callable[[str], None]
    long: bool = False
    direct: str | None = None
    pay_minutes: float = 10.0
    patience_s: float = 120.0
    name: str = field(default_factory=lambda: f"SMOKE-{token_hex(4).upper()}")
    registered: list[Known] = field(default_factory=list)

    @property
    def local(self) -> bool:
        """Whether it is this machine's own stack and not AWS."""
        return local(self.url)

    @property
    def quiet_s(self) -> float:
        """How long nothing must come to be taken for nothing."""
        return 1.0 if self.local else 4.0

    @property
    def driver(self) -> Api:
        return Api(url=self.api.url, patience=self.api.patience)

    def station(self, suffix: str = "") -> Known:
        """A new station with one connector, known to the installation until the end."""
        known = Known(identity=f"{self.name}{suffix}", password=token_urlsafe(15))
        self.registered.append(known)
        self.api.good("PUT", known.path, {"connectors": [1], "tariff": TARIFF, "password": known.password})
        return known

    @contextmanager
    def dialled(self, known: Known, **how: Any) -> Iterator[Socket]:
        """The station's socket."""
        with dialled(
            self.url, known.identity, known.password, patience=min(self.patience_s, PATIENCE_S), **how
        ) as socket:
            yield socket

    def occupancy(self, known: Known) -> Json:
        return self.api.good("GET", f"{known.path}/connectors/1/occupancy")

    def timeline(self, known: Known, kind: str) -> int:
        """How often this has happened at the station."""
        return sum(entry["kind"] == kind for entry in self.occupancy(known)["timeline"])

    def until(self, what: str, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Returns when it is so; ClientError when patience ends."""
        patience = seconds or self.patience_s
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise ClientError(f"waited {patience:.0f} s for {what}")
            time.sleep(POLL_S)

    def clean_up(self) -> list[str]:
        """Every station is deleted, with what still ran or was paid there ended first; what could not be, in a line
        each."""
        return [problem for known in self.registered if (problem := self._removed(known)) is not None]

    def _removed(self, known: Known) -> str | None:
        try:
            if self.api.ask("GET", known.path).status == 404:
                return None
            self._end_what_runs(known)
            answer = self.api.ask("DELETE", known.path)
        except ClientError as failed:
            return f"{known.identity} is still registered: {failed}"
        return None if answer.status == 200 else f"{known.identity} is still registered: {answer.status} {answer.body}"

    def _end_what_runs(self, known: Known) -> None:
        seen = self.occupancy(known)
        running, held = seen["transaction"], seen["reservation"]
        if running is not None:
            order = {"reason": REASON, "expected": running["state"]}
            self.api.ask("POST", f"/operations/transactions/{running['transactionId']}/close", order)
        elif held is not None and held["holds"]:
            order = {"reason": REASON, "expected": held["state"]}
            self.api.ask("POST", f"/operations/reservations/{held['reservationId']}/cancel", order)
