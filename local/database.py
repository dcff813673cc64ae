"""A local DynamoDB engine on a free loopback port: starting it, waiting for it, stopping it, and a client for it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NoReturn, Self

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from local.invoke import ACCOUNT, REGION

DYNOXIDE: Final = Path(__file__).parents[1] / "node_modules/@dynoxide/linux-x64/dynoxide"
START_ATTEMPTS: Final = 3
START_SECONDS: Final = 30
STOP_SECONDS: Final = 10

# The engines verify no signature, but boto3 needs credentials to sign with. ministack takes an account number as its
# root user.
CREDENTIALS: Final[Mapping[str, str]] = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "local"}

# `read` returns when the other end of its pipe closes, which happens even if this program is killed.
WATCH: Final = 'read -r farewell || kill "$1"'


class Engine(StrEnum):
    """The engines in order of preference. AWS's own DynamoDB Local is used only on request."""

    DYNOXIDE = "dynoxide"
    MINISTACK = "ministack"
    DYNAMODB_LOCAL = "dynamodb-local"


class DatabaseError(Exception):
    """The engine is missing or does not start. The message is one line for the user."""


class EngineEndedError(DatabaseError):
    """The engine ended before it answered, or while it was needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A running engine. `where` is the folder of its data, None if in memory. Stop it, or use it as a context
    manager."""

    engine: Engine
    endpoint: str
    where: Path | None
    process: subprocess.Popen[bytes]
    watch: subprocess.Popen[bytes]

    def environment(self) -> dict[str, str]:
        """The environment variables that point a boto3 client without arguments to this engine."""
        return {"AWS_ENDPOINT_URL_DYNAMODB": self.endpoint, "AWS_DEFAULT_REGION": REGION, **CREDENTIALS}

    def wait(self) -> NoReturn:
        """Wait until the engine ends by itself, and raise EngineEndedError."""
        code = self.process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise EngineEndedError(f"The database {how}, so csms ends. `make run` starts it again with its data.")

    def stop(self) -> None:
        """End the process and wait for it; ministack writes its data only then."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.watch.communicate(b"farewell\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How an engine is started."""

    command: tuple[str, ...]
    where: Path | None
    environment: Mapping[str, str]


def start(engine: Engine | str | None = None, data: Path | None = None) -> Database:
    """Start a DynamoDB engine and wait until it answers. Raises DatabaseError if it does not.

    `engine` None means dynoxide where its binary is installed, else ministack. `data` is the folder for its files,
    created if missing; None keeps everything in memory.
    """
    chosen = Engine(engine) if engine else default_engine()
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
    where = data.resolve() if data is not None else None
    return serve(chosen, lambda port: LAUNCHES[chosen](port, where))


def serve(chosen: Engine, launch_on: Callable[[int], Launch], inherited: Mapping[str, str] = os.environ) -> Database:
    """Start an engine with the command that `launch_on` gives for a free port, and wait until it answers. Its variables
    are added to the inherited ones."""
    for _ in range(START_ATTEMPTS - 1):
        try:
            return _launch(chosen, launch_on, inherited)
        except EngineEndedError:
            # Another process may take the port between its choice and its use, so several are tried.
            continue
    return _launch(chosen, launch_on, inherited)


def _launch(chosen: Engine, launch_on: Callable[[int], Launch], inherited: Mapping[str, str]) -> Database:
    port = free_port()
    launch = launch_on(port)
    endpoint = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        # The engine has a process group of its own. So Ctrl-C reaches only this program, which can still use the
        # database while it ends.
        process = subprocess.Popen(
            launch.command,
            env={**inherited, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        watch = _watch(process.pid)
        database = Database(engine=chosen, endpoint=endpoint, where=launch.where, process=process, watch=watch)
        try:
            _wait_until_ready(database, log)
        except BaseException:
            # Ctrl-C during the wait must stop the engine as well.
            database.stop()
            raise
    return database


def _watch(engine: int) -> subprocess.Popen[bytes]:
    """Start a shell that ends the engine if this program ends without stopping it, for example by SIGKILL."""
    command = ("/bin/sh", "-c", WATCH, "watch", str(engine))
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )


def default_engine() -> Engine:
    if DYNOXIDE.exists():
        return Engine.DYNOXIDE
    if find_spec("ministack") is not None:
        return Engine.MINISTACK
    raise DatabaseError("No DynamoDB engine: neither dynoxide nor ministack is installed.")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def client(endpoint: str, *, attempts: int = 5, connections: int = 10) -> Any:
    """A boto3 DynamoDB client for a local engine; `attempts` is how often it tries one call, `connections` how many
    calls it makes at the same time."""
    return boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        # An empty mapping keeps boto3 from sending requests for 127.0.0.1 to a proxy named in the environment.
        config=Config(
            proxies={},
            connect_timeout=2,
            read_timeout=10,
            retries={"total_max_attempts": attempts},
            max_pool_connections=connections,
        ),
    )


def create_table(dynamodb: Any, definition: Mapping[str, Any]) -> None:
    """Create the table of `definition` (CreateTable's arguments) unless it exists, and return when it is ACTIVE."""
    with suppress(dynamodb.exceptions.ResourceInUseException):
        dynamodb.create_table(**definition)
    dynamodb.get_waiter("table_exists").wait(
        TableName=definition["TableName"], WaiterConfig={"Delay": 1, "MaxAttempts": START_SECONDS}
    )


def _dynoxide(port: int, data: Path | None) -> Launch:
    if not DYNOXIDE.exists():
        raise DatabaseError(f"dynoxide is not installed: there is no {DYNOXIDE}; only Linux on x86-64 has one.")
    where = data / "dynoxide.sqlite" if data else None
    on_disk = ("--db-path", str(where)) if where else ()
    command = (str(DYNOXIDE), "serve", "--host", "127.0.0.1", "--port", str(port), *on_disk)
    return Launch(command=command, where=where, environment={})


def ministack(port: int, data: Path | None) -> Launch:
    """The ministack emulator on loopback, with no service but DynamoDB."""
    if find_spec("ministack") is None:
        raise DatabaseError("ministack is not installed in this Python environment.")
    where = data / "ministack" if data else None
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "dynamodb",
        "MINISTACK_REGION": REGION,
        "LOG_LEVEL": "WARNING",
        # The emulator has more services: keep it from listening for SFTP and MQTT and from using the Docker daemon.
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": "unix:///nonexistent",
    }
    if where is not None:
        environment |= {"PERSIST_STATE": "1", "STATE_DIR": str(where)}
    return Launch(command=(sys.executable, "-m", "ministack"), where=where, environment=environment)


def _dynamodb_local(port: int, data: Path | None) -> Launch:
    jar = Path(os.environ.get("DYNAMODB_LOCAL_JAR", ""))
    java = shutil.which("java")
    if not jar.is_file():
        raise DatabaseError("dynamodb-local: DYNAMODB_LOCAL_JAR does not name the path of DynamoDBLocal.jar.")
    if java is None:
        raise DatabaseError("dynamodb-local needs java, which is not on the PATH.")
    where = data / "dynamodb-local" if data else None
    if where is not None:
        where.mkdir(exist_ok=True)
    storage = ("-dbPath", str(where)) if where else ("-inMemory",)
    native = f"-Djava.library.path={jar.parent / 'DynamoDBLocal_lib'}"
    command = (java, native, "-jar", str(jar), "-port", str(port), "-sharedDb", *storage)
    return Launch(command=command, where=where, environment={"DDB_LOCAL_TELEMETRY": "0"})


LAUNCHES: Final = {
    Engine.DYNOXIDE: _dynoxide,
    Engine.MINISTACK: ministack,
    Engine.DYNAMODB_LOCAL: _dynamodb_local,
}


def _wait_until_ready(database: Database, log: IO[bytes]) -> None:
    dynamodb = client(database.endpoint, attempts=1)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            dynamodb.list_tables()
        except (ClientError, EndpointConnectionError, HTTPClientError):
            # The engine does not listen yet. Waiting for the process to end is the pause, and shows a failed start at
            # once.
            try:
                code = database.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise EngineEndedError(f"{database.engine} ended with code {code}: {_last_line(log)}") from None
        else:
            return
    raise DatabaseError(f"{database.engine} did not answer within {START_SECONDS} s: {_last_line(log)}")


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it logged nothing")
