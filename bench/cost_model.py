"""What an installation costs on AWS per month: what each operation takes (bench/budgets.md), times how often it occurs,
times list prices (bench/prices.json). bench.cost prints it.

What cannot be counted on a laptop is an assumption, with its reason in Assumptions. The core knows no transport, so the
same counts give the cost of a container in place of API Gateway and Lambda.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Final

from bench.budgets import Bill, Budgets

PRICES: Final = Path(__file__).with_name("prices.json")
HOURS: Final = 730.0
DAYS: Final = HOURS / 24
GB: Final = 1e9
METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH"})
CLOCK: Final = frozenset({"perform", "wake", "sweep", "reconcile"})
"""Operations that no message and no request causes directly."""
KEPT_MONTHS: Final = 3
"""How many months records with a TTL are kept (csms.model.RECORD_RETENTION is 90 days)."""
POLL_SECONDS: Final = 20
"""How long one of Lambda's requests for a queue's messages waits, the longest that SQS lets it."""
REQUESTS_PER_TIMER: Final = 3
"""SendMessage, and Lambda's ReceiveMessage and DeleteMessage."""
LARGEST: Final = 1_000_000

Costs = dict[str, float]
"""Dollars by service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """How often things happen, and what could not be counted; `help` gives the meaning or the reason."""

    stations: float = field(default=100, metadata={"help": "how many stations"})
    sessions: float = field(default=2, metadata={"help": "paid sessions a station and day"})
    session_minutes: float = field(default=60, metadata={"help": "how long one charges"})
    heartbeat: float = field(default=300, metadata={"help": "seconds between Heartbeats (HEARTBEAT_SECONDS)"})
    meter: float = field(default=60, metadata={"help": "seconds between MeterValues while it charges"})
    watched_minutes: float = field(default=3, metadata={"help": "how long a driver's session page is open and visible"})
    poll: float = field(default=2, metadata={"help": "seconds between its requests (web/driver/session.js)"})
    looks: float = field(default=4, metadata={"help": "requests of the start page before a session, one each 5 s"})
    abandoned: float = field(default=0.1, metadata={"help": "checkouts left unpaid, for each session"})
    refused: float = field(default=0.02, metadata={"help": "paid starts that a station refuses, for each session"})
    boots: float = field(default=0.2, metadata={"help": "BootNotifications a station and day"})
    drops: float = field(default=0.5, metadata={"help": "connections lost a station and day, besides the forced cuts"})
    cuts: float = field(default=12, metadata={"help": "API Gateway ends a connection after two hours"})
    vendor: float = field(default=1, metadata={"help": "DataTransfers a station and day"})
    operated: float = field(default=1, metadata={"help": "times a station and month that operators do all they can"})
    reviewed: float = field(default=0.05, metadata={"help": "times a station and month that money needs a human"})
    left_plugged: float = field(
        default=0.2, metadata={"help": "times a station and month that an operator ends a stay"}
    )

    memory_gb: float = field(default=0.5, metadata={"help": "of each function (infra/stack)"})
    cpu_ms: float = field(default=1.5, metadata={"help": "CPU for each AWS request: measured, bench/README.md"})
    provider_cpu_ms: float = field(default=5, metadata={"help": "CPU for each call of the payment provider"})
    slowdown: float = field(default=3.5, metadata={"help": "0.5 GB are 512/1769 of a vCPU, the measure was one core"})
    wait_ms: float = field(default=6, metadata={"help": "for the answer to an AWS request, within a region"})
    provider_ms: float = field(default=400, metadata={"help": "for the payment provider's answer"})
    cold_share: float = field(default=0.01, metadata={"help": "invocations that start a new environment"})
    cold_ms: float = field(default=900, metadata={"help": "its start: measured imports (0.54 s CPU) and the runtime"})

    frame_overhead: float = field(default=60, metadata={"help": "bytes of WebSocket, TLS and TCP around a frame"})
    http_overhead: float = field(default=900, metadata={"help": "bytes of headers and TLS around an HTTP answer"})
    handshake_bytes: float = field(default=6000, metadata={"help": "bytes out for TLS and upgrade of a connection"})
    page_requests: float = field(default=12, metadata={"help": "files of the driver's pages for each session"})
    page_bytes: float = field(default=60_000, metadata={"help": "of these files, compressed, nothing in the cache"})
    alarms: float = field(default=0, metadata={"help": "metrics that alarms watch: 19 with csms:alarmMail"})
    dashboards: float = field(default=0, metadata={"help": "CloudWatch dashboards (csms:dashboard)"})
    pollers: float = field(
        default=5, metadata={"help": "20 s requests that Lambda keeps open at SQS (its guide, scaling of SQS sources)"}
    )
    secrets: float = field(default=3, metadata={"help": "in Secrets Manager (infra/stack)"})
    months: float = field(default=12, metadata={"help": "age of the installation, for what it stores"})

    task_vcpu: float = field(default=0.5, metadata={"help": "vCPU of a gateway container"})
    task_gb: float = field(default=1, metadata={"help": "its memory"})
    task_connections: float = field(default=5_000, metadata={"help": "sockets it may hold"})
    task_load: float = field(default=0.6, metadata={"help": "of its CPU may be used on average"})
    nlcu_connections: float = field(default=3_000, metadata={"help": "open TLS connections to one NLCU"})


@dataclass(slots=True, kw_only=True)
class Use:
    """The usage of one month."""

    frames: float = 0.0
    handshakes: float = 0.0
    http_requests: float = 0.0
    invocations: float = 0.0
    lambda_ms: float = 0.0
    frame_cpu_ms: float = 0.0
    read_units: float = 0.0
    write_units: float = 0.0
    log_bytes: float = 0.0
    frame_bytes_out: float = 0.0
    frame_bytes_in: float = 0.0
    http_bytes_out: float = 0.0
    http_bytes_in: float = 0.0
    mails: float = 0.0
    timers: float = 0.0
    bytes_kept: float = 0.0
    bytes_kept_for_a_time: float = 0.0

    def add(self, other: Use, times: float = 1.0) -> Use:
        """This usage plus `times` the other."""
        return Use(**{it.name: getattr(self, it.name) + times * getattr(other, it.name) for it in fields(self)})


FREQUENCY: Final[Mapping[str, Callable[[Assumptions], float]]] = {
    "registration": lambda _: 0.0,
    "arrival": lambda a: a.boots * DAYS,
    "reconnect": lambda a: (a.cuts + a.drops) * DAYS,
    "heartbeat": lambda a: HOURS * 3600 / a.heartbeat,
    "session": lambda a: a.sessions * DAYS,
    "abandoned_checkout": lambda a: a.sessions * a.abandoned * DAYS,
    "moved_driver": lambda a: a.sessions * a.refused * DAYS,
    "refused_start": lambda a: a.sessions * a.refused * DAYS,
    "vendor": lambda a: a.vendor * DAYS,
    "operator_actions": lambda a: a.operated,
    "payment_reviews": lambda a: a.reviewed,
    "idle_overstay": lambda a: a.left_plugged,
    "unknown_station": lambda _: 0.0,
    "timer": lambda _: 0.0,
}
"""How often a station goes through a chapter of bench.counted in a month. What happens once in its life is not
included, and timers go off as often as the other chapters set one."""

INSTALLATION_FREQUENCY: Final[Mapping[str, float]] = {"sweep": HOURS * 60, "reconciliation": DAYS}
"""The chapters of the installation as a whole, independent of the number of stations."""

SESSION_FREQUENCY: Final[Mapping[str, Callable[[Assumptions], float]]] = {
    "MeterValues": lambda a: a.session_minutes * 60 / a.meter,
    "GET /payments/status/{reservationId}": lambda a: a.watched_minutes * 60 / a.poll,
    "GET /payments/connectors/{chargePointId}/{connectorId}": lambda a: a.looks,
}
"""How often a session has more or fewer of an operation than the counted one."""


def prices(path: Path = PRICES) -> dict[str, Any]:
    """The price list with its date, region and sources."""
    listed: dict[str, Any] = json.loads(path.read_text())
    return listed


@cache
def _price_list() -> dict[str, Any]:
    return dict(prices()["prices"])


def cost_of_quantity(name: str, quantity: float) -> float:
    """The cost of a quantity. A price may have steps, each up to a quantity."""
    usd = _price_list()[name]["usd"]
    if not isinstance(usd, list):
        return float(usd * quantity)
    total, below = 0.0, 0.0
    for limit, price in usd:
        upto = quantity if limit is None else min(quantity, limit)
        total += max(0.0, upto - below) * price
        below = max(below, upto)
    return total


def compute_use(operation: str, bill: Bill, a: Assumptions) -> Use:
    """The usage of one invocation."""
    requests, posts = bill.database_requests + bill.other_requests, bill.requests["PostToConnection"]
    cpu = a.cpu_ms * requests + a.provider_cpu_ms * bill.provider_calls
    milliseconds = cpu * a.slowdown + a.wait_ms * requests + a.provider_ms * bill.provider_calls
    use = Use(
        invocations=1,
        lambda_ms=milliseconds + a.cold_share * a.cold_ms,
        read_units=bill.read_units,
        write_units=bill.write_units,
        log_bytes=bill.log_bytes,
        mails=bill.requests["SendEmail"],
        timers=bill.requests["SendMessage"],
        bytes_kept=bill.bytes_kept,
        bytes_kept_for_a_time=bill.bytes_kept_for_a_time,
        frames=posts,
        frame_bytes_out=bill.bytes_posted + posts * a.frame_overhead,
    )
    way = operation.partition(" ")[0]
    if way in METHODS:
        use.http_requests = 1
        use.http_bytes_out = bill.bytes_out + a.http_overhead
        use.http_bytes_in = bill.bytes_in + a.http_overhead
    elif way.startswith("$connect"):
        use.handshakes = 1
        use.frame_bytes_out += a.handshake_bytes
    elif way not in CLOCK | {"$disconnect"}:
        answers = 1 if bill.bytes_out else 0  # Even an empty frame is billed as one.
        use.frames += 1 + answers
        use.frame_bytes_out += bill.bytes_out + answers * a.frame_overhead
        use.frame_bytes_in += bill.bytes_in + a.frame_overhead
        use.frame_cpu_ms = cpu
    return use


def monthly_use(a: Assumptions, budgets: Budgets) -> tuple[Use, Use]:
    """The monthly usage of one station, and of the installation besides its stations."""
    station, whole = Use(), Use()
    in_session = Counter[str]()
    for line in budgets:
        in_session[line.operation] += line.when.get("session", 0)
    for line in budgets:
        use = compute_use(line.operation, line.bill, a)
        for chapter, times in line.when.items():
            often = float(times)
            if chapter == "session" and line.operation in SESSION_FREQUENCY:
                often *= SESSION_FREQUENCY[line.operation](a) / in_session[line.operation]
            if chapter in INSTALLATION_FREQUENCY:
                whole = whole.add(use, INSTALLATION_FREQUENCY[chapter] * often)
            else:
                station = station.add(use, FREQUENCY[chapter](a) * often)
    timers = station.timers
    for line in budgets:
        if "timer" in line.when:
            station = station.add(compute_use(line.operation, line.bill, a), timers)
    return station, whole


def serverless_costs(a: Assumptions, budgets: Budgets) -> Costs:
    """The monthly cost of the stack of infra/, by service."""
    station, whole = monthly_use(a, budgets)
    use = whole.add(station, a.stations)
    sessions = a.sessions * DAYS * a.stations
    kept = use.bytes_kept * a.months + use.bytes_kept_for_a_time * min(KEPT_MONTHS, a.months)
    requests = use.http_requests + sessions * a.page_requests + use.handshakes
    out = use.http_bytes_out + use.frame_bytes_out + sessions * a.page_bytes
    return {
        "API Gateway: WebSocket messages": cost_of_quantity("websocket_message", use.frames),
        "API Gateway: connection minutes": cost_of_quantity("websocket_minute", a.stations * HOURS * 60),
        "API Gateway: HTTP requests": cost_of_quantity("http_request", use.http_requests),
        "Lambda": cost_of_quantity("lambda_request", use.invocations)
        + cost_of_quantity("lambda_gb_second", use.lambda_ms / 1000 * a.memory_gb),
        "DynamoDB: writes": cost_of_quantity("write_unit", use.write_units),
        "DynamoDB: reads": cost_of_quantity("read_unit", use.read_units),
        "DynamoDB: storage and backup": cost_of_quantity("table_gb", kept / GB)
        + cost_of_quantity("backup_gb", kept / GB),
        "CloudWatch: logs": cost_of_quantity("log_gb", use.log_bytes / GB),
        "CloudWatch: metrics, alarms, dashboard": cost_of_quantity("metric", count_custom_metrics(a, budgets))
        + cost_of_quantity("alarm", a.alarms)
        + cost_of_quantity("dashboard", a.dashboards),
        "CloudFront": cost_of_quantity("cloudfront_request", requests)
        + cost_of_quantity("cloudfront_function", requests)
        + cost_of_quantity("cloudfront_out_gb", out / GB)
        + cost_of_quantity("cloudfront_origin_gb", (use.http_bytes_in + use.frame_bytes_in) / GB),
        "EventBridge Scheduler": cost_of_quantity("schedule_run", HOURS * 60),
        "SQS: timers": cost_of_quantity(
            "queue_request", a.pollers * HOURS * 3600 / POLL_SECONDS + REQUESTS_PER_TIMER * use.timers
        ),
        "SES: receipts": cost_of_quantity("mail", use.mails),
        "Secrets Manager": cost_of_quantity("secret", a.secrets),
    }


def container_costs(a: Assumptions, budgets: Budgets, *, zones: int) -> Costs:
    """The monthly cost with the stations' sockets in Fargate tasks behind a Network Load Balancer, in so many zones.

    The core is the same, and so are the database and the functions for HTTP and schedules. Connections are not cut
    after two hours, and a task need not look up whose socket a frame came on. Load balancer and tasks have public
    addresses instead of a NAT gateway; the table is reached by a gateway endpoint, which costs nothing.
    """
    frames_too, _ = monthly_use(replace(a, cuts=0), budgets)
    functions = [line for line in budgets if not _is_websocket_operation(line.operation)]
    bill = serverless_costs(replace(a, cuts=0), budgets)
    rest = serverless_costs(replace(a, cuts=0), functions)
    tasks = max(
        zones,
        ceil(a.stations / a.task_connections),
        ceil(a.stations * frames_too.frame_cpu_ms / (HOURS * 3.6e6 * a.task_vcpu * a.task_load)),
    )
    frame_gb = a.stations * (frames_too.frame_bytes_out + frames_too.frame_bytes_in) / GB
    del bill["API Gateway: WebSocket messages"], bill["API Gateway: connection minutes"]
    return bill | {
        "Lambda": rest["Lambda"],
        "CloudFront": rest["CloudFront"],
        "Fargate": tasks
        * (
            cost_of_quantity("fargate_vcpu_hour", HOURS * a.task_vcpu)
            + cost_of_quantity("fargate_gb_hour", HOURS * a.task_gb)
        ),
        "Network Load Balancer": cost_of_quantity("balancer_hour", HOURS)
        + cost_of_quantity("balancer_unit_hour", max(a.stations / a.nlcu_connections * HOURS, frame_gb)),
        "Public IPv4 addresses": cost_of_quantity("public_ipv4_hour", HOURS * (zones + tasks)),
        "Data out and between zones": cost_of_quantity("internet_out_gb", a.stations * frames_too.frame_bytes_out / GB)
        + (cost_of_quantity("between_zones_gb", frame_gb) if zones > 1 else 0.0),
    }


def count_custom_metrics(a: Assumptions, budgets: Budgets) -> int:
    """The number of custom metrics published in a month. Without stations there are none, because a metric is published
    only when something happens."""
    if not a.stations:
        return 0
    lived = {chapter for chapter, often in FREQUENCY.items() if often(a) > 0} | set(INSTALLATION_FREQUENCY)
    return len({name for line in budgets if not lived.isdisjoint(line.when) for name in line.bill.metrics})


def break_even_stations(a: Assumptions, budgets: Budgets, *, zones: int) -> int | None:
    """The smallest fleet, to two digits, for which a container gateway costs less; None if there is none."""
    for stations in round_numbers(LARGEST):
        at = replace(a, stations=stations)
        if sum(container_costs(at, budgets, zones=zones).values()) < sum(serverless_costs(at, budgets).values()):
            return stations
    return None


def round_numbers(limit: int) -> Iterator[int]:
    """1 to 99, 100, 110 and so on: numbers with two significant digits."""
    yield from range(1, 10)
    step = 1
    while step * 10 <= limit:
        yield from range(step * 10, min(step * 100, limit + 1), step)
        step *= 10


def _is_websocket_operation(kind: str) -> bool:
    way = kind.partition(" ")[0]
    return way not in METHODS and way not in CLOCK
