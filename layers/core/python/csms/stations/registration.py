"""Registration of stations: what is valid, and what a registration or a removal changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from zoneinfo import available_timezones

from csms import occupancy
from csms.charging import operations
from csms.commands import calls
from csms.errors import BadRequest
from csms.model import (
    DecisionContext,
    Drop,
    Outcome,
    Quirk,
    Snapshot,
    Station,
    Tariff,
    UnknownStation,
    build_outcome,
    fold,
)
from csms.pricing import tariff
from csms.stations import credentials, identities, quirks

LARGEST_POWER_W: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What an operator says of the station's make: the most power of one connector in W, None as the setting
    `MAX_POWER_KW` says, and the names of its quirks, None as suggested."""

    max_power_w: int | None = None
    quirks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A station as it is to be registered. What is None keeps its value; for a new station it is a generated password,
    UTC, not free, and the traits of any station."""

    identity: str
    connectors: tuple[int, ...]
    tariff: Tariff
    password: bytes | None = None
    time_zone: str | None = None
    free: bool | None = None
    traits: Traits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCredentials:
    """Random values that a registration may need: a new password and a salt."""

    password: str
    salt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The registered station; `password` is the generated one, shown only here, or None."""

    station: Station
    password: str | None


def refuse_impossible(wanted: Registration) -> None:
    """Raise BadRequest for an identity, connectors, a time zone, traits or a tariff that are not valid."""
    identity_problem = identities.find_problem(wanted.identity)
    if identity_problem is not None:
        raise BadRequest(f"stationId: {identity_problem}.")
    if not wanted.connectors or min(wanted.connectors) < 1 or len(set(wanted.connectors)) < len(wanted.connectors):
        raise BadRequest("connectors must be a list of different numbers from 1, for example [1, 2].")
    if wanted.time_zone is not None and wanted.time_zone not in available_timezones():
        raise BadRequest(f'timeZone must be an IANA time zone, for example "Europe/Berlin", not "{wanted.time_zone}".')
    if wanted.traits is not None:
        _refuse_impossible_traits(wanted.traits)
    problem = tariff.find_problem(wanted.tariff)
    if problem is not None:
        raise BadRequest(problem)


def _refuse_impossible_traits(traits: Traits) -> None:
    """Raise BadRequest for a power out of range, or a quirk that has no meaning."""
    if traits.max_power_w is not None and not 1 <= traits.max_power_w <= LARGEST_POWER_W:
        raise BadRequest(f"maxPowerW must be from 1 to {LARGEST_POWER_W} W.")
    if not set(traits.quirks or ()) <= set(Quirk):
        raise BadRequest(f"quirks must be a list of these, or null for those that are suggested: {', '.join(Quirk)}.")


def build_blank_station(wanted: Registration) -> Station:
    """The station as it is before its registration."""
    return Station(
        station_id=fold(wanted.identity),
        identity=wanted.identity,
        password_hash="",
        connectors=(),
        tariff=wanted.tariff,
    )


def register(
    before: Snapshot,
    wanted: Registration,
    new_credentials: NewCredentials,
    unknown_station: UnknownStation | None,
    who: str | None,
    context: DecisionContext,
) -> Outcome:
    """Register the station or change its registration, and reply with `Registered`. A known station keeps its spelling,
    and its password unless there is a new one. An online station is asked for the status of its new connectors, and its
    entry among the unknown stations ends. Raises BadRequest if the station is another one."""
    if fold(before.station.identity) != fold(wanted.identity):
        raise BadRequest(
            f'An older release stored the station "{before.station.identity}" under this name. Delete that one first, '
            "and register it again."
        )
    new = before.station.version == 0
    password = wanted.password if wanted.password is not None or not new else new_credentials.password.encode()
    station = replace(
        before.station,
        connectors=wanted.connectors,
        tariff=wanted.tariff,
        password_hash=before.station.password_hash
        if password is None
        else credentials.hash_password(password, salt=new_credentials.salt),
        time_zone=before.station.time_zone if wanted.time_zone is None else wanted.time_zone,
        free=before.station.free if wanted.free is None else wanted.free,
    )
    if wanted.traits is not None:
        station = replace(station, max_power_w=wanted.traits.max_power_w, quirks=_sort_quirks(wanted.traits.quirks))
    after = quirks.renew_suggestion(replace(before, station=station), context)
    if unknown_station is not None and unknown_station.expires_at > context.now:
        after = after.add_records(replace(unknown_station, expires_at=context.now))
    after = _ask_new_connectors(after, before.station.connectors, context)
    if who is not None:
        after = after.add_timeline_entry("Registered", context, who=who)
    generated_password = new_credentials.password if new and wanted.password is None else None
    station = after.station
    changed = station if station == before.station else replace(station, version=station.version + 1)
    return build_outcome(before, after, Registered(station=changed, password=generated_password))


def remove(before: Snapshot, who: str, context: DecisionContext, *, most_writes: int) -> Outcome:
    """Delete the station and all that is live of it, in commits of at most `most_writes`; the last one deletes the
    station itself and replies with the station as it was. IllegalTransition while a transaction or a reservation
    occupies a connector."""
    operations.refuse_removal(before, context)
    own = (before.presence, before.station)
    drops = [Drop(e) for e in (*before.calls, *before.foreign, *before.connectors.values(), *own) if e is not None]
    noted = before.add_timeline_entry("Deleted", context, who=who).records
    if len(drops) + len(noted) > most_writes:
        return Outcome(writes=tuple(drops[: most_writes - len(own)]))
    return Outcome(reply=before, writes=(*drops, *noted))


def _sort_quirks(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Each quirk once, in the order of their enumeration."""
    return None if names is None else tuple(quirk.value for quirk in Quirk if quirk in names)


def _ask_new_connectors(snapshot: Snapshot, known: tuple[int, ...], context: DecisionContext) -> Snapshot:
    """Request the status of the connectors that are new and not reported in this epoch, if the station is online (note
    F21)."""
    if not occupancy.is_online(snapshot.presence, context.now):
        return snapshot
    new = (n for n in snapshot.station.connectors if n not in known and occupancy.reported_status(snapshot, n) is None)
    return calls.ask_status(snapshot, context, tuple(new), after=timedelta(0))
