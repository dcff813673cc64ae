"""Mends for texts that are no strict JSON, as some stations write them. It knows nothing of OCPP.

A mend never completes a text, never invents a value, and changes nothing in a string but what JSON forbids there. It
only proposes a text, which a strict parser then reads or refuses. All of it is linear in the size of the text: each
pattern looks at a character a fixed number of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isinf
from typing import Final

# The patterns are compiled when a text first needs them, because nearly every cold start needs none.
_SPACE: Final = r"[ \t\n\r]*+"
# A string that lacks its end is matched to the end of the text, so that the end is not searched for from each quote.
_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_BEFORE: Final = r"([ \t\n\r,:\[{])"  # A value.

_ESCAPED_CONTROL: Final = r"(?<!\\)\\(?:\\\\)*+[\0-\x1f]"
_SURROGATES: Final = (
    r"(?<!\\)((?:\\\\)*+)\\u(?:([dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_CONTROLS: Final = {code: f"\\u{code:04x}" for code in range(1, 0x20)}


def _replace_lone_surrogate(match: re.Match[str]) -> str:
    return match[0] if match[2] else f"{match[1]}\ufffd"


# Functions, because re expands a template with groups three times as slowly.
def _keep(match: re.Match[str]) -> str:
    return match[1]


def _add_zero(match: re.Match[str]) -> str:
    return f"{match[1]}0."


def _quote(match: re.Match[str]) -> str:
    return f'{match[1]}"{match[2]}"'


def _replace_by_null(match: re.Match[str]) -> str:
    return f"{match[1]}null"


def _drop_infinite(match: re.Match[str]) -> str:
    return _replace_by_null(match) if isinf(float(match[2])) else match[0]


_OUTSIDE_STRINGS: Final[tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...]] = (
    ("byte order mark", r"\ufeff", " "),
    ("NUL", r"\0", " "),
    ("control character", r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", " "),
    ("doubled comma", rf",(?={_SPACE},)", ""),
    ("leading comma", rf"([\[{{]{_SPACE}),", _keep),
    ("trailing comma", rf",(?={_SPACE}[\]}}])", ""),
    ("leading plus", rf"{_BEFORE}\+(?=[0-9.])", _keep),
    ("no digit before the point", rf"({_BEFORE}-?)\.(?=[0-9])", _add_zero),
    ("no digit after the point", rf"({_BEFORE}-?[0-9]++)\.(?![0-9])", _keep),
    # All digits may be an id of which the zeros are a part; the schema reads a text as a number where it wants one. Not
    # before a colon: such digits would become a name.
    ("leading zero", rf"{_BEFORE}(0[0-9]++)(?={_SPACE}[,\]}}])", _quote),
    ("leading zero", rf"({_BEFORE}-?)0+(?=[0-9])", _keep),
    ("not a finite number", rf"{_BEFORE}[+-]?(?i:nan|inf(?:inity)?)", _replace_by_null),
    (
        "not a finite number",
        rf"{_BEFORE}(?=-?[0-9]{{300}}|-?[0-9.]++[eE])(-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)",
        _drop_infinite,
    ),
)


@dataclass(frozen=True, slots=True)
class Mended:
    """A text that may be strict JSON now; each flag says what was mended, as "text: what"."""

    text: str
    flags: tuple[str, ...]


def find_mends(text: str) -> Iterator[Mended]:
    """What the text may mean, the likeliest first: with its mends, and then without its last character too. Strict JSON
    is not changed. Nothing if a control character is escaped by a backslash, because that has no meaning."""
    if re.search(_ESCAPED_CONTROL, text):
        return
    mended = _mend(text)
    yield mended
    yield Mended(mended.text.rstrip()[:-1], (*mended.flags, "text: surplus last character"))


def _mend(text: str) -> Mended:
    strings = "".join(re.findall(_STRING, text))
    flags, mended_strings = _mend_strings(strings)
    outside = re.sub(_STRING, '""', text)
    for name, pattern, replacement in _OUTSIDE_STRINGS:
        mended = re.sub(pattern, replacement, outside)
        if mended != outside:
            flags.append(name)
            outside = mended
    parts = outside.split('""')
    whole = (piece for pair in zip(parts, [*mended_strings, ""], strict=True) for piece in pair)
    return Mended("".join(whole), tuple(f"text: {name}" for name in dict.fromkeys(flags)))


def _mend_strings(strings: str) -> tuple[list[str], list[str]]:
    """What was mended in the strings, which follow each other, and each string after it."""
    flags = []
    if "\0" in strings:
        flags.append("NUL")
        strings = strings.replace("\0", "")
    if (escaped := strings.translate(_CONTROLS)) != strings:
        flags.append("control character")
        strings = escaped
    if (paired := re.sub(_SURROGATES, _replace_lone_surrogate, strings)) != strings:
        flags.append("lone surrogate")
        strings = paired
    return flags, re.findall(_STRING, strings)
