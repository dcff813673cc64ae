"""The budgets of bench/budgets.md: what one invocation of each operation takes. Tests compare them with a fresh count
(bench.counted), bench.cost_model computes costs from them, and `make count` writes them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("budgets.md")

NOT_THE_DATABASE: Final = frozenset(
    {"PostToConnection", "GetConnection", "DeleteConnection", "Invoke", "SendEmail", "SendMessage"}
)
SIZES: Final = ("bytes_in", "bytes_out", "bytes_posted", "log_bytes", "bytes_kept", "bytes_kept_for_a_time")
SLACK: Final = 0.03
DIGITS: Final = 24
"""Bytes by which two counts may differ besides 3 %, because ids and times may have more or fewer digits."""

SAME_SLACK: Final = 0.01
SAME_DIGITS: Final = 6
"""Bytes by which invocations on one line may differ; the line gives their mean."""

ORDER: Final = (r"\$", r"[A-Z]\w+$", r"answer", r"[A-Z]+ /payments", r"[A-Z]+ /operations", r"perform", r"")
"""The order of operations: sockets, frames, answers to our frames, drivers, operators, outbox items, schedules."""

OVER: Final = "over the budget"
UNDER: Final = "lower the budget"

HEAD: Final = """# Budgets

What one invocation of each operation takes. `make count` measures everything again and writes what changed; the tests
fail when an operation takes more than its budget, or less. Requests, units, provider calls and metrics are exact; bytes
may differ by 3 % and 24 bytes.

- **database**, **other**: requests to DynamoDB and to other AWS services, by name under *requests*. **provider**: calls
  of the payment provider. **read**, **write**: DynamoDB's request units.
- Bytes: **in** and **out** of the frame or the HTTP body, **posted** to a station, **log** as CloudWatch bills it,
  **kept** in the table for good, and kept for **90 days**.
- **when**: the chapters of `bench/chapters.py` in which it takes this, and how many times. An operation that takes
  something else at another time has several lines.

"""
COLUMNS: Final = (
    *("database", "other", "provider", "read", "write", "in", "out", "posted", "log", "kept", "90 days"),
    *("operation", "when", "requests", "metrics"),
)
NUMBERS: Final = 11


@dataclass(slots=True, kw_only=True)
class Bill:
    """What one invocation takes. Bytes are those of frames and of HTTP bodies."""

    requests: Counter[str] = field(default_factory=Counter)
    provider_calls: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    bytes_in: float = 0
    bytes_out: float = 0
    bytes_posted: float = 0
    log_bytes: float = 0
    bytes_kept: float = 0
    bytes_kept_for_a_time: float = 0
    metrics: set[str] = field(default_factory=set)
    engine_read_units: float = 0.0
    engine_write_units: float = 0.0

    @property
    def database_requests(self) -> int:
        """The number of requests to the database."""
        return self.requests.total() - self.other_requests

    @property
    def other_requests(self) -> int:
        """The number of requests to other services of AWS."""
        return sum(times for name, times in self.requests.items() if name in NOT_THE_DATABASE)

    def exact_values(self) -> dict[str, Any]:
        """The values that are compared exactly, by name."""
        return {
            **{f"{name} requests": times for name, times in sorted(self.requests.items())},
            "provider calls": self.provider_calls,
            "read units": self.read_units,
            "write units": self.write_units,
            **{f"metric {name}": 1 for name in sorted(self.metrics)},
        }

    def to_json(self) -> dict[str, Any]:
        """The bill as plain JSON values."""
        row = {it.name: getattr(self, it.name) for it in fields(self)}
        return row | {"metrics": sorted(self.metrics)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Bill:
        """The bill of what to_json returned."""
        more = {"requests": Counter(row["requests"]), "metrics": set(row["metrics"])}
        return cls(**{**row, **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A line of the table: the bill of one invocation, and how often it occurs in each chapter."""

    operation: str
    when: Mapping[str, int]
    bill: Bill


Budgets = Sequence[Budget]
BillsByChapter = dict[str, dict[str, list[Bill]]]
"""The bills of every invocation, by chapter and operation."""


def load(path: Path = FILE) -> Budgets:
    """Read the table. Raises ValueError if a line contradicts itself."""
    lines = path.read_text().splitlines()
    return [_parse(line) for line in lines if re.match(r"\| +\d", line)]


def save(budgets: Budgets, path: Path = FILE) -> None:
    """Write the table."""
    path.write_text(HEAD + "\n".join(_format(budgets)) + "\n")


def group(counts: BillsByChapter) -> Budgets:
    """One line for all invocations of an operation with the same bill."""
    groups: dict[str, list[list[tuple[str, Bill]]]] = defaultdict(list)
    for chapter, kinds in counts.items():
        for operation, bills in kinds.items():
            for bill in bills:
                alike = (it for it in groups[operation] if _is_alike(it[0][1], bill))
                found = next(alike, None)
                if found is None:
                    groups[operation].append(found := [])
                found.append((chapter, bill))
    lines = (
        Budget(operation=operation, when=Counter(chapter for chapter, _ in one), bill=_mean([bill for _, bill in one]))
        for operation, ones in groups.items()
        for one in ones
    )
    return sorted(lines, key=lambda line: _sort_key(line.operation))


def renew(budgets: Budgets, fresh: BillsByChapter) -> Budgets:
    """The budgets after this count. An operation whose bill has not changed keeps its lines unchanged."""
    differing = {operation for _, operation, _ in _find_differences(budgets, fresh)}
    kept = [line for line in budgets if line.operation not in differing]
    changed = [line for line in group(fresh) if line.operation in differing]
    return sorted((*kept, *changed), key=lambda line: _sort_key(line.operation))


def operations(budgets: Budgets) -> set[str]:
    """All operations that have a budget."""
    return {line.operation for line in budgets}


def compare(budgets: Budgets, fresh: BillsByChapter) -> list[str]:
    """The differences between a fresh count and the budgets, one line each: chapter, operation, number and budget."""
    return [f"{chapter}, {operation}: {why}" for chapter, operation, why in _find_differences(budgets, fresh)]


def _find_differences(budgets: Budgets, fresh: BillsByChapter) -> Iterator[tuple[str, str, str]]:
    planned: BillsByChapter = defaultdict(lambda: defaultdict(list))
    for line in budgets:
        for chapter, times in line.when.items():
            planned[chapter][line.operation] += [line.bill] * times
    both = (planned, fresh)
    pairs = {(chapter, operation) for counts in both for chapter, kinds in counts.items() for operation in kinds}
    for chapter, operation in sorted(pairs):
        old, new = (counts.get(chapter, {}).get(operation, []) for counts in both)
        yield from ((chapter, operation, why) for why in _compare_one(old, new))


def _compare_one(old: list[Bill], new: list[Bill]) -> Iterator[str]:
    if not old:
        yield "has no budget"
        return
    if not new:
        yield "does not come any more"
        return
    if len(old) != len(new):
        yield f"comes {len(new)} times, the budget is for {len(old)}"
        return
    for budget, bill in zip(*_find_unmatched(old, new), strict=True):
        for name in dict.fromkeys((*budget, *bill)):
            limit, taken = budget.get(name, 0), bill.get(name, 0)
            if taken != limit:
                yield f"{name}: {taken:g}, budget {limit:g}, {OVER if taken > limit else UNDER}"
    for name in SIZES:
        limit, taken = (sum(getattr(bill, name) for bill in bills) for bills in (old, new))
        if abs(taken - limit) > SLACK * max(abs(taken), abs(limit)) + DIGITS:
            yield f"{name}: {taken:g}, budget {limit:g}, {OVER if taken > limit else UNDER}"


def _find_unmatched(old: list[Bill], new: list[Bill]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The exact values that only one side has, ordered so that similar bills are paired."""
    left, right = ([bill.exact_values() for bill in bills] for bills in (old, new))
    for bill in list(left):
        if bill in right:
            left.remove(bill)
            right.remove(bill)
    in_order = [sorted(bills, key=lambda bill: sorted(bill.items())) for bills in (left, right)]
    return in_order[0], in_order[1]


def _is_alike(one: Bill, other: Bill) -> bool:
    if one.exact_values() != other.exact_values():
        return False
    sizes = ((getattr(one, name), getattr(other, name)) for name in SIZES)
    return all(abs(a - b) <= SAME_SLACK * max(abs(a), abs(b)) + SAME_DIGITS for a, b in sizes)


def _mean(bills: list[Bill]) -> Bill:
    """A bill with the same requests and units, and the mean of the bytes."""
    first = bills[0]
    return Bill(
        requests=first.requests,
        provider_calls=first.provider_calls,
        read_units=first.read_units,
        write_units=first.write_units,
        metrics=first.metrics,
        **{name: round(sum(getattr(bill, name) for bill in bills) / len(bills)) for name in SIZES},
    )


def _sort_key(operation: str) -> tuple[int, str]:
    place = next(n for n, pattern in enumerate(ORDER) if re.match(pattern, operation))
    way, _, rest = operation.partition(" ")
    return place, f"{rest} {way}"


def _format(budgets: Budgets) -> Iterator[str]:
    rows = [_cells(line) for line in budgets]
    widths = [max(len(row[n]) for row in (COLUMNS, *rows)) for n in range(len(COLUMNS))]
    widths[-1] = len(COLUMNS[-1])  # The last column needs no padding.
    yield _row(COLUMNS, widths)
    yield "|" + "|".join(f" {'-' * (w - 1)}{':' if n < NUMBERS else '-'} " for n, w in enumerate(widths)) + "|"
    yield from (_row(row, widths) for row in rows)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        f"{cell:>{w}}" if n < NUMBERS else f"{cell:<{w}}" for n, (cell, w) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _cells(line: Budget) -> tuple[str, ...]:
    bill = line.bill
    numbers = (bill.database_requests, bill.other_requests, bill.provider_calls, bill.read_units, bill.write_units)
    return (
        *(f"{number:g}" if number else "" for number in numbers),
        *(f"{size:.0f}" if size else "" for size in (getattr(bill, name) for name in SIZES)),
        line.operation,
        _format_counts(line.when.items()),
        _format_counts(sorted(bill.requests.items())),
        ", ".join(sorted(bill.metrics)),
    )


def _format_counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(name if times == 1 else f"{name} {times}" for name, times in counts)


def _parse(line: str) -> Budget:
    cells = [cell.strip() for cell in line.strip("|\n").split("|")]
    database, other, provider, read, write, *sizes = (float(cell or 0) for cell in cells[:NUMBERS])
    operation, when, requests, metrics = cells[NUMBERS:]
    bill = Bill(
        requests=_parse_counts(requests),
        provider_calls=int(provider),
        read_units=read,
        write_units=write,
        metrics=set(filter(None, metrics.split(", "))),
        **dict(zip(SIZES, sizes, strict=True)),
    )
    if (database, other) != (bill.database_requests, bill.other_requests):
        raise ValueError(f"{operation}: {database:g} + {other:g} requests are not {requests}")
    return Budget(operation=operation, when=_parse_counts(when), bill=bill)


def _parse_counts(text: str) -> Counter[str]:
    """Parse the counts that _list wrote."""
    names = (it.rpartition(" ") if re.search(r" \d+$", it) else (it, "", "1") for it in text.split(", ") if it)
    return Counter({name: int(times) for name, _, times in names})
