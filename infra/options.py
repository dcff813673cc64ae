"""The options of an installation, as CDK context: `-c csms:alarmMail=night@example.com`, or in cdk.json. All of them,
with types and defaults."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from csms.config import Settings
from csms.errors import BadRequest
from csms.payment_providers import find_provider
from infra import payment_secrets

PREFIX: Final = "csms:"

# Settings that the stack determines itself or that only a laptop has. Every other setting is an option under its own
# name.
KNOWN: Final = frozenset(
    {
        "TABLE_NAME",
        "WEBSOCKET_API_URL",
        "PUBLIC_URL",
        "ORIGIN_SECRET",
        "NEXT_ORIGIN_SECRET",
        "MAINTENANCE_FUNCTION",
        "TIMER_QUEUE_URL",
        "STRIPE_API_BASE",
        *payment_secrets.SETTINGS,
    }
)
SETTABLE: Final[Mapping[str, Any]] = {
    field.alias: field.default for field in Settings.model_fields.values() if field.alias and field.alias not in KNOWN
}
LOG_DAYS: Final = (1, 7, 14, 30, 90, 180, 365)

# Addresses are shared: by the drivers of one carrier, whose pages ask every two seconds (150 times in five minutes) and
# load a dozen files, thirty at once; and by the stations of one site or carrier, fifty that try again every 30 seconds.
LEAST_WEB_REQUESTS: Final = 5000
LEAST_OCPP_REQUESTS: Final = 500

Domain = Annotated[str, Field(max_length=253, pattern=r"^$|^[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+$")]
Mail = Annotated[str, Field(pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$")]


class OptionsError(Exception):
    """The context is invalid. The message is one line that names the key."""


class Options(BaseModel):
    """One installation. A field's description is its line in docs/deploying.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    stack_name: str = Field(
        "Csms", pattern=r"^[A-Za-z][A-Za-z0-9-]{0,99}$", description="Name of the CloudFormation stack."
    )
    table_name: str = Field("csms", pattern=r"^[A-Za-z0-9_.-]{3,255}$", description="Name of the DynamoDB table.")
    web_domain: Domain = Field("", description="Domain for drivers and operators, instead of CloudFront's own.")
    ocpp_domain: Domain = Field("", description="Domain for stations, instead of CloudFront's own.")
    certificate_arn: str = Field(
        "",
        pattern=r"^$|^arn:aws[a-z-]*:acm:us-east-1:\d{12}:certificate/[\w-]+$",
        description="The certificate for those domains; CloudFront takes only one of us-east-1.",
    )
    hosted_zone_id: str = Field(
        "", pattern=r"^[A-Z0-9]*$", description="Route 53 zone in which those domains are entered."
    )
    alarm_mail: Mail = Field(
        "", description="Address for alarm mails, which AWS asks to confirm; without it there are no alarms."
    )
    dashboard: bool = Field(False, description="A CloudWatch dashboard; the first three of an account are free.")
    log_days: int = Field(30, description="How long logs are kept, in days.")
    tracing: bool = Field(False, description="X-Ray traces of every function.")
    message_rate: int = Field(1000, ge=1, description="Frames a second from all stations together; more are refused.")
    message_burst: int = Field(2000, ge=1, description="Frames at once.")
    request_rate: int = Field(100, ge=1, description="HTTP requests a second from everybody together; more get 429.")
    request_burst: int = Field(200, ge=1, description="HTTP requests at once.")
    message_concurrency: int = Field(
        0,
        ge=0,
        description="Lambda concurrency kept for stations' frames, out of reach of HTTP requests; 0 keeps none.",
    )
    web_requests: int = Field(
        0,
        ge=0,
        description=f"WAF: HTTP requests an address may make in 5 minutes, {LEAST_WEB_REQUESTS} or more; 0 is no WAF.",
    )
    ocpp_requests: int = Field(
        0,
        ge=0,
        description=f"WAF: connections an address may open in 5 minutes, {LEAST_OCPP_REQUESTS} or more; 0 is no WAF.",
    )
    origin_secret: int = Field(
        1, ge=1, description="Number of the origin secret; one more than before replaces it, and loses no request."
    )
    mail_identity: str = Field("", description="A domain or address for SES to verify as a sender of this account.")
    mail_from: Mail = Field("", description="Sender of operators' invitations, once SES has verified the identity.")
    stripe_event_source: str = Field(
        "",
        pattern=r"^$|^aws\.partner/stripe\.com/[\w.-]+$",
        description="Stripe's partner event source, whose events then need no webhook.",
    )
    settings: Mapping[str, str] = Field(default_factory=dict, exclude=True)

    @classmethod
    def load(cls, context: Mapping[str, Any]) -> Self:
        """The options in a CDK context. Raises OptionsError for an invalid value, or for an unknown key with our
        prefix."""
        given = {key.removeprefix(PREFIX): value for key, value in context.items() if key.startswith(PREFIX)}
        settings = {name: _text(given.pop(name)) for name in SETTABLE if name in given}
        if "settings" in given:
            raise OptionsError(f"{PREFIX}settings: there is no such option")
        try:
            find_provider(Settings.load({"TABLE_NAME": "any", **settings}).payment_provider)
            return cls.model_validate({**given, "settings": settings})
        except BadRequest as invalid:
            raise OptionsError(invalid.message.replace("Setting ", PREFIX, 1)) from None
        except ValidationError as invalid:
            raise OptionsError(_format_error(invalid)) from None

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        for broken, complaint in RULES:
            if broken(self):
                raise ValueError(complaint)
        return self

    @property
    def has_waf(self) -> bool:
        """Whether a web ACL protects one of the two distributions."""
        return bool(self.web_requests or self.ocpp_requests)


# Checks between options: when each is violated, and its message.
RULES: Final[tuple[tuple[Callable[[Options], bool], str], ...]] = (
    (lambda it: it.log_days not in LOG_DAYS, f"csms:logDays: must be one of {', '.join(map(str, LOG_DAYS))}"),
    (
        lambda it: 0 < it.web_requests < LEAST_WEB_REQUESTS,
        f"csms:webRequests: must be 0, or at least {LEAST_WEB_REQUESTS}: a carrier's drivers share an address",
    ),
    (
        lambda it: 0 < it.ocpp_requests < LEAST_OCPP_REQUESTS,
        f"csms:ocppRequests: must be 0, or at least {LEAST_OCPP_REQUESTS}: a site's stations share an address",
    ),
    (
        lambda it: bool(it.web_domain or it.ocpp_domain) != bool(it.certificate_arn),
        "csms:certificateArn: goes with csms:webDomain or csms:ocppDomain",
    ),
    (
        lambda it: bool(it.hosted_zone_id) and not (it.web_domain or it.ocpp_domain),
        "csms:hostedZoneId: goes with csms:webDomain or csms:ocppDomain",
    ),
    (
        lambda it: bool(it.web_domain) and it.web_domain == it.ocpp_domain,
        "csms:ocppDomain: must differ from csms:webDomain, they are two distributions",
    ),
    (
        lambda it: bool(it.mail_from) and it.mail_identity not in (it.mail_from, it.mail_from.partition("@")[2]),
        "csms:mailFrom: must be an address of csms:mailIdentity",
    ),
)


def _text(value: Any) -> str:
    """A context value as environment text: cdk.json may have the boolean true, the command line "true"."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _format_error(invalid: ValidationError) -> str:
    first = invalid.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such option"
    return f"{PREFIX}{first['loc'][0]}: {message}" if first["loc"] else message
