"""A web tag is recognized in whatever a station makes of it, and nothing else is taken for it."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from csms.charging import web_tags
from csms.charging.transaction.tags import is_tag_of
from csms.model import (
    IdTag,
    IdToken,
    Lock,
    Quirk,
    ReservationState,
    TagStatus,
    find_tag,
    find_tag_names,
    fold,
    trim_tag,
)
from csms.model.tags import SHORTEST_CUT, is_web_tag, name_web_tag
from tests import builders as b

FORMS = st.sets(st.sampled_from(sorted(web_tags.FORM_QUIRKS)))
RANDOM = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=19, max_size=19).map("W{}".format)
TAGS = st.builds(lambda random, form: web_tags.write_web_tag(random, b.station(quirks=tuple(form))), RANDOM, FORMS)
PADDING = st.text("\0\x01\x1f \t\r\n\x7f\x85\xa0", max_size=12)
SUFFIX = st.one_of(st.just(""), st.text(max_size=12).map("_{}".format))
pytestmark = pytest.mark.note("F28")


@st.composite
def spoilt(draw: st.DrawFn, tag: str, *, shortest: int = SHORTEST_CUT) -> str:
    """What a station may make of the tag: cut, in another case, with a suffix, padded."""
    cut = tag[: draw(st.integers(shortest, len(tag)))]
    spelled = "".join(letter.lower() if draw(st.booleans()) else letter for letter in cut)
    return draw(PADDING) + spelled + draw(PADDING) + draw(SUFFIX) + draw(PADDING)


def record(tag: str, reservation_id: str | None = "r1") -> IdTag:
    return IdTag(tag=tag, status=TagStatus.INVALID, reservation_id=reservation_id)


@given(data=st.data(), tag=TAGS)
def test_own_tag_is_recognized_in_any_form(data: st.DataObject, tag: str) -> None:
    said = data.draw(spoilt(tag))

    assert is_web_tag(tag, said)
    assert name_web_tag(tag) in find_tag_names(said)
    assert record(tag) == find_tag([record(tag), record("CARD", None)], said)
    lock = Lock(reservation_id="r1", state=ReservationState.AUTHORIZED, id_tag="OTHER", refused_tag=tag)
    assert is_tag_of(lock, IdToken(value=said))


@given(data=st.data(), tag=TAGS)
def test_tag_stored_by_earlier_release_is_found(data: st.DataObject, tag: str) -> None:
    said = tag + data.draw(PADDING) + data.draw(SUFFIX)

    assert fold(tag) in find_tag_names(said)


@given(data=st.data(), tag=TAGS, length=st.integers(0, SHORTEST_CUT - 1))
def test_shorter_cut_is_nobodys(data: st.DataObject, tag: str, length: int) -> None:
    said = data.draw(PADDING) + tag[:length] + data.draw(SUFFIX)

    assert not is_web_tag(tag, said)
    assert find_tag([record(tag)], said) is None


@given(data=st.data(), tag=TAGS, other=st.characters(codec="utf-8"))
def test_one_wrong_letter_is_nobodys(data: st.DataObject, tag: str, other: str) -> None:
    at = data.draw(st.integers(0, SHORTEST_CUT - 1))
    assume(fold(other) != fold(tag[at]))
    said = (tag[:at] + other + tag[at + 1 :])[: data.draw(st.integers(SHORTEST_CUT, len(tag)))]

    assert not is_web_tag(tag, said)
    assert find_tag([record(tag)], said) is None


@given(tag=TAGS, other=TAGS, text=st.text(max_size=40), more=st.sampled_from("0AZ-"))
def test_other_tags_and_texts_are_nobodys(tag: str, other: str, text: str, more: str) -> None:
    assume(fold(tag[:SHORTEST_CUT]) not in {fold(other[:SHORTEST_CUT]), fold(trim_tag(text)[:SHORTEST_CUT])})

    assert not is_web_tag(tag, other)
    assert not is_web_tag(tag, text)
    assert not is_web_tag(tag, tag + more)


@pytest.mark.parametrize("size", range(len(web_tags.FORM_QUIRKS) + 1))
def test_every_form_keeps_64_bits_when_cut(size: int) -> None:
    for form in combinations(sorted(web_tags.FORM_QUIRKS), size):
        tag = web_tags.write_web_tag("WANRVHVONRYN5TW7YHJM", b.station(quirks=form))
        cut = tag[:SHORTEST_CUT]

        assert cut == tag[:16]
        assert 16 == len(cut)
        assert 64 <= (15 * 5 if cut == "WANRVHVONRYN5TW7" else 16 * 4)
        assert (cut == "WANRVHVONRYN5TW7") == (Quirk.HEXADECIMAL_TAG not in form)


@given(data=st.data(), tag=TAGS)
def test_ambiguous_tag_is_nobodys(data: st.DataObject, tag: str) -> None:
    twins = [record(tag[:SHORTEST_CUT] + end, reservation_id) for end, reservation_id in (("AB", "r1"), ("CD", "r2"))]

    assert find_tag(twins, data.draw(spoilt(tag[:SHORTEST_CUT]))) is None
    assert 1 == len({name_web_tag(twin.tag) for twin in twins}), "and two such are never stored"
