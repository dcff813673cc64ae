"""Why a connector is busy: the result of each predicate of the rule, and its evidence.

`explain` and `rule.busy_reasons` use the same predicates, so they give the same reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from csms.model import Policy, Snapshot, StatusSource, format_time
from csms.occupancy.rule import (
    PREDICATES,
    View,
    active_reservation,
    build_view,
    is_online,
    live_not_startable,
    live_status,
    offline,
    open_transaction,
    persisted_not_startable,
)

IN_USE: Final = "InUse"
NOT_READY: Final = "NotReady"

SHARED_TEXTS: Final[Mapping[str, str]] = {
    "OpenTransaction": IN_USE,
    "LiveStatus:Occupied": IN_USE,
    "PersistedStatus:Occupied": IN_USE,
    "LiveStatus:Unavailable": NOT_READY,
    "LiveStatus:Faulted": NOT_READY,
    "PersistedStatus:Unavailable": NOT_READY,
    "PersistedStatus:Faulted": NOT_READY,
}
"""Reasons that share a driver's text (`csms.texts`); any other has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a predicate read: its value, its source and since when it holds; what clears it, and when it clears by
    itself at the latest."""

    value: str | None = None
    source: str | None = None
    since: datetime | None = None
    clears: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one predicate: its reason, None if it does not make the connector busy, and its evidence; `clears`
    is one sentence, set only with a reason."""

    predicate: str
    reason: str | None
    value: str | None
    source: str | None
    since: datetime | None
    clears: str | None
    until: datetime | None


def presence_evidence(view: View) -> Evidence:
    """The state of the station's WebSocket connection."""
    seen = view.presence
    if seen is None:
        return Evidence(value="Offline", clears="Clears when the station connects for the first time.")
    socket = f"WebSocket, {seen.protocol}"
    if is_online(seen, view.now):
        return Evidence(value="Online", source=socket, since=seen.connected_at)
    if seen.connection_id is None:
        clears = "Clears when the station connects again."
    else:
        clears = f"Clears with the station's next message: its lease ended at {_format_seconds(seen.lease_until)}."
    return Evidence(value="Offline", source=socket, since=seen.last_seen_at, clears=clears)


def live_status_evidence(view: View) -> Evidence:
    """The live status of the present epoch."""
    live = live_status(view)
    if live is None:
        return Evidence()
    masked = live is view.whole.live
    number = 0 if masked else view.connector.connector_id
    of = "of the station as a whole (connector 0)" if masked else "of the connector"
    return Evidence(
        value=live.raw,
        source=f"station, connector {number}",
        since=live.reported_at,
        clears=f"Clears when the station reports {of} that it is Available; an operator can reset connector {number}.",
    )


def transaction_evidence(view: View) -> Evidence:
    """The open transaction, and when it ends if no stop comes."""
    running = view.connector.transaction
    if running is None:
        return Evidence()
    until = view.connector.due_at
    clears = f"Clears when the station stops transaction {running.transaction_id} or an operator closes it"
    return Evidence(
        value=str(running.transaction_id),
        source="station" if running.reservation_id is None else f"reservation {running.reservation_id}",
        since=running.received_at,
        clears=f"{clears}." if until is None else f"{clears}; maintenance closes it at {_format_seconds(until)}.",
        until=until,
    )


def reservation_evidence(view: View) -> Evidence:
    """The reservation that locks the connector, and until when."""
    lock = view.connector.lock
    if lock is None:
        return Evidence()
    held = view.reservation
    if lock.expires_at is None:
        clears = "Clears when its charging session ends."
    else:
        clears = (
            f"Clears when its driver or an operator cancels it, or by itself after {_format_seconds(lock.expires_at)}."
        )
    return Evidence(
        value=lock.state,
        source=f"reservation {lock.reservation_id}",
        since=held.created_at if held is not None and held.reservation_id == lock.reservation_id else None,
        clears=clears,
        until=lock.expires_at,
    )


def persisted_status_evidence(view: View) -> Evidence:
    """The persisted status, and until when it counts."""
    last = view.connector.persisted
    if last is None or last.at is None:
        return Evidence() if last is None else Evidence(value=last.raw, source=last.source)
    until = last.at + view.policy.status_freshness
    lock = view.connector.lock
    if last.source is StatusSource.REMOTE_START and lock is not None and lock.expires_at is not None:
        until = min(until, lock.expires_at)
    return Evidence(
        value=last.raw,
        source=last.source,
        since=last.at,
        clears="Clears when the station reports its status, an operator resets it,"
        f" or by itself after {_format_seconds(until)}.",
        until=until,
    )


EVIDENCE: Final[Mapping[Callable[[View], str | None], Callable[[View], Evidence]]] = {
    offline: presence_evidence,
    live_not_startable: live_status_evidence,
    open_transaction: transaction_evidence,
    active_reservation: reservation_evidence,
    persisted_not_startable: persisted_status_evidence,
}
"""The function that gives each predicate's evidence."""


def explain(
    snapshot: Snapshot, connector_id: int, *, now: datetime, policy: Policy, ignoring: str | None = None
) -> tuple[Finding, ...]:
    """The result of every predicate for the connector now, with its evidence, in the rule's order. The reasons are
    those of `busy_reasons`."""
    view = build_view(snapshot, connector_id, now=now, policy=policy, ignoring=ignoring)
    return tuple(_build_finding(predicate, view) for predicate in PREDICATES)


def _build_finding(predicate: Callable[[View], str | None], view: View) -> Finding:
    """The predicate's result and its evidence."""
    reason, evidence = predicate(view), EVIDENCE[predicate](view)
    return Finding(
        predicate=predicate.__name__,
        reason=reason,
        value=evidence.value,
        source=evidence.source,
        since=evidence.since,
        clears=None if reason is None else evidence.clears,
        until=None if reason is None else evidence.until,
    )


def _format_seconds(moment: datetime) -> str:
    """The time for use in a sentence, to the second."""
    return f"{format_time(moment)[:-5]}Z"
