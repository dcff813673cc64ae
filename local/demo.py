"""`python -m local.demo`: charge a car from plug to bill on a fresh database; the exit code is 0 only if the bill is
right."""

import sys
import tempfile
import threading
import time
from pathlib import Path

from csms_observer import escape
from local import story
from local.database import DatabaseError
from local.stack import StackError, end_on_signals, run_stack
from local.terminal import log_to_terminal

WIDTH = 150


class Narrator:
    """Prints each line with the seconds since the start. Lines may come from several threads."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        self._print(line)

    def say_event(self, identity: str, event: str) -> None:
        """Print what a charger sends or receives, indented; empty answers are omitted."""
        if not event.endswith("answer {}"):
            self._print(f"    {identity} {event}")

    def _print(self, line: str) -> None:
        elapsed = f"{time.monotonic() - self._begun:6.2f} s  "
        room, line = WIDTH - len(elapsed), escape(line)
        with self._lock:
            print(elapsed + (line if len(line) <= room else f"{line[: room - 1]}…"), flush=True)


def main() -> int:
    narrator = Narrator()
    end_on_signals()
    log_to_terminal()
    with tempfile.TemporaryDirectory(prefix="csms-demo-") as data:
        try:
            with run_stack(story.options(Path(data), narrator.say_event)) as stack:
                narrator.say(f"The stack runs at {stack.url}, on {stack.database.engine}.")
                ending = story.run_story(stack, narrator.say)
        except (story.StoryError, StackError, DatabaseError) as error:
            narrator.say(f"FAILED: {error}")
            return 1
        except KeyboardInterrupt:
            narrator.say("Interrupted.")
            return 1
    if not ending.is_good:
        narrator.say(f"FAILED: expected {ending.expected}, captured {ending.captured}, still held {ending.still_held}.")
        return 1
    narrator.say("The bill is right to the cent, the rest of the hold is released, and the connector is free.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
