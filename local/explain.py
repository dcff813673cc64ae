"""`python -m local.explain <station> <connector>`: why a connector is busy, according to the running product."""

import argparse
import json
import os
import re
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from csms_observer import escape
from local import operator_token
from local.terminal import escape_values

WIDTH: Final = 100
PATIENCE_S: Final = 10.0
UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
INDENT: Final = 4
CAPITAL: Final = re.compile(r"[A-Z]")
MILLISECONDS: Final = re.compile(r"(?<=\d:\d\d)\.\d+Z$")

Json = dict[str, Any]


class ExplainError(Exception):
    """The explanation could not be read. The message is one line for the user."""


def fetch_occupancy(url: str, station: str, connector: str, token: str) -> Json:
    """The occupancy answer of the product at `url`. Raises ExplainError if there is none."""
    address = f"{url}/operations/stations/{quote(station, safe='')}/connectors/{quote(connector, safe='')}/occupancy"
    wanted = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - ours
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(wanted, timeout=PATIENCE_S) as response:
            answer: Json = escape_values(json.load(response))
    except urllib.error.HTTPError as refused:
        with refused:
            raise ExplainError(_format_refusal(refused, url)) from None
    except (OSError, ValueError) as failed:
        raise ExplainError(f"No answer from {url}: {getattr(failed, 'reason', failed)}. Does `make run` run?") from None
    return answer


def render_occupancy(answer: Json) -> str:
    """The answer as text for a terminal of 100 columns."""
    return "\n".join(line.rstrip() for line in _lines(answer))


def format_age(seconds: int | None) -> str:
    """An age in its largest whole unit, for example "3 minutes ago"."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "just now"
    unit, length = next((unit, length) for unit, length in UNITS if seconds >= length)
    count = seconds // length
    return f"{count} {unit}{'s' if count > 1 else ''} ago"


def _lines(answer: Json) -> Iterator[str]:
    verdict = "can be started" if answer["startable"] else f"is busy: {', '.join(answer['reasons'])}"
    yield from _wrap(f"{answer['identity']}, connector {answer['connectorId']}, {verdict}.", 0)
    seen = _format_facts([("at", answer["at"])])
    yield f"Station {answer['presence']['state'].lower()}, status {answer['status']['state']}, {seen}."
    yield ""
    head = ("predicate", "reason", "value", "said by", "since")
    rows = [
        (
            f["predicate"],
            f["reason"] or "-",
            f["value"] or "-",
            _shorten_source(f["source"]),
            format_age(f["ageSeconds"]),
        )
        for f in answer["findings"]
    ]
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    clears = [f["clears"] for f in answer["findings"]]
    for row, clear in zip((head, *rows), (None, *clears), strict=True):
        yield _clip("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        if clear:
            yield from _wrap(clear, INDENT)
    yield ""
    yield from _statuses(answer["status"])
    yield from _transaction(answer["transaction"])
    yield from _stop_request(answer["stopRequest"])
    yield from _reservation(answer["reservation"])
    yield "Timeline, newest first" if answer["timeline"] else "Timeline: nothing yet"
    for entry in answer["timeline"]:
        yield _clip(f"  {_format_value(entry['at'])}  {entry['kind']:<20}  {_format_facts(entry['detail'].items())}")


def _statuses(status: Json) -> Iterator[str]:
    """The live and the persisted status, and that of the station as a whole (connector 0)."""
    yield "Status"
    for name, at in (("live", "reportedAt"), ("persisted", "at"), ("station", "reportedAt")):
        said = status[name]
        if said is None:
            yield f"  {name:<10}  unknown"
            continue
        facts = {"by": said.get("source"), "at": said[at], "releaseAt": said.get("releaseAt")}
        old = ", of an earlier epoch: does not count" if said.get("counts") is False else ""
        age = format_age(said["ageSeconds"]) or "at an unknown time"
        line = f"{name:<10}  {said['raw']:<14}  {age}, {_format_facts(facts.items())}{old}"
        yield from _wrap(line, 2, hanging=30)
    yield ""


def _transaction(running: Json | None) -> Iterator[str]:
    if running is None:
        return
    yield f"Transaction {running['transactionId']}"
    yield from _wrap(_format_facts((n, v) for n, v in running.items() if n != "transactionId"), 2)
    yield ""


def _stop_request(asked: Json | None) -> Iterator[str]:
    """The transaction that the station was asked to stop and goes on with."""
    if asked is None:
        return
    obeys = "does not stop" if asked["refusedAt"] else "was asked to stop"
    yield f"The station {obeys} transaction {asked['transactionId']}"
    yield from _wrap(_format_facts((n, v) for n, v in asked.items() if n != "transactionId"), 2)
    yield ""


def _reservation(held: Json | None) -> Iterator[str]:
    if held is None:
        return
    lock = "" if held["locksConnector"] else ", which no longer locks the connector"
    yield f"Reservation {held['reservationId']}{lock}"
    names = ("state", "money", "createdAt", "expiresAt", "startDeadline", "transactionId", "maxAmount", "currency")
    yield from _wrap(_format_facts((name, held.get(name)) for name in names), 2)
    for step in held["steps"]:
        yield _clip(f"  {_format_value(step['at'])}  {step['event']:<20}  {step['detail'] or ''}")
    yield ""


def _format_facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """The known facts in one line, with names in words: "startedAt" becomes "started at"."""
    return ", ".join(
        f"{CAPITAL.sub(_lower_capital, name)} {_format_value(value)}" for name, value in pairs if value is not None
    )


def _format_value(value: Any) -> str:
    """The value as text; times have seconds as their smallest unit."""
    return MILLISECONDS.sub("Z", str(value))


def _lower_capital(capital: re.Match[str]) -> str:
    return f" {capital[0].lower()}"


def _shorten_source(source: str | None) -> str:
    """The source of a status; a reservation's id is cut, because the full id is shown below."""
    kind, _, name = (source or "-").partition(" ")
    return f"{kind} {name[:8]}…" if kind == "reservation" else source or "-"


def _wrap(text: str, indent: int, *, hanging: int | None = None) -> list[str]:
    further = indent if hanging is None else hanging
    return textwrap.wrap(
        text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * further, break_on_hyphens=False
    )


def _clip(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _format_refusal(refused: urllib.error.HTTPError, url: str) -> str:
    """The refusal in one line, with the API's own message if the answer has one."""
    if refused.code == 401:
        return f"{url} refused this operator token. It may belong to another installation."
    try:
        return f"{refused.code}: {escape(json.load(refused)['message'])}"
    except (ValueError, KeyError, TypeError):
        return f"{url} answered {refused.code}."


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.explain", description="Why is a connector busy?")
    parser.add_argument("station")
    parser.add_argument("connector")
    parser.add_argument(
        "--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8080}", help="the address of the running product"
    )
    parser.add_argument(
        "--token-file", type=Path, default=operator_token.TOKEN_FILE, help="default: that of `make run`"
    )
    wanted = parser.parse_args(arguments)
    try:
        token = operator_token.read_token(wanted.token_file)
        print(render_occupancy(fetch_occupancy(wanted.url.rstrip("/"), wanted.station, wanted.connector, token)))
    except FileNotFoundError:
        print("There is no operator's token yet: `make run` makes it.", file=sys.stderr)
        return 1
    except ExplainError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
