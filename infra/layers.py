"""The Lambda layers as folders, built without Docker: the product, and the locked packages for Lambda's platform.

Each is built once for each content of what goes into it, and the same content gives the same bytes.
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

# Only who calls the payment provider carries its client, which is larger than all else that is compiled.
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
# What the ocpp package's code needs; of that package only the schema files are read (csms.schemas).
UNUSED: Final = frozenset({"jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "attrs"})

# boto3/docs and botocore/docs stay: they are code, which clients import. METADATA stays: scanners know packages by it.
NOT_NEEDED: Final = (
    *("**/tests", "**/examples", "ocpp/v21", "bin", ".lock"),
    *("babel/locale-data", "babel/messages"),  # 35 MB of dates, plurals and catalogs; a language is chosen without them
    *(f"*.dist-info/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the layers are for. compiler is an interpreter of that Python, None leaves the modules uncompiled; platform
    None is this machine's own."""

    python: str = DEFAULT_PYTHON
    compiler: str | None = None
    platform: str | None = LAMBDA


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a layer's python/ is filled, and what it is made of: another text for other content."""

    made_of: str
    fill: Callable[[Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The folders by the name of the layer, each of which holds python/, and the Python they are for."""

    python: str
    folders: Mapping[str, Path]


def target(version: tuple[int, int], interpreter: str) -> Target:
    """Lambda with the Python of this interpreter, which then compiles; with the usual one, uncompiled, where Lambda has
    no such Python."""
    python = "{}.{}".format(*version)
    return Target(python=python, compiler=interpreter) if python in RUNTIMES else Target()


def compile_warning(aim: Target) -> str | None:
    """What a person should know about a target that nothing is compiled for."""
    if aim.compiler is not None:
        return None
    own = "{}.{}".format(*sys.version_info)
    return (
        f"Python {own} cannot compile for Lambda's {aim.python}, so each cold start takes two to three times as long. "
        f"With Python {RUNTIMES[0]} to {RUNTIMES[-1]} it would not: make clean, then make PYTHON=/path/to/it synth."
    )


def build_layers(aim: Target) -> Layers:
    """The layers for the target: core is the product, vendor what every function needs, stripe what payments need."""
    packages = requirements(LOCK.read_text())
    everywhere = packages.keys() - STRIPE_PACKAGES - UNUSED
    recipes = {
        "core": Recipe(made_of=_digest(CORE), fill=_copy_core),
        "vendor": _packages([packages[name] for name in sorted(everywhere)], aim),
        "stripe": _packages([packages[name] for name in sorted(packages.keys() & STRIPE_PACKAGES)], aim),
    }
    return Layers(python=aim.python, folders={name: _build_once(name, recipe, aim) for name, recipe in recipes.items()})


def requirements(lock: str) -> Mapping[str, str]:
    """The lines of each package of a lock, its hashes included, by the package's name."""
    entries = re.findall(r"^[a-z0-9].*(?:\n .*)*", lock, re.MULTILINE)
    return {re.split(r"[=\[]", entry, maxsplit=1)[0]: entry for entry in entries}


def services() -> frozenset[str]:
    """The AWS services that the product makes clients for; each is named where its client is made."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in _sources(CORE, FUNCTIONS) if path.suffix == ".py")
    return frozenset(
        node.args[0].value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "client"
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    )


def compile_modules(layer: Path, compiler: str) -> None:
    """Every module of the layer has its .pyc, which is loaded without a look at the source: times do not survive a
    deployment, and Lambda could not write a better one."""
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
    """The locked packages and nothing that they would bring along: the lock is complete."""
    known = services()

    def install(packages: Path) -> None:
        command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(packages)]
        command += ["--python-version", aim.python, "--only-binary", ":all:", "--no-deps", "--require-hashes"]
        command += ["--python-platform", aim.platform] if aim.platform is not None else []
        # Copies, because a link would lead into the installer's cache.
        command += ["--link-mode", "copy", "--requirement", "-"]
        subprocess.run(command, input="\n".join(wanted), text=True, check=True)  # noqa: S603 - nothing is from outside
        _prune(packages, known)

    return Recipe(made_of="\n".join((*wanted, *sorted(known))), fill=install)


def _prune(packages: Path, known: Set[str]) -> None:
    """Only what is used at run time is left; of botocore's descriptions of services, only the known ones."""
    found = [path for pattern in NOT_NEEDED for path in packages.glob(pattern)]
    found += [path for path in packages.glob("botocore/data/*") if path.is_dir() and path.name not in known]
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
