"""What is hidden in the kept text of messages, and what is not."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csms.ocpp.redaction import HIDDEN, MOST_SECRETS, redact

TAG: Final = "04E91C5A123B80"


def frame(**payload: Any) -> str:
    return json.dumps([2, "m1", "DataTransfer", payload])


@pytest.mark.note("F71")
@pytest.mark.parametrize(
    "name", ["idTag", "parentIdTag", "idToken", "groupIdToken", "additionalIdToken", "id_tag", "IDTAG"]
)
@pytest.mark.parametrize("value", [TAG, 4912345, [TAG], {"value": TAG}, [{"deep": [TAG, 4912345]}]])
def test_named_tag_is_hidden_at_any_depth(name: str, value: Any) -> None:
    for payload in ({name: value}, {"a": [{"b": {name: value, "c": "kept"}}]}):
        text = redact(frame(**payload)).text

        assert TAG not in text
        assert "4912345" not in text
        assert f'"{name}"' in text
        assert text.count(HIDDEN) >= 1
    assert "kept" in text


@pytest.mark.note("F71")
@pytest.mark.parametrize("value", ["secret", "my_password", "AuthorizationKey"])
def test_value_named_like_password_is_hidden(value: str) -> None:
    assert f'{{"idTag": "{HIDDEN}", "a": "{HIDDEN}"}}' == redact(json.dumps({"idTag": value, "a": "x"})).text


@pytest.mark.note("F71")
def test_same_value_is_hidden_elsewhere() -> None:
    spelled = TAG.replace("C", "\\u0043")

    text = redact(frame(info=f"card {TAG.lower()} read", n=TAG, idTag=TAG, other="@").replace("@", spelled)).text

    assert TAG.lower() not in text.lower()
    assert spelled not in text
    assert f"card {HIDDEN} read" in text


@pytest.mark.note("F71")
def test_padded_tag_is_hidden_without_padding() -> None:
    assert HIDDEN in redact(frame(idTag=f" {TAG}\0", info=f"card {TAG}")).text.partition("card ")[2]


@pytest.mark.note("F71")
def test_known_tag_is_hidden_without_name() -> None:
    assert f"by {HIDDEN}" in redact(frame(info=f"by {TAG}"), [TAG]).text


@pytest.mark.note("F71")
def test_tag_in_json_text_is_hidden() -> None:
    inner = json.dumps({"idTag": TAG, "more": json.dumps({"idToken": {"idToken": "TOKEN-2", "type": "Central"}})})

    text = redact(frame(vendorId="v", data=inner)).text

    assert (False, False) == (TAG in text, "TOKEN-2" in text)
    assert "Central" in text


@pytest.mark.note("F71")
@pytest.mark.parametrize(
    "payload",
    [
        {"key": "AuthorizationKey", "value": "s3cr3t!"},
        {"value": "s3cr3t!", "key": "authorizationKey"},
        {"configurationKey": [{"key": "AuthorizationKey", "value": "s3cr3t!"}]},
        {"variable": {"name": "BasicAuthPassword"}, "attributeValue": "s3cr3t!"},
        {"password": "s3cr3t!"},
        {"wifi_password": ["s3cr3t!"]},
    ],
)
def test_password_is_hidden(payload: dict[str, Any]) -> None:
    text = redact(frame(**payload, other="s3cr3t!")).text

    assert "s3cr3t!" not in text


def test_regular_text_is_unchanged() -> None:
    text = frame(
        connectorId=1,
        info="wrong password",
        idTagInfo={"status": "Accepted"},
        meterValue=[{"sampledValue": [{"value": "604.213"}]}],
        configurationKey=[{"key": "HeartbeatInterval", "value": "60"}],
    )

    assert text == redact(text, ["NOT-IN-IT"]).text


@pytest.mark.parametrize("literal", ["null", "true", "false", '""'])
def test_missing_tag_stays_visible(literal: str) -> None:
    text = f'[2,"1","StartTransaction",{{"idTag":{literal},"meterStart":0}}]'

    assert text == redact(text).text


def test_short_tag_hides_only_itself() -> None:
    assert f'{{"idTag":"{HIDDEN}","connectorId":12}}' == redact('{"idTag":"12","connectorId":12}').text


@pytest.mark.parametrize(
    "text",
    [
        f'[2,"1","StartTransaction",{{,"idTag" : "{TAG}",}}',
        f'[2,"1","StartTransaction",{{"idTag":"{TAG}',
        f'{{"idTag":"{TAG}\\x"}}',
        f"idTag:{TAG}",
        f'"idTag":\n\t{TAG}',
    ],
)
def test_text_that_is_no_json_is_redacted(text: str) -> None:
    assert TAG not in redact(text, [TAG] if text.startswith("idTag") else []).text


def test_too_many_tags_hide_whole_text() -> None:
    text = json.dumps({"a": [{"idTag": f"tag-{number}"} for number in range(MOST_SECRETS + 1)]})

    redaction = redact(text)

    assert (HIDDEN, HIDDEN) == (redaction.text, redaction.hide("any other"))


def test_other_texts_are_redacted_alike() -> None:
    assert f"{HIDDEN}: unknown member" == redact(frame(idTag=TAG)).hide(f"{TAG}: unknown member")


@pytest.mark.parametrize("text", ["{" * 50_000 + "}" * 50_000, '"' * 99_999, '"idTag":' * 9_000, "\\" * 99_999])
def test_absurd_texts_are_read_in_time(text: str) -> None:
    redact(text)


TAGS = st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=20).filter(lambda tag: tag.strip(" \0*"))
NAMES = st.sampled_from(["idTag", "parentIdTag", "idToken", "group_id_token"])
PLACES = st.sampled_from(["info", "data", "meterValue", "x"])


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A message, its tags by name at any depth, and the same values in other members, perhaps within words."""
    tags = draw(st.lists(TAGS, min_size=1, max_size=3))
    value = st.sampled_from(tags)
    other = st.one_of(st.integers(0, 9), st.just("word"), value, value.map(lambda tag: f"so {tag}."))
    named = st.dictionaries(NAMES, value, min_size=1)
    node = st.recursive(
        st.one_of(named, other),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(PLACES, inner, max_size=3),
            inner.map(lambda it: json.dumps(it) if isinstance(it, dict) else it),
        ),
        max_leaves=8,
    )
    payload = {"first": dict.fromkeys(["idTag"], tags[0]), "rest": draw(node)}
    for number, tag in enumerate(tags):
        payload[f"t{number}"] = {"idTag": tag}
    return json.dumps([2, "m1", "DataTransfer", payload], ensure_ascii=draw(st.booleans())), tags


@pytest.mark.note("F71")
@settings(deadline=None)
@example((json.dumps([2, "m1", "DataTransfer", {"idTag": "****", "info": "*****"}]), ["****"]))
@given(messages())
def test_no_tag_remains_in_text(message: tuple[str, list[str]]) -> None:
    text, tags = message

    shown = redact(text).text

    for tag in tags:
        assert tag not in shown
        assert json.dumps(tag)[1:-1] not in shown
