"""The operations of memory steps as other parts see them: targets, schemas of input and output, effect class, inverse.

The schemas are JSON Schema over the value's JSON form (`aios_core.json_values`). What is checked beyond them, such as
how a key may look, `requests.py` says.
"""

from dataclasses import dataclass
from typing import Any, Final

from aios_memory.model import MAX_KEY_CHARS, MAX_SOURCES
from aios_memory.requests import MAX_LIST, MAX_NOTE_CHARS, MAX_READS, MAX_WRITES

READ: Final = "memory.read"
WRITE: Final = "memory.write"

_KIND: Final = {"enum": ["entity", "fact", "document"]}
_KEY: Final = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS}
_VERSION: Final = {"type": "integer", "minimum": 1}
_AUTHORITY: Final = {"enum": ["authoritative", "heuristic"]}
_CONFIDENCE: Final = {"type": ["string", "number"], "description": "0 to 1, in thousandths"}


@dataclass(frozen=True, slots=True)
class Operation:
    """`effect` is read, reversible, compensable or irreversible; `inverse` says how it is taken back."""

    target: str
    effect: str
    summary: str
    input: dict[str, Any]
    output: dict[str, Any]
    inverse: str = ""
    needs_approval: bool = False


_RECORD: Final[dict[str, Any]] = {
    "type": "object",
    "required": [
        "key",
        "version",
        "reference",
        "value",
        "authority",
        "confidence",
        "schema",
        "created",
        "run",
        "actor",
    ],
    "properties": {
        "key": _KEY,
        "version": _VERSION,
        "reference": {"type": "string", "description": "names this version as a source: kind:key@version"},
        "value": {},
        "authority": _AUTHORITY,
        "confidence": _CONFIDENCE,
        "schema": {"type": "string"},
        "created": {"type": "string", "format": "date-time"},
        "run": {"type": "string"},
        "actor": {"type": "string"},
    },
}

_READ_INPUT: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reads"],
    "properties": {
        "reads": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_READS,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "kind"],
                "oneOf": [{"required": ["key"]}, {"required": ["prefix"]}],
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"},
                    "kind": _KIND,
                    "key": _KEY,
                    "prefix": {"type": "string", "maxLength": MAX_KEY_CHARS},
                    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIST},
                    "take": {"enum": ["first", "last"]},
                    "before": {"type": "string", "description": "only keys before this one"},
                    "as_of": {"type": "string", "format": "date-time", "description": "what was known then"},
                },
            },
        }
    },
}

_WRITE_INPUT: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["writes"],
    "properties": {
        "event_id": {"type": "string", "description": "the external event behind it"},
        "writes": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_WRITES,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["kind", "key", "expect"],
                "oneOf": [{"required": ["value"]}, {"required": ["delete"]}],
                "properties": {
                    "kind": _KIND,
                    "key": _KEY,
                    "value": {},
                    "delete": {"const": True},
                    "expect": {"anyOf": [{"enum": ["any", "absent"]}, {"type": "integer", "minimum": 0}]},
                    "authority": _AUTHORITY,
                    "confidence": _CONFIDENCE,
                    "schema": {"type": "string", "maxLength": 80},
                    "sources": {"type": "array", "maxItems": MAX_SOURCES, "items": {"type": "string"}},
                    "actor": {"type": "string", "description": "one of the origins of what is written"},
                    "note": {
                        "type": "string",
                        "description": f"shown to people; cut at {MAX_NOTE_CHARS} characters",
                    },
                },
            },
        },
    },
}

_WRITE_OUTPUT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["versions"],
    "properties": {
        "versions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kind", "key", "version", "reference"],
                "properties": {
                    "kind": _KIND,
                    "key": _KEY,
                    "version": _VERSION,
                    "reference": {"type": "string"},
                },
            },
        }
    },
}

OPERATIONS: Final[dict[str, Operation]] = {
    operation.target: operation
    for operation in (
        Operation(
            target=READ,
            effect="read",
            summary="Exact retrieval: each named read gives a record (or null), or a list of records by prefix.",
            input=_READ_INPUT,
            output={
                "type": "object",
                "additionalProperties": {
                    "anyOf": [{"type": "null"}, _RECORD, {"type": "array", "items": _RECORD}]
                },
            },
        ),
        Operation(
            target=WRITE,
            effect="reversible",
            summary="Write new versions of records, each only over the version that was read.",
            input=_WRITE_INPUT,
            output=_WRITE_OUTPUT,
            inverse="a new version that restores what stood before, while nobody has changed or used it since",
        ),
    )
}
