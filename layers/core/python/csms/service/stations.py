"""What a charger does: connect, speak, go. The transport is somebody else's: in comes text, out goes text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from csms import calls, credentials, ocpp16, ocppj, schemas, status
from csms.errors import BadRequest, Conflict, NotFound, Unauthorised, Unreachable
from csms.model import (
    Append,
    Connection,
    Moment,
    Needs,
    OutboundCall,
    Outcome,
    Presence,
    Protocol,
    Renew,
    Save,
    Snapshot,
    Station,
    Stranger,
    Tariff,
    Write,
    decided,
    fold,
)
from csms.ocppj import Call, CallError, CallResult, ErrorCode, Ignored, Malformed
from csms.service.registry import Registration, register
from csms.service.work import Work

SPOKEN: Final[Mapping[Protocol, Mapping[str, ocpp16.Action]]] = {Protocol.OCPP16: ocpp16.ACTIONS}
RENEW_AFTER: Final = timedelta(minutes=1)
LONGEST_CONNECTION: Final = timedelta(hours=3)
MOST_CACHED: Final = 10_000
LONGEST_IDENTITY: Final = 48
STRANGERS_KEPT: Final = timedelta(days=30)


class Stations:
    """The chargers' side of the service."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._connections: dict[str, Connection] = {}

    def register(self, identity: str, *, password: bytes, connectors: tuple[int, ...], tariff: Tariff) -> Station:
        """The station, known from now on; registering it again changes password, connectors and tariff and keeps the
        rest."""
        wanted = Registration(identity=identity, password=password, connectors=connectors, tariff=tariff)
        return register(self._work, wanted).station

    def connect(
        self, identity: str, *, authorization: str | None, offered: Iterable[str], connection_id: str
    ) -> Protocol:
        """The sub-protocol agreed on with a station that proved who it is (OCPP-J 1.6 section 3).

        Raises NotFound, Unauthorised or BadRequest (no common sub-protocol), in this order, and has then changed
        nothing: only who proved itself displaces an older connection (note F17).
        """

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            password = credentials.basic_password(authorization, identity)
            if password is None or not credentials.verify_password(password, before.station.password_hash):
                raise Unauthorised("Wrong user name or password.")
            protocol = next((p for offer in offered for p in SPOKEN if p == offer.strip().lower()), None)
            if protocol is None:
                raise BadRequest(f"No common sub-protocol; spoken here: {', '.join(SPOKEN)}.", code="NoSubprotocol")
            old, now = before.presence, moment.now
            presence = Presence(
                station_id=before.station.station_id,
                connection_id=connection_id,
                protocol=protocol,
                epoch=old.epoch if old is not None and now < old.lease_until else moment.fresh.epoch,
                connected_at=now,
                last_seen_at=now,
                lease_until=now + moment.policy.presence_lease,
                version=old.version if old is not None else 0,
            )
            socket = Connection(
                connection_id=connection_id,
                station_id=presence.station_id,
                protocol=protocol,
                expires_at=now + LONGEST_CONNECTION,
            )
            here = replace(before, presence=presence).recording(socket)
            connected = calls.reconnected(here, moment, after=status.SELF_REPORT)
            after = status.asked_after_connect(connected, moment).timeline("Connected", moment, protocol=protocol)
            return decided(before, after, (protocol, old.connection_id if old is not None else None))

        try:
            # Nothing can be said to a socket whose $connect has not returned (API Gateway answers 410).
            protocol, displaced = self._work.carry_out(fold(identity), decide, speak=False).reply
        except NotFound:
            self._stranger(identity)
            raise
        if displaced is not None and self._work.gateway is not None:
            try:
                self._work.gateway.close(displaced)
            except Unreachable as failed:
                self._work.observe("displaced", {"failed": failed.message})
        return Protocol(protocol)

    def _stranger(self, identity: str) -> None:
        """The station is in the operator's inbox, and nothing else is known of it (note F49)."""
        now = self._work.now()
        stranger = Stranger(
            station_id=fold(identity[:LONGEST_IDENTITY]),
            identity=identity[:LONGEST_IDENTITY],
            last_seen_at=now,
            expires_at=now + STRANGERS_KEPT,
        )
        self._work.store.commit([Append(stranger)])

    def disconnect(self, connection_id: str) -> None:
        """The station is no longer connected, if this was its connection; a connection nobody knows is none of ours."""
        try:
            connection = self._connection(connection_id)
        except NotFound:
            return
        self._work.lost(connection.station_id, connection_id, closed=True)

    def receive(self, connection_id: str, text: str | bytes) -> str | None:
        """The frame to answer with, or None when nothing is to be said; NotFound for a connection that was never
        accepted."""
        connection = self._connection(connection_id)
        message = ocppj.decode(text, connection.protocol)
        match message:
            case Call():
                return ocppj.encode(self._answer(connection, message), connection.protocol)
            case CallResult() | CallError():
                self._answered(connection, message)
                return None
            case Malformed():
                self._work.observe("malformed", {"code": message.code, "why": message.description})
                return ocppj.encode(_error(message.unique_id, message.code, message.description), connection.protocol)
            case Ignored():
                self._work.observe("ignored", {"why": message.reason})
                return None

    def _connection(self, connection_id: str) -> Connection:
        """Whose socket this is; asked once for each connection, since it never changes."""
        known = self._connections.get(connection_id)
        if known is not None:
            return known
        if len(self._connections) >= MOST_CACHED:
            self._connections.clear()
        found = self._work.store.connection(connection_id)
        self._connections[connection_id] = found
        return found

    def _answer(self, connection: Connection, call: Call) -> CallResult | CallError:
        """The answer to a station's CALL, with its effects committed."""
        protocol = connection.protocol
        self._work.observe("call", {"station": connection.station_id, "action": call.action[:50]})
        if not schemas.known(protocol, call.action):
            return _error(call.unique_id, ErrorCode.NOT_IMPLEMENTED, f"There is no {call.action}.")
        action = SPOKEN[protocol].get(call.action)
        if action is None:
            return _error(call.unique_id, ErrorCode.NOT_SUPPORTED, f"{call.action} is not supported.")
        accepted = schemas.accept(protocol, call.action, call.payload)
        if isinstance(accepted, schemas.Violation):
            return _error(call.unique_id, accepted.code, f"{accepted.path}: {accepted.message}")
        if accepted.flags or call.flags:
            self._work.observe("lenient", {"action": call.action, "flags": [*call.flags, *accepted.flags]})
        if call.action == "Heartbeat":
            answer = self._heartbeat(connection)
        else:
            answer = self._decided(connection, action, accepted.payload)
        schemas.check(protocol, call.action, answer, response=True)
        return CallResult(unique_id=call.unique_id, payload=answer)

    def _heartbeat(self, connection: Connection) -> ocpp16.Payload:
        """The answer to a Heartbeat, which is one write and no read."""
        moment = self._work.moment()
        try:
            self._work.store.commit([_renewal(connection, moment)])
        except Conflict:
            self._found(connection)
        return ocpp16.heartbeat_answer(moment)

    def _found(self, connection: Connection) -> None:
        """The station is there, whose lease was over or whose connection is not the one that is known."""
        try:
            self._work.carry_out(
                connection.station_id, lambda before, moment: decided(before, _present(before, connection, moment))
            )
        except NotFound:
            self._work.observe("socket", {"of a station that was deleted": connection.station_id})

    def _decided(self, connection: Connection, action: ocpp16.Action, payload: ocpp16.Payload) -> ocpp16.Payload:
        def decide(before: Snapshot, moment: Moment) -> Outcome:
            after, answer = action.decide(_present(before, connection, moment), payload, moment)
            outcome = decided(before, after, answer)
            return replace(outcome, writes=(*outcome.writes, *_seen(connection, before, outcome, moment)))

        outcome = self._work.carry_out(connection.station_id, decide, lambda before: action.needs(before, payload))
        answer: ocpp16.Payload = outcome.reply
        return answer

    def _answered(self, connection: Connection, message: CallResult | CallError) -> None:
        """Our CALL is over; an answer to none that we know of is noted, and harmless (note F44)."""

        def decide(before: Snapshot, moment: Moment) -> Outcome:
            call = next((c for c in before.calls if c.call_id == message.unique_id), None)
            if call is None:
                self._work.observe("lateAnswer", {"unique_id": message.unique_id})
                return Outcome()
            after = ocpp16.answered(before, call, self._status(connection, call, message), moment)
            return decided(before, after)

        def needs(before: Snapshot) -> Needs:
            call = next((c for c in before.calls if c.call_id == message.unique_id), None)
            return Needs() if call is None else ocpp16.answer_needs(before, call)

        self._work.carry_out(connection.station_id, decide, needs)

    def _status(self, connection: Connection, call: OutboundCall, message: CallResult | CallError) -> str:
        """What the station answered, in one word: the status it gave, or the code of its error."""
        if isinstance(message, CallError):
            return str(message.code)
        action, _ = ocpp16.spelled(call)
        accepted = schemas.accept(connection.protocol, action, message.payload, response=True)
        if isinstance(accepted, schemas.Violation):
            return str(accepted.code)
        return str(accepted.payload["status"])


def _present(before: Snapshot, connection: Connection, moment: Moment) -> Snapshot:
    """The station as it is when it speaks: its connection was taken for lost, or its lease was over, and neither is
    true. Another connection is never displaced by that (note F16)."""
    presence = before.presence
    if presence is None or presence.connection_id not in {None, connection.connection_id}:
        return before
    if presence.closed_id == connection.connection_id:
        return before  # Its last words, decided after its end.
    lost, over = presence.connection_id is None, moment.now >= presence.lease_until
    if not lost and not over:
        return before
    here = replace(
        presence,
        connection_id=connection.connection_id,
        protocol=connection.protocol,
        epoch=moment.fresh.epoch if lost and over else presence.epoch,
        last_seen_at=moment.now,
        lease_until=moment.now + moment.policy.presence_lease,
    )
    waiting = calls.ready(replace(before, presence=here), moment)
    return status.asked_after_connect(waiting, moment).timeline("FoundConnected", moment, protocol=here.protocol)


def _error(unique_id: str, code: ErrorCode, description: str) -> CallError:
    return CallError(unique_id=unique_id, code=code, description=description[:255], details={})


def _renewal(connection: Connection, moment: Moment) -> Renew:
    return Renew(
        station_id=connection.station_id,
        connection_id=connection.connection_id,
        last_seen_at=moment.now,
        lease_until=moment.now + moment.policy.presence_lease,
    )


def _seen(connection: Connection, before: Snapshot, outcome: Outcome, moment: Moment) -> tuple[Write, ...]:
    """The lease's renewal, at most once a minute, unless the presence is written anyway or is another connection's."""
    presence = before.presence
    if presence is None or presence.connection_id != connection.connection_id:
        return ()
    if moment.now - presence.last_seen_at < RENEW_AFTER:
        return ()
    if any(isinstance(write, Save) and isinstance(write.entity, Presence) for write in outcome.writes):
        return ()
    return (_renewal(connection, moment),)
