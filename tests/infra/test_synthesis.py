"""The same tree synthesizes to the same bytes, and a deployment of what is deployed changes nothing."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORTABLE = (str(ROOT), str(ROOT / "layers/core/python"))
PROGRAM = """
import sys
from pathlib import Path
import infra.app
from infra.layers import Layers
folders = dict.fromkeys(("core", "vendor", "stripe"), Path(sys.argv[1]))
infra.app.layers.built = lambda _aim: Layers(python="3.13", folders=folders)
infra.app.main()
"""


@pytest.fixture(scope="module")
def two_syntheses(tmp_path_factory):
    """Two syntheses, each in a process of its own with another order of hashes."""
    layer = tmp_path_factory.mktemp("layer")
    (layer / "python").mkdir()
    (layer / "python/module.py").write_text("")

    def synthesize(seed):
        out = tmp_path_factory.mktemp(f"out{seed}")
        environment = {
            **os.environ,
            "CDK_CONTEXT_JSON": json.dumps(json.loads((ROOT / "cdk.json").read_text())["context"]),
            "CDK_OUTDIR": str(out),
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(IMPORTABLE),
        }
        command = [sys.executable, "-c", PROGRAM, layer]
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return out

    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(synthesize, ("1", "2")))


def test_two_syntheses_produce_same_bytes(two_syntheses):
    first, second = (
        {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        for out in two_syntheses
    )

    assert "Csms.template.json" in first
    assert list(first) == list(second)
    assert [] == [name for name in first if first[name] != second[name]]


def test_diff_of_second_synthesis_is_empty(two_syntheses, cdk):
    first, second = two_syntheses

    done = cdk("diff", "Csms", "--app", first, "--template", second / "Csms.template.json", "--fail")

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "There were no differences" in done.stdout + done.stderr
