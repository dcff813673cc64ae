"""What every service needs: the table, the clock, new ids, the settings, and the adapters to the outside."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from csms.adapters.apigateway import Gateway
from csms.adapters.dynamodb import Store
from csms.adapters.ses import Mailer
from csms.errors import NotFound
from csms.model import DecisionContext, NewIds, OutboxItem, Policy, fold
from csms.ocpp.dialect import Dialect
from csms.ports.payments import PaymentProvider
from csms.pricing.receipt import Issuer

Observe = Callable[[str, Mapping[str, Any]], None]


class SetTimer(Protocol):
    """Sets a timer, after which maintenance looks at the station's commands and its line (Maintenance.wake)."""

    def __call__(self, station_id: str, *, seconds: int, call_id: str | None = None) -> None:
        """Set the timer. Raises Unreachable."""


def generate_ids() -> NewIds:
    """New random ids. The idTag is 20 hexadecimal digits, which are 80 random bits: some makes take nothing else (note
    F28). The transaction id is from 1 to 2^31-1."""
    return NewIds(
        reservation_id=uuid.uuid4().hex,
        id_tag=secrets.token_hex(10).upper(),
        transaction_id=str(secrets.randbelow(2**31 - 1) + 1),
        call_id=str(uuid.uuid4()),
        epoch=secrets.token_hex(4),
    )


def generate_key() -> bytes:
    """A new random key of 32 bytes."""
    return secrets.token_bytes(32)


def utc_now() -> datetime:
    """The present time, aware and in UTC."""
    return datetime.now(UTC)


def observe_nothing(_what: str, _facts: Mapping[str, Any]) -> None:
    """Observe nothing; the default where nothing is logged or counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What every service needs.

    Without `provider`, owed payment calls are left to `trigger_maintenance`, which asks the maintenance function to
    make them. Without `mailer`, receipts are left to the sweep. Without `set_timer`, an unanswered CALL is left to the
    sweep. `dialects` are the OCPP versions that csms supports, by
    sub-protocol.
    """

    store: Store
    dialects: Mapping[str, Dialect]
    policy: Policy = field(default_factory=Policy)
    gateway: Gateway | None = None
    provider: PaymentProvider | None = None
    mailer: Mailer | None = None
    issuer: Issuer = field(default_factory=Issuer)
    trigger_maintenance: Callable[[OutboxItem], None] | None = None
    set_timer: SetTimer | None = None
    public_url: str = ""
    now: Callable[[], datetime] = utc_now
    new_ids: Callable[[], NewIds] = generate_ids
    observe: Observe = observe_nothing

    def find_station_id(self, identity: str) -> str:
        """The id of the station with this identity, whether there is one or not.

        Releases up to 0.4.0 folded letters beyond ASCII too ("straße" to "strasse"). A station that they registered
        keeps its id, so an identity that they folded to another id is looked up there first.
        """
        folded, older = fold(identity), identity.casefold()
        if folded == older:
            return folded
        try:
            registered = self.store.snapshot(older).station.identity
        except NotFound:
            return folded
        return older if fold(registered) == folded else folded

    def build_context(self, frame_at: datetime | None = None) -> DecisionContext:
        """The time, unused ids and the settings for one decision; `frame_at` is when a station's frame was
        received."""
        return DecisionContext(now=self.now(), new_ids=self.new_ids(), policy=self.policy, frame_at=frame_at)
