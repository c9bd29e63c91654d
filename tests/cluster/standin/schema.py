"""What a custom resource definition demands of its objects (OpenAPI v3, the part that is used)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "string": str,
}


def prune(schema: Schema, value: Any) -> Any:
    """The value without fields that the schema does not know."""
    if isinstance(value, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        known = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        return {
            key: prune(known.get(key, extra if isinstance(extra, dict) else {}), inner)
            for key, inner in value.items()
            if key in known or extra
        }
    if isinstance(value, list) and "items" in schema:
        return [prune(schema["items"], item) for item in value]
    return value


def undeclared(value: Any, known: Any, path: str = "") -> Iterator[str]:
    """Paths of what `prune` leaves out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in known:
                yield from undeclared(inner, known[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(value, list):
        for place, (inner, left) in enumerate(zip(value, known, strict=True)):
            yield from undeclared(inner, left, f"{path}[{place}]")


def faults(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """What is wrong, each with its path."""
    wanted = schema.get("type")
    if wanted and (
        not isinstance(value, _TYPES[wanted]) or isinstance(value, bool) != (wanted == "boolean")
    ):
        yield f"{path}: Invalid value: must be of type {wanted}"
        return
    if isinstance(value, str):
        yield from _of_string(schema, value, path)
    elif isinstance(value, list):
        yield from _of_length(schema, "Items", value, path)
        for place, item in enumerate(value):
            yield from faults(schema.get("items", {}), item, f"{path}[{place}]")
    elif isinstance(value, dict):
        yield from _of_object(schema, value, path)


def _of_string(schema: Schema, value: str, path: str) -> Iterator[str]:
    yield from _of_length(schema, "Length", value, path)
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: Invalid value: {value!r}: should match '{schema['pattern']}'"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: Unsupported value: {value!r}"


def _of_length(schema: Schema, what: str, value: str | list[Any], path: str) -> Iterator[str]:
    if len(value) > schema.get(f"max{what}", len(value)):
        yield f"{path}: Too many or too long: must have at most {schema[f'max{what}']}"
    if len(value) < schema.get(f"min{what}", 0):
        yield f"{path}: Invalid value: must have at least {schema[f'min{what}']}"


def _of_object(schema: Schema, value: dict[str, Any], path: str) -> Iterator[str]:
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{path}.{key}: Required value"
    for key, inner in schema.get("properties", {}).items():
        if key in value:
            yield from faults(inner, value[key], f"{path}.{key}".lstrip("."))
