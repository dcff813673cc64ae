"""Enum values of other releases are read from the table and written back, and accepted from no other source."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from csms.model import (
    CallState,
    CommandKind,
    CommandOutcome,
    ConnectorState,
    FailureCode,
    Money,
    OutboxKind,
    Protocol,
    ReservationState,
    StatusSource,
    StoredEnum,
    TagStatus,
)

KINDS: list[type[StoredEnum]] = [
    CallState,
    CommandKind,
    CommandOutcome,
    ConnectorState,
    OutboxKind,
    FailureCode,
    Money,
    Protocol,
    ReservationState,
    StatusSource,
    TagStatus,
]


def test_every_stored_enum_is_tested() -> None:
    assert set(KINDS) == set(StoredEnum.__subclasses__())


@pytest.mark.parametrize("kind", KINDS)
def test_known_word_is_its_member(kind: type[StoredEnum]) -> None:
    assert list(kind) == [kind.from_stored(str(word)) for word in kind]
    assert all(word.is_known for word in kind)


@given(kind=st.sampled_from(KINDS), text=st.text(max_size=30))
def test_same_text_gives_one_object(kind: type[StoredEnum], text: str) -> None:
    word = kind.from_stored(text)

    assert word is kind.from_stored(text)
    assert word is copy.deepcopy(word)
    assert (text, text, json.dumps(text)) == (str(word), f"{word}", json.dumps(word))
    assert word == text
    assert {text: "found"}[word] == "found"


@given(kind=st.sampled_from(KINDS), text=st.text(max_size=30))
def test_unknown_word_equals_no_member(kind: type[StoredEnum], text: str) -> None:
    word: Any = kind.from_stored(f"{text} of later")

    assert not word.is_known
    assert [] == [member for member in kind if member == word or member is word]
    assert word not in frozenset(kind)
    assert word not in list(kind)


def test_member_name_is_no_word() -> None:
    assert Money.from_stored("CAPTURED") is not Money.CAPTURED
    assert not Money.from_stored("CAPTURED").is_known


def test_unknown_word_matches_no_case() -> None:
    match Money.from_stored("disputed"):
        case Money.NONE | Money.CAPTURED:
            matched = "known"
        case _:
            matched = "none"

    assert "none" == matched


@pytest.mark.parametrize("kind", KINDS)
def test_external_unknown_words_are_refused(kind: type[StoredEnum]) -> None:
    kind.from_stored("unheard-of")

    with pytest.raises(ValueError, match="unheard-of"):
        kind("unheard-of")
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python("unheard-of")
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_json('"unheard-of"')
