"""From what a document says of a plan to the steps that draft it, have it approved, and carry it out.

`work` of kind plan is gone through once, as a sub-workflow is: its own steps are `draft` (an agent, whose answer has to
be a plan), `approve` (a gate that only a person passes), and `plan`, which has the plan's steps once there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_core.json_values import dumps, from_json
from aios_core.labels import RESOURCE
from aios_core.money import Micros
from aios_core.values import labeled
from aios_orchestrator.document import Document
from aios_orchestrator.graph import with_graph
from aios_orchestrator.mapping import Constant, Mapped, Path, Record, Text, compile_expression
from aios_orchestrator.modes import compile_mode
from aios_orchestrator.timing import compile_bounds, compile_retry
from aios_orchestrator.uses import Children
from aios_orchestrator.workflow import (
    APPROVE,
    DRAFT,
    HIGHEST,
    PLAN,
    Body,
    Bounds,
    Gate,
    Planning,
    Step,
    Workflow,
)
from aios_runtime.schemas import Schema

FIELDS: Final = ("agent", "goal", "input", "may", "steps", "expires")
MAY: Final = ("agents", "actions", "memory", "workflows")
MAX_PLANNED: Final = 100  # steps of a plan
USUAL: Final = 20  # of one whose document does not say how many
_INPUTS: Final = {
    "type": "object",
    "properties": {"goal": {}, "input": {"type": "object"}},
    "required": ["goal", "input"],
}


class Place(Protocol):
    """Where in a document the step stands, and how its fields are read."""

    document: Document
    path: str
    children: Children

    def mapping(self, data: Any, name: str) -> Mapped: ...

    def duration(self, data: Any, name: str) -> int: ...

    def money(self, data: Any, name: str) -> Micros: ...

    def count(self, data: Any, name: str, most: int, least: int = 1) -> int: ...


def compile_plan(place: Place, data: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Compile `plan: {agent, goal, input, may, steps, expires}`. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION
    with the place."""
    spec = place.document.known(f"{place.path}.plan", data, FIELDS)
    for name in ("agent", "goal"):
        if name not in spec:
            raise _wrong(place, name, "is missing.")
    given = spec.get("input", {})
    if not isinstance(given, dict):
        raise _wrong(place, "input", "must be a map: what planned steps see as `inputs`.")
    planning = _planning(place, spec, tuple(map(str, given)))
    goal, inputs = place.mapping(spec["goal"], "plan.goal"), place.mapping(given, "plan.input")
    agent = str(spec["agent"])
    steps = [
        _draft(place, fields, agent, planning),
        _approve(place.duration(spec.get("expires", "30d"), "plan.expires")),
        _carried_out(planning),
    ]
    child = with_graph(
        Workflow(
            name=str(fields.get("name", "")),
            version=content_hash(dumps({"plan": spec, "uses": sorted(planning.workflows)}))[:16],
            schema=Schema(_INPUTS),
            inputs=_INPUTS,
            outputs=_path(f"steps.{PLAN}"),
            steps={step.name: step for step in steps},
            approved_by={PLAN: APPROVE},
            size=len(steps),
        )
    )
    bounds = compile_bounds(place, {name: item for name, item in fields.items() if name != "timeout"})[1]
    return {
        "target": agent,
        "input": Record((("goal", goal), ("input", inputs))),
        "bounds": bounds,
        "hold": Micros(0),
        "body": Body(result=child.outputs, size=child.size, roots=child.roots, child=child),
    }


def _planning(place: Place, spec: Mapping[str, Any], inputs: tuple[str, ...]) -> Planning:
    may = place.document.known(f"{place.path}.plan.may", spec.get("may", {}), MAY)
    actions = may.get("actions", {})
    if not isinstance(actions, dict):
        raise _wrong(place, "may.actions", "must be a map from an action to what it does to the world.")
    workflows = {}
    for at, ref in enumerate(_names(place, may, "workflows")):
        if ref not in place.children:
            raise _wrong(place, f"may.workflows[{at}]", f"there is no workflow {ref[:80]!r}.")
        workflows[ref] = place.children[ref]
    return Planning(
        agents=_names(place, may, "agents"),
        actions={str(name): str(effect) for name, effect in actions.items()},
        memory=_names(place, may, "memory"),
        workflows=workflows,
        most=place.count(spec.get("steps", USUAL), "plan.steps", MAX_PLANNED),
        inputs=inputs,
    )


def _names(place: Place, may: Mapping[str, Any], field: str) -> tuple[str, ...]:
    names: Sequence[Any] = may.get(field, [])
    if not isinstance(names, list):
        raise _wrong(place, f"may.{field}", "must be a list of names.")
    return tuple(map(str, names))


def _draft(place: Place, fields: Mapping[str, Any], agent: str, planning: Planning) -> Step:
    timeout_ms, bounds = compile_bounds(place, {n: fields[n] for n in ("timeout",) if n in fields})
    may = {
        "agents": list(planning.agents),
        "actions": dict(planning.actions),
        "memory": list(planning.memory),
        "workflows": sorted(ref.partition("@")[0] for ref in planning.workflows),
        "steps": planning.most,
    }
    return Step(
        name=DRAFT,
        kind="agent",
        needs=(),
        target=agent,
        lane="agent",
        input=Record(
            (
                ("goal", _path("inputs.goal")),
                ("inputs", _path("inputs.input")),
                ("may", Constant(labeled(from_json(may), RESOURCE))),
            )
        ),
        retry=compile_retry(place, fields.get("retry", {})),
        timeout_ms=timeout_ms,
        bounds=bounds if bounds != Bounds() else None,
        mode=compile_mode(place, fields),
        hold=place.money(fields.get("budget", "0"), "budget"),
        priority=place.count(fields["priority"], "priority", HIGHEST, 0) if "priority" in fields else None,
        planning=planning,
    )


def _approve(expires_ms: int) -> Step:
    gate = Gate(
        title=Text(("Approve the plan: ", _path("inputs.goal"))),
        why=compile_expression(f'has(steps.{DRAFT}.why) ? steps.{DRAFT}.why : ""', "why"),
        risk=Constant(labeled("", RESOURCE)),
        approves=(PLAN,),
        expires_ms=expires_ms,
    )
    return Step(name=APPROVE, kind="gate", needs=(DRAFT,), gate=gate)


def _carried_out(planning: Planning) -> Step:
    none = Constant(labeled(None, RESOURCE))
    given = Record((("plan", _path(f"steps.{DRAFT}")), ("inputs", _path("inputs.input"))))
    body = Body(result=none, size=0)
    return Step(name=PLAN, kind="planned", needs=(APPROVE,), input=given, body=body, planning=planning)


def _path(text: str) -> Path:
    root, *parts = text.split(".")
    if root == "steps":
        return Path(f"steps.{parts[0]}", tuple(parts[1:]), text)
    return Path(root, tuple(parts), text)


def with_plan(step: Step, child: Workflow) -> Step:
    """A planned step that carries out a plan."""
    return replace(step, body=Body(result=child.outputs, size=child.size, roots=child.roots, child=child))


def _wrong(place: Place, name: str, message: str) -> TerminalError:
    return place.document.error("BAD_RESOURCE", f"{place.path}.plan.{name}", message)
