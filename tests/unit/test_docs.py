"""The docs say what the code says, and point to what exists."""

import re
from pathlib import Path

import pytest

from docs import generate

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md"))))


def test_generated_blocks_are_what_the_code_says():
    assert [] == generate.stale()


def test_a_stale_block_is_found(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in generate.PAGES:
        (tmp_path / page).write_text((ROOT / page).read_text())
    page = tmp_path / "docs/architecture.md"
    page.write_text(page.read_text().replace("PendingPayment --> Authorized", "PendingPayment --> Charging"))

    assert ["docs/architecture.md"] == generate.stale(tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_named_path_exists(page):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:layers|functions|infra|web|local|tests|docs|bench)/[\w./-]*\w/?)`", text)

    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]

    assert [] == missing
