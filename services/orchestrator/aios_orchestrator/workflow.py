"""A workflow as the core runs it."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_core.json_values import from_json, to_json
from aios_core.labels import RESOURCE
from aios_core.money import Micros, usd
from aios_core.values import Leaf, Value, labeled, plain
from aios_orchestrator.mapping import Expression, Mapped, Path
from aios_runtime.schemas import Schema

DEFAULT_CAP: Final = usd("1.00")
NOTHING: Final = Micros(0)
DEFAULT_TIMEOUT_MS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Retry:
    """Attempts in all, and the wait before the second one in ms; it doubles up to `cap_ms`."""

    limit: int = 5
    backoff_ms: int = 1000
    cap_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate shows: expressions for its words, and the steps that it approves."""

    title: Mapped
    why: Mapped
    risk: Mapped
    approves: tuple[str, ...]
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Questions to a person: an expression that gives a list of {id, text, why, options, pattern}."""

    title: Mapped
    questions: Mapped
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `target` is an agent's name, `connector.action` or `memory.operation`; `lane` where its tasks go."""

    name: str
    kind: str
    needs: tuple[str, ...]
    when: Path | Expression | None = None
    target: str = ""
    lane: str = ""
    input: Mapped | None = None
    retry: Retry = Retry()
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    hold: Micros = NOTHING
    effect: bool = False
    gate: Gate | None = None
    ask: Ask | None = None
    cases: tuple[tuple[str, Path | Expression], ...] = ()
    otherwise: str = ""
    output: Mapped | None = None
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Workflow:
    """A compiled version of a workflow."""

    name: str
    version: str
    schema: Schema
    inputs: Mapping[str, Any]
    outputs: Mapped
    steps: Mapping[str, Step]
    cap: Micros = DEFAULT_CAP
    concurrency: Mapped | None = None
    approved_by: Mapping[str, str] = field(default_factory=dict)
    """The gate that approves a step, by the step's name."""
    before: Mapping[str, int] = field(default_factory=dict)
    """All steps that have ended when a step starts, by its name: a set of places, a bit each."""
    ordered: tuple[Step, ...] = ()
    place: Mapping[str, int] = field(default_factory=dict)
    """Where a step stands in `ordered`, the document's order."""
    roots: tuple[str, ...] = ()
    dependents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The steps that need a step, by its name."""

    def check_input(self, value: Value) -> Value:
        """The run's input, checked against the schema, defaults filled in. Raises INVALID_ARGUMENT naming the field."""
        data = to_json(plain(value))
        properties = self.inputs.get("properties", {})
        unknown = [name for name in data if name not in properties] if isinstance(data, dict) else []
        if unknown:
            near = difflib.get_close_matches(unknown[0], properties, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(properties) or 'nothing'}."
            )
            raise TerminalError(
                "INVALID_ARGUMENT", f"input.{unknown[0]}: there is no such input; {hint}", field=unknown[0]
            )
        self.schema.check(data, "input")
        filled: dict[str, Value] = dict(value) if isinstance(value, dict) else {}
        for name, schema in properties.items():
            if name not in filled and "default" in schema:
                filled[name] = labeled(from_json(schema["default"]), RESOURCE)
        return filled or Leaf({}, RESOURCE)
