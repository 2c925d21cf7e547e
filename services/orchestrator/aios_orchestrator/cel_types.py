"""What a value can be, so far as it is known before any run, and where that comes from: JSON Schemas and constants."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import reduce
from typing import Any, Final

KINDS: Final = frozenset(
    {"null", "bool", "int", "uint", "double", "text", "bytes", "list", "map", "time", "duration"}
)
MAX_WORDS: Final = 50  # texts that are kept apart

_WORDS: Final = {
    "null": "null",
    "bool": "true or false",
    "int": "a whole number",
    "uint": "an unsigned number",
    "double": "a fraction",
    "text": "text",
    "bytes": "bytes",
    "list": "a list",
    "map": "a map",
    "time": "a time",
    "duration": "a duration",
}


@dataclass(frozen=True, slots=True)
class Type:
    """The kinds that a value can be of. `item` is what a list holds, `fields` what a map has, and no other if it is
    `closed`; `texts` are all the texts that it can be, where they are known."""

    kinds: frozenset[str] = KINDS
    item: "Type | None" = None
    fields: Mapping[str, "Type"] = field(default_factory=dict)
    closed: bool = False
    texts: frozenset[str] | None = None

    def __str__(self) -> str:
        if self.kinds == KINDS:
            return "anything"
        *most, last = [_WORDS[kind] for kind in sorted(self.kinds)] or ["nothing"]
        return f"{', '.join(most)} or {last}" if most else last

    def at(self, name: str) -> "Type":
        """The type of a field that it may have."""
        return self.fields.get(name, ANY)

    def or_null(self) -> "Type":
        """The same, or null."""
        return replace(self, kinds=self.kinds | {"null"})

    def only(self, *kinds: str) -> bool:
        """Whether it is of these kinds for sure."""
        return self.kinds <= set(kinds)

    def never(self, *kinds: str) -> bool:
        """Whether it is of none of these kinds for sure."""
        return not self.kinds & set(kinds)


ANY: Final = Type()


def of(*kinds: str) -> Type:
    """Any value of these kinds."""
    return Type(frozenset(kinds))


NULL, BOOL, INT, TEXT = of("null"), of("bool"), of("int"), of("text")


def list_of(item: Type) -> Type:
    """A list of such items."""
    return Type(frozenset({"list"}), item=item)


def record(fields: Mapping[str, Type], closed: bool = True) -> Type:
    """A map with these fields."""
    return Type(frozenset({"map"}), fields=fields, closed=closed)


def either(types: Iterable[Type]) -> Type:
    """What is of one of these types."""
    return reduce(_either, types)


def _either(one: Type, two: Type) -> Type:
    if one is two:
        return one
    maps = [each for each in (one, two) if "map" in each.kinds]
    lists = [each for each in (one, two) if "list" in each.kinds]
    words = [each for each in (one, two) if "text" in each.kinds]
    fields: Mapping[str, Type] = {}
    if len(maps) == 1:
        fields = maps[0].fields
    elif maps:
        names = {*one.fields, *two.fields}
        fields = {name: either(each.at(name) for each in maps if _may(each, name)) for name in names}
    items = [each.item or ANY for each in lists]
    texts = [each.texts for each in words]
    known = [each for each in texts if each is not None]
    together = frozenset().union(*known) if known and len(known) == len(texts) else None
    return Type(
        one.kinds | two.kinds,
        either(items) if items else None,
        fields,
        bool(maps) and all(each.closed for each in maps),
        together if together is not None and len(together) <= MAX_WORDS else None,
    )


def _may(each: Type, name: str) -> bool:
    return name in each.fields or not each.closed


def kept(type_: Type) -> Type:
    """What becomes of a computed value when it is kept: a fraction is then the text of a decimal, or a whole number."""
    changes = {"double": {"int", "text"}, "uint": {"int"}, "time": {"text"}, "bytes": {"map"}}
    if type_.never(*changes) or type_.kinds == KINDS:
        return type_
    kinds = frozenset().union(*(changes.get(kind, {kind}) for kind in type_.kinds))
    return replace(type_, kinds=kinds, texts=None)


def of_constant(data: Any) -> Type:
    """The type of a document's own data, as an expression sees it."""
    if isinstance(data, str):
        return Type(frozenset({"text"}), texts=frozenset({data}))
    if isinstance(data, Mapping):
        return record({str(name): of_constant(item) for name, item in data.items()})
    if isinstance(data, (list, tuple)):
        return list_of(either(map(of_constant, data)) if data else ANY)
    if data is None:
        return NULL
    if isinstance(data, bool):
        return BOOL
    return INT if isinstance(data, int) else TEXT if isinstance(data, Decimal) else ANY


_OF_SCHEMA: Final = {
    "null": ("null",),
    "boolean": ("bool",),
    "integer": ("int",),
    "number": ("int", "text"),  # an expression sees a decimal as its text
    "string": ("text",),
    "array": ("list",),
    "object": ("map",),
}


def of_schema(schema: Any, closed: bool = False) -> Type:
    """The type of what a JSON Schema allows; whatever it says beyond that is not known here. `closed`: a map has no
    other fields than those that are named."""
    if not isinstance(schema, Mapping) or any(word in schema for word in ("$ref", "allOf", "if", "not")):
        return ANY
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return either(map(of_schema, schema[word])) if "type" not in schema else ANY
    if "const" in schema:
        return of_constant(schema["const"])
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return either(map(of_constant, schema["enum"]))
    named = schema.get("type")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    kinds = frozenset(kind for name in names for kind in _OF_SCHEMA.get(str(name), ()))
    if not kinds:
        return ANY
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    shut = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return Type(
        kinds,
        of_schema(schema["items"]) if "items" in schema and "prefixItems" not in schema else None,
        {str(name): of_schema(inner) for name, inner in properties.items()},
        closed or shut,
    )
