"""What fields of documents look like: one description, from which documents are checked and JSON Schemas are made.

A check says all that is wrong, and gives back the data with something harmless in its place, so that the rest can be
looked at too."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_core.money import usd
from aios_core.wording import kind_of
from aios_orchestrator.document import Document
from aios_orchestrator.problems import Problems

MISSING: Final = object()
"""In place of a field that is missing, which is told."""
NEAR: Final = 0.5  # how alike a name has to be to be the one that is meant
NAME: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_DURATION_MS: Final = 3650 * UNITS["d"]
DURATION: Final = "[0-9]+ *(ms|s|m|h|d)"


class Check:
    """The check of one document: where it is, and what was found."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document = document
        self.problems = problems

    def say(self, path: str, message: str, code: str = "BAD_RESOURCE") -> None:
        """Something is wrong at a field."""
        self.problems.add(self.document.error(code, path, message))


class Shape(Protocol):
    """What one field may hold."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        """Say what is wrong with the data; it, or something harmless instead."""

    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""


@dataclass(frozen=True)
class Text:
    """Text of a pattern, in words `about`; empty only where `empty` says so."""

    about: str = "text"
    pattern: str = ""
    default: str = "none"
    example: str = ""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if isinstance(data, str) and data and (not self.pattern or re.fullmatch(self.pattern, data)):
            return data
        example = f", such as {self.example}" if self.example else ""
        quotes = "; put it in quotes if text is meant" if isinstance(data, (bool, int, Decimal)) else ""
        check.say(path, f"must be {self.about}{example}, not {kind_of(data)}{quotes}.")
        return self.default

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "minLength": 1,
            **({"pattern": f"^{self.pattern}$"} if self.pattern else {}),
        }


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def check(self, check: Check, path: str, data: Any) -> Any:
        if isinstance(data, str) and data in self.words:
            return data
        near = (
            difflib.get_close_matches(str(data), self.words, n=1, cutoff=0.6) if isinstance(data, str) else []
        )
        hint = f" Did you mean {near[0]!r}?" if near else ""
        check.say(path, f"must be {_either(self.words)}, not {kind_of(data)}.{hint}")
        return self.words[0]

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if isinstance(data, bool):
            return data
        check.say(path, f"must be true or false, not {kind_of(data)}.")
        return False

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    least: int
    most: int

    def check(self, check: Check, path: str, data: Any) -> Any:
        if isinstance(data, int) and not isinstance(data, bool) and self.least <= data <= self.most:
            return data
        check.say(path, f"must be a whole number from {self.least} to {self.most:,}, not {kind_of(data)}.")
        return self.least

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Share:
    """A number above 0, and at most 1."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if isinstance(data, (int, Decimal)) and not isinstance(data, bool) and 0 < data <= 1:
            return data
        check.say(path, f"must be a number above 0, and at most 1, such as 0.8, not {kind_of(data)}.")
        return 1

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "exclusiveMinimum": 0, "maximum": 1}


@dataclass(frozen=True)
class Duration:
    """A duration of at most ten years."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        found = re.fullmatch(r"(\d{1,12}) *(ms|s|m|h|d)", data) if isinstance(data, str) else None
        if not found:
            check.say(path, f"must be a duration such as 500ms, 5s, 2m, 1h or 14d, not {kind_of(data)}.")
            return "1s"
        if int(found[1]) * UNITS[found[2]] > MAX_DURATION_MS:
            check.say(path, f"is longer than 3650d, the longest duration: {data}.")
            return "1s"
        return data

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{DURATION}$"}


@dataclass(frozen=True)
class Money:
    """US dollars."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, (str, int, Decimal)):
            check.say(path, f'must be an amount in US dollars such as "0.50", not {kind_of(data)}.')
            return "0"
        try:
            usd(data)
        except TerminalError as error:
            check.say(path, error.message)
            return "0"
        return data

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "string", "pattern": r"^\+?[0-9]+(\.[0-9]+)?$"},
                {"type": "number", "minimum": 0},
            ]
        }


@dataclass(frozen=True)
class Several:
    """A list; `distinct` where nothing may stand twice."""

    item: Shape
    least: int = 0
    most: int = 10_000
    about: str = "a list"
    distinct: bool = False

    def check(self, check: Check, path: str, data: Any) -> Any:
        if not isinstance(data, list):
            check.say(path, f"must be {self.about}, not {kind_of(data)}.")
            return []
        if not self.least <= len(data) <= self.most:
            least = f"at least {self.least}" if len(data) < self.least else f"at most {self.most:,}"
            check.say(path, f"must be {self.about} of {least}; it has {len(data)}.")
        out = [self.item.check(check, f"{path}[{at}]", item) for at, item in enumerate(data[: self.most])]
        if self.distinct:
            for at, item in enumerate(out):
                if item in out[:at]:
                    check.say(f"{path}[{at}]", f"{item!r} stands twice.")
        return out

    def schema(self) -> dict[str, Any]:
        least = {"minItems": self.least} if self.least else {}
        unique = {"uniqueItems": True} if self.distinct else {}
        return {"type": "array", "items": self.item.schema(), **least, "maxItems": self.most, **unique}


@dataclass(frozen=True)
class MapOf:
    """A map whose keys are free."""

    value: Shape
    about: str = "a map"
    least: int = 0
    default: Mapping[str, Any] | None = None

    def check(self, check: Check, path: str, data: Any) -> Any:
        if not isinstance(data, dict) or len(data) < self.least:
            check.say(path, f"must be {self.about}, not {kind_of(data)}.")
            return dict(self.default or {})
        return {name: self.value.check(check, f"{path}.{name}", item) for name, item in data.items()}

    def schema(self) -> dict[str, Any]:
        least = {"minProperties": self.least} if self.least else {}
        return {"type": "object", "additionalProperties": self.value.schema(), **least}


@dataclass(frozen=True)
class Field:
    """A field of a map: what it holds, what it is for, and what it is to a person who leaves it out."""

    shape: Shape
    about: str
    required: bool = False


@dataclass(frozen=True)
class Fields:
    """A map of fields that have names."""

    fields: Mapping[str, Field]
    about: str = ""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if not isinstance(data, dict):
            check.say(path, f"must be a map of fields ({', '.join(self.fields)}), not {kind_of(data)}.")
            check, data = Check(check.document, Problems()), {}
        out: dict[str, Any] = {}
        meant: set[str] = set()
        for name, item in data.items():
            inner = f"{path}.{name}" if path else name
            if name in self.fields:
                out[name] = self.fields[name].shape.check(check, inner, item)
            else:
                check.say(inner, unknown(name, self.fields), "UNKNOWN_FIELD")
                meant.update(difflib.get_close_matches(name, self.fields, n=1, cutoff=NEAR))
        for name, each in self.fields.items():
            if each.required and name not in data:
                if name not in meant:
                    check.say(f"{path}.{name}", f"is missing: {each.about[0].lower()}{each.about[1:]}.")
                out[name] = _instead(check, path, each.shape)
        return out

    def schema(self) -> dict[str, Any]:
        required = [name for name, each in self.fields.items() if each.required]
        return {
            "type": "object",
            "properties": {name: described(each) for name, each in self.fields.items()},
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }


def _instead(check: Check, path: str, shape: Shape) -> Any:
    """Something harmless for a field that is missing."""
    return shape.check(Check(check.document, Problems()), path, MISSING)


def described(each: Field) -> dict[str, Any]:
    """A field's schema with its words."""
    return {"description": each.about, **each.shape.schema()}


def unknown(name: str, names: Iterable[str], others: Mapping[str, str] = MappingProxyType({})) -> str:
    """What is said of a field that does not exist; `others` are words of other languages, and what is said here."""
    known = list(names)
    near = [others[name]] if name in others else difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    if near:
        return f"there is no such field; did you mean {near[0]!r}?"
    return f"there is no such field; it may have: {', '.join(known)}."


def _either(words: tuple[str, ...]) -> str:
    *most, last = [repr(word) for word in words]
    return f"{', '.join(most)} or {last}" if most else last
