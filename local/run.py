"""`python -m local.run`: run the whole product on this machine until Ctrl-C, with its data under .local/."""

import argparse
import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from secrets import token_urlsafe
from typing import Final
from urllib.parse import urlsplit

from csms_observer import escape
from local import operator_token
from local.database import DatabaseError, Engine
from local.gateway import IN_ORDER, OVERLAPPING
from local.stack import (
    EVERYWHERE,
    HOST,
    ROOT,
    Options,
    Secrets,
    Site,
    Stack,
    StackError,
    end_on_signals,
    run_stack,
    stripe_key,
)
from local.terminal import escape_lines, log_to_terminal

DATA: Final = ROOT / ".local"
PORT: Final = 8080
STATIONS: Final = ("DEMO-1", "DEMO-2")
OWN_STATION: Final = "MY-CHARGER"
"""The station for the user's own charger, if chargers of the network are let in."""

OUTSIDE: Final = ("192.0.2.1", 9)
"""An address that no network has (RFC 5737)."""

DEMO_SPEED: Final = 60.0

Credentials = Mapping[str, str]


def credentials(path: Path) -> Credentials:
    """The secrets of this installation, created at its first run, or at the first of a release that needs more of them,
    and readable only by this user."""
    kept: Credentials = json.loads(path.read_text()) if path.exists() else {}
    made = {"origin": token_urlsafe(24), "webhook": f"whsec_{token_urlsafe(24)}", "aws": token_urlsafe(24)}
    made |= {station: token_urlsafe(15) for station in (*STATIONS, OWN_STATION)}
    if made.keys() <= kept.keys():
        return kept
    written = path.with_suffix(".part")
    written.unlink(missing_ok=True)
    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(made | kept, file, indent=2)
    written.rename(path)
    return made | kept


def open_folder(path: Path) -> None:
    """Create the folder if it is missing; only this user can look into it, whoever made it."""
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)


def find_own_address() -> str:
    """This machine's address in its network; its name if it is in none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(OUTSIDE)  # Nothing is sent.
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def options(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Options:
    """The options of the command line and the environment. Raises StackError if they are invalid."""
    key = stripe_key(environ)
    is_alone = ip_address(arguments.host).is_loopback
    open_folder(DATA)
    secrets = credentials(DATA / "credentials.json")
    webhook = environ.get("STRIPE_WEBHOOK_SECRET") if key else None
    return Options(
        sites=(
            *(Site(identity=station, password=secrets[station]) for station in STATIONS),
            *([] if is_alone else [Site(identity=OWN_STATION, password=secrets[OWN_STATION], simulated=False)]),
        ),
        secrets=Secrets(
            origin=secrets["origin"],
            webhook=webhook or secrets["webhook"],
            operator=operator_token.ensure_token(DATA / operator_token.TOKEN_FILE.name),
            stripe_key=key,
            aws=secrets["aws"],
        ),
        data=DATA,
        host=arguments.host,
        port=arguments.port,
        engine=arguments.engine,
        speed=arguments.speed,
        delivery=OVERLAPPING if arguments.overlap else IN_ORDER,
        on_event=print_event if arguments.verbose else lambda _identity, _event: None,
    )


def print_event(identity: str, event: str) -> None:
    print(escape(f"{identity} {event}"), flush=True)


def own_charger(stack: Stack, host: str) -> list[str]:
    """The lines of the banner for the user's own charger, if chargers of the network are let in."""
    if ip_address(host).is_loopback:
        return []
    address = find_own_address() if host == EVERYWHERE else host
    url = f"ws://{address}:{urlsplit(stack.url).port}/ocpp/{OWN_STATION}"
    return [
        f"  Your own   {url} (many makes append the /{OWN_STATION} themselves), OCPP 1.6 JSON,",
        f"             security profile 1; user {OWN_STATION}, password {OWN_STATION} in {DATA / 'credentials.json'}",
        f"             Its connectors: {stack.url}/cp/{OWN_STATION}/1 and /2",
        "             Everybody in this network can see the drivers' pages and offer a password now.",
    ]


def banner(stack: Stack, speed: float, host: str = HOST) -> str:
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
        *own_charger(stack, host),
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


def ipv4(text: str) -> str:
    return str(IPv4Address(text))


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.run", description="Run the whole product on this machine.")
    parser.add_argument("--port", type=port, default=os.environ.get("PORT") or PORT, help="default: PORT, or 8080")
    parser.add_argument("--host", type=ipv4, default=HOST, help="listen here too, 0.0.0.0 for everywhere")
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
            print(banner(stack, arguments.speed, arguments.host), flush=True)
            try:
                stack.database.wait()
            except DatabaseError as error:
                print(error, file=sys.stderr, flush=True)
                logging.disable()  # Whatever fails from here on fails because of that.
                return 1
    except KeyboardInterrupt:
        print("csms has stopped.")
        return 0
    except (StackError, DatabaseError) as error:
        print(escape_lines(str(error)), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
