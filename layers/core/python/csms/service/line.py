"""The line of a station: frames that came with many others wait here, and one process at a time handles them, in the
order of receipt.

A frame that conflicts with others joins the line, which costs it two requests; then it is handled by the holder of the
turn. So a flush of a hundred frames holds one Lambda environment for its whole length, and each of the others only
while its frame joins. The turn is a lease. It keeps the order, while correctness rests on the versions of the items and
on each frame's own item, which the commit of its decision deletes: a frame takes effect once, even if a holder was
believed dead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from csms.errors import Conflict, ConnectionGone, StoreUnavailable, Unreachable
from csms.model import Drop, Turn, WaitingFrame
from csms.service.dependencies import Dependencies

HOLD: Final = timedelta(seconds=8)
"""The lease of a turn, shorter than the functions' time."""

MARGIN: Final = timedelta(seconds=3)
"""What a holder leaves of its lease for the frames that it has begun."""

BATCH: Final = 16
"""The most frames that are read at once, and the most that one commit handles."""

Answered = Sequence[tuple[WaitingFrame, str | None]]
Process = Callable[[Sequence[WaitingFrame]], Answered]


class Line:
    """The lines of all stations. `process` handles the first frames of a line, commits, and returns those that are done
    with their answers; it returns none if others were faster."""

    def __init__(self, dependencies: Dependencies, process: Process) -> None:
        self._dependencies = dependencies
        self._process = process

    def join(self, frame: WaitingFrame) -> str | None:
        """Put the frame into the line. If nobody holds the turn, take it and handle the whole line.

        Return the frame's answer if it was handled here. Another holder sends it over the station's socket.
        """
        store, now = self._dependencies.store, self._dependencies.now()
        turn = store.join_line(frame, now)
        self._dependencies.observe("line", {"joined": frame.frame_id, "held": turn.is_held(now)})
        if turn.is_held(now):
            return None
        try:
            return self._serve(turn, own_id=frame.frame_id)
        except StoreUnavailable as failed:  # The frame is stored: whoever takes the turn next handles it.
            self._dependencies.observe("line", {"left": frame.station_id, "failed": failed.message})
            return None

    def serve(self, station_id: str) -> None:
        """Handle the station's line, unless there is none or somebody else handles it."""
        turn = self._dependencies.store.turn(station_id)
        if turn is not None and not turn.is_held(self._dependencies.now()):
            self._serve(turn)

    def _serve(self, turn: Turn, own_id: str | None = None) -> str | None:
        """Take the turn and handle frames until the line is empty or the time is over. Return the answer of the frame
        `own_id` instead of sending it."""
        store, now = self._dependencies.store, self._dependencies.now()
        until = now + HOLD
        wanted = replace(turn, holder=self._dependencies.new_ids().call_id, held_until=until, due_at=until)
        try:
            mine = store.take_turn(wanted, now)
        except Conflict:  # Another one handles the line, or has handled it to its end.
            return None
        own: str | None = None
        while self._dependencies.now() < until - MARGIN:
            frames = store.line(mine.station_id, limit=BATCH)
            if frames:
                for frame, answer in self._process(frames):
                    if frame.frame_id == own_id:
                        own = answer
                    elif answer is not None and not frame.answered:
                        self._send(frame, answer)
                continue
            try:
                store.commit([Drop(mine)])
            except Conflict:  # Another frame has joined, or another one has taken the turn over.
                now_held = store.turn(mine.station_id)
                if now_held is None or now_held.holder != mine.holder:
                    return own
                mine = now_held
            else:
                return own
        self._hand_over(mine)
        return own

    def _hand_over(self, mine: Turn) -> None:
        """Leave the rest of the line to maintenance, at once if there is a timer."""
        try:
            self._dependencies.store.hand_over_turn(mine, self._dependencies.now())
        except Conflict:
            return
        self._dependencies.observe("line", {"handedOver": mine.station_id})
        if self._dependencies.set_timer is None:
            return
        try:
            self._dependencies.set_timer(mine.station_id, seconds=0)
        except Unreachable as failed:
            self._dependencies.observe("timer", {"failed": failed.message})

    def _send(self, frame: WaitingFrame, answer: str) -> None:
        """Send the answer over the socket that the frame came from. A station that does not get it repeats its
        message."""
        if self._dependencies.gateway is None:
            return
        try:
            self._dependencies.gateway.post(frame.connection_id, answer)
        except (ConnectionGone, Unreachable) as failed:
            self._dependencies.observe("line", {"unsent": frame.frame_id, "failed": failed.message})
