"""The layers hold what the functions import, in few and always the same bytes, and compiled so that Lambda loads it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from csms.stations import quirks
from infra import layers
from infra.layers import LAYERS_BY_FUNCTION, Layers, Target

MEGABYTE = 1_000_000
LOCAL_TARGET = Target(python="{}.{}".format(*sys.version_info), compiler=sys.executable, platform=None)
LAMBDA_TARGET = Target()

# As Lambda does it: the function's own folder first, then the layers, and no other packages.
IMPORT = """
import importlib.machinery, json, sys
compiled = []
to_code = importlib.machinery.SourceFileLoader.source_to_code
def noted(loader, data, path, **options):
    compiled.append(path)
    return to_code(loader, data, path, **options)
importlib.machinery.SourceFileLoader.source_to_code = noted
sys.path[:0] = sys.argv[1:]
import app
print(json.dumps({"compiled": compiled, "loaded": sorted(sys.modules)}))
"""
ENVIRONMENT = {
    "TABLE_NAME": "csms",
    "WEBSOCKET_API_URL": "https://csms.example/ocpp",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}
PYTHONS = {"ours": LOCAL_TARGET, "Lambda's": LAMBDA_TARGET}


@pytest.fixture(scope="module")
def local_layers() -> Layers:
    """The layers for this machine and its interpreter, so that they can be imported here."""
    return layers.build_layers(LOCAL_TARGET)


def import_in_interpreter(built, name, where):
    """What a fresh interpreter loads for a function, and which files it had to compile."""
    task = Path(shutil.copytree(layers.FUNCTIONS / name, where / name, ignore=shutil.ignore_patterns("__*")))
    paths = [task, *(built.folders[layer] / "python" for layer in LAYERS_BY_FUNCTION[name])]
    command = [sys.executable, "-I", "-S", "-c", IMPORT, *map(str, paths)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)

    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


def contents(folder):
    """Every file's bytes by its path."""
    return {str(it.relative_to(folder)): it.read_bytes() for it in sorted(folder.rglob("*")) if it.is_file()}


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def unpack_as_lambda(built, where):
    """The layers as Lambda unpacks them: with times that are not those of the sources."""
    copies = {}
    for name, folder in built.folders.items():
        copies[name] = Path(shutil.copytree(folder, where / name))
        for path in copies[name].rglob("*"):
            os.utime(path, (0, 0))
    return Layers(python=built.python, folders=copies)


@pytest.mark.parametrize("name", LAYERS_BY_FUNCTION)
def test_function_import_compiles_only_its_file(local_layers, name, tmp_path):
    found = import_in_interpreter(local_layers, name, tmp_path)

    assert [str(tmp_path / name / "app.py")] == found["compiled"]


def test_deployed_bytecode_loads_without_rewrite(local_layers, tmp_path):
    deployed = unpack_as_lambda(local_layers, tmp_path)
    before = {name: contents(folder) for name, folder in deployed.folders.items()}

    for name in LAYERS_BY_FUNCTION:
        assert [str(tmp_path / name / "app.py")] == import_in_interpreter(deployed, name, tmp_path)["compiled"]

    assert before == {name: contents(folder) for name, folder in deployed.folders.items()}


def test_every_layer_module_is_compiled(local_layers):
    folders = local_layers.folders.values()
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    tag = sys.implementation.cache_tag
    missing = [path for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc").exists()]

    assert [] == missing
    assert len(sources) > 1000


def test_ws_message_loads_no_expensive_packages(local_layers, tmp_path):
    loaded = import_in_interpreter(local_layers, "ws_message", tmp_path)["loaded"]
    dear = {
        "stripe",
        "requests",
        "ocpp",
        "jsonschema",
        "tomllib",
        "aws_xray_sdk",
        "aws_lambda_powertools.event_handler",
    }

    assert set() == dear & set(loaded)


def test_core_layer_has_table_of_quirks(local_layers):
    shipped = local_layers.folders["core"] / "python" / quirks.TABLE.relative_to(layers.CORE / "python")

    assert quirks.TABLE.read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("aim", PYTHONS.values(), ids=PYTHONS.keys())
def test_same_content_builds_same_bytes(monkeypatch, tmp_path, aim):
    first = layers.build_layers(aim)
    monkeypatch.setattr(layers, "CACHE", tmp_path)
    second = layers.build_layers(aim)

    for name in first.folders:
        assert first.folders[name] != second.folders[name]
        assert contents(first.folders[name]) == contents(second.folders[name])


@pytest.mark.parametrize("aim", PYTHONS.values(), ids=PYTHONS.keys())
def test_layer_sizes_stay_within_limits(aim):
    built = layers.build_layers(aim)

    assert size(built.folders["core"]) + size(built.folders["vendor"]) < 48 * MEGABYTE
    assert size(built.folders["stripe"]) < 30 * MEGABYTE


def test_no_file_is_in_two_layers(local_layers):
    paths = [path for folder in local_layers.folders.values() for path in contents(folder)]

    assert sorted(set(paths)) == sorted(paths)


def test_packages_are_built_for_lambda_arm64():
    built = layers.build_layers(LAMBDA_TARGET)
    libraries = [path.name for folder in built.folders.values() for path in folder.rglob("*.so")]

    assert "_pydantic_core.cpython-313-aarch64-linux-gnu.so" in libraries
    assert [] == [name for name in libraries if "x86" in name]


def test_changed_source_rebuilds_only_core_layer(monkeypatch, tmp_path):
    core = Path(shutil.copytree(layers.CORE, tmp_path / "core"))
    monkeypatch.setattr(layers, "CORE", core)
    monkeypatch.setattr(layers, "CACHE", tmp_path / "cache")
    first = layers.build_layers(LAMBDA_TARGET).folders
    (core / "python/csms/more.py").write_text("")
    changed = layers.build_layers(LAMBDA_TARGET).folders

    assert first["core"] != changed["core"]
    assert (changed["core"] / "python/csms/more.py").exists()
    assert (first["vendor"], first["stripe"]) == (changed["vendor"], changed["stripe"])


@pytest.mark.parametrize("minor", [12, 13, 14])
def test_runtime_follows_the_synthesizing_interpreter(minor):
    aim = layers.target((3, minor), "/usr/bin/python")

    assert Target(python=f"3.{minor}", compiler="/usr/bin/python") == aim
    assert layers.compile_warning(aim) is None


@pytest.mark.parametrize("version", [(3, 11), (3, 15)])
def test_unsupported_python_skips_compilation_with_warning(version):
    aim = layers.target(version, "/usr/bin/python")
    said = layers.compile_warning(aim)

    assert Target() == aim
    assert said is not None
    assert "3.13" in said
    assert "\n" not in said


def test_lock_file_keeps_hashes():
    boto3 = "boto3==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb"
    moto = "moto[dynamodb]==5.2 \\\n    --hash=sha256:cc"

    assert {"boto3": boto3, "moto": moto} == layers.requirements(f"# Made by uv.\n{boto3}\n{moto}\n")
