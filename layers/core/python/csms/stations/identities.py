"""Identities of stations: which can be registered. Whatever can be is accepted in every address: the station's, the
driver's and the operators'."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 48
"""Characters, as OCPP 2.0.1 allows (part 4, 3.1.1)."""

# Browsers and stations resolve these in an address, even if they are percent-encoded.
PATHS: Final = frozenset({".", ".."})


def find_problem(identity: str) -> str | None:
    """Why no station can have this identity, in one line that can be printed, or None if one can."""
    if not 1 <= len(identity) <= LONGEST:
        return f"must be an identity of 1 to {LONGEST} characters, not of {len(identity)}"
    if "/" in identity or identity in PATHS:
        return "must be an identity without slashes, because addresses contain it, and not a dot or two"
    if not identity.isprintable():
        return "must be an identity of characters that can be seen, without control characters"
    if identity != identity.strip():
        return "must be an identity without blanks at its beginning or end"
    return None
