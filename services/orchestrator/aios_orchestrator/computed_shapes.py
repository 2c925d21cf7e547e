"""Fields that are computed: values with expressions in them, and conditions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_core.wording import kind_of
from aios_orchestrator.mapping import compile_condition, compile_mapping
from aios_orchestrator.shapes import MISSING, Check, Fields, Shape

MAYBE: Final = "dyn(1)"
"""A condition of which nothing is known."""
ANYTHING: Final = f"${{{MAYBE}}}"
"""A value of which nothing is known."""


@dataclass(frozen=True)
class Computed:
    """What is computed: any value whose texts may have `${…}`."""

    maps: bool = False
    """Only a map."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if data is MISSING:
            return ANYTHING
        if self.maps and not isinstance(data, dict) and not (isinstance(data, str) and "${" in data):
            check.say(path, f"must be a map, or an expression that gives one, not {kind_of(data)}.")
            return {}
        return each_of(check, path, data)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "object"}, {"type": "string", "pattern": r"\$\{"}]} if self.maps else {}


def each_of(check: Check, path: str, data: Any) -> Any:
    """Every expression in it compiles; of what does not nothing is known instead."""
    if isinstance(data, dict):
        return {name: each_of(check, f"{path}.{name}", item) for name, item in data.items()}
    if isinstance(data, list):
        return [each_of(check, f"{path}[{at}]", item) for at, item in enumerate(data)]
    return data if _compiles(check, path, lambda: compile_mapping(data, path)) else ANYTHING


def _compiles(check: Check, path: str, compile_: Callable[[], object]) -> bool:
    try:
        compile_()
    except TerminalError as error:
        check.say(path, error.message, error.code)
        return False
    return True


@dataclass(frozen=True)
class Condition:
    """A CEL expression that gives true or false, with or without `${…}`."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if not isinstance(data, str):
            check.say(path, f'must be an expression such as "inputs.n > 3", not {kind_of(data)}.')
            return MAYBE
        return data if _compiles(check, path, lambda: compile_condition(data, path)) else MAYBE

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class Or:
    """A map of fields, or something simpler."""

    simple: Shape
    fields: Fields

    def check(self, check: Check, path: str, data: Any) -> Any:
        return (self.fields if isinstance(data, dict) else self.simple).check(check, path, data)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.simple.schema(), self.fields.schema()]}
