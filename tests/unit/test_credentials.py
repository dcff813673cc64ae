"""Basic credentials as chargers really send them (note F47)."""

from __future__ import annotations

import hmac
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest

from csms.stations import credentials
from csms.stations.credentials import VerifiedPasswords, hash_password, read_basic_password, verify_password


def basic_auth_header(user: bytes, password: bytes, scheme: str = "Basic ") -> str:
    return scheme + b64encode(user + b":" + password).decode()


@pytest.mark.note("F47")
@pytest.mark.parametrize(
    ("identity", "user", "password"),
    [
        ("CP-1", b"CP-1", b"secret"),
        ("CP:1", b"CP:1", b"secret"),
        ("CP", b"CP", b"1:secret:"),
        ("CP-1", b"CP-1", b"\xff\xfe\x00\x80"),
        ("CP-1", b"CP-1", b""),
        ("cp-1", b"CP-1", b"secret"),
        ("Säule", "Säule".encode(), b"secret"),
    ],
    ids=["plain", "colon in identity", "colon in password", "not UTF-8", "empty", "case of identity", "not ASCII"],
)
def test_password_follows_the_identity(identity: str, user: bytes, password: bytes) -> None:
    assert password == read_basic_password(basic_auth_header(user, password), identity)


@pytest.mark.note("F47")
@pytest.mark.parametrize("scheme", ["basic ", "BASIC ", "  Basic   "])
def test_scheme_ignores_case_and_blanks(scheme: str) -> None:
    assert b"secret" == read_basic_password(basic_auth_header(b"CP-1", b"secret", scheme), "CP-1")


@pytest.mark.note("F47")
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Bearer " + b64encode(b"CP-1:secret").decode(),
        b64encode(b"CP-1:secret").decode(),
        "Basic CP-1:secret",
        "Basic Q1A",
        "Basic Q1AtMTpzZWNyZXQ=é",
        "Basic " + b64encode(b"CP-1").decode(),
        basic_auth_header(b"CP-2", b"secret"),
        basic_auth_header(b"CP-11", b"secret"),
        basic_auth_header(b"CP", b"-1:secret"),
        basic_auth_header(b"", b"secret"),
    ],
)
def test_malformed_or_foreign_credentials_yield_no_password(header: str | None) -> None:
    assert read_basic_password(header, "CP-1") is None


@pytest.mark.note("F47")
def test_unencodable_identity_has_no_password() -> None:
    assert read_basic_password(basic_auth_header(b"CP", b"secret"), "CP\ud800") is None


@pytest.mark.note("F47")
def test_password_verifies_only_against_own_hash() -> None:
    stored = hash_password(b"sec\xffret", salt=b"one")

    assert verify_password(b"sec\xffret", stored)
    assert not verify_password(b"sec\xffret ", stored)
    assert not verify_password(b"", stored)
    assert stored != hash_password(b"sec\xffret", salt=b"two")
    assert "sec" not in stored


@pytest.mark.note("F47")
@pytest.mark.parametrize("stored", ["", "plain", "bcrypt$00$00", "scrypt$00$", "scrypt$$", "scrypt"])
def test_invalid_stored_hash_verifies_nothing(stored: str) -> None:
    assert not verify_password(b"", stored)


@pytest.mark.note("F47")
def test_hashes_compare_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare_digest(ours: str, theirs: str) -> bool:
        compared.append((ours, theirs))
        return False

    stored = hash_password(b"secret", salt=b"one")
    monkeypatch.setattr(hmac, "compare_digest", compare_digest)

    assert not verify_password(b"secret", stored)
    assert [(stored, stored)] == compared


@pytest.mark.note("F47")
def test_scrypt_cost_parameters_are_pinned() -> None:
    assert (4096, 8) == (credentials.COST, credentials.BLOCK_SIZE)


# What is remembered


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The passwords that scrypt was computed of, since the test began."""
    passwords: list[bytes] = []

    def count(password: bytes, stored: str) -> bool:
        passwords.append(password)
        return verify_password(password, stored)

    monkeypatch.setattr(credentials, "verify_password", count)
    return passwords


@pytest.mark.note("F47")
def test_right_password_costs_scrypt_once(derived: list[bytes]) -> None:
    known, stored = VerifiedPasswords(b"key"), hash_password(b"secret", salt=b"one")
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda _: known.verify(b"secret", stored), range(20)))

    assert [True] * 20 == verdicts
    assert [b"secret"] == derived
    assert VerifiedPasswords(b"key").verify(b"secret", stored)
    assert [b"secret"] * 2 == derived


@pytest.mark.note("F47")
def test_guesses_cost_no_scrypt_beside_known_password(derived: list[bytes]) -> None:
    known, stored = VerifiedPasswords(b"key"), hash_password(b"secret", salt=b"one")
    verdicts = [
        known.verify(password, stored) for password in (b"wrong", b"other", b"secret", b"wrong", b"", b"x", b"secret")
    ]

    assert [False, False, True, False, False, False, True] == verdicts
    assert [b"wrong", b"other", b"secret"] == derived


@pytest.mark.note("F47")
def test_repeated_wrong_password_costs_scrypt_once(derived: list[bytes]) -> None:
    known, stored = VerifiedPasswords(b"key"), [hash_password(b"secret", salt=salt) for salt in (b"one", b"two")]
    verdicts = [known.verify(b"wrong", text) for text in (*stored, *stored, *stored)]

    assert [False] * 6 == verdicts
    assert [b"wrong"] * 2 == derived
    assert all(known.verify(b"secret", text) for text in stored)


@pytest.mark.note("F47")
def test_changed_password_is_verified_anew() -> None:
    known = VerifiedPasswords(b"key")
    assert known.verify(b"secret", hash_password(b"secret", salt=b"one"))

    assert not known.verify(b"secret", hash_password(b"another", salt=b"one"))
    assert not known.verify(b"secret", "")
    assert known.verify(b"another", hash_password(b"another", salt=b"one"))


@pytest.mark.note("F47")
def test_remembered_passwords_are_bounded_digests(monkeypatch: pytest.MonkeyPatch, derived: list[bytes]) -> None:
    monkeypatch.setattr(credentials, "MAX_REMEMBERED", 2)
    known, stored = VerifiedPasswords(b"key"), [hash_password(b"secret", salt=bytes([n])) for n in range(3)]
    for text in stored:
        assert known.verify(b"secret", text)

    assert 1 == len(known._digests)
    assert "secret" not in repr(vars(known))
    assert known.verify(b"secret", stored[2])
    assert 3 == len(derived)
    assert VerifiedPasswords(b"other")._digest(b"secret", stored[2]) not in known._digests.values()
