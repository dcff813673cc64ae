"""How a tag is recognized in what a station makes of it: some append a serial number, pad it, or cut it (note F28)."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from csms.model.records import IdTag
from csms.model.values import fold

SHORTEST_CUT: Final = 16
"""The fewest characters of a longer web tag that are taken for it: 64 random bits at least, in each of its forms."""

SUFFIX: Final = "_"
"""What no web tag contains, and what KEBA puts before its serial number."""


def trim_tag(said: str) -> str:
    """The tag without blanks, control characters and what else is not printed at both ends."""
    kept = [index for index, letter in enumerate(said) if letter.isprintable() and not letter.isspace()]
    return said[kept[0] : kept[-1] + 1] if kept else ""


def is_web_tag(own: str, said: str) -> bool:
    """Whether the tag that a station said is this web tag: the whole of it, or at least its first 16 characters where
    the station cut it; trimmed, up to an underscore, and in any case. The time that it takes does not tell how much of
    a wrong tag is right."""
    tag = _cut_suffix(said)
    compared = own if len(tag) < SHORTEST_CUT else own[: len(tag)]
    return hmac.compare_digest(_encode(compared), _encode(tag))


def find_tag(tags: Iterable[IdTag], said: str) -> IdTag | None:
    """The stored tag that a station means: the registered one of that name, else the web tag. None if it could be
    either of two."""
    known, name = list(tags), fold(trim_tag(said))
    registered = next((tag for tag in known if tag.reservation_id is None and fold(tag.tag) == name), None)
    if registered is not None:
        return registered
    web = [tag for tag in known if tag.reservation_id is not None and is_web_tag(tag.tag, said)]
    return web[0] if len(web) == 1 else None


def name_web_tag(tag: str) -> str:
    """The name that a web tag is stored under: what is compared at least, so that there are never two web tags which a
    station's cut could not tell apart."""
    return fold(tag)[:SHORTEST_CUT]


def find_tag_names(said: str) -> tuple[str, ...]:
    """The names that the tag may be stored under; release 0.5.0 and earlier ones stored web tags under the whole."""
    tag = fold(_cut_suffix(said))
    return tuple(dict.fromkeys((fold(trim_tag(said)), tag, tag[:SHORTEST_CUT])))


def _cut_suffix(said: str) -> str:
    return trim_tag(trim_tag(said).partition(SUFFIX)[0])


def _encode(tag: str) -> bytes:
    return fold(tag).encode("utf-8", "surrogatepass")
