"""The operator token of this laptop: created at its first run, and readable only by this user."""

import os
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TOKEN_FILE: Final = ROOT / ".local" / "operator-token"


def ensure_token(path: Path = TOKEN_FILE) -> str:
    """The token, created if it does not exist."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path)
    with os.fdopen(descriptor, "w") as file:
        file.write(token := token_urlsafe(24))
    return token


def read_token(path: Path = TOKEN_FILE) -> str:
    """The token. Raises FileNotFoundError before the first run."""
    return path.read_text().strip()
