"""The ids that the service generates: valid for OCPP and chargers, and hard to guess."""

from __future__ import annotations

import re
import secrets

import pytest

from csms.service import generate_ids


@pytest.mark.note("F28")
def test_web_tag_has_20_alphanumeric_characters() -> None:
    tags = [generate_ids().id_tag for _ in range(1000)]

    assert [] == [tag for tag in tags if not re.fullmatch(r"[0-9A-Z]{20}", tag)]


@pytest.mark.note("F28")
def test_web_tag_has_80_random_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bit of chance up to the 80th changes the tag: nothing of it is cut off, fixed or folded together."""
    drawn: list[bytes] = []

    def draw(count: int) -> bytes:
        return drawn[-1][:count].ljust(count, b"\0")

    def tag(chance: bytes) -> str:
        drawn.append(chance)
        return generate_ids().id_tag

    monkeypatch.setattr(secrets, "token_bytes", draw)
    one_bit_each = [(1 << bit).to_bytes(10, "big") for bit in range(80)]

    assert 81 == len({tag(bytes(10)), *map(tag, one_bit_each)})


@pytest.mark.note("F28")
@pytest.mark.parametrize("name", ["reservation_id", "id_tag", "call_id", "epoch"])
def test_fresh_ids_are_unique(name: str) -> None:
    assert 1000 == len({getattr(generate_ids(), name) for _ in range(1000)})


@pytest.mark.note("F50")
def test_transaction_id_fits_31_positive_bits() -> None:
    assert [] == [
        number for number in (generate_ids().transaction_id for _ in range(1000)) if not 1 <= int(number) < 2**31
    ]
