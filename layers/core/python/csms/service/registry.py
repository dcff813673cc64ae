"""Which stations there are: registering one, and deleting it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from csms.adapters.dynamodb import MOST_WRITES
from csms.errors import NotFound, Unreachable
from csms.model import Moment, Outcome, Snapshot, Stranger, fold
from csms.service.flow import Flow
from csms.stations import registration
from csms.stations.registration import Made, Registered, Registration

PASSWORD_BYTES: Final = 15
"""Of chance in a password made here, which has 20 characters: what OCPP 1.6 stations can hold."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was registered, and the station with all that is live of it as it was committed."""

    registered: Registered
    after: Snapshot


def register(flow: Flow, wanted: Registration, *, who: str | None = None) -> Stored:
    """The station, known from now on and no stranger any more (registration.register). BadRequest for one that cannot
    be."""
    registration.refuse_impossible(wanted)
    blank = registration.blank(wanted)
    made = Made(password=secrets.token_urlsafe(PASSWORD_BYTES), salt=secrets.token_bytes(16))
    stranger = _find_stranger(flow, blank.station_id)

    def decide(before: Snapshot, moment: Moment) -> Outcome:
        return registration.register(before, wanted, made, stranger, who, moment)

    committed = flow.commit(blank.station_id, decide, absent=blank)
    return Stored(committed.outcome.reply, committed.after)


def delete(flow: Flow, identity: str, *, who: str) -> None:
    """The station is not known any more and its socket is closed; IllegalTransition while a transaction runs or a
    reservation holds there. What its past reservations still owe is done all the same.

    What is too much for one commit goes in several, and the station itself in the last.
    """
    work = flow.work

    def decide(before: Snapshot, moment: Moment) -> Outcome:
        return registration.remove(before, who, moment, most_writes=MOST_WRITES)

    deleted: Snapshot | None = None
    while deleted is None:
        deleted = flow.units.run(fold(identity), decide).outcome.reply
    if deleted.presence is None or deleted.presence.connection_id is None or work.gateway is None:
        return
    try:
        work.gateway.close(deleted.presence.connection_id)
    except Unreachable as failed:
        work.observe("socket", {"failed": failed.message})


def _find_stranger(flow: Flow, station_id: str) -> Stranger | None:
    """The station's entry in the inbox, if it has one."""
    try:
        return flow.work.store.stranger(station_id)
    except NotFound:
        return None
