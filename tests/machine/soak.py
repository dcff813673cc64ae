"""`make soak MINUTES=60`: the money machine with other examples in every run, for as long as you like, reporting the
endings it reached. A violated invariant ends it: it prints the shortest sequence that leads there, and the exit code is
not 0."""

from __future__ import annotations

import sys
import time
from functools import cache

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from csms.stations import credentials
from local import database
from tests.machine.line import ENGINE, FaultyDynamoDb
from tests.machine.money import MoneyMachine

BATCH = 50
SHOWN = 8


def main(minutes: str) -> None:
    """Run batches for so many minutes, and print one line for each."""
    try:
        until = time.monotonic() + float(minutes) * 60
    except ValueError:
        sys.exit(f"MINUTES is a number, not {minutes!r}.")
    credentials.verify_password = cache(credentials.verify_password)  # It is slow on purpose.
    examples = settings(
        max_examples=BATCH,
        stateful_step_count=30,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    with database.start(ENGINE) as engine:
        line = FaultyDynamoDb(engine.endpoint)
        while time.monotonic() < until:
            run_state_machine_as_test(lambda: MoneyMachine(line), settings=examples)
            reached = ", ".join(f"{times} {what}" for what, times in MoneyMachine.count_endings().most_common(SHOWN))
            left = max(0, round((until - time.monotonic()) / 60))
            print(f"{MoneyMachine.settled} sequences, no breach; {left} minutes left. Reached: {reached}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
