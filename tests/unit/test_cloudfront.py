"""What is believed of a request's headers: whether it came through CloudFront, and the viewer's address."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.adapters.cloudfront import ORIGIN_HEADER, VIEWER_HEADER, came_through_cloudfront, read_viewer_address

SECRET = "the-way-through-the-edge"
NEXT = "the-next-way"
SECRETS = (SECRET, NEXT)
TEXT = st.text() | st.text(st.characters(), max_size=5)
SPELLINGS = st.sampled_from((str.lower, str.upper, str.title))


def headers(address: str, secret: str = SECRET) -> dict[str, str]:
    return {"Host": "api.example", ORIGIN_HEADER: secret, VIEWER_HEADER: address}


@pytest.mark.parametrize("secret", SECRETS)
def test_current_and_next_secret_are_accepted(secret: str) -> None:
    assert came_through_cloudfront({ORIGIN_HEADER: secret}, SECRETS)


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {ORIGIN_HEADER: ""},
        {ORIGIN_HEADER: SECRET[:-1]},
        {ORIGIN_HEADER: f"{SECRET} "},
        {ORIGIN_HEADER: f"forged,{SECRET}"},
        {ORIGIN_HEADER: "st\u00f6rung"},
        {ORIGIN_HEADER: "\ud800"},
        {ORIGIN_HEADER: SECRET, "X-Origin-Verify": "forged"},
    ],
)
def test_other_origin_header_is_refused(shown: dict[str, str]) -> None:
    assert not came_through_cloudfront(shown, SECRETS)


@pytest.mark.parametrize("secrets", [(), ("",), ("", "")])
def test_missing_secret_lets_nobody_in(secrets: tuple[str, ...]) -> None:
    assert not came_through_cloudfront({}, secrets)
    assert not came_through_cloudfront({ORIGIN_HEADER: ""}, secrets)


@pytest.mark.parametrize(
    ("shown", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", None),
        ("192.0.2.7:443", None),
        ("192.0.2.7, 198.51.100.9", None),
        ("192.0.2.07", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_viewer_address_is_one_canonical_address(shown: str, address: str | None) -> None:
    assert address == read_viewer_address(headers(shown), SECRETS)


def test_address_needs_the_origin_secret() -> None:
    assert read_viewer_address(headers("192.0.2.7", "forged"), SECRETS) is None
    assert read_viewer_address({VIEWER_HEADER: "192.0.2.7"}, SECRETS) is None


def test_forwarded_headers_are_never_read() -> None:
    others = {
        "X-Forwarded-For": "192.0.2.7",
        "CloudFront-Viewer-Address": "192.0.2.7:443",
        "Forwarded": "for=192.0.2.7",
    }

    assert read_viewer_address({ORIGIN_HEADER: SECRET, **others}, SECRETS) is None
    assert "198.51.100.9" == read_viewer_address(headers("198.51.100.9") | others, SECRETS)


@given(st.ip_addresses(), SPELLINGS)
def test_every_address_survives_in_any_spelling(address: object, spell: object) -> None:
    spelled = {spell(name): value for name, value in headers(str(address)).items()}  # type: ignore[operator]
    read = read_viewer_address(spelled, SECRETS)

    assert read is not None
    assert ip_address(read) in {address, getattr(address, "ipv4_mapped", None)}


@given(st.dictionaries(TEXT | st.sampled_from((ORIGIN_HEADER, VIEWER_HEADER)), TEXT, max_size=5))
def test_strange_headers_are_never_believed(shown: dict[str, str]) -> None:
    assert not came_through_cloudfront(shown, SECRETS)
    assert read_viewer_address(shown, SECRETS) is None


@given(TEXT)
def test_strange_address_is_none_or_canonical(shown: str) -> None:
    read = read_viewer_address(headers(shown), SECRETS)

    assert read is None or read == str(ip_address(read))
