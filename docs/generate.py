"""Writes what the docs can take from the code into the docs: `python -m docs.generate`; with --check it only says what
is stale.

A block stands between `<!-- generated: name -->` and `<!-- end -->`, and nobody edits it by hand.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from bench import budgets, cost
from csms import occupancy
from csms.charging import reservation
from csms.config import Settings
from csms.model import Money, Policy
from csms.ocpp import v16
from docs import endings
from infra import routes
from infra.options import PREFIX, SETTABLE, Options

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ("README.md", "docs/architecture.md", "docs/deploying.md", "docs/operating.md")
BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def reservation_states() -> str:
    """The reservation's life as a diagram."""
    lines = ["    [*] --> PendingPayment: Created"]
    lines += [f"    {old} --> {new}: {event}" for (old, event), new in reservation.TRANSITIONS.items() if old != new]
    lines += [f"    {state} --> [*]" for state in ("Completed", "Cancelled", "Failed")]
    return _diagram("stateDiagram-v2", lines)


def money_states() -> str:
    """The money's life as a diagram."""
    order = list(Money)
    moves = sorted(reservation.MONEY, key=lambda move: (order.index(move[0]), order.index(move[1])))
    return _diagram("stateDiagram-v2", [f"    [*] --> {Money.NONE}", *(f"    {old} --> {new}" for old, new in moves)])


def busy_rule() -> str:
    """The predicates of the busy rule in their order."""
    rows = ((str(n), p.__name__, (p.__doc__ or "").strip()) for n, p in enumerate(occupancy.PREDICATES, 1))
    return _table(("", "predicate", "true when"), ((n, f"`{name}`", text) for n, name, text in rows))


def import_layers() -> str:
    """The layers that import-linter holds, from the top, and what else it holds."""
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
    """Every way in, and the function that serves it."""
    sockets = (("WebSocket", f"`{key}`", f"`{function}`") for key, function in routes.WEBSOCKET.items())
    http = ((route.method, f"`{route.path}`", f"`{route.function}`") for route in routes.HTTP)
    clock = ((f"schedule {row.name}", f"`{row.rate}`", f"`{row.function}`") for row in routes.SCHEDULES)
    pages = (("page", f"`{path}`", f"`web/{file}`") for path, file in routes.PAGES.items())
    return _table(("", "way in", "served by"), (*sockets, *http, *clock, *pages))


def actions() -> str:
    """The OCPP 1.6 actions that stations may call."""
    rows = ((f"`{name}`", (action.decide.__doc__ or "").split("\n")[0]) for name, action in v16.DIALECT.actions.items())
    return _table(("action", ""), rows)


def ways_to_end() -> str:
    """Each way a reservation can end, and what that means for the driver's money."""
    return _table(("what happens", "ends as", "charged", "the driver sees", "the hold"), endings.rows())


def patience() -> str:
    """How long money may be on its way."""
    minutes = int(endings.patience(Policy()).total_seconds() // 60)
    return (
        f"What is owed is done at once; when the provider does not answer, again and again for {minutes} minutes,\n"
        "and then a human is asked. When it refuses for good, a human is asked at once.\n"
    )


def settings() -> str:
    """Every setting with its default."""
    rows = (
        (f"`{field.alias}`", "(required)" if field.is_required() else _shown(field.default, str(field.alias)))
        for field in Settings.model_fields.values()
    )
    return _table(("name", "default"), rows)


def costs() -> str:
    """What a fleet costs a month."""
    return cost.markdown(budgets.load())


def options() -> str:
    """What an operator may choose, with its default."""
    rows = [
        (f"`{PREFIX}{field.alias}`", _shown(field.default, str(field.alias)), field.description or "")
        for name, field in Options.model_fields.items()
        if name != "settings"
    ]
    settings_too = ((f"`{PREFIX}{name}`", _shown(default, name), "") for name, default in SETTABLE.items())
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
        ways_to_end,
        patience,
        settings,
        costs,
    )
}


def generated(text: str) -> str:
    """The page with each of its blocks made anew; KeyError for a block nobody makes."""
    return BLOCK.sub(lambda block: block[1] + BLOCKS[block[2]]() + block[4], text)


def stale(root: Path = ROOT) -> list[str]:
    """The pages whose blocks are not what the code says."""
    return [page for page in PAGES if (text := (root / page).read_text()) != generated(text)]


def main(arguments: list[str]) -> int:
    """0 when the pages are (now) as the code says; 1 when --check found one that is not."""
    pages = stale()
    for page in pages:
        if "--check" in arguments:
            print(f"{page} is stale: run `make docs`")
            continue
        path = ROOT / page
        path.write_text(generated(path.read_text()))
        print(f"{page} written")
    return 1 if pages and "--check" in arguments else 0


def _diagram(kind: str, lines: Iterable[str]) -> str:
    return "\n".join(("```mermaid", kind, *lines, "```", ""))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, tuple("---" for _ in head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _shown(default: Any, name: str) -> str:
    """A default in the unit that the setting's name says."""
    if isinstance(default, timedelta):
        seconds = int(default.total_seconds())
        return f"{seconds} s" if name.endswith("_SECONDS") else f"{seconds // 60} min"
    return "(empty)" if default == "" else f"`{default}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
