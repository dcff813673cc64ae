"""What every OCPP action, HTTP route and outbox item takes: requests, request units, bytes. It runs bench.chapters with
the real handlers behind the local gateway, over real sockets and a real engine, and counts.

`python -m bench.counted` (`make count`) writes changes into the budgets (bench/budgets.md) and prints them; a test
compares. `find_missing` names what no chapter reaches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "layers/core/python"))

from bench import budgets
from bench.budgets import BillsByChapter, Budgets
from bench.chapters import CHAPTERS, OPERATOR, Site
from bench.meter import CountError, Meter
from csms.adapters.dynamodb import table_definition
from csms.model import OutboxKind
from csms.ocpp.versions import DIALECTS
from infra import routes
from local import database, mail, maintain, stack, story
from local.client import ClientError
from local.gateway import Gateway
from local.gateway import run_gateway as gateway_running
from stand_ins.stripe import PaymentStandIn

WEBHOOK_SECRET: Final = "whsec_counted"  # noqa: S105 - of the stand-in, which nobody else reaches

CALLER_BY_KIND: Final[Mapping[OutboxKind, str]] = {
    OutboxKind.OPEN_CHECKOUT: "POST /payments/create",
    OutboxKind.EXPIRE_CHECKOUT: "POST /payments/cancel",
    OutboxKind.EMAIL_RECEIPT: "perform capture",
}
"""The outbox items that their own request performs, and under which they are counted; maintenance performs the
others."""


def count_operations() -> BillsByChapter:
    """The bills by chapter and kind. Raises CountError or another error of one line if a chapter does not run as
    expected."""
    with ExitStack() as parts:
        engine = parts.enter_context(database.start())
        client = database.client(engine.endpoint)
        definition = table_definition(stack.TABLE)
        database.create_table(client, definition)
        meter = Meter(definition, client)
        parts.enter_context(redirect_stdout(meter.capture_log(sys.stdout)))
        stand_in = PaymentStandIn(api_key="sk_test_counted", webhook_secret=WEBHOOK_SECRET, webhook_url=None)
        payments_url = parts.enter_context(stand_in.run_in_thread())
        secrets = stack.Secrets(origin="counted", webhook=WEBHOOK_SECRET, operator=OPERATOR)
        port = database.free_port()
        url = f"http://{stack.HOST}:{port}"
        settings = stack.environment(
            engine, url, secrets, stripe_key="sk_test_counted", payments_url=payments_url, mails=True
        )
        meter.listen()
        as_on_aws = {"POWERTOOLS_LOG_LEVEL": "INFO", "POWERTOOLS_METRICS_DISABLED": "false"}
        whole_session_in_seconds = {"MAX_POWER_KW": "1000000", "POWER_TOLERANCE_PERCENT": "1000000000"}
        handlers = parts.enter_context(stack.load_functions(settings | as_on_aws | whole_session_in_seconds))
        gateway = Gateway(
            {name: meter.wrap(name, handler) for name, handler in handlers.items()},
            origin_secret=secrets.origin,
            operator_token=OPERATOR,
            web=stack.ROOT / "web",
            extra={mail.ROUTE: mail.mail_handler(Path(parts.enter_context(TemporaryDirectory())))},
            # Timers are taken and do not go off, because they would at any moment of a later chapter.
            take_timer=lambda _: None,
        )
        parts.enter_context(gateway_running(gateway, host=stack.HOST, port=port))
        # The first run is not counted, because it opens connections and imports modules.
        for identity, kept in (("WARM-UP-1", False), ("COUNTED-1", True)):
            site = Site(meter=meter, url=url, client=client, stand_in=stand_in, identity=identity)
            site.delivered_events = len(stand_in.events)
            for chapter in CHAPTERS:
                meter.chapter = chapter.__name__ if kept else None
                chapter(site)
        meter.chapter = None
        if meter.failed:
            raise CountError(meter.failed[0])
        return meter.bills


def find_missing(reached: Collection[str]) -> list[str]:
    """The operations that no chapter reaches: add each to one of the CHAPTERS."""
    actions = [action for dialect in DIALECTS.values() for action in dialect.actions]
    http = [f"{route.method} {route.path}" for route in routes.HTTP]
    sockets = [key for key in routes.WEBSOCKET if key != "$default"]
    owed = [CALLER_BY_KIND.get(kind, f"perform {kind}") for kind in OutboxKind]
    return [
        kind
        for kind in dict.fromkeys((*sockets, *actions, *http, *owed, "wake", "sweep", "reconcile"))
        if kind not in reached
    ]


def main(arguments: list[str]) -> int:
    """Return 0 if the count was written or printed, and 1 if it failed or did not reach every operation."""
    parser = argparse.ArgumentParser(prog="python -m bench.counted", description="Count what everything takes.")
    parser.add_argument("--json", action="store_true", help="print every bill instead of writing the budgets")
    wanted = parser.parse_args(arguments)
    try:
        fresh = count_operations()
    except (CountError, ClientError, story.StoryError, database.DatabaseError, maintain.MaintainError) as failed:
        print(failed, file=sys.stderr)
        return 1
    if wanted.json:
        rows = {
            chapter: {k: [bill.to_json() for bill in b] for k, b in kinds.items()} for chapter, kinds in fresh.items()
        }
        print(json.dumps(rows))
        return 0
    lines = budgets.renew(_load_known_budgets(), fresh)
    budgets.save(lines)
    print(budgets.FILE.read_text())
    print(f"{budgets.FILE.name} written: {len(lines)} budgets. Now `make docs`.")
    uncounted = find_missing(budgets.operations(lines))
    for operation in uncounted:
        print(f"{operation} is not counted: add it to a chapter of bench/chapters.py.", file=sys.stderr)
    return 1 if uncounted else 0


def _load_known_budgets() -> Budgets:
    """The budgets so far, or none if they cannot be read, because the new ones replace them."""
    try:
        return budgets.load()
    except (FileNotFoundError, ValueError):
        return ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
