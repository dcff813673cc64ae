"""Threads of several processes that act at the same moment, on a real engine."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Final, TypeVar

PATIENCE_SECONDS: Final = 120

ROUNDS_VARIABLE: Final = "RACE_ROUNDS"
"""The variable with the number of rounds of every race, instead of the usual number (`make races`)."""

T = TypeVar("T")


def count_rounds(engine: str, **usual: int) -> int:
    """How many rounds a race on this engine has: its usual number, or that of the one named `others`."""
    return int(os.environ.get(ROUNDS_VARIABLE) or usual.get(engine, usual["others"]))


def run_rounds(start: Barrier, act: Callable[[int, int], T], *, rounds: int, threads: int) -> list[list[T]]:
    """What `act` returned for each thread and round. The threads of all processes begin each round together."""

    def run(thread: int) -> list[T]:
        heard = []
        for number in range(rounds):
            start.wait(PATIENCE_SECONDS)
            heard.append(act(thread, number))
        return heard

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def race(compete: Callable[..., T], *arguments: Any, processes: int, threads: int) -> list[T]:
    """What `compete(process, start, *arguments)` returned in each process; EOFError if one did not come to its end.

    `start` is the barrier of all threads of all processes, for run_rounds.
    """
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes * threads)
    results: list[Connection[Any, Any]] = []
    for process in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        target = (compete, sender, process, start, *arguments)
        context.Process(target=_send_result, args=target, daemon=True).start()
        # With our copy closed, the end of the process is the end of the pipe.
        sender.close()
        results.append(receiver)
    return [receiver.recv() for receiver in results]


def _send_result(compete: Callable[..., Any], sender: "Connection[Any, Any]", *arguments: Any) -> None:
    sender.send(compete(*arguments))
