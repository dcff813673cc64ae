"""The frames of stations, each handled alone, or, when many of one station hinder each other, in line.

A CALL and the answer to a command of csms are both a `Frame`: what to load, and a decision that also makes the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from csms.charging import command_results
from csms.commands import calls
from csms.errors import Conflict, NotFound, StoreUnavailable, Unreachable
from csms.model import (
    Append,
    Connection,
    DecisionContext,
    Drop,
    Outcome,
    Presence,
    ReadSet,
    Snapshot,
    WaitingFrame,
    Write,
    build_outcome,
)
from csms.ocpp import framing, kept_messages
from csms.ocpp.dialect import Call, CallError, CallResult, Dialect, Malformed, Payload, Quarantined, Taken
from csms.ocpp.kept_messages import ReceivedMessage
from csms.service.dependencies import Dependencies
from csms.service.flow import Flow
from csms.service.line import Answered, Line
from csms.service.unit_of_work import ATTEMPTS, OnTurn
from csms.stations import bounds, presence

DIRECT_ATTEMPTS: Final = 2
"""How often a frame is tried before it joins the line: two frames at a time are common, and trying again is cheaper."""

KEPT_IN_LINE: Final = timedelta(days=1)

Decide = Callable[[Snapshot, DecisionContext], tuple[Snapshot, str | None]]
Decoded = Call | CallResult | CallError | Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame to handle. `fixed_answer` is the answer that does not depend on the decision; `waiting` is the frame's
    item in the line, None if it is handled alone."""

    connection: Connection
    received_at: datetime
    decide: Decide
    find_read_set: Callable[[Snapshot], ReadSet]
    fixed_answer: str | None = None
    waiting: WaitingFrame | None = None


class Frames:
    """Handles frames that were decoded: commits their decisions, and returns their answers."""

    def __init__(self, dependencies: Dependencies, flow: Flow) -> None:
        self._dependencies = dependencies
        self._flow = flow
        self._line = Line(dependencies, self._process)

    def handle(
        self,
        connection: Connection,
        dialect: Dialect,
        message: Decoded,
        text: str | bytes,
        *,
        received_at: datetime,
    ) -> str | None:
        """The answer to the message, after its decision was committed; None if there is none, or if the holder of the
        station's turn sends it over the socket."""
        text = text if isinstance(text, str) else text.decode(errors="replace")
        frame = self._read(connection, dialect, message, text, received_at)
        if not isinstance(frame, Frame):
            return frame
        try:
            return self._commit([frame], attempts=DIRECT_ATTEMPTS, on_turn=OnTurn.LEAVE)[0]
        except Conflict:
            waiting = WaitingFrame(
                station_id=connection.station_id,
                frame_id=self._dependencies.new_ids().call_id,
                connection_id=connection.connection_id,
                protocol=connection.protocol,
                received_at=received_at,
                text=text,
                answered=frame.fixed_answer is not None or not isinstance(message, Call | Malformed),
                expires_at=received_at + KEPT_IN_LINE,
            )
            return self._line.join(waiting) or frame.fixed_answer

    def serve_line(self, station_id: str) -> None:
        """Process the frames that wait in the station's line, unless somebody else does."""
        self._line.serve(station_id)

    def _read(
        self,
        connection: Connection,
        dialect: Dialect,
        message: Decoded,
        text: str,
        received_at: datetime,
        waiting: WaitingFrame | None = None,
    ) -> Frame | str | None:
        """The frame to handle; or its answer, if that needs no decision."""
        if isinstance(message, CallResult | CallError):
            return self._read_answer(connection, dialect, message, received_at, waiting)
        action_name = message.action or ""
        self._dependencies.observe("call", {"station": connection.station_id, "action": action_name[:50]})
        if isinstance(message, Malformed):
            self._dependencies.observe("malformed", {"code": message.code, "why": message.description})
        accepted = dialect.accept(message)
        if isinstance(accepted, CallError):
            return dialect.encode(accepted)
        received = ReceivedMessage(
            station_id=connection.station_id,
            action=action_name,
            message_id=message.unique_id,
            text=text,
            received_at=received_at,
        )

        def encode(answer: Payload) -> str:
            return dialect.encode(dialect.answer(message, answer))

        if isinstance(accepted, Taken):
            if accepted.flags:
                self._dependencies.observe("lenient", {"action": action_name, "flags": list(accepted.flags)})
            if accepted.action.answer_alive is not None:
                context = self._dependencies.build_context(received_at)
                self._renew(connection, context)
                return encode(accepted.action.answer_alive(context))
            fixed_answer = accepted.action.fixed_answer
        else:
            fixed_answer = accepted.fixed_answer

        def attribute(before: Snapshot) -> Taken | Quarantined:
            return accepted.attribute(before) if isinstance(accepted, Taken) else accepted

        def decide(before: Snapshot, context: DecisionContext) -> tuple[Snapshot, str]:
            found = attribute(before)
            if isinstance(found, Quarantined):
                self._dependencies.observe("quarantined", {"action": action_name, "why": list(found.reasons)})
                after, answer = kept_messages.confirm(before, received, found, context)
                return after, encode(answer)
            after, answer = found.action.decide(before, found.payload, context)
            return kept_messages.keep_irregular(after, received, found.flags, context), encode(answer)

        def find_read_set(before: Snapshot) -> ReadSet:
            found = attribute(before)
            if isinstance(found, Quarantined):
                return kept_messages.find_read_set(received, found)
            return found.action.find_read_set(before, found.payload)

        return Frame(
            connection=connection,
            received_at=received_at,
            decide=decide,
            find_read_set=find_read_set,
            fixed_answer=None if fixed_answer is None else encode(fixed_answer),
            waiting=waiting,
        )

    def _read_answer(
        self,
        connection: Connection,
        dialect: Dialect,
        message: CallResult | CallError,
        received_at: datetime,
        waiting: WaitingFrame | None,
    ) -> Frame:
        """The answer to a command of csms. One to an unknown CALL is logged and changes nothing (note F44)."""

        def decide(before: Snapshot, context: DecisionContext) -> tuple[Snapshot, None]:
            call = calls.find(before, message.unique_id)
            if call is None:
                self._dependencies.observe("lateAnswer", {"unique_id": message.unique_id})
                return before, None
            result = dialect.read_answer(call.command, message)
            return command_results.apply_result(before, call, result, context), None

        def find_read_set(before: Snapshot) -> ReadSet:
            call = calls.find(before, message.unique_id)
            return ReadSet() if call is None else command_results.find_read_set(before, call)

        return Frame(
            connection=connection, received_at=received_at, decide=decide, find_read_set=find_read_set, waiting=waiting
        )

    def _commit(self, frames: Sequence[Frame], *, attempts: int, on_turn: OnTurn) -> list[str | None]:
        """Decide the first frames and commit them together; return their answers. There are several only if none of
        them needs more than the station's snapshot."""
        first = frames[0]

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            after, answers = before, list[str | None]()
            for frame in frames:
                if answers and not (_stands_alone(first, before) and _stands_alone(frame, after)):
                    break
                here = presence.restore_presence(after, frame.connection, context)
                after, answer = frame.decide(here, replace(context, frame_at=frame.received_at))
                answers.append(answer)
            after = bounds.forget_unregistered(before, after, context)
            done = frames[: len(answers)]
            outcome = build_outcome(before, _drop_repeated_records(after) if len(done) > 1 else after, answers)
            return replace(outcome, writes=(*outcome.writes, *_find_own_writes(done, before, outcome, context)))

        committed = self._flow.commit(
            first.connection.station_id, decide, first.find_read_set, attempts=attempts, on_turn=on_turn
        )
        for connection in dict.fromkeys(frame.connection for frame in frames):
            self._close_displaced(committed.before.presence, connection)
        answers: list[str | None] = committed.outcome.reply
        return answers

    def _process(self, waiting: Sequence[WaitingFrame]) -> Answered:
        """Handle the first frames of a line, as many as one commit takes. A frame that fails is taken out of the line
        into quarantine and answered with InternalError, so that it does not hold up the others."""
        try:
            answers = self._commit(
                [self._read_waiting(one) for one in waiting], attempts=ATTEMPTS, on_turn=OnTurn.GO_ON
            )
        except Conflict:
            return ()
        except StoreUnavailable:
            raise
        except Exception as failed:  # Whatever this frame raises, the others wait behind it.
            if len(waiting) > 1:
                return self._process(waiting[:1])
            self._dependencies.observe("frameFailed", {"frame": waiting[0].frame_id, "failed": repr(failed)})
            self._dependencies.store.commit([Drop(waiting[0]), *self._keep_failed(waiting[0], failed)])
            return ((waiting[0], framing.internal_error(waiting[0].text)),)
        return tuple(zip(waiting, answers, strict=False))

    def _keep_failed(self, waiting: WaitingFrame, failed: Exception) -> tuple[Append, ...]:
        """What puts a frame into quarantine that failed: its station may have its answer, and does not send it
        again."""
        message = self._dependencies.dialects[waiting.protocol].decode(waiting.text)
        received = ReceivedMessage(
            station_id=waiting.station_id,
            action=getattr(message, "action", None) or "",
            message_id=getattr(message, "unique_id", ""),
            text=waiting.text,
            received_at=waiting.received_at,
        )
        return kept_messages.keep_failed(received, failed, self._dependencies.build_context())

    def _read_waiting(self, waiting: WaitingFrame) -> Frame:
        """The frame of an item in the line."""
        connection = Connection(
            connection_id=waiting.connection_id,
            station_id=waiting.station_id,
            protocol=waiting.protocol,
            expires_at=waiting.expires_at,
        )
        dialect = self._dependencies.dialects[waiting.protocol]
        message = dialect.decode(waiting.text)
        read = (
            self._read(connection, dialect, message, waiting.text, waiting.received_at, waiting)
            if isinstance(message, Decoded)
            else None
        )
        if isinstance(read, Frame):
            return read
        # Another release let it join, and this one answers it without a decision.
        return Frame(
            connection=connection,
            received_at=waiting.received_at,
            decide=lambda before, _context: (before, read),
            find_read_set=lambda _before: ReadSet(),
            waiting=waiting,
        )

    def _renew(self, connection: Connection, context: DecisionContext) -> None:
        """Renew the lease with one write and no read; restore the presence if the lease has ended or another connection
        is known."""
        try:
            self._dependencies.store.commit([presence.renew(connection, context)])
        except Conflict:
            self._restore_presence(connection)

    def _restore_presence(self, connection: Connection) -> None:
        """Record that the station is connected after its lease had ended or its connection had been lost
        (presence.restore_presence)."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            return build_outcome(before, presence.restore_presence(before, connection, context))

        try:
            committed = self._flow.commit(connection.station_id, decide, on_turn=OnTurn.GO_ON)
        except NotFound:
            self._dependencies.observe("socket", {"of a station that was deleted": connection.station_id})
        except Conflict:  # Others write what they know of the station; its next frame is soon enough.
            self._dependencies.observe("socket", {"notRestored": connection.station_id})
        else:
            self._close_displaced(committed.before.presence, connection)

    def _close_displaced(self, present: Presence | None, connection: Connection) -> None:
        """Close the socket if a newer connection of the station was accepted: API Gateway did not close it if its
        $connect had not returned yet."""
        if self._dependencies.gateway is None or not presence.is_displaced(present, connection):
            return
        try:
            self._dependencies.gateway.close(connection.connection_id)
        except Unreachable as failed:
            self._dependencies.observe("displaced", {"failed": failed.message})


def _stands_alone(frame: Frame, before: Snapshot) -> bool:
    """Whether the frame may share a commit: its answer is fixed, and its decision reads nothing besides the station."""
    return frame.fixed_answer is not None and frame.find_read_set(before) == ReadSet()


def _drop_repeated_records(after: Snapshot) -> Snapshot:
    """The snapshot with each record once: a message that was sent twice may be in one commit twice."""
    records = tuple(record for n, record in enumerate(after.records) if record not in after.records[:n])
    return replace(after, records=records)


def _find_own_writes(
    frames: Sequence[Frame], before: Snapshot, outcome: Outcome, context: DecisionContext
) -> tuple[Write, ...]:
    """What a commit of frames writes besides their decisions: the renewal of the lease, and the end of their wait."""
    renewals = (presence.renew_when_due(frame.connection, before, outcome, context) for frame in frames)
    renewal = next((renewal for renewal in renewals if renewal), ())
    return (*renewal, *(Drop(frame.waiting) for frame in frames if frame.waiting is not None))
