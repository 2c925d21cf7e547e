"""Plans: what a planner gives, checked as a workflow is, and put into the workflow of the run that carries it out.
Pure.

A plan is `{why, steps, outputs}`, its version the hash of its canonical JSON. Its steps know `inputs` and each other,
may use what the document allows and nothing else, and say nothing of what an action does to the world: that the
document says."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import yaml

from aios.run.v1.state_pb2 import PlanProposal
from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_core.json_values import dumps, loads, to_json
from aios_core.money import Micros, format_usd
from aios_core.step_names import is_inside
from aios_core.values import Plain
from aios_orchestrator.checking import check_workflow
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import API_VERSION, Document, parse_plain
from aios_orchestrator.graph import with_graph
from aios_orchestrator.plan_step import with_plan
from aios_orchestrator.problems import Problems
from aios_orchestrator.workflow import Planning, Step, Workflow

MAX_PLAN_BYTES: Final = 24 * 1024  # an approval has it in JSON, in YAML, and as a diff, and goes over the bus
MAX_TEXT_BYTES: Final = 32 * 1024  # in YAML
MAX_REFUSAL: Final = 3000  # characters
MAX_WHY: Final = 4000  # characters
MAX_TOLD: Final = 10  # problems that a refusal names
MAX_GROWN: Final = 256  # workflows with their plans that are kept
FIELDS: Final = ("why", "steps", "outputs")
_GATE: Final = ("title", "why", "risk", "approves", "expires", "remind")
_FENCE: Final = re.compile(r"\s*```[a-z]*\n(.*?)\n?```\s*", re.DOTALL)
_PLACE: Final = re.compile(r"^plan:\d+:\d+: (?:spec\.)?")


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that may be carried out: canonical JSON, its hash, and the workflow that its steps are."""

    data: bytes
    version: str
    workflow: Workflow


def plan_of(planned: Step, given: Plain, cap: Micros) -> Plan:
    """The plan that somebody gave for a planned step: a map, or text in YAML or JSON. Raises BAD_PLAN with all that is
    wrong."""
    plan = _read(given)
    data = dumps(plan)
    size = len(text_of(data).encode())
    if size > MAX_TEXT_BYTES:
        raise refusal([f"As it is shown it has {size} bytes; at most {MAX_TEXT_BYTES} are allowed."])
    problems = Problems()
    document = _document(planned, plan, problems)
    if document is None:
        raise refusal([error.message for error in problems.in_order()])
    spec = document.spec
    spec["budget"] = {"cap": format_usd(cap).lstrip("$")}
    checked = check_workflow(document, _planning(planned).workflows, problems)
    if problems or checked is None:
        raise refusal([error.message for error in problems.in_order()])
    return Plan(data, version_of(data), _child(_Kept(planned), data))


def canonical(given: Plain) -> bytes:
    """What somebody gave as a plan, in canonical JSON, whatever is wrong in its steps. Raises BAD_PLAN."""
    return dumps(_read(given))


def version_of(data: bytes) -> str:
    """The version of a plan in canonical JSON."""
    return content_hash(data)[:16]


def refusal(messages: Iterable[str]) -> TerminalError:
    """BAD_PLAN, with the first of what is wrong."""
    told = [_PLACE.sub("", message) for message in messages]
    more = f" (and {len(told) - MAX_TOLD} more)" if len(told) > MAX_TOLD else ""
    return TerminalError("BAD_PLAN", (" ".join(told[:MAX_TOLD]) + more)[:MAX_REFUSAL])


@lru_cache(MAX_GROWN)
def _child(kept: "_Kept", data: bytes) -> Workflow:
    step = kept.step
    document = _document(step, _read(loads(data)), Problems())
    assert document is not None, f"{step.name} follows a plan that can't be read"
    return compile_workflow(document, _planning(step).workflows)


class _Kept:
    """A planned step that is equal to another one when their plans may be the same."""

    def __init__(self, step: Step) -> None:
        self.step, self.said = step, f"{step.name} {step.planning}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and other.said == self.said

    def __hash__(self) -> int:
        return hash(self.said)


def grown(workflow: Workflow, plans: Mapping[str, bytes]) -> Workflow:
    """A workflow with these plans in it, by the names of their planned steps; canonical JSON each. A plan of a step
    that is not there is left out."""
    for name in sorted(plans):
        step = workflow.steps.get(name)
        if step is not None and step.kind == "planned":
            workflow = with_child(workflow, name, _child(_Kept(step), plans[name]))
    return workflow


def with_child(workflow: Workflow, name: str, child: Workflow) -> Workflow:
    """A workflow whose planned step has the steps of a plan, in the place of those of an earlier one."""
    home = f"{name}."
    steps: dict[str, Step] = {}
    for step in workflow.steps.values():
        if is_inside(step.name, name):
            continue
        steps[step.name] = with_plan(step, child) if step.name == name else step
        if step.name == name:
            for inner in child.steps.values():
                own = replace(inner, name=home + inner.name, scope=home + inner.scope, place="")
                steps[own.name] = own
    gates = {step: gate for step, gate in workflow.approved_by.items() if not is_inside(step, name)}
    gates |= {home + step: home + gate for step, gate in child.approved_by.items()}
    return with_graph(
        replace(
            workflow,
            steps=steps,
            approved_by=gates,
            has_modes=workflow.has_modes or child.has_modes,
            spends=workflow.spends or child.spends,
            met={},
        )
    )


def proposal(data: bytes, parent: bytes) -> PlanProposal:
    """What a person sees of a plan in canonical JSON, beside the one that it would take the place of."""
    old, new = text_of(parent) if parent else "", text_of(data)
    return PlanProposal(
        version=version_of(data),
        parent=version_of(parent) if parent else "",
        text=new,
        diff=diff(old, new) if parent else "",
    )


def diff(old: str, new: str) -> str:
    """In which lines two plans differ, as a unified diff without file names."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=3)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


@lru_cache(MAX_GROWN)
def text_of(data: bytes) -> str:
    """A plan in YAML, a step's name before what it does."""
    plan = to_json(loads(data))
    ordered = {name: plan[name] for name in FIELDS if name in plan}
    steps = ordered.get("steps")
    ordered["steps"] = [_ordered(step) for step in steps] if isinstance(steps, list) else steps
    text = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False)
    return str(text)


def _ordered(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    first = {name: step[name] for name in ("name",) if name in step}
    rest = {name: step[name] for name in step if name != "name"}
    for kind in ("map", "repeat"):
        body = rest.get(kind)
        if isinstance(body, dict) and isinstance(body.get("steps"), list):
            rest[kind] = {**body, "steps": [_ordered(inner) for inner in body["steps"]]}
    return {**first, **rest}


def _planning(step: Step) -> Planning:
    assert step.planning is not None, f"{step.name} carries out no plan"
    return step.planning


def _read(given: Plain) -> dict[str, Plain]:
    """The fields of a plan. Raises BAD_PLAN."""
    if isinstance(given, Mapping) and "steps" not in given and isinstance(given.get("text"), str):
        given = given["text"]  # what a model wrote
    if isinstance(given, str):
        fenced = _FENCE.fullmatch(given)
        try:
            given = parse_plain((fenced[1] if fenced else given).encode(), "plan")
        except TerminalError as error:
            raise refusal([f"It can't be read: {error.message}"]) from None
    if not isinstance(given, Mapping):
        raise refusal(["A plan is a map with `steps`, and may have `why` and `outputs`."])
    strange = [str(name) for name in given if name not in FIELDS]
    if strange:
        raise refusal([f"{strange[0][:80]}: there is no such field; a plan has {', '.join(FIELDS)}."])
    plan: dict[str, Plain] = {"why": "", **given}
    if not isinstance(plan["why"], str) or len(plan["why"]) > MAX_WHY:
        raise refusal([f"why: must be text of at most {MAX_WHY} characters."])
    size = len(dumps(plan))
    if size > MAX_PLAN_BYTES:
        raise refusal([f"It has {size} bytes; at most {MAX_PLAN_BYTES} are allowed."])
    kept = loads(dumps(plan))  # as it is stored, and read again
    assert isinstance(kept, dict)
    return kept


def _document(planned: Step, plan: Mapping[str, Plain], problems: Problems) -> Document | None:
    """The plan as the document of a workflow that only does what it may; None where it can't be made one."""
    planning = _planning(planned)
    spec: dict[str, Any] = {
        "inputs": {"type": "object", "properties": {name: {} for name in planning.inputs}},
        "steps": deepcopy(plan.get("steps")),
    }
    if plan.get("outputs") is not None:
        spec["outputs"] = deepcopy(plan["outputs"])
    document = Document(
        "plan",
        {"apiVersion": API_VERSION, "kind": "Workflow", "metadata": {"name": "plan"}, "spec": spec},
    )
    if not isinstance(spec["steps"], list) or not spec["steps"]:
        problems.add(document.error("BAD_PLAN", "spec.steps", "must be a list of at least one step."))
        return None
    _Allowed(document, planning, problems).all()
    return None if problems else document


class _Allowed:
    """What a plan uses is what it may use. Afterwards its steps say what their actions do to the world."""

    def __init__(self, document: Document, planning: Planning, problems: Problems) -> None:
        self.document, self.planning, self.problems = document, planning, problems
        self.pinned = {ref.partition("@")[0]: ref for ref in planning.workflows}

    def all(self) -> None:
        steps = list(_steps(self.document.spec["steps"], "spec.steps"))
        if len(steps) > self.planning.most:
            self._say("spec.steps", f"has {len(steps)} steps; at most {self.planning.most} are allowed.")
            return
        for place, step in steps:
            self._step(place, step)

    def _say(self, place: str, message: str) -> None:
        self.problems.add(self.document.error("BAD_PLAN", place, message))

    def _step(self, place: str, step: dict[str, Any]) -> None:
        for field in ("plan", "cache", "priority"):
            if field in step:
                self._say(f"{place}.{field}", f"a planned step has no {field}.")
        if "agent" in step:
            self._one_of(f"{place}.agent", step["agent"], self.planning.agents, "agent")
        if "memory" in step:
            self._one_of(f"{place}.memory", step["memory"], self.planning.memory, "operation of memory")
        if "workflow" in step and self._one_of(
            f"{place}.workflow", step["workflow"], self.pinned, "workflow"
        ):
            step["workflow"] = self.pinned[step["workflow"]]
        if "connector" in step:
            self._action(f"{place}", step)
        made_good = step.get("compensate")
        if isinstance(made_good, dict):
            self._one_of(
                f"{place}.compensate.connector", made_good.get("connector"), self.planning.actions, "action"
            )
        gate = step.get("gate")
        for field in gate if isinstance(gate, dict) else ():
            if field not in _GATE:
                self._say(f"{place}.gate.{field}", "a planned gate always asks a person; leave it out.")
        wait = step.get("wait")
        if isinstance(wait, dict) and "event" in wait:
            self._say(f"{place}.wait.event", "a planned step waits for a time, not for an event.")

    def _action(self, place: str, step: dict[str, Any]) -> None:
        action, actions = step["connector"], self.planning.actions
        if not self._one_of(f"{place}.connector", action, actions, "action"):
            return
        effect = actions[action]
        if step.get("effect", effect) != effect:
            self._say(f"{place}.effect", f"{action} is {effect}, whatever a plan says; leave it out.")
        step["effect"] = effect

    def _one_of(self, place: str, name: Any, known: Iterable[str], what: str) -> bool:
        names = list(known)
        if isinstance(name, str) and name in names:
            return True
        near = difflib.get_close_matches(str(name)[:80], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it may use: {', '.join(names) or 'none'}."
        self._say(place, f"the plan may not use the {what} {str(name)[:80]!r}; {hint}")
        return False


def _steps(data: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The steps of a list, and those of their bodies, with their places; what is none is passed over."""
    for at, step in enumerate(data if isinstance(data, list) else []):
        if not isinstance(step, dict):
            continue
        yield f"{place}[{at}]", step
        for kind in ("map", "repeat"):
            if isinstance(step.get(kind), dict):
                yield from _steps(step[kind].get("steps"), f"{place}[{at}].{kind}.steps")
