"""`make run`: what it keeps to itself, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from local import maintain, run
from local.client import Api, connect_station
from local.stack import StackError, claim
from tests.tables import skip_without_dynoxide

PROGRAM = """
import sys
from pathlib import Path
from local import run

run.DATA = Path(sys.argv.pop(1))
banner = run.banner
run.banner = lambda stack, *more: f"{banner(stack, *more)}\\n{stack.url} {stack.database.process.pid}"
sys.exit(run.main())
"""


@contextmanager
def running(data: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str, int]]:
    """The program, what it printed, its address, and its database's process."""
    skip_without_dynoxide()
    command = [sys.executable, "-c", PROGRAM, str(data), "--engine", "dynoxide", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "STRIPE_API_KEY"} | {"PORT": "0"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdout is not None
        lines = []
        try:
            for line in program.stdout:
                lines.append(line)
                if line.startswith("http"):
                    break
            url, pid = lines[-1].split()
            yield program, "".join(lines), url, int(pid)
        finally:
            program.terminate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_run_ends_with_its_database(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path / "data") as (program, _, _, database):
        os.kill(database, number)
        _, errors = program.communicate(timeout=60)

    assert 1 == program.returncode
    assert errors.startswith("The database ")
    assert errors.endswith(" so csms ends. `make run` starts it again with its data.\n")
    assert 1 == errors.count("\n")


def test_run_ends_well_on_its_signal(tmp_path: Path) -> None:
    with running(tmp_path / "data") as (program, _, _, _):
        program.send_signal(signal.SIGINT)
        out, _ = program.communicate(timeout=60)

    assert (0, True) == (program.returncode, out.endswith("csms has stopped.\n"))


@pytest.mark.parametrize("before", [None, 0o755, 0o777, 0o000])
def test_data_folder_is_private(tmp_path: Path, before: int | None) -> None:
    folder = tmp_path / ".local"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)

    run.open_folder(folder)

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


def test_credentials_are_completed_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = run.credentials(path)
    path.write_text(json.dumps({"origin": "kept", "DEMO-1": "kept too"}))
    path.chmod(0o644)

    completed = run.credentials(path)

    assert made.keys() == completed.keys()
    assert ("kept", "kept too") == (completed["origin"], completed["DEMO-1"])
    assert completed == run.credentials(path) == json.loads(path.read_text())
    assert completed["aws"] == maintain.read_secret_key(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "", "{}", "{"])
def test_missing_secret_key_is_one_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "credentials.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(maintain.MaintainError, match=r"\AThere is no secret key in \S+ yet: `make run` makes it\.\Z"):
        maintain.read_secret_key(path)


def test_own_charger_is_let_in(tmp_path: Path) -> None:
    own = run.find_own_address()
    with running(tmp_path / "data", "--host", "0.0.0.0") as (_, printed, url, _):  # noqa: S104 - that is the question
        port = url.rpartition(":")[2]
        told = next(line for line in printed.splitlines() if "ws://" in line and run.OWN_STATION in line).split()
        kept = json.loads((tmp_path / "data" / "credentials.json").read_text())
        address = next(word for word in told if word.startswith("ws://"))
        with connect_station(address.rpartition("/")[0], run.OWN_STATION, kept[run.OWN_STATION]) as charger:
            answer = charger.call("BootNotification", chargePointVendor="v", chargePointModel="m")
        page = Api(url=f"http://{own}:{port}").ask("GET", f"/payments/connectors/{run.OWN_STATION}/1")

        assert f"ws://{own}:{port}/ocpp/{run.OWN_STATION}" == address
        assert ("Accepted", 200) == (answer["status"], page.status)
        assert kept[run.OWN_STATION] not in printed
        assert f"user {run.OWN_STATION}" in printed
        assert str(tmp_path / "data" / "credentials.json") in printed
        assert maintain.invoke_maintenance(url, {"dryRun": True}, secret_key=kept["aws"])
        with pytest.raises(maintain.MaintainError, match="SignatureDoesNotMatch"):
            maintain.invoke_maintenance(url, {"dryRun": True})
        if not own.startswith("127."):
            with pytest.raises(maintain.MaintainError, match="AccessDenied"):
                maintain.invoke_maintenance(f"http://{own}:{port}", {"dryRun": True}, secret_key=kept["aws"])


def test_run_alone_listens_on_loopback(tmp_path: Path) -> None:
    with running(tmp_path / "data") as (_, printed, url, _):
        own, port = run.find_own_address(), int(url.rpartition(":")[2])
        if own.startswith("127."):
            pytest.skip("this machine is in no network")
        with socket.socket() as probe:
            answered = probe.connect_ex((own, port))

        assert 0 != answered
        assert run.OWN_STATION not in printed


@pytest.mark.parametrize("host", ["", "mylaptop", "0.0.0", "::", "0.0.0.0/0"])
def test_host_must_be_an_address(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        run.parse_arguments(["--host", host])

    assert 2 == refused.value.code
    assert "argument --host: invalid" in capsys.readouterr().err


def test_foreign_host_is_one_line() -> None:
    with pytest.raises(StackError, match=r"\AHOST=192\.0\.2\.1 is no address of this machine\. 0\.0\.0\.0 means all"):
        claim(0, "192.0.2.1")


def test_port_is_claimed_at_every_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number: Any = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {number} is taken"):
            claim(number, "0.0.0.0")  # noqa: S104 - that is the question
