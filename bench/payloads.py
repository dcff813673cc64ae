"""The smallest payloads that a version's schemas allow, for counting actions."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

from csms.ocpp.schemas import SchemaSet

WHEN: Final = "2026-01-01T12:00:00.000Z"

Json = dict[str, Any]


def minimal_payload(schemas: SchemaSet, action: str) -> Json:
    """A payload with only the members that the action's schema requires."""
    file = files("ocpp").joinpath(schemas.folder, schemas.request_name.format(action))
    schema: Json = json.loads(file.read_text("utf-8-sig"))
    payload: Json = _minimal_value(schema, schema)
    return payload


def _minimal_value(schema: Json, root: Json) -> Any:
    if "$ref" in schema:
        return _minimal_value(root["definitions"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: _minimal_value(schema["properties"][name], root) for name in schema.get("required", ())}
        case "array":
            return [_minimal_value(schema["items"], root) for _ in range(schema.get("minItems", 0))]
        case "integer" | "number":
            return 1
        case "boolean":
            return False
        case _:
            return WHEN if schema.get("format") == "date-time" else "1"
