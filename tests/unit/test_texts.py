"""Every reason has a text in every language, and the browser's preferred language is used."""

from __future__ import annotations

import pytest

from csms import texts


@pytest.mark.parametrize("language", texts.TEXTS)
def test_language_has_all_its_own_texts(language: str) -> None:
    own, english = texts.TEXTS[language], texts.TEXTS[texts.ENGLISH]

    assert own.keys() == english.keys()
    assert language == texts.ENGLISH or not set(own.values()) & set(english.values())


@pytest.mark.parametrize(
    ("header", "language"),
    {
        "": "en",
        "de": "de",
        "de-AT,en;q=0.5": "de",
        "fr-CH, de;q=0.4, en;q=0.8": "en",
        "DE": "de",
        "fr": "en",
        "de;q=0, en": "en",
        "de;q=x": "en",
        "de;q=nan": "en",
        "*": "en",
        ";;;,,q=": "en",
    }.items(),
)
def test_accept_language_selects_supported_language(header: str, language: str) -> None:
    assert language == texts.choose_language(header)


def test_unknown_reason_and_language_fall_back() -> None:
    assert texts.reason_text("LiveStatus:Faulted", "de") == texts.reason_text("Whatever", "de")
    assert texts.reason_text("Plug") == texts.reason_text("Plug", "tlh")
