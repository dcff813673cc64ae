"""Enumerations, the policy, the decision context, the tariff, and other small values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from string import ascii_lowercase, ascii_uppercase
from typing import Any, ClassVar, Final, Self, cast

RECORD_RETENTION: Final = timedelta(days=90)
"""How long idempotency records, command records, meter samples and timeline entries are kept (note F76)."""


LONGEST_WORD: Final = 64
"""The most characters that are stored of a status, a code or a reason that a station sends."""

LONGEST_TAG: Final = 255
"""The most characters that are stored of a tag: as many as OCPP 2.0.1 allows."""


def cut_text(text: str, longest: int) -> str:
    """The text if it has `longest` characters at most, otherwise its beginning with an ellipsis as the last one."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class StoredEnum(StrEnum):
    """An enumeration whose values are stored. Releases add values, so an item may hold one that this release does not
    know.

    Only `from_stored` accepts such a value. `Money("x")` and pydantic refuse it, so that input from outside is checked
    as strictly as with any other enumeration.
    """

    @classmethod
    def from_stored(cls, text: str) -> Self:
        """The member with this text; for any other text, the one object that represents it: equal to no member, in no
        listing of the members, and stored as the same text."""
        known = cls._value2member_map_.get(text)
        if known is None:
            known = _UNKNOWN.get((cls, text)) or _UNKNOWN.setdefault((cls, text), _build_unknown_member(cls, text))
        return cast("Self", known)

    @property
    def is_known(self) -> bool:
        """Whether this release has a member with this value."""
        return type(self)._value2member_map_.get(self._value_) is self


_UNKNOWN: Final[dict[tuple[type[StoredEnum], str], StoredEnum]] = {}


def _build_unknown_member(kind: type[StoredEnum], text: str) -> StoredEnum:
    """A value of the enumeration that is none of its members."""
    word = str.__new__(kind, text)
    word._name_ = word._value_ = text
    return word


class Protocol(StoredEnum):
    """The OCPP-J sub-protocols, spelled as in Sec-WebSocket-Protocol."""

    OCPP16 = "ocpp1.6"
    OCPP201 = "ocpp2.0.1"


class ConnectorStatus(StrEnum):
    """The coarse statuses that the busy rule uses; every raw status of every OCPP version maps to one of them."""

    AVAILABLE = "Available"
    OCCUPIED = "Occupied"
    UNAVAILABLE = "Unavailable"
    FAULTED = "Faulted"


class ConnectorState(StoredEnum):
    """What a raw status means, independent of the OCPP version; each version's dialect maps its statuses to these."""

    AVAILABLE = "available"
    PLUGGED = "plugged"
    CHARGING = "charging"
    SUSPENDED_BY_CAR = "suspended by car"
    SUSPENDED_BY_STATION = "suspended by station"
    FINISHING = "finishing"
    RESERVED = "reserved"
    OCCUPIED = "occupied"
    UNAVAILABLE = "unavailable"
    FAULTED = "faulted"
    UNKNOWN = "unknown"


class StatusSource(StoredEnum):
    """Who wrote a persisted status."""

    CHARGER = "charger"
    REMOTE_START = "remote start"
    MAINTENANCE = "maintenance"
    OPERATOR = "operator"


class ReservationState(StoredEnum):
    """The state of a reservation; in the first five it locks the connector, in the last three it has ended."""

    PENDING_PAYMENT = "PendingPayment"
    AUTHORIZED = "Authorized"
    START_REQUESTED = "StartRequested"
    CHARGING = "Charging"
    WAITING_FOR_DISCONNECT = "WaitingForDisconnect"
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"
    FAILED = "Failed"


class Money(StoredEnum):
    """The state of a reservation's money."""

    NONE = "none"
    AUTHORIZED = "authorised"
    CAPTURING = "capturing"
    CAPTURED = "captured"
    RELEASING = "releasing"
    RELEASED = "released"
    REFUNDING = "refunding"
    NEEDS_REVIEW = "needs_review"


class FailureCode(StoredEnum):
    """Why a reservation ended without a bill."""

    CANCELLED_BY_DRIVER = "CancelledByDriver"
    CANCELLED_BY_OPERATOR = "CancelledByOperator"
    CHECKOUT_FAILED = "CheckoutFailed"
    CONNECTOR_TAKEN = "ConnectorTaken"
    PAYMENT_FAILED = "PaymentFailed"
    PAYMENT_TIMEOUT = "PaymentTimeout"
    START_REJECTED = "StartRejected"
    START_TIMEOUT = "StartTimeout"


class OutboxKind(StoredEnum):
    """What a reservation can owe to the outside: provider calls and the receipt. Each is stored as an outbox item
    first."""

    OPEN_CHECKOUT = "open-checkout"
    EXPIRE_CHECKOUT = "expire-checkout"
    CAPTURE = "capture"
    RELEASE = "release"
    REFUND = "refund"
    EMAIL_RECEIPT = "email-receipt"


class CallState(StoredEnum):
    """The state of an outbound CALL. An answered one is deleted, unless the station accepted to report a status that is
    still to come (PROMISED)."""

    QUEUED = "queued"
    SENT = "sent"
    PROMISED = "promised"


class TagStatus(StoredEnum):
    """AuthorizationStatus (OCPP 1.6 7.2)."""

    ACCEPTED = "Accepted"
    BLOCKED = "Blocked"
    EXPIRED = "Expired"
    INVALID = "Invalid"
    CONCURRENT_TX = "ConcurrentTx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that decisions read. Zero disables a duration where docs/reference.md says so; `payment_provider` is
    the provider of new reservations, a name in `csms.payment_providers`."""

    status_freshness: timedelta = timedelta(minutes=30)
    reservation_timeout: timedelta = timedelta(minutes=60)
    status_release: timedelta = timedelta(minutes=240)
    checkout_window: timedelta = timedelta(minutes=30)
    start_window: timedelta = timedelta(minutes=10)
    first_lease: timedelta = timedelta(seconds=90)
    heartbeat: timedelta = timedelta(seconds=300)
    call_timeout: timedelta = timedelta(seconds=30)
    outbox_lease: timedelta = timedelta(seconds=30)
    outbox_attempts: int = 8
    implied_stop_grace: timedelta = timedelta(minutes=5)
    session_limit: timedelta = timedelta(hours=24)
    disconnect_limit: timedelta = timedelta(hours=12)
    settle_margin: timedelta = timedelta(hours=6)
    late_start: timedelta = timedelta(minutes=15)
    stop_margin_wh: int = 300
    max_power_w: int = 400_000
    power_tolerance_percent: int = 25
    email_receipts: bool = False
    preparing_is_startable: bool = True
    start_needs_plug: bool = False
    payment_provider: str = "stripe"

    @property
    def presence_lease(self) -> timedelta:
        """How long a silent station counts as online: three heartbeat intervals."""
        return 3 * self.heartbeat


@dataclass(frozen=True, slots=True, kw_only=True)
class IdToken:
    """A driver's token: the number of an RFID card or a web tag, up to 255 characters. `type` is the station's token
    type, None in OCPP versions that have none."""

    value: str
    type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIds:
    """Unused ids, made at the edge so that decisions stay pure. `transaction_id` is a decimal number from 1 to 2^31-1,
    which every OCPP version can carry."""

    reservation_id: str
    id_tag: str
    transaction_id: str
    call_id: str
    epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionContext:
    """What every decision gets beside the snapshot: the time (aware UTC), unused ids, the settings, and for a station's
    frame when the gateway received it, which is before it is processed."""

    now: datetime
    new_ids: NewIds
    policy: Policy
    frame_at: datetime | None = None

    @property
    def received_at(self) -> datetime:
        """When the message was received: the order of messages is that of their receipt (note F11)."""
        return self.frame_at or self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardCompatible:
    """A stored value that is read, changed and written again. `kept` holds the attributes that this release does not
    know: they are written back as they were read, used by no decision, and ignored in comparisons."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = {"extra": "forbid"}
    """Reading fails on an unknown attribute that was not moved to `kept`, so that none is lost silently."""

    kept: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff(ForwardCompatible):
    """What a session costs, VAT included; amounts and rates in minor units, with the `exponent` of ISO 4217.

    `energy_price` is per kWh and `idle_price` per minute; both may have a fraction. Idle time is free during the grace
    and between the local times `idle_free_from` and `idle_free_until` ("22:00", "06:00"), and costs at most
    `idle_maximum`. `max_energy_wh` and `max_amount` limit the session and what is authorized for it. Below
    `minimum_energy_wh`, or below the provider's `minimum_amount`, nothing is charged.
    """

    currency: str
    exponent: int = 2
    energy_price: Decimal
    session_fee: int = 0
    idle_price: Decimal = Decimal(0)
    idle_grace_minutes: int = 0
    idle_maximum: int = 0
    idle_free_from: str | None = None
    idle_free_until: str | None = None
    time_zone: str = "UTC"
    vat_percent: Decimal = Decimal(0)
    max_energy_wh: int = 40_000
    max_amount: int | None = None
    minimum_energy_wh: int = 0
    minimum_amount: int = 50


_ASCII_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


def fold(identity: str) -> str:
    """The form in which station ids and id tags are compared: without regard to the case of ASCII letters (OCPP 1.6
    CiString, which has no others). Any other letters differ: "straße" is not "STRASSE"."""
    return identity.translate(_ASCII_LOWER)


def format_time(at: datetime) -> str:
    """The time in the form of all public answers: ISO 8601 in UTC with milliseconds, ending in Z (note F60)."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
