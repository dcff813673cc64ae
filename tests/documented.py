"""How long a connector with nothing on it stays busy: the last table of docs/occupancy.md, told over what is stored.

The bounds are made of what happened (created, paid, stopped, said) and of the settings, never of the deadlines that the
product wrote down for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from csms.model import Connector, OpenTransaction, Policy, Reservation
from csms.model import ReservationState as S
from csms.occupancy import Finding
from tests.invariants import Scene

FIRST_LEASE: Final = timedelta(seconds=90)
MARGIN: Final = timedelta(minutes=2)
TICK: Final = timedelta(seconds=1)
STATION_REASONS: Final = frozenset({"ChargerOffline", "LiveStatus"})
"""Reasons that the station itself gives: whatever it is, it is not nothing."""


class LeftoverKind(StrEnum):
    """What may be left behind on a connector, as the table says it."""

    NEVER_HANDED_OUT = "a checkout that was never handed out"
    NOT_PAID = "a checkout nobody paid"
    NOT_STARTED = "a paid reservation that never started"
    NOT_UNPLUGGED = "a charge that ended, and nobody heard that the car has left"
    STOP_LOST = "a transaction whose stop was lost, the station says Available"
    UNHEARD = "a transaction of which nothing more is heard"
    STATUS = "a persisted status, the station is online and silent"


NEEDS_SWEEP: Final = frozenset({LeftoverKind.STOP_LOST, LeftoverKind.UNHEARD})
"""What needs one sweep to go; of the rest the busy rule itself knows when it is over."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """One of them: the reason it gives, and until when it may; never-ending where that was set."""

    kind: LeftoverKind
    connector_id: int
    reason: str
    until: datetime | None


def find_leftovers(scene: Scene, connector: Connector, policy: Policy) -> Iterator[Leftover]:
    """All that may keep the connector busy, whether it still does or not."""
    number, running = connector.connector_id, connector.transaction
    if running is not None:
        yield Leftover(*_transaction_leftover(running, number, "OpenTransaction", scene, policy))
    if connector.lock is not None:
        held = scene.reservations[connector.lock.reservation_id]
        if held.state is S.CHARGING:
            assert running is not None
            yield Leftover(*_transaction_leftover(running, number, "ActiveReservation", scene, policy))
        else:
            left, until = _reservation_leftover(held, policy)
            yield Leftover(left, number, "ActiveReservation", until)
    if connector.persisted is not None and connector.persisted.at is not None:
        until = connector.persisted.at + policy.status_freshness
        yield Leftover(LeftoverKind.STATUS, number, "PersistedStatus", until)


def check_leftovers(
    scene: Scene,
    findings_by_connector: Mapping[int, tuple[Finding, ...]],
    policy: Policy,
    swept_at: datetime | None,
) -> list[Leftover]:
    """What is left on the connectors and keeps them busy, by what the findings say of each; AssertionError for
    something that does so longer than is documented, or is told to.

    `swept_at` is when a sweep last went through undisturbed.
    """
    left = []
    for number, findings in findings_by_connector.items():
        known = {
            one.reason: one
            for c in scene.all(Connector)
            if c.connector_id == number
            for one in find_leftovers(scene, c, policy)
        }
        for finding in findings:
            reason = (finding.reason or "").partition(":")[0]
            if not reason or reason in STATION_REASONS:
                continue
            assert reason in known, f"{reason} has something behind it"
            one = known[reason]
            left.append(one)
            if one.until is None:
                continue
            at = swept_at if one.kind in NEEDS_SWEEP else scene.now
            assert at is None or at <= one.until, f"{one.kind} keeps a connector busy until {one.until} at most"
            assert finding.until is None or finding.until <= one.until, f"{one.kind}: nobody is told {finding.until}"
    return left


def pass_until_expired(
    left: Callable[[], list[Leftover]], pass_time: Callable[[timedelta, bool], None], now: Callable[[], datetime]
) -> None:
    """Time passes until nothing is left that ends by itself, from one documented end to the next; nobody sweeps, but
    once where the table says so. `left` complains of what is left too long."""
    while ends := sorted((one.until, one.kind) for one in left() if one.until is not None):
        until, first = ends[0]
        pass_time(max(until - now(), timedelta(0)) + TICK, first in NEEDS_SWEEP)


def _transaction_leftover(
    running: OpenTransaction, number: int, reason: str, scene: Scene, policy: Policy
) -> tuple[LeftoverKind, int, str, datetime | None]:
    ends = running.received_at + policy.session_limit if policy.session_limit else None
    if running.idle_until is None:
        return LeftoverKind.UNHEARD, number, reason, ends
    assert running.idle_until <= scene.now + policy.implied_stop_grace, "a notice is not longer than its grace"
    return LeftoverKind.STOP_LOST, number, reason, min(running.idle_until, ends or running.idle_until)


def _reservation_leftover(held: Reservation, policy: Policy) -> tuple[LeftoverKind, datetime]:
    """What a reservation that does not charge was left as, and until when it may hold the connector."""
    bound = held.created_at + policy.reservation_timeout if policy.reservation_timeout else None
    match held.state:
        case S.PENDING_PAYMENT if held.checkout_id is None:
            return LeftoverKind.NEVER_HANDED_OUT, held.created_at + FIRST_LEASE
        case S.PENDING_PAYMENT:
            until = held.created_at + policy.checkout_window + MARGIN
            return LeftoverKind.NOT_PAID, min(until, bound or until)
        case S.AUTHORIZED | S.START_REQUESTED:
            until = (held.authorised_at or held.created_at) + policy.start_window
            return LeftoverKind.NOT_STARTED, min(until, bound or until)
        case S.WAITING_FOR_DISCONNECT:
            assert held.stopped_at is not None
            return LeftoverKind.NOT_UNPLUGGED, held.stopped_at + policy.disconnect_limit
        case _:
            raise AssertionError(f"{held.state} holds no connector")
