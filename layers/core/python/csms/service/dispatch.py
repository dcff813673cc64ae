"""Sending commands to a station's socket, in its OCPP version: one unanswered CALL at a time (note F43).

The right to send is claimed in the table before the frame is posted, so that of all who try at the same time one sends,
and each id is sent once. After a crash between the claim and the post the command counts as not answered in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from math import ceil
from typing import Final

from csms.charging import command_results, due, status
from csms.commands import calls
from csms.errors import Conflict, ConnectionGone, NotFound, Unreachable
from csms.model import (
    Claim,
    CommandOutcome,
    CommandResult,
    DecisionContext,
    Drop,
    OutboundCall,
    Outcome,
    Presence,
    Save,
    Snapshot,
    Write,
    build_outcome,
)
from csms.ocpp.dialect import Call, Dialect, InvalidCommand
from csms.service.dependencies import Dependencies
from csms.service.unit_of_work import Committed, UnitOfWork
from csms.stations import presence

ATTEMPTS: Final = 4


def refuse_unsupported_commands(dialects: Mapping[str, Dialect], before: Snapshot, outcome: Outcome) -> None:
    """Raise InvalidCommand if a new command that an operator asked for cannot be expressed in the station's OCPP
    version.

    Commands of csms and of drivers are not checked here: one that cannot be expressed ends with an error when it is
    sent.
    """
    known = {(call.call_id, call.asked_by) for call in before.calls}
    for call in outcome.calls:
        if (call.call_id, call.asked_by) in known or call.asked_by in {calls.CSMS, calls.DRIVER}:
            continue
        dialect = dialects.get(before.presence.protocol) if before.presence is not None else None
        if dialect is not None:
            dialect.encode_command(call.command)


class Dispatch:
    """Sends commands, gives up those that are not answered in time, and records that a station is disconnected when its
    socket is gone."""

    def __init__(self, dependencies: Dependencies, units: UnitOfWork) -> None:
        self._dependencies = dependencies
        self._units = units

    def send_next(self, snapshot: Snapshot, *, is_new: bool = True) -> Committed | None:
        """Send the station's next command, or give up the unanswered one that it waits for if its time is over. If that
        is not over yet, wait for its answer, if `is_new` says that a command has joined those that wait.

        Return the commit, if there was one that may owe something. Somebody else may send at the same time: then look
        again, and after some attempts leave a new command to a timer.
        """
        station_id = snapshot.station.station_id
        unanswered = call = None
        for _attempt in range(ATTEMPTS):
            here, now = snapshot.presence, self._dependencies.now()
            if here is None or here.connection_id is None:
                return None
            unanswered = calls.find_unanswered(snapshot)
            call = calls.choose_next(snapshot, now)
            try:
                if unanswered is not None and calls.is_any_waiting(snapshot, max(now, unanswered.due_at)):
                    if now >= unanswered.due_at:
                        return self.give_up(unanswered)
                    if is_new:
                        self._wait_for(unanswered)
                return None if call is None else self._send(snapshot, here, call)
            except Conflict:
                self._dependencies.observe("claim", {"lost": station_id})
            try:
                snapshot = self._dependencies.store.snapshot(station_id)
            except NotFound:
                return None
        beaten = call or unanswered
        if is_new and beaten is not None:
            self.set_timer(beaten, timedelta(0))
        return None

    def give_up(self, call: OutboundCall) -> Committed:
        """Commit what a sweep decides about the CALL: it is given up if its answer is overdue."""
        return self._units.run(
            call.station_id,
            lambda before, context: due.chase_call(before, call, context),
            lambda before: status.find_status_read_set(before, call),
        )

    def _send(self, snapshot: Snapshot, here: Presence, call: OutboundCall) -> Committed | None:
        """Claim the right to send the command and send it over the station's socket, after which it waits for its
        answer. Raises Conflict if the claim is lost.

        If the socket is gone, record that. If the station's version cannot express the command, end it with an error.
        """
        gateway, connection_id, now = self._dependencies.gateway, here.connection_id, self._dependencies.now()
        dialect = self._dependencies.dialects.get(here.protocol)
        if gateway is None or connection_id is None:
            return None
        if dialect is None:  # Another release accepted the connection, and sends what waits.
            self._dependencies.observe("socket", {"unspoken": here.protocol})
            return None
        try:
            action, payload = dialect.encode_command(call.command)
        except InvalidCommand as invalid:
            self._dependencies.observe("command", {"invalid": invalid.message, "kind": call.kind})
            return self._end(call, CommandResult(outcome=CommandOutcome.ERROR, error_code=invalid.code))
        until = now + self._dependencies.policy.call_timeout
        claim = Claim(station_id=here.station_id, version=here.version, call_id=call.call_id, until=until)
        self._dependencies.store.commit([claim])
        frame = dialect.encode(Call(unique_id=call.call_id, action=action, payload=payload))
        try:
            gateway.post(connection_id, frame)
        except ConnectionGone:
            self._dependencies.observe("socket", {"gone": connection_id})
            self.lose(here.station_id, connection_id, unsent_id=call.call_id)
        except Unreachable as failed:  # The station may have received it all the same.
            self._dependencies.observe("socket", {"failed": failed.message})
            self._note(Drop(call), Save(calls.requeue(call, self._dependencies.new_ids().call_id)))
        else:
            if calls.is_any_waiting(snapshot, until, besides=call):
                self.set_timer(call, until - now)
        return None

    def lose(self, station_id: str, connection_id: str, *, closed: bool = False, unsent_id: str = "") -> None:
        """Record that the station is no longer connected over this connection (presence.lose). Nothing is sent."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            return presence.lose(before, connection_id, context, closed=closed, unsent_id=unsent_id)

        try:
            self._units.run(station_id, decide)
        except NotFound:
            self._dependencies.observe("socket", {"of a station that was deleted": station_id})

    def _wait_for(self, unanswered: OutboundCall) -> None:
        """Make sure that the answer to this CALL, or the end of its time, sends what was queued behind it.

        The answer may be processed at this moment, by somebody who has read the station before the new command was
        stored. Saving the CALL once more makes that commit fail, so that the station is read again. Raises Conflict if
        the answer was faster.
        """
        self._dependencies.store.commit([Save(unanswered)])
        self.set_timer(unanswered, unanswered.due_at - self._dependencies.now())

    def set_timer(self, call: OutboundCall, after: timedelta) -> None:
        """Have maintenance look at the CALL and its station after this time (Maintenance.wake); without a timer the
        sweep does."""
        if self._dependencies.set_timer is None:
            return
        try:
            # A second more, because a deadline is inclusive and clocks differ.
            self._dependencies.set_timer(call.station_id, seconds=ceil(after.total_seconds()) + 1, call_id=call.call_id)
        except Unreachable as failed:
            self._dependencies.observe("timer", {"failed": failed.message})

    def _end(self, call: OutboundCall, result: CommandResult) -> Committed:
        """End the command with this result, as if the station had answered so."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            known = calls.find(before, call.call_id)
            if known is None:
                return Outcome()
            return build_outcome(before, command_results.apply_result(before, known, result, context))

        return self._units.run(call.station_id, decide, lambda before: command_results.find_read_set(before, call))

    def _note(self, *writes: Write) -> None:
        """Store the CALL's new state, unless somebody else changed it meanwhile."""
        try:
            self._dependencies.store.commit(writes)
        except Conflict:
            self._dependencies.observe("call", {"answeredBeforeNotedAsUnreachable": True})
