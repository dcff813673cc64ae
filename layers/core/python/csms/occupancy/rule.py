"""When is a connector busy, and who may start it: the one place where that is decided.

Create, Confirm, the start gate, the sweep, the public page and the operator's "why busy?" all call `busy_reasons`. The
order of PREDICATES is the founding note's: offline, live status, open transaction, active reservation, persisted
status; the first reason is the headline. `explanation` says the same with its evidence.
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
    Reservation,
    Snapshot,
    StatusSource,
)

CHARGER_OFFLINE: Final = "ChargerOffline"

COARSE_STATUSES: Final[Mapping[ConnectorState, ConnectorStatus]] = {
    ConnectorState.AVAILABLE: ConnectorStatus.AVAILABLE,
    ConnectorState.UNAVAILABLE: ConnectorStatus.UNAVAILABLE,
    ConnectorState.FAULTED: ConnectorStatus.FAULTED,
}
"""Every other state is Occupied, one that we never heard of included: it counts as not Available (note F12)."""

MASKING_STATUSES: Final = frozenset({ConnectorStatus.UNAVAILABLE, ConnectorStatus.FAULTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the predicates look at: one connector of a snapshot, at one time, for one asker. `reservation` is evidence
    only, and there only if it was asked for."""

    connector: Connector
    whole: Connector
    presence: Presence | None
    now: datetime
    policy: Policy
    ignoring: str | None
    reservation: Reservation | None = None


def coarse_status(state: ConnectorState) -> ConnectorStatus:
    """The coarse value of a state."""
    return COARSE_STATUSES.get(state, ConnectorStatus.OCCUPIED)


def is_online(presence: Presence | None, now: datetime) -> bool:
    """Whether the station has a connection and its lease runs."""
    return presence is not None and presence.connection_id is not None and now < presence.lease_until


def last_seen(presence: Presence | None, now: datetime) -> datetime:
    """The latest moment of which the station's own word is known: now while it is online, else when it last spoke."""
    return now if presence is None or is_online(presence, now) else min(now, presence.last_seen_at)


def live_status(view: View) -> LiveStatus | None:
    """The live status that counts: of the present epoch, masked by the whole station's Unavailable or Faulted
    (connector 0)."""
    whole = _find_current_status(view.whole.live, view.presence)
    if _is_masking(whole):
        return whole
    return _find_current_status(view.connector.live, view.presence)


def is_lock_active(lock: Lock | None, now: datetime) -> bool:
    """Whether the lock still holds the connector, its last moment included (note F27): an expired one does not, whether
    or not a sweep has run."""
    return lock is not None and (lock.expires_at is None or now <= lock.expires_at)


def offline(view: View) -> str | None:
    """No WebSocket, no start."""
    return None if is_online(view.presence, view.now) else CHARGER_OFFLINE


def live_not_startable(view: View) -> str | None:
    """The station itself says that the connector cannot be started."""
    live = live_status(view)
    if live is None or _is_startable(live, view.connector, view.policy):
        return None
    return f"LiveStatus:{coarse_status(live.state)}"


def open_transaction(view: View) -> str | None:
    """A transaction was started on the connector and not stopped."""
    return "OpenTransaction" if view.connector.transaction is not None else None


def active_reservation(view: View) -> str | None:
    """Somebody else holds the connector."""
    lock = view.connector.lock
    if lock is None or lock.reservation_id == view.ignoring or not is_lock_active(lock, view.now):
        return None
    return "ActiveReservation"


def persisted_not_startable(view: View) -> str | None:
    """Nothing live is known, and the last thing known is fresh and not Available."""
    if live_status(view) is not None:
        return None
    persisted = view.connector.persisted
    if persisted is None or _is_free(persisted.state, view.policy) or not _is_fresh(persisted, view):
        return None
    if persisted.source is StatusSource.REMOTE_START and not is_lock_active(view.connector.lock, view.now):
        return None  # What our own remote start wrote never outlives its lock (note F09), even before a sweep.
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
    """Every reason why the connector cannot be started now, the headline first; empty means startable. `ignoring` is
    the asker's own reservation."""
    view = build_view(snapshot, connector_id, now=now, policy=policy, ignoring=ignoring)
    return tuple(reason for predicate in PREDICATES if (reason := predicate(view)) is not None)


def verdict(
    snapshot: Snapshot, connector_id: int, *, now: datetime, policy: Policy, ignoring: str | None = None
) -> dict[str, object]:
    """The decision as one line of a log: the verdict, the headline reason, and what each predicate said."""
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
    """The connector as the predicates look at it."""
    return View(
        connector=snapshot.connector(connector_id),
        whole=snapshot.connector(0),
        presence=snapshot.presence,
        now=now,
        policy=policy,
        ignoring=ignoring,
        reservation=snapshot.reservation,
    )


def is_plugged_in(snapshot: Snapshot, connector_id: int) -> bool:
    """Whether the station says that a car is plugged in and nothing was started: by its status, or by an occupied
    connector on which a car is connected and no transaction runs (note F04)."""
    live = reported_status(snapshot, connector_id)
    return live is not None and (
        live.state is ConnectorState.PLUGGED or _is_only_connected(live, snapshot.connector(connector_id))
    )


def reported_status(snapshot: Snapshot, connector_id: int) -> LiveStatus | None:
    """What the station itself said of this very connector in its present epoch, whatever it says of itself as a
    whole."""
    return _find_current_status(snapshot.connector(connector_id).live, snapshot.presence)


def is_reported_free(snapshot: Snapshot, connector_id: int, policy: Policy) -> bool:
    """Whether the station itself said of this very connector, in its present epoch, that it can be started."""
    live = reported_status(snapshot, connector_id)
    return live is not None and _is_startable(live, snapshot.connector(connector_id), policy)


def is_masked(snapshot: Snapshot) -> bool:
    """Whether the station said in its present epoch that it is out of order as a whole (connector 0, note F10)."""
    return _is_masking(reported_status(snapshot, 0))


def public_status(snapshot: Snapshot, connector_id: int, *, now: datetime, policy: Policy) -> str:
    """One word for the public page: a coarse status, Offline, or Unknown when the station never said."""
    if not is_online(snapshot.presence, now):
        return "Offline"
    connector = snapshot.connector(connector_id)
    if connector.transaction is not None:
        return ConnectorStatus.OCCUPIED
    live = live_status(build_view(snapshot, connector_id, now=now, policy=policy))
    if live is not None:
        return ConnectorStatus.AVAILABLE if _is_startable(live, connector, policy) else coarse_status(live.state)
    return coarse_status(connector.persisted.state) if connector.persisted is not None else "Unknown"


def _find_current_status(live: LiveStatus | None, presence: Presence | None) -> LiveStatus | None:
    """The live status if it belongs to the station's present epoch."""
    return live if live is not None and presence is not None and live.epoch == presence.epoch else None


def _is_masking(whole: LiveStatus | None) -> bool:
    return whole is not None and coarse_status(whole.state) in MASKING_STATUSES


def _is_startable(live: LiveStatus, connector: Connector, policy: Policy) -> bool:
    """Whether a live status lets a driver start: Available, or plugged in with nothing started."""
    return _is_free(live.state, policy) or (policy.preparing_is_startable and _is_only_connected(live, connector))


def _is_free(state: ConnectorState, policy: Policy) -> bool:
    """Whether a state alone says that nothing was started."""
    return state is ConnectorState.AVAILABLE or (state is ConnectorState.PLUGGED and policy.preparing_is_startable)


def _is_only_connected(live: LiveStatus, connector: Connector) -> bool:
    """Whether an occupied connector has a cable in it and nothing else: 2.0.1 has no status for that (note F04)."""
    return live.state is ConnectorState.OCCUPIED and connector.plugged == live.epoch and connector.transaction is None


def _is_fresh(persisted: PersistedStatus, view: View) -> bool:
    """Whether a persisted status is young enough to block: one without a time is not, and a window of zero means that
    none ever is."""
    window = view.policy.status_freshness
    return persisted.at is not None and bool(window) and view.now - persisted.at <= window
