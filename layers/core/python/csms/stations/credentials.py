"""Station credentials: HTTP Basic as OCPP-J sends it, and the salted hash that is stored of a password.

The user name is the identity, which may hold colons; the password is bytes and perhaps not UTF-8 (OCPP security
whitepaper A00.FR.203 to 205).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

# scrypt with 4 MiB takes a hundredth of a second on a laptop, once per connection.
COST: Final = 2**12
BLOCK_SIZE: Final = 8


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
