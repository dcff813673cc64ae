"""Prints what an installation costs on AWS per month: `python -m bench.cost --help`, or `make cost STATIONS=50`. The
calculation is in bench.cost_model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Final

from bench.budgets import Budgets, load
from bench.cost_model import (
    LARGEST,
    Assumptions,
    Use,
    break_even_stations,
    container_costs,
    monthly_use,
    prices,
    serverless_costs,
)

SIZES: Final = (10, 100, 1_000, 10_000)
LEVERS_AT: Final = 1_000
LEVERS: Final[tuple[tuple[str, dict[str, float]], ...]] = (
    ("twice the sessions", {"sessions": 4}),
    ("MeterValues every 300 s", {"meter": 300}),
    ("a Heartbeat every 540 s", {"heartbeat": 540}),
    ("the session's page open for 10 minutes instead of 3", {"watched_minutes": 10}),
)
"""Assumptions to change one at a time, to show their effect."""


def report(a: Assumptions, budgets: Budgets) -> Iterator[str]:
    """The bill by service and by station, compared with a container."""
    bill, listed = serverless_costs(a, budgets), prices()
    total = sum(bill.values())
    station, _ = monthly_use(a, budgets)
    yield (
        f"{a.stations:,.0f} stations, each {a.sessions:g} sessions of {a.session_minutes:g} minutes a day, a Heartbeat "
        f"every {a.heartbeat:g} s, MeterValues every {a.meter:g} s."
    )
    yield f"{listed['currency']} a month, {listed['region']}, list prices read {listed['read']}, without free tiers."
    yield ""
    yield f"{'service':<40}{'a month':>12}{'a station':>12}{'share':>8}"
    for service, cost in bill.items():
        yield f"{service:<40}{cost:>12,.2f}{_format_per_station(cost, a):>12}{cost / total:>8.0%}"
    yield f"{'together':<40}{total:>12,.2f}{_format_per_station(total, a):>12}{1:>8.0%}"
    yield ""
    yield (
        f"A station's month: {station.frames:,.0f} messages, {station.http_requests:,.0f} HTTP requests, "
        f"{station.invocations:,.0f} invocations of {_mean_ms(station):.0f} ms, {station.write_units:,.0f} write and "
        f"{station.read_units:,.0f} read units."
    )
    yield ""
    yield f"{'':<40}{'serverless':>12}{'container':>12}{'in two zones':>14}"
    for stations in sorted({*SIZES, int(a.stations)} - {0}):
        at = replace(a, stations=stations)
        ways = (serverless_costs(at, budgets), *(container_costs(at, budgets, zones=zones) for zones in (1, 2)))
        costs = [sum(way.values()) for way in ways]
        yield f"{f'{stations:,} stations':<40}{costs[0]:>12,.2f}{costs[1]:>12,.2f}{costs[2]:>14,.2f}"
    yield ""
    yield _describe_break_even(a, budgets)


def markdown(budgets: Budgets) -> str:
    """The table for the docs: the default fleet at several sizes, by service."""
    a = Assumptions()
    bills = [serverless_costs(replace(a, stations=stations), budgets) for stations in SIZES]
    lines = [
        _describe_assumptions(a),
        "",
        f"| | {' | '.join(f'{stations:,} stations' for stations in SIZES)} |",
        f"| --- {'| ---: ' * len(SIZES)}|",
        *(f"| {service} | {' | '.join(f'{bill[service]:,.2f}' for bill in bills)} |" for service in bills[0]),
        f"| **together** | {' | '.join(f'**{sum(bill.values()):,.2f}**' for bill in bills)} |",
        "| a station | "
        + " | ".join(f"{sum(bill.values()) / n:,.2f}" for bill, n in zip(bills, SIZES, strict=True))
        + " |",
        "",
        f"Without any station it costs {sum(serverless_costs(replace(a, stations=0), budgets).values()):,.2f}. "
        + _describe_break_even(a, budgets),
        "",
        f"What moves it, at {LEVERS_AT:,} stations: {'; '.join(_levers(budgets))}.",
    ]
    return "\n".join(lines) + "\n"


def _describe_break_even(a: Assumptions, budgets: Budgets) -> str:
    """The fleet size from which a container gateway costs less, in one sentence."""
    one, two = (break_even_stations(a, budgets, zones=zones) for zones in (1, 2))
    if one is None or two is None:
        return f"A container gateway (Fargate behind an NLB) is cheaper for no fleet of up to {LARGEST:,} stations."
    return (
        f"A container gateway for the sockets (Fargate behind an NLB, the rest as it is) is cheaper from about {one:,} "
        f"stations on in one zone, and from about {two:,} in two."
    )


def _levers(budgets: Budgets) -> Iterator[str]:
    """How a change of one assumption changes the total."""
    a = Assumptions(stations=LEVERS_AT)
    usual = sum(serverless_costs(a, budgets).values())
    for what, change in LEVERS:
        changed = sum(serverless_costs(replace(a, **change), budgets).values())
        yield f"{what} {changed / usual - 1:+.0%}"


def _describe_assumptions(a: Assumptions) -> str:
    """The assumptions behind the figures."""
    listed = prices()
    return (
        f"{listed['currency']} a month in {listed['region']} at list prices read {listed['read']}, without free tiers; "
        f"{a.sessions:g} sessions of {a.session_minutes:g} minutes a station and day, a Heartbeat every "
        f"{a.heartbeat:g} s, MeterValues every {a.meter:g} s."
    )


def _format_per_station(cost: float, a: Assumptions) -> str:
    return f"{cost / a.stations:,.4f}" if a.stations else "-"


def _mean_ms(use: Use) -> float:
    return use.lambda_ms / use.invocations


def amount(text: str) -> float:
    """Parse a number that is not negative."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> Any:
        """Print the message in one line, and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def parse_arguments(arguments: list[str]) -> Assumptions:
    """The assumptions, with the command line's values."""
    parser = Parser(
        prog="python -m bench.cost",
        description="What an installation costs on AWS a month, by service and station.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for it in fields(Assumptions):
        name = f"--{it.name.replace('_', '-')}"
        parser.add_argument(name, type=amount, default=it.default, metavar="N", help=it.metadata["help"])
    wanted = vars(parser.parse_args(arguments))
    for name in ("heartbeat", "meter", "poll", "task_vcpu", "task_load", "task_connections", "nlcu_connections"):
        if not wanted[name]:
            parser.error(f"--{name.replace('_', '-')} must be more than 0")
    return Assumptions(**wanted)


def main(arguments: list[str]) -> int:
    """Print the report and return 0."""
    print("\n".join(report(parse_arguments(arguments), load())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
