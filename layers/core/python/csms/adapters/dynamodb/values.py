"""Attribute values: plain Python values in DynamoDB's form, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from csms.adapters.dynamodb.upgrades import Item

Key = tuple[str, str]
LONGEST_NUMBER: Final = 10**38
"""The limit for an integer: DynamoDB's numbers have 38 digits."""

_TO_DYNAMODB: Final = TypeSerializer()
_FROM_DYNAMODB: Final = TypeDeserializer()


def serialize_key(key: Key) -> Item:
    return serialize({"PK": key[0], "SK": key[1]})


def serialize(plain: Item) -> Item:
    """The attributes in DynamoDB's form."""
    return {name: _serialize_value(value) for name, value in plain.items()}


def deserialize(typed: Item) -> Item:
    """The attributes as plain values."""
    return {name: _deserialize_value(value) for name, value in typed.items()}


# Both do what boto3.dynamodb.types does, and a test compares them. Its many type checks took a third of the CPU time of
# a message; rare types are left to it.


def _serialize_value(value: Any) -> Item:
    kind = type(value)
    if kind is str:
        return {"S": value}
    if value is None:
        return {"NULL": True}
    if kind is bool:
        return {"BOOL": value}
    if kind is int and -LONGEST_NUMBER < value < LONGEST_NUMBER:
        return {"N": str(value)}
    if kind is dict:
        return {"M": {name: _serialize_value(inner) for name, inner in value.items()}}
    if kind is list:
        return {"L": [_serialize_value(inner) for inner in value]}
    other: Item = _TO_DYNAMODB.serialize(value)
    return other


def _deserialize_value(value: Item) -> Any:
    ((kind, inner),) = value.items()
    if kind in {"S", "BOOL"}:
        return inner
    if kind == "NULL":
        return None
    if kind == "M":
        return {name: _deserialize_value(part) for name, part in inner.items()}
    if kind == "L":
        return [_deserialize_value(part) for part in inner]
    return _FROM_DYNAMODB.deserialize(value)


def format_sortable_time(at: datetime) -> str:
    """The time as text of fixed width, so that texts sort as the times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
