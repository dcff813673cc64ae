"""How long a connector with nothing on it stays busy: the last table of docs/occupancy.md, checked on what is stored.

The limits are computed from what happened (created, paid, stopped, reported) and from the settings, never from the
deadlines that the product stored itself.
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
CLOSE_PATIENCE: Final = timedelta(seconds=10)
STATION_REASONS: Final = frozenset({"ChargerOffline", "LiveStatus"})
"""Reasons that the station itself reports; they are never leftovers."""


class LeftoverKind(StrEnum):
    """What may be left on a connector, in the words of the table."""

    NEVER_HANDED_OUT = "a checkout that was never handed out"
    NOT_PAID = "a checkout nobody paid"
    NOT_STARTED = "a paid reservation that never started"
    NOT_UNPLUGGED = "a charge that ended, and nobody heard that the car has left"
    STOP_LOST = "a transaction whose stop was lost, the station says Available"
    UNHEARD = "a transaction of which nothing more is heard"
    CLOSED_BY_OPERATOR = "a transaction that an operator closes, and the station does not stop it"
    STATUS = "a persisted status, the station is online and silent"


NEEDS_SWEEP: Final = frozenset({LeftoverKind.STOP_LOST, LeftoverKind.UNHEARD, LeftoverKind.CLOSED_BY_OPERATOR})
"""What needs one sweep to end. The busy rule itself knows when the others are over."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """One leftover: the busy reason it causes, and the latest time it may do so; None if the settings give no limit."""

    kind: LeftoverKind
    connector_id: int
    reason: str
    until: datetime | None


def find_leftovers(scene: Scene, connector: Connector, policy: Policy) -> Iterator[Leftover]:
    """Everything that may keep the connector busy, whether it still does or not."""
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
    """The leftovers that keep the connectors busy, according to the findings for each. Raises AssertionError if one
    does so longer than documented, or if the driver is shown a later time.

    `swept_at` is when the last sweep without a fault began.
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
    """Let time pass, from one documented end to the next, until nothing is left that ends by itself. There is no sweep
    except where the table requires one. `left` raises AssertionError if something stays too long."""
    while ends := sorted((one.until, one.kind) for one in left() if one.until is not None):
        until, first = ends[0]
        pass_time(max(until - now(), timedelta(0)) + TICK, first in NEEDS_SWEEP)


def _transaction_leftover(
    running: OpenTransaction, number: int, reason: str, scene: Scene, policy: Policy
) -> tuple[LeftoverKind, int, str, datetime | None]:
    ends = running.received_at + policy.session_limit if policy.session_limit else None
    if running.closing is not None:
        close_at = running.closing.due_at
        assert close_at <= scene.now + CLOSE_PATIENCE, "an operator does not wait longer"
        until = min(at for at in (close_at, running.idle_until, ends) if at is not None)
        return LeftoverKind.CLOSED_BY_OPERATOR, number, reason, until
    if running.idle_until is None:
        return LeftoverKind.UNHEARD, number, reason, ends
    assert running.idle_until <= scene.now + policy.implied_stop_grace, "a notice is not longer than its grace"
    return LeftoverKind.STOP_LOST, number, reason, min(running.idle_until, ends or running.idle_until)


def _reservation_leftover(held: Reservation, policy: Policy) -> tuple[LeftoverKind, datetime]:
    """The leftover that a reservation without a running transaction is, and until when it may lock the connector."""
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
