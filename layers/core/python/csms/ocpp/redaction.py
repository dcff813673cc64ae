"""Hides tags and passwords in the text of messages, so that it can be stored and shown.

The text is read part by part and otherwise left as the station sent it, because what is kept is irregular: often it
is no strict JSON, and its form is what an operator wants to see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

HIDDEN: Final = "***"
SHORTEST_SECRET: Final = 4
"""A shorter tag is hidden only where it is named as one: elsewhere its characters may be any number or word."""

MOST_SECRETS: Final = 50
"""A text with more is hidden as a whole: looking for each of them everywhere would take seconds."""

_TOKEN: Final = re.compile(r'"(?:[^"\\]+|\\.)*"?|[{}\[\]:,]|\s+|[^\s{}\[\]:,"]+', re.DOTALL)
_SECRET_NAME: Final = re.compile(r"(idtag|idtoken|tagid|cardid|rfid)s?$|password|authorizationkey|secret")
_NAMED_SECRET: Final = re.compile(r"\w*(password|authorizationkey|secret)")
_ANYTHING: Final = re.compile(r"\A(?!\*\*\*\Z).+", re.DOTALL)
_LITERALS: Final = frozenset({"null", "true", "false", '""'})
_DEEPEST_JSON_TEXT: Final = 3
_REACH: Final = 4
"""How many containers around a value know of it."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """A text without secrets, and what hides the same secrets in other texts."""

    text: str
    secrets: re.Pattern[str] | None = None

    def hide(self, other: str) -> str:
        """The other text, with the secrets of this one hidden."""
        return other if self.secrets is None else _hide_everywhere(other, self.secrets)


@dataclass(slots=True)
class _Container:
    """An object or list that is being read: whether all of it is secret, and whether the member that is read is."""

    is_secret: bool = False
    is_object: bool = False
    hides: bool = False
    shows: bool = False
    has_named_secret: bool = False
    values: list[int] = field(default_factory=list)


def redact(text: str, tags: Iterable[str] = ()) -> Redaction:
    """The text with the values of tags, tokens and passwords hidden, at any depth and in JSON inside of strings, and
    wherever else the same value or one of `tags` occurs."""
    secrets: set[str] = set()
    shown = _hide_named(text, secrets, depth=0)
    long = {secret for secret in (*secrets, *tags) if len(secret) >= SHORTEST_SECRET}
    if not long:
        return Redaction(shown)
    if len(long) > MOST_SECRETS:
        return Redaction(HIDDEN, _ANYTHING)
    pattern = re.compile("|".join(map(re.escape, sorted(long, key=len, reverse=True))), re.IGNORECASE)
    spelled = "".join(_hide_in_string(part, pattern) for part in _split(shown))
    return Redaction(_hide_everywhere(spelled, pattern), pattern)


def _hide_named(text: str, secrets: set[str], *, depth: int) -> str:
    """The text with the values hidden that their names call secret; they are added to `secrets`."""
    parts = _split(text)
    for index in _find_named(parts):
        value = _read(parts[index])
        secrets.update((value, value.strip(" \0")))
        parts[index] = f'"{HIDDEN}"'
    if depth < _DEEPEST_JSON_TEXT:
        parts = [_hide_in_json_text(part, secrets, depth=depth + 1) for part in parts]
    return "".join(parts)


def _hide_in_json_text(part: str, secrets: set[str], *, depth: int) -> str:
    """The string with what is secret in the JSON that it contains hidden; any other part as it is."""
    if not part.startswith('"') or "{" not in part:
        return part
    inner = _read(part)
    shown = _hide_named(inner, secrets, depth=depth)
    return part if shown == inner else json.dumps(shown, ensure_ascii=False)


def _find_named(parts: list[str]) -> set[int]:
    """The indexes of the values that are secret by the name before them, by the name of an object around them, or by a
    value beside them that names a password, as in {"key": "AuthorizationKey", "value": "..."}."""
    stack = [_Container()]
    seen = list(stack)
    hidden: set[int] = set()
    names: set[int] = set()
    for index, part in enumerate(parts):
        here = stack[-1]
        if part.isspace() or part in ":,":
            continue
        if part in "{[":
            stack.append(_Container(is_secret=here.is_secret or here.hides, is_object=part == "{"))
            seen.append(stack[-1])
        elif part in "}]":
            stack.pop()
            stack = stack or [_Container()]
        elif part.startswith('"') and _is_name(parts, index):
            name = _fold(_read(part))
            here.hides, here.shows = _SECRET_NAME.search(name) is not None, name == "type"
        elif part not in _LITERALS:
            for container in stack[-_REACH:]:
                container.values.append(index)
            if _NAMED_SECRET.fullmatch(_read(part).casefold()):
                names.add(index)
                for container in stack[-2:]:
                    container.has_named_secret |= container.is_object
            if here.hides or (here.is_secret and not here.shows):
                hidden.add(index)
    for container in seen:
        if container.has_named_secret:
            hidden.update(set(container.values) - names)
    return hidden


def _is_name(parts: list[str], index: int) -> bool:
    """Whether a colon follows the part."""
    after = index + 1
    if after < len(parts) and parts[after].isspace():
        after += 1
    return after < len(parts) and parts[after] == ":"


def _hide_in_string(part: str, pattern: re.Pattern[str]) -> str:
    """The string with secrets hidden that it may spell with escapes; any other part as it is."""
    if "\\" not in part or not part.startswith('"'):
        return part
    value = _read(part)
    shown = _hide_everywhere(value, pattern)
    return part if shown == value else json.dumps(shown, ensure_ascii=False)


def _hide_everywhere(text: str, pattern: re.Pattern[str]) -> str:
    """The text without any match: also without one that hiding another one has made."""
    while pattern.search(text):
        text = pattern.sub(HIDDEN, text)
    return text


def _split(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _read(part: str) -> str:
    """The value of a part as text; a string that is no valid JSON is taken as it stands."""
    if not part.startswith('"'):
        return part
    try:
        return str(json.loads(part, strict=False))
    except ValueError:
        return part.strip('"')


def _fold(name: str) -> str:
    """The name in small letters and without separators, so that id_tag, IdTag and idTag are one."""
    return "".join(letter for letter in name.casefold() if letter not in "_-. ")
