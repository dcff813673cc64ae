"""`python -m local.maintain`: one sweep of the running stack now; with --dry-run what it would do, with --reconcile the
provider's books against ours instead."""

import argparse
import json
import os
import sys
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.database import CREDENTIALS
from local.invoke import REGION

FUNCTION: Final = "maintenance"

Json = dict[str, Any]


class MaintainError(Exception):
    """The sweep did not happen; the message is one line for the person at the keyboard."""


def invoke_maintenance(url: str, wanted: Json) -> Json:
    """The report of the maintenance function of the stack at url, asked as on AWS: through Lambda's Invoke API."""
    client = boto3.client(
        "lambda",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )
    try:
        answer = client.invoke(FunctionName=FUNCTION, Payload=json.dumps(wanted).encode())
        report: Json = json.load(answer["Payload"])
    except (ClientError, BotoCoreError, ValueError) as failed:
        raise MaintainError(f"No maintenance at {url}: {failed}. Does `make run` run?") from None
    if "FunctionError" in answer:
        raise MaintainError(f"Maintenance failed: {report.get('errorMessage', 'no reason given')}")
    return report


def render_sweep(report: Json, *, dry_run: bool) -> str:
    """What was done, or would be, line by line."""
    if dry_run:
        return "\n".join(report["planned"]) or "Nothing is due."
    done = [f"{count} {kind}" for kind, count in report["done"].items()]
    lines = [f"Done: {', '.join(done)}." if done else "Nothing was due."]
    return "\n".join((*lines, *(f"Failed, and due again: {one}" for one in report["failed"])))


def render_reconciliation(report: Json) -> str:
    """What the books say, line by line."""
    counted = f"{report['authorizations']} held by the provider, {report['reservations']} by our books"
    lines = [f"Held by the provider only: {one}" for one in report["unknown"]]
    lines += [f"Held by our books only: {one}" for one in report["missing"]]
    return "\n".join((f"{counted}: {len(lines) or 'no'} difference{'' if len(lines) == 1 else 's'}.", *lines))


def main(arguments: list[str]) -> int:
    """0 when all that was due is done and no books differ, 1 otherwise, or when nobody was there to do it."""
    parser = argparse.ArgumentParser(prog="python -m local.maintain", description="One sweep, now.")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say what is due")
    parser.add_argument("--reconcile", action="store_true", help="compare the payment provider's books with ours")
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8080}", help="the running stack")
    wanted = parser.parse_args(arguments)
    try:
        report = invoke_maintenance(
            wanted.url.rstrip("/"), {"reconcile": True} if wanted.reconcile else {"dryRun": wanted.dry_run}
        )
    except MaintainError as error:
        print(error, file=sys.stderr)
        return 1
    if wanted.reconcile:
        print(render_reconciliation(report))
        return 1 if report["unknown"] or report["missing"] else 0
    print(render_sweep(report, dry_run=wanted.dry_run))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
