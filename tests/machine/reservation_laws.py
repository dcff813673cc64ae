"""The invariants after every decision, and at the end of reservations, connectors and payments."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import timedelta
from typing import ClassVar

from hypothesis.stateful import invariant

from csms.charging.reservation import LOCKING_STATES
from csms.model import (
    CommandKind,
    Connector,
    Money,
    OutboundCall,
    OutboxItem,
    OutboxKind,
    Reservation,
    StatusSource,
    Transaction,
)
from csms.model import ReservationState as S
from csms.occupancy import busy_reasons, explain
from csms.pricing import tariff
from tests.documented import Leftover, LeftoverKind, check_leftovers, pass_until_expired
from tests.invariants import PAID_STATES, Scene, is_beside_lock
from tests.machine.reservation_actions import ReservationActions
from tests.machine.values import CONNECTOR_IDS, POLICY


class ReservationLaws(ReservationActions):
    """The invariants of one station in memory, and its end without further actions."""

    met: ClassVar[Counter[LeftoverKind]] = Counter()
    """How often each kind of leftover was seen to keep a connector busy."""

    @invariant()
    def check_lock_ownership(self) -> None:
        names = []
        for connector in self.world.all(Connector):
            if connector.lock is None:
                continue
            names.append(connector.lock.reservation_id)
            held = self.world.entities[f"RESERVATION#{connector.lock.reservation_id}", "RESERVATION"]
            assert connector.connector_id in CONNECTOR_IDS
            assert held.state in LOCKING_STATES
            assert (held.connector_id, held.state, held.id_tag, held.expires_at) == (
                connector.connector_id,
                connector.lock.state,
                connector.lock.id_tag,
                connector.lock.expires_at,
            )
        assert len(names) == len(set(names)), "a reservation holds one connector"

    @invariant()
    def check_charging_transactions(self) -> None:
        for held in self.world.all(Reservation):
            if held.state is not S.CHARGING or is_beside_lock(held):
                continue
            connector = self._read_connector(held.connector_id)
            assert connector.lock is not None
            assert held.reservation_id == connector.lock.reservation_id
            assert connector.transaction is not None
            assert (held.transaction_id, held.reservation_id) == (
                connector.transaction.transaction_id,
                connector.transaction.reservation_id,
            )
            assert held.expires_at is None

    @invariant()
    def check_money_matches_state(self) -> None:
        owed = {(outbox_item.reservation_id, outbox_item.kind) for outbox_item in self.world.all(OutboxItem)}
        for held in self.world.all(Reservation):
            free = held.max_amount == 0
            holds = held.state in PAID_STATES or held.late_start is not None
            assert (held.money is Money.AUTHORIZED) == (holds and not free), "no hold is forgotten"
            assert held.money is Money.NONE or not free
            if held.money is Money.RELEASING:
                assert (held.reservation_id, OutboxKind.RELEASE) in owed
            if held.money is Money.CAPTURING:
                assert (held.reservation_id, OutboxKind.CAPTURE) in owed
                assert held.capture_amount
            if held.money is Money.REFUNDING:
                assert (held.reservation_id, OutboxKind.REFUND) in owed
            if held.money is Money.CAPTURED:
                assert held.amount == (held.captured_amount or 0) - held.refunded_amount
            if held.state is S.COMPLETED:
                authorized = held.authorised_amount or 0
                due = tariff.capturable_amount(held.tariff, held.energy_wh, held.idle_seconds, authorized=authorized)
                assert due == held.amount
            assert (held.amount or 0) <= (held.authorised_amount or 0)
            assert (held.captured_amount or 0) <= (held.authorised_amount or 0)
            assert held.energy_wh >= 0

    @invariant()
    def check_open_transactions(self) -> None:
        open_ = {t.transaction_id: t for t in self.world.all(Transaction) if t.stopped_at is None}
        running = {c.transaction.transaction_id: c for c in self.world.all(Connector) if c.transaction is not None}
        assert running.keys() == {number for number, t in open_.items() if "Offline" not in t.flags}
        assert all(t.energy_wh >= 0 and int(t.transaction_id) > 0 for t in self.world.all(Transaction))
        assert all(c.transaction is None or c.transaction.energy_wh >= 0 for c in running.values())

    @invariant()
    def check_remote_start_status(self) -> None:
        for connector in self.world.all(Connector):
            if connector.persisted is not None and connector.persisted.source is StatusSource.REMOTE_START:
                assert connector.lock is not None
                held = self.world.entities[f"RESERVATION#{connector.lock.reservation_id}", "RESERVATION"]
                assert held.start_accepted_at is not None

    @invariant()
    def check_single_start(self) -> None:
        asked = [c.reservation_id for c in self.world.all(OutboundCall) if c.kind is CommandKind.REMOTE_START]
        assert len(asked) == len(set(asked))
        self.call_ids += [c.call_id for c in self.world.all(OutboundCall) if c.call_id not in self.call_ids]

    @invariant()
    def check_busy_limits(self) -> None:
        self._find_leftovers()

    def teardown(self) -> None:
        """Check that without further actions every connector can be started again in the documented time, and that no
        hold is left in the end."""
        if sys.exception() is not None:
            return  # An invariant was violated before, and the report is about that one.
        if self.silent:
            self.world.now += POLICY.presence_lease
        self.connect()
        for connector_id in () if self.silent else (0, *CONNECTOR_IDS):
            self._send_call("StatusNotification", connectorId=connector_id, errorCode="NoError", status="Available")
        self._expire_leftovers()
        for connector_id in CONNECTOR_IDS:
            now, policy = self.world.now, self.world.policy
            assert {*busy_reasons(self.world.snapshot(), connector_id, now=now, policy=policy)} <= {"ChargerOffline"}
        self.world.now += timedelta(hours=25)
        self._sweep()
        assert not [held for held in self.world.all(Reservation) if held.state in LOCKING_STATES]

    def _expire_leftovers(self) -> None:
        """Let all leftovers expire in their documented time, with sweeps only where they are documented. An operator
        closes those that the settings let stay forever."""

        def pass_time(pause: timedelta, swept: bool) -> None:
            self.world.now += pause
            if swept:
                self._sweep()

        pass_until_expired(self._find_leftovers, pass_time, lambda: self.world.now)
        for connector_id in [c.connector_id for c in self.world.all(Connector) if c.transaction is not None]:
            self._close_transaction(connector_id)
        pass_until_expired(self._find_leftovers, pass_time, lambda: self.world.now)

    def _find_leftovers(self) -> list[Leftover]:
        """The leftovers that keep the connectors busy."""
        scene = Scene(self.world.now, tuple(self.world.entities.values()))
        seen, policy = self.world.snapshot(), self.world.policy
        said = {
            connector_id: explain(seen, connector_id, now=scene.now, policy=policy) for connector_id in CONNECTOR_IDS
        }
        left = check_leftovers(scene, said, policy, self.swept_at)
        self.met.update(one.kind for one in left)
        return left
