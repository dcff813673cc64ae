"""Writes the generated blocks of the docs: `python -m docs.generate`. With --check it only names the pages that are
stale.

A block stands between `<!-- generated: name -->` and `<!-- end -->`, and is never edited by hand.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from bench import budgets, cost
from csms import errors, occupancy
from csms.charging import reservation
from csms.config import Settings
from csms.model import Money, Policy
from csms.ocpp import v16
from csms.stations import quirks
from csms_http import CODE, STATUS
from docs import endings
from infra import routes
from infra.options import PREFIX, SETTABLE, Options

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ("docs/architecture.md", "docs/deploying.md", "docs/reference.md")
CORE: Final = ROOT / "layers/core/python"
NOTES: Final = re.compile(r" \(notes? F\d\d[^)]*\)")
BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def reservation_states() -> str:
    """The states of a reservation as a diagram."""
    lines = ["    [*] --> PendingPayment: Created"]
    lines += [f"    {old} --> {new}: {event}" for (old, event), new in reservation.TRANSITIONS.items() if old != new]
    lines += [f"    {state} --> [*]" for state in ("Completed", "Cancelled", "Failed")]
    return _diagram("stateDiagram-v2", lines)


def money_states() -> str:
    """The states of a reservation's money as a diagram."""
    order = list(Money)
    moves = sorted(reservation.MONEY_TRANSITIONS, key=lambda move: (order.index(move[0]), order.index(move[1])))
    return _diagram("stateDiagram-v2", [f"    [*] --> {Money.NONE}", *(f"    {old} --> {new}" for old, new in moves)])


def busy_rule() -> str:
    """The predicates of the busy rule in their order."""
    rows = ((str(n), f"`{p.__name__}`", _summary(p.__doc__)) for n, p in enumerate(occupancy.PREDICATES, 1))
    return _table(("", "predicate", "busy when"), rows)


def import_layers() -> str:
    """The layers that import-linter checks, from the top, and its other contracts."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = [contract for contract in contracts if contract["type"] == "layers"]
    rows = (
        (f"`{within}`" if within else "the repository", str(n), " ".join(f"`{name}`" for name in layer.split(" | ")))
        for contract in layered
        for within in contract.get("containers", [""])
        for n, layer in enumerate(contract["layers"], 1)
    )
    others = "".join(f"- {contract['name']}.\n" for contract in contracts if contract["type"] != "layers")
    return f"{_table(('within', 'layer', 'modules'), rows)}\n{others}"


def route_table() -> str:
    """Every route, schedule, queue and page, and the function that serves it."""
    sockets = (("WebSocket", f"`{key}`", f"`{function}`") for key, function in routes.WEBSOCKET.items())
    http = ((route.method, f"`{route.path}`", f"`{route.function}`") for route in routes.HTTP)
    clock = ((f"schedule {row.name}", f"`{row.rate}`", f"`{row.function}`") for row in routes.SCHEDULES)
    queue = (("queue", f"`{routes.TIMERS.name}`", f"`{routes.TIMERS.function}`"),)
    pages = (("page", f"`{path}`", f"`web/{file}`") for path, file in routes.PAGES.items())
    return _table(("", "route", "served by"), (*sockets, *http, *clock, *queue, *pages))


def actions() -> str:
    """The OCPP 1.6 actions that stations may send."""
    rows = ((f"`{name}`", _summary(action.decide.__doc__)) for name, action in v16.DIALECT.actions.items())
    return _table(("action", ""), rows)


def commands() -> str:
    """The OCPP 1.6 actions that csms sends to stations."""
    rows = ((f"`{row.action}`", f"`{kind}`") for kind, row in v16.DIALECT.commands.items())
    return _table(("action", "command"), rows)


def makes() -> str:
    """The quirks and the power that are suggested for each make, with the reports behind them."""
    rows = (
        (
            row.make,
            _join(f"`{name}`" for name in row.quirks),
            str(row.max_power_w or ""),
            _join(map(_format_source, row.sources)),
        )
        for row in quirks.load_table()
    )
    return _table(("make", "quirks", "`maxPowerW`", "source"), rows)


def quirk_meanings() -> str:
    """Each quirk with what csms does about it."""
    rows = ((f"`{quirk}`", meaning.text, meaning.handling) for quirk, meaning in quirks.MEANINGS.items())
    return _table(("quirk", "the station", "csms"), rows)


def error_codes() -> str:
    """The `status` of each refused HTTP request, with its status code and its meaning."""
    meanings = {CODE.get(error, error.__name__): (status, _summary(error.__doc__)) for error, status in STATUS.items()}
    meanings |= {code: (STATUS[error], message) for error, code, message in _raised()}
    rows = ((f"`{code}`", str(status), text) for code, (status, text) in sorted(meanings.items(), key=_by_status))
    return _table(("status", "HTTP", "meaning"), rows)


def ways_to_end() -> str:
    """Each way a reservation can end, and what it means for the driver's money."""
    return _table(("what happens", "ends as", "charged", "the driver sees", "the hold"), endings.rows())


def patience() -> str:
    """How long outbox items are retried."""
    minutes = int(endings.retry_period(Policy()).total_seconds() // 60)
    return (
        f"Provider calls are made at once. When the provider does not answer, they are retried for {minutes} minutes,\n"
        "and then the payment needs review. When the provider refuses for good, it needs review at once.\n"
    )


def settings() -> str:
    """Every setting with its default and its meaning."""
    rows = (
        (
            f"`{name}`",
            "(required)" if field.is_required() else _format_default(field.default, name),
            field.description or "",
        )
        for name, field in _settings().items()
    )
    return _table(("name", "default", ""), rows)


def costs() -> str:
    """The monthly cost of a fleet."""
    return cost.markdown(budgets.load())


def options() -> str:
    """The options of an installation, with their defaults."""
    rows = [
        (f"`{PREFIX}{field.alias}`", _format_default(field.default, str(field.alias)), field.description or "")
        for name, field in Options.model_fields.items()
        if name != "settings"
    ]
    known = _settings()
    settings_too = (
        (f"`{PREFIX}{name}`", _format_default(default, name), known[name].description or "")
        for name, default in SETTABLE.items()
    )
    return _table(("key", "default", ""), (*rows, *settings_too))


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    block.__name__: block
    for block in (
        options,
        reservation_states,
        money_states,
        busy_rule,
        import_layers,
        route_table,
        actions,
        commands,
        makes,
        quirk_meanings,
        error_codes,
        ways_to_end,
        patience,
        settings,
        costs,
    )
}


def regenerate(text: str) -> str:
    """The page with each of its blocks generated again. Raises KeyError for an unknown block."""
    return BLOCK.sub(lambda block: block[1] + BLOCKS[block[2]]() + block[4], text)


def find_stale_pages(root: Path = ROOT) -> list[str]:
    """The pages whose blocks differ from what the code generates."""
    return [page for page in PAGES if (text := (root / page).read_text()) != regenerate(text)]


def main(arguments: list[str]) -> int:
    """Return 0 if the pages are up to date (or were written), and 1 if --check found a stale one."""
    pages = find_stale_pages()
    for page in pages:
        if "--check" in arguments:
            print(f"{page} is stale: run `make docs`")
            continue
        path = ROOT / page
        path.write_text(regenerate(path.read_text()))
        print(f"{page} written")
    return 1 if pages and "--check" in arguments else 0


def _settings() -> dict[str, FieldInfo]:
    """The settings by their names in the environment."""
    return {str(field.alias): field for field in Settings.model_fields.values()}


def _diagram(kind: str, lines: Iterable[str]) -> str:
    return "\n".join(("```mermaid", kind, *lines, "```", ""))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, tuple("---" for _ in head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _join(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _format_source(source: str) -> str:
    """A report as a link; a field note as its number."""
    project, _, number = source.partition("#")
    return f"[{source}](https://github.com/{project}/issues/{number})" if number else source


def _summary(docstring: str | None) -> str:
    """The docstring's first paragraph on one line, without the numbers of field notes."""
    paragraph = " ".join((docstring or "").split("\n\n")[0].split())
    return NOTES.sub("", paragraph)


def _raised() -> list[tuple[type[errors.CsmsError], str, str]]:
    """Each error that is raised with a code of its own, outside of the HTTP functions: its type, code and message."""
    found = []
    for file in sorted((CORE / "csms").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            error = getattr(errors, node.func.id, None)
            code = next((it.value for it in node.keywords if it.arg == "code"), None)
            if error in STATUS and isinstance(code, ast.Constant):
                found.append((error, str(code.value), _message(node.args[0])))
    return found


def _by_status(row: tuple[str, tuple[int, str]]) -> tuple[int, str]:
    return row[1][0], row[0]


def _message(node: ast.expr) -> str:
    """The text of a literal, with an ellipsis for each inserted value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(it.value if isinstance(it, ast.Constant) else "…" for it in node.values)
    return str(ast.literal_eval(node))


def _format_default(default: Any, name: str) -> str:
    """A default in the unit that the setting's name gives."""
    if isinstance(default, timedelta):
        seconds = int(default.total_seconds())
        return f"{seconds} s" if name.endswith("_SECONDS") else f"{seconds // 60} min"
    return "(empty)" if default == "" else f"`{default}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
