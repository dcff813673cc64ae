"""Validation of payloads against the version's JSON schemas: lenient for what stations send, strict for what csms
sends.

The schemas are the files of the `ocpp` package, read on first use without importing its modules, which takes 200 ms. As
in that package, they are read as draft 4, whatever they declare, and formats are not checked, so that a strict check
here agrees with the package's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from jsonschema_rs import Draft4Validator, ValidationError
from jsonschema_rs import ValidationErrorKind as Kind

from csms.errors import CsmsError
from csms.ocpp.framing import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSet:
    """The schemas of one version: its actions, and how the `ocpp` package names their files.

    Only these action names may become part of a file name, because a received action is untrusted text.
    """

    actions: frozenset[str]
    folder: str
    request_name: str
    response_name: str


# Few enough digits for an exact integer of 64 bits; a comma can only be a decimal comma.
_NUMERIC: Final = re.compile(r"\s*[+-]?[0-9]{1,18}([.,][0-9]{1,18})?\s*")
_MAX_EXACT_INTEGER: Final = 2**53
_REMOVED: Final = object()

_Place = tuple[str | int, ...]  # The keys and indexes that lead to a value.


class InvalidMessage(CsmsError):
    """csms was about to send a message that the version's schema does not allow."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A payload to work with; each flag says what was tolerated or repaired, as "path: what"."""

    payload: dict[str, Any]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a payload is rejected, for a CALLERROR; the message quotes nothing that the station sent."""

    code: ErrorCode
    path: str
    message: str


def is_known_action(schemas: SchemaSet, action: str) -> bool:
    """Whether the version has this action; names are case-sensitive."""
    return action in schemas.actions


def accept(schemas: SchemaSet, action: str, payload: dict[str, Any], *, response: bool = False) -> Accepted | Violation:
    """The payload after repairs, or the first reason to reject it. Never raises, and never changes its argument.

    Kept and flagged: additional members, strings that are too long, unknown enum values. Repaired in a copy and
    flagged: a text or float that is the number wanted ("7", "1,5", 7.0), and a null member, which is removed. Anything
    else is a Violation with the code of J 1.6 section 4.2.3. A valid payload is validated once and returned as it is.
    """
    if not is_known_action(schemas, action):
        return Violation(ErrorCode.NOT_IMPLEMENTED, "", "unknown action")
    validator = _validator(schemas, action, response)
    try:
        if validator.is_valid(payload):
            return Accepted(payload)
        return _tolerate(validator, payload)
    except ValueError as error:  # The validator cannot use it; it follows about 250 levels.
        return Violation(ErrorCode.FORMAT_VIOLATION, "", str(error))


def check(schemas: SchemaSet, action: str, payload: dict[str, Any], *, response: bool) -> None:
    """Raise InvalidMessage unless the schema allows the payload exactly as it is."""
    if not is_known_action(schemas, action):
        raise InvalidMessage(f"The action {action!r} does not exist in this OCPP version.")
    try:
        _validator(schemas, action, response).validate(payload)
    except ValidationError as error:
        raise InvalidMessage(f"{action}: {_format_path(tuple(error.instance_path))}: {error.message}") from None
    except ValueError as error:
        raise InvalidMessage(f"{action}: {error}") from None


@cache
def _validator(schemas: SchemaSet, action: str, response: bool) -> Draft4Validator:
    package = find_spec("ocpp")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("The ocpp package, whose schemas csms uses, is not installed.")
    name = (schemas.response_name if response else schemas.request_name).format(action)
    schema = Path(package.submodule_search_locations[0], schemas.folder, name).read_text("utf-8-sig")
    return Draft4Validator(schema, validate_formats=False, mask="the value")


def _tolerate(validator: Draft4Validator, payload: dict[str, Any]) -> Accepted | Violation:
    errors = list(validator.iter_errors(payload))
    repairs = dict(_find_repairs(payload, errors))
    flags = [
        f"{_format_path(place)}: {'null' if value is _REMOVED else f'read as {value}'}"
        for place, value in repairs.items()
    ]
    if repairs:
        payload = _apply_repairs(payload, repairs)
        errors = list(validator.iter_errors(payload))
    for error in errors:
        place = tuple(error.instance_path)
        match error.kind:
            case Kind.AdditionalProperties(unexpected):
                flags += [f"{_format_path((*place, name))}: unknown member" for name in unexpected]
            case Kind.FalseSchema():  # The validator's error for an object that may have no members.
                flags += [f"{_format_path((*place, name))}: unknown member" for name in _find_value(payload, place)]
            case Kind.MaxLength(limit):
                flags.append(f"{_format_path(place)}: longer than {limit} characters")
            case Kind.Enum():  # A value that is no string has a type error too.
                flags.append(f"{_format_path(place)}: unknown value")
            case _:
                return _violation(error, place)
    return Accepted(payload, tuple(flags))


def _find_repairs(payload: dict[str, Any], errors: list[ValidationError]) -> Iterator[tuple[_Place, Any]]:
    """Each place whose value has the wrong type but a clear meaning, with the value that replaces it."""
    for error in errors:
        place = tuple(error.instance_path)
        match error.kind, _find_value(payload, place):
            case Kind.Type(), None if place and isinstance(place[-1], str):
                yield place, _REMOVED
            case Kind.Type(types), str() | float() as value:
                if (number := _parse_number(value, types)) is not None:
                    yield place, number


def _apply_repairs(payload: dict[str, Any], repairs: Mapping[_Place, Any]) -> dict[str, Any]:
    """The payload after the repairs; the parts that no repair changes are shared with the original."""
    root = payload.copy()
    own: set[_Place] = set()
    for place, value in repairs.items():
        node: Any = root
        for depth, key in enumerate(place[:-1], start=1):
            if place[:depth] not in own:
                own.add(place[:depth])
                node[key] = node[key].copy()
            node = node[key]
        if value is _REMOVED:
            del node[place[-1]]
        else:
            node[place[-1]] = value
    return root


def _parse_number(value: str | float, types: list[str]) -> int | float | None:
    if isinstance(value, float):
        return int(value) if "integer" in types and value.is_integer() and abs(value) <= _MAX_EXACT_INTEGER else None
    if not {"integer", "number"}.intersection(types) or not _NUMERIC.fullmatch(value):
        return None
    number = Decimal(value.strip().replace(",", "."))
    if "number" in types:
        return float(number)
    return int(number) if number == number.to_integral_value() else None


def _violation(error: ValidationError, place: _Place) -> Violation:
    match error.kind:
        case Kind.Required(name):
            return Violation(ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION, _format_path((*place, name)), "is required")
        case Kind.MinItems() | Kind.MaxItems():
            code = ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION
        case Kind.Type() if not place:
            code = ErrorCode.FORMAT_VIOLATION
        case Kind.Type():
            code = ErrorCode.TYPE_CONSTRAINT_VIOLATION
        case _:
            code = ErrorCode.PROPERTY_CONSTRAINT_VIOLATION
    return Violation(code, _format_path(place), error.message)


def _find_value(payload: Any, place: _Place) -> Any:
    for key in place:
        payload = payload[key]
    return payload


def _format_path(place: _Place) -> str:
    return "/".join(map(str, place))
