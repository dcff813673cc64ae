"""`python -m local.run`: run the whole product on this machine until Ctrl-C, with its data under .local/."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from secrets import token_urlsafe
from threading import Event
from typing import Final

from csms_observer import escape
from local import operator_token
from local.database import DatabaseError, Engine
from local.gateway import IN_ORDER, OVERLAPPING
from local.stack import ROOT, Options, Secrets, Site, Stack, StackError, end_on_signals, run_stack, stripe_key
from local.terminal import escape_lines, log_to_terminal

DATA: Final = ROOT / ".local"
PORT: Final = 8080
STATIONS: Final = ("DEMO-1", "DEMO-2")
DEMO_SPEED: Final = 60.0

Credentials = Mapping[str, str]


def credentials(path: Path) -> Credentials:
    """The secrets of this installation, created at its first run and readable only by this user."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        kept: Credentials = json.loads(path.read_text())
        return kept
    made = {"origin": token_urlsafe(24), "webhook": f"whsec_{token_urlsafe(24)}"}
    made |= {station: token_urlsafe(15) for station in STATIONS}
    with os.fdopen(descriptor, "w") as file:
        json.dump(made, file, indent=2)
    return made


def options(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Options:
    """The options of the command line and the environment. Raises StackError if they are invalid."""
    key = stripe_key(environ)
    DATA.mkdir(exist_ok=True)
    secrets = credentials(DATA / "credentials.json")
    webhook = environ.get("STRIPE_WEBHOOK_SECRET") if key else None
    return Options(
        sites=tuple(Site(identity=station, password=secrets[station]) for station in STATIONS),
        secrets=Secrets(
            origin=secrets["origin"],
            webhook=webhook or secrets["webhook"],
            operator=operator_token.ensure_token(DATA / operator_token.TOKEN_FILE.name),
            stripe_key=key,
        ),
        data=DATA,
        port=arguments.port,
        engine=arguments.engine,
        speed=arguments.speed,
        delivery=OVERLAPPING if arguments.overlap else IN_ORDER,
        on_event=print_event if arguments.verbose else lambda _identity, _event: None,
    )


def print_event(identity: str, event: str) -> None:
    print(escape(f"{identity} {event}"), flush=True)


def banner(stack: Stack, speed: float) -> str:
    token = DATA / operator_token.TOKEN_FILE.name
    payments = f"the stand-in at {stack.payments_url}" if stack.payments_url else "Stripe itself, in test mode"
    lines = [
        "csms runs. Ctrl-C ends it.",
        "",
        f"  Database   {stack.database.engine}, data in {stack.database.where}",
        f"  Payments   {payments}",
        f"  Mails      written to {DATA / 'mail'}",
        f"  Chargers   {stack.ocpp_url}/<identity>, passwords in {DATA / 'credentials.json'}",
        f"             The demo chargers plug in by themselves, and charge {speed:g} times as fast as real ones.",
        f'  Operators  curl -H "Authorization: Bearer $(cat {token})" {stack.url}/operations/stations',
        "",
        "  Open one of these, start, and pay with a test card:",
        "",
        *(
            f"    {stack.url}/cp/{identity}/{connector}"
            for identity, charger in stack.chargers.items()
            for connector in charger.connectors
        ),
        "",
    ]
    return "\n".join(lines)


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(text)
    return number


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.run", description="Run the whole product on this machine.")
    parser.add_argument("--port", type=port, default=os.environ.get("PORT") or PORT, help="default: PORT, or 8080")
    parser.add_argument("--engine", choices=[str(it) for it in Engine], help="default: the first one there is")
    parser.add_argument("--speed", type=float, default=DEMO_SPEED, help="how fast the demo chargers charge")
    parser.add_argument("--overlap", action="store_true", help="reorder a charger's frames, as API Gateway may do")
    parser.add_argument("--verbose", action="store_true", help="print what the demo chargers send and receive")
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse_arguments(sys.argv[1:])
    end_on_signals()
    log_to_terminal()
    try:
        with run_stack(options(arguments, os.environ)) as stack:
            print(banner(stack, arguments.speed), flush=True)
            Event().wait()
    except KeyboardInterrupt:
        print("csms has stopped.")
        return 0
    except (StackError, DatabaseError) as error:
        print(escape_lines(str(error)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
