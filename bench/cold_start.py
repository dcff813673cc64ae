"""The cost of a cold start: importing each function in a fresh interpreter, from its layers alone, as Lambda does.

`python -m bench.cold_start` takes half a minute. Trust the ratios and the megabytes; the milliseconds are CPU time of
this machine. What Lambda adds (an environment, loading the layers, its own runtime) is not included.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from infra import layers
from infra.layers import LAYERS_BY_FUNCTION, Layers, Target
from local import database

RUNS: Final = 5
LOCAL_TARGET: Final = Target(python="{}.{}".format(*sys.version_info), compiler=sys.executable, platform=None)
WHOLE_CPU_MB: Final = 1769
"""The memory at which Lambda gives one whole virtual CPU; with less memory it gives proportionally less (Lambda
developer guide)."""
SIZES: Final = (256, 512, 1024)

IMPORT: Final = """
import sys, time
sys.path[:0] = sys.argv[1:]
started = time.process_time()
import app
spent = time.process_time() - started
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(spent * 1e3, int(status["VmHWM"].split()[0]) / 1024)
"""
ENVIRONMENT: Final = {
    "TABLE_NAME": "csms",
    "PUBLIC_URL": "https://csms.example",
    "ORIGIN_SECRET": "bench",
    "MAINTENANCE_FUNCTION": "maintenance",
    "WEBSOCKET_API_URL": "https://csms.example/ocpp",
    "STRIPE_API_KEY": "sk_test_bench",
    "STRIPE_WEBHOOK_SECRET": "whsec_bench",
    "AWS_DEFAULT_REGION": "eu-central-1",
    **database.CREDENTIALS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of importing a function once; `peak` is the process's largest memory."""

    milliseconds: float
    peak_megabytes: float


def cost(built: Layers, name: str) -> Cost:
    """Import the function once and measure it."""
    spent, peak = run_in_fresh_interpreter(built, name, "-c", IMPORT).stdout.split()
    return Cost(milliseconds=float(spent), peak_megabytes=float(peak))


def run_in_fresh_interpreter(built: Layers, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter that has only the function and its layers, and writes no .pyc files."""
    paths = [layers.FUNCTIONS / name, *(built.folders[layer] / "python" for layer in LAYERS_BY_FUNCTION[name])]
    command = [sys.executable, "-I", "-S", "-B", *arguments, *map(str, paths)]
    return subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)


def shares(log: str) -> list[tuple[str, float]]:
    """The packages in an import log and their shares of the time, the most expensive first. `app` is what the function
    itself does at import, such as creating clients."""
    spent: dict[str, int] = defaultdict(int)
    for line in log.splitlines():
        self_time, *_, name = line.removeprefix("import time:").split("|")
        if self_time.strip().isdigit():
            spent[name.strip().partition(".")[0]] += int(self_time)
    total = sum(spent.values())
    return sorted(((package, own / total) for package, own in spent.items()), key=lambda row: -row[1])


def imports() -> Iterator[str]:
    """The table of functions. Compiled and uncompiled imports alternate, so that both run under the same load."""
    compiled, uncompiled = layers.build_layers(LOCAL_TARGET), layers.build_layers(replace(LOCAL_TARGET, compiler=None))
    sizes = "".join(f"{f'{size} MB':>9}" for size in SIZES)
    yield f"{'':<13}{'CPU ms':>8}{'':>7}{'no':>8}{'':>7}{'peak':>6}{'ms, if the CPU is the share of':>27}"
    yield f"{'function':<13}{'median':>8}{'least':>7}{'.pyc':>8}{'ratio':>7}{'MB':>6}{sizes}  the dearest packages"
    for name in LAYERS_BY_FUNCTION:
        turns = [(cost(compiled, name), cost(uncompiled, name)) for _ in range(RUNS)]
        least, without = (min(it.milliseconds for it in costs) for costs in zip(*turns, strict=True))
        median = statistics.median(with_it.milliseconds for with_it, _ in turns)
        peak = max(with_it.peak_megabytes for with_it, _ in turns)
        slowed = "".join(f"{least * WHOLE_CPU_MB / size:>9.0f}" for size in SIZES)
        log = run_in_fresh_interpreter(compiled, name, "-X", "importtime", "-c", IMPORT).stderr
        dearest = ", ".join(f"{package} {share:.0%}" for package, share in shares(log)[:5])
        yield (
            f"{name:<13}{median:>8.0f}{least:>7.0f}{without:>8.0f}{without / least:>6.1f}x{peak:>6.0f}{slowed}"
            f"  {dearest}"
        )


def unpacked_sizes() -> Iterator[str]:
    """The size of each layer on Lambda, without and with its compiled modules."""
    for name, folder in layers.build_layers(Target()).folders.items():
        weight = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        here = layers.build_layers(LOCAL_TARGET).folders[name]
        modules = sum(path.stat().st_size for path in here.rglob("*.pyc"))
        yield f"layer {name:<8}{weight / 1e6:>6.1f} MB, {(weight + modules) / 1e6:>5.1f} MB compiled"


def main() -> None:
    for line in imports():
        print(line)
    print()
    for line in unpacked_sizes():
        print(line)


if __name__ == "__main__":
    main()
