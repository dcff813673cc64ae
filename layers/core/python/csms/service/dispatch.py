"""Sending commands to a station's socket, in its OCPP version: one unanswered CALL at a time (note F43)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from csms.charging import command_results
from csms.commands import calls
from csms.errors import Conflict, ConnectionGone, NotFound, Unreachable
from csms.model import (
    CallState,
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
    """Sends commands, and records that a station is disconnected when its socket is gone."""

    def __init__(self, dependencies: Dependencies, units: UnitOfWork) -> None:
        self._dependencies = dependencies
        self._units = units

    def send(self, here: Presence | None, call: OutboundCall) -> Committed | None:
        """Send the command over the station's socket, after which it waits for its answer.

        If the socket is gone, record that. If the station's version cannot express the command, end it with an error.
        Return the commit, if there was one that may owe something.
        """
        gateway = self._dependencies.gateway
        if gateway is None or here is None or here.connection_id is None:
            return None
        dialect = self._dependencies.dialects.get(here.protocol)
        if dialect is None:  # Another release accepted the connection, and sends what waits.
            self._dependencies.observe("socket", {"unspoken": here.protocol})
            return None
        try:
            action, payload = dialect.encode_command(call.command)
        except InvalidCommand as invalid:
            self._dependencies.observe("command", {"invalid": invalid.message, "kind": call.kind})
            return self._end(call, CommandResult(outcome=CommandOutcome.ERROR, error_code=invalid.code))
        frame = dialect.encode(Call(unique_id=call.call_id, action=action, payload=payload))
        try:
            gateway.post(here.connection_id, frame)
        except ConnectionGone:
            self._dependencies.observe("socket", {"gone": here.connection_id})
            self.lose(here.station_id, here.connection_id)
        except Unreachable as failed:  # The station may have received it all the same.
            self._dependencies.observe("socket", {"failed": failed.message})
            self._note(Drop(call), Save(calls.requeue(call, self._dependencies.new_ids().call_id)))
        else:
            due_at = self._dependencies.now() + self._dependencies.policy.call_timeout
            self._note(Save(replace(call, state=CallState.SENT, due_at=due_at)))
        return None

    def lose(self, station_id: str, connection_id: str, *, closed: bool = False) -> None:
        """Record that the station is no longer connected over this connection (presence.lose). Nothing is sent."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            return presence.lose(before, connection_id, context, closed=closed)

        try:
            self._units.run(station_id, decide)
        except NotFound:
            self._dependencies.observe("socket", {"of a station that was deleted": station_id})

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
            self._dependencies.observe("call", {"answeredBeforeNotedAsSent": True})
