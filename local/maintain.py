"""`python -m local.maintain`: one sweep of the running stack now; with --dry-run what it would do."""

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


def swept(url: str, *, dry_run: bool) -> Json:
    """The report of a sweep by the stack at url, asked for as on AWS: through Lambda's Invoke API."""
    client = boto3.client(
        "lambda",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )
    try:
        answer = client.invoke(FunctionName=FUNCTION, Payload=json.dumps({"dryRun": dry_run}).encode())
        report: Json = json.load(answer["Payload"])
    except (ClientError, BotoCoreError, ValueError) as failed:
        raise MaintainError(f"No sweep at {url}: {failed}. Does `make run` run?") from None
    if "FunctionError" in answer:
        raise MaintainError(f"The sweep failed: {report.get('errorMessage', 'no reason given')}")
    return report


def rendered(report: Json, *, dry_run: bool) -> str:
    """What was done, or would be, line by line."""
    if dry_run:
        return "\n".join(report["planned"]) or "Nothing is due."
    done = [f"{count} {kind}" for kind, count in report["done"].items()]
    lines = [f"Done: {', '.join(done)}." if done else "Nothing was due."]
    return "\n".join((*lines, *(f"Failed, and due again: {one}" for one in report["failed"])))


def main(arguments: list[str]) -> int:
    """0 when all that was due is done, 1 when some of it failed or nobody was there to do it."""
    parser = argparse.ArgumentParser(prog="python -m local.maintain", description="One sweep, now.")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say what is due")
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('PORT') or 8080}", help="the running stack")
    wanted = parser.parse_args(arguments)
    try:
        report = swept(wanted.url.rstrip("/"), dry_run=wanted.dry_run)
    except MaintainError as error:
        print(error, file=sys.stderr)
        return 1
    print(rendered(report, dry_run=wanted.dry_run))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
