"""A decision in the making: events are stamped into the chain and applied to a private copy of the run as they come."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any, Final

from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios_core.encoding import decode_trusted
from aios_core.hashing import event_hash
from aios_core.labels import RESOURCE, Label
from aios_core.step_names import home_of
from aios_core.values import Leaf, Value, labeled
from aios_orchestrator.core.fold import apply
from aios_orchestrator.core.money import Purse
from aios_orchestrator.mapping import Lookup
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.progress import DONE_STEP
from aios_orchestrator.workflow import ONCE, Step, Workflow, path_of, scope_of

SCHEMA: Final = 1  # of RunEvent
SEMANTICS: Final = 1  # of what its fields mean


class Draft:
    """Collects what one decision does: `events` (stored bytes, in order), `dispatched` and `undoing` (step names
    whose tasks are to be put on the bus), `ended` (steps that succeeded, were skipped or failed), `waiting` (the
    correlations of events that are waited for from now on), `next` (the steps that may be ready now: a heap of their
    places, the numbers of their rounds, and their scopes), `turned` (the steps whose rounds may have ended), `settled`
    (the serial numbers of holds that are settled, with the costs).

    `now` stamps the events and never goes back within a run; `clock` is what the clock shows, and what becomes due is
    reckoned by it: after a clock was wrong and is set right, a run must not wait until the wrong time comes. `purse` is
    what may be spent; without one only the run's own cap counts."""

    def __init__(
        self, run: Run, workflow: Workflow, now: int, actor: str, purse: Purse | None = None
    ) -> None:
        self.run = run.copy()
        self.workflow = workflow
        self.clock, self.now = now, max(now, run.update_time)
        self.actor, self.purse = actor, purse
        self.settled: list[tuple[int, int]] = []
        self.events: list[bytes] = []
        self.dispatched: list[str] = []
        self.undoing: list[str] = []
        self.waiting: list[str] = []
        self.ended: list[str] = []
        self.next: list[tuple[int, tuple[int, ...], str]] = []
        self.turned: dict[str, None] = {}
        self.guards: dict[str, Label] = {}

    def emit(self, **body: Any) -> None:
        """Add one event; the keyword names its body, such as `step_skipped=StepSkipped(…)`."""
        run = self.run
        event = RunEvent(
            schema=SCHEMA,
            semantics=SEMANTICS,
            workspace=run.workspace,
            run_id=run.run_id,
            sequence=run.sequence + 1,
            time_ms=self.now,
            actor=self.actor,
            previous_hash=run.last_hash,
            **body,
        )
        stored = event.SerializeToString()
        spent = [
            (step.name, step.charge, step.cost)
            for name, settles in body.items()
            if name in _SETTLES and (step := run.at(settles.step)).charge
        ]
        apply(run, event, event_hash(stored))
        for name, charge, cost in spent:
            if not run.at(name).charge:
                self.settled.append((charge, run.at(name).cost - cost))
        self.events.append(stored)
        for name, ended in body.items():
            if name in _ENDS:
                step = ended.step
                if name != "step_reused":  # nobody worked on it here
                    self.ended.append(step)
                scope = scope_of(step)
                if scope:
                    self.turned[home_of(step)[0]] = None
                if name != "step_failed":
                    self.may_start(self.workflow.dependents.get(path_of(step), ()), scope)

    def may_start(self, paths: Iterable[str], scope: str = "") -> None:
        """Have `advance` look at the steps of these paths in a scope of the run."""
        order = tuple(map(int, _NUMBERS.findall(scope))) if scope else ()
        for path in paths:
            heappush(self.next, (self.workflow.place[path], order, scope))

    def follow(self, workflow: Workflow) -> None:
        """Go on by another version, or by one that has the steps of a plan: what may be ready is known by places,
        which are others there."""
        before, self.workflow = self.workflow.ordered, workflow
        paths = [(before[place].name, order, scope) for place, order, scope in self.next]
        self.next = [
            (workflow.place[path], order, scope) for path, order, scope in paths if path in workflow.place
        ]
        heapify(self.next)
        self.guards.clear()

    def pop(self) -> Step:
        """The next step that may be ready, in the document's order."""
        place, _, scope = heappop(self.next)
        step = self.workflow.ordered[place]
        return step if step.scope == scope else self.workflow.at(scope + step.local)

    def look(self, root: str) -> Value | None:
        """What an expression outside of all bodies sees under a root."""
        return look(self.run, root)

    def look_from(self, scope: str) -> Lookup:
        """What expressions in a scope see."""
        return look_from(self.run, self.workflow, scope) if scope else self.look


def look_from(run: Run, workflow: Workflow, scope: str) -> Lookup:
    """What expressions in the scope of a run see: its own steps, its item, and what is around it."""
    owner, index = home_of(scope)
    step = workflow.at(owner)
    around = look_from(run, workflow, step.scope) if step.scope else partial(look, run)
    own = partial(_own, run, step, index)

    def find(root: str) -> Value | None:
        if root.startswith("steps."):
            name = root.removeprefix("steps.")
            here = path_of(scope + name) in workflow.steps
            if here or step.once:
                return _output(run, scope + name)
            return around(root)
        if root in _OWN[step.kind]:
            return own(root)
        return around(root)

    return find


def _own(run: Run, step: Step, index: int, root: str) -> Value | None:
    """What a body gives its steps: `item`, `index`, `previous`, or the `inputs` of a sub-workflow."""
    if root == "index":
        return Leaf(index, guard_of_round(run, step, index))
    if root == "previous":
        return carried(run, step.name)["result"] if index else None
    over = over_of(run, step.name)
    if root == "inputs":
        return over["inputs"]
    items = over["items"]
    assert isinstance(items, list)
    return items[index]


def over_of(run: Run, name: str) -> Mapping[str, Value]:
    """What a step with steps of its own goes over: `guard` (null with the label of what it depends on), and `items`
    of a map or `inputs` of a sub-workflow."""
    value = _decoded(run, f"{name}.over", run.at(name).input)
    assert isinstance(value, dict)
    return value


def carried(run: Run, name: str) -> Mapping[str, Value]:
    """What the present turn of a repeat has of the one before it: its `result`, and the `guard` of this one."""
    step = run.at(name)
    value = _decoded(run, f"{name}.turn{step.begun.begun}", step.output)
    assert isinstance(value, dict)
    return value


def guard_of_round(run: Run, step: Step, index: int) -> Label:
    """What it depends on that a round is gone through at all. Of a repeat, only the present turn is asked for."""
    known = carried(run, step.name) if index and step.kind == "repeat" else over_of(run, step.name)
    guard = known["guard"]
    assert isinstance(guard, Leaf)
    return guard.label


def target_of(run: Run, step: Step) -> str:
    """Who works on a step of the run: another agent than the workflow's, where a fork says so."""
    change = run.change_of(path_of(step.name))
    return change.agent if change is not None and change.agent else step.target


def round_of(step: Step, index: int) -> str:
    """The scope of a round of a step of a run."""
    return f"{step.name}." if step.once else f"{step.name}[{index}]."


def look(run: Run, root: str) -> Value | None:
    """What an expression sees of a run under a root; a step that was skipped, or failed, is None."""
    if root == "inputs":
        return _decoded(run, "", run.input)
    if root == "run":
        return labeled({"id": run.run_id, "workflow": run.workflow, "trigger": run.trigger}, RESOURCE)
    if root.startswith("steps."):
        return _output(run, root.removeprefix("steps."))
    return None


def _output(run: Run, name: str) -> Value | None:
    step = run.at(name)
    return _decoded(run, step.name, step.output) if has_done(step) and step.output else None


def has_done(step: StepRun) -> bool:
    """Whether the step was done, or skipped, whatever became of what it changed."""
    return step.state in DONE_STEP or step.state in _AFTER_DONE


def _decoded(run: Run, key: str, data: bytes) -> Value:
    value = run.decoded.get(key)
    if value is None:
        value = decode_trusted(data)
    run.remember(key, value)
    return value


_OWN: Final = {
    "map": ("item", "index"),
    "repeat": ("index", "previous"),
    **dict.fromkeys(ONCE, ("inputs",)),
}
_NUMBERS: Final = re.compile(r"\[(\d+)\]")
_ENDS: Final = frozenset({"step_succeeded", "step_skipped", "step_failed", "step_reused"})
_SETTLES: Final = frozenset(
    {"step_succeeded", "step_failed", "step_retry_scheduled", "step_unknown", "plan_refused"}
)
_AFTER_DONE: Final = frozenset(
    {
        st.STEP_STATE_UNDOING,
        st.STEP_STATE_UNDONE,
        st.STEP_STATE_UNDO_CONFLICT,
        st.STEP_STATE_REDOING,
    }
)
