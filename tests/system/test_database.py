"""Do the engines start, answer, keep their data, and leave no process behind?"""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local import database
from local.database import Database, DatabaseError, Engine

TABLE = {
    "TableName": "things",
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
ITEM = {"id": {"S": "one"}}

OWNER_PROGRAM = """
import sys, time
from local import database
with database.start(sys.argv[1]) as engine:
    print(engine.endpoint, flush=True)
    time.sleep(600)
"""

ENGINES = [
    pytest.param(Engine.DYNOXIDE, marks=pytest.mark.skipif(not database.DYNOXIDE.exists(), reason="no such binary")),
    Engine.MINISTACK,
]


def store_item(engine: Database) -> None:
    dynamodb = database.client(engine.endpoint)
    database.create_table(dynamodb, TABLE)
    dynamodb.put_item(TableName="things", Item=ITEM)


def read_item(engine: Database) -> dict[str, object] | None:
    found = database.client(engine.endpoint).get_item(TableName="things", Key=ITEM, ConsistentRead=True)
    return found.get("Item")


def is_listening(endpoint: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2]))) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_keeps_data_and_leaves_no_process(engine, tmp_path):
    with database.start(engine, tmp_path / "data") as first:
        store_item(first)
        where = first.where

    assert where is not None
    assert where.exists()
    assert first.process.poll() is not None
    assert first.watch.poll() is not None
    assert not is_listening(first.endpoint)

    with database.start(engine, tmp_path / "data") as second:
        assert read_item(second) == ITEM


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_without_folder_uses_memory_and_loopback(engine):
    with database.start(engine) as running:
        database.create_table(database.client(running.endpoint), TABLE)

        assert running.where is None
        assert local_addresses(running) == {"0100007F"}


def local_addresses(engine: Database) -> set[str]:
    """The addresses the engine's port is bound to, in the kernel's hexadecimal."""
    port = f"{int(engine.endpoint.rpartition(':')[2]):04X}"
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not tables[0].exists():
        pytest.skip("only Linux tells")
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[1].endswith(f":{port}")}


@pytest.mark.skipif(not database.DYNOXIDE.exists(), reason="no such binary")
def test_acknowledged_dynoxide_write_survives_kill(tmp_path):
    with database.start(Engine.DYNOXIDE, tmp_path) as first:
        store_item(first)
        first.process.kill()
        first.process.wait()

    with database.start(Engine.DYNOXIDE, tmp_path) as second:
        assert read_item(second) == ITEM


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_ends_with_its_killed_owner(engine):
    command = [sys.executable, "-c", OWNER_PROGRAM, str(engine)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        endpoint = owner.stdout.readline().strip()
        began = is_listening(endpoint)
        owner.kill()
    deadline = time.monotonic() + 10
    while is_listening(endpoint) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert (True, False) == (began, is_listening(endpoint))


def test_creating_table_twice_keeps_items():
    with database.start() as engine:
        store_item(engine)
        database.create_table(database.client(engine.endpoint), TABLE)

        assert read_item(engine) == ITEM


def test_environment_client_reaches_the_engine(monkeypatch):
    import boto3

    with database.start() as engine:
        for name, value in engine.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

        assert boto3.client("dynamodb").list_tables()["TableNames"] == []


def test_absence_of_engines_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(database, "DYNOXIDE", tmp_path / "absent")
    monkeypatch.setattr(database, "find_spec", lambda _: None)

    with pytest.raises(DatabaseError, match=r"\ANo DynamoDB engine: neither dynoxide nor ministack is installed\.\Z"):
        database.start()


def test_missing_requested_engine_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(database, "DYNOXIDE", tmp_path / "absent")
    monkeypatch.delenv("DYNAMODB_LOCAL_JAR", raising=False)

    with pytest.raises(DatabaseError, match="dynoxide is not installed"):
        database.start("dynoxide")
    with pytest.raises(DatabaseError, match="DYNAMODB_LOCAL_JAR"):
        database.start("dynamodb-local")


def test_failed_engine_reports_its_output(monkeypatch, tmp_path):
    broken = tmp_path / "dynoxide"
    broken.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(database, "DYNOXIDE", broken)

    with pytest.raises(DatabaseError, match="dynoxide ended with code 3: out of luck"):
        database.start("dynoxide")
