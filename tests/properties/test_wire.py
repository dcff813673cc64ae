"""Properties of the wire format: decoding never raises, encoding is its inverse, a text that is no strict JSON is read
as what it obviously means, exactly the deviations of F45 are tolerated, and what is unusable is dropped where it is
expendable."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import floor
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft4Validator

from csms.model import Protocol
from csms.ocpp.framing import Call, CallError, CallResult, ErrorCode, Ignored, Malformed, Message
from csms.ocpp.mending import Mended, find_mends
from csms.ocpp.schemas import Accepted, InvalidMessage, Violation
from tests.versions import ACTIONS, SCHEMAS, accept, check, decode, encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(SCALARS, lambda children: st.lists(children) | st.dictionaries(st.text(), children), max_leaves=10)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)
IDS = st.text(min_size=1, max_size=40)
PROTOCOLS = st.sampled_from(Protocol)
MESSAGES: st.SearchStrategy[Message] = (
    st.builds(Call, IDS, st.text(), OBJECTS)
    | st.builds(CallResult, IDS, OBJECTS)
    | st.builds(CallError, IDS, st.text(), st.text(), OBJECTS)
)


# Framing


@given(message=MESSAGES, protocol=PROTOCOLS)
def test_encoded_message_decodes_to_itself(message: Message, protocol: Protocol) -> None:
    assert message == decode(encode(message, protocol), protocol)


@given(frame=st.binary() | st.text(st.characters()) | JSON.map(orjson.dumps), protocol=PROTOCOLS)
def test_decoding_is_total_on_arbitrary_input(frame: bytes | str, protocol: Protocol) -> None:
    assert_lawful(frame, decode(frame, protocol), protocol)


@given(data=st.data(), message=MESSAGES, protocol=PROTOCOLS)
def test_decoding_is_total_on_altered_elements(data: st.DataObject, message: Message, protocol: Protocol) -> None:
    elements: list[Any] = orjson.loads(encode(message, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(elements)))
        alien = data.draw(JSON | st.integers(1, 6) | st.integers(20, 1500).map(nested_json))
        elements[place : place + data.draw(st.integers(0, 1))] = data.draw(st.sampled_from([[], [alien]]))
    frame = "[" + ",".join(e if isinstance(e, Nested) else orjson.dumps(e).decode() for e in elements) + "]"

    assert_lawful(frame, decode(frame, protocol), protocol)


@given(data=st.data(), message=MESSAGES, protocol=PROTOCOLS)
def test_decoding_is_total_on_altered_bytes(data: st.DataObject, message: Message, protocol: Protocol) -> None:
    frame = bytearray(encode(message, protocol).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(frame)))
        frame[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))

    assert_lawful(bytes(frame), decode(bytes(frame), protocol), protocol)


class Nested(str):
    """JSON text of a deep value, which orjson itself would not write."""

    __slots__ = ()


def nested_json(levels: int) -> Nested:
    return Nested('{"a":' * levels + "[]" + "}" * levels)


def assert_lawful(frame: bytes | str, answer: object, protocol: Protocol) -> None:
    match answer:
        case Call() | CallResult() | CallError():
            assert answer == decode(encode(answer, protocol), protocol)
        case Malformed(unique_id, code, description):
            refusal = CallError(unique_id, code, description)
            assert (unique_id == "-1") <= (protocol is Protocol.OCPP201 or '"-1"' in str(frame))
            assert unique_id == getattr(decode(encode(refusal, protocol), protocol), "unique_id", None)
        case _:
            assert isinstance(answer, Ignored)


# Mending

LOOKALIKES = st.text('",[]{}:\\+-.01eNan \t\n\x01\x1f\ufeff\ufffdud8ä') | st.from_regex(r"0[0-9]{1,5}", fullmatch=True)
CONFUSING_JSON = st.recursive(
    SCALARS | LOOKALIKES,
    lambda children: st.lists(children) | st.dictionaries(LOOKALIKES, children),
    max_leaves=10,
)
CONFUSING_OBJECTS = st.dictionaries(LOOKALIKES, CONFUSING_JSON, max_size=5)
CONFUSING_MESSAGES: st.SearchStrategy[Message] = (
    st.builds(Call, IDS, LOOKALIKES, CONFUSING_OBJECTS)
    | st.builds(CallResult, IDS, CONFUSING_OBJECTS)
    | st.builds(CallError, IDS, LOOKALIKES, LOOKALIKES, CONFUSING_OBJECTS)
)
NOT_FINITE = ("NaN", "-Infinity", "+inf", "nan", "1E999", "-1.5e+400", "9" * 400)
PIECES = (
    *("[", "]", "{", "}", ",", ":", '"', "'", "\\", " ", "\n", "\0", "\x01", "\ufeff", "\ud800", "ä"),
    *("\\ud800", "\\udc00", "\\u", "\\n", "01", "+1", "5.", ".5", "1e9", "1E999", "-", "NaN", "null", '"a"', '"a":'),
)


@pytest.mark.note("F45")
@settings(max_examples=200, deadline=None)
@given(message=CONFUSING_MESSAGES, random=st.randoms(use_true_random=False), protocol=PROTOCOLS)
def test_sloppy_text_decodes_to_same_message(message: Message, random: Random, protocol: Protocol) -> None:
    text = write_sloppily(orjson.loads(encode(message, protocol)), random)
    frame = random.choice(["", "", "\ufeff"]) + text + random.choice(["", "", "\0\0", "\n", "]", "}\n", '"', ",", "x"])

    decoded = decode(frame, protocol)

    assert message == decoded
    assert encode(message, protocol) == encode(decoded, protocol)
    if isinstance(decoded, Call):
        assert is_strict(frame) == (not decoded.mends)


@given(value=CONFUSING_JSON, indent=st.none() | st.just(2))
def test_strict_json_is_never_mended(value: Any, indent: int | None) -> None:
    for text in (orjson.dumps(value).decode(), json.dumps(value, indent=indent)):
        assert Mended(text, ()) == next(find_mends(text))


@settings(max_examples=300)
@given(
    beginning=st.sampled_from(["", '[2,"1",', '[2,"1","A",{', '[3,"1",', '[4,"1",']),
    pieces=st.lists(st.sampled_from(PIECES)),
    end=st.sampled_from(["", "}]", "]"]),
    protocol=PROTOCOLS,
)
def test_decoding_is_total_on_pieces(beginning: str, pieces: list[str], end: str, protocol: Protocol) -> None:
    frame = beginning + "".join(pieces) + end
    answer = decode(frame, protocol)

    assert_lawful(frame, answer, protocol)
    match beginning[:2]:
        case "[2":
            assert "1" == getattr(answer, "unique_id", None)
        case "[3":
            assert isinstance(answer, CallResult | Ignored)
        case "[4":
            assert isinstance(answer, CallError)


@pytest.mark.note("F38")
@given(data=st.data(), message=MESSAGES, protocol=PROTOCOLS)
def test_truncated_text_is_known_by_id(data: st.DataObject, message: Message, protocol: Protocol) -> None:
    text = encode(message, protocol)
    shortest = len("[2,") + len(orjson.dumps(message.unique_id).decode())
    answer = decode(text[: data.draw(st.integers(shortest, len(text) - 1))], protocol)

    match message:
        case Call(unique_id):
            assert isinstance(answer, Malformed)
            assert (unique_id, ErrorCode.FORMAT_VIOLATION) == (answer.unique_id, answer.code)
        case CallResult():
            assert isinstance(answer, Ignored)
        case CallError(unique_id):
            assert CallError(unique_id, "GenericError") == answer


def write_sloppily(value: Any, random: Random) -> str:
    """JSON text of the value as stations write it; now and then it is no strict JSON."""
    match value:
        case dict():
            members = [f"{write_sloppily_text(k, random)}:{write_sloppily(v, random)}" for k, v in value.items()]
            return "{" + join_sloppily(members, random) + "}"
        case list():
            return "[" + join_sloppily([write_sloppily(element, random) for element in value], random) + "]"
        case str():
            is_id = value.isascii() and value.isdigit() and len(value) > 1 and value.startswith("0")
            return value if is_id and random.random() < 0.5 else write_sloppily_text(value, random)
        case None:
            return random.choice(["null", "null", *NOT_FINITE])
        case bool():
            return "true" if value else "false"
    return random.choice(write_number(orjson.dumps(value).decode()))


def write_number(strict: str) -> list[str]:
    """Ways to write a number of which this is the strict one; one with leading zeros is not read as a whole number."""
    sign, digits = ("-", strict[1:]) if strict.startswith("-") else ("", strict)
    ways = [strict, strict]
    if not sign:
        ways.append(f"+{digits}")
    if sign or not digits.isdigit():
        ways.append(f"{sign}00{digits}")
    if digits.isdigit():
        ways.append(f"{strict}.")
    if digits.startswith("0."):
        ways.append(sign + digits[1:])
    return ways


def write_sloppily_text(value: str, random: Random) -> str:
    surrogate = random.choice(["\\ud800", "\\uDfFf"])  # One kind in a text, because two of them would be a pair.
    written = ""
    for character in value:
        ways = [orjson.dumps(character).decode()[1:-1]]
        if "\0" < character < " ":
            ways.append(character)
        if character == "\ufffd":
            ways.append(surrogate)
        written += random.choice(ways) + random.choice([*[""] * 20, "\0"])
    return f'"{written}"'


def join_sloppily(parts: list[str], random: Random) -> str:
    def space() -> str:
        return random.choice([*[""] * 8, " ", "\n\t", "\x0b", "\0"])

    def surplus() -> str:
        return random.choice([*[""] * 8, ",", ", ,"]) + space()

    return surplus() + f"{space()},{surplus()}".join(part + space() for part in parts) + surplus()


def is_strict(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


# Schemas


@dataclass(frozen=True, slots=True)
class Place:
    """A value of a payload and what the schema says about it."""

    path: tuple[str | int, ...]
    schema: dict[str, Any]
    value: Any
    required: bool
    expendable: bool


@cache
def load_schema(protocol: Protocol, action: str, response: bool) -> dict[str, Any]:
    package = find_spec("ocpp")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder, request = ("v16", "") if protocol is Protocol.OCPP16 else ("v201", "Request")
    name = f"{folder}/schemas/{action}{'Response' if response else request}.json"
    schema: dict[str, Any] = orjson.loads(Path(package.submodule_search_locations[0], name).read_text("utf-8-sig"))
    return schema


@cache
def strict_validator(protocol: Protocol, action: str, response: bool) -> Draft4Validator:
    return Draft4Validator(load_schema(protocol, action, response), validate_formats=False)


def resolve_schema(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    target: dict[str, Any] = root["definitions"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
    return target


def fitting_values(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a schema of the kind that OCPP uses."""
    schema = resolve_schema(schema, root)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            members = {name: fitting_values(member, root) for name, member in schema.get("properties", {}).items()}
            required = {name: member for name, member in members.items() if name in schema.get("required", ())}
            optional = {name: member for name, member in members.items() if name not in required}
            return st.fixed_dictionaries(required, optional=optional)
        case "array":
            return st.lists(fitting_values(schema["items"], root), min_size=schema.get("minItems", 0), max_size=2)
        case "string":
            return st.text("abc", max_size=min(4, schema.get("maxLength", 4)))
        case "integer":
            return st.integers(0, int(schema.get("maximum", 100)))
        case "number":
            return st.integers(0, 1000).map(lambda tenths: tenths / 10)
        case "boolean":
            return st.booleans()
    return JSON


def places(
    schema: dict[str, Any],
    root: dict[str, Any],
    value: Any,
    dispensed: frozenset[str] = frozenset(),
    path: tuple[str | int, ...] = (),
    required: bool = True,
    expendable: bool = False,
) -> Iterator[Place]:
    """Each value of the payload; one is expendable if it, or a part around it, is optional or dispensed with."""
    schema = resolve_schema(schema, root)
    name = "/".join("*" if isinstance(key, int) else key for key in path)
    expendable = expendable or not required or name in dispensed
    yield Place(path, schema, value, required, expendable)
    if isinstance(value, dict):
        for name, member in schema.get("properties", {}).items():
            if name in value:
                needed = name in schema.get("required", ())
                yield from places(member, root, value[name], dispensed, (*path, name), needed, expendable)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from places(schema["items"], root, item, dispensed, (*path, index), True, expendable)


Edit = tuple[Callable[[Place], bool], Callable[[Any], Any]]
REMOVED = object()

# What F45 forgives: where it applies, what the charger sends instead.
SLOPPY: dict[str, Edit] = {
    "unknown member": (
        lambda p: p.schema.get("additionalProperties") is False and "enum" not in p.schema,
        lambda v: v | {"zz": None},
    ),
    "over-long": (lambda p: "maxLength" in p.schema and "enum" not in p.schema, lambda _: "x" * 10_000),
    "unknown value": (lambda p: "enum" in p.schema, lambda _: "NoSuchValue"),
    "text for a number": (lambda p: p.schema.get("type") in {"integer", "number"}, lambda v: f" {v}".replace(".", ",")),
    "float for an integer": (lambda p: p.schema.get("type") == "integer", float),
    "fraction for an integer": (lambda p: p.schema.get("type") == "integer", lambda v: v + 0.5),
    "null": (lambda p: not p.required and "type" in p.schema, lambda _: None),
}
# What it does not, and the code that answers it.
BROKEN: dict[ErrorCode, list[Edit]] = {
    ErrorCode.OCCURRENCE_CONSTRAINT_VIOLATION: [
        (lambda p: p.required and bool(p.path) and isinstance(p.path[-1], str), lambda _: REMOVED),
        (lambda p: p.required and bool(p.path) and isinstance(p.path[-1], str) and "type" in p.schema, lambda _: None),
        (lambda p: p.schema.get("minItems", 0) > 0, lambda _: []),
    ],
    ErrorCode.TYPE_CONSTRAINT_VIOLATION: [
        (lambda p: p.schema.get("type") == "string", lambda _: True),
        (lambda p: p.schema.get("type") == "string" and "enum" in p.schema, lambda _: 12),
        (lambda p: p.schema.get("type") in {"integer", "number", "boolean"}, lambda _: "twelve"),
        (lambda p: p.schema.get("type") in {"integer", "number"}, lambda _: True),
        (lambda p: p.schema.get("type") in {"object", "array"} and bool(p.path), lambda _: "text"),
        (lambda p: bool(p.path) and isinstance(p.path[-1], int), lambda _: None),
    ],
}


def apply_edit(payload: Any, place: Place, change: Callable[[Any], Any]) -> Any:
    value = change(place.value)
    if not place.path:
        return value
    root = copy.deepcopy(payload)
    node = root
    for key in place.path[:-1]:
        node = node[key]
    if value is REMOVED:
        del node[place.path[-1]]
    else:
        node[place.path[-1]] = value
    return root


@st.composite
def requests(draw: st.DrawFn) -> tuple[Protocol, str, bool, Any]:
    protocol = draw(PROTOCOLS)
    action = draw(st.sampled_from(sorted(ACTIONS[protocol])))
    response = draw(st.booleans())
    schema = load_schema(protocol, action, response)
    return protocol, action, response, draw(fitting_values(schema, schema))


@pytest.mark.note("F45")
@settings(max_examples=200, deadline=None)
@given(request=requests())
def test_valid_payload_is_accepted_unchanged(request: tuple[Protocol, str, bool, Any]) -> None:
    protocol, action, response, payload = request
    assert strict_validator(protocol, action, response).is_valid(payload)

    accepted = accept(protocol, action, payload, response=response)

    assert Accepted(payload) == accepted
    check(protocol, action, payload, response=response)


@pytest.mark.note("F45")
@settings(max_examples=300, deadline=None)
@given(data=st.data(), request=requests())
def test_sloppy_payload_is_repaired_and_flagged(data: st.DataObject, request: tuple[Protocol, str, bool, Any]) -> None:
    protocol, action, response, payload = request
    schema = load_schema(protocol, action, response)
    for _ in range(data.draw(st.integers(1, 3))):
        fits = [
            (p, c) for p in places(schema, schema, payload) for when, c in SLOPPY.values() if is_applicable(when, p)
        ]
        if fits:
            payload = apply_edit(payload, *data.draw(st.sampled_from(fits)))
    before = repr(payload)

    accepted = accept(protocol, action, payload, response=response)

    assert before == repr(payload)
    assert isinstance(accepted, Accepted)
    left = {error.kind.name for error in strict_validator(protocol, action, response).iter_errors(accepted.payload)}
    assert left <= {"additionalProperties", "falseSchema", "maxLength", "enum"}
    assert strict_validator(protocol, action, response).is_valid(payload) == (accepted.flags == ())
    assert_same_but_for_repairs(payload, accepted.payload)


@pytest.mark.note("F45")
@settings(max_examples=300, deadline=None)
@given(data=st.data(), request=requests(), code=st.sampled_from(sorted(BROKEN)))
def test_schema_breach_is_refused_or_dropped(
    data: st.DataObject, request: tuple[Protocol, str, bool, Any], code: ErrorCode
) -> None:
    protocol, action, response, payload = request
    schema = load_schema(protocol, action, response)
    dispensed = SCHEMAS[protocol].expendable.get(action, frozenset())
    fits = [
        (p, c) for p in places(schema, schema, payload, dispensed) for when, c in BROKEN[code] if is_applicable(when, p)
    ]
    if not fits:
        return
    place, change = data.draw(st.sampled_from(fits))
    payload = apply_edit(payload, place, change)

    verdict = accept(protocol, action, payload, response=response)

    if place.expendable and not response:
        assert isinstance(verdict, Accepted)
        assert verdict.flags
    else:
        assert isinstance(verdict, Violation)
        assert code == verdict.code


@settings(max_examples=200, deadline=None)
@given(protocol=PROTOCOLS, action=st.sampled_from(sorted(ACTIONS[Protocol.OCPP16])) | st.text(), payload=OBJECTS | JSON)
def test_accept_never_raises_and_check_agrees(protocol: Protocol, action: str, payload: Any) -> None:
    verdict = accept(protocol, action, payload)

    try:
        check(protocol, action, payload, response=False)
    except InvalidMessage:
        assert Accepted(payload) != verdict
    else:
        assert Accepted(payload) == verdict


def is_applicable(when: Callable[[Place], bool], place: Place) -> bool:
    """Whether an edit applies here, to a value that no other edit has changed yet."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}
    return isinstance(place.value, kinds.get(place.schema.get("type", ""), object)) and when(place)


def assert_same_but_for_repairs(sent: Any, accepted: Any) -> None:
    if isinstance(sent, dict):
        assert accepted.keys() <= sent.keys()
        assert all(sent[name] is None for name in sent.keys() - accepted.keys())
        for name, value in accepted.items():
            assert_same_but_for_repairs(sent[name], value)
    elif isinstance(sent, list):
        assert len(sent) == len(accepted)
        for left, right in zip(sent, accepted, strict=True):
            assert_same_but_for_repairs(left, right)
    elif type(sent) is not type(accepted):
        number = float(str(sent).replace(",", "."))
        assert accepted == (floor(number) if isinstance(accepted, int) else number)
    else:
        assert sent == accepted
