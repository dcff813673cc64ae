"""The settings, read once from the environment into one frozen model. The stack sets exactly these names; a test
compares both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from email.utils import parseaddr
from functools import partial
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from csms.errors import BadRequest
from csms.model import Policy

LONGEST_SECONDS: Final = 366 * 24 * 3600
ADDRESS: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
DEFAULT: Final = Policy()
SECRET_PREFIX: Final = "secret:"  # noqa: S105 - no password


def _parse_duration(text: str, *, seconds: int) -> timedelta:
    """The duration that a number of units of this many seconds means; ValueError if it is no number or more than a
    year."""
    total = float(text) * seconds
    if not abs(total) <= LONGEST_SECONDS:  # NaN fails this comparison too.
        raise ValueError("must be a number, and at most one year")
    return timedelta(seconds=total)


def _validate_sender(address: str) -> str:
    """The mail address, or the name with its address in angle brackets, unchanged; ValueError for anything else."""
    _, found = parseaddr(address)
    if not ADDRESS.fullmatch(found) or not address.isprintable():
        raise ValueError('must be a mail address or a name with it, for example "Receipts <receipts@example.com>"')
    return address


def secret_reference(secret: str, field: str) -> str:
    """The text that the environment holds instead of a secret value: the secret's name or ARN, and the field in it."""
    return f"{SECRET_PREFIX}{secret}#{field}"


Minutes = Annotated[timedelta, BeforeValidator(partial(_parse_duration, seconds=60))]
Seconds = Annotated[timedelta, BeforeValidator(partial(_parse_duration, seconds=1))]


def _zero_if_negative(duration: timedelta) -> timedelta:
    """The duration, or zero, which means disabled, if it is negative."""
    return max(duration, timedelta(0))


class Settings(BaseModel):
    """The settings of an installation; only `table_name` is required everywhere. A description is the setting's line in
    docs/reference.md."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    table_name: str = Field(alias="TABLE_NAME", min_length=1, description="Name of the DynamoDB table.")
    websocket_api_url: str = Field(
        alias="WEBSOCKET_API_URL",
        default="",
        description="Address of @connections: the WebSocket API's stage, over HTTPS.",
    )
    public_url: str = Field(
        alias="PUBLIC_URL", default="", description="Address of the drivers' pages, for checkouts and receipts."
    )
    origin_secret: str = Field(
        alias="ORIGIN_SECRET",
        default="",
        repr=False,
        description="Secret that CloudFront sends; $connect and the HTTP functions refuse requests without it.",
    )
    next_origin_secret: str = Field(
        alias="NEXT_ORIGIN_SECRET",
        default="",
        repr=False,
        description="Secret that CloudFront will send after the next rotation; accepted already.",
    )
    maintenance_function: str = Field(
        alias="MAINTENANCE_FUNCTION",
        default="",
        description="Name of the maintenance function, which makes owed payment calls.",
    )
    timer_queue_url: str = Field(
        alias="TIMER_QUEUE_URL",
        default="",
        description="Address of the SQS queue for timers; without it an unanswered CALL is left to the sweep.",
    )
    payment_provider: str = Field(
        alias="PAYMENT_PROVIDER", default=DEFAULT.payment_provider, description="Payment provider of new reservations."
    )
    stripe_api_key: str = Field(alias="STRIPE_API_KEY", default="", repr=False, description="Stripe's secret key.")
    stripe_webhook_secret: str = Field(
        alias="STRIPE_WEBHOOK_SECRET",
        default="",
        repr=False,
        description="Signing secret of Stripe's webhook endpoint.",
    )
    stripe_api_base: str = Field(
        alias="STRIPE_API_BASE", default="", description="Address to use instead of Stripe's, for a stand-in."
    )
    status_freshness: Annotated[Minutes, AfterValidator(_zero_if_negative)] = Field(
        alias="STATUS_FRESHNESS_MINUTES",
        default=DEFAULT.status_freshness,
        description="How long a persisted status makes a connector busy where there is no live status.",
    )
    reservation_timeout: Annotated[Minutes, AfterValidator(_zero_if_negative)] = Field(
        alias="RESERVATION_TIMEOUT_MINUTES",
        default=DEFAULT.reservation_timeout,
        description="How long a reservation may take from its creation until it charges.",
    )
    status_release: Annotated[Minutes, AfterValidator(_zero_if_negative)] = Field(
        alias="STATUS_RELEASE_MINUTES",
        default=DEFAULT.status_release,
        description="After how long the sweep makes the persisted status of an unused connector Available.",
    )
    checkout_window: Minutes = Field(
        alias="CHECKOUT_MINUTES",
        default=DEFAULT.checkout_window,
        ge=timedelta(minutes=30),
        le=timedelta(hours=23),
        description="How long a checkout can be paid, from 30 minutes to 23 hours.",
    )
    start_window: Minutes = Field(
        alias="START_WINDOW_MINUTES",
        default=DEFAULT.start_window,
        gt=timedelta(0),
        description="How long a driver who has paid may take until the transaction starts.",
    )
    late_start: Annotated[Minutes, AfterValidator(_zero_if_negative)] = Field(
        alias="LATE_START_MINUTES",
        default=DEFAULT.late_start,
        description="How long a station that was away has to report a start, before the hold for it is released.",
    )
    heartbeat: Seconds = Field(
        alias="HEARTBEAT_SECONDS",
        default=DEFAULT.heartbeat,
        ge=timedelta(seconds=10),
        le=timedelta(seconds=540),
        description="Heartbeat interval sent to stations at boot; the lease is three of them.",
    )

    implied_stop_grace: Annotated[Minutes, AfterValidator(_zero_if_negative)] = Field(
        alias="IMPLIED_STOP_GRACE_MINUTES",
        default=DEFAULT.implied_stop_grace,
        description="How long a transaction stays open after its connector was reported Available without a stop.",
    )
    session_limit: Annotated[Minutes, AfterValidator(_zero_if_negative)] = Field(
        alias="SESSION_LIMIT_MINUTES",
        default=DEFAULT.session_limit,
        description="How long a transaction may run.",
    )
    disconnect_limit: Minutes = Field(
        alias="DISCONNECT_LIMIT_MINUTES",
        default=DEFAULT.disconnect_limit,
        gt=timedelta(0),
        description="How long a session with an idle fee waits to be unplugged.",
    )
    settle_margin: Minutes = Field(
        alias="SETTLE_MARGIN_MINUTES",
        default=DEFAULT.settle_margin,
        ge=timedelta(0),
        description="How long before its authorization lapses a session is settled.",
    )
    stop_margin_wh: int = Field(
        alias="STOP_MARGIN_WH",
        default=DEFAULT.stop_margin_wh,
        ge=0,
        le=100_000,
        description="How much energy before the ceiling the station is asked to stop, at least.",
    )
    max_power_kw: int = Field(
        alias="MAX_POWER_KW",
        default=DEFAULT.max_power_w // 1000,
        ge=1,
        le=1_000_000,
        description="Most power of a connector whose station has no `maxPowerW`; more energy in the time needs review.",
    )
    power_tolerance_percent: int = Field(
        alias="POWER_TOLERANCE_PERCENT",
        default=DEFAULT.power_tolerance_percent,
        ge=0,
        le=1_000_000_000,
        description="By how much the energy may exceed what the measured power delivers in the time.",
    )
    preparing_is_startable: bool = Field(
        alias="PREPARING_IS_STARTABLE",
        default=DEFAULT.preparing_is_startable,
        description="Whether a connector that reports Preparing can be started.",
    )
    start_needs_plug: bool = Field(
        alias="START_NEEDS_PLUG",
        default=DEFAULT.start_needs_plug,
        description="Whether a paid reservation waits for the plug before the remote start.",
    )
    operator_name: str = Field(alias="OPERATOR_NAME", default="", description="Who issues receipts.")
    operator_address: str = Field(
        alias="OPERATOR_ADDRESS", default="", description="Address of the issuer; line breaks are kept."
    )
    operator_vat_number: str = Field(alias="OPERATOR_VAT_NUMBER", default="", description="VAT number of the issuer.")
    operator_contact: str = Field(alias="OPERATOR_CONTACT", default="", description="How drivers reach the issuer.")
    receipt_sender: Annotated[str, AfterValidator(_validate_sender)] = Field(
        alias="RECEIPT_SENDER",
        default="",
        description="Sender of mailed receipts: an address, or a name with it in angle brackets; empty mails none.",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in an environment; BadRequest that names the first invalid one."""
        try:
            return cls.model_validate({name: value for name, value in environ.items() if value})
        except ValidationError as invalid:
            first = invalid.errors(include_url=False, include_input=False)[0]
            raise BadRequest(f"Setting {first['loc'][0]}: {first['msg']}") from None

    @property
    def policy(self) -> Policy:
        """The settings that decisions read: the fields of `Policy`, of which two are derived from settings of another
        name."""
        same = {row.name: getattr(self, row.name) for row in fields(Policy) if row.name in Settings.model_fields}
        return Policy(
            **same,
            max_power_w=self.max_power_kw * 1000,
            email_receipts=bool(self.receipt_sender),
        )
