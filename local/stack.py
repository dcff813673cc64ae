"""The product on a laptop as one context: database, payments, the functions behind the gateway, the schedules and the
chargers."""

import asyncio
import errno
import logging
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from html import escape
from math import ceil
from pathlib import Path
from secrets import token_urlsafe
from threading import Thread
from types import FrameType, MappingProxyType
from typing import Final
from urllib.parse import quote

from aiohttp import web
from ocpp.v16.enums import Reason

from csms.adapters.dynamodb import Store, table_definition
from csms.model import Policy, Tariff
from csms.ocpp.versions import DIALECTS
from csms.service import Dependencies, Stations
from infra import routes
from local import database, mail
from local.charger import DemoCharger
from local.database import Database
from local.functions import load_functions
from local.gateway import IN_ORDER, Delivery, Gateway, Respond, Schedule
from local.gateway import run_gateway as gateway_running
from local.gateway.events import STAGE
from local.gateway.queue import queue_url
from stand_ins.stripe import PaymentStandIn

ROOT: Final = Path(__file__).parents[1]
HOST: Final = "127.0.0.1"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - only if the user asks for it
TABLE: Final = "csms"
FAREWELL_S: Final = 5.0
OPERATOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "OPERATOR_NAME": "Example Charging",
        "OPERATOR_ADDRESS": "1 Example Street\n12345 Example Town",
        "OPERATOR_VAT_NUMBER": "XX 000 000 000",
        "OPERATOR_CONTACT": "help@example.com",
    }
)
"""The issuer of the receipts, unless the environment names another one."""

SENDER: Final = "Example Charging <receipts@example.com>"
RATE: Final = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")


class StackError(Exception):
    """The stack cannot start. The message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A station to register, and the energy that the car at its simulated charger takes. One that is not simulated
    has no charger but that of the user."""

    identity: str
    password: str
    connectors: int = 2
    energy_wh: int = 10_000
    simulated: bool = True
    tariff: Tariff = field(
        default_factory=lambda: Tariff(
            currency="EUR", energy_price=Decimal("59.5"), session_fee=50, max_energy_wh=30_000
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secrets that the parts authenticate each other with. `operator` is the operators' token; `stripe_key` is a
    test key of Stripe, or None for the stand-in; with `aws` the requests to the AWS APIs are signed."""

    origin: str
    webhook: str
    operator: str = field(default_factory=lambda: token_urlsafe(24), repr=False)
    stripe_key: str | None = None
    aws: str = field(default=database.CREDENTIALS["AWS_SECRET_ACCESS_KEY"], repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run the stack. `data` None keeps nothing; `port` 0 takes a free one; `sweep` None keeps the sweep's own
    rate. `host` is the IPv4 address to listen on, beside that of loopback; the payment stand-in and the database listen
    on loopback alone.

    `on_event` is called with a charger's name and what it sends or receives, in the chargers' thread.
    """

    sites: tuple[Site, ...]
    secrets: Secrets
    data: Path | None = None
    host: str = HOST
    port: int = 0
    engine: str | None = None
    speed: float = 60.0
    meter_interval_s: float = 2.0
    sweep: timedelta | None = None
    delivery: Delivery = IN_ORDER
    on_event: Callable[[str, str], None] = lambda _identity, _event: None

    @property
    def mail_folder(self) -> Path | None:
        """The folder for mails, or None if nothing is kept, and then none are sent."""
        return self.data / "mail" if self.data else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The running stack. `payments_url` is the stand-in's address, or None if Stripe itself is used."""

    url: str
    database: Database
    payments_url: str | None
    stripe_key: str
    chargers: Mapping[str, DemoCharger]

    @property
    def ocpp_url(self) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/ocpp"


MOST_KW: Final = 1_000_000
"""The highest MAX_POWER_KW that the settings accept."""


@contextmanager
def run_stack(options: Options) -> Iterator[Stack]:
    """Run the whole product until the block ends. Raises StackError or DatabaseError if a part cannot start.

    Only one stack can run in a process, because the functions read the environment when they are imported.
    """
    port = options.port or database.free_port()
    also = () if options.host in {HOST, EVERYWHERE} else (options.host,)
    for address in {HOST, options.host}:
        claim(port, address)
    url = f"http://{HOST}:{port}"
    with ExitStack() as parts:
        engine = parts.enter_context(database.start(options.engine, options.data))
        dynamodb = database.client(engine.endpoint)
        database.create_table(dynamodb, table_definition(TABLE))
        stations = Stations(Dependencies(store=Store(dynamodb, TABLE), dialects=DIALECTS))
        for site in options.sites:
            numbers = tuple(range(1, site.connectors + 1))
            stations.register(site.identity, password=site.password.encode(), connectors=numbers, tariff=site.tariff)

        key = options.secrets.stripe_key or "sk_test_local"
        payments_url = None if options.secrets.stripe_key else parts.enter_context(_payments(options, url, key))
        settings = environment(
            engine,
            url,
            options.secrets,
            stripe_key=key,
            payments_url=payments_url,
            mails=options.mail_folder is not None,
        ) | {
            "MAX_POWER_KW": os.environ.get("MAX_POWER_KW", deliverable_kw(options.speed)),
            "POWER_TOLERANCE_PERCENT": os.environ.get("POWER_TOLERANCE_PERCENT", power_tolerance(options.speed)),
        }
        handlers = parts.enter_context(load_functions(settings))
        gateway = Gateway(
            handlers,
            origin_secret=options.secrets.origin,
            operator_token=options.secrets.operator,
            web=ROOT / "web",
            extra={"GET /": _index(options.sites), **_mail_service(options)},
            delivery=options.delivery,
            secret_key=options.secrets.aws,
        )
        first = EVERYWHERE if options.host == EVERYWHERE else HOST
        parts.enter_context(gateway_running(gateway, host=first, port=port, also=also))
        for row in routes.SCHEDULES:
            period = options.sweep if options.sweep and row.name == "Sweep" else _period(row.rate)
            schedule = Schedule(row.function, handlers[row.function], seconds=period.total_seconds(), payload=row.input)
            parts.enter_context(schedule)
        simulated = [site for site in options.sites if site.simulated]
        chargers = {site.identity: _charger(site, options, f"ws://{HOST}:{port}/ocpp") for site in simulated}
        parts.enter_context(run_chargers(tuple(chargers.values())))
        yield Stack(url=url, database=engine, payments_url=payments_url, stripe_key=key, chargers=chargers)


def environment(
    engine: Database, url: str, secrets: Secrets, *, stripe_key: str, payments_url: str | None, mails: bool
) -> dict[str, str]:
    """The functions' environment if the gateway is at `url`. Without `mails` no receipts are sent."""
    return {
        **engine.environment(),
        "AWS_SECRET_ACCESS_KEY": secrets.aws,
        "TABLE_NAME": TABLE,
        "WEBSOCKET_API_URL": f"{url}/{STAGE}",
        "AWS_ENDPOINT_URL_LAMBDA": url,
        "MAINTENANCE_FUNCTION": "maintenance",
        "AWS_ENDPOINT_URL_SQS": url,
        "TIMER_QUEUE_URL": queue_url(url, routes.TIMERS.name),
        "PUBLIC_URL": url,
        "ORIGIN_SECRET": secrets.origin,
        "STRIPE_API_KEY": stripe_key,
        "STRIPE_WEBHOOK_SECRET": secrets.webhook,
        **{name: os.environ.get(name, value) for name, value in OPERATOR.items()},
        "RECEIPT_SENDER": SENDER if mails else "",
        "AWS_ENDPOINT_URL_SESV2": url,
        **({"STRIPE_API_BASE": payments_url} if payments_url else {}),
        **_quiet_environment(),
    }


def stripe_key(environ: Mapping[str, str]) -> str | None:
    """The test key if Stripe itself is to be used, or None for the stand-in. Raises StackError for any other key."""
    key = environ.get("STRIPE_API_KEY", "").strip()
    if not key:
        return None
    if not key.startswith("sk_test_"):
        raise StackError("STRIPE_API_KEY is not a test key (sk_test_...): the laptop never moves real money.")
    return key


def end_on_signals() -> None:
    """Raise KeyboardInterrupt on the first Ctrl-C, SIGTERM or SIGHUP. Later ones are ignored, because they would
    interrupt the end, which stops the database."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, end)


def claim(port: int, host: str = HOST) -> None:
    """Raise StackError if the port is in use, or the address is not of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as failed:
            if failed.errno == errno.EADDRNOTAVAIL:
                raise StackError(f"HOST={host} is no address of this machine. 0.0.0.0 means all of them.") from None
            raise StackError(f"Port {port} is taken. Choose another one: PORT={port + 10} make run") from None


def power_tolerance(speed: float) -> str:
    """By how many percent the energy exceeds what the power of simulated chargers delivers if they run `speed` times as
    fast: their power is that of their own, faster clock."""
    return str(ceil((100 + Policy().power_tolerance_percent) * max(1, speed)) - 100)


def deliverable_kw(speed: float) -> str:
    """The power (kW) that the strongest charger delivers if the simulated chargers run `speed` times as fast, at most
    MOST_KW."""
    return str(ceil(min(MOST_KW, Policy().max_power_w / 1000 * max(1, speed))))


def _quiet_environment() -> dict[str, str]:
    """Variables that keep loopback off proxies and limit logs to errors, unless the environment sets them."""
    exempt = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST)))
    return {
        "NO_PROXY": exempt,
        "no_proxy": exempt,
        "POWERTOOLS_SERVICE_NAME": "csms",
        "POWERTOOLS_METRICS_NAMESPACE": "csms",
        "POWERTOOLS_METRICS_DISABLED": "true",
        "POWERTOOLS_LOG_LEVEL": os.environ.get("POWERTOOLS_LOG_LEVEL", "WARNING"),
    }


def _index(sites: tuple[Site, ...]) -> Respond:
    """The page at the root, which exists only on a laptop: a link to each connector."""
    links = "".join(
        f'<p><a class="button second" href="/cp/{quote(site.identity)}/{number}">'
        f"{escape(site.identity)}, connector {number}</a></p>"
        for site in sites
        for number in range(1, site.connectors + 1)
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>csms</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/assets/driver/driver.css">'
        f"<main><h1>Demo connectors</h1>{links}</main></html>"
    )

    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(text=page, content_type="text/html")

    return respond


def _mail_service(options: Options) -> Mapping[str, Respond]:
    """The route that takes mails, if there is a folder to keep them in."""
    return {mail.ROUTE: mail.mail_handler(options.mail_folder)} if options.mail_folder else {}


def _payments(options: Options, url: str, key: str) -> AbstractContextManager[str]:
    stand_in = PaymentStandIn(
        api_key=key,
        webhook_secret=options.secrets.webhook,
        webhook_url=f"{url}/payments/webhook",
        state_file=options.data / "payments.json" if options.data else None,
    )
    return stand_in.run_in_thread(HOST, _next_free_port(options.port))


def _next_free_port(port: int) -> int:
    """The next port if it is free, else any. Open checkouts contain the address, so it should survive a restart."""
    if port == 0:
        return 0
    try:
        claim(port + 1)
    except StackError:
        return 0
    return port + 1


def _period(rate: str) -> timedelta:
    """The duration of an EventBridge rate expression."""
    match = RATE.fullmatch(rate)
    if match is None:
        raise StackError(f"Not a rate: {rate}")
    return timedelta(**{f"{match[2]}s": int(match[1])})


def _charger(site: Site, options: Options, url: str) -> DemoCharger:
    def on_event(event: str) -> None:
        options.on_event(site.identity, event)

    return DemoCharger(
        url,
        site.identity,
        site.password,
        connectors=site.connectors,
        speed=options.speed,
        meter_interval_s=options.meter_interval_s,
        energy_wh=site.energy_wh,
        on_event=on_event,
    )


@contextmanager
def run_chargers(chargers: tuple[DemoCharger, ...]) -> Iterator[None]:
    """Run the chargers in an event loop of their own. One that fails is logged, and the others go on."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        leave = asyncio.Event()
        at_work = [asyncio.create_task(charger.run()) for charger in chargers]
        ready.set_result((asyncio.get_running_loop(), leave))
        await leave.wait()
        # A station that is switched off properly ends its transactions; open ones would keep the connector busy.
        finishing = [asyncio.create_task(charger.stop_all_sessions(Reason.power_loss)) for charger in chargers]
        if finishing:
            await asyncio.wait(finishing, timeout=FAREWELL_S)
        for task in (*at_work, *finishing):
            task.cancel()
        for outcome in await asyncio.gather(*at_work, *finishing, return_exceptions=True):
            if isinstance(outcome, Exception):
                logging.getLogger(__name__).error("a demo charger failed", exc_info=outcome)

    thread = Thread(target=lambda: asyncio.run(serve()), name="chargers")
    thread.start()
    loop, leave = ready.result()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
