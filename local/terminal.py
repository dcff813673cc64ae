"""What is printed on a terminal: text from stations, drivers and servers could move its cursor, forge lines or hide
them, so every character that is not printed as itself is escaped."""

import logging
import sys
from types import TracebackType
from typing import Any

from csms_observer import escape

Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def escape_lines(text: str) -> str:
    """The text with its own lines, and everything else escaped that is not printed as itself."""
    return "\n".join(escape(line) for line in text.split("\n"))


def escape_values(value: Any) -> Any:
    """The JSON value with each of its texts escaped, line breaks included."""
    match value:
        case str():
            return escape(value)
        case dict():
            return {escape(name): escape_values(member) for name, member in value.items()}
        case list():
            return [escape_values(member) for member in value]
        case _:
            return value


class LineFormatter(logging.Formatter):
    """One line for a message, whatever is in it; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escape(super().formatMessage(record))

    def formatException(self, ei: Raised) -> str:  # noqa: N802 - logging's name
        return escape_lines(super().formatException(ei))


def log_to_terminal() -> None:
    """Write the warnings and errors of this program's libraries to its standard error, escaped."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
