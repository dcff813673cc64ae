"""Station credentials: HTTP Basic as OCPP-J sends it, and the salted hash that is stored of a password.

The user name is the identity, which may hold colons; the password is bytes and perhaps not UTF-8 (OCPP security
whitepaper A00.FR.203 to 205).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from threading import Lock
from typing import Final

# scrypt with 4 MiB takes a hundredth of a second on a laptop, once per connection.
COST: Final = 2**12
BLOCK_SIZE: Final = 8

MAX_REMEMBERED: Final = 10_000


def hash_password(password: bytes, *, salt: bytes) -> str:
    """The text to store for a password: `scrypt$<salt>$<digest>`, both hexadecimal."""
    digest = hashlib.scrypt(password, salt=salt, n=COST, r=BLOCK_SIZE, p=1, dklen=32)
    return f"scrypt${salt.hex()}${digest.hex()}"


def verify_password(password: bytes, stored: str) -> bool:
    """Whether the stored text was made from this password; compared in constant time."""
    scheme, _, rest = stored.partition("$")
    salt, _, _digest = rest.partition("$")
    if scheme != "scrypt":
        return False
    return hmac.compare_digest(hash_password(password, salt=bytes.fromhex(salt)), stored)


class VerifiedPasswords:
    """Verifies passwords, and remembers the right one of each stored text, so that a station that connects again and
    again costs scrypt once, and a guess costs nothing once the right one is known. Of a stored text whose right
    password was never given here, the last wrong one is remembered, because a station that has a wrong one sends it
    again and again; each other guess costs scrypt.

    Not the password is kept but its HMAC with `key`, which is random and leaves the process nowhere.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._digests: dict[str, bytes] = {}
        self._wrong_digests: dict[str, bytes] = {}
        self._lock = Lock()

    def verify(self, password: bytes, stored: str) -> bool:
        """Whether the stored text was made from this password; compared in constant time."""
        # One at a time: of many that come at once with the same password, only the first pays for scrypt.
        with self._lock:
            digest = self._digest(password, stored)
            if stored in self._digests:
                return hmac.compare_digest(self._digests[stored], digest)
            if hmac.compare_digest(self._wrong_digests.get(stored, b""), digest):
                return False
            is_right = verify_password(password, stored)
            remembered = self._digests if is_right else self._wrong_digests
            if len(remembered) >= MAX_REMEMBERED:
                remembered.clear()
            remembered[stored] = digest
            return is_right

    def _digest(self, password: bytes, stored: str) -> bytes:
        # The text holds no NUL, so no other text and password make the same message.
        return hmac.digest(self._key, stored.encode() + b"\0" + password, "sha256")


def read_basic_password(header: str | None, identity: str) -> bytes | None:
    """The password in an Authorization header; None if it is not HTTP Basic or not for this identity."""
    scheme, _, encoded = (header or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    name = identity.encode(errors="replace")
    user, password = decoded[: len(name)], decoded[len(name) :]
    if user.lower() != name.lower() or not password.startswith(b":"):
        return None
    return password[1:]
