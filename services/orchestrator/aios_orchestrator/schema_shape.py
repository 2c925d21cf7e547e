"""What a JSON Schema in a document may say: the common words are checked, so that a wrong one is told as such."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_core.json_values import from_json, to_json
from aios_core.wording import kind_of
from aios_orchestrator.shapes import Check
from aios_runtime.schemas import Schema

TYPES: Final = ("string", "integer", "number", "boolean", "array", "object", "null")
_SCHEMAS: Final = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_NAMED: Final = ("properties", "patternProperties", "$defs")
_LISTED: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_COUNTS: Final = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_OTHER: Final = (
    "type", "required", "enum", "const", "default", "description", "title", "pattern", "format", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems", "examples", "$ref", "$schema", "$id",
    "$comment", "$anchor", "deprecated", "readOnly", "writeOnly", "dependentRequired", "dependentSchemas",
    "unevaluatedProperties", "unevaluatedItems", "minContains", "maxContains", "contentEncoding", "contentMediaType",
)  # fmt: skip
WORDS: Final = (*_SCHEMAS, *_NAMED, *_LISTED, *_COUNTS, *_OTHER)
_RANGES: Final = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minimum", "maximum"))
_EMPTY: Final = {"type": "object"}


@dataclass(frozen=True)
class JsonSchema:
    """A JSON Schema; of `top`, a map's, with the names that it lists among its properties."""

    top: bool = False

    def check(self, check: Check, path: str, data: Any) -> Any:
        before = len(check.problems.errors)
        if not isinstance(data, dict):
            check.say(
                path, f"must be a JSON Schema, such as {{type: object, properties: …}}, not {kind_of(data)}."
            )
            return dict(_EMPTY)
        if self.top and data.get("type") != "object":
            if "type" in data:
                check.say(f"{path}.type", f"must be 'object', not {kind_of(data['type'])}.")
            else:
                check.say(path, "must say type: object.")
            return dict(_EMPTY)
        if self.top and data.get("required") and not data.get("properties"):
            check.say(f"{path}.required", "names what there are no properties for.")
        _look(check, path, data)
        if len(check.problems.errors) > before:
            return dict(_EMPTY)
        try:
            Schema(to_json(from_json(data)))
        except (ValueError, TypeError, TerminalError) as error:
            check.say(path, f"is not a JSON Schema: {getattr(error, 'message', error)}.".replace("..", "."))
            return dict(_EMPTY)
        _defaults(check, path, data)
        return data

    def schema(self) -> dict[str, Any]:
        inner = {"$ref": "#/$defs/jsonSchema"}
        return (
            {"allOf": [inner], "required": ["type"], "properties": {"type": {"const": "object"}}}
            if self.top
            else inner
        )


def definition() -> dict[str, Any]:
    """The schema of a schema, as far as documents are checked: `#/$defs/jsonSchema`."""
    one: dict[str, Any] = {"$ref": "#/$defs/jsonSchema"}
    kinds = {"enum": list(TYPES)}
    return {
        "type": ["object", "boolean"],
        "properties": {
            **dict.fromkeys(_SCHEMAS, one),
            **{word: {"type": "object", "additionalProperties": one} for word in _NAMED},
            **{word: {"type": "array", "items": one, "minItems": 1} for word in _LISTED},
            **{word: {"type": "integer", "minimum": 0} for word in _COUNTS},
            "type": {"anyOf": [kinds, {"type": "array", "items": kinds, "minItems": 1}]},
            "required": {"type": "array", "items": {"type": "string"}},
            "enum": {"type": "array", "minItems": 1},
            "description": {"type": "string"},
            "title": {"type": "string"},
            "pattern": {"type": "string"},
            **{word: {"type": "integer"} for word in ("minimum", "maximum")},
        },
    }


def _look(check: Check, path: str, data: Any) -> None:
    """Say what is wrong with a schema and those inside it."""
    if isinstance(data, bool):
        return
    if not isinstance(data, dict):
        check.say(path, f"must be a JSON Schema, such as {{type: string}}, not {kind_of(data)}.")
        return
    for word, item in data.items():
        inner = f"{path}.{word}"
        if word in _SCHEMAS:
            _look(check, inner, item)
        elif word in _NAMED:
            if isinstance(item, dict):
                for name, each in item.items():
                    _look(check, f"{inner}.{name}", each)
            else:
                check.say(inner, f"must be a map from names to JSON Schemas, not {kind_of(item)}.")
        elif word in _LISTED:
            if isinstance(item, list) and item:
                for at, each in enumerate(item):
                    _look(check, f"{inner}[{at}]", each)
            else:
                check.say(inner, f"must be a list of JSON Schemas, not {kind_of(item)}.")
        elif word not in WORDS:
            near = difflib.get_close_matches(str(word), WORDS, n=1, cutoff=0.75)
            if near:
                check.say(inner, f"there is no such field; did you mean {near[0]!r}?", "UNKNOWN_FIELD")
        else:
            _word(check, inner, str(word), item)
    _required(check, path, data)
    for least, most in _RANGES:
        if _number(data.get(least)) and _number(data.get(most)) and data[least] > data[most]:
            check.say(
                f"{path}.{least}",
                f"is {data[least]}, more than {most}, which is {data[most]}: nothing is right.",
            )


def _word(check: Check, path: str, word: str, item: Any) -> None:
    if word == "type":
        for name in item if isinstance(item, list) and item else [item]:
            if name not in TYPES:
                near = difflib.get_close_matches(str(name), TYPES, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(TYPES)}."
                check.say(
                    path,
                    f"there is no type {name!r}; {hint}"
                    if isinstance(name, str)
                    else f"must be the name of a type, not {kind_of(name)}; there are {', '.join(TYPES)}.",
                )
    elif word in _COUNTS:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            check.say(path, f"must be a whole number from 0, not {kind_of(item)}.")
    elif word in ("minimum", "maximum"):
        if isinstance(item, bool) or not isinstance(item, int):
            check.say(path, f"must be a whole number, not {kind_of(item)}: a fraction is kept as text.")
    elif word == "enum":
        if not isinstance(item, list) or not item:
            check.say(path, f"must be a list of at least one value, not {kind_of(item)}.")
    elif word in ("description", "title", "pattern", "$ref") and not isinstance(item, str):
        check.say(path, f"must be text, not {kind_of(item)}.")
    elif word == "$ref" and not item.startswith("#"):
        check.say(path, f"may refer to parts of this schema only (#/…), not to {item[:80]}.")
    elif word == "pattern":
        try:
            Schema({"pattern": item})
        except ValueError:
            check.say(path, f"{item[:80]!r} is not a regular expression.")


def _number(data: Any) -> bool:
    return isinstance(data, int) and not isinstance(data, bool)


def _required(check: Check, path: str, data: Mapping[str, Any]) -> None:
    """What has to be there is among what may be there."""
    names = data.get("required", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        check.say(f"{path}.required", f"must be a list of names, not {kind_of(names)}.")
        return
    known = data.get("properties", {})
    if not isinstance(known, dict) or not known:
        return
    for at, name in enumerate(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"they are: {', '.join(known)}."
            check.say(f"{path}.required[{at}]", f"{name!r} is none of the properties; {hint}")


def _defaults(check: Check, path: str, data: Any) -> None:
    """A default is as its own schema says."""
    if not isinstance(data, dict):
        return
    if "default" in data and not any("$ref" in str(word) for word in data):
        found = Schema(to_json(from_json({n: i for n, i in data.items() if n != "default"}))).problem(
            to_json(from_json(data["default"]))
        )
        if found is not None:
            check.say(f"{path}.default", f"breaks its own schema: {found[1]}.")
    properties = data.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        _defaults(check, f"{path}.properties.{name}", inner)
