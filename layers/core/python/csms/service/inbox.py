"""Notes refused connections for the operators: those of unknown stations in a list, those in the name of a registered
station at that station. A frame reads none of it."""

from __future__ import annotations

from datetime import datetime

from csms.errors import Conflict, NotFound
from csms.model import UnknownStation, fold
from csms.service.dependencies import Dependencies, generate_key
from csms.stations import credentials, knocks
from csms.stations.knocks import Handshake, KnockMemory


class Inbox:
    """The refused connections, with what this process remembers of them."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        key = generate_key()
        self._owner = key[:8].hex()
        self._unknown = KnockMemory(knocks.PER_MINUTE, knocks.RETURN_AFTER, int.from_bytes(key[8:]))
        self._refused = KnockMemory({knocks.NEWCOMER: knocks.REFUSALS_PER_MINUTE}, knocks.REFUSAL_INTERVAL)

    def note_unknown_station(
        self, identity: str, *, authorization: str | None, offered: tuple[str, ...], handshake: Handshake
    ) -> None:
        """Write the unknown station to the list, if its turn has come: at most knocks.PER_MINUTE a minute, however many
        come."""
        now, station_id = self._dependencies.now(), fold(identity)
        visit = self._unknown.note(station_id, now)
        if visit is None:
            return
        knock = knocks.build_knock(offered, handshake)
        has_password = credentials.read_basic_password(authorization, identity) is not None
        reasons = knocks.find_reasons(knock, self._dependencies.dialects, has_password=has_password)
        known = self._find_unknown_station(station_id)
        writes = knocks.note_unknown_station(known, identity, knock, reasons, visit, now)
        if not writes:
            self._unknown.leave(station_id, known.last_seen_at if known is not None else now)
            return
        try:
            self._dependencies.store.commit([knocks.build_slot(visit, self._owner)])
        except Conflict:
            self._unknown.use_up(visit)
            return
        self._dependencies.store.commit(writes)
        self._unknown.forget_written(station_id, visit, now)

    def note_refusal(
        self, station_id: str, reason: str, *, offered: tuple[str, ...], handshake: Handshake, now: datetime
    ) -> None:
        """Write at the registered station that a connection in its name was refused, at most once a minute for each
        reason."""
        name = f"{reason}#{station_id}"
        visit = self._refused.note(name, now)
        if visit is None:
            return
        known = self._dependencies.store.refused_connections(station_id)
        knock = knocks.build_knock(offered, handshake)
        writes = knocks.note_refusal(known, station_id, reason, knock, visit, now)
        if not writes:
            self._refused.leave(name, now)
            return
        self._dependencies.store.commit(writes)
        self._refused.forget_written(name, visit, now)

    def _find_unknown_station(self, station_id: str) -> UnknownStation | None:
        try:
            return self._dependencies.store.unknown_station(station_id)
        except NotFound:
            return None
