"""`python -m local.maintain`: run one sweep of the running product now. With --dry-run it reports what is due and
changes nothing; with --reconcile it compares the provider's authorizations with our reservations instead."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local.database import CREDENTIALS
from local.invoke import REGION
from local.terminal import escape_values

FUNCTION: Final = "maintenance"
CREDENTIALS_FILE: Final = Path(__file__).parents[1] / ".local" / "credentials.json"

Json = dict[str, Any]


class MaintainError(Exception):
    """The sweep did not run. The message is one line for the user."""


def read_secret_key(path: Path) -> str:
    """The secret key of the installation with these credentials. Raises MaintainError before its first run."""
    try:
        return str(json.loads(path.read_text())["aws"])
    except (OSError, ValueError, KeyError):
        raise MaintainError(f"There is no secret key in {path} yet: `make run` makes it.") from None


def invoke_maintenance(url: str, wanted: Json, *, secret_key: str = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]) -> Json:
    """Invoke the maintenance function of the product at `url` through Lambda's Invoke API, as on AWS, and return its
    report."""
    client = boto3.client(
        "lambda",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret_key,
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )
    try:
        answer = client.invoke(FunctionName=FUNCTION, Payload=json.dumps(wanted).encode())
        report: Json = escape_values(json.load(answer["Payload"]))
    except (ClientError, BotoCoreError, ValueError) as failed:
        raise MaintainError(f"No maintenance at {url}: {failed}. Does `make run` run?") from None
    if "FunctionError" in answer:
        raise MaintainError(f"Maintenance failed: {report.get('errorMessage', 'no reason given')}")
    return report


def render_sweep(report: Json, *, dry_run: bool) -> str:
    """What the sweep did or would do, line by line."""
    if dry_run:
        return "\n".join(report["planned"]) or "Nothing is due."
    done = [f"{count} {kind}" for kind, count in report["done"].items()]
    lines = [f"Done: {', '.join(done)}." if done else "Nothing was due."]
    lines += [f"Failed, and due again: {one}" for one in report["failed"]]
    lines += [f"Left to the next sweep: {count} of {station}" for station, count in report["over_share"].items()]
    return "\n".join(
        lines if report["is_complete"] else [*lines, "The time was up: the rest is left to the next sweep."]
    )


def render_reconciliation(report: Json) -> str:
    """The result of the reconciliation, line by line."""
    counted = f"{report['authorizations']} held by the provider, {report['reservations']} by our books"
    lines = [f"Held by the provider only: {one}" for one in report["unknown"]]
    lines += [f"Held by our books only: {one}" for one in report["missing"]]
    return "\n".join((f"{counted}: {len(lines) or 'no'} difference{'' if len(lines) == 1 else 's'}.", *lines))


def main(arguments: list[str]) -> int:
    """Return 0 if everything due was done or no differences were found, and 1 otherwise, also if the product does not
    run."""
    parser = argparse.ArgumentParser(
        prog="python -m local.maintain", description="Run one sweep of the running product now."
    )
    parser.add_argument("--dry-run", action="store_true", help="report what is due, and change nothing")
    parser.add_argument(
        "--reconcile", action="store_true", help="compare the provider's authorizations with our reservations"
    )
    parser.add_argument(
        "--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8080}", help="the address of the running product"
    )
    parser.add_argument("--credentials-file", type=Path, default=CREDENTIALS_FILE, help="default: that of `make run`")
    wanted = parser.parse_args(arguments)
    try:
        report = invoke_maintenance(
            wanted.url.rstrip("/"),
            {"reconcile": True} if wanted.reconcile else {"dryRun": wanted.dry_run},
            secret_key=read_secret_key(wanted.credentials_file),
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
