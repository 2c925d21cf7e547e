"""From a Workflow document to the workflow that the core runs, checked so far as it can be before any run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_core.ids import check_name
from aios_core.json_values import from_json, to_json
from aios_core.money import Micros, usd
from aios_orchestrator.budget import compile_spike
from aios_orchestrator.caching import compile_cache
from aios_orchestrator.compensating import ON_FAILURE, compile_compensate
from aios_orchestrator.document import Document
from aios_orchestrator.gating import compile_gate
from aios_orchestrator.graph import connect
from aios_orchestrator.hears import compile_hears, compile_until
from aios_orchestrator.mapping import (
    Expression,
    Mapped,
    Path,
    compile_condition,
    compile_mapping,
)
from aios_orchestrator.modes import compile_mode, with_mode
from aios_orchestrator.plan_step import compile_plan
from aios_orchestrator.problems import Problems
from aios_orchestrator.queueing import compile_queueing
from aios_orchestrator.timing import TIMES, compile_bounds, compile_retry
from aios_orchestrator.uses import NO_CHILDREN, Children
from aios_orchestrator.workflow import HIGHEST, PRIORITY, Ask, Body, Step, Workflow
from aios_runtime.schemas import Schema

MAX_STEPS: Final = 10_000
MAX_NESTED: Final = 8  # bodies within bodies
MAX_AT_ONCE: Final = 1_000  # items of a map under way
MAX_TURNS: Final = 1_000  # of a repeat
KINDS: Final = (
    "agent", "connector", "memory", "gate", "ask", "branch", "transform", "wait", "map", "repeat", "workflow",
    "plan",
)  # fmt: skip
_OF_WORK: Final = (
    "input", "retry", "timeout", "budget", "priority", "effect", "gives", "compensate", "cache", "mode",
)  # fmt: skip
# Which of these fields a kind has; the others have none.
_WORK: Final = {
    "agent": ("input", "retry", "timeout", "budget", "priority", "gives", "cache", "mode"),
    "connector": _OF_WORK[:-1],
    "memory": ("input", "retry", "timeout", "budget", "priority", "gives", "compensate", "cache"),
    "workflow": ("input",),
    "plan": ("retry", "timeout", "budget", "priority", "gives", "mode"),
}
_AT_ONCE: Final = ("branch", "transform")  # done as soon as they begin
EFFECTS: Final = ("read", "write", "irreversible", "payment", "legal")
_WORKFLOW_FIELDS: Final = (
    "inputs", "outputs", "steps", "budget", "concurrency", "on_failure", "mode", "priority", "customer", "spike",
    "description",
    *TIMES,
)  # fmt: skip
_STEP_FIELDS: Final = (
    "name",
    "needs",
    "when",
    "input",
    "retry",
    "timeout",
    "budget",
    "priority",
    "effect",
    "gives",
    "compensate",
    "cache",
    "mode",
    "description",
    *TIMES,
    *KINDS,
)
_DURATION: Final = re.compile(r"(\d+)\s*(ms|s|m|h|d)")
UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def work_fields(kind: str) -> tuple[str, ...]:
    """Which of the fields of work and of time steps of a kind have."""
    return (*_WORK.get(kind, ()), *(() if kind in _AT_ONCE else TIMES))


def compile_workflow(
    document: Document, children: Children = NO_CHILDREN, problems: Problems | None = None
) -> Workflow:
    """Compile a Workflow. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION, CYCLE with the place; with `problems`,
    what its steps read wrongly is kept there and not raised."""
    spec = document.known("spec", document.spec, _WORKFLOW_FIELDS)
    compiler = _Compiler(document, "spec", children)
    steps = {step.name: step for step in compiler.steps(spec.get("steps"), "steps", "", ())}
    mode = compile_mode(compiler, spec)
    steps = with_mode(steps, mode) if mode else steps
    if len(steps) > MAX_STEPS:
        raise document.error(
            "BAD_RESOURCE", "spec.steps", f"has {len(steps)} steps; at most {MAX_STEPS} are allowed."
        )
    for step in steps.values():
        if step.scope.count(".") > MAX_NESTED:
            place = step.place or "spec.steps"
            raise document.error("BAD_RESOURCE", place, f"is nested deeper than {MAX_NESTED} levels.")
        if step.kind == "plan" and "[" in step.name:
            place = step.place or "spec.steps"
            raise document.error(
                "BAD_RESOURCE", place, "is planned in a map or a repeat; plan it before them."
            )
    budget = document.known("spec.budget", spec.get("budget", {}), ("cap",))
    if spec.get("on_failure", "stay") not in ON_FAILURE:
        raise document.error("BAD_RESOURCE", "spec.on_failure", "must be 'stay' or 'undo'.")
    inputs, schema = _schema(document, spec.get("inputs", {"type": "object", "properties": {}}))
    workflow = Workflow(
        name=document.name,
        version=document.version(),
        schema=schema,
        inputs=inputs,
        outputs=compiler.mapping(spec.get("outputs", {}), "outputs"),
        steps=steps,
        cap=compiler.money(budget.get("cap", "1.00"), "budget.cap"),
        concurrency=compile_queueing(compiler, spec),
        priority=compiler.count(spec.get("priority", PRIORITY), "priority", HIGHEST, 0),
        has_modes=any(step.mode for step in steps.values()),
        keeps=any(step.cache is not None for step in steps.values()),
        mode=mode,
        undo_on_failure=spec.get("on_failure") == "undo",
        bounds=compile_bounds(compiler, {name: spec[name] for name in TIMES if name in spec})[1],
        approved_by={
            gate.scope + name: gate.name
            for gate in steps.values()
            if gate.gate
            for name in gate.gate.approves
        },
        size=sum(not step.scope for step in steps.values()),
        spike=compile_spike(document, spec.get("spike")),
        spends=any(step.hold for step in steps.values()),
        customer=compiler.mapping(spec["customer"], "customer") if "customer" in spec else None,
    )
    return connect(document, workflow, problems)


def _schema(document: Document, data: Any) -> tuple[Mapping[str, Any], Schema]:
    try:
        schema = to_json(from_json(data))
    except (ValueError, TerminalError) as error:
        raise document.error("BAD_RESOURCE", "spec.inputs", f"is not a JSON Schema: {error}.") from None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise document.error("BAD_RESOURCE", "spec.inputs", "must be a JSON Schema of type object.")
    try:
        return schema, Schema(schema)
    except ValueError as error:
        raise document.error("BAD_RESOURCE", "spec.inputs", f"is not a JSON Schema: {error}.") from None


def _rooted(step: Step, inner: Sequence[Step]) -> Body:
    """The body of a step with the steps that need no other."""
    own = [other for other in inner if other.scope == f"{step.name}[]."]
    return replace(step.own, roots=tuple(other.local for other in own if not other.needs))


class _Compiler:
    """Compiles the fields below one place of a document."""

    def __init__(self, document: Document, path: str, children: Children) -> None:
        self.document = document
        self.path = path
        self.children = children

    def steps(self, data: Any, name: str, scope: str, around: Sequence[str]) -> list[Step]:
        """Compile a list of steps, each followed by those of its body. `around` are the names that they see already."""
        if not isinstance(data, list) or not data:
            raise self._error(name, "must be a list of at least one step.")
        found: list[Step] = []
        previous, names = "", list(around)
        for at, item in enumerate(data):
            compiler = _Compiler(self.document, f"{self.path}.{name}[{at}]", self.children)
            step = compiler.step(item, previous)
            if step.name in names:
                raise compiler._error("name", f"{step.name!r} stands twice.")
            names.append(step.name)
            previous = step.name
            inner = compiler.inside(step, item, scope, names)
            placed = replace(step, name=scope + step.name, scope=scope, place=compiler.path)
            if step.kind in ("map", "repeat"):
                placed = replace(placed, body=_rooted(placed, inner))
            found += [placed, *inner]
        return found

    def inside(self, step: Step, data: Mapping[str, Any], scope: str, around: Sequence[str]) -> list[Step]:
        """The steps of a step's body."""
        if step.body is None:
            return []
        if step.body.child is not None:
            home = f"{scope}{step.name}."
            return [
                replace(inner, name=home + inner.name, scope=home + inner.scope, place="")
                for inner in step.body.child.steps.values()
            ]
        return self.steps(data[step.kind]["steps"], f"{step.kind}.steps", f"{scope}{step.name}[].", around)

    def step(self, data: Any, previous: str) -> Step:
        fields = self.document.known(self.path, data, _STEP_FIELDS)
        try:
            name = check_name(str(fields.get("name", "")), f"{self.path}.name")
        except TerminalError as error:
            raise self._error("name", error.message) from None
        kinds = [kind for kind in KINDS if kind in fields]
        if len(kinds) != 1:
            raise self._error(
                "name", f"step {name!r} must have exactly one of {', '.join(KINDS)}; it has {len(kinds)}."
            )
        kind = kinds[0]
        for field in (*_OF_WORK, *TIMES):
            if field in fields and field not in work_fields(kind):
                where = "; its steps may have it" if kind in ("map", "repeat", "workflow") else ""
                raise self._error(field, f"a step of kind {kind} has no {field}{where}.")
        needs = fields.get("needs", [previous] if previous else [])
        if not isinstance(needs, list):
            raise self._error("needs", "must be a list of step names.")
        timeout_ms, bounds = compile_bounds(self, fields)
        common: dict[str, Any] = {
            "name": name,
            "kind": kind,
            "needs": tuple(str(need) for need in needs),
            "by_order": "needs" not in fields,
            "when": self.condition(fields["when"], "when") if "when" in fields else None,
            "input": self.mapping(fields.get("input", {}), "input"),
            "retry": compile_retry(self, fields.get("retry", {})),
            "timeout_ms": timeout_ms,
            "bounds": bounds,
            "hold": self.money(fields.get("budget", "0"), "budget"),
            "priority": self.count(fields["priority"], "priority", HIGHEST, 0)
            if "priority" in fields
            else None,
            "mode": compile_mode(self, fields),
            "cache": compile_cache(self, fields),
            "compensate": compile_compensate(self, fields),
            "gives": self.gives(fields["gives"]) if "gives" in fields else None,
        }
        return Step(**{**common, **getattr(self, f"_{kind}")(fields[kind], fields)})

    def _agent(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"target": str(data), "lane": "agent"}

    def _connector(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        connector, dot, action = str(data).partition(".")
        if not dot or not action:
            raise self._error("connector", "must be <connector>.<action>, such as files.write_file.")
        effect = fields.get("effect", "read")
        if effect not in EFFECTS:
            raise self._error("effect", f"must be {', '.join(map(repr, EFFECTS[:-1]))} or {EFFECTS[-1]!r}.")
        lane = f"connector-{connector}"
        return {"target": str(data), "lane": lane, "effect": effect != "read", "grade": str(effect)}

    def _memory(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        if data not in ("read", "write"):
            raise self._error("memory", "must be 'read' or 'write'.")
        grade = str(data)
        return {"target": f"memory.{data}", "lane": "memory", "effect": data == "write", "grade": grade}

    def _gate(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"gate": compile_gate(self, data)}

    def _ask(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        ask = self.document.known(f"{self.path}.ask", data, ("title", "questions", "expires"))
        if "questions" not in ask:
            raise self._error("ask.questions", "is missing.")
        return {
            "ask": Ask(
                title=self.mapping(ask.get("title", "Please answer"), "ask.title"),
                questions=self.mapping(ask["questions"], "ask.questions"),
                expires_ms=self.duration(ask.get("expires", "30d"), "ask.expires"),
            )
        }

    def _branch(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        branch = self.document.known(f"{self.path}.branch", data, ("cases", "otherwise"))
        cases = branch.get("cases")
        if not isinstance(cases, dict) or not cases:
            raise self._error("branch.cases", "must be a map from a case's name to its condition.")
        compiled = tuple(
            (str(name), self.condition(text, f"branch.cases.{name}")) for name, text in cases.items()
        )
        return {"cases": compiled, "otherwise": str(branch.get("otherwise", ""))}

    def _transform(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"output": self.mapping(data, "transform")}

    def _wait(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(data, dict):
            return {"wait_ms": self.duration(data, "wait")}
        if "event" in data:
            return {"hears": compile_hears(self, data)}
        return {"until": compile_until(self, data)}

    def _map(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        names = ("over", "at_once", "on_failure", "steps", "result")
        spec = self.document.known(f"{self.path}.map", data, names)
        if "over" not in spec:
            raise self._error("map.over", "is missing: the list whose items are gone through.")
        if spec.get("on_failure", "fail") not in ("fail", "collect"):
            raise self._error("map.on_failure", "must be 'fail' or 'collect'.")
        return {
            "body": Body(
                over=self.mapping(spec["over"], "map.over"),
                at_once=self.count(spec.get("at_once", 10), "map.at_once", MAX_AT_ONCE),
                collect=spec.get("on_failure") == "collect",
                **self._rounds("map", spec),
            )
        }

    def _repeat(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        names = ("limit", "until", "at_limit", "steps", "result")
        spec = self.document.known(f"{self.path}.repeat", data, names)
        for name in ("limit", "until"):
            if name not in spec:
                raise self._error(f"repeat.{name}", "is missing.")
        if spec.get("at_limit", "fail") not in ("fail", "go-on"):
            raise self._error("repeat.at_limit", "must be 'fail' or 'go-on'.")
        return {
            "body": Body(
                until=self.condition(spec["until"], "repeat.until"),
                limit=self.count(spec["limit"], "repeat.limit", MAX_TURNS),
                lenient=spec.get("at_limit") == "go-on",
                **self._rounds("repeat", spec),
            )
        }

    def _rounds(self, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What maps and repeats have in common; without a `result` it is the output of the last step."""
        steps = spec.get("steps")
        if not isinstance(steps, list) or not steps or not isinstance(steps[-1], dict):
            raise self._error(f"{kind}.steps", "must be a list of at least one step.")
        last = f"steps.{steps[-1].get('name')}"
        result = self.mapping(spec["result"], f"{kind}.result") if "result" in spec else Path(last, (), last)
        return {"result": result, "size": len(steps)}

    def _workflow(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        child = self.children.get(str(data))
        if child is None:
            raise self._error("workflow", f"there is no workflow {str(data)[:80]!r}.")
        return {
            "target": str(data),
            "body": Body(result=child.outputs, size=child.size, roots=child.roots, child=child),
        }

    def _plan(self, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        return compile_plan(self, data, fields)

    def count(self, data: Any, name: str, most: int, least: int = 1) -> int:
        if isinstance(data, bool) or not isinstance(data, int) or not least <= data <= most:
            raise self._error(name, f"must be a whole number from {least} to {most}.")
        return data

    def mapping(self, data: Any, name: str) -> Mapped:
        try:
            return compile_mapping(data, f"{self.path}.{name}")
        except TerminalError as error:
            raise self._unreadable(error, name) from None

    def condition(self, data: Any, name: str) -> Path | Expression:
        try:
            return compile_condition(data, f"{self.path}.{name}")
        except TerminalError as error:
            raise self._unreadable(error, name) from None

    def gives(self, data: Any) -> Schema:
        try:
            schema = to_json(from_json(data))
            return Schema(schema if isinstance(schema, dict) else {"not": {}})
        except (TypeError, ValueError, TerminalError) as error:
            raise self._error("gives", f"is not a JSON Schema: {error}.") from None

    def duration(self, data: Any, name: str) -> int:
        """Milliseconds of a duration such as `500ms`, `5s`, `2m`, `1h`, `14d`."""
        found = _DURATION.fullmatch(str(data))
        if not found or int(found[1]) * UNITS[found[2]] > 3650 * UNITS["d"]:
            raise self._error(name, f"{str(data)[:40]!r} is not a duration such as 500ms, 5s, 2m, 1h or 14d.")
        return int(found[1]) * UNITS[found[2]]

    def money(self, data: Any, name: str) -> Micros:
        try:
            return usd(str(data))
        except TerminalError as error:
            raise self._error(name, error.message) from None

    def _unreadable(self, error: TerminalError, name: str) -> TerminalError:
        return self.document.error(
            error.code, error.details.get("field", f"{self.path}.{name}"), error.message
        )

    def _error(self, name: str, message: str) -> TerminalError:
        return self.document.error("BAD_RESOURCE", f"{self.path}.{name}", message)
