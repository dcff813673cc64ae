"""The walks of docs/adding.md, made in a copy of the tree: each works, and touches the files that the page lists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from csms.ocpp import v16

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = "layers/core/python/csms"
FOLDERS: Final = (
    *("layers", "functions", "infra", "local", "emulator", "smoke", "stand_ins", "bench", "docs", "tests", "web"),
    "requirements",
)

SPARE: Final = ("SecurityEventNotification", "SignedFirmwareStatusNotification", "GetLocalListVersion", "ClearCache")
"""Actions that 1.6 has a schema for; the first that is not served is added."""

NEW: Final = next(action for action in SPARE if action not in v16.DIALECT.actions)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What is written before which line of which file, None being a new file or its end; the files that it may touch at
    most; and a program that proves in the copy that it works."""

    most: int
    steps: Mapping[str, tuple[tuple[str | None, str], ...]]
    proof: str
    tests: tuple[str, ...]


ACTION: Final = Walk(
    most=2,
    steps={
        f"{SOURCE}/ocpp/v16/core.py": (
            (
                "ACTIONS: Final",
                '''def new_action(
    snapshot: Snapshot, _payload: Payload, _context: DecisionContext
) -> tuple[Snapshot, Payload]:
    """An action that is heard, and changes nothing."""
    return snapshot, {}


''',
            ),
            ('    "StopTransaction": Action(', f'    "{NEW}": Action(decide=new_action),\n'),
        ),
        "tests/unit/test_ocpp16_actions.py": (
            (
                None,
                f'''

def test_new_action_changes_nothing() -> None:
    before = b.snapshot()

    assert (before, {{}}) == ACTIONS["{NEW}"].decide(before, {{}}, decision_context())
''',
            ),
        ),
    },
    proof=f'''
from bench.payloads import minimal_payload
from csms.ocpp.v16.values import SCHEMAS
from tests.app.in_process import InProcessApp

app = InProcessApp().register()
app.connect()
app.boot()
assert {{}} == app.send_call("{NEW}", **minimal_payload(SCHEMAS, "{NEW}"))
''',
    tests=("tests/unit/test_ocpp16_actions.py::test_new_action_changes_nothing",),
)

PREDICATE: Final = Walk(
    most=3,
    steps={
        f"{SOURCE}/occupancy/rule.py": (
            (
                "PREDICATES: Final",
                '''def settling(view: View) -> str | None:
    """The last word on the connector is that it settles."""
    last = view.connector.persisted
    return "Settling" if last is not None and last.raw == "Settling" else None


''',
            ),
            ("    persisted_not_startable,\n)", "    settling,\n"),
        ),
        f"{SOURCE}/occupancy/explanation.py": (
            ("    persisted_not_startable,\n", "    settling,\n"),
            ("    persisted_not_startable: ", "    settling: persisted_status_evidence,\n"),
            ('    "PersistedStatus:Occupied": IN_USE', '    "Settling": IN_USE,\n'),
        ),
        "tests/unit/test_occupancy.py": (
            (
                '    "an open transaction": (',
                """    "live Available, persisted Settling": (
        snapshot(connector(persisted=build_persisted_status("Settling"))),
        ("Settling",),
    ),
""",
            ),
        ),
    },
    proof="""
from csms import texts
from csms.model import Policy
from csms.occupancy import busy_reasons, explain
from tests.builders import NOW, build_persisted_status, connector, snapshot

seen = snapshot(connector(persisted=build_persisted_status("Settling")))
(finding,) = (one for one in explain(seen, 1, now=NOW, policy=Policy()) if one.predicate == "settling")
assert ("Settling",) == busy_reasons(seen, 1, now=NOW, policy=Policy())
assert ("Settling", "Settling") == (finding.reason, finding.value) and finding.clears
assert texts.reason_text("Settling") == texts.reason_text("OpenTransaction")
assert () == busy_reasons(snapshot(), 1, now=NOW, policy=Policy())
""",
    tests=("tests/unit/test_occupancy.py", "tests/unit/test_explain.py::test_every_predicate_has_evidence"),
)

PROVIDER: Final = Walk(
    most=5,
    steps={
        f"{SOURCE}/adapters/acme.py": (
            (
                None,
                '''"""Acme as a payment provider."""

from __future__ import annotations

from tests.fakes import FakeProvider


class AcmePayments(FakeProvider):
    """Acme's side of PaymentProvider; what it answers is the fake's."""

    def __init__(self, *, api_key: str) -> None:
        super().__init__()
        self.api_key = api_key
''',
            ),
        ),
        f"{SOURCE}/config.py": (
            (
                "    status_freshness: ",
                '    acme_api_key: str = Field(alias="ACME_API_KEY", default="", repr=False)\n',
            ),
        ),
        f"{SOURCE}/payment_providers.py": (
            (
                "PROVIDERS: Final",
                """def _open_acme(settings: Settings) -> PaymentProvider:
    from csms.adapters.acme import AcmePayments

    return AcmePayments(api_key=settings.acme_api_key)


""",
            ),
            (
                '        "stripe": ',
                '        "acme": ProviderEntry(open=_open_acme, signature_header="acme-signature"),\n',
            ),
        ),
        "infra/payment_secrets.py": (
            (
                '    PaymentSecret(provider="stripe"',
                '    PaymentSecret(provider="acme", fields={"ACME_API_KEY": "api_key"}),\n',
            ),
        ),
        "tests/contracts/payment_provider/desks.py": (
            ('"stripe in process")\n', '"acme", '),
            (
                '        case "stripe over HTTP":',
                """        case "acme":
            acme: Any = open_provider("acme", settings(ACME_API_KEY="a"))
            acme.clock = clock
            yield fake_desk(acme, clock)
""",
            ),
        ),
    },
    proof="""
from csms.config import Settings
from csms.payment_providers import PROVIDERS, open_provider
from infra.options import KNOWN, SETTABLE, Options
from infra.payment_secrets import PAYMENT_SECRETS
from infra.permissions import PERMISSIONS

settings = Settings.load({"TABLE_NAME": "t", "ACME_API_KEY": "key", "PAYMENT_PROVIDER": "acme"})
provider = open_provider(settings.policy.payment_provider, settings)
assert ("AcmePayments", "key") == (type(provider).__name__, provider.api_key)
assert "acme" == Options.load({"csms:PAYMENT_PROVIDER": "acme"}).settings["PAYMENT_PROVIDER"]
assert "ACME_API_KEY" in KNOWN and "ACME_API_KEY" not in SETTABLE
assert sorted(PROVIDERS) == sorted(row.provider for row in PAYMENT_SECRETS)
assert {"payments", "maintenance"} == {name for name, allowed in PERMISSIONS.items() if "secret/acme" in allowed}
""",
    tests=(
        "tests/contracts/payment_provider/test_checkout.py::test_every_registered_provider_is_examined",
        "tests/contracts/payment_provider/test_checkout.py::test_same_key_opens_one_checkout[acme]",
        "tests/unit/test_config.py::test_settings_are_exactly_the_known_names",
        "tests/unit/test_docs.py::test_every_module_is_in_architecture",
    ),
)

WALKS: Final = {
    "One more OCPP action": ACTION,
    "One more busy predicate": PREDICATE,
    "One more payment provider": PROVIDER,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without what is built, somewhere else, after every walk."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "items.jsonl", "node_modules")
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for file in ROOT.glob("[!.]*"):
        if file.is_file():
            shutil.copy(file, tree)
    for walk in WALKS.values():
        apply_walk(walk, tree)
    run(tree, "-m", "docs.generate")
    return tree


def apply_walk(walk: Walk, tree: Path) -> None:
    """The walk's steps, done in the tree."""
    for file, insertions in walk.steps.items():
        path = tree / file
        text = path.read_text() if path.exists() else ""
        for before, inserted in insertions:
            assert before is None or 1 == text.count(before), f"{file} has not one place {before!r}"
            at = len(text) if before is None else text.index(before)
            text = text[:at] + inserted + text[at:]
        path.write_text(text)


def run(tree: Path, *arguments: str) -> str:
    """What Python printed in the tree; the test fails with it if it failed."""
    paths = os.pathsep.join(map(str, (tree, tree / "layers/core/python")))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True)

    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def changed_files(tree: Path) -> set[str]:
    """The files of the tree that are new or other than ours, but for what is generated."""
    files = {str(path.relative_to(tree)): path for path in tree.rglob("*") if path.is_file()}
    ours = {name: ROOT / name for name in files if "__pycache__" not in name and not name.startswith(".")}
    other = {name for name in ours if not ours[name].exists() or ours[name].read_bytes() != files[name].read_bytes()}
    return {
        name
        for name in other
        if not (name.endswith(".md") and hand_written_text(name, tree) == hand_written_text(name))
    }


def hand_written_text(page: str, tree: Path = ROOT) -> str:
    """The page without its generated blocks."""
    return re.sub(r"(<!-- generated: \w+ -->).*?<!-- end -->", r"\1", (tree / page).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("name", WALKS)
def test_each_walk_works(tree: Path, name: str) -> None:
    run(tree, "-c", WALKS[name].proof)


@pytest.mark.parametrize("name", WALKS)
def test_each_walk_touches_few_files(name: str) -> None:
    assert len(WALKS[name].steps) <= WALKS[name].most


def test_walks_change_only_listed_files(tree: Path) -> None:
    tests = [test for walk in WALKS.values() for test in walk.tests]
    run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "tests/unit/test_docs.py")

    assert {file for walk in WALKS.values() for file in walk.steps} == changed_files(tree)


@pytest.mark.parametrize("name", WALKS)
def test_documented_steps_match_the_walk(name: str) -> None:
    _, _, told = (ROOT / "docs/adding.md").read_text().partition(f"## {name}")
    named = re.findall(r"^\d\. `([^`]+)`", told.partition("\n## ")[0], re.MULTILINE)

    assert len(WALKS[name].steps) == len(named)
    assert all(any(step.startswith(path.partition("<")[0]) for step in WALKS[name].steps) for path in named)
