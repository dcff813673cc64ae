"""Each import contract reports a violation, made in a copy of the tree; and there is no import cycle."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import grimp
import pytest

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
CONTRACTS: Final[list[dict[str, Any]]] = PROJECT["importlinter"]["contracts"]
BANNED: Final[dict[str, Any]] = PROJECT["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
SOURCE: Final = "layers/core/python"
ALONE: Final = ("csms_http", "csms_observer")
"""Modules of the layer that are no packages, which the linter takes for foreign ones."""

BREACHES: Final = {
    "What is deployed knows neither laptop nor tests": [
        (f"{SOURCE}/csms_wiring/mailing.py", "import local.mail", "csms_wiring.mailing -> local.mail"),
    ],
    "Decisions below, I/O above: imports point downwards only": [
        (f"{SOURCE}/csms/newer.py", '"""In no layer."""', "- csms.newer"),
        (
            f"{SOURCE}/csms/charging/status.py",
            "import csms.adapters.dynamodb",
            "csms.charging.status -> csms.adapters.dynamodb",
        ),
    ],
    "Decisions on a session stand on each other in one order": [
        (f"{SOURCE}/csms/charging/newer.py", '"""In no layer."""', "- csms.charging.newer"),
    ],
    "Adapters know nothing of each other": [
        (f"{SOURCE}/csms/adapters/ses.py", "import csms.adapters.stripe", "csms.adapters.ses -> csms.adapters.stripe"),
    ],
    "Nothing in the service calls itself in a ring": [
        (f"{SOURCE}/csms/service/newer.py", '"""In no layer."""', "- csms.service.newer"),
        (f"{SOURCE}/csms/service/outbox.py", "import csms.service.flow", "csms.service.outbox -> csms.service.flow"),
    ],
    "OCPP versions know the dialect, and not each other": [
        (f"{SOURCE}/csms/ocpp/v30.py", '"""In no layer."""', "- csms.ocpp.v30"),
        (f"{SOURCE}/csms/ocpp/v201/__init__.py", "import csms.ocpp.v16", "csms.ocpp.v201 -> csms.ocpp.v16"),
    ],
    "The service knows no OCPP version, not even through others": [
        (
            f"{SOURCE}/csms/stations/presence.py",
            "import csms.ocpp.v16.core",
            "csms.stations.presence -> csms.ocpp.v16.core",
        ),
    ],
    "An OCPP version is imported by the list of supported versions only": [
        (f"{SOURCE}/csms_wiring/paying.py", "import csms.ocpp.v16", "csms_wiring.paying -> csms.ocpp.v16"),
    ],
    "The list of supported versions is passed in by the wiring": [
        ("functions/payments/app.py", "import csms.ocpp.versions", "functions.payments.app -> csms.ocpp.versions"),
    ],
    "Decisions know no clock, no chance, no environment and no I/O": [
        (f"{SOURCE}/csms/another.py", "import os", "csms.another -> os"),
    ],
    "Functions know nothing of each other": [
        (
            "functions/payments/app.py",
            "import functions.operations.app",
            "functions.payments.app -> functions.operations.app",
        ),
    ],
    "No cycle anywhere": [
        (
            "stand_ins/stripe/signature.py",
            "import stand_ins.stripe.server",
            "No cycles are allowed in stand_ins.stripe.",
        ),
    ],
}
"""For each contract: the file, what is added to it, and what the linter says of that."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree's Python files and the tools' settings, somewhere else."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for folder in ("layers", "functions", "infra", "local", "emulator", "smoke", "stand_ins", "bench", "docs", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            (tree / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, tree / file.relative_to(ROOT))
    return tree


@pytest.fixture(scope="module")
def verdicts(copy: Path) -> dict[str, str]:
    """What import-linter says of each contract that is broken, when everyone of them is."""
    for file, added, _ in (breach for breaches in BREACHES.values() for breach in breaches):
        path = copy / file
        path.write_text(f"{path.read_text() if path.exists() else ''}\n{added}\n")
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    paths = {"PYTHONPATH": f"{copy}:{copy / SOURCE}", "COLUMNS": "200"}  # A name stays on one line.
    done = subprocess.run(command, cwd=copy, env=paths, capture_output=True, text=True)
    said = re.split(r"^(.+)\n-+\n", done.stdout, flags=re.MULTILINE)

    assert 1 == done.returncode, done.stdout + done.stderr
    return dict(zip(said[1::2], said[2::2], strict=True))


def test_every_contract_is_broken_once() -> None:
    assert [contract["name"] for contract in CONTRACTS] == list(BREACHES)


@pytest.mark.parametrize("name", BREACHES)
def test_broken_contract_is_reported(verdicts: dict[str, str], name: str) -> None:
    assert [] == [expected for *_, expected in BREACHES[name] if expected not in verdicts[name]]


def lint(tree: Path, file: str) -> str:
    """What ruff says of the file."""
    ruff = Path(sys.executable).parent / "ruff"
    command = [ruff, "check", "--no-cache", "--output-format", "concise", "--select", "TID251", file]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True).stdout


def module_using(name: str) -> str:
    """A module that uses what is banned."""
    module, _, rest = name.partition(".")
    return f'"""New."""\n\nimport {module}\n\nGOT = {name}()\n' if rest else f'"""New."""\n\nimport {module}\n'


@pytest.mark.parametrize("name", BANNED)
def test_banned_api_is_reported_only_in_csms(copy: Path, name: str) -> None:
    told = []
    for file in (f"{SOURCE}/csms/banned.py", f"{SOURCE}/csms/service/banned.py", f"{SOURCE}/csms_banned.py"):
        (copy / file).write_text(module_using(name))
        told.append(f"TID251 `{name}` is banned" in lint(copy, file))
        (copy / file).unlink()

    assert [True, True, False] == told


def test_both_linters_ban_same_modules() -> None:
    (decisions,) = (one for one in CONTRACTS if one["name"].startswith("Decisions know"))

    assert sorted(decisions["forbidden_modules"]) == sorted(name for name in BANNED if "." not in name)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Who imports whom when the program runs, in the whole repository."""
    roots = PROJECT["importlinter"]["root_packages"]
    found = grimp.build_graph(
        *roots, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    for name in ALONE:
        for imported in find_imports(ROOT / SOURCE / f"{name}.py"):
            known = imported if imported in found.modules else imported.rpartition(".")[0]
            if known in found.modules:
                found.add_import(importer=name, imported=known)
    return found


def find_imports(file: Path) -> list[str]:
    """Every name that the module imports, modules and what it takes from them."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def find_import_cycles(graph: grimp.ImportGraph) -> list[str]:
    """The modules that import themselves through others, and whoever imports those: what is left when modules that
    import nothing of the rest are taken away, again and again."""
    left = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while free := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in free}
    return sorted(left)


def test_no_import_cycle_exists(graph: grimp.ImportGraph) -> None:
    assert {*ALONE, "csms.service.flow", "functions.payments.app", "local.charger", "tests.fakes"} <= graph.modules
    assert [] == find_import_cycles(graph)


def test_import_cycle_is_found(graph: grimp.ImportGraph) -> None:
    graph.add_import(importer="csms.errors", imported="csms_http")
    try:
        assert {"csms.errors", "csms_http"} <= {*find_import_cycles(graph)}
    finally:
        graph.remove_import(importer="csms.errors", imported="csms_http")
