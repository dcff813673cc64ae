"""The stand-in's state in a file, so that payments survive a restart. It is written as a whole and replaced
atomically."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from stand_ins.stripe.idempotency import Use
from stand_ins.stripe.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    ledger: Ledger = field(default_factory=Ledger)
    uses: dict[str, Use] = field(default_factory=dict)
    undelivered: dict[str, dict[str, Any]] = field(default_factory=dict)


_STATE: Final = TypeAdapter(State)


def load(path: Path | None) -> State:
    """The state in `path`, or an empty one if there is no path or file."""
    if path is None or not path.exists():
        return State()
    return _STATE.validate_json(path.read_bytes())


def save(path: Path | None, state: State) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(path.suffix + ".new")
    draft.write_bytes(_STATE.dump_json(state))
    draft.replace(path)
