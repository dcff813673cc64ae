"""The form of a reservation's web tag: as the station's make takes it, and what is learnt of that from a rejection
(note F28)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from csms.charging import start_gate
from csms.charging.reservation import add_audit_entry
from csms.model import (
    CommandOutcome,
    CommandResult,
    DecisionContext,
    IdTag,
    IdToken,
    Quirk,
    Reservation,
    Snapshot,
    Station,
    TagStatus,
    is_web_tag,
    name_web_tag,
)

TAG_RETENTION: Final = timedelta(days=30)
"""How long the web tag of an ended reservation is recognized, so that a late start with it is stopped."""

LONGEST_TAGS: Final[Mapping[Quirk, int]] = {
    Quirk.TAG_UP_TO_19: 19,
    Quirk.TAG_UP_TO_18: 18,
    Quirk.TAG_UP_TO_16: 16,
}
"""The most characters of an idTag at makes that do not take the 20 of OCPP 1.6."""

FORM_QUIRKS: Final = frozenset({Quirk.HEXADECIMAL_TAG, *LONGEST_TAGS})

WIDEST_FORM: Final = (Quirk.HEXADECIMAL_TAG, Quirk.TAG_UP_TO_16)
"""The form that every make takes of which a refused form is known: 16 hexadecimal digits, which are 64 bits. The usual
form is longer."""

NOT_ABOUT_TAGS: Final = frozenset({"NotSupported", "NotImplemented"})
"""The answers of a station that starts nothing remotely, whatever the tag."""


def write_web_tag(random_tag: str, station: Station) -> str:
    """The random tag as the station's make takes it, with 64 random bits at least; unchanged where nothing is known of
    the make (note F28)."""
    longest = min((most for quirk, most in LONGEST_TAGS.items() if station.has_quirk(quirk)), default=len(random_tag))
    if not station.has_quirk(Quirk.HEXADECIMAL_TAG):
        return random_tag[:longest]
    # Whole bytes, as the number of a card has. The digest is as random as the tag.
    return hashlib.sha256(random_tag.encode()).hexdigest()[: longest - longest % 2].upper()


def build_web_tag(held: Reservation, context: DecisionContext) -> IdTag:
    """The record of the reservation's tag, by which it is recognized after the reservation has ended."""
    return IdTag(
        tag=held.id_tag,
        name=name_web_tag(held.id_tag),
        status=TagStatus.INVALID,
        reservation_id=held.reservation_id,
        expires_at=context.now + TAG_RETENTION,
    )


def ask_in_widest_form(snapshot: Snapshot, result: CommandResult, context: DecisionContext) -> Snapshot | None:
    """Request the rejected start once more with a new tag in the form that most makes take; None if that may not help.

    It is asked once for a reservation, at once and within the start deadline: after a clear No, where nothing is known
    of the form that the station takes, and nothing that csms knows explains the No. The refused tag stays the
    reservation's, because the station may start with it nevertheless (notes F25, F26).
    """
    held, station = snapshot.reservation, snapshot.station
    if held is None or held.refused_tag is not None or result.outcome is not CommandOutcome.REFUSED:
        return None
    if result.status in NOT_ABOUT_TAGS:
        return None
    if any(station.has_quirk(quirk) for quirk in FORM_QUIRKS):
        return None
    tag = write_web_tag(context.new_ids.id_tag, replace(station, quirks=WIDEST_FORM))
    other = replace(held, id_tag=tag, refused_tag=held.id_tag, start_command_id=None)
    noted = add_audit_entry(
        replace(snapshot, reservation=other), "StartRejected", context, detail=f"{result.summary}, asked with other tag"
    )
    # Nothing is queued after the start deadline, or while the busy rule explains the No.
    asked = start_gate.request_start(noted.add_records(build_web_tag(other, context), once=True), context)
    return asked if len(asked.calls) > len(snapshot.calls) else None


def learn_form(snapshot: Snapshot, id_token: IdToken, context: DecisionContext) -> Snapshot:
    """Remember the widest form for the station, because it refused a start in the usual one, accepted it in this one,
    and has started with the tag; nothing changes otherwise."""
    held, station = snapshot.reservation, snapshot.station
    if held is None or held.refused_tag is None or held.start_accepted_at is None:
        return snapshot
    if not is_web_tag(held.id_tag, id_token.value) or set(WIDEST_FORM) <= set(station.learnt_quirks):
        return snapshot
    learnt = tuple(quirk.value for quirk in Quirk if quirk in {*station.learnt_quirks, *WIDEST_FORM})
    known = replace(snapshot, station=replace(station, learnt_quirks=learnt, learnt_at=context.now))
    return known.add_timeline_entry("QuirksLearnt", context, quirks=list(learnt))
