"""Any connector, any station with one, and any policy: what the busy rule and its explanation must stand."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from csms.charging.reservation import LOCKING_STATES
from csms.model import Connector, LiveStatus, Lock, PersistedStatus, Policy, Presence, Snapshot, StatusSource
from csms.ocpp.v16.values import read_state
from tests import builders as b
from tests.builders import MINUTE, NOW, connector, open_transaction, snapshot

RAW = ("Available", "Preparing", "Charging", "Finishing", "Occupied", "Unavailable", "Faulted", "NeverHeardOf")
instants = st.integers(-120, 120).map(lambda minutes: NOW + minutes * MINUTE)


def build_raw_live_status(raw: str, **facts: Any) -> LiveStatus:
    return LiveStatus(raw=raw, state=read_state(raw), **facts)


def build_raw_persisted_status(raw: str, **facts: Any) -> PersistedStatus:
    return PersistedStatus(raw=raw, state=read_state(raw), **facts)


lives = st.none() | st.builds(
    build_raw_live_status,
    raw=st.sampled_from(RAW),
    reported_at=instants,
    epoch=st.sampled_from(("epoch", "an earlier one")),
)
statuses = st.none() | st.builds(
    build_raw_persisted_status, raw=st.sampled_from(RAW), at=st.none() | instants, source=st.sampled_from(StatusSource)
)
locks = st.none() | st.builds(
    Lock,
    reservation_id=st.sampled_from(("mine", "somebody's")),
    state=st.sampled_from(sorted(LOCKING_STATES)),
    id_tag=st.just("WTAG"),
    expires_at=st.none() | instants,
)
transactions = st.none() | st.builds(
    lambda idle_until, ends_at: open_transaction(idle_until=idle_until, ends_at=ends_at),
    st.none() | instants,
    st.none() | instants,
)
presences = st.none() | st.builds(
    lambda socket, lease_until: b.presence(connection_id=socket, lease_until=lease_until),
    st.none() | st.just("socket-1"),
    instants,
)
policies = st.builds(
    Policy, status_freshness=st.sampled_from((0 * MINUTE, 30 * MINUTE)), preparing_is_startable=st.booleans()
)


def connectors(connector_id: int) -> st.SearchStrategy[Connector]:
    return st.builds(
        Connector,
        station_id=st.just("cp-1"),
        connector_id=st.just(connector_id),
        live=lives,
        persisted=statuses,
        transaction=transactions,
        lock=locks,
    )


def build_snapshot(first: Connector, whole: LiveStatus | None, presence: Presence | None) -> Snapshot:
    return snapshot(first, connector(0, live=whole), presence=presence)


snapshots = st.builds(build_snapshot, connectors(1), lives, presences)
