"""Registering and deleting stations."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Final

from csms.adapters.dynamodb import MAX_WRITES
from csms.errors import NotFound, Unreachable
from csms.model import DecisionContext, Outcome, Snapshot, UnknownStation, fold
from csms.service.flow import Flow
from csms.stations import registration
from csms.stations.registration import NewCredentials, Registered, Registration

PASSWORD_BYTES: Final = 15
"""Random bytes in a generated password, which has 20 characters: as many as an OCPP 1.6 station can store."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was registered, and the station's snapshot as it was committed."""

    registered: Registered
    after: Snapshot


def register(flow: Flow, wanted: Registration, *, who: str | None = None) -> Stored:
    """Register the station, or change its registration, and remove it from the unknown stations
    (registration.register).

    Raises BadRequest if the identity, the connectors, the time zone or the tariff are invalid.
    """
    registration.refuse_impossible(wanted)
    station_id = flow.dependencies.find_station_id(wanted.identity)
    blank = replace(registration.build_blank_station(wanted), station_id=station_id)
    new_credentials = NewCredentials(password=secrets.token_urlsafe(PASSWORD_BYTES), salt=secrets.token_bytes(16))
    unknown_station = _find_unknown_station(flow, fold(wanted.identity))

    def decide(before: Snapshot, context: DecisionContext) -> Outcome:
        return registration.register(before, wanted, new_credentials, unknown_station, who, context)

    committed = flow.commit(station_id, decide, absent=blank)
    return Stored(committed.outcome.reply, committed.after)


def delete(flow: Flow, identity: str, *, who: str) -> None:
    """Delete the station and close its socket. What its past reservations owe is still performed.

    A station with more items than one commit can hold is deleted in several, the station's own item in the last. Raises
    IllegalTransition while a transaction runs or a reservation locks a connector.
    """
    dependencies = flow.dependencies

    def decide(before: Snapshot, context: DecisionContext) -> Outcome:
        return registration.remove(before, who, context, most_writes=MAX_WRITES)

    station_id = dependencies.find_station_id(identity)
    deleted: Snapshot | None = None
    while deleted is None:
        deleted = flow.units.run(station_id, decide).outcome.reply
    if deleted.presence is None or deleted.presence.connection_id is None or dependencies.gateway is None:
        return
    try:
        dependencies.gateway.close(deleted.presence.connection_id)
    except Unreachable as failed:
        dependencies.observe("socket", {"failed": failed.message})


def _find_unknown_station(flow: Flow, station_id: str) -> UnknownStation | None:
    """The unknown station of this id, if there is one."""
    try:
        return flow.dependencies.store.unknown_station(station_id)
    except NotFound:
        return None
