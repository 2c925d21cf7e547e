"""Inputs of a run from the command line: text, made into what the workflow's schema says. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from aios.value.v1.value_pb2 import Value
from aios_core import json_values
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import Plain, labeled


def read(pairs: Sequence[str], document: str | None, schema: Mapping[str, Any]) -> Value:
    """The input value: the JSON object `document`, over which `key=text` pairs go, each typed by its property.

    Raises INVALID_ARGUMENT that names the input.
    """
    data: dict[str, Plain] = {}
    if document is not None:
        loaded = json_values.loads(document)
        if not isinstance(loaded, Mapping):
            raise TerminalError("INVALID_ARGUMENT", "--input-json must be a JSON object.", field="input-json")
        data.update(loaded)
    properties = schema.get("properties", {})
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise TerminalError("INVALID_ARGUMENT", f"--input {pair!r} must be key=value.", field="input")
        data[key] = typed(key, text, properties.get(key, {}))
    return to_value(data)


def to_value(data: Plain) -> Value:
    """Plain data as the API takes it. What it is trusted for is the server's to say."""
    return Value.FromString(encode(labeled(data, OWNER)))


def typed(key: str, text: str, schema: Mapping[str, Any]) -> Plain:
    """The text as its schema's type; text is what everything is without one."""
    kinds = schema.get("type", "string")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind == "string":
            return text
        if kind == "null" and text == "":
            return None
        if kind in ("integer", "number", "boolean", "array", "object"):
            return _parsed(key, text, kind)
    return text


def _parsed(key: str, text: str, kind: str) -> Plain:
    try:
        if kind == "integer":
            return int(text)
        if kind == "number":
            return int(text) if text.lstrip("-").isdigit() else Decimal(text)
        if kind == "boolean":
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
    except (ValueError, InvalidOperation, KeyError):
        raise TerminalError(
            "INVALID_ARGUMENT", f"--input {key}: {text!r} is not {_A[kind]}.", field=key
        ) from None
    loaded = json_values.loads(text)
    if isinstance(loaded, Mapping) != (kind == "object") or isinstance(loaded, str):
        raise TerminalError("INVALID_ARGUMENT", f"--input {key}: {text!r} is not {_A[kind]}.", field=key)
    return loaded


_A = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a JSON array",
    "object": "a JSON object",
}
