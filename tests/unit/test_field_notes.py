"""Every field note has a test that is marked with it: `@pytest.mark.note("F32")`."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
NOTES: Final = [f"F{number:02}" for number in range(1, 78)]


def read_marks(file: Path) -> Iterator[str]:
    """The notes that the tests of the file are marked with."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.note":
            yield from (ast.literal_eval(argument) for argument in node.args)


def test_every_note_has_a_test() -> None:
    marks = Counter(mark for file in TESTS.rglob("test_*.py") for mark in read_marks(file))

    assert NOTES == sorted(marks)


def test_name_carries_no_note_number() -> None:
    names = [name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())]

    assert [] == [name for name in names if re.search(r"_f\d\d(_|$)", name)]


def test_names_have_three_to_seven_words() -> None:
    names = [name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def test_(\w+)", file.read_text())]

    assert [] == [name for name in names if not 3 <= len(name.split("_")) <= 7]
