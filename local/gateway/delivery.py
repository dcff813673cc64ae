"""In which order the frames of a socket reach the function. API Gateway promises none."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Final

MOST_OVERTAKING: Final = 2
"""How many later frames can overtake one frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How the frames of one socket are handed to the function: in the order of their arrival, one after the other.

    With `overlap` they are handled in parallel, and some wait until one or two later ones have overtaken them, or for
    `hold_seconds`. Which ones is random, and the same for the same `seed`.
    """

    overlap: bool = False
    seed: int = 1
    hold_seconds: float = 0.02


IN_ORDER: Final = Delivery()
OVERLAPPING: Final = Delivery(overlap=True)

Start = Callable[[], None]


class Line:
    """The frames of one socket on their way to the function. Each is handled within `turn`, and so is the end of the
    socket: in order, a turn begins when the one before it has ended, and otherwise at once."""

    def __init__(self, delivery: Delivery, random: Random) -> None:
        # The lock is fair: whoever asks first gets it first.
        self.turn: AbstractAsyncContextManager[None] = nullcontext() if delivery.overlap else asyncio.Lock()
        self._delivery = delivery
        self._random = random
        self._arrived = 0
        self._held: defaultdict[int, list[Start]] = defaultdict(list)

    def add(self, start: Start) -> None:
        """Start handling the frame that arrived, now or when later ones have overtaken it."""
        if not self._delivery.overlap:
            start()
            return
        self._arrived += 1
        overtaking = self._random.randint(0, MOST_OVERTAKING)
        if overtaking == 0:
            start()
        else:
            self._hold(start, self._arrived + overtaking)
        self._release(self._arrived)

    def release_all(self) -> None:
        """Start handling every frame that is still held back, because no other will come."""
        for number in tuple(self._held):
            self._release(number)

    def _hold(self, start: Start, until: int) -> None:
        """Hold the frame back until the frame of this number has arrived."""
        self._held[until].append(start)
        asyncio.get_running_loop().call_later(self._delivery.hold_seconds, self._release, until)

    def _release(self, number: int) -> None:
        for start in self._held.pop(number, ()):
            start()
