"""The Lambda functions' packages as a layer folder, built without Docker from the locked wheels for that platform."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import uv

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements" / "runtime.txt"
CACHE: Final = ROOT / "build" / "vendor"
PYTHON_VERSION: Final = "3.13"
PLATFORM: Final = "aarch64-manylinux_2_28"

# boto3/docs and botocore/docs stay: they are code, which clients import.
NOT_NEEDED: Final = ("**/tests", "**/examples", "**/examples-1.json*", "bin", ".lock")


def vendor_layer() -> Path:
    """The folder to be a layer (it holds python/); built once for each content of the lock."""
    key = hashlib.sha256(f"{PYTHON_VERSION} {PLATFORM} {NOT_NEEDED}".encode() + LOCK.read_bytes()).hexdigest()[:16]
    folder = CACHE / key
    if folder.exists():
        return folder

    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=CACHE))
    try:
        _install(unfinished / "python")
        _prune(unfinished / "python")
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _install(target: Path) -> None:
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target)]
    command += ["--python-platform", PLATFORM, "--python-version", PYTHON_VERSION, "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(LOCK)]
    subprocess.run(command, check=True)  # noqa: S603 - nothing here comes from outside


def _prune(packages: Path) -> None:
    for pattern in NOT_NEEDED:
        for path in list(packages.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
