"""`make smoke URL=wss://... API=https://... TOKEN=...`: the exit code is 0 if every fact that matters holds and the
bill was right, 1 if one does not, 2 for invalid arguments. The token is read from the environment only."""

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

from csms_observer import escape
from local.client import Api, ClientError, is_local
from local.stack import end_on_signals
from local.terminal import escape_lines
from smoke.facts import FACTS
from smoke.site import Site
from smoke.verdicts import Fact, Finding, Verdict, Where, check_fact

LOCAL_PATIENCE_S: Final = 20.0
REMOTE_PATIENCE_S: Final = 120.0


class SmokeError(Exception):
    """The smoke test cannot begin. The message is one line for the user."""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> Any:
        """Print the message in one line, and exit with code 2."""
        self.exit(2, f"smoke: {message}\n")


class Narrator:
    """Prints each line with the seconds since the start. Lines may come from several threads."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """Print the line at once."""
        with self._lock:
            print(f"{time.monotonic() - self._begun:7.1f} s  {escape(line)}", flush=True)


def check_facts(site: Site, facts: Sequence[Fact] = FACTS) -> list[Finding]:
    """Check each fact and return the findings in the order of the table. The checks that take long run in parallel to
    the others."""
    found: dict[str, Finding] = {}

    def check_and_report(fact: Fact) -> None:
        site.say(f"{fact.name}: {fact.asks}")
        found[fact.name] = finding = check_fact(fact, site)
        site.say(f"{fact.name}: {finding.verdict}. {finding.seen}")

    slow = [fact for fact in facts if fact.where is Where.LONG]
    beside = ThreadPoolExecutor(len(slow) or 1)
    try:
        waiting = [beside.submit(check_and_report, fact) for fact in slow]
        for fact in facts:
            if fact not in slow:
                check_and_report(fact)
        for future in waiting:
            future.result()
    finally:
        # After an interruption do not wait for the slow checks: their stations are deleted, which closes their sockets.
        beside.shutdown(wait=False, cancel_futures=True)
    return [found[fact.name] for fact in facts]


def table(results: Iterable[Finding]) -> str:
    """The findings, each with what to change if the fact does not hold."""
    lines = []
    for finding in results:
        lines.append(f"{finding.verdict:<17} {finding.fact.name:<27} {finding.seen}")
        if finding.verdict is Verdict.DOES_NOT_HOLD:
            lines.append(f"{'':<17} {'' if finding.fact.matters else 'Of minor importance. '}{finding.fact.otherwise}")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[argparse.Namespace, str]:
    """The arguments, and the operator's token from the environment."""
    parser = Parser(prog="python -m smoke", description="Ask a deployed stack what only it can tell.")
    parser.add_argument("--url", required=True, help="where stations dial, without the identity: wss://.../ocpp")
    parser.add_argument("--api", required=True, help="the HTTP API: https://...")
    parser.add_argument("--direct", help="the WebSocket API around the edge: wss://<api>.execute-api.../ocpp")
    parser.add_argument("--direct-api", help="the HTTP API around the edge: https://<api>.execute-api...")
    parser.add_argument("--long", action="store_true", help="also ask what takes up to two hours")
    parser.add_argument("--pay-minutes", type=float, default=10.0, help="how long to wait for a person to pay")
    wanted = parser.parse_args(arguments)
    for name, value, schemes in (
        ("URL", wanted.url, ("wss", "ws")),
        ("API", wanted.api, ("https", "http")),
        ("DIRECT", wanted.direct, ("wss", "ws")),
        ("DIRECT_API", wanted.direct_api, ("https", "http")),
    ):
        if value is not None and not _is_address(value, schemes):
            parser.error(f"{name} must be {schemes[0]}://..., not {value!r}")
    if not wanted.pay_minutes > 0:
        parser.error("--pay-minutes must be more than 0")
    token = environ.get("TOKEN", "").strip()
    if not token:
        parser.error("TOKEN must be an operator's token (docs/reference.md says how to get one)")
    return wanted, token


def check_access(site: Site) -> None:
    """Check that the API answers and accepts the token. Raises SmokeError if not."""
    try:
        answer = site.api.ask("GET", "/operations/stations?limit=1")
    except ClientError as failed:
        raise SmokeError(str(failed)) from None
    if answer.status != 200:
        raise SmokeError(f"{site.api.url} does not take the TOKEN: {answer.status} {answer.body}")


def main(arguments: Sequence[str], environ: Mapping[str, str], facts: Sequence[Fact] = FACTS) -> int:
    """Run the smoke test and return its exit code. What it registered is deleted, however it ends."""
    wanted, token = parse_arguments(arguments, environ)
    narrator = Narrator()
    site = Site(
        url=wanted.url.rstrip("/"),
        api=Api(url=wanted.api.rstrip("/"), token=token),
        say=narrator.say,
        long=wanted.long,
        direct=wanted.direct,
        direct_api=wanted.direct_api.rstrip("/") if wanted.direct_api else None,
        pay_minutes=wanted.pay_minutes,
        patience_s=LOCAL_PATIENCE_S if is_local(wanted.url) else REMOTE_PATIENCE_S,
    )
    try:
        check_access(site)
        results = check_facts(site, facts)
    except SmokeError as failed:
        print(f"smoke: {escape_lines(str(failed))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        narrator.say("Interrupted.")
        return 1
    finally:
        left = site.clean_up()
        for problem in left:
            print(f"smoke: {escape_lines(problem)}", file=sys.stderr)
    failed = [finding.fact.name for finding in results if finding.is_failure]
    print(f"\n{escape_lines(table(results))}\n")
    print(f"Does not hold: {', '.join(failed)}." if failed else "Every fact that matters and could be asked holds.")
    return 1 if failed or left else 0


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in schemes and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        return False


if __name__ == "__main__":
    end_on_signals()
    sys.exit(main(sys.argv[1:], os.environ))
