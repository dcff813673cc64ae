"""The ids that the edge makes: what OCPP, chargers and guessers demand of them."""

from __future__ import annotations

import re
import secrets

import pytest

from csms.service import fresh_ids


def test_f28_a_web_tag_has_20_characters_that_every_charger_can_carry() -> None:
    tags = [fresh_ids().id_tag for _ in range(1000)]

    assert [] == [tag for tag in tags if not re.fullmatch(r"[0-9A-Z]{20}", tag)]


def test_f28_a_web_tag_carries_at_least_80_random_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bit of chance up to the 80th changes the tag: nothing of it is cut off, fixed or folded together."""
    drawn: list[bytes] = []

    def draw(count: int) -> bytes:
        return drawn[-1][:count].ljust(count, b"\0")

    def tag(chance: bytes) -> str:
        drawn.append(chance)
        return fresh_ids().id_tag

    monkeypatch.setattr(secrets, "token_bytes", draw)
    one_bit_each = [(1 << bit).to_bytes(10, "big") for bit in range(80)]

    assert 81 == len({tag(bytes(10)), *map(tag, one_bit_each)})


@pytest.mark.parametrize("name", ["reservation_id", "id_tag", "call_id", "epoch"])
def test_f28_no_two_are_alike(name: str) -> None:
    assert 1000 == len({getattr(fresh_ids(), name) for _ in range(1000)})


def test_f50_a_transaction_id_is_positive_and_fits_31_bits() -> None:
    assert [] == [
        number for number in (fresh_ids().transaction_id for _ in range(1000)) if not 1 <= int(number) < 2**31
    ]
