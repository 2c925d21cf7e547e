"""Writes docs/reference.md: every field of every kind of document, from the schemas that `aios schema` prints, with the
examples of docs/examples, which tests run."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.contract import Spec
from aios_orchestrator.definition import KINDS, work_fields
from aios_orchestrator.language import kinds, schema_of
from aios_orchestrator.shapes import DURATION

ROOT: Final = Path(__file__).resolve().parents[3]
EXAMPLES: Final = ROOT / "docs" / "examples"
HEAD: Final = """\
# Reference of documents

Written by `make reference` from the schemas that `aios schema` prints; a test fails when it is out of date. What the
fields mean to a run is told on [the page of the language](language.md). The examples lie in [examples](examples/), and
`aios workflow test docs/examples/tests.yaml` runs them.

A field marked ● has to be there. Where a value may be computed, it may hold [expressions](language.md#expressions).
"""
_TABLE: Final = "\n| field | holds | what it is |\n|---|---|---|\n"


def current() -> str:
    """The page as the schemas and examples of this workspace make it."""
    parts = [HEAD]
    for kind in kinds():
        parts += _kind(kind, schema_of(kind))
    parts += _kind("Agent", schema_of("Agent", Spec.model_json_schema()))
    return "".join(parts)


def _kind(kind: str, schema: Mapping[str, Any]) -> Iterator[str]:
    defs = schema.get("$defs", {})
    yield f"\n## {kind}\n"
    if kind == "Workflow":
        yield "\nWhole ones are among the [samples](samples/).\n"
    elif kind in kinds():
        yield _example(kind.lower())
    yield _TABLE
    spec = schema["properties"].get("spec", schema)
    yield from _rows(_resolved(spec, defs), defs, "")
    if kind != "Workflow":
        return
    step = defs["step"]["properties"]
    common = {name: field for name, field in step.items() if name not in KINDS}
    yield "\n### Every step\n\nIt has exactly one of the kinds below, and those of these fields that its kind has.\n"
    yield _TABLE
    yield from _rows({"properties": common, "required": ["name"]}, defs, "")
    for name in KINDS:
        yield f"\n### {name}\n\n{step[name].get('description', '')}.\n"
        fields = ", ".join(f"`{field}`" for field in work_fields(name))
        yield f"\nIt has {fields} as well.\n" if fields else ""
        yield _example(name)
        rows = list(_inner(step[name], defs, name))
        if rows:
            yield _TABLE
            yield from rows


def _example(name: str) -> str:
    file = EXAMPLES / f"{name}.yaml"
    return f"\n```yaml\n{file.read_text(encoding='utf-8').strip()}\n```\n" if file.is_file() else ""


def _rows(schema: Mapping[str, Any], defs: Mapping[str, Any], home: str) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        mark = " ●" if name in required else ""
        about = str(field.get("description", "")).replace("|", "\\|").replace("\n", " ")
        yield f"| `{home}{name}`{mark} | {_holds(field, defs)} | {about} |\n"
        yield from _inner(field, defs, f"{home}{name}")


def _inner(field: Mapping[str, Any], defs: Mapping[str, Any], name: str) -> Iterator[str]:
    """The fields of a map, or of the items of a list of maps."""
    for one in (field, *field.get("anyOf", ())):
        item = _resolved(one.get("items", {}), defs)
        if _is_step(one) or _is_step(one.get("items", {})):
            continue
        yield from _rows(
            _resolved(one, defs) if "properties" in one or "$ref" in one else {}, defs, f"{name}."
        )
        if "properties" in item:
            yield from _rows(item, defs, f"{name}[].")


def _resolved(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if not name or name in ("step", "jsonSchema"):
        return schema
    found: Mapping[str, Any] = defs[name]
    return found


def _is_step(schema: Mapping[str, Any]) -> bool:
    return str(schema.get("$ref", "")).endswith("/step")


def _holds(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """What a field may hold, in words."""
    ref = str(schema.get("$ref", "")).rpartition("/")[2]
    if ref == "step":
        return "a step"
    if ref == "jsonSchema" or any(
        "jsonSchema" in str(one.get("$ref", "")) for one in schema.get("allOf", ())
    ):
        return "a JSON Schema"
    if ref:
        return _holds(defs[ref], defs)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "anyOf" in schema:
        words = dict.fromkeys(_holds(one, defs) for one in schema["anyOf"])
        return "an amount in US dollars" if list(words) == ["text", "a number"] else " or ".join(words)
    return _plain(schema, defs)


def _plain(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if kind == "string":
        return "a duration" if schema.get("pattern") == f"^{DURATION}$" else "text"
    if kind == "integer":
        least, most = schema.get("minimum"), schema.get("maximum")
        return f"a whole number, {least} to {most:,}" if most is not None else "a whole number"
    if kind == "array":
        return f"a list: {_holds(schema.get('items', {}), defs)}"
    words = {"boolean": "true or false", "number": "a number", "object": "a map", "null": "nothing"}
    return words.get(str(kind), "any value, which may be computed")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(current(), encoding="utf-8")
