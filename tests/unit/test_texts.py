"""Every reason has its text in every language, and the browser's wish is heard."""

from __future__ import annotations

import pytest

from csms import texts


@pytest.mark.parametrize("language", texts.TEXTS)
def test_every_language_has_every_text_of_its_own(language: str) -> None:
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
def test_the_language_is_the_first_wish_that_is_spoken_here(header: str, language: str) -> None:
    assert language == texts.preferred(header)


def test_an_unknown_reason_and_an_unknown_language_still_say_something() -> None:
    assert texts.reason("LiveStatus:Faulted", "de") == texts.reason("Whatever", "de")
    assert texts.reason("Plug") == texts.reason("Plug", "tlh")
