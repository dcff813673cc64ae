"""When a connector is busy and who may start it: the only place where that is decided.

Create, Confirm, the start gate, the sweep, the public page and the operator's explanation all call `busy_reasons`. The
order of PREDICATES is that of the founding note: offline, live status, open transaction, active reservation, persisted
status; the first reason is the headline reason. `explanation` gives the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from csms.model import (
    Connector,
    ConnectorState,
    ConnectorStatus,
    LiveStatus,
    Lock,
    PersistedStatus,
    Policy,
    Presence,
    Quirk,
    Reservation,
    Snapshot,
    Station,
    StatusSource,
)

CHARGER_OFFLINE: Final = "ChargerOffline"
OCCUPIED: Final = "LiveStatus:Occupied"

REPLUG: Final = "Replug"
"""What a driver is told instead of OCCUPIED where the car only has to be plugged in again."""

COARSE_STATUSES: Final[Mapping[ConnectorState, ConnectorStatus]] = {
    ConnectorState.AVAILABLE: ConnectorStatus.AVAILABLE,
    ConnectorState.UNAVAILABLE: ConnectorStatus.UNAVAILABLE,
    ConnectorState.FAULTED: ConnectorStatus.FAULTED,
}
"""Every other state is Occupied, an unknown one included: it counts as not Available (note F12)."""

MASKING_STATUSES: Final = frozenset({ConnectorStatus.UNAVAILABLE, ConnectorStatus.FAULTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the predicates read: one connector of a snapshot at one time. `whole` is connector 0; the lock of the
    reservation `ignoring` does not count; `reservation` is only evidence, None if the decision did not read it."""

    station: Station
    connector: Connector
    whole: Connector
    presence: Presence | None
    now: datetime
    policy: Policy
    ignoring: str | None
    reservation: Reservation | None = None


def coarse_status(state: ConnectorState) -> ConnectorStatus:
    """The coarse status of a state."""
    return COARSE_STATUSES.get(state, ConnectorStatus.OCCUPIED)


def is_online(presence: Presence | None, now: datetime) -> bool:
    """Whether the station has a connection and its lease has not ended."""
    return presence is not None and presence.connection_id is not None and now < presence.lease_until


def last_seen(presence: Presence | None, now: datetime) -> datetime:
    """The latest time up to which the station's reports are known: now while it is online, otherwise its last
    message."""
    return now if presence is None or is_online(presence, now) else min(now, presence.last_seen_at)


def live_status(view: View) -> LiveStatus | None:
    """The live status that counts, of the present epoch: that of the whole station (connector 0) if it is Unavailable
    or Faulted, otherwise the connector's own."""
    whole = _find_current_status(view.whole.live, view.presence)
    if _is_masking(whole):
        return whole
    return _find_current_status(view.connector.live, view.presence)


def is_lock_active(lock: Lock | None, now: datetime) -> bool:
    """Whether the lock makes the connector busy, up to and including its expiry (note F27); an expired lock does not,
    even before a sweep has run."""
    return lock is not None and (lock.expires_at is None or now <= lock.expires_at)


def offline(view: View) -> str | None:
    """The station has no connection, or its lease has ended."""
    return None if is_online(view.presence, view.now) else CHARGER_OFFLINE


def live_not_startable(view: View) -> str | None:
    """The station reports in its present epoch that the connector cannot be started."""
    live = live_status(view)
    if live is None or _is_startable(live, view.connector, view.station, view.policy):
        return None
    return f"LiveStatus:{coarse_status(live.state)}"


def open_transaction(view: View) -> str | None:
    """A transaction was started on the connector and not stopped."""
    return "OpenTransaction" if view.connector.transaction is not None else None


def active_reservation(view: View) -> str | None:
    """Another reservation locks the connector."""
    lock = view.connector.lock
    if lock is None or lock.reservation_id == view.ignoring or not is_lock_active(lock, view.now):
        return None
    return "ActiveReservation"


def persisted_not_startable(view: View) -> str | None:
    """There is no live status, and the persisted status is fresh and not startable (Available, or plugged in)."""
    if live_status(view) is not None:
        return None
    persisted = view.connector.persisted
    if persisted is None or _is_free(persisted.state, view.policy) or not _is_fresh(persisted, view):
        return None
    if persisted.source is StatusSource.REMOTE_START and not is_lock_active(view.connector.lock, view.now):
        return None  # The status of our own remote start ends with its lock (note F09), even before a sweep.
    return f"PersistedStatus:{coarse_status(persisted.state)}"


PREDICATES: Final[tuple[Callable[[View], str | None], ...]] = (
    offline,
    live_not_startable,
    open_transaction,
    active_reservation,
    persisted_not_startable,
)


def busy_reasons(
    snapshot: Snapshot, connector_id: int, *, now: datetime, policy: Policy, ignoring: str | None = None
) -> tuple[str, ...]:
    """Every reason why the connector cannot be started now, the headline reason first; empty means startable.
    `ignoring` is the id of a reservation whose own lock does not count."""
    view = build_view(snapshot, connector_id, now=now, policy=policy, ignoring=ignoring)
    return tuple(reason for predicate in PREDICATES if (reason := predicate(view)) is not None)


def verdict(
    snapshot: Snapshot, connector_id: int, *, now: datetime, policy: Policy, ignoring: str | None = None
) -> dict[str, object]:
    """The decision as one log line: the verdict, the headline reason, and the result of each predicate."""
    view = build_view(snapshot, connector_id, now=now, policy=policy, ignoring=ignoring)
    said = {predicate.__name__: predicate(view) for predicate in PREDICATES}
    headline = next((reason for reason in said.values() if reason is not None), None)
    return {
        "station": snapshot.station.station_id,
        "connector": connector_id,
        "verdict": "startable" if headline is None else "busy",
        "headline": headline,
        "predicates": said,
    }


def build_view(
    snapshot: Snapshot, connector_id: int, *, now: datetime, policy: Policy, ignoring: str | None = None
) -> View:
    """The connector as the predicates read it."""
    return View(
        station=snapshot.station,
        connector=snapshot.connector(connector_id),
        whole=snapshot.connector(0),
        presence=snapshot.presence,
        now=now,
        policy=policy,
        ignoring=ignoring,
        reservation=snapshot.reservation,
    )


def is_plugged_in(snapshot: Snapshot, connector_id: int) -> bool:
    """Whether the station reports that a car is plugged in and nothing was started: by its status, or by an occupied
    connector on which a car is connected and no transaction runs (note F04)."""
    live, connector = reported_status(snapshot, connector_id), snapshot.connector(connector_id)
    return live is not None and (
        live.state is ConnectorState.PLUGGED or _is_only_connected(live, connector) or _is_unstarted(live, connector)
    )


def needs_replug(snapshot: Snapshot, connector_id: int, policy: Policy) -> bool:
    """Whether the car that is plugged in must be plugged in again, because the station has stopped waiting for its
    start and accepts none now (OCPP 1.6 4.9, Preparing to Finishing)."""
    live, connector = reported_status(snapshot, connector_id), snapshot.connector(connector_id)
    return (
        live is not None
        and _is_unstarted(live, connector)
        and not _is_startable(live, connector, snapshot.station, policy)
    )


def driver_reasons(snapshot: Snapshot, connector_id: int, reasons: tuple[str, ...], policy: Policy) -> tuple[str, ...]:
    """The reasons as a driver is told them: to plug in again, where that is all that is missing."""
    if OCCUPIED not in reasons or not needs_replug(snapshot, connector_id, policy):
        return reasons
    return tuple(REPLUG if reason == OCCUPIED else reason for reason in reasons)


def reported_status(snapshot: Snapshot, connector_id: int) -> LiveStatus | None:
    """The connector's own live status in the present epoch, whatever the whole station reports."""
    return _find_current_status(snapshot.connector(connector_id).live, snapshot.presence)


def is_reported_available(snapshot: Snapshot, connector_id: int) -> bool:
    """Whether the station reports in its present epoch that the connector is Available, with no car plugged in."""
    live = reported_status(snapshot, connector_id)
    return live is not None and live.state is ConnectorState.AVAILABLE


def is_reported_free(snapshot: Snapshot, connector_id: int, policy: Policy) -> bool:
    """Whether the connector's own live status in the present epoch lets a driver start."""
    live = reported_status(snapshot, connector_id)
    return live is not None and _is_startable(live, snapshot.connector(connector_id), snapshot.station, policy)


def is_masked(snapshot: Snapshot) -> bool:
    """Whether the station reports in its present epoch that it is out of order as a whole (connector 0, note F10)."""
    return _is_masking(reported_status(snapshot, 0))


def public_status(snapshot: Snapshot, connector_id: int, *, now: datetime, policy: Policy) -> str:
    """The status for the public page: a coarse status, Offline, or Unknown if the station never reported one."""
    if not is_online(snapshot.presence, now):
        return "Offline"
    connector = snapshot.connector(connector_id)
    if connector.transaction is not None:
        return ConnectorStatus.OCCUPIED
    live = live_status(build_view(snapshot, connector_id, now=now, policy=policy))
    if live is not None:
        free = _is_startable(live, connector, snapshot.station, policy)
        return ConnectorStatus.AVAILABLE if free else coarse_status(live.state)
    return coarse_status(connector.persisted.state) if connector.persisted is not None else "Unknown"


def _find_current_status(live: LiveStatus | None, presence: Presence | None) -> LiveStatus | None:
    """The live status if it belongs to the station's present epoch."""
    return live if live is not None and presence is not None and live.epoch == presence.epoch else None


def _is_masking(whole: LiveStatus | None) -> bool:
    return whole is not None and coarse_status(whole.state) in MASKING_STATUSES


def _is_startable(live: LiveStatus, connector: Connector, station: Station, policy: Policy) -> bool:
    """Whether a live status lets a driver start: Available, or plugged in with nothing started, also after the station
    has stopped waiting for the start, where its make accepts one then."""
    if _is_free(live.state, policy):
        return True
    late = station.has_quirk(Quirk.STARTS_FROM_FINISHING) and _is_unstarted(live, connector)
    return policy.preparing_is_startable and (late or _is_only_connected(live, connector))


def _is_unstarted(live: LiveStatus, connector: Connector) -> bool:
    """Whether a car was plugged in and not started until the station stopped waiting for that."""
    return live.unstarted and connector.transaction is None


def _is_free(state: ConnectorState, policy: Policy) -> bool:
    """Whether a state alone means that nothing was started."""
    return state is ConnectorState.AVAILABLE or (state is ConnectorState.PLUGGED and policy.preparing_is_startable)


def _is_only_connected(live: LiveStatus, connector: Connector) -> bool:
    """Whether an occupied connector has only a cable plugged in: OCPP 2.0.1 has no status for that (note F04)."""
    return live.state is ConnectorState.OCCUPIED and connector.plugged == live.epoch and connector.transaction is None


def _is_fresh(persisted: PersistedStatus, view: View) -> bool:
    """Whether a persisted status is young enough to make the connector busy: never without a time, nor with a freshness
    of zero."""
    window = view.policy.status_freshness
    return persisted.at is not None and bool(window) and view.now - persisted.at <= window
