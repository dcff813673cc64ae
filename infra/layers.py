"""The Lambda layers as folders, built without Docker: the product, and the locked packages for Lambda's platform.

A layer is built once for each content of its sources, and equal sources give equal bytes.
"""

import ast
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import uv

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements" / "runtime.txt"
CORE: Final = ROOT / "layers" / "core"
FUNCTIONS: Final = ROOT / "functions"
CACHE: Final = ROOT / "build" / "layers"

RUNTIMES: Final = ("3.12", "3.13", "3.14")
DEFAULT_PYTHON: Final = "3.13"
LAMBDA: Final = "aarch64-manylinux_2_28"

# Only functions that call the payment provider get its client, which is larger than all other compiled code.
COMMON_LAYERS: Final = ("core", "vendor")
LAYERS_BY_FUNCTION: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "maintenance": (*COMMON_LAYERS, "stripe"),
        "operations": COMMON_LAYERS,
        "payments": (*COMMON_LAYERS, "stripe"),
        "ws_connect": COMMON_LAYERS,
        "ws_message": COMMON_LAYERS,
    }
)
STRIPE_PACKAGES: Final = frozenset({"stripe", "requests", "certifi", "charset-normalizer", "idna"})
# Packages that only the ocpp package's own code imports. csms reads its schema files only (csms.ocpp.schemas).
UNUSED: Final = frozenset({"jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "attrs"})

# boto3/docs and botocore/docs stay, because clients import their code. METADATA stays, because scanners identify
# packages by it.
NOT_NEEDED: Final = (
    *("**/tests", "**/examples", "ocpp/v21", "bin", ".lock"),
    # 35 MB of dates, plurals and catalogs; choosing a language works without them.
    *("babel/locale-data", "babel/messages"),
    *(f"*.dist-info/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the layers are built for. `compiler` is an interpreter of that Python, or None to leave the modules
    uncompiled. `platform` None is this machine's own."""

    python: str = DEFAULT_PYTHON
    compiler: str | None = None
    platform: str | None = LAMBDA


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a layer's python/ is filled, and a text of what it is made of, which differs if the content does."""

    made_of: str
    fill: Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The folder of each layer by its name, with python/ inside, and the Python that they are for."""

    python: str
    folders: Mapping[str, Path]


def target(version: tuple[int, int], interpreter: str) -> Target:
    """Lambda with the Python of this interpreter, which then compiles the modules; if Lambda does not have that Python,
    its usual one without compiling."""
    python = "{}.{}".format(*version)
    return Target(python=python, compiler=interpreter) if python in RUNTIMES else Target()


def compile_warning(aim: Target) -> str | None:
    """The warning for a target without compiled modules."""
    if aim.compiler is not None:
        return None
    own = "{}.{}".format(*sys.version_info)
    return (
        f"Python {own} cannot compile for Lambda's {aim.python}, so each cold start takes two to three times as long. "
        f"With Python {RUNTIMES[0]} to {RUNTIMES[-1]} it would not: make clean, then make PYTHON=/path/to/it synth."
    )


def build_layers(aim: Target) -> Layers:
    """Build the layers for the target: core is the product, vendor what every function needs, stripe what payments
    need."""
    packages = requirements(LOCK.read_text())
    everywhere = packages.keys() - STRIPE_PACKAGES - UNUSED
    recipes = {
        "core": Recipe(made_of=_digest(CORE), fill=_copy_core),
        "vendor": _packages([packages[name] for name in sorted(everywhere)], aim),
        "stripe": _packages([packages[name] for name in sorted(packages.keys() & STRIPE_PACKAGES)], aim),
    }
    return Layers(python=aim.python, folders={name: _build_once(name, recipe, aim) for name, recipe in recipes.items()})


def requirements(lock: str) -> Mapping[str, str]:
    """The lines of each package in a lock file, including its hashes, by the package's name."""
    entries = re.findall(r"^[a-z0-9].*(?:\n .*)*", lock, re.MULTILINE)
    return {re.split(r"[=\[]", entry, maxsplit=1)[0]: entry for entry in entries}


def services() -> frozenset[str]:
    """The AWS services that the product uses, found where it creates their clients."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in _sources(CORE, FUNCTIONS) if path.suffix == ".py")
    return frozenset(
        node.args[0].value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "client"
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    )


def compile_modules(layer: Path, compiler: str) -> None:
    """Compile every module of the layer to a .pyc that Python loads without checking the source: file times do not
    survive a deployment, and Lambda could not write a better one."""
    unchecked = ("--invalidation-mode", "unchecked-hash")
    as_on_lambda = ("-s", str(layer), "-p", "/opt")
    command = [compiler, "-I", "-m", "compileall", "-q", *unchecked, *as_on_lambda, str(layer / "python")]
    subprocess.run(command, check=True)  # noqa: S603 - nothing here comes from outside


def _build_once(name: str, recipe: Recipe, aim: Target) -> Path:
    what = f"{aim.python} {aim.platform} {aim.compiler is not None} {recipe.made_of}\n{Path(__file__).read_text()}"
    folder = CACHE / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    if folder.exists():
        return folder

    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=CACHE))
    try:
        recipe.fill(unfinished / "python")
        if aim.compiler is not None:
            compile_modules(unfinished, aim.compiler)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(folder):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _sources(*folders: Path) -> Iterator[Path]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    yield from sorted(path for path in files if path.parent.name != "__pycache__")


def _copy_core(packages: Path) -> None:
    for path in _sources(CORE / "python"):
        copy = packages / path.relative_to(CORE / "python")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _packages(wanted: list[str], aim: Target) -> Recipe:
    """The locked packages without resolving dependencies, because the lock is complete."""
    known = services()

    def install(packages: Path) -> None:
        command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(packages)]
        command += ["--python-version", aim.python, "--only-binary", ":all:", "--no-deps", "--require-hashes"]
        command += ["--python-platform", aim.platform] if aim.platform is not None else []
        # Copies, because links would lead into the installer's cache.
        command += ["--link-mode", "copy", "--requirement", "-"]
        subprocess.run(command, input="\n".join(wanted), text=True, check=True)  # noqa: S603 - nothing is from outside
        _prune(packages, known)

    return Recipe(made_of="\n".join((*wanted, *sorted(known))), fill=install)


def _prune(packages: Path, known: Set[str]) -> None:
    """Keep only what is used at run time; of botocore's service descriptions, only those of known services."""
    found = [path for pattern in NOT_NEEDED for path in packages.glob(pattern)]
    found += [path for path in packages.glob("botocore/data/*") if path.is_dir() and path.name not in known]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
