"""What was counted (bench.counted), as it is kept in bench/counted.json: by chapter and kind of invocation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("counted.json")

SIZES: Final = frozenset({"bytes_in", "bytes_out", "post_bytes", "log_bytes", "bytes_kept", "bytes_kept_for_a_time"})
SLACK: Final = 0.03
DIGITS: Final = 24
"""How far apart two counts of bytes may be: ids and times have a digit more or less."""

ENGINE: Final = "engine_"
"""Begins the names of what the engine says of itself; it is compared with what is computed, and not kept."""

Counted = dict[str, dict[str, dict[str, Any]]]


def load(path: Path = FILE) -> Counted:
    """The counts as they were written last."""
    kept: Counted = json.loads(path.read_text())
    return kept


def save(counts: Counted, path: Path = FILE) -> None:
    """The counts are kept."""
    ours = {
        chapter: {kind: {n: v for n, v in row.items() if not n.startswith(ENGINE)} for kind, row in kinds.items()}
        for chapter, kinds in counts.items()
    }
    path.write_text(json.dumps(ours, indent=1) + "\n")


def differences(kept: Counted, fresh: Counted) -> list[str]:
    """Where two counts say something else, by chapter, kind and what; bytes may differ a little."""
    rows = {(chapter, kind) for counts in (kept, fresh) for chapter, kinds in counts.items() for kind in kinds}
    found = []
    for chapter, kind in sorted(rows):
        old, new = (counts.get(chapter, {}).get(kind, {}) for counts in (kept, fresh))
        if not old or not new:
            found.append(f"{chapter}, {kind}: {'is not kept yet' if new else 'does not come any more'}")
            continue
        found += [
            f"{chapter}, {kind}: {name} was {old.get(name)}, is {new.get(name)}"
            for name in dict.fromkeys((*old, *new))
            if not name.startswith(ENGINE) and not _same(name, old.get(name), new.get(name))
        ]
    return found


def _same(name: str, old: Any, new: Any) -> bool:
    if name in SIZES and old and new:
        return bool(abs(old - new) <= SLACK * max(abs(old), abs(new)) + DIGITS)
    return bool(old == new)
