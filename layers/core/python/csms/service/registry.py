"""Which stations there are: registering one, and deleting it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from zoneinfo import available_timezones

from csms import calls, credentials, occupancy, operations, tariff
from csms.errors import BadRequest, NotFound, Unreachable
from csms.model import Drop, Moment, Outcome, Snapshot, Station, Tariff, decided, fold
from csms.service.work import Work
from csms.store import MOST_WRITES

PASSWORD_BYTES: Final = 15
"""Of chance in a password made here, which has 20 characters: what OCPP 1.6 stations can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is to be known of a station; what is None stays as it was, or is made: a password, UTC, not free."""

    identity: str
    connectors: tuple[int, ...]
    tariff: Tariff
    password: bytes | None = None
    time_zone: str | None = None
    free: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The station as it is known now; `password` is the one that was made for it, told here and never again."""

    station: Station
    password: str | None


def register(work: Work, wanted: Registration, *, who: str | None = None) -> Registered:
    """The station, known from now on and no stranger any more; one that was known keeps its spelling, and its password
    unless there is a new one. A station that is online is asked how its new connectors are. BadRequest for connectors,
    a time zone or a tariff that cannot be."""
    if not wanted.connectors or min(wanted.connectors) < 1 or len(set(wanted.connectors)) < len(wanted.connectors):
        raise BadRequest("A station has at least one connector, counted from 1, each once.")
    if wanted.time_zone is not None and wanted.time_zone not in available_timezones():
        raise BadRequest(f"There is no time zone {wanted.time_zone}.")
    problem = tariff.problem(wanted.tariff)
    if problem is not None:
        raise BadRequest(problem)
    made = secrets.token_urlsafe(PASSWORD_BYTES)
    blank = Station(
        station_id=fold(wanted.identity),
        identity=wanted.identity,
        password_hash="",
        connectors=(),
        tariff=wanted.tariff,
    )

    def decide(before: Snapshot, moment: Moment) -> Outcome:
        new = before.station.version == 0
        password = wanted.password if wanted.password is not None or not new else made.encode()
        station = replace(
            before.station,
            connectors=wanted.connectors,
            tariff=wanted.tariff,
            password_hash=before.station.password_hash
            if password is None
            else credentials.hash_password(password, salt=secrets.token_bytes(16)),
            time_zone=before.station.time_zone if wanted.time_zone is None else wanted.time_zone,
            free=before.station.free if wanted.free is None else wanted.free,
        )
        after = _asked(_welcomed(work, replace(before, station=station), moment), before.station.connectors, moment)
        if who is not None:
            after = after.timeline("Registered", moment, who=who)
        told = made if new and wanted.password is None else None
        changed = station if station == before.station else replace(station, version=station.version + 1)
        return decided(before, after, Registered(station=changed, password=told))

    registered: Registered = work.carry_out(blank.station_id, decide, absent=blank).reply
    return registered


def delete(work: Work, identity: str, *, who: str) -> None:
    """The station is not known any more and its socket is closed; IllegalTransition while a transaction runs or a
    reservation holds there. What its past reservations still owe is done all the same.

    What is too much for one commit goes in several, and the station itself in the last.
    """

    def decide(before: Snapshot, moment: Moment) -> Outcome:
        operations.refuse_removal(before, moment)
        own = (before.presence, before.station)
        drops = [Drop(e) for e in (*before.calls, *before.connectors.values(), *own) if e is not None]
        noted = before.timeline("Deleted", moment, who=who).records
        if len(drops) + len(noted) > MOST_WRITES:
            return Outcome(writes=tuple(drops[: MOST_WRITES - len(own)]))
        return Outcome(reply=before, writes=(*drops, *noted))

    deleted: Snapshot | None = None
    while deleted is None:
        deleted = work.carry_out(fold(identity), decide, speak=False).reply
    if deleted.presence is None or deleted.presence.connection_id is None or work.gateway is None:
        return
    try:
        work.gateway.close(deleted.presence.connection_id)
    except Unreachable as failed:
        work.observe("socket", {"failed": failed.message})


def _asked(snapshot: Snapshot, known: tuple[int, ...], moment: Moment) -> Snapshot:
    """The snapshot that asks a station that is online how those of its connectors are that were not known before, and
    of which it has said nothing by itself (note F21)."""
    if not occupancy.online(snapshot.presence, moment.now):
        return snapshot
    new = (n for n in snapshot.station.connectors if n not in known and occupancy.said(snapshot, n) is None)
    return calls.ask_status(snapshot, moment, tuple(new), after=timedelta(0))


def _welcomed(work: Work, snapshot: Snapshot, moment: Moment) -> Snapshot:
    """The snapshot of a station that is no stranger any more: an entry of the inbox ends now."""
    try:
        stranger = work.store.stranger(snapshot.station.station_id)
    except NotFound:
        return snapshot
    return (
        snapshot.recording(replace(stranger, expires_at=moment.now)) if stranger.expires_at > moment.now else snapshot
    )
