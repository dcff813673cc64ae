"""The docs agree with the code, and their links lead to what exists."""

import importlib
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from csms.config import Settings
from csms.errors import BadRequest
from docs import generate
from infra import routes
from tests.documented import NEEDS_SWEEP, LeftoverKind

ROOT = Path(__file__).parents[2]
CORE = ROOT / "layers/core/python"
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md"))),
)

FOLDERS = ("adapters", "charging", "commands", "ocpp", "ports", "pricing", "service", "stations")
"""The folders of csms whose modules are in the architecture's table."""


def read(page: str) -> str:
    return (ROOT / page).read_text()


def test_generated_blocks_are_current():
    assert [] == generate.find_stale_pages()


def test_every_generated_block_is_in_a_page():
    assert sorted(generate.BLOCKS) == sorted(block[1] for page in PAGES for block in generate.BLOCK.findall(read(page)))


def test_stale_block_is_found(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in generate.PAGES:
        (tmp_path / page).write_text(read(page))
    page = tmp_path / "docs/reference.md"
    page.write_text(page.read_text().replace("PendingPayment --> Authorized", "PendingPayment --> Charging"))

    assert ["docs/reference.md"] == generate.find_stale_pages(tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_paths_exist(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)", read(page)) if "://" not in link]
    folders = "layers|functions|infra|web|local|emulator|smoke|stand_ins|tests|docs|bench"
    paths = re.findall(rf"`((?:{folders})/[\w./-]*\w/?)`", read(page))

    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]

    assert [] == missing


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_section_exists(page):
    linked = re.findall(r"\]\(([^):#]*)#([^)]+)\)", read(page))

    assert [] == [
        (to, section)
        for to, section in linked
        if section not in sections((ROOT / page).parent / (to or Path(page).name))
    ]


@cache
def sections(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("page", PAGES)
def test_every_named_module_and_function_exists(page):
    marked = re.findall(r"`(csms(?:\.\w+)+)`", read(page))
    drawn = re.findall(r"\bcsms(?:\.\w+)+", "".join(re.findall(r"```mermaid\n(.*?)```", read(page), re.DOTALL)))

    assert [] == [name for name in {*marked, *drawn} if not is_defined(name)]


def test_every_module_is_in_architecture():
    modules = {".".join(path.relative_to(CORE).with_suffix("").parts) for path in CORE.rglob("*") if is_module(path)}
    table = read("docs/architecture.md").partition("## Modules")[2].partition("\n## ")[0]
    named = {*re.findall(r"`(csms[\w.*]*)`", table), "csms", *(f"csms.{folder}" for folder in FOLDERS)}

    assert [] == [name for name in sorted(modules) if not any(fnmatchcase(name, row) for row in named)]
    assert [] == [row for row in sorted(named) if not any(fnmatchcase(name, row) for name in modules)]


def is_module(path: Path) -> bool:
    """Whether the path is a module or package of its own: directly in the layer, in csms, or in one of its folders."""
    known = path.suffix == ".py" or (path / "__init__.py").exists()
    return path.parent.name in {"python", "csms", *FOLDERS} and known and path.stem != "__init__"


def test_every_decision_has_number_date_and_doubt():
    entries = re.split(r"^### (\d+)\. ", read("docs/decisions.md").partition("## Dependencies")[0], flags=re.MULTILINE)
    numbers = [int(number) for number in entries[1::2]]

    assert [*range(1, len(numbers) + 1)] == sorted(numbers)
    assert [] == [
        number
        for number, text in zip(numbers, entries[2::2], strict=True)
        if not re.fullmatch(
            r".+\n\nDate: \d{4}-\d\d-\d\d\n\n.+\n\nWould change our mind: .+\n(\n## .+\n)?",
            text.rstrip() + "\n",
            re.DOTALL,
        )
    ]


def test_every_dependency_has_its_line():
    pinned = [
        re.match(r"\w[\w.-]*", line)
        for file in ("runtime", "dev")
        for line in read(f"requirements/{file}.in").splitlines()
    ]
    node = json.loads(read("package.json"))
    used = {match[0] for match in pinned if match} | {*node["devDependencies"], *node["optionalDependencies"]}
    rows = re.findall(r"^\| (\S+) \|", read("docs/decisions.md").partition("## Dependencies")[2], re.MULTILINE)[2:]

    assert sorted(used) == rows


def test_every_field_note_is_there_once():
    notes = re.findall(r"^- \*\*(F\d\d)\*\* ", read("docs/field-notes.md"), re.MULTILINE)

    assert [f"F{n:02}" for n in range(1, 78)] == notes


def test_every_glossary_term_is_used():
    terms = re.findall(r"^- \*\*(.+?)\*\* — ", read("docs/glossary.md"), re.MULTILINE)
    used = "".join(path.read_text() for folder in (CORE, ROOT / "functions") for path in folder.rglob("*.py"))
    used += "".join(read(page) for page in PAGES if page != "docs/glossary.md")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s_]+", " ", used).lower()

    assert len(set(terms)) == len(terms) > 20
    assert [] == [term for term in terms if not re.search(rf"\b{term}s?\b", words)]


def test_every_metric_is_described():
    sources = [path.read_text() for folder in (CORE, ROOT / "functions") for path in folder.rglob("*.py")]
    counting = re.compile(r'(?:add_metric|_record_action|_read_command)\(f?"(\w+)')
    counted = {name for source in sources for name in counting.findall(source)}
    told = {name for source in sources for name in re.findall(r'observe\("(\w+)"', source)} - {"decision"}
    named = {*re.findall(r"`(\w+)(?::[\w<>:]+)?`", read("docs/metrics.md"))}

    assert {"NeedsReview", "Frames", "ResetStatus", "Headline"} <= counted
    assert {"socket", "payment"} <= told
    assert [] == sorted((counted | told) - named)


def test_every_alarm_is_described():
    watch = read("infra/stack/alarms.py")
    alarms = {*re.findall(r'^        name="(\w+)"', watch, re.MULTILINE)}
    alarms |= {
        f"{route.title().replace('_', '')}Errors"
        for route in {*routes.WEBSOCKET.values(), *(r.function for r in routes.HTTP), "maintenance"}
    }

    assert len(alarms) > 10
    for page in ("docs/metrics.md", "docs/runbook.md"):
        assert [] == sorted(alarms - {*re.findall(r"`(\w+)`", read(page))})


def test_every_call_shown_has_a_route():
    shown = [call for page in PAGES for call in calls_shown(read(page))]
    current = [route for route in routes.HTTP if route.operator]
    known = [(route.method, re.sub(r"\{\w+\}", "[^/]+", route.path)) for route in current]

    assert [] == [
        call for call in shown if not any(call[0] == method and re.fullmatch(path, call[1]) for method, path in known)
    ]
    assert [] == [
        route
        for route in known
        if not any(route[0] == method and re.fullmatch(route[1], path) for method, path in shown)
    ]


def calls_shown(page: str) -> Iterator[tuple[str, str]]:
    """The method and path of each call of the operators' API."""
    for method, path in re.findall(r'(?:-X (\w+) )?"?(?:\$URL|<PublicUrl>)(/operations[^\s"?]*)', page):
        yield method or "GET", path


def occupancy_rows() -> list[tuple[str, str]]:
    """Each row of the occupancy page that names functions and tests."""
    rows = [line.split(" | ") for line in read("docs/occupancy.md").splitlines() if "`test_" in line]
    return [(row[1], row[2]) for row in rows]


def test_occupancy_names_functions_and_tests_that_exist():
    known = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    rows = occupancy_rows()

    assert rows
    assert [] == [test for _, tests in rows for test in re.findall(r"`(test_\w+)`", tests) if test not in known]
    assert [] == [
        name for functions, _ in rows for name in re.findall(r"`(csms[\w.]+)`", functions) if not is_defined(name)
    ]


def test_busy_times_are_those_of_the_properties():
    _, table = read("docs/occupancy.md").split("## Longest time a connector stays busy")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)[2:]

    assert [*LeftoverKind] == [what for what, _ in rows]
    assert NEEDS_SWEEP == {what for what, until in rows if "sweep" in until}


def test_settings_that_zero_disables_are_named():
    def disabled(name: str) -> bool:
        try:
            return Settings.load({"TABLE_NAME": "t", name: "0"}) == Settings.load({"TABLE_NAME": "t", name: "-1"})
        except BadRequest:
            return False

    durations = [str(f.alias) for f in Settings.model_fields.values() if isinstance(f.default, timedelta)]
    _, _, table = read("docs/reference.md").partition("| set to zero or less | what that means |")
    named = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE)

    assert [name for name in durations if disabled(name)] == named


def test_actions_with_a_reason_are_shown():
    reference = read("docs/reference.md")
    app = read("functions/operations/app.py")
    taking = {*re.findall(r'(?:_read_command|OperatorCommand\(who=_record_action)\("(\w+)"', app)}
    shown = re.findall(r'-X POST \S+ -d \S*"reason": .*"expected": ', reference)

    assert (9, 9, 1) == (len(taking), len(shown), reference.count("Nine actions take"))
    assert {f"`{name}`" for name in taking} <= {*re.findall(r"`\w+`", reference)}


def is_defined(dotted: str) -> bool:
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
