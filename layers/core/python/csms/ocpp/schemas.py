"""Validation of payloads against the version's JSON schemas: lenient for what stations send, strict for what csms
sends.

The schemas are the files of the `ocpp` package, read on first use without importing its modules, which takes 200 ms. As
in that package, they are read as draft 4, whatever they declare, and formats are not checked, so that a strict check
here agrees with the package's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from math import floor, inf
from pathlib import Path
from typing import Any, Final

import orjson
from jsonschema_rs import Draft4Validator, ValidationError
from jsonschema_rs import ValidationErrorKind as Kind

from csms.errors import CsmsError
from csms.ocpp.framing import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSet:
    """The schemas of one version: its actions, and how the `ocpp` package names their files.

    Only these action names may become part of a file name, because a received action is untrusted text. `expendable`
    names, by action, what a request may lack although the schema wants it, as "member/*/member" with * for each element
    of a list.
    """

    actions: frozenset[str]
    folder: str
    request_name: str
    response_name: str
    expendable: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)


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


@dataclass(frozen=True, slots=True)
class _Repair:
    """What replaces a value, or _REMOVED, and the flag that says so; it quotes no text that the station sent."""

    value: Any
    flag: str


def is_known_action(schemas: SchemaSet, action: str) -> bool:
    """Whether the version has this action; names are case-sensitive."""
    return action in schemas.actions


def accept(schemas: SchemaSet, action: str, payload: dict[str, Any], *, response: bool = False) -> Accepted | Violation:
    """The payload after repairs, or the first reason to reject it. Never raises, and never changes its argument.

    Kept and flagged: additional members, strings that are too long, unknown enum values. Repaired in a copy and
    flagged: a text or fraction for an integer ("7", "1,5", 7.0; rounded down), a text for a number, a number for a
    text, an object for a list of one, and a null member, which is removed. In a request, what is still unusable is
    dropped with the smallest part around it that is optional or expendable. Anything else is a Violation with the code
    of J 1.6 section 4.2.3. A valid payload is validated once and returned as it is.
    """
    if not is_known_action(schemas, action):
        return Violation(ErrorCode.NOT_IMPLEMENTED, "", "unknown action")
    validator = _validator(schemas, action, response)
    try:
        if validator.is_valid(payload):
            return Accepted(payload)
        return _tolerate(validator, frozenset() if response else _find_expendable(schemas, action), payload)
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
    return Draft4Validator(_read_schema(schemas, action, response), validate_formats=False, mask="the value")


def _read_schema(schemas: SchemaSet, action: str, response: bool) -> str:
    package = find_spec("ocpp")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("The ocpp package, whose schemas csms uses, is not installed.")
    name = (schemas.response_name if response else schemas.request_name).format(action)
    return Path(package.submodule_search_locations[0], schemas.folder, name).read_text("utf-8-sig")


@cache
def _find_expendable(schemas: SchemaSet, action: str) -> frozenset[str]:
    """The parts that a request may lack: the optional members of the schema, and the expendable parts of the action."""
    root = orjson.loads(_read_schema(schemas, action, response=False))
    return schemas.expendable.get(action, frozenset()).union(_find_optional(root, root, ()))


def _find_optional(schema: Any, root: Any, place: _Place) -> Iterator[str]:
    if "$ref" in schema:
        schema = root["definitions"][schema["$ref"].rpartition("/")[2]]
    for name, member in schema.get("properties", {}).items():
        if name not in schema.get("required", ()):
            yield _format_path((*place, name))
        yield from _find_optional(member, root, (*place, name))
    if "items" in schema:
        yield from _find_optional(schema["items"], root, (*place, "*"))


def _tolerate(validator: Draft4Validator, expendable: frozenset[str], payload: dict[str, Any]) -> Accepted | Violation:
    flags: list[str] = []
    errors = list(validator.iter_errors(payload))
    # A repair can uncover what is wrong inside or around it; each round removes or converts something for good.
    while repairs := dict(_find_repairs(payload, errors, expendable)):
        flags += [f"{_format_path(place)}: {repair.flag}" for place, repair in repairs.items()]
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
            case Kind.Required(name) if _is_expendable((*place, name), expendable):
                flags.append(f"{_format_path((*place, name))}: missing")
            case _:
                return _violation(error, place)
    return Accepted(payload, tuple(flags))


def _find_repairs(
    payload: dict[str, Any], errors: list[ValidationError], expendable: frozenset[str]
) -> Iterator[tuple[_Place, _Repair]]:
    """Each place whose value can be replaced by what it means, or dropped, because it means nothing."""
    enums = {tuple(error.instance_path) for error in errors if isinstance(error.kind, Kind.Enum)}
    for error in errors:
        place = tuple(error.instance_path)
        match error.kind:
            case Kind.AdditionalProperties() | Kind.FalseSchema() | Kind.MaxLength() | Kind.Enum():
                continue
            case Kind.Required(name) if _is_expendable((*place, name), expendable):
                continue
            case Kind.Type(types):
                repair = _convert(_find_value(payload, place), place, types, is_enum=place in enums)
                if repair is not None:
                    yield place, repair
                    continue
        unusable = next((part for part in _enclosing(place) if _is_expendable(part, expendable)), None)
        if unusable is not None:
            yield unusable, _Repair(_REMOVED, "unusable")


def _convert(value: Any, place: _Place, types: list[str], *, is_enum: bool) -> _Repair | None:
    """What a value of the wrong type means, or None if that is not clear."""
    match value:
        case None if place and isinstance(place[-1], str):
            return _Repair(_REMOVED, "null")
        case dict() if "array" in types:
            return _Repair([value], "read as a list of one")
        case bool():
            return None
        case int() | float() if "string" in types and not is_enum and -inf < value < inf:
            return _Repair(str(value), "read as text")
        case str() | float():
            number = _parse_number(value, types)
            return None if number is None else _Repair(number, f"read as {number}")
    return None


def _enclosing(place: _Place) -> Iterator[_Place]:
    """The place and the parts of the payload around it, from the smallest; not the payload itself."""
    return (place[:depth] for depth in range(len(place), 0, -1))


def _is_expendable(place: _Place, expendable: frozenset[str]) -> bool:
    return _format_path(tuple("*" if isinstance(key, int) else key for key in place)) in expendable


def _apply_repairs(payload: dict[str, Any], repairs: Mapping[_Place, _Repair]) -> dict[str, Any]:
    """The payload after the repairs; the parts that no repair changes are shared with the original."""
    root = payload.copy()
    own: set[_Place] = set()
    for place in sorted(repairs, reverse=True):  # A list's last elements first, so that the indexes before them hold.
        node: Any = root
        for depth, key in enumerate(place[:-1], start=1):
            if place[:depth] not in own:
                own.add(place[:depth])
                node[key] = node[key].copy()
            node = node[key]
        if repairs[place].value is _REMOVED:
            del node[place[-1]]
        else:
            node[place[-1]] = repairs[place].value
    return root


def _parse_number(value: str | float, types: list[str]) -> int | float | None:
    """The number in a text, or a number without its fraction; rounded down if an integer is wanted."""
    if isinstance(value, float):
        return floor(value) if "integer" in types and abs(value) <= _MAX_EXACT_INTEGER else None
    if not {"integer", "number"}.intersection(types) or not _NUMERIC.fullmatch(value):
        return None
    number = Decimal(value.strip().replace(",", "."))
    return float(number) if "number" in types else floor(number)


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
