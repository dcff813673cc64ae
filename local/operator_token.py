"""The operator's token of this laptop: made at its first run, readable by nobody else."""

import os
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TOKEN_FILE: Final = ROOT / ".local" / "operator-token"


def ensure_token(path: Path = TOKEN_FILE) -> str:
    """The token, which is made if there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path)
    with os.fdopen(descriptor, "w") as file:
        file.write(token := token_urlsafe(24))
    return token


def read_token(path: Path = TOKEN_FILE) -> str:
    """The token that was made; FileNotFoundError before the first run."""
    return path.read_text().strip()
