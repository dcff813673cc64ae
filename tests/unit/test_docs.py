"""The docs say what the code says, and point to what exists."""

import importlib
import re
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from csms.config import Settings
from csms.errors import BadRequest
from docs import generate
from tests.documented import SWEPT, Left

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md"))))


def test_generated_blocks_match_code():
    assert [] == generate.stale()


def test_stale_generated_block_is_found(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in generate.PAGES:
        (tmp_path / page).write_text((ROOT / page).read_text())
    page = tmp_path / "docs/architecture.md"
    page.write_text(page.read_text().replace("PendingPayment --> Authorized", "PendingPayment --> Charging"))

    assert ["docs/architecture.md"] == generate.stale(tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_paths_exist(page):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(
        r"`((?:layers|functions|infra|web|local|emulator|smoke|stand_ins|tests|docs|bench)/[\w./-]*\w/?)`", text
    )

    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]

    assert [] == missing


FOLDERS = ("adapters", "charging", "commands", "ocpp", "ports", "pricing", "service", "stations")
"""The folders of csms whose modules have a room each."""


def test_architecture_rooms_match_core_modules():
    core = ROOT / "layers/core/python"
    modules = {".".join(path.relative_to(core).with_suffix("").parts) for path in core.rglob("*") if is_module(path)}
    rooms, _, _ = (ROOT / "docs/architecture.md").read_text().partition("## Layers")
    named = {*re.findall(r"`(csms[\w.*]*)`", rooms.partition("## Rooms of the house")[2])}
    named |= {"csms", *(f"csms.{folder}" for folder in FOLDERS)}

    assert [] == [name for name in sorted(modules) if not any(fnmatchcase(name, room) for room in named)]
    assert [] == [room for room in sorted(named) if not any(fnmatchcase(name, room) for name in modules)]


def is_module(path: Path) -> bool:
    """Whether the path is a module or package of its own: directly in the layer, in csms, or in one of its folders."""
    known = path.suffix == ".py" or (path / "__init__.py").exists()
    return path.parent.name in {"python", "csms", *FOLDERS} and known and path.stem != "__init__"


def occupancy_rows() -> list[tuple[str, str]]:
    """Each row of the occupancy page that names functions and tests."""
    rows = [line.split(" | ") for line in (ROOT / "docs/occupancy.md").read_text().splitlines() if "`test_" in line]
    return [(row[1], row[2]) for row in rows]


def test_occupancy_page_names_existing_functions_and_tests():
    known = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    rows = occupancy_rows()

    assert rows
    assert [] == [test for _, tests in rows for test in re.findall(r"`(test_\w+)`", tests) if test not in known]
    assert [] == [name for functions, _ in rows for name in re.findall(r"`(csms[\w.]+)`", functions) if not found(name)]


def test_busy_duration_table_lists_every_cause():
    _, table = (
        (ROOT / "docs/occupancy.md").read_text().split("## How long a connector with nothing on it can stay busy")
    )
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)[2:]

    assert [*Left] == [what for what, _ in rows]
    assert SWEPT == {what for what, until in rows if "sweep" in until}


def operating() -> str:
    return (ROOT / "docs/operating.md").read_text()


def test_disableable_settings_are_exactly_documented():
    def disabled(name: str) -> bool:
        try:
            return Settings.load({"TABLE_NAME": "t", name: "0"}) == Settings.load({"TABLE_NAME": "t", name: "-1"})
        except BadRequest:
            return False

    durations = [str(f.alias) for f in Settings.model_fields.values() if isinstance(f.default, timedelta)]
    _, _, table = operating().partition("| set to zero or less | what that means |")
    named = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE)

    assert [name for name in durations if disabled(name)] == named


def test_actions_requiring_reason_are_documented():
    app = (ROOT / "functions/operations/app.py").read_text()
    taking = {*re.findall(r'(?:_order|Order\(who=_acts)\("(\w+)"', app)}
    shown = re.findall(r'-X POST \S+ -d \S*"reason": .*"expected": ', operating())

    assert (9, 9, 1) == (len(taking), len(shown), operating().count("Nine actions take"))
    assert {f"`{name}`" for name in taking} <= {*re.findall(r"`\w+`", operating())}


def found(dotted: str) -> bool:
    """Whether the dotted name leads to something in csms."""
    module, _, rest = dotted.partition(".")
    thing = importlib.import_module(module)
    for part in rest.split("."):
        if not hasattr(thing, part):
            try:
                importlib.import_module(f"{thing.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        thing = getattr(thing, part)
    return True
