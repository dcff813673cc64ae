"""The parameters of the calls: nested form bodies decoded, and read with tables of the known parameters."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from stand_ins.stripe.records import StripeError

_KEY: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_DEEPEST: Final = 6

Reader = Callable[[str, str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The parameters of a call or a nested hash; unknown ones are refused.

    `removed` are parameters of earlier API versions, each with the code that Stripe refuses it with.
    """

    known: Mapping[str, "Reader | Fields | ListOf"]
    required: tuple[str, ...] = ()
    removed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    item: "Reader | Fields"


def decode_form(text: str) -> dict[str, Any]:
    """The nested hash of a form body: `a[b][0]=c` is {"a": {"b": {"0": "c"}}}, and `a[]=c` takes the next index."""
    nested: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        match = _KEY.fullmatch(name)
        keys = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])] if match else []
        if not 0 < len(keys) <= _DEEPEST:
            raise StripeError(f"Invalid parameter name: {name}", code="parameter_unknown", param=name)
        level = nested
        for key in keys[:-1]:
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                raise StripeError(f"Invalid {keys[0]}: both a value and a hash.", param=keys[0])
        level[keys[-1] or str(len(level))] = value
    return nested


def read(schema: Reader | Fields | ListOf, value: Any, name: str = "") -> Any:
    """The value as its schema reads it. Names in errors are spelled as in the form (`line_items[0][quantity]`)."""
    match schema:
        case Fields():
            if not isinstance(value, dict):
                raise StripeError(f"Invalid {name}: must be a hash.", code="parameter_invalid_hash", param=name)
            for key in value:
                inner = _nested_name(name, key)
                if key in schema.removed:
                    raise StripeError(
                        f"{inner} is no longer supported on this API version.", code=schema.removed[key], param=inner
                    )
                if key not in schema.known:
                    raise StripeError(f"Received unknown parameter: {inner}", code="parameter_unknown", param=inner)
            for key in schema.required:
                if key not in value:
                    inner = _nested_name(name, key)
                    raise StripeError(f"Missing required param: {inner}.", code="parameter_missing", param=inner)
            return {key: read(schema.known[key], inner, _nested_name(name, key)) for key, inner in value.items()}
        case ListOf():
            if not isinstance(value, dict) or not all(index.isdecimal() for index in value):
                raise StripeError(f"Invalid {name}: must be an array.", param=name)
            return [read(schema.item, value[index], _nested_name(name, index)) for index in sorted(value, key=int)]
    if not isinstance(value, str):
        raise StripeError(f"Invalid string: {name}", param=name)
    if value == "":
        raise StripeError(f"You passed an empty string for '{name}'.", code="parameter_invalid_empty", param=name)
    return schema(value, name)


def text(longest: int) -> Reader:
    def reader(value: str, name: str) -> str:
        if len(value) > longest:
            raise StripeError(f"Invalid string: must be at most {longest} characters", param=name)
        return value

    return reader


def integer(least: int, most: int = 99_999_999) -> Reader:
    def reader(value: str, name: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,15}", value):
            raise StripeError(f"Invalid integer: {value}", code="parameter_invalid_integer", param=name)
        if not least <= int(value) <= most:
            raise StripeError(
                f"This value must be between {least} and {most}.", code="parameter_invalid_integer", param=name
            )
        return int(value)

    return reader


@dataclass(frozen=True, slots=True)
class Choice:
    """Reads one of the allowed words."""

    allowed: tuple[str, ...]

    def __call__(self, value: str, name: str) -> str:
        if value not in self.allowed:
            raise StripeError(f"Invalid {name}: must be one of {', '.join(self.allowed)}", param=name)
        return value


def choice(*allowed: str) -> Choice:
    return Choice(allowed)


def currency(value: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{3}", value):
        raise StripeError(f"Invalid currency: {value}", param=name)
    return value.lower()


def email(value: str, name: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
        raise StripeError(f"Invalid email address: {value}", code="email_invalid", param=name)
    return value


def web_address(value: str, name: str) -> str:
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.netloc or re.search(r"[\s\x00-\x1f]", value):
        raise StripeError("Not a valid URL", code="url_invalid", param=name)
    return value


class AnyKey(dict[str, Reader]):
    """Fields with names of the caller's choice, such as those of metadata."""

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and 0 < len(key) <= 40

    def __missing__(self, key: str) -> Reader:
        return text(500)


METADATA: Final = Fields(known=AnyKey())
EXPAND: Final = ListOf(item=text(200))
# https://docs.stripe.com/changelog/endive/2026-09-30/removes-the-payment-method-types-parameter-from-payment-intents-and-setup-intents
# For Checkout Sessions, Stripe documents the removal but not the code.
_REMOVED: Final = {"payment_method_types": "payment_method_types_no_longer_supported"}

SESSION_CREATE: Final = Fields(
    known={
        "mode": choice("payment"),
        "line_items": ListOf(
            item=Fields(
                known={
                    "quantity": integer(1, 999_999),
                    "price_data": Fields(
                        known={
                            "currency": currency,
                            "unit_amount": integer(0),
                            "product_data": Fields(
                                known={"name": text(1500), "description": text(1500)}, required=("name",)
                            ),
                        },
                        required=("currency", "product_data", "unit_amount"),
                    ),
                },
                required=("price_data", "quantity"),
            )
        ),
        "payment_intent_data": Fields(
            known={
                "capture_method": choice("manual", "automatic", "automatic_async"),
                "metadata": METADATA,
                "description": text(1000),
            }
        ),
        "allowed_payment_method_types": ListOf(item=choice("card")),
        "adaptive_pricing": Fields(known={"enabled": choice("true", "false")}),
        "metadata": METADATA,
        "client_reference_id": text(200),
        "customer_email": email,
        "success_url": web_address,
        "cancel_url": web_address,
        "expires_at": integer(0, 99_999_999_999),
        "locale": text(10),
        "submit_type": choice("auto", "book", "donate", "pay"),
        "custom_text": Fields(known={"submit": Fields(known={"message": text(1200)}, required=("message",))}),
        "expand": EXPAND,
    },
    required=("mode", "line_items", "success_url"),
    removed=_REMOVED,
)
ONLY_EXPAND: Final = Fields(known={"expand": EXPAND})
INTENT_CREATE: Final = Fields(
    known={
        "amount": integer(1),
        "currency": currency,
        "capture_method": choice("manual", "automatic", "automatic_async"),
        "confirm": choice("true"),
        "payment_method": text(255),
        "allowed_payment_method_types": ListOf(item=choice("card")),
        "metadata": METADATA,
        "description": text(1000),
        "expand": EXPAND,
    },
    # An unconfirmed intent could never be paid here; without the filter, Stripe requires a return_url to confirm.
    required=("amount", "currency", "confirm", "payment_method", "allowed_payment_method_types"),
    removed=_REMOVED,
)
INTENT_CAPTURE: Final = Fields(known={"amount_to_capture": integer(1), "expand": EXPAND})
INTENT_CANCEL: Final = Fields(
    known={
        "cancellation_reason": choice("duplicate", "fraudulent", "requested_by_customer", "abandoned"),
        "expand": EXPAND,
    }
)
_SECONDS: Final = integer(0, 99_999_999_999)
INTENT_LIST: Final = Fields(
    known={
        "limit": integer(1, 100),
        "starting_after": text(255),
        "created": Fields(known={"gt": _SECONDS, "gte": _SECONDS, "lt": _SECONDS, "lte": _SECONDS}),
        "expand": EXPAND,
    }
)
REFUND_CREATE: Final = Fields(
    known={
        "payment_intent": text(255),
        "charge": text(255),
        "amount": integer(1),
        "reason": choice("duplicate", "fraudulent", "requested_by_customer"),
        "metadata": METADATA,
        "expand": EXPAND,
    }
)


def _nested_name(name: str, key: str) -> str:
    return f"{name}[{key}]" if name else key
