"""What a station does: connect, send frames, disconnect. It takes and returns the text of frames; the transport is
elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from csms.charging import command_results
from csms.commands import calls
from csms.errors import Conflict, NotFound, Unreachable
from csms.model import (
    Append,
    Connection,
    DecisionContext,
    Outcome,
    Presence,
    ReadSet,
    Snapshot,
    Station,
    Tariff,
    build_outcome,
    fold,
)
from csms.ocpp.dialect import (
    Action,
    Call,
    CallError,
    CallResult,
    Dialect,
    Ignored,
    Malformed,
    Payload,
    refuse_unsupported_version,
)
from csms.service.dependencies import Dependencies, generate_key
from csms.service.flow import Flow
from csms.service.registry import register
from csms.stations import presence
from csms.stations.credentials import VerifiedPasswords
from csms.stations.presence import Connected
from csms.stations.registration import Registration

MAX_CACHED_CONNECTIONS: Final = 10_000


class Stations:
    """The stations' part of the service."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._flow = Flow(dependencies)
        self._connections: dict[str, Connection] = {}
        self._passwords = VerifiedPasswords(generate_key())

    def register(self, identity: str, *, password: bytes, connectors: tuple[int, ...], tariff: Tariff) -> Station:
        """Register the station. For one that is registered, change password, connectors and tariff, and keep the
        rest."""
        wanted = Registration(identity=identity, password=password, connectors=connectors, tariff=tariff)
        return register(self._flow, wanted).registered.station

    def connect(self, identity: str, *, authorization: str | None, offered: Iterable[str], connection_id: str) -> str:
        """Authenticate the station and record its connection; return the agreed sub-protocol (OCPP-J 1.6 section 3).

        Raises, in this order, NotFound, Unauthorized, BadRequest if there is no common sub-protocol, or
        ConnectionSuperseded if another connection of the station was accepted meanwhile. No connection is changed then,
        so one that fails authentication does not displace a working one (note F17). An unknown station is listed for
        the operators (note F49).
        """
        offers = tuple(offered)
        seen: list[Presence | None] = []

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            seen.append(before.presence)
            return presence.connect(
                before,
                connection_id,
                context,
                identity=identity,
                authorization=authorization,
                offered=offers,
                spoken=self._dependencies.dialects,
                seen=seen[0],
                verify=self._passwords.verify,
            )

        try:
            # A socket takes no frames before its $connect has returned (API Gateway answers 410), so what the commit
            # owes is sent after the station's first frame.
            connected: Connected = self._flow.units.run(fold(identity), decide).outcome.reply
        except NotFound:
            self._dependencies.store.commit(
                [Append(presence.build_unknown_station(identity, self._dependencies.now()))]
            )
            raise
        if connected.displaced_id is not None and self._dependencies.gateway is not None:
            try:
                self._dependencies.gateway.close(connected.displaced_id)
            except Unreachable as failed:
                self._dependencies.observe("displaced", {"failed": failed.message})
        return connected.protocol

    def disconnect(self, connection_id: str) -> None:
        """Record that the connection was closed, if it is the station's present one. A connection that was never
        accepted is ignored."""
        try:
            connection = self._find_connection(connection_id)
        except NotFound:
            return
        self._flow.dispatch.lose(connection.station_id, connection_id, closed=True)

    def receive(self, connection_id: str, text: str | bytes) -> str | None:
        """Process a frame from a station; return the frame to answer with, or None for no answer. Raises NotFound for a
        connection that was never accepted."""
        connection = self._find_connection(connection_id)
        dialect = self._dependencies.dialects.get(connection.protocol)
        if dialect is None:
            self._dependencies.observe("socket", {"unspoken": connection.protocol})
            return refuse_unsupported_version(text)
        message = dialect.decode(text)
        match message:
            case Call():
                return dialect.encode(self._answer(connection, dialect, message))
            case CallResult() | CallError():
                self._end_command(connection, dialect, message)
                return None
            case Malformed():
                self._dependencies.observe("malformed", {"code": message.code, "why": message.description})
                return dialect.encode(message.to_call_error())
            case Ignored():
                self._dependencies.observe("ignored", {"why": message.reason})
                return None

    def _find_connection(self, connection_id: str) -> Connection:
        """The connection with its station; read once, since it never changes."""
        known = self._connections.get(connection_id)
        if known is not None:
            return known
        if len(self._connections) >= MAX_CACHED_CONNECTIONS:
            self._connections.clear()
        found = self._dependencies.store.connection(connection_id)
        self._connections[connection_id] = found
        return found

    def _answer(self, connection: Connection, dialect: Dialect, call: Call) -> CallResult | CallError:
        """The answer to a station's CALL, after its decision was committed."""
        self._dependencies.observe("call", {"station": connection.station_id, "action": call.action[:50]})
        accepted = dialect.accept(call)
        if isinstance(accepted, CallError):
            return accepted
        action, payload, flags = accepted
        if flags:
            self._dependencies.observe("lenient", {"action": call.action, "flags": list(flags)})
        if action.answer_alive is not None:
            context = self._dependencies.build_context()
            self._renew(connection, context)
            return dialect.answer(call, action.answer_alive(context))
        return dialect.answer(call, self._decide(connection, action, payload))

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
            self._flow.commit(connection.station_id, decide)
        except NotFound:
            self._dependencies.observe("socket", {"of a station that was deleted": connection.station_id})

    def _decide(self, connection: Connection, action: Action, payload: Payload) -> Payload:
        """Decide and commit the action; return the answer's payload."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            after, answer = action.decide(presence.restore_presence(before, connection, context), payload, context)
            outcome = build_outcome(before, after, answer)
            renewal = presence.renew_when_due(connection, before, outcome, context)
            return replace(outcome, writes=(*outcome.writes, *renewal))

        committed = self._flow.commit(
            connection.station_id, decide, lambda before: action.find_read_set(before, payload)
        )
        answer: Payload = committed.outcome.reply
        return answer

    def _end_command(self, connection: Connection, dialect: Dialect, message: CallResult | CallError) -> None:
        """Apply the answer to a command. An answer to an unknown CALL is logged and ignored (note F44)."""

        def decide(before: Snapshot, context: DecisionContext) -> Outcome:
            call = calls.find(before, message.unique_id)
            if call is None:
                self._dependencies.observe("lateAnswer", {"unique_id": message.unique_id})
                return Outcome()
            result = dialect.read_answer(call.command, message)
            return build_outcome(before, command_results.apply_result(before, call, result, context))

        def find_read_set(before: Snapshot) -> ReadSet:
            call = calls.find(before, message.unique_id)
            return ReadSet() if call is None else command_results.find_read_set(before, call)

        self._flow.commit(connection.station_id, decide, find_read_set)
