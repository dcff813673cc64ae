"""What a station does: connect, send frames, disconnect. It takes and returns the text of frames; the transport is
elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from csms.errors import BadRequest, NotFound, TooManyGuesses, Unauthorized, Unreachable
from csms.model import Connection, DecisionContext, Outcome, Presence, Snapshot, Station, Tariff
from csms.ocpp.dialect import Call, CallError, CallResult, Ignored, Malformed, refuse_unsupported_version
from csms.service.dependencies import Dependencies, generate_key
from csms.service.flow import Flow
from csms.service.frames import Frames
from csms.service.inbox import Inbox
from csms.service.registry import register
from csms.stations import identities, knocks, presence
from csms.stations.credentials import VerifiedPasswords
from csms.stations.knocks import Guesses, Handshake
from csms.stations.presence import Connected
from csms.stations.registration import Registration

MAX_CACHED_CONNECTIONS: Final = 10_000
NO_HANDSHAKE: Final = Handshake()


class Stations:
    """The stations' part of the service."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._flow = Flow(dependencies)
        self._frames = Frames(dependencies, self._flow)
        self._connections: dict[str, Connection] = {}
        self._passwords = VerifiedPasswords(generate_key())
        self._inbox = Inbox(dependencies)
        self._guesses = Guesses()

    def register(self, identity: str, *, password: bytes, connectors: tuple[int, ...], tariff: Tariff) -> Station:
        """Register the station. For one that is registered, change password, connectors and tariff, and keep the
        rest."""
        wanted = Registration(identity=identity, password=password, connectors=connectors, tariff=tariff)
        return register(self._flow, wanted).registered.station

    def connect(
        self,
        identity: str,
        *,
        authorization: str | None,
        offered: Iterable[str],
        connection_id: str,
        handshake: Handshake = NO_HANDSHAKE,
    ) -> str:
        """Authenticate the station and record its connection; return the agreed sub-protocol as the station spelled it
        (OCPP-J 1.6 section 3).

        Raises, in this order, BadRequest if no station can have that identity, NotFound, Unauthorized, or
        TooManyGuesses if the password was often wrong from this address, BadRequest if there is no common sub-protocol,
        or ConnectionSuperseded if another connection of the station was accepted meanwhile. No connection is changed
        then, so one that fails authentication does not displace a working one (note F17). An unknown station is listed
        for the operators (note F49), and a registered one shows what was refused in its name.
        """
        station_id = self._dependencies.find_station_id(identity)
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
            connected: Connected = self._flow.units.run(station_id, decide).outcome.reply
        except NotFound:
            # Only now, because an older release may have registered what is refused today.
            problem = identities.find_problem(identity)
            if problem is not None:
                raise BadRequest(
                    f"No station can have the identity in the URL: it {problem}.", code="InvalidIdentity"
                ) from None
            self._inbox.note_unknown_station(identity, authorization=authorization, offered=offers, handshake=handshake)
            raise
        except Unauthorized as refused:
            now = self._dependencies.now()
            self._inbox.note_refusal(station_id, knocks.WRONG_CREDENTIALS, offered=offers, handshake=handshake, now=now)
            wait = self._guesses.count(station_id, handshake.address, now)
            if wait is None:
                raise
            raise TooManyGuesses(refused.message, wait_seconds=math.ceil(wait.total_seconds())) from None
        except BadRequest:
            self._inbox.note_refusal(
                station_id,
                knocks.NO_SUBPROTOCOL,
                offered=offers,
                handshake=handshake,
                now=self._dependencies.now(),
            )
            raise
        if connected.displaced_id is not None and self._dependencies.gateway is not None:
            try:
                self._dependencies.gateway.close(connected.displaced_id)
            except Unreachable as failed:
                self._dependencies.observe("displaced", {"failed": failed.message})
        return connected.subprotocol

    def disconnect(self, connection_id: str) -> None:
        """Record that the connection was closed, if it is the station's present one. A connection that was never
        accepted is ignored."""
        try:
            connection = self._find_connection(connection_id)
        except NotFound:
            return
        self._flow.dispatch.lose(connection.station_id, connection_id, closed=True)

    def receive(self, connection_id: str, text: str | bytes, *, received_at: datetime | None = None) -> str | None:
        """Process a frame from a station; return the frame to answer with, or None for no answer or one that is sent
        over the socket (service.frames). `received_at` is when the gateway received the frame. Raises NotFound for a
        connection that was never accepted."""
        connection = self._find_connection(connection_id)
        dialect = self._dependencies.dialects.get(connection.protocol)
        if dialect is None:
            self._dependencies.observe("socket", {"unspoken": connection.protocol})
            return refuse_unsupported_version(text)
        message = dialect.decode(text)
        match message:
            case Call() | CallResult() | CallError() | Malformed(action=str()):
                return self._frames.handle(
                    connection, dialect, message, text, received_at=received_at or self._dependencies.now()
                )
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
