"""Which steps run again when a run that ended goes on: what stopped with it, what a person goes back to, and what came
of that. A step that is not among them is not repeated."""

from dataclasses import dataclass, field

from aios.run.v1 import state_pb2 as st
from aios_core.errors import TerminalError
from aios_core.step_names import home_of, is_inside
from aios_orchestrator.core.draft import Draft, round_of
from aios_orchestrator.workflow import path_of, scope_of


@dataclass
class Again:
    """`steps` begin anew; `bodies` go on, with the rounds that they have begun. Of both, names in the run."""

    draft: Draft
    steps: dict[str, None] = field(default_factory=dict)
    bodies: dict[str, None] = field(default_factory=dict)
    _todo: list[str] = field(default_factory=list)

    def stopped(self, scope: str = "") -> None:
        """What in a scope failed, or was cut off when the run ended; not what a map inside of it goes on without, nor
        what is a part of a step that was left out."""
        for step in self.draft.run.steps.values():
            if not step.name.startswith(scope):
                continue
            failed = step.state == st.STEP_STATE_FAILED and not self._gone_without(step.name, scope)
            if failed or step.state == st.STEP_STATE_CANCELLED:
                (self.steps if step.body is None else self.bodies)[step.name] = None

    def _gone_without(self, name: str, scope: str) -> bool:
        while scope_of(name) != scope:
            name, _ = home_of(name)
            left_out = self.draft.run.at(name).state == st.STEP_STATE_SKIPPED
            if left_out or self.draft.workflow.at(name).own.collect:
                return True
        return False

    def around(self, name: str) -> None:
        """What a step is a part of goes on, and what came of the whole of that begins anew. Raises INVALID_ARGUMENT
        for a step of an earlier turn of a repeat, and for a part of a step that was left out, or that has other steps
        since it ran."""
        self._around(name)
        self._finish()

    def back_to(self, name: str) -> None:
        """A step, its own steps, and what came of it begin anew. Raises INVALID_ARGUMENT as `around` does."""
        self._anew(name)
        self._finish()

    def without(self, name: str) -> None:
        """A step is left out, and its own steps stay as they are."""
        for names in (self.steps, self.bodies):
            for inner in [inner for inner in names if is_inside(inner, name)]:
                del names[inner]
        self.bodies.pop(name, None)
        self.steps[name] = None

    def _finish(self) -> None:
        while self._todo:
            name = self._todo.pop()
            self._follow(name)
            self._around(name)
        for name in self.steps:
            self.bodies.pop(name, None)

    def _anew(self, name: str) -> None:
        if name in self.steps:
            return
        self.steps[name] = None
        self._todo.append(name)
        if (
            self.draft.workflow.at(name).body is not None
        ):  # of one that was left out the run does not know it any more
            self.steps |= {inner: None for inner in self.draft.run.steps if is_inside(inner, name)}

    def _follow(self, name: str) -> None:
        """What needed the step, and has begun, begins anew."""
        workflow, steps = self.draft.workflow, self.draft.run.steps
        for path in workflow.dependents.get(path_of(name), ()):
            other = scope_of(name) + workflow.steps[path].local
            if other in steps and steps[other].state != st.STEP_STATE_PENDING:
                self._anew(other)

    def _around(self, name: str) -> None:
        while True:
            owner, index = home_of(name)
            if not owner or owner in self.steps:
                return
            step, state = self.draft.workflow.at(owner), self.draft.run.at(owner)
            done = state.state == st.STEP_STATE_SUCCEEDED
            if state.state == st.STEP_STATE_SKIPPED:
                raise TerminalError(
                    "INVALID_ARGUMENT",
                    f"step: {name} is a part of {owner!r}, which was left out. Go back to {owner!r} itself.",
                    field="step",
                )
            if state.begun.steps != step.own.size:
                raise TerminalError(
                    "INVALID_ARGUMENT",
                    f"step: {name} is a part of {owner!r}, whose steps are others now than when it ran. "
                    f"Go back to {owner!r} itself.",
                    field="step",
                )
            if step.kind == "repeat" and (done or index != state.begun.begun - 1):
                raise TerminalError(
                    "INVALID_ARGUMENT",
                    f"step: {name} is in a turn of {owner!r} that is over. Go back to {owner!r} itself.",
                    field="step",
                )
            if step.own.collect:
                self.stopped(round_of(step, index))
            if done and owner not in self.bodies:
                self._follow(owner)
            self.bodies[owner] = None
            name = owner


def gates_to_ask(draft: Draft, steps: dict[str, None], edited: str) -> list[str]:
    """The gates that must ask once more: an approval counts for what was shown, in its time, and for one effect."""
    run, found = draft.run, []
    for name in steps:
        gate = draft.workflow.gate_of(name)
        if not gate or gate in steps or gate not in run.steps:
            continue
        approval = run.approvals.get(run.steps[gate].approval_id)
        step = run.at(name)
        good = (
            approval is not None
            and approval.state == st.APPROVAL_STATE_APPROVED
            and draft.clock <= approval.expire_time_ms
            and not (step.error is not None and step.error.code.startswith("APPROVAL_"))
        )
        if not good or name == edited or step.effect_order:
            found.append(gate)
    return found


def may_start(draft: Draft) -> None:
    """Have `advance` look at all that has not begun, outside of bodies and in the rounds that are not over."""
    run, workflow = draft.run, draft.workflow
    homes: dict[str, list[str]] = {}
    for step in workflow.ordered:
        homes.setdefault(step.scope, []).append(step.name)
    draft.may_start(homes[""])
    for owner, rounds in run.rounds.items():
        step = workflow.at(owner)
        draft.turned[owner] = None
        for index in range(run.at(owner).begun.begun):
            scope = round_of(step, index)
            paths = [
                path
                for path in homes[path_of(scope)]
                if run.at(scope + workflow.steps[path].local).state == st.STEP_STATE_PENDING
            ]
            if paths and index not in rounds.failed:
                draft.may_start(paths, scope)
